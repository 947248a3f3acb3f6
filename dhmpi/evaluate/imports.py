"""``python -m dhmpi.evaluate.imports``: import what is asked for, in a process of its own, and say how long it took.

Started before MPI is, as every process of a rank.  Says ``{}`` when it is there; then each line of its input names a
module, or as ``run:NAME`` a run function, and each line of its output tells the seconds, or why it cannot be imported.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from importlib.util import find_spec

from dhmpi.errors import DhmpiError
from dhmpi.load import load_run

RUN = "run:"


def main() -> int:
    """Import; return the exit code."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what modules print is no answer
    _say(answers, {})
    for line in sys.stdin:
        name = line.strip()
        began = time.monotonic()
        try:
            if name.startswith(RUN):
                load_run(name[len(RUN) :])
            elif find_spec(name.partition(".")[0]) is None:
                _say(answers, {"name": name, "missing": True})
                continue
            else:
                importlib.import_module(name)
        except (Exception, SystemExit) as error:
            reason = str(error) if isinstance(error, DhmpiError) else f"{type(error).__name__}: {error}"
            _say(answers, {"name": name, "reason": " ".join(reason.split())})
        else:
            _say(answers, {"name": name, "seconds": time.monotonic() - began})
    return 0


def _say(stream: object, answer: dict[str, object]) -> None:
    print(json.dumps(answer), file=stream, flush=True)  # type: ignore[call-overload]


if __name__ == "__main__":
    sys.exit(main())
