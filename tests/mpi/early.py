"""A problem whose evaluations report a value a step, and end early when they are asked to."""

import time

import dhmpi
from dhmpi.problem import HpProblem

N_STEPS = 30

Problem = HpProblem()
Problem.add_hyperparameter((0.0, 1.0), "x")


def run(config):
    trial = dhmpi.trial()
    for step in range(1, N_STEPS + 1):
        time.sleep(0.02)
        trial.report(step, config["x"])
        if trial.should_stop():
            break
    steps = [step] if trial.comm is None else trial.comm.allgather(step)
    return {"objective": config["x"], "steps": step, "alike": steps == [step] * len(steps)}
