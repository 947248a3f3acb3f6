"""Ageing evolution with Bayesian optimisation: architectures evolve, how they are trained is learned.

Start reading at :meth:`AgeingBayesianSearch._select`.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar

import ConfigSpace
import numpy as np

from dhmpi.errors import ProblemError
from dhmpi.search.chooser import Chooser, design_size, initial_design
from dhmpi.search.encoding import Encoding
from dhmpi.search.evolution import RETRIES, RegularizedEvolution
from dhmpi.search.space import Taken
from dhmpi.trials import Config


class AgeingBayesianSearch(RegularizedEvolution):
    """Propose children whose architecture is a mutated parent's, and whose hyperparameters a model proposes.

    The decisions of the architecture evolve as in regularized evolution.  The other hyperparameters, those of the
    data-parallel training, are not inherited: a model that learns from the hyperparameters and objectives of all
    finished trials, whatever their architectures, proposes them, one set for each child.  It may propose the same ones
    again and again, with other architectures.  Until the population is full architectures are random, and
    hyperparameters come from an initial design that fills their space evenly, then from the model.

    Where a condition or a clause ties a hyperparameter to a decision, the model proposes a value in any case, and the
    configuration goes without it where it is inactive; a child that a clause forbids is mutated anew.

    Parameters
    ----------
    space : ConfigurationSpace
    seed : int
    decisions : iterable of str
        Names of the hyperparameters that are the architecture.
    n_evaluators : int
        How many trials run at a time: the initial design has at least so many.
    max_evals : int
        Budget of trials: the initial design takes a quarter of it at most, unless there are more evaluators.
    starting_points : sequence of dict
        Configurations to be evaluated first.
    population_size, sample_size, crossover, unique
        As in :class:`dhmpi.search.evolution.RegularizedEvolution`.
    kappa : float, default 0.001
        Of UCB: nearly nothing but exploitation did best in the paper.
    liar_strategy : {"cl_min", "cl_mean", "cl_max"} or None, default "cl_min"
        As in :class:`dhmpi.search.chooser.Chooser`.  A model that does not explore proposes one and the same thing for
        a whole batch, unless it is told that what is pending may be bad.
    surrogate_model : {"auto", "GP", "RF", "ET", "GBRT", "DUMMY"}, default "auto"
        As in :class:`dhmpi.search.chooser.Chooser`; with DUMMY hyperparameters are random.
    **options
        Others of :class:`dhmpi.search.chooser.Chooser`: acq_func, xi, n_jobs.

    Raises
    ------
    ProblemError
        If nothing, or everything, is a decision.
    OptionError, ValueError
        If an option has a value that makes no sense.

    References
    ----------
    Egele, Balaprakash, Vishwanath, Guyon, Liu (2020), AgEBO-Tabular: Joint Neural Architecture and Hyperparameter
    Search with Autotuned Data-Parallel Training for Tabular Data, arXiv 2010.16358.
    """

    fits: ClassVar[bool] = True

    def __init__(
        self,
        space: ConfigSpace.ConfigurationSpace,
        seed: int,
        decisions: Iterable[str],
        *,
        n_evaluators: int,
        max_evals: int,
        starting_points: Sequence[Config] = (),
        population_size: int = 100,
        sample_size: int = 10,
        crossover: float = 0.0,
        unique: bool = False,
        kappa: float = 0.001,
        liar_strategy: str | None = "cl_min",
        surrogate_model: str = "auto",
        **options: Any,
    ) -> None:
        super().__init__(
            space,
            seed,
            starting_points,
            population_size=population_size,
            sample_size=sample_size,
            crossover=crossover,
            unique=unique,
        )
        evolving = frozenset(decisions)
        if not evolving:
            raise ProblemError("there is no architecture to evolve: use ambs, which searches hyperparameters")
        tuned = _without(space, evolving)
        if not len(tuned):
            raise ProblemError("there are no hyperparameters besides the architecture's decisions: use regevo")
        self.mutable = np.array([j for j, name in enumerate(self.encoding.names) if name in evolving])
        tuning = Encoding(tuned)
        self._tuned = np.array([self.encoding.names.index(name) for name in tuning.names])
        self._guesses = surrogate_model == "DUMMY"
        self._chooser = Chooser(
            tuning,
            n_evaluators=n_evaluators,
            kappa=kappa,
            liar_strategy=liar_strategy,
            surrogate_model="auto" if self._guesses else surrogate_model,
            repeats=True,
            **options,
        )
        n_initial = design_size(tuning, n_evaluators, max_evals) - len(self.starting_points)
        self._design = self._initial_design(max(n_initial, 0))

    def _initial_design(self, n: int) -> dict[bytes, np.ndarray]:
        """Return up to `n` rows by identity: hyperparameters that fill their space evenly, random architectures."""
        proposed = initial_design(self._chooser.encoding, n, self.seed)
        rows, valid = self._trained_so(proposed, np.random.default_rng(self.seed))
        return dict(zip(self.encoding.identities(rows[valid]), rows[valid]))

    def warm_start(self, rows: np.ndarray, objectives: Sequence[float | None], whole: np.ndarray) -> None:
        """Begin with a population and a model of earlier evaluations."""
        super().warm_start(rows, objectives, whole)
        for row, objective in zip(rows[:, self._tuned], objectives):
            self._chooser.learn(row, objective)

    def _select(self, n: int, taken: Taken, replacing: frozenset[int], rng: np.random.Generator) -> np.ndarray:
        known = self._pending_rows(replacing)
        if self._is_full:
            parents, partners = self._couples(n, rng)
            proposed = self._proposed(n, known, rng)
            # h_child <- BO.ask(); a_child <- mutate(a_parent)
            parents = self.encoding.put(parents, self._tuned, proposed, rng)[0]
            partners = self.encoding.put(partners, self._tuned, proposed, rng)[0]
            return self._children(parents, partners, taken, rng)
        chosen = taken.of(self._design, n).reshape(-1, self.encoding.n_dims)
        if len(chosen) < n:
            proposed = self._proposed(n - len(chosen), np.concatenate([known, chosen]), rng)
            chosen = np.concatenate([chosen, self._newcomers(proposed, taken, rng)])
        return chosen

    def _newcomers(self, proposed: np.ndarray, taken: Taken, rng: np.random.Generator) -> np.ndarray:
        """Take a random architecture for each of the proposed hyperparameters."""
        rows, valid = self._trained_so(np.repeat(proposed, RETRIES, axis=0), rng)
        first, _ = self._first_fresh(rows, valid, taken)
        missing = len(proposed) - len(first)
        return np.concatenate([rows[first], self._random(missing, taken, rng)]) if missing else rows[first]

    def _trained_so(self, proposed: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Return random architectures with given hyperparameters, and which of them no clause forbids."""
        return self.encoding.put(self.encoding.sample(rng, len(proposed)), self._tuned, proposed, rng)

    def _proposed(self, n: int, pending: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return `n` sets of hyperparameters that the model proposes, as rows of its own encoding."""
        if self._guesses:
            return self._chooser.encoding.sample(rng, n)
        proposed = self._chooser.choose(n, Taken(set(), Counter(), Counter()), pending[:, self._tuned], rng)
        self.n_fits = self._chooser.n_fits
        return proposed

    def _learn(self, results: Sequence[tuple[int, float | None]]) -> None:
        for key, objective in results:
            self._chooser.learn(self._as_rows([self._pending[key]])[0, self._tuned], objective)
        super()._learn(results)


def _without(space: ConfigSpace.ConfigurationSpace, names: frozenset[str]) -> ConfigSpace.ConfigurationSpace:
    """Return the space of the other hyperparameters, with the conditions and clauses that concern only them."""
    rest = ConfigSpace.ConfigurationSpace()
    rest.add(*(copy.deepcopy(hyperparameter) for name, hyperparameter in space.items() if name not in names))
    for rule in (*space.conditions, *space.forbidden_clauses):
        if names.isdisjoint(_concerned(rule)):
            rest.add(copy.deepcopy(rule))  # a rule remembers where in the vectors of its space it looks
    return rest


def _concerned(rule: Any) -> Iterator[str]:
    """Yield the names of the hyperparameters that a condition or a forbidden clause looks at."""
    for part in getattr(rule, "components", ()):
        yield from _concerned(part)
    for role in ("child", "parent", "hyperparameter", "left", "right"):
        if hasattr(rule, role):
            yield getattr(rule, role).name
