"""``python -m benchmarks.scale [NAME ...]``: thousands of evaluators and one searcher, in virtual time.

The published experiment of decentralised Bayesian optimisation (Egele et al. 2022, papers on asynchronous decentralised
BO): Ackley in 5 dimensions on +-32.768, evaluations of max(0, N(60, 20)) s, 1,500 s.  Its optimum is moved off the
middle of the space, where dhmpi makes its first evaluation.  Names:

share
    Completions of one searcher that works ahead, as a part of those of a proposer that costs nothing, at every size up
    to 10,000 evaluators.  Random proposals stand in for its own, at the costs that come with dhmpi: seconds each.
best
    The search itself, charged the CPU time that each answer took: best values, and the same share.  A run takes up to
    1,500 s of a core.  Each goes into benchmarks/scale.jsonl at once, and what is there is not run again.
table
    Both beside the published figures.

By default share and table; ``best:SIZE`` runs one size, ``best:SIZE:SEED`` one seed of it.
"""

from __future__ import annotations

import json
import math
import platform as machine
import statistics
import sys
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import ConfigSpace
import numpy as np
from rich.console import Console
from rich.table import Table

from dhmpi import __version__, platform
from dhmpi.ambs import spec
from dhmpi.budget import Limits
from dhmpi.costs import Charge, Costs, live, one_core
from dhmpi.options import AmbsOptions
from dhmpi.problem import HpProblem
from dhmpi.roles.virtual import VirtualRun, simulate
from dhmpi.search.base import Search
from dhmpi.search.model_based import ModelBasedSearch
from dhmpi.search.uniform import UniformSearch
from dhmpi.simulate import DISPATCH, LATENCY
from dhmpi.standin import StandIn

RESULTS = Path(__file__).with_name("scale.jsonl")
SIZES = (128, 256, 512, 1024, 2048, 4096, 10_000)
FEW_SEEDS, MANY_SEEDS, MANY = 1, 3, 1024
"""Seeds, and the number of evaluators above which there are more."""
SECONDS, MEAN, DEVIATION = 1500.0, 60.0, 20.0
MOST = 1_000_000
N_DIMS = 5
OPTIMUM = 32.768 * np.array([0.35, -0.2, 0.5, -0.45, 0.15])
PUBLISHED = {
    128: (2975, 4.18),
    256: (5912, 4.00),
    512: (11_702, 3.50),
    1024: (22_863, 3.08),
    2048: (43_914, 2.87),
    4096: (79_473, 2.81),
}
"""Evaluations and best value of decentralised BO with qUCB, by workers."""
console = Console(width=120)


def ackley(config: Mapping[str, float]) -> float:
    """Return minus the Ackley function: 0 at `OPTIMUM` is the best."""
    x = np.fromiter(config.values(), float) - OPTIMUM
    a = -20 * math.exp(-0.2 * math.sqrt(np.mean(x**2)))
    return -(a - math.exp(np.mean(np.cos(2 * np.pi * x))) + 20 + math.e)


def problem() -> HpProblem:
    found = HpProblem()
    for i in range(N_DIMS):
        found.add_hyperparameter((-32.768, 32.768), f"x{i}")
    return found


def play(search: Search, n: int, seed: int, cost: Any) -> VirtualRun:
    """Run a search for the published time."""
    return simulate(
        search,
        Limits(MOST),
        n,
        ackley,
        lambda config, rng: max(0.0, float(rng.normal(MEAN, DEVIATION))),
        LATENCY,
        seed=seed,
        cost=cost,
        dispatch_seconds=DISPATCH,
        time_limit=SECONDS,
        drains=False,
        keep_events=False,
    )


def ideal(space: ConfigSpace.ConfigurationSpace, n: int, seed: int) -> int:
    """Return the completions of a proposer that costs nothing."""
    return len(play(UniformSearch(space, seed), n, seed, lambda asked: 0.0).outcomes)


def recorded() -> list[dict[str, Any]]:
    if not RESULTS.exists():
        return []
    return [json.loads(line) for line in RESULTS.read_text().splitlines()]


def record(row: dict[str, Any]) -> None:
    with RESULTS.open("a") as stream:
        stream.write(json.dumps(row) + "\n")


def bench_share(n: int | None = None, seed: int | None = None) -> None:
    """Measure shares at the stored costs."""
    space = problem().space
    entry, differs = Costs.read().find("ambs", spec(AmbsOptions())["options"], N_DIMS)
    console.print(f"costs of {entry.machine}, {entry.date}, dhmpi {(entry.versions or {}).get('dhmpi')}; {differs}")
    for size in SIZES if n is None else (n,):
        began = time.process_time()
        stand_in = StandIn(space, seed or 1, entry=entry, n_design=size)
        run = play(stand_in, size, seed or 1, Charge(entry))
        record(
            {
                "kind": "share",
                "evaluators": size,
                "seed": seed or 1,
                "completions": len(run.outcomes),
                "ideal": ideal(space, size, seed or 1),
                "waiting": run.waiting_seconds / (size * run.seconds),
                "load": run.thinking_seconds / SECONDS,
                "fits": stand_in.n_fits,
                "seconds": round(time.process_time() - began, 1),
                **about(),
                "costs": {"date": entry.date, "machine": entry.machine, "versions": entry.versions},
            }
        )


def bench_best(n: int | None = None, seed: int | None = None) -> None:
    """Run the search itself."""
    space = problem().space
    known = {(row["evaluators"], row["seed"]) for row in recorded() if row["kind"] == "best"}
    for size in SIZES if n is None else (n,):
        n_seeds = MANY_SEEDS if size > MANY else FEW_SEEDS
        for number in range(1, n_seeds + 1) if seed is None else (seed,):
            if (size, number) in known:
                continue
            began = time.process_time()
            options = spec(AmbsOptions())["options"]
            with one_core({"options": options}):
                search = ModelBasedSearch(space, number, n_evaluators=size, max_evals=MOST, **options)
                run = play(search, size, number, live)
            best = max(outcome.objective for outcome, _ in run.outcomes if outcome.objective is not None)
            record(
                {
                    "kind": "best",
                    "evaluators": size,
                    "seed": number,
                    "completions": len(run.outcomes),
                    "ideal": ideal(space, size, number),
                    "best": -best,
                    "waiting": run.waiting_seconds / (size * run.seconds),
                    "load": run.thinking_seconds / SECONDS,
                    "fits": search.n_fits,
                    "seconds": round(time.process_time() - began, 1),
                    **about(),
                    "options": options,
                }
            )


def about() -> dict[str, Any]:
    """Return what a figure needs to be judged by."""
    versions = {name: metadata.version(name) for name in ("numpy", "scikit-learn")}
    return {
        "versions": {"dhmpi": __version__, "python": machine.python_version(), **versions},
        "date": time.strftime("%F"),
    }


def bench_table(n: int | None = None, seed: int | None = None) -> None:
    """Show what is on record, the last of what was measured several times."""
    table = Table(
        "evaluators", "completions", "of the ideal", "load", "of the ideal, stand-in", "load, stand-in",
        "published: of the ideal", "best", "published",
        title="Ackley-5 on +-32.768 (minimised), evaluations of max(0, N(60, 20)) s, 1,500 s of virtual time",
    )  # fmt: skip
    rows = recorded()
    for size in SIZES:
        runs = {row["seed"]: row for row in rows if (row["kind"], row["evaluators"]) == ("best", size)}
        shares = {row["seed"]: row for row in rows if (row["kind"], row["evaluators"]) == ("share", size)}
        theirs, value = PUBLISHED.get(size, (None, None))
        ideals = [row["ideal"] for row in (*runs.values(), *shares.values())]
        table.add_row(
            f"{size:,}",
            _mean(runs, lambda row: row["completions"], ",.0f"),
            _mean(runs, lambda row: row["completions"] / row["ideal"], ".4f"),
            _mean(runs, lambda row: row["load"], ".2f"),
            _mean(shares, lambda row: row["completions"] / row["ideal"], ".4f"),
            _mean(shares, lambda row: row["load"], ".2f"),
            f"{theirs / statistics.mean(ideals):.3f}" if theirs and ideals else "-",
            _mean(runs, lambda row: row["best"], ".3g") + (f" ({len(runs)} seeds)" if len(runs) > 1 else ""),
            "-" if value is None else f"{value:.2f}",
        )
    console.print(table)


def _mean(runs: Mapping[int, dict[str, Any]], value: Any, form: str) -> str:
    return format(statistics.mean(map(value, runs.values())), form) if runs else "-"


def main(names: list[str]) -> None:
    """Run the parts of some names."""
    known = {name.removeprefix("bench_"): function for name, function in globals().items() if name.startswith("bench_")}
    platform.collect_garbage_rarely()
    for word in names or ("share", "table"):
        name, *numbers = word.split(":")
        if name not in known or len(numbers) > 2 or not all(number.isdigit() for number in numbers):
            sys.exit(f"unknown part {word!r}: choose from {', '.join(known)}")
        known[name](*map(int, numbers))


if __name__ == "__main__":
    main(sys.argv[1:])
