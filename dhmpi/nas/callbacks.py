"""What may happen during a training beside training: stopping early, saving, logging.

Names and arguments are checked without Keras, when a problem is defined; :func:`make` builds the objects.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from dhmpi.errors import ProblemError

MONITORING = ("EarlyStopping", "ModelCheckpoint", "ReduceLROnPlateau")
"""Callbacks that look at an entry of the history."""
CALLBACKS = (*MONITORING, "CSVLogger", "CSVExtendedLogger", "TensorBoard", "TerminateOnNaN", "TimeStopping")
"""Callbacks that a problem can name."""


def check(callbacks: Any) -> dict[str, dict[str, Any]]:
    """Return callbacks as a new dict of arguments by name.

    Raises
    ------
    ProblemError
        If one is unknown, or its arguments are no dict.
    """
    if not isinstance(callbacks, Mapping):
        raise ProblemError(
            f"callbacks must be a dict such as {{'EarlyStopping': {{'patience': 5}}}}, got {callbacks!r}"
        )
    for name, arguments in callbacks.items():
        if name not in CALLBACKS:
            raise ProblemError(f"there is no callback {name!r}; choose among {', '.join(CALLBACKS)}")
        if arguments is not None and not isinstance(arguments, Mapping):
            raise ProblemError(f"the arguments of the callback {name} must be a dict, got {arguments!r}")
    if "TimeStopping" in callbacks and "seconds" not in (callbacks["TimeStopping"] or {}):
        raise ProblemError("the callback TimeStopping needs the argument seconds")
    return {name: dict(arguments or {}) for name, arguments in callbacks.items()}


def monitored(callbacks: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return which entry of the history each callback that looks at one looks at."""
    return {name: str(callbacks[name].get("monitor", "val_loss")) for name in MONITORING if name in callbacks}


def check_monitored(callbacks: Mapping[str, Mapping[str, Any]], known: Collection[str]) -> None:
    """Refuse callbacks that look at what is not computed.

    Raises
    ------
    ProblemError
    """
    for name, key in monitored(callbacks).items():
        if key not in known:
            raise ProblemError(
                f"the callback {name} monitors {key!r}, which is not computed: there are {', '.join(known)}"
            )
