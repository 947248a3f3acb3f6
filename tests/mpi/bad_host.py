"""A problem whose function crashes on one host; until it has done so a few times, evaluations elsewhere take long."""

import os
import signal
import socket
import time
from pathlib import Path

from dhmpi.problem import HpProblem

Problem = HpProblem()
Problem.add_hyperparameter((0.0, 1.0), "x")


def run(config):
    crashes = Path.cwd().parent / "crashes"
    if socket.gethostname() == "dhmpi2":
        with crashes.open("a") as stream:
            stream.write("x")
        os.kill(os.getpid(), signal.SIGSEGV)
    time.sleep(0.2 if crashes.exists() and crashes.stat().st_size >= 4 else 1.0)
    return config["x"]
