"""Staging over MPI: one rank reads, one rank of each node writes, and what is sent travels down a tree of nodes.

Collective, and over before any role begins.  A node that is slow, or cannot write, holds nobody up for ever: it goes on
passing pieces on, and what went wrong is agreed on in the end.  What copies are is `dhmpi.staging`.
"""

from __future__ import annotations

import tempfile
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dhmpi.errors import DhmpiError
from dhmpi.mpi.wait import Wait
from dhmpi.staging import Content, Place, Staged, StagingError, look, packed

if TYPE_CHECKING:
    from mpi4py import MPI

TAG = 1000
"""Not one of `dhmpi.mpi.protocol`."""
PIECE = 1 << 20
"""Bytes of a message, behind its head."""
HEAD = 8
BROKEN = PIECE + 1
"""Length, and with that of its words more, of the message that says why no more will come."""
AHEAD = 8
"""Pieces on their way to one node."""


def children(i: int, n: int) -> range:
    """Return the nodes to which node `i` of `n` passes pieces on: a binary tree, whose depth grows with log n."""
    return range(2 * i + 1, min(2 * i + 3, n))


def stage(
    comm: MPI.Comm, hosts: Sequence[str], names: Sequence[str], directory: str | None, without: Path | None = None
) -> Staged:
    """Have copies of files and directories on every node (collective over comm).

    Parameters
    ----------
    comm : MPI.Comm
    hosts : sequence of str
        Of each rank.
    names : sequence of str
        On rank 0, which reads them.
    directory : str, optional
        On every node; ``{host}`` stands for the node's name.  By default that for temporary files.
    without : Path, optional
        A directory that is left out.

    Raises
    ------
    DhmpiError
        On every rank, if there is one on any.
    """
    began = time.monotonic()
    rank = comm.Get_rank()
    content, problem = _look(names, without) if rank == 0 else (None, None)
    told = None if content is None else (content.digest, content.n_files, content.n_bytes, content.originals)
    _calm(comm)
    digest, n_files, n_bytes, originals = _agreed(comm, problem, told)[0]
    place = Place(Path((directory or tempfile.gettempdir()).replace("{host}", hosts[rank])), digest)
    needs = False
    if hosts.index(hosts[rank]) == rank:
        problem, needs = _prepared(place, n_bytes)
    needing = [other for other, needed in enumerate(_agreed(comm, problem, needs, place)) if needed]
    if needing and (needs or rank == 0):
        nodes = [0, *(other for other in needing if other != 0)]
        problem = _pass_on(comm, nodes, content, place if needs else None)
    _calm(comm)
    _agreed(comm, problem, None, place)
    if not place.held:
        problem = _prepared(place, 0)[0]
    _agreed(comm, problem, None, place)
    n_reused = len(set(hosts)) - len(needing)
    seconds = time.monotonic() - began
    return Staged(tuple(originals), place, n_files, n_bytes, len(needing), n_reused, seconds)


def _prepared(place: Place, n_bytes: int) -> tuple[StagingError | None, bool]:
    """Hold a place; return what is wrong with it, and whether nothing is there."""
    try:
        place.hold()
        if place.has_it():
            return None, False
        place.check_room(n_bytes)
    except StagingError as error:
        return error, False
    return None, True


def _look(names: Sequence[str], without: Path | None) -> tuple[Content | None, StagingError | None]:
    try:
        return look(names, without), None
    except StagingError as error:
        return None, error


def _agreed(comm: MPI.Comm, problem: DhmpiError | None, value: Any, place: Place | None = None) -> list[Any]:
    """Return the values of all ranks; raise the same error on all if any rank has one (collective over comm)."""
    found = comm.allgather((value, None if problem is None else str(problem)))
    problems = list(dict.fromkeys(words for _, words in found if words is not None))
    if problems:
        if place is not None:
            place.release()
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise StagingError(f"{problems[0]}{more}")
    return [value for value, _ in found]


def _pass_on(comm: MPI.Comm, nodes: Sequence[int], content: Content | None, place: Place | None) -> StagingError | None:
    """Get all pieces, pass them on, and fill this node's place with them if it has one; return what went wrong."""
    i = nodes.index(comm.Get_rank())
    below = [nodes[child] for child in children(i, len(nodes))]
    messages = _made(packed(content)) if content is not None else _received(comm, nodes[(i - 1) // 2])
    pieces = _passed_on(comm, below, messages)
    problem: StagingError | None = None
    try:
        if place is not None:
            place.fill(pieces)
    except StagingError as error:
        problem = error
    try:
        for _ in pieces:  # others need what this node could not write
            pass
    except StagingError as error:
        problem = problem or error
    return problem


def _made(pieces: Iterable[bytes]) -> Iterator[bytearray]:
    """Yield messages of one length: a head that says how much of the message counts, then that; the last is shorter."""
    message, n = bytearray(HEAD + PIECE), 0
    try:
        for piece in pieces:
            rest = memoryview(piece)
            while rest:
                part = rest[: PIECE - n]
                message[HEAD + n : HEAD + n + len(part)] = part
                n, rest = n + len(part), rest[len(part) :]
                if n == PIECE:
                    yield _headed(message, n)
                    message, n = bytearray(HEAD + PIECE), 0
    except StagingError as error:
        words = str(error).encode("utf-8", "replace")[: PIECE - 1]
        message[HEAD : HEAD + len(words)] = words
        yield _headed(message, BROKEN + len(words))
        raise
    yield _headed(message, n)


def _headed(message: bytearray, n: int) -> bytearray:
    message[:HEAD] = n.to_bytes(HEAD, "little")
    return message


def _received(comm: MPI.Comm, above: int) -> Iterator[bytearray]:
    length = PIECE
    while length == PIECE:
        message = bytearray(HEAD + PIECE)
        comm.Recv(message, source=above, tag=TAG)
        length = int.from_bytes(message[:HEAD], "little")
        yield message
    if length >= BROKEN:
        raise StagingError(message[HEAD : HEAD + length - BROKEN].decode())


def _passed_on(comm: MPI.Comm, below: Sequence[int], messages: Iterable[bytearray]) -> Iterator[bytes]:
    """Send messages to other nodes, and yield what they hold."""
    sending: deque[list[MPI.Request]] = deque()
    try:
        for message in messages:
            sending.append([comm.Isend(message, dest=node, tag=TAG) for node in below])
            while len(sending) > AHEAD:
                _wait(sending.popleft())
            length = int.from_bytes(message[:HEAD], "little")
            if length < BROKEN:
                yield bytes(memoryview(message)[HEAD : HEAD + length])
    finally:
        while sending:
            _wait(sending.popleft())


def _wait(requests: Sequence[MPI.Request]) -> None:
    for request in requests:
        request.Wait()


def _calm(comm: MPI.Comm) -> None:
    """Wait for all ranks without keeping cores busy, which those that write can use (collective over comm)."""
    request, wait = comm.Ibarrier(), Wait()
    while not request.Test():
        wait.sleep()
