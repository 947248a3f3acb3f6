"""Measurements that all ranks make together, for `dhmpi.doctor`.

Everything here is collective over a communicator.  Who has nothing to do waits without using its core, so that the
others measure what they would measure in a search.
"""

from __future__ import annotations

import os
import shutil
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dhmpi.mpi.wait import Wait

if TYPE_CHECKING:
    from mpi4py import MPI

N_PINGS = 30
N_POLITE = 10
MOST_HOSTS = 64
"""Hosts with which messages are exchanged."""
N_WRITES = 10
N_FILES = 10
BLOCK = b"x" * 4096
SEEN_WITHIN = 5.0
"""Seconds within which a file must be seen by the other hosts."""
SPIN = 300_000
"""Steps of the loop that says how fast a core is: some hundredths of a second."""


class Ping(NamedTuple):
    """What the messages between rank 0 and another one took."""

    rank: int
    seconds: float
    """Median of a message and its answer, both looked for all the time."""
    polite: float
    """The same, both waited for as ranks of a search wait."""
    offset: float
    """Seconds from the other one's clock to that of rank 0."""
    uncertainty: float
    """Seconds by which the offset may be wrong."""


class Files(NamedTuple):
    """What a directory is like, for one rank."""

    error: str = ""
    """Why it cannot be used, empty if it can."""
    sync: float = 0.0
    """Seconds to append to a file and force that onto the disk, the median; only of rank 0."""
    slowest_sync: float = 0.0
    create: float = 0.0
    """Seconds to make a directory with a file, and remove both, the median, on all ranks at once."""
    links: bool = True
    """Whether a file can have a second name; only of rank 0."""
    seen: float | None = None
    """Seconds after which this rank has seen a file of rank 0; None if it has not."""
    free: float = 0.0
    """Bytes; only of rank 0."""


def gather(comm: MPI.Comm, mine: Any) -> list[Any]:
    """Return what each rank has, on every rank (collective over comm)."""
    calm(comm)
    return comm.allgather(mine)


def calm(comm: MPI.Comm) -> None:
    """Wait for all ranks without spinning (collective over comm)."""
    request = comm.Ibarrier()
    wait = Wait()
    while not request.Test():
        wait.sleep()


def ping(comm: MPI.Comm, hosts: Sequence[str], seconds: float) -> list[Ping]:
    """Exchange messages between rank 0 and one rank of each host, for some seconds at most (collective over comm).

    Returns
    -------
    list of Ping
        On every rank.
    """
    rank = comm.Get_rank()
    found: list[Ping] = []
    deadline = time.monotonic() + seconds
    for partner in partners(hosts):
        if rank == 0:
            going = time.monotonic() < deadline
            comm.send(going, dest=partner)
            if going:
                found.append(_ask(comm, partner))
        elif rank == partner:
            wait = Wait()
            while not comm.iprobe(source=0):
                wait.sleep()
            if comm.recv(source=0):
                _answer(comm)
    calm(comm)
    return list(comm.bcast(found))


def partners(hosts: Sequence[str]) -> list[int]:
    """Return one rank of each host, not rank 0; of many hosts some that are spread over all.

    >>> partners(["a", "a", "a", "b", "b"])
    [1, 3]
    """
    first: dict[str, int] = {}
    for rank, host in enumerate(hosts):
        if rank:
            first.setdefault(host, rank)
    ranks = list(first.values())
    step = max(1, -(-len(ranks) // MOST_HOSTS))
    return ranks[::step]


def _ask(comm: MPI.Comm, partner: int) -> Ping:
    trips = [_trip(comm, partner, _look) for _ in range(N_PINGS)]
    polite = [_trip(comm, partner, _wait) for _ in range(N_POLITE)]
    best = min(trips)
    return Ping(
        partner,
        statistics.median(seconds for seconds, _ in trips),
        statistics.median(seconds for seconds, _ in polite),
        best[1],
        best[0] / 2,
    )


def _trip(comm: MPI.Comm, partner: int, receive: Callable[[MPI.Comm, int], Any]) -> tuple[float, float]:
    """Return how long a message and its answer took, and the offset of the other's clock."""
    sent = time.time()
    began = time.perf_counter()
    comm.send(None, dest=partner)
    theirs = receive(comm, partner)
    seconds = time.perf_counter() - began
    return seconds, sent + seconds / 2 - theirs


def _answer(comm: MPI.Comm) -> None:
    for receive, n in ((_look, N_PINGS), (_wait, N_POLITE)):
        for _ in range(n):
            receive(comm, 0)
            comm.send(time.time(), dest=0)


def _look(comm: MPI.Comm, source: int) -> Any:
    """Receive a message; look for it all the time."""
    while (message := comm.improbe(source=source)) is None:
        pass
    return message.recv()


def _wait(comm: MPI.Comm, source: int) -> Any:
    """Receive a message; wait for it as a search does."""
    wait = Wait()
    while (message := comm.improbe(source=source)) is None:
        wait.sleep()
    return message.recv()


def files(comm: MPI.Comm, hosts: Sequence[str], directory: Path, token: str) -> list[Files]:
    """Try out a directory (collective over comm); return what each rank has found, on every rank."""
    rank = comm.Get_rank()
    place = directory / f".dhmpi-doctor-{token}"
    mine = Files()
    if rank == 0:
        mine = _first_writes(directory, place)
    calm(comm)
    if comm.bcast(mine.error):
        return [comm.bcast(mine)] * comm.Get_size()
    note = place / "note"
    if rank == 0:
        note.write_bytes(BLOCK)
    comm.bcast(None)
    written = time.monotonic()
    if hosts.index(hosts[rank]) == rank:  # the others on this host see what it sees
        mine = mine._replace(seen=_seen(note, written))
    calm(comm)
    mine = _many_files(place, rank, mine)
    everybody = gather(comm, mine)
    if rank == 0:
        shutil.rmtree(place, ignore_errors=True)
    return everybody


def _first_writes(directory: Path, place: Path) -> Files:
    """Find out, on rank 0, what the directory allows and how long it takes to put something onto the disk."""
    try:
        place.mkdir(parents=True)
        fd = os.open(place / "journal", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o666)
        seconds = []
        for _ in range(N_WRITES):
            began = time.perf_counter()
            os.write(fd, BLOCK)
            os.fsync(fd)
            seconds.append(time.perf_counter() - began)
            if sum(seconds) > SEEN_WITHIN:
                break
        os.close(fd)
        free = shutil.disk_usage(place).free
    except OSError as error:
        shutil.rmtree(place, ignore_errors=True)
        return Files(error=f"{directory}: {error.strerror}")
    links = True
    try:
        os.link(place / "journal", place / "lock")
    except OSError:
        links = False
    return Files(sync=statistics.median(seconds), slowest_sync=max(seconds), links=links, free=free)


def _seen(note: Path, since: float) -> float | None:
    while time.monotonic() - since < SEEN_WITHIN:
        try:
            if note.read_bytes() == BLOCK:
                return time.monotonic() - since
        except OSError:
            pass
        time.sleep(0.01)
    return None


def _many_files(place: Path, rank: int, mine: Files) -> Files:
    """Make and remove directories with a file, as evaluations do, on all ranks at once."""
    seconds = []
    try:
        for i in range(N_FILES):
            began = time.perf_counter()
            task = place / f"task{rank}_{i}"
            task.mkdir()
            (task / "out").write_bytes(BLOCK)
            shutil.rmtree(task)
            seconds.append(time.perf_counter() - began)
            if sum(seconds) > SEEN_WITHIN / 2:
                break
    except OSError as error:
        return mine._replace(error=f"{error.filename}: {error.strerror}") if place.exists() else mine
    return mine._replace(create=statistics.median(seconds))


def speed(comm: MPI.Comm) -> tuple[float, float]:
    """Return seconds that a fixed piece of work took here and the part of them that the core was this rank's.

    Collective over comm, so that all ranks work at once.
    """
    calm(comm)
    began, used = time.perf_counter(), time.process_time()
    total = 0
    for _ in range(3):
        for i in range(SPIN):
            total += i & 7
    wall, cpu = time.perf_counter() - began, time.process_time() - used
    return wall, min(1.0, cpu / wall) if wall > 0 else 1.0
