"""The default ``--run`` of ``dhmpi.nas.post``: train one of the best networks again, longer, and keep it.

What differs from a search's training: the settings of ``NaProblem.post_training``, the network is judged as it is in
the end (callbacks may have given it back its best weights), on the test data too, and it is saved with its predictions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dhmpi
from dhmpi.nas import callbacks as callbacks_
from dhmpi.nas import training
from dhmpi.nas.metrics import resolve
from dhmpi.nas.problem import NaProblem

if TYPE_CHECKING:
    import keras

ADDED = ("repeat", "source")
"""Entries of a configuration besides those of the problem: which of several trainings of an architecture it is, from 0;
and the trial of the search that it comes from."""
MODEL_FILE = "model.keras"
TEST_PREDICTIONS_FILE = "test_predictions.npz"


def run(config: dict[str, Any]) -> dict[str, Any]:
    """Train a network; return its objective and metrics.

    Parameters
    ----------
    config : dict
        ``arch_seq`` and hyperparameters, ``num_epochs``, and what is named in `ADDED`.
    """
    trial = dhmpi.trial()
    bare = {name: value for name, value in config.items() if name not in ADDED}
    return train(_problem(), bare, trial.seed, trial.directory, trial.report, trial.should_stop, trial.watched)


def prepare() -> None:
    """Import TensorFlow, load the data, and look whether everything fits."""
    problem = _problem()
    training.prepare(problem)
    for _, source in problem.post_metric_sources(len(problem.data.output_shapes)).values():
        resolve(source)
    callbacks_.make(problem.post_settings({}).callbacks, Path())


run.prepare = prepare  # type: ignore[attr-defined]


def train(
    problem: NaProblem,
    config: Mapping[str, Any],
    seed: int,
    directory: Path,
    report: Callable[[int, float], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    every_epoch: bool = False,
) -> dict[str, Any]:
    """Train the network of a configuration by the settings of post-training, judge it, and save it.

    The directory gets ``history.json``, ``predictions.npz`` of the validation data and ``test_predictions.npz`` (with
    targets, see :func:`dhmpi.nas.training.save_predictions`), and ``model.keras``, which Keras loads without dhmpi.

    Parameters
    ----------
    problem : NaProblem
    config, seed, report, should_stop, every_epoch
        As in :func:`dhmpi.nas.training.train`.
    directory : Path
        Where files are written.

    Returns
    -------
    dict
        ``objective``, ``val_...`` and, if there are test data, ``test_...`` of the network that is saved; ``loss`` of
        the last epoch; ``n_parameters``, ``training_seconds``, ``epochs``, ``peak_rss`` as in
        :func:`dhmpi.nas.training.train`.

    Raises
    ------
    TrainingError
        If the network cannot be built or saved, has too many parameters, or has no finite objective.
    ProblemError
        If the configuration or the problem make no sense.
    """
    config = problem.check_configuration(config)
    settings = problem.post_settings(config)
    data = problem.data
    metrics = problem.post_metric_sources(len(data.output_shapes))
    try:
        network = training.build(problem, config["arch_seq"], seed, settings)
        judge = training.Judge(problem, data, settings, metrics=metrics)
        history = training.fit_and_judge(
            problem, network, judge, settings, seed, directory, report, should_stop, every_epoch
        )
        training.save_history(directory / training.HISTORY_FILE, history)
        validation = judge(network)  # its weights may be those of an earlier epoch than the last
        objective = training.objective_of(
            problem, {**history, **{name: [value] for name, value in validation.items()}}, judge
        )
        _save_predictions(directory / training.PREDICTIONS_FILE, objective, judge)
        test: dict[str, float] = {}
        if data.test is not None:
            tester = training.Judge(problem, data, settings, data.test, metrics)
            test = {f"test_{name.removeprefix('val_')}": value for name, value in tester(network).items()}
            _save_predictions(directory / TEST_PREDICTIONS_FILE, objective, tester)
        _save(network, directory / MODEL_FILE)
        return {"objective": objective, "loss": history["loss"][-1], **validation, **test, **training.effort(history)}
    finally:
        network = judge = tester = None  # type: ignore[assignment]
        training.forget()


def _save_predictions(path: Path, objective: float, judge: training.Judge) -> None:
    if not training.save_predictions(path, objective, judge.targets, judge.predictions, with_targets=True):
        print(f"{path.name} is not written: the predictions take more than {training.MAX_PREDICTIONS_BYTES >> 20} MB")


def _save(network: keras.Model, path: Path) -> None:
    """Save a network without its optimizer, of whose state there is twice as much as of weights."""
    network.optimizer, network.compiled = None, False
    try:
        network.save(path)
    except Exception as error:
        words = " ".join(str(error).split())
        raise training.TrainingError(f"the network cannot be saved: {type(error).__name__}: {words}") from error


def _problem() -> NaProblem:
    return training.problem_of_trial("dhmpi.nas.run.post.run")
