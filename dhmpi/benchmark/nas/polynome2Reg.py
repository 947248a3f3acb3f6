"""Minus the sum of ten squares: a regression of DeepHyper 0.1.13 with its three-layer space of skip connections.

Of its 100,000 samples and ten epochs, 20,000 and five are left, so that an evaluation takes seconds; the learning rate
is 0.01, since 0.1 makes most networks diverge.
"""

from __future__ import annotations

from dhmpi.benchmark.nas.spaces import dense_skip
from dhmpi.benchmark.nas.split import Pair, split
from dhmpi.nas import NaProblem
from dhmpi.nas.preprocessing import minmaxstdscaler

__all__ = ["Problem", "load_data"]


def load_data(n_samples: int = 20_000, n_dims: int = 10, seed: int = 2018) -> tuple[Pair, Pair, Pair]:
    """Return numbers between -50 and 50 and minus the sums of their squares in a column."""
    import numpy as np

    X = np.random.default_rng(seed).uniform(-50.0, 50.0, (n_samples, n_dims))
    return split(X, -(X**2).sum(axis=1, keepdims=True), seed)


Problem = NaProblem()
Problem.load_data(load_data)
Problem.search_space(
    dense_skip,
    input_shape=(10,),
    output_shape=(1,),
    n_layers=3,
    units=range(16, 97, 16),
    activations=(None, "swish", "relu", "tanh", "sigmoid"),
)
Problem.preprocessing(minmaxstdscaler, outputs=True)
Problem.hyperparameters(batch_size=100, learning_rate=0.01, optimizer="adam", num_epochs=5)
Problem.loss("mse")
Problem.metrics(["r2"])
Problem.objective("val_r2__last")
Problem.post_training(
    num_epochs=100,
    callbacks={"EarlyStopping": {"monitor": "val_loss", "patience": 10, "restore_best_weights": True}},
    repeat=3,
)
