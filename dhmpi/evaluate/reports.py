"""Intermediate values on their way out of an evaluation.  Standard library only: the child uses this."""

from __future__ import annotations

import time
from collections.abc import Callable

REPORT_EVERY = 0.05
"""Seconds between reports that leave the evaluation."""


class Reports:
    """Passes intermediate values on, not too many of them.

    Parameters
    ----------
    pass_on : callable
        Takes step and value of a report that leaves.
    """

    def __init__(self, pass_on: Callable[[int, float], None]) -> None:
        self._pass_on = pass_on
        self._sent = float("-inf")
        self._latest: tuple[int, float] | None = None

    def take(self, step: int, value: float) -> None:
        """Pass a value on now or, unless another follows, later."""
        self._latest = (step, value)
        if time.monotonic() - self._sent >= REPORT_EVERY:
            self.flush()

    def flush(self) -> None:
        """Pass on what waits."""
        if self._latest is not None:
            latest, self._latest = self._latest, None
            self._sent = time.monotonic()
            self._pass_on(*latest)
