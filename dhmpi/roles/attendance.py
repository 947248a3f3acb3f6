"""For how long evaluators were there and busy in a launch, all together.  Start at `Attendance`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from dhmpi.journal import History
from dhmpi.trials import Outcome, Trial, rank_seconds


class RankSeconds(NamedTuple):
    """Seconds of all evaluators together: busy, and there at all."""

    busy: float
    available: float

    def since(self, earlier: RankSeconds) -> RankSeconds:
        return RankSeconds(self.busy - earlier.busy, self.available - earlier.available)

    @property
    def utilisation(self) -> float:
        """Part of the time that was spent busy, at most 1; 0 before there was any."""
        return min(1.0, self.busy / self.available) if self.available > 0 else 0.0


class Attendance:
    """When each evaluator was ready and when it left; times are seconds since the epoch.

    Attributes
    ----------
    began : float
        When the search began: what was before does not count.
    """

    def __init__(self) -> None:
        self.began = 0.0
        self._presence: dict[int, list[float]] = {}  # when each rank was ready and, perhaps, left
        self._busy = 0.0

    def inherit(self, history: History, new: Iterable[tuple[Outcome, Trial]]) -> None:
        """Go on from an earlier master of this launch, with the trials that have finished in it."""
        self.began, self._presence = history.began, history.presence
        self.add(new)

    @property
    def anybody(self) -> bool:
        """Whether any evaluator was ever there."""
        return bool(self._presence)

    def ready(self, rank: int, now: float) -> None:
        self._presence.setdefault(rank, [now])

    def left(self, rank: int, now: float) -> None:
        if rank in self._presence:
            self._presence[rank][1:] = [now]

    def add(self, finished: Iterable[tuple[Outcome, Trial]]) -> None:
        """Count the time of trials that have finished."""
        self._busy += sum(rank_seconds(*item) for item in finished)

    def seconds(self, now: float, running: float) -> RankSeconds:
        """Return what there was so far; `running`: for how long what runs now has been running."""
        available = 0.0
        for since, *until in self._presence.values():
            available += max(0.0, (until[0] if until else now) - max(since, self.began))
        return RankSeconds(self._busy + running, available)
