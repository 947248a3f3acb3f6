"""``python -m dhmpi.importable PROBLEM RUN``: say whether a problem and a run function can be loaded.

`dhmpi.submit` asks it in a process of its own: a user's module may print, crash, or import TensorFlow.
"""

from __future__ import annotations

import sys

from dhmpi.errors import EXIT_BAD_INPUT, DhmpiError
from dhmpi.load import load_problem, load_run


def main() -> int:
    """Load both; return the exit code."""
    try:
        problem, run = sys.argv[1:]
        load_problem(problem)
        load_run(run)
    except DhmpiError as error:
        print(error, file=sys.stderr)
        return EXIT_BAD_INPUT
    return 0


if __name__ == "__main__":
    sys.exit(main())
