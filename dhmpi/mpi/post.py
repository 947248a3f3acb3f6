"""Sending and receiving between ranks, and between roles that share a rank.

Every MPI call of a running search is in this module, and its errors pass through one wrapper, `Post._call`.
Sends never block (two ranks with large messages for each other would wait for ever) and receives only take what has
arrived.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from dhmpi.mpi import protocol
from dhmpi.mpi.protocol import Tag

if TYPE_CHECKING:
    from mpi4py import MPI


class Message(NamedTuple):
    """A payload, with who sent it and what kind it is."""

    source: int
    tag: Tag
    payload: Any


_TAGS = {int(tag): tag for tag in Tag}


class RankLostError(Exception):
    """MPI says that another rank has gone."""


class Post:
    """The messages of one rank.

    Parameters
    ----------
    comm : MPI.Comm
        Used by nobody else.
    """

    def __init__(self, comm: MPI.Comm) -> None:
        from mpi4py import MPI  # here, since processes that must start before MPI import this package's neighbours

        self.rank = comm.Get_rank()
        self.size = comm.Get_size()
        self._comm = comm
        self._error = MPI.Exception
        self._any_source = MPI.ANY_SOURCE
        self._any_tag = MPI.ANY_TAG
        self._status = MPI.Status()
        self._local: deque[Message] = deque()
        self._outbox: deque[MPI.Request] = deque()

    def send(self, rank: int, tag: Tag, payload: Any) -> None:
        """Send without waiting; to the own rank, past MPI."""
        if rank == self.rank:
            self._local.append(Message(rank, tag, payload))
            return
        self._outbox.append(self._call(self._comm.isend, protocol.plain(payload), rank, tag))
        self._prune()

    def receive(self) -> Message | None:
        """Return the next message that has arrived, or None."""
        if self._local:
            return self._local.popleft()
        if self.size == 1:
            return None
        status = self._status
        arrived = self._call(self._comm.improbe, self._any_source, self._any_tag, status)
        if arrived is None:
            # Open MPI looks first and moves messages on afterwards: what that brought is only seen by a second look.
            arrived = self._call(self._comm.improbe, self._any_source, self._any_tag, status)
        if arrived is None:
            self._prune()
            return None
        source, tag = status.Get_source(), _TAGS[status.Get_tag()]
        return Message(source, tag, protocol.rebuilt(tag, self._call(arrived.recv)))

    def flush(self, seconds: float) -> None:
        """Wait until every message has left, no longer than `seconds`."""
        deadline = time.monotonic() + seconds
        self._prune()
        while self._outbox and time.monotonic() < deadline:
            time.sleep(0.001)
            self._prune()

    def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call MPI; an error that it returns means that a rank is gone, since everything else is a bug.

        Raises
        ------
        RankLostError
        """
        try:
            return function(*arguments)
        except self._error as error:
            raise RankLostError(" ".join(error.Get_error_string().split())) from error

    def _prune(self) -> None:
        """Let go of messages that have left, the oldest first; one that has not keeps those behind it."""
        outbox = self._outbox
        while outbox and self._call(outbox[0].Test):
            outbox.popleft()
