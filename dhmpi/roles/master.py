"""The master: keeps the journal, hands out trials, watches the clock.

It maps messages onto the dispatcher, writes what the dispatcher says to the journal, and only then sends.  Deciding is
the dispatcher's business.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dhmpi import __version__, journal, platform
from dhmpi.budget import Limits, objective_for_search
from dhmpi.errors import OptionError, ProblemError, RunDirectoryError
from dhmpi.mpi import protocol
from dhmpi.mpi.environment import in_terminal
from dhmpi.mpi.post import Message
from dhmpi.mpi.protocol import Tag
from dhmpi.mpi.world import World
from dhmpi.options import SearchOptions, command_line
from dhmpi.roles.dispatcher import Dispatcher
from dhmpi.roles.progress import Figures, Progress, summary
from dhmpi.roles.recorder import Recorder
from dhmpi.roles.role import EverySeconds, Role
from dhmpi.rundirectory import default_path, prepare, source_digest

log = logging.getLogger("dhmpi")

GRACE = 60.0
"""Seconds at most, and a tenth of the time limit at most, in which running evaluations may still finish."""
TICK = 0.1
"""Seconds between looks at the clock, at signals, and at evaluators that are silent or hold more than they can do."""
SYNC = 1.0
"""Seconds after which what is on record is on the disk."""
NEWS_EVERY = 0.01
"""Seconds for which news for the searcher is collected as long as there are trials ahead."""
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

    Attributes
    ----------
    exit_code : int

    Raises
    ------
    RunDirectoryError
        If the run directory cannot be had.
    """

    hears = frozenset(
        {Tag.READY, Tag.REFUSED, Tag.REPORT, Tag.PROBLEM, Tag.NO_PROBLEM, Tag.PROPOSED, Tag.ALIVE, Tag.STOP}
    )

    def __init__(
        self,
        world: World,
        options: SearchOptions,
        prog: str,
        search: dict[str, Any],
        signals: Callable[[], int | None],
        started: float,
    ) -> None:
        self._world = world
        self._options = options
        self._prog = prog
        self._search = search
        self._signals = signals
        self._started = started
        self._deadline = None if options.time_limit is None else started + options.time_limit
        limits = Limits(options.max_evals, options.retries, options.max_failures, options.target, options.patience)
        # An inline evaluation keeps its rank from giving signs of life, however long it takes.
        silence = {"silence": None} if options.evaluator == "inline" else {}
        self._dispatcher = Dispatcher(limits, **silence)
        self._progress = Progress(sys.stdout, in_terminal())
        self._tick = EverySeconds(TICK)
        self._sync = EverySeconds(SYNC)
        self._news_due = EverySeconds(NEWS_EVERY)
        self._cancelled_at: float | None = None
        self._refused: dict[int, str] = {}
        self._ready_at: dict[int, float] = {}
        self._busy_seconds = 0.0
        self._n_before = 0
        self._recorder: Recorder | None = None
        self._search_began = 0.0
        path = Path(options.log_dir) if options.log_dir else default_path(options.workflow, options.name)
        self._directory = prepare(path, options.resume)
        self._described = self._directory.described()
        self._history = journal.History()

    # -- the beginning -------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Look at what the run directory holds, and start the other roles.

        Raises
        ------
        DhmpiError
            If the run cannot begin, in words for the user.
        """
        options = self._options
        history = self._history = journal.replay(self._directory.journal)
        self._check_same_search()
        self._seed = self._choose_seed()
        self._dispatcher.restore(history.finished.values(), history.unfinished.values())
        self._n_before = self._dispatcher.budget.n_finished
        if self._dispatcher.over:
            print(f"{self._directory.path} holds a finished run: {self._dispatcher.stopping}.", flush=True)
            self._directory.release()
            self._dismiss(self._dispatcher.stopping or "")
            return
        _log_to(self._directory.log, options.log_level)
        platform.collect_garbage_rarely()
        log.info("dhmpi %s, %s", __version__, self._world.layout.describe())
        post = self._world.post
        setup = protocol.Setup(self._directory.run_id, str(self._directory.path), self._seed, not self._directory.fresh)
        for leader in self._world.layout.leaders:
            post.send(leader, Tag.SETUP, setup)
        searcher = self._world.layout.searcher
        self._searcher = self._world.layout.master if searcher is None else searcher
        post.send(
            self._searcher,
            Tag.BEGIN,
            protocol.Begin(
                self._directory.run_id,
                {
                    **self._search,
                    "problem": options.problem,
                    "seed": self._seed,
                    "n_evaluators": self._world.layout.n_evaluators,
                    "max_evals": options.max_evals,
                },
                str(self._directory.path / "search.out"),
                [(trial.key, trial.config, objective_for_search(out)) for out, trial in history.finished.values()],
                [(trial.key, trial.config) for trial in history.unfinished.values()],
                history.n_asks,
            ),
        )

    def _choose_seed(self) -> int:
        recorded = self._described.get("seed")
        if self._options.seed is None:
            return int.from_bytes(os.urandom(4), "big") if recorded is None else int(recorded)
        if recorded is not None and recorded != self._options.seed:
            raise OptionError(f"--seed {self._options.seed}, but the run in {self._directory.path} has seed {recorded}")
        return self._options.seed

    def _check_same_search(self) -> None:
        before = self._described.get("problem")
        if before is not None and before != self._options.problem:
            raise RunDirectoryError(
                f"{self._directory.path} holds a run of problem {before}, not {self._options.problem}: give another "
                f"--log-dir"
            )

    def _problem(self, info: protocol.ProblemInfo) -> None:
        """The searcher has loaded the problem: from here on the run is on record."""
        before = self._described.get("fingerprint")
        if before is not None and before != info.fingerprint:
            raise RunDirectoryError(
                f"the space of {self._options.problem} is not the one that the run in {self._directory.path} began "
                f"with: give another --log-dir"
            )
        source = source_digest(self._options.run)
        before = self._described.get("run_source")
        if before is not None and before != source:
            log.warning("the source of %s has changed since the run began", self._options.run)
            self._progress.say(f"Warning: the source of {self._options.run} has changed since the run began")
        now = time.time()
        self._directory.describe(
            {
                "version": __version__,
                "problem": self._options.problem,
                "function": self._options.run,
                "fingerprint": info.fingerprint,
                "run_source": source,
                "seed": self._seed,
                "start": self._described.get("start", now),
                "options": dataclasses.asdict(self._options),
                "layout": dataclasses.asdict(self._world.layout),
                "library": self._world.library,
                "python": sys.version.split()[0],
            }
        )
        header = {"run": self._directory.run_id, "t": now, "ranks": self._world.size, "version": __version__}
        self._recorder = Recorder(
            self._directory, self._world.rank, header, info.hyperparameters, self._history.finished.values()
        )
        size = "infinitely many" if info.size is None else info.size
        log.info("%d hyperparameters, %s configurations, seed %d", len(info.hyperparameters), size, self._seed)
        self._search_began = time.monotonic()
        self._progress.say(f"{self._world.layout.describe()}; run directory {self._directory.path}")
        self._world.post.send(
            self._searcher,
            Tag.NEWS,
            protocol.News(n_evaluators=self._world.layout.n_evaluators, n_wanted=self._dispatcher.n_wanted),
        )
        self._history = journal.History()  # its trials live in the dispatcher and the search now

    # -- the loop ------------------------------------------------------------------------------------------------------

    def hear(self, message: Message) -> None:
        now = time.time()
        source, payload = message.source, message.payload
        tag = message.tag
        if tag is Tag.REPORT:
            if payload.returned:
                self._dispatcher.returned(source, payload.returned, now)
            if payload.outcomes:
                self._dispatcher.report(source, payload.outcomes, now)
        elif tag is Tag.PROPOSED:
            self._dispatcher.propose(payload, now)
        elif tag is Tag.ALIVE:
            self._dispatcher.alive(source, now)
        elif tag is Tag.READY:
            self._ready(source, payload, now)
        elif tag is Tag.REFUSED:
            self._refuse(source, payload.reason, now)
        elif tag is Tag.PROBLEM:
            self._problem(payload)
        elif tag is Tag.NO_PROBLEM:
            raise ProblemError(payload.reason)
        elif tag is Tag.STOP:
            self.active = False

    def poll(self) -> bool:
        recorder = self._recorder
        if recorder is None:
            return False
        now = time.time()
        if self._tick():
            self._watch(now)
            recorder.flush()
        if self._sync():
            recorder.sync(self._dispatcher.budget)
        busy = self._deliver(recorder)
        if self._progress.due():
            self._progress.show(self._figures())
        if self._dispatcher.over or self._gave_up():
            self._end(recorder)
            return True
        return busy

    def _deliver(self, recorder: Recorder) -> bool:
        """Write first, send afterwards: what an evaluator or the searcher learns is on record."""
        dispatcher, post = self._dispatcher, self._world.post
        events = dispatcher.take_events()
        if events:
            recorder.write(events)
        for rank, work in dispatcher.take_work():
            post.send(rank, Tag.WORK, work)
        if (not dispatcher.n_ahead or self._news_due()) and (news := dispatcher.take_news()):
            post.send(self._searcher, Tag.NEWS, news)
        if outcomes := dispatcher.take_outcomes():
            recorder.add(outcomes)
            self._busy_seconds += sum(outcome.elapsed for outcome, _ in outcomes)
        return bool(events)

    def _watch(self, now: float) -> None:
        """Look at everything that time alone changes."""
        self._dispatcher.tick(now)
        number = self._signals()
        if number == signal.SIGUSR1:
            limit = time.monotonic() + GRACE
            self._deadline = limit if self._deadline is None else min(limit, self._deadline)
            self._dispatcher.stop("SIGUSR1 asked for an end", now)
        elif number is not None:
            self.exit_code = 128 + number
            self._cancel(f"{signal.Signals(number).name} ended it", now)
        if self._deadline is not None:
            left = self._deadline - time.monotonic()
            grace = min(GRACE, 0.1 * (self._options.time_limit or GRACE))
            if left <= 0:
                self._cancel("the time limit is reached", now)
            elif left <= grace:
                self._dispatcher.stop("the time limit is near", now)

    def _cancel(self, reason: str, now: float) -> None:
        if self._cancelled_at is None:
            self._cancelled_at = time.monotonic()
            self._dispatcher.stop(reason, now, cancel=True)

    def _gave_up(self) -> bool:
        return self._cancelled_at is not None and time.monotonic() > self._cancelled_at + GIVE_UP

    def _ready(self, rank: int, ready: protocol.Ready, now: float) -> None:
        self._refused.pop(rank, None)
        self._ready_at[rank] = time.monotonic()
        log.info("rank %d on %s is ready, %.1f s for imports", rank, ready.host, ready.seconds)
        self._dispatcher.join(rank, ready.host, now)

    def _refuse(self, rank: int, reason: str, now: float) -> None:
        """An evaluator cannot load the function: without any other the user made a mistake, else its host is broken."""
        self._refused[rank] = reason
        log.error("rank %d on %s cannot evaluate: %s", rank, self._world.hosts[rank], reason)
        self._dispatcher.leave(rank, now, reason)
        if len(self._refused) == self._world.layout.n_evaluators:
            raise ProblemError(reason)

    def _figures(self) -> Figures:
        now = time.monotonic()
        budget = self._dispatcher.budget
        available = sum(now - max(ready, self._search_began) for ready in self._ready_at.values())
        busy = self._busy_seconds + self._dispatcher.running_seconds(time.time())
        return Figures(
            n_finished=budget.n_finished,
            max_evals=self._options.max_evals,
            n_running=self._dispatcher.n_running,
            n_failed=budget.n_failed,
            best=None if budget.best is None else budget.best.objective,
            utilisation=min(1.0, busy / available) if available > 0 else 0.0,
            seconds=now - self._search_began,
            n_new=budget.n_finished - self._n_before,
        )

    # -- the end -------------------------------------------------------------------------------------------------------

    def _end(self, recorder: Recorder) -> None:
        reason = self._dispatcher.stopping or "evaluators did not answer the cancellation"
        budget = self._dispatcher.budget
        recorder.close(budget)
        figures = self._figures()
        if budget.failing:
            self.exit_code = EXIT_FAILURES
        complete = budget.spent() is not None or self._dispatcher.exhausted
        resume = ""
        if not complete:
            resume = command_line(self._prog, self._options, log_dir=str(self._directory.path), resume=True)
        best = None if budget.best is None else (budget.best, budget.best_config or {})
        self._progress.close()
        text = summary(figures, reason, best, str(self._directory.path), resume)
        log.info(text)
        print(text, flush=True)
        self._dismiss(reason)

    def _dismiss(self, reason: str) -> None:
        self._world.tell_everybody(Tag.STOP, protocol.Stop(reason))

    def fail(self) -> None:
        """Give up; a run that has not begun leaves nothing behind."""
        self._progress.close()
        if self._recorder is None:
            self._directory.discard()

    def close(self) -> None:
        logging.shutdown()


def _log_to(path: Path, level: str) -> None:
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)
    log.setLevel(level.upper())
    log.propagate = False
