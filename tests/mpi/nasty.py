"""A problem whose function attacks what it runs in."""

import os
import shutil
import signal
import sys
from pathlib import Path

from dhmpi.problem import HpProblem

DEEDS = ["fine", "kills keeper", "closes", "floods", "vanishes", "undermines", "returns much", "aborts"]

Problem = HpProblem()
Problem.add_hyperparameter(DEEDS, "deed")
Problem.add_hyperparameter((0, 2), "n")


def run(config):
    deed = config["deed"]
    if deed == "kills keeper":
        os.kill(os.getppid(), signal.SIGKILL)
    elif deed == "closes":
        os.closerange(0, 4096)
    elif deed == "floods":
        line = b"x" * (1 << 20)
        for _ in range(1024):
            os.write(1, line)
    elif deed == "vanishes":
        os._exit(0)
    elif deed == "undermines":
        shutil.rmtree(Path.cwd())
    elif deed == "returns much":
        return {"objective": 1.0, "much": "x" * 100_000_000}
    elif deed == "aborts":
        from mpi4py import MPI

        sys.stdout.flush()
        MPI.COMM_WORLD.Abort(3)
    return 1.0
