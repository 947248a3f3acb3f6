"""Regularized (ageing) evolution: the best of a few random members of the population has a mutated child.

Start reading at :class:`RegularizedEvolution`.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import ClassVar

import ConfigSpace
import numpy as np

from dhmpi.search.space import SpaceSearch, Taken
from dhmpi.trials import Config

RETRIES = 10
"""New mutations of a parent whose child is known already, before the child is mutated a second time."""


class RegularizedEvolution(SpaceSearch):
    """Propose mutated children of good members of a population that ages.

    The population is the last `population_size` configurations told, so whoever is told the oldest dies, however good.
    Until it is full, proposals are random.  Then each child has the best of `sample_size` members, drawn with
    replacement as in the paper, as its parent; of equally good ones the younger.  The child differs from it in one
    hyperparameter (:meth:`dhmpi.search.encoding.Encoding.change_one`).  A failed evaluation is a member worse than all
    others.

    A child that is pending is mutated anew from its parent, up to 10 times, then mutated a second time, and then
    replaced by a random one.  One that was told may be proposed again, as in the paper: a noisy objective is sampled
    again where it is best, and good members stay in the population.  Not so with `unique`, and in a finite space of
    which half is told: what is left of it is then proposed, each configuration once.

    A proposal costs microseconds, so the search may live in the master.

    Parameters
    ----------
    space : ConfigurationSpace
    seed : int
    starting_points : sequence of dict
        Configurations to be evaluated first.
    population_size : int, default 100
        P of the paper.
    sample_size : int, default 10
        S of the paper, the size of a tournament.
    crossover : float, default 0
        Chance that a child takes each hyperparameter from either of two winners before it is mutated.
    unique : bool, default False
        Whether nothing that was told is proposed again.

    Raises
    ------
    ValueError
        If a size is below 1, or `crossover` no probability.

    Attributes
    ----------
    mutable : ndarray of int or None
        Columns of the encoding that a mutation may change, ``None``: all.

    References
    ----------
    Real, Aggarwal, Huang, Le (2019), Regularized Evolution for Image Classifier Architecture Search, AAAI 33.
    """

    fits: ClassVar[bool] = False

    def __init__(
        self,
        space: ConfigSpace.ConfigurationSpace,
        seed: int,
        starting_points: Sequence[Config] = (),
        *,
        population_size: int = 100,
        sample_size: int = 10,
        crossover: float = 0.0,
        unique: bool = False,
    ) -> None:
        super().__init__(space, seed, starting_points)
        for name, size in (("population_size", population_size), ("sample_size", sample_size)):
            if size < 1:
                raise ValueError(f"{name} must be >= 1, got {size}")
        if not 0 <= crossover <= 1:
            raise ValueError(f"crossover must be in [0, 1], got {crossover}")
        self.population_size = population_size
        self.sample_size = sample_size
        self.crossover = crossover
        self.unique = unique
        # Even the random ones at the beginning: asked again once the population is full, they would be children.
        self.informed = True
        self.mutable: np.ndarray | None = None
        self._population: deque[tuple[float, bytes]] = deque(maxlen=population_size)  # oldest first

    def warm_start(self, rows: np.ndarray, objectives: Sequence[float | None], whole: np.ndarray) -> None:
        """Begin with the best of earlier evaluations as the population; the worst of them die first."""
        fitness = [-math.inf if y is None or math.isnan(y) else y for y in objectives]
        identities = self.encoding.identities(rows)
        best = np.argsort(fitness, kind="stable")[-self.population_size :]
        self._population.extend((fitness[i], identities[i]) for i in best)

    def _learn(self, results: Sequence[tuple[int, float | None]]) -> None:
        for key, objective in results:
            identity = self._forget(key)
            self._told.add(identity)
            fitness = -math.inf if objective is None or math.isnan(objective) else objective
            self._population.append((fitness, identity))

    def _select(self, n: int, taken: Taken, replacing: frozenset[int], rng: np.random.Generator) -> np.ndarray:
        if not self._is_full:
            return self._random(n, taken, rng)
        parents, partners = self._couples(n, rng)
        return self._children(parents, partners, taken, rng)

    @property
    def _is_full(self) -> bool:
        return len(self._population) == self.population_size

    def _couples(self, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Return n parents, and with whom each is crossed: itself, without crossover."""
        population = self._as_rows([identity for _, identity in self._population])
        # From the worst to the best; a stable order puts the younger of equals last.
        ranked = population[np.argsort([fitness for fitness, _ in self._population], kind="stable")]
        parents = ranked[self._tournaments(n, rng)]
        if not self.crossover:
            return parents, parents
        others = ranked[self._tournaments(n, rng)]
        return parents, np.where((rng.random(n) < self.crossover)[:, None], others, parents)

    def _children(
        self, parents: np.ndarray, partners: np.ndarray, taken: Taken, rng: np.random.Generator
    ) -> np.ndarray:
        """Take a child of each couple, or something random where it has none that is new; fewer if there is no more."""
        n = len(parents)
        rows, valid = self._mutated(parents, partners, rng)
        candidates = np.flatnonzero(valid)
        known = taken if self.unique or 2 * len(self._told) >= self.size else taken.but_told()
        fresh = candidates[known.fresh(self.encoding.identities(rows[candidates]), n)]
        children = [rows[fresh]]
        if len(fresh) < n:
            # All retries at once; of the first that is new the rest does not count.
            again = np.repeat(np.delete(np.arange(n), fresh), RETRIES)
            rows, valid = self._mutated(parents[again], partners[again], rng)
            first, left = self._first_fresh(rows, valid, known)
            children.append(rows[first])
            if left:
                rows, valid = self.encoding.change_one(rows[left], rng, self.mutable)
                rows = rows[valid]
                children.append(rows[known.fresh(self.encoding.identities(rows), n)])
        n_missing = n - sum(map(len, children))
        if n_missing:
            children.append(self._random(n_missing, taken, rng))
        return np.concatenate(children)

    def _first_fresh(self, rows: np.ndarray, valid: np.ndarray, taken: Taken) -> tuple[list[int], list[int]]:
        """Take, of each `RETRIES` rows, the first that is new; return their numbers, and the last row of the others."""
        identities = self.encoding.identities(rows)
        first, left = [], []
        for begin in range(0, len(rows), RETRIES):
            for i in range(begin, begin + RETRIES):
                if valid[i] and identities[i] not in taken:
                    taken.add(identities[i])
                    first.append(i)
                    break
            else:
                left.append(begin + RETRIES - 1)
        return first, left

    def _tournaments(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Return the ranks of the winners of n tournaments, 0 for the worst of the population."""
        return rng.integers(self.population_size, size=(n, self.sample_size)).max(axis=1)

    def _mutated(
        self, parents: np.ndarray, partners: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        rows = self.encoding.mix(parents, partners, rng)[0] if self.crossover else parents
        return self.encoding.change_one(rows, rng, self.mutable)
