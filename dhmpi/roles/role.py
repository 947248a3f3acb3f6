"""What every role is, and the one loop that every rank runs.

A rank has one role or several (a laptop's only rank has all of them).  Roles hear messages and do a little work when
they are polled; none of them ever blocks, except in an inline evaluation.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar

from dhmpi.mpi.post import Message, Post
from dhmpi.mpi.protocol import Tag
from dhmpi.mpi.wait import LONGEST, SHORTEST, Wait

SIGN_OF_LIFE = 30.0
"""Seconds between signs of life."""


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

    def fail(self) -> None:  # noqa: B027  most roles have nothing to take back
        """Give up because of a mistake of the user."""

    def close(self) -> None:  # noqa: B027
        """Leave nothing behind."""


class Spare(Role):
    """A rank that no whole group could use: it sleeps until the run is over."""

    hears = frozenset({Tag.STOP})
    shortest_sleep = LONGEST

    def hear(self, message: Message) -> None:
        self.active = False

    def poll(self) -> bool:
        return False


class OtherRankBrokenError(Exception):
    """Another rank has met a bug, and has reported it."""


def serve(post: Post, roles: Sequence[Role], wait: Wait | None = None) -> None:
    """Play `roles` until none of them is active.

    Raises
    ------
    OtherRankBrokenError
        If another rank tells that it has met a bug.
    """
    wait = wait or Wait(shortest=min(role.shortest_sleep for role in roles))
    by_tag = {tag: role for role in roles for tag in role.hears if tag is not Tag.STOP}
    most_messages = max(role.most_messages for role in roles)
    while any(role.active for role in roles):
        busy = False
        for _ in range(most_messages):
            message = post.receive()
            if message is None:
                break
            busy = True
            if message.tag is Tag.BROKEN:
                raise OtherRankBrokenError
            if message.tag is Tag.STOP:
                for role in roles:
                    role.hear(message)
            else:
                by_tag[message.tag].hear(message)
        for role in roles:
            if role.active:
                busy = role.poll() or busy
        if busy:
            wait.restart()
        else:
            wait.sleep([fd for role in roles for fd in role.filenos()])


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
