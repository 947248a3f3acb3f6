"""A search over a given list of configurations: each is proposed once, in order."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import ClassVar

import numpy as np

from dhmpi.search.base import Search
from dhmpi.trials import Config, Proposal


class ListedSearch(Search):
    """Propose the configurations of a list, from its beginning to its end, each once.

    Objectives do not matter.  A run may go on with a longer list: what was told is not proposed again.

    Parameters
    ----------
    configs : sequence of dict
    seed : int, default 0
        Without effect: nothing here is random.

    Raises
    ------
    ValueError
        If two configurations are equal.
    """

    fits: ClassVar[bool] = False

    def __init__(self, configs: Sequence[Config], seed: int = 0) -> None:
        super().__init__(seed)
        self._configs = {_identity(config): config for config in configs}
        if len(self._configs) < len(configs):
            raise ValueError(f"of {len(configs)} configurations only {len(self._configs)} differ")
        self._pending: dict[int, str] = {}
        self._told: set[str] = set()

    def drop(self, keys: Iterable[int]) -> None:
        for key in keys:
            del self._pending[key]

    def pending(self) -> list[int]:
        return sorted(self._pending)

    def _propose(self, n: int, replacing: frozenset[int], rng: np.random.Generator) -> list[Config]:
        taken = self._told.union(identity for key, identity in self._pending.items() if key not in replacing)
        free = [config for identity, config in self._configs.items() if identity not in taken]
        return [dict(config) for config in free[:n]]

    def _pend(self, proposals: Sequence[Proposal]) -> None:
        self._pending.update((key, _identity(config)) for key, config in proposals)

    def _learn(self, results: Sequence[tuple[int, float | None]]) -> None:
        self._told.update(self._pending.pop(key) for key, _ in results)


def _identity(config: Config) -> str:
    return json.dumps(config, sort_keys=True)
