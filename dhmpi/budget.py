"""When enough is enough: counts what came of trials and says when, and why, the search should stop.

Knows no clock: the walltime is the master's business (`dhmpi.roles.master`).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from dhmpi.trials import EPOCHS, Config, Outcome, Status

FIRST_FAILURES = 50
"""Without ``--max-failures`` a search whose first 50 evaluations all failed stops."""


@dataclass(frozen=True)
class Limits:
    """What bounds a search.

    Parameters
    ----------
    max_evals : int
        Distinct trials that may ever be started, failed ones included.
    retries : int
        How often a trial is given out again after its evaluator was lost.
    max_failures : int, optional
        Failed trials in all after which the search stops; by default only when the first 50 all failed.
    target : float, optional
        The search stops once an objective is at least this.
    patience : int, optional
        Finished trials without a better objective after which the search stops.
    quarantine_after : int, optional
        Crashed evaluations after which a host gets no new trials, if they are far more frequent there than elsewhere.
    screening : bool, default False
        Whether configurations with an entry `EPOCHS` are only screened: they count, but none of them is the best.
    """

    max_evals: int = 1_000_000
    retries: int = 2
    max_failures: int | None = None
    target: float | None = None
    patience: int | None = None
    quarantine_after: int | None = None
    screening: bool = False


class Budget:
    """The count of a search against its limits.

    Attributes
    ----------
    n_done, n_failed : int
        Finished trials with and without an objective.
    n_lost : int
        Those of the failed that were given up because their evaluators were lost.
    best : Outcome or None
        The outcome with the largest objective, the earliest of equals; `best_config` is its configuration.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.n_done = 0
        self.n_failed = 0
        self.n_lost = 0
        self.best: Outcome | None = None
        self.best_config: Config | None = None
        self.reasons: Counter[str] = Counter()
        self._since_best = 0

    @property
    def n_finished(self) -> int:
        return self.n_done + self.n_failed

    def record(self, outcome: Outcome, config: Config) -> None:
        """Count one finished trial."""
        self._since_best += 1
        if outcome.objective is None:
            self.n_failed += 1
            self.n_lost += outcome.status is Status.LOST
            self.reasons[f"{outcome.status}: {outcome.reason.split(chr(10), 1)[0]}"] += 1
            return
        self.n_done += 1
        if self.limits.screening and EPOCHS in config:
            return
        if self.best is None or outcome.objective > self.best.objective:  # type: ignore[operator]
            self.best, self.best_config, self._since_best = outcome, config, 0

    def spent(self) -> str | None:
        """Return why the search should stop, or None while it should go on."""
        limits = self.limits
        if self.n_finished > limits.max_evals:
            return f"{self.n_finished} evaluations are finished, and {limits.max_evals} are wanted"
        if self.n_finished == limits.max_evals:
            return f"all {limits.max_evals} evaluations are finished"
        if self.best is not None and limits.target is not None and self.best.objective >= limits.target:  # type: ignore[operator]
            return f"the target of {limits.target:g} is reached"
        if limits.patience is not None and self.best is not None and self._since_best >= limits.patience:
            return f"no better objective in the last {limits.patience} evaluations"
        if limits.max_failures is not None and self.n_failed >= limits.max_failures:
            return f"{self.n_failed} evaluations have failed; the commonest reason: {self.commonest_reason()}"
        if limits.max_failures is None and self.n_done == 0 and self.n_failed >= FIRST_FAILURES:
            return f"the first {self.n_failed} evaluations all failed; the commonest reason: {self.commonest_reason()}"
        return None

    @property
    def failing(self) -> bool:
        """Whether the search should stop, or has stopped, because of its failures."""
        limit, few = self.limits.max_failures, min(FIRST_FAILURES, self.limits.max_evals)
        return (limit is not None and self.n_failed >= limit) or (self.n_done == 0 and self.n_failed >= few)

    def commonest_reason(self) -> str:
        """Return the reason most failed trials share, and their number."""
        if not self.reasons:
            return "none"
        reason, count = self.reasons.most_common(1)[0]
        return f"{reason} ({count} times)"


def objective_for_search(outcome: Outcome) -> float | None:
    """Return what a search is told of an outcome: the objective, or None for any kind of failure."""
    return outcome.objective if outcome.status in (Status.DONE, Status.REUSED) else None
