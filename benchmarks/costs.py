"""``python -m benchmarks.costs [NAME ...]``: renew dhmpi/costs.json, what searches cost on this machine.

``make`` has no target for it: it is done once for a version whose searches have become faster or slower.  Names: those
of `COSTS`, perhaps with a number of hyperparameters and the most points as in ambs-auto:10:3000; by default all.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from dhmpi.costs import SHIPPED, Costs, measure
from dhmpi.options import AmbsOptions, PpoOptions, RegevoOptions

N_EVALUATORS = 128


def __getattr__(name: str) -> Any:
    """Make ``mixed<N>``: N hyperparameters, half of them floats, the others integers and choices; ``choices<N>``."""
    kind = name.rstrip("0123456789")
    n = name.removeprefix(kind)
    if kind not in ("mixed", "choices") or not n:
        raise AttributeError(name)
    from dhmpi.problem import HpProblem

    problem = HpProblem()
    for i in range(int(n)):
        values: Any = (-10.0, 10.0) if i % 2 == 0 else (1, 100) if i % 4 == 1 else ["a", "b", "c"]
        if kind == "choices":
            values = list("abcdefgh")
        problem.add_hyperparameter(values, f"x{i}")
    return problem


def ambs(surrogate_model: str) -> dict[str, Any]:
    from dhmpi.ambs import spec

    return spec(AmbsOptions(surrogate_model=surrogate_model))


def regevo() -> dict[str, Any]:
    from dhmpi.regevo import spec

    return spec(RegevoOptions())


def ppo() -> dict[str, Any]:
    from dhmpi.ppo import spec

    return spec(PpoOptions())


COSTS: dict[str, tuple[Callable[[], dict[str, Any]], tuple[int, ...], int]] = {
    "random": (lambda: {"search": "random"}, (5, 10, 30), 1000),
    "regevo": (regevo, (5, 10, 30), 1000),
    "ppo": (ppo, (14, 37), 110),
    **{
        f"ambs-{name}": (partial(ambs, name), (5, 10, 30) if name == "auto" else (10,), 100_000)
        for name in ("auto", "GP", "ET", "RF", "GBRT")
    },
}
"""What the search is built from, hyperparameters of the problems, points that fits learn from at most."""


def main(names: list[str]) -> None:
    """Measure, and put what was measured in the place of what is there."""
    if unknown := [name for name in names if name.partition(":")[0] not in COSTS]:
        sys.exit(f"unknown search {unknown[0]!r}: choose from {', '.join(COSTS)}")
    costs = Costs.read() if SHIPPED.exists() else Costs([], "")
    for name in names or COSTS:
        name, *numbers = name.split(":")
        make, sizes, most = COSTS[name]
        if numbers:
            sizes, most = (int(numbers[0]),), int(numbers[1]) if numbers[1:] else most
        for n in sizes:
            problem = f"benchmarks.costs.{'choices' if name == 'ppo' else 'mixed'}{n}"
            spec = {
                **make(),
                "run": "",  # none evaluates
                "problem": problem,
                "seed": 1,
                "n_evaluators": N_EVALUATORS,
                "max_evals": most,
            }
            print(f"{problem}:", flush=True)
            costs.add(measure(spec, most, lambda sentence: print(f"  {sentence}", flush=True)))
            costs.write(SHIPPED)


if __name__ == "__main__":
    main(sys.argv[1:])
