"""Handwritten digits with convolutional cells: normal cells, repeated, around one that reduces; a few seconds.

The two normal cells make the same choices (their layers are their own), as in the spaces of NASNet and of the CIFAR-10
problems of DeepHyper.  The data come with scikit-learn.

References
----------
Zoph, Vasudevan, Shlens, Le (2018), Learning Transferable Architectures for Scalable Image Recognition, CVPR.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dhmpi.benchmark.nas.split import Pair, split
from dhmpi.nas import NaProblem, SearchSpace
from dhmpi.nas import layers as L
from dhmpi.nas.space import Node

__all__ = ["Problem", "conv_cells", "load_data"]

INPUT_SHAPE = (8, 8, 1)


def load_data() -> tuple[Pair, Pair, Pair]:
    """Return images of shape (8, 8, 1) with pixels in [0, 1] and their digits as one of ten."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return split(images.reshape(-1, *INPUT_SHAPE) / 16, np.eye(10)[labels], seed=0, strata=labels)


def conv_cells(
    input_shape: Sequence[int] = INPUT_SHAPE,
    output_shape: Sequence[int] = (10,),
    n_filters: int = 8,
    n_normal: int = 3,
    n_reducing: int = 2,
) -> SearchSpace:
    """Return a space of cells: normal, reducing, normal like the first.

    Parameters
    ----------
    input_shape, output_shape : sequence of int
    n_filters : int, default 8
        Twice as many after the reducing cell.
    n_normal, n_reducing : int
        Operations in a cell of either kind.
    """
    space = SearchSpace()
    x = space.apply(L.Conv2D(n_filters, 3, "relu"), space.input(input_shape), name="stem")
    x = add_cell(space, "normal", x, n_normal, n_filters)
    x = add_cell(space, "reducing", x, n_reducing, 2 * n_filters)
    x = space.apply(L.MaxPool2D(2), x)
    x = add_cell(space, "again", x, n_normal, 2 * n_filters, same_as="normal")
    x = space.apply(L.Keras("GlobalAveragePooling2D"), x)
    space.output(L.Dense(output_shape[-1], "softmax"), x, shape=output_shape)
    return space


def add_cell(
    space: SearchSpace, name: str, x: Node, n_operations: int, n_filters: int, same_as: str | None = None
) -> Node:
    """Add operations in a row, each but the first with skip connections from what came earlier in the cell."""
    options = [
        L.Identity(),
        L.Conv2D(n_filters, 1, "relu"),
        L.Conv2D(n_filters, 3, "relu"),
        L.Conv2D(n_filters, 5, "relu"),
        L.SeparableConv2D(n_filters, 3, "relu"),
        L.SeparableConv2D(n_filters, 5, "relu"),
        L.MaxPool2D(3, strides=1),
        L.AvgPool2D(3, strides=1),
    ]
    past = [x]
    for i in range(n_operations):
        like = (f"{same_as}_op{i}", f"{same_as}_skip{i}") if same_as else (None, None)
        y = space.choose(f"{name}_op{i}", options, x, same_as=like[0])
        x = space.skips(f"{name}_skip{i}", y, past[:i], activation="relu", same_as=like[1])
        past.append(x)
    return x


Problem = NaProblem()
Problem.load_data(load_data)
Problem.search_space(conv_cells, input_shape=INPUT_SHAPE, output_shape=(10,))
Problem.hyperparameters(batch_size=64, learning_rate=0.005, optimizer="adam", num_epochs=5)
Problem.loss("categorical_crossentropy")
Problem.metrics(["acc"])
Problem.objective("val_acc__last")
Problem.post_training(
    num_epochs=60,
    callbacks={"EarlyStopping": {"monitor": "val_loss", "patience": 10, "restore_best_weights": True}},
    repeat=3,
)
