"""``python -m dhmpi.doctor``: examine a machine under its own launcher, before a search runs there.

All ranks measure together, some twenty seconds at most; rank 0 says what was found, what it means, and what to do.
What figures mean is `dhmpi.diagnosis`, measuring is `dhmpi.mpi.examine`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import select
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dhmpi import __version__, diagnosis, platform
from dhmpi.check import Parser
from dhmpi.diagnosis import IMPORTING, Facts, Finding, Verdict
from dhmpi.errors import EXIT_BAD_INPUT, DhmpiError, OptionError
from dhmpi.mpi.environment import job_deadline, job_id, launcher_rank, launcher_size
from dhmpi.tables import as_json, terminal_width

PROG = "python -m dhmpi.doctor"
DESCRIPTION = (
    "Examine a machine before a search runs there: start this as the search will be started, under mpiexec, aprun or"
    " srun, or with python -m dhmpi.launch -n RANKS doctor. Takes twenty seconds at most. Exit code 0 if a search can"
    " run, 1 if it could not, 2 if there is nothing to examine."
)
EXIT_PROBLEM = 1
PINGING = 3.0
"""Seconds for messages."""
MODULES = ("numpy",)
"""What every rank imports."""
HEAVY_MODULES = ("ConfigSpace", "sklearn.ensemble", "tensorflow")
"""What one rank of each host imports: a searcher's, and networks'."""
WIDTH = 110
VISIBLE = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "ZE_AFFINITY_MASK", "HIP_VISIBLE_DEVICES")
DEVICES = ("nvidia[0-9]*", "dri/renderD*")


@dataclass(frozen=True)
class Options:
    """What is asked for.

    Attributes
    ----------
    log_dir : str or None
        Directory in which runs will be.
    run : str or None
        Run function to import.
    json : bool
    """

    log_dir: str | None = None
    run: str | None = None
    json: bool = False


class Program:
    """What `dhmpi.launch` needs to know of a program."""

    def parse(self, arguments: Sequence[str] | None = None) -> Options:
        """Return the options of a command line, checked.

        Raises
        ------
        OptionError
        """
        values = vars(parser().parse_args(arguments))
        options = Options(**{field.name: values[field.name] for field in dataclasses.fields(Options)})
        if options.log_dir is not None and not Path(options.log_dir).is_dir():
            raise OptionError(f"--log-dir {options.log_dir}: there is no such directory")
        return options


PROGRAM = Program()


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    result = Parser(prog=PROG, description=DESCRIPTION, allow_abbrev=False)
    result.add_argument(
        "--log-dir", metavar="DIRECTORY", help="an existing directory in which runs will be; by default the working one"
    )
    result.add_argument(
        "--run", metavar="NAME", help="package.module.name of a run function, or a .py file: import it on every rank"
    )
    result.add_argument("--json", action="store_true", help="for programs")
    result.add_argument("--version", action="version", version=f"dhmpi {__version__}")
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Examine; return the exit code of this rank."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    if launcher_rank() > 0 and {"-h", "--help", "--version"} & set(words):
        return 0
    try:
        options = PROGRAM.parse(words)
    except DhmpiError as error:
        if launcher_rank() == 0:
            print(f"dhmpi.doctor: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    began = time.monotonic()
    importer = _Importer()  # before MPI is initialised, as the children of a search
    try:
        findings, rank = _examine(options, importer)
    finally:
        importer.close()
    if rank == 0:
        print(_as_json(findings) if options.json else _report(findings, time.monotonic() - began), flush=True)
    return EXIT_PROBLEM if diagnosis.worst(findings) is Verdict.PROBLEM else 0


def _examine(options: Options, importer: _Importer) -> tuple[list[Finding], int]:
    """Measure, and judge (collective over the world); return the same findings on every rank, and this rank."""
    from dhmpi.mpi import examine, world  # late: --help needs no MPI

    meeting = world.meet()
    comm, library = meeting.comm, meeting.library
    rank, size = comm.Get_rank(), comm.Get_size()
    expected = launcher_size()
    if expected is not None and expected != size:  # nobody to measure with; each process is rank 0 of its own world
        return [diagnosis.world(size, expected, [_facts()], library, meeting.seconds)], launcher_rank()
    facts: list[Facts] = examine.gather(comm, _facts())
    hosts = [fact.host for fact in facts]
    seconds = max(examine.gather(comm, meeting.seconds))
    findings = [diagnosis.world(size, expected, facts, library, seconds), diagnosis.threads(meeting.thread_level)]
    findings += [diagnosis.fault_tolerance(meeting.can_survive, library), diagnosis.cores(facts, _flavour(library))]
    findings.append(diagnosis.speed(examine.gather(comm, examine.speed(comm)), facts))
    pings = examine.ping(comm, hosts, PINGING)
    findings += [diagnosis.messages(pings, hosts), diagnosis.clocks(pings, hosts)]
    directory = Path(options.log_dir or ".").absolute()
    token = comm.bcast(f"{os.getpid():x}{time.time_ns() & 0xFFFF:x}")
    findings += diagnosis.filesystem(examine.files(comm, hosts, directory, token), hosts, str(directory))
    findings += [diagnosis.memory(facts), diagnosis.gpus(facts)]
    names = [*MODULES, *([f"run:{options.run}"] if options.run else ())]
    if hosts.index(hosts[rank]) == rank:
        names += HEAVY_MODULES
    answers = examine.gather(comm, (importer.ask(names, IMPORTING), importer.started))
    findings.append(diagnosis.imports([answer for answer, _ in answers], [start for _, start in answers]))
    findings.append(_job())
    findings = comm.bcast(findings)  # clocks differ: all must end with the same exit code
    examine.calm(comm)
    return findings, rank


def _facts() -> Facts:
    affinity = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    devices = next((found for pattern in DEVICES if (found := sorted(Path("/dev").glob(pattern)))), [])
    visible = next((f"{name}={os.environ[name]}" for name in VISIBLE if name in os.environ), "")
    return Facts(
        host=socket.gethostname(),
        cores=tuple(affinity),
        n_cores=os.cpu_count() or 1,
        gpus=tuple(map(str, devices)),
        visible=visible,
        memory=platform.available_mb(),
        python=sys.version.split()[0],
        version=__version__,
    )


def _job() -> Finding:
    try:
        deadline = job_deadline()
    except OptionError as error:
        return Finding("job", Verdict.PROBLEM, str(error), "No search begins: the job script has to set or unset it.")
    return diagnosis.job(job_id(), None if deadline is None else deadline - time.time())


def _flavour(library: str) -> str:
    """Return which launcher the ranks were started by, as far as that can be told."""
    marks = {"ALPS_APP_PE": "aprun", "PALS_RANKID": "pals", "SLURM_STEP_NUM_TASKS": "slurm"}
    found = next((flavour for name, flavour in marks.items() if name in os.environ), None)
    return found or ("openmpi" if "Open MPI" in library else "hydra" if "MPICH" in library else "other")


class _Importer:
    """A process in which this rank imports, started before MPI is."""

    def __init__(self) -> None:
        from dhmpi.platform import scrub

        self._began = time.monotonic()
        self.started = 0.0
        """Seconds until it was there."""
        try:
            self._process: subprocess.Popen[bytes] | None = subprocess.Popen(
                [sys.executable, "-m", "dhmpi.evaluate.imports"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=scrub(os.environ),
            )
        except OSError:
            self._process = None
        self._buffer = b""

    def ask(self, names: Sequence[str], seconds: float) -> Mapping[str, float | str | None]:
        """Return for each name how long its import took, why there is none, or None if it is not installed.

        What takes longer than `seconds`, all together, is not waited for: it gets `seconds`, and later names nothing.
        """
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            return dict.fromkeys(names, "no process can be started here")
        deadline = time.monotonic() + seconds
        if not self.started:
            ready = self._answer(process, deadline)
            if ready is None and process.poll() is not None:
                return dict.fromkeys(names, "Python cannot be started here")
            self.started = time.monotonic() - self._began if ready is None else ready["at"] - self._began
            if ready is None:
                return {}
        answers: dict[str, float | str | None] = {}
        for name in names:
            try:
                process.stdin.write(name.encode() + b"\n")
                process.stdin.flush()
            except OSError:
                answers[name] = "the process that imported it has ended"
                break
            answer = self._answer(process, deadline)
            if answer is None:
                answers[name] = seconds if process.poll() is None else "the process that imported it has ended"
                break
            answers[name] = None if answer.get("missing") else answer.get("reason") or float(answer["seconds"])
        return answers

    def _answer(self, process: subprocess.Popen[bytes], deadline: float) -> dict[str, Any] | None:
        assert process.stdout is not None
        fd = process.stdout.fileno()
        while b"\n" not in self._buffer:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([fd], [], [], left)[0]:
                return None
            chunk = os.read(fd, 1 << 16)
            if not chunk:
                process.kill()  # it ends, or has given its answers up
                process.wait()
                return None
            self._buffer += chunk
        line, self._buffer = self._buffer.split(b"\n", 1)
        return {**json.loads(line), "at": time.monotonic()}

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()


def _report(findings: Sequence[Finding], seconds: float) -> str:
    width = min(WIDTH, terminal_width(sys.stdout) or WIDTH)
    name_width = max(len(finding.name) for finding in findings)
    lines = []
    for finding in findings:
        head = f"{finding.verdict:<8} {finding.name:<{name_width}}  "
        lines += textwrap.wrap(
            f"{finding.figure}.", width, initial_indent=head, subsequent_indent=" " * len(head), break_on_hyphens=False
        )
        indent = " " * (len(head) + 2)
        lines += textwrap.wrap(
            finding.meaning, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
        )
    worst = diagnosis.worst(findings)
    said = {
        Verdict.OK: "A search can run here.",
        Verdict.NOTE: "A search can run here; see the notes.",
        Verdict.WARNING: "A search can run here, but see the warnings.",
        Verdict.PROBLEM: "A search could not run here as things are: see the problems.",
    }
    lines += ["", f"{said[worst]} Examined in {seconds:.0f} s."]
    return "\n".join(lines)


def _as_json(findings: Sequence[Finding]) -> str:
    rows = [{**finding._asdict(), "verdict": str(finding.verdict)} for finding in findings]
    return as_json({"verdict": str(diagnosis.worst(findings)), "findings": rows})


if __name__ == "__main__":
    sys.exit(main())
