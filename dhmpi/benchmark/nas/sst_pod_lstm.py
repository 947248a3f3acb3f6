"""Sea-surface temperature eight weeks ahead, with stacked LSTMs: the search space of SC20's POD-LSTM.

A field of weekly temperatures is reduced to the five coefficients of its proper orthogonal decomposition (POD); from
eight weeks of them a network tells the next eight.  The space is the published one, 8,605,184 architectures.

**The default data are synthetic**: travelling waves, an annual cycle and weather on a small grid, made from formulas.
Set the environment variable ``DHMPI_SST_POD`` to a directory with ``True_Train.npy`` (5 x 427 weeks) and
``True_Test.npy`` (5 x 1487) to use the series of NOAA's sea-surface temperature that the paper used.

Time is respected: the first four fifths of the training series train, the rest validates, and what came later tests.
No week of a part is seen by another, and everything is scaled by the weeks that train.

References
----------
Maulik, Egele, Lusch, Balaprakash (2020), Recurrent Neural Network Architecture Search for Geophysical Emulation, SC20.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from dhmpi.benchmark.nas.spaces import lstm_skip
from dhmpi.benchmark.nas.split import Pair
from dhmpi.errors import ProblemError
from dhmpi.nas import NaProblem

__all__ = ["DIRECTORY", "Problem", "load_data", "series", "windows"]

DIRECTORY = "DHMPI_SST_POD"
"""The environment variable that names the directory of the real series."""
FILES = ("True_Train.npy", "True_Test.npy")
N_WEEKS = (427, 1487)  # for training and validation, for testing
N_MODES = 5
WINDOW = 8  # weeks, seen and told
VALIDATION_WEEKS = 86
SMALL = 0.05


def load_data(directory: str | Path | None = None) -> tuple[Pair, Pair, Pair]:
    """Return windows of eight weeks and the eight weeks after them, each of shape (n, 8, 5).

    Parameters
    ----------
    directory : path, optional
        Of the real series; by default the one that ``DHMPI_SST_POD`` names, if it is set; else the synthetic series.

    Returns
    -------
    tuple of (X, y)
        For training, validation and testing.  Coefficients are scaled so that those which train lie in [0, 1].  The
        weeks of X run backwards (see :func:`windows`).

    Raises
    ------
    ProblemError
        If the directory does not hold the series.
    """
    known, later = series(directory)
    train, valid = known[:-VALIDATION_WEEKS], known[-VALIDATION_WEEKS:]
    low, high = train.min(axis=0), train.max(axis=0)
    parts = ((part - low) / (high - low) for part in (train, valid, later))
    train_windows, valid_windows, test_windows = map(windows, parts)
    return train_windows, valid_windows, test_windows


def windows(weeks: np.ndarray, length: int = WINDOW) -> Pair:
    """Return all stretches of weeks and the stretches that follow them.

    A network of this space sees at each step only the steps before.  In the order of time its first output, one week
    ahead, would have to be told from the oldest week alone.  So the inputs run backwards: the step that tells week k
    from now has seen the last k weeks.

    Parameters
    ----------
    weeks : ndarray of shape (n, n_modes)
    length : int, default 8

    Returns
    -------
    X : ndarray of shape (n - 2 length + 1, length, n_modes)
        The newest week first.
    y : ndarray of the same shape
        The weeks after, the first of them first.
    """
    rows = np.arange(len(weeks) - 2 * length + 1)[:, np.newaxis]
    return weeks[rows + np.arange(length)[::-1]], weeks[rows + length + np.arange(length)]


def series(directory: str | Path | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return five coefficients by week: of the weeks for training and validation, and of those after them.

    Parameters
    ----------
    directory : path, optional
        As in :func:`load_data`.

    Returns
    -------
    tuple of ndarray
        Of shapes (427, 5) and (1487, 5).
    """
    directory = directory or os.environ.get(DIRECTORY)
    if not directory:
        return synthetic()
    parts = []
    for name, n_weeks in zip(FILES, N_WEEKS):
        path = Path(directory) / name
        try:
            part = np.load(path)
        except (OSError, ValueError) as error:
            raise ProblemError(f"{DIRECTORY} must name a directory with {' and '.join(FILES)}: {error}") from error
        if part.shape != (N_MODES, n_weeks):
            raise ProblemError(f"{path} must have the shape {(N_MODES, n_weeks)}, it has {part.shape}")
        parts.append(part.T)
    return parts[0], parts[1]


def synthetic(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return coefficients of a made-up field on a grid of 24 longitudes and 12 latitudes.

    The decomposition is that of the weeks for training and validation; later weeks are projected on its modes.
    """
    rng = np.random.default_rng(seed)
    n_weeks = sum(N_WEEKS)
    week = np.arange(n_weeks)[:, np.newaxis, np.newaxis]
    latitude = np.linspace(-60, 60, 12)[np.newaxis, :, np.newaxis] * np.pi / 180
    longitude = np.linspace(0, 2 * np.pi, 24, endpoint=False)[np.newaxis, np.newaxis, :]
    year = 2 * np.pi * week / 52.18

    field = 8 * np.sin(latitude) * np.cos(year - 0.6 - 0.3 * np.sin(longitude))
    field = field + 1.2 * np.cos(2 * latitude) * np.cos(2 * year + longitude)
    tropics = np.exp(-((latitude / 0.3) ** 2))
    slow = _oscillation(n_weeks, 190.0, 0.995, rng)[:, np.newaxis, np.newaxis]
    field = field + 1.5 * slow * tropics * (1 + np.cos(longitude - 2))
    for wave_number, period, height in ((1, 75.0, 1.0), (2, 38.0, 0.8), (3, 27.0, 0.5)):
        swell = _oscillation(n_weeks, 4 * period, 0.99, rng)[:, np.newaxis, np.newaxis]
        phase = wave_number * longitude - 2 * np.pi * week / period
        field = field + height * (1 + 0.4 * swell) * np.cos(latitude) ** 2 * np.cos(phase)
    field = (field + 0.3 * rng.normal(size=field.shape)).reshape(n_weeks, -1)

    known = field[: N_WEEKS[0]]
    mean = known.mean(axis=0)
    covariance = np.cov(known, rowvar=False)
    modes = np.linalg.eigh(covariance)[1][:, : -N_MODES - 1 : -1].T  # of largest variance, that one first
    modes *= np.sign(modes[range(N_MODES), np.abs(modes).argmax(axis=1)])[
        :, np.newaxis
    ]  # signs are arbitrary: fix them
    coefficients = (field - mean) @ modes.T
    return coefficients[: N_WEEKS[0]], coefficients[N_WEEKS[0] :]


def _oscillation(n: int, period: float, damping: float, rng: np.random.Generator) -> np.ndarray:
    """Return an irregular oscillation of standard deviation 1 or so: a damped one, driven by noise."""
    turn = damping * np.exp(2j * np.pi / period)
    driven = np.zeros(n, dtype=complex)
    noise = rng.normal(size=(n, 2)) @ (1, 1j)
    for i in range(1, n):
        driven[i] = turn * driven[i - 1] + noise[i]
    return driven.real * (1 - damping**2) ** 0.5


def scaling() -> Any:
    """Return a transformer to mean 0 and a small standard deviation, `SMALL`.

    The relation of past and future is nearly linear, and an LSTM is nearly linear for small numbers only.
    """
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, StandardScaler

    return make_pipeline(
        StandardScaler(),
        FunctionTransformer(_times, _times, kw_args={"factor": SMALL}, inv_kw_args={"factor": 1 / SMALL}),
    )


def _times(x: np.ndarray, factor: float) -> np.ndarray:
    return x * factor


def blur(X: np.ndarray, y: np.ndarray, rng: np.random.Generator, noise: float) -> Pair:
    """Add noise to the inputs that grows with their age, so that a network does not learn 326 windows by heart.

    Parameters
    ----------
    X, y : ndarray of shape (n, 8, 5)
        Scaled to `SMALL`, the newest week first.
    rng : Generator
    noise : float
        Standard deviation of the noise of the oldest week, as a part of that of the data; the newest has none.
    """
    age = np.linspace(0, 1, WINDOW)[:, np.newaxis]
    return X + noise * SMALL * age * rng.normal(size=X.shape), y


Problem = NaProblem()
Problem.load_data(load_data)
Problem.search_space(lstm_skip, input_shape=(WINDOW, N_MODES), output_shape=(WINDOW, N_MODES))
Problem.preprocessing(scaling, outputs=True)
Problem.augment(blur, noise=2.0)
Problem.hyperparameters(batch_size=32, learning_rate=0.01, optimizer="adam", num_epochs=30)
Problem.loss("mse")
Problem.metrics(["r2", "r2_global"])
Problem.objective("val_r2__last")
Problem.post_training(
    num_epochs=300,
    callbacks={
        "ReduceLROnPlateau": {"monitor": "val_loss", "factor": 0.5, "patience": 15},
        "EarlyStopping": {"monitor": "val_loss", "patience": 50, "restore_best_weights": True},
    },
    repeat=3,
)
