"""The master: keeps the journal, hands out trials, watches the clock.

It maps messages onto the dispatcher, writes what the dispatcher says to the journal, and only then sends.  Deciding is
the dispatcher's business.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dhmpi import __version__, journal, platform
from dhmpi.budget import objective_for_search
from dhmpi.errors import EXIT_BAD_INPUT, EXIT_LOST, ProblemError, RunDirectoryError
from dhmpi.mpi import binding, protocol
from dhmpi.mpi.environment import gpus, in_terminal
from dhmpi.mpi.post import Message
from dhmpi.mpi.protocol import Tag
from dhmpi.mpi.world import World
from dhmpi.options import SearchOptions, command_line
from dhmpi.roles.attendance import Attendance, RankSeconds
from dhmpi.roles.deadline import Deadline
from dhmpi.roles.founding import Founding
from dhmpi.roles.groupdispatcher import make_dispatcher
from dhmpi.roles.inbox import Inbox, Steering
from dhmpi.roles.progress import Figures, Progress, summary
from dhmpi.roles.recorder import Recorder
from dhmpi.roles.role import EverySeconds, Role, in_line
from dhmpi.roles.startup import Startup, in_words
from dhmpi.roles.supply import NEWS_EVERY
from dhmpi.rundirectory import prepare
from dhmpi.trials import RANKS, Config

log = logging.getLogger("dhmpi")

TICK = 0.1
"""Seconds between looks at the clock, at signals, and at evaluators that are silent or hold more than they can do."""
SYNC = 1.0
"""Seconds after which what is on record is on the disk."""
QUICK = 0.1
"""Seconds; of evaluations that are shorter, too many are started within a second for heirs to know what is ahead."""
MOST_SHARED = 512
"""Proposals that heirs know to be ahead."""
GIVE_UP = 15.0
"""Seconds that evaluators have to answer a cancellation."""
EXIT_FAILURES = 1


class Master(Role):
    """Runs one search; takes the run directory at once.

    Parameters
    ----------
    world : World
    options : SearchOptions
    prog : str
        Module that was started, for the command to resume.
    search : dict
        What the searcher builds its search from, besides what every search needs.
    signals : callable
        Returns a signal that has arrived since the last call, or None.
    started : float
        Monotonic time at which this launch began.
    heir : bool, default False
        Whether this is not the first master of the launch.
    ahead : sequence of (int, dict), optional
        Key and configuration of proposals that an earlier master has told this rank of, in case its search dies too.

    Attributes
    ----------
    exit_code : int

    Raises
    ------
    RunDirectoryError
        If the run directory cannot be had.
    """

    hears = frozenset(
        {
            Tag.READY,
            Tag.REFUSED,
            Tag.REPORT,
            Tag.HOLDING,
            Tag.PROGRESS,
            Tag.PROBLEM,
            Tag.NO_PROBLEM,
            Tag.PROPOSED,
            Tag.SEARCHING,
            Tag.CHECKED,
            Tag.ALIVE,
            Tag.STOP,
        }
    )

    def __init__(
        self,
        world: World,
        options: SearchOptions,
        prog: str,
        search: dict[str, Any],
        signals: Callable[[], int | None],
        started: float,
        heir: bool = False,
        ahead: Sequence[tuple[int, Config]] = (),
    ) -> None:
        self._world = world
        self._options = options
        self._prog = prog
        self._search = search
        self._signals = signals
        self._started = started
        self._heir = heir
        self._deadline = Deadline(options, started)
        self._dispatcher = make_dispatcher(options, world.layout)
        self._progress = Progress(sys.stdout, in_terminal())
        self._tick = EverySeconds(TICK)
        self._sync = EverySeconds(SYNC)
        self._news_due = EverySeconds(NEWS_EVERY)
        self._cancelled_at: float | None = None
        self._refused: dict[int, str] = {}
        self._attendance = Attendance()
        self._noted = RankSeconds(0.0, 0.0)  # at the last note of the search
        self._recruits: set[int] = set()  # ranks that have become evaluators
        self._n_before = 0
        self._n_killed = 0
        self._chaos = options.faults
        self._recorder: Recorder | None = None
        self._startup = Startup(world.layout.members)
        launch = world.launch
        self._directory = prepare(Path(launch.directory), options.resume, launch.token, heir)
        self._history = journal.History()
        self._inherits = False
        self._awaits_searcher = False
        self._searcher = world.searcher
        self._told_ahead = ahead
        self._shared: list[int] = []  # keys of what those next in line know to be ahead

    # -- the beginning -------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Look at what the run directory holds, and start the other roles, or go on with them.

        Raises
        ------
        DhmpiError
            If the run cannot begin, in words for the user.
        """
        now = self._now()
        history = self._history = journal.replay(self._directory.journal)
        self._inherits = bool(
            self._heir and history.headers and history.headers[-1].get("token") == self._world.launch.token
        )
        self._founding = Founding(self._directory, history, self._options, self._prog, self._world.launch.token)
        self._steering = Steering(
            Inbox(self._directory.path),
            self._dispatcher,
            history.orders,
            self._check_points,
            self._limit,
            self._drain,
        )
        if self._inherits:
            self._inherit(history, now)
        else:
            self._dispatcher.heed(history)
            self._dispatcher.restore(history.finished.values(), history.unfinished.values())
            self._steering.begin(now)
            self._n_before = self._dispatcher.budget.n_finished
            self._attendance.began = now
        if history.ended and self._inherits:
            self.exit_code = history.exit_code or 0
            self._directory.release()
            self._dismiss(history.last_stop)
            return
        if self._dispatcher.over and not self._inherits:
            print(f"{self._directory.path} holds a finished run: {self._dispatcher.stopping}.", flush=True)
            self._founding.rebuild(history, self._dispatcher.budget)
            self._directory.release()
            self._dismiss(self._dispatcher.stopping or "")
            return
        _log_to(self._directory.log, self._options.log_level)
        platform.collect_garbage_rarely()
        log.info("dhmpi %s, %s", __version__, self._world.layout.describe())
        if self._world.staged is not None:
            log.info("%s", self._world.staged)
        log.info("\n%s", binding.table(self._world.layout, binding.Node(gpus=gpus()), None, self._world.cores))
        if self._inherits:
            self._record(self._founding.hyperparameters, now)
        layout, dead = self._world.layout, self._world.post.dead
        if self._heir:
            self._bury(sorted(dead), now)
            self._say(f"rank {self._world.rank} on {self._host(self._world.rank)} is master now")
            self._world.tell_everybody(Tag.HEIR, protocol.Heir(history.n_asks))
        for rank in layout.members:
            self._set_up(rank)
        if self._heir and self._world.searcher_lives:
            self._searcher = self._world.searcher
            self._awaits_searcher = True  # what it has said before it heard of this master, it says again
        else:
            self._begin_search()
        self._fill_vacancies(now)

    def _inherit(self, history: journal.History, now: float) -> None:
        """Take over from an earlier master of this launch."""
        self._dispatcher.inherit(history, self._world.hosts, now)
        self._dispatcher.n_retried = history.n_retried
        self._n_killed = history.n_killed
        self._deadline.set(None if history.deadline is None else history.deadline - now)
        new = [item for item in history.finished.values() if item[0].end >= history.began]
        self._n_before = len(history.finished) - len(new)
        self._attendance.inherit(history, new)
        self._noted = self._rank_seconds(now)
        if history.last_stop:
            self._dispatcher.stop(history.last_stop, now)

    def _set_up(self, rank: int) -> None:
        """Have a rank evaluate."""
        directory = self._directory
        setup = protocol.Setup(directory.run_id, str(directory.path), self._founding.seed, not directory.fresh)
        self._world.post.send(rank, Tag.SETUP, setup)

    def _begin_search(self) -> None:
        """Have the searcher, or the one in its place, begin where the journal ends."""
        history = self._history
        if self._told_ahead and self._inherits:
            self._dispatcher.put_ahead(self._not_started(self._told_ahead, history), self._now(), recorded=True)
        self._told_ahead = ()
        if self._recorder is not None:
            self._recorder.write(self._dispatcher.take_events())
            self._dispatcher.take_news()  # is in what follows
            history = journal.replay(self._directory.journal)
        self._searcher = self._world.searcher
        self._steering.ask_again()
        ahead = self._dispatcher.ahead
        spec = {
            **self._search,
            "problem": self._options.problem,
            "seed": self._founding.seed,
            "n_evaluators": self._world.layout.n_evaluators,
            "max_evals": self._options.max_evals,
            "checkpoint": str(self._directory.path / "checkpoint" / f"{self._search['search']}.npz"),
        }
        if self._directory.warm_start.exists():
            spec["warm_start"] = str(self._directory.warm_start)
        self._world.post.send(
            self._searcher,
            Tag.BEGIN,
            protocol.Begin(
                self._directory.run_id,
                spec,
                str(self._directory.path / "search.out"),
                [(trial.key, trial.config, objective_for_search(out)) for out, trial in history.finished.values()],
                [
                    *((trial.key, trial.config) for trial in history.unfinished.values()),
                    *history.added.items(),
                    *ahead,
                ],
                history.n_asks,
                [key for key, _ in ahead],
            ),
        )

    def _problem(self, info: protocol.ProblemInfo) -> None:
        """The searcher has loaded the problem: from here on the run is on record."""
        now = self._now()
        if RANKS in info.hyperparameters and not self._options.grouped:
            raise ProblemError(
                f"{self._options.problem} has the hyperparameter {RANKS}: its configurations say how many ranks "
                f"evaluate them, so add --evaluator group"
            )
        if self._recorder is None:
            for remark in self._founding.describe(info, self._world, now):
                self._say(remark)
            self._record(info.hyperparameters, now)
            size = "infinitely many" if info.size is None else info.size
            log.info(
                "%d hyperparameters, %s configurations, seed %d", len(info.hyperparameters), size, self._founding.seed
            )
            self._startup.problem = now - self._attendance.began
            self._attendance.began = now
            self._progress.say(f"{self._world.layout.describe()}; run directory {self._directory.path}")
            if self._dispatcher.paused:
                self._say(f"the run is paused: python -m dhmpi.steer {self._directory.path} resume")
            for remark in info.remarks:
                self._say(remark)
        self._tell_searcher(protocol.News(n_asks=self._dispatcher.n_asks))

    def _record(self, hyperparameters: Sequence[str], now: float) -> None:
        """Begin this master's file of the journal."""
        world = self._world
        header = {
            "run": self._directory.run_id,
            "token": world.launch.token,
            "t": now,
            "started": now - (time.monotonic() - self._started),
            "deadline": None if (left := self._deadline.left) is None else now + left,
            "program": self._prog,
            "ranks": world.size,
            "layout": dataclasses.asdict(world.layout),
            "version": __version__,
            "options": dataclasses.asdict(self._options),
            "hyperparameters": list(hyperparameters),
        }
        launch = journal.next_launch(self._directory.journal) - self._inherits
        finished = self._history.finished.values()
        self._recorder = Recorder(self._directory, launch, world.rank, header, hyperparameters, finished)
        if not self._inherits:
            self._history = journal.History()  # its trials live in the dispatcher and the search now

    def _searching(self, searching: protocol.Searching) -> None:
        """Go on with the search that an earlier master has begun."""
        self._awaits_searcher = False
        if not searching.begun:
            self._begin_search()
            return
        if searching.info is None and not self._inherits:
            return  # it is loading the problem, and there is nothing that it has missed
        history, self._history = self._history, journal.History()
        finished = {trial.key: objective_for_search(outcome) for outcome, trial in history.finished.values()}
        trials = [*history.unfinished.values(), *(trial for _, trial in history.finished.values())]
        added = {trial.key: trial.config for trial in trials if trial.key < 0} | history.added
        new = [(key, added[key]) for key in sorted(added, reverse=True) if key < -searching.n_added]
        started = {trial.key for trial in trials}
        ahead = self._not_started(searching.ahead, history)
        self._told_ahead = ()
        told = [(key, finished[key]) for key in (*searching.pending, *(key for key, _ in new)) if key in finished]
        kept = started.union((key for key, _ in ahead), added)
        dropped = [key for key in searching.pending if key not in kept]
        if searching.info is not None:
            self._problem(searching.info)
        begun = [key for key in searching.pending if key in started]
        self._tell_searcher(protocol.News(told, begun, dropped, added=new))
        self._dispatcher.put_ahead(ahead, self._now())

    @staticmethod
    def _not_started(proposals: Sequence[tuple[int, Config]], history: journal.History) -> list[tuple[int, Config]]:
        """Return those proposals that the journal does not have as trials or as points of users."""
        trials = [*history.unfinished.values(), *(trial for _, trial in history.finished.values())]
        started = {trial.key for trial in trials}
        known = {_frozen(config) for config in (*(trial.config for trial in trials), *history.added.values())}
        return [(key, config) for key, config in proposals if key not in started and _frozen(config) not in known]

    def _share_ahead(self) -> None:
        """Tell those next in line what is ahead: should master and searcher die, a new search takes its time."""
        dispatcher, post = self._dispatcher, self._world.post
        if not post.survives or (dispatcher.median_duration or QUICK) < QUICK:
            return
        if self._options.evaluator_silence is None:
            return  # messages would pile up for ranks that hear nothing while they evaluate
        ahead = dispatcher.first_ahead(MOST_SHARED)
        keys = [key for key, _ in ahead]
        if keys == self._shared:
            return
        self._shared = keys
        for rank in in_line(post):
            if rank != self._searcher:
                post.send(rank, Tag.AHEAD, protocol.Ahead(ahead))

    def _tell_searcher(self, news: protocol.News) -> None:
        dispatcher = self._dispatcher
        news = news._replace(
            n_evaluators=dispatcher.n_evaluators or self._world.layout.n_evaluators,
            n_wanted=dispatcher.n_wanted,
            n_asks=dispatcher.n_asks,
            max_evals=dispatcher.limits.max_evals,
        )
        self._world.post.send(self._world.searcher, Tag.NEWS, news)

    def _check_points(self, check: protocol.Check) -> bool:
        if self._awaits_searcher:
            return False
        self._world.post.send(self._world.searcher, Tag.CHECK, check)
        return True

    # -- the loop ------------------------------------------------------------------------------------------------------

    def hear(self, message: Message) -> None:
        now = self._now()
        source, payload = message.source, message.payload
        tag = message.tag
        if tag is Tag.REPORT:
            if payload.returned:
                self._dispatcher.returned(source, payload.returned, now)
            if payload.outcomes:
                self._dispatcher.report(source, payload.outcomes, now)
        elif tag is Tag.PROGRESS:
            self._dispatcher.progress(source, payload, now)
        elif tag is Tag.ALIVE:
            self._dispatcher.alive(source, now)
        elif tag is Tag.READY:
            self._ready(source, payload, now)
        elif tag is Tag.HOLDING:
            self._holding(source, payload, now)
        elif tag is Tag.REFUSED:
            self._refuse(source, payload.reason, now)
        elif tag is Tag.STOP:
            self.active = False
        elif source != self._world.searcher or (self._awaits_searcher and tag is not Tag.SEARCHING):
            pass
        elif tag is Tag.PROPOSED:
            self._dispatcher.propose(self._with_seconds(payload, now), now)
        elif tag is Tag.PROBLEM:
            self._problem(payload)
        elif tag is Tag.SEARCHING:
            self._searching(payload)
        elif tag is Tag.CHECKED:
            self._steering.checked(payload, now)
        elif tag is Tag.NO_PROBLEM:
            raise ProblemError(payload.reason)

    def poll(self) -> bool:
        recorder = self._recorder
        if recorder is None:
            return False
        now = self._now()
        if self._tick():
            self._watch(now)
            self._tell_startup(recorder)
            recorder.flush()
        if self._sync():
            recorder.sync(self._dispatcher.budget)
            self._share_ahead()
        busy = self._deliver(recorder)
        self._steering.settle()
        if self._progress.due():
            self._progress.show(self._figures())
        if self._dispatcher.over or self._gave_up():
            self._end(recorder)
            return True
        return busy

    def lost(self, ranks: Sequence[int]) -> None:
        now = self._now()
        self._shared = []
        self._bury(ranks, now)
        if self._searcher in ranks:
            self._awaits_searcher = False
            self._begin_search()
        self._fill_vacancies(now)

    def _bury(self, ranks: Sequence[int], now: float) -> None:
        for rank in ranks:
            reason = f"rank {rank} on {self._host(rank)} has died"
            self._say(reason)
            self._refused.pop(rank, None)
            self._attendance.left(rank, now)
            self._dispatcher.leave(rank, now, reason, died=True)

    def _fill_vacancies(self, now: float) -> None:
        """Have spare ranks evaluate in the place of dead ones, and this one only if there is nobody else."""
        dead, layout, me = self._world.post.dead, self._world.layout, self._world.rank
        n_dead = sum(rank in dead for rank in layout.members)
        for spare in layout.spare:
            if len(self._recruits) < n_dead and spare not in dead and spare != me and spare not in self._recruits:
                self._recruits.add(spare)
                self._set_up(spare)
        if me == layout.master and me in layout.members:
            return
        others = [rank for rank in (*layout.members, *self._recruits) if rank not in dead and rank != me]
        if any(rank not in self._refused for rank in others):
            self._dispatcher.retire(me, now)
        elif me in self._dispatcher.ranks:
            self._dispatcher.enlist(me, now)
        elif me not in self._recruits:
            self._recruits.add(me)
            self._set_up(me)

    def _host(self, rank: int) -> str:
        return self._world.hosts[rank]

    def _now(self) -> float:
        """Return seconds since the epoch on the clock of the launch's first master."""
        return time.time() + self._world.clock_offset

    def _say(self, sentence: str) -> None:
        log.warning("%s", sentence)
        self._progress.say(f"{sentence[0].upper()}{sentence[1:]}")

    def _deliver(self, recorder: Recorder) -> bool:
        """Write first, send afterwards: what an evaluator or the searcher learns is on record."""
        dispatcher, post = self._dispatcher, self._world.post
        events = dispatcher.take_events()
        if events:
            recorder.write(events)
        for rank, work in dispatcher.take_work():
            post.send(rank, Tag.WORK, work)
        if (not dispatcher.n_available or self._news_due()) and (news := dispatcher.take_news()):
            post.send(self._world.searcher, Tag.NEWS, news)
        if outcomes := dispatcher.take_outcomes():
            recorder.add(outcomes)
            self._attendance.add(outcomes)
        for remark in dispatcher.take_remarks():
            self._say(remark)
        if self._chaos is not None and self._chaos.rank_kill:
            self._kill_ranks(events, recorder)
        return bool(events)

    def _kill_ranks(self, events: Sequence[dict[str, Any]], recorder: Recorder) -> None:
        """Have ranks die on purpose, this one too."""
        chaos, world = self._chaos, self._world
        assert chaos is not None
        for event in events:
            if event["e"] != "placed" or self._n_killed >= chaos.max_rank_kills:
                continue
            key = (self._founding.seed, event["trial"], event["attempt"])
            living = [rank for rank in range(world.size) if rank not in world.post.dead]
            if not chaos.kills(*key) or len(living) == 1:
                continue
            victim = living[chaos.victim(*key, len(living))]
            self._n_killed += 1
            recorder.write([{"e": "chaos", "t": self._now(), "rank": victim}])
            log.warning("chaos kills rank %d", victim)
            if victim == world.rank:
                os.kill(os.getpid(), signal.SIGKILL)
            world.post.send(victim, Tag.KILL, protocol.Kill())

    def _watch(self, now: float) -> None:
        """Look at everything that time alone changes."""
        self._dispatcher.tick(now)
        self._steering.poll(now)
        number = self._signals()
        if number == signal.SIGUSR1:
            self._drain()
            self._dispatcher.stop("SIGUSR1 asked for an end", now)
        elif number is not None:
            self.exit_code = 128 + number
            self._cancel(f"{signal.Signals(number).name} ended it", now)
        left = self._deadline.left
        if left is None:
            return
        if left <= 0:
            self._cancel("the time limit is reached", now)
        elif reason := self._dispatcher.too_late(left, self._deadline.grace):
            self._dispatcher.stop(reason, now)

    def _drain(self) -> float:
        """Leave what runs the grace period; return when it is over, in seconds since the epoch."""
        return self._now() + self._deadline.drain()

    def _limit(self, deadline: float | None) -> None:
        """Have the run end at another time, in seconds since the epoch, as `Deadline.limit` says."""
        self._deadline.limit(None if deadline is None else deadline - self._now())

    def _cancel(self, reason: str, now: float) -> None:
        if self._cancelled_at is None:
            self._cancelled_at = time.monotonic()
            self._dispatcher.stop(reason, now, cancel=True)

    def _gave_up(self) -> bool:
        return self._cancelled_at is not None and time.monotonic() > self._cancelled_at + GIVE_UP

    def _ready(self, rank: int, ready: protocol.Ready, now: float) -> None:
        self._refused.pop(rank, None)
        self._attendance.ready(rank, now)
        log.info("rank %d on %s is ready, %.1f s for imports", rank, ready.host, ready.seconds)
        self._startup.add(rank, ready.startup)
        self._dispatcher.join(rank, ready.host, now)
        self._fill_vacancies(now)

    def _tell_startup(self, recorder: Recorder, ended: bool = False) -> None:
        """Put on record, once, how long the ranks of this launch took to start."""
        event = None if self._inherits else self._startup.take(self._world.post.dead, ended)
        if event is not None:
            recorder.write([{**event, "t": self._now()}])
            log.info("%s", in_words(event))

    def _holding(self, rank: int, holding: protocol.Holding, now: float) -> None:
        """An evaluator says what it has of an earlier master."""
        if holding.outcomes:
            self._dispatcher.report(rank, holding.outcomes, now)
        if holding.loaded is not None:
            self._attendance.ready(rank, now)
            self._dispatcher.holds(rank, holding.loaded.host, holding.trials, now)
            self._fill_vacancies(now)

    def _refuse(self, rank: int, reason: str, now: float) -> None:
        """An evaluator cannot load the function: without any other the user made a mistake, else its host is broken."""
        self._refused[rank] = reason
        log.error("rank %d on %s cannot evaluate: %s", rank, self._host(rank), reason)
        self._dispatcher.leave(rank, now, reason)
        self._attendance.left(rank, now)
        evaluators = {*self._world.layout.members, *self._recruits} - self._world.post.dead
        if evaluators <= self._refused.keys():
            raise ProblemError(reason)
        self._fill_vacancies(now)

    def _rank_seconds(self, now: float) -> RankSeconds:
        return self._attendance.seconds(now, self._dispatcher.running_seconds(now))

    def _with_seconds(self, proposed: protocol.Proposed, now: float) -> protocol.Proposed:
        """Add to the notes of a search how long evaluators were busy, and waiting, since the last ones."""
        if not proposed.notes:
            return proposed
        before, self._noted = self._noted, self._rank_seconds(now)
        busy, available = self._noted.since(before)
        seconds = {"evaluating_seconds": round(busy, 3), "waiting_seconds": round(max(0.0, available - busy), 3)}
        return proposed._replace(notes=[{**note, **seconds} for note in proposed.notes])

    def _figures(self) -> Figures:
        now = self._now()
        budget = self._dispatcher.budget
        return Figures(
            n_finished=budget.n_finished,
            max_evals=self._dispatcher.limits.max_evals,
            n_running=self._dispatcher.n_running,
            n_failed=budget.n_failed,
            best=None if budget.best is None else budget.best.objective,
            utilisation=self._rank_seconds(now).utilisation,
            seconds=now - self._attendance.began,
            n_new=budget.n_finished - self._n_before,
        )

    def _losses(self) -> str:
        """Return what has been lost, in a sentence; empty if nothing."""
        dead = sorted(self._world.post.dead)
        retried, given_up = self._dispatcher.n_retried, self._dispatcher.budget.n_lost
        if not (dead or retried or given_up):
            return ""
        ranks = f"{len(dead)} rank{'s' * (len(dead) != 1)} died"
        if dead:
            ranks += f" ({', '.join(f'{rank} on {self._host(rank)}' for rank in dead[:8])}{', ...' * (len(dead) > 8)})"
        return f"{ranks}; {retried} evaluations were started again, {given_up} given up"

    # -- the end -------------------------------------------------------------------------------------------------------

    def _end(self, recorder: Recorder) -> None:
        reason = self._dispatcher.stopping or "evaluators did not answer the cancellation"
        budget = self._dispatcher.budget
        complete = budget.spent() is not None or self._dispatcher.exhausted
        self._steering.close(reason)
        self._tell_startup(recorder, ended=True)
        if budget.failing:
            self.exit_code = EXIT_FAILURES
        elif self._dispatcher.short_of_ranks:
            self.exit_code = EXIT_LOST
        recorder.write(
            [{"e": "ended", "t": self._now(), "reason": reason, "complete": complete, "code": self.exit_code}]
        )
        recorder.close(budget)
        figures = self._figures()
        resume = ""
        if not complete:
            resume = command_line(self._prog, self._options, log_dir=str(self._directory.path), resume=True)
        best = None if budget.best is None else (budget.best, budget.best_config or {})
        self._progress.close()
        text = summary(figures, reason, best, self._losses(), str(self._directory.path), resume)
        log.info(text)
        print(text, flush=True)
        self._dismiss(reason)

    def _dismiss(self, reason: str) -> None:
        self._world.tell_everybody(Tag.STOP, protocol.Stop(reason, together=not self._world.post.dead))

    def fail(self) -> int:
        """Give up; a run that has not begun, or that nobody was ready to evaluate for, leaves nothing behind."""
        self._progress.close()
        if self._recorder is not None:
            if self._attendance.anybody:
                return EXIT_FAILURES
            with contextlib.suppress(RunDirectoryError):
                self._recorder.close(self._dispatcher.budget)
        self._directory.discard()
        return EXIT_BAD_INPUT

    def close(self) -> None:
        logging.shutdown()


def _frozen(config: dict[str, Any]) -> str:
    return json.dumps(config, sort_keys=True)


def _log_to(path: Path, level: str) -> None:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        raise RunDirectoryError(f"cannot write {path}: {error.strerror}") from error
    handler = logging.StreamHandler(os.fdopen(fd, "a"))
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)
    log.setLevel(level.upper())
    log.propagate = False
