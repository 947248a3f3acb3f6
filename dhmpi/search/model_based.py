"""Asynchronous model-based search (AMBS): a surrogate learns from finished trials, an acquisition function chooses.

Start reading at :meth:`ModelBasedSearch._select`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ConfigSpace
import numpy as np

from dhmpi.search.chooser import Chooser, design_size, initial_design
from dhmpi.search.space import SpaceSearch, Taken
from dhmpi.trials import Config


class ModelBasedSearch(SpaceSearch):
    """Propose starting points, then an initial design, then what a model of the finished trials finds promising.

    Asynchronous: any number of proposals may be pending, and the model knows them.  A batch of any size comes out of
    at most one fit, and the cost of an ask does not grow with the number of finished trials.

    Parameters
    ----------
    space : ConfigurationSpace
    seed : int
    n_evaluators : int
        How many trials run at a time: the initial design has at least so many.
    max_evals : int
        Budget of trials: the initial design takes a quarter of it at most, unless there are more evaluators.
    starting_points : sequence of dict
        Configurations to be evaluated first, in this order.
    **options
        Of :class:`dhmpi.search.chooser.Chooser`: surrogate_model, liar_strategy, acq_func, kappa, xi, n_jobs.

    Raises
    ------
    OptionError
        If an option has a value that makes no sense.
    ProblemError
        If the space is empty or a starting point is none of its configurations.

    References
    ----------
    Jones, Schonlau, Welch (1998), Efficient Global Optimization of Expensive Black-Box Functions, J. Glob. Optim. 13.
    Snoek, Larochelle, Adams (2012), Practical Bayesian Optimization of Machine Learning Algorithms, NeurIPS 25.
    Ginsbourger, Le Riche, Carraro (2010), Kriging Is Well-Suited to Parallelize Optimization (constant liar).
    Hutter, Hoos, Leyton-Brown (2011), Sequential Model-Based Optimization for General Algorithm Configuration, LION 5.
    """

    def __init__(
        self,
        space: ConfigSpace.ConfigurationSpace,
        seed: int,
        *,
        n_evaluators: int,
        max_evals: int,
        starting_points: Sequence[Config] = (),
        **options: Any,
    ) -> None:
        super().__init__(space, seed, starting_points)
        self._chooser = Chooser(self.encoding, n_evaluators=n_evaluators, **options)
        n_initial = design_size(self.encoding, n_evaluators, max_evals) - len(self.starting_points)
        design = initial_design(self.encoding, max(n_initial, 0), seed)
        self._design = dict(zip(self.encoding.identities(design), design))

    def warm_start(self, rows: np.ndarray, objectives: Sequence[float | None], whole: np.ndarray) -> None:
        for row, objective in zip(rows, objectives):
            self._chooser.learn(row, objective)
        # What they have explored in all directions need not be explored again.
        n_left = max(0, len(self._design) - int(whole.sum()))
        self._design = dict(list(self._design.items())[:n_left])

    def _select(self, n: int, taken: Taken, replacing: frozenset[int], rng: np.random.Generator) -> np.ndarray:
        chosen = taken.of(self._design, n).reshape(-1, self.encoding.n_dims)
        # Also what is random because nothing is known yet: asked again later, the model would propose better.
        self.informed = len(chosen) < n
        # If all that is left is asked for, there is nothing to choose.
        if len(chosen) < n < self.size - len(self._told):
            pending = np.concatenate([self._pending_rows(replacing), chosen])
            chosen = np.concatenate([chosen, self._chooser.choose(n - len(chosen), taken, pending, rng)])
            self.n_fits = self._chooser.n_fits
        if len(chosen) < n:
            chosen = np.concatenate([chosen, self._random(n - len(chosen), taken, rng)])
        return chosen

    def _learn(self, results: Sequence[tuple[int, float | None]]) -> None:
        for key, objective in results:
            self._chooser.learn(self._as_rows([self._pending[key]])[0], objective)
        super()._learn(results)
