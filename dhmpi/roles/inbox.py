"""The orders of users while a run goes on: read from the inbox, followed, put on record, answered.

`Inbox` knows files, `Steering` what orders mean.  An order is followed once: the event that says so names it, and only
when that event is in the journal the order is answered and its file removed; a later master that finds it there all
the same answers and does nothing.  What is no order, or cannot be followed, is moved aside with the reason.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from dhmpi.mpi.protocol import Check, Checked
from dhmpi.roles.dispatcher import Dispatcher
from dhmpi.roles.role import EverySeconds
from dhmpi.steering import (
    ANSWERS,
    ASIDE,
    INBOX,
    MOST_BYTES,
    REFUSED,
    Action,
    Order,
    OrderError,
    made,
    opened,
    parse,
    write_at_once,
)

log = logging.getLogger("dhmpi")

LOOK = 1.0
"""Seconds between looks at the inbox's time of change."""
LOOKS_AFTER = 3
"""Looks into the inbox after it has changed: the time of a file system may be coarse."""
LOOK_ANYHOW = 30.0
"""Seconds after which the inbox is looked into all the same: other hosts may learn late of a change."""
MOST_AT_ONCE = 100
"""Orders read at a look."""
REASON = ".reason"
"""Ends the name of the file beside a refused order that says why."""
OF_A_LAUNCH = frozenset({Action.DEADLINE, Action.PAUSE, Action.RESUME, Action.STOP})
"""What is meant for the launch that goes on, and not for the next."""


class Letter(NamedTuple):
    """A file of the inbox."""

    file: str
    id: str
    """Names the order in the journal: a file of the same name may come a second time."""
    order: Order


class Inbox:
    """The directory of orders.  Nothing in it is followed through a symbolic link.

    Parameters
    ----------
    directory : Path
        The run directory.
    clock : callable, default time.monotonic
    """

    def __init__(self, directory: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = directory / INBOX
        self._due = EverySeconds(LOOK, clock)
        self._anyhow = EverySeconds(LOOK_ANYHOW, clock)
        self._changed = 0
        self._looks = 0
        self._held: set[str] = set()  # files that are not done with
        self._left: set[str] = set()  # those that cannot be moved

    def look(self, at_once: bool = False) -> list[Letter]:
        """Return the orders that have come since the last look, in the order of their names; costs microseconds.

        Each is held until it is given to `answer` or `refuse`.
        """
        if not at_once and not self._due():
            return []
        try:
            changed = self._path.lstat().st_mtime_ns
        except OSError:
            return []  # nobody has ordered anything
        if changed != self._changed:
            self._changed, self._looks = changed, LOOKS_AFTER
        elif at_once or self._anyhow():
            self._looks = max(self._looks, 1)
        if not self._looks:
            return []
        self._looks -= 1
        letters = []
        with self._quietly(), opened(self._path) as inbox:
            for name in self._names(inbox)[:MOST_AT_ONCE]:
                self._held.add(name)
                try:
                    letters.append(self._read(inbox, name))
                except OrderError as error:
                    self.refuse(name, str(error), False)
        return letters

    def answer(self, file: str, sentence: str, wanted: bool) -> None:
        """Remove an order that was followed, and answer it if somebody waits."""
        with self._quietly(), opened(self._path) as inbox:
            if wanted:
                self._write_answer(inbox, file, True, sentence)
            self._left.add(file)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(file, dir_fd=inbox)
            self._left.discard(file)
        self._held.discard(file)

    def refuse(self, file: str, reason: str, wanted: bool = True) -> None:
        """Move what is no order, or cannot be followed, aside with the reason."""
        log.warning("the order %r is refused: %s", file, reason)
        with self._quietly(), opened(self._path) as inbox:
            self._left.add(file)
            with made(inbox, REFUSED) as refused:
                os.rename(file, file, src_dir_fd=inbox, dst_dir_fd=refused)
                self._left.discard(file)
                write_at_once(refused, file + REASON, f"{reason}\n".encode())
            if wanted:
                self._write_answer(inbox, file, False, reason)
        self._held.discard(file)

    def _names(self, inbox: int) -> list[str]:
        """Return the names of what has come, first come first."""
        skipped = {REFUSED, ANSWERS, *self._held, *self._left}
        with os.scandir(inbox) as entries:
            return sorted(e.name for e in entries if e.name not in skipped and not e.name.startswith(ASIDE))

    def _read(self, inbox: int, name: str) -> Letter:
        """Return the order of a file.

        Raises
        ------
        OrderError
            If it holds none.
        """
        try:
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=inbox)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise OrderError("it is a symbolic link") from error
            raise OrderError(f"it cannot be read: {error.strerror}") from error
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise OrderError("it is no file")
            if status.st_size > MOST_BYTES:
                raise OrderError(f"it has {status.st_size} bytes, more than {MOST_BYTES}")
            with os.fdopen(fd, "rb", closefd=False) as stream:
                text = stream.read(MOST_BYTES)
        except OSError as error:
            raise OrderError(f"it cannot be read: {error.strerror}") from error
        finally:
            os.close(fd)
        return Letter(name, f"{name}@{status.st_mtime_ns}", parse(text))

    def _write_answer(self, inbox: int, file: str, applied: bool, sentence: str) -> None:
        with self._quietly(), made(inbox, ANSWERS) as answers:
            write_at_once(answers, file, json.dumps({"applied": applied, "sentence": sentence}).encode() + b"\n")

    @contextlib.contextmanager
    def _quietly(self) -> Iterator[None]:
        """Let trouble with the inbox end what is being done there, and not the run."""
        try:
            yield
        except OSError as error:
            log.warning("trouble with the inbox %s: %s", self._path, error)


class Steering:
    """Follows orders.

    Parameters
    ----------
    inbox : Inbox
    dispatcher : Dispatcher
    done : set of str
        Ids of the orders that the journal says were followed.
    check : callable
        Asks the searcher about points (`protocol.Check`); returns whether it can be asked now.
    limit : callable
        Changes when the run must have ended, in seconds since the epoch or None; raises `OrderError` if that cannot be.
    drain : callable
        Gives what runs the grace period to end; returns when that is over, in seconds since the epoch.
    """

    def __init__(
        self,
        inbox: Inbox,
        dispatcher: Dispatcher,
        done: set[str],
        check: Callable[[Check], bool],
        limit: Callable[[float | None], None],
        drain: Callable[[], float],
    ) -> None:
        self._inbox = inbox
        self._dispatcher = dispatcher
        self._done = set(done)
        self._check = check
        self._limit = limit
        self._drain = drain
        self._unasked: dict[str, Letter] = {}  # points that the searcher has not been asked about
        self._asked: dict[str, Letter] = {}
        self._followed: list[tuple[Letter, str]] = []  # with what to answer when that is on record

    def begin(self, now: float) -> None:
        """At the beginning of a launch, refuse what was meant for an earlier one."""
        for letter in self._inbox.look(at_once=True):
            if letter.order.action in OF_A_LAUNCH and letter.id not in self._done:
                self._refuse(letter, "it came before this launch")
            else:
                self._take(letter, now)

    def poll(self, now: float) -> None:
        """Read what has come, and follow it."""
        for letter in self._inbox.look():
            self._take(letter, now)
        for id_, letter in list(self._unasked.items()):
            if self._dispatcher.stopping is not None:
                del self._unasked[id_]
                self._refuse(letter, self._ending())
            elif self._asked or self._dispatcher.has_untold_points:
                break  # the search is to know of one order's points before it says whether it knows another's
            elif self._check(Check(id_, letter.order.points, letter.order.as_text)):
                self._asked[id_] = self._unasked.pop(id_)

    def _take(self, letter: Letter, now: float) -> None:
        if letter.id in self._done:
            self._followed.append((letter, "it was followed, by a master that has died since"))
        elif letter.order.action is Action.ADD:
            self._unasked[letter.id] = letter
        else:
            self._follow(letter, now)

    def checked(self, checked: Checked, now: float) -> None:
        """Take in what the searcher says about points."""
        letter = self._asked.pop(checked.order, None)
        if letter is None:
            return
        dispatcher = self._dispatcher
        n, known = len(checked.configs), f"{_points(checked.n_known)} evaluated or proposed already"
        left = dispatcher.n_wanted
        if dispatcher.stopping is not None:
            self._refuse(letter, self._ending())
        elif checked.reason:
            self._refuse(letter, checked.reason)
        elif not n:
            self._refuse(letter, f"there is nothing to add: {known}")
        elif n > left:
            least = dispatcher.limits.max_evals + n - left
            self._refuse(
                letter,
                f"only {left} of {dispatcher.limits.max_evals} evaluations are left for {_points(n)}: "
                f"change --max-evals first, to {least} at least",
            )
        else:
            first = -1 - dispatcher.n_added
            points = [[first - i, config] for i, config in enumerate(checked.configs)]
            more = f"; left out: {known}" if checked.n_known else ""
            self._act(letter, now, f"{_points(n)} will be evaluated next{more}", points=points)

    def ask_again(self) -> None:
        """Note that there is another searcher, which knows of nothing."""
        self._unasked = {**self._asked, **self._unasked}
        self._asked = {}

    def settle(self) -> None:
        """Answer what was followed, and is on record by now."""
        followed, self._followed = self._followed, []
        for letter, sentence in followed:
            self._inbox.answer(letter.file, sentence, letter.order.answer)

    def close(self, reason: str) -> None:
        """Refuse what has come and was not followed, since the run is over."""
        self.settle()
        letters = [*self._unasked.values(), *self._asked.values()]
        while letters or (letters := self._inbox.look(at_once=True)):
            for letter in letters:
                if letter.id in self._done:
                    self._inbox.answer(letter.file, "it was followed", letter.order.answer)
                else:
                    self._refuse(letter, f"the run has ended: {reason}")
            letters = []

    def _follow(self, letter: Letter, now: float) -> None:
        dispatcher, order = self._dispatcher, letter.order
        action = order.action
        try:
            if dispatcher.stopping is not None:
                raise OrderError(self._ending())
            if action is Action.MAX_EVALS:
                self._follow_max_evals(letter, now)
            elif action is Action.DEADLINE:
                self._limit(order.deadline)
                sentence = (
                    "there is no time limit" if order.deadline is None else f"the run ends by {_clock(order.deadline)}"
                )
                self._act(letter, now, sentence, deadline=order.deadline)
            elif action is Action.STOP:
                end, n = self._drain(), dispatcher.n_running
                sentence = f"the run ends; {_evaluations(n)} may still finish"
                self._act(letter, now, sentence, reason=_stopped(order), deadline=end)
            elif dispatcher.paused is (action is Action.PAUSE):
                raise OrderError("the run is paused already" if dispatcher.paused else "the run is not paused")
            elif action is Action.PAUSE:
                n = dispatcher.n_running
                self._act(letter, now, f"nothing new is started until it is resumed; {_evaluations(n)} may finish")
            else:
                self._act(letter, now, "the run goes on")
        except OrderError as error:
            self._refuse(letter, str(error))

    def _follow_max_evals(self, letter: Letter, now: float) -> None:
        dispatcher, wanted = self._dispatcher, letter.order.max_evals
        before, least = dispatcher.limits.max_evals, dispatcher.n_started
        n = max(wanted, least)
        sentence = f"there will be {n} evaluations in all, before it was {before}"
        if n != wanted:
            sentence += f"; {least} have been started already, so {wanted} is too few"
        self._act(letter, now, sentence, max_evals=n)

    def _act(self, letter: Letter, now: float, sentence: str, **content: Any) -> None:
        """Have the dispatcher do it, and put it on record."""
        order = letter.order
        event: dict[str, Any] = {"e": "steered", "t": now, "action": order.action.value, "order": letter.id, **content}
        if order.by:
            event["by"] = order.by
        self._done.add(letter.id)
        self._dispatcher.steer(event, now)
        self._followed.append((letter, sentence))

    def _refuse(self, letter: Letter, reason: str) -> None:
        self._inbox.refuse(letter.file, reason, letter.order.answer)

    def _ending(self) -> str:
        return f"the run is ending: {self._dispatcher.stopping}"


def _stopped(order: Order) -> str:
    return f"dhmpi.steer asked for an end{f', for {order.by}' if order.by else ''}"


def _points(n: int) -> str:
    return f"{n} point{'s' * (n != 1)}"


def _evaluations(n: int) -> str:
    return f"{n} evaluation{'s' * (n != 1)}"


def _clock(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
