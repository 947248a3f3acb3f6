"""Early stopping: which evaluations are so far behind others at the same step that they had better end.

A run function reports intermediate values of its objective with ``dhmpi.trial().report(step, value)`` and looks at
``dhmpi.trial().should_stop()``; a stopper answers.  The function then returns what it has: its outcome counts like any
other.  Pure arithmetic: no clock, no MPI.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from array import array
from bisect import bisect_left, insort
from collections import defaultdict

STOPPERS = ("median", "halving")
MIN_TRIALS = 5
"""Trials that must have reported at a step before the median of their values says something."""


class Stopper(ABC):
    """Judges trials by the values that they report; larger is better.

    Parameters
    ----------
    min_steps : int, default 1
        No trial is stopped before it has reported this step.
    """

    def __init__(self, min_steps: int = 1) -> None:
        if min_steps < 1:
            raise ValueError(f"min_steps must be >= 1, got {min_steps}")
        self.min_steps = min_steps

    @abstractmethod
    def report(self, trial: int, step: int, value: float) -> bool:
        """Take an intermediate value; return whether the trial should stop.

        Parameters
        ----------
        trial : int
        step : int
            Of the trial's own progress, an epoch for instance: rising, perhaps with gaps.
        value : float
            NaN counts as worse than everything.
        """

    @abstractmethod
    def forget(self, trial: int) -> None:
        """Note that a trial has ended or starts anew: what it reported stays a yardstick for others."""


class MedianStopper(Stopper):
    """Stop a trial whose best value so far is below the median of the others' running averages at the same step.

    Parameters
    ----------
    min_steps : int, default 1

    References
    ----------
    Golovin et al. (2017), Google Vizier: A Service for Black-Box Optimization, KDD, section 3.2.2.
    """

    def __init__(self, min_steps: int = 1) -> None:
        super().__init__(min_steps)
        self._averages: defaultdict[int, array[float]] = defaultdict(lambda: array("d"))  # of each step, sorted
        self._running: dict[int, tuple[int, float, float]] = {}  # number of values, their sum, the best

    def report(self, trial: int, step: int, value: float) -> bool:
        value = -math.inf if math.isnan(value) else value
        n, total, best = self._running.get(trial, (0, 0.0, -math.inf))
        n, total, best = n + 1, total + value, max(best, value)
        total = -math.inf if math.isnan(total) else total  # both infinities
        self._running[trial] = n, total, best
        averages = self._averages[step]
        behind = len(averages) >= MIN_TRIALS and best < _median(averages)
        insort(averages, total / n)
        return behind and step >= self.min_steps

    def forget(self, trial: int) -> None:
        self._running.pop(trial, None)


class HalvingStopper(Stopper):
    """Asynchronous successive halving: at each rung only the best share of the trials that came so far goes on.

    Rungs are at the steps `min_steps`, `min_steps` * `factor`, `min_steps` * `factor` ** 2, ...  A trial that is among
    the best 1/`factor` of those that have reached a rung before it goes on; so does everyone while fewer than `factor`
    have reached it.

    Parameters
    ----------
    min_steps : int, default 1
        Step of the first rung.
    factor : int, default 4
        Reduction factor, >= 2.

    References
    ----------
    Li et al. (2020), A System for Massively Parallel Hyperparameter Tuning, MLSys (its stopping variant).
    """

    def __init__(self, min_steps: int = 1, factor: int = 4) -> None:
        super().__init__(min_steps)
        if factor < 2:
            raise ValueError(f"factor must be >= 2, got {factor}")
        self.factor = factor
        self._rungs: defaultdict[int, array[float]] = defaultdict(lambda: array("d"))  # values at each rung, sorted
        self._reached: dict[int, int] = {}  # the highest rung that a running trial was judged at

    def report(self, trial: int, step: int, value: float) -> bool:
        rung = self._rung(step)
        if rung < 0 or rung <= self._reached.get(trial, -1):
            return False
        self._reached[trial] = rung
        values = self._rungs[rung]
        value = -math.inf if math.isnan(value) else value
        insort(values, value)
        n_better = len(values) - bisect_left(values, value) - 1  # equals count as better: ties do not all go on
        return len(values) >= self.factor and n_better >= len(values) // self.factor

    def forget(self, trial: int) -> None:
        self._reached.pop(trial, None)

    def _rung(self, step: int) -> int:
        """Return the number of the highest rung at or below a step, -1 if there is none."""
        rung, at = -1, self.min_steps
        while at <= step:
            rung, at = rung + 1, at * self.factor
        return rung


def make(name: str, min_steps: int = 1, factor: int = 4) -> Stopper:
    """Return the stopper that ``--stopper`` names."""
    return MedianStopper(min_steps) if name == "median" else HalvingStopper(min_steps, factor)


def _median(values: array[float]) -> float:
    middle = len(values) // 2
    return values[middle] if len(values) % 2 else (values[middle - 1] + values[middle]) / 2
