"""What a dispatcher decides, as lines of the journal; the longer ones, each of which is made in one place, here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dhmpi.mpi.protocol import Proposed
from dhmpi.trials import Outcome, Trial


def asked_event(proposed: Proposed, now: float) -> dict[str, Any]:
    """Return an answer of the search: how many proposals came, and all that it takes to have them proposed again."""
    return {
        "e": "asked",
        "t": now,
        "ask": proposed.ask,
        "n": len(proposed.proposals),
        "told": proposed.n_told,
        "pending": ranges(proposed.pending),
        "replacing": ranges(proposed.replacing),
        "seconds": round(proposed.seconds, 4),
        "exhausted": proposed.exhausted,
        "informed": proposed.informed,
    }


def placed_event(trial: Trial, rank: int, now: float, **more: Any) -> dict[str, Any]:
    """Return that a trial was given to a rank; 0 for what no evaluator gets."""
    return {
        "e": "placed",
        "t": now,
        "trial": trial.id,
        "attempt": trial.attempt,
        "rank": rank,
        "key": trial.key,
        "config": trial.config,
        **more,
    }


def lost_event(
    id_: int, rank: int, host: str, ran: bool, died: bool, reason: str, since: float, now: float
) -> dict[str, Any]:
    """Return that a trial was lost with a rank; `since`: when the rank has begun with it, if it `ran`."""
    event = {"e": "lost", "t": now, "trial": id_, "rank": rank, "host": host, "ran": ran, "died": died}
    return {**event, "reason": reason, **({"start": since} if ran else {})}


def finished_event(outcome: Outcome, now: float) -> dict[str, Any]:
    """Return an outcome."""
    event: dict[str, Any] = {
        "e": "finished",
        "t": now,
        "trial": outcome.trial,
        "attempt": outcome.attempt,
        "status": outcome.status.value,
        "objective": outcome.objective,
        "rank": outcome.rank,
        "host": outcome.host,
        "start": outcome.start,
        "end": outcome.end,
        "elapsed": outcome.elapsed,
    }
    if outcome.metrics:
        event["metrics"] = outcome.metrics
    if outcome.reason:
        event["reason"] = outcome.reason
    return event


def ranges(numbers: Iterable[int]) -> list[list[int]]:
    """Return sorted integers as inclusive ranges, which keeps long lists of neighbours short.

    >>> ranges([3, 1, 2, 7])
    [[1, 3], [7, 7]]
    """
    result: list[list[int]] = []
    for number in sorted(numbers):
        if result and number == result[-1][1] + 1:
            result[-1][1] = number
        else:
            result.append([number, number])
    return result
