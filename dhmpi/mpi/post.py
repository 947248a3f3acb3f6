"""Sending and receiving between ranks, and between roles that share a rank.

Every MPI call of a running search is in this module, and its errors pass through one wrapper, `Post._call`.  Deaths are
survived without any collective call: they are acknowledged, and messages on the original communicator go on.
Sends never block (two ranks with large messages for each other would wait for ever) and receives only take what has
arrived.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
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
    """MPI says that another rank has gone, and cannot go on without it."""


class Post:
    """The messages of one rank.

    Where MPI survives the death of ranks, they are noted in `dead`, what is sent to them is dropped, and messages
    between all others go on under the same rank numbers.

    Parameters
    ----------
    comm : MPI.Comm
        Used by nobody else.
    survives : bool, default False
        Whether the launcher and MPI let the other ranks live when one dies.

    Attributes
    ----------
    dead : set of int
        Ranks that have died, or have been declared dead.
    lowest : int
        The lowest rank that is not dead: the master.
    survives : bool
    """

    def __init__(self, comm: MPI.Comm, survives: bool = False) -> None:
        from mpi4py import MPI  # here, since processes that must start before MPI import this package's neighbours

        self.rank = comm.Get_rank()
        self.size = comm.Get_size()
        self.dead: set[int] = set()
        self.lowest = 0
        self._n_reported = 0  # deaths that MPI has told of
        self._comm = comm
        self.survives = survives
        self._group = comm.Get_group()
        self._translate = MPI.Group.Translate_ranks
        self._error = MPI.Exception
        deaths = ("ERR_PROC_FAILED", "ERR_PROC_FAILED_PENDING", "ERR_REVOKED")
        self._deaths = {getattr(MPI, name) for name in deaths if hasattr(MPI, name)} if survives else set()
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
        if rank in self.dead:
            return
        request = self._call(self._comm.isend, protocol.plain(payload), rank, tag)
        if request is not None:
            self._outbox.append(request)
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
        fields = self._call(arrived.recv)
        return None if fields is None else Message(source, tag, protocol.rebuilt(tag, fields))

    def look(self) -> list[int]:
        """Return the ranks that have died since the last look; costs a microsecond.

        They are not in `dead` before `declare_dead`, so that what they have said before can still be heard.  Without
        the acknowledgement every look for a message from any rank would fail from the first death on.
        """
        if not self.survives:
            return []
        self._comm.Ack_failed()
        failed = self._comm.Get_failed()
        n = failed.Get_size()
        if n == self._n_reported:
            failed.Free()
            return []
        self._n_reported = n
        ranks = self._translate(failed, list(range(n)), self._group)
        failed.Free()
        return [rank for rank in ranks if rank not in self.dead]

    def declare_dead(self, ranks: Iterable[int]) -> list[int]:
        """Have nothing more to do with some ranks; return those that were not known to be dead, lowest first."""
        new = sorted(set(ranks) - self.dead)
        self.dead.update(new)
        while self.lowest in self.dead:
            self.lowest += 1
        return new

    def flush(self, seconds: float) -> None:
        """Wait until every message has left, no longer than `seconds`."""
        deadline = time.monotonic() + seconds
        self._prune()
        while self._outbox and time.monotonic() < deadline:
            time.sleep(0.001)
            self._prune()

    def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call MPI; an error that it returns means that a rank is gone, since everything else is a bug.

        Where deaths are survived the call has then done nothing, and returns None.

        Raises
        ------
        RankLostError
        """
        try:
            return function(*arguments)
        except self._error as error:
            if error.Get_error_class() in self._deaths:
                self._comm.Ack_failed()  # who it was, `look` will say
                return None
            raise RankLostError(" ".join(error.Get_error_string().split())) from error

    def _prune(self) -> None:
        """Let go of messages that have left, the oldest first; one that has not keeps those behind it."""
        outbox = self._outbox
        while outbox and self._call(outbox[0].Test) is not False:  # None: the receiver is dead
            outbox.popleft()
