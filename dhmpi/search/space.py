"""What searches over a ConfigSpace share: starting points, duplicates, finite spaces that run out.

Start reading at :class:`SpaceSearch`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import ConfigSpace
import numpy as np

from dhmpi.search.base import Search
from dhmpi.search.encoding import ENUMERABLE, Encoding
from dhmpi.trials import Config, Proposal

_TRIES = 8  # draws, each of twice as many, before a finite space is looked through


class Taken:
    """The configurations that one ask must not propose, by identity; it grows by what the ask picks."""

    def __init__(self, told: set[bytes], pending: Counter[bytes], released: Counter[bytes]) -> None:
        self._told = told
        self._pending = pending
        self._released = released
        self._picked: set[bytes] = set()

    def __contains__(self, identity: bytes) -> bool:
        if identity in self._told or identity in self._picked:
            return True
        return identity in self._pending and self._pending[identity] > self._released[identity]

    def but_told(self) -> Taken:
        """Return the same without what is told, which may be proposed again; what either picks is taken in both."""
        other = Taken(set(), self._pending, self._released)
        other._picked = self._picked
        return other

    def add(self, identity: bytes) -> None:
        """Take a configuration."""
        self._picked.add(identity)

    def of(self, rows: Mapping[bytes, np.ndarray], most: int) -> np.ndarray:
        """Take the first `most` rows, by identity, that are not taken yet; return them."""
        identities = list(rows)
        return np.array([rows[identities[i]] for i in self.fresh(identities, most)])

    def fresh(self, identities: Sequence[bytes], most: int) -> list[int]:
        """Take the first `most` identities that are not taken yet; return their positions."""
        positions: list[int] = []
        for i, identity in enumerate(identities):
            if len(positions) == most:
                break
            if identity not in self:
                self._picked.add(identity)
                positions.append(i)
        return positions


def left(encoding: Encoding, taken: Taken, rng: np.random.Generator) -> np.ndarray:
    """Return every configuration of a listed space that is not taken, shuffled, shape (n, n_dims)."""
    rows = encoding.enumerated
    if rows is None:
        raise ValueError(f"a space of {encoding.size} configurations cannot be listed")
    free = [i for i, identity in enumerate(encoding.identities(rows)) if identity not in taken]
    return rows[rng.permutation(np.array(free, dtype=int))]


class SpaceSearch(Search):
    """A search over a ConfigSpace: starting points first, never a duplicate, finite spaces exhausted.

    Parameters
    ----------
    space : ConfigurationSpace
    seed : int
    starting_points : sequence of dict
        Configurations to be evaluated first, in this order; repeated ones count once.

    Attributes
    ----------
    to_config, from_config : callable or None
        Values of the space -> configuration as it is proposed, and back; None where they are the same.

    Raises
    ------
    ProblemError
        If the space is empty, its clauses forbid everything, or a starting point is none of its configurations.
    """

    def __init__(
        self, space: ConfigSpace.ConfigurationSpace, seed: int, starting_points: Sequence[Config] = ()
    ) -> None:
        super().__init__(seed)
        self.encoding = Encoding(space)
        self.starting_points = {self.encoding.identity(c): c for c in map(self.encoding.native, starting_points)}
        self.encoding.sample(np.random.default_rng(seed), 1)  # clauses that forbid everything are refused here
        self.to_config: Callable[[Config], Config] | None = None
        self.from_config: Callable[[Mapping[str, Any]], Config] | None = None
        self._pending: dict[int, bytes] = {}
        self._pending_count: Counter[bytes] = Counter()
        self._told: set[bytes] = set()

    @property
    def size(self) -> int | float:
        """Number of configurations of the space, ``inf`` with any float (:attr:`Encoding.size`)."""
        return self.encoding.size

    def warm_start(self, rows: np.ndarray, objectives: Sequence[float | None], whole: np.ndarray) -> None:
        """Learn from evaluations that are none of this run, before the first ask.

        They do not count as told: any of them may be proposed.  A search that learns from nothing forgets them.

        Parameters
        ----------
        rows : ndarray of shape (n, n_dims)
            Configurations in the encoding.
        objectives : sequence of float or None
            None for a failed evaluation.
        whole : ndarray of bool, shape (n,)
            Which of them name every hyperparameter that can vary; the others have some defaults.
        """

    def drop(self, keys: Iterable[int]) -> None:
        for key in keys:
            self._forget(key)

    def pending(self) -> list[int]:
        return sorted(self._pending)

    def knows(self, config: Config) -> bool:
        identity = self._identify([config])[0]
        return identity in self._told or identity in self._pending_count

    def _propose(self, n: int, replacing: frozenset[int], rng: np.random.Generator) -> list[Config]:
        released = Counter(self._pending[key] for key in replacing if key in self._pending)
        taken = Taken(self._told, self._pending_count, released)
        configs = self._starting(n, taken)
        if len(configs) < n:
            configs += self.encoding.decode(self._select(n - len(configs), taken, replacing, rng))
        return configs if self.to_config is None else list(map(self.to_config, configs))

    @abstractmethod
    def _select(self, n: int, taken: Taken, replacing: frozenset[int], rng: np.random.Generator) -> np.ndarray:
        """Return up to `n` new rows of the encoding, and take them."""

    def _starting(self, n: int, taken: Taken) -> list[Config]:
        identities = list(self.starting_points)
        return [dict(self.starting_points[identities[i]]) for i in taken.fresh(identities, n)]

    def _random(self, n: int, taken: Taken, rng: np.random.Generator) -> np.ndarray:
        """Take up to `n` random configurations; fewer only if the space holds no more."""
        found: list[np.ndarray] = []
        missing = draws = n
        listed = self.size <= ENUMERABLE
        for _ in range(_TRIES if listed else 5 * _TRIES):
            rows = self.encoding.sample(rng, draws)
            found.append(rows[taken.fresh(self.encoding.identities(rows), missing)])
            missing -= len(found[-1])
            if not missing:
                return np.concatenate(found)
            draws = min(max(2 * draws, 64), 1 << 16)
        if not listed:
            return np.concatenate(found)
        # Nearly everything is taken: look through what there is.
        found.append(left(self.encoding, taken, rng)[:missing])
        for identity in self.encoding.identities(found[-1]):
            taken.add(identity)
        return np.concatenate(found)

    def _pend(self, proposals: Sequence[Proposal]) -> None:
        for proposal, identity in zip(proposals, self._identify([proposal.config for proposal in proposals])):
            self._pending[proposal.key] = identity
            self._pending_count[identity] += 1

    def _identify(self, configs: Sequence[Config]) -> list[bytes]:
        """Return what is equal for equal configurations."""
        rows = self.encoding.encode(configs if self.from_config is None else list(map(self.from_config, configs)))
        return self.encoding.identities(rows)

    def _learn(self, results: Sequence[tuple[int, float | None]]) -> None:
        for key, _ in results:
            self._told.add(self._forget(key))

    def _pending_rows(self, replacing: frozenset[int]) -> np.ndarray:
        """Return the rows of pending proposals in the order of their keys, shape (n, n_dims)."""
        return self._as_rows([identity for key, identity in sorted(self._pending.items()) if key not in replacing])

    def _as_rows(self, identities: Sequence[bytes]) -> np.ndarray:
        return np.frombuffer(b"".join(identities)).reshape(-1, self.encoding.n_dims)

    def _forget(self, key: int) -> bytes:
        """Take a proposal out of the pending ones; several keys may stand for one configuration."""
        identity = self._pending.pop(key)
        if self._pending_count[identity] == 1:
            del self._pending_count[identity]
        else:
            self._pending_count[identity] -= 1
        return identity
