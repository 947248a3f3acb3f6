"""The sum of ten numbers: the simplest regression of DeepHyper 0.1.13, one epoch, a few seconds an evaluation.

Its space are ten layers of up to ten units; its samples are 100,000, drawn uniformly between 1 and 100, of which four
fifths train.  Here the last fifth is shared between validation and testing, and the learning rate is 0.01.
"""

from __future__ import annotations

from collections.abc import Sequence

from dhmpi.benchmark.nas.split import Pair
from dhmpi.nas import NaProblem, SearchSpace
from dhmpi.nas import layers as L

__all__ = ["Problem", "load_data", "simple_deep"]


def load_data(n_samples: int = 100_000, n_dims: int = 10, seed: int = 2018) -> tuple[Pair, Pair, Pair]:
    """Return numbers between 1 and 100 and their sums in a column."""
    import numpy as np

    X = np.random.default_rng(seed).uniform(1.0, 100.0, (n_samples, n_dims))
    y = X.sum(axis=1, keepdims=True)
    first, second = n_samples * 8 // 10, n_samples * 9 // 10
    return (X[:first], y[:first]), (X[first:second], y[first:second]), (X[second:], y[second:])


def simple_deep(
    input_shape: Sequence[int], output_shape: Sequence[int], n_layers: int = 10, max_units: int = 10
) -> SearchSpace:
    """Return a space of layers in a row, each the identity or dense with 1, 2, ... units and ReLU."""
    space = SearchSpace()
    x = space.input(input_shape)
    options = [L.Identity(), *(L.Dense(units, "relu") for units in range(1, max_units + 1))]
    for i in range(n_layers):
        x = space.choose(f"layer{i}", options, x)
    space.output(L.Dense(output_shape[-1]), x, shape=output_shape)
    return space


Problem = NaProblem()
Problem.load_data(load_data)
Problem.search_space(simple_deep, input_shape=(10,), output_shape=(1,))
Problem.hyperparameters(batch_size=100, learning_rate=0.01, optimizer="adam", num_epochs=1)
Problem.loss("mse")
Problem.metrics(["r2"])
Problem.objective("val_r2__last")
Problem.post_training(num_epochs=20, repeat=3)
