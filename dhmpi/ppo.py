"""``python -m dhmpi.ppo``: reinforcement learning of architectures by proximal policy optimisation."""

from __future__ import annotations

import sys
from typing import Any

from dhmpi.options import PpoOptions
from dhmpi.roles.program import Program, main

DESCRIPTION = (
    "Maximise a function of architectures by reinforcement learning: agents with equal policies, which learn together "
    "by proximal policy optimisation, and their evaluators, on the ranks of one MPI launch."
)


def spec(options: PpoOptions) -> dict[str, Any]:
    """Return what the search is built from."""
    chosen = {
        "batch_quorum": options.batch_quorum,
        "on_duplicate": options.on_duplicate,
        "stop_on_convergence": options.stop_on_convergence,
    }
    if options.episodes_per_update is not None:
        chosen["episodes_per_update"] = options.episodes_per_update
    return {"search": "ppo", "run": options.run, "options": {"settings": options.settings, **chosen}}


def agents(options: PpoOptions) -> int:
    """Return how many agents there are."""
    return options.n_agents


PROGRAM = Program(
    "ppo", PpoOptions, DESCRIPTION, spec, fits=lambda options: False, agents=agents, repeats=lambda options: True
)

if __name__ == "__main__":
    sys.exit(main(PROGRAM))
