"""Models of the objective: from finished trials to a mean and a standard deviation anywhere.

A surrogate is fitted to finished trials, which may take a while, and then gives a :class:`Posterior` over candidates.
A posterior can be told that a candidate is going to be evaluated, so that a whole batch comes out of one fit.  Start
reading at :class:`Surrogate`; objectives are maximised and go through :func:`normalised` first.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import linalg, optimize, stats
from scipy.spatial.distance import cdist

_LEAST_STD = 1e-6


class Normaliser:
    """Maps objectives to mean 0 and variance 1, without outliers and about as symmetric as a normal distribution.

    The worst tenth is winsorised, since how bad a bad configuration is tells little about good ones; then follows the
    power transform of Yeo and Johnson.  Where outliers among the good ones leave that without resolution, normal
    scores of the ranks take its place.

    Parameters
    ----------
    objectives : ndarray of shape (n,)
        Finite, of any size; n >= 1.

    Attributes
    ----------
    normalised : ndarray of shape (n,)
        In the same order as the objectives (ties may appear among the worst); all 0 if they are all equal.

    References
    ----------
    Yeo, Johnson (2000), A new family of power transformations to improve normality or symmetry, Biometrika 87.
    """

    def __init__(self, objectives: np.ndarray) -> None:
        self._sorted = np.sort(objectives)
        self.normalised = self._transformed(objectives)
        order = np.argsort(objectives, kind="stable")
        self._scores = self.normalised[order]

    def __call__(self, objectives: np.ndarray) -> np.ndarray:
        """Return what other objectives become, between those that are known and no better than the best of them."""
        return np.interp(objectives, self._sorted, self._scores)

    @staticmethod
    def _transformed(objectives: np.ndarray) -> np.ndarray:
        largest = np.abs(objectives).max()
        if largest == 0 or np.ptp(objectives / largest) == 0:
            return np.zeros(len(objectives))
        scaled = objectives / largest  # no overflow below, whatever the size
        scaled = np.maximum(scaled, np.quantile(scaled, 0.1))
        centred = scaled - np.median(scaled)
        spread = np.mean(np.abs(centred))
        if spread == 0:
            return np.zeros(len(objectives))
        with np.errstate(all="ignore"):
            warped = _symmetric(centred / spread)
            warped = (warped - warped.mean()) / warped.std()
        coarse = len(np.unique(np.round(warped, 6))) < 0.5 * len(np.unique(scaled))
        if not np.isfinite(warped).all() or coarse:
            warped = stats.norm.ppf((stats.rankdata(objectives) - 0.5) / len(objectives))
            warped /= warped.std()
        return warped


def _symmetric(values: np.ndarray) -> np.ndarray:
    """Return the power transform of Yeo and Johnson whose power is the most likely one, about as scipy does.

    scipy's checks of its input take ten times longer than the likelihood that a search for the power needs so often.
    """
    logs = np.log1p(np.abs(values))
    signed = np.where(values < 0, -logs, logs)

    def transformed(power: float) -> np.ndarray:
        # (x + 1)**power - 1 over power where x >= 0, and the same of -x with 2 - power where x < 0.
        exponents = np.where(values < 0, power - 2, power)
        return np.where(np.abs(exponents) < 1e-9, signed, np.expm1(exponents * signed) / exponents)

    def loss(power: float) -> float:
        return float(0.5 * len(values) * np.log(transformed(power).var()) - (power - 1) * signed.sum())

    return transformed(optimize.minimize_scalar(loss, bounds=(-2, 4), method="bounded").x)


def normalised(objectives: np.ndarray) -> np.ndarray:
    """Return objectives, shape (n,), as a :class:`Normaliser` makes them."""
    return Normaliser(objectives).normalised


class Posterior(ABC):
    """What a fitted surrogate expects of a set of candidates, kept up to date without a new fit.

    Attributes
    ----------
    mean, std : ndarray of shape (n_candidates,)
        Of the normalised objective; std > 0.
    """

    mean: np.ndarray
    std: np.ndarray

    @abstractmethod
    def pretend(self, index: int, lie: float | None) -> int:
        """Go on as if candidate `index` had been evaluated and gave `lie`; ``None``: what was expected of it.

        Returns
        -------
        int
            A number by which :meth:`learn` knows it; those pending from the start have their own, counted from 0.
        """

    @abstractmethod
    def learn(self, outcomes: Sequence[tuple[int, float]]) -> None:
        """Take what pending or pretended points gave: pairs of a number and a normalised objective."""

    @abstractmethod
    def forget(self, n: int) -> None:
        """Go on as if the last `n` points that were pretended had not been."""

    @abstractmethod
    def extend(self, candidates: np.ndarray) -> None:
        """Add candidates, shape (n, n_features), after those that there are."""


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
    """Gaussian process: functions of one hyperparameter each, a function of all of them together, and noise.

    The first kind is a quadratic trend plus waves of numbers, and a value for each choice, all summed over
    hyperparameters, so that a few evaluations suffice to tell in which direction to look, also where there are many
    hyperparameters, and how one of them acts need not be found out anew for all values of the others.  What interacts
    is left to a Matern-5/2 kernel with one length scale each, which alone knows nothing far from what was evaluated.
    How much of the objective each kind explains, and how fast the waves vary, is learnt.

    Written out and not scikit-learn's, because the gradient of its likelihood can be had without the
    (n, n, n_features) tensor that scikit-learn builds, and because batches need the posterior covariance among
    candidates.  Kernel parameters are optimised again when trials grew by a tenth (at least by 5), or by a fifth where
    there are more than a fit takes; in between new trials only enter the Cholesky factor.

    References
    ----------
    Rasmussen, Williams (2006), Gaussian Processes for Machine Learning, chapters 2 (2.7: basis functions) and 5.
    O'Hagan (1978), Curve Fitting and Optimal Design for Prediction, J. R. Statist. Soc. B 40 (a trend with a prior).
    Duvenaud, Nickisch, Rasmussen (2011), Additive Gaussian Processes, NeurIPS 24.
    Snoek, Larochelle, Adams (2012), Practical Bayesian Optimization of Machine Learning Algorithms, NeurIPS 25.
    Hvarfner, Hellsten, Nardi (2024), Vanilla Bayesian Optimization Performs Great in High Dimensions, ICML.
    """

    most_points = 350
    patience = 0.0
    liar_strategy = None

    def __init__(self, groups: np.ndarray, n_jobs: int = 1) -> None:
        super().__init__(groups, n_jobs)
        n = self._n_scales = int(groups.max()) + 1 if len(groups) else 0
        self._basis = _Basis(groups)
        # theta: log of signal variance; of the variances of trends, waves and choices, and the waves' scale; of the
        # length scale of each hyperparameter; of the noise variance.
        # The longer diagonal of a larger cube makes length scales grow with the square root of its dimension.
        typical = np.log(0.5 * np.sqrt(max(n, 10) / 10))
        self._start = np.concatenate([np.log([1.0, 0.5, 0.3, 0.1, 0.3]), np.full(n, typical), [np.log(1e-3)]])
        # Normal priors of theta, wide enough to be overruled by a few dozen trials.
        self._spread = np.concatenate([[np.inf, 1.5, 1.5, 1.5, 1.0], np.full(n, 1.5), [np.inf]])
        least = [0.05, 1e-3, 1e-4, 1e-4, 0.05, *[0.03] * n, 1e-6]
        most = [20.0, 20.0, 20.0, 20.0, 3.0, *[30.0] * n, 0.3]
        self._bounds = np.log(list(zip(least, most)))
        self._theta = self._start
        self._tuned_at = 0
        self._weights: np.ndarray | None = None  # of the points in the mean, once they are wanted

    def fit(self, features: np.ndarray, objectives: np.ndarray, n_trials: int, rng: np.random.Generator) -> None:
        self._x, self._z, self._weights = features, objectives, None
        growth = n_trials // (10 if n_trials <= self.most_points else 5)
        if len(objectives) > 2 and n_trials - self._tuned_at >= (max(5, growth) if self._tuned_at else 0):
            result = optimize.minimize(
                self._loss,
                self._theta,
                args=(self._basis(features),),
                jac=True,
                method="L-BFGS-B",
                bounds=self._bounds,
                options={"maxiter": 20 if self._tuned_at else 50},
            )
            if np.isfinite(result.fun):
                self._theta = result.x
            self._tuned_at = n_trials

    def expected(self, candidates: np.ndarray) -> np.ndarray:
        """Return the mean at candidates, shape (n_candidates,), as if nothing were pending."""
        kernel = self._kernel(self._theta)
        points = kernel.seen(self._x)
        if self._weights is None:
            factor = _cholesky(kernel(points, points), kernel.noise)
            self._weights = linalg.cho_solve((factor, True), self._z, check_finite=False)
        return kernel(kernel.seen(candidates), points) @ self._weights

    def posterior(self, candidates: np.ndarray, pending: np.ndarray, lie: float | None) -> _GaussianPosterior:
        return _GaussianPosterior(self._kernel(self._theta), self._x, self._z, candidates, pending, lie)

    def _kernel(self, theta: np.ndarray) -> _Kernel:
        values = np.exp(theta)
        return _Kernel(
            values[0], values[5:-1][self.groups], values[-1], self._basis, self._basis.variances(*values[1:5])
        )

    def _loss(self, theta: np.ndarray, functions: np.ndarray) -> tuple[float, np.ndarray]:
        """Return the negative log posterior of the kernel parameters and its gradient (Rasmussen, eq. 5.8, 5.9)."""
        k, z = self._kernel(theta), self._z
        x = self._x / k.scales
        root = np.sqrt(5 * cdist(x, x, "sqeuclidean"))
        decay = k.signal * np.exp(-root)
        kernel = (1 + root + root**2 / 3) * decay
        try:
            factor = _cholesky(kernel + (functions * k.variances) @ functions.T, k.noise)
        except linalg.LinAlgError:
            return np.inf, np.zeros(len(theta))
        alpha = linalg.cho_solve((factor, True), z, check_finite=False)
        inverse = linalg.lapack.dpotri(factor, lower=1)[0]
        inverse = np.tril(inverse) + np.tril(inverse, -1).T
        loss = 0.5 * z @ alpha + np.log(factor.diagonal()).sum()
        # d loss / d theta_j = -1/2 trace((alpha alpha^T - K^-1) dK / d theta_j)
        outer = np.outer(alpha, alpha) - inverse
        gradient = np.empty(len(theta))
        gradient[0] = -0.5 * np.sum(outer * kernel)
        # dK / d variance of a basis function f = f f^T
        gradient[1:5] = (
            -0.5 * self._basis.slopes(*np.exp(theta[1:5])) @ np.einsum("ij,ij->j", functions, outer @ functions)
        )
        # dK / d log scale_d = 5/3 (1 + r) exp(-r) (x_d - x'_d)^2, and the sum over pairs of w (x_d - x'_d)^2 is
        # 2 sum_i (sum_j w_ij) x_id^2 - 2 x_d^T w x_d: matrix products, no tensor of pairs and features.
        weights = outer * (5 / 3 * (1 + root) * decay)
        pairs = 2 * (weights.sum(axis=1) @ x**2) - 2 * np.sum(x * (weights @ x), axis=0)
        gradient[5:-1] = -0.5 * np.bincount(self.groups, pairs, minlength=self._n_scales)
        gradient[-1] = -0.5 * k.noise * outer.trace()
        away = (theta - self._start) / self._spread
        return float(loss + 0.5 * away @ away), gradient + away / self._spread


class _Basis:
    """Functions of one hyperparameter each, whose weighted sum the objective is, apart from what interacts.

    For each number a line and a parabola, which are the trend, and waves whose variances fall with their frequency as
    the spectral density of a Matern-5/2 kernel does; for each value of a choice without an order whether it is taken.

    Parameters
    ----------
    groups : ndarray of int, shape (n_features,)
        The hyperparameter that each feature belongs to; a number has one feature, a choice one for each of its values.

    References
    ----------
    Solin, Sarkka (2020), Hilbert space methods for reduced-rank Gaussian process regression, Stat. Comput. 30.
    """

    _LENGTH = 1.5  # of the interval, with [0, 1] in its middle, at whose ends all waves are 0
    _MOST_WAVES = 16  # of a number: 5 periods in [0, 1]
    _MOST = 400  # waves in all

    def __init__(self, groups: np.ndarray) -> None:
        n = int(groups.max()) + 1 if len(groups) else 1
        n_features = np.bincount(groups, minlength=n)[groups]
        self._numbers, self._choices = np.flatnonzero(n_features == 1), np.flatnonzero(n_features > 1)
        self._share = 1 / n
        n_waves = min(self._MOST_WAVES, self._MOST // n)
        self._frequencies = np.pi / self._LENGTH * np.arange(1, n_waves + 1)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return the functions at points, shape (n, n_functions)."""
        numbers = x[:, self._numbers]
        centred = 2 * numbers - 1
        waves = np.sin(self._frequencies * (numbers[:, :, None] + (self._LENGTH - 1) / 2))
        # The mean of a square over [-1, 1] is 1/3: the constant is left to what interacts.
        trends = [centred, centred**2 - 1 / 3]
        return np.concatenate([*trends, *np.moveaxis(waves, 1, 0), x[:, self._choices] > 0], axis=1)

    def variances(self, trend: float, waves: float, choices: float, scale: float) -> np.ndarray:
        """Return the variance of the coefficient of each function, shape (n_functions,).

        Parameters
        ----------
        trend : float
            Variance of a coefficient of a line or a parabola, times the number of hyperparameters, as all of these.
        waves : float
            Variance of the waves of a number together.
        choices : float
            Variance of what a choice contributes.
        scale : float
            Length scale of the waves, in units of a number's range.
        """
        return self._all_of(trend, waves * self._spectrum(scale)[0], choices)

    def slopes(self, trend: float, waves: float, choices: float, scale: float) -> np.ndarray:
        """Return the derivatives of `variances` by the logarithm of each parameter, shape (4, n_functions)."""
        density, slope = self._spectrum(scale)
        none = np.zeros(len(density))
        return np.stack([
            self._all_of(trend, none, 0.0),
            self._all_of(0.0, waves * density, 0.0),
            self._all_of(0.0, none, choices),
            self._all_of(0.0, waves * slope, 0.0),
        ])  # fmt: skip

    def _all_of(self, trend: float, waves: np.ndarray, choices: float) -> np.ndarray:
        """Return what belongs to each function, given what belongs to each of those of one hyperparameter."""
        n = len(self._numbers)
        return self._share * np.concatenate(
            [np.full(2 * n, trend), np.tile(waves, n), np.full(len(self._choices), choices)]
        )

    def _spectrum(self, scale: float) -> tuple[np.ndarray, np.ndarray]:
        """Return each wave's variance if theirs is 1 together, and its derivative by the logarithm of the scale."""
        if not len(self._frequencies):
            return np.empty(0), np.empty(0)
        # The density of a Matern-5/2 kernel is that of (5 / scale**2 + frequency**2)**-3.
        squares = (scale * self._frequencies) ** 2
        density = (5 + squares) ** -3.0
        density *= 2 / density.sum()  # the mean square of a wave is 1/2
        slope = -6 * squares / (5 + squares)
        return density, density * (slope - (density @ slope) / 2)


class _Kernel(NamedTuple):
    """A Matern-5/2 kernel plus weighted basis functions.

    Attributes
    ----------
    signal : float
        Variance of what the basis functions do not explain.
    scales : ndarray of shape (n_features,)
        Length scale of each feature.
    noise : float
        Variance of the noise.
    basis : _Basis
    variances : ndarray of shape (n_functions,)
        Of the coefficients of the basis functions.
    """

    signal: float
    scales: np.ndarray
    noise: float
    basis: _Basis
    variances: np.ndarray

    def seen(self, x: np.ndarray) -> np.ndarray:
        """Return points as the kernel takes them: features by their length scales, then the basis functions."""
        return np.concatenate([x / self.scales, self.basis(x) * np.sqrt(self.variances)], axis=1)

    def variance(self, a: np.ndarray) -> np.ndarray:
        """Return the prior variance, without noise, at points that are seen so."""
        return self.signal + np.sum(a[:, len(self.scales) :] ** 2, axis=1)

    def __call__(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Return the covariances of two sets of points that are seen so."""
        n = len(self.scales)
        root = np.sqrt(5 * cdist(a[:, :n], b[:, :n], "sqeuclidean"))
        return self.signal * (1 + root + root**2 / 3) * np.exp(-root) + a[:, n:] @ b[:, n:].T


class _GaussianPosterior(Posterior):
    """The posterior by one Cholesky factor, which grows by a row for each point that is pretended or learnt."""

    def __init__(
        self,
        kernel: _Kernel,
        x: np.ndarray,
        z: np.ndarray,
        candidates: np.ndarray,
        pending: np.ndarray,
        lie: float | None,
    ) -> None:
        self._kernel, self._first, n = kernel, len(x), len(x) + len(pending)
        self._n, room = n, n + _ROOM
        points = kernel.seen(np.concatenate([x, pending]))
        self._factor, self._z = np.eye(room, order="F"), np.zeros(room)
        self._factor[:n, :n] = _cholesky(kernel(points, points), kernel.noise)
        self._z[: len(x)] = z
        self._points = points
        self._candidates = kernel.seen(candidates)
        self._whitened = np.empty((room, len(candidates)))
        self._whitened[:n] = self._solved(kernel(points, self._candidates))
        if len(pending):
            if lie is None:
                alpha = linalg.cho_solve((self._factor[: len(x), : len(x)], True), z, check_finite=False)
                lies = kernel(points[len(x) :], points[: len(x)]) @ alpha
            else:
                lies = np.full(len(pending), lie)
            self._z[len(x) : n] = lies
        explained = np.einsum("ij,ij->j", self._whitened[:n], self._whitened[:n])
        self._variance = kernel.variance(self._candidates) - explained
        self._update()

    def pretend(self, index: int, lie: float | None) -> int:
        # Condition on one more point: a rank-one update of the posterior covariance.
        n, kernel = self._n, self._kernel
        if n == len(self._z):
            factor = np.eye(n + _ROOM, order="F")
            factor[:n, :n] = self._factor
            self._factor = factor
            self._z, self._whitened = np.pad(self._z, (0, _ROOM)), np.pad(self._whitened, ((0, _ROOM), (0, 0)))
        point = self._candidates[index : index + 1]
        row = self._whitened[:n, index].copy()
        deviation = np.sqrt(max(self._variance[index], 0.0) + kernel.noise)
        self._factor[n, :n], self._factor[n, n] = row, deviation
        self._z[n] = self.mean[index] if lie is None else lie
        gain = (kernel(point, self._candidates)[0] - row @ self._whitened[:n]) / deviation
        self._whitened[n] = gain
        self._variance = self._variance - gain**2
        self._points = np.concatenate([self._points, point])
        if lie is not None:
            self.mean = self.mean + gain * (lie - self.mean[index]) / deviation
        self._n += 1
        self._update_std()
        return n - self._first

    def learn(self, outcomes: Sequence[tuple[int, float]]) -> None:
        for number, z in outcomes:
            self._z[self._first + number] = z
        self._update()

    def forget(self, n: int) -> None:
        # Rows of the factor and of the whitened covariances depend on those before them only.
        last, self._n = self._n, self._n - n
        gains = self._whitened[self._n : last]
        self._variance = self._variance + np.einsum("ij,ij->j", gains, gains)
        self._factor[self._n : last] = np.eye(n, len(self._z), self._n)
        self._z[self._n : last] = 0.0
        self._points = self._points[: self._n]
        self._update()

    def extend(self, candidates: np.ndarray) -> None:
        seen, n = self._kernel.seen(candidates), self._n
        whitened = np.empty((len(self._whitened), len(candidates)))
        whitened[:n] = self._solved(self._kernel(self._points, seen))
        variance = self._kernel.variance(seen) - np.einsum("ij,ij->j", whitened[:n], whitened[:n])
        self._candidates = np.concatenate([self._candidates, seen])
        self._whitened = np.concatenate([self._whitened, whitened], axis=1)
        self._variance = np.concatenate([self._variance, variance])
        self._update()

    def _solved(self, right: np.ndarray) -> np.ndarray:
        n = self._n
        return linalg.solve_triangular(self._factor[:n, :n], right, lower=True, check_finite=False)

    def _update(self) -> None:
        # The room that is left is an identity matrix, so that the factor need not be copied.
        self.mean = linalg.blas.dtrsv(self._factor, self._z, lower=1)[: self._n] @ self._whitened[: self._n]
        self._update_std()

    def _update_std(self) -> None:
        self.std = np.sqrt(np.maximum(self._variance, _LEAST_STD**2))


_ROOM = 64  # points that can be pretended before arrays must grow


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
        self._trees = trees = [estimator.tree_ for estimator in self._forest.estimators_]
        self._first_node = np.cumsum([0, *(tree.node_count for tree in trees[:-1])])
        self._count = np.concatenate([tree.weighted_n_node_samples for tree in trees])
        self._sum = np.concatenate([tree.value[:, 0, 0] for tree in trees]) * self._count
        self._variance = np.concatenate([tree.impurity for tree in trees])

    def posterior(self, candidates: np.ndarray, pending: np.ndarray, lie: float | None) -> _ForestPosterior:
        posterior = _ForestPosterior(self.leaves, candidates, self._sum.copy(), self._count.copy(), self._variance)
        if len(pending):
            leaves = self.leaves(pending)
            posterior.join(leaves, posterior.expected(leaves) if lie is None else np.full(len(pending), lie))
        return posterior

    def leaves(self, features: np.ndarray) -> np.ndarray:
        """Return the number of the leaf of each point in each tree, counted through all trees."""
        # The forest's own method checks its input anew for every tree, which takes longer than the trees do.
        x = np.ascontiguousarray(features, dtype=np.float32)
        return np.stack([tree.apply(x) for tree in self._trees], axis=1) + self._first_node


class _ForestPosterior(Posterior):
    def __init__(
        self,
        find: Callable[[np.ndarray], np.ndarray],
        candidates: np.ndarray,
        total: np.ndarray,
        count: np.ndarray,
        variance: np.ndarray,
    ) -> None:
        self._find, self._sum, self._count, self._variance = find, total, count, variance
        self._joined: list[tuple[np.ndarray, float]] = []  # leaves and objective of what is pending or pretended
        self._leaves = np.empty((0, 0), dtype=int)
        self.extend(candidates)

    def extend(self, candidates: np.ndarray) -> None:
        leaves = self._find(candidates)
        self._leaves = np.concatenate([self._leaves, leaves]) if len(self._leaves) else leaves
        self._within = self._variance[self._leaves].mean(axis=1)
        self.mean, self.std = np.empty(len(self._leaves)), np.empty(len(self._leaves))
        self._update(np.arange(len(self._leaves)))

    def expected(self, leaves: np.ndarray) -> np.ndarray:
        """Return the mean over trees for points that lie in `leaves`, shape (n, n_trees)."""
        return (self._sum[leaves] / self._count[leaves]).mean(axis=1)

    def join(self, leaves: np.ndarray, lies: np.ndarray) -> None:
        """Put points into their leaves."""
        np.add.at(self._sum, leaves, lies[:, None])
        np.add.at(self._count, leaves, 1.0)
        self._joined += zip(leaves, lies.tolist())
        self._update(np.arange(len(self._leaves)))

    def pretend(self, index: int, lie: float | None) -> int:
        leaves, z = self._leaves[index], self.mean[index] if lie is None else lie
        self._sum[leaves] += z
        self._count[leaves] += 1
        self._joined.append((leaves, z))
        self._update(np.flatnonzero((self._leaves == leaves).any(axis=1)))
        return len(self._joined) - 1

    def learn(self, outcomes: Sequence[tuple[int, float]]) -> None:
        for number, z in outcomes:
            leaves, lie = self._joined[number]
            self._sum[leaves] += z - lie
            self._joined[number] = leaves, z
        self._update(np.arange(len(self._leaves)))

    def forget(self, n: int) -> None:
        for leaves, z in self._joined[len(self._joined) - n :]:
            self._sum[leaves] -= z
            self._count[leaves] -= 1
        del self._joined[len(self._joined) - n :]
        self._update(np.arange(len(self._leaves)))

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
                subsample=0.8 if len(objectives) > 4 else 1.0,  # of one it would take none
                random_state=int(rng.integers(1 << 31)),
            ).fit(features, objectives)
            for quantile in stats.norm.cdf([-1, 0, 1])
        ]

    def posterior(self, candidates: np.ndarray, pending: np.ndarray, lie: float | None) -> _BoostedPosterior:
        posterior = _BoostedPosterior(self.predict, candidates)
        for point in pending:
            posterior.approach(point, lie)
        return posterior

    def predict(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and standard deviation of points, as if nothing were pending."""
        low, mean, high = (model.predict(features) for model in self._models)
        return mean, np.maximum(np.abs(high - low) / 2, _LEAST_STD)


class _BoostedPosterior(Posterior):
    def __init__(self, predict: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]], candidates: np.ndarray) -> None:
        self._predict, self._candidates = predict, candidates
        self._reach = 0.1 * np.sqrt(max(candidates.shape[1], 1))
        self._approached: list[tuple[np.ndarray, float | None]] = []  # points, and what they gave or are said to
        self.mean, self.std = predict(candidates)

    def pretend(self, index: int, lie: float | None) -> int:
        self.approach(self._candidates[index], lie)
        return len(self._approached) - 1

    def learn(self, outcomes: Sequence[tuple[int, float]]) -> None:
        for number, z in outcomes:
            self._approached[number] = self._approached[number][0], z
        self.mean, self.std = self._predict(self._candidates)
        for point, lie in self._approached:
            self._draw(point, lie)

    def forget(self, n: int) -> None:
        del self._approached[len(self._approached) - n :]
        self.learn([])

    def extend(self, candidates: np.ndarray) -> None:
        self._candidates = np.concatenate([self._candidates, candidates])
        self.learn([])

    def approach(self, point: np.ndarray, lie: float | None) -> None:
        """Take `point` for evaluated."""
        self._approached.append((point, lie))
        self._draw(point, lie)

    def _draw(self, point: np.ndarray, lie: float | None) -> None:
        """Draw mean and standard deviation near `point` towards those of an evaluated point."""
        closeness = np.exp(-0.5 * np.sum((self._candidates - point) ** 2, axis=1) / self._reach**2)
        if lie is not None:
            self.mean = self.mean + closeness * (lie - self.mean)
        self.std = np.maximum(self.std * np.sqrt(1 - closeness**2), _LEAST_STD)


class Feasibility:
    """How likely an evaluation is to succeed, learnt from those that did not: the mean of two models' estimates.

    Trees find borders that are a matter of few hyperparameters, such as choices that do not go together; a Gaussian
    process of the outcome, 1 or -1, finds smooth borders that several make together, such as a rate that is too large.
    Both err, but not alike.

    Parameters
    ----------
    groups : ndarray of int, shape (n_features,)
        The hyperparameter that each feature belongs to.

    References
    ----------
    Gelbart, Snoek, Adams (2014), Bayesian Optimization with Unknown Constraints, UAI.
    Rasmussen, Williams (2006), Gaussian Processes for Machine Learning, section 6.5 (classification by regression).
    """

    most_points = 2000

    def __init__(self, groups: np.ndarray) -> None:
        self._process = GaussianProcess(groups)

    def fit(self, features: np.ndarray, succeeded: np.ndarray, rng: np.random.Generator) -> None:
        """Learn from finished trials, all that there are.

        Parameters
        ----------
        features : ndarray of shape (n, n_features)
        succeeded : ndarray of bool, shape (n,)
            Both kinds must be there.
        rng : Generator
        """
        from sklearn.ensemble import ExtraTreesClassifier  # a second to import

        n = len(features)
        chosen = _some_of_both(succeeded, self.most_points, rng)
        features, succeeded = features[chosen], succeeded[chosen]
        # Each split is the best of one a feature: what an evaluation needs is often a matter of few hyperparameters.
        model = ExtraTreesClassifier(
            n_estimators=30, max_features=None, min_samples_leaf=2, random_state=int(rng.integers(1 << 31))
        ).fit(features, succeeded)
        self._trees: list[Any] = [estimator.tree_ for estimator in model.estimators_]
        chosen = _some_of_both(succeeded, self._process.most_points, rng)
        outcome = np.where(succeeded[chosen], 1.0, -1.0)
        self._middle = float(outcome.mean())
        self._process.fit(features[chosen], outcome - self._middle, n, rng)

    def probability(self, candidates: np.ndarray) -> np.ndarray:
        """Return the probability of success of each candidate, in [0, 1], shape (n_candidates,)."""
        x = np.ascontiguousarray(candidates, dtype=np.float32)
        # Weights of both classes in the leaf of each tree, shape (n_trees, n_candidates, 2).
        weights = np.stack([tree.predict(x).reshape(len(x), 2) for tree in self._trees])
        by_trees = (weights[:, :, 1] / weights.sum(axis=2)).mean(axis=0)
        by_process = np.clip((self._process.expected(candidates) + self._middle + 1) / 2, 0, 1)
        return (by_trees + by_process) / 2


def _some_of_both(succeeded: np.ndarray, most: int, rng: np.random.Generator) -> np.ndarray:
    """Return at most `most` positions: as many of both kinds as there are, but a tenth at least of the rare kind."""
    n = len(succeeded)
    if n <= most:
        return np.arange(n)
    rare, common = sorted((np.flatnonzero(succeeded), np.flatnonzero(~succeeded)), key=len)
    n_rare = min(len(rare), max(most // 10, round(most * len(rare) / n)))
    chosen = [rng.choice(rare, n_rare, replace=False), rng.choice(common, most - n_rare, replace=False)]
    return np.concatenate(chosen)


def surrogate(name: str, groups: np.ndarray, n_jobs: int) -> Surrogate:
    """Return an unfitted surrogate: GP, RF, ET or GBRT."""
    if name == "GP":
        return GaussianProcess(groups, n_jobs)
    if name == "GBRT":
        return BoostedTrees(groups, n_jobs)
    return Forest(groups, n_jobs, extremely_randomised=name == "ET")
