"""Dispatcher, supply and search in virtual time: thousands of evaluators in one process, no MPI, no waiting.

What a real run does with messages happens here at the instants of a queue of events, so that a policy can be measured,
and a bug found, in seconds and repeatably.  What the search, the master and messages cost is charged to the virtual
clock.
"""

from __future__ import annotations

import heapq
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from dhmpi.budget import Limits
from dhmpi.mpi.protocol import News, Proposed, Work
from dhmpi.roles.dispatcher import Dispatcher
from dhmpi.roles.groupdispatcher import GroupDispatcher
from dhmpi.roles.supply import NEWS_EVERY, Ask, Supply
from dhmpi.search.base import Search
from dhmpi.trials import Config, Outcome, Status, Trial

TICK = 0.1
"""Virtual seconds, at least, between looks at the clock."""
TICKS = 50
"""Looks at the clock in the time of an evaluation, where those are long."""


class Asked(NamedTuple):
    """An answer of the search, as far as its cost depends on it."""

    n_told: int
    n: int
    """Proposals that it brought."""
    n_fits: int
    """Models fitted, or batches learned from, for this answer."""
    seconds: float
    """CPU time that it took here, with that of what the search was told before."""


class Thought(NamedTuple):
    """An ask as it went in virtual time."""

    start: float
    seconds: float
    asked: Asked


@dataclass
class VirtualRun:
    """What a run in virtual time has given.

    Every second of an evaluator is busy, cancelled, waiting, draining, or the rest: a message on its way.

    Attributes
    ----------
    outcomes : list of (Outcome, Trial)
        Finished trials in the order of their end; times in virtual seconds.
    seconds : float
        Virtual duration of the run.
    busy_seconds : float
        That evaluators spent on evaluations which ended.
    cancelled_seconds : float
        That they spent on evaluations which were ended when the run was over, or finished elsewhere first.
    waiting_seconds, first_waiting_seconds : float
        That idle evaluators waited for proposals; the second those before their first trial, which are among the first.
    draining_seconds : float
        That idle evaluators waited for the end of the run: nothing more was to be started.
    waits : list of (float, float)
        Beginning and end of each time that an evaluator waited for proposals.
    thoughts : list of Thought
        The asks of the search.
    stopped : float
        When the last trial was started, or nothing more was to be.
    events : list of dict
        The journal, unless nobody wants it.
    n_asks : int
    reason : str
        Why the run ended.
    """

    n_evaluators: int
    """Ranks, where evaluations have several."""
    outcomes: list[tuple[Outcome, Trial]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    busy_seconds: float = 0.0
    cancelled_seconds: float = 0.0
    waiting_seconds: float = 0.0
    first_waiting_seconds: float = 0.0
    draining_seconds: float = 0.0
    waits: list[tuple[float, float]] = field(default_factory=list)
    thoughts: list[Thought] = field(default_factory=list)
    stopped: float = 0.0
    reason: str = ""

    @property
    def n_asks(self) -> int:
        return len(self.thoughts)

    @property
    def utilisation(self) -> float:
        """Part of all evaluator seconds, between 0 and 1, spent on evaluations that ended."""
        return self._share(self.busy_seconds)

    @property
    def utilisation_in_flight(self) -> float:
        """The same with evaluations that were running at the end."""
        return self._share(self.busy_seconds + self.cancelled_seconds)

    @property
    def thinking_seconds(self) -> float:
        """Return how long the search was busy."""
        return sum(thought.seconds for thought in self.thoughts)

    def _share(self, seconds: float) -> float:
        return seconds / (self.n_evaluators * self.seconds) if self.seconds else 0.0


class _Evaluator:
    """A simulated evaluator: what it has, and what it is doing."""

    __slots__ = ("idle_since", "n_given", "queue", "running", "started", "worked")

    def __init__(self) -> None:
        self.queue: deque[Trial] = deque()  # the first is running
        self.running: Trial | None = None
        self.started = 0.0
        self.n_given = 0  # trials that it has, or that are on their way
        self.idle_since: float | None = 0.0
        self.worked = False


class _Simulator:
    def __init__(
        self,
        search: Search,
        limits: Limits,
        n_evaluators: int,
        objective: Callable[[Config], float | None],
        duration: Callable[[Config, np.random.Generator], float],
        latency: float,
        cost: Callable[[Asked], float],
        seed: int,
        ranks_per_host: int | None,
        ranks_per_eval: int,
        dispatch_seconds: float,
        time_limit: float | None,
        grace: float,
        drains: bool,
        eval_timeout: float | None,
        keep_events: bool,
    ) -> None:
        self.search = search
        self.objective = objective
        self.duration = duration
        self.latency = latency
        self.cost = cost
        self.rng = np.random.default_rng(seed)
        self.dispatch_seconds = dispatch_seconds
        self.time_limit = time_limit
        self.grace = grace
        self.drains = drains
        self.eval_timeout = eval_timeout
        self.keep_events = keep_events
        self.hosts = {rank: f"host{rank // (ranks_per_host or 1)}" for rank in range(n_evaluators)}
        self.dispatcher = (
            Dispatcher(limits, silence=None)
            if ranks_per_host is None
            else GroupDispatcher(limits, self.hosts, size=ranks_per_eval, silence=None)
        )
        self.supply = Supply(limits.max_evals)
        self.run = VirtualRun(n_evaluators)
        self.evaluators = [_Evaluator() for _ in range(n_evaluators)]
        self.lasts: dict[int, float] = {}  # of a trial: another try takes as long
        self.asking = False
        self.told_seconds = 0.0  # CPU time of what the search was told since the last ask
        self.now = 0.0
        self._master_free = 0.0
        self._news_sent = -NEWS_EVERY
        self._news_due = False
        self._ticks = False
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._n_events = 0

    def after(self, seconds: float, action: Callable[..., None], *arguments: Any) -> None:
        self._n_events += 1
        heapq.heappush(self._events, (self.now + seconds, self._n_events, action, arguments))

    def play(self) -> VirtualRun:
        run, dispatcher = self.run, self.dispatcher
        for rank, host in self.hosts.items():
            dispatcher.join(rank, host, 0.0)
        self.after(0.0, self.hear, News((), (), (), dispatcher.n_evaluators, dispatcher.n_wanted))
        if self.time_limit is not None:
            self.after(self.time_limit, self.end)
        while self._events and not dispatcher.over:
            self.now, _, action, arguments = heapq.heappop(self._events)
            action(*arguments)
            self.deliver()
            if self._events and not self._ticks:  # otherwise nothing ever happens again
                self._ticks = True
                self.after(max(TICK, (dispatcher.longest(0.5) or 0.0) / TICKS), self.tick)
        run.seconds = self.now
        run.stopped = run.stopped or self.now
        for evaluator in self.evaluators:
            if evaluator.running is not None:
                run.cancelled_seconds += (self.now - evaluator.started) * max(1, len(evaluator.running.ranks))
            self.occupy(evaluator)
        run.reason = dispatcher.stopping or "nothing more happens"
        return run

    # -- the master ----------------------------------------------------------------------------------------------------

    def deliver(self) -> None:
        """Send what the dispatcher has to say, each message taking the latency."""
        dispatcher, run = self.dispatcher, self.run
        events = dispatcher.take_events()
        if self.keep_events:
            run.events += events
        run.outcomes += dispatcher.take_outcomes()
        dispatcher.take_remarks()
        if not run.stopped and not dispatcher.n_wanted:
            run.stopped = self.now
        for rank, work in dispatcher.take_work():
            if work.trials:
                self.evaluators[rank].n_given += len(work.trials)
                self.occupy(self.evaluators[rank])
            self.after(self.latency, self.work, rank, work)
        self.send_news()

    def send_news(self) -> None:
        """Tell the searcher at once if somebody waits for it, else now and then."""
        left = self._news_sent + NEWS_EVERY - self.now
        if self.dispatcher.n_available and left > 0:
            if not self._news_due:
                self._news_due = True
                self.after(left, self.remind)
        elif news := self.dispatcher.take_news():
            self._news_sent = self.now
            self.after(self.latency, self.hear, news)

    def remind(self) -> None:
        self._news_due = False  # `deliver` comes next

    def occupy(self, evaluator: _Evaluator) -> None:
        """Account for the time that an evaluator was idle."""
        run, since = self.run, evaluator.idle_since
        if since is None:
            return
        evaluator.idle_since = None
        until = min(self.now, max(since, run.stopped)) if run.stopped else self.now
        run.draining_seconds += self.now - until
        if until > since:
            run.waits.append((since, until))
            run.waiting_seconds += until - since
            if not evaluator.worked:
                run.first_waiting_seconds += until - since

    def receive(self, action: Callable[..., None], *arguments: Any) -> None:
        """Have the master take in a message of an evaluator, one after the other."""
        if not self.dispatch_seconds:
            action(*arguments)
            return
        self._master_free = max(self.now, self._master_free) + self.dispatch_seconds
        self.after(self._master_free - self.now, action, *arguments)

    def report(self, rank: int, outcome: Outcome, trial: Trial) -> None:
        self.dispatcher.report(rank, [outcome], self.now)
        for member in trial.ranks or (rank,):
            self.evaluators[member].worked = True
            self.relieve(self.evaluators[member], 1)

    def returned(self, rank: int, ids: list[int]) -> None:
        self.dispatcher.returned(rank, ids, self.now)
        self.relieve(self.evaluators[rank], len(ids))

    def relieve(self, evaluator: _Evaluator, n: int) -> None:
        evaluator.n_given -= n
        if not evaluator.n_given:
            evaluator.idle_since = self.now  # at most until `deliver`, if there is more to do

    def tick(self) -> None:
        """Look at what time alone changes."""
        self._ticks = False
        self.dispatcher.tick(self.now)
        if self.time_limit is not None and self.drains and self.dispatcher.stopping is None:
            reason = self.dispatcher.too_late(self.time_limit - self.now, self.grace)
            if reason:
                self.dispatcher.stop(reason, self.now)

    def end(self) -> None:
        self.dispatcher.stop("the time limit is reached", self.now, cancel=True)

    # -- evaluators ----------------------------------------------------------------------------------------------------

    def work(self, rank: int, work: Work) -> None:
        evaluator = self.evaluators[rank]
        queue = evaluator.queue
        if work.recalled or work.cancelled:
            for id_ in work.cancelled:
                self.leave(rank, id_)
            returned = [trial for trial in queue if trial.id in work.recalled and trial is not evaluator.running]
            for trial in returned:
                queue.remove(trial)
            if returned:
                self.after(self.latency, self.receive, self.returned, rank, [trial.id for trial in returned])
        queue += [trial for trial in work.trials if rank == (trial.ranks or (rank,))[0]]  # a leader answers for all
        self.start(rank)

    def leave(self, rank: int, id_: int) -> None:
        """Have an evaluator leave a trial, whether it runs or not."""
        evaluator = self.evaluators[rank]
        trial = next((trial for trial in evaluator.queue if trial.id == id_), None)
        if trial is None:
            return
        evaluator.queue.remove(trial)
        if trial is evaluator.running:
            evaluator.running = None
            self.run.cancelled_seconds += (self.now - evaluator.started) * max(1, len(trial.ranks))
        outcome = Outcome(id_, trial.attempt, Status.CANCELLED, None, {}, rank, self.hosts[rank])
        self.after(self.latency, self.receive, self.report, rank, outcome, trial)

    def start(self, rank: int) -> None:
        evaluator = self.evaluators[rank]
        if not evaluator.queue or evaluator.running is not None:
            return
        trial = evaluator.running = evaluator.queue[0]
        evaluator.started = self.now
        seconds = self.lasts.get(trial.id)
        if seconds is None:
            seconds = self.lasts[trial.id] = self.duration(trial.config, self.rng)
        if self.eval_timeout is not None:
            seconds = min(seconds, self.eval_timeout)
        self.after(seconds, self.finish, rank, trial, self.now)

    def finish(self, rank: int, trial: Trial, start: float) -> None:
        evaluator = self.evaluators[rank]
        if evaluator.running is not trial:
            return  # it was left meanwhile
        evaluator.running = None
        evaluator.queue.popleft()
        self.run.busy_seconds += (self.now - start) * max(1, len(trial.ranks))
        late = self.eval_timeout is not None and self.lasts[trial.id] > self.eval_timeout
        y = None if late else self.objective(trial.config)
        status = Status.TIMEOUT if late else Status.FAILED if y is None else Status.DONE
        outcome = Outcome(
            trial.id, trial.attempt, status, y, {}, rank, self.hosts[rank], start, self.now, self.now - start
        )
        self.after(self.latency, self.receive, self.report, rank, outcome, trial)
        self.start(rank)

    # -- the searcher --------------------------------------------------------------------------------------------------

    def hear(self, news: News) -> None:
        self.supply.hear(news, self.now)
        began = time.process_time()
        self.search.tell(news.told)
        self.search.drop(news.dropped)
        self.told_seconds += time.process_time() - began
        self.ask()

    def ask(self) -> None:
        if self.asking or (ask := self.supply.next_ask()) is None:
            return
        self.asking = True
        self.supply.asked()
        search, replaced = self.search, set(ask.replacing)
        pending = [key for key in search.pending() if key not in replaced] if self.keep_events else []
        n_told, n_fits = search.n_told, search.n_fits
        began = time.process_time()
        proposals = search.ask(ask.n, ask.replacing)
        took, self.told_seconds = time.process_time() - began + self.told_seconds, 0.0
        asked = Asked(n_told, len(proposals), search.n_fits - n_fits, took)
        seconds = self.cost(asked)
        proposed = Proposed(
            self.run.n_asks,
            n_told,
            pending,
            proposals,
            ask.replacing,
            search.exhausted,
            seconds,
            list(search.reused.items()),
            search.notes,
            search.stop,
            search.informed,
        )
        self.run.thoughts.append(Thought(self.now, seconds, asked))
        self.after(seconds, self.answer, ask, proposed, search.informed)

    def answer(self, ask: Ask, proposed: Proposed, informed: bool) -> None:
        self.asking = False
        keys = [key for key, _ in proposed.proposals]
        self.supply.answered(ask, keys, informed, proposed.seconds, proposed.exhausted)
        self.after(self.latency, self.propose, proposed)
        self.ask()

    def propose(self, proposed: Proposed) -> None:
        self.dispatcher.propose(proposed, self.now)


def simulate(
    search: Search,
    limits: Limits,
    n_evaluators: int,
    objective: Callable[[Config], float | None],
    duration: Callable[[Config, np.random.Generator], float] = lambda config, rng: 1.0,
    latency: float = 1e-4,
    ask_seconds: Callable[[int, int], float] = lambda n_told, n: 0.01,
    seed: int = 0,
    ranks_per_host: int | None = None,
    ranks_per_eval: int = 1,
    *,
    cost: Callable[[Asked], float] | None = None,
    dispatch_seconds: float = 0.0,
    time_limit: float | None = None,
    grace: float = 0.0,
    drains: bool = True,
    eval_timeout: float | None = None,
    keep_events: bool = True,
) -> VirtualRun:
    """Run `search` on simulated evaluators.

    Parameters
    ----------
    search : Search
    limits : Limits
    n_evaluators : int
    objective : callable
        Configuration -> objective (maximised), None for a failed evaluation.
    duration : callable
        Configuration and generator -> virtual seconds; 1 by default.
    latency : float, default 0.1 ms
        Virtual seconds a message takes.
    ask_seconds : callable
        Outcomes known and proposals wanted -> virtual seconds the search thinks; 10 ms by default.
    seed : int
        Of the durations.
    ranks_per_host : int, optional
        If given, evaluations have several ranks: there are `n_evaluators` ranks, so many on each host, and a
        configuration says in ``num_ranks`` how many evaluate it.
    ranks_per_eval : int, default 1
        How many evaluate it if it does not say.
    cost : callable, optional
        The same as `ask_seconds` of all that is known of an answer; it wins.
    dispatch_seconds : float, default 0
        Virtual seconds that the master is busy with an outcome.
    time_limit : float, optional
        Virtual seconds after which everything is cancelled.
    grace : float, default 0
        Virtual seconds before that in which nothing is started in any case.
    drains : bool, default True
        Whether nothing is started that would hardly end within the time limit, as in a real run.
    eval_timeout : float, optional
        Virtual seconds after which an evaluation is killed.
    keep_events : bool, default True
        Whether the journal is wanted; it takes most of the memory.

    Returns
    -------
    VirtualRun
    """
    if cost is None:

        def cost(asked: Asked) -> float:
            return ask_seconds(asked.n_told, asked.n)

    return _Simulator(
        search,
        limits,
        n_evaluators,
        objective,
        duration,
        latency,
        cost,
        seed,
        ranks_per_host,
        ranks_per_eval,
        dispatch_seconds,
        time_limit,
        grace,
        drains,
        eval_timeout,
        keep_events,
    ).play()
