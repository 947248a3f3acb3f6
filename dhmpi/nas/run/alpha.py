"""The default ``--run`` of architecture searches: train the network of a configuration on one process.

The problem is the one that is searched.  :func:`dhmpi.nas.training.train` says what is returned and written.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import dhmpi
from dhmpi.nas import training
from dhmpi.nas.problem import NaProblem


def run(config: dict[str, Any]) -> dict[str, Any]:
    """Train a network; return its objective and metrics.

    Parameters
    ----------
    config : dict
        ``arch_seq`` and hyperparameters.
    """
    trial = dhmpi.trial()
    problem = _problem()
    return training.train(
        problem,
        config,
        trial.seed,
        directory=trial.directory,
        report=trial.report,
        should_stop=trial.should_stop,
        every_epoch=trial.watched,
        good=_good(problem),
    )


def prepare() -> None:
    """Import TensorFlow, load the data, and look whether everything fits."""
    training.prepare(_problem())


run.prepare = prepare  # type: ignore[attr-defined]


def _problem() -> NaProblem:
    return training.problem_of_trial("dhmpi.nas.run.alpha.run")


@cache
def _good(problem: NaProblem) -> training.GoodOnes:
    """Remember the best objectives of this process."""
    return training.GoodOnes()
