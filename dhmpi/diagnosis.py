"""What measurements on a machine mean: pure functions from figures to findings, for `dhmpi.doctor`.

A finding has a verdict, the figure in a sentence, and what follows from it for a search.  No MPI here.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from dhmpi.mpi.examine import Files, Ping

SLOW_MESSAGE = {True: 2e-4, False: 1e-3}
"""Seconds of a message and its answer, within a host and between hosts, above which something is wrong."""
SLOW_POLITE = 0.02
SLOW_SYNC = 0.1
"""Seconds; the journal is forced onto the disk once a second."""
SLOW_CREATE = 0.05
SLOW_SEEN = 1.0
FAR_CLOCK = 1.0
"""Seconds between clocks, above which files of one host look too old or too new to another."""
SLOW_START = 20.0
IMPORTING = 10.0
"""Seconds after which an import is not waited for, and is slow."""
SLOW_RANK = 1.5
"""A rank that needs so many times as long as most is slow."""
SHARED_CORE = 0.75
"""Part of a core that a rank should have at least."""
LITTLE_SPACE = 1 << 30
LITTLE_MEMORY = 512
"""MB a rank."""
SHORT_JOB = 600.0
MB = 1 << 20


class Verdict(str, Enum):
    """How good a finding is."""

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    PROBLEM = "problem"

    def __str__(self) -> str:
        return self.value


class Finding(NamedTuple):
    """One thing that was looked at."""

    name: str
    verdict: Verdict
    figure: str
    """What was found, in a sentence without a full stop."""
    meaning: str
    """What that means for a search, and what to do."""


class Facts(NamedTuple):
    """What one rank knows of itself."""

    host: str
    cores: tuple[int, ...]
    """Numbers of those it may use."""
    n_cores: int
    """Of its host."""
    gpus: tuple[str, ...]
    """Device files of GPUs on its host."""
    visible: str
    """The variable that says which GPUs it may use, empty if there is none."""
    memory: float
    """MB that are free on its host."""
    python: str
    version: str
    """Of dhmpi."""


def world(size: int, expected: int | None, facts: Sequence[Facts], library: str, seconds: float) -> Finding:
    """Judge whether the ranks are one world."""
    n_hosts = len({fact.host for fact in facts})
    found = f"{_count(size, 'rank')} on {_count(n_hosts, 'host')}, {library}, initialised in {seconds:.1f} s"
    if expected is not None and expected != size:
        return Finding(
            "world",
            Verdict.PROBLEM,
            f"the launcher started {_count(expected, 'process', 'processes')}, MPI sees {size}",
            f"Launcher and mpi4py belong to different MPI libraries (mpi4py's is {library}), so that every process is "
            f"a world of its own. Use the mpiexec of that library, or rebuild mpi4py with the machine's: "
            f"MPICC=cc pip install --no-binary mpi4py --force-reinstall mpi4py.",
        )
    versions = {(fact.python, fact.version) for fact in facts}
    if len(versions) > 1:
        return Finding(
            "world",
            Verdict.PROBLEM,
            "ranks have different versions: " + ", ".join(f"Python {p} with dhmpi {v}" for p, v in sorted(versions)),
            "Messages between them may not be understood. Have all hosts use the same environment, on a shared file "
            "system or copied to each.",
        )
    if seconds > SLOW_START:
        return Finding(
            "world",
            Verdict.WARNING,
            found,
            "MPI takes long to start. That is time of the allocation, once per launch: prefer few long launches.",
        )
    if expected is None and size == 1:
        return Finding(
            "world",
            Verdict.NOTE,
            found,
            "No launcher: one rank can search, with master, searcher and evaluator in one, but examines little here. "
            "Start the doctor as the search will be started, for example python -m dhmpi.launch -n 8 doctor.",
        )
    return Finding("world", Verdict.OK, found, "All processes belong to one MPI world, as a search needs.")


def threads(level: str) -> Finding:
    """Judge the thread level of MPI."""
    figure = f"MPI allows {level} use of threads"
    if level == "multiple":
        return Finding("threads", Verdict.OK, figure, "Enough for everything, also for data-parallel evaluations.")
    return Finding(
        "threads",
        Verdict.NOTE,
        figure,
        "dhmpi itself calls MPI from one thread only and needs no more. Evaluations that are data-parallel with "
        "Horovod want MPI_THREAD_MULTIPLE.",
    )


def fault_tolerance(can_survive: bool, library: str) -> Finding:
    """Judge what the death of a rank means."""
    if can_survive:
        return Finding(
            "faults",
            Verdict.OK,
            "the death of a rank is survived (ULFM)",
            "The others go on; what ran on the dead rank is tried again, and a dead master is replaced. The loss of a "
            "whole node still ends the job: dhmpi.launch --restarts resumes it.",
        )
    if "Open MPI v5" in library or "Open MPI v6" in library:
        return Finding(
            "faults",
            Verdict.NOTE,
            "the death of a rank ends the job, though this MPI could survive it",
            "Start with mpiexec --with-ft ulfm, which dhmpi.launch adds by itself. Otherwise nothing finished is lost: "
            "--resume, or dhmpi.launch --restarts, goes on from the journal.",
        )
    return Finding(
        "faults",
        Verdict.NOTE,
        f"the death of a rank ends the job ({library} cannot survive it)",
        "Nothing finished is lost: dhmpi.launch --restarts N, or the job script, resumes inside the allocation, and "
        "--resume afterwards. Evaluations run in child processes, whose crashes kill no rank.",
    )


def messages(pings: Sequence[Ping], hosts: Sequence[str]) -> Finding:
    """Judge how long messages take."""
    if not pings:
        return Finding("messages", Verdict.OK, "none: there is one rank", "All roles share this process.")
    parts, slow = [], []
    for same in (True, False):
        some = [ping for ping in pings if (hosts[ping.rank] == hosts[0]) is same]
        if not some:
            continue
        worst = max(some, key=lambda ping: ping.seconds)
        middle = statistics.median(ping.seconds for ping in some)
        polite = statistics.median(ping.polite for ping in some)
        where = "within a host" if same else f"to {_count(len(some), 'other host')}"
        parts.append(f"{micro(middle)} there and back {where}, {micro(polite)} for ranks that sleep between looks")
        if worst.seconds > SLOW_MESSAGE[same] or worst.polite > SLOW_POLITE:
            slow.append(f"rank {worst.rank} on {hosts[worst.rank]} ({micro(max(worst.seconds, worst.polite))})")
    figure = "; ".join(parts)
    if slow:
        return Finding(
            "messages",
            Verdict.WARNING,
            figure,
            f"Slow: {', '.join(slow)}. Usual causes are more ranks than cores (see cores) and an MPI that has fallen "
            f"back to TCP. Evaluations of a second and more do not suffer; shorter ones will keep evaluators waiting.",
        )
    return Finding(
        "messages",
        Verdict.OK,
        figure,
        "An evaluator gets its next trial, and the master its outcome, in about the second of these times.",
    )


def clocks(pings: Sequence[Ping], hosts: Sequence[str]) -> Finding:
    """Judge how far clocks are apart."""
    others = [ping for ping in pings if hosts[ping.rank] != hosts[0]]
    if not others:
        return Finding("clocks", Verdict.OK, "one host, one clock", "Times in journal and results need no correction.")
    worst = max(others, key=lambda ping: abs(ping.offset))
    figure = (
        f"at most {abs(worst.offset) * 1e3:.1f} ms apart ({hosts[worst.rank]}), measured to within "
        f"{max(ping.uncertainty for ping in others) * 1e3:.1f} ms"
    )
    if abs(worst.offset) > FAR_CLOCK:
        return Finding(
            "clocks",
            Verdict.WARNING,
            figure,
            "dhmpi corrects the times of evaluations, but other programs do not: a run may look alive or dead to other "
            "hosts when it is not, and make and NFS misjudge files. Ask for time synchronisation (chrony, NTP).",
        )
    return Finding("clocks", Verdict.OK, figure, "Times in journal and results are corrected by this.")


def filesystem(found: Sequence[Files], hosts: Sequence[str], directory: str) -> list[Finding]:
    """Judge the directory in which runs will be."""
    first = found[0]
    if first.error:
        return [
            Finding(
                "files",
                Verdict.PROBLEM,
                f"no run can be written here: {first.error}",
                "The master writes journal and results into the run directory. Give a directory that every host may "
                "write, with --log-dir.",
            )
        ]
    leaders = [hosts.index(host) for host in dict.fromkeys(hosts)]
    blind = [hosts[rank] for rank in leaders if found[rank].seen is None]
    if blind:
        shown = ", ".join(blind[:4]) + (f" and {len(blind) - 4} more" if len(blind) > 4 else "")
        return [
            Finding(
                "files",
                Verdict.PROBLEM,
                f"{directory} is not shared: {shown} did not see in 5 s what {hosts[0]} wrote",
                "Evaluations on those hosts have no working directory and a master that dies has no heir there. Give a "
                "directory on a shared file system with --log-dir.",
            )
        ]
    create = statistics.median(item.create for item in found)
    seen = max(found[rank].seen or 0.0 for rank in leaders)
    shared = f", seen on all {len(leaders)} hosts within {seen * 1e3:.0f} ms" if len(leaders) > 1 else ""
    findings = [_sync(first, directory, shared, slow_view=len(leaders) > 1 and seen > SLOW_SEEN)]
    figure = f"{milli(create)} to make and remove an evaluation's directory, on all ranks at once"
    if create > SLOW_CREATE:
        findings.append(
            Finding(
                "tasks",
                Verdict.WARNING,
                figure,
                "Every evaluation makes such a directory. Where evaluations are short use --task-dirs none (or "
                "failed), which keeps them in memory.",
            )
        )
    else:
        findings.append(Finding("tasks", Verdict.OK, figure, "Little beside evaluations of a tenth of a second."))
    broken = sorted({item.error for item in found if item.error})
    if broken:
        findings.append(
            Finding(
                "tasks",
                Verdict.WARNING,
                f"some ranks cannot write: {broken[0]}",
                "Evaluations there would fail. Look at the permissions and quotas of these hosts.",
            )
        )
    return findings


def _sync(first: Files, directory: str, shared: str, slow_view: bool) -> Finding:
    figure = (
        f"{directory}: {milli(first.sync)} to force a line onto the disk (slowest {milli(first.slowest_sync)}), "
        f"{first.free / (1 << 30):.0f} GB free{shared}"
    )
    if first.free < LITTLE_SPACE:
        return Finding(
            "files",
            Verdict.WARNING,
            figure,
            "Less than 1 GB is left. A search stops when its journal cannot be written, and goes on with --resume.",
        )
    if not first.links:
        return Finding(
            "files",
            Verdict.PROBLEM,
            f"{directory}: the file system has no hard links",
            "A run directory is locked with one, so that no two launches write the same run. Give a directory on "
            "another file system with --log-dir.",
        )
    if first.sync > SLOW_SYNC or slow_view:
        return Finding(
            "files",
            Verdict.WARNING,
            figure,
            "The journal is forced onto the disk once a second, and the master waits for that. A parallel file system "
            "(Lustre, GPFS) is usually better than a home directory.",
        )
    return Finding(
        "files",
        Verdict.OK,
        figure,
        "The master does this once a second, so that the death of the machine loses a second at most.",
    )


def cores(facts: Sequence[Facts], flavour: str) -> Finding:
    """Judge which cores ranks may use."""
    per_rank = [share(fact, facts) for fact in facts]
    least, most = min(per_rank), max(per_rank)
    n_hosts = len({fact.host for fact in facts})
    figure = f"{_span(least, most)} cores a rank ({_count(n_hosts, 'host')} of {_hosts_cores(facts)} cores)"
    if least < 1:
        n_ranks = max(sum(other.host == fact.host for other in facts) for fact in facts)
        return Finding(
            "cores",
            Verdict.WARNING,
            figure,
            f"There are more ranks than cores ({n_ranks} on a host): they take turns, and evaluations take longer. "
            f"That is fine to try things out. Else start fewer ranks per node; master and searcher alone need little.",
        )
    wasted = [host for host in dict.fromkeys(fact.host for fact in facts) if _unused(host, facts) > 0]
    if wasted:
        unused = _unused(wasted[0], facts)
        return Finding(
            "cores",
            Verdict.WARNING,
            f"{figure}; {unused} cores of {wasted[0]} are nobody's",
            f"Ranks are bound to a part of the cores, and so is what they evaluate. {_binding_advice(flavour)}",
        )
    return Finding(
        "cores",
        Verdict.OK,
        figure,
        f"An evaluation gets {max(1, int(least))} threads (OMP_NUM_THREADS and its kin) unless --num-threads-per-rank "
        f"says otherwise.",
    )


def share(fact: Facts, facts: Sequence[Facts]) -> float:
    """Return how many cores a rank has when its neighbours with the same ones have theirs."""
    sharing = sum(other.host == fact.host and other.cores == fact.cores for other in facts)
    return len(fact.cores) / sharing


def _unused(host: str, facts: Sequence[Facts]) -> int:
    here = [fact for fact in facts if fact.host == host]
    used = {core for fact in here for core in fact.cores}
    return here[0].n_cores - len(used)


def _binding_advice(flavour: str) -> str:
    """Return how a launcher is told to leave ranks their cores."""
    advice = {
        "openmpi": "Give mpiexec --bind-to none, or --map-by slot:PE=N for N cores each.",
        "slurm": "Give srun --cpus-per-task N, with N cores for each rank of a node.",
        "pals": "Give mpiexec --depth N --cpu-bind depth.",
        "aprun": "Give aprun -d N -cc depth.",
        "hydra": "Give mpiexec -bind-to none.",
    }
    return advice.get(flavour, "Tell the launcher to bind each rank to more cores, or to none.")


def _hosts_cores(facts: Sequence[Facts]) -> str:
    numbers = [next(fact.n_cores for fact in facts if fact.host == host) for host in {fact.host for fact in facts}]
    return _span(min(numbers), max(numbers))


def speed(measured: Sequence[tuple[float, float]], facts: Sequence[Facts]) -> Finding:
    """Judge how fast each rank computes while all do."""
    seconds = [wall for wall, _ in measured]
    middle = statistics.median(seconds)
    slowest = max(range(len(seconds)), key=seconds.__getitem__)
    part = statistics.median(cpu for _, cpu in measured)
    figure = (
        f"a fixed loop takes {milli(middle)}, {milli(seconds[slowest])} on the slowest rank ({slowest} on "
        f"{facts[slowest].host}); ranks have {100 * part:.0f} % of a core while all compute"
    )
    if part < SHARED_CORE:
        return Finding(
            "speed",
            Verdict.WARNING,
            figure,
            "Ranks take turns on cores: there are more of them than cores, or other programs run here. Evaluations "
            "take longer by that.",
        )
    if len(seconds) > 2 and seconds[slowest] > SLOW_RANK * middle:
        return Finding(
            "speed",
            Verdict.WARNING,
            figure,
            f"{facts[slowest].host} is slower than the others. A search lives with that, since nobody waits for a slow "
            f"evaluator; but look for other programs there, or for a hot or broken node.",
        )
    return Finding("speed", Verdict.OK, figure, "All ranks compute equally fast.")


def memory(facts: Sequence[Facts]) -> Finding:
    """Judge how much memory there is for each rank."""
    per_rank = {}
    for host in dict.fromkeys(fact.host for fact in facts):
        here = [fact for fact in facts if fact.host == host]
        per_rank[host] = here[0].memory / len(here)
    poorest = min(per_rank, key=per_rank.__getitem__)
    figure = f"{per_rank[poorest] / 1024:.1f} GB are free for each rank (least, on {poorest})"
    if not per_rank[poorest]:
        return Finding("memory", Verdict.NOTE, "this system does not say how much is free", "Watch it yourself.")
    if per_rank[poorest] < LITTLE_MEMORY:
        return Finding(
            "memory",
            Verdict.WARNING,
            figure,
            "A rank with its child takes about 120 MB, TensorFlow 500 MB more, then the data. Start fewer ranks per "
            "node, or bound evaluations with --max-rss.",
        )
    return Finding(
        "memory",
        Verdict.OK,
        figure,
        "A rank with its child takes about 120 MB, TensorFlow 500 MB more, then the data. --max-rss bounds "
        "evaluations.",
    )


def gpus(facts: Sequence[Facts]) -> Finding:
    """Judge which GPUs there are."""
    counts = {fact.host: len(fact.gpus) for fact in facts}
    if not any(counts.values()):
        return Finding("gpus", Verdict.OK, "none", "Evaluations run on cores.")
    few, many = min(counts.values()), max(counts.values())
    seen = sorted({fact.visible for fact in facts if fact.visible})
    told = f"; ranks are told {', '.join(seen[:4])}" if seen else "; no variable says which are whose"
    if few != many:
        meaning = "Hosts differ: evaluations that need a GPU would fail on some."
        return Finding("gpus", Verdict.WARNING, f"{_span(few, many)} a host{told}", meaning)
    meaning = "Every evaluating process gets its own share of these."
    return Finding("gpus", Verdict.OK, f"{_span(few, many)} a host{told}", meaning)


def imports(answers: Sequence[Mapping[str, float | str | None]], start: Sequence[float]) -> Finding:
    """Judge how long imports take.

    Parameters
    ----------
    answers : sequence of mappings
        Of each rank: module (or run function) to seconds, to the reason why it cannot be imported, or to None if it is
        not installed.
    start : sequence of float
        Seconds that each rank's Python needed to start.
    """
    parts, slow = [f"Python itself {max(start):.1f} s"], max(start) >= IMPORTING
    for name in dict.fromkeys(name for answer in answers for name in answer):
        shown = name.removeprefix("run:")
        refusing = [rank for rank, answer in enumerate(answers) if isinstance(answer.get(name), str)]
        if refusing:
            n, first = _count(len(refusing), "rank"), refusing[0]
            return Finding(
                "imports",
                Verdict.PROBLEM,
                f"{shown} cannot be imported on {n} (the first is {first}): {answers[first][name]}",
                "A search would stop there. Is the environment the same on every host?",
            )
        seconds = [value for answer in answers if isinstance(value := answer.get(name), float)]
        if not seconds:
            parts.append(f"{shown} is not installed")
        elif max(seconds) >= IMPORTING:
            slow = True
            parts.append(f"{shown} more than {IMPORTING:.0f} s")
        else:
            parts.append(f"{shown} {max(seconds):.1f} s")
    figure = ", ".join(parts) + " (the slowest rank)"
    if slow:
        return Finding(
            "imports",
            Verdict.WARNING,
            figure,
            "Usually many ranks read many small files at once. Every evaluator pays this once per launch, and again "
            "when its process is replaced. A copy of the environment on each node's own disk helps.",
        )
    return Finding(
        "imports",
        Verdict.OK,
        figure,
        "Every evaluator pays for what its function imports once per launch, and again when its process is replaced.",
    )


def job(job_id: str | None, left: float | None) -> Finding:
    """Judge what the scheduler says."""
    if left is None:
        where = f"job {job_id}" if job_id else "no scheduler's job"
        return Finding(
            "job",
            Verdict.NOTE if job_id else Verdict.OK,
            f"{where}, and nobody says when it ends",
            "A search that must end in time needs --time-limit-minutes, or DHMPI_DEADLINE (seconds since the epoch) in "
            "the job script.",
        )
    figure = f"{f'job {job_id}, ' if job_id else ''}{left / 60:.0f} minutes left"
    return Finding(
        "job",
        Verdict.OK if left > SHORT_JOB else Verdict.NOTE,
        figure,
        "A search drains before that, and --resume goes on in the next job.",
    )


def worst(findings: Iterable[Finding]) -> Verdict:
    """Return the worst verdict."""
    order = list(Verdict)
    return max((finding.verdict for finding in findings), key=order.index, default=Verdict.OK)


def micro(seconds: float) -> str:
    """Return a short time in the unit that reads best.

    >>> micro(0.0000134), micro(0.0023)
    ('13 us', '2.3 ms')
    """
    return f"{seconds * 1e6:.0f} us" if seconds < 1e-3 else f"{seconds * 1e3:.1f} ms"


def milli(seconds: float) -> str:
    return micro(seconds) if seconds < 0.1 else f"{seconds:.2g} s"


def _span(least: float, most: float) -> str:
    return f"{least:.3g}" if least == most else f"{least:.3g} to {most:.3g}"


def _count(n: int, one: str, many: str = "") -> str:
    return f"{n} {one if n == 1 else many or one + 's'}"
