"""How long the ranks of a launch took to start, phase by phase: collected by the master, told once."""

from __future__ import annotations

import statistics
from collections.abc import Sequence, Set
from typing import Any

from dhmpi.mpi.protocol import STARTUP


class Startup:
    """The seconds that evaluators have named.

    Parameters
    ----------
    expected : sequence of int
        Ranks that start with the launch.
    """

    def __init__(self, expected: Sequence[int]) -> None:
        self._expected = frozenset(expected)
        self._found: dict[int, Sequence[float]] = {}
        self._told = False
        self.problem: float | None = None
        """Seconds that the search took to load the problem, and to build itself."""

    def add(self, rank: int, seconds: Sequence[float]) -> None:
        """Take the seconds of a rank, as `STARTUP` has them; empty if it does not say."""
        if seconds:
            self._found.setdefault(rank, seconds)

    def take(self, dead: Set[int], ended: bool = False) -> dict[str, Any] | None:
        """Return the event to record, once: when every rank that lives has told, or at the end.

        For each phase it has the smallest of all seconds, their median, and the largest.
        """
        missing = self._expected - dead - self._found.keys()
        if self._told or self.problem is None or not self._found or (missing and not ended):
            return None
        self._told = True
        phases = {
            name: [round(figure, 3) for figure in (min(each), statistics.median(each), max(each))]
            for name, each in zip(STARTUP, zip(*self._found.values()))
        }
        return {"e": "startup", "ranks": len(self._found), "problem": round(self.problem, 3), "seconds": phases}


def in_words(event: dict[str, Any]) -> str:
    """Return an event ``startup`` in words."""
    phases = ", ".join(f"{name} {'/'.join(f'{s:.2f}' for s in each)}" for name, each in event["seconds"].items())
    n = event["ranks"]
    return (
        f"start of {n} evaluator{'s' * (n != 1)} in seconds (min/median/max): {phases}; problem {event['problem']:.2f}"
    )
