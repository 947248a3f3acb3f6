"""From the history of a training to the number that a search maximises.

Start reading at :class:`Objective`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from dhmpi.errors import ProblemError
from dhmpi.nas.metrics import direction

History = dict[str, Any]
"""Lists by name, an entry an epoch: ``loss``; ``val_loss`` and ``val_<metric>``, if that epoch was validated."""

HOWS = ("last", "max", "min")
_TEXT = re.compile(r"(?P<sign>-?)(?P<key>\w+?)(__(?P<how>[A-Za-z]+))?")


@dataclass(frozen=True)
class Objective:
    """What is maximised.

    Attributes
    ----------
    text : str
        As the user wrote it; the name of a function.
    key : str
        Of the history; "" with a function.
    how : str
        Which of the epochs counts: "last", "max" or "min".
    sign : int
        -1 if the smallest value is best.
    function : callable or None
        Takes the history, returns a number.
    """

    text: str
    key: str = ""
    how: str = "last"
    sign: int = 1
    function: Callable[[History], Any] | None = None

    @property
    def every_epoch(self) -> bool:
        """Whether every epoch must be validated; otherwise the last will do."""
        return self.function is not None or self.how != "last"

    @property
    def metric(self) -> str:
        """The metric behind the key, with the name of an output if there is one."""
        return self.key.removeprefix("val_")

    def check(self, known: Collection[str]) -> None:
        """Refuse a metric that is not computed.

        Parameters
        ----------
        known : collection of str
            Keys that the history has.

        Raises
        ------
        ProblemError
        """
        if self.key and self.key not in known:
            raise ProblemError(
                f"the objective {self.text!r} names {self.key!r}, which is not computed: there are {', '.join(known)}"
            )

    def value(self, history: Mapping[str, Any]) -> float:
        """Return the objective after the epochs so far, NaN if there is none.

        An epoch that diverged does not count for "max" and "min".
        """
        if self.function is not None:
            return float(self.function(dict(history)))
        values = history.get(self.key, ())
        if self.how != "last":
            values = [value for value in values if math.isfinite(value)]
        if not values:
            return math.nan
        chosen = values[-1] if self.how == "last" else {"max": max, "min": min}[self.how](values)
        return self.sign * float(chosen)


def parse(objective: str | Callable[[History], Any]) -> Objective:
    """Return the objective that a user asks for.

    Parameters
    ----------
    objective : str or callable
        ``"val_r2"``, ``"val_acc__max"``, ``"-val_mse__min"`` and so on.

    Raises
    ------
    ProblemError
        If it cannot be understood, or would maximise an error.
    """
    if callable(objective) and not isinstance(objective, str):
        return Objective(getattr(objective, "__name__", type(objective).__name__), function=objective)
    if not isinstance(objective, str) or (match := _TEXT.fullmatch(objective)) is None:
        raise ProblemError(
            "the objective must be a function of the history, or such as 'val_r2', 'val_acc__max' or '-val_mse__min',"
            f" got {objective!r}"
        )
    how = match["how"] or "last"
    if how not in HOWS:
        raise ProblemError(f"the objective {objective!r} ends in __{how}; it can end in __last, __max or __min")
    sign = -1 if match["sign"] else 1
    key = match["key"]
    better = direction(re.sub(r"^(val_)?(output_\d+_)?", "", key))
    if better * sign < 0:
        advice, doing = (f"-{objective}", "maximise") if better < 0 else (objective[1:], "minimise")
        raise ProblemError(f"the objective {objective!r} would {doing} {key}; write {advice!r}")
    return Objective(objective, key, how, sign)
