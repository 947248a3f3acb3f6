"""Models of the objective: from finished trials to a mean and a standard deviation anywhere.

A surrogate is fitted to finished trials, which may take a while, and then gives a :class:`Posterior` over candidates.
A posterior can be told that a candidate is going to be evaluated, so that a whole batch comes out of one fit.  Start
reading at :class:`Surrogate`; objectives are maximised and go through :func:`normalised` first.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from scipy import linalg, optimize, stats
from scipy.spatial.distance import cdist

_LEAST_STD = 1e-6


def normalised(objectives: np.ndarray) -> np.ndarray:
    """Return objectives with mean 0 and variance 1, without outliers and about as symmetric as a normal distribution.

    The worst tenth is winsorised, since how bad a bad configuration is tells little about good ones; then follows the
    power transform of Yeo and Johnson.  Where outliers among the good ones leave that without resolution, normal
    scores of the ranks take its place.

    Parameters
    ----------
    objectives : ndarray of shape (n,)
        Finite, of any size; n >= 1.

    Returns
    -------
    ndarray of shape (n,)
        In the same order as the objectives (ties may appear among the worst); all 0 if they are all equal.

    References
    ----------
    Yeo, Johnson (2000), A new family of power transformations to improve normality or symmetry, Biometrika 87.
    """
    largest = np.abs(objectives).max()
    if largest == 0 or np.ptp(objectives / largest) == 0:
        return np.zeros(len(objectives))
    scaled = objectives / largest  # no overflow below, whatever the size
    scaled = np.maximum(scaled, np.quantile(scaled, 0.1))
    centred = scaled - np.median(scaled)
    spread = np.mean(np.abs(centred))
    if spread == 0:
        return np.zeros(len(objectives))
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        power = optimize.minimize_scalar(
            lambda lmbda: -stats.yeojohnson_llf(lmbda, centred / spread), bounds=(-2, 4), method="bounded"
        ).x
        warped = stats.yeojohnson(centred / spread, power)
        warped = (warped - warped.mean()) / warped.std()
    coarse = len(np.unique(np.round(warped, 6))) < 0.5 * len(np.unique(scaled))
    if not np.isfinite(warped).all() or coarse:
        warped = stats.norm.ppf((stats.rankdata(objectives) - 0.5) / len(objectives))
        warped /= warped.std()
    return warped


class Posterior(ABC):
    """What a fitted surrogate expects of a set of candidates.

    Attributes
    ----------
    mean, std : ndarray of shape (n_candidates,)
        Of the normalised objective; std > 0.
    """

    mean: np.ndarray
    std: np.ndarray

    @abstractmethod
    def pretend(self, index: int, lie: float | None) -> None:
        """Go on as if candidate `index` had been evaluated and gave `lie`; ``None``: what was expected of it."""


class Surrogate(ABC):
    """A model of the normalised objective.

    Parameters
    ----------
    groups : ndarray of int, shape (n_features,)
        The hyperparameter that each feature belongs to.
    n_jobs : int
        Cores that a fit may use.
    """

    most_points: int
    """A fit takes no more finished trials than these; its cost stays flat from there on."""

    patience: float
    """Share by which the finished trials must grow before a new fit is worth its cost."""

    liar_strategy: str | None = "cl_max"
    """What pending trials are best pretended to give; ``None``: what the model expects of them."""

    def __init__(self, groups: np.ndarray, n_jobs: int = 1) -> None:
        self.groups = groups
        self.n_jobs = n_jobs

    @abstractmethod
    def fit(self, features: np.ndarray, objectives: np.ndarray, n_trials: int, rng: np.random.Generator) -> None:
        """Learn from finished trials.

        Parameters
        ----------
        features : ndarray of shape (n, n_features)
        objectives : ndarray of shape (n,)
            Normalised.
        n_trials : int
            How many finished trials there are in all, >= n.
        rng : Generator
        """

    @abstractmethod
    def posterior(self, candidates: np.ndarray, pending: np.ndarray, lie: float | None) -> Posterior:
        """Return what to expect of candidates, given that `pending` are being evaluated.

        Parameters
        ----------
        candidates : ndarray of shape (n_candidates, n_features)
        pending : ndarray of shape (n_pending, n_features)
        lie : float or None
            What the pending ones are pretended to give; ``None``: what is expected of them (Kriging believer).

        References
        ----------
        Ginsbourger, Le Riche, Carraro (2010), Kriging Is Well-Suited to Parallelize Optimization.
        Desautels, Krause, Burdick (2014), Parallelizing Exploration-Exploitation Tradeoffs in Gaussian Process Bandit
        Optimization, J. Mach. Learn. Res. 15.
        """


class GaussianProcess(Surrogate):
    """Gaussian process with a Matern-5/2 kernel, one length scale a hyperparameter, and noise.

    Written out and not scikit-learn's, because the gradient of its likelihood can be had without the
    (n, n, n_features) tensor that scikit-learn builds, and because batches need the posterior covariance among
    candidates.  Kernel parameters are optimised again when trials grew by a tenth (at least by 5); in between new
    trials only enter the Cholesky factor.

    References
    ----------
    Rasmussen, Williams (2006), Gaussian Processes for Machine Learning, chapters 2 and 5.
    Snoek, Larochelle, Adams (2012), Practical Bayesian Optimization of Machine Learning Algorithms, NeurIPS 25.
    Hvarfner, Hellsten, Nardi (2024), Vanilla Bayesian Optimization Performs Great in High Dimensions, ICML.
    """

    most_points = 350
    patience = 0.0
    liar_strategy = None

    def __init__(self, groups: np.ndarray, n_jobs: int = 1) -> None:
        super().__init__(groups, n_jobs)
        self._n_scales = int(groups.max()) + 1 if len(groups) else 0
        # theta: log of signal variance, length scale of each hyperparameter, noise variance.
        # The longer diagonal of a larger cube makes length scales grow with the square root of its dimension.
        self._typical = np.log(0.5 * np.sqrt(max(self._n_scales, 10) / 10))
        self._theta = np.concatenate([[0.0], np.full(self._n_scales, self._typical), [np.log(1e-3)]])
        self._bounds = np.log([(0.05, 20.0), *[(0.03, 30.0)] * self._n_scales, (1e-6, 0.3)])
        self._tuned_at = 0

    def fit(self, features: np.ndarray, objectives: np.ndarray, n_trials: int, rng: np.random.Generator) -> None:
        self._x, self._z = features, objectives
        if len(objectives) > 2 and n_trials - self._tuned_at >= (max(5, n_trials // 10) if self._tuned_at else 0):
            result = optimize.minimize(
                self._loss,
                self._theta,
                jac=True,
                method="L-BFGS-B",
                bounds=self._bounds,
                options={"maxiter": 20 if self._tuned_at else 50},
            )
            if np.isfinite(result.fun):
                self._theta = result.x
            self._tuned_at = n_trials

    def posterior(self, candidates: np.ndarray, pending: np.ndarray, lie: float | None) -> _GaussianPosterior:
        signal, scales, noise = self._parameters(self._theta)
        x, z = self._x / scales, self._z
        if len(pending):
            p = pending / scales
            if lie is None:
                factor = _cholesky(_matern(x, x, signal), noise)
                lies = _matern(p, x, signal) @ linalg.cho_solve((factor, True), z)
            else:
                lies = np.full(len(p), lie)
            x, z = np.concatenate([x, p]), np.concatenate([z, lies])
        return _GaussianPosterior(x, z, candidates / scales, signal, noise)

    def _parameters(self, theta: np.ndarray) -> tuple[float, np.ndarray, float]:
        """Return signal variance, length scale of each feature, noise variance."""
        values = np.exp(theta)
        return values[0], values[1:-1][self.groups], values[-1]

    def _loss(self, theta: np.ndarray) -> tuple[float, np.ndarray]:
        """Return the negative log posterior of the kernel parameters and its gradient (Rasmussen, eq. 5.8, 5.9)."""
        signal, scales, noise = self._parameters(theta)
        x, z = self._x / scales, self._z
        root = np.sqrt(5 * cdist(x, x, "sqeuclidean"))
        decay = signal * np.exp(-root)
        kernel = (1 + root + root**2 / 3) * decay
        try:
            factor = _cholesky(kernel, noise)
        except linalg.LinAlgError:
            return np.inf, np.zeros(len(theta))
        alpha = linalg.cho_solve((factor, True), z)
        inverse = linalg.lapack.dpotri(factor, lower=1)[0]
        inverse = np.tril(inverse) + np.tril(inverse, -1).T
        loss = 0.5 * z @ alpha + np.log(factor.diagonal()).sum()
        # d loss / d theta_j = -1/2 trace((alpha alpha^T - K^-1) dK / d theta_j)
        outer = np.outer(alpha, alpha) - inverse
        gradient = np.empty(len(theta))
        gradient[0] = -0.5 * np.sum(outer * kernel)
        # dK / d log scale_d = 5/3 (1 + r) exp(-r) (x_d - x'_d)^2, and the sum over pairs of w (x_d - x'_d)^2 is
        # 2 sum_i (sum_j w_ij) x_id^2 - 2 x_d^T w x_d: matrix products, no tensor of pairs and features.
        weights = outer * (5 / 3 * (1 + root) * decay)
        pairs = 2 * (weights.sum(axis=1) @ x**2) - 2 * np.sum(x * (weights @ x), axis=0)
        gradient[1:-1] = -0.5 * np.bincount(self.groups, pairs, minlength=self._n_scales)
        gradient[-1] = -0.5 * noise * outer.trace()
        # Prior: log length scales are normal around the typical one, wide enough to be overruled by a few dozen trials.
        away = theta[1:-1] - self._typical
        gradient[1:-1] += away / _SCALE_SPREAD**2
        return float(loss + 0.5 * np.sum((away / _SCALE_SPREAD) ** 2)), gradient


_SCALE_SPREAD = 1.5


class _GaussianPosterior(Posterior):
    def __init__(self, x: np.ndarray, z: np.ndarray, candidates: np.ndarray, signal: float, noise: float) -> None:
        factor = _cholesky(_matern(x, x, signal), noise)
        cross = _matern(x, candidates, signal)
        self._candidates, self._signal, self._noise = candidates, signal, noise
        self._gains = np.empty((0, len(candidates)))
        self._whitened = linalg.solve_triangular(factor, cross, lower=True, check_finite=False, overwrite_b=True)
        self.mean = self._whitened.T @ linalg.solve_triangular(factor, z, lower=True, check_finite=False)
        self._variance = signal - np.einsum("ij,ij->j", self._whitened, self._whitened)
        self._update_std()

    def pretend(self, index: int, lie: float | None) -> None:
        # Condition on one more point: a rank-one update of the posterior covariance.
        covariance = _matern(self._candidates[index : index + 1], self._candidates, self._signal)[0]
        covariance -= self._whitened[:, index] @ self._whitened
        covariance -= self._gains[:, index] @ self._gains
        deviation = np.sqrt(max(covariance[index], 0.0) + self._noise)
        gain = covariance / deviation
        if lie is not None:
            self.mean = self.mean + gain * (lie - self.mean[index]) / deviation
        self._gains = np.concatenate([self._gains, gain[None]])
        self._variance = self._variance - gain**2
        self._update_std()

    def _update_std(self) -> None:
        self.std = np.sqrt(np.maximum(self._variance, _LEAST_STD**2))


def _matern(a: np.ndarray, b: np.ndarray, signal: float) -> np.ndarray:
    root = np.sqrt(5 * cdist(a, b, "sqeuclidean"))
    return signal * (1 + root + root**2 / 3) * np.exp(-root)


def _cholesky(kernel: np.ndarray, noise: float) -> np.ndarray:
    """Return the lower Cholesky factor of the kernel plus noise, with more noise if it is not positive definite."""
    for jitter in (0.0, 1e-6, 1e-3):
        try:
            return linalg.cholesky(
                kernel + (noise + jitter) * np.eye(len(kernel)), lower=True, overwrite_a=True, check_finite=False
            )
        except linalg.LinAlgError:
            continue
    raise linalg.LinAlgError("the kernel matrix is not positive definite")


class Forest(Surrogate):
    """Random forest (RF) or extremely randomised trees (ET), with the spread among and within trees as uncertainty.

    A pending point, or one picked for the batch, joins the leaf that it falls into in every tree, with its lie: the
    mean follows the lie and the trees disagree less there, which is the constant liar without a new fit.

    References
    ----------
    Breiman (2001), Random Forests, Machine Learning 45.
    Geurts, Ernst, Wehenkel (2006), Extremely randomized trees, Machine Learning 63.
    Hutter, Xu, Hoos, Leyton-Brown (2014), Algorithm runtime prediction: Methods & evaluation, section 4.3.2.
    """

    most_points = 2000
    patience = 0.02

    def __init__(self, groups: np.ndarray, n_jobs: int = 1, extremely_randomised: bool = True) -> None:
        super().__init__(groups, n_jobs)
        self.extremely_randomised = extremely_randomised

    def fit(self, features: np.ndarray, objectives: np.ndarray, n_trials: int, rng: np.random.Generator) -> None:
        from sklearn.ensemble import ExtraTreesRegressor, RandomForestRegressor  # a second to import

        kind = ExtraTreesRegressor if self.extremely_randomised else RandomForestRegressor
        self._forest = kind(
            n_estimators=100,
            min_samples_leaf=1 if self.extremely_randomised else 2,
            max_features=1.0 if self.extremely_randomised else 0.5,
            n_jobs=self.n_jobs,
            random_state=int(rng.integers(1 << 31)),
        ).fit(features, objectives)
        trees = [estimator.tree_ for estimator in self._forest.estimators_]
        self._first_node = np.cumsum([0, *(tree.node_count for tree in trees[:-1])])
        self._count = np.concatenate([tree.weighted_n_node_samples for tree in trees])
        self._sum = np.concatenate([tree.value[:, 0, 0] for tree in trees]) * self._count
        self._variance = np.concatenate([tree.impurity for tree in trees])

    def posterior(self, candidates: np.ndarray, pending: np.ndarray, lie: float | None) -> _ForestPosterior:
        posterior = _ForestPosterior(self._leaves(candidates), self._sum.copy(), self._count.copy(), self._variance)
        if len(pending):
            leaves = self._leaves(pending)
            lies = posterior.expected(leaves) if lie is None else np.full(len(pending), lie)
            posterior.join(leaves, lies)
        return posterior

    def _leaves(self, features: np.ndarray) -> np.ndarray:
        """Return the number of the leaf of each point in each tree, counted through all trees."""
        return self._forest.apply(features) + self._first_node


class _ForestPosterior(Posterior):
    def __init__(self, leaves: np.ndarray, total: np.ndarray, count: np.ndarray, variance: np.ndarray) -> None:
        self._leaves, self._sum, self._count = leaves, total, count
        self._within = variance[leaves].mean(axis=1)
        self.mean, self.std = np.empty(len(leaves)), np.empty(len(leaves))
        self._update(np.arange(len(leaves)))

    def expected(self, leaves: np.ndarray) -> np.ndarray:
        """Return the mean over trees for points that lie in `leaves`, shape (n, n_trees)."""
        return (self._sum[leaves] / self._count[leaves]).mean(axis=1)

    def join(self, leaves: np.ndarray, lies: np.ndarray) -> None:
        """Put points into their leaves."""
        np.add.at(self._sum, leaves, lies[:, None])
        np.add.at(self._count, leaves, 1.0)
        self._update(np.arange(len(self._leaves)))

    def pretend(self, index: int, lie: float | None) -> None:
        leaves = self._leaves[index]
        self._sum[leaves] += self.mean[index] if lie is None else lie
        self._count[leaves] += 1
        self._update(np.flatnonzero((self._leaves == leaves).any(axis=1)))

    def _update(self, rows: np.ndarray) -> None:
        leaves = self._leaves[rows]
        predicted = self._sum[leaves] / self._count[leaves]
        self.mean[rows] = predicted.mean(axis=1)
        # Law of total variance: between the trees' means, and within their leaves.
        self.std[rows] = np.sqrt(np.maximum(predicted.var(axis=1) + self._within[rows], _LEAST_STD**2))


class BoostedTrees(Surrogate):
    """Gradient boosting of the median and of the quantiles one standard deviation away (GBRT).

    Trees that correct each other have no leaf of their own for a lie; a pending point therefore counts by its
    distance, as it would in a Gaussian process of a short length scale.

    References
    ----------
    Friedman (2001), Greedy Function Approximation: A Gradient Boosting Machine, Ann. Statist. 29.
    """

    most_points = 2000
    patience = 0.02

    def fit(self, features: np.ndarray, objectives: np.ndarray, n_trials: int, rng: np.random.Generator) -> None:
        from sklearn.ensemble import GradientBoostingRegressor  # a second to import

        self._models = [
            GradientBoostingRegressor(
                loss="quantile",
                alpha=quantile,
                n_estimators=50,
                max_depth=4,
                min_samples_leaf=3,
                subsample=0.8,
                random_state=int(rng.integers(1 << 31)),
            ).fit(features, objectives)
            for quantile in stats.norm.cdf([-1, 0, 1])
        ]

    def posterior(self, candidates: np.ndarray, pending: np.ndarray, lie: float | None) -> _BoostedPosterior:
        low, mean, high = (model.predict(candidates) for model in self._models)
        posterior = _BoostedPosterior(candidates, mean, np.abs(high - low) / 2)
        for point in pending:
            posterior.approach(point, lie)
        return posterior


class _BoostedPosterior(Posterior):
    def __init__(self, candidates: np.ndarray, mean: np.ndarray, std: np.ndarray) -> None:
        self._candidates = candidates
        self._reach = 0.1 * np.sqrt(max(candidates.shape[1], 1))
        self.mean, self.std = mean, np.maximum(std, _LEAST_STD)

    def pretend(self, index: int, lie: float | None) -> None:
        self.approach(self._candidates[index], lie)

    def approach(self, point: np.ndarray, lie: float | None) -> None:
        """Draw mean and standard deviation near `point` towards those of an evaluated point."""
        closeness = np.exp(-0.5 * np.sum((self._candidates - point) ** 2, axis=1) / self._reach**2)
        if lie is not None:
            self.mean = self.mean + closeness * (lie - self.mean)
        self.std = np.maximum(self.std * np.sqrt(1 - closeness**2), _LEAST_STD)


class Feasibility:
    """How likely an evaluation is to succeed, learnt from those that did not.

    References
    ----------
    Gelbart, Snoek, Adams (2014), Bayesian Optimization with Unknown Constraints, UAI.
    """

    most_points = 2000

    def fit(self, features: np.ndarray, succeeded: np.ndarray, rng: np.random.Generator) -> None:
        """Learn from finished trials.

        Parameters
        ----------
        features : ndarray of shape (n, n_features)
        succeeded : ndarray of bool, shape (n,)
            Both kinds must be there.
        rng : Generator
        """
        from sklearn.ensemble import ExtraTreesClassifier  # a second to import

        self._model: Any = ExtraTreesClassifier(
            n_estimators=50, min_samples_leaf=2, random_state=int(rng.integers(1 << 31))
        ).fit(features, succeeded)

    def probability(self, candidates: np.ndarray) -> np.ndarray:
        """Return the probability of success of each candidate, in [0, 1], shape (n_candidates,)."""
        return self._model.predict_proba(candidates)[:, 1]


def surrogate(name: str, groups: np.ndarray, n_jobs: int) -> Surrogate:
    """Return an unfitted surrogate: GP, RF, ET or GBRT."""
    if name == "GP":
        return GaussianProcess(groups, n_jobs)
    if name == "GBRT":
        return BoostedTrees(groups, n_jobs)
    return Forest(groups, n_jobs, extremely_randomised=name == "ET")
