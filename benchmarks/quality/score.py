"""From results to figures: how far searches are from the best known, between 0 and random search's 100, and ranks."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

FRACTIONS = (0.1, 0.2, 0.3, 0.5, 0.75, 1.0)
"""Of the budget, at which results are kept."""
WORST = 200.0
"""No regret counts for more, so that one problem does not make the mean alone."""
N_BOOTSTRAPS = 2000

Result = dict[str, Any]


class Figures(NamedTuple):
    """What a search has reached in one setting.

    Attributes
    ----------
    regret : ndarray of shape (n_fractions,)
        Mean over problems of the normalised regret.
    low, high : float
        95 % interval of the regret at the end: problems and seeds drawn again.
    rank : float
        Mean over problems, among the searches of the table; 1 is the best.
    ratio : (float, float, float)
        Regret at the end divided by that of the first search of the table, and its 95 % interval.
    milliseconds : float
        CPU time per evaluation.
    n_problems, n_seeds : int
        n_seeds: the smallest number of any problem.
    """

    regret: np.ndarray
    low: float
    high: float
    rank: float
    ratio: tuple[float, float, float]
    milliseconds: float
    n_problems: int
    n_seeds: int


def read(files: Iterable[Path]) -> list[Result]:
    """Return the results of files, without the lines that say how they came about; a torn last line is left out."""
    results = []
    for file in files:
        for line in file.read_text().splitlines():
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                continue
            if "values" in record:
                record["values"] = [-math.inf if value is None else value for value in record["values"]]
                results.append(record)
    return results


def best_known(results: Sequence[Result], optima: dict[str, float | None]) -> dict[str, float]:
    """Return the largest value of each problem: the one that is known, else the largest of all results."""
    best: dict[str, float] = {}
    for result in results:
        name = result["problem"]
        best[name] = max(best.get(name, -math.inf), *result["values"])
    return {name: value if optima.get(name) is None else optima[name] for name, value in best.items()}  # type: ignore[misc]


def figures(
    results: Sequence[Result], evaluators: int, budget: int, best: dict[str, float], searches: Sequence[str]
) -> dict[str, Figures]:
    """Return the figures of searches in one setting, over the problems that all of them and random search have played.

    Parameters
    ----------
    results : sequence of dict
    evaluators, budget : int
    best : dict of str to float
        Best known value of each problem.
    searches : sequence of str
        Ranks are among these.
    """
    played: dict[str, dict[str, list[Result]]] = defaultdict(lambda: defaultdict(list))
    for result in results:
        if (result["evaluators"], result["budget"]) == (evaluators, budget):
            played[result["search"]][result["problem"]].append(result)
    searches = [search for search in searches if search in played]
    common = [name for name in played["random"] if all(name in played[search] for search in searches)]
    if not searches or not common:
        return {}
    regrets = {
        search: [np.array([_regret(r, best[name], played["random"][name]) for r in played[search][name]])
                 for name in common]
        for search in searches
    }  # fmt: skip
    means = np.array([[problem.mean(axis=0) for problem in regrets[search]] for search in searches])
    ends = means[:, :, -1]
    ranks = np.array([_ranks(column) for column in ends.T]).mean(axis=0)
    rng = np.random.default_rng(0)
    drawn = _bootstrap([[problem[:, -1] for problem in regrets[search]] for search in searches], rng)
    ratios = drawn / np.maximum(drawn[:1], 1e-9)
    return {
        search: Figures(
            means[i].mean(axis=0),
            *_interval(drawn[i]),
            float(ranks[i]),
            (float(ends[i].mean() / max(ends[0].mean(), 1e-9)), *_interval(ratios[i])),
            float(np.mean([1e3 * r["seconds"] / budget for name in common for r in played[search][name]])),
            len(common),
            min(len(played[search][name]) for name in common),
        )
        for i, search in enumerate(searches)
    }


def _regret(result: Result, best: float, random: Sequence[Result]) -> np.ndarray:
    """Return the normalised regret at all fractions of the budget."""
    reached = [r["values"][-1] for r in random]
    scale = max(best - float(np.mean([value for value in reached if math.isfinite(value)])), 1e-12)
    return np.minimum(100 * (best - np.array(result["values"])) / scale, WORST)


def _interval(drawn: np.ndarray) -> tuple[float, float]:
    """Return the middle 95 %."""
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)


def _ranks(regrets: np.ndarray) -> np.ndarray:
    """Return ranks from 1, equal ones sharing theirs."""
    from scipy.stats import rankdata

    return rankdata(np.round(regrets, 6))


def _bootstrap(regrets: Sequence[Sequence[np.ndarray]], rng: np.random.Generator) -> np.ndarray:
    """Return means over problems drawn again, and seeds of each drawn again, shape (n_searches, N_BOOTSTRAPS)."""
    n_problems = len(regrets[0])
    drawn = np.empty((len(regrets), N_BOOTSTRAPS))
    problems = rng.integers(n_problems, size=(N_BOOTSTRAPS, n_problems))
    for i, search in enumerate(regrets):
        resampled = np.array([
            values[rng.integers(len(values), size=(N_BOOTSTRAPS, len(values)))].mean(axis=1) for values in search
        ])  # fmt: skip
        drawn[i] = resampled[problems, np.arange(N_BOOTSTRAPS)[:, None]].mean(axis=1)
    return drawn
