"""Ten floats, the objective minus the sum of their squares: 0 at the origin, cheap, the same everywhere."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dhmpi.problem import HpProblem

__all__ = ["Problem", "run"]

Problem: HpProblem

N_DIMS = 10


@cache
def _problem() -> HpProblem:
    from dhmpi.problem import HpProblem

    problem = HpProblem()
    for i in range(N_DIMS):
        problem.add_hyperparameter((-10.0, 10.0), f"e{i}")
    problem.add_starting_point(**{f"e{i}": 10.0 for i in range(N_DIMS)})
    return problem


def __getattr__(name: str) -> HpProblem:
    """Make ``Problem`` when somebody asks for it: an evaluation needs only ``run``, and no ConfigSpace."""
    if name == "Problem":
        return _problem()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def run(config: dict[str, float]) -> float:
    """Return minus the sum of squares."""
    return -sum(config[f"e{i}"] ** 2 for i in range(N_DIMS))
