"""``python -m benchmarks [NAME ...]``: measure, and print tables; all figures of a table come from one run.

``make bench`` runs all of them.  Names: dispatcher, dispatch, utilisation, waiting, simulation, groups, idle,
memory, start.
"""

from __future__ import annotations

import csv
import json
import math
import os
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from dhmpi import journal, platform
from dhmpi.budget import Limits
from dhmpi.launch import find
from dhmpi.mpi.protocol import Proposed
from dhmpi.roles.dispatcher import Dispatcher
from dhmpi.trials import Outcome, Proposal, Status

ROOT = Path(__file__).resolve().parents[1]
RANKS = (4, 8, 32)
NULL = ("--problem", "benchmarks.null.Problem", "--run", "benchmarks.null.run")
INLINE = ("--evaluator", "inline", "--surrogate-model", "DUMMY")
LIMIT = 300.0
console = Console(width=110)


def launch_of(n: int, *words: object, seconds: float = 0.0) -> tuple[list[str], dict[str, str]]:
    """Return command and environment that run a module on `n` ranks, with evaluations of so many seconds."""
    launcher = find()
    environment = {**os.environ, **launcher.environment(), "BENCH_SECONDS": str(seconds), "PYTHONPATH": str(ROOT)}
    return [*launcher.command(n), sys.executable, "-m", *map(str, words)], environment


def mpiexec(n: int, *words: object, seconds: float = 0.0) -> str:
    """Run a module on `n` ranks and return what it printed."""
    command, environment = launch_of(n, *words, seconds=seconds)
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=LIMIT, check=False, cwd=tempfile.gettempdir()
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout


def peer(name: str, n: int, trials: int, seconds: float = 0.0) -> dict[str, float]:
    """Return rate and utilisation of a peer."""
    out = mpiexec(n, "benchmarks.peers", name, trials, seconds=seconds)
    return next(json.loads(line) for line in out.splitlines() if line.startswith("{"))


def dhmpi(n: int, trials: int, *words: object, seconds: float = 0.0) -> dict[str, Any]:
    """Return rate and utilisation of a search, from its journal and its results.csv."""
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch) / "run"
        mpiexec(
            n, "dhmpi.ambs", *NULL, "--max-evals", trials, "--seed", 1, "--log-dir", directory, *words, seconds=seconds
        )
        placed = [event["t"] for event in journal.events(directory / "journal") if event["e"] == "placed"]
        finished = [event["t"] for event in journal.events(directory / "journal") if event["e"] == "finished"]
        with (directory / "results.csv").open(newline="") as stream:
            rows = list(csv.DictReader(stream))
    if len(rows) != trials:
        raise RuntimeError(f"{len(rows)} rows for {trials} trials")
    evaluators: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        evaluators.setdefault(row["rank"], []).append((float(row["start"]), float(row["end"])))
    busy = sum(end - start for spans in evaluators.values() for start, end in spans)
    length = max(end for spans in evaluators.values() for _, end in spans) - min(
        start for spans in evaluators.values() for start, _ in spans
    )
    return {
        "rate": trials / (max(finished) - min(placed)),
        "utilisation": busy / (len(evaluators) * length),
        "evaluators": list(evaluators.values()),
    }


def bench_dispatcher() -> None:
    """Trials a second that the dispatcher decides, without MPI and without a journal."""
    table = Table("evaluators", "trials/s", title="Dispatcher alone (target: 50,000 trials/s)")
    config = dict.fromkeys((f"x{i}" for i in range(10)), 0.5)
    platform.collect_garbage_rarely()
    for n_evaluators in (8, 128, 4096):
        n = 200_000
        dispatcher = Dispatcher(Limits(n))
        for rank in range(n_evaluators):
            dispatcher.join(rank, "host", 0.0)
        key, now = 0, 0.0
        start = time.perf_counter()
        while not dispatcher.over:
            if dispatcher.n_ahead < n_evaluators:
                proposals = [Proposal(key + i, config) for i in range(4096)]
                dispatcher.propose(Proposed(0, 0, (), proposals), now)
                key += 4096
            for rank, work in dispatcher.take_work():
                outcomes = [Outcome(t.id, 0, Status.DONE, 1.0, {}, rank, "host", now, now, 0.1) for t in work.trials]
                if outcomes:
                    dispatcher.report(rank, outcomes, now)
            dispatcher.take_events(), dispatcher.take_outcomes(), dispatcher.take_news()
            now += 1e-3
        table.add_row(f"{n_evaluators:,}", f"{n / (time.perf_counter() - start):,.0f}")
    console.print(table)


def bench_dispatch() -> None:
    """Null evaluations a second."""
    table = Table(
        "ranks", "floor/s", "futures/s", "libEnsemble/s", "dhmpi/s", "dhmpi : futures", "target", "dhmpi : floor",
        title="Null evaluations, best of 3 runs each in turns; dhmpi with journal and results.csv",
    )  # fmt: skip
    for n in RANKS:
        best: dict[str, float] = {}
        for _ in range(3):
            for name, measure in (
                ("floor", partial(peer, "floor", n, 40_000)),
                ("futures", partial(peer, "futures", n, 20_000)),
                ("dhmpi", partial(dhmpi, n, 60_000, *INLINE)),
            ):
                best[name] = max(best.get(name, 0.0), measure()["rate"])
        libensemble = optional(partial(peer, "libensemble", n, 3_000), "rate")
        table.add_row(
            str(n),
            f"{best['floor']:,.0f}",
            f"{best['futures']:,.0f}",
            libensemble,
            f"{best['dhmpi']:,.0f}",
            f"{best['dhmpi'] / best['futures']:.2f}",
            "2" if n == 4 else "3",
            f"{best['dhmpi'] / best['floor']:.2f}",
        )
    console.print(table)


def bench_utilisation() -> None:
    """Utilisation with evaluations of 10 ms."""
    table = Table(
        "ranks", "futures", "libEnsemble", "dhmpi inline", "target", "dhmpi process", "process, with model",
        title="Utilisation of evaluators, evaluations of 10 ms",
    )  # fmt: skip
    for n in RANKS:
        trials = 500 * n
        table.add_row(
            str(n),
            f"{peer('futures', n, trials, 0.01)['utilisation']:.3f}",
            optional(partial(peer, "libensemble", n, trials // 10, 0.01), "utilisation", ".3f"),
            f"{dhmpi(n, trials, *INLINE, seconds=0.01)['utilisation']:.3f}",
            "0.97",
            f"{dhmpi(n, trials // 2, '--surrogate-model', 'DUMMY', seconds=0.01)['utilisation']:.3f}",
            f"{dhmpi(n, trials // 2, seconds=0.01)['utilisation']:.3f}",
        )
    console.print(table)


def bench_waiting() -> None:
    """How long an idle evaluator waits for its next trial, early and late in a long run."""
    table = Table(
        "ranks", "past trials", "p50 ms", "p99 ms", "p99 / p99 at 100",
        title="Wait of an evaluator between two trials, model-based search, evaluations of 20 ms (target: <= 2)",
    )  # fmt: skip
    n, trials = 4, 10_500
    run = dhmpi(n, trials, "--evaluator", "inline", seconds=0.02)
    gaps: list[tuple[float, float]] = []
    for spans in run["evaluators"]:
        spans.sort()
        gaps += [(start, start - end) for (_, end), (start, _) in zip(spans, spans[1:])]
    gaps.sort()
    first = 0.0
    for past in (100, 1000, 10_000):
        window = sorted(gap for _, gap in gaps[past - 100 : past + 400])
        p99 = window[math.ceil(0.99 * len(window)) - 1]
        first = first or p99
        table.add_row(
            str(n), f"{past:,}", f"{1e3 * statistics.median(window):.2f}", f"{1e3 * p99:.2f}", f"{p99 / first:.2f}"
        )
    console.print(table)


def bench_simulation() -> None:
    """How far the utilisation of a simulation is from that of a run on 32 ranks, evaluations that sleep."""
    table = Table(
        "seconds", "budget", "run", "simulation", "points apart", "target", "simulation, of results.csv",
        title="Utilisation of 30 evaluators on 32 ranks, and of as many simulated ones, model-based search (ET)",
    )  # fmt: skip
    n = 30
    for seconds, trials in ((1.0, 600), (4.0, 240)):
        words = ("--surrogate-model", "ET", "--max-evals", trials, "--seed", 1)
        with tempfile.TemporaryDirectory() as scratch:
            costs, directory = Path(scratch) / "costs.json", Path(scratch) / "run"
            mpiexec(
                n + 2, "dhmpi.ambs", *NULL, "--evaluator", "inline", "--log-dir", directory, *words, seconds=seconds
            )
            with (directory / "results.csv").open(newline="") as stream:
                real = utilisation_of([(row["rank"], row["start"], row["end"]) for row in csv.DictReader(stream)])
            found = []
            for duration, how in (
                (f"constant:{seconds}", ("measure", "--keep-costs", costs)),
                (directory, (costs,)),
            ):
                command = [sys.executable, "-m", "dhmpi.simulate", "--evaluators", n, "--duration", duration, *words,
                           "--problem", NULL[1], "--json", "--costs", *how]  # fmt: skip
                done = subprocess.run(
                    list(map(str, command)), capture_output=True, text=True, timeout=LIMIT, check=True, cwd=ROOT
                )
                (report,) = json.loads(done.stdout)["simulations"]
                # From the first start on, as the run's, which took its time to start.
                found.append(report["utilisation"] / (1 - report["waiting_for_the_first"]))
        table.add_row(
            f"{seconds:g}", str(trials), f"{real:.4f}", f"{found[0]:.4f}", f"{100 * abs(found[0] - real):.2f}", "3",
            f"{found[1]:.4f}",
        )  # fmt: skip
    console.print(table)


def utilisation_of(evaluations: Sequence[tuple[str, str, str]]) -> float:
    """Return the part of their time that evaluators evaluated, from rank, start and end of each evaluation."""
    spans = [(float(start), float(end)) for _, start, end in evaluations]
    length = max(end for _, end in spans) - min(start for start, _ in spans)
    return sum(end - start for start, end in spans) / (len({rank for rank, _, _ in evaluations}) * length)


def bench_groups() -> None:
    """What an evaluation of several ranks costs, from the master's decision to its record."""
    table = Table(
        "ranks of an evaluation", "communicator", "p50 ms", "p90 ms", "target p50",
        title="A null evaluation of several ranks, from 'placed' to 'finished' in the journal",
    )  # fmt: skip
    for k in (2, 4):
        spans: dict[bool, list[float]] = {True: [], False: []}
        with tempfile.TemporaryDirectory() as scratch:
            directory = Path(scratch) / "run"
            words = ("--problem", NULL[1], "--run", "benchmarks.null.run_together", "--max-evals", 600)
            mpiexec(
                k + 1, "dhmpi.random", *words, "--num-ranks-per-eval", k, "--task-dirs", "none", "--log-dir", directory
            )
            seen: set[int] = set()
            placed: dict[int, tuple[float, bool]] = {}
            for event in journal.events(directory / "journal"):
                if event["e"] == "placed":
                    placed[event["trial"]] = (event["t"], event["group"] not in seen)
                    seen.add(event["group"])
                elif event["e"] == "finished":
                    began, new = placed[event["trial"]]
                    spans[new].append(1e3 * (event["t"] - began))
        for new, name, target in ((False, "known", "5"), (True, "new", "20")):
            ordered = sorted(spans[new][10:])
            p90 = ordered[int(0.9 * len(ordered))]
            table.add_row(str(k), name, f"{statistics.median(ordered):.2f}", f"{p90:.2f}", target if k == 4 else "")
    console.print(table)


def bench_idle() -> None:
    """CPU time of ranks that wait."""
    table = Table("ranks", "first second", "after 10 s", "target", title="A waiting rank: % of a core")
    for n in RANKS[:2]:
        found = [json.loads(line) for line in mpiexec(n, "benchmarks.idle").splitlines() if line.startswith("{")]
        means = (100 * statistics.mean(one[when] for one in found) for when in ("early", "late"))
        table.add_row(str(n), *(f"{mean:.2f}" for mean in means), "3")
    console.print(table)


def bench_memory() -> None:
    """Memory of the processes of a run."""
    table = Table(
        "process", "MB resident", "target", title="Memory of processes in a run on 4 ranks, problem polynome2"
    )
    polynome2 = "dhmpi.benchmark.hps.polynome2"
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch) / "run"
        launch, environment = launch_of(
            4, "dhmpi.ambs", "--problem", f"{polynome2}.Problem", "--run", f"{polynome2}.run", "--log-dir", directory,
            "--time-limit-minutes", 1,
        )  # fmt: skip
        with subprocess.Popen(launch, env=environment, cwd=scratch, stdout=subprocess.DEVNULL) as run:
            while run.poll() is None and len(journal.replay(directory / "journal").finished) < 100:
                time.sleep(0.1)
            found = [(process_role(pid), platform.rss_mb(pid)) for pid in platform.descendants(run.pid)]
            run.send_signal(signal.SIGUSR1)
    for role in ("master's rank", "searcher's rank", "evaluator's rank", "keeper", "search", "evaluation"):
        megabytes = max((size for name, size in found if name == role), default=math.nan)
        table.add_row(role, f"{megabytes:.0f}", "60" if role == "evaluator's rank" else "")
    console.print(table)


def process_role(pid: int) -> str:
    """Return what a process of a run on one host is there for."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_text()
        environment = Path(f"/proc/{pid}/environ").read_text().split("\0")
    except OSError:
        return ""
    for module, role in (("evaluate.keeper", "keeper"), ("search.host", "search"), ("evaluate.child", "evaluation")):
        if f"dhmpi.{module}" in command:
            return role
    ranks = {f"{name}={rank}": rank for name in ("OMPI_COMM_WORLD_RANK", "PMI_RANK") for rank in range(4)}
    rank = next((ranks[entry] for entry in environment if entry in ranks), None)
    return "" if rank is None else f"{('master', 'searcher', 'evaluator', 'evaluator')[rank]}'s rank"


def bench_start() -> None:
    """Seconds that ``--help`` takes."""
    table = Table("command", "seconds", "target", title="--help")
    for module in ("dhmpi.ambs", "dhmpi.launch", "dhmpi.check"):
        times = []
        for _ in range(5):
            start = time.perf_counter()
            subprocess.run([sys.executable, "-m", module, "--help"], capture_output=True, check=True, timeout=60)
            times.append(time.perf_counter() - start)
        table.add_row(f"python -m {module} --help", f"{min(times):.2f}", "0.5")
    console.print(table)


def optional(measure: Callable[[], dict[str, float]], figure: str, form: str = ",.0f") -> str:
    """Return a figure of a peer that may not be there, or a dash."""
    try:
        return format(measure()[figure], form)
    except (RuntimeError, subprocess.TimeoutExpired, StopIteration):
        return "-"


def main(names: list[str]) -> None:
    """Run the benchmarks of some names, by default all."""
    known = {name.removeprefix("bench_"): function for name, function in globals().items() if name.startswith("bench_")}
    unknown = [name for name in names if name not in known]
    if unknown:
        sys.exit(f"unknown benchmark {unknown[0]!r}: choose from {', '.join(known)}")
    console.print(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, {find().path}")
    for name in names or known:
        known[name]()
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    console.print(f"largest process: {peak:.0f} MB")


if __name__ == "__main__":
    main(sys.argv[1:])
