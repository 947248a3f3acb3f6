"""How objectives went over time: one run, or several compared with mean and spread."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dhmpi.errors import OptionError

if TYPE_CHECKING:
    from dhmpi.analytics.study import Study

WINDOW = 100
N_GRID = 400
AXES = ("time", "evaluations")
_SUFFIX = re.compile(r"(?:(?<=.)[_.-]|(?<=\D))(?:[0-9a-f]{8}|seed\d+|s?\d+)$")


def moving_average(values: np.ndarray, window: int = WINDOW) -> np.ndarray:
    """Return the mean of the last values that are no NaN, up to `window` of them, at each of these.

    >>> moving_average(np.array([1.0, np.nan, 3.0, 5.0]), 2)
    array([1., 2., 4.])
    """
    known = values[~np.isnan(values)]
    sums = np.concatenate([[0.0], np.cumsum(known)])
    ends = np.arange(1, len(known) + 1)
    begins = np.maximum(0, ends - window)
    return (sums[ends] - sums[begins]) / (ends - begins)


def improvements(study: Study) -> list[dict[str, Any]]:
    """Return the evaluations that were better than all before, with what came when."""
    best = study.best_so_far
    before = np.concatenate([[np.nan], best[:-1]])
    better = np.flatnonzero((best != before) & ~np.isnan(best))
    return [
        {
            "trial": int(study.trial[i]),
            "evaluations": int(i) + 1,
            "seconds": float(study.seconds[i]),
            "objective": float(best[i]),
        }
        for i in better
    ]


def floor(values: np.ndarray) -> float | None:
    """Return below which objective some are so hopeless that with them a figure shows nothing else; None if none is."""
    if len(values) < 20:
        return None
    low, middle, high = np.quantile(values, [0.02, 0.5, 1.0])
    span = high - low
    if span <= 0 or values.min() > low - 0.5 * span:
        return None
    return float(low - 0.05 * span)


@dataclass
class Group:
    """Runs of one kind, for example with different seeds; or a single run, also one without any success.

    Attributes
    ----------
    name : str
    studies : list of Study
    grid : ndarray of shape (n,)
        Seconds, or numbers of evaluations.
    values : ndarray of shape (n_studies, n)
        Best objective so far of each; NaN before the first, and after the last evaluation of all of them.
    ends : ndarray of shape (n_studies,)
        Where on the grid the last evaluation of each is.
    """

    name: str
    studies: list[Study]
    grid: np.ndarray
    values: np.ndarray
    ends: np.ndarray

    @property
    def succeeded(self) -> bool:
        """Whether there is an objective; if there is, every one of the runs has one."""
        return bool(self.studies[0].succeeded.any())

    @property
    def last(self) -> int:
        """The index on the grid of the last evaluation of all runs."""
        return int(np.searchsorted(self.grid, self.ends.max()))

    @property
    def mean(self) -> np.ndarray:
        """Return the mean where every run has an objective, else NaN."""
        return self.values.mean(axis=0)

    @property
    def spread(self) -> np.ndarray:
        """Return the standard deviation over runs; 0 for a single one."""
        n = len(self.studies)
        return self.values.std(axis=0, ddof=1) if n > 1 else np.zeros(self.values.shape[1])


def compare(studies: Sequence[Study], by: str = "time") -> list[Group]:
    """Return the runs in groups of one kind, each on a grid that all groups share.

    Runs are of one kind whose names differ in a number, or in eight hexadecimal digits, at the end.  A run that is the
    only one of its kind keeps its name.  One without any success is by itself, so that a mean is over all of a group.

    Parameters
    ----------
    studies : sequence of Study
    by : {"time", "evaluations"}

    Raises
    ------
    OptionError
        If no run has an objective.
    """
    given = [study for study in studies if study.succeeded.any()]
    if not given:
        raise OptionError("there is nothing to compare: no run has an objective yet")
    last = max(_end(study, by) for study in given)
    even = np.linspace(0.0, last, N_GRID) if by == "time" else np.linspace(1, last, N_GRID).round()
    firsts = [_axis(study, by)[study.succeeded][0] for study in given]
    grid = np.unique([*even, *firsts, *(_end(study, by) for study in given)])
    kinds: dict[str | int, list[Study]] = {}
    for i, study in enumerate(studies):
        kinds.setdefault(kind(study) if study.succeeded.any() else i, []).append(study)
    groups = []
    for name, members in zip(_names(kinds), kinds.values()):
        ends = np.array([_end(study, by) for study in members])
        values = np.array([_at(study, by, grid) for study in members])
        groups.append(Group(name, members, grid, np.where(grid <= ends.max(), values, np.nan), ends))
    return groups


def _names(kinds: Mapping[str | int, Sequence[Study]]) -> list[str]:
    """Return names of groups: of a single run its own, or its path where another has that name."""
    names = [str(name) if len(members) > 1 else members[0].name for name, members in kinds.items()]
    counts = Counter(names)
    return [
        str(members[0].path) if len(members) == 1 and counts[name] > 1 else name
        for name, members in zip(names, kinds.values())
    ]


def kind(study: Study) -> str:
    """Return the name of a run without what tells it from others of its kind."""
    name = _SUFFIX.sub("", study.name) or study.name
    search = study.run.search if study.run is not None else None
    return name if search is None or search in name else f"{name} ({search})"


def _axis(study: Study, by: str) -> np.ndarray:
    return study.seconds if by == "time" else np.arange(1.0, len(study) + 1)


def _end(study: Study, by: str) -> float:
    return float(_axis(study, by).max(initial=0.0))


def _at(study: Study, by: str, grid: np.ndarray) -> np.ndarray:
    """Return the best objective so far at the points of a grid; a run that has ended keeps its last."""
    if not len(study):
        return np.full(len(grid), np.nan)
    which = np.searchsorted(np.maximum.accumulate(_axis(study, by)), grid, side="right") - 1
    return np.where(which >= 0, study.best_so_far[np.maximum(which, 0)], np.nan)


def table(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """Return a row for each group: its last mean and spread, and when it was as good as the worst group is at last.

    What a group without any success lacks is None.
    """
    level = min(group.mean[group.last] for group in groups if group.succeeded)
    rows = []
    for group in groups:
        finals = [float(study.best_so_far[-1]) for study in group.studies if group.succeeded]
        reached = np.flatnonzero(group.mean >= level)
        rows.append(
            {
                "runs": group.name,
                "n": len(group.studies),
                "evaluations": sum(len(study) for study in group.studies),
                "failed": sum(int((~study.succeeded).sum()) for study in group.studies),
                "best": max(finals, default=None),
                "mean": float(np.mean(finals)) if finals else None,
                "std": float(np.std(finals, ddof=1)) if len(finals) > 1 else None,
                "reached": float(group.grid[reached[0]]) if len(reached) else None,
            }
        )
    return rows
