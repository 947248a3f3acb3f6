"""Two integers, the objective their sum: 20 at (10, 10)."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dhmpi.problem import HpProblem

__all__ = ["Problem", "run"]

Problem: HpProblem


@cache
def _problem() -> HpProblem:
    from dhmpi.problem import HpProblem

    problem = HpProblem()
    problem.add_hyperparameter((0, 10), "x")
    problem.add_hyperparameter((0, 10), "y")
    problem.add_starting_point(x=1, y=1)
    return problem


def __getattr__(name: str) -> HpProblem:
    """Make ``Problem`` when somebody asks for it: an evaluation needs only ``run``, and no ConfigSpace."""
    if name == "Problem":
        return _problem()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def run(config: dict[str, int]) -> int:
    """Return x + y."""
    return config["x"] + config["y"]
