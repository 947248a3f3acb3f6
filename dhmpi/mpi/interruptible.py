"""A communicator whose operations can be interrupted: they wait in Python, where an exception reaches them.

A member of a group that waits in a collective operation for another one that failed would wait for ever: what blocks in
an MPI library hears no signal, and not every library can revoke a communicator.  So what would block is begun without
blocking, and waited for here, first eagerly, then politely.  mpi4py is imported at once: only groups import this.
"""

from __future__ import annotations

import functools
import itertools
import time
from array import array
from collections.abc import Callable, Sequence
from typing import Any, Literal

from mpi4py import MPI

EAGER = 2e-4
"""Seconds for which an operation is waited for without a pause."""
LONGEST = 1e-3
"""Seconds of a pause; before, they are a tenth of the time waited so far."""

_unfinished: list[MPI.Request] = []
"""Operations that were interrupted: MPI may still write into their buffers, so these must stay."""


class Team(MPI.Intracomm):
    """The communicator of the ranks that evaluate a trial together.

    All operations of mpi4py are there, and those that block can be interrupted, except on communicators that are made
    of this one.
    """

    broken: bool
    """Whether an operation was interrupted."""

    def __new__(cls, comm: MPI.Intracomm | None = None) -> Team:  # without one mpi4py makes what Dup returns
        team = super().__new__(cls, comm)
        team.broken = False
        return team

    def dispose(self) -> None:
        """Free the communicator, unless MPI may still be at work on it."""
        if not self.broken:
            self.Free()

    def _finish(self, request: MPI.Request, status: MPI.Status | None = None) -> None:
        """Wait for an operation."""
        began = time.perf_counter()
        try:
            while not request.Test(status):
                waited = time.perf_counter() - began
                if waited > EAGER:
                    time.sleep(min(LONGEST, 0.1 * waited))
        except BaseException:
            self.broken = True
            if request != MPI.REQUEST_NULL:
                _unfinished.append(request)
            raise

    # -- buffers -------------------------------------------------------------------------------------------------------

    def Recv(self, buf: Any, source: int = MPI.ANY_SOURCE, tag: int = MPI.ANY_TAG, status: Any = None) -> None:  # noqa: N802
        self._finish(self.Irecv(buf, source, tag), status)

    def Sendrecv(  # noqa: N802
        self,
        sendbuf: Any,
        dest: int,
        sendtag: int = 0,
        recvbuf: Any = None,
        source: int = MPI.ANY_SOURCE,
        recvtag: int = MPI.ANY_TAG,
        status: Any = None,
    ) -> None:
        receiving = self.Irecv(recvbuf, source, recvtag)
        self._finish(self.Isend(sendbuf, dest, sendtag))
        self._finish(receiving, status)

    def Probe(self, source: int = MPI.ANY_SOURCE, tag: int = MPI.ANY_TAG, status: Any = None) -> Literal[True]:  # noqa: N802
        pause = 0.0
        while not self.Iprobe(source, tag, status):
            time.sleep(pause)
            pause = min(LONGEST, pause + 1e-5)
        return True

    # -- pickled objects -----------------------------------------------------------------------------------------------

    def barrier(self) -> None:
        self.Barrier()

    def send(self, obj: Any, dest: int, tag: int = 0) -> None:
        self._finish(self.isend(obj, dest, tag))

    def ssend(self, obj: Any, dest: int, tag: int = 0) -> None:
        self._finish(self.issend(obj, dest, tag))

    def recv(self, buf: Any = None, source: int = MPI.ANY_SOURCE, tag: int = MPI.ANY_TAG, status: Any = None) -> Any:
        status = MPI.Status() if status is None else status
        self.Probe(source, tag, status)
        return super().recv(buf, status.Get_source(), status.Get_tag(), status)

    def probe(self, source: int = MPI.ANY_SOURCE, tag: int = MPI.ANY_TAG, status: Any = None) -> Literal[True]:
        return self.Probe(source, tag, status)

    def sendrecv(
        self,
        sendobj: Any,
        dest: int,
        sendtag: int = 0,
        recvbuf: Any = None,
        source: int = MPI.ANY_SOURCE,
        recvtag: int = MPI.ANY_TAG,
        status: Any = None,
    ) -> Any:
        sending = self.isend(sendobj, dest, sendtag)
        received = self.recv(recvbuf, source, recvtag, status)
        self._finish(sending)
        return received

    def bcast(self, obj: Any, root: int = 0) -> Any:
        data = MPI.pickle.dumps(obj) if self.rank == root else b""
        size = array("q", [len(data)])
        self.Bcast([size, MPI.INT64_T], root)
        content = bytearray(data) if self.rank == root else bytearray(size[0])
        self.Bcast([content, MPI.BYTE], root)
        return obj if self.rank == root else MPI.pickle.loads(content)

    def gather(self, sendobj: Any, root: int = 0) -> list[Any] | None:
        data = MPI.pickle.dumps(sendobj)
        sizes = array("q", bytes(8 * self.size))
        self.Gather([array("q", [len(data)]), MPI.INT64_T], [sizes, MPI.INT64_T], root)
        received = bytearray(sum(sizes))
        self.Gatherv([data, MPI.BYTE], [received, list(sizes), None, MPI.BYTE], root)
        return _cut(received, sizes) if self.rank == root else None

    def scatter(self, sendobj: Sequence[Any] | None, root: int = 0) -> Any:
        data: list[bytes] = []
        if self.rank == root:
            if sendobj is None or len(sendobj) != self.size:
                raise ValueError(f"scatter needs one object for each of {self.size} ranks")
            data = [MPI.pickle.dumps(obj) for obj in sendobj]
        sizes = array("q", [len(part) for part in data] or bytes(8 * self.size))
        size = array("q", [0])
        self.Scatter([sizes, MPI.INT64_T], [size, MPI.INT64_T], root)
        received = bytearray(size[0])
        self.Scatterv([b"".join(data), list(sizes), None, MPI.BYTE], [received, MPI.BYTE], root)
        return MPI.pickle.loads(received)

    def allgather(self, sendobj: Any) -> list[Any]:
        data = MPI.pickle.dumps(sendobj)
        sizes = array("q", bytes(8 * self.size))
        self.Allgather([array("q", [len(data)]), MPI.INT64_T], [sizes, MPI.INT64_T])
        received = bytearray(sum(sizes))
        self.Allgatherv([data, MPI.BYTE], [received, list(sizes), None, MPI.BYTE])
        return _cut(received, sizes)

    def alltoall(self, sendobj: Sequence[Any]) -> list[Any]:
        if len(sendobj) != self.size:
            raise ValueError(f"alltoall needs one object for each of {self.size} ranks")
        data = [MPI.pickle.dumps(obj) for obj in sendobj]
        sending, receiving = array("q", map(len, data)), array("q", bytes(8 * self.size))
        self.Alltoall([sending, MPI.INT64_T], [receiving, MPI.INT64_T])
        received = bytearray(sum(receiving))
        self.Alltoallv([b"".join(data), list(sending), None, MPI.BYTE], [received, list(receiving), None, MPI.BYTE])
        return _cut(received, receiving)

    def reduce(self, sendobj: Any, op: Any = MPI.SUM, root: int = 0) -> Any:
        gathered = self.gather(sendobj, root)
        return None if gathered is None else functools.reduce(op, gathered)

    def allreduce(self, sendobj: Any, op: Any = MPI.SUM) -> Any:
        return functools.reduce(op, self.allgather(sendobj))

    def scan(self, sendobj: Any, op: Any = MPI.SUM) -> Any:
        return functools.reduce(op, self.allgather(sendobj)[: self.rank + 1])

    def exscan(self, sendobj: Any, op: Any = MPI.SUM) -> Any:
        before = self.allgather(sendobj)[: self.rank]
        return functools.reduce(op, before) if before else None


def _cut(content: bytearray, sizes: Sequence[int]) -> list[Any]:
    """Return the objects in what was received."""
    ends = list(itertools.accumulate(sizes))
    view = memoryview(content)
    return [MPI.pickle.loads(view[end - size : end]) for end, size in zip(ends, sizes)]


def _interruptible(name: str) -> Callable[..., None]:
    begin = getattr(MPI.Intracomm, f"I{name.lower()}")

    @functools.wraps(getattr(MPI.Intracomm, name))
    def operation(self: Team, *arguments: Any, **named: Any) -> None:
        self._finish(begin(self, *arguments, **named))

    return operation


for _name in (
    "Barrier", "Bcast", "Gather", "Gatherv", "Scatter", "Scatterv", "Allgather", "Allgatherv", "Alltoall", "Alltoallv",
    "Alltoallw", "Reduce", "Allreduce", "Reduce_scatter", "Reduce_scatter_block", "Scan", "Exscan", "Send", "Ssend",
):  # fmt: skip
    setattr(Team, _name, _interruptible(_name))
