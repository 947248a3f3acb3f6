"""When a run must have ended: by its time limit, by the scheduler's job, by what users want.  Start at `Deadline`."""

from __future__ import annotations

import time

from dhmpi.mpi.environment import job_deadline
from dhmpi.options import SearchOptions
from dhmpi.steering import OrderError

CLOSING = 10.0
"""Seconds before the end of the scheduler's job, a twentieth of the time at most, by which the run has ended."""


class Deadline:
    """The time at which everything that runs is ended, on the monotonic clock; perhaps there is none.

    Parameters
    ----------
    options : SearchOptions
        Its time limit counts from `started`.
    started : float
        Monotonic time at which this launch began.
    """

    def __init__(self, options: SearchOptions, started: float) -> None:
        self._grace = options.grace
        self._started = started
        limit = None if options.time_limit is None else started + options.time_limit
        self._at = min((at for at in (limit, _of_the_job()) if at is not None), default=None)

    @property
    def left(self) -> float | None:
        """Seconds that are left, None if there is no end to them."""
        return None if self._at is None else self._at - time.monotonic()

    @property
    def grace(self) -> float:
        """Seconds before the end in which nothing new is started: a tenth of the time at most."""
        return self._grace if self._at is None else min(self._grace, 0.1 * (self._at - self._started))

    def set(self, left: float | None) -> None:
        """End in so many seconds, or never."""
        self._at = None if left is None else time.monotonic() + left

    def drain(self) -> float:
        """Leave what runs the grace period; return the seconds that are left now."""
        left = self._grace if self.left is None else min(self._grace, self.left)
        self.set(left)
        return left

    def limit(self, left: float | None) -> None:
        """End in so many seconds as a user wants, or when the scheduler's job ends.

        Raises
        ------
        OrderError
            If that is over, or later than the end of the scheduler's job.
        """
        job = _of_the_job()
        if left is None:
            self._at = job
            return
        if left <= 0:
            raise OrderError("that time is over; stop ends the run")
        if job is not None and left > (left_of_job := job - time.monotonic()):
            raise OrderError(f"the scheduler's job ends before, in {left_of_job / 60:.1f} minutes")
        self.set(left)


def _of_the_job() -> float | None:
    """Return the monotonic time by which a run in the scheduler's job should have ended, None if that has no end."""
    job = job_deadline()
    if job is None:
        return None
    left = job - time.time()
    return time.monotonic() + left - min(CLOSING, 0.05 * max(0.0, left))
