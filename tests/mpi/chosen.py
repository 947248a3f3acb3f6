"""A problem of architectures whose search costs nothing: its function prefers large options; the data are small."""

import os
import time

import numpy as np

from dhmpi.nas import NaProblem, SearchSpace
from dhmpi.nas import layers as L


def load_data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(90, 4)).astype("float32")
    y = x @ [[1.0], [2.0], [-1.0], [0.5]]
    return tuple((x[i : i + 30], y[i : i + 30]) for i in (0, 30, 60))


def make(input_shape, output_shape):
    space = SearchSpace()
    x = space.input(input_shape)
    for i in range(2):
        x = space.choose(f"layer{i}", [L.Identity(), L.Dense(2, "relu"), L.Dense(4, "tanh"), L.Dense(8, "relu")], x)
    space.output(L.Dense(1), x, shape=output_shape)
    return space


Problem = NaProblem()
Problem.load_data(load_data)
Problem.search_space(make, input_shape=(4,), output_shape=(1,))
Problem.hyperparameters(batch_size=10, learning_rate=0.02, num_epochs=1)
Problem.loss("mse")
Problem.metrics(["r2"])
Problem.objective("val_r2")
Problem.post_training(num_epochs=2, repeat=2)


def run(config):
    return sum(config["arch_seq"])


def train_slowly(config):
    """Stand in for a training."""
    time.sleep(float(os.environ.get("CHOSEN_SECONDS", "0")))
    return {"objective": sum(config["arch_seq"]) + config["num_epochs"] / 10, "val_r2": config["repeat"]}
