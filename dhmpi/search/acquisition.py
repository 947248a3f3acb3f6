"""Acquisition functions: how much a candidate is worth evaluating, from its predicted mean and standard deviation.

Objectives are maximised, and so is every function here.  In scikit-optimize's words LCB is minimised; that is the
same choice as UCB of the negated objective, so both names mean the same.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import ndtr

ACQUISITIONS = ("UCB", "LCB", "EI", "PI", "gp_hedge")


def upper_confidence_bound(mean: np.ndarray, std: np.ndarray, kappa: float = 1.96) -> np.ndarray:
    """Return an optimistic guess of each candidate's objective.

    Parameters
    ----------
    mean, std : ndarray of shape (n_candidates,)
        Prediction of the objective (maximised) and its standard deviation, std >= 0.
    kappa : float, default 1.96
        Optimism in standard deviations, >= 0; 0 only exploits.

    Returns
    -------
    ndarray of shape (n_candidates,)

    References
    ----------
    Cox, John (1992), A statistical method for global optimization, IEEE SMC.
    Srinivas, Krause, Kakade, Seeger (2010), Gaussian Process Optimization in the Bandit Setting, ICML.
    """
    return mean + kappa * std


def expected_improvement(mean: np.ndarray, std: np.ndarray, best: float, xi: float = 0.01) -> np.ndarray:
    """Return how much each candidate is expected to improve on the best.

    Parameters
    ----------
    mean, std : ndarray of shape (n_candidates,)
        Prediction of the objective (maximised) and its standard deviation, std >= 0.
    best : float
        Largest objective observed so far.
    xi : float, default 0.01
        Improvement, in units of the objective, that does not count.

    Returns
    -------
    ndarray of shape (n_candidates,)
        Never negative; 0 wherever std is 0 and mean <= best + xi.

    References
    ----------
    Jones, Schonlau, Welch (1998), Efficient Global Optimization of Expensive Black-Box Functions, J. Glob. Optim. 13.
    """
    gain = mean - best - xi
    u = gain / np.where(std > 0, std, 1)
    improvement = gain * ndtr(u) + std * np.exp(-0.5 * u**2) / np.sqrt(2 * np.pi)
    return np.maximum(np.where(std > 0, improvement, gain), 0)


def probability_of_improvement(mean: np.ndarray, std: np.ndarray, best: float, xi: float = 0.01) -> np.ndarray:
    """Return how likely each candidate is to improve on the best by more than `xi`.

    Parameters and units as in :func:`expected_improvement`.

    Returns
    -------
    ndarray of shape (n_candidates,)
        In [0, 1].

    References
    ----------
    Kushner (1964), A New Method of Locating the Maximum Point of an Arbitrary Multipeak Curve, J. Basic Eng. 86.
    """
    gain = mean - best - xi
    return np.where(std > 0, ndtr(gain / np.where(std > 0, std, 1)), gain > 0)


class Outlook(NamedTuple):
    """What is expected of candidates.

    Attributes
    ----------
    mean, std : ndarray of shape (n_candidates,)
        Prediction of the normalised objective (maximised) and its standard deviation, std > 0.
    best : float
        Largest normalised objective observed so far.
    feasible : ndarray of shape (n_candidates,) or None
        Probability that the evaluation succeeds; ``None``: none has failed yet.
    free : ndarray of bool, shape (n_candidates,)
        False for those already chosen.
    """

    mean: np.ndarray
    std: np.ndarray
    best: float
    feasible: np.ndarray | None
    free: np.ndarray


_TYPICAL = (0.25, 0.8, 2.0)
"""Kappas near the quantiles of what is drawn."""


class Acquisition:
    """Scores candidates by the function asked for; ``gp_hedge`` learns which of the three to trust.

    Parameters
    ----------
    name : str
        One of `ACQUISITIONS`.
    kappa : float, default 1.96
        Of UCB: what is used is drawn anew for every proposal as 0.1 + Exp(1), times kappa / 1.96, so that proposals
        made in parallel explore to different degrees.
    xi : float, default 0.01
        Of EI and PI, in standard deviations of the normalised objective.

    References
    ----------
    Wilson, Hutter, Deisenroth (2018), Maximizing acquisition functions for Bayesian optimization, NeurIPS 31 (qUCB).
    Egele, Guyon, Vishwanath, Balaprakash (2023), Asynchronous Decentralized Bayesian Optimization for Large Scale
    Hyperparameter Optimization, e-Science (kappa from an exponential distribution).
    Hoffman, Brochu, de Freitas (2011), Portfolio Allocation for Bayesian Optimization, UAI (GP-Hedge).
    """

    def __init__(self, name: str, kappa: float = 1.96, xi: float = 0.01) -> None:
        self.name = name
        self.kappa = kappa
        self.xi = xi
        self._gains = np.zeros(3)  # g: reward of UCB, EI and PI so far
        self.nominees: np.ndarray | None = None
        """Features of what UCB, EI and PI would have chosen last, shape (3, n_features); only with gp_hedge."""

    def reward(self, means: np.ndarray) -> None:
        """Take what a newer model expects of the nominees, shape (3,)."""
        # g_i <- g_i + mu(x_i)
        self._gains += means

    def promising(self, outlook: Outlook, n: int) -> np.ndarray:
        """Return the numbers of the `n` best candidates each by several degrees of optimism, or each by EI and PI."""
        if self.name in ("EI", "PI"):
            scores = [self._score(self.name, outlook)]
        else:
            scores = [self._score("UCB", outlook, kappa * self.kappa / 1.96) for kappa in _TYPICAL]
            if self.name == "gp_hedge":
                scores += [self._score(name, outlook) for name in ("EI", "PI")]
        n = min(n, len(outlook.free))
        return np.unique(np.concatenate([np.argpartition(-score, n - 1)[:n] for score in scores]))

    def choose(self, outlook: Outlook, features: np.ndarray, rng: np.random.Generator) -> int:
        """Return the number of the candidate to evaluate next; at least one must be free.

        Parameters
        ----------
        outlook : Outlook
        features : ndarray of shape (n_candidates, n_features)
        rng : Generator
        """
        if self.name != "gp_hedge":
            return self._favourite(self.name, outlook, rng)
        nominees = [self._favourite(name, outlook, rng) for name in ("UCB", "EI", "PI")]
        self.nominees = features[nominees]
        # p_i proportional to exp(eta g_i), eta = 1
        p = np.exp(self._gains - self._gains.max())
        return nominees[rng.choice(3, p=p / p.sum())]

    def _favourite(self, name: str, outlook: Outlook, rng: np.random.Generator) -> int:
        score = self._score(name, outlook, self._kappa(rng) if name in ("UCB", "LCB") else 0.0)
        # Far from the best, EI and PI vanish numerically: what the model likes then breaks the tie.
        order = np.where(outlook.free, score, -np.inf)
        ties = np.flatnonzero(order == order.max())
        return int(ties[np.argmax(outlook.mean[ties] + outlook.std[ties])])

    def _score(self, name: str, outlook: Outlook, kappa: float = 0.0) -> np.ndarray:
        mean, std, best, feasible, free = outlook
        if name == "EI":
            score = expected_improvement(mean, std, best, self.xi)
        elif name == "PI":
            score = probability_of_improvement(mean, std, best, self.xi)
        else:
            score = upper_confidence_bound(mean, std, kappa)
        if feasible is None:
            return score
        # With EI and PI a failed evaluation improves nothing.  Else it is worth as much as one in the middle of those
        # that may well succeed: were it worth as little as the worst, nothing near the border of what succeeds would be
        # evaluated, where optima often are.
        failed = 0.0
        if name not in ("EI", "PI"):
            likely = free & (feasible >= 0.5)
            failed = np.median(score[likely]) if likely.any() else score.min()
        return np.minimum(score, failed + feasible * (score - failed))

    def _kappa(self, rng: np.random.Generator) -> float:
        return float((0.1 + rng.exponential()) * self.kappa / 1.96)
