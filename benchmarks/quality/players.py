"""Searches that play a problem: dhmpi's own, driven by its dispatcher, and those of other tools, by ask and tell.

All of them see the same asynchronous evaluators in virtual time: whoever is free gets a proposal at once, made with
all that has ended by then, and the time that a search takes to think is not counted against it (it is measured).  A
peer is used as its documentation says for this, with its defaults else.
"""

from __future__ import annotations

import heapq
import math
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import ConfigSpace
import numpy as np

from benchmarks.quality.problems import Problem
from dhmpi.budget import Limits
from dhmpi.roles.virtual import simulate
from dhmpi.search.base import Search
from dhmpi.search.encoding import Encoding
from dhmpi.search.evolution import RegularizedEvolution
from dhmpi.search.model_based import ModelBasedSearch
from dhmpi.search.uniform import UniformSearch
from dhmpi.trials import Config

MINUTE = 60.0
"""Seconds that an evaluation of dhmpi's searches takes in the mean: peers think in no time, whatever it takes."""


class Played(NamedTuple):
    """What a search has found.

    Attributes
    ----------
    values : ndarray of shape (n,)
        After each evaluation that has ended, the true value of the configuration that was observed to be the best.
    seconds : float
        CPU time that the search took for all that.
    """

    values: np.ndarray
    seconds: float


class Setting(NamedTuple):
    """How many evaluators there are, and how many evaluations they make."""

    evaluators: int
    budget: int


Player = Callable[[Problem, Setting, int], Played]


class _Watch:
    """Adds up CPU time."""

    def __init__(self) -> None:
        self.seconds = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        start = time.process_time()
        try:
            yield
        finally:
            self.seconds += time.process_time() - start


class _Timed:
    """A search, with a watch on it."""

    def __init__(self, search: Search) -> None:
        self._search, self.watch = search, _Watch()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._search, name)

    def ask(self, *arguments: Any) -> Any:
        with self.watch.running():
            return self._search.ask(*arguments)

    def tell(self, *arguments: Any) -> None:
        with self.watch.running():
            self._search.tell(*arguments)


class _Record:
    """What was observed, and how good the best of it is in truth."""

    def __init__(self, problem: Problem, seed: int) -> None:
        self._problem, self._rng = problem, np.random.default_rng([seed, 1])
        self._best, self._value = -math.inf, -math.inf
        self.values: list[float] = []

    def observe(self, config: Config) -> float | None:
        y = self._problem.observe(config, self._rng)
        if y is not None and y > self._best:
            self._best, self._value = y, self._problem.value(config)
        self.values.append(self._value)
        return y


def ours(make: Callable[[ConfigSpace.ConfigurationSpace, int, Setting], Search]) -> Player:
    """Return a player of one of dhmpi's searches, asked and told by its own dispatcher and supply."""

    def play(problem: Problem, setting: Setting, seed: int) -> Played:
        timed, record = _Timed(make(problem.space, seed, setting)), _Record(problem, seed)
        simulate(
            timed,  # type: ignore[arg-type]
            Limits(setting.budget, max_failures=None),
            setting.evaluators,
            record.observe,
            lambda config, rng: MINUTE * problem.duration(config, rng),
            ask_seconds=lambda n_told, n: 1e-3,
            seed=seed,
        )
        return Played(np.array(record.values), timed.watch.seconds)

    return play


def ambs(**options: Any) -> Player:
    return ours(
        lambda space, seed, setting: ModelBasedSearch(
            space, seed, n_evaluators=setting.evaluators, max_evals=setting.budget, **options
        )
    )


Peer = tuple[Callable[[], tuple[Any, Config]], Callable[[Any, float | None], None]]
"""``ask() -> (handle, configuration)`` and ``tell(handle, objective)``, None for a failure."""


def peer(make: Callable[[ConfigSpace.ConfigurationSpace, Setting, int], Peer]) -> Player:
    """Return a player of a peer's search, which is asked and told one configuration at a time."""

    def play(problem: Problem, setting: Setting, seed: int) -> Played:
        warnings.simplefilter("ignore")
        watch, record, durations = _Watch(), _Record(problem, seed), np.random.default_rng([seed, 2])
        with watch.running():
            ask, tell = make(problem.space, setting, seed)
        running: list[tuple[float, int, Any, Config]] = []
        now, n_started = 0.0, 0
        while len(record.values) < setting.budget:
            while len(running) < setting.evaluators and n_started < setting.budget:
                with watch.running():
                    handle, config = ask()
                heapq.heappush(running, (now + problem.duration(config, durations), n_started, handle, config))
                n_started += 1
            now, _, handle, config = heapq.heappop(running)
            y = record.observe(config)
            with watch.running():
                tell(handle, y)
        return Played(np.array(record.values), watch.seconds)

    return play


def optuna(**options: Any) -> Player:
    """Optuna's TPE with its constant liar, which its documentation advises for parallel evaluations."""

    def make(space: ConfigSpace.ConfigurationSpace, setting: Setting, seed: int) -> Peer:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=setting.evaluators > 1, **options)
        study = optuna.create_study(direction="maximize", sampler=sampler)

        def ask() -> tuple[Any, Config]:
            trial = study.ask()
            config: Config = {}
            for name in space:  # parents come before their children
                conditions = space.parent_conditions_of[name]
                if all(condition.satisfied_by_value(_all_of(space, config)) for condition in conditions):
                    config[name] = _suggested(trial, space[name])
            return trial, config

        def tell(trial: Any, y: float | None) -> None:
            if y is None:
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
            else:
                study.tell(trial, y)

        return ask, tell

    return peer(make)


def _all_of(space: ConfigSpace.ConfigurationSpace, config: Config) -> dict[str, Any]:
    from ConfigSpace.types import NotSet

    return {name: config.get(name, NotSet) for name in space}


def _suggested(trial: Any, hyperparameter: Any) -> Any:
    name = hyperparameter.name
    if isinstance(hyperparameter, ConfigSpace.UniformFloatHyperparameter):
        return trial.suggest_float(name, hyperparameter.lower, hyperparameter.upper, log=hyperparameter.log)
    if isinstance(hyperparameter, ConfigSpace.UniformIntegerHyperparameter):
        return trial.suggest_int(name, hyperparameter.lower, hyperparameter.upper, log=hyperparameter.log)
    if isinstance(hyperparameter, ConfigSpace.OrdinalHyperparameter):
        # Optuna knows no order of choices but that of integers.
        return _plain(hyperparameter.sequence[trial.suggest_int(name, 0, len(hyperparameter.sequence) - 1)])
    return _plain(trial.suggest_categorical(name, list(map(_plain, hyperparameter.choices))))


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


class _Flat:
    """A space without conditions and clauses, for peers that have none: what is inactive is left out afterwards.

    A number is its place in [0, 1] between its bounds, on a log scale where it is logarithmic; a choice is its number.
    """

    def __init__(self, space: ConfigSpace.ConfigurationSpace) -> None:
        self._encoding = Encoding(space)
        nominal = (ConfigSpace.CategoricalHyperparameter, ConfigSpace.Constant)
        self.n_choices = [int(space[name].size) if isinstance(space[name], nominal) else None for name in space]

    def config(self, values: list[Any]) -> Config:
        units = [[value if n is None else (value + 0.5) / n for n, value in zip(self.n_choices, values)]]
        return self._encoding.decode(self._encoding.resolve(np.array(units, dtype=float))[0])[0]


class _Worst:
    """Turns a failure into the worst objective so far, for peers that know no failures."""

    def __init__(self) -> None:
        self._least: float | None = None

    def __call__(self, y: float | None) -> float:
        if y is None:
            return 0.0 if self._least is None else self._least
        self._least = y if self._least is None else min(self._least, y)
        return y


def scikit_optimize(space: ConfigSpace.ConfigurationSpace, setting: Setting, seed: int) -> Peer:
    """A Gaussian process and gp_hedge, its defaults."""
    from skopt import Optimizer
    from skopt.space import Categorical, Real

    flat, worst = _Flat(space), _Worst()
    optimizer = Optimizer(
        [Real(0.0, 1.0) if n is None else Categorical(list(range(n))) for n in flat.n_choices], random_state=seed
    )

    def ask() -> tuple[Any, Config]:
        values = optimizer.ask()
        return values, flat.config(values)

    def tell(values: Any, y: float | None) -> None:
        optimizer.tell(values, -worst(y))

    return ask, tell


def nevergrad(name: str) -> Player:
    def make(space: ConfigSpace.ConfigurationSpace, setting: Setting, seed: int) -> Peer:
        import nevergrad as ng

        flat, worst = _Flat(space), _Worst()
        parameters = ng.p.Tuple(
            *(ng.p.Scalar(lower=0.0, upper=1.0) if n is None else ng.p.Choice(list(range(n))) for n in flat.n_choices)
        )
        parameters.random_state.seed(seed)
        optimizer = ng.optimizers.registry[name](parameters, budget=setting.budget, num_workers=setting.evaluators)

        def ask() -> tuple[Any, Config]:
            candidate = optimizer.ask()
            return candidate, flat.config(list(candidate.value))

        return ask, lambda candidate, y: optimizer.tell(candidate, -worst(y))

    return peer(make)


def propulate(space: ConfigSpace.ConfigurationSpace, setting: Setting, seed: int) -> Peer:
    """Its default propagator, given all that has ended, as its workers do; a population of twice as many as those."""
    import random

    from propulate.utils import get_default_propagator

    flat, worst = _Flat(space), _Worst()
    limits = {f"x{i}": (0.0, 1.0) if n is None else tuple(map(str, range(n))) for i, n in enumerate(flat.n_choices)}
    propagate = get_default_propagator(max(10, 2 * setting.evaluators), limits, rng=random.Random(seed))
    population: list[Any] = []

    def ask() -> tuple[Any, Config]:
        individual = propagate(population)
        genes = [individual[name] for name in limits]
        return individual, flat.config(
            [float(gene) if n is None else int(gene) for n, gene in zip(flat.n_choices, genes)]
        )

    def tell(individual: Any, y: float | None) -> None:
        individual.loss = -worst(y)
        population.append(individual)

    return ask, tell


def deephyper(space: ConfigSpace.ConfigurationSpace, setting: Setting, seed: int) -> Peer:
    """CBO with its strategy for many asynchronous evaluators, and as large an initial design as dhmpi once had."""
    from deephyper.hpo import CBO, HpProblem

    problem = HpProblem()
    for hyperparameter in space.values():
        problem.add_hyperparameter(hyperparameter)
    for condition in space.conditions:
        problem.add_condition(condition)
    search = CBO(
        problem,
        random_state=seed,
        log_dir=tempfile.mkdtemp(),
        n_initial_points=min(max(2 * len(space), setting.evaluators), max(setting.budget // 4, setting.evaluators)),
        acq_func="UCBd",
        multi_point_strategy="qUCBd",
    )

    def ask() -> tuple[Any, Config]:
        (config,) = search.ask(1)
        given = {name: _plain(config[name]) for name in space if config.get(name) is not None}
        return config, {name: given[name] for name in _active(space, given)}

    return ask, lambda config, y: search.tell([(config, "F" if y is None else y)])


def _active(space: ConfigSpace.ConfigurationSpace, config: Config) -> list[str]:
    """Return which hyperparameters of a configuration are active, for peers that give all of them."""
    names: list[str] = []
    for name in space:
        known = _all_of(space, {given: config[given] for given in names})
        if all(condition.satisfied_by_value(known) for condition in space.parent_conditions_of[name]):
            names.append(name)
    return names


def smac(space: ConfigSpace.ConfigurationSpace, setting: Setting, seed: int) -> Peer:
    """SMAC3's facade for hyperparameters: a forest with the logarithm of EI."""
    from smac import HyperparameterOptimizationFacade as Facade
    from smac import Scenario
    from smac.runhistory import StatusType, TrialValue

    scenario = Scenario(space, output_directory=tempfile.mkdtemp(), n_trials=setting.budget, seed=seed,
                        deterministic=True)  # fmt: skip
    facade = Facade(
        scenario,
        lambda config, seed=0: 0.0,
        intensifier=Facade.get_intensifier(scenario, max_config_calls=1),
        logging_level=50,
        overwrite=True,
    )
    worst = _Worst()

    def ask() -> tuple[Any, Config]:
        info = facade.ask()
        return info, {name: _plain(value) for name, value in dict(info.config).items()}

    def tell(info: Any, y: float | None) -> None:
        status = StatusType.SUCCESS if y is not None else StatusType.CRASHED
        facade.tell(info, TrialValue(cost=-worst(y), status=status))

    return ask, tell


class Searcher(NamedTuple):
    """A search to be measured.

    Attributes
    ----------
    play : callable
    module : str
        What must be installed.
    most : int
        Evaluations beyond which it takes too long to be measured.
    """

    play: Player
    module: str = "dhmpi"
    most: int = 1_000_000


SEARCHERS: dict[str, Searcher] = {
    "random": Searcher(ours(lambda space, seed, setting: UniformSearch(space, seed))),
    "ambs": Searcher(ambs()),
    "ambs GP": Searcher(ambs(surrogate_model="GP")),
    "ambs ET": Searcher(ambs(surrogate_model="ET")),
    "ambs RF": Searcher(ambs(surrogate_model="RF")),
    "ambs GBRT": Searcher(ambs(surrogate_model="GBRT")),
    "ambs EI": Searcher(ambs(acq_func="EI")),
    "regevo": Searcher(ours(lambda space, seed, setting: RegularizedEvolution(space, seed))),
    "Optuna TPE": Searcher(optuna(), "optuna", 1500),
    "Optuna TPE univariate": Searcher(optuna(multivariate=False), "optuna", 1500),
    "DeepHyper CBO": Searcher(peer(deephyper), "deephyper", 1500),
    "SMAC3": Searcher(peer(smac), "smac", 300),
    "scikit-optimize": Searcher(peer(scikit_optimize), "skopt", 100),
    "nevergrad NGOpt": Searcher(nevergrad("NGOpt"), "nevergrad"),
    "Propulate": Searcher(peer(propulate), "propulate"),
}
