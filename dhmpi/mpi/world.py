"""The only module that names COMM_WORLD: initialise MPI, split the world into roles, end.

After `start` nothing is collective over the world: one rank deep in an evaluation must not stop the others, and a dead
one could not take part.
"""

from __future__ import annotations

import functools
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from dhmpi import platform
from dhmpi.errors import DhmpiError
from dhmpi.mpi.environment import fault_tolerant, launcher_size
from dhmpi.mpi.layout import Layout
from dhmpi.mpi.post import Post, RankLostError
from dhmpi.mpi.protocol import Tag
from dhmpi.mpi.teams import Teams
from dhmpi.staging import Staged

if TYPE_CHECKING:
    from mpi4py import MPI

N_PINGS = 5
FINALISING = 60
"""Seconds after which a rank that cannot finalise MPI ends."""
LAST_MESSAGES = 10.0
"""Seconds that the last messages have to leave."""


class Launch(NamedTuple):
    """What rank 0 chose when the ranks met."""

    token: str
    """8 hexadecimal digits, of this launch alone."""
    directory: str
    """The run directory, absolute."""


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
    teams : Teams
        The communicators of groups of ranks that evaluate together.
    clock_offset : float
        Seconds to add to this host's clock to have the master's.
    began : int or None
        When the first process of this launch on this host began, in the kernel's units.
    n_cpus : int
        Cores that this rank may use when its neighbours with the same affinity mask have theirs.
    library : str
        Name and version of the MPI library.
    launch : Launch
        What all ranks know of this launch.
    cores : tuple of tuple of int
        The cores on which each rank may run.
    startup : tuple of float
        Seconds that this rank took to initialise MPI, and to meet the others.
    staged : Staged or None
        What was copied onto the nodes.
    """

    rank: int
    size: int
    hosts: tuple[str, ...]
    layout: Layout
    post: Post
    teams: Teams
    clock_offset: float
    began: int | None
    n_cpus: int
    library: str
    launch: Launch
    cores: tuple[tuple[int, ...], ...] = ()
    startup: tuple[float, float] = (0.0, 0.0)
    staged: Staged | None = None

    @property
    def survives(self) -> bool:
        """Whether the death of a rank is survived."""
        return self.post.survives

    @property
    def master(self) -> int:
        """The lowest living rank."""
        return self.post.lowest

    @property
    def searcher(self) -> int:
        """The searcher or first agent of the layout that lives; the master if there is none."""
        return next(self._searchers(), self.master)

    @property
    def searcher_lives(self) -> bool:
        """Whether a rank lives that the layout names as searcher or agent."""
        return next(self._searchers(), None) is not None

    def _searchers(self) -> Iterator[int]:
        candidates = self.layout.agents or (self.layout.searcher,)
        return (rank for rank in candidates if rank is not None and rank not in self.post.dead)

    def tell_everybody(self, tag: Tag, payload: Any) -> None:
        """Send a message to every rank, this one included."""
        for rank in range(self.size):
            self.post.send(rank, tag, payload)


class _Facts(NamedTuple):
    """What the ranks learn of each other when they meet."""

    hosts: tuple[str, ...]
    layout: Layout | DhmpiError
    clock_offset: float
    began: int | None
    n_cpus: int
    launch: Launch
    cores: tuple[tuple[int, ...], ...]
    staged: Staged | None
    parent: MPI.Intracomm | None


Stage = Callable[["MPI.Comm", "tuple[str, ...]", Launch], Staged]


def start(
    plan: Callable[[tuple[str, ...]], Layout],
    choose: Callable[[], Launch],
    stage: Stage | None = None,
    several_threads: bool = False,
) -> World:
    """Initialise MPI, agree on the layout and split the world (collective over the world).

    Where deaths are survived, ranks that die meanwhile are left out.

    Parameters
    ----------
    plan : callable
        Host names by rank -> Layout; must give the same answer on every rank.
    choose : callable
        Called on rank 0.
    stage : callable, optional
        Communicator, host names by rank, launch -> what was copied onto the nodes (collective).
    several_threads : bool, default False
        Whether several threads of this process will call MPI at a time.

    Raises
    ------
    DhmpiError
        If a launcher has started several processes that are each a world of their own, the plan refuses, or the MPI
        library knows one thread only where there will be several.
    RankLostError
        If a rank has died meanwhile, and that cannot be survived.
    """
    began = time.monotonic()
    from mpi4py import MPI  # late: the keeper must be started before MPI is initialised, and --help needs no MPI

    initialised = time.monotonic()
    world = MPI.COMM_WORLD
    expected = launcher_size()
    if expected is not None and expected > 1 and world.Get_size() == 1:
        raise DhmpiError(
            f"the launcher started {expected} processes, but each of them is an MPI world of its own: mpiexec and "
            f"mpi4py belong to different MPI libraries (mpi4py's is {_library(MPI)}); start with "
            f"`python -m dhmpi.launch`"
        )
    if several_threads and MPI.Query_thread() != MPI.THREAD_MULTIPLE:
        raise DhmpiError(
            f"evaluations of several ranks need an MPI library that several threads may call at a time "
            f"(MPI_THREAD_MULTIPLE), and {_library(MPI)} does not allow that"
        )
    survives = fault_tolerant() and hasattr(world, "Ack_failed")
    meet = functools.partial(_meet, plan=plan, choose=choose, stage=stage, teams=several_threads)
    comm, facts = (_meet_survivors if survives else _meet_all)(world, meet)
    if isinstance(facts.layout, DhmpiError):
        raise facts.layout
    return World(
        rank=comm.Get_rank(),
        size=comm.Get_size(),
        hosts=facts.hosts,
        layout=facts.layout,
        post=Post(comm, survives),
        teams=Teams(facts.parent, survives),
        clock_offset=facts.clock_offset,
        began=facts.began,
        n_cpus=facts.n_cpus,
        library=_library(MPI),
        launch=facts.launch,
        cores=facts.cores,
        startup=(initialised - began, time.monotonic() - initialised - (facts.staged.seconds if facts.staged else 0.0)),
        staged=facts.staged,
    )


def _meet(
    comm: MPI.Intracomm,
    plan: Callable[[tuple[str, ...]], Layout],
    choose: Callable[[], Launch],
    stage: Stage | None,
    teams: bool,
) -> _Facts:
    """Exchange what every rank must know of the others (collective over comm)."""
    rank = comm.Get_rank()
    mine = (socket.gethostname(), _affinity())
    everybody, starts = zip(*comm.allgather((mine, platform.start_time(os.getpid()))))
    hosts, cores = zip(*everybody)
    layout: Layout | DhmpiError
    try:
        layout = plan(hosts)
    except DhmpiError as error:
        layout = error
    launch = Launch(*comm.bcast(tuple(choose()) if rank == 0 else None))
    staged: Staged | None = None
    if stage is not None and not isinstance(layout, DhmpiError):
        try:
            staged = stage(comm, hosts, launch)
        except DhmpiError as error:  # on all ranks; without it a layout is of no use
            layout = error
    sharing = sum(other == mine for other in everybody)
    return _Facts(
        hosts=hosts,
        layout=layout,
        clock_offset=_clock_offset(comm, hosts),
        began=min((start for host, start in zip(hosts, starts) if host == mine[0] and start), default=None),
        n_cpus=max(1, len(mine[1]) // sharing),
        launch=launch,
        cores=cores,
        staged=staged,
        # Messages by which MPI makes a communicator out of another one must not be found by those who look for any
        # message there: Open MPI 5.0.11 waits for ever (measured).
        parent=comm.Dup() if teams else None,
    )


def _meet_all(world: MPI.Intracomm, meet: Callable[[MPI.Intracomm], _Facts]) -> tuple[MPI.Intracomm, _Facts]:
    from mpi4py import MPI

    try:
        comm = world.Dup()  # user code may use COMM_WORLD as it likes
        comm.Set_errhandler(MPI.ERRORS_RETURN)
        return comm, meet(comm)
    except MPI.Exception as error:
        raise RankLostError(" ".join(error.Get_error_string().split())) from error


def _meet_survivors(world: MPI.Intracomm, meet: Callable[[MPI.Intracomm], _Facts]) -> tuple[MPI.Intracomm, _Facts]:
    """Meet, and if ranks die meanwhile, meet again without them.

    The world itself is used: when a rank dies while Open MPI 5.0.11 makes a communicator, others crash (measured).
    """
    from mpi4py import MPI

    comm = world
    comm.Set_errhandler(MPI.ERRORS_RETURN)
    while True:
        facts: _Facts | None = None
        broken: Exception | None = None
        try:
            facts = meet(comm)
        except Exception as error:  # a death leaves nonsense in others' buffers: also what pickle says of that
            broken = error
            comm.Revoke()  # others may wait in there for ever
        if _agree(comm, facts is not None) and facts is not None:
            return comm, facts
        comm.Ack_failed()
        if comm.Get_failed().Get_size() == 0 and broken is not None:
            raise broken  # nobody has died: a bug
        comm = MPI.Intracomm(comm.Shrink())
        comm.Set_errhandler(MPI.ERRORS_RETURN)


def _agree(comm: MPI.Comm, met: bool) -> bool:
    """Return whether all living ranks have met (collective over the living)."""
    from mpi4py import MPI

    while True:
        comm.Ack_failed()
        try:
            return bool(comm.Agree(int(met)))
        except MPI.Exception:
            met = False  # one died meanwhile


class Meeting(NamedTuple):
    """All ranks, for an examination, and how they came together."""

    comm: MPI.Comm
    library: str
    thread_level: str
    """single, funneled, serialized or multiple."""
    seconds: float
    """That MPI took to be initialised, here."""
    can_survive: bool
    """Whether this MPI library has what is needed to survive the death of ranks."""


def meet() -> Meeting:
    """Initialise MPI for `dhmpi.doctor`, where everything is collective and no rank has a role (collective)."""
    began = time.monotonic()
    from mpi4py import MPI

    levels = {
        MPI.THREAD_SINGLE: "single",
        MPI.THREAD_FUNNELED: "funneled",
        MPI.THREAD_SERIALIZED: "serialized",
        MPI.THREAD_MULTIPLE: "multiple",
    }
    seconds = time.monotonic() - began
    can_survive = fault_tolerant() and hasattr(MPI.Comm, "Ack_failed")
    return Meeting(MPI.COMM_WORLD, _library(MPI), levels[MPI.Query_thread()], seconds, can_survive)


def finish(world: World, code: int, together: bool) -> int:
    """Let the last messages leave, then finalise MPI (collective over the world); return the exit code.

    Where deaths are survived and some rank has died, nobody waits for the others, and this does not return: the process
    ends here.  (Without a death all finalise: from 128 ranks that just leave, Open MPI's launcher takes fright.)

    Parameters
    ----------
    together : bool
        What the master has said of that.
    """
    from mpi4py import MPI

    world.post.flush(LAST_MESSAGES)
    if world.survives:
        if not together:
            leave(code)
        sys.stdout.flush()
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(FINALISING)  # one may die even now
    MPI.Finalize()
    if world.survives:
        signal.alarm(0)
    return code


def started() -> bool:
    """Return whether this process has initialised MPI, and not finalised it."""
    if "mpi4py.MPI" not in sys.modules:
        return False
    from mpi4py import MPI

    return bool(MPI.Is_initialized() and not MPI.Is_finalized())


def abort(code: int) -> NoReturn:
    """End this rank at once, and with it the whole job, unless the launcher lets the other ranks live.

    With ULFM an abort would end this rank only, and aborts of several ranks at a time now and then leave Open MPI
    5.0.11's launcher waiting for ever (measured: one job in ten); ranks that just leave end it with their exit code.
    """
    if started() and not fault_tolerant():
        from mpi4py import MPI

        sys.stdout.flush()
        sys.stderr.flush()
        MPI.COMM_WORLD.Abort(code)
    leave(code)


def leave(code: int) -> NoReturn:
    """End this process at once, without a word to MPI."""
    sys.stdout.flush()
    sys.stderr.flush()
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
