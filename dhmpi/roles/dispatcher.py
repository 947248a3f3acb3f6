"""Who gets which trial, and what to do with an outcome, a loss, a silence or a spent budget.

The dispatcher decides and transports nothing: it knows neither MPI nor a clock nor a file.  Calls come in with the time
as an argument; what should be sent, written and told collects in `work`, `events` and the news until the caller takes
it.  The very same object runs under the master, in virtual time, and in tests.
"""

from __future__ import annotations

import itertools
import statistics
from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from dhmpi.budget import Budget, Limits, objective_for_search
from dhmpi.journal import History
from dhmpi.mpi.protocol import News, Progress, Proposed, Work
from dhmpi.roles.hostwatch import HostWatch
from dhmpi.roles.supply import WORTH, pays_to_wait
from dhmpi.steering import Action, in_words
from dhmpi.stopping import Stopper
from dhmpi.trials import EPOCHS, PARENT, Config, Loss, Outcome, Status, Trial

SHORT = 0.5
"""Seconds; longer evaluations get nothing placed in advance: the wait for the next trial does not show."""
IN_ADVANCE = 0.020
"""Seconds of work placed in advance with an evaluator, so that it never waits for an answer."""
MOST_PLACED = 128
MOST_DEATHS = 2
"""Evaluators, of two hosts where there are two, that may die while they run a trial; then it is not tried again."""
STRAGGLER = 3.0
"""Times the median that an evaluation lasts before it is also started elsewhere, when nothing else is left to do."""
LEAST_STRAGGLER = 1.0
"""Seconds; no shorter evaluation is started twice."""
USUAL = 0.5
"""Part of the evaluations that must be able to end before the deadline, that one more is started."""


@dataclass
class Evaluator:
    """What is known of one evaluator."""

    host: str
    queue: deque[int] = field(default_factory=deque)
    """Trials it holds, in order: the first is running, the others are placed."""
    seen: float = 0.0
    since: float = 0.0
    """When the first of the queue became the first."""
    silent: bool = False
    retired: bool = False
    """It gets nothing new."""
    barred: bool = False
    """Its host is left out."""
    awaited: bool = False
    """An earlier master gave it trials, and it has not said yet which of them it has."""
    recalled: bool = False
    leaving: set[int] = field(default_factory=set)
    """Trials that it was told to leave to others, and has not answered for."""

    @property
    def usable(self) -> bool:
        """Whether it may get trials."""
        return not (self.silent or self.retired or self.barred or self.awaited)


class _Orders:
    """A `Work` message in the making."""

    __slots__ = ("acknowledged", "cancelled", "dropped", "recalled", "stopped", "trials")

    def __init__(self) -> None:
        self.trials: list[Trial] = []
        self.acknowledged: list[int] = []
        self.recalled: list[int] = []
        self.cancelled: list[int] = []
        self.stopped: list[int] = []
        self.dropped: list[int] = []

    @property
    def work(self) -> Work:
        return Work(self.trials, self.acknowledged, self.recalled, self.cancelled, self.stopped, self.dropped)


class Dispatcher:
    """Hands trials to evaluators within a budget.

    Distinct trials that are finished, running, placed or waiting for another try never exceed ``limits.max_evals``.
    The first outcome of a trial counts, whoever sends it.

    Parameters
    ----------
    limits : Limits
    silence : float or None, default 90
        Seconds without a sign of life after which an evaluator gets no new work and its trials go elsewhere; None
        where evaluators cannot give signs of life while they evaluate.
    stopper : Stopper, optional
        Says which trials should end early; by default none.

    Attributes
    ----------
    budget : Budget
    stopping : str or None
        Why nothing new is started any more.
    short_of_ranks : bool
        Whether that is because too few ranks are left.
    paused : bool
        Whether nothing new is started for now, because a user wants it so.
    n_added : int
        Points that users have added so far.
    """

    def __init__(self, limits: Limits, silence: float | None = 90.0, stopper: Stopper | None = None) -> None:
        self.limits = limits
        self.budget = Budget(limits)
        self.silence = silence
        self._stopper = stopper
        self._stopped_early: set[int] = set()
        self.stopping: str | None = None
        self.short_of_ranks = False
        self.exhausted = False
        self._cancelling = False
        self._was_exhausted = False  # by the time an earlier master died; there may be trials ahead all the same
        self.n_started = 0
        self.n_retried = 0
        self.paused = False
        self.n_added = 0
        self._added: deque[tuple[int, Config]] = deque()  # points of users that nobody has got; before what is ahead
        self._new_points: dict[int, Config] = {}  # those that the search may not know of
        self._untold_points: list[tuple[int, Config]] = []
        self._has_new_limit = False  # of which the searcher was told nothing
        self._ahead: deque[tuple[int, Config]] = deque()
        self._waiting: deque[Trial] = deque()  # to be tried again; before everything that is ahead
        self._open: dict[int, Trial] = {}  # given to an evaluator
        self._holder: dict[int, int] = {}  # trial -> the rank it was last given to
        self._copy: dict[int, int] = {}  # trial -> another rank that runs it too
        self._losses: dict[int, list[Loss]] = {}
        self._evaluators: dict[int, Evaluator] = {}
        self._hosts = HostWatch(limits.quarantine_after)
        # The first of a plain dict takes ever longer to find when the first is what is always removed.
        self._idle: OrderedDict[int, None] = OrderedDict()  # ranks that hold nothing, first come first
        self._n_usable = 0
        self._roomy: OrderedDict[int, None] = OrderedDict()  # busy ranks with room for a placed trial
        self._depth = 0
        self._durations: deque[float] = deque(maxlen=101)
        self._n_durations = 0
        self._median_duration: float | None = None
        self._screened: dict[int, int] = {}  # key -> id of the trials that others may be promoted from
        self._recent: OrderedDict[int, Config] = OrderedDict()  # key -> configuration of those started last
        self._work: dict[int, _Orders] = {}
        self._before: list[tuple[int, _Orders]] = []  # to be sent before `_work`
        self._events: list[dict[str, Any]] = []
        self._outcomes: list[tuple[Outcome, Trial]] = []
        self._told: list[tuple[int, float | None]] = []
        self._started_keys: list[int] = []
        self._dropped: list[int] = []
        self._remarks: list[str] = []
        self.n_asks = 0
        self._answer: Proposed | None = None  # the last of the search
        self._awaited_until: float | None = None  # that long nothing of what is ahead is started

    # -- what a caller reads -------------------------------------------------------------------------------------------

    @property
    def n_running(self) -> int:
        """Evaluators that hold at least one trial."""
        return sum(1 for evaluator in self._evaluators.values() if evaluator.queue and not evaluator.silent)

    @property
    def n_ahead(self) -> int:
        return len(self._ahead)

    @property
    def n_available(self) -> int:
        """How many of them evaluators may start now."""
        return 0 if self._awaited_until is not None else len(self._ahead)

    @property
    def n_evaluators(self) -> int:
        """Evaluators that may get work."""
        return self._n_usable

    @property
    def ahead(self) -> list[tuple[int, Config]]:
        """Key and configuration of the proposals that nobody has got."""
        return list(self._ahead)

    def first_ahead(self, n: int) -> list[tuple[int, Config]]:
        """Return the first of them."""
        return list(itertools.islice(self._ahead, n))

    @property
    def has_untold_points(self) -> bool:
        """Whether there are points of users of which the searcher was told nothing."""
        return bool(self._untold_points)

    @property
    def median_duration(self) -> float | None:
        """Seconds of an evaluation, None if none has finished."""
        return self._median_duration

    @property
    def ranks(self) -> dict[int, str]:
        """Host of each evaluator."""
        return {rank: evaluator.host for rank, evaluator in self._evaluators.items()}

    @property
    def n_wanted(self) -> int:
        """Proposals that may still be started."""
        return 0 if self.stopping else max(0, self.limits.max_evals - self.n_started - len(self._added))

    @property
    def in_flight(self) -> list[Trial]:
        """Trials given to an evaluator, or waiting to be given out again, in the order of their ids."""
        return sorted([*self._open.values(), *self._waiting])

    def running_seconds(self, now: float) -> float:
        """Return how long what is running now has been running, all evaluators together."""
        return sum(max(0.0, now - evaluator.since) for evaluator in self._evaluators.values() if evaluator.queue)

    @property
    def over(self) -> bool:
        """Whether nothing is running and nothing more will be started."""
        return self.stopping is not None and not self._open

    def take_work(self) -> list[tuple[int, Work]]:
        """Return the messages for evaluators that have collected, and forget them."""
        work = [(rank, orders.work) for rank, orders in (*self._before, *self._work.items())]
        self._before, self._work = [], {}
        return work

    def take_events(self) -> list[dict[str, Any]]:
        """Return the journal's new lines, to be written before the messages are sent."""
        events, self._events = self._events, []
        return events

    def take_outcomes(self) -> list[tuple[Outcome, Trial]]:
        """Return the trials that have finished, in order."""
        outcomes, self._outcomes = self._outcomes, []
        return outcomes

    def take_news(self) -> News | None:
        """Return what the searcher should know, or None if there is nothing new."""
        if not (self._told or self._started_keys or self._dropped or self._untold_points or self._has_new_limit):
            return None
        news = News(
            self._told,
            self._started_keys,
            self._dropped,
            self.n_evaluators,
            self.n_wanted,
            self._median_duration,
            self.n_asks,
            self._untold_points,
            self.limits.max_evals,
            self._awaited_until is not None,
            len(self._idle),
        )
        self._told, self._started_keys, self._dropped, self._untold_points = [], [], [], []
        self._has_new_limit = False
        return news

    def take_remarks(self) -> list[str]:
        """Return what people should know, in sentences."""
        remarks, self._remarks = self._remarks, []
        return remarks

    def longest(self, fraction: float = 0.9) -> float | None:
        """Return the seconds within which that part of the last evaluations ended, None if there were none."""
        durations = sorted(self._durations)
        return durations[min(len(durations) - 1, int(fraction * len(durations)))] if durations else None

    def too_late(self, left: float, grace: float) -> str | None:
        """Return why nothing more should be started so many seconds before the end, None while something should."""
        if left <= grace:
            return "the time limit is near"
        usual = self.longest(USUAL)
        if usual is not None and left < usual:
            return f"the time limit is near, and an evaluation takes {usual:.3g} s"
        return None

    # -- what happens --------------------------------------------------------------------------------------------------

    def heed(self, history: History) -> None:
        """Keep to what users have done to the run so far; call it before `restore`, while limits are those given."""
        self.paused, self.n_added = history.paused, history.n_added
        self._added.extend(history.added.items())
        if (max_evals := history.steered_max_evals(self.limits.max_evals)) is not None:
            self._set_max_evals(max_evals)

    def restore(self, finished: Iterable[tuple[Outcome, Trial]], unfinished: Iterable[Trial]) -> None:
        """Continue an earlier launch, before anything else happens; unfinished trials are tried first."""
        for outcome, trial in finished:
            self._record(outcome, trial)
            self.n_started = max(self.n_started, trial.id + 1)
        again: list[Trial] = []
        for trial in unfinished:
            self.n_started = max(self.n_started, trial.id + 1)
            again.append(trial._replace(attempt=trial.attempt + 1))
        self._wait(again)
        self._check_budget(0.0)

    def inherit(self, history: History, hosts: Sequence[str], now: float) -> None:
        """Continue the work of an earlier master of this launch, before anything else happens.

        Its evaluators keep what they run; each says in `holds` what that is.
        """
        self.heed(history)
        for outcome, trial in history.finished.values():
            self._record(outcome, trial)
            self.n_started = max(self.n_started, trial.id + 1)
        self._losses = {id_: list(losses) for id_, losses in history.losses.items()}
        self._hosts.recount(history)
        self._durations.extend(outcome.elapsed for outcome in history.outcomes_of_launch() if outcome.elapsed > 0)
        if self._durations:
            self._set_depth()
        self.n_asks = history.n_asks
        self._was_exhausted = history.exhausted
        self.short_of_ranks = history.short_of_ranks
        for trial in history.unfinished.values():
            self.n_started = max(self.n_started, trial.id + 1)
            holders = history.holders.get(trial.id)
            if not holders:
                continue
            for rank in holders:
                since = history.since.get(trial.id, now)
                barred = self._hosts.is_quarantined(hosts[rank])
                evaluator = self._evaluators.setdefault(
                    rank, Evaluator(hosts[rank], seen=now, since=since, barred=barred, awaited=True)
                )
                evaluator.queue.append(trial.id)
            self._open[trial.id], self._holder[trial.id] = trial, holders[0]
            if len(holders) > 1:
                self._copy[trial.id] = holders[1]
        self._wait(trial for trial in history.unfinished.values() if trial.id not in self._open)
        self._check_budget(now)

    def holds(self, rank: int, host: str, ids: Iterable[int], now: float) -> None:
        """Take in what an evaluator of an earlier master has; what else it was given never arrived."""
        evaluator = self._evaluators.get(rank)
        if evaluator is None:
            evaluator = self._evaluators[rank] = Evaluator(
                host, seen=now, since=now, barred=self._hosts.is_quarantined(host), awaited=True
            )
        self._events.append({"e": "joined", "t": now, "rank": rank, "host": host})
        if not evaluator.awaited:
            return  # what it has is from this master, or on its way
        if evaluator.silent:
            self._events.append({"e": "heard", "t": now, "rank": rank})
            evaluator.queue.clear()  # all that was taken back
        held = list(ids)
        missing = [id_ for id_ in evaluator.queue if id_ not in held]
        evaluator.queue = self._kept(rank, held, now, evaluator.queue)
        for id_ in missing:
            self._give_back(rank, id_, now)
        evaluator.seen = now
        self._change(rank, evaluator, silent=False, awaited=False)
        self._readmit(now)
        self._assign(now)
        self._check_exhausted(now)

    def join(self, rank: int, host: str, now: float) -> None:
        """Take in an evaluator that is ready for work."""
        evaluator = self._evaluators[rank] = Evaluator(
            host, seen=now, since=now, barred=self._hosts.is_quarantined(host)
        )
        self._n_usable += evaluator.usable
        self._rest(rank, evaluator)
        self._events.append({"e": "joined", "t": now, "rank": rank, "host": host})
        self._assign(now)

    def steer(self, event: dict[str, Any], now: float) -> None:
        """Do what a user wants, as the event says it with which it goes on record (`dhmpi.roles.inbox` makes it)."""
        self._events.append(event)
        self._remarks.append(in_words(event))
        action = event["action"]
        if action == Action.ADD:
            self._add([(key, config) for key, config in event["points"]])
        elif action == Action.MAX_EVALS:
            self._set_max_evals(event["max_evals"])
            self._has_new_limit = True
            if self._durations:
                self._set_depth()
            self._check_budget(now)
        elif action == Action.PAUSE:
            self.paused = True
            self._recall(now, patience=-1.0)
        elif action == Action.RESUME:
            self.paused = False
        elif action == Action.STOP:
            self.stop(event["reason"], now)
        self._assign(now)
        self._check_exhausted(now)

    def retire(self, rank: int, now: float) -> None:
        """Give an evaluator nothing new."""
        if rank in self._evaluators:
            self._change(rank, self._evaluators[rank], retired=True)
            self._readmit(now)
            self._assign(now)

    def enlist(self, rank: int, now: float) -> None:
        """Give a retired evaluator work again."""
        if rank in self._evaluators:
            self._change(rank, self._evaluators[rank], retired=False)
            self._assign(now)

    def leave(self, rank: int, now: float, reason: str, died: bool = False) -> None:
        """Give up an evaluator; what it held goes elsewhere.

        Parameters
        ----------
        died : bool, default False
            Whether its process has died, perhaps because of what it ran.
        """
        evaluator = self._evaluators.get(rank)
        if evaluator is None:
            return
        self._change(rank, evaluator, retired=True)
        del self._evaluators[rank]
        self._work.pop(rank, None)
        self._before = [(to, orders) for to, orders in self._before if to != rank]
        self._events.append({"e": "left", "t": now, "rank": rank, "reason": reason})
        self._take_back(rank, evaluator, now, reason, died)
        self._readmit(now)
        self._assign(now)
        self._check_exhausted(now)

    def propose(self, proposed: Proposed, now: float) -> None:
        """Put proposals ahead, in the place of those they replace."""
        self.n_asks = max(self.n_asks, proposed.ask + 1)
        self._events.append(
            {
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
        )
        self._events += [{**note, "t": now} for note in proposed.notes]
        proposals: Iterable[tuple[int, Config]] = proposed.proposals
        if proposed.reused:
            objectives = dict(proposed.reused)
            for key, config in proposals:
                if key in objectives:
                    self._reuse(key, config, objectives[key], now)
            proposals = [(key, config) for key, config in proposals if key not in objectives]
        if proposed.replacing:
            replacing = set(proposed.replacing)
            replaced = [key for key, _ in self._ahead if key in replacing]
            self._dropped += replaced
            self._ahead = deque(item for item in self._ahead if item[0] not in replacing)
            # Some were started while the search was thinking: what equals one of them is not proposed a second time.
            raced = [self._recent[key] for key in replacing.difference(replaced) if key in self._recent]
            if raced:
                self._dropped += [key for key, config in proposals if config in raced]
                proposals = [(key, config) for key, config in proposals if config not in raced]
        if self._new_points:  # so is what equals a point that the search did not know of
            self._forget_points(proposed.pending)
            points = list(self._new_points.values())
            self._dropped += [key for key, config in proposals if config in points]
            proposals = [(key, config) for key, config in proposals if config not in points]
        self._ahead.extend(proposals)
        self._answer = proposed
        if proposed.n_told >= self.budget.n_finished:
            self._awaited_until = None
        self.exhausted = proposed.exhausted
        if proposed.stop and self.stopping is None:
            self.stop(proposed.stop, now)
        self._assign(now)
        self._check_exhausted(now)

    def put_ahead(self, proposals: Iterable[tuple[int, Config]], now: float, recorded: bool = False) -> None:
        """Take over what was ahead at an earlier master; with `recorded`, say so, since the searcher does not know."""
        if recorded:
            proposals = list(proposals)
            self._events.append({"e": "ahead", "t": now, "proposals": [[key, config] for key, config in proposals]})
        self._ahead.extend(proposals)
        self.exhausted = self._was_exhausted
        self._assign(now)
        self._check_exhausted(now)

    def report(self, rank: int, outcomes: Sequence[Outcome], now: float) -> None:
        """Take outcomes from an evaluator."""
        evaluator = self._hear(rank, now)
        orders = self._orders(rank)
        for outcome in outcomes:
            orders.acknowledged.append(outcome.trial)
            if outcome.status is Status.CANCELLED and not self._cancelling:
                self._left(rank, evaluator, outcome.trial, now)
                continue
            if evaluator is not None:
                if evaluator.leaving:
                    self._answered_late(rank, evaluator, outcome.trial)
                self._unqueue(rank, evaluator, outcome.trial, now)
            trial = self._open.pop(outcome.trial, None)
            if trial is None:
                trial = self._reclaim(outcome.trial)
                if trial is None:
                    continue  # a late answer; another came first
            else:
                self._relieve(outcome.trial, rank, now)
            if outcome.status is Status.CANCELLED:
                self._cancelled(outcome, trial, now)
            else:
                self._finish(outcome, trial, now)
                self._check_budget(now)
        self._await(now)
        self._assign(now)
        self._check_exhausted(now)

    def returned(self, rank: int, ids: Iterable[int], now: float) -> None:
        """Take back placed trials that an evaluator has not started."""
        evaluator = self._hear(rank, now)
        for id_ in ids:
            if evaluator is not None:
                self._unqueue(rank, evaluator, id_, now)
            self._give_back(rank, id_, now)
        self._assign(now)

    def progress(self, rank: int, progress: Progress, now: float) -> None:
        """Take an intermediate value of a running trial, and have those that are far behind end early."""
        evaluator = self._hear(rank, now)
        trial, attempt, step, value = progress
        if self._stopper is None or evaluator is None or trial not in self._open or trial not in evaluator.queue:
            return
        if trial not in self._stopped_early and self._stopper.report(trial, step, value):
            self._stopped_early.add(trial)
            self._orders(rank).stopped.append(trial)
            event = {"e": "stopped early", "t": now, "trial": trial, "attempt": attempt, "rank": rank}
            self._events.append({**event, "step": step, "value": value})

    def alive(self, rank: int, now: float) -> None:
        """Note a sign of life."""
        self._hear(rank, now)

    def tick(self, now: float) -> None:
        """Look for silent evaluators and for placed trials that idle ones could start; call it a few times a second."""
        if self.silence is not None:
            for rank, evaluator in self._evaluators.items():
                if not evaluator.silent and now - evaluator.seen > self.silence:
                    self._silence(rank, evaluator, now)
        self._assign(now)
        self._check_exhausted(now)
        if self.paused:
            self._recall(now, patience=-1.0)
        elif self._idle and (self.n_wanted == 0 or not self._ahead):
            self._recall(now, max(0.05, 2 * (self._median_duration or 0.0)))
            if self.stopping is None and (self.n_wanted == 0 or self.exhausted):
                self._start_again_what_lasts(now)

    def stop(self, reason: str, now: float, cancel: bool = False) -> None:
        """Start nothing more; with `cancel`, also end what is running."""
        if self.stopping is None:
            self.stopping = reason
            short = {"short_of_ranks": True} if self.short_of_ranks else {}
            self._events.append({"e": "stopping", "t": now, "reason": reason, **short})
            self._dropped += [key for key, _ in self._ahead]
            self._ahead.clear()
        if cancel:
            self._cancelling = True
            for rank, evaluator in self._evaluators.items():
                self._cancel(rank, evaluator.queue)

    # -- how -----------------------------------------------------------------------------------------------------------

    def _add(self, points: list[tuple[int, Config]]) -> None:
        """Put points of users in line, before what is ahead; what equals one of them is ahead no more."""
        self.n_added += len(points)
        self._added.extend(points)
        self._new_points.update(points)
        self._untold_points += points
        configs = [config for _, config in points]
        equal = {key for key, config in self._ahead if config in configs}
        if equal:
            self._dropped += equal
            self._ahead = deque(item for item in self._ahead if item[0] not in equal)

    def _forget_points(self, known: Sequence[int]) -> None:
        """Note which points of users the search knows."""
        for key in self._new_points.keys() & set(known):
            del self._new_points[key]

    def _set_max_evals(self, max_evals: int) -> None:
        self.limits = self.budget.limits = replace(self.limits, max_evals=max_evals)

    def _orders(self, rank: int) -> _Orders:
        orders = self._work.get(rank)
        if orders is None:
            orders = self._work[rank] = _Orders()
        return orders

    def _cancel(self, rank: int, ids: Iterable[int]) -> None:
        """Have an evaluator leave trials."""
        orders = self._orders(rank)
        if orders.trials:  # of one message it leaves first, and takes in afterwards
            self._before.append((rank, orders))
            orders = self._work[rank] = _Orders()
        orders.cancelled += ids

    def _hear(self, rank: int, now: float) -> Evaluator | None:
        evaluator = self._evaluators.get(rank)
        if evaluator is not None and not evaluator.awaited:
            evaluator.seen = now
            if evaluator.silent:
                self._welcome_back(rank, evaluator, now)
        return evaluator

    def _change(self, rank: int, evaluator: Evaluator, **flags: bool) -> None:
        """Change whether an evaluator may get trials."""
        before = evaluator.usable
        for name, value in flags.items():
            setattr(evaluator, name, value)
        self._n_usable += evaluator.usable - before
        if not evaluator.usable:
            self._idle.pop(rank, None)
            self._roomy.pop(rank, None)
        elif not before:
            self._rest(rank, evaluator)

    def _rest(self, rank: int, evaluator: Evaluator) -> None:
        """Note whether an evaluator could do with another trial."""
        if not evaluator.queue:
            self._roomy.pop(rank, None)
            if evaluator.usable:
                self._idle[rank] = None
        elif len(evaluator.queue) <= self._depth and evaluator.usable:
            self._roomy[rank] = None

    def _unqueue(self, rank: int, evaluator: Evaluator, id_: int, now: float) -> None:
        queue = evaluator.queue
        if queue and queue[0] == id_:
            queue.popleft()
            evaluator.since = now
        elif id_ in queue:
            queue.remove(id_)
        if not queue:
            evaluator.recalled = False
        self._rest(rank, evaluator)

    def _relieve(self, id_: int, rank: int, now: float) -> None:
        """Tell the evaluators that still hold a finished trial to leave it."""
        for holder in (self._holder.pop(id_), self._copy.pop(id_, None)):
            if holder is not None and holder != rank and holder in self._evaluators:
                self._cancel(holder, [id_])
                self._unqueue(holder, self._evaluators[holder], id_, now)

    def _give_back(self, rank: int, id_: int, now: float) -> None:
        """Note that an evaluator has not got a trial any more, and nothing has come of it."""
        if self._holder.get(id_) == rank and (trial := self._open.pop(id_, None)):
            del self._holder[id_]
            if not self._keep_copy(id_, trial):
                self._waiting.append(trial)
        elif self._copy.get(id_) == rank:
            del self._copy[id_]
        else:
            return
        self._events.append({"e": "returned", "t": now, "trial": id_, "rank": rank})

    def _left(self, rank: int, evaluator: Evaluator | None, id_: int, now: float) -> None:
        """Note that an evaluator has left a trial: to others, or because an earlier master had it end everything."""
        if evaluator is None:
            return
        if id_ in evaluator.leaving:
            evaluator.leaving.discard(id_)  # it may have been given it once more since
        else:
            self._unqueue(rank, evaluator, id_, now)
            self._give_back(rank, id_, now)

    def _answered_late(self, rank: int, evaluator: Evaluator, id_: int) -> None:
        """Note that an evaluator had an outcome before it could leave a trial to others."""
        if id_ in evaluator.leaving:
            evaluator.leaving.discard(id_)
            if id_ in evaluator.queue:  # it has been given it once more since
                self._cancel(rank, [id_])

    def _keep_copy(self, id_: int, trial: Trial) -> bool:
        """Leave a trial to the other evaluator that runs it, if there is one."""
        other = self._copy.pop(id_, None)
        if other is None:
            return False
        self._open[id_], self._holder[id_] = trial, other
        return True

    def _reclaim(self, id_: int) -> Trial | None:
        """Return a trial that was waiting for another try, or None."""
        for trial in self._waiting:
            if trial.id == id_:
                self._waiting.remove(trial)
                return trial
        return None

    def _kept(self, rank: int, ids: Iterable[int], now: float, known: Iterable[int] = ()) -> deque[int]:
        """Let an evaluator keep of what it has what nobody else has started, and leave the rest; return the kept."""
        kept: deque[int] = deque()
        evaluator = self._evaluators[rank]
        evaluator.leaving.clear()
        for id_ in ids:
            if id_ in known:
                kept.append(id_)
            elif not self._cancelling and (trial := self._reclaim(id_)):
                self._open[id_], self._holder[id_] = trial, rank
                self._events.append({"e": "kept", "t": now, "trial": id_, "rank": rank})
                kept.append(id_)
            else:
                evaluator.leaving.add(id_)
        if evaluator.leaving:
            self._cancel(rank, evaluator.leaving)
        return kept

    def _wait(self, trials: Iterable[Trial]) -> None:
        """Have trials of an earlier master tried again; the budget may be smaller than it was before."""
        for trial in trials:
            if self.budget.n_finished + len(self._open) + len(self._waiting) < self.limits.max_evals:
                self._waiting.append(trial)

    def _finish(self, outcome: Outcome, trial: Trial, now: float) -> None:
        self._losses.pop(trial.id, None)
        self._forget_progress(trial.id)
        if self.limits.screening and PARENT in trial.config:
            outcome = outcome._replace(metrics={**outcome.metrics, PARENT: self._screened.get(trial.config[PARENT])})
        self._record(outcome, trial)
        self._events.append(finished_event(outcome, now))
        self._count(outcome, now)
        self._outcomes.append((outcome, trial))
        self._told.append((trial.key, objective_for_search(outcome)))
        self._new_points.pop(trial.key, None)
        if outcome.elapsed > 0:
            self._durations.append(outcome.elapsed)
            self._n_durations += 1
            if self._n_durations % 32 == 0 or self._n_durations < 8:
                self._set_depth()

    def _record(self, outcome: Outcome, trial: Trial) -> None:
        """Count a finished trial, of this launch or an earlier one."""
        self.budget.record(outcome, trial.config)
        if self.limits.screening and EPOCHS in trial.config:
            self._screened[trial.key] = trial.id

    def _forget_progress(self, id_: int) -> None:
        """Note that a trial has ended, or begins anew."""
        if self._stopper is not None:
            self._stopper.forget(id_)
            self._stopped_early.discard(id_)

    def _reuse(self, key: int, config: Config, objective: float, now: float) -> None:
        """Finish a trial whose objective is known, without an evaluator, as far as the budget allows."""
        if not self.n_wanted:
            self._dropped.append(key)
            return
        trial = Trial(self.n_started, key, config)
        self.n_started += 1
        self._started_keys.append(key)
        event = {"e": "placed", "t": now, "trial": trial.id, "attempt": 0, "rank": 0, "key": key, "config": config}
        self._events.append({**event, "reused": True})
        self._finish(Outcome(trial.id, 0, Status.REUSED, objective, start=now, end=now), trial, now)
        self._check_budget(now)

    def _cancelled(self, outcome: Outcome, trial: Trial, now: float) -> None:
        event = {"e": "cancelled", "t": now, "trial": trial.id, "rank": outcome.rank}
        if outcome.end > outcome.start:  # otherwise it was cancelled before it began
            event |= {"start": outcome.start, "end": outcome.end}
        self._events.append(event)

    def _check_budget(self, now: float) -> None:
        if self.stopping is None and (reason := self.budget.spent()):
            self.stop(reason, now, cancel=True)

    def _check_exhausted(self, now: float) -> None:
        if self.exhausted and not (self._ahead or self._added or self._waiting or self._open or self.stopping):
            self.stop(f"the space is exhausted: all its {self.budget.n_finished} configurations are evaluated", now)

    def _await(self, now: float) -> None:
        """Start nothing of what is ahead before the search has answered what was just told, if that is worth it."""
        answer, duration = self._answer, self._median_duration
        if self._awaited_until is not None or duration is None or self.exhausted:
            return
        if answer is None or not (answer.informed and self._ahead):
            return  # nothing that another answer could improve
        if answer.n_told < self.budget.n_finished and pays_to_wait(answer.seconds, duration, self.n_evaluators):
            self._awaited_until = now + WORTH * duration

    def _next(self, host: str) -> Trial | None:
        """Return the trial that should be started next on a host."""
        if self.stopping is not None:
            return None
        for trial in self._waiting:
            if not self._losses or self._suits(trial, host):
                self._waiting.remove(trial)
                return trial
        line = self._added or (self._ahead if self._awaited_until is None else ())
        if not line or self.n_started >= self.limits.max_evals:
            return None
        return self._start_trial(*line.popleft())

    def _start_trial(self, key: int, config: Config) -> Trial:
        """Make a trial of a proposal."""
        trial = Trial(self.n_started, key, config)
        self.n_started += 1
        self._started_keys.append(key)
        recent = self._recent
        recent[key] = config
        if len(recent) > 4096 + 4 * len(self._evaluators):
            recent.popitem(last=False)
        return trial

    def _assign(self, now: float) -> None:
        """Give an idle evaluator a trial at once, and place trials with busy ones where evaluations are short."""
        if self.paused:
            return
        if self._awaited_until is not None and now >= self._awaited_until:
            self._awaited_until = None  # the search takes longer than it is worth
        idle = self._idle
        while idle and (chosen := self._next_of_idle()):
            rank, trial = chosen
            del idle[rank]
            evaluator = self._evaluators[rank]
            evaluator.since = now
            self._give(rank, evaluator, trial, now)
            if self._depth:
                self._roomy[rank] = None
        if idle or not self._depth:
            return
        if self.limits.max_evals - self.n_started < 2 * len(self._evaluators):
            self._depth = 0  # near the end nothing is placed, so that nobody waits for a neighbour's queue
            self._roomy.clear()
            return
        while self._roomy:
            rank = next(iter(self._roomy))
            evaluator = self._evaluators[rank]
            while len(evaluator.queue) <= self._depth:
                following = self._next(evaluator.host)
                if following is None:
                    return
                self._give(rank, evaluator, following, now)
            del self._roomy[rank]

    def _next_of_idle(self) -> tuple[int, Trial] | None:
        """Return an idle evaluator and what it should start, None if there is nothing for any of them."""
        for rank in self._idle:
            if trial := self._next(self._evaluators[rank].host):
                return rank, trial
            if not self._waiting:
                break
        return None

    def _suits(self, trial: Trial, host: str) -> bool:
        """Return whether a host may try a trial: not where it was lost before, as long as there are other hosts."""
        blamed = {loss.host for loss in self._losses.get(trial.id, ())}
        return host not in blamed or not any(e.usable and e.host not in blamed for e in self._evaluators.values())

    def _start_again_what_lasts(self, now: float) -> None:
        """Have idle evaluators try what takes others very long; the first answer counts."""
        if len(self._durations) < 3:
            return
        patience = max(LEAST_STRAGGLER, STRAGGLER * statistics.median(self._durations))
        for rank, evaluator in self._evaluators.items():
            if not self._idle:
                return
            if not evaluator.queue or now - evaluator.since < patience:
                continue
            id_ = evaluator.queue[0]
            if id_ in self._copy or self._holder.get(id_) != rank:
                continue
            other = next((r for r in self._idle if self._evaluators[r].host != evaluator.host), next(iter(self._idle)))
            del self._idle[other]
            self._evaluators[other].since = now
            self._give(other, self._evaluators[other], self._open[id_]._replace(copy=True), now)
            self._remarks.append(
                f"trial {id_} has been running on rank {rank} for {now - evaluator.since:.0f} s, far longer than "
                f"others: rank {other} tries it too"
            )

    def _count(self, outcome: Outcome, now: float) -> None:
        """Note what came from a host."""
        if remark := self._hosts.count(outcome):
            self._remarks.append(remark)
        if outcome.status is Status.CRASHED:
            self._check_host(outcome.host, now)

    def _check_host(self, name: str, now: float) -> None:
        """Leave a host out if evaluations crash there far more often than elsewhere."""
        if not self._hosts.is_suspect(name):
            return
        if not any(e.usable and e.host != name for e in self._evaluators.values()):
            return  # the last host is better than none
        host, reason = self._hosts.quarantine(name)
        self._events.append({"e": "quarantined", "t": now, "host": name, "crashed": host.n_crashed, "of": host.n})
        self._remarks.append(reason)
        for rank, evaluator in self._evaluators.items():
            if evaluator.host == name:
                self._change(rank, evaluator, barred=True)
                self._orders(rank).recalled += list(evaluator.queue)[1:]

    def _readmit(self, now: float) -> None:
        """Give hosts that were left out trials again when there is nobody else."""
        evaluators = self._evaluators.values()
        if self._n_usable or not any(evaluator.barred for evaluator in evaluators):
            return
        if any(evaluator.awaited and not (evaluator.barred or evaluator.silent) for evaluator in evaluators):
            return  # one that may be usable has not answered this master yet
        for name in self._hosts.readmit():
            self._events.append({"e": "readmitted", "t": now, "host": name})
            self._remarks.append(f"host {name} gets trials again: there is no other")
        for rank, evaluator in self._evaluators.items():
            self._change(rank, evaluator, barred=False)

    def _give(self, rank: int, evaluator: Evaluator, trial: Trial, now: float) -> None:
        evaluator.queue.append(trial.id)
        self._orders(rank).trials.append(trial)
        event = {
            "e": "placed",
            "t": now,
            "trial": trial.id,
            "attempt": trial.attempt,
            "rank": rank,
            "key": trial.key,
            "config": trial.config,
        }
        if trial.copy:
            event["copy"] = True
            self._copy[trial.id] = rank
        else:
            self._open[trial.id] = trial
            self._holder[trial.id] = rank
        self._events.append(event)

    def _set_depth(self) -> None:
        median = self._median_duration = statistics.median(self._durations)
        depth = 0 if median > SHORT else min(MOST_PLACED, max(1, round(IN_ADVANCE / median)))
        if depth > self._depth:
            for rank, evaluator in self._evaluators.items():
                if 0 < len(evaluator.queue) <= depth and evaluator.usable:
                    self._roomy[rank] = None
        self._depth = depth

    def _recall(self, now: float, patience: float) -> None:
        """Have those return what is placed with them whose evaluation has lasted longer than `patience`."""
        for rank, evaluator in self._evaluators.items():
            if len(evaluator.queue) > 1 and not evaluator.recalled and now - evaluator.since > patience:
                evaluator.recalled = True
                self._orders(rank).recalled += list(evaluator.queue)[1:]

    def _silence(self, rank: int, evaluator: Evaluator, now: float) -> None:
        self._change(rank, evaluator, silent=True)
        seconds = now - evaluator.seen
        self._events.append({"e": "silent", "t": now, "rank": rank, "seconds": round(seconds, 1)})
        reason = f"rank {rank} on {evaluator.host} was silent for {seconds:.0f} s"
        self._remarks.append(f"{reason}: its trials go elsewhere")
        self._take_back(rank, evaluator, now, reason, died=False)
        self._readmit(now)

    def _welcome_back(self, rank: int, evaluator: Evaluator, now: float) -> None:
        """Let a rank that was silent keep what nobody else has started, and leave the rest."""
        self._events.append({"e": "heard", "t": now, "rank": rank})
        evaluator.queue = self._kept(rank, evaluator.queue, now)
        evaluator.since = now
        self._change(rank, evaluator, silent=False)

    def _take_back(self, rank: int, evaluator: Evaluator, now: float, reason: str, died: bool) -> None:
        """Have the trials of a lost evaluator tried again; only what was running there is blamed."""
        for position, id_ in enumerate(evaluator.queue):
            copied = self._copy.get(id_) == rank
            if self._holder.get(id_) != rank and not copied:
                continue
            ran = position == 0
            if ran:
                self._losses.setdefault(id_, []).append(Loss(evaluator.host, died))
                if died:
                    self._note_death(evaluator.host, now)
            self._events.append(
                {
                    "e": "lost",
                    "t": now,
                    "trial": id_,
                    "rank": rank,
                    "host": evaluator.host,
                    "ran": ran,
                    "died": died,
                    "reason": reason,
                    **({"start": evaluator.since} if ran else {}),
                }
            )
            if copied:
                del self._copy[id_]
                continue
            trial = self._open.pop(id_)
            del self._holder[id_]
            if self._keep_copy(id_, trial):
                continue
            if ran and (why := self._given_up(id_)):
                self._lose(trial, rank, evaluator.host, why, reason, now)
                continue
            self.n_retried += ran
            self._forget_progress(id_)
            self._waiting.append(trial._replace(attempt=trial.attempt + ran))

    def _note_death(self, host: str, now: float) -> None:
        """Count an evaluator that died while it ran a trial."""
        self._hosts.count_death(host)
        self._check_host(host, now)

    def _lose(self, trial: Trial, rank: int, host: str, why: str, reason: str, now: float) -> None:
        """Give up a trial for good."""
        why = f"not tried again after {why}; the last time: {reason}"
        self._finish(Outcome(trial.id, trial.attempt, Status.LOST, None, {}, rank, host, reason=why), trial, now)
        self._check_budget(now)

    def _given_up(self, id_: int) -> str:
        """Return why a trial should not be tried again, empty if it should."""
        losses = self._losses[id_]
        deaths = [loss.host for loss in losses if loss.died]
        if len(deaths) >= MOST_DEATHS:
            n_hosts = len({evaluator.host for evaluator in self._evaluators.values()} | set(deaths))
            if len(set(deaths)) >= min(2, n_hosts):
                return f"{len(deaths)} ranks died while they ran it"
        if len(losses) > self.limits.retries:
            return f"{len(losses)} evaluators were lost while they ran it"
        return ""


def finished_event(outcome: Outcome, now: float) -> dict[str, Any]:
    """Return an outcome as a line of the journal."""
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
