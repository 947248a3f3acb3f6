"""A model of evaluators, their queues and their messages, in which anything may happen at any moment.

The dispatcher under test is real, and so is the journal's history that an heir starts from; evaluators do what
`dhmpi.roles.evaluator` does, messages arrive in order for each pair of ranks.  Start at `World.step`.
"""

from collections import Counter, deque

from dhmpi.budget import Limits
from dhmpi.journal import History
from dhmpi.mpi.protocol import Holding, Proposed, Ready, Report
from dhmpi.roles.dispatcher import Dispatcher
from dhmpi.trials import Outcome, Proposal, Status

SILENCE = 20.0
ACTIONS = {
    "finish": 8,
    "hear_work": 8,
    "hear_report": 8,
    "search": 3,
    "tick": 2,
    "sign_of_life": 2,
    "pass_time": 0.5,
    "freeze": 0.7,
    "thaw": 1,
    "repeat": 0.5,
    "retire": 0.2,
    "enlist": 0.4,
    "die": 0.3,
    "recruit": 0.3,
    "master_dies": 0.4,
    "stop": 0.2,
    "steer": 0.5,
}


class Evaluator:
    """One rank: what it runs (the first of its queue), what is placed there, and what nobody has acknowledged."""

    def __init__(self, host):
        self.host = host
        self.queue = deque()
        self.unacknowledged = {}
        self.inbox = deque()
        self.outbox = deque()
        self.frozen = False
        self.cancelled = False  # what it runs

    def work(self, work):
        for id_ in work.acknowledged:
            self.unacknowledged.pop(id_, None)
        running, placed = list(self.queue)[:1], list(self.queue)[1:]
        gone = {*work.recalled, *work.cancelled}
        left = [trial for trial in placed if trial.id in gone]
        self.queue = deque([*running, *(trial for trial in placed if trial.id not in gone), *work.trials])
        if returned := [trial.id for trial in left if trial.id not in work.cancelled]:
            self.outbox.append(Report((), returned))
        for trial in left:
            if trial.id in work.cancelled:
                self.answer(Outcome(trial.id, trial.attempt, Status.CANCELLED, None))
        if running and running[0].id in work.cancelled:
            self.cancelled = True

    def answer(self, outcome):
        self.unacknowledged[outcome.trial] = outcome
        self.outbox.append(Report([outcome]))

    def meet_heir(self, host):
        holding = [trial.id for trial in self.queue]
        self.outbox.append(Holding(Ready(host, 0.0), holding, list(self.unacknowledged.values())))


class World:
    """A search with its master, its searcher and its evaluators.

    Parameters
    ----------
    rng : numpy.random.Generator
    max_evals, n_evaluators, n_hosts, retries : int
    elapsed : float
        Seconds of an evaluation, which decide how much is placed in advance.
    space : int or None
        Number of configurations, None if infinite.
    quarantine_after : int or None
    stops : bool
        Whether somebody may end the search.
    steers : bool, default False
        Whether somebody adds points, pauses and resumes, and changes how many evaluations there are.
    """

    def __init__(
        self, rng, max_evals, n_evaluators, n_hosts, retries, elapsed, space, quarantine_after, stops, steers=False
    ):
        self.rng, self.elapsed, self.space, self.max_evals = rng, elapsed, space, max_evals
        self.steers, self.n_orders = steers, 0
        self.limits = Limits(max_evals, retries, max_failures=10**9, quarantine_after=quarantine_after)
        self.hosts = [f"host{rank % n_hosts}" for rank in range(3 * n_evaluators + 1)]
        self.now = 0.0
        self.living = {}
        self.dead, self.retired, self.silent, self.awaited, self.quarantined = set(), set(), set(), set(), set()
        self.next_rank = 1
        self.stops = stops
        self.asks = []
        self.old_reports = []
        self.is_frantic = True
        self.history = History()  # what is on record
        self.kinds = Counter()
        self.n_finished = Counter()
        self.dispatcher = self.new_dispatcher()
        self.searcher_is_known = True
        for _ in range(n_evaluators):
            self.recruit()

    # -- the master ----------------------------------------------------------------------------------------------------

    def new_dispatcher(self):
        given = {"options": {"max_evals": self.max_evals}}
        self.record({"e": "launch", "launch": 0, "epoch": len(self.history.headers), "t": self.now, **given})
        return Dispatcher(self.limits, SILENCE)

    def record(self, event):
        kind = event["e"]
        self.kinds["copied" if event.get("copy") else kind] += 1
        holders = list(self.history.holders.get(event.get("trial"), ()))
        self.history.apply(event)
        if kind == "finished":
            self.n_finished[event["trial"]] += 1
        elif kind == "silent":
            self.silent.add(event["rank"])
        elif kind in ("heard", "left"):
            self.silent.discard(event["rank"])
        elif kind == "placed":
            rank = event["rank"]
            assert rank in self.living
            assert rank not in self.silent | self.retired | self.awaited
            assert self.hosts[rank] not in self.quarantined
            assert self.n_finished[event["trial"]] == 0
            assert len(holders) == event.get("copy", 0)
            assert rank not in holders
            assert not self.history.paused
        elif kind == "kept":
            assert not holders
        elif kind == "quarantined":
            self.quarantined.add(event["host"])
        elif kind == "readmitted":
            self.quarantined.discard(event["host"])

    def deliver(self):
        """Write first, send afterwards."""
        for event in self.dispatcher.take_events():
            self.record(event)
        for rank, work in self.dispatcher.take_work():
            if rank in self.living:
                self.living[rank].inbox.append(work)
        self.dispatcher.take_outcomes()
        self.dispatcher.take_news()
        self.dispatcher.take_remarks()
        self.check()

    def check(self):
        """Compare what the dispatcher believes with what is on record."""
        d, history = self.dispatcher, self.history
        in_flight = [trial.id for trial in d.in_flight]
        assert d.n_started <= d.limits.max_evals
        assert d.n_added == self.history.n_added
        assert d.paused == self.history.paused or d.stopping
        assert sorted([*in_flight, *history.finished]) == list(range(d.n_started)) or d.stopping
        assert d.budget.n_finished == len(history.finished)
        assert d.n_retried == history.n_retried or self.awaited
        assert {trial.id: trial.attempt for trial in d.in_flight} == {
            trial.id: trial.attempt for trial in history.unfinished.values()
        } or d.stopping
        assert max(self.n_finished.values(), default=0) <= 1
        for holders in history.holders.values():
            assert len(holders) == len(set(holders)) <= 2

    def master_dies(self, _):
        if self.rng.random() < 0.5:  # before it could write
            for rank in list(self.living):
                self.hear_report(rank, deliver=False)
        if self.rng.random() < 0.5:  # before it could send
            self.dispatcher.tick(self.now)
            for event in self.dispatcher.take_events():
                self.record(event)
        for evaluator in self.living.values():
            evaluator.outbox.clear()
            for _ in range(int(self.rng.integers(0, len(evaluator.inbox) + 1))):
                evaluator.inbox.pop()
            evaluator.inbox.append("heir")
        n_retried, n_asks = self.history.n_retried, self.history.n_asks
        self.dispatcher = d = self.new_dispatcher()
        self.retired.clear()
        d.inherit(self.history, self.hosts, self.now)
        d.n_retried = n_retried
        if self.history.last_stop:
            d.stop(self.history.last_stop, self.now)
        self.awaited = set(self.living)
        self.silent.clear()
        if len(self.living) > 1 and self.rng.random() < 0.3:  # the master's rank evaluated, too
            del self.living[rank := self.any_rank()]
            self.dead.add(rank)
            self.awaited.discard(rank)
        for rank in sorted(self.dead):
            d.leave(rank, self.now, "died", died=True)
        self.searcher_is_known = False
        self.n_asks_known = n_asks
        self.deliver()

    def meet_searcher(self):
        """The searcher says again what the journal does not have."""
        if not self.searcher_is_known:
            self.searcher_is_known = True
            pairs = [*self.history.unfinished.values(), *(trial for _, trial in self.history.finished.values())]
            started = {trial.key for trial in pairs}
            known, unknown = self.asks[: self.n_asks_known], self.asks[self.n_asks_known :]
            ahead = [p for proposed in known for p in proposed.proposals if p.key not in started]
            self.dispatcher.put_ahead(ahead, self.now)
            for proposed in unknown:
                self.dispatcher.propose(proposed, self.now)
            self.deliver()

    # -- what may happen -----------------------------------------------------------------------------------------------

    def any_rank(self):
        return int(self.rng.choice(list(self.living)))

    def step(self):
        self.now += self.rng.exponential(0.2)
        actions = list(ACTIONS)
        weights = [ACTIONS[action] for action in actions]
        action = self.rng.choice(actions, p=[weight / sum(weights) for weight in weights])
        getattr(self, action)(self.any_rank())

    def calm_step(self):
        """Nothing goes wrong any more."""
        self.is_frantic = False
        self.now += 1.0
        self.order("resume")
        self.search(0)
        for rank in list(self.living):
            self.thaw(rank)
            self.enlist(rank)
            self.sign_of_life(rank)
            for action in (self.hear_work, self.finish, self.hear_report):
                action(rank)
        self.tick(0)

    def search(self, _):
        self.meet_searcher()
        d = self.dispatcher
        if d.n_ahead >= 3 or d.stopping or (self.asks and self.asks[-1].exhausted):
            return
        first = sum(len(proposed.proposals) for proposed in self.asks)
        last = first + int(self.rng.integers(1, 6))
        exhausted = self.space is not None and last > self.space
        keys = range(first, min(last, self.space) if exhausted else last)
        proposals = [Proposal(key, {"x": key}) for key in keys]
        self.asks.append(Proposed(len(self.asks), 0, (), proposals, (), exhausted))
        d.propose(self.asks[-1], self.now)
        self.deliver()

    def finish(self, rank):
        evaluator = self.living[rank]
        if evaluator.frozen or not evaluator.queue:
            return
        trial = evaluator.queue.popleft()
        cancelled, evaluator.cancelled = evaluator.cancelled, False
        share = 0.6 if evaluator.host == "host0" else 0.05
        if cancelled and self.rng.random() < 0.8:
            status = Status.CANCELLED
        elif self.rng.random() < share:
            status = Status.CRASHED
        else:
            status = Status.DONE
        objective = 1.0 if status is Status.DONE else None
        host, elapsed = evaluator.host, self.elapsed
        evaluator.answer(Outcome(trial.id, trial.attempt, status, objective, {}, rank, host, 0.0, elapsed, elapsed))

    def hear_work(self, rank):
        evaluator = self.living[rank]
        if evaluator.frozen or not evaluator.inbox:
            return
        message = evaluator.inbox.popleft()
        if message == "heir":
            evaluator.meet_heir(self.hosts[rank])
        else:
            evaluator.work(message)

    def hear_report(self, rank, deliver=True):
        evaluator, d = self.living[rank], self.dispatcher
        if not evaluator.outbox:
            return
        message = evaluator.outbox.popleft()
        if isinstance(message, Holding):
            d.report(rank, message.outcomes, self.now)
            if deliver:
                self.deliver()
            self.awaited.discard(rank)
            d.holds(rank, message.loaded.host, message.trials, self.now)
        else:
            self.hear_outcomes(rank, message)
        if deliver:
            self.deliver()

    def hear_outcomes(self, rank, message):
        if message.returned:
            self.dispatcher.returned(rank, message.returned, self.now)
        if message.outcomes:
            self.dispatcher.report(rank, message.outcomes, self.now)
            if message.outcomes[0].status is not Status.CANCELLED:
                self.old_reports.append((rank, message))

    def repeat(self, _):
        """An outcome arrives a second time, perhaps of a rank that has died meanwhile."""
        if self.old_reports and self.is_frantic:
            self.hear_outcomes(*self.old_reports.pop(0))
            self.deliver()

    def stop(self, _):
        if self.stops:
            self.dispatcher.stop("somebody asked for an end", self.now, cancel=self.rng.random() < 0.5)
            self.deliver()

    def steer(self, _):
        if not self.steers or self.dispatcher.stopping:
            return
        d = self.dispatcher
        action = str(self.rng.choice(["add", "pause", "resume", "max-evals"]))
        if action == "add" and d.n_wanted:
            keys = [-1 - d.n_added - i for i in range(int(self.rng.integers(1, 1 + min(3, d.n_wanted))))]
            self.order(action, points=[[key, {"x": key}] for key in keys])
        elif action == "max-evals":
            self.order(action, max_evals=max(1, d.n_started, d.limits.max_evals + int(self.rng.integers(-5, 6))))
        elif action in ("pause", "resume"):
            self.order(action)

    def order(self, action, **content):
        if self.dispatcher.stopping is None:
            self.n_orders += 1
            event = {"e": "steered", "t": self.now, "action": action, "order": str(self.n_orders), **content}
            self.dispatcher.steer(event, self.now)
            self.deliver()

    def tick(self, _):
        self.dispatcher.tick(self.now)
        self.deliver()

    def pass_time(self, _):
        self.now += SILENCE / 2

    def sign_of_life(self, rank):
        if not self.living[rank].frozen:
            self.dispatcher.alive(rank, self.now)
            self.deliver()

    def freeze(self, rank):
        self.living[rank].frozen = True

    def thaw(self, rank):
        self.living[rank].frozen = False

    def retire(self, rank):
        if rank not in self.awaited:
            self.retired.add(rank)
            self.dispatcher.retire(rank, self.now)
            self.deliver()

    def enlist(self, rank):
        if rank in self.retired:
            self.retired.discard(rank)
            self.dispatcher.enlist(rank, self.now)
            self.deliver()

    def die(self, rank):
        if len(self.living) == 1:
            return
        while self.living[rank].outbox and self.rng.random() < 0.7:  # last words
            self.hear_report(rank)
        del self.living[rank]
        self.dead.add(rank)
        self.awaited.discard(rank)
        self.dispatcher.leave(rank, self.now, f"rank {rank} has died", died=True)
        self.deliver()

    def recruit(self, _=0):
        if self.next_rank < len(self.hosts):
            rank, self.next_rank = self.next_rank, self.next_rank + 1
            self.living[rank] = Evaluator(self.hosts[rank])
            self.dispatcher.join(rank, self.hosts[rank], self.now)
            self.deliver()
