"""Bayesian optimisation: which of many candidates to evaluate next, by a surrogate and an acquisition function.

A search tells a chooser what its evaluations gave and asks it for rows of an :class:`~dhmpi.search.encoding.Encoding`;
what is pending, and what must not be proposed again, is the search's affair.  Start reading at :meth:`Chooser.choose`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from scipy.stats import qmc

from dhmpi.errors import OptionError
from dhmpi.search.acquisition import ACQUISITIONS, Acquisition, Outlook
from dhmpi.search.encoding import Encoding
from dhmpi.search.space import Taken, left
from dhmpi.search.surrogate import Feasibility, Normaliser, Posterior, Surrogate, surrogate

SURROGATES = ("auto", "GP", "RF", "ET", "GBRT")
LIARS = ("cl_min", "cl_mean", "cl_max")

_LISTED = 4000  # a space with no more left than these is judged as a whole
_MOST_PENDING = 500  # that a model is told of
_BLOCK = 256  # proposals from one set of candidates; what each costs grows with their number
_FEASIBLE_PATIENCE = 0.1  # share by which trials may grow before what fails is learnt anew
_POOL_PATIENCE = 0.02  # share by which trials may grow before new candidates are worth their cost
_N_RANDOM = 500  # candidates from all over the space
_SCALES = (0.02, 0.05, 0.1, 0.2)  # standard deviations of the steps away from good configurations
_N_NEAR = 100  # candidates by each of them
_N_CROSSED = 100
_REFINEMENT = (0.1, 0.04, 0.015)  # steps away from the most promising candidates, one round after another
_N_PROMISING = 5  # of each degree of optimism
_N_REFINED = 100  # candidates of a round


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
        ``auto`` is the Gaussian process: nothing measured was better, also where there are many trials, choices or
        conditions, and it is cheaper than forests, since it looks at 350 trials at most.
    liar_strategy : {"cl_min", "cl_mean", "cl_max"} or None, default None
        What pending trials are pretended to give: the smallest, mean or largest objective so far, in maximised space
        (``cl_max`` is the optimistic one).  ``None``: what the model expects of them if it is a Gaussian process, else
        ``cl_max``; either is the best by measurement.
    acq_func : {"UCB", "LCB", "EI", "PI", "gp_hedge"}, default "UCB"
        LCB is another name of UCB.
    kappa : float, default 1.96
        Of UCB, >= 0: what is used is drawn for every proposal as 0.1 + Exp(1), times kappa / 1.96.
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
        kappa: float = 1.96,
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
        self._acquisition = Acquisition(acq_func, kappa, xi)
        # Finished trials in the order of their end; objective NaN where the evaluation failed.
        self._unread: list[tuple[np.ndarray, float]] = []
        self._known = [_Growing((encoding.n_dims,)), _Growing((encoding.n_features,)), _Growing(())]
        self._rows, self._features, self._objectives = (array.content for array in self._known)
        self._model: Surrogate | None = None
        self._model_name = ""
        self._fitted_at = 0
        self._pool: _Pool | None = None
        self._feasible: Feasibility | None = None
        self._feasible_at = 0
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
        if self.encoding.size <= 1:  # nothing can vary: there is nothing that a model could learn
            rows = left(self.encoding, taken, rng)
            return rows[[0] * n] if self.repeats and len(rows) else rows[:n]
        if not np.isfinite(self._objectives).any():
            candidates = self._candidates(taken, rng)
            chosen = candidates[self._by_distance(n, candidates, pending)]
            if not self.repeats:
                for identity in self.encoding.identities(chosen):
                    taken.add(identity)
            return chosen
        if self._pool is None or not self._pool.follow(pending, self._rows, self._objectives):
            self._pool = self._new_pool(taken, pending, rng)
        return self._pool.take(n, taken, self.repeats, rng)

    def _new_pool(self, taken: Taken, pending: np.ndarray, rng: np.random.Generator) -> _Pool:
        """Return candidates with what the model, fitted again if that is worth it, expects of them."""
        model = self._fitted(np.flatnonzero(np.isfinite(self._objectives)), rng)
        strategy = self.liar_strategy or model.liar_strategy
        lie = None if strategy is None else self._lies[strategy]
        # What ended since the last fit is pending for the model, until it is told the outcome.
        since = np.flatnonzero(np.isfinite(self._objectives[self._fitted_at :])) + self._fitted_at
        if self._acquisition.nominees is not None:
            nothing = np.empty((0, self.encoding.n_features))
            self._acquisition.reward(model.posterior(self._acquisition.nominees, nothing, None).mean)
        rows = self._candidates(taken, rng)
        features = self.encoding.features(rows)
        known = pending if len(pending) <= _MOST_PENDING else rng.choice(pending, _MOST_PENDING, replace=False)
        posterior = model.posterior(
            features, np.concatenate([self._features[since], self.encoding.features(known)]), lie
        )
        if len(since):
            posterior.learn(list(enumerate(self._normaliser(self._objectives[since]).tolist())))
        pool = _Pool(
            encoding=self.encoding,
            rows=rows,
            features=features,
            posterior=posterior,
            acquisition=self._acquisition,
            best=self._best,
            lie=lie,
            feasibility=self._feasibility(rng),
            normaliser=self._normaliser,
            pending=pending,
            known=known,
            n_known=len(since),
            n_trials=len(self._objectives),
        )
        if self.encoding.size > _LISTED:
            pool.refine(taken, rng)
        return pool

    def _by_distance(self, n: int, candidates: np.ndarray, pending: np.ndarray) -> list[int]:
        """Return up to `n` numbers of candidates far from each other and from all that failed or is pending."""
        features = self.encoding.features(candidates)
        avoided = np.concatenate([self._features[-_MOST_PENDING:], self.encoding.features(pending[-_MOST_PENDING:])])
        distance = np.full(len(features), np.inf)
        for point in avoided:
            distance = np.minimum(distance, np.sum((features - point) ** 2, axis=1))
        picks: list[int] = []
        while len(picks) < min(n, len(features)):
            picks.append(int(np.argmax(distance)))
            distance = np.minimum(distance, np.sum((features - features[picks[-1]]) ** 2, axis=1))
            distance[picks] = -1
        return picks

    def _fitted(self, succeeded: np.ndarray, rng: np.random.Generator) -> Surrogate:
        """Return the surrogate, fitted if trials grew enough; with it, its best objective and the lies it is told."""
        n_trials = len(self._objectives)
        name = "GP" if self.surrogate_model == "auto" else self.surrogate_model
        if self._model is None or name != self._model_name:
            self._model, self._model_name, self._fitted_at = surrogate(name, self.encoding.groups, self.n_jobs), name, 0
        if not self._fitted_at or n_trials > self._fitted_at * (1 + self._model.patience):
            points = _subset(self._objectives, succeeded, self._model.most_points, rng)
            self._normaliser = Normaliser(self._objectives[points])
            z = self._normaliser.normalised
            self._model.fit(self._features[points], z, n_trials, rng)
            self.n_fits += 1
            self._fitted_at = n_trials
            self._best = float(z.max())
            self._lies = {"cl_min": float(z.min()), "cl_mean": float(z.mean()), "cl_max": float(z.max())}
        return self._model

    def _feasibility(self, rng: np.random.Generator) -> Feasibility | None:
        """Return what tells how likely candidates are to succeed; ``None`` as long as nothing has failed."""
        failed = np.isnan(self._objectives)
        if not failed.any():
            return None
        if self._feasible is not None and len(failed) < self._feasible_at * (1 + _FEASIBLE_PATIENCE):
            return self._feasible
        if self._feasible is None:
            self._feasible = Feasibility(self.encoding.groups)
        self._feasible.fit(self._features, ~failed, rng)
        self._feasible_at = len(failed)
        return self._feasible

    def _candidates(self, taken: Taken, rng: np.random.Generator) -> np.ndarray:
        """Return rows that are not taken, each once: random ones, neighbours of the best, crossovers with the best."""
        encoding = self.encoding
        if encoding.size <= _LISTED:
            return left(encoding, taken, rng)
        rows = [encoding.sample(rng, _N_RANDOM)]
        if len(self._objectives):
            order = np.argsort(-np.nan_to_num(self._objectives, nan=-np.inf), kind="stable")
            best = self._rows[order[: max(3, min(20, len(order) // 10))]]
            parents = best[rng.integers(len(best), size=_N_NEAR * len(_SCALES))]
            rows.append(encoding.mutate(parents, np.repeat(_SCALES, _N_NEAR)[:, None], _chance(encoding), rng))
            first = best[rng.integers(len(best), size=_N_CROSSED)]
            second = self._rows[rng.integers(len(self._rows), size=_N_CROSSED)]
            rows.append(encoding.cross(first, second, rng))
        # Trees predict the same for many candidates; the first of them must not always be one of the same kind.
        return _fresh(encoding, rng.permutation(np.concatenate(rows)), taken)

    def _read(self) -> None:
        """Add what was told since the last choice to the arrays that models learn from."""
        if self._unread:
            rows = np.array([row for row, _ in self._unread])
            new = (rows, self.encoding.features(rows), np.array([objective for _, objective in self._unread]))
            for array, items in zip(self._known, new):
                array.extend(items)
            self._rows, self._features, self._objectives = (array.content for array in self._known)
            self._unread = []


class _Growing:
    """An array to which items are added without all that there are being copied each time.

    Parameters
    ----------
    shape : tuple of int
        Of an item.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._space = np.empty((256, *shape))
        self._n = 0

    @property
    def content(self) -> np.ndarray:
        """The items so far, shape (n, ...): a view, which stays as it is when more are added."""
        return self._space[: self._n]

    def extend(self, items: np.ndarray) -> None:
        """Add items, shape (m, ...), at the end."""
        n = self._n + len(items)
        if n > len(self._space):
            space = np.empty((2 * n, *self._space.shape[1:]))
            space[: self._n] = self.content
            self._space = space
        self._space[self._n : n] = items
        self._n = n


class _Pool:
    """Candidates to choose from, until trials have grown too much since the model saw them.

    What is chosen and what ends meanwhile changes what the model expects of the others, at the cost of a matrix-vector
    product.
    """

    def __init__(
        self,
        encoding: Encoding,
        rows: np.ndarray,
        features: np.ndarray,
        posterior: Posterior,
        acquisition: Acquisition,
        best: float,
        lie: float | None,
        feasibility: Feasibility | None,
        normaliser: Normaliser,
        pending: np.ndarray,
        known: np.ndarray,
        n_known: int,
        n_trials: int,
    ) -> None:
        self._encoding, self._rows, self._features = encoding, rows, features
        self._posterior, self._acquisition, self._best, self._lie = posterior, acquisition, best, lie
        self._feasibility, self._normaliser = feasibility, normaliser
        self._feasible = None if feasibility is None else feasibility.probability(features)
        self._free = np.ones(len(rows), dtype=bool)
        self._open = Counter(encoding.identities(pending))  # what is evaluated, as far as the pool knows
        self._numbers: dict[bytes, list[int]] = {}  # by which the posterior knows it
        for i, identity in enumerate(encoding.identities(known)):
            self._numbers.setdefault(identity, []).append(n_known + i)
        self._n_trials = self._built_at = n_trials
        self._picks: list[tuple[bytes, int]] = []  # what was taken, in this order: identity and index

    def follow(self, pending: np.ndarray, rows: np.ndarray, objectives: np.ndarray) -> bool:
        """Learn what ended since the last call; return whether the pool is still good."""
        if len(objectives) > self._built_at * (1 + _POOL_PATIENCE) or len(self._picks) >= _BLOCK:
            return False
        outcomes = []
        new = objectives[self._n_trials :]
        for identity, objective in zip(self._encoding.identities(rows[self._n_trials :]), new):
            if not self._open[identity]:
                return False
            self._open[identity] -= 1
            numbers = self._numbers.get(identity)
            if numbers and np.isfinite(objective):
                outcomes.append((numbers.pop(0), float(self._normaliser(objective))))
        self._n_trials = len(objectives)
        if outcomes:
            self._posterior.learn(outcomes)
        open_, there = +self._open, Counter(self._encoding.identities(pending))
        return not there - open_ and self._withdraw(open_ - there)

    def _withdraw(self, dropped: Counter[bytes]) -> bool:
        """Pretend what was dropped or replaced no longer; return whether that is what was taken last."""
        n = dropped.total()
        last = self._picks[len(self._picks) - n :]
        if Counter(identity for identity, _ in last) != dropped:
            return False
        if n:
            self._posterior.forget(n)
            del self._picks[len(self._picks) - n :]
        for identity, index in last:
            self._numbers[identity].pop()
            self._open[identity] -= 1
            self._free[index] = True
        return True

    @property
    def _outlook(self) -> Outlook:
        return Outlook(self._posterior.mean, self._posterior.std, self._best, self._feasible, self._free)

    def refine(self, taken: Taken, rng: np.random.Generator) -> None:
        """Add neighbours of the most promising candidates, ever closer ones."""
        known = set(self._encoding.identities(self._rows))
        for scale in _REFINEMENT:
            promising = self._acquisition.promising(self._outlook, _N_PROMISING)
            parents = self._rows[promising][rng.integers(len(promising), size=_N_REFINED)]
            rows = _fresh(self._encoding, self._encoding.mutate(parents, scale, _chance(self._encoding), rng), taken)
            rows = rows[[i for i, identity in enumerate(self._encoding.identities(rows)) if identity not in known]]
            known.update(self._encoding.identities(rows))
            if not len(rows):
                continue
            features = self._encoding.features(rows)
            self._posterior.extend(features)
            self._rows = np.concatenate([self._rows, rows])
            self._features = np.concatenate([self._features, features])
            self._free = np.ones(len(self._rows), dtype=bool)
            if self._feasibility is not None and self._feasible is not None:
                self._feasible = np.concatenate([self._feasible, self._feasibility.probability(features)])

    def take(self, n: int, taken: Taken, repeats: bool, rng: np.random.Generator) -> np.ndarray:
        """Take up to `n` rows."""
        first = len(self._picks)
        while len(self._picks) < first + n and self._free.any():
            index = self._acquisition.choose(self._outlook, self._features, rng)
            self._free[index] = repeats
            identity = self._encoding.identities(self._rows[index : index + 1])[0]
            if not repeats:
                if identity in taken:
                    continue
                taken.add(identity)
            self._picks.append((identity, index))
            self._numbers.setdefault(identity, []).append(self._posterior.pretend(index, self._lie))
            self._open[identity] += 1
        return self._rows[[index for _, index in self._picks[first:]]]


def _chance(encoding: Encoding) -> float:
    """Return how likely a hyperparameter of a good configuration is to be perturbed."""
    return max(0.2, min(1.0, 2 / max(encoding.n_free, 1)))


def _fresh(encoding: Encoding, rows: np.ndarray, taken: Taken) -> np.ndarray:
    """Return those of `rows` that are not taken, each once."""
    new = {identity: i for i, identity in enumerate(encoding.identities(rows)) if identity not in taken}
    return rows[list(new.values())]


def initial_design(encoding: Encoding, n: int, seed: int) -> np.ndarray:
    """Return up to `n` different rows: the default configuration, then a scrambled Sobol sequence through the priors.

    Every second point of the sequence is drawn half of the way towards the medians of the numbers: ranges are mostly
    chosen around what may be good, and nearly all of a space of many dimensions lies at its border, so that a few
    evaluations find better configurations in between.

    References
    ----------
    Cauwet, Couprie, Dehos, Luc, Rapin, Riviere, Teytaud, Teytaud, Usunier (2020), Fully Parallel Hyperparameter Search:
    Reshaped Space-Filling, ICML.
    """
    if n == 0:
        return np.empty((0, encoding.n_dims))
    rng = np.random.default_rng(seed)
    # Clauses and discrete values make some of the sequence useless, so it starts out longer.
    quantiles = qmc.Sobol(encoding.n_dims, seed=rng).random_base2(math.ceil(math.log2(4 * n)))
    quantiles[1::2] = np.where(encoding.nominal, quantiles[1::2], 0.25 + 0.5 * quantiles[1::2])
    rows = np.concatenate([encoding.default(), encoding.place(quantiles)])
    return np.array(list(dict(zip(encoding.identities(rows), rows)).values())[:n]).reshape(-1, encoding.n_dims)


def design_size(encoding: Encoding, n_evaluators: int, max_evals: int) -> int:
    """Return how many trials an initial design should have.

    One for each hyperparameter, and one for each evaluator at least; but a quarter of the budget at most, unless there
    are more evaluators.
    """
    check_least("max_evals", max_evals, 1)
    return min(max(encoding.n_free, n_evaluators), max(max_evals // 4, n_evaluators))


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
