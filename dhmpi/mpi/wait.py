"""The one polite wait: nobody spins.

A blocking receive burns a whole core in Open MPI and MPICH, with all their yield options.  Here a rank looks, sleeps,
and looks again; the sleep grows with the time waited so far, so that waiting costs next to nothing and adds little to
any wait.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Sequence

SHORTEST = 2e-4
LONG = 5e-3
FRACTION = 0.15
"""A sleep lasts this part of the time waited so far, between SHORTEST and LONG seconds.  Each costs about 0.1 ms of a
core, however little is done after it (measured on a virtual machine)."""
LONGEST = 5e-2
LATER_FRACTION = 0.02
"""Whoever has waited for long waits in longer sleeps, of this part of that time, up to LONGEST seconds."""


class Wait:
    """Sleeps between looks.

    Parameters
    ----------
    clock : callable, default time.monotonic
    sleep : callable, default time.sleep
    shortest : float, default SHORTEST
        Seconds of the first sleep; more where nobody waits for an answer.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        shortest: float = SHORTEST,
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        self.shortest = shortest
        self._since = clock()

    def restart(self) -> None:
        """Note that something happened: the next sleep is short again."""
        self._since = self._clock()

    def sleep(self, fds: Sequence[int] = ()) -> None:
        """Sleep a little; wake at once when one of the file descriptors can be read."""
        waited = self._clock() - self._since
        seconds = max(self.shortest, min(LONG, FRACTION * waited), min(LONGEST, LATER_FRACTION * waited))
        if fds:
            select.select(fds, (), (), seconds)
        else:
            self._sleep(seconds)
