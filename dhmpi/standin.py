"""Random proposals at the price of a search: who keeps up with whom can be learned without the search itself.

It says that it fits whenever the search would, and its answers count as better with more knowledge.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

import ConfigSpace

from dhmpi.costs import Entry
from dhmpi.search.uniform import UniformSearch
from dhmpi.trials import Config, Proposal


class StandIn(UniformSearch):
    """Propose random configurations in the rhythm of a search that fits models.

    Parameters
    ----------
    space : ConfigurationSpace
    seed : int
    starting_points : sequence of dict
    entry : Entry
        Costs of the other search.
    n_design : int
        Proposals that it makes before it fits anything.
    """

    fits: ClassVar[bool] = True

    def __init__(
        self,
        space: ConfigSpace.ConfigurationSpace,
        seed: int,
        starting_points: Sequence[Config] = (),
        *,
        entry: Entry,
        n_design: int,
    ) -> None:
        super().__init__(space, seed, starting_points)
        self._entry = entry
        self._n_design = n_design
        self._fitted_at = 0

    def ask(self, n: int, replacing: Iterable[int] = ()) -> list[Proposal]:
        proposals = super().ask(n, replacing)
        self.informed = self.next_key > self._n_design
        patience = self._entry.patience(self.n_told)
        if self.informed and self.n_told and patience and self.n_told > self._fitted_at * (1 + patience):
            self._fitted_at = self.n_told
            self.n_fits += 1
        return proposals
