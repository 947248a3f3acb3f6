"""What a run function may return, and how a process may end, put into words.

Standard library only, and no import of numpy: the keeper and the ranks use this too.  Whatever is accepted here is
plain JSON afterwards, so it can be journaled, sent and written as a row of results.csv without another look.
"""

from __future__ import annotations

import json
import math
import signal
import sys
from collections.abc import Mapping
from typing import Any

MAX_METRICS_BYTES = 64 * 1024
"""Limit of all metrics of one evaluation together, as JSON."""

_MAX_INTEGER_BITS = 1024
_SHOWN_CHARACTERS = 60


def check(returned: Any, who: str = "the function") -> tuple[float, dict[str, Any]]:
    """Return objective and metrics of what a run function returned.

    Parameters
    ----------
    returned : float or dict
        A finite number (int, float, a numpy, torch or TensorFlow scalar), or a mapping of names to metrics that holds
        such a number under ``"objective"``.
    who : str, default "the function"
        How sentences begin.

    Returns
    -------
    objective : float
        Finite.
    metrics : dict of str to int, float, bool, str or None
        Without the objective.  A metric that is NaN or infinite becomes ``None``, an empty cell: a diverged side metric
        is no reason to lose the objective.  Characters that are no valid Unicode become ``?``.

    Raises
    ------
    ValueError
        If it is none of these, or its metrics exceed ``MAX_METRICS_BYTES``; one sentence.
    """
    if type(returned) is float and math.isfinite(returned):
        return returned, {}
    if not isinstance(returned, Mapping):
        return _objective(returned, f"{who} returned"), {}
    try:
        objective = returned["objective"]
    except KeyError:
        raise ValueError(
            f"{who} returned a dict without 'objective', with {len(returned)} other entries; "
            "return a number or a dict with 'objective'"
        ) from None
    return _objective(objective, f"{who} returned as 'objective'"), _metrics(returned, who)


def describe_exit(code: int, process: str = "the process of the evaluation") -> str:
    """Return a sentence about the end of a process.

    Parameters
    ----------
    code : int
        Its exit code; minus the number of the signal if a signal ended it, as in :mod:`subprocess`.
    process : str, default "the process of the evaluation"
        How the sentence begins.
    """
    if code >= 0:
        return f"{process} exited with code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = "unknown"
    meaning = signal.strsignal(-code) if name != "unknown" else None
    hint = "; perhaps by the system, out of memory" if name == "SIGKILL" else ""
    return f"{process} was ended by signal {-code} ({name}{f': {meaning}' if meaning else ''}{hint})"


def _objective(value: Any, subject: str) -> float:
    number = _plain(value)
    if isinstance(number, bool) or not isinstance(number, (int, float)):
        raise ValueError(f"{subject} {_describe(value)}; the objective must be a finite number")
    try:
        objective = float(number)
    except OverflowError:
        raise ValueError(f"{subject} {_describe(number)}, too large for a float") from None
    if not math.isfinite(objective):
        raise ValueError(f"{subject} {objective}; the objective must be a finite number")
    return objective


def _metrics(returned: Mapping[Any, Any], who: str) -> dict[str, Any]:
    metrics: dict[str, Any] = {}
    size = 2
    for name, value in returned.items():
        if isinstance(name, str) and name == "objective":
            continue
        if not isinstance(name, str) or not name:
            raise ValueError(f"{who} returned a metric named by {_describe(name)}; names must be strings")
        plain = _metric(name, value, who)
        length = len(name) + (len(plain) if isinstance(plain, str) else 0)
        if size + length <= MAX_METRICS_BYTES:  # a huge string is not even encoded
            name, plain = _text(name), _text(plain) if isinstance(plain, str) else plain
            metrics[name] = plain
            length = len(json.dumps({name: plain}))
        size += length
        if size > MAX_METRICS_BYTES:
            raise ValueError(
                f"{who} returned an object of more than {MAX_METRICS_BYTES // 1024} KB "
                f"(metric {_short(name)} is {_describe(value)}); metrics must be numbers or short strings"
            )
    return metrics


def _metric(name: str, value: Any, who: str) -> Any:
    plain = _plain(value)
    if isinstance(plain, float):
        return float(plain) if math.isfinite(plain) else None
    if isinstance(plain, int) and not isinstance(plain, bool):
        if plain.bit_length() <= _MAX_INTEGER_BITS:
            return int(plain)
    elif plain is None or isinstance(plain, (bool, str)):
        return plain
    raise ValueError(
        f"{who} returned an object of which metric {_short(name)} is {_describe(value)}; "
        "metrics must be numbers or short strings"
    )


def _plain(value: Any) -> Any:
    """Return `value` as a Python scalar if it is one in any disguise, else as it is."""
    if value is None or isinstance(value, (bool, int, float, str, bytes, bytearray)):
        return value
    try:
        if hasattr(value, "item"):  # numpy, torch, jax
            return value.item()
        if hasattr(value, "__float__"):  # TensorFlow, Decimal, Fraction
            return float(value)
    except Exception:  # of the user's own class, or an array of many elements: no scalar
        pass
    return value


def _describe(value: Any) -> str:
    """Name a value without printing much of it: it may be 100 MB, and its ``repr`` may do anything."""
    if value is None:
        return "None"
    if isinstance(value, (bool, int)):
        return f"{value!r}" if value.bit_length() < 64 else f"an integer of {value.bit_length()} bits"
    if isinstance(value, str):
        return f"the string {_short(value)}" + (
            f" of {len(value)} characters" if len(value) > _SHOWN_CHARACTERS else ""
        )
    try:
        size = sys.getsizeof(value)
    except Exception:  # a user's class may lie
        size = 0
    return f"an object of type {type(value).__name__}" + (f" ({size / 1e6:.0f} MB)" if size > 1e6 else "")


def _short(text: str) -> str:
    shown = repr(_text(text[:_SHOWN_CHARACTERS]))
    return shown if len(text) <= _SHOWN_CHARACTERS else shown[:_SHOWN_CHARACTERS] + "..." + shown[-1]


def _text(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
