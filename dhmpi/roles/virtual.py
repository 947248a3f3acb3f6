"""Dispatcher, supply and search in virtual time: thousands of evaluators in one process, no MPI, no waiting.

What a real run does with messages happens here at the instants of a queue of events, so that a policy can be measured,
and a bug found, in seconds and repeatably.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dhmpi.budget import Limits
from dhmpi.mpi.protocol import News, Proposed, Work
from dhmpi.roles.dispatcher import Dispatcher
from dhmpi.roles.groupdispatcher import GroupDispatcher
from dhmpi.roles.supply import Ask, Supply
from dhmpi.search.base import Search
from dhmpi.trials import Config, Outcome, Status, Trial


@dataclass
class VirtualRun:
    """What a run in virtual time has given.

    Attributes
    ----------
    outcomes : list of (Outcome, Trial)
        Finished trials in the order of their end; times in virtual seconds.
    seconds : float
        Virtual duration of the run.
    utilisation : float
        Part of all evaluator seconds, between 0 and 1, spent evaluating.
    events : list of dict
        The journal.
    """

    n_evaluators: int
    """Ranks, where evaluations have several."""
    outcomes: list[tuple[Outcome, Trial]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    busy_seconds: float = 0.0
    n_asks: int = 0
    reason: str = ""

    @property
    def utilisation(self) -> float:
        return self.busy_seconds / (self.n_evaluators * self.seconds) if self.seconds else 0.0


class _Simulator:
    def __init__(
        self,
        search: Search,
        limits: Limits,
        n_evaluators: int,
        objective: Callable[[Config], float | None],
        duration: Callable[[Config, np.random.Generator], float],
        latency: float,
        ask_seconds: Callable[[int, int], float],
        seed: int,
        ranks_per_host: int | None,
        ranks_per_eval: int,
    ) -> None:
        self.search = search
        self.objective = objective
        self.duration = duration
        self.latency = latency
        self.ask_seconds = ask_seconds
        self.rng = np.random.default_rng(seed)
        self.hosts = {rank: f"host{rank // (ranks_per_host or 1)}" for rank in range(n_evaluators)}
        self.dispatcher = (
            Dispatcher(limits, silence=None)
            if ranks_per_host is None
            else GroupDispatcher(limits, self.hosts, size=ranks_per_eval, silence=None)
        )
        self.supply = Supply(limits.max_evals)
        self.run = VirtualRun(n_evaluators)
        self.queues: dict[int, list[Trial]] = {rank: [] for rank in range(n_evaluators)}
        self.running: set[int] = set()
        self.asking = False
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._n_events = 0

    def after(self, seconds: float, action: Callable[..., None], *arguments: Any) -> None:
        self._n_events += 1
        heapq.heappush(self._events, (self.now + seconds, self._n_events, action, arguments))

    def play(self) -> VirtualRun:
        for rank, host in self.hosts.items():
            self.dispatcher.join(rank, host, 0.0)
        self.after(0.0, self.hear, News((), (), (), self.dispatcher.n_evaluators, self.dispatcher.n_wanted))
        while self._events and not self.dispatcher.over:
            self.now, _, action, arguments = heapq.heappop(self._events)
            action(*arguments)
            self.deliver()
        self.run.seconds = self.now
        self.run.reason = self.dispatcher.stopping or "nothing more happens"
        return self.run

    def deliver(self) -> None:
        """Send what the dispatcher has to say, each message taking the latency."""
        self.run.events += self.dispatcher.take_events()
        self.run.outcomes += self.dispatcher.take_outcomes()
        for rank, work in self.dispatcher.take_work():
            self.after(self.latency, self.work, rank, work)
        if news := self.dispatcher.take_news():
            self.after(self.latency, self.hear, news)

    def work(self, rank: int, work: Work) -> None:
        queue = self.queues[rank]
        returned = [trial.id for trial in queue if trial.id in work.recalled and trial.id not in self.running]
        queue[:] = [trial for trial in queue if trial.id not in returned and trial.id not in work.cancelled]
        queue += [trial for trial in work.trials if rank == (trial.ranks or (rank,))[0]]
        if returned:
            self.after(self.latency, self.dispatcher_returned, rank, returned)
        self.start(rank)

    def start(self, rank: int) -> None:
        queue = self.queues[rank]
        if queue and queue[0].id not in self.running:
            self.running.add(queue[0].id)
            seconds = self.duration(queue[0].config, self.rng)
            self.after(seconds, self.finish, rank, queue[0], self.now)

    def finish(self, rank: int, trial: Trial, start: float) -> None:
        self.running.discard(trial.id)
        if trial not in self.queues[rank]:
            return  # cancelled meanwhile
        self.queues[rank].remove(trial)
        self.run.busy_seconds += (self.now - start) * max(1, len(trial.ranks))
        y = self.objective(trial.config)
        status = Status.FAILED if y is None else Status.DONE
        outcome = Outcome(
            trial.id, trial.attempt, status, y, {}, rank, self.hosts[rank], start, self.now, self.now - start
        )
        self.after(self.latency, self.report, rank, outcome)
        self.start(rank)

    def report(self, rank: int, outcome: Outcome) -> None:
        self.dispatcher.report(rank, [outcome], self.now)

    def dispatcher_returned(self, rank: int, ids: list[int]) -> None:
        self.dispatcher.returned(rank, ids, self.now)

    def hear(self, news: News) -> None:
        self.supply.hear(news, self.now)
        self.search.tell(news.told)
        self.search.drop(news.dropped)
        self.ask()

    def ask(self) -> None:
        if self.asking or (ask := self.supply.next_ask()) is None:
            return
        self.asking = True
        self.supply.asked()
        replaced = set(ask.replacing)
        pending = [key for key in self.search.pending() if key not in replaced]
        n_told = self.search.n_told
        proposals = self.search.ask(ask.n, ask.replacing)
        self.run.n_asks += 1
        seconds = self.ask_seconds(n_told, ask.n)
        search = self.search
        proposed = Proposed(
            self.run.n_asks - 1,
            n_told,
            pending,
            proposals,
            ask.replacing,
            search.exhausted,
            seconds,
            list(search.reused.items()),
            search.notes,
            search.stop,
        )
        self.after(seconds, self.answer, ask, proposed, search.informed)

    def answer(self, ask: Ask, proposed: Proposed, informed: bool) -> None:
        self.asking = False
        keys = [key for key, _ in proposed.proposals]
        self.supply.answered(ask, keys, informed, proposed.seconds, proposed.exhausted)
        self.after(self.latency, self.dispatcher.propose, proposed, self.now + self.latency)
        self.ask()


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

    Returns
    -------
    VirtualRun
    """
    return _Simulator(
        search, limits, n_evaluators, objective, duration, latency, ask_seconds, seed, ranks_per_host, ranks_per_eval
    ).play()
