"""A choice of two functions, each with arguments of its own: the best is f1 at (1, 1), 2."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dhmpi.problem import HpProblem

__all__ = ["Problem", "run"]

Problem: HpProblem


@cache
def _problem() -> HpProblem:
    from ConfigSpace import EqualsCondition

    from dhmpi.problem import HpProblem

    problem = HpProblem(seed=45)
    func = problem.add_hyperparameter(["f1", "f2"], "func")
    for name in ("f1", "f2"):
        for argument in ("x", "y"):
            hyperparameter = problem.add_hyperparameter((0.0, 1.0), f"{name}_{argument}")
            problem.add_condition(EqualsCondition(hyperparameter, func, name))
    return problem


def __getattr__(name: str) -> HpProblem:
    """Make ``Problem`` when somebody asks for it: an evaluation needs only ``run``, and no ConfigSpace."""
    if name == "Problem":
        return _problem()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def run(config: dict[str, Any]) -> float:
    """Return the sum (f1) or the product (f2) of the arguments; those of the other function are not there."""
    if config["func"] == "f1":
        return config["f1_x"] + config["f1_y"]
    return config["f2_x"] * config["f2_y"]
