"""What every role is, and the one loop that every rank runs.

A rank has one role or several (a laptop's only rank has all of them).  Roles hear messages and do a little work when
they are polled; none of them ever blocks, except in an inline evaluation.
"""

from __future__ import annotations

import itertools
import os
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar

from dhmpi.mpi.post import Message, Post
from dhmpi.mpi.protocol import FROM_MASTER, Heir, Serving, Tag
from dhmpi.mpi.wait import LONG, SHORTEST, Wait
from dhmpi.trials import Config

SILENCE = 90.0
"""Seconds without a sign of life after which a rank is not counted on."""
SIGNS_OF_LIFE = 3
"""Signs of life that a rank gives in that time."""
WATCHERS = 3
"""Ranks next in line that watch the master: so many, less one, may freeze together with it."""
ABSENT = 2.0
"""Seconds between two looks after which a rank was not there itself, and cannot say who was silent meanwhile."""

MANY = 1_000_000


class Role(ABC):
    """Part of the search that a rank plays."""

    hears: ClassVar[frozenset[Tag]]
    """Tags of the messages that are for this role; STOP is for all."""

    shortest_sleep: ClassVar[float] = SHORTEST
    """Seconds that a message for this role may well wait."""

    most_messages: ClassVar[int] = 8
    """Messages heard in a row before the role is polled."""

    active: bool = True
    """Whether the rank must go on for this role."""
    exit_code: int = 0

    @abstractmethod
    def hear(self, message: Message) -> None:
        """Take in a message."""

    @abstractmethod
    def poll(self) -> bool:
        """Do what is to be done now; return whether there was anything."""

    def filenos(self) -> Sequence[int]:
        """Return file descriptors that become readable when `poll` has something to do."""
        return ()

    def meet(self, heir: Heir) -> None:  # noqa: B027  not every role has something to say
        """Tell a new master what it must know."""

    def lost(self, ranks: Sequence[int]) -> None:  # noqa: B027
        """Take note of the death of ranks."""

    def fail(self) -> int:
        """Give up because of a mistake of the user, or of the disk; return the exit code."""
        return 0

    def close(self) -> None:  # noqa: B027
        """Leave nothing behind."""


class Spare(Role):
    """A rank that no whole group could use: it sleeps until the run is over."""

    hears = frozenset({Tag.STOP})
    shortest_sleep = LONG

    def hear(self, message: Message) -> None:
        self.active = False

    def poll(self) -> bool:
        return False


class OtherRankBrokenError(Exception):
    """Another rank has met a bug, and has reported it."""


class DeclaredDeadError(Exception):
    """A later master is serving: this rank was believed dead, and nobody counts on it any more."""


class Crew:
    """The roles of a rank: those that the layout gives it, and those that fall to it later.

    All obey the lowest living rank.  When all ranks below this one are dead, this one becomes the master.

    Parameters
    ----------
    post : Post
    take_up : callable
        Tag of a message for which there is no role -> the new role, or None.
    succeed : callable
        Called with the crew when the role of the master falls to this rank; adds it.
    silence : float, default 90
        Seconds without a word from the master after which the next in line takes its place, where that is possible;
        the one behind it waits twice as long, since both may be frozen.
    """

    def __init__(
        self,
        post: Post,
        take_up: Callable[[Tag], Role | None],
        succeed: Callable[[Crew], None],
        silence: float = SILENCE,
    ) -> None:
        self.post = post
        self.roles: list[Role] = []
        self.most_messages = 1
        self.together = False  # whether all ranks finalise MPI at the end
        self.ahead: Sequence[tuple[int, Config]] = ()  # what the master had ahead when it last said so
        self.wait = Wait()
        self._take_up = take_up
        self._succeed = succeed
        self._by_tag: dict[Tag, Role] = {}
        self._looked_at = self._heard_at = time.monotonic()
        self._silence = silence
        self._place = self._place_in_line()
        self._sign_of_life = EverySeconds(silence / SIGNS_OF_LIFE)

    @property
    def active(self) -> bool:
        return any(role.active for role in self.roles)

    def add(self, role: Role) -> None:
        """Take up a role."""
        self.roles.append(role)
        self._by_tag.update(dict.fromkeys(role.hears, role))
        self.most_messages = max(role.most_messages for role in self.roles)
        self.wait.shortest = min(role.shortest_sleep for role in self.roles)

    def hear(self, message: Message) -> None:
        """Give a message to the role that it is for.

        Raises
        ------
        OtherRankBrokenError
        DeclaredDeadError
        """
        tag = message.tag
        if tag is Tag.BROKEN:
            raise OtherRankBrokenError
        if tag in FROM_MASTER and not self._obeys(message.source):
            return
        if tag is Tag.STOP:
            self.together = message.payload.together
            for role in self.roles:
                role.hear(message)
        elif tag is Tag.HEIR:
            for role in list(self.roles):
                role.meet(message.payload)
        elif tag is Tag.AHEAD:
            self.ahead = message.payload.proposals
        elif tag is Tag.KILL:
            os.kill(os.getpid(), signal.SIGKILL)
        elif tag is not Tag.SERVING:
            role_ = self._by_tag.get(tag)
            if role_ is None and tag in FROM_MASTER and (role_ := self._take_up(tag)):
                self.add(role_)
            if role_ is not None:  # else for a master that this rank is not yet: it will ask again
                role_.hear(message)

    def bury(self, ranks: Iterable[int]) -> None:
        """Go on without some ranks."""
        new = self.post.declare_dead(ranks)
        if not new:
            return
        if (place := self._place_in_line()) != self._place:
            self._place, self._heard_at = place, time.monotonic()
        for role in self.roles:
            if role.active:
                role.lost(new)
        if self.post.lowest == self.post.rank and Tag.REPORT not in self._by_tag and self.active:
            self._succeed(self)

    def was_absent(self) -> bool:
        """Return whether much time has gone since the last call: this process was stopped, or evaluated inline."""
        now = time.monotonic()
        absent, self._looked_at = now - self._looked_at > ABSENT, now
        if absent:
            self._heard_at = now
        return absent

    def watch_master(self) -> None:
        """Where deaths are survived: tell those next in line that the master is there, or, being one, miss it."""
        post = self.post
        if post.rank == post.lowest:
            if self._sign_of_life():
                for rank in in_line(post):
                    post.send(rank, Tag.SERVING, Serving())
        elif self._place and time.monotonic() - self._heard_at > self._place * self._silence:
            silent = [rank for rank in range(post.rank) if rank not in post.dead]
            for rank in silent:
                post.send(rank, Tag.HEIR, Heir(0))  # so that it ends, should it come back
            self.bury(silent)

    def _place_in_line(self) -> int:
        """Return this rank's place among those that watch the master, from 1; 0 if it is none of them."""
        line = in_line(self.post)
        return line.index(self.post.rank) + 1 if self.post.rank in line else 0

    def _obeys(self, source: int) -> bool:
        """Return whether a master is the one to obey, believing one of a higher rank that it is."""
        if source < self.post.lowest:
            return False
        if source > self.post.rank:
            raise DeclaredDeadError
        if source > self.post.lowest:
            self.bury(range(source))
        self._heard_at = time.monotonic()
        return True


def in_line(post: Post) -> list[int]:
    """Return the ranks that watch the master, the next in line first."""
    living = (rank for rank in range(post.lowest + 1, post.size) if rank not in post.dead)
    return list(itertools.islice(living, WATCHERS))


def serve(crew: Crew) -> None:
    """Play the roles of a rank until none of them is active.

    Raises
    ------
    OtherRankBrokenError
        If another rank tells that it has met a bug.
    DeclaredDeadError
        If a later master is serving.
    """
    post, wait = crew.post, crew.wait
    watch = EverySeconds(1.0)
    while crew.active:
        busy = False
        # One that was not there for long first learns what others think of it.
        for _ in range(MANY if crew.was_absent() else crew.most_messages):
            message = post.receive()
            if message is None:
                break
            busy = True
            crew.hear(message)
        if dead := post.look():
            busy = True
            while crew.active and (message := post.receive()):  # their last words first
                crew.hear(message)
            crew.bury(dead)
        if post.survives and watch():
            crew.watch_master()
        for role in crew.roles:
            if role.active:
                busy = role.poll() or busy
        if busy:
            wait.restart()
        else:
            wait.sleep([fd for role in crew.roles for fd in role.filenos()])


class EverySeconds:
    """Says when something is due again.

    >>> due = EverySeconds(1.0, clock=lambda: 0.0)
    >>> due(), due()
    (True, False)
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds = seconds
        self._clock = clock
        self._next = float("-inf")

    def __call__(self) -> bool:
        now = self._clock()
        if now < self._next:
            return False
        self._next = now + self.seconds
        return True
