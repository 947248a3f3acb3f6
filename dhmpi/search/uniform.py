"""Random search: draws from the prior of the space, without repeats."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from dhmpi.search.space import SpaceSearch, Taken


class UniformSearch(SpaceSearch):
    """Propose random configurations, none twice, until the space is exhausted.

    A proposal costs microseconds, so it may live in the master.  The generator of each ask is all its state, but for
    what it knows to be told or pending.

    References
    ----------
    Bergstra, Bengio (2012), Random Search for Hyper-Parameter Optimization, J. Mach. Learn. Res. 13.
    """

    fits: ClassVar[bool] = False

    def _select(self, n: int, taken: Taken, replacing: frozenset[int], rng: np.random.Generator) -> np.ndarray:
        return self._random(n, taken, rng)
