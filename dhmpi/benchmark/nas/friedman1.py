"""Friedman's first function: ten inputs, five of which count, with noise; a few seconds an evaluation.

y = 10 sin(pi x0 x1) + 20 (x2 - 1/2)^2 + 10 x3 + 5 x4 + noise of standard deviation 1.  The noise leaves an R2 of about
0.96 to be reached.

References
----------
Friedman (1991), Multivariate Adaptive Regression Splines, Annals of Statistics 19.
"""

from __future__ import annotations

from dhmpi.benchmark.nas.spaces import dense_skip
from dhmpi.benchmark.nas.split import Pair, split
from dhmpi.nas import NaProblem
from dhmpi.nas.preprocessing import stdscaler

__all__ = ["Problem", "load_data"]


def load_data(n_samples: int = 2000, seed: int = 0) -> tuple[Pair, Pair, Pair]:
    """Return inputs in [0, 1] and the noisy values of the function in a column."""
    from sklearn.datasets import make_friedman1

    X, y = make_friedman1(n_samples, n_features=10, noise=1.0, random_state=seed)
    return split(X, y[:, None], seed)


Problem = NaProblem()
Problem.load_data(load_data)
Problem.search_space(dense_skip, input_shape=(10,), output_shape=(1,), n_layers=4)
Problem.preprocessing(stdscaler, outputs=True)
Problem.hyperparameters(batch_size=64, learning_rate=0.005, optimizer="adam", num_epochs=15)
Problem.loss("mse")
Problem.metrics(["r2", "mse"])
Problem.objective("val_r2__last")
Problem.post_training(
    num_epochs=300,
    callbacks={"EarlyStopping": {"monitor": "val_loss", "patience": 30, "restore_best_weights": True}},
    repeat=3,
)
