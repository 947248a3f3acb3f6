"""``python -m dhmpi.ambs``: asynchronous model-based search of hyperparameters."""

from __future__ import annotations

import sys
from typing import Any

from dhmpi.options import AmbsOptions
from dhmpi.roles.program import Program, main

DESCRIPTION = (
    "Maximise a function of hyperparameters by asynchronous model-based search, on all ranks of one MPI launch."
)


def spec(options: AmbsOptions) -> dict[str, Any]:
    """Return what the searcher builds the search from."""
    return {"search": "ambs", "options": options.model}


PROGRAM = Program("ambs", AmbsOptions, DESCRIPTION, spec, fits=lambda options: options.fits)

if __name__ == "__main__":
    sys.exit(main(PROGRAM))
