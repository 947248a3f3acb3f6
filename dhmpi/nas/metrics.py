"""Metrics of a whole set of predictions, and in which direction each is better.

A metric is computed once over all validation samples, never as a mean over batches, which for R2 is another number.
numpy only; a metric that is not defined here is looked up in Keras by :func:`resolve`.  Start reading there.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from dhmpi.errors import ProblemError

MetricFunction = Callable[[np.ndarray, np.ndarray], float]
"""Takes targets and predictions, samples along the first axis of both; returns a number."""
MetricSource = str | Callable[..., Any]
"""A metric of this module or of Keras by name, a dotted path, or a function of targets and predictions."""


def r2(y_true: np.ndarray, y_pred: np.ndarray) -> float:
    """Return the coefficient of determination, averaged over outputs.

    Every entry of a sample is an output of its own: 1 - SSE / SST, both summed over the samples, SST around the mean of
    that output; then the plain mean over outputs.  An output that does not vary counts 1 if it is met exactly, else 0.
    """
    error, total = _sums_of_squares(y_true, y_pred)
    constant = total == 0
    scores = 1 - error / np.where(constant, 1, total)
    return float(np.mean(np.where(constant, error == 0, scores)))


def r2_global(y_true: np.ndarray, y_pred: np.ndarray) -> float:
    """Return the coefficient of determination of all outputs together, so that outputs count by their variance.

    1 - (sum of SSE) / (sum of SST) over all outputs, SST of each around its own mean.
    """
    error, total = (sums.sum() for sums in _sums_of_squares(y_true, y_pred))
    if total == 0:
        return float(error == 0)
    return float(1 - error / total)


def mse(y_true: np.ndarray, y_pred: np.ndarray) -> float:
    """Return the mean squared error over samples and outputs."""
    y, p = _alike(y_true, y_pred)
    return float(np.mean((y - p) ** 2))


def rmse(y_true: np.ndarray, y_pred: np.ndarray) -> float:
    """Return the root of the mean squared error."""
    return float(np.sqrt(mse(y_true, y_pred)))


def mae(y_true: np.ndarray, y_pred: np.ndarray) -> float:
    """Return the mean absolute error over samples and outputs."""
    y, p = _alike(y_true, y_pred)
    return float(np.mean(np.abs(y - p)))


def acc(y_true: np.ndarray, y_pred: np.ndarray) -> float:
    """Return the share of right classes.

    Predictions of one column are probabilities of class 1, those of several have their largest entry at the class
    predicted; targets are one-hot, or numbers of classes with one column or none.
    """
    y, p = np.asarray(y_true), np.asarray(y_pred)
    if p.ndim == 1 or p.shape[-1] == 1:
        right = (p > 0.5).reshape(len(p), -1) == (y > 0.5).reshape(len(y), -1)
    else:
        right = p.argmax(-1) == _classes(y, p)
    # A prediction of NaN has no class.
    return float(np.mean(right)) if np.isfinite(p).all() else float("nan")


def sparse_perplexity(y_true: np.ndarray, y_pred: np.ndarray) -> float:
    """Return exp of the mean cross-entropy (in nats); targets are classes, predictions probabilities."""
    p = np.asarray(y_pred, dtype=float)
    classes = _classes(np.asarray(y_true), p).astype(int)[..., None]
    p = p / p.sum(-1, keepdims=True)
    chosen = np.clip(np.take_along_axis(p, classes, -1), 1e-7, None)  # as Keras clips them
    return float(np.exp(-np.mean(np.log(chosen))))


FUNCTIONS: Mapping[str, MetricFunction] = {
    **{function.__name__: function for function in (r2, r2_global, mse, rmse, mae, acc, sparse_perplexity)},
    "accuracy": acc,
    "mean_squared_error": mse,
    "mean_absolute_error": mae,
}
"""Metrics by name; all others are Keras's or the user's."""

_LARGER_IS_BETTER = re.compile(r"r2(_\w+)?|\w*acc(uracy)?|auc|precision|recall|f1_?score|\w*iou", re.IGNORECASE)
_SMALLER_IS_BETTER = re.compile(
    r"loss|r?mse|ma[ep]|mape|msle|\w*(error|perplexity|crossentropy|divergence)", re.IGNORECASE
)


def metric_name(source: MetricSource) -> str:
    """Return the name under which a metric stands in histories and results.

    Raises
    ------
    ProblemError
        If it is no metric.
    """
    if isinstance(source, str) and source:
        return source.rpartition(".")[2]
    name = getattr(source, "__name__", None) or getattr(source, "name", None)
    if callable(source) and isinstance(name, str) and name.isidentifier():
        return name
    raise ProblemError(
        f"a metric is a name, such as 'r2' or 'acc', or a named function of (y_true, y_pred), got {source!r}"
    )


def direction(name: str) -> int:
    """Return 1 if larger values of a metric are better, -1 if smaller ones are, 0 if its name does not tell."""
    if _LARGER_IS_BETTER.fullmatch(name):
        return 1
    return -1 if _SMALLER_IS_BETTER.fullmatch(name) else 0


def resolve(source: MetricSource) -> MetricFunction:
    """Return the function behind a metric.  Imports Keras for a name that is not in `FUNCTIONS`.

    Parameters
    ----------
    source : str or callable
        A callable gets numpy arrays; what it returns may be a value per sample, of which the mean is taken.

    Raises
    ------
    ProblemError
        If there is no such metric.
    """
    if isinstance(source, str) and source in FUNCTIONS:
        return FUNCTIONS[source]
    if not isinstance(source, str):
        return _wrapped(source)
    if "." in source:
        return _wrapped(named("metric", source))
    import keras  # late: 2 s and 500 MB

    try:
        found = keras.metrics.get(source)
    except ValueError:
        raise ProblemError(
            f"there is no metric {source!r}: it is none of {', '.join(FUNCTIONS)}, and Keras has none of this name"
        ) from None
    return _wrapped(found)


def named(what: str, path: str) -> Callable[..., Any]:
    """Return what a dotted path names.

    Raises
    ------
    ProblemError
        If it cannot be imported, or is no function.
    """
    module, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ProblemError(f"the {what} {path!r} cannot be imported: {error}") from error
    if not callable(found):
        raise ProblemError(f"the {what} {path!r} is no function but an object of type {type(found).__name__}")
    return found  # type: ignore[no-any-return]


def _wrapped(found: Any) -> MetricFunction:
    """Return a metric function for a function, a Keras metric, or the class of one."""
    made = found() if isinstance(found, type) else found
    if not hasattr(made, "update_state"):
        return lambda y_true, y_pred: float(np.mean(np.asarray(made(y_true, y_pred), dtype=float)))

    def stateful(y_true: np.ndarray, y_pred: np.ndarray) -> float:
        made.reset_state()
        made.update_state(y_true, y_pred)
        return float(np.mean(np.asarray(made.result(), dtype=float)))

    return stateful


def _sums_of_squares(y_true: np.ndarray, y_pred: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return SSE and SST of each output."""
    y, p = _alike(y_true, y_pred)
    y, p = y.reshape(len(y), -1), p.reshape(len(p), -1)
    return ((y - p) ** 2).sum(0), ((y - y.mean(0)) ** 2).sum(0)


def _alike(y_true: np.ndarray, y_pred: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return both as floats of 64 bits, of one shape: numpy would make a matrix of a column and a vector."""
    y, p = np.asarray(y_true, dtype=float), np.asarray(y_pred, dtype=float)
    if y.size != p.size or len(y) != len(p):
        raise ValueError(f"targets have the shape {y.shape}, but predictions {p.shape}")
    return y.reshape(p.shape), p


def _classes(y: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Return the classes that targets stand for, without a last axis."""
    if y.shape == p.shape:
        return y.argmax(-1)
    return y.reshape(p.shape[:-1])
