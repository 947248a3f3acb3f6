"""``python -m dhmpi.random``: random search of architectures or hyperparameters; nothing else lives here."""

from __future__ import annotations

import sys
from typing import Any

from dhmpi.options import RandomOptions
from dhmpi.roles.program import Program, main

DESCRIPTION = (
    "Maximise a function of architectures or hyperparameters by random search without repeats, on all ranks of one "
    "MPI launch."
)


def spec(options: RandomOptions) -> dict[str, Any]:
    """Return what the search is built from."""
    return {"search": "random", "run": options.run, "screening": options.screening}


PROGRAM = Program("random", RandomOptions, DESCRIPTION, spec, fits=lambda options: False, with_master=True)

if __name__ == "__main__":
    sys.exit(main(PROGRAM))
