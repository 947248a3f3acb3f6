"""Training a Keras network on handwritten digits on several ranks: learning rate and batch size.

It shows what a run function of one's own does for that, line by line.  The data come
with scikit-learn.  Without Horovod the ranks average gradients by mpi4py, and a single rank trains alone.

References
----------
Alpaydin, Kaynak (1998), Optical Recognition of Handwritten Digits, UCI Machine Learning Repository.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import dhmpi
from dhmpi.benchmark.hps.digits_mlp import load_data

if TYPE_CHECKING:
    from dhmpi.problem import HpProblem

__all__ = ["Problem", "run"]

N_EPOCHS = 10

Problem: HpProblem


@cache
def _problem() -> HpProblem:
    from dhmpi.problem import HpProblem

    problem = HpProblem()
    problem.add_hyperparameter((1e-4, 1e-1, "log-uniform"), "learning_rate")
    problem.add_hyperparameter((8, 512, "log-uniform"), "batch_size")
    problem.add_starting_point(learning_rate=1e-3, batch_size=64)
    return problem


def __getattr__(name: str) -> HpProblem:
    """Make ``Problem`` when somebody asks for it: an evaluation needs only ``run``, and no ConfigSpace."""
    if name == "Problem":
        return _problem()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def run(config: dict[str, Any], comm: Any = None) -> dict[str, float]:
    """Train a network on all ranks of an evaluation and return its accuracy on images that it has not seen.

    Parameters
    ----------
    config : dict
        A configuration of ``Problem``; ``batch_size`` is that of all ranks together.
    comm : communicator, optional
        The ranks; by default those of the evaluation.

    Returns
    -------
    dict
        On each rank, ``objective``, the accuracy in [0, 1] on all test images, and ``test_loss``.
    """
    from dhmpi.nas.run.horovod import distribute, joined  # late: the problem alone does not need it

    trial = dhmpi.trial()
    keras = _keras()
    keras.utils.set_random_seed(trial.seed)
    keras.backend.clear_session()  # or the networks of earlier evaluations stay in memory
    train, train_labels, test, test_labels = load_data()
    with joined(trial.comm if comm is None else comm) as group:
        n = len(train) // group.size  # the same on each rank: all take equally many steps
        ours, to_judge = slice(group.rank * n, (group.rank + 1) * n), group.share(len(test))
        layers = [keras.Input((train.shape[1],)), keras.layers.Dense(64, "relu"), keras.layers.Dense(10, "softmax")]
        network = keras.Sequential(layers)
        network.set_weights(group.lead(network.get_weights))  # all start alike
        optimizer = distribute(keras.optimizers.Adam(config["learning_rate"]), group)
        network.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
        batch_size = max(1, config["batch_size"] // group.size)
        network.fit(train[ours], train_labels[ours], batch_size=batch_size, epochs=N_EPOCHS, verbose=0)
        loss, accuracy = network.evaluate(test[to_judge], test_labels[to_judge], batch_size=len(test), verbose=0)
        seen = group.gather((accuracy, loss, len(test[to_judge])))
    return {
        "objective": sum(accuracy * n for accuracy, _, n in seen) / len(test),
        "test_loss": sum(loss * n for _, loss, n in seen) / len(test),
    }


def _keras() -> Any:
    import keras  # late: 2 s and 500 MB, and only training needs it

    return keras


run.prepare = _keras  # type: ignore[attr-defined]
