"""The progress of diabetes in 442 patients from ten measurements: small and noisy, so that R2 stays near 0.5.

An honest example of what little data do to a search: validation on 89 patients says little about the best of many
networks.  The data come with scikit-learn; an evaluation takes a few seconds.

References
----------
Efron, Hastie, Johnstone, Tibshirani (2004), Least Angle Regression, Annals of Statistics 32.
"""

from __future__ import annotations

from dhmpi.benchmark.nas.spaces import dense_skip
from dhmpi.benchmark.nas.split import Pair, split
from dhmpi.nas import NaProblem
from dhmpi.nas.preprocessing import stdscaler

__all__ = ["Problem", "load_data"]


def load_data() -> tuple[Pair, Pair, Pair]:
    """Return ten measurements of each patient and, in a column, how far the disease was a year later."""
    from sklearn.datasets import load_diabetes

    X, y = load_diabetes(return_X_y=True, scaled=False)
    return split(X, y[:, None], seed=0)


Problem = NaProblem()
Problem.load_data(load_data)
Problem.search_space(dense_skip, input_shape=(10,), output_shape=(1,), n_layers=3, units=(4, 8, 16, 32))
Problem.preprocessing(stdscaler, outputs=True)
Problem.hyperparameters(batch_size=32, learning_rate=0.003, optimizer="adam", num_epochs=30)
Problem.loss("mse")
Problem.metrics(["r2", "mae"])
Problem.objective("val_r2__last")
Problem.post_training(
    num_epochs=300,
    callbacks={"EarlyStopping": {"monitor": "val_loss", "patience": 30, "restore_best_weights": True}},
    repeat=5,
)
