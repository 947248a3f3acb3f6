"""Tuning a solver that several ranks run together with mpi4py: the Poisson equation by successive over-relaxation.

The rows of the grid are shared among the ranks of an evaluation; neighbours exchange edges.  The objective is minus the
time to the solution in seconds, so the best configuration is the fastest.  `Problem` has the hyperparameters of the
solver, for ``--num-ranks-per-eval``; `MixedProblem` also the number of ranks, for ``--evaluator group``.

References
----------
Young (1954), Iterative methods for solving partial difference equations of elliptic type, Trans. Amer. Math. Soc. 76.
"""

from __future__ import annotations

import time
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from dhmpi.problem import HpProblem

__all__ = ["MixedProblem", "Problem", "run"]

Problem: HpProblem
MixedProblem: HpProblem

N = 64
"""Inner points of the grid in each direction."""
TOLERANCE = 1e-4
"""Of the residual, relative to that of zero."""
MOST_SWEEPS = 4000


@cache
def _problem(mixed: bool) -> HpProblem:
    from dhmpi.problem import HpProblem

    problem = HpProblem()
    problem.add_hyperparameter((1.5, 1.99), "omega")
    problem.add_hyperparameter((1, 8), "sweeps_per_exchange")
    problem.add_hyperparameter((4, 64, "log-uniform"), "sweeps_per_check")
    if mixed:
        problem.add_hyperparameter([1, 2, 4], "num_ranks")
    return problem


def __getattr__(name: str) -> HpProblem:
    """Make a problem when somebody asks for it: an evaluation needs only ``run``, and no ConfigSpace."""
    if name in ("Problem", "MixedProblem"):
        return _problem(name == "MixedProblem")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def run(config: dict[str, Any], comm: Any = None) -> dict[str, Any]:
    """Solve -u'' = 1 on the unit square, with u = 0 at its edges.

    Parameters
    ----------
    config : dict
        A configuration of ``Problem``.
    comm : MPI.Intracomm, optional
        The ranks that solve it together; without it this process does alone.

    Returns
    -------
    dict
        ``objective``, minus the seconds of the slowest rank; ``sweeps``; ``residual``, relative; ``middle``, the
        solution there.

    Raises
    ------
    ArithmeticError
        If it does not converge.
    """
    rank, size = (0, 1) if comm is None else (comm.rank, comm.size)
    rows = np.array_split(np.arange(1, N + 1), size)[rank]
    u = np.zeros((len(rows) + 2, N + 2))
    began = time.perf_counter()
    residual, sweeps = 1.0, 0
    while residual > TOLERANCE:
        for _ in range(config["sweeps_per_check"]):
            if sweeps % config["sweeps_per_exchange"] == 0:
                _exchange(u, comm)
            _sweep(u, int(rows[0]), config["omega"])
            sweeps += 1
        _exchange(u, comm)
        residual = float(np.sqrt(_sum(float((_residual(u) ** 2).sum()), comm))) * (N + 1) ** 2 / N
        if not residual < 1e3 or sweeps > MOST_SWEEPS:  # the same on all ranks
            raise ArithmeticError(f"no convergence: the residual is {residual:.3g} after {sweeps} sweeps")
    seconds = time.perf_counter() - began
    middle = float(u[N // 2 - rows[0] + 1, N // 2]) if rows[0] <= N // 2 <= rows[-1] else 0.0
    if comm is not None:
        seconds = max(comm.allgather(seconds))
    return {"objective": -seconds, "sweeps": sweeps, "residual": residual, "middle": _sum(middle, comm)}


def _sweep(u: np.ndarray, first: int, omega: float) -> None:
    """Relax the red points, then the black ones; `first` is the number of the first row in the whole grid."""
    inner = u[1:-1, 1:-1]
    i, j = np.ogrid[first : first + inner.shape[0], 1 : N + 1]
    for colour in (0, 1):
        mine = (i + j) % 2 == colour
        inner[mine] += omega * 0.25 * _residual(u)[mine]


def _residual(u: np.ndarray) -> np.ndarray:
    around = u[:-2, 1:-1] + u[2:, 1:-1] + u[1:-1, :-2] + u[1:-1, 2:]
    return np.asarray(around - 4 * u[1:-1, 1:-1] + 1.0 / (N + 1) ** 2)


def _exchange(u: np.ndarray, comm: Any) -> None:
    """Take the edges of the neighbours' rows."""
    if comm is None or comm.size == 1:
        return
    above, below = comm.rank - 1, comm.rank + 1
    if above >= 0:
        comm.Sendrecv(u[1], above, recvbuf=u[0], source=above)
    if below < comm.size:
        comm.Sendrecv(u[-2], below, recvbuf=u[-1], source=below)


def _sum(value: float, comm: Any) -> float:
    return value if comm is None else float(comm.allreduce(value))
