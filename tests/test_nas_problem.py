"""The problem of an architecture search: what defines it, what is refused, and what reaches a run function."""

import subprocess
import sys

import ConfigSpace
import numpy as np
import pytest

from dhmpi.check import choose
from dhmpi.check import main as check_main
from dhmpi.errors import ProblemError
from dhmpi.nas import SearchSpace
from dhmpi.nas import layers as L
from dhmpi.nas.preprocessing import stdscaler
from dhmpi.nas.problem import NaProblem, Settings
from dhmpi.problem import HpProblem
from dhmpi.rerun import changed
from dhmpi.search.build import build
from dhmpi.search.uniform import UniformSearch

SHAPES = {"input_shape": (4,), "output_shape": (2,)}


def small(input_shape, output_shape, units=(8, 16)):
    """Return a space of one layer and one skip connection."""
    space = SearchSpace()
    inputs = space.input(input_shape)
    hidden = space.choose("layer", [L.Identity(), *(L.Dense(n, "relu") for n in units)], inputs)
    space.output(L.Dense(output_shape[-1]), space.skips("skip", hidden, [inputs]))
    return space


def load_data(n=6):
    x = np.arange(4.0 * n).reshape(n, 4)
    return (x, x[:, :2]), (x, x[:, :2])


def problem_of(**settings):
    """Return a complete problem."""
    problem = NaProblem()
    problem.load_data(load_data)
    problem.search_space(small)
    problem.hyperparameters(num_epochs=3, **settings)
    problem.loss("mse")
    problem.metrics(["r2", "mse"])
    problem.objective("val_r2__last")
    return problem


def searched():
    """Return a complete problem with hyperparameters beside the architecture."""
    problem = problem_of()
    problem.add_hyperparameter((1e-4, 1e-1, "log-uniform"), "learning_rate")
    problem.add_hyperparameter([16, 32], "batch_size")
    return problem


def refused(function, *args, **kwargs):
    """Return the sentence in which something is refused."""
    with pytest.raises(ProblemError) as caught:
        function(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- space


def test_decisions_are_hyperparameters():
    problem = searched()

    assert problem.hyperparameter_names == ["layer", "skip_0", "learning_rate", "batch_size"]
    assert problem.columns == ["arch_seq", "learning_rate", "batch_size"]
    assert problem.space["layer"].choices == (0, 1, 2)
    assert problem.architecture_space.size == 6
    problem.check()


def test_the_order_of_definition_does_not_matter():
    problem = NaProblem()
    problem.add_hyperparameter((1e-4, 1e-1, "log-uniform"), "learning_rate")
    problem.add_starting_point(arch_seq=[1, 0], learning_rate=0.01)
    problem.objective("val_r2")
    problem.metrics(["r2"])
    problem.hyperparameters(callbacks={"EarlyStopping": {"monitor": "val_r2"}})
    problem.loss("mse")
    problem.search_space(small)
    problem.load_data(load_data)

    problem.check()

    assert problem.starting_points == [{"arch_seq": [1, 0], "learning_rate": 0.01}]


def test_configurations_become_values_and_return():
    problem = searched()
    values = {"layer": 2, "skip_0": 1, "learning_rate": 0.01, "batch_size": 32}
    config = {"arch_seq": [2, 1], "learning_rate": 0.01, "batch_size": 32}

    assert problem.to_config(values) == config
    assert problem.from_config(config) == values
    assert problem.from_config(values) == values
    assert problem.to_config(config) == config


def test_what_screening_adds_passes():
    problem = searched()
    config = {"arch_seq": [2, 1], "learning_rate": 0.01, "batch_size": 32, "num_epochs": 1, "parent": 7}

    assert problem.to_config(problem.from_config(config)) == config
    assert problem.check_configuration(config) == config


def test_searches_propose_what_the_problem_takes():
    problem = searched()

    for proposal in UniformSearch(problem.space, 0).ask(5):
        config = problem.to_config(proposal.config)
        assert problem.check_configuration(config) == config
        assert all(type(option) is int for option in config["arch_seq"])


def test_architectures_of_deephyper_are_understood():
    problem = searched()

    config = problem.check_configuration({"arch_seq": [0.99, np.int64(1)], "learning_rate": 0.01, "batch_size": 16})

    assert config["arch_seq"] == [2, 1]


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (
            {"learning_rate": 0.1, "batch_size": 16},
            "the configuration lacks a value for 'arch_seq', a list of 2 integers",
        ),
        ({"arch_seq": [0, 1], "batch_size": 16}, "lacks a value for 'learning_rate'"),
        ({"arch_seq": [0, 1], "units": 3}, "names 'units', but a configuration of this problem has 'arch_seq', 'lear"),
        (
            {"arch_seq": [3, 1], "learning_rate": 0.1, "batch_size": 16},
            "the configuration does not fit: decision 'layer'",
        ),
        ({"arch_seq": [1], "learning_rate": 0.1, "batch_size": 16}, "the configuration does not fit: "),
        ({"arch_seq": [0, 1], "learning_rate": 7, "batch_size": 16}, "learning_rate = 7, which is no number in"),
        ([0, 1], "must be a dict"),
    ],
)
def test_a_configuration_must_fit(config, words):
    assert words in refused(searched().check_configuration, config)


def test_a_configuration_is_completed():
    problem = searched()

    assert problem.complete({"batch_size": 32})["arch_seq"] == [0, 0]
    assert problem.complete({"arch_seq": [1, 1], "layer": 2})["arch_seq"] == [2, 1]


def test_starting_points_are_checked_as_soon_as_possible():
    problem = searched()
    problem.add_starting_point(arch_seq=[9, 9], learning_rate=0.01, batch_size=16)
    assert "starting point 0 does not fit" in refused(problem.check)

    problem = searched()
    problem.check()
    assert "starting point 0 lacks a value for 'arch_seq'" in refused(problem.add_starting_point, batch_size=16)


def test_the_tools_take_such_a_problem():
    problem = searched()
    problem.add_starting_point(arch_seq=[1, 0], learning_rate=0.01, batch_size=16)

    assert choose(problem, None, None, ["layer=2"])["arch_seq"] == [2, 0]
    assert set(choose(problem, None, 3, [])) == set(problem.columns)
    config = {"arch_seq": [1, 1], "learning_rate": 0.01, "batch_size": 16, "num_epochs": 1, "parent": 3}
    assert changed(problem, config, ["skip_0=0", "batch_size=32"]) == {**config, "arch_seq": [1, 0], "batch_size": 32}


FILE = """
import dhmpi
from dhmpi.nas import SearchSpace, layers as L
from dhmpi.nas.problem import NaProblem

space = SearchSpace()
space.output(L.Dense(1), space.choose("layer", [L.Dense(2), L.Dense(3)], space.input((4,))))
Problem = NaProblem()
Problem.search_space(space)
Problem.add_hyperparameter([16, 32], "batch_size")
Problem.add_starting_point(arch_seq=[1], batch_size=32)


def run(config):
    assert dhmpi.trial().problem is Problem
    return config["arch_seq"][0] + config["batch_size"]
"""


def test_searches_start_where_the_problem_says(tmp_path):
    path = tmp_path / "started.py"
    path.write_text(FILE)

    search, info = build({"search": "random", "problem": str(path), "seed": 0, "n_evaluators": 1, "max_evals": 9})

    assert search.ask(1)[0].config == {"arch_seq": [1], "batch_size": 32}
    assert info["n_starting_points"] == 1


def test_a_configuration_is_checked_with_its_problem(tmp_path, capsys):
    path = tmp_path / "checked.py"
    path.write_text(FILE)

    assert check_main([str(path), str(path), "--set", "layer=0"]) == 0

    assert "32" in capsys.readouterr().out


def test_the_fingerprint_names_the_options():
    same, wider, other = (NaProblem() for _ in range(3))
    same.search_space(small, **SHAPES)
    wider.search_space(small, units=(8, 32), **SHAPES)
    other.search_space(small, **SHAPES)
    other.add_hyperparameter([16, 32], "batch_size")
    problem = NaProblem()
    problem.search_space(small, **SHAPES)

    assert problem.fingerprint() == same.fingerprint()
    assert len({problem.fingerprint(), wider.fingerprint(), other.fingerprint()}) == 3
    assert len(problem.fingerprint()) == 16


def test_a_problem_is_shown_with_its_options():
    assert str(searched()).splitlines()[:3] == [
        "NaProblem of 4 hyperparameters",
        "  layer          decision    Identity, Dense(8, relu), Dense(16, relu)",
        "  skip_0         decision    no, from input_0",
    ]


def test_conditions_and_clauses_are_possible():
    problem = searched()
    momentum = problem.add_hyperparameter((0.0, 0.9), "momentum")
    optimizer = problem.add_hyperparameter(["adam", "sgd"], "optimizer")
    problem.add_condition(ConfigSpace.EqualsCondition(momentum, optimizer, "sgd"))
    problem.add_forbidden_clause(ConfigSpace.ForbiddenEqualsClause(problem.space["layer"], 0))

    problem.check()
    config = problem.complete({"layer": 1})

    assert "momentum" not in config
    assert "forbidden" in refused(problem.complete, {"arch_seq": [0, 0]})


def test_decisions_always_exist():
    problem = searched()
    layer, batch_size = problem.space["layer"], problem.space["batch_size"]
    problem.add_condition(ConfigSpace.EqualsCondition(layer, batch_size, 16))

    assert "decision 'layer' cannot depend on a condition" in refused(problem.check)


@pytest.mark.parametrize("name", ["arch_seq", "parent"])
def test_entries_of_configurations_are_no_hyperparameters(name):
    assert f"cannot be named {name!r}" in refused(NaProblem().add_hyperparameter, (0, 1), name)


def test_a_decision_is_named_like_nothing_else():
    problem = NaProblem()
    problem.search_space(small, **SHAPES)
    problem.add_hyperparameter((0, 1), "layer")
    assert "the decision 'layer' is named like a hyperparameter" in refused(lambda: problem.space)

    problem = NaProblem()
    problem.search_space(SearchSpace(decisions={"num_epochs": [1, 2]}, build=lambda values: None))
    assert "a decision cannot be named 'num_epochs'" in refused(lambda: problem.space)


# --- lazily


def test_shapes_come_from_the_data_only_if_they_are_not_given():
    loads = []

    def load():
        loads.append(1)
        return load_data()

    problem = NaProblem()
    problem.load_data(load)
    problem.search_space(small, **SHAPES)
    assert problem.architecture_space.input_shapes == ((4,),)
    assert not loads

    problem = NaProblem()
    problem.load_data(load)
    problem.search_space(small, units=(3,))
    assert not loads
    assert problem.architecture_space.input_shapes == ((4,),)
    assert problem.data is problem.data
    assert len(loads) == 1


def test_several_shapes_come_as_a_list():
    def two(input_shape, output_shape):
        space = SearchSpace()
        inputs = [space.input(shape) for shape in input_shape]
        space.output(L.Dense(output_shape[0]), space.choose("layer", [L.Dense(4)], space.merge(inputs, "concat")))
        return space

    problem = NaProblem()
    problem.load_data(lambda: (([np.zeros((3, 2)), np.zeros((3, 5))], np.zeros(3)),) * 2)
    problem.search_space(two)

    assert problem.architecture_space.input_shapes == ((2,), (5,))


def test_a_space_may_be_given_as_it_is():
    problem = NaProblem()
    problem.search_space(small(**SHAPES))

    assert problem.hyperparameter_names == ["layer", "skip_0"]


def test_importing_a_problem_imports_no_tensorflow_and_no_scikit_learn():
    script = (
        "import sys; import tests_problem as t; t.problem.check(); t.problem.fingerprint()\n"
        "print('HEAVY', sorted({'tensorflow', 'keras', 'sklearn'} & set(sys.modules)))\n"
    )
    source = (
        "import types; t = types.ModuleType('tests_problem'); import sys; sys.modules['tests_problem'] = t\n"
        "from dhmpi.nas.problem import NaProblem\nfrom dhmpi.nas import SearchSpace, layers as L\n"
        "from dhmpi.nas.preprocessing import stdscaler\n"
        "def space(input_shape):\n    s = SearchSpace()\n"
        "    s.output(L.Dense(1), s.choose('layer', [L.Dense(2)], s.input(input_shape)))\n    return s\n"
        "t.problem = p = NaProblem()\np.load_data(lambda: 1 / 0)\np.search_space(space, input_shape=(3,))\n"
        "p.preprocessing(stdscaler)\np.loss('mse')\np.metrics(['r2'])\np.objective('val_r2')\n"
        "p.hyperparameters(callbacks={'EarlyStopping': {}})\n"
    )

    said = subprocess.run(
        [sys.executable, "-c", source + script], capture_output=True, text=True, timeout=60, check=True
    )

    assert "HEAVY []" in said.stdout


# --- completeness


def test_a_problem_needs_a_search_space():
    assert "has no search space; name what makes it" in refused(NaProblem().check)


def test_a_problem_may_leave_training_to_a_function_of_its_own():
    problem = NaProblem()
    problem.search_space(small, **SHAPES)

    problem.check()

    assert "call load_data(...) and loss(...) and objective(...)" in refused(problem.check_training)


def test_who_says_something_of_training_says_all():
    problem = NaProblem()
    problem.search_space(small, **SHAPES)
    problem.loss("mse")
    problem.load_data(load_data)

    assert refused(problem.check).endswith("call objective(...)")


def test_a_space_must_be_one():
    problem = NaProblem()
    problem.search_space(lambda: None)
    assert "returned None instead of a SearchSpace" in refused(problem.check)

    problem = NaProblem()
    problem.search_space(lambda: {}["units"])
    assert "<lambda> raised KeyError: 'units'" in refused(problem.check)


def test_a_made_space_is_not_replaced():
    problem = searched()
    problem.check()

    assert "search_space comes too late" in refused(problem.search_space, small)
    assert "load_data comes too late" in refused(problem.load_data, load_data)


# --- what is refused at definition


@pytest.mark.parametrize(
    ("method", "args", "words"),
    [
        ("load_data", (3,), "load_data takes a function, got an object of type int"),
        ("load_data", (lambda a: None,), "load_data: <lambda> cannot be called with no keywords: missing"),
        ("search_space", (None,), "search_space takes a function, got None"),
        ("search_space", (lambda units, input_shape: None,), "cannot be called with input_shape: missing a required"),
        (
            "preprocessing",
            ("std",),
            "preprocessing must be a function that returns a transformer of scikit-learn, got 'std'",
        ),
        ("preprocessing", (stdscaler, "std"), "got 'std'"),
        ("augment", (lambda x: x,), "cannot be called with 2 arguments and no keywords"),
        ("loss", (3,), "the loss must be the name of a loss or a function"),
        ("loss", ({"out": "mse"},), "loss by output are named output_0, output_1, ..., got 'out'"),
        ("loss", ({"output_0": None},), "the loss must be the name of a loss"),
        ("loss", ("mse", [1, "2"]), "the weights of the loss must be a dict or a list of numbers"),
        ("metrics", (3,), "metrics must be a list"),
        ("metrics", (["r2", "r2"],), "two metrics are named 'r2'"),
        ("metrics", ({"y": ["r2"]},), "metrics by output are named output_0"),
        ("objective", ("val_mse",), "write '-val_mse'"),
        (
            "objective",
            ("val_acc",),
            "names 'val_acc', which is not computed: there are loss, val_loss, val_r2, val_mse",
        ),
        ("metrics", (["mae"],), "the objective 'val_r2__last' names 'val_r2', which is not computed"),
        ("post_training", (0,), "num_epochs of post_training must be an integer >= 1, got 0"),
        ("post_training", (5, None, {"Early": {}}), "there is no callback 'Early'; choose among EarlyStopping"),
    ],
)
def test_wrong_arguments_are_refused_at_once(method, args, words):
    assert words in refused(getattr(problem_of(), method), *args)


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        ("units", 3, "hyperparameters() knows no 'units'; it takes batch_size, learning_rate"),
        ("ranks_per_node", 2, "ranks of an evaluation are the search's --num-ranks-per-eval"),
        ("batch_size", 0, "batch_size must be an integer >= 1, got 0"),
        ("batch_size", 1.5, "batch_size must be an integer"),
        ("learning_rate", -1, "learning_rate must be a number > 0, got -1"),
        ("learning_rate", float("nan"), "learning_rate must be a number > 0, got nan"),
        ("optimizer", "adman", "optimizer must be one of adadelta"),
        ("num_epochs", True, "num_epochs must be an integer"),
        ("verbose", 5, "verbose must be 0, 1 or 2"),
        ("callbacks", ["EarlyStopping"], "callbacks must be a dict such as"),
        ("callbacks", {"EarlyStopping": 3}, "the arguments of the callback EarlyStopping must be a dict"),
        ("callbacks", {"TimeStopping": {}}, "TimeStopping needs the argument seconds"),
        ("max_parameters", 0, "max_parameters must be an integer >= 1, or None"),
        ("keep_predictions", "best", "keep_predictions must be one of good, all, none"),
        ("momentum", 2, "momentum must be a number in [0, 1]"),
    ],
)
def test_settings_are_checked_at_once(setting, value, words):
    assert words in refused(NaProblem().hyperparameters, **{setting: value})


def test_searched_settings_are_checked_too():
    problem = NaProblem()
    rate = problem.add_hyperparameter((-1.0, 1.0), "rate")
    assert "learning_rate must be a number > 0, got -1.0" in refused(problem.hyperparameters, learning_rate=rate)
    assert "verbose cannot be searched" in refused(problem.hyperparameters, verbose=rate)

    problem = problem_of()
    problem.add_hyperparameter(["adam", "newton"], "optimizer")
    assert "got 'newton'" in refused(problem.check)


def test_callbacks_monitor_what_is_computed():
    problem = problem_of(callbacks={"EarlyStopping": {"monitor": "val_acc"}})

    assert "EarlyStopping monitors 'val_acc', which is not computed: there are loss, val_loss" in refused(problem.check)


def test_outputs_that_are_named_must_exist():
    problem = problem_of()
    problem.loss({"output_0": "mse", "output_1": "mse"})

    assert "'output_1', but the networks have 1 output(s)" in refused(problem.check)


def test_objectives_of_several_outputs_are_checked_when_their_number_is_known():
    def two(input_shape, output_shape):
        space = SearchSpace()
        x = space.choose("layer", [L.Dense(4)], space.input(input_shape))
        for (units,) in output_shape:
            space.output(L.Dense(units), x)
        return space

    problem = NaProblem()
    problem.metrics(["r2"])
    problem.objective("val_output_1_r2")
    problem.load_data(load_data)
    problem.loss("mse")
    problem.search_space(two, input_shape=(4,), output_shape=[(1,), (2,)])
    problem.check()

    assert list(problem.metric_sources(2)) == ["val_output_0_r2", "val_output_1_r2"]
    problem.objective("val_output_1_r2__max")
    assert "there are loss, val_loss, val_output_0_r2, val_output_1_r2" in refused(problem.objective, "val_output_2_r2")


# --- settings


def test_settings_have_defaults():
    problem = NaProblem()
    problem.loss("mse")

    assert problem.settings({}) == Settings(32, 1e-3, "adam", 1, 0, {}, "mse")


def test_hyperparameters_take_the_place_of_settings_of_their_name():
    problem = problem_of(batch_size=64, learning_rate=0.5)
    problem.add_hyperparameter([16, 32], "batch_size")

    settings = problem.settings({"arch_seq": [0, 0], "batch_size": 16})

    assert (settings.batch_size, settings.learning_rate) == (16, 0.5)


def test_hyperparameters_may_stand_anywhere():
    problem = problem_of()
    rate = problem.add_hyperparameter((1e-4, 1e-1), "rate")
    patience = problem.add_hyperparameter((2, 9), "patience")
    loss = problem.add_hyperparameter(["mse", "mae"], "kind")
    problem.hyperparameters(learning_rate=rate, callbacks={"EarlyStopping": {"patience": patience}}, clipvalue=1.0)
    problem.loss(loss)
    problem.check()

    settings = problem.settings({"rate": 0.02, "patience": 4, "kind": "mae"})

    assert (settings.learning_rate, settings.loss, settings.optimizer_arguments) == (0.02, "mae", {"clipvalue": 1.0})
    assert settings.callbacks == {"EarlyStopping": {"patience": 4}}
    assert problem.ineffective() == []
    assert problem.possible("learning_rate") == (1e-4, 1e-1)
    assert problem.possible("loss") == ("mse", "mae")


def test_an_inactive_hyperparameter_leaves_the_default():
    problem = problem_of()
    rate = problem.add_hyperparameter((1e-4, 1e-1), "rate")
    patience = problem.add_hyperparameter((2, 9), "patience")
    problem.hyperparameters(learning_rate=rate, callbacks={"EarlyStopping": {"patience": patience, "verbose": 1}})

    settings = problem.settings({})

    assert settings.learning_rate == 1e-3
    assert settings.callbacks == {"EarlyStopping": {"verbose": 1}}


def test_epochs_of_a_configuration_win():
    problem = problem_of()

    assert problem.settings({"arch_seq": [0, 0]}).num_epochs == 3
    assert problem.settings({"arch_seq": [0, 0], "num_epochs": 1}).num_epochs == 1
    assert "num_epochs must be an integer >= 1, got 0" in refused(problem.settings, {"num_epochs": 0})


def test_hyperparameters_without_effect_are_known():
    problem = problem_of()
    problem.add_hyperparameter((0, 3), "depth")

    assert problem.ineffective() == ["depth"]


def test_settings_of_configurations_do_not_share_state():
    problem = problem_of(callbacks={"EarlyStopping": {"patience": 2}})

    problem.settings({}).callbacks["EarlyStopping"]["patience"] = 99

    assert problem.settings({}).callbacks == {"EarlyStopping": {"patience": 2}}


def test_post_training_takes_the_most_epochs_by_default():
    problem = problem_of()
    assert problem.post_training_settings.num_epochs == 3
    problem.add_hyperparameter((5, 50), "num_epochs")
    assert problem.post_training_settings.num_epochs == 50

    problem.post_training(100, ["mae"], {"ModelCheckpoint": {}}, repeat=3)

    assert problem.post_training_settings.repeat == 3
    assert problem.post_training_settings.callbacks == {"ModelCheckpoint": {}}


def test_it_is_a_problem_like_others():
    assert isinstance(NaProblem(seed=3), HpProblem)
    assert refused(NaProblem, seed=-1).startswith("the seed of a problem must be an integer")
