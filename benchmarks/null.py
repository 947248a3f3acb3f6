"""Evaluations that cost nothing, or a fixed time asleep: what is left is what the tool costs."""

from __future__ import annotations

import os
import time
from typing import Any

import dhmpi

SECONDS = float(os.environ.get("BENCH_SECONDS", "0"))
NAMES = tuple(f"x{i}" for i in range(10))


def __getattr__(name: str) -> Any:
    if name != "Problem":
        raise AttributeError(name)
    from dhmpi.problem import HpProblem  # only the searcher needs it

    problem = HpProblem()
    for name_ in NAMES:
        problem.add_hyperparameter((-10.0, 10.0), name_)
    return problem


def run(config: dict[str, Any]) -> float:
    """Return a square, after sleeping for BENCH_SECONDS."""
    if SECONDS:
        time.sleep(SECONDS)
    return config["x1"] ** 2


def run_together(config: dict[str, Any], comm: Any) -> float:
    """Return a square; every third evaluation fails, so that the next one's communicator is a new one."""
    id_ = dhmpi.trial().id
    if id_ is not None and id_ % 3 == 2:
        raise RuntimeError("on purpose")
    return config["x1"] ** 2
