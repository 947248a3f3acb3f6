"""``python -m benchmarks.searches [--seeds N] [-o FILE]``: agents, evolution and random search in equal time.

The comparison of the guide of 2020, on toy.surrogate in virtual time: as many nodes for the same time, with the
durations that trainings of sst_pod_lstm had (sst_pod_lstm_seconds.csv, of ``dhmpi.random``), stretched so that one
takes a minute on average.  What agents propose again is evaluated again, as by the others: once their policy has
converged, rewards that are known already would come without end in no time.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from dhmpi import simulate
from dhmpi.durations import of_run

PROBLEM = "dhmpi.benchmark.nas.toy.surrogate"
SECONDS = Path(__file__).with_name("sst_pod_lstm_seconds.csv")
MEAN = 60.0
"""Seconds of an evaluation, on average."""
MINUTES = 40
INSTANTS = (10, 20, 30, 40)
"""Minutes at which to look."""
LAST = 100
"""Evaluations of the moving average, as in the guide."""
N_AGENTS = 11
RANKS = (128, 512)
console = Console(width=140)


class Searcher(NamedTuple):
    """A search as it is launched."""

    name: str
    n_idle: int
    """Ranks that do not evaluate."""
    words: tuple[str, ...] = ()


SEARCHERS = (
    Searcher(
        "ppo",
        1 + N_AGENTS,
        (
            *("--num-agents", str(N_AGENTS), "--spread-remainder", "--network", "ppo_lnlstm_32"),
            *("--learning-rate", "1e-3", "--on-duplicate", "re-evaluate"),
        ),
    ),
    Searcher("regevo", 1),
    Searcher("random", 1),
)


class Course(NamedTuple):
    """What a search has reached over time."""

    minutes: np.ndarray
    moving: np.ndarray
    best: np.ndarray
    utilisation: float
    """Of all ranks."""


def play(searcher: Searcher, n_ranks: int, seed: int) -> Course:
    """Run a search for `MINUTES` of virtual time."""
    words = [
        *("--evaluators", str(n_ranks - searcher.n_idle), "--duration", f"constant:{MEAN}", "--search", searcher.name),
        *("--problem", f"{PROBLEM}.Problem", "--run", f"{PROBLEM}.run", "--time-limit-minutes", str(MINUTES)),
    ]
    given, rest = simulate.parser().parse_known_args([*words, "--seed", str(seed), *searcher.words])
    case, (n_evaluators,) = simulate.prepare(given, rest)
    measured = of_run(SECONDS)
    stretched = dataclasses.replace(measured, mean=MEAN, draw=lambda rng: measured.draw(rng) * MEAN / measured.mean)
    run = simulate.simulate(dataclasses.replace(case, durations=stretched), n_evaluators).run
    found = [outcome for outcome, _ in run.outcomes if outcome.objective is not None]
    values = np.array([outcome.objective for outcome in found])
    sums = np.concatenate([[0.0], np.cumsum(values)])
    first = np.maximum(0, np.arange(len(values)) + 1 - LAST)
    moving = (sums[1:] - sums[first]) / (np.arange(len(values)) + 1 - first)
    minutes = np.array([outcome.end for outcome in found]) / 60
    busy = run.busy_seconds + run.cancelled_seconds
    return Course(minutes, moving, np.maximum.accumulate(values), busy / (n_ranks * run.seconds))


def at(course: Course, column: np.ndarray, minute: float) -> float:
    """Return what a column of a course is at an instant."""
    n = int(np.searchsorted(course.minutes, minute, side="right"))
    return float(column[n - 1]) if n else float("nan")


def show(courses: Mapping[tuple[int, str], Sequence[Course]]) -> None:
    """Print a row for each search, with means over seeds."""
    n_seeds = len(next(iter(courses.values())))
    title = f"toy.surrogate in virtual time, seeds: {n_seeds}; mean objective of the last {LAST}"
    columns = (f"after {minutes} min" for minutes in INSTANTS)
    table = Table("ranks", "search", *columns, "best", "evaluations", "of all ranks busy", title=title)
    for (n_ranks, name), several in courses.items():
        table.add_row(
            str(n_ranks),
            name,
            *(f"{np.mean([at(one, one.moving, minute) for one in several]):.3f}" for minute in INSTANTS),
            f"{np.mean([one.best[-1] for one in several]):.3f}",
            f"{np.mean([len(one.minutes) for one in several]):,.0f}",
            f"{np.mean([one.utilisation for one in several]):.3f}",
        )
    console.print(table)


def draw(courses: Mapping[tuple[int, str], Sequence[Course]], path: Path) -> None:
    """Draw moving averages over time, with the range of the seeds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    all_axes = figure.subplots(1, len(RANKS), sharey=True)
    minutes = np.linspace(1, MINUTES, 200)
    for axes, n_ranks in zip(all_axes, RANKS):
        for searcher in SEARCHERS:
            several = courses[n_ranks, searcher.name]
            lines = np.array([[at(one, one.moving, minute) for minute in minutes] for one in several])
            (line,) = axes.plot(minutes, lines.mean(axis=0), label=searcher.name)
            axes.fill_between(minutes, lines.min(axis=0), lines.max(axis=0), alpha=0.2, color=line.get_color())
        axes.set(title=f"{n_ranks} ranks", xlabel="minutes")
    all_axes[0].set_ylabel(f"mean objective of the last {LAST}")
    all_axes[0].legend()
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.searches", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="draw it")
    given = parser.parse_args()
    courses = {
        (n_ranks, searcher.name): [play(searcher, n_ranks, seed) for seed in range(given.seeds)]
        for n_ranks in RANKS
        for searcher in SEARCHERS
    }
    show(courses)
    if given.output is not None:
        draw(courses, given.output)


if __name__ == "__main__":
    main()
