"""Cheap screening: evaluate briefly first, and in full only what does best there.

Start reading at :class:`Screening`.
"""

from __future__ import annotations

import bisect
import heapq
import math
from collections.abc import Iterable, Sequence

import numpy as np

from dhmpi.errors import OptionError
from dhmpi.search.base import Search
from dhmpi.search.space import SpaceSearch
from dhmpi.trials import EPOCHS, PARENT, Config, Proposal


class Screening(Search):
    """Propose what another search proposes with few epochs, and the best of that again at full length.

    Asynchronous successive halving with two rungs.  A screening trial carries ``num_epochs``.  One that is among the
    best `promote` of all screened so far is proposed again without, as soon as it is, with the screening trial's key as
    ``parent``: a trial of its own.  The other search hears only of trials at full length; what was screened it takes
    for pending, so that it never proposes it again.

    Parameters
    ----------
    inner : SpaceSearch
        A new search; its keys become those of the screening trials.
    epochs : int
        Of a screening trial, >= 1.
    promote : float, default 0.25
        In (0, 1].

    Raises
    ------
    OptionError
        If the space has a hyperparameter named like what a screening trial, or a promoted one, carries.
    ValueError
        If `epochs` or `promote` is out of range.

    References
    ----------
    Li, Jamieson, Rostamizadeh, Gonina, Ben-Tzur, Hardt, Recht, Talwalkar (2020), A System for Massively Parallel
    Hyperparameter Tuning, MLSys 2 (ASHA).
    """

    def __init__(self, inner: SpaceSearch, epochs: int, promote: float = 0.25) -> None:
        super().__init__(inner.seed)
        if epochs < 1:
            raise ValueError(f"epochs must be >= 1, got {epochs}")
        if not 0 < promote <= 1:
            raise ValueError(f"promote must be in (0, 1], got {promote}")
        for name in (EPOCHS, PARENT):
            if name in inner.encoding.names:
                raise OptionError(
                    f"screening sets {name!r} in configurations, but the problem has a hyperparameter of that name: "
                    f"give it another one, or search without --screen-epochs"
                )
        self.informed = True  # newer knowledge brings promotions
        self._inner = inner
        self._epochs = epochs
        self._share = promote
        self._pending: dict[int, Config] = {}
        self._configs: dict[int, Config] = {}  # of what was screened, and may be promoted one day
        self._n_screened = 0
        self._ranking: list[tuple[float, int]] = []  # minus the objective, and key, of what was screened; best first
        self._candidates: list[tuple[float, int]] = []  # a heap: the part of it that has not been promoted
        self._promotions: dict[int, set[int]] = {}  # parent -> keys of its pending promotions
        self._objective: dict[int, float] = {}  # of what was screened, minus
        self._evaluated: set[int] = set()  # parents whose promotion has ended

    def drop(self, keys: Iterable[int]) -> None:
        for key in keys:
            parent = self._pending.pop(key).get(PARENT)
            if parent is None:
                self._inner.drop([key])
            else:
                self._end_promotion(parent, key)
                self._offer(parent)

    def pending(self) -> list[int]:
        return sorted(self._pending)

    def add(self, points: Sequence[tuple[int, Config]]) -> None:
        """Take points of users for pending; they are evaluated at full length at once."""
        super().add(points)
        self._inner.add(points)

    def knows(self, config: Config) -> bool:
        return self._inner.knows(config)

    def ask(self, n: int, replacing: Iterable[int] = ()) -> list[Proposal]:
        proposals = super().ask(n, replacing)
        # What is being screened may yet be promoted, and may bring others among the best.
        self.exhausted = self.exhausted and not any(EPOCHS in config for config in self._pending.values())
        return proposals

    def restore(
        self,
        finished: Sequence[tuple[int, Config, float | None]],
        pending: Sequence[tuple[int, Config]],
        n_asks: int,
    ) -> None:
        known = [*((key, config) for key, config, _ in finished), *pending]
        self._inner.restore([], [(key, _bare(config)) for key, config in known if PARENT not in config], n_asks)
        super().restore(finished, pending, n_asks)

    def _propose(self, n: int, replacing: frozenset[int], rng: np.random.Generator) -> list[Config]:
        configs = [{**self._configs[parent], PARENT: parent} for parent in self._promotable(n, replacing)]
        missing = n - len(configs)
        if missing:
            self._inner.n_asks = self.n_asks - 1  # the number of this ask, also after a restore
            self._inner.next_key = self.next_key + len(configs)
            replaced = [key for key in replacing if PARENT not in self._pending.get(key, ())]
            proposals = self._inner.ask(missing, replaced)
            configs += [{**config, EPOCHS: self._epochs} for _, config in proposals]
        return configs

    def _promotable(self, n: int, replacing: frozenset[int]) -> list[int]:
        """Take up to `n` of what was screened that are among the best and not promoted, best first."""
        parents = {self._pending[key][PARENT] for key in replacing if PARENT in self._pending.get(key, ())}
        released = {parent for parent in parents - self._evaluated if self._promotions[parent] <= replacing}
        for parent in released:
            heapq.heappush(self._candidates, (self._objective[parent], parent))
        n_best = int(self._share * self._n_screened + 1e-9)
        chosen: list[int] = []
        while len(chosen) < n and self._candidates:
            # All that are better have been promoted, so if this one is not among the best, no other candidate is.
            if bisect.bisect_left(self._ranking, self._candidates[0]) >= n_best:
                break
            chosen.append(heapq.heappop(self._candidates)[1])
        if left := released.difference(chosen):  # still promoted, until they are dropped
            self._candidates = [item for item in self._candidates if item[1] not in left]
            heapq.heapify(self._candidates)
        return chosen

    def _pend(self, proposals: Sequence[Proposal]) -> None:
        for key, config in proposals:
            self._pending[key] = config
            if (parent := config.get(PARENT)) is not None:
                self._promotions.setdefault(parent, set()).add(key)

    def _learn(self, results: Sequence[tuple[int, float | None]]) -> None:
        told: list[tuple[int, float | None]] = []
        for key, objective in results:
            config = self._pending.pop(key)
            if (parent := config.get(PARENT)) is not None:
                self._end_promotion(parent, key)
                if parent not in self._evaluated:  # otherwise a replaced promotion was evaluated too: the first counts
                    self._evaluated.add(parent)
                    told.append((parent, objective))
            elif EPOCHS in config:
                self._screened(key, config, objective)
            else:  # of an earlier launch, which did not screen
                told.append((key, objective))
        if told:
            self._inner.tell(told)

    def _screened(self, key: int, config: Config, objective: float | None) -> None:
        self._n_screened += 1
        if objective is None or math.isnan(objective):
            return
        self._configs[key], self._objective[key] = _bare(config), -objective
        bisect.insort(self._ranking, (-objective, key))
        self._offer(key)

    def _offer(self, parent: int) -> None:
        """Let a screened configuration be promoted, unless it is or was."""
        if parent in self._objective and parent not in self._promotions and parent not in self._evaluated:
            heapq.heappush(self._candidates, (self._objective[parent], parent))

    def _end_promotion(self, parent: int, key: int) -> None:
        self._promotions[parent].discard(key)
        if not self._promotions[parent]:
            del self._promotions[parent]


def _bare(config: Config) -> Config:
    return {name: value for name, value in config.items() if name not in (EPOCHS, PARENT)}
