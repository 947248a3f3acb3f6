"""What may happen during a training beside training: stopping early, saving, logging.

Names and arguments are checked without Keras, when a problem is defined; :func:`make` builds the objects.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from dhmpi.errors import ProblemError
from dhmpi.nas.metrics import direction

MONITORING = ("EarlyStopping", "ModelCheckpoint", "ReduceLROnPlateau")
"""Callbacks that look at an entry of the history."""
LOGGING = ("CSVLogger", "CSVExtendedLogger", "TensorBoard")
"""Callbacks that write down what there is after every epoch."""
CALLBACKS = (*MONITORING, *LOGGING, "TerminateOnNaN", "TimeStopping")
"""Callbacks that a problem can name."""
_FILES = {
    "ModelCheckpoint": ("filepath", "best.keras"),
    "CSVLogger": ("filename", "epochs.csv"),
    "CSVExtendedLogger": ("filename", "epochs.csv"),
    "TensorBoard": ("log_dir", "tensorboard"),
}
"""The argument of a callback that names a file or a directory, and its default."""


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


def make(
    callbacks: Mapping[str, Mapping[str, Any]], directory: Path | None, clock: Callable[[], float] = time.monotonic
) -> list[Any]:
    """Return Keras callbacks.

    Parameters
    ----------
    callbacks : dict
        Keyword arguments by name.
    directory : Path, optional
        Where files are written; without it, callbacks that write files are left out.
    clock : callable
        Seconds, for TimeStopping.

    Raises
    ------
    ProblemError
        If Keras does not take the arguments.
    """
    import keras  # late: 2 s and 500 MB

    made = []
    for name, given in callbacks.items():
        arguments = dict(given)
        if name in _FILES:
            if directory is None:
                continue
            argument, default = _FILES[name]
            arguments[argument] = str(directory / arguments.get(argument, default))
        if name in MONITORING and arguments.get("mode", "auto") == "auto":
            better = direction(re.sub(r"^(val_)?(output_\d+_)?", "", str(arguments.get("monitor", "val_loss"))))
            if not better:
                raise ProblemError(f"the callback {name} cannot know whether larger is better; add mode 'max' or 'min'")
            arguments["mode"] = "max" if better > 0 else "min"
        try:
            if name == "TimeStopping":
                made.append(_time_stopping(keras, clock, **arguments))
            elif name == "CSVExtendedLogger":
                made.append(_csv_extended_logger(keras, clock, **arguments))
            else:
                made.append(getattr(keras.callbacks, name)(**arguments))
        except (TypeError, ValueError) as error:
            raise ProblemError(f"the callback {name} does not take {arguments}: {error}") from error
    return made


def warm_up(rate: float, n_epochs: float, size: int, n_steps: int) -> Any:
    """Return a callback under which the learning rate grows from ``rate / size`` to `rate` in so many epochs.

    Parameters
    ----------
    rate : float
    n_epochs : float
    size : int
        Number of ranks that train together.
    n_steps : int
        Of an epoch.
    """
    import keras  # late: 2 s and 500 MB

    class WarmUp(keras.callbacks.Callback):  # type: ignore[misc]
        epoch, warm = 0, False

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.epoch = epoch

        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            if not self.warm:  # afterwards the learning rate belongs to others
                part = min(1.0, (self.epoch + batch / n_steps) / n_epochs)
                self.warm = part == 1.0
                self.model.optimizer.learning_rate = rate * (part + (1 - part) / size)

    return WarmUp()


def _time_stopping(keras: Any, clock: Callable[[], float], seconds: float, verbose: int = 0) -> Any:
    """Return a callback that ends a training between two batches, once it has taken so many seconds."""

    class TimeStopping(keras.callbacks.Callback):  # type: ignore[misc]
        def on_train_begin(self, logs: Any = None) -> None:
            self.end = clock() + seconds

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if clock() >= self.end and not self.model.stop_training:
                self.model.stop_training = True
                if verbose:
                    print(f"The training ends after {seconds:g} seconds.")

    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not seconds > 0:
        raise ValueError(f"seconds must be a number > 0, got {seconds!r}")
    return TimeStopping()


def _csv_extended_logger(keras: Any, clock: Callable[[], float], filename: str, **arguments: Any) -> Any:
    """Return a CSVLogger with one more column, the seconds that an epoch took."""

    class CSVExtendedLogger(keras.callbacks.CSVLogger):  # type: ignore[misc]
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.began = clock()

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            super().on_epoch_end(epoch, {**(logs or {}), "seconds": clock() - self.began})

    return CSVExtendedLogger(filename, **arguments)
