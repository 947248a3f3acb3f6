"""Training a Keras network on handwritten digits: a conditional space over one or two hidden layers.

The data come with scikit-learn, so nothing is downloaded.  TensorFlow is needed only when a network is trained.

References
----------
Alpaydin, Kaynak (1998), Optical Recognition of Handwritten Digits, UCI Machine Learning Repository.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import dhmpi

if TYPE_CHECKING:
    import numpy as np

    from dhmpi.problem import HpProblem

__all__ = ["Problem", "run"]

Problem: HpProblem


@cache
def _problem() -> HpProblem:
    from ConfigSpace import EqualsCondition

    from dhmpi.problem import HpProblem

    problem = HpProblem()
    activations = ["relu", "elu", "selu", "tanh"]
    layers = problem.add_hyperparameter([1, 2], "layers")
    problem.add_hyperparameter((8, 256, "log-uniform"), "units_1")
    problem.add_hyperparameter(activations, "activation_1")
    problem.add_hyperparameter((0.0, 0.6), "dropout_1")
    second = [
        problem.add_hyperparameter((8, 256, "log-uniform"), "units_2"),
        problem.add_hyperparameter(activations, "activation_2"),
        problem.add_hyperparameter((0.0, 0.6), "dropout_2"),
    ]
    problem.add_conditions(EqualsCondition(hyperparameter, layers, 2) for hyperparameter in second)
    problem.add_hyperparameter((1e-4, 1e-1, "log-uniform"), "learning_rate")
    problem.add_hyperparameter([16, 32, 64, 128, 256], "batch_size")
    problem.add_hyperparameter((3, 30), "epochs")
    problem.add_starting_point(
        layers=1, units_1=32, activation_1="relu", dropout_1=0.0, learning_rate=1e-3, batch_size=64, epochs=10
    )
    return problem


def __getattr__(name: str) -> HpProblem:
    """Make ``Problem`` when somebody asks for it: an evaluation needs only ``run``, and no ConfigSpace."""
    if name == "Problem":
        return _problem()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def run(config: dict[str, Any]) -> dict[str, float]:
    """Train a network and return its accuracy on images that it has not seen.

    Parameters
    ----------
    config : dict
        A configuration of ``Problem``.

    Returns
    -------
    dict
        ``objective``, the test accuracy in [0, 1] after the last epoch; ``test_loss``; ``train_accuracy`` and
        ``train_loss``, with dropout; ``parameters``, the number of weights.
    """
    keras = _keras()
    keras.utils.set_random_seed(dhmpi.trial().seed)
    keras.backend.clear_session()  # or the networks of earlier evaluations stay in memory
    train, train_labels, test, test_labels = load_data()
    layers = [keras.Input((train.shape[1],))]
    for i in range(1, config["layers"] + 1):
        layers.append(keras.layers.Dense(config[f"units_{i}"], activation=config[f"activation_{i}"]))
        layers.append(keras.layers.Dropout(config[f"dropout_{i}"]))
    network = keras.Sequential([*layers, keras.layers.Dense(10, activation="softmax")])
    network.compile(
        optimizer=keras.optimizers.Adam(config["learning_rate"]),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    history = network.fit(
        train, train_labels, batch_size=config["batch_size"], epochs=config["epochs"], verbose=0
    ).history
    loss, accuracy = network.evaluate(test, test_labels, batch_size=len(test), verbose=0)
    return {
        "objective": float(accuracy),
        "test_loss": float(loss),
        "train_accuracy": float(history["accuracy"][-1]),
        "train_loss": float(history["loss"][-1]),
        "parameters": network.count_params(),
    }


def _keras() -> Any:
    import keras  # late: 2 s and 500 MB, and only training needs it

    return keras


@cache
def load_data() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return training images of shape (n, 64) in [0, 1] and their digits, then those for testing."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    train, test, train_labels, test_labels = train_test_split(
        images / 16, labels, test_size=0.25, stratify=labels, random_state=0
    )
    return train, train_labels, test, test_labels
