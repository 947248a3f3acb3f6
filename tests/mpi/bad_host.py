"""A problem whose function crashes on one host."""

import os
import signal
import socket
import time

from dhmpi.problem import HpProblem

Problem = HpProblem()
Problem.add_hyperparameter((0.0, 1.0), "x")


def run(config):
    if socket.gethostname() == "dhmpi2":
        os.kill(os.getpid(), signal.SIGSEGV)
    time.sleep(0.3)
    return config["x"]
