"""Peers on the same evaluations, under mpiexec: ``python -m benchmarks.peers {floor,futures,libensemble} TRIALS``.

Each prints one JSON line: trials per second and the utilisation of its workers, from the first trial sent to the last
answer received, so without start-up.
"""

from __future__ import annotations

import json
import sys
import time

from benchmarks import null

POINT = dict.fromkeys(null.NAMES, 0.5)


def report(n: int, seconds: float, workers: int) -> None:
    print(json.dumps({"rate": n / seconds, "utilisation": n * null.SECONDS / (workers * seconds)}), flush=True)


def floor(n: int) -> None:
    """Probe and sleep, one trial in flight per worker, nothing recorded: the least that messages cost."""
    from mpi4py import MPI

    world, status = MPI.COMM_WORLD, MPI.Status()

    def wait(source: int) -> None:
        delay = 1e-5
        while not world.iprobe(source, MPI.ANY_TAG, status):
            time.sleep(delay)
            delay = min(2 * delay, 1e-3)

    world.Barrier()
    if world.rank:
        while True:
            wait(0)
            trial = world.recv(source=0)
            if trial is None:
                return
            id_, point = trial
            world.send((id_, null.run(point)), dest=0)
    start = time.perf_counter()
    sent = min(n, world.size - 1)
    for i in range(sent):
        world.send((i, POINT), dest=i + 1)
    for _ in range(n):
        wait(MPI.ANY_SOURCE)
        source = status.Get_source()
        world.recv(source=source)
        if sent < n:
            world.send((sent, POINT), dest=source)
            sent += 1
    report(n, time.perf_counter() - start, world.size - 1)
    for rank in range(1, world.size):
        world.send(None, dest=rank)


def futures(n: int) -> None:
    """mpi4py.futures, its documented way on a world that is already there."""
    from mpi4py import MPI
    from mpi4py.futures import MPICommExecutor, MPIPoolExecutor

    with MPICommExecutor(MPI.COMM_WORLD, root=0) as executor:
        if executor is not None:
            assert isinstance(executor, MPIPoolExecutor)
            list(executor.map(null.run, [POINT] * (MPI.COMM_WORLD.size - 1)))  # everybody is there
            start = time.perf_counter()
            for _ in executor.map(null.run, [POINT] * n):
                pass
            report(n, time.perf_counter() - start, MPI.COMM_WORLD.size - 1)


def libensemble(n: int) -> None:
    """libEnsemble's manager and workers, points given out by a generator on the manager."""
    import os
    import tempfile

    import numpy as np
    from libensemble import Ensemble
    from libensemble.alloc_funcs.give_pregenerated_work import give_pregenerated_sim_work
    from libensemble.specs import AllocSpecs, ExitCriteria, LibeSpecs, SimSpecs
    from mpi4py import MPI

    if MPI.COMM_WORLD.rank == 0:
        os.chdir(tempfile.mkdtemp())
    history = np.zeros(n, dtype=[("x", float, (10,)), ("sim_id", int)])
    history["sim_id"] = range(n)
    history["x"] = 0.5
    ensemble = Ensemble(
        libE_specs=LibeSpecs(
            comms="mpi",
            disable_log_files=True,
            safe_mode=False,
            save_H_on_completion=False,
            save_H_and_persis_on_abort=False,
        ),
        sim_specs=SimSpecs(sim_f=_simulate, inputs=["x"], out=[("f", float)]),
        alloc_specs=AllocSpecs(alloc_f=give_pregenerated_sim_work),
        exit_criteria=ExitCriteria(sim_max=n),
        H0=history,
    )
    start = time.perf_counter()
    ensemble.run()
    if ensemble.is_manager:
        report(n, time.perf_counter() - start, MPI.COMM_WORLD.size - 1)


def _simulate(rows, persistent, specs, info):  # type: ignore[no-untyped-def]
    import numpy as np

    out = np.zeros(1, dtype=specs["out"])
    out["f"] = null.run({"x1": rows["x"][0, 1]})
    return out, persistent


if __name__ == "__main__":
    {"floor": floor, "futures": futures, "libensemble": libensemble}[sys.argv[1]](int(sys.argv[2]))
