"""Training one network of a problem, and judging it.

:func:`train` does it all: it reads as build, fit, judge, save.  Its parts can be used alone, for training the best
networks again.  Several ranks train one network if they are a group (:mod:`dhmpi.nas.parallel`): each sees its share of
every batch and of the validation data, and what is decided is decided by the leader or by all, so that every rank takes
equally many steps.  Keras and TensorFlow are imported when they are needed.

The training loop is our own rather than ``keras.Model.fit``: for a network that trains for a second, that one takes
twice as long, and it leaves 9 MB and more behind each time, which matters when a process trains hundreds.  This one
leaves nothing.  Callbacks of Keras work as usual.
"""

from __future__ import annotations

import gc
import hashlib
import inspect
import json
import math
import os
import resource
import sys
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import dhmpi
from dhmpi.errors import DhmpiError, ProblemError
from dhmpi.nas import callbacks as callbacks_
from dhmpi.nas.data import Data, Source, Tensors
from dhmpi.nas.metrics import MetricFunction, MetricSource, named, resolve
from dhmpi.nas.objective import History
from dhmpi.nas.parallel import ALONE, Group
from dhmpi.nas.problem import Call, NaProblem, Settings

if TYPE_CHECKING:
    import keras

LossFunction = Callable[[Any, Any], Any]

EVALUATION_BATCH = 512
"""Samples that are predicted at a time, at least; more do not make it faster, and images must fit into memory."""
PREDICTIONS_FILE = "predictions.npz"
HISTORY_FILE = "history.json"
MAX_PREDICTIONS_BYTES = 64 << 20
"""Predictions that take more are not kept."""


class TrainingError(DhmpiError):
    """A network cannot be built, is too large, or has diverged: the evaluation has failed, the search goes on."""


class GoodOnes:
    """Remembers the best objectives so far, to tell which networks are worth keeping something of.

    Of n networks in random order about k (1 + ln(n / k)) are found good.

    Parameters
    ----------
    k : int, default 10
        A network is good if fewer than k before it were better or as good.
    """

    def __init__(self, k: int = 10) -> None:
        self._k = k
        self._best: list[float] = []

    def __call__(self, objective: float) -> bool:
        """Take an objective; return whether it is good."""
        is_good = sum(best >= objective for best in self._best) < self._k
        self._best = sorted([*self._best, objective], reverse=True)[: self._k]
        return is_good


def prepare(problem: NaProblem, effective: Collection[str] = ()) -> None:
    """Do what all networks of a problem have in common: import TensorFlow, load the data, look at everything.

    Parameters
    ----------
    problem : NaProblem
    effective : collection of str
        Hyperparameters that something outside of the training depends on.

    Raises
    ------
    ProblemError
        If the problem cannot be trained.
    """
    problem.check_training()
    ineffective = [name for name in problem.ineffective() if name not in effective]
    if ineffective:
        raise ProblemError(
            f"nothing in the training depends on the hyperparameter {ineffective[0]!r}; use it in hyperparameters() or"
            " loss(), or write a run function that does"
        )
    data = problem.data
    _check_shapes(problem.architecture_space, data)
    keras = tensorflow()[0]
    n_outputs = len(data.output_shapes)
    for _, source in problem.metric_sources(n_outputs).values():
        resolve(source)
    for loss in problem.possible("loss"):
        _losses(loss, n_outputs)
    settings = problem.settings({})
    _weights(settings.loss_weights, n_outputs)
    callbacks_.make(settings.callbacks, Path())
    optimizers = [_optimizer_class(keras, name) for name in problem.possible("optimizer")]
    for argument in settings.optimizer_arguments:
        if not any(argument in inspect.signature(optimizer).parameters for optimizer in optimizers):
            raise ProblemError(f"{optimizers[0].__name__} has no {argument}; leave it out of hyperparameters()")


def problem_of_trial(run: str) -> NaProblem:
    """Return the problem of the evaluation that is running.

    Parameters
    ----------
    run : str
        Name of the function that wants to know.

    Raises
    ------
    ProblemError
        If there is none, or it has no architectures.
    """
    problem = dhmpi.trial().problem
    if isinstance(problem, NaProblem):
        return problem
    what = "there is none" if problem is None else f"this one is of type {type(problem).__name__}"
    raise ProblemError(f"{run} trains networks of an NaProblem, but {what}; name another function")


def train(
    problem: NaProblem,
    config: Mapping[str, Any],
    seed: int,
    directory: Path | None = None,
    report: Callable[[int, float], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    every_epoch: bool = False,
    good: Callable[[float], bool] | None = None,
    group: Group = ALONE,
) -> dict[str, Any]:
    """Train the network of a configuration and judge it (collective over the group).

    Equal seeds give equal results, bit for bit, on one machine with equal numbers of threads (on a GPU with
    ``TF_DETERMINISTIC_OPS=1``), whatever the process has trained before.

    Parameters
    ----------
    problem : NaProblem
    config : dict
        ``arch_seq`` and hyperparameters; ``num_epochs`` wins over the problem's.
    seed : int
        Of the initial weights, the order of the samples and dropout.
    directory : Path, optional
        Where history, predictions and files of callbacks are written; without it nothing is.
    report : callable, optional
        Gets epoch (from 1) and objective after every epoch that was validated.
    should_stop : callable, optional
        Asked after every epoch; the training ends there if it returns True.
    every_epoch : bool, default False
        Validate every epoch, although the objective needs only the last.
    good : callable, optional
        Gets the objective, returns whether the predictions are worth keeping; by default all are.
    group : Group, optional
        The ranks that train the network together.  Problem, configuration, seed and `every_epoch` must be the same on
        each; directory, `report`, `should_stop` and `good` count on its leader.

    Returns
    -------
    dict
        On each rank, ``objective``; ``loss`` and all ``val_...`` of the last epoch; ``n_parameters``;
        ``training_seconds``, from the first batch to the last validation, tracing included; ``epochs`` done, an
        incomplete one included; ``peak_rss``, MB that the process has needed at most so far.

    Raises
    ------
    TrainingError
        If the network cannot be built, has too many parameters, or has no finite objective.
    ProblemError
        If the configuration or the problem make no sense.
    """
    config = problem.check_configuration(config)
    settings = problem.settings(config)
    if not group.leads:
        directory = report = None
    try:
        network = build(problem, config["arch_seq"], seed, settings)
        judge = Judge(problem, problem.data, settings, group=group)
        history = fit_and_judge(
            problem, network, judge, settings, seed, directory, report, should_stop, every_epoch, group
        )
        objective = group.lead(lambda: objective_of(problem, history, judge))
        if directory is not None:
            save_history(directory / HISTORY_FILE, history)
            is_good = good is None or good(objective)
            if settings.keep_predictions == "all" or (settings.keep_predictions == "good" and is_good):
                save_predictions(directory / PREDICTIONS_FILE, objective, judge.targets, judge.predictions)
        last = {key: values[-1] for key, values in history.items() if key == "loss" or key.startswith("val_")}
        return {"objective": objective, **last, **effort(history)}
    finally:
        network = judge = None  # type: ignore[assignment]
        forget()


def fit_and_judge(
    problem: NaProblem,
    network: keras.Model,
    judge: Judge,
    settings: Settings,
    seed: int,
    directory: Path | None = None,
    report: Callable[[int, float], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    every_epoch: bool = False,
    group: Group = ALONE,
) -> History:
    """Train a network as :func:`train` does; return its history, with ``n_parameters`` and ``training_time``."""
    goal = problem.goal
    settings = settings.on_ranks(group.size)
    callbacks = callbacks_.make(settings.callbacks, directory)
    if settings.warmup_epochs and group.size > 1:
        n_steps = math.ceil(len(problem.data.train) / settings.batch_size)
        callbacks.insert(0, callbacks_.warm_up(settings.learning_rate, settings.warmup_epochs, group.size, n_steps))
    history: History = {}
    began = time.perf_counter()

    def validated(epoch: int) -> None:
        if report is not None and goal.function is None:
            report(epoch, goal.value(history))

    fit(
        network,
        problem.data.train,
        settings,
        seed,
        history,
        callbacks,
        lambda: judge(network),
        every_epoch=every_epoch or goal.every_epoch or bool(_validating(settings)),
        validated=validated,
        should_stop=should_stop,
        augmentation=problem.augmentation,
        group=group,
    )
    history.update(n_parameters=network.count_params(), training_time=time.perf_counter() - began)
    return history


def effort(history: History) -> dict[str, Any]:
    """Return what a training has cost, as metrics of an evaluation."""
    return {
        "n_parameters": history["n_parameters"],
        "training_seconds": history["training_time"],
        "epochs": len(history["loss"]),
        "peak_rss": peak_rss(),
    }


def forget() -> None:
    """Give back the memory of networks that nobody refers to any more."""
    # The graph of a network is a web of cycles, and Keras keeps state of its own.
    tensorflow()[0].backend.clear_session()
    gc.collect()


@cache
def tensorflow() -> tuple[Any, Any]:
    """Return Keras and TensorFlow, imported and set up: threads as the environment says, GPU memory as it is needed.

    Raises
    ------
    ProblemError
        If they are not installed, or Keras runs on something else.
    """
    try:
        import keras
        import tensorflow as tf
    except ImportError as error:
        raise ProblemError(
            f"training needs TensorFlow and Keras 3 (pip install 'dhmpi[tensorflow]'): {error}"
        ) from error
    if keras.backend.backend() != "tensorflow":
        raise ProblemError(f"Keras runs on {keras.backend.backend()}; set KERAS_BACKEND=tensorflow")
    threading = tf.config.threading
    try:
        for variable, limit in (
            ("TF_NUM_INTRAOP_THREADS", threading.set_intra_op_parallelism_threads),
            ("TF_NUM_INTEROP_THREADS", threading.set_inter_op_parallelism_threads),
        ):
            if os.environ.get(variable, "").isdigit():
                limit(int(os.environ[variable]))
        for device in tf.config.list_physical_devices("GPU"):
            tf.config.experimental.set_memory_growth(device, True)
    except RuntimeError:
        pass  # the user's own code has used TensorFlow before, and it is set up as he wants it
    return keras, tf


def build(problem: NaProblem, arch: Sequence[Any], seed: int, settings: Settings) -> keras.Model:
    """Return the network of an architecture.

    Raises
    ------
    TrainingError
        If it cannot be built, does not fit the data, or has too many parameters.
    """
    keras, _ = tensorflow()
    keras.utils.set_random_seed(seed)
    try:
        network = problem.architecture_space.build(arch, seed=seed)
    except Exception as error:
        raise TrainingError(f"the network cannot be built: {_words(error)}") from error
    finally:
        keras.utils.set_random_seed(seed)
    _check_network(network, problem.data, settings)
    n_parameters = network.count_params()
    most = settings.max_parameters
    if most is not None and n_parameters > most:
        raise TrainingError(f"the network has {n_parameters} parameters, more than max_parameters = {most}")
    return network


def fit(
    network: keras.Model,
    source: Source,
    settings: Settings,
    seed: int,
    history: History,
    callbacks: Sequence[Any] = (),
    validate: Callable[[], Mapping[str, float]] | None = None,
    every_epoch: bool = True,
    validated: Callable[[int], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    augmentation: Call | None = None,
    group: Group = ALONE,
) -> None:
    """Train a network, and write its history (collective over the group).

    Parameters
    ----------
    network : keras.Model
    source : Arrays or Stream
        Samples to train on, shuffled anew each epoch.
    settings : Settings
        Batch size and learning rate are those of the whole group.
    seed : int
        Of the shuffling.
    history : dict
        Gets the mean ``loss`` of each epoch; what `validate` returns for each epoch that is validated; and
        ``validated_epochs``, their numbers from 1.
    callbacks : sequence of keras.callbacks.Callback
    validate : callable, optional
        Returns what to add to the history.
    every_epoch : bool, default True
        Call it after every epoch, not only after the last.
    validated : callable, optional
        Called with the number of the epoch, from 1, after each validation.
    should_stop : callable, optional
        Asked after each epoch, on all ranks; what the leader is told counts.
    augmentation : Call, optional
        Changes batches.
    group : Group, optional
        The ranks that train the network together; it starts everywhere as it is on the leader.
    """
    keras, _ = tensorflow()
    optimizer = _make_optimizer(keras, settings)
    network.compile(optimizer=optimizer)  # callbacks look for the optimizer at the network
    optimizer.build(network.trainable_variables)
    step = _make_step(network, optimizer, source, settings, group)
    _start_alike(network, group)
    listeners = keras.callbacks.CallbackList(callbacks, model=network, epochs=settings.num_epochs, steps=None)
    network.stop_training = False
    listeners.on_train_begin()
    logs: dict[str, float] = {}
    for epoch in range(settings.num_epochs):
        began = time.perf_counter()
        listeners.on_epoch_begin(epoch)
        logs = {"loss": _train_epoch(network, source, settings, (seed, epoch), step, listeners, augmentation, group)}
        history.setdefault("loss", []).append(logs["loss"])
        _settle(network, group)
        ends = network.stop_training or epoch + 1 == settings.num_epochs or not math.isfinite(logs["loss"])
        ends = ends or (should_stop is not None and not every_epoch and _told(should_stop, group))
        if validate is not None and (every_epoch or ends):
            logs.update(_validated(history, epoch + 1, validate, validated))
        listeners.on_epoch_end(epoch, dict(logs))
        if settings.verbose:
            shown = ", ".join(f"{name} {value:.6g}" for name, value in logs.items())
            print(f"epoch {epoch + 1}/{settings.num_epochs}: {shown} ({time.perf_counter() - began:.3g} s)", flush=True)
        network.stop_training = group.any(network.stop_training)
        if ends or network.stop_training or (should_stop is not None and every_epoch and _told(should_stop, group)):
            break
    if validate is not None and history.get("validated_epochs", [0])[-1] != len(history["loss"]):
        # A callback has ended the training after an epoch that did not look like the last.
        logs.update(_validated(history, len(history["loss"]), validate, validated))
    listeners.on_train_end(logs)


def predict(network: keras.Model, source: Source, batch_size: int = EVALUATION_BATCH) -> tuple[Tensors, Tensors]:
    """Return the outputs of a source and a network's predictions of them, both as the network sees them."""
    return _predict(_make_predictor(network, source), source, batch_size)[:2]


def evaluate(
    metrics: Mapping[str, tuple[int, MetricFunction]], targets: Tensors, predictions: Tensors
) -> dict[str, float]:
    """Return metrics of a whole set of predictions, in original units.

    Parameters
    ----------
    metrics : dict
        Number of an output and a function, by name.
    targets, predictions : tuple of ndarray
        One array an output.
    """
    return {name: float(metric(targets[i], predictions[i])) for name, (i, metric) in metrics.items()}


class Judge:
    """Computes the validation loss and all metrics of a network, and keeps its last predictions.

    Parameters
    ----------
    problem : NaProblem
    data : Data
    settings : Settings
    source : Arrays or Stream, optional
        What is predicted; the validation data by default.
    metrics : dict, optional
        As `NaProblem.metric_sources` returns it, and by default that.
    group : Group, optional
        The ranks that share the predicting; metrics are computed by the leader.

    Attributes
    ----------
    targets, predictions : tuple of ndarray
        In original units; of the last call.
    """

    def __init__(
        self,
        problem: NaProblem,
        data: Data,
        settings: Settings,
        source: Source | None = None,
        metrics: Mapping[str, tuple[int, MetricSource]] | None = None,
        group: Group = ALONE,
    ) -> None:
        n_outputs = len(data.output_shapes)
        self._data = data
        self._group = group
        self._source = data.valid if source is None else source
        self._batch_size = max(settings.batch_size, EVALUATION_BATCH)
        self._losses = _losses(settings.loss, n_outputs)
        self._weights = _weights(settings.loss_weights, n_outputs)
        sources = problem.metric_sources(n_outputs) if metrics is None else metrics
        self._metrics = {name: (i, resolve(metric)) for name, (i, metric) in sources.items()}
        self._predictor: Callable[..., Any] | None = None
        self.targets: Tensors = ()
        self.predictions: Tensors = ()

    def __call__(self, network: keras.Model) -> dict[str, float]:
        """Return ``val_loss``, in the units that training sees, and the metrics, in original units.

        Of the whole set, and the same on each rank (collective over the group).
        """
        if self._predictor is None:
            self._predictor = _make_predictor(network, self._source)
        outputs, predictions, penalty = _predict(self._predictor, self._source, self._batch_size, self._group)
        self.targets, self.predictions = self._data.restore(outputs), self._data.restore(predictions)

        def judged() -> dict[str, float]:
            loss = penalty + sum(
                weight * float(np.mean(np.asarray(function(y, p))))
                for function, weight, y, p in zip(self._losses, self._weights, outputs, predictions)
            )
            return {"val_loss": loss, **evaluate(self._metrics, self.targets, self.predictions)}

        return self._group.lead(judged)


def objective_of(problem: NaProblem, history: History, judge: Judge) -> float:
    """Return the objective of a training.

    Parameters
    ----------
    problem : NaProblem
    history : dict
    judge : Judge
        Whose last targets and predictions a function of the user's gets besides the history.

    Raises
    ------
    TrainingError
        If it is not finite, or the function raises.
    """
    goal = problem.goal
    known = {**history, "y_true": _single(judge.targets), "y_pred": _single(judge.predictions)}
    try:
        objective = goal.value(known)
    except Exception as error:
        raise TrainingError(f"the objective {goal.text} cannot be computed: {_words(error)}") from error
    if not math.isfinite(objective):
        n_epochs, loss = len(history["loss"]), history["loss"][-1]
        raise TrainingError(
            f"the objective {goal.text} is {objective} after {n_epochs} epoch(s), with a loss of {loss:g}"
        )
    return objective


def save_history(path: Path, history: History) -> None:
    """Write a history as JSON; what is not finite becomes null."""
    plain = {
        name: [_finite(value) for value in values] if isinstance(values, list) else _finite(values)
        for name, values in history.items()
    }
    path.write_text(json.dumps(plain, indent=1) + "\n")


def save_predictions(
    path: Path, objective: float, targets: Tensors, predictions: Tensors, with_targets: bool = False
) -> bool:
    """Write predictions for ensembles, unless they take more than `MAX_PREDICTIONS_BYTES`; return whether it was done.

    The file has ``objective``; ``digest``, of the targets (:func:`digest`), by which one knows that two files are about
    the same samples; and ``output_0, output_1, ...``: predictions in original units, 32-bit floats, samples along the
    first axis.  Asked for, the targets are there too: ``target_0, target_1, ...``, of their own types.
    """
    if sum(prediction.size for prediction in predictions) * 4 > MAX_PREDICTIONS_BYTES:
        return False
    arrays: dict[str, Any] = {
        f"output_{i}": np.asarray(prediction, np.float32) for i, prediction in enumerate(predictions)
    }
    if with_targets:
        arrays.update({f"target_{i}": np.asarray(target) for i, target in enumerate(targets)})
    arrays.update(objective=np.float64(objective), digest=np.array(digest(targets)))
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]
    return True


def digest(arrays: Iterable[np.ndarray]) -> str:
    """Return 16 hexadecimal digits that name arrays with their shapes and types."""
    found = hashlib.sha256()
    for array in arrays:
        found.update(f"{array.shape} {array.dtype}".encode())
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()[:16]


def peak_rss() -> float:
    """Return the most memory that this process has needed so far, in MB."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / 1e6 if sys.platform == "darwin" else most * 1024 / 1e6


# --- Parts of fit


def _told(should_stop: Callable[[], bool], group: Group) -> bool:
    """Return what the leader is told; all ask, since that may be collective too."""
    told = should_stop()
    return group.lead(lambda: told)


def _start_alike(network: keras.Model, group: Group) -> None:
    """Give all ranks the weights of the leader, but each its own noise in layers such as dropout."""
    if group.size == 1:
        return
    network.set_weights(group.lead(network.get_weights))
    for variable in network.non_trainable_variables:
        if variable.name == "seed_generator_state":
            variable.assign_add([0] * (variable.shape[0] - 1) + [group.rank << 20])


def _settle(network: keras.Model, group: Group) -> None:
    """Agree on what steps leave different: whether to stop, and what layers have seen, such as moving averages."""
    if group.size == 1:
        return
    network.stop_training = group.any(network.stop_training)
    moving = [weight for weight in network.non_trainable_weights if "float" in str(weight.dtype)]
    if moving:
        seen = group.gather([np.asarray(weight) for weight in moving])
        for weight, values in zip(moving, zip(*seen)):
            weight.assign(np.mean(values, axis=0))


def _make_step(
    network: keras.Model, optimizer: Any, source: Source, settings: Settings, group: Group
) -> Callable[..., Any]:
    """Return the function that trains on one batch of so many samples.

    It returns the mean loss, the number of samples in the batches of all ranks, and whether one of them wants to stop.
    """
    _, tf = tensorflow()
    losses = _losses(settings.loss, len(network.outputs))
    weights = _weights(settings.loss_weights, len(network.outputs))
    variables = network.trainable_variables

    def step(inputs: Any, outputs: Any, n_samples: Any, stops: Any) -> Any:
        with tf.GradientTape() as tape:
            predictions = _listed(network(_single(inputs), training=True))
            terms = [
                weight * tf.reduce_mean(function(y, p))
                for function, weight, y, p in zip(losses, weights, outputs, predictions)
            ]
            loss = tf.add_n([*terms, *network.losses])  # of regularised layers
        gradients = tape.gradient(loss, variables)
        if group.size > 1:
            loss, n_samples, stops, gradients = _together(tf, group, loss, n_samples, stops, gradients)
        optimizer.apply(gradients, variables)
        return loss, n_samples, stops

    return _traced(tf, step, [*_signature(tf, source), *(tf.TensorSpec((), tf.float32) for _ in range(2))])


def _together(
    tf: Any, group: Group, loss: Any, n_samples: Any, stops: Any, gradients: Sequence[Any]
) -> tuple[Any, Any, Any, list[Any]]:
    """Return loss, number of samples, stops and gradients of the whole batch, of which each rank has seen a share."""

    def weighted(tensor: Any) -> Any:
        return tf.math.multiply_no_nan(tensor, tf.cast(n_samples, tensor.dtype))  # whoever has no sample does not count

    dense = {i: tf.convert_to_tensor(gradient) for i, gradient in enumerate(gradients) if gradient is not None}
    means = group.mean([weighted(loss), n_samples, stops, *map(weighted, dense.values())])
    loss, n, stops, *whole = means
    divided = dict(zip(dense, (gradient / tf.cast(n, gradient.dtype) for gradient in whole)))
    return loss / tf.cast(n, loss.dtype), n * group.size, stops, [divided.get(i) for i in range(len(gradients))]


def _traced(tf: Any, function: Callable[..., Any], signature: list[tuple[Any, ...]]) -> Callable[..., Any]:
    """Return a function as a graph of TensorFlow's: the graph itself, since one per network would be warned of."""
    return tf.function(function, input_signature=signature).get_concrete_function()  # type: ignore[no-any-return]


def _signature(tf: Any, source: Source) -> list[tuple[Any, ...]]:
    """Return what batches of a source look like, whatever their size: so a function of them is traced once."""
    return [
        tuple(tf.TensorSpec((None, *shape), dtype) for shape, dtype in zip(shapes, types))
        for shapes, types in zip(source.shapes, source.types)
    ]


def _train_epoch(
    network: keras.Model,
    source: Source,
    settings: Settings,
    seed: tuple[int, int],
    step: Callable[..., Any],
    listeners: Any,
    augmentation: Call | None,
    group: Group,
) -> float:
    """Train on all batches once, or until a callback ends it; return the mean loss."""
    order = np.random.default_rng([*seed, 0])  # the same on each rank
    noise = np.random.default_rng([*seed, 1 + group.rank])
    total = n_seen = 0.0
    # A rank that has no share of a small last batch takes part with a sample that does not count.
    spare = _empty_sample(source)
    for batch, (inputs, outputs) in enumerate(source.batches(settings.batch_size, order, group)):
        n = len(inputs[0])
        if n and augmentation is not None:
            inputs, outputs = _augmented(augmentation, inputs, outputs, noise)
            n = len(inputs[0])
        if n:
            spare = tuple(x[:1] for x in inputs), tuple(y[:1] for y in outputs)
        else:
            inputs, outputs = spare
        listeners.on_train_batch_begin(batch)
        stops = np.float32(network.stop_training)
        loss, n_together, stopped = map(float, step(inputs, outputs, np.float32(n), stops))
        total += loss * n_together
        n_seen += n_together
        listeners.on_train_batch_end(batch, {"loss": loss})
        if stopped or (network.stop_training and group.size == 1):
            break  # in a group, one batch after somebody has wanted it: then all know
    return total / n_seen


def _empty_sample(source: Source) -> tuple[Tensors, Tensors]:
    inputs, outputs = (
        tuple(np.zeros((1, *shape), dtype) for shape, dtype in zip(shapes, types))
        for shapes, types in zip(source.shapes, source.types)
    )
    return inputs, outputs


def _validated(
    history: History,
    epoch: int,
    validate: Callable[[], Mapping[str, float]],
    validated: Callable[[int], None] | None,
) -> Mapping[str, float]:
    found = validate()
    for name, value in found.items():
        history.setdefault(name, []).append(value)
    history.setdefault("validated_epochs", []).append(epoch)
    if validated is not None:
        validated(epoch)
    return found


def _augmented(
    augmentation: Call, inputs: Tensors, outputs: Tensors, rng: np.random.Generator
) -> tuple[Tensors, Tensors]:
    takes_rng = "rng" in inspect.signature(augmentation.function).parameters
    try:
        x, y = augmentation(_single(inputs), _single(outputs), **({"rng": rng} if takes_rng else {}))
    except Exception as error:
        raise TrainingError(f"{augmentation.name} cannot augment a batch: {_words(error)}") from error
    kept = tuple(np.asarray(new, old.dtype) for new, old in zip(_listed(x), inputs))
    return kept, tuple(np.asarray(new, old.dtype) for new, old in zip(_listed(y), outputs))


def _make_predictor(network: keras.Model, source: Source) -> Callable[..., Any]:
    """Return the function that gives predictions of a batch, and what regularised layers add to the loss."""
    _, tf = tensorflow()

    def predictor(inputs: Any) -> Any:
        predictions = _listed(network(_single(inputs), training=False))
        return predictions, tf.add_n(network.losses) if network.losses else tf.zeros(())

    return _traced(tf, predictor, _signature(tf, source)[:1])


def _predict(
    predictor: Callable[..., Any], source: Source, batch_size: int, group: Group = ALONE
) -> tuple[Tensors, Tensors, float]:
    """Return outputs, predictions, and the mean penalty of regularised layers, of all samples in their order."""
    seen: list[tuple[Tensors, Tensors] | None] = []
    penalty = 0.0
    for inputs, outputs in source.batches(batch_size, group=group):
        if not len(inputs[0]):
            seen.append(None)
            continue
        predictions, added = predictor(inputs)
        seen.append((outputs, tuple(np.asarray(prediction) for prediction in predictions)))
        penalty += float(added) * len(inputs[0]) / len(source)
    everywhere = group.gather((seen, penalty))
    # The shares of a batch follow each other in the order of ranks.
    parts = [part for batch in zip(*(theirs for theirs, _ in everywhere)) for part in batch if part is not None]
    targets, predicted = (
        tuple(np.concatenate(pieces) for pieces in zip(*(part[side] for part in parts))) for side in range(2)
    )
    return targets, predicted, sum(theirs for _, theirs in everywhere)


def _make_optimizer(keras: Any, settings: Settings) -> Any:
    """Return the optimizer, with those of its arguments that it has."""
    kind = _optimizer_class(keras, settings.optimizer)
    takes = inspect.signature(kind).parameters
    arguments = {name: value for name, value in settings.optimizer_arguments.items() if name in takes}
    optimizer = kind(learning_rate=settings.learning_rate, **arguments)
    # On TensorFlow, Keras passes updates through tf.distribute, which one process does not need, and which keeps the
    # graph of every training step alive for ever, weights and moments included: 4 MB for the smallest network.  So the
    # methods come from the class that does not know of it.
    for method in ("_backend_update_step", "_apply_weight_decay"):
        owners = [owner for owner in type(optimizer).__mro__ if method in vars(owner)]
        if len(owners) > 1:
            setattr(optimizer, method, getattr(super(owners[0], optimizer), method))
    return optimizer


def _optimizer_class(keras: Any, optimizer: str) -> Any:
    classes = {name.lower(): found for name, found in vars(keras.optimizers).items() if inspect.isclass(found)}
    return classes[optimizer.lower()]


def _losses(loss: Any, n_outputs: int) -> list[LossFunction]:
    """Return the loss function of each output."""
    keras, _ = tensorflow()
    given = [loss.get(f"output_{i}") for i in range(n_outputs)] if isinstance(loss, Mapping) else [loss] * n_outputs
    found: list[LossFunction] = []
    for i, source in enumerate(given):
        if source is None:
            raise ProblemError(f"there is no loss for output_{i}, one of {n_outputs} outputs")
        if isinstance(source, str) and "." in source:
            found.append(named("loss", source))
            continue
        try:
            found.append(keras.losses.get(source) if isinstance(source, str) else source)
        except ValueError as error:
            raise ProblemError(f"there is no loss {source!r} in Keras") from error
    return found


def _weights(weights: Any, n_outputs: int) -> list[float]:
    if weights is None:
        return [1.0] * n_outputs
    if isinstance(weights, Mapping):
        return [float(weights.get(f"output_{i}", 1.0)) for i in range(n_outputs)]
    if len(weights) != n_outputs:
        raise ProblemError(f"the loss has {len(weights)} weights, but the networks have {n_outputs} output(s)")
    return [float(weight) for weight in weights]


def _validating(settings: Settings) -> list[str]:
    """Return the callbacks that want every epoch validated."""
    monitoring = [name for name, key in callbacks_.monitored(settings.callbacks).items() if key.startswith("val_")]
    return [*monitoring, *(name for name in callbacks_.LOGGING if name in settings.callbacks)]


# --- What must fit together


def _check_shapes(space: Any, data: Data) -> None:
    """Refuse a space whose inputs are not those of the data, before the first network is built."""
    if space.input_shapes and tuple(space.input_shapes) != data.input_shapes:
        raise ProblemError(
            f"the search space has the inputs {_shown(space.input_shapes)}, but the data {_shown(data.input_shapes)}"
        )
    if space.output_shapes and len(space.output_shapes) != len(data.output_shapes):
        raise ProblemError(
            f"the search space has {len(space.output_shapes)} output(s), but the data {len(data.output_shapes)}"
        )


def _check_network(network: keras.Model, data: Data, settings: Settings) -> None:
    """Refuse a network that does not fit the data."""
    inputs = tuple(tensor.shape[1:] for tensor in network.inputs)
    fits = len(inputs) == len(data.input_shapes) and all(
        len(ours) == len(theirs) and all(a in (None, b) for a, b in zip(ours, theirs))
        for ours, theirs in zip(inputs, data.input_shapes)
    )
    if not fits:
        raise TrainingError(
            f"the network takes the inputs {_shown(inputs)}, but the data have {_shown(data.input_shapes)}"
        )
    if len(network.outputs) != len(data.output_shapes):
        raise TrainingError(f"the network has {len(network.outputs)} output(s), but the data {len(data.output_shapes)}")
    _check_outputs(network, data, settings.loss)


def _check_outputs(network: keras.Model, data: Data, loss: Any) -> None:
    """Refuse outputs whose shape is not that of the targets: numpy and TensorFlow would make a matrix of the two.

    Only losses that take numbers of classes, and those of the user, know what to do with other shapes.
    """
    for i, (tensor, target) in enumerate(zip(network.outputs, data.output_shapes)):
        shape = tuple(tensor.shape[1:])
        of_output = loss.get(f"output_{i}") if isinstance(loss, Mapping) else loss
        if shape == target or not isinstance(of_output, str) or "." in of_output:
            continue
        classes = "sparse" in of_output and target in (shape[:-1], (*shape[:-1], 1))
        if not classes:
            hint = "; numbers of classes take a sparse loss" if target == (*shape[:-1], 1) else ""
            raise TrainingError(f"output_{i} of the network has the shape {shape}, but the data have {target}{hint}")


def _shown(shapes: Iterable[Sequence[Any]]) -> str:
    return ", ".join(str(tuple(shape)) for shape in shapes)


def _single(values: Sequence[Any]) -> Any:
    """Return one value for itself, several as a list."""
    return values[0] if len(values) == 1 else list(values)


def _listed(values: Any) -> list[Any]:
    if isinstance(values, Mapping):
        return list(values.values())
    return list(values) if isinstance(values, (list, tuple)) else [values]


def _finite(value: Any) -> Any:
    return value if not isinstance(value, float) or math.isfinite(value) else None


def _words(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, DhmpiError) else f"{type(error).__name__}: {text}"
