"""Loading a run function for evaluations, and having it prepare itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dhmpi.errors import ProblemError
from dhmpi.evaluate import context, failure
from dhmpi.load import load_run


def load_prepared(name: str, problem: str = "", with_comm: bool = False) -> Callable[..., Any]:
    """Return a run function that is ready to be called.

    A run function may have an attribute ``prepare``, a function without arguments: it is called here, once in each
    process, so that imports and data that take time are there before the first evaluation is counted.
    ``dhmpi.trial().problem`` is available to it.

    Parameters
    ----------
    name : str
        As given to ``--run``.
    problem : str, optional
        As given to ``--problem``.
    with_comm : bool, default False
        Whether it is called with a communicator if it has a parameter ``comm``.

    Raises
    ------
    ProblemError
        If it cannot be imported, or its preparation fails; one sentence, then perhaps a traceback.
    """
    run = load_run(name, with_comm)
    prepare = getattr(run, "prepare", None)
    if not callable(prepare):
        return run
    context.enter(context.TrialContext(problem=problem))
    try:
        prepare()
    except (ProblemError, KeyboardInterrupt):
        raise
    except BaseException as exception:  # of the user's: whatever it is, no evaluation could do without
        raise ProblemError(f"{name} cannot be prepared: {failure.describe(exception)}") from exception
    finally:
        context.leave()
    return run
