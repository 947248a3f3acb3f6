"""Dividing samples into those for training, for validation and for testing."""

from __future__ import annotations

import numpy as np

__all__ = ["Pair", "split"]

Pair = tuple[np.ndarray, np.ndarray]
"""Inputs and outputs, samples along the first axis."""


def split(X: np.ndarray, y: np.ndarray, seed: int, strata: np.ndarray | None = None) -> tuple[Pair, Pair, Pair]:
    """Divide samples at random: 60 % for training, 20 % for validation, 20 % for testing.

    Parameters
    ----------
    X, y : ndarray
        Samples along the first axis.
    seed : int
    strata : ndarray, optional
        Classes whose shares shall be the same in all three parts.

    Returns
    -------
    tuple of (X, y)
        For training, validation and testing.
    """
    from sklearn.model_selection import train_test_split  # late: only who loads data needs scikit-learn

    rows = np.arange(len(X))
    rest, test = train_test_split(rows, test_size=0.2, random_state=seed, stratify=strata)
    left = None if strata is None else strata[rest]
    train, valid = train_test_split(rest, test_size=0.25, random_state=seed, stratify=left)
    return (X[train], y[train]), (X[valid], y[valid]), (X[test], y[test])
