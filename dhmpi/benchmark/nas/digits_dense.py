"""Handwritten digits with dense networks: 1,797 images of 8 x 8 pixels, ten classes; a few seconds an evaluation.

The data come with scikit-learn.

References
----------
Alpaydin, Kaynak (1998), Optical Recognition of Handwritten Digits, UCI Machine Learning Repository.
"""

from __future__ import annotations

import numpy as np

from dhmpi.benchmark.nas.spaces import dense_skip
from dhmpi.benchmark.nas.split import Pair, split
from dhmpi.nas import NaProblem

__all__ = ["Problem", "load_data"]


def load_data() -> tuple[Pair, Pair, Pair]:
    """Return images as rows of 64 numbers in [0, 1] and their digits as one of ten, the classes equally shared."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return split(images / 16, np.eye(10)[labels], seed=0, strata=labels)


Problem = NaProblem()
Problem.load_data(load_data)
Problem.search_space(dense_skip, input_shape=(64,), output_shape=(10,), last="softmax")
Problem.hyperparameters(batch_size=64, learning_rate=0.003, optimizer="adam", num_epochs=8)
Problem.loss("categorical_crossentropy")
Problem.metrics(["acc"])
Problem.objective("val_acc__last")
Problem.post_training(
    num_epochs=100,
    callbacks={"EarlyStopping": {"monitor": "val_loss", "patience": 15, "restore_best_weights": True}},
    repeat=3,
)
