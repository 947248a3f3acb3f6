"""Who gets which trial, and what to do with an outcome, a loss, a silence or a spent budget.

The dispatcher decides and transports nothing: it knows neither MPI nor a clock nor a file.  Calls come in with the time
as an argument; what should be sent, written and told collects in `work`, `events` and the news until the caller takes
it.  The very same object runs under the master, in virtual time, and in tests.
"""

from __future__ import annotations

import itertools
import statistics
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from dhmpi.budget import Budget, Limits, objective_for_search
from dhmpi.journal import History
from dhmpi.mpi.protocol import News, Progress, Proposed, Work
from dhmpi.roles.events import asked_event, finished_event, lost_event, placed_event
from dhmpi.roles.fleet import Evaluator, Fleet
from dhmpi.roles.hostwatch import HostWatch
from dhmpi.roles.line import Line
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
    fleet : Fleet, optional
        By default one whose evaluators get their trials one by one.

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

    def __init__(
        self,
        limits: Limits,
        silence: float | None = 90.0,
        stopper: Stopper | None = None,
        fleet: Fleet | None = None,
    ) -> None:
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
        self._line = Line()
        self._untold_points: list[tuple[int, Config]] = []
        self._has_new_limit = False  # of which the searcher was told nothing
        self._open: dict[int, Trial] = {}  # given to an evaluator
        self._holder: dict[int, int] = {}  # trial -> the rank it was last given to
        self._copy: dict[int, int] = {}  # trial -> another rank that runs it too
        self._losses: dict[int, list[Loss]] = {}
        self._fleet = Fleet() if fleet is None else fleet
        self._outbox = self._fleet.outbox
        self._hosts = HostWatch(limits.quarantine_after)
        self._durations: deque[float] = deque(maxlen=101)
        self._n_durations = 0
        self._median_duration: float | None = None
        self._screened: dict[int, int] = {}  # key -> id of the trials that others may be promoted from
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
        return sum(1 for evaluator in self._fleet if evaluator.queue and not evaluator.silent)

    @property
    def n_ahead(self) -> int:
        return len(self._line.ahead)

    @property
    def n_available(self) -> int:
        """How many of them evaluators may start now."""
        return 0 if self._awaited_until is not None else len(self._line.ahead)

    @property
    def n_evaluators(self) -> int:
        """Evaluators that may get work."""
        return self._fleet.n_usable

    @property
    def ahead(self) -> list[tuple[int, Config]]:
        """Key and configuration of the proposals that nobody has got."""
        return list(self._line.ahead)

    def first_ahead(self, n: int) -> list[tuple[int, Config]]:
        """Return the first of them."""
        return list(itertools.islice(self._line.ahead, n))

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
        return {evaluator.rank: evaluator.host for evaluator in self._fleet}

    @property
    def n_wanted(self) -> int:
        """Proposals that may still be started."""
        return 0 if self.stopping else max(0, self.limits.max_evals - self.n_started - len(self._line.added))

    @property
    def in_flight(self) -> list[Trial]:
        """Trials given to an evaluator, or waiting to be given out again, in the order of their ids."""
        return sorted([*self._open.values(), *self._line.waiting])

    def running_seconds(self, now: float) -> float:
        """Return how long what is running now has been running, all evaluators together."""
        return sum(max(0.0, now - evaluator.since) for evaluator in self._fleet if evaluator.queue)

    @property
    def over(self) -> bool:
        """Whether nothing is running and nothing more will be started."""
        return self.stopping is not None and not self._open

    def take_work(self) -> list[tuple[int, Work]]:
        """Return the messages for evaluators that have collected, and forget them."""
        return self._outbox.take()

    def take_events(self) -> list[dict[str, Any]]:
        """Return the journal's new lines, to be written before the messages are sent."""
        lines, self._events = self._events, []
        return lines

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
            len(self._fleet.idle),
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
        self._line.added.extend(history.added.items())
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
                evaluator = self._fleet.get(rank) or self._new(rank, hosts[rank], now, since=since, awaited=True)
                evaluator.queue.append(trial.id)
            self._open[trial.id], self._holder[trial.id] = trial, holders[0]
            if len(holders) > 1:
                self._copy[trial.id] = holders[1]
        self._wait(trial for trial in history.unfinished.values() if trial.id not in self._open)
        self._check_budget(now)

    def holds(self, rank: int, host: str, ids: Iterable[int], now: float) -> None:
        """Take in what an evaluator of an earlier master has; what else it was given never arrived."""
        evaluator = self._fleet.get(rank) or self._new(rank, host, now, awaited=True)
        self._events.append({"e": "joined", "t": now, "rank": rank, "host": host})
        if not evaluator.awaited:
            return  # what it has is from this master, or on its way
        if evaluator.silent:
            self._events.append({"e": "heard", "t": now, "rank": rank})
            evaluator.queue.clear()  # all that was taken back
        held = list(ids)
        missing = [id_ for id_ in evaluator.queue if id_ not in held]
        evaluator.queue = self._kept(evaluator, held, now, evaluator.queue)
        for id_ in missing:
            self._give_back(rank, id_, now)
        evaluator.seen = now
        self._fleet.change(evaluator, silent=False, awaited=False)
        self._readmit(now)
        self._assign(now)
        self._check_exhausted(now)

    def join(self, rank: int, host: str, now: float) -> None:
        """Take in an evaluator that is ready for work."""
        self._new(rank, host, now)
        self._events.append({"e": "joined", "t": now, "rank": rank, "host": host})
        self._assign(now)

    def steer(self, event: dict[str, Any], now: float) -> None:
        """Do what a user wants, as the event says it with which it goes on record (`dhmpi.roles.inbox` makes it)."""
        self._events.append(event)
        self._remarks.append(in_words(event))
        action = event["action"]
        if action == Action.ADD:
            points = [(key, config) for key, config in event["points"]]
            self.n_added += len(points)
            self._untold_points += points
            self._dropped += self._line.add(points)
        elif action == Action.MAX_EVALS:
            self._set_max_evals(event["max_evals"])
            self._has_new_limit = True
            if self._durations:
                self._set_depth()
            self._check_budget(now)
        elif action == Action.PAUSE:
            self.paused = True
            self._fleet.recall(now, patience=-1.0)
        elif action == Action.RESUME:
            self.paused = False
        elif action == Action.STOP:
            self.stop(event["reason"], now)
        self._assign(now)
        self._check_exhausted(now)

    def retire(self, rank: int, now: float) -> None:
        """Give an evaluator nothing new."""
        if rank in self._fleet:
            self._fleet.change(self._fleet[rank], retired=True)
            self._readmit(now)
            self._assign(now)

    def enlist(self, rank: int, now: float) -> None:
        """Give a retired evaluator work again."""
        if rank in self._fleet:
            self._fleet.change(self._fleet[rank], retired=False)
            self._assign(now)

    def leave(self, rank: int, now: float, reason: str, died: bool = False) -> None:
        """Give up an evaluator; what it held goes elsewhere.

        Parameters
        ----------
        died : bool, default False
            Whether its process has died, perhaps because of what it ran.
        """
        evaluator = self._fleet.get(rank)
        if evaluator is None:
            return
        self._fleet.remove(evaluator)
        self._events.append({"e": "left", "t": now, "rank": rank, "reason": reason})
        self._take_back(evaluator, now, reason, died)
        self._readmit(now)
        self._assign(now)
        self._check_exhausted(now)

    def propose(self, proposed: Proposed, now: float) -> None:
        """Put proposals ahead, in the place of those they replace."""
        self.n_asks = max(self.n_asks, proposed.ask + 1)
        self._events.append(asked_event(proposed, now))
        self._events += [{**note, "t": now} for note in proposed.notes]
        proposals: Iterable[tuple[int, Config]] = proposed.proposals
        if proposed.reused:
            objectives = dict(proposed.reused)
            for key, config in proposals:
                if key in objectives:
                    self._reuse(key, config, objectives[key], now)
            proposals = [(key, config) for key, config in proposals if key not in objectives]
        self._dropped += self._line.propose(proposals, proposed.replacing, proposed.pending)
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
        self._line.ahead.extend(proposals)
        self.exhausted = self._was_exhausted
        self._assign(now)
        self._check_exhausted(now)

    def report(self, rank: int, outcomes: Sequence[Outcome], now: float) -> None:
        """Take outcomes from an evaluator."""
        evaluator = self._hear(rank, now)
        orders = self._outbox.to(rank)
        for outcome in outcomes:
            orders.acknowledged.append(outcome.trial)
            if outcome.status is Status.CANCELLED and not self._cancelling:
                self._left(rank, evaluator, outcome.trial, now)
                continue
            if evaluator is not None:
                if evaluator.leaving:
                    self._answered_late(evaluator, outcome.trial)
                self._fleet.unqueue(evaluator, outcome.trial, now)
            trial = self._open.pop(outcome.trial, None)
            if trial is None:
                trial = self._line.reclaim(outcome.trial)
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
                self._fleet.unqueue(evaluator, id_, now)
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
            self._outbox.to(rank).stopped.append(trial)
            event = {"e": "stopped early", "t": now, "trial": trial, "attempt": attempt, "rank": rank}
            self._events.append({**event, "step": step, "value": value})

    def alive(self, rank: int, now: float) -> None:
        """Note a sign of life."""
        self._hear(rank, now)

    def tick(self, now: float) -> None:
        """Look for silent evaluators and for placed trials that idle ones could start; call it a few times a second."""
        if self.silence is not None:
            for evaluator in self._fleet:
                if not evaluator.silent and now - evaluator.seen > self.silence:
                    self._silence(evaluator, now)
        self._assign(now)
        self._check_exhausted(now)
        if self.paused:
            self._fleet.recall(now, patience=-1.0)
        elif self._fleet.idle and (self.n_wanted == 0 or not self._line.ahead):
            self._fleet.recall(now, max(0.05, 2 * (self._median_duration or 0.0)))
            if self.stopping is None and (self.n_wanted == 0 or self.exhausted):
                self._start_again_what_lasts(now)

    def stop(self, reason: str, now: float, cancel: bool = False) -> None:
        """Start nothing more; with `cancel`, also end what is running."""
        if self.stopping is None:
            self.stopping = reason
            short = {"short_of_ranks": True} if self.short_of_ranks else {}
            self._events.append({"e": "stopping", "t": now, "reason": reason, **short})
            self._dropped += [key for key, _ in self._line.ahead]
            self._line.ahead.clear()
        if cancel:
            self._cancelling = True
            for evaluator in self._fleet:
                self._outbox.cancel(evaluator.rank, evaluator.queue)

    # -- how -----------------------------------------------------------------------------------------------------------

    def _new(self, rank: int, host: str, now: float, since: float | None = None, awaited: bool = False) -> Evaluator:
        """Return an evaluator, added to the others."""
        evaluator = Evaluator(
            rank,
            host,
            seen=now,
            since=now if since is None else since,
            barred=self._hosts.is_quarantined(host),
            awaited=awaited,
        )
        self._fleet.add(evaluator)
        return evaluator

    def _set_max_evals(self, max_evals: int) -> None:
        self.limits = self.budget.limits = replace(self.limits, max_evals=max_evals)

    def _hear(self, rank: int, now: float) -> Evaluator | None:
        evaluator = self._fleet.get(rank)
        if evaluator is not None and not evaluator.awaited:
            evaluator.seen = now
            if evaluator.silent:
                self._welcome_back(evaluator, now)
        return evaluator

    def _relieve(self, id_: int, rank: int, now: float) -> None:
        """Tell the evaluators that still hold a finished trial to leave it."""
        for holder in (self._holder.pop(id_), self._copy.pop(id_, None)):
            if holder is not None and holder != rank and holder in self._fleet:
                self._outbox.cancel(holder, [id_])
                self._fleet.unqueue(self._fleet[holder], id_, now)

    def _give_back(self, rank: int, id_: int, now: float) -> None:
        """Note that an evaluator has not got a trial any more, and nothing has come of it."""
        if self._holder.get(id_) == rank and (trial := self._open.pop(id_, None)):
            del self._holder[id_]
            if not self._keep_copy(id_, trial):
                self._line.waiting.append(trial)
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
            self._fleet.unqueue(evaluator, id_, now)
            self._give_back(rank, id_, now)

    def _answered_late(self, evaluator: Evaluator, id_: int) -> None:
        """Note that an evaluator had an outcome before it could leave a trial to others."""
        if id_ in evaluator.leaving:
            evaluator.leaving.discard(id_)
            if id_ in evaluator.queue:  # it has been given it once more since
                self._outbox.cancel(evaluator.rank, [id_])

    def _keep_copy(self, id_: int, trial: Trial) -> bool:
        """Leave a trial to the other evaluator that runs it, if there is one."""
        other = self._copy.pop(id_, None)
        if other is None:
            return False
        self._open[id_], self._holder[id_] = trial, other
        return True

    def _kept(self, evaluator: Evaluator, ids: Iterable[int], now: float, known: Iterable[int] = ()) -> deque[int]:
        """Let an evaluator keep of what it has what nobody else has started, and leave the rest; return the kept."""
        kept: deque[int] = deque()
        rank = evaluator.rank
        evaluator.leaving.clear()
        for id_ in ids:
            if id_ in known:
                kept.append(id_)
            elif not self._cancelling and (trial := self._line.reclaim(id_)):
                self._open[id_], self._holder[id_] = trial, rank
                self._events.append({"e": "kept", "t": now, "trial": id_, "rank": rank})
                kept.append(id_)
            else:
                evaluator.leaving.add(id_)
        if evaluator.leaving:
            self._outbox.cancel(rank, evaluator.leaving)
        return kept

    def _wait(self, trials: Iterable[Trial]) -> None:
        """Have trials of an earlier master tried again; the budget may be smaller than it was before."""
        for trial in trials:
            if self.budget.n_finished + len(self._open) + len(self._line.waiting) < self.limits.max_evals:
                self._line.waiting.append(trial)

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
        self._line.finished(trial.key)
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
        trial = self._start_trial(key, config)
        self._events.append(placed_event(trial, 0, now, reused=True))
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
        if self.exhausted and not (self._line or self._open or self.stopping):
            self.stop(f"the space is exhausted: all its {self.budget.n_finished} configurations are evaluated", now)

    def _await(self, now: float) -> None:
        """Start nothing of what is ahead before the search has answered what was just told, if that is worth it."""
        answer, duration = self._answer, self._median_duration
        if self._awaited_until is not None or duration is None or self.exhausted:
            return
        if answer is None or not (answer.informed and self._line.ahead):
            return  # nothing that another answer could improve
        if answer.n_told < self.budget.n_finished and pays_to_wait(answer.seconds, duration, self.n_evaluators):
            self._awaited_until = now + WORTH * duration

    def _next(self, host: str) -> Trial | None:
        """Return the trial that should be started next on a host."""
        if self.stopping is not None:
            return None
        line = self._line
        for trial in line.waiting:
            if not self._losses or self._suits(trial, host):
                line.waiting.remove(trial)
                return trial
        new = line.added or (line.ahead if self._awaited_until is None else ())
        if not new or self.n_started >= self.limits.max_evals:
            return None
        return self._start_trial(*new.popleft())

    def _start_trial(self, key: int, config: Config) -> Trial:
        """Make a trial of a proposal."""
        trial = Trial(self.n_started, key, config)
        self.n_started += 1
        self._started_keys.append(key)
        self._line.started(key, config, most=4096 + 4 * len(self._fleet))
        return trial

    def _assign(self, now: float) -> None:
        """Give an idle evaluator a trial at once, and place trials with busy ones where evaluations are short."""
        if self.paused:
            return
        if self._awaited_until is not None and now >= self._awaited_until:
            self._awaited_until = None  # the search takes longer than it is worth
        fleet = self._fleet
        idle, roomy = fleet.idle, fleet.roomy
        while idle and (chosen := self._next_of_idle()):
            evaluator, trial = chosen
            del idle[evaluator.rank]
            evaluator.since = now
            self._give(evaluator, trial, now)
            if fleet.depth:
                roomy[evaluator.rank] = None
        if idle or not fleet.depth:
            return
        if self.limits.max_evals - self.n_started < 2 * len(fleet):
            fleet.depth = 0  # near the end nothing is placed, so that nobody waits for a neighbour's queue
            roomy.clear()
            return
        while roomy:
            rank = next(iter(roomy))
            evaluator = fleet[rank]
            while len(evaluator.queue) <= fleet.depth:
                following = self._next(evaluator.host)
                if following is None:
                    return
                self._give(evaluator, following, now)
            del roomy[rank]

    def _next_of_idle(self) -> tuple[Evaluator, Trial] | None:
        """Return an idle evaluator and what it should start, None if there is nothing for any of them."""
        for rank in self._fleet.idle:
            evaluator = self._fleet[rank]
            if trial := self._next(evaluator.host):
                return evaluator, trial
            if not self._line.waiting:
                break
        return None

    def _suits(self, trial: Trial, host: str) -> bool:
        """Return whether a host may try a trial: not where it was lost before, as long as there are other hosts."""
        blamed = {loss.host for loss in self._losses.get(trial.id, ())}
        return host not in blamed or not any(e.usable and e.host not in blamed for e in self._fleet)

    def _start_again_what_lasts(self, now: float) -> None:
        """Have idle evaluators try what takes others very long; the first answer counts."""
        if len(self._durations) < 3:
            return
        patience = max(LEAST_STRAGGLER, STRAGGLER * statistics.median(self._durations))
        fleet = self._fleet
        for evaluator in fleet:
            if not fleet.idle:
                return
            if not evaluator.queue or now - evaluator.since < patience:
                continue
            id_ = evaluator.queue[0]
            if id_ in self._copy or self._holder.get(id_) != evaluator.rank:
                continue
            idle = [fleet[rank] for rank in fleet.idle]
            other = next((e for e in idle if e.host != evaluator.host), idle[0])
            del fleet.idle[other.rank]
            other.since = now
            self._give(other, self._open[id_]._replace(copy=True), now)
            self._remarks.append(
                f"trial {id_} has been running on rank {evaluator.rank} for {now - evaluator.since:.0f} s, far longer "
                f"than others: rank {other.rank} tries it too"
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
        if not any(e.usable and e.host != name for e in self._fleet):
            return  # the last host is better than none
        host, reason = self._hosts.quarantine(name)
        self._events.append({"e": "quarantined", "t": now, "host": name, "crashed": host.n_crashed, "of": host.n})
        self._remarks.append(reason)
        for evaluator in self._fleet:
            if evaluator.host == name:
                self._fleet.change(evaluator, barred=True)
                self._fleet.recall_placed(evaluator)

    def _readmit(self, now: float) -> None:
        """Give hosts that were left out trials again when there is nobody else."""
        fleet = self._fleet
        if fleet.n_usable or not any(evaluator.barred for evaluator in fleet):
            return
        if any(evaluator.awaited and not (evaluator.barred or evaluator.silent) for evaluator in fleet):
            return  # one that may be usable has not answered this master yet
        for name in self._hosts.readmit():
            self._events.append({"e": "readmitted", "t": now, "host": name})
            self._remarks.append(f"host {name} gets trials again: there is no other")
        for evaluator in fleet:
            fleet.change(evaluator, barred=False)

    def _give(self, evaluator: Evaluator, trial: Trial, now: float) -> None:
        rank = evaluator.rank
        evaluator.queue.append(trial.id)
        self._outbox.to(rank).trials.append(trial)
        if trial.copy:
            self._copy[trial.id] = rank
            self._events.append(placed_event(trial, rank, now, copy=True))
        else:
            self._open[trial.id] = trial
            self._holder[trial.id] = rank
            self._events.append(placed_event(trial, rank, now))

    def _set_depth(self) -> None:
        median = self._median_duration = statistics.median(self._durations)
        self._fleet.deepen(0 if median > SHORT else min(MOST_PLACED, max(1, round(IN_ADVANCE / median))))

    def _silence(self, evaluator: Evaluator, now: float) -> None:
        self._fleet.change(evaluator, silent=True)
        seconds = now - evaluator.seen
        self._events.append({"e": "silent", "t": now, "rank": evaluator.rank, "seconds": round(seconds, 1)})
        reason = f"rank {evaluator.rank} on {evaluator.host} was silent for {seconds:.0f} s"
        self._remarks.append(f"{reason}: its trials go elsewhere")
        self._take_back(evaluator, now, reason, died=False)
        self._readmit(now)

    def _welcome_back(self, evaluator: Evaluator, now: float) -> None:
        """Let a rank that was silent keep what nobody else has started, and leave the rest."""
        self._events.append({"e": "heard", "t": now, "rank": evaluator.rank})
        evaluator.queue = self._kept(evaluator, evaluator.queue, now)
        evaluator.since = now
        self._fleet.change(evaluator, silent=False)

    def _take_back(self, evaluator: Evaluator, now: float, reason: str, died: bool) -> None:
        """Have the trials of a lost evaluator tried again; only what was running there is blamed."""
        rank, host = evaluator.rank, evaluator.host
        for position, id_ in enumerate(evaluator.queue):
            copied = self._copy.get(id_) == rank
            if self._holder.get(id_) != rank and not copied:
                continue
            ran = position == 0
            if ran:
                self._losses.setdefault(id_, []).append(Loss(host, died))
                if died:
                    self._note_death(host, now)
            self._events.append(lost_event(id_, rank, host, ran, died, reason, evaluator.since, now))
            if copied:
                del self._copy[id_]
                continue
            trial = self._open.pop(id_)
            del self._holder[id_]
            if self._keep_copy(id_, trial):
                continue
            if ran and (why := self._given_up(id_)):
                self._lose(trial, rank, host, why, reason, now)
                continue
            self.n_retried += ran
            self._forget_progress(id_)
            self._line.waiting.append(trial._replace(attempt=trial.attempt + ran))

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
            n_hosts = len({evaluator.host for evaluator in self._fleet} | set(deaths))
            if len(set(deaths)) >= min(2, n_hosts):
                return f"{len(deaths)} ranks died while they ran it"
        if len(losses) > self.limits.retries:
            return f"{len(losses)} evaluators were lost while they ran it"
        return ""
