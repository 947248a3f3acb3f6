"""Transforming data before training, and predictions back: transformers of scikit-learn on arrays of any rank.

``stdscaler`` and ``minmaxstdscaler`` are what problems name most often; any function that returns a transformer or a
pipeline will do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from dhmpi.errors import ProblemError


def stdscaler() -> Any:
    """Return a transformer to mean 0 and standard deviation 1 of each feature."""
    from sklearn.preprocessing import StandardScaler  # late: only data need it

    return StandardScaler()


def minmaxstdscaler() -> Any:
    """Return a pipeline: to the range from 0 to 1, then to mean 0 and standard deviation 1."""
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MinMaxScaler, StandardScaler

    return make_pipeline(MinMaxScaler(), StandardScaler())


class Scaling:
    """A transformer that was fitted on an array, for others like it.

    Parameters
    ----------
    make : callable
        Returns the transformer.
    array : ndarray of shape (n_samples, ...)
        To fit it on.  The last axis are the features, as for images and sequences; all others are rows.
    what : str
        How messages call the array.

    Raises
    ------
    ProblemError
        If the function or the transformer raises, or there is no way back where one is needed.
    """

    def __init__(self, make: Callable[[], Any], array: np.ndarray, what: str, back: bool = False) -> None:
        self._what = what
        try:
            self._transformer = make()
            self._transformer.fit(_rows(array))
        except Exception as error:
            raise self._refused("cannot be fitted on", error) from error
        if back and not hasattr(self._transformer, "inverse_transform"):
            kind = type(self._transformer).__name__
            raise ProblemError(f"the preprocessing of {what} cannot be undone: {kind} has no inverse_transform")

    def __call__(self, array: np.ndarray) -> np.ndarray:
        """Return the array transformed, as 32-bit floats."""
        return self._apply(self._transformer.transform, array)

    def undo(self, array: np.ndarray) -> np.ndarray:
        """Return an array in the original units."""
        return self._apply(self._transformer.inverse_transform, array)

    def _apply(self, function: Callable[[np.ndarray], Any], array: np.ndarray) -> np.ndarray:
        try:
            rows = function(_rows(array))
        except Exception as error:
            raise self._refused("fails on", error) from error
        rows = np.asarray(rows.toarray() if hasattr(rows, "toarray") else rows, dtype=np.float32)
        return rows.reshape(*array.shape[:-1], -1)

    def _refused(self, verb: str, error: Exception) -> ProblemError:
        return ProblemError(
            f"the preprocessing {verb} {self._what}: {type(error).__name__}: {' '.join(str(error).split())}"
        )


def _rows(array: np.ndarray) -> np.ndarray:
    return array.reshape(-1, array.shape[-1])
