"""A problem of decisions for agents: evaluations take a little while, and the best architecture is known."""

import os
import time

from dhmpi.problem import HpProblem

Problem = HpProblem()
for i in range(8):
    Problem.add_hyperparameter(["a", "b", "c"], f"d{i}")


def run(config):
    time.sleep(float(os.environ.get("CHOOSING_SECONDS", "0.02")))
    return sum(value == "b" for value in config.values()) / 8
