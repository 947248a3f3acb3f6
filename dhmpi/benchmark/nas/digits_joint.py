"""Handwritten digits with dense networks, searched together with how they are trained data-parallel.

Architectures and data are those of :mod:`dhmpi.benchmark.nas.digits_dense`.  ``batch_size`` and ``learning_rate`` are
those of one rank: ``num_ranks`` of them together take so many times as many samples a step, at so many times the rate.
Run it with ``dhmpi.nas.run.horovod.run`` and ``--evaluator group``.
"""

from __future__ import annotations

from dhmpi.benchmark.nas.digits_dense import load_data
from dhmpi.benchmark.nas.spaces import dense_skip
from dhmpi.nas import NaProblem

__all__ = ["Problem", "load_data"]

Problem = NaProblem()
Problem.load_data(load_data)
Problem.search_space(dense_skip, input_shape=(64,), output_shape=(10,), last="softmax")
Problem.add_hyperparameter((1e-4, 1e-1, "log-uniform"), "learning_rate", default_value=0.003)
Problem.add_hyperparameter([16, 32, 64, 128, 256], "batch_size", default_value=64)
Problem.add_hyperparameter([1, 2], "num_ranks", default_value=1)
Problem.hyperparameters(optimizer="adam", num_epochs=8, rank_scaling="linear")
Problem.loss("categorical_crossentropy")
Problem.metrics(["acc"])
Problem.objective("val_acc__last")
Problem.post_training(
    num_epochs=100,
    callbacks={"EarlyStopping": {"monitor": "val_loss", "patience": 15, "restore_best_weights": True}},
    repeat=3,
)
