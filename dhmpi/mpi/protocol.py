"""What ranks say to each other: one tag per kind of message, and the payload of each.

Ids and attempts are data, never tags.  A message may carry several trials or outcomes.  Payloads are named tuples that
travel as plain ones (`plain`, `rebuilt`): to pickle classes and enum members takes three times as long, and 0.1 ms more
in a rank whose caches are cold after an evaluation (measured).  No mpi4py here.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Any, NamedTuple

from dhmpi.trials import Outcome, Proposal, Status, Trial


class Tag(IntEnum):
    """Who says what to whom."""

    # master -> evaluator
    SETUP = 1
    WORK = 2
    # evaluator -> master
    READY = 11
    REFUSED = 12
    REPORT = 13
    # master -> searcher
    BEGIN = 21
    NEWS = 22
    # searcher -> master
    PROBLEM = 31
    NO_PROBLEM = 32
    PROPOSED = 33
    # anybody -> master
    ALIVE = 41
    # master -> everybody
    STOP = 51
    # anybody -> everybody
    BROKEN = 61


class Setup(NamedTuple):
    """Tag SETUP: what an evaluator must know of the run before it loads the function."""

    run_id: str
    directory: str
    seed: int
    resumed: bool
    """Whether processes of an earlier launch may be left on this host."""


class Work(NamedTuple):
    """Tag WORK: what an evaluator should do, and what it may forget."""

    trials: Sequence[Trial] = ()
    acknowledged: Sequence[int] = ()
    """Trials whose outcome is in the journal."""
    recalled: Sequence[int] = ()
    """Placed trials that should come back if they have not been started."""
    cancelled: Sequence[int] = ()
    """Trials whose outcome nobody wants any more."""


class Ready(NamedTuple):
    """Tag READY: an evaluator has loaded the run function."""

    host: str
    seconds: float


class Refused(NamedTuple):
    """Tags REFUSED and NO_PROBLEM: the user's problem or run function cannot be used; one sentence."""

    reason: str


class Report(NamedTuple):
    """Tag REPORT: outcomes of an evaluator, and placed trials that it gives back."""

    outcomes: Sequence[Outcome] = ()
    returned: Sequence[int] = ()


class Alive(NamedTuple):
    """Tag ALIVE: a sign of life; an evaluator names the trial it is running."""

    trial: int | None = None


class Begin(NamedTuple):
    """Tag BEGIN: what the searcher needs to build its search, and what an earlier launch has left."""

    run_id: str
    spec: dict[str, Any]
    log: str
    """File that takes what the search's process prints."""
    finished: Sequence[tuple[int, dict[str, Any], float | None]] = ()
    unfinished: Sequence[tuple[int, dict[str, Any]]] = ()
    n_asks: int = 0


class ProblemInfo(NamedTuple):
    """Tag PROBLEM: what the searcher learnt of the problem when it loaded it."""

    hyperparameters: Sequence[str]
    fingerprint: str
    size: int | None
    """Number of distinct configurations, None if infinite."""


class News(NamedTuple):
    """Tag NEWS: what has happened to the searcher's proposals since the last news."""

    told: Sequence[tuple[int, float | None]] = ()
    """Key and objective of finished trials, None for a failed one."""
    started: Sequence[int] = ()
    """Keys that left the ahead queue for an evaluator."""
    dropped: Sequence[int] = ()
    """Keys that will never be evaluated."""
    n_evaluators: int = 0
    n_wanted: int = 0
    """Trials that may still be started within the budget."""
    duration: float | None = None
    """Median seconds of the last evaluations."""


class Proposed(NamedTuple):
    """Tag PROPOSED: the answer of the search to one ask."""

    ask: int
    n_told: int
    pending: Sequence[int]
    proposals: Sequence[Proposal]
    replacing: Sequence[int] = ()
    """Keys of proposals still ahead that these replace."""
    exhausted: bool = False
    """Whether the space holds no other configuration."""
    seconds: float = 0.0


class Stop(NamedTuple):
    """Tag STOP: the run is over."""

    reason: str = ""


class Broken(NamedTuple):
    """Tag BROKEN: the sender has met a bug and has reported it; everybody ends at once."""


_PAYLOADS: dict[Tag, type[NamedTuple]] = {
    Tag.SETUP: Setup,
    Tag.WORK: Work,
    Tag.READY: Ready,
    Tag.REFUSED: Refused,
    Tag.REPORT: Report,
    Tag.BEGIN: Begin,
    Tag.NEWS: News,
    Tag.PROBLEM: ProblemInfo,
    Tag.NO_PROBLEM: Refused,
    Tag.PROPOSED: Proposed,
    Tag.ALIVE: Alive,
    Tag.STOP: Stop,
    Tag.BROKEN: Broken,
}
_STATUS = {status.value: status for status in Status}


def plain(payload: Any) -> tuple[Any, ...]:
    """Return a payload as tuples, lists, dicts, numbers and strings."""
    if type(payload) is Report:
        outcomes = [(o.trial, o.attempt, o.status.value, *o[3:]) for o in payload.outcomes]
        return outcomes, payload.returned
    if type(payload) is Work:
        return [tuple(trial) for trial in payload.trials], *payload[1:]
    if type(payload) is Proposed:
        return *payload[:3], [tuple(proposal) for proposal in payload.proposals], *payload[4:]
    return tuple(payload)


def rebuilt(tag: Tag, fields: tuple[Any, ...]) -> Any:
    """Return the payload that `plain` has taken apart."""
    if tag is Tag.REPORT:
        outcomes, returned = fields
        return Report(
            [Outcome(trial, attempt, _STATUS[status], *rest) for trial, attempt, status, *rest in outcomes], returned
        )
    if tag is Tag.WORK:
        return Work([Trial._make(trial) for trial in fields[0]], *fields[1:])
    if tag is Tag.PROPOSED:
        proposals = [Proposal._make(proposal) for proposal in fields[3]]
        return Proposed._make((*fields[:3], proposals, *fields[4:]))
    return _PAYLOADS[tag](*fields)
