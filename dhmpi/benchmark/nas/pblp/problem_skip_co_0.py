"""Profiles of a planetary boundary layer from what is known at the surface: **synthetic** data, of textbook formulas.

The guide of DeepHyper on Theta searches ``naspb.pblp.problem_skip_co_0``, which was never public.  This problem has its
name, the kind of task that it is thought to have had (a network in place of a weather model's boundary-layer scheme),
and the usual space of ten dense layers with skip connections: 37 decisions, 1.3e22 architectures.  None of its data was
observed or simulated by a weather model.  An evaluation takes a few seconds.

References
----------
Wang, Balaprakash, Kotamarthi (2019), Fast domain-aware neural network emulation of a planetary boundary layer
parameterization in a numerical weather forecast model, Geosci. Model Dev. 12.
Stull (1988), An Introduction to Boundary Layer Meteorology: the logarithmic profile and its stability correction.
"""

from __future__ import annotations

import numpy as np

from dhmpi.benchmark.nas.spaces import dense_skip
from dhmpi.benchmark.nas.split import Pair, split
from dhmpi.nas import NaProblem
from dhmpi.nas.preprocessing import stdscaler

__all__ = ["INPUTS", "LEVELS", "Problem", "load_data", "profiles"]

LEVELS = np.geomspace(10.0, 3000.0, 17)
"""Heights above the ground, m."""
INPUTS = {
    "friction_velocity": (0.05, 0.8),  # m/s
    "log_roughness": (-7.0, 0.0),  # of the roughness length in m
    "wind_direction": (-np.pi, np.pi),  # rad, of the wind near the surface
    "stability": (-0.02, 0.02),  # 1/m, the inverse Obukhov length
    "boundary_layer_height": (200.0, 2000.0),  # m
    "entrainment_depth": (30.0, 300.0),  # m
    "surface_temperature": (270.0, 305.0),  # K
    "temperature_excess": (-1.0, 3.0),  # K, of the mixed layer over the surface
    "inversion_strength": (0.5, 8.0),  # K
    "lapse_rate": (0.002, 0.008),  # K/m, of potential temperature above the inversion
    "surface_humidity": (1.0, 15.0),  # g/kg
    "dryness_aloft": (0.1, 0.9),  # part of the humidity that is gone above
    "humidity_scale": (800.0, 3000.0),  # m
    "geostrophic_u": (-15.0, 15.0),  # m/s
    "geostrophic_v": (-15.0, 15.0),  # m/s
    "coriolis": (2e-5, 1.4e-4),  # 1/s
}
"""The inputs, and between which bounds they are drawn uniformly."""
KARMAN = 0.4
NOISE = 0.03  # standard deviation, as a part of each output's own


def profiles(X: np.ndarray) -> np.ndarray:
    """Return wind, potential temperature and humidity over height.

    Parameters
    ----------
    X : ndarray of shape (n, 16)
        In the order of ``INPUTS``.

    Returns
    -------
    ndarray of shape (n, 68)
        At each of 17 levels: zonal and meridional wind (m/s), potential temperature (K), specific humidity (g/kg).
    """
    given = dict(zip(INPUTS, X.T[..., np.newaxis]))
    z, h = LEVELS, given["boundary_layer_height"]
    above = 0.5 * (1 + np.tanh((z - h) / given["entrainment_depth"]))  # 0 in the boundary layer, 1 above it

    # Logarithmic profile up to the top of the surface layer, where the stability correction ends as well.
    surface_layer = np.minimum(z, 0.1 * h)
    zeta = np.clip(surface_layer * given["stability"], -2.0, 1.0)
    unstable = 2 * np.log((1 + np.sqrt(1 - 16 * np.minimum(zeta, 0))) / 2)
    correction = np.where(zeta > 0, -5 * zeta, unstable)
    log_height = np.log(surface_layer) - given["log_roughness"]
    speed = given["friction_velocity"] / KARMAN * np.maximum(log_height - correction, 0.1)

    # The wind turns with height, faster where the Coriolis force is stronger, and becomes geostrophic above.
    angle = given["wind_direction"] - np.sqrt(given["coriolis"] / 1e-4) * 0.4 * np.minimum(z / h, 1)
    u = (1 - above) * speed * np.cos(angle) + above * given["geostrophic_u"]
    v = (1 - above) * speed * np.sin(angle) + above * given["geostrophic_v"]

    mixed = given["surface_temperature"] + given["temperature_excess"] * (1 - np.exp(-z / 50.0))
    inversion = above * (given["inversion_strength"] + given["lapse_rate"] * np.maximum(z - h, 0))
    humidity = given["surface_humidity"] * (1 - above * given["dryness_aloft"])
    humidity = humidity * np.exp(-np.maximum(z - h, 0) / given["humidity_scale"])
    return np.concatenate([u, v, mixed + inversion, humidity], axis=1)


def load_data(n_samples: int = 3000, seed: int = 0) -> tuple[Pair, Pair, Pair]:
    """Return surface values and the profiles above them, with noise."""
    rng = np.random.default_rng(seed)
    low, high = np.array(list(INPUTS.values())).T
    X = rng.uniform(low, high, (n_samples, len(INPUTS)))
    y = profiles(X)
    y += NOISE * y.std(axis=0) * rng.normal(size=y.shape)
    return split(X, y, seed)


Problem = NaProblem()
Problem.load_data(load_data)
Problem.search_space(
    dense_skip,
    input_shape=(len(INPUTS),),
    output_shape=(4 * len(LEVELS),),
    n_layers=10,
    units=range(16, 97, 16),
    activations=(None, "relu", "tanh", "sigmoid"),
)
Problem.preprocessing(stdscaler, outputs=True)
Problem.hyperparameters(batch_size=64, learning_rate=0.003, optimizer="adam", num_epochs=10)
Problem.loss("mse")
Problem.metrics(["r2", "r2_global"])
Problem.objective("val_r2__last")
Problem.post_training(
    num_epochs=200,
    callbacks={"EarlyStopping": {"monitor": "val_loss", "patience": 20, "restore_best_weights": True}},
    repeat=3,
)
