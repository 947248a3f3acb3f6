"""Configurations of other spaces, as far as they are some of this one.  Start at `adopt`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from ConfigSpace.hyperparameters import FloatHyperparameter, Hyperparameter, IntegerHyperparameter

from dhmpi.problem import choices
from dhmpi.search.encoding import Encoding

_ROUNDED = 1e-9
"""Part of a range by which a number may lie outside: files hold rounded ones."""
_ABSENT = object()


class Adopted(NamedTuple):
    """What could be used."""

    numbers: list[int]
    """Of the configurations."""
    rows: np.ndarray
    """Theirs in the encoding, shape (n, n_dims)."""
    whole: np.ndarray
    """Which of them name every active hyperparameter that can vary, bool of shape (n,)."""
    missing: list[str]
    """Hyperparameters that can vary and that none of them names, though they are always active."""


def adopt(encoding: Encoding, configs: Sequence[Mapping[str, Any]]) -> Adopted:
    """Make configurations of the space of those that share at least one hyperparameter with it.

    What the space does not know is left out; what a configuration does not name has the default of the space, which
    says best what it was when nobody thought of varying it.  A value outside of the space, or a combination that a
    clause forbids, cannot be used.
    """
    readers = {name: _reader(encoding.space[name]) for name in encoding.names}
    free = {name for name in encoding.names if encoding.space[name].size != 1}
    complete: list[dict[str, Any]] = []
    numbers: list[int] = []
    named: list[list[bool]] = []
    for number, config in enumerate(configs):
        if not any(name in config for name in free):
            continue
        values = {}
        for name, read in readers.items():
            value = read(config[name]) if name in config else encoding.space[name].default_value
            if value is _ABSENT:
                break
            values[name] = value.item() if isinstance(value, np.generic) else value
        else:
            complete.append(values)
            numbers.append(number)
            named.append([name in config or name not in free for name in encoding.names])
    rows, valid = encoding.resolve(encoding.encode(complete))
    there = np.array(named, dtype=bool).reshape(len(numbers), encoding.n_dims)[valid]
    rows = rows[valid]
    always = [not encoding.space.parent_conditions_of[name] for name in encoding.names]
    missing = [name for j, name in enumerate(encoding.names) if always[j] and len(rows) and not there[:, j].any()]
    return Adopted(
        [number for number, usable in zip(numbers, valid) if usable],
        rows,
        (there | ~encoding.activity(rows)).all(axis=1),
        missing,
    )


def _reader(hyperparameter: Hyperparameter) -> Callable[[Any], Any]:
    """Return what makes a legal value of a foreign one, or `_ABSENT`."""
    if isinstance(hyperparameter, FloatHyperparameter | IntegerHyperparameter):
        whole = isinstance(hyperparameter, IntegerHyperparameter)
        least, most = float(hyperparameter.lower), float(hyperparameter.upper)
        slack = 0.0 if whole else _ROUNDED * (most - least)

        def number(value: Any) -> Any:
            try:
                found = float(value) if not isinstance(value, bool) else float("nan")
            except (TypeError, ValueError):
                return _ABSENT
            if not least - slack <= found <= most + slack or (whole and found != int(found)):
                return _ABSENT
            return int(found) if whole else min(max(found, least), most)

        return number
    among: Sequence[Any] = choices(hyperparameter) or ()
    exact = {(type(choice), choice): choice for choice in among}
    spelt = {str(choice): choice for choice in among}
    numeric = {float(choice): choice for choice in among if isinstance(choice, int | float)}

    def choice(value: Any) -> Any:
        if (type(value), value) in exact:
            return exact[type(value), value]
        if isinstance(value, int | float) and not isinstance(value, bool) and float(value) in numeric:
            return numeric[float(value)]
        return spelt.get(str(value), _ABSENT)

    return choice
