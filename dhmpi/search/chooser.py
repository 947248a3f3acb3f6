"""Bayesian optimisation: which of many candidates to evaluate next, by a surrogate and an acquisition function.

A search tells a chooser what its evaluations gave and asks it for rows of an :class:`~dhmpi.search.encoding.Encoding`;
what is pending, and what must not be proposed again, is the search's affair.  Start reading at :meth:`Chooser.choose`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.stats import qmc

from dhmpi.errors import OptionError
from dhmpi.search.acquisition import ACQUISITIONS, Acquisition
from dhmpi.search.encoding import Encoding
from dhmpi.search.space import Taken, left
from dhmpi.search.surrogate import Feasibility, Surrogate, normalised, surrogate

SURROGATES = ("auto", "GP", "RF", "ET", "GBRT")
LIARS = ("cl_min", "cl_mean", "cl_max")

_LISTED = 4000  # a space with no more left than these is judged as a whole
_MOST_PENDING = 500  # that a model is told of
_BLOCK = 256  # proposals from one set of candidates; what each costs grows with their number
_GP_TRIALS = 2000
_GP_HYPERPARAMETERS = 50
_GP_CONDITIONAL = 0.5


class Chooser:
    """Learns from finished trials, and chooses rows that are worth evaluating.

    A batch of any size comes out of at most one fit, and what a choice costs does not grow with the number of trials.

    Parameters
    ----------
    encoding : Encoding
        Of the space that is chosen from.
    n_evaluators : int
        How many trials run at a time.
    surrogate_model : {"auto", "GP", "RF", "ET", "GBRT"}, default "auto"
        ``auto`` is a Gaussian process, and extremely randomised trees once more than 2,000 trials have finished, or
        from the start if there are more than 50 hyperparameters or more than half of them are conditional.
    liar_strategy : {"cl_min", "cl_mean", "cl_max"} or None, default None
        What pending trials are pretended to give: the smallest, mean or largest objective so far, in maximised space
        (``cl_max`` is the optimistic one).  ``None``: what the model expects of them if it is a Gaussian process, else
        ``cl_max``; either is the best by measurement.
    acq_func : {"UCB", "LCB", "EI", "PI", "gp_hedge"}, default "UCB"
        LCB is another name of UCB.
    kappa : float or None, default None
        Of UCB, >= 0.  ``None``: drawn for every proposal as 0.1 + Exp(1).  A given one is used as it is with one
        evaluator; with several, what is drawn is scaled by kappa / 1.96.
    xi : float, default 0.01
        Of EI and PI, >= 0, in standard deviations of the normalised objective.
    n_jobs : int, default 1
        Cores that a fit of a forest may use, >= 1, or -1 for all.
    repeats : bool, default False
        Whether a row may be chosen more than once in a batch.

    Attributes
    ----------
    knows : bool
        Whether any trial has finished.

    Raises
    ------
    OptionError
        If an option has a value that is not among those above.
    """

    def __init__(
        self,
        encoding: Encoding,
        *,
        n_evaluators: int,
        surrogate_model: str = "auto",
        liar_strategy: str | None = None,
        acq_func: str = "UCB",
        kappa: float | None = None,
        xi: float = 0.01,
        n_jobs: int = 1,
        repeats: bool = False,
    ) -> None:
        _check_among("surrogate model", surrogate_model, SURROGATES)
        _check_among("liar strategy", liar_strategy, (None, *LIARS))
        _check_among("acquisition function", acq_func, ACQUISITIONS)
        check_least("kappa", kappa, 0)
        check_least("xi", xi, 0)
        if n_jobs != -1:
            check_least("n_jobs", n_jobs, 1)
        check_least("n_evaluators", n_evaluators, 1)
        self.encoding = encoding
        self.surrogate_model = surrogate_model
        self.liar_strategy = liar_strategy
        self.n_jobs = n_jobs
        self.repeats = repeats
        self._acquisition = Acquisition(acq_func, kappa, drawn=n_evaluators > 1, xi=xi)
        # Finished trials in the order of their end; objective NaN where the evaluation failed.
        self._unread: list[tuple[np.ndarray, float]] = []
        self._rows = np.empty((0, encoding.n_dims))
        self._features = np.empty((0, encoding.n_features))
        self._objectives = np.empty(0)
        self._model: Surrogate | None = None
        self._model_name = ""
        self._fitted_at = 0
        self.n_fits = 0

    @property
    def knows(self) -> bool:
        return len(self._objectives) + len(self._unread) > 0

    def learn(self, row: np.ndarray, objective: float | None) -> None:
        """Take what an evaluation gave; what is not finite counts as a failure, as ``None`` does."""
        finite = math.nan if objective is None or not math.isfinite(objective) else float(objective)
        self._unread.append((row, finite))

    def choose(self, n: int, taken: Taken, pending: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Take up to `n` rows that are worth evaluating, the most promising first.

        Parameters
        ----------
        n : int
        taken : Taken
            What must not be chosen.
        pending : ndarray of shape (n_pending, n_dims)
            What is being evaluated.
        rng : Generator

        Returns
        -------
        ndarray of shape (m, n_dims), m <= n
            Fewer only if the space holds no more, or hardly any.
        """
        self._read()
        if len(pending) > _MOST_PENDING:
            pending = rng.choice(pending, _MOST_PENDING, replace=False)
        chosen = np.empty((0, self.encoding.n_dims))
        while len(chosen) < n:
            occupied = np.concatenate([pending, chosen])
            promising = self._promising(min(n - len(chosen), _BLOCK), taken, occupied, rng)
            if not len(promising):
                break
            chosen = np.concatenate([chosen, promising])
        return chosen

    def _promising(self, n: int, taken: Taken, pending: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Take up to `n` candidates that the model finds worth evaluating."""
        candidates = self._candidates(taken, rng)
        if len(candidates) <= 1:
            return candidates[[0] * n] if self.repeats and len(candidates) else candidates
        features = self.encoding.features(candidates)
        succeeded = np.flatnonzero(np.isfinite(self._objectives))
        if len(succeeded):
            picks = self._by_model(n, features, succeeded, pending, rng)
        else:
            picks = self._by_distance(n, features, self.encoding.features(pending))
        if not self.repeats:
            for identity in self.encoding.identities(candidates[picks]):
                taken.add(identity)
        return candidates[picks]

    def _by_model(
        self, n: int, features: np.ndarray, succeeded: np.ndarray, pending: np.ndarray, rng: np.random.Generator
    ) -> list[int]:
        """Return up to `n` numbers of candidates, the most promising first, from at most one fit."""
        model, best, lies = self._fitted(succeeded, rng)
        feasible = self._feasibility(features, rng)
        # What finished since the last fit counts as pending still.
        since = self._features[self._fitted_at :][np.isfinite(self._objectives[self._fitted_at :])]
        occupied = np.concatenate([self.encoding.features(pending), since])[-_MOST_PENDING:]
        strategy = self.liar_strategy or model.liar_strategy
        lie = None if strategy is None else lies[strategy]
        if self._acquisition.nominees is not None:
            self._acquisition.reward(model.posterior(self._acquisition.nominees, occupied[:0], None).mean)
        posterior = model.posterior(features, occupied, lie)
        free = np.ones(len(features), dtype=bool)
        picks: list[int] = []
        while len(picks) < (n if self.repeats else min(n, len(features))):
            index = self._acquisition.choose(posterior, best, feasible, free, features, rng)
            picks.append(index)
            free[index] = self.repeats
            posterior.pretend(index, lie)
        return picks

    def _by_distance(self, n: int, features: np.ndarray, pending: np.ndarray) -> list[int]:
        """Return up to `n` numbers of candidates far from each other and from all that failed or is pending."""
        avoided = np.concatenate([self._features[-_MOST_PENDING:], pending])
        distance = np.full(len(features), np.inf)
        for point in avoided:
            distance = np.minimum(distance, np.sum((features - point) ** 2, axis=1))
        picks: list[int] = []
        while len(picks) < min(n, len(features)):
            picks.append(int(np.argmax(distance)))
            distance = np.minimum(distance, np.sum((features - features[picks[-1]]) ** 2, axis=1))
            distance[picks] = -1
        return picks

    def _fitted(self, succeeded: np.ndarray, rng: np.random.Generator) -> tuple[Surrogate, float, dict[str, float]]:
        """Return the surrogate, fitted if trials grew enough, its best objective, and the lies it would be told."""
        n_trials = len(self._objectives)
        name = self._choice(len(succeeded))
        if self._model is None or name != self._model_name:
            self._model, self._model_name, self._fitted_at = surrogate(name, self.encoding.groups, self.n_jobs), name, 0
        if not self._fitted_at or n_trials > self._fitted_at * (1 + self._model.patience):
            points = _subset(self._objectives, succeeded, self._model.most_points, rng)
            z = normalised(self._objectives[points])
            self._model.fit(self._features[points], z, n_trials, rng)
            self.n_fits += 1
            self._fitted_at = n_trials
            self._best = float(z.max())
            self._lies = {"cl_min": float(z.min()), "cl_mean": float(z.mean()), "cl_max": float(z.max())}
        return self._model, self._best, self._lies

    def _choice(self, n_succeeded: int) -> str:
        """Return the surrogate to use, which ``auto`` makes depend on the space and on how much is known."""
        if self.surrogate_model != "auto":
            return self.surrogate_model
        encoding = self.encoding
        smooth = encoding.n_free <= _GP_HYPERPARAMETERS
        smooth &= encoding.n_conditional <= _GP_CONDITIONAL * encoding.n_dims
        return "GP" if smooth and n_succeeded <= _GP_TRIALS else "ET"

    def _feasibility(self, features: np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
        """Return how likely candidates are to succeed; ``None`` as long as nothing has failed."""
        failed = np.isnan(self._objectives)
        if not failed.any():
            return None
        recent = np.arange(len(failed))
        if len(failed) > Feasibility.most_points:
            recent = rng.choice(recent, Feasibility.most_points, replace=False)
        feasibility = Feasibility()
        feasibility.fit(self._features[recent], ~failed[recent], rng)
        return feasibility.probability(features)

    def _candidates(self, taken: Taken, rng: np.random.Generator) -> np.ndarray:
        """Return rows that are not taken, each once: random ones, neighbours of the best, crossovers with the best."""
        encoding = self.encoding
        if encoding.size <= _LISTED:
            return left(encoding, taken, rng)
        rows = [encoding.sample(rng, 800)]
        if len(self._objectives):
            order = np.argsort(-np.nan_to_num(self._objectives, nan=-np.inf), kind="stable")
            best = self._rows[order[: max(3, min(20, len(order) // 10))]]
            chance = max(0.2, min(1.0, 2 / encoding.n_free))
            for scale in (0.02, 0.05, 0.1, 0.2):
                parents = best[rng.integers(len(best), size=300)]
                rows.append(encoding.mutate(parents, scale, chance, rng))
            first = best[rng.integers(len(best), size=200)]
            second = self._rows[rng.integers(len(self._rows), size=200)]
            rows.append(encoding.cross(first, second, rng))
        # Trees predict the same for many candidates; the first of them must not always be one of the same kind.
        every = rng.permutation(np.concatenate(rows))
        new = {identity: i for i, identity in enumerate(encoding.identities(every)) if identity not in taken}
        return every[list(new.values())]

    def _read(self) -> None:
        """Add what was told since the last choice to the arrays that models learn from."""
        if self._unread:
            rows = np.array([row for row, _ in self._unread])
            self._rows = np.concatenate([self._rows, rows])
            self._features = np.concatenate([self._features, self.encoding.features(rows)])
            self._objectives = np.concatenate([self._objectives, [objective for _, objective in self._unread]])
            self._unread = []


def initial_design(encoding: Encoding, n: int, seed: int) -> np.ndarray:
    """Return up to `n` different rows that fill a space evenly: a scrambled Sobol sequence through the priors."""
    if n == 0:
        return np.empty((0, encoding.n_dims))
    rng = np.random.default_rng(seed)
    # Clauses and discrete values make some of the sequence useless, so it starts out longer.
    rows = encoding.place(qmc.Sobol(encoding.n_dims, seed=rng).random_base2(math.ceil(math.log2(4 * n))))
    return np.array(list(dict(zip(encoding.identities(rows), rows)).values())[:n]).reshape(-1, encoding.n_dims)


def design_size(encoding: Encoding, n_evaluators: int, max_evals: int) -> int:
    """Return how many trials an initial design should have.

    Two for each hyperparameter, and one for each evaluator at least; but a quarter of the budget at most, unless there
    are more evaluators.
    """
    check_least("max_evals", max_evals, 1)
    return min(max(2 * encoding.n_free, n_evaluators), max(max_evals // 4, n_evaluators))


def _subset(objectives: np.ndarray, among: np.ndarray, most: int, rng: np.random.Generator) -> np.ndarray:
    """Return at most `most` of the trials `among`: half of them the best ones, half of them drawn from the others."""
    if len(among) <= most:
        return among
    order = among[np.argsort(-objectives[among], kind="stable")]
    return np.concatenate([order[: most // 2], rng.choice(order[most // 2 :], most - most // 2, replace=False)])


def _check_among(what: str, value: object, allowed: Sequence[object]) -> None:
    if value not in allowed:
        names = ", ".join(str(name) for name in allowed if name is not None)
        raise OptionError(f"unknown {what} {value!r}; choose one of {names}")


def check_least(what: str, value: float | None, least: int) -> None:
    if value is not None and not (value >= least and math.isfinite(value)):
        raise OptionError(f"{what} must be >= {least}, got {value!r}")
