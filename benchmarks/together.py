"""What it costs that ranks train one network together: to come together, to part, and to average gradients.

.venv/bin/python -m benchmarks.together        4 ranks, Horovod (``make horovod``) beside mpi4py
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

from benchmarks.__main__ import mpiexec

N_RANKS = 4
GROUPS = ([0, 1], [2, 3], [0, 1, 2, 3], [1, 2], [0, 3], [1, 2, 3])
ROUNDS = 5
N_MEANS = 100
SIZES = (1_000, 100_000, 1_000_000)


def main() -> None:
    """Print the tables of both backends."""
    for backend in ("horovod", "mpi4py"):
        print(mpiexec(N_RANKS, "benchmarks.together", backend), end="")


def measure(backend: str) -> None:
    """Measure on the ranks of one launch."""
    from mpi4py import MPI

    from dhmpi.nas import training
    from dhmpi.nas.run import horovod

    tf = training.tensorflow()[1]
    world, members = MPI.COMM_WORLD, MPI.COMM_WORLD.Get_group()
    if backend == "horovod" and horovod.horovod() is None:
        raise SystemExit("Horovod is not installed: make horovod")
    came: list[float] = []
    parted: list[float] = []
    for tag, ranks in enumerate(GROUPS * ROUNDS):
        if world.Get_rank() not in ranks:
            continue
        group = members.Incl(ranks)
        comm = world.Create_group(group, tag=tag)
        comm.Barrier()
        began = time.perf_counter()
        with horovod.joined(comm, backend):
            came.append(time.perf_counter() - began)
            comm.Barrier()
            began = time.perf_counter()
        parted.append(time.perf_counter() - began)
        comm.Free()
        group.Free()
    means = {}
    with horovod.joined(world, backend) as all_ranks:
        for n in SIZES:
            tensors = [tf.random.normal((n // 10,)) for _ in range(10)]
            means[n] = _median(tf.function(lambda *given, group=all_ranks: group.mean(given)), tensors)
    everything = world.gather((came, parted, means))
    if everything is not None:
        for what, i in (("come together", 0), ("part", 1)):
            times = [seconds for theirs in everything for seconds in theirs[i]]
            print(f"{backend:8} {what:14} {1e3 * statistics.median(times):7.1f} ms, at most {1e3 * max(times):.1f}")
        for n in SIZES:
            slowest = max(theirs[2][n] for theirs in everything)
            print(f"{backend:8} mean of {n:>9,} numbers {1e3 * slowest:7.2f} ms")


def _median(function: Callable[..., object], tensors: list[object]) -> float:
    """Return the median seconds of a call."""
    times = []
    for _ in range(N_MEANS):
        began = time.perf_counter()
        function(*tensors)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


if __name__ == "__main__":
    measure(sys.argv[1]) if len(sys.argv) > 1 else main()
