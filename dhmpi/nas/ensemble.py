"""Ensembles of trained networks: which of them, and with which weights, predict best together.

numpy only, and nothing of files but :func:`load`.  Start reading at :func:`select`.
"""

from __future__ import annotations

import math
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dhmpi.errors import RunDirectoryError

Tensors = tuple[np.ndarray, ...]
"""One array an output, samples along the first axis."""


@dataclass(frozen=True)
class Selection:
    """An ensemble, as it was selected.

    Attributes
    ----------
    chosen : tuple of int
        Numbers of the candidates, in the order in which they were added; with repetitions.
    scores : tuple of float
        Of the ensemble after each addition.
    """

    chosen: tuple[int, ...]
    scores: tuple[float, ...]

    @property
    def weights(self) -> dict[int, float]:
        """Weight of each member, the heaviest first; they add up to 1."""
        return {member: count / len(self.chosen) for member, count in Counter(self.chosen).most_common()}


@dataclass(frozen=True)
class Predictions:
    """What a network has predicted of some samples.

    Attributes
    ----------
    outputs, targets : tuple of ndarray
        In original units, one array an output.
    digest : str
        Of the targets: equal for predictions of the same samples.
    """

    outputs: Tensors
    targets: Tensors
    digest: str


def select(candidates: Sequence[Tensors], score: Callable[[Tensors], float], size: int) -> Selection:
    """Select an ensemble greedily: add, again and again, the candidate with which the ensemble scores best.

    A candidate may be added several times, which gives it more weight.  Of all ensembles on the way the best counts,
    the smallest of equally good ones; of equally good candidates the first is added.

    Parameters
    ----------
    candidates : sequence of tuple of ndarray
        Predictions of each, of the same samples.
    score : callable
        Predictions -> number to be maximised; NaN is worse than all others.
    size : int
        Additions, >= 1.

    Raises
    ------
    ValueError
        If there is no candidate, or `size` < 1.

    References
    ----------
    Caruana, Niculescu-Mizil, Crew, Ksikes (2004), Ensemble Selection from Libraries of Models, ICML 21.
    """
    if not candidates:
        raise ValueError("an ensemble needs candidates, got none")
    if size < 1:
        raise ValueError(f"size must be >= 1, got {size}")
    total = tuple(np.zeros(output.shape) for output in candidates[0])
    chosen: list[int] = []
    scores: list[float] = []
    for n in range(1, size + 1):
        tried = []
        for candidate in candidates:
            value = score(tuple((sum_ + output) / n for sum_, output in zip(total, candidate)))
            tried.append(-math.inf if math.isnan(value) else value)
        best = int(np.argmax(tried))
        total = tuple(sum_ + output for sum_, output in zip(total, candidates[best]))
        chosen.append(best)
        scores.append(tried[best])
    n_best = int(np.argmax(scores)) + 1
    return Selection(tuple(chosen[:n_best]), tuple(scores[:n_best]))


def combine(predictions: Mapping[int, Tensors] | Sequence[Tensors], weights: Mapping[int, float]) -> Tensors:
    """Return the weighted mean of predictions: of probabilities for classes, of values for a regression.

    Parameters
    ----------
    predictions : mapping or sequence of tuple of ndarray
        By the number of a candidate.
    weights : mapping of int to float
        As in `Selection`.
    """
    parts = [tuple(weight * np.asarray(output, float) for output in predictions[i]) for i, weight in weights.items()]
    return tuple(np.sum(outputs, axis=0) for outputs in zip(*parts))


def load(path: Path) -> Predictions | None:
    """Read a file of :func:`dhmpi.nas.training.save_predictions` that has targets; None if there is no such file.

    Raises
    ------
    RunDirectoryError
        If it cannot be read, or has no targets.
    """
    try:
        with np.load(path, allow_pickle=False) as content:
            arrays: dict[str, Any] = dict(content)
        return Predictions(_numbered(arrays, "output"), _numbered(arrays, "target"), str(arrays["digest"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise RunDirectoryError(f"{path} holds no predictions with their targets: {error}") from error


def _numbered(arrays: Mapping[str, Any], word: str) -> Tensors:
    found = [arrays[f"{word}_{i}"] for i in range(sum(name.startswith(f"{word}_") for name in arrays))]
    if not found:
        raise KeyError(f"{word}_0")
    return tuple(found)
