"""Finding problems and run functions by name; what is said when they are not there."""

import itertools
import os
import pickle
import subprocess
import sys
import textwrap

import pytest

from dhmpi.errors import ProblemError
from dhmpi.load import load_problem, load_run
from dhmpi.problem import HpProblem

PROBLEM = """
from dhmpi.problem import HpProblem

Problem = HpProblem()
Problem.add_hyperparameter((0, 10), "x")
"""
RUN = """
def run(config):
    return config["x"]
"""


@pytest.fixture(autouse=True)
def _importable_as_before(tmp_path):
    path = list(sys.path)
    yield
    sys.path[:] = path
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


_numbers = itertools.count()


@pytest.fixture
def study(tmp_path, monkeypatch):
    """Return a function that writes a module into a directory of its own, the working directory, and names it."""
    monkeypatch.chdir(tmp_path)

    def write(text, name=None):
        name = name or f"study_{os.getpid()}_{next(_numbers)}"
        path = tmp_path / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return name

    return write


def refusal(load, name):
    """Return the one sentence with which `name` is refused."""
    with pytest.raises(ProblemError) as refused:
        load(name)
    assert "\n" not in str(refused.value)
    assert name in str(refused.value)
    return str(refused.value)


# --- what is found


def test_a_dotted_name_is_found_in_the_working_directory(study):
    name = study(PROBLEM + RUN)

    assert load_problem(f"{name}.Problem").hyperparameter_names == ["x"]
    assert load_run(f"{name}.run")({"x": 3}) == 3


def test_an_attribute_of_an_attribute_is_found(study):
    name = study("class Model:\n    @staticmethod\n    def train(config):\n        return 5\n")

    assert load_run(f"{name}.Model.train")({}) == 5


def test_a_file_has_problem_and_run(study):
    name = study(PROBLEM + RUN)

    assert load_problem(f"{name}.py").hyperparameter_names == ["x"]
    assert load_run(f"./{name}.py")({"x": 3}) == 3


def test_another_attribute_of_a_file_can_be_named(study):
    name = study("class Model:\n    @staticmethod\n    def train(config):\n        return 5\n")

    assert load_run(f"{name}.py:Model.train")({}) == 5


def test_a_file_and_its_dotted_name_are_one_module(study, tmp_path):
    name = study(PROBLEM + RUN)

    problem = load_problem(f"{name}.Problem")

    assert load_problem(str(tmp_path / f"{name}.py")) is problem
    assert load_problem(f"../{tmp_path.name}/{name}.py") is problem


def test_a_file_sees_the_modules_beside_it(study, tmp_path):
    study("FACTOR = 7\n", "elsewhere/factor_of_study")
    study(
        "from factor_of_study import FACTOR\n\ndef run(config):\n    return FACTOR * config['x']\n", "elsewhere/beside"
    )

    assert load_run("elsewhere/beside.py")({"x": 2}) == 14


def test_two_files_of_one_name_are_two_modules(study):
    study("def run(config):\n    return 1\n", "first/twin")
    study("def run(config):\n    return 2\n", "second/twin")

    assert load_run("first/twin.py")({}) == 1
    assert load_run("second/twin.py")({}) == 2
    assert load_run("first/twin.py")({}) == 1


def test_a_file_named_like_a_library_hides_nothing(study):
    study("def run(config):\n    import json\n    return float(json.dumps(3))\n", "numpy")
    import numpy

    assert load_run("numpy.py")({}) == 3
    assert sys.modules["numpy"] is numpy


def test_a_file_name_need_not_be_an_identifier(study):
    for stem in ("my study-2", "study.v2", "class"):
        study(RUN, stem)

        assert load_run(f"{stem}.py")({"x": 1}) == 1


def test_a_function_of_a_file_can_be_pickled(study):
    name = study(RUN)

    run = load_run(f"{name}.py")

    assert pickle.loads(pickle.dumps(run)) is run


def test_an_attribute_goes_before_a_module_of_the_same_name(study):
    study("from .run import run\n", "package_of_study/__init__")
    study(RUN, "package_of_study/run")

    assert load_run("package_of_study.run")({"x": 2}) == 2
    assert load_run("package_of_study.run.run")({"x": 2}) == 2


def test_a_callable_object_is_a_run_function(study):
    name = study("import functools\n\ndef f(scale, config):\n    return scale\n\nrun = functools.partial(f, 2)\n")

    assert load_run(f"{name}.run")({}) == 2


def test_a_function_without_a_signature_is_accepted(study):
    name = study("run = max\n")

    assert load_run(f"{name}.run") is max


def test_a_subclass_of_the_problem_is_a_problem(study):
    name = study(PROBLEM + "class Mine(HpProblem):\n    pass\nOther = Mine()\nOther.add_dim('y', (0, 1))\n")

    assert isinstance(load_problem(f"{name}.Other"), HpProblem)


# --- what is not


def test_a_file_that_does_not_exist(study, tmp_path):
    assert refusal(load_problem, "nowhere.py") == f"'nowhere.py': {tmp_path / 'nowhere.py'} does not exist"


def test_a_directory_is_no_file(tmp_path, study):
    (tmp_path / "directory.py").mkdir()

    assert refusal(load_run, "directory.py").endswith("directory.py is no file")


@pytest.mark.parametrize("name", ["", ".", "a..b", "run()", "a-b.run", "3.run", "study.py:", "study.py:a b"])
def test_a_name_that_is_none(study, name):
    assert "is neither a dotted name (package.module.run) nor a .py file" in refusal(load_run, name)


def test_a_path_without_its_ending(study):
    assert refusal(load_problem, "some/study").endswith("a path must end in .py")


def test_an_unknown_package_is_named(study, tmp_path):
    message = refusal(load_problem, "no_such_package.hps.Problem")

    assert message.endswith(f"there is no module 'no_such_package', neither in {tmp_path} nor installed")


def test_an_unknown_module_of_a_package_is_named_with_those_there_are():
    message = refusal(load_problem, "dhmpi.benchmark.hps.polynome3.Problem")

    assert "package dhmpi.benchmark.hps has no module or attribute 'polynome3'; it has digits" in message
    assert "polynome2" in message


def test_an_unknown_attribute_is_named_with_those_there_are(study):
    name = study("import os\nfrom pathlib import Path\n" + PROBLEM + RUN + "_private = 1\nvalue = 2\n")

    message = refusal(load_problem, f"{name}.Problm")

    assert message.endswith(f"module {name} has no attribute 'Problm'; it has Problem, run, value")


def test_an_unknown_attribute_of_a_lazy_module_is_named_with_those_there_are():
    message = refusal(load_problem, "dhmpi.benchmark.hps.polynome2.Problm")

    assert message.endswith("module dhmpi.benchmark.hps.polynome2 has no attribute 'Problm'; it has Problem, run")


def test_an_unknown_attribute_of_a_class_is_named(study):
    name = study("class Model:\n    def train(self):\n        pass\n")

    assert refusal(load_run, f"{name}.Model.fit").endswith("'Model' has no attribute 'fit'; it has train")


def test_a_module_alone_is_told_how_to_go_on(study):
    name = study(PROBLEM)

    assert refusal(load_problem, name).endswith(f"is a module; name what is in it, such as {name}.Problem")
    assert "such as dhmpi.benchmark.hps.toy.Problem" in refusal(load_problem, "dhmpi.benchmark.hps.toy")


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("import no_such_library", "ModuleNotFoundError: No module named 'no_such_library'"),
        ("from os import no_such_name", "ImportError: cannot import name 'no_such_name' from 'os'"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("raise KeyboardInterrupt.__base__('odd')", "BaseException: odd"),
        ("raise ValueError('two\\nlines')", "ValueError: two lines"),
        ("raise ValueError", "ValueError"),
        ("import sys; sys.exit(3)", "it called sys.exit(3)"),
        ("import sys; sys.exit()", "it called sys.exit()"),
        (
            "Problem.add_hyperparameter((3, 1), 'y')",
            "hyperparameter 'y' with range (3, 1): the low bound must come first",
        ),
        ("Problem.add_starting_point(x=11)", "starting point 0 has x = 11, which is no integer in [0, 10]"),
        ("this is no Python", "SyntaxError: invalid syntax"),
    ],
)
@pytest.mark.parametrize("form", ["{}.Problem", "{}.py"])
def test_what_a_module_raises_is_shown_with_its_place(study, tmp_path, statement, words, form):
    name = study(PROBLEM + statement + "\n")

    message = refusal(load_problem, form.format(name))

    assert f"cannot be imported: {words}" in message
    assert message.endswith(f"({tmp_path / name}.py:{PROBLEM.count(chr(10)) + 1})")


def test_the_place_is_in_the_innermost_of_the_users_files(study, tmp_path):
    inner = study("\n\nraise RuntimeError('deep')\n")
    outer = study(f"import {inner}\n")

    assert refusal(load_run, f"{outer}.run").endswith(f"RuntimeError: deep ({tmp_path / inner}.py:3)")


def test_a_missing_import_is_not_taken_for_a_missing_module(study):
    study("", "package_with_gap/__init__")
    study("import package_with_gap.missing\n", "package_with_gap/study")

    message = refusal(load_run, "package_with_gap.study.run")

    assert "package_with_gap.study cannot be imported: ModuleNotFoundError" in message
    assert "package_with_gap.missing" in message


def test_a_file_that_failed_is_read_again(study, tmp_path):
    name = study("1 / 0\n")
    refusal(load_run, f"{name}.py")
    (tmp_path / f"{name}.py").write_text(RUN)

    assert load_run(f"{name}.py")({"x": 1}) == 1


def test_an_interrupt_goes_through(study):
    name = study("raise KeyboardInterrupt\n")

    for form in (name + ".run", name + ".py"):
        with pytest.raises(KeyboardInterrupt):
            load_run(form)


# --- what is of the wrong kind


@pytest.mark.parametrize(
    ("definition", "words"),
    [
        ("Problem = {'x': (0, 1)}", "it is an object of type dict; make it an instance of dhmpi.problem.HpProblem"),
        ("Problem = None", "it is an object of type NoneType"),
        ("import os as Problem", "it is the module os"),
        (
            "class Problem(HpProblem):\n    pass",
            "it is the class Problem; assign an instance, as in Problem = Problem()",
        ),
        (
            "def make():\n    return HpProblem()\nProblem = make",
            "it is the function make; assign what it returns, as in Problem = make()",
        ),
        (
            "class HpProblem:\n    __module__ = 'deephyper.problem'\nProblem = HpProblem()",
            "it is a deephyper.problem.HpProblem; make it an instance of dhmpi.problem.HpProblem, which has the same",
        ),
    ],
)
def test_a_problem_that_is_no_problem(study, definition, words):
    name = study(f"from dhmpi.problem import HpProblem\n{definition}\n")

    assert f"names no problem: {words}" in refusal(load_problem, f"{name}.Problem")


@pytest.mark.parametrize(
    ("definition", "words"),
    [
        ("", "cannot be searched: the problem has no hyperparameters"),
        ("Problem.space.add(ConfigSpace.Integer('rank', (0, 1)))", "cannot be named 'rank'"),
        (
            "Problem.add_dim('x', (0, 1)); Problem.add_starting_point(x=0); Problem.add_dim('y', (0, 1))",
            "starting point 0 lacks a value for 'y'",
        ),
    ],
)
def test_a_problem_that_cannot_be_searched(study, definition, words):
    name = study(f"import ConfigSpace\nfrom dhmpi.problem import HpProblem\nProblem = HpProblem()\n{definition}\n")

    assert words in refusal(load_problem, f"{name}.Problem")


@pytest.mark.parametrize(
    ("definition", "words"),
    [
        ("run = 3", "names no run function: it is an object of type int, which cannot be called"),
        ("def run():\n    pass", "must take one argument, the configuration, but is run(): too many positional"),
        ("def run(a, b):\n    pass", "but is run(a, b): missing a required argument: 'b'"),
        ("def run(*, config):\n    pass", "must take one argument"),
        ("async def run(config):\n    pass", "is a coroutine function; write a plain function"),
    ],
)
def test_a_run_that_cannot_be_called_with_a_configuration(study, definition, words):
    name = study(definition + "\n")

    assert words in refusal(load_run, f"{name}.run")


def test_loading_a_run_function_imports_no_library(study):
    name = study(RUN)
    program = (
        f"import sys; from dhmpi.load import load_run; load_run({name + '.py'!r}); "
        "print([m for m in ('ConfigSpace', 'numpy', 'sklearn', 'mpi4py', 'rich') if m in sys.modules])"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)

    assert done.stdout == "[]\n"
