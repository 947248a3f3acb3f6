"""What every search is: ask for configurations, tell what came of them.

A search knows nothing of MPI, files or clocks.  The same class runs in the searcher's child process, in the master
(searches that cost microseconds), in virtual time and in tests.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np

from dhmpi.trials import Config, Proposal


class Team(Protocol):
    """The agents that share the work of a search that learns; all but the one that runs the search are elsewhere."""

    def update(self, learner: Any, episodes: Any, rewards: np.ndarray, progress: float) -> Any:
        """Have every agent's learner learn a batch, see :meth:`dhmpi.search.ppo.Learner.update`."""


@runtime_checkable
class Learning(Protocol):
    """A search that learns with a team."""

    team: Team


class Search(ABC):
    """Proposes configurations of a space; objectives are maximised.

    Reproducible: the generator of ask number n is ``numpy.random.default_rng([seed, n])``, so the same seed and the
    same sequence of calls give the same proposals.

    Parameters
    ----------
    seed : int
        Of every random choice.

    Attributes
    ----------
    informed : bool
        Whether the last answer depends on what was told, so that asking again with more told may improve on it.
    exhausted : bool
        Whether the last answer was shorter than asked, and nothing but dropping proposals can change that.
    reused : dict of int to float
        Key and objective of those proposals of the last answer that need no evaluation.
    notes : list of dict
        What the journal should hold of how the last answer came about: events.
    stop : str
        Why the search wants to end; empty as long as it does not.
    resolve : callable or None
        A point as users write it, and whether its values are text -> the configuration as it is proposed; raises
        `ProblemError` for what is none.  None where points of users make no sense.
    n_fits : int
        How often it has learned so far in a way that takes time: models fitted, or batches that a policy learned from.
    """

    fits: ClassVar[bool] = True
    """Whether an ask may fit a model and so take long; such a search runs in a process of its own."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.n_asks = 0
        self.next_key = 0
        self.n_told = 0
        self.informed = False
        self.exhausted = False
        self.reused: dict[int, float] = {}
        self.notes: list[dict[str, Any]] = []
        self.stop = ""
        self.resolve: Callable[[Mapping[str, Any], bool], Config] | None = None
        self.n_fits = 0

    def ask(self, n: int, replacing: Iterable[int] = ()) -> list[Proposal]:
        """Propose up to `n` configurations, none of them told, pending, or twice in the answer.

        Parameters
        ----------
        n : int
            How many, >= 1.
        replacing : iterable of int
            Keys of earlier proposals that nobody has started and that these are meant to replace: they do not count as
            pending in this ask, and may be proposed again.  They stay known until told or dropped.

        Returns
        -------
        list of Proposal
            Shorter than `n` only if the space holds no more.
        """
        rng = np.random.default_rng([self.seed, self.n_asks])
        self.n_asks += 1
        configs = self._propose(n, frozenset(replacing), rng)
        self.exhausted = len(configs) < n
        first, self.next_key = self.next_key, self.next_key + len(configs)
        proposals = [Proposal(first + i, config) for i, config in enumerate(configs)]
        self._pend(proposals)
        return proposals

    def tell(self, results: Sequence[tuple[int, float | None]]) -> None:
        """Take what came of proposals: pairs of key and objective, ``None`` for a failed evaluation."""
        self.n_told += len(results)
        self._learn(results)

    def add(self, points: Sequence[tuple[int, Config]]) -> None:
        """Take points of users for pending, which are evaluated without having been proposed; their keys are < 0."""
        self._pend([Proposal(key, config) for key, config in points])

    def knows(self, config: Config) -> bool:
        """Return whether a configuration was told or is pending, so that it need not be added."""
        return False

    def limit(self, max_evals: int) -> None:  # noqa: B027  few searches care
        """Take note of how many evaluations there will be in all."""

    @abstractmethod
    def drop(self, keys: Iterable[int]) -> None:
        """Forget proposals that will never be evaluated; they may be proposed again."""

    @abstractmethod
    def pending(self) -> list[int]:
        """Return the keys of the proposals that are neither told nor dropped, in order."""

    def restore(
        self,
        finished: Sequence[tuple[int, Config, float | None]],
        pending: Sequence[tuple[int, Config]],
        n_asks: int,
    ) -> None:
        """Continue an earlier run: its finished trials in the order of their end, its unfinished ones, its asks so far.

        Call it once, on a new search.
        """
        self._pend([Proposal(key, config) for key, config, _ in finished])
        self._pend([Proposal(key, config) for key, config in pending])
        self.tell([(key, objective) for key, _, objective in finished])
        keys = [key for key, _, _ in finished] + [key for key, _ in pending]
        self.next_key = max([-1, *keys]) + 1
        self.n_asks = n_asks

    @abstractmethod
    def _propose(self, n: int, replacing: frozenset[int], rng: np.random.Generator) -> list[Config]:
        """Return up to `n` new configurations."""

    @abstractmethod
    def _pend(self, proposals: Sequence[Proposal]) -> None:
        """Remember proposals as pending."""

    @abstractmethod
    def _learn(self, results: Sequence[tuple[int, float | None]]) -> None:
        """Move proposals from pending to told."""
