"""dhmpi: hyperparameter and neural architecture search as one MPI program.

Importing the package costs nothing: every command imports what it needs when it needs it.  Start reading at
``dhmpi/ambs.py`` (an entry point), then ``dhmpi/roles/dispatcher.py`` (who gets which trial).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from dhmpi.evaluate.context import TrialContext

__version__ = "0.1.0"


def trial() -> TrialContext:
    """Return the context of the evaluation that is running: its id, seed, directory, deadline, communicator.

    Outside an evaluation (a run function tried by hand) the context has id ``None`` and no deadline.
    """
    from dhmpi.evaluate.context import current  # late: `import dhmpi` stays free

    return current()


def staged(path: str | Path) -> Path:
    """Return where the copy of a file or directory is that ``--stage`` has made; the path itself if there is none."""
    from dhmpi.staging import here  # late: `import dhmpi` stays free

    return here(path)
