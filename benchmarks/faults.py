"""``python -m benchmarks.faults [NAME[=RUNS] ...]``: kill ranks and hosts, and count what survives.

``make bench-faults`` runs all: deaths and restarts (100 runs each), hosts and daemons (20 each, as root), many, chaos.
"""

from __future__ import annotations

import csv
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import namespaces
from dhmpi import journal, platform

ROOT = Path(__file__).resolve().parents[1]
PYTHONS = {"Open MPI": ROOT / ".venv/bin/python", "MPICH": ROOT / ".venv-mpich/bin/python"}
PROBLEM = ("--problem", "benchmarks.slow.Problem", "--run", "benchmarks.slow.run")
MARK = "DHMPI_BENCH_FAULTS"
RANK_VARIABLES = ("OMPI_COMM_WORLD_RANK", "PMI_RANK")
LIMIT = 120.0
"""Seconds for one run."""
LIMIT_OF_MANY = 600.0
"""Seconds where 33 ranks share two cores: each new search there imports scikit-learn for up to 17 s."""
console = Console(width=110)


@dataclass
class Result:
    """What a run with faults has left."""

    complete: bool
    code: int
    n_lost: int
    pause: float | None
    """Seconds from the fault to the next trial given out, in the next launch if the job had to be started again; None
    if nothing was left to give."""
    n_left: int
    """Processes that outlived the job."""
    detail: str = ""


class Run:
    """A search that something happens to."""

    def __init__(self, command: Sequence[str], directory: Path, max_evals: int, limit: float = LIMIT) -> None:
        self.directory = directory
        self.max_evals = max_evals
        self.mark = uuid.uuid4().hex
        environment = {**os.environ, MARK: self.mark, "PYTHONPATH": str(ROOT)}
        self.output = directory.with_suffix(".out")
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                command,
                env=environment,
                cwd=directory.parent,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.deadline = time.monotonic() + limit

    def wait_for(self, n: int) -> bool:
        """Wait until `n` trials have finished; return whether that happened before the end."""
        while self.n_finished() < n:
            if self.process.poll() is not None or time.monotonic() > self.deadline:
                return False
            time.sleep(0.01)
        return True

    def n_finished(self) -> int:
        return len(journal.replay(self.directory / "journal").finished)

    def ranks(self) -> dict[int, int]:
        """Return the process of each rank."""
        found = {}
        for pid in platform.marked_processes(MARK, self.mark):
            try:
                environment = Path(f"/proc/{pid}/environ").read_text()
                command = Path(f"/proc/{pid}/cmdline").read_text()
            except OSError:
                continue
            if "dhmpi.ambs" in command and (rank := re.search(rf"(?:{'|'.join(RANK_VARIABLES)})=(\d+)", environment)):
                found[int(rank[1])] = pid
        return found

    def end(self, fault_at: float | None) -> Result:
        """Wait for the end and look at what is there."""
        try:
            code = self.process.wait(max(0.1, self.deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            code = -1
        time.sleep(0.5)
        left = platform.marked_processes(MARK, self.mark)
        while pids := platform.marked_processes(MARK, self.mark):
            platform.kill(pids)
            time.sleep(0.01)
        self.process.wait()
        history = journal.replay(self.directory / "journal")
        try:
            with (self.directory / "results.csv").open(newline="") as stream:
                trials = sorted(int(row["trial"]) for row in csv.DictReader(stream))
        except OSError:
            trials = []
        complete = code == 0 and history.ended and trials == list(range(self.max_evals))
        after: list[tuple[int, float]] = []
        launch = 0
        for event in journal.events(self.directory / "journal"):
            launch = event["launch"] if event["e"] == "launch" else launch
            if event["e"] == "placed" and fault_at is not None and event["t"] > fault_at:
                after.append((launch, event["t"]))
        last = [t for number, t in after if number == after[-1][0]]
        n_lost = sum(outcome.status == "lost" for outcome, _ in history.finished.values())
        pause = min(last) - fault_at if last and fault_at is not None else None
        return Result(complete, code, n_lost, pause, len(left), "" if complete else self.output.read_text()[-3000:])


def launch_words(mpi: str, n: int, directory: Path, *words: object, restarts: int = 0) -> list[str]:
    launch = ["-m", "dhmpi.launch", *(["--restarts", str(restarts)] if restarts else []), "-n", str(n), "ambs"]
    return [str(PYTHONS[mpi]), *launch, *PROBLEM, "--log-dir", str(directory), *map(str, words)]


def kill_one(mpi: str, seed: int, directory: Path) -> Result:
    """Kill a random rank of 8 at a random moment."""
    rng = np.random.default_rng(seed)
    max_evals = 60
    restarts = 0 if mpi == "Open MPI" else 3
    words = launch_words(mpi, 8, directory, "--max-evals", max_evals, "--seed", seed, restarts=restarts)
    run = Run(words, directory, max_evals)
    at = None
    if run.wait_for(int(rng.integers(0, max_evals - 5))):
        time.sleep(rng.uniform(0, 0.1))
        ranks = run.ranks()
        victim = int(rng.integers(8))
        if victim in ranks:
            at = time.time()
            os.kill(ranks[victim], signal.SIGKILL)
    return run.end(at)


def report(title: str, results: Sequence[Result]) -> None:
    """Print what came of many runs."""
    pauses = [result.pause for result in results if result.pause is not None]
    table = Table("runs", "complete", "trials lost", "processes left", "median pause s", "longest pause s", title=title)
    table.add_row(
        str(len(results)),
        str(sum(result.complete for result in results)),
        str(sum(result.n_lost for result in results)),
        str(sum(result.n_left for result in results)),
        f"{statistics.median(pauses):.2f}" if pauses else "-",
        f"{max(pauses):.2f}" if pauses else "-",
    )
    console.print(table)


def repeat(n: int, once: Callable[[int, Path], Result]) -> list[Result]:
    """Run `n` times, with seeds from 0; an interrupt ends the repetition, not the report."""
    results: list[Result] = []
    for seed in range(n):
        try:
            with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
                results.append(once(seed, Path(scratch) / "run"))
        except KeyboardInterrupt:
            console.print(f"interrupted in run {seed}")
            break
        if not results[-1].complete:
            said = f"run {seed} is not complete, exit code {results[-1].code}\n{results[-1].detail}"
            console.print(said, markup=False, highlight=False)
    return results


def bench_deaths(n: int = 100) -> None:
    """SIGKILL of a random rank, Open MPI with ULFM."""
    report("8 ranks, a random one killed, Open MPI with ULFM", repeat(n, lambda s, d: kill_one("Open MPI", s, d)))


def bench_restarts(n: int = 100) -> None:
    """SIGKILL of a random rank, MPICH."""
    report("8 ranks, a random one killed, MPICH with --restarts", repeat(n, lambda s, d: kill_one("MPICH", s, d)))


def bench_many(n: int = 1) -> None:
    """33 ranks of which 16 are killed one after another."""

    def once(seed: int, directory: Path) -> Result:
        rng = np.random.default_rng(seed)
        words = launch_words("Open MPI", 33, directory, "--max-evals", 1500, "--seed", seed)
        run = Run(words, directory, 1500, LIMIT_OF_MANY)
        at = None
        for i in range(16):
            if not run.wait_for(20 + 60 * i):
                break
            ranks = run.ranks()
            victim = min(ranks) if i % 2 else int(rng.choice(sorted(ranks)))
            at = time.time()
            os.kill(ranks[victim], signal.SIGKILL)
        return run.end(at)

    report("33 ranks, 16 killed one after another, every second time the master", repeat(n, once))


def bench_hosts(n: int = 20) -> None:
    """All ranks of one of three hosts killed."""
    _hosts("9 ranks on three hosts, all ranks of one killed", n, daemon=False)


def bench_daemons(n: int = 20) -> None:
    """A host killed with the launcher's daemon."""
    _hosts("9 ranks on three hosts, one killed with its daemon, --restarts", n, daemon=True)


def _hosts(title: str, n: int, daemon: bool) -> None:
    if not namespaces.possible():
        console.print(f"{title}: needs root and iproute2")
        return

    def once(seed: int, directory: Path) -> Result:
        rng = np.random.default_rng(seed)
        with namespaces.Hosts(3) as hosts:
            words = launch_words("Open MPI", 9, directory, "--max-evals", 100, "--seed", seed, restarts=3)
            words[3:3] = ["--mpiexec-args", hosts.launcher_options(3, ROOT / ".venv")]
            run = Run(hosts.command(0, words, ROOT / ".venv"), directory, 100)
            at = None
            if run.wait_for(int(rng.integers(1, 80))):
                # Not the host of mpiexec with its daemon: that is the job itself.
                host = int(rng.integers(1 if daemon else 0, 3))
                pids = hosts.processes(host)
                victims = pids if daemon else [pid for pid in run.ranks().values() if pid in pids]
                at = time.time()
                platform.kill(victims)
            return run.end(at)

    report(title, repeat(n, once))


def bench_chaos(n: int = 20_000) -> None:
    """Many evaluations with every fault; what the master's memory does."""
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch) / "run"
        words = launch_words(
            "Open MPI", 8, directory, "--max-evals", n, "--seed", 1, "--surrogate-model", "DUMMY",
            "--task-dirs", "none", "--eval-timeout-minutes", 0.01, "--chaos",
            f"kill=0.01,hang=0.002,segv=0.01,slow=0.05x3,rank-kill={30 / n},max-rank-kills=2",
        )  # fmt: skip
        os.environ["BENCH_SECONDS"] = "0.002"
        run = Run(words, directory, n, limit=1800)
        sizes: list[tuple[int, float]] = []
        while run.process.poll() is None and time.monotonic() < run.deadline:
            ranks = run.ranks()
            if ranks:
                sizes.append((run.n_finished(), platform.rss_mb(ranks[min(ranks)])))
            time.sleep(5)
        result = run.end(None)
        report(f"{n:,} evaluations with every fault", [result])
        early = next(((k, mb) for k, mb in sizes if k > n // 10), None)
        late = max(sizes, default=None)
        if early and late and late[0] > early[0]:
            grown = 1024 * (late[1] - early[1]) / (late[0] - early[0])
            console.print(f"the master's memory grew by {grown:.2f} KB a trial, to {late[1]:.0f} MB")
        del os.environ["BENCH_SECONDS"]


def main(names: Sequence[str]) -> None:
    """Run the benchmarks of some names, by default all."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    known = {name.removeprefix("bench_"): function for name, function in globals().items() if name.startswith("bench_")}
    for word in names or list(known):
        name, _, n = word.partition("=")
        if name not in known:
            sys.exit(f"unknown benchmark {name!r}: choose from {', '.join(known)}")
        known[name](*([int(n)] if n else []))


if __name__ == "__main__":
    main(sys.argv[1:])
