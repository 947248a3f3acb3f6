"""The problem of an architecture search: data, search space, and how a network is trained and judged.

Nothing here imports TensorFlow, and neither data nor search space are made before somebody asks for them: a problem is
cheap to import on every rank.  What is wrong is said in one sentence as early as possible, at the latest by
:meth:`NaProblem.check`.  Start reading at :class:`NaProblem`; :mod:`dhmpi.nas.training` trains what it describes.
"""

from __future__ import annotations

import hashlib
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import ConfigSpace
from ConfigSpace.hyperparameters import CategoricalHyperparameter, Hyperparameter

from dhmpi.errors import ProblemError
from dhmpi.nas import callbacks as callbacks_
from dhmpi.nas.metrics import MetricSource, metric_name
from dhmpi.nas.objective import History, Objective, parse
from dhmpi.problem import HpProblem, choices
from dhmpi.trials import Config

if TYPE_CHECKING:
    from dhmpi.nas.data import Data
    from dhmpi.nas.space import SearchSpace

ARCH_SEQ = "arch_seq"
"""The entry of a configuration, and the column, that holds an architecture."""
PASSED = ("num_epochs", "parent")
"""Entries that screening adds to a configuration, which are no hyperparameters."""
OPTIMIZERS = ("adadelta", "adafactor", "adagrad", "adam", "adamax", "adamw", "ftrl", "lion", "nadam", "rmsprop", "sgd")
OPTIMIZER_ARGUMENTS = ("epsilon", "clipvalue", "clipnorm", "momentum", "weight_decay")
KEEP_PREDICTIONS = ("good", "all", "none")
DEFAULTS: Mapping[str, Any] = {
    "batch_size": 32,
    "learning_rate": 1e-3,
    "optimizer": "adam",
    "num_epochs": 1,
    "rank_scaling": "none",
    "warmup_epochs": 0,
    "verbose": 0,
    "callbacks": {},
    "max_parameters": None,
    "keep_predictions": "good",
}
RANK_SCALINGS: Mapping[str, tuple[float, float]] = {"none": (0.0, 0.0), "linear": (1.0, 1.0), "sqrt": (1.0, 0.5)}
"""The powers of the number of ranks by which batch size and learning rate grow."""
SEARCHABLE = (
    *("batch_size", "learning_rate", "optimizer", "num_epochs", "rank_scaling", "warmup_epochs", "loss"),
    *OPTIMIZER_ARGUMENTS,
)
"""Settings that a hyperparameter of the same name takes over."""


@dataclass(frozen=True)
class Call:
    """A function of the user's with the keyword arguments that he gave with it."""

    function: Callable[..., Any]
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return getattr(self.function, "__name__", type(self.function).__name__)

    def __call__(self, *args: Any, **more: Any) -> Any:
        return self.function(*args, **{**self.arguments, **more})


@dataclass(frozen=True)
class Settings:
    """How one network is trained: the settings of the problem with the hyperparameters of a configuration put in."""

    batch_size: int
    learning_rate: float
    optimizer: str
    num_epochs: int
    verbose: int
    callbacks: Mapping[str, Mapping[str, Any]]
    loss: Any
    loss_weights: Any = None
    optimizer_arguments: Mapping[str, float] = field(default_factory=dict)
    max_parameters: int | None = None
    keep_predictions: str = "good"
    rank_scaling: str = "none"
    warmup_epochs: float = 0

    def on_ranks(self, size: int) -> Settings:
        """Return the settings for so many ranks that train together: batch size and learning rate are scaled."""
        of_batch, of_rate = RANK_SCALINGS[self.rank_scaling]
        return replace(
            self,
            batch_size=round(self.batch_size * size**of_batch),
            learning_rate=self.learning_rate * size**of_rate,
        )


@dataclass(frozen=True)
class PostTraining:
    """How the best networks are trained again after a search."""

    num_epochs: int
    metrics: tuple[MetricSource, ...] | None = None
    callbacks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    repeat: int = 1


class NaProblem(HpProblem):
    """The data, the space of architectures, and how a network is trained and judged.

    Hyperparameters may be added too (:meth:`HpProblem.add_hyperparameter`): they are searched together with the
    architecture.  One that is named like a setting of :meth:`hyperparameters` takes its place; others are put in where
    they belong, as in ``problem.hyperparameters(learning_rate=problem.add_hyperparameter((1e-4, 1e-1), "rate"))``.

    A configuration, as a run function gets it, is ``{"arch_seq": [int, ...], **hyperparameters}``.

    Parameters
    ----------
    seed : int, optional
        Of what you draw yourself with ``problem.space.sample_configuration()``; searches have ``--seed``.

    Raises
    ------
    ProblemError
        By all methods, in one sentence, as soon as something cannot work.

    Examples
    --------
    >>> from dhmpi.nas import SearchSpace, layers as L
    >>> def one_layer(input_shape, output_shape):
    ...     space = SearchSpace()
    ...     x = space.choose("layer", [L.Dense(units, "relu") for units in (8, 16)], space.input(input_shape))
    ...     space.output(L.Dense(output_shape[-1]), x)
    ...     return space
    >>> problem = NaProblem()
    >>> problem.search_space(one_layer, input_shape=(10,), output_shape=(1,))
    >>> _ = problem.add_hyperparameter((1e-4, 1e-1, "log-uniform"), "learning_rate")
    >>> problem.columns
    ['arch_seq', 'learning_rate']
    >>> problem.check_configuration({"arch_seq": [1], "learning_rate": 0.01})
    {'arch_seq': [1], 'learning_rate': 0.01}
    """

    def __init__(self, seed: int | None = None) -> None:
        super().__init__(seed)
        self._load: Call | None = None
        self._make_space: Call | None = None
        self._architecture_space: SearchSpace | None = None
        self._preprocessing: tuple[Callable[[], Any] | None, Callable[[], Any] | None] = (None, None)
        self._augment: Call | None = None
        self._settings: dict[str, Any] = {}
        self._loss: Any = None
        self._loss_weights: Any = None
        self._metrics: tuple[MetricSource, ...] | dict[str, tuple[MetricSource, ...]] = ()
        self._objective: Objective | None = None
        self._post_training: PostTraining | None = None

    # --- What a user says

    def load_data(self, func: Callable[..., Any], **kwargs: Any) -> None:
        """Say what loads the data.  It is called when they are needed, once in each process.

        Parameters
        ----------
        func : callable
            Returns ``(train_X, train_y), (valid_X, valid_y)``, perhaps with a third pair for testing, which the search
            never sees.  X and y are arrays with samples along the first axis, or lists or dicts of such for several
            inputs or outputs.  Or it returns a dict ``train_gen, train_size, valid_gen, valid_size, types, shapes``:
            ``..._gen`` are functions that return an iterator of samples ``(x, y)``, x perhaps a dict by ``input_0,
            input_1, ...``; ``test_gen`` and ``test_size`` may be there too.
        **kwargs
            Handed to it.
        """
        self._unused("load_data")
        self._load = _call("load_data", func, kwargs)
        self.__dict__.pop("data", None)

    def search_space(self, func: Callable[..., SearchSpace] | SearchSpace, **kwargs: Any) -> None:
        """Say what makes the search space.

        Parameters
        ----------
        func : callable or SearchSpace
            Returns a :class:`dhmpi.nas.SearchSpace`.  If it takes ``input_shape`` and ``output_shape`` it gets them:
            shapes of a sample, without the batch; lists of shapes where there are several inputs or outputs.
        **kwargs
            Handed to it.  Shapes that are not given here are those of the data (after :meth:`preprocessing`); given,
            they spare the search loading the data only to know the space.
        """
        self._unused("search_space")
        if hasattr(func, "decisions"):
            if kwargs:
                raise ProblemError("search_space takes keyword arguments only with a function that makes the space")
            space = func
            self._make_space = Call(lambda: space)
            return
        self._make_space = _call("search_space", func, kwargs, ("input_shape", "output_shape"))

    def preprocessing(self, func: Callable[[], Any], outputs: Callable[[], Any] | bool = False) -> None:
        """Have the data transformed before training.

        Everything is fitted on the training data alone.  Metrics and predictions are in the original units.

        Parameters
        ----------
        func : callable
            Without arguments; returns a scikit-learn transformer or pipeline, one for each input; for example
            :func:`dhmpi.nas.preprocessing.stdscaler`.  Arrays of more than two axes are seen as rows of their last.
        outputs : callable or bool, default False
            The same for the outputs, True for `func` itself.  The transformer must have ``inverse_transform``.
        """
        for what, given in (("preprocessing", func), ("the outputs of preprocessing", outputs)):
            if not callable(given) and not (given is outputs and isinstance(outputs, bool)):
                raise ProblemError(
                    f"{what} must be a function that returns a transformer of scikit-learn, got {given!r}"
                )
        if callable(outputs):
            self._preprocessing = (func, outputs)
        else:
            self._preprocessing = (func, func if outputs else None)
        self.__dict__.pop("data", None)

    def augment(self, func: Callable[..., Any], **kwargs: Any) -> None:
        """Have every batch of training data changed, each time anew, before the network sees it.

        Parameters
        ----------
        func : callable
            Takes inputs and outputs of a batch, preprocessed: an array each, or a list of arrays if there are several;
            returns both.  If it takes ``rng``, it gets a numpy Generator to draw from.
        **kwargs
            Handed to it.
        """
        self._augment = _call("augment", func, kwargs, ("rng",), positional=2)

    def hyperparameters(self, **kwargs: Any) -> None:
        """Say how networks are trained.  Any value may be a hyperparameter, also inside callbacks.

        Parameters
        ----------
        batch_size : int, default 32
            Samples for one step, shared by all ranks that train a network together.
        learning_rate : float, default 0.001
        optimizer : str, default "adam"
            One of adadelta, adafactor, adagrad, adam, adamax, adamw, ftrl, lion, nadam, rmsprop, sgd.
        num_epochs : int, default 1
        rank_scaling : {"none", "linear", "sqrt"}, default "none"
            How k ranks train together (:mod:`dhmpi.nas.run.horovod`).  "none": as one rank would, with `batch_size` and
            `learning_rate` as they stand.  "linear": both are of one rank, and are multiplied by k [1]_.  "sqrt": the
            same, but the learning rate is multiplied by the square root of k.
        warmup_epochs : float, default 0
            On k ranks, the learning rate grows from a k-th of itself to its full value in so many epochs [1]_.
        verbose : int, default 0
            1 prints a line an epoch.
        callbacks : dict, default {}
            Keyword arguments by name: EarlyStopping, ModelCheckpoint, ReduceLROnPlateau, CSVLogger, CSVExtendedLogger,
            TensorBoard, TerminateOnNaN as in Keras, and TimeStopping(seconds), which ends a training between two
            batches.  File names are relative to the directory of the evaluation.
        epsilon, clipvalue, clipnorm, momentum, weight_decay : float, optional
            Of the optimizer.
        max_parameters : int, optional
            A network with more parameters is a failed evaluation; it is not trained.
        keep_predictions : {"good", "all", "none"}, default "good"
            Whose predictions of the validation data are kept as ``predictions.npz`` in the directory of the evaluation:
            "good" are networks among the ten best that the process has seen so far.

        References
        ----------
        .. [1] Goyal et al. (2017), Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour, arXiv 1706.02677.
        """
        for name, value in kwargs.items():
            self._check_setting(name, value)
        self._settings.update(kwargs)

    def loss(self, loss: Any, weights: Any = None) -> None:
        """Say what training minimises.

        Parameters
        ----------
        loss : str, callable or dict
            A loss of Keras, a dotted path, or a function of (y_true, y_pred); a dict by ``output_0, output_1, ...`` if
            outputs differ; a hyperparameter whose choices are names.
        weights : dict or list, optional
            Of the outputs.
        """
        if isinstance(loss, Mapping):
            for name, value in loss.items():
                _check_output("loss", name)
                _check_loss(value)
            loss = dict(loss)
        else:
            _check_loss(loss)
        if weights is not None:
            values = weights.values() if isinstance(weights, Mapping) else weights
            if not isinstance(weights, (Mapping, list, tuple)) or not all(map(_is_finite, values)):
                raise ProblemError(f"the weights of the loss must be a dict or a list of numbers, got {weights!r}")
            for name in weights if isinstance(weights, Mapping) else ():
                _check_output("weights of the loss", name)
        self._loss, self._loss_weights = loss, weights

    def metrics(self, metrics: Sequence[MetricSource] | Mapping[str, Any] | MetricSource) -> None:
        """Say what is computed of the predictions of the validation data, in their original units.

        Parameters
        ----------
        metrics : list or dict
            Names (r2, r2_global, mse, rmse, mae, acc, sparse_perplexity: :mod:`dhmpi.nas.metrics`; else Keras's),
            dotted paths, or functions of (y_true, y_pred); a dict of such by ``output_0, output_1, ...`` if outputs
            differ.  They stand as ``val_<name>`` in the history, with several outputs as ``val_output_0_<name>``.
        """
        if isinstance(metrics, Mapping):
            for name in metrics:
                _check_output("metrics", name)
            self._metrics = {name: _listed(listed) for name, listed in metrics.items()}
        else:
            self._metrics = _listed(metrics)
        if self._objective is not None:
            self._check_objective()

    def objective(self, objective: str | Callable[[History], float]) -> None:
        """Say what is maximised.

        Parameters
        ----------
        objective : str or callable
            An entry of the history (``val_<metric>``, ``val_loss``, ``loss``), with a minus in front if smaller is
            better, and ``__last`` (default), ``__max`` or ``__min`` behind it for the epoch that counts.  The best of
            many noisy validations is optimistic; ``__last`` is not, and validates only once.  A function gets the
            history: lists by name, ``n_parameters``, ``training_time``, ``y_true`` and ``y_pred``.
        """
        self._objective = parse(objective)
        if self._metrics:
            self._check_objective()

    def post_training(
        self,
        num_epochs: int,
        metrics: Sequence[MetricSource] | None = None,
        callbacks: Mapping[str, Mapping[str, Any]] | None = None,
        repeat: int = 1,
    ) -> None:
        """Say how the best networks are trained again after the search.

        Parameters
        ----------
        num_epochs : int
        metrics : list, optional
            As in :meth:`metrics`; by default those of the search.
        callbacks : dict, optional
            As in :meth:`hyperparameters`.
        repeat : int, default 1
            How often, each time with another seed.
        """
        for what, value in (("num_epochs", num_epochs), ("repeat", repeat)):
            if not _is_integer(value) or value < 1:
                raise ProblemError(f"{what} of post_training must be an integer >= 1, got {value!r}")
        listed = None if metrics is None else _listed(metrics)
        self._post_training = PostTraining(num_epochs, listed, callbacks_.check(callbacks or {}), repeat)

    def add_starting_point(self, /, **config: Any) -> None:
        """Add a configuration to be evaluated before the search chooses its own.

        Parameters
        ----------
        **config
            ``arch_seq`` and a value for every active hyperparameter.
        """
        if self._architecture_space is not None:
            super().add_starting_point(**config)
        else:
            self._starting_points.append(dict(config))  # checked when the space is known

    # --- What others ask

    @property
    def space(self) -> ConfigSpace.ConfigurationSpace:
        """The ConfigSpace: a categorical hyperparameter for each decision, whose values are 0, 1, ...; then the others.

        Raises
        ------
        ProblemError
            If the search space cannot be made.
        """
        if self._make_space is not None:
            _ = self.architecture_space
        return self._space

    @property
    def architecture_space(self) -> SearchSpace:
        """The search space, made when it is asked for the first time.

        Raises
        ------
        ProblemError
            If there is none, or it cannot be made.
        """
        if self._architecture_space is None:
            self._architecture_space = self._made()
        return self._architecture_space

    @cached_property
    def data(self) -> Data:
        """The data, loaded and preprocessed when they are asked for the first time, then kept.

        Raises
        ------
        ProblemError
            If there are none, or they cannot be used.
        """
        from dhmpi.nas.data import load  # late: it brings scikit-learn, and a search can do without data

        if self._load is None:
            raise ProblemError("the problem has no data; name what loads them with load_data(function)")
        return load(self._load, *self._preprocessing)

    @property
    def decision_names(self) -> list[str]:
        """Names of the hyperparameters of `space` that are the architecture, in the order of ``arch_seq``."""
        if self._architecture_space is None and self._make_space is None:
            return []
        return [decision.name for decision in self.architecture_space.decisions]

    @property
    def hyperparameter_names(self) -> list[str]:
        """Names of decisions, then of the other hyperparameters in the order of definition."""
        _ = self.space
        decisions = self.decision_names
        return [*decisions, *(name for name in super().hyperparameter_names if name not in decisions)]

    @property
    def columns(self) -> list[str]:
        """Names of the entries of a configuration as the function gets it: ``arch_seq``, then hyperparameters."""
        return [ARCH_SEQ, *self.hyperparameter_names[len(self.decision_names) :]]

    def to_config(self, values: Mapping[str, Any]) -> Config:
        """Return the configuration that the function gets for values of the hyperparameters of `space`.

        Entries that are none pass, and so does a configuration that has its ``arch_seq`` already.
        """
        decisions = self.decision_names
        missing = [name for name in decisions if name not in values]
        if len(missing) == len(decisions) and ARCH_SEQ in values:
            return dict(values)
        if missing:
            raise ProblemError(f"there is no value for the decision {missing[0]!r}")
        rest = {name: value for name, value in values.items() if name not in decisions}
        return {ARCH_SEQ: [int(values[name]) for name in decisions], **rest}

    def from_config(self, config: Mapping[str, Any]) -> Config:
        """Return the values of the hyperparameters of `space` in a configuration as the function gets it.

        Entries that are none pass.  A decision that stands there by its own name wins over ``arch_seq``.

        Raises
        ------
        ProblemError
            If ``arch_seq`` is no architecture of the space.
        """
        rest = dict(config)
        arch = rest.pop(ARCH_SEQ, None)
        if arch is None:
            return rest
        return {**dict(zip(self.decision_names, self.architecture_space.validate(arch))), **rest}

    def describe(self, name: str) -> tuple[str, str]:
        """Return the kind of a hyperparameter and its values, in words."""
        for decision in self.architecture_space.decisions if self._make_space is not None else ():
            if decision.name == name:
                return "decision", ", ".join(decision.options)
        return super().describe(name)

    def fingerprint(self) -> str:
        """Return 16 hexadecimal digits that name the space: decisions with their options, and hyperparameters."""
        parts = f"{super().fingerprint()} {self.architecture_space.fingerprint()}"
        return hashlib.sha256(parts.encode()).hexdigest()[:16]

    def check(self) -> None:
        """Look once more at everything.

        Raises
        ------
        ProblemError
            If there is no search space, or something cannot be used.  A problem that says nothing of training may be
            searched with a run function of its own; else it must say all (:meth:`check_training`).
        """
        if self._make_space is None:
            raise ProblemError("the problem has no search space; name what makes it with search_space(function)")
        self.architecture_space.check()
        super().check()
        for name in self.decision_names:
            if self._space.parents_of[name]:
                raise ProblemError(f"decision {name!r} cannot depend on a condition: every decision always exists")
        if any(part is not None for part in (self._load, self._loss, self._objective)):
            self.check_training()

    def check_training(self) -> None:
        """Make sure that everything is said that training needs.

        Raises
        ------
        ProblemError
        """
        parts = {"load_data": self._load, "loss": self._loss, "objective": self._objective}
        missing = [f"{name}(...)" for name, part in parts.items() if part is None]
        if missing:
            raise ProblemError(f"the problem does not say all that training needs: call {' and '.join(missing)}")
        self._check_objective()
        for name in SEARCHABLE:
            if name in self._space:
                self._check_setting(name, self._space[name])
        for callbacks in (self._settings.get("callbacks", {}), self.post_training_settings.callbacks):
            callbacks_.check_monitored(callbacks, self._history_keys())
        n_outputs = self._n_outputs
        if n_outputs is not None:
            named = {*(self._loss if isinstance(self._loss, dict) else ())}
            named |= {*(self._metrics if isinstance(self._metrics, dict) else ())}
            named |= {*(self._loss_weights if isinstance(self._loss_weights, Mapping) else ())}
            for name in named - {f"output_{i}" for i in range(n_outputs)}:
                raise ProblemError(f"loss or metrics name {name!r}, but the networks have {n_outputs} output(s)")

    # --- What training asks

    @property
    def goal(self) -> Objective:
        """The objective.

        Raises
        ------
        ProblemError
            If there is none.
        """
        if self._objective is None:
            raise ProblemError("the problem has no objective; name it with objective('val_r2'), for example")
        return self._objective

    @property
    def augmentation(self) -> Call | None:
        """What changes batches of training data."""
        return self._augment

    @property
    def post_training_settings(self) -> PostTraining:
        """How the best networks are trained again; by default as in the search."""
        if self._post_training is not None:
            return self._post_training
        return PostTraining(max(self.possible("num_epochs")), callbacks=self._setting("callbacks"))

    def metric_sources(self, n_outputs: int) -> dict[str, tuple[int, MetricSource]]:
        """Return which metric of which output stands under which key of the history."""
        found = {}
        for i in range(n_outputs):
            of_output = self._metrics.get(f"output_{i}", ()) if isinstance(self._metrics, dict) else self._metrics
            prefix = f"val_output_{i}_" if n_outputs > 1 else "val_"
            found.update({prefix + metric_name(source): (i, source) for source in of_output})
        return found

    def post_metric_sources(self, n_outputs: int) -> dict[str, tuple[int, MetricSource]]:
        """Return the same for the best networks when they are trained again: what `post_training` names comes on top.

        What the search computes is computed there too, for the objective and for callbacks.
        """
        found = self.metric_sources(n_outputs)
        for i in range(n_outputs):
            prefix = f"val_output_{i}_" if n_outputs > 1 else "val_"
            for source in self.post_training_settings.metrics or ():
                found.setdefault(prefix + metric_name(source), (i, source))
        return found

    def settings(self, config: Mapping[str, Any]) -> Settings:
        """Return how the network of a configuration is trained.

        Parameters
        ----------
        config : dict
            Hyperparameters are put in where they belong; ``num_epochs`` wins over the problem's in any case.

        Raises
        ------
        ProblemError
            If a value makes no sense.
        """
        values = {name: self._setting(name) for name in (*DEFAULTS, *OPTIMIZER_ARGUMENTS)}
        values["loss"] = self._loss
        values = {name: _filled(value, config) for name, value in values.items()}
        values = {name: DEFAULTS.get(name) if value is _INACTIVE else value for name, value in values.items()}
        for name in SEARCHABLE:
            if name in config:
                self._check_setting(name, config[name])
                values[name] = config[name]
        arguments = {name: values.pop(name) for name in OPTIMIZER_ARGUMENTS}
        values["callbacks"] = callbacks_.check(values["callbacks"])
        values["optimizer"] = values["optimizer"].lower()
        return Settings(
            **values,
            loss_weights=self._loss_weights,
            optimizer_arguments={name: value for name, value in arguments.items() if value is not None},
        )

    def post_settings(self, config: Mapping[str, Any]) -> Settings:
        """Return how the network of a configuration is trained again: with the callbacks of `post_training`.

        Parameters
        ----------
        config : dict
            As in :meth:`settings`.

        Raises
        ------
        ProblemError
        """
        settings = self.settings(config)
        callbacks = callbacks_.check(_filled(self.post_training_settings.callbacks, config))
        n_epochs = config.get("num_epochs", self.post_training_settings.num_epochs)
        return replace(settings, callbacks=callbacks, num_epochs=n_epochs)

    def possible(self, name: str) -> tuple[Any, ...]:
        """Return all values that a setting, or ``loss``, may take in a search; of a range its ends."""
        value = self._loss if name == "loss" else self._setting(name)
        if name in SEARCHABLE and name in self._space:
            value = self._space[name]
        return _extremes(value) if isinstance(value, Hyperparameter) else (value,)

    def ineffective(self) -> list[str]:
        """Return the hyperparameters that nothing in the training depends on."""
        used = {*SEARCHABLE, *self.decision_names}
        for value in (*self._settings.values(), self._loss):
            used |= _referenced(value)
        return [name for name in self.hyperparameter_names if name not in used]

    # --- Within

    @property
    def _n_outputs(self) -> int | None:
        """Number of outputs, None if the space leaves that to the user's code."""
        return len(self.architecture_space.output_shapes) or None

    def _setting(self, name: str) -> Any:
        return self._settings.get(name, DEFAULTS.get(name))

    def _unused(self, method: str) -> None:
        if self._architecture_space is not None:
            raise ProblemError(f"{method} comes too late: the search space has been made already")

    def _made(self) -> SearchSpace:
        """Make the search space, and add its decisions to the ConfigSpace."""
        if self._make_space is None:
            raise ProblemError("the problem has no search space; name what makes it with search_space(function)")
        made = self._make_space
        shapes = {}
        for name in ("input_shape", "output_shape"):
            if name not in made.arguments and _takes(made.function, name):
                found = self.data.input_shapes if name == "input_shape" else self.data.output_shapes
                shapes[name] = found[0] if len(found) == 1 else list(found)
        try:
            space: SearchSpace = made(**shapes)
        except ProblemError:
            raise
        except Exception as error:
            raise ProblemError(f"the search space cannot be made: {made.name} raised {_words(error)}") from error
        if hasattr(space, "convert"):  # one of dhmpi.nas.compat
            space = space.convert()
        if not hasattr(space, "decisions"):
            raise ProblemError(f"search_space: {made.name} returned {_kind(space)} instead of a SearchSpace")
        for decision in space.decisions:
            if decision.name in self._space:
                raise ProblemError(f"the decision {decision.name!r} is named like a hyperparameter; rename one of them")
            if decision.name in (ARCH_SEQ, *PASSED):
                raise ProblemError(f"a decision cannot be named {decision.name!r}, like an entry of configurations")
        for decision in space.decisions:
            self._space.add(CategoricalHyperparameter(decision.name, list(range(len(decision.options)))))
        return space

    def _add(self, what: str, item: Any) -> None:
        if isinstance(item, Hyperparameter) and item.name in (ARCH_SEQ, "parent"):
            raise ProblemError(f"a hyperparameter cannot be named {item.name!r}, like an entry of configurations")
        super()._add(what, item)

    def _resolve(self, what: str, config: Mapping[str, Any], fill: bool = False) -> Config:
        if not isinstance(config, Mapping):
            return super()._resolve(what, config, fill)
        names = (*self.columns, *self.decision_names, *PASSED)
        for name in config:
            if name not in names:
                has = ", ".join(map(repr, self.columns))
                raise ProblemError(f"{what} names {name!r}, but a configuration of this problem has {has}")
        passed = {name: config[name] for name in PASSED if name in config and name not in self._space}
        try:
            values = self.from_config({name: value for name, value in config.items() if name not in passed})
        except ProblemError as error:
            raise ProblemError(f"{what} does not fit: {error}") from error
        if not fill and self.decision_names and not any(name in values for name in self.decision_names):
            raise ProblemError(f"{what} lacks a value for {ARCH_SEQ!r}, a list of {len(self.decision_names)} integers")
        return {**self.to_config(super()._resolve(what, values, fill)), **passed}

    def _history_keys(self) -> list[str]:
        """Return what the history of a training has, as far as that is known."""
        n_outputs = self._n_outputs
        if n_outputs is None:  # one, or as many as the metrics name
            n_outputs = max(1, len(self._metrics) if isinstance(self._metrics, dict) else 1)
        return ["loss", "val_loss", *self.metric_sources(n_outputs)]

    def _check_objective(self) -> None:
        """Refuse an objective that is not computed; before the space is made, one that no output can have."""
        goal = self.goal
        if self._architecture_space is not None:
            goal.check(self._history_keys())
            return
        sources = self._metrics.items() if isinstance(self._metrics, dict) else [("", self._metrics)]
        names = [metric_name(source) for _, listed in sources for source in listed]
        known = ["loss", "val_loss", *(f"val_{name}" for name in names)]
        if goal.key and not any(goal.key.startswith("val_output_") and goal.key.endswith(f"_{name}") for name in names):
            goal.check(known)

    def _check_setting(self, name: str, value: Any) -> None:
        """Refuse a value, or a hyperparameter, that a setting cannot have."""
        if name not in _CHECKS:
            hint = "; ranks of an evaluation are the search's --num-ranks-per-eval" if name == "ranks_per_node" else ""
            raise ProblemError(f"hyperparameters() knows no {name!r}{hint}; it takes {', '.join(_SETTINGS)}")
        if isinstance(value, Hyperparameter):
            if name in ("callbacks", "verbose", "max_parameters", "keep_predictions"):
                raise ProblemError(f"{name} cannot be searched")
            for choice in _extremes(value):
                self._check_setting(name, choice)
            return
        legal, words = _CHECKS[name]
        if not legal(value):
            raise ProblemError(f"{name} must be {words}, got {value!r}")
        if name == "callbacks":
            callbacks_.check(value)


_INACTIVE = object()
"""Instead of a hyperparameter that a configuration does not have."""


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_positive(value: Any) -> bool:
    return _is_finite(value) and value > 0


def _is_count(value: Any) -> bool:
    return _is_integer(value) and value >= 1


def _is_optimizer(value: Any) -> bool:
    return isinstance(value, str) and value.lower() in OPTIMIZERS


def _is_loss(value: Any) -> bool:
    return (isinstance(value, str) and bool(value)) or callable(value)


_CHECKS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "batch_size": (_is_count, "an integer >= 1"),
    "learning_rate": (_is_positive, "a number > 0"),
    "optimizer": (_is_optimizer, f"one of {', '.join(OPTIMIZERS)}"),
    "num_epochs": (_is_count, "an integer >= 1"),
    "rank_scaling": (
        lambda value: isinstance(value, str) and value in RANK_SCALINGS,
        f"one of {', '.join(RANK_SCALINGS)}",
    ),
    "warmup_epochs": (lambda value: _is_finite(value) and value >= 0, "a number >= 0"),
    "verbose": (lambda value: value in (0, 1, 2), "0, 1 or 2"),
    "callbacks": (lambda value: True, ""),
    "epsilon": (_is_positive, "a number > 0"),
    "clipvalue": (_is_positive, "a number > 0"),
    "clipnorm": (_is_positive, "a number > 0"),
    "momentum": (lambda value: _is_finite(value) and 0 <= value <= 1, "a number in [0, 1]"),
    "weight_decay": (lambda value: _is_finite(value) and value >= 0, "a number >= 0"),
    "max_parameters": (lambda value: value is None or _is_count(value), "an integer >= 1, or None"),
    "keep_predictions": (lambda value: value in KEEP_PREDICTIONS, f"one of {', '.join(KEEP_PREDICTIONS)}"),
    "loss": (_is_loss, "the name of a loss or a function of (y_true, y_pred)"),
}
_SETTINGS = tuple(name for name in _CHECKS if name != "loss")


def _check_loss(loss: Any) -> None:
    legal, words = _CHECKS["loss"]
    among = choices(loss) if isinstance(loss, Hyperparameter) else (loss,)
    if not all(map(legal, among or (None,))):
        raise ProblemError(f"the loss must be {words}, or a dict of such by output_0, output_1, ..., got {loss!r}")


def _check_output(what: str, name: Any) -> None:
    if not isinstance(name, str) or not name.startswith("output_") or not name[7:].isdigit():
        raise ProblemError(f"{what} by output are named output_0, output_1, ..., got {name!r}")


def _listed(metrics: Any) -> tuple[MetricSource, ...]:
    """Return metrics of one output as a tuple."""
    listed = (metrics,) if isinstance(metrics, str) or callable(metrics) else metrics
    if not isinstance(listed, (list, tuple)):
        raise ProblemError(f"metrics must be a list, or a dict of lists by output_0, output_1, ..., got {metrics!r}")
    names = [metric_name(source) for source in listed]
    for name in names:
        if names.count(name) > 1:
            raise ProblemError(f"two metrics are named {name!r}; give one of them another name")
    return tuple(listed)


def _call(what: str, func: Any, kwargs: Mapping[str, Any], optional: Sequence[str] = (), positional: int = 0) -> Call:
    """Return a function with its arguments, if it can be called with them.

    Parameters
    ----------
    what : str
        Method that it was given to.
    func : callable
    kwargs : dict
    optional : sequence of str
        Arguments that it gets too if it takes them.
    positional : int, default 0
        Number of arguments in front.
    """
    if not callable(func):
        raise ProblemError(f"{what} takes a function, got {_kind(func)}")
    given = {**dict.fromkeys(name for name in optional if _takes(func, name)), **kwargs}
    try:
        inspect.signature(func).bind(*[None] * positional, **given)
    except TypeError as error:
        name = getattr(func, "__name__", type(func).__name__)
        with_ = f"{positional} arguments and " if positional else ""
        shown = ", ".join(given) or "no keywords"
        raise ProblemError(f"{what}: {name} cannot be called with {with_}{shown}: {error}") from error
    except ValueError:
        pass  # written in C, without a signature
    return Call(func, dict(kwargs))


def _takes(func: Callable[..., Any], name: str) -> bool:
    """Return whether a function takes a keyword argument."""
    try:
        parameters = inspect.signature(func).parameters
    except ValueError:
        return False
    return name in parameters and parameters[name].kind in (
        inspect.Parameter.KEYWORD_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
    )


def _filled(value: Any, config: Mapping[str, Any]) -> Any:
    """Return a setting with the values of a configuration in place of hyperparameters; inactive ones are left out."""
    if isinstance(value, Hyperparameter):
        return config.get(value.name, _INACTIVE)
    if isinstance(value, Mapping):
        filled = {name: _filled(inner, config) for name, inner in value.items()}
        return {name: inner for name, inner in filled.items() if inner is not _INACTIVE}
    return value


def _referenced(value: Any) -> set[str]:
    """Return the names of hyperparameters that stand in a setting."""
    if isinstance(value, Hyperparameter):
        return {value.name}
    if isinstance(value, Mapping):
        return set().union(*map(_referenced, value.values())) if value else set()
    return set()


def _extremes(hyperparameter: Any) -> tuple[Any, ...]:
    """Return all choices, or both ends of a range."""
    among = choices(hyperparameter)
    return (hyperparameter.lower, hyperparameter.upper) if among is None else among


def _words(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _kind(value: Any) -> str:
    return "None" if value is None else f"an object of type {type(value).__name__}"
