"""Who gets which trial where evaluations have several ranks each, of one size or of many.

Each rank is an evaluator of its own that joins, dies or falls silent; a trial is given to a group of idle ones, which
`dhmpi.roles.groups` chooses.  The leader answers for all of them.  A trial is lost with any member, and the others are
idle again when each has said that it is out of it.  Nothing is placed in advance, and nothing is started twice.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import NamedTuple

from dhmpi.budget import Limits
from dhmpi.journal import History
from dhmpi.mpi.layout import Layout, spans
from dhmpi.options import SearchOptions
from dhmpi.roles.dispatcher import Dispatcher
from dhmpi.roles.events import lost_event, placed_event
from dhmpi.roles.fleet import Evaluator, Fleet
from dhmpi.roles.groups import Group, Groups, Numbers, size_of
from dhmpi.stopping import Stopper
from dhmpi.trials import RANKS, Config, Loss, Outcome, Status, Trial

WINDOW = 64
"""Proposals ahead among which one of a size that fits is looked for."""
PATIENCE = 2.0
"""Ranks, as a multiple of all there are, that may be given to later trials before ranks are reserved for an earlier."""


class _Candidate(NamedTuple):
    position: int
    size: int
    trial: Trial | None
    """None for a proposal that was not started before."""


class GroupFleet(Fleet):
    """Evaluators that become members of groups; nothing is placed with them in advance.

    Parameters
    ----------
    groups : Groups
        Learns which of them are idle.
    """

    def __init__(self, groups: Groups) -> None:
        super().__init__()
        self._groups = groups

    def change(self, evaluator: Evaluator, **flags: bool) -> None:
        super().change(evaluator, **flags)
        if not evaluator.usable:
            self._groups.remove(evaluator.rank)

    def rest(self, evaluator: Evaluator) -> None:
        if evaluator.usable:
            self._groups.add(evaluator.rank, evaluator.host, idle=not (evaluator.queue or evaluator.leaving))


class GroupDispatcher(Dispatcher):
    """Hands trials to groups of ranks within a budget.

    Parameters
    ----------
    limits : Limits
    hosts : mapping of int to str
        Host of each rank that is to evaluate.
    fixed : sequence of tuple of int, optional
        Groups for evaluations of the usual size.
    size : int, default 1
        Ranks of an evaluation whose configuration does not say it.
    silence : float or None, default 90
        As for `Dispatcher`; for so long after the first rank, groups wait for members that have yet to come.
    stopper : Stopper, optional
    """

    def __init__(
        self,
        limits: Limits,
        hosts: Mapping[int, str],
        fixed: Sequence[Group] = (),
        size: int = 1,
        silence: float | None = 90.0,
        stopper: Stopper | None = None,
    ) -> None:
        self._groups = Groups(hosts, fixed)
        super().__init__(limits, silence, stopper, GroupFleet(self._groups))
        self._size = size
        self._numbers = Numbers()
        self._expected = set(hosts)  # ranks that are there or may still come
        self._most = len(hosts)
        self._members: dict[int, Group] = {}  # of each open trial
        self._passed_over: dict[int, int] = {}  # size -> ranks given to later trials while one of that size waited
        self._due = 0  # the size for which ranks are reserved
        self._late: float | None = None  # when ranks that have not come are waited for no longer
        self._n_returned: Counter[int] = Counter()
        self._sizes: deque[int] = deque(maxlen=101)

    @property
    def n_running(self) -> int:
        """Trials that are being evaluated."""
        return len(self._open)

    @property
    def n_evaluators(self) -> int:
        """Evaluations that the present ranks can hold, as large as the last ones were."""
        size = statistics.mean(self._sizes) if self._sizes else self._size
        return max(1, int(self._fleet.n_usable / size)) if self._fleet.n_usable else 0

    # -- what happens --------------------------------------------------------------------------------------------------

    def inherit(self, history: History, hosts: Sequence[str], now: float) -> None:
        self._numbers = Numbers(history.n_groups + 1, known=history.groups)
        self._wait_for_others(now)
        super().inherit(history, hosts, now)
        for id_, trial in self._open.items():
            leader = self._holder[id_]
            self._members[id_] = tuple(trial.ranks) or (leader,)
            for rank in self._members[id_]:
                if rank != leader:
                    since = history.since.get(id_, now)
                    self._new(rank, hosts[rank], now, since, awaited=True).queue.append(id_)

    def leave(self, rank: int, now: float, reason: str, died: bool = False) -> None:
        self._expected.discard(rank)
        self._groups.remove(rank)
        self._numbers.drop_rank(rank)
        super().leave(rank, now, reason, died)
        n = len(self._expected)
        if n < self._size and self._size > 1 and self.stopping is None and (died or len(self._fleet)):
            self.short_of_ranks = True
            self.stop(f"only {n} rank{'s are' if n != 1 else ' is'} left, and an evaluation needs {self._size}", now)

    def join(self, rank: int, host: str, now: float) -> None:
        self._expected.add(rank)
        self._wait_for_others(now)
        super().join(rank, host, now)

    def tick(self, now: float) -> None:
        if self._late is not None and now >= self._late:
            self._late = math.inf
            if missing := self._groups.wait_no_longer():
                self._events.append({"e": "missing", "t": now, "ranks": missing})
                self._remarks.append(f"ranks {spans(missing)} have not come: others work without them until they do")
        super().tick(now)

    def returned(self, rank: int, ids: Iterable[int], now: float) -> None:
        """Note that a member is out of trials that were taken from it, or gives them back for its group."""
        evaluator = self._hear(rank, now)
        for id_ in ids:
            if evaluator is not None and id_ in evaluator.leaving:
                evaluator.leaving.discard(id_)
                self._events.append({"e": "freed", "t": now, "rank": rank, "trial": id_})
                self._fleet.rest(evaluator)
            else:
                self._give_back(rank, id_, now)
        self._assign(now)

    def _wait_for_others(self, now: float) -> None:
        if self._late is None and self.silence is not None:
            self._late = now + self.silence

    # -- who is idle ---------------------------------------------------------------------------------------------------

    def _set_depth(self) -> None:
        self._median_duration = statistics.median(self._durations)

    def _await(self, now: float) -> None:
        """Groups are made of what is ahead as a whole, as soon as ranks are idle."""

    # -- the end of a trial, good or bad -------------------------------------------------------------------------------

    def _relieve(self, id_: int, rank: int, now: float) -> None:
        """Free the members of a finished trial; the leader answers when all are out of it, anybody else too early."""
        leader = self._holder.pop(id_)
        for member in self._members.pop(id_):
            evaluator = self._fleet.get(member)
            if evaluator is None or member == rank:
                continue
            if rank == leader:
                self._fleet.unqueue(evaluator, id_, now)
            else:
                self._take_from(member, id_, now)

    def _finish(self, outcome: Outcome, trial: Trial, now: float) -> None:
        if len(trial.ranks) > 1 and outcome.status is not Status.DONE:
            self._drop_group(trial)
        if trial.ranks and outcome.status is not Status.LOST:
            outcome = outcome._replace(metrics={"ranks": spans(trial.ranks), **outcome.metrics})
        self._n_returned.pop(trial.id, None)
        super()._finish(outcome, trial, now)

    def _give_back(self, rank: int, id_: int, now: float) -> None:
        """Note that a group has not evaluated a trial, since one of its members has not, and nothing has come of it."""
        members = self._members.get(id_)
        if members is None or rank not in members:
            return
        if self._cancelling and rank != members[0]:
            self._fleet.unqueue(self._fleet[rank], id_, now)
            return
        trial = self._open.pop(id_)
        leader = self._holder.pop(id_)
        del self._members[id_]
        self._drop_group(trial)
        for member in members:
            if member == rank:
                self._fleet.unqueue(self._fleet[rank], id_, now)
            else:
                self._take_from(member, id_, now)
        self._events.append({"e": "returned", "t": now, "trial": id_, "rank": leader})
        self._n_returned[id_] += 1
        if self._n_returned[id_] <= self.limits.retries:
            self._line.waiting.append(trial._replace(ranks=(), group=0))
            return
        reason = f"{self._n_returned[id_]} groups of ranks have not come together for it, the last on {spans(members)}"
        host = self._fleet[rank].host
        self._finish(Outcome(id_, trial.attempt, Status.LOST, None, {}, leader, host, reason=reason), trial, now)
        self._check_budget(now)

    def _left(self, rank: int, evaluator: Evaluator | None, id_: int, now: float) -> None:
        self.returned(rank, [id_], now)

    def _answered_late(self, evaluator: Evaluator, id_: int) -> None:
        if id_ in evaluator.leaving:
            self.returned(evaluator.rank, [id_], evaluator.seen)

    def _kept(self, evaluator: Evaluator, ids: Iterable[int], now: float, known: Iterable[int] = ()) -> deque[int]:
        """Let a rank keep what its group still has, and leave the rest."""
        rank = evaluator.rank
        kept = deque(id_ for id_ in ids if id_ in known and rank in self._members.get(id_, ()))
        evaluator.leaving = {id_ for id_ in ids if id_ not in kept}
        if evaluator.leaving:
            self._outbox.cancel(rank, evaluator.leaving)
        return kept

    def _take_back(self, evaluator: Evaluator, now: float, reason: str, died: bool) -> None:
        """Have the trial of a group tried again of which a member is lost; the others are told to leave it."""
        host = evaluator.host
        for id_ in list(evaluator.queue):
            members = self._members.pop(id_, None)
            if members is None:
                continue
            trial, leader = self._open.pop(id_), self._holder.pop(id_)
            self._drop_group(trial)
            self._losses.setdefault(id_, []).append(Loss(host, died))
            if died:
                self._note_death(host, now)
            self._events.append(lost_event(id_, leader, host, True, died, reason, evaluator.since, now))
            for member in members:
                if member != evaluator.rank:
                    self._take_from(member, id_, now)
            if why := self._given_up(id_):
                self._lose(trial, leader, host, why, reason, now)
                continue
            self.n_retried += 1
            self._forget_progress(id_)
            self._line.waiting.append(trial._replace(attempt=trial.attempt + 1, ranks=(), group=0))

    def _take_from(self, member: int, id_: int, now: float) -> None:
        """Have a member leave a trial; it is idle when it has answered."""
        evaluator = self._fleet.get(member)
        if evaluator is not None:
            evaluator.leaving.add(id_)
            self._outbox.cancel(member, [id_])
            self._fleet.unqueue(evaluator, id_, now)

    def _drop_group(self, trial: Trial) -> None:
        """Use the communicator of a trial no more: messages of which nobody knows may be on their way there."""
        self._numbers.drop(tuple(trial.ranks))
        self._say_dropped(trial.ranks, trial.group)

    def _say_dropped(self, ranks: Iterable[int], number: int) -> None:
        for rank in ranks:
            if number and rank in self._fleet:
                self._outbox.to(rank).dropped.append(number)

    # -- what is started next ------------------------------------------------------------------------------------------

    def _assign(self, now: float) -> None:
        """Give idle ranks trials."""
        groups = self._groups
        while groups.n_idle and self.stopping is None and not self.paused:
            candidates = self._candidates(now)
            if not candidates:
                break
            found = self._fitting(candidates)
            if found is None:
                break
            chosen, ranks = found
            self._count_passed_over(candidates, chosen)
            trial = self._begin(chosen)
            self._give_group(trial, ranks, now)

    def _candidates(self, now: float) -> list[_Candidate]:
        """Return the first trial of each size that might be started; what no group can evaluate ends here."""
        first: dict[int, _Candidate] = {}
        for position, trial in enumerate(list(self._line.waiting)):
            size = size_of(trial.config, self._size)
            if size > len(self._expected):
                self._line.waiting.remove(trial)
                reason = f"it needs {size} ranks, and only {len(self._expected)} are left"
                self._finish(Outcome(trial.id, trial.attempt, Status.LOST, None, {}, reason=reason), trial, now)
                self._check_budget(now)
            elif size not in first:
                first[size] = _Candidate(position, size, trial)
        n_before = len(self._line.waiting)
        for line in (self._line.added, self._line.ahead):
            position = 0
            while position < min(WINDOW, len(line)) and self.n_started < self.limits.max_evals:
                key, config = line[position]
                try:
                    size = size_of(config, self._size)
                    if size > len(self._expected):
                        raise ValueError(self._too_large(size))
                except ValueError as error:
                    del line[position]
                    self._refuse(key, config, str(error), now)
                    continue
                if size not in first:
                    first[size] = _Candidate(n_before + position, size, None)
                position += 1
            n_before += len(line)
        return list(first.values()) if self.stopping is None else []

    def _too_large(self, size: int) -> str:
        if size > self._most:
            return f"{RANKS} is {size}, and only {self._most} rank{'s evaluate' if self._most > 1 else ' evaluates'}"
        return f"it needs {size} ranks, and only {len(self._expected)} are left"

    def _fitting(self, candidates: list[_Candidate]) -> tuple[_Candidate, Group] | None:
        """Return what should be started now and where, None if nothing fits.

        The largest that fits comes first, so that ranks that are idle together stay together.  What has been passed
        over for too long gets ranks of its own, as soon as those that are busy now are idle.
        """
        if self._due and all(candidate.size != self._due for candidate in candidates):
            self._due = 0
            self._groups.cancel_reservation()
        if not self._due:
            patience = PATIENCE * self._groups.n_there
            overdue = [c for c in candidates if self._passed_over.get(c.size, 0) >= patience]
            if overdue:
                self._due = min(overdue).size
        for candidate in sorted(candidates, key=lambda c: (c.size != self._due, -c.size)):
            avoid = self._blamed(candidate.trial)
            if candidate.size == self._due:
                if not self._groups.reserved and not self._groups.reserve(candidate.size, avoid):
                    continue  # some of its ranks have yet to come
                ranks = self._groups.take(candidate.size, reserved=True)
            else:
                ranks = self._groups.take(candidate.size, avoid)
            if ranks is not None:
                return candidate, ranks
        return None

    def _blamed(self, trial: Trial | None) -> set[str]:
        return set() if trial is None else {loss.host for loss in self._losses.get(trial.id, ())}

    def _count_passed_over(self, candidates: list[_Candidate], chosen: _Candidate) -> None:
        self._passed_over.pop(chosen.size, None)
        if chosen.size == self._due:
            self._due = 0
        sizes = {candidate.size for candidate in candidates}
        for size in self._passed_over.keys() - sizes:
            del self._passed_over[size]
        for candidate in candidates:
            if candidate.size != chosen.size and candidate.position < chosen.position:
                self._passed_over[candidate.size] = self._passed_over.get(candidate.size, 0) + chosen.size

    def _begin(self, candidate: _Candidate) -> Trial:
        if candidate.trial is not None:
            self._line.waiting.remove(candidate.trial)
            return candidate.trial
        for line in (self._line.added, self._line.ahead):
            for position, (key, config) in enumerate(islice(line, WINDOW)):
                if size_of(config, self._size) == candidate.size:
                    del line[position]
                    return self._start_trial(key, config)
        raise RuntimeError(f"nobody wants an evaluation of {candidate.size} ranks")

    def _refuse(self, key: int, config: Config, reason: str, now: float) -> None:
        """Fail a proposal that no group can evaluate."""
        trial = self._start_trial(key, config)
        self._events.append(placed_event(trial, 0, now, refused=True))
        self._finish(Outcome(trial.id, 0, Status.FAILED, None, start=now, end=now, reason=reason), trial, now)
        self._check_budget(now)

    def _give_group(self, trial: Trial, ranks: Group, now: float) -> None:
        number = 0  # of one rank there is nothing to make
        if len(ranks) > 1:
            number, given_up = self._numbers.get(ranks)
            for group, old in given_up:
                self._say_dropped(group, old)
        trial = trial._replace(ranks=ranks, group=number)
        self._open[trial.id], self._holder[trial.id], self._members[trial.id] = trial, ranks[0], ranks
        self._sizes.append(len(ranks))
        for rank in ranks:
            evaluator = self._fleet[rank]
            evaluator.queue.append(trial.id)
            evaluator.since = now
            self._outbox.to(rank).trials.append(trial)
        self._events.append(placed_event(trial, ranks[0], now, ranks=list(ranks), group=number))


def make_dispatcher(options: SearchOptions, layout: Layout) -> Dispatcher:
    """Return the dispatcher of a search."""
    if not options.grouped:
        return Dispatcher(options.limits, options.evaluator_silence, options.stopping)
    return GroupDispatcher(
        options.limits,
        {rank: layout.hosts[rank] for rank in layout.members},
        layout.groups,
        len(layout.groups[0]),
        options.evaluator_silence,
        options.stopping,
    )
