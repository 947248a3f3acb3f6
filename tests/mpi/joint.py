"""An architecture and how it is trained, without a training: good are wide layers and a learning rate of 0.01."""

import math
import time

from dhmpi.nas import NaProblem, SearchSpace
from dhmpi.nas import layers as L


def chain(input_shape, output_shape):
    space = SearchSpace()
    x = space.input(input_shape)
    for i in range(6):
        x = space.choose(f"layer{i}", [L.Dense(units, "relu") for units in (4, 8, 16, 32)], x)
    space.output(L.Dense(output_shape[0]), x)
    return space


Problem = NaProblem()
Problem.search_space(chain, input_shape=(4,), output_shape=(1,))
Problem.add_hyperparameter((1e-4, 1e-1, "log-uniform"), "learning_rate")
Problem.add_hyperparameter([16, 32, 64], "batch_size")


def run(config):
    time.sleep(0.05)  # so that most proposals know of the last evaluations
    return sum(config["arch_seq"]) - 3 * abs(math.log10(config["learning_rate"]) + 2)
