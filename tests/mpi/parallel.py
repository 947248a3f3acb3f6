"""A network that ranks train together for about two seconds; in trials that the environment names one of them dies."""

import os
import signal
import time

import dhmpi
from dhmpi.nas import NaProblem, SearchSpace
from dhmpi.nas import layers as L

DYING = [int(word) for word in os.environ.get("DYING", "").split(",") if word]


def data():
    import numpy as np

    x = np.random.default_rng(1).normal(size=(96, 4))
    return (x[:64], x[:64].sum(1)), (x[64:], x[64:].sum(1))


def space(input_shape, output_shape):
    s = SearchSpace()
    hidden = s.choose("layer", [L.Dense(units, "relu") for units in range(4, 12)], s.input(input_shape))
    s.output(L.Dense(1), hidden)
    return s


def slow(x, y):
    """Take time for a batch; in the middle of the training the last rank of some trials is killed."""
    trial = dhmpi.trial()
    time.sleep(0.1)
    slow.batches[trial.id] = slow.batches.get(trial.id, 0) + 1
    last = trial.comm is not None and trial.comm.Get_rank() == trial.comm.Get_size() - 1
    if trial.id in DYING and trial.attempt == 0 and last and slow.batches[trial.id] == 6:
        os.kill(os.getpid(), signal.SIGKILL)
    return x, y


slow.batches = {}

Problem = NaProblem()
Problem.load_data(data)
Problem.search_space(space, input_shape=(4,), output_shape=(1,))
Problem.augment(slow)
Problem.hyperparameters(batch_size=16, num_epochs=5)
Problem.loss("mse")
Problem.metrics(["r2"])
Problem.objective("val_r2")
