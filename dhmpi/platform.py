"""What the operating system knows about processes: families, memory, names, processors.  Linux, with fallbacks.

Everything here is best effort and raises nothing for a process that has just gone.  Where ``/proc`` is missing,
families and memory come from ``ps``; where ``prctl`` is missing its functions return False, and a grandchild that made
itself a daemon can outlive the run.  Standard library only, because the keeper imports it and must stay small.
"""

# pathlib alone would be a tenth of the keeper.
# ruff: noqa: PTH110, PTH116, PTH208

from __future__ import annotations

import ctypes
import gc
import os
import signal
import time
from collections.abc import Iterable, Mapping

_PR_SET_PDEATHSIG = 1
_PR_SET_TIMERSLACK = 29
_PR_SET_CHILD_SUBREAPER = 36
_CLONE_FS = 0x200

HAS_PROC = os.path.exists("/proc/self/stat")

LAUNCHER_PREFIXES = (
    "PMI",
    "PMIX",
    "OMPI_",
    "PRTE",
    "HYD",
    "MPI_",
    "MPIR_",
    "MPIEXEC_",
    "MV2_COMM_WORLD",
    "PALS_",
    "ALPS_",
    "JSM_",
    "SLURM_STEP_",
    "SLURM_PMI",
    "SLURM_SRUN_COMM_",
)
LAUNCHER_NAMES = (
    "SLURM_GTIDS",
    "SLURM_LAUNCH_NODE_IPADDR",
    "SLURM_LOCALID",
    "SLURM_MPI_TYPE",
    "SLURM_NODEID",
    "SLURM_PROCID",
    "SLURM_STEPID",
    "SLURM_STEPMGR",
    "SLURM_TASK_PID",
)

_PAGE = os.sysconf("SC_PAGE_SIZE")
_MB = 1 << 20


def set_child_subreaper() -> bool:
    """Make this process the parent of every orphan among its descendants; return whether that is possible here."""
    return _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def set_parent_death_signal(number: int = signal.SIGKILL) -> bool:
    """Have the kernel send this process a signal when its parent dies; return whether that is possible here.

    Survives ``exec``, not ``fork``.  The parent is the *thread* that forked.  If it died before the call nothing comes:
    compare :func:`os.getppid` afterwards.
    """
    return _prctl(_PR_SET_PDEATHSIG, number)


def set_timer_slack(nanoseconds: int) -> bool:
    """Say how late the sleeps of this thread may end (the kernel's default is 50,000); return whether it worked."""
    return _prctl(_PR_SET_TIMERSLACK, nanoseconds)


def keep_own_directory() -> bool:
    """Give this thread a working directory of its own, so far that of all; return whether that is possible here."""
    try:
        return ctypes.CDLL(None).unshare(_CLONE_FS) == 0
    except (AttributeError, OSError, TypeError):
        return False


def free_memory() -> bool:
    """Give back to the system what this process does not use any more; return whether that is possible here."""
    gc.collect()
    try:
        return bool(ctypes.CDLL(None).malloc_trim(0))
    except (AttributeError, OSError, TypeError):
        return False


def set_process_name(name: str) -> bool:
    """Set the name that ``ps`` and ``top`` show, 15 bytes at most; return whether that is possible here."""
    return _write("/proc/self/comm", name.encode()[:15])


def collect_garbage_rarely() -> None:
    """Let Python look for reference cycles a hundred times less often.

    For processes that keep much and make no cycles: looking is a good part of what a busy master or searcher does.
    """
    gc.freeze()
    gc.set_threshold(100_000, 50, 50)


def process_name(pid: int) -> str | None:
    """Return the name of a process, None if it is gone."""
    name = _read(f"/proc/{pid}/comm")
    return None if name is None else name.decode("utf-8", "replace").rstrip("\n")


def n_cpus() -> int:
    """Return how many processors this process may use: its affinity mask, else all of the machine."""
    try:
        return len(os.sched_getaffinity(0))
    except (AttributeError, OSError):
        return os.cpu_count() or 1


def start_time(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot; None if it is gone or a zombie.

    Together with the pid it names a process for good, since pids are used again.
    """
    stat = _stat(pid)
    return None if stat is None or stat[0] in (b"Z", b"X") else int(stat[19])


def age() -> float:
    """Return the seconds since this process was started, 0 if nobody says."""
    ticks = start_time(os.getpid()) if HAS_PROC else None
    if ticks is None:
        return 0.0
    return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK"))


def children(pid: int) -> list[int]:
    """Return the direct children of a process, zombies included."""
    if not HAS_PROC:
        return [child for child, parent, _ in _ps() if parent == pid]
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return []
    found: list[int] = []
    for thread in threads:
        listed = _read(f"/proc/{pid}/task/{thread}/children")
        if listed is None:
            # The thread has gone, or the kernel was built without this file.
            return [child for child in _pids() if (stat := _stat(child)) is not None and int(stat[1]) == pid]
        found += map(int, listed.split())
    return found


def descendants(pid: int) -> list[int]:
    """Return children, grandchildren and so on of a process, parents before their children."""
    if not HAS_PROC:
        return _below(pid, _ps())
    found = [pid]
    for parent in found:
        found += [child for child in children(parent) if child not in found]
    return found[1:]


def rss_mb(pid: int) -> float:
    """Return the resident memory of a process in MB (2^20 bytes), 0 if it is gone."""
    if not HAS_PROC:
        return sum(rss for child, _, rss in _ps() if child == pid) / 1024
    statm = _read(f"/proc/{pid}/statm")
    return int(statm.split()[1]) * _PAGE / _MB if statm else 0.0


def tree_rss_mb(pid: int, enough: float = float("inf")) -> float:
    """Return the memory of a process and all its descendants in MB (2^20 bytes).

    Parameters
    ----------
    pid : int
    enough : float, default infinity
        A sum of resident sizes counts pages that processes share once for each of them.  Only a sum above this number
        is corrected by the kernel's proportional sizes, which cost a walk through all page tables.
    """
    if not HAS_PROC:
        table = _ps()
        members = {pid, *_below(pid, table)}
        return sum(rss for child, _, rss in table if child in members) / 1024
    family = [pid, *descendants(pid)]
    total = sum(map(rss_mb, family))
    if total > enough and len(family) > 1:
        return sum(map(_pss_mb, family))
    return total


def available_mb() -> float:
    """Return the memory in MB (2^20 bytes) that new processes may take on this host, 0 if nobody says.

    Where a control group limits this process, what that leaves.
    """
    lines = (_read("/proc/meminfo") or b"").splitlines()
    free = next((int(line.split()[1]) / 1024 for line in lines if line.startswith(b"MemAvailable:")), 0.0)
    limit, used = _read("/sys/fs/cgroup/memory.max"), _read("/sys/fs/cgroup/memory.current")
    if limit and used and limit.strip().isdigit():
        free = min(free, max(0.0, (int(limit) - int(used)) / _MB))
    return free


def marked_processes(variable: str, value: str) -> list[int]:
    """Return the processes of this user, other than this one, that were started with an environment variable so set."""
    mark = f"{variable}={value}".encode()
    found = []
    for pid in _pids():
        environment = _read(f"/proc/{pid}/environ") if pid != os.getpid() else None
        if environment and mark in environment.split(b"\0"):
            found.append(pid)
    return found


def offer_to_oom_killer() -> bool:
    """Have the kernel, when memory runs out, end this process and what it starts before others of this user."""
    return _write("/proc/self/oom_score_adj", b"500")


def keeper_name(run_id: str) -> str:
    """Return the process name of the keepers of a run."""
    return f"dhmpi-{run_id[:8]}"


def leftovers(run_id: str, before: int | None = None) -> list[int]:
    """Return the processes of this user that belong to a run, other than its ranks: keepers, children, leftovers.

    Parameters
    ----------
    run_id : str
    before : int, optional
        Only those with an earlier `start_time`.
    """
    user = os.getuid()
    name = keeper_name(run_id)
    keepers = [pid for pid in _pids() if process_name(pid) == name and _owner(pid) == user and start_time(pid)]
    found = sorted({*keepers, *marked_processes("DHMPI_RUN", run_id)})
    return found if before is None else [pid for pid in found if (start_time(pid) or before) < before]


def kill(pids: Iterable[int], number: int = signal.SIGKILL) -> None:
    """Send a signal to processes, as far as they are still there and this user's."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except OSError:
            pass


def kill_group(leader: int, number: int = signal.SIGKILL) -> None:
    """Send a signal to a process and its process group, as far as they are still there and this user's."""
    try:
        os.killpg(leader, number)
    except OSError:
        pass
    kill([leader], number)  # it may not lead a group yet


def without(environment: Mapping[str, str], prefixes: tuple[str, ...], names: Iterable[str] = ()) -> dict[str, str]:
    """Return an environment without the variables of some prefixes or names."""
    dropped = frozenset(names)
    return {name: v for name, v in environment.items() if name not in dropped and not name.startswith(prefixes)}


def scrub(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without what MPI launchers have put there.

    A process that imports mpi4py with those variables inherited takes part in the launch, and ends its parent rank.
    The variables of the job (SLURM_JOB_ID, SLURM_NTASKS, ...) stay.
    """
    return without(environment, LAUNCHER_PREFIXES, LAUNCHER_NAMES)


def _prctl(option: int, value: int) -> bool:
    try:
        return ctypes.CDLL(None).prctl(option, ctypes.c_ulong(value), 0, 0, 0) == 0
    except (AttributeError, OSError, TypeError):
        return False


def _read(path: str) -> bytes | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        parts = []
        while part := os.read(fd, 1 << 16):
            parts.append(part)
        return b"".join(parts)
    except OSError:
        return None
    finally:
        os.close(fd)


def _write(path: str, data: bytes) -> bool:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.write(fd, data) == len(data)
    except OSError:
        return False
    finally:
        os.close(fd)


def _pids() -> list[int]:
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit()] if HAS_PROC else []


def _owner(pid: int) -> int | None:
    try:
        return os.stat(f"/proc/{pid}").st_uid
    except OSError:
        return None


def _stat(pid: int) -> list[bytes] | None:
    """Return the fields of /proc/PID/stat from the state on (field 3); the name before it may hold anything."""
    stat = _read(f"/proc/{pid}/stat")
    return stat[stat.rindex(b")") + 2 :].split() if stat else None


def _pss_mb(pid: int) -> float:
    for line in (_read(f"/proc/{pid}/smaps_rollup") or b"").splitlines():
        if line.startswith(b"Pss:"):
            return int(line.split()[1]) / 1024
    return rss_mb(pid)


def _ps() -> list[tuple[int, int, int]]:
    """Return pid, parent and resident size in KB of all processes."""
    import subprocess  # late: only where there is no /proc, and the keeper must stay small

    try:
        table = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,rss="], capture_output=True, text=True, timeout=10).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [line.split() for line in table.splitlines()]
    return [(int(pid), int(parent), int(rss)) for pid, parent, rss in (row for row in rows if len(row) == 3)]


def _below(pid: int, table: list[tuple[int, int, int]]) -> list[int]:
    found = [pid]
    for parent in found:
        found += [child for child, its_parent, _ in table if its_parent == parent and child not in found]
    return found[1:]
