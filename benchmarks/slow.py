"""A function that takes a given time, in a space that is never exhausted."""

import os
import time

from dhmpi.problem import HpProblem

Problem = HpProblem()
Problem.add_hyperparameter((0.0, 1.0), "x")
Problem.add_hyperparameter((0, 1_000_000), "n")


def run(config: dict[str, float]) -> float:
    time.sleep(float(os.environ.get("BENCH_SECONDS", "0.1")))
    return -((config["x"] - 0.5) ** 2)
