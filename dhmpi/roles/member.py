"""The member of a group: evaluates trials together with other ranks, whoever these are.

The lowest rank of a group is its leader and alone answers for the trial.  The others tell it how far they are, and are
told when to begin and when to leave.  What a member cannot be freed from ends its process, and the run goes on as after
a death.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence

from dhmpi.errors import EXIT_LOST
from dhmpi.evaluate.group import Apart, GroupEvaluator, Place
from dhmpi.evaluate.interface import EvaluationSpec, Event, Finished, Loaded, Refused, Reported
from dhmpi.mpi import protocol
from dhmpi.mpi.layout import spans
from dhmpi.mpi.post import Message
from dhmpi.mpi.protocol import Step, Tag
from dhmpi.mpi.world import World, abort
from dhmpi.roles.role import SIGNS_OF_LIFE, SILENCE, EverySeconds, Role
from dhmpi.trials import Outcome, Status, Trial

FORMING = 20.0
"""Seconds that the members of a group, all of them idle, have to come together and to make their communicator."""
GRACE = 10.0
"""Seconds, at most, in which a member must be out of an evaluation that it was told to leave."""
AGAIN = 1.0
"""Seconds after which a function that goes on all the same is told once more, by every means."""
LAST_WORDS = 1.0
"""Seconds from there until others are told that a member ends, and again until it does."""
MOST_EARLY = 64
"""Trials of which others have spoken that are remembered: one that comes is soon there, the others have gone."""
LOOK_EVERY = 0.5
"""Seconds between looks at memory, where it has a limit."""
WARNING = 0.25
"""Part of the time limit, 1 s at most, by which members wait for the leader's clock: it decides for all."""


class _Evaluation:
    """A trial as this member has it."""

    def __init__(self, trial: Trial, rank: int, now: float) -> None:
        self.trial = trial
        self.ranks = tuple(trial.ranks) or (rank,)
        self.leads = self.ranks[0] == rank
        self.began: float | None = None
        """When this member began to make the communicator and to evaluate, on the monotonic clock."""
        self.given = now
        self.here: set[int] = set()
        self.damaged = False
        self.outcome: Finished | None = None
        self.out = False
        """Whether this member has nothing to do with it any more."""
        self.left_at: float | None = None
        """Since when it should be out of it."""
        self.told_again = 0
        self.reported = False
        self.beyond_memory = False
        """Whether this member used more memory than it may."""
        self.parts: dict[int, Step] = {}
        self.fault: tuple[Status, str] | None = None
        """Why it has failed, as the first member says that has failed."""
        self.dismissed = False
        """Whether the master has told this member to leave it, and waits for an answer."""

    @property
    def key(self) -> tuple[int, int, int]:
        return self.trial.id, self.trial.attempt, self.trial.group


class Member(Role):
    """One rank among those that evaluate in groups.

    Parameters
    ----------
    world : World
    evaluator : GroupEvaluator
        Whose `work` runs in the main thread.
    spec : callable
        What the run is (`protocol.Setup`) -> what is evaluated.
    timeout : float, optional
        Seconds an evaluation may take.
    grace : float, default GRACE
        Seconds in which a member must be out of an evaluation that it was told to leave.
    silence : float, default 90
        Seconds without a sign of life after which the master does not count on this rank.
    reports : bool, default False
        Whether the master wants to know the values that running evaluations report.
    startup : sequence of float, optional
        Seconds of this rank's start until now, as `protocol.STARTUP` has them.
    max_rss_mb : float, optional
        Memory (MB of 2^20 bytes) that this rank and what its evaluation has started may use.
    memory : callable, optional
        Returns what they use.
    """

    hears = frozenset({Tag.SETUP, Tag.WORK, Tag.MEMBER, Tag.TOGETHER, Tag.STOP})

    def __init__(
        self,
        world: World,
        evaluator: GroupEvaluator,
        spec: Callable[[protocol.Setup], EvaluationSpec],
        timeout: float | None = None,
        grace: float = GRACE,
        silence: float = SILENCE,
        reports: bool = False,
        startup: Sequence[float] = (),
        max_rss_mb: float | None = None,
        memory: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._world = world
        self._post = world.post
        self._rank = world.rank
        self._host = world.hosts[world.rank]
        self._evaluator = evaluator
        self._make_spec = spec
        self._spec: EvaluationSpec | None = None
        self._timeout = timeout
        self._grace = grace
        self._reports = reports
        self._startup = startup
        self._max_rss_mb = max_rss_mb
        self._memory = memory
        self._look_due = EverySeconds(LOOK_EVERY)
        self._load_began = 0.0
        self._loaded: protocol.Ready | None = None
        self._refused: protocol.Refused | None = None
        self._now: _Evaluation | None = None
        self._next: Trial | None = None
        self._early: dict[tuple[int, int, int], list[tuple[int, protocol.Part]]] = {}  # words about trials yet to come
        self._to_drop: list[int] = []
        self._unacknowledged: dict[int, Outcome] = {}
        self._sign_of_life = EverySeconds(silence / SIGNS_OF_LIFE)
        self._stopping: float | None = None  # since when

    # -- messages ------------------------------------------------------------------------------------------------------

    def hear(self, message: Message) -> None:
        payload = message.payload
        if message.tag is Tag.WORK:
            self._work(payload)
        elif message.tag is Tag.MEMBER:
            self._take_part(message.source, payload)
        elif message.tag is Tag.TOGETHER:
            self._together(payload)
        elif message.tag is Tag.SETUP:
            if self._spec is None:  # an heir says it again
                self._load_began = time.monotonic()
                self._spec = self._make_spec(payload)
                self._evaluator.begin(self._spec)
        elif message.tag is Tag.STOP:
            self._stopping = time.monotonic()
            if self._now is not None and not self._now.out:
                self._leave(self._now)
            elif self._evaluator.busy:
                self._evaluator.abandon(first=True)
            self.active = self._evaluator.busy

    def meet(self, heir: protocol.Heir) -> None:
        if self._spec is None:
            return
        outcomes = list(self._unacknowledged.values())
        held = [] if self._now is None or self._now.trial.id in self._unacknowledged else [self._now.trial.id]
        if self._next is not None:
            held.append(self._next.id)
        self._post.send(self._post.lowest, Tag.HOLDING, protocol.Holding(self._loaded, held, outcomes))
        if self._refused is not None:
            self._post.send(self._post.lowest, Tag.REFUSED, self._refused)

    def lost(self, ranks: Sequence[int]) -> None:
        now = self._now
        if now is not None and not now.out and not set(ranks).isdisjoint(now.ranks):
            self._leave(now)  # the master says what becomes of the trial

    def poll(self) -> bool:
        if self._spec is None:
            return False
        events = self._evaluator.poll()
        for event in events:
            self._take(event)
        now = self._now
        if now is not None:
            self._watch(now, time.monotonic())
        elif self._stopping is not None and time.monotonic() - self._stopping > self._grace and self._evaluator.busy:
            self._die("its import cannot be ended")
        if not self._evaluator.busy:
            self._settle()
        if self._sign_of_life():
            running = None if now is None or now.out else now.trial.id
            self._post.send(self._post.lowest, Tag.ALIVE, protocol.Alive(running))
        return bool(events)

    def filenos(self) -> Sequence[int]:
        return (self._evaluator.fileno(),)

    # -- what the master wants -----------------------------------------------------------------------------------------

    def _work(self, work: protocol.Work) -> None:
        for id_ in work.acknowledged:
            self._unacknowledged.pop(id_, None)
        for id_ in work.cancelled:
            self._dismiss(id_)
        self._to_drop += work.dropped
        now = self._now
        if now is not None and now.trial.id in work.stopped:
            self._evaluator.stop()
        for trial in work.trials:
            self._next = trial
        if not self._evaluator.busy:
            self._settle()

    def _dismiss(self, id_: int) -> None:
        """The master does not want a trial from this group any more."""
        now = self._now
        if self._next is not None and self._next.id == id_:
            self._next = None
        if now is None or now.trial.id != id_ or now.out:
            if now is not None and now.trial.id == id_:
                self._now = None
            self._post.send(self._post.lowest, Tag.REPORT, protocol.Report((), [id_]))
            return
        now.dismissed = True
        self._leave(now)

    def _settle(self) -> None:
        """Do what has to wait until nothing is being evaluated."""
        if self._to_drop:
            numbers, self._to_drop = self._to_drop, []
            self._world.teams.drop(numbers)
        if self._stopping is not None:
            self.active = False
        elif self._next is not None and (self._now is None or self._now.out):
            trial, self._next = self._next, None
            self._gather(trial)

    # -- the group comes together --------------------------------------------------------------------------------------

    def _gather(self, trial: Trial) -> None:
        now = self._now = _Evaluation(trial, self._rank, time.monotonic())
        early = self._early.pop(now.key, [])
        if trial.group == 0 or trial.group in self._world.teams:
            self._begin(now)
        elif not now.leads:
            damaged = bool(self._post.dead)
            self._tell_leader(now, protocol.Part(*now.key, Step.HERE, damaged=damaged))
        else:
            now.here.add(self._rank)
            now.damaged = bool(self._post.dead)
        for source, part in early:
            self._take_part(source, part)

    def _begin(self, now: _Evaluation) -> None:
        """Make the communicator, if there is none, and evaluate."""
        trial, world = now.trial, self._world
        now.began = time.monotonic()
        self._evaluator.start(
            Place(
                trial,
                now.ranks.index(self._rank),
                [world.hosts[rank] for rank in now.ranks],
                lambda: world.teams.get(now.ranks, trial.group, now.damaged),
                self._timeout,
                self._grace,
            )
        )

    def _together(self, together: protocol.Together) -> None:
        """The leader says to begin, or to leave."""
        now = self._now
        if now is None or now.key != together[:3] or now.out:
            return
        if not together.go:
            self._leave(now)
        elif now.began is None and now.left_at is None:
            now.damaged = together.damaged
            self._begin(now)

    def _take_part(self, source: int, part: protocol.Part) -> None:
        """A member says how far it is."""
        now = self._now
        if now is None or now.key != part[:3]:
            self._early.setdefault(part[:3], []).append((source, part))
            if len(self._early) > MOST_EARLY:
                del self._early[next(iter(self._early))]
            return
        if not now.leads or now.reported:
            return
        step = Step(part.step)
        if step is Step.HERE:
            if not now.here:
                # A member has not the communicator that this rank has: a master died while it told them to drop it.
                self._give_back(now)
                return
            now.here.add(source)
            now.damaged = now.damaged or part.damaged
            if now.here.issuperset(now.ranks) and now.began is None and now.left_at is None:
                self._tell_members(now, protocol.Together(*now.key, True, now.damaged))
                self._begin(now)
            return
        if step is Step.LIMIT:
            self._fail(now, Status(part.status), part.reason)
            return
        now.parts[source] = step
        if step is Step.APART:
            self._give_back(now)
        elif step is Step.FAILED:
            self._fail(now, Status(part.status), _where(part.reason, source, now.ranks))
        self._conclude(now)

    # -- the end of an evaluation --------------------------------------------------------------------------------------

    def _take(self, event: Event | Apart) -> None:
        if isinstance(event, Loaded | Refused) and self._stopping is not None:
            return  # nobody wants to know any more
        if isinstance(event, Loaded) and (used := self._beyond_memory()):
            self._refuse(f"rank {self._rank} on {self._host} uses {used} before its first evaluation")
            return
        if isinstance(event, Loaded):
            found = (*self._startup, 0.0, event.seconds) if self._startup else ()
            self._loaded, self._refused = protocol.Ready(self._host, event.seconds, found), None
            self._post.send(self._post.lowest, Tag.READY, self._loaded)
            return
        if isinstance(event, Refused):
            self._loaded = None
            self._refuse(event.reason)
            return
        now = self._now
        if now is None or now.key[:2] != (event.trial, event.attempt):
            return
        if isinstance(event, Reported):
            if self._reports:
                self._post.send(self._post.lowest, Tag.PROGRESS, protocol.Progress(*event))
        elif isinstance(event, Apart):
            self._out(now, Step.APART, event.reason)
        else:
            self._finished(now, event)

    def _finished(self, now: _Evaluation, event: Finished) -> None:
        """This member is out of the evaluation."""
        now.outcome = event
        if now.beyond_memory and self._beyond_memory():
            return  # it is never out of it: who keeps so much memory ends
        if now.left_at is not None:  # whatever it was, it came too late to count
            self._out(now, Step.LEFT)
        elif event.status is Status.DONE:
            self._out(now, Step.DONE)
        else:
            self._out(now, Step.FAILED, event.reason, event.status)

    def _out(self, now: _Evaluation, step: Step, reason: str = "", status: Status = Status.FAILED) -> None:
        now.out = True
        if self._refused is not None and self._loaded is not None:  # it was about to end
            self._refused = None
            self._post.send(self._post.lowest, Tag.READY, self._loaded)
        if now.dismissed:
            self._answer_dismissal(now)
            return
        if not now.leads:
            self._tell_leader(now, protocol.Part(*now.key, step, reason, status.value))
            return
        now.parts[self._rank] = step
        if step is Step.APART:
            self._give_back(now)
        elif step is Step.FAILED:
            self._fail(now, status, _where(reason, self._rank, now.ranks))
        self._conclude(now)

    def _answer_dismissal(self, now: _Evaluation) -> None:
        """Tell the master that this member is out of what it was told to leave."""
        self._now = None
        if now.leads:
            self._report(self._outcome(now, Status.CANCELLED, "cancelled"))
        else:
            self._post.send(self._post.lowest, Tag.REPORT, protocol.Report((), [now.trial.id]))

    def _give_back(self, now: _Evaluation) -> None:
        """The group could not come together: the trial goes elsewhere, and the master tells the others."""
        if not now.reported:
            now.reported = True
            if not now.out:
                self._leave(now)
            self._post.send(self._post.lowest, Tag.REPORT, protocol.Report((), [now.trial.id]))

    def _fail(self, now: _Evaluation, status: Status, reason: str) -> None:
        """One member has failed: the first reason counts, and the others are freed."""
        if now.fault is None and not now.dismissed:
            now.fault = (status, reason)
            self._tell_members(now, protocol.Together(*now.key, False))
            if not now.out:
                self._leave(now)
            else:
                now.left_at = now.left_at or time.monotonic()

    def _conclude(self, now: _Evaluation, late: bool = False) -> None:
        """Report the trial once every member is out of it, or those that are not have had their time."""
        if now.reported or now.dismissed or (len(now.parts) < len(now.ranks) and not late):
            return
        if now.fault is None and (now.outcome is None or any(step is not Step.DONE for step in now.parts.values())):
            return  # a member has died: the master knows what becomes of it
        now.reported = True
        if now.fault is None:
            assert now.outcome is not None
            outcome = self._outcome(now, now.outcome.status, now.outcome.reason)
            spec = self._spec
            if spec is not None and spec.task_dirs == "failed":
                self._evaluator.remove(now.trial)
        else:
            status, reason = now.fault
            missing = [rank for rank in now.ranks if rank not in now.parts]
            if missing:
                reason += f"; rank{'s' * (len(missing) > 1)} {spans(missing)} could not be freed and end"
            outcome = self._outcome(now, status, reason)
        self._report(outcome)

    def _outcome(self, now: _Evaluation, status: Status, reason: str) -> Outcome:
        found, offset = now.outcome, self._world.clock_offset
        if found is not None:
            start, end, elapsed = found.start, found.end, found.elapsed
        else:
            elapsed = 0.0 if now.began is None else time.monotonic() - now.began
            end = time.time()
            start = end - elapsed
        done = found is not None and status is Status.DONE
        return Outcome(
            now.trial.id,
            now.trial.attempt,
            status,
            found.objective if found is not None and done else None,
            found.metrics if found is not None and done else {},
            self._rank,
            self._host,
            start + offset,
            end + offset,
            elapsed,
            reason,
        )

    def _report(self, outcome: Outcome) -> None:
        self._unacknowledged[outcome.trial] = outcome
        self._post.send(self._post.lowest, Tag.REPORT, protocol.Report([outcome]))

    # -- what lasts too long -------------------------------------------------------------------------------------------

    def _leave(self, now: _Evaluation) -> None:
        """Have this member get out of an evaluation."""
        if now.left_at is not None:
            return
        now.left_at = time.monotonic()
        if now.began is None:
            self._out(now, Step.LEFT)
        else:
            self._evaluator.abandon(first=True)

    def _watch(self, now: _Evaluation, t: float) -> None:
        """Look at everything that time alone changes."""
        if now.left_at is None and not now.out:
            if not self._is_together(now):
                if now.leads and t - now.given > FORMING:
                    self._not_together(now)
            elif now.began is not None:
                self._look_at_limits(now, t - now.began)
        if now.left_at is None:
            return
        waited = t - now.left_at
        if not now.out:
            if waited > AGAIN * (now.told_again + 1):
                now.told_again += 1
                self._evaluator.abandon(first=False)
                self._world.teams.revoke(now.trial.group)
            if waited > self._grace + 2 * LAST_WORDS:
                cannot = "be ended" if now.outcome is None else "be made to free its memory"
                self._die(f"trial {now.trial.id} cannot {cannot}")
            elif waited > self._grace + LAST_WORDS and self._refused is None:
                does = "does not free the memory" if now.outcome is not None else "does not get out"
                self._refuse(f"rank {self._rank} on {self._host} {does} of trial {now.trial.id}, and ends")
        if now.leads and waited > self._grace:
            self._conclude(now, late=True)

    def _is_together(self, now: _Evaluation) -> bool:
        return now.trial.group == 0 or now.trial.group in self._world.teams

    def _not_together(self, now: _Evaluation) -> None:
        """The time to come together is over: the leader gives the trial back.

        If MPI does not come back with the communicator, as Open MPI 5.0.11 where a rank dies just then and some members
        hear of it before others do, the leader cannot be counted on either, and ends like any member that cannot be
        freed.
        """
        if now.began is None:
            self._give_back(now)
        else:
            self._refuse(f"rank {self._rank} on {self._host} gets no communicator for trial {now.trial.id}, and ends")
            self._leave(now)

    def _refuse(self, reason: str) -> None:
        """Have the master count on this rank no more; what it holds goes elsewhere."""
        self._refused = protocol.Refused(reason)
        self._post.send(self._post.lowest, Tag.REFUSED, self._refused)

    def _look_at_limits(self, now: _Evaluation, seconds: float) -> None:
        """End an evaluation that has lasted too long, or uses too much memory."""
        if self._timeout is not None:
            spare = 0.0 if now.leads else min(1.0, WARNING * self._timeout)
            if seconds > self._timeout + spare:
                reason = f"the evaluation was ended at its time limit of {self._timeout:g} s"
                self._end(now, Status.TIMEOUT, reason)
                return
        if self._max_rss_mb is not None and self._look_due() and (used := self._beyond_memory()):
            now.beyond_memory = True
            self._end(now, Status.MEMORY, _where(f"the evaluation used {used}", self._rank, now.ranks))

    def _beyond_memory(self) -> str:
        """Return in words how much memory this rank uses if that is too much, else nothing."""
        if self._max_rss_mb is None or (used := self._memory()) <= self._max_rss_mb:
            return ""
        return f"{used:.0f} MB, more than the limit of {self._max_rss_mb:g} MB"

    def _end(self, now: _Evaluation, status: Status, reason: str) -> None:
        """End an evaluation that is beyond a limit."""
        if now.leads:
            self._fail(now, status, reason)
        else:
            self._leave(now)
            self._tell_leader(now, protocol.Part(*now.key, Step.LIMIT, reason, status.value))

    def _die(self, why: str) -> None:
        """End this process, for want of another way."""
        print(
            f"dhmpi: rank {self._rank} on {self._host} ends, since {why} otherwise"
            + ("" if self._world.survives else "; the job ends with it, and --resume continues it"),
            file=sys.stderr,
            flush=True,
        )
        if self._world.survives:
            os.kill(os.getpid(), signal.SIGKILL)
        abort(EXIT_LOST)

    # -- words to others -----------------------------------------------------------------------------------------------

    def _tell_leader(self, now: _Evaluation, part: protocol.Part) -> None:
        self._post.send(now.ranks[0], Tag.MEMBER, part._replace(step=int(part.step)))

    def _tell_members(self, now: _Evaluation, together: protocol.Together) -> None:
        for rank in now.ranks:
            if rank != self._rank:
                self._post.send(rank, Tag.TOGETHER, together)


def _where(reason: str, rank: int, ranks: Sequence[int]) -> str:
    """Return a reason with the rank that it comes from, below its first sentence."""
    if len(ranks) == 1:
        return reason
    sentence, _, rest = reason.partition("\n")
    return "\n".join((sentence, f"on rank {rank} of the ranks {spans(ranks)}", *([rest] if rest else [])))
