"""A problem whose first configuration takes the rank that evaluates it down with it."""

import os
import signal
import time
from pathlib import Path

from dhmpi.problem import HpProblem

Problem = HpProblem()
Problem.add_hyperparameter((0.0, 1.0), "x")
Problem.add_hyperparameter((0, 1000), "n")
Problem.add_starting_point(x=0.5, n=0)


def run(config):
    if config["n"] == 0 and config["x"] == 0.5:
        keeper = Path(f"/proc/{os.getppid()}/stat").read_text().rpartition(")")[2].split()
        os.kill(int(keeper[1]), signal.SIGKILL)
    time.sleep(0.2)
    return config["x"]
