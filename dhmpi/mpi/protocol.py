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
    HOLDING = 14
    PROGRESS = 15
    # member of a group -> its leader
    MEMBER = 16
    # leader -> members of its group
    TOGETHER = 17
    # master -> searcher
    BEGIN = 21
    NEWS = 22
    CHECK = 23
    # searcher -> master
    PROBLEM = 31
    NO_PROBLEM = 32
    PROPOSED = 33
    SEARCHING = 34
    CHECKED = 35
    # anybody -> master
    ALIVE = 41
    # master -> everybody
    STOP = 51
    HEIR = 52
    # master -> those next in line
    SERVING = 53
    AHEAD = 55
    # master -> anybody, to rehearse a death
    KILL = 54
    # anybody -> everybody
    BROKEN = 61
    # leading agent -> other agents
    LEARN = 71
    TOTAL = 72
    STATE = 73
    # other agents -> leading agent
    PART = 81
    NEED = 82


FROM_MASTER = frozenset(
    {Tag.SETUP, Tag.WORK, Tag.BEGIN, Tag.NEWS, Tag.CHECK, Tag.STOP, Tag.HEIR, Tag.SERVING, Tag.AHEAD, Tag.KILL}
)
"""Only a master says these: who hears one obeys its sender, if no later master is known."""


STARTUP = ("interpreter", "keeper", "MPI", "meeting", "child", "import")
"""What a rank's start is made of: until its own code runs; to start the keeper; to initialise MPI; to learn who is
where; until the evaluating process is there; until that has imported the run function."""


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
    stopped: Sequence[int] = ()
    """Trials that should end early and answer with what they have."""
    dropped: Sequence[int] = ()
    """Numbers of groups that will not work together again."""


class Ready(NamedTuple):
    """Tag READY: an evaluator has loaded the run function."""

    host: str
    seconds: float
    """That the import took."""
    startup: Sequence[float] = ()
    """Seconds of each of `STARTUP`, in order."""


class Refused(NamedTuple):
    """Tags REFUSED and NO_PROBLEM: the user's problem or run function cannot be used; one sentence."""

    reason: str


class Report(NamedTuple):
    """Tag REPORT: outcomes of an evaluator, and placed trials that it gives back."""

    outcomes: Sequence[Outcome] = ()
    returned: Sequence[int] = ()


class Holding(NamedTuple):
    """Tag HOLDING: answer of an evaluator to an heir."""

    loaded: Ready | None
    """None while the function is being imported."""
    trials: Sequence[int] = ()
    """Trials it runs or has queued, in order."""
    outcomes: Sequence[Outcome] = ()
    """Those that no master has acknowledged."""


class Progress(NamedTuple):
    """Tag PROGRESS: a running trial has reported an intermediate value of its objective."""

    trial: int
    attempt: int
    step: int
    value: float


class Alive(NamedTuple):
    """Tag ALIVE: a sign of life; an evaluator names the trial it is running."""

    trial: int | None = None


class Step(IntEnum):
    """How far a member of a group is with a trial."""

    HERE = 0
    """It waits for the others, so that they make their communicator."""
    DONE = 1
    FAILED = 2
    LIMIT = 3
    """It is beyond a limit, which the status says, and on its way out of the evaluation."""
    LEFT = 4
    """It is out of the evaluation, as it was told."""
    APART = 5
    """The communicator could not be made."""


class Part(NamedTuple):
    """Tag MEMBER: a member tells its leader how far it is."""

    trial: int
    attempt: int
    group: int
    step: int
    """A `Step`."""
    reason: str = ""
    status: str = ""
    """Of an evaluation that has failed or is beyond a limit: a `Status`."""
    damaged: bool = False
    """Whether it knows of a death, after which communicators are made in another way."""


class Together(NamedTuple):
    """Tag TOGETHER: what the members of a group should do now."""

    trial: int
    attempt: int
    group: int
    go: bool
    """Whether to make the communicator and evaluate; otherwise, to leave the evaluation."""
    damaged: bool = False


class Begin(NamedTuple):
    """Tag BEGIN: what the searcher needs to build its search, and what an earlier launch has left."""

    run_id: str
    spec: dict[str, Any]
    log: str
    """File that takes what the search's process prints."""
    finished: Sequence[tuple[int, dict[str, Any], float | None]] = ()
    unfinished: Sequence[tuple[int, dict[str, Any]]] = ()
    """Started, or proposed and still ahead."""
    n_asks: int = 0
    ahead: Sequence[int] = ()
    """Keys of the unfinished that are ahead."""


class ProblemInfo(NamedTuple):
    """Tag PROBLEM: what the searcher learnt of the problem when it loaded it."""

    hyperparameters: Sequence[str]
    fingerprint: str
    size: int | None
    """Number of distinct configurations, None if infinite."""
    remarks: Sequence[str] = ()
    """What people should know, in sentences."""
    logarithmic: Sequence[str] = ()
    """Hyperparameters that are ranges on a logarithmic scale."""


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
    n_asks: int = 0
    """Asks of the search that are in the journal."""
    added: Sequence[tuple[int, dict[str, Any]]] = ()
    """Key and configuration of points that users have added: the search takes them for pending."""
    max_evals: int | None = None
    """Evaluations in all, which a user may have changed; None if that is not said."""
    awaited: bool = False
    """Whether idle evaluators get nothing of what is ahead before the search has answered this."""
    n_idle: int = 0
    """Evaluators that have nothing to do."""


class Check(NamedTuple):
    """Tag CHECK: points that a user would like to add; the search says whether they are of the problem's space."""

    order: str
    points: Sequence[dict[str, Any]]
    as_text: bool
    """Whether values are text, of which the problem makes what it needs."""


class Checked(NamedTuple):
    """Tag CHECKED: the answer to CHECK."""

    order: str
    configs: Sequence[dict[str, Any]] = ()
    """As the function gets them."""
    n_known: int = 0
    """Points besides these that were evaluated or proposed already."""
    reason: str = ""
    """Why one of them cannot be evaluated; empty if all can."""


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
    reused: Sequence[tuple[int, float]] = ()
    """Key and objective of those that need no evaluation."""
    notes: Sequence[dict[str, Any]] = ()
    """Events of the search, for the journal."""
    stop: str = ""
    """Why the search wants to end, if it does."""
    informed: bool = False
    """Whether they depend on what the search was told, so that later ones may be better."""


class Searching(NamedTuple):
    """Tag SEARCHING: answer of the searcher to an heir; what is not in the journal yet follows as PROPOSED."""

    begun: bool
    """Whether a master has told it what to search."""
    info: ProblemInfo | None = None
    """None while the problem is being loaded."""
    pending: Sequence[int] = ()
    """Keys of all proposals of which it has not heard the end."""
    ahead: Sequence[Proposal] = ()
    """Those that were not started, as far as it knows."""
    n_added: int = 0
    """Points of users that it knows of."""


class Stop(NamedTuple):
    """Tag STOP: the run is over."""

    reason: str = ""
    together: bool = False
    """Whether nobody has died, so that all ranks can finalise MPI together."""


class Heir(NamedTuple):
    """Tag HEIR: the sender is master from now on."""

    n_asks: int
    """Asks of the search that are in the journal."""


class Serving(NamedTuple):
    """Tag SERVING: the master is there."""


class Ahead(NamedTuple):
    """Tag AHEAD: what the receiver, should it be master one day and find no search, gives evaluators meanwhile."""

    proposals: Sequence[tuple[int, dict[str, Any]]]
    """Key and configuration, the next first."""


class Kill(NamedTuple):
    """Tag KILL: the receiver dies, as if by accident."""


class Broken(NamedTuple):
    """Tag BROKEN: the sender has met a bug and has reported it; everybody ends at once."""


class Learn(NamedTuple):
    """Tag LEARN: an agent's share of a batch, see `dhmpi.search.ppo.Learner`."""

    attempt: int
    """Number of this attempt at any update."""
    agent: int
    fingerprint: str
    """Of the learner that all agents must have before they learn."""
    learner: dict[str, Any]
    """What an agent makes its learner of, if it has none: ``n_options``, ``settings``, ``seed``."""
    choices: Any
    log_probabilities: Any
    values: Any
    rewards: Any
    progress: float


class Sums(NamedTuple):
    """Tags PART and TOTAL: an agent's sums, and those of all agents."""

    attempt: int
    number: int
    """Of the reduction within the attempt."""
    array: Any


class State(NamedTuple):
    """Tags NEED and STATE: another learner is needed than the agent has, and what it should be."""

    attempt: int
    learner: dict[str, Any] | None = None


_PAYLOADS: dict[Tag, type[NamedTuple]] = {
    Tag.SETUP: Setup,
    Tag.WORK: Work,
    Tag.READY: Ready,
    Tag.REFUSED: Refused,
    Tag.REPORT: Report,
    Tag.HOLDING: Holding,
    Tag.PROGRESS: Progress,
    Tag.MEMBER: Part,
    Tag.TOGETHER: Together,
    Tag.BEGIN: Begin,
    Tag.NEWS: News,
    Tag.CHECK: Check,
    Tag.CHECKED: Checked,
    Tag.PROBLEM: ProblemInfo,
    Tag.NO_PROBLEM: Refused,
    Tag.PROPOSED: Proposed,
    Tag.SEARCHING: Searching,
    Tag.ALIVE: Alive,
    Tag.STOP: Stop,
    Tag.HEIR: Heir,
    Tag.SERVING: Serving,
    Tag.AHEAD: Ahead,
    Tag.KILL: Kill,
    Tag.BROKEN: Broken,
    Tag.LEARN: Learn,
    Tag.PART: Sums,
    Tag.TOTAL: Sums,
    Tag.NEED: State,
    Tag.STATE: State,
}
_STATUS = {status.value: status for status in Status}


def plain(payload: Any) -> tuple[Any, ...]:
    """Return a payload as tuples, lists, dicts, numbers and strings."""
    if type(payload) is Report:
        return _plain_outcomes(payload.outcomes), payload.returned
    if type(payload) is Work:
        return [tuple(trial) for trial in payload.trials], *payload[1:]
    if type(payload) is Proposed:
        return *payload[:3], [tuple(proposal) for proposal in payload.proposals], *payload[4:]
    if type(payload) is Holding:
        loaded = None if payload.loaded is None else tuple(payload.loaded)
        return loaded, payload.trials, _plain_outcomes(payload.outcomes)
    if type(payload) is Searching:
        info = None if payload.info is None else tuple(payload.info)
        ahead = [tuple(proposal) for proposal in payload.ahead]
        return payload.begun, info, payload.pending, ahead, payload.n_added
    return tuple(payload)


def rebuilt(tag: Tag, fields: tuple[Any, ...]) -> Any:
    """Return the payload that `plain` has taken apart."""
    if tag is Tag.REPORT:
        return Report(_outcomes(fields[0]), fields[1])
    if tag is Tag.WORK:
        return Work([Trial._make(trial) for trial in fields[0]], *fields[1:])
    if tag is Tag.PROPOSED:
        proposals = [Proposal._make(proposal) for proposal in fields[3]]
        return Proposed._make((*fields[:3], proposals, *fields[4:]))
    if tag is Tag.HOLDING:
        return Holding(None if fields[0] is None else Ready(*fields[0]), fields[1], _outcomes(fields[2]))
    if tag is Tag.SEARCHING:
        info = None if fields[1] is None else ProblemInfo(*fields[1])
        return Searching(fields[0], info, fields[2], [Proposal._make(proposal) for proposal in fields[3]], fields[4])
    return _PAYLOADS[tag](*fields)


def _plain_outcomes(outcomes: Sequence[Outcome]) -> list[tuple[Any, ...]]:
    return [(o.trial, o.attempt, o.status.value, *o[3:]) for o in outcomes]


def _outcomes(fields: Sequence[Any]) -> list[Outcome]:
    return [Outcome(trial, attempt, _STATUS[status], *rest) for trial, attempt, status, *rest in fields]
