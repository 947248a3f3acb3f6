"""The evaluator: runs the user's function, and keeps each outcome until the master has acknowledged it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence

from dhmpi.evaluate import interface
from dhmpi.evaluate.interface import Event, Finished, Loaded, Refused, Reported
from dhmpi.mpi import protocol
from dhmpi.mpi.post import Message, Post
from dhmpi.mpi.protocol import Tag
from dhmpi.roles.role import SIGNS_OF_LIFE, SILENCE, EverySeconds, Role
from dhmpi.trials import Outcome, Status, Trial

SHORT = 0.02
"""Seconds; outcomes of shorter evaluations travel together while more is queued: a message costs 0.1 ms and more."""
LATEST = 1e-3
"""Seconds that an outcome waits for others at most, if these last no longer themselves."""


class Evaluator(Role):
    """One evaluator of one rank.

    Parameters
    ----------
    post : Post
        Whose lowest living rank is the master.
    host : str
        Name of this rank's host.
    backend : callable
        What the run is (`protocol.Setup`) -> where evaluations happen.
    timeout : float, optional
        Seconds an evaluation may take.
    clock_offset : float, default 0
        Seconds to add to this host's clock.
    silence : float, default 90
        Seconds without a sign of life after which the master does not count on this rank.
    reports : bool, default False
        Whether the master wants to know the values that running evaluations report.
    startup : sequence of float, optional
        Seconds of this rank's start until now, as `protocol.STARTUP` has them.
    """

    hears = frozenset({Tag.SETUP, Tag.WORK, Tag.STOP})
    # To look for a message in vain makes Open MPI yield, which on a crowded core costs milliseconds (measured).
    most_messages = 1

    def __init__(
        self,
        post: Post,
        host: str,
        backend: Callable[[protocol.Setup], interface.Evaluator],
        timeout: float | None = None,
        clock_offset: float = 0.0,
        silence: float = SILENCE,
        reports: bool = False,
        startup: Sequence[float] = (),
    ) -> None:
        self._post = post
        self._host = host
        self._make_backend = backend
        self._backend: interface.Evaluator | None = None
        self._timeout = timeout
        self._clock_offset = clock_offset
        self._reports = reports
        self._startup = startup
        self._load_began = 0.0
        self._queue: deque[Trial] = deque()
        self._running: Trial | None = None
        self._unsent: list[Outcome] = []
        self._unsent_since = 0.0
        self._unacknowledged: dict[int, Outcome] = {}
        self._loaded: protocol.Ready | None = None
        self._refused: protocol.Refused | None = None
        self._sign_of_life = EverySeconds(silence / SIGNS_OF_LIFE)

    def hear(self, message: Message) -> None:
        payload = message.payload
        if message.tag is Tag.WORK:
            self._work(payload)
        elif message.tag is Tag.SETUP:
            if self._backend is None:  # an heir says it again
                self._load_began = time.monotonic()
                self._backend = self._make_backend(payload)
                self._backend.load()
        elif message.tag is Tag.STOP:
            self.active = False

    def meet(self, heir: protocol.Heir) -> None:
        if self._backend is None:
            return
        running = [] if self._running is None else [self._running.id]
        trials = [*running, *(trial.id for trial in self._queue)]
        self._unsent = []
        outcomes = list(self._unacknowledged.values())
        self._post.send(self._post.lowest, Tag.HOLDING, protocol.Holding(self._loaded, trials, outcomes))
        if self._refused is not None:
            self._post.send(self._post.lowest, Tag.REFUSED, self._refused)

    def poll(self) -> bool:
        backend = self._backend
        if backend is None:
            return False
        busy = False
        while True:
            for event in backend.poll():
                busy = True
                self._take(event)
            if self._running is not None or not self._queue:
                break
            self._running = self._queue.popleft()
            backend.start(self._running, self._timeout)
            busy = True
        if self._unsent:
            self._send()
        if self._sign_of_life():
            running = None if self._running is None else self._running.id
            self._post.send(self._post.lowest, Tag.ALIVE, protocol.Alive(running))
        return busy

    def filenos(self) -> Sequence[int]:
        fd = None if self._backend is None else self._backend.fileno()
        return () if fd is None else (fd,)

    def close(self) -> None:
        if self._backend is not None:
            self._backend.close()

    def _work(self, work: protocol.Work) -> None:
        for id_ in work.acknowledged:
            self._unacknowledged.pop(id_, None)
        if work.recalled or work.cancelled:
            gone = {*work.recalled, *work.cancelled}
            kept: list[Trial] = []
            left: list[Trial] = []
            for trial in self._queue:
                (left if trial.id in gone else kept).append(trial)
            self._queue = deque(kept)
            returned = [trial.id for trial in left if trial.id not in work.cancelled]
            if returned:
                self._post.send(self._post.lowest, Tag.REPORT, protocol.Report((), returned))
            for trial in left:
                if trial.id in work.cancelled:
                    self._finish(
                        Outcome(
                            trial.id,
                            trial.attempt,
                            Status.CANCELLED,
                            None,
                            rank=self._post.rank,
                            host=self._host,
                            reason="cancelled",
                        )
                    )
            if self._running is not None and self._running.id in work.cancelled and self._backend is not None:
                self._backend.cancel()
        if self._running is not None and self._running.id in work.stopped and self._backend is not None:
            self._backend.stop()
        self._queue.extend(work.trials)

    def _take(self, event: Event) -> None:
        if isinstance(event, Finished):
            self._running = None
            self._finish(
                Outcome(
                    event.trial,
                    event.attempt,
                    event.status,
                    event.objective,
                    event.metrics,
                    self._post.rank,
                    self._host,
                    event.start + self._clock_offset,
                    event.end + self._clock_offset,
                    event.elapsed,
                    event.reason,
                )
            )
            late = time.monotonic() - self._unsent_since > max(LATEST, event.elapsed)
            if late or event.elapsed > SHORT or (event.elapsed > LATEST / 2 and len(self._queue) <= 1):
                self._send()
        elif isinstance(event, Reported):
            if self._reports:
                self._post.send(self._post.lowest, Tag.PROGRESS, protocol.Progress(*event))
        elif isinstance(event, Loaded):
            until_child = max(0.0, time.monotonic() - self._load_began - event.seconds)
            startup = (*self._startup, until_child, event.seconds) if self._startup else ()
            self._loaded, self._refused = protocol.Ready(self._host, event.seconds, startup), None
            self._post.send(self._post.lowest, Tag.READY, self._loaded)
        elif isinstance(event, Refused):
            self._loaded, self._refused = None, protocol.Refused(event.reason)
            self._post.send(self._post.lowest, Tag.REFUSED, self._refused)

    def _finish(self, outcome: Outcome) -> None:
        if not self._unsent:
            self._unsent_since = time.monotonic()
        self._unsent.append(outcome)
        self._unacknowledged[outcome.trial] = outcome

    def _send(self) -> None:
        outcomes, self._unsent = self._unsent, []
        self._post.send(self._post.lowest, Tag.REPORT, protocol.Report(outcomes))
