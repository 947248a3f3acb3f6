"""What is evaluated, and what came of it: the data that every other module passes around.

Named tuples rather than dataclasses, because tens of thousands of them a second are pickled between ranks and a named
tuple costs a fraction of a frozen dataclass there.  Nothing here knows of MPI, files or clocks.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from enum import Enum
from typing import Any, NamedTuple

Config = dict[str, Any]
"""Hyperparameters by name as plain Python values (int, float, str, bool); inactive ones are absent."""

EPOCHS = "num_epochs"
"""Entry of a configuration that is only screened: how long."""
PARENT = "parent"
"""Entry of a configuration that was screened and is evaluated in full: the key of the screening."""
RANKS = "num_ranks"
"""Entry of a configuration: how many ranks evaluate it together."""


class Status(str, Enum):
    """Where a trial is, or how it ended."""

    AHEAD = "ahead"  # proposed, at the master, given to nobody: may still be replaced
    PLACED = "placed"  # sent in advance to a busy evaluator
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"  # the function raised, exited, or returned something that is no objective
    TIMEOUT = "timeout"
    MEMORY = "memory"
    CRASHED = "crashed"  # the process of the evaluation died
    LOST = "lost"  # its evaluators were lost, and its retries are spent
    REUSED = "reused"
    CANCELLED = "cancelled"

    def __str__(self) -> str:
        return self.value

    @property
    def finished(self) -> bool:
        """Whether a trial in this state counts towards ``--max-evals`` and is a row of results.csv."""
        return self in _FINISHED


_FINISHED = frozenset(
    {Status.DONE, Status.FAILED, Status.TIMEOUT, Status.MEMORY, Status.CRASHED, Status.LOST, Status.REUSED}
)


class Proposal(NamedTuple):
    """A configuration that a search would like to have evaluated."""

    key: int
    """The search's own name for it, unique in a run; proposals that are replaced unevaluated leave gaps."""
    config: Config


class Trial(NamedTuple):
    """A configuration that is, or was, being evaluated."""

    id: int
    """Number of the trial in the run: 0, 1, 2, ... without gaps."""
    key: int
    config: Config
    attempt: int = 0
    """0 for the first try; one more each time the trial is given out again."""
    copy: bool = False
    """Whether the same trial runs elsewhere too; the first answer counts."""
    ranks: Sequence[int] = ()
    """Those that evaluate it together, where they do: the lowest, the leader, comes first."""
    group: int = 0
    """Number of their communicator; the first time they see it, they make it."""


class Outcome(NamedTuple):
    """What came of one attempt at a trial."""

    trial: int
    attempt: int
    status: Status
    objective: float | None
    """To be maximised; ``None`` unless status is done."""
    metrics: dict[str, Any] = {}
    rank: int = 0
    host: str = ""
    start: float = 0.0
    """Seconds since the epoch, on the clock of the launch's first master."""
    end: float = 0.0
    elapsed: float = 0.0
    """Seconds the evaluation took, on the evaluator's monotonic clock."""
    reason: str = ""
    """Why there is no objective: one sentence, then perhaps a traceback and the last lines of output."""


class Loss(NamedTuple):
    """An evaluator that was lost while it ran a trial."""

    host: str
    died: bool
    """Whether its process has died; otherwise it was silent for too long."""


def rank_seconds(outcome: Outcome, trial: Trial) -> float:
    """Return the seconds that an evaluation took of all its ranks together."""
    return outcome.elapsed * max(1, len(trial.ranks))


def digest(config: Config) -> str:
    """Return 8 hexadecimal digits that name a configuration, the same in every process."""
    return hashlib.sha1(json.dumps(config, sort_keys=True).encode(), usedforsecurity=False).hexdigest()[:8]
