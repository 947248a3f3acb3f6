"""Two integers that must not both be 0, where the objective log(1 / (x + y)) has no value: 0 at (0, 1) and (1, 0)."""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dhmpi.problem import HpProblem

__all__ = ["Problem", "run"]

Problem: HpProblem


@cache
def _problem() -> HpProblem:
    from ConfigSpace import ForbiddenAndConjunction, ForbiddenEqualsClause

    from dhmpi.problem import HpProblem

    problem = HpProblem()
    x = problem.add_hyperparameter((0, 10), "x")
    y = problem.add_hyperparameter((0, 10), "y")
    problem.add_forbidden_clause(ForbiddenAndConjunction(ForbiddenEqualsClause(x, 0), ForbiddenEqualsClause(y, 0)))
    problem.add_starting_point(x=1, y=1)
    return problem


def __getattr__(name: str) -> HpProblem:
    """Make ``Problem`` when somebody asks for it: an evaluation needs only ``run``, and no ConfigSpace."""
    if name == "Problem":
        return _problem()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def run(config: dict[str, int]) -> float:
    """Return log(1 / (x + y)); never called with the forbidden (0, 0)."""
    return math.log(1 / (config["x"] + config["y"]))
