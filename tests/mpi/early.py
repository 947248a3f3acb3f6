"""A problem whose evaluations report a value a step, and end early when they are asked to."""

import time

import dhmpi
from dhmpi.problem import HpProblem

N_STEPS = 30

Problem = HpProblem()
Problem.add_hyperparameter((0.0, 1.0), "x")


def run(config):
    for step in range(1, N_STEPS + 1):
        time.sleep(0.02)
        dhmpi.trial().report(step, config["x"])
        if dhmpi.trial().should_stop():
            break
    return {"objective": config["x"], "steps": step}
