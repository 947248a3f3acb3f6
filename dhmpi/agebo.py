"""``python -m dhmpi.agebo``: ageing evolution of architectures, Bayesian optimisation of how they are trained."""

from __future__ import annotations

import sys
from typing import Any

from dhmpi.options import AgeboOptions
from dhmpi.roles.program import Program, main

DESCRIPTION = (
    "Maximise a function of architectures and hyperparameters, on all ranks of one MPI launch: architectures by "
    "regularized evolution, hyperparameters, such as learning_rate, batch_size and num_ranks, by a model."
)


def spec(options: AgeboOptions) -> dict[str, Any]:
    """Return what the searcher builds the search from."""
    return {
        "search": "agebo",
        "run": options.run,
        "screening": options.screening,
        "options": {**options.evolution, **options.model},
    }


PROGRAM = Program(
    "agebo",
    AgeboOptions,
    DESCRIPTION,
    spec,
    fits=lambda options: True,
    repeats=lambda options: options.repeats,
)

if __name__ == "__main__":
    sys.exit(main(PROGRAM))
