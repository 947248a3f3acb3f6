"""The bundled problems: what they are, that they honour their own spaces, and that evaluations start fast."""

import importlib
import math
import subprocess
import sys

import numpy as np
import pytest

from dhmpi.errors import ProblemError
from dhmpi.evaluate.result import check
from dhmpi.load import load_problem, load_run
from dhmpi.search.uniform import UniformSearch

PACKAGE = "dhmpi.benchmark.hps"
NAMES = (
    *("polynome2", "toy.problem_basic_1", "toy.problem_cond_1", "toy.problem_forbidden_1"),
    *("digits", "digits_mlp", "digits_parallel", "poisson"),
)


def draw(problem, n, seed=0):
    """Return `n` random configurations of a problem."""
    return [proposal.config for proposal in UniformSearch(problem.space, seed).ask(n)]


@pytest.mark.parametrize("name", NAMES)
def test_problem_and_run_are_found_by_name(name):
    problem = load_problem(f"{PACKAGE}.{name}.Problem")

    assert problem is load_problem(f"{PACKAGE}.{name}.Problem")
    assert callable(load_run(f"{PACKAGE}.{name}.run"))


def test_a_problem_can_be_imported():
    from dhmpi.benchmark.hps.polynome2 import Problem

    assert Problem is load_problem(f"{PACKAGE}.polynome2.Problem")


@pytest.mark.parametrize("name", NAMES)
def test_other_attributes_are_missing_as_usual(name):
    module = importlib.import_module(f"{PACKAGE}.{name}")

    with pytest.raises(AttributeError, match=rf"module '{PACKAGE}.{name}' has no attribute 'Problm'"):
        _ = module.Problm


@pytest.mark.parametrize("name", NAMES)
def test_an_evaluation_does_not_pay_for_the_space(name):
    allowed = {"digits": {"numpy", "sklearn", "scipy", "rich"}, "poisson": {"numpy"}}.get(name, set())
    heavy = {"ConfigSpace", "numpy", "scipy", "sklearn", "keras", "tensorflow", "mpi4py", "rich"} - allowed
    program = f"import sys; from {PACKAGE}.{name} import run; print(sorted({heavy!r} & sys.modules.keys()))"

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)

    assert done.stdout == "[]\n"


def test_polynome2():
    problem, run = load_problem(f"{PACKAGE}.polynome2.Problem"), load_run(f"{PACKAGE}.polynome2.run")
    spaces = [problem.space[f"e{i}"] for i in range(10)]

    assert problem.hyperparameter_names == [f"e{i}" for i in range(10)]
    assert {(hyperparameter.lower, hyperparameter.upper, hyperparameter.log) for hyperparameter in spaces} == {
        (-10.0, 10.0, False)
    }
    assert problem.starting_points == [{f"e{i}": 10.0 for i in range(10)}]
    assert run(problem.starting_points[0]) == -1000.0
    assert run({f"e{i}": float(i) for i in range(10)}) == -285.0
    assert run({f"e{i}": 0.0 for i in range(10)}) == 0.0


def test_basic_toy():
    problem, run = (
        load_problem(f"{PACKAGE}.toy.problem_basic_1.Problem"),
        load_run(f"{PACKAGE}.toy.problem_basic_1.run"),
    )

    configs = draw(problem, 121)

    assert len(configs) == 121
    assert max(map(run, configs)) == run({"x": 10, "y": 10}) == 20


def test_conditional_toy():
    problem, run = load_problem(f"{PACKAGE}.toy.problem_cond_1.Problem"), load_run(f"{PACKAGE}.toy.problem_cond_1.run")

    configs = draw(problem, 40)

    assert {tuple(config) for config in configs} == {("func", "f1_x", "f1_y"), ("func", "f2_x", "f2_y")}
    assert all(0 <= run(config) <= 2 for config in configs)
    assert run({"func": "f1", "f1_x": 1.0, "f1_y": 1.0}) == 2.0
    assert run({"func": "f2", "f2_x": 0.5, "f2_y": 0.5}) == 0.25


def test_forbidden_toy():
    name = f"{PACKAGE}.toy.problem_forbidden_1"
    problem, run = load_problem(f"{name}.Problem"), load_run(f"{name}.run")

    configs = draw(problem, 200)

    assert len(configs) == 120
    assert {"x": 0, "y": 0} not in configs
    assert max(map(run, configs)) == run({"x": 0, "y": 1}) == 0.0
    assert run({"x": 1, "y": 1}) == pytest.approx(math.log(0.5))
    with pytest.raises(ProblemError, match="forbidden"):
        problem.check_configuration({"x": 0, "y": 0})


DIGITS = [
    {"classifier": "random forest", "forest_trees": 20},
    {"classifier": "SVM", "svm_kernel": "rbf"},
    {"classifier": "SVM", "svm_kernel": "poly"},
    {"classifier": "SVM", "svm_kernel": "linear"},
    {"classifier": "k-NN"},
    {"classifier": "logistic regression"},
    {"classifier": "MLP", "mlp_units": 16},
]


@pytest.mark.parametrize("given", DIGITS, ids=lambda given: " ".join(map(str, given.values())))
def test_digits_are_recognised(given, recwarn):
    problem, run = load_problem(f"{PACKAGE}.digits.Problem"), load_run(f"{PACKAGE}.digits.run")
    config = problem.complete(given)

    objective, metrics = check(run(config))

    assert 0.8 < objective <= 1.0  # guessing has 0.1
    assert set(metrics) == {"std", "train_accuracy", "fit_seconds", "score_seconds"}
    assert check(run(config))[0] == objective
    assert not recwarn.list


def test_digits_are_a_nested_conditional_space():
    problem = load_problem(f"{PACKAGE}.digits.Problem")
    prefixes = {"random forest": "forest", "SVM": "svm", "k-NN": "knn", "logistic regression": "logistic", "MLP": "mlp"}

    configs = draw(problem, 300)

    assert {config["classifier"] for config in configs} == set(prefixes)
    for config in configs:
        assert {name.split("_")[0] for name in config} == {"classifier", prefixes[config["classifier"]]}
        assert ("svm_gamma" in config) == (config.get("svm_kernel") in ("rbf", "poly", "sigmoid"))
        assert ("svm_degree" in config) == (config.get("svm_kernel") == "poly")


def test_digits_are_worth_tuning():
    problem, run = load_problem(f"{PACKAGE}.digits.Problem"), load_run(f"{PACKAGE}.digits.run")
    configs = [config for config in draw(problem, 60) if config["classifier"] in ("SVM", "logistic regression")][:12]

    found = [run(config)["objective"] for config in configs]

    assert max(found) - min(found) > 0.2
    assert np.isfinite(found).all()


def test_digits_mlp_is_a_conditional_space():
    problem = load_problem(f"{PACKAGE}.digits_mlp.Problem")

    for config in draw(problem, 50):
        assert {"units_2" in config, "dropout_2" in config, "activation_2" in config} == {config["layers"] == 2}
    assert problem.starting_points[0]["layers"] == 1


@pytest.mark.tensorflow
@pytest.mark.parametrize("layers", [1, 2])
def test_digits_mlp_learns(layers):
    pytest.importorskip("keras")
    problem, run = load_problem(f"{PACKAGE}.digits_mlp.Problem"), load_run(f"{PACKAGE}.digits_mlp.run")
    config = problem.complete({**problem.starting_points[0], "layers": layers, "learning_rate": 0.01, "epochs": 5})

    objective, metrics = check(run(config))

    assert 0.8 < objective <= 1.0
    assert set(metrics) == {"test_loss", "train_accuracy", "train_loss", "parameters"}
    assert check(run(config))[0] == pytest.approx(objective)


def test_poisson_is_solved_and_worth_tuning():
    run = load_run(f"{PACKAGE}.poisson.run")

    slow = run({"omega": 1.6, "sweeps_per_exchange": 1, "sweeps_per_check": 16})
    fast = run({"omega": 1.9, "sweeps_per_exchange": 1, "sweeps_per_check": 16})

    assert 3 * fast["sweeps"] < slow["sweeps"]
    assert fast["middle"] == pytest.approx(0.0737, abs=2e-4)  # the series of the exact solution


@pytest.mark.tensorflow
def test_digits_parallel_learns_on_a_rank_alone():
    pytest.importorskip("keras")
    problem, run = load_problem(f"{PACKAGE}.digits_parallel.Problem"), load_run(f"{PACKAGE}.digits_parallel.run")

    objective, metrics = check(run({**problem.starting_points[0], "learning_rate": 0.01}))

    assert 0.8 < objective <= 1.0
    assert set(metrics) == {"test_loss"}
