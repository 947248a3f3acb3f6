"""``python -m dhmpi.benchmark.hps.polynome2_program CONFIG RESULT``: polynome2, knowing nothing of dhmpi.

Under an mpiexec of its own, its ranks share the work, as those of a larger code would.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main() -> None:
    """Read the configuration, add up this rank's squares, and have rank 0 write the result."""
    from mpi4py import MPI

    comm = MPI.COMM_WORLD
    config, result = map(Path, sys.argv[1:])
    values = list(json.loads(config.read_text()).values())
    mine = sum(value**2 for value in values[comm.rank :: comm.size])
    print(f"rank {comm.rank} of {comm.size} adds {mine:g}", flush=True)
    total = comm.allreduce(mine)
    if comm.rank == 0:
        result.write_text(json.dumps({"objective": -total, "ranks": comm.size}))


if __name__ == "__main__":
    main()
