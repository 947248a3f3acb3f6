"""A problem whose function does better at full length, and in the same order."""

import time

from dhmpi.problem import HpProblem

Problem = HpProblem()
for name in "abcdef":
    Problem.add_hyperparameter([f"{name}{i}" for i in range(4)], name)


def run(config):
    screened = "num_epochs" in config
    time.sleep(0.005 if screened else 0.02)
    right = sum(int(config[name][1]) for name in "abcdef")
    return right if screened else 100 + right
