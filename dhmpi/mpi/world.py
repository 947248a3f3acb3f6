"""The only module that names COMM_WORLD: initialise MPI, split the world into roles, end.

After `start` nothing is collective over the world: one rank deep in an evaluation must not stop the others.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from dhmpi import platform
from dhmpi.errors import DhmpiError
from dhmpi.mpi.environment import fault_tolerant, launcher_size
from dhmpi.mpi.layout import Layout
from dhmpi.mpi.post import Post
from dhmpi.mpi.protocol import Tag

if TYPE_CHECKING:
    from mpi4py import MPI

N_PINGS = 5


@dataclass(frozen=True)
class World:
    """This rank's place in the launch.

    Attributes
    ----------
    rank, size : int
    hosts : tuple of str
        Host name of each rank.
    layout : Layout
    post : Post
        Messages to any rank.
    group : MPI.Comm
        The ranks of this rank's evaluator; a rank that is no evaluator is alone in its group.
    clock_offset : float
        Seconds to add to this host's clock to have the master's.
    began : int or None
        When the first process of this launch on this host began, in the kernel's units.
    n_cpus : int
        Cores that this rank may use when its neighbours with the same affinity mask have theirs.
    library : str
        Name and version of the MPI library.
    """

    rank: int
    size: int
    hosts: tuple[str, ...]
    layout: Layout
    post: Post
    group: MPI.Comm
    clock_offset: float
    began: int | None
    n_cpus: int
    library: str

    def tell_everybody(self, tag: Tag, payload: Any) -> None:
        """Send a message to every rank, this one included."""
        for rank in range(self.size):
            self.post.send(rank, tag, payload)


def start(plan: Callable[[tuple[str, ...]], Layout]) -> World:
    """Initialise MPI, agree on the layout and split the world (collective over the world).

    Parameters
    ----------
    plan : callable
        Host names by rank -> Layout; must give the same answer on every rank.

    Raises
    ------
    DhmpiError
        If a launcher has started several processes that are each a world of their own, or the plan refuses.
    """
    from mpi4py import MPI  # late: the keeper must be started before MPI is initialised, and --help needs no MPI

    world = MPI.COMM_WORLD
    expected = launcher_size()
    if expected is not None and expected > 1 and world.Get_size() == 1:
        raise DhmpiError(
            f"the launcher started {expected} processes, but each of them is an MPI world of its own: mpiexec and "
            f"mpi4py belong to different MPI libraries (mpi4py's is {_library(MPI)}); start with "
            f"`python -m dhmpi.launch`"
        )
    # Only this module and the post use it, and user code may use COMM_WORLD as it likes.
    comm = world.Dup()
    comm.Set_errhandler(MPI.ERRORS_RETURN)
    rank = comm.Get_rank()
    mine = (socket.gethostname(), _affinity())
    everybody, starts = zip(*comm.allgather((mine, platform.start_time(os.getpid()))))
    hosts = tuple(host for host, _ in everybody)
    layout = plan(hosts)
    groups = [group for group in layout.groups if rank in group]
    group = comm.Split(color=min(groups[0]) if groups else rank, key=rank)
    sharing = sum(other == mine for other in everybody)
    return World(
        rank=rank,
        size=comm.Get_size(),
        hosts=hosts,
        layout=layout,
        post=Post(comm),
        group=group,
        clock_offset=_clock_offset(comm, hosts),
        began=min((start for host, start in zip(hosts, starts) if host == mine[0] and start), default=None),
        n_cpus=max(1, len(mine[1]) // sharing),
        library=_library(MPI),
    )


def finish(world: World) -> None:
    """Let the last messages leave, then finalise MPI (collective over the world)."""
    from mpi4py import MPI

    world.post.flush(10.0)
    MPI.Finalize()


def abort(code: int) -> NoReturn:
    """End this rank at once, and with it the whole job, unless the launcher lets the other ranks live.

    With ULFM an abort would end this rank only, and aborts of several ranks at a time now and then leave Open MPI
    5.0.11's launcher waiting for ever (measured: one job in ten); ranks that just leave end it with their exit code.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    if "mpi4py.MPI" in sys.modules and not fault_tolerant():
        from mpi4py import MPI

        if MPI.Is_initialized() and not MPI.Is_finalized():
            MPI.COMM_WORLD.Abort(code)
    os._exit(code)


def _affinity() -> tuple[int, ...]:
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def _library(mpi: Any) -> str:
    first = mpi.Get_library_version().split("\n", 1)[0].split(",", 1)[0]
    return " ".join(first.replace("Version:", "").strip("\0").split())


def _clock_offset(comm: MPI.Comm, hosts: tuple[str, ...]) -> float:
    """Return the seconds from this host's clock to rank 0's (collective over comm).

    One rank of each other host exchanges a few messages with rank 0; of those, the fastest round trip is the most
    exact (Cristian 1989, Probabilistic clock synchronization, Distributed Computing 3).
    """
    rank = comm.Get_rank()
    pingers = [hosts.index(host) for host in dict.fromkeys(hosts) if host != hosts[0]]
    offset = 0.0
    for pinger in pingers:
        if rank == 0:
            for _ in range(N_PINGS):
                comm.recv(source=pinger)
                comm.send(time.time(), dest=pinger)
        elif rank == pinger:
            trips = []
            for _ in range(N_PINGS):
                sent = time.time()
                comm.send(None, dest=0)
                theirs = comm.recv(source=0)
                back = time.time()
                trips.append((back - sent, theirs - (sent + back) / 2))
            offset = min(trips)[1]
    if pingers:
        offset = comm.allgather(offset)[hosts.index(hosts[rank])]
    return offset
