"""A problem of evaluations that take a tenth of a second, and note that they were begun."""

import os
import time

from dhmpi.problem import HpProblem

Problem = HpProblem()
Problem.add_hyperparameter((0.0, 1.0), "x")
Problem.add_hyperparameter((0, 1000), "n")


def run(config):
    time.sleep(float(os.environ.get("SLOW_SECONDS", "0.1")))
    return -((config["x"] - 0.5) ** 2)
