"""``python -m dhmpi.regevo``: regularized evolution of architectures or hyperparameters."""

from __future__ import annotations

import sys
from typing import Any

from dhmpi.options import RegevoOptions
from dhmpi.roles.program import Program, main

DESCRIPTION = (
    "Maximise a function of architectures or hyperparameters by asynchronous regularized evolution, on all ranks of "
    "one MPI launch."
)


def spec(options: RegevoOptions) -> dict[str, Any]:
    """Return what the search is built from."""
    return {"search": "regevo", "run": options.run, "screening": options.screening, "options": options.evolution}


PROGRAM = Program(
    "regevo",
    RegevoOptions,
    DESCRIPTION,
    spec,
    fits=lambda options: False,
    with_master=True,
    repeats=lambda options: options.repeats,
)

if __name__ == "__main__":
    sys.exit(main(PROGRAM))
