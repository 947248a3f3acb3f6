"""A problem of DeepHyper 0.2's days, hyperparameters included, with nothing but its imports changed."""

import numpy as np
from old_skipco import create_search_space

from dhmpi.nas import NaProblem


def load_data():
    """Make data of the shapes of covertype: 54 features, 7 classes."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(120, 54)).astype("float32")
    y = np.eye(7, dtype="float32")[np.argmax(X[:, :7], axis=1)]
    return (X[:80], y[:80]), (X[80:], y[80:])


Problem = NaProblem(seed=2019)
Problem.load_data(load_data)
Problem.search_space(create_search_space, num_layers=10, regression=False)
Problem.hyperparameters(
    batch_size=Problem.add_hyperparameter([32, 64, 128, 256, 512, 1024], "batch_size"),
    learning_rate=Problem.add_hyperparameter((0.001, 0.1, "log-uniform"), "learning_rate"),
    optimizer="adam",
    num_epochs=20,
)
Problem.loss("categorical_crossentropy")
Problem.metrics(["acc"])
Problem.objective("val_acc")
