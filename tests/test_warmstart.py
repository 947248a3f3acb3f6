"""Warm start: what of earlier runs can be read, what of it fits, and what searches make of it."""

import json

import ConfigSpace
import numpy as np
import pytest

from dhmpi import replay, warmstart
from dhmpi.ambs import spec
from dhmpi.budget import Limits
from dhmpi.errors import OptionError
from dhmpi.options import AgeboOptions, AmbsOptions, RegevoOptions, command_line, parse
from dhmpi.problem import HpProblem
from dhmpi.roles.virtual import simulate
from dhmpi.search.agebo import AgeingBayesianSearch
from dhmpi.search.build import build
from dhmpi.search.encoding import Encoding
from dhmpi.search.evolution import RegularizedEvolution
from dhmpi.search.foreign import adopt
from dhmpi.search.model_based import ModelBasedSearch
from dhmpi.search.uniform import UniformSearch

OURS = """\
trial,attempt,status,objective,rank,host,start,end,elapsed_sec,x,kind,m:loss
0,0,done,1.5,2,a,0,1,1,0.25,a,3
1,0,failed,,2,a,1,2,1,0.5,b,
2,0,lost,,3,a,1,2,1,0.75,b,
"""
DEEPHYPER = """\
p:x,p:kind,objective,job_id,m:timestamp_submit,m:timestamp_gather
0.25,a,1.5,0,1.0,2.0
0.5,b,F_timeout,1,1.0,3.0
"""
OLD_DEEPHYPER = "x,kind,objective,elapsed_sec\n0.25,a,1.5,1.0\n0.5,b,-3.4028235e+38,2.0\n"
OPTUNA = """\
,number,value,datetime_start,datetime_complete,duration,params_kind,params_x,state
0,0,-1.5,2024-01-01 00:00:00,2024-01-01 00:00:01,0 days 00:00:01,a,0.25,COMPLETE
1,1,,2024-01-01 00:00:00,2024-01-01 00:00:01,0 days 00:00:01,b,0.5,FAIL
2,2,9.0,2024-01-01 00:00:00,2024-01-01 00:00:01,0 days 00:00:01,b,0.5,PRUNED
3,3,,2024-01-01 00:00:00,,,b,0.5,RUNNING
"""
EVALUATIONS = [({"x": 0.25, "kind": "a"}, 1.5), ({"x": 0.5, "kind": "b"}, None)]


def by_name(evaluations):
    return [(dict(sorted(config.items())), objective) for config, objective in evaluations]


def space():
    """Return one with all kinds of hyperparameters, `c` only with kind "a", and x = 1 forbidden with kind "b"."""
    space = ConfigSpace.ConfigurationSpace({"x": (0.0, 1.0), "n": (1, 8), "kind": ["a", "b"], "flag": [True, False]})
    space.add(
        ConfigSpace.OrdinalHyperparameter("batch", [16, 32, 64], default_value=32),
        ConfigSpace.UniformFloatHyperparameter("c", 1e-3, 1e3, default_value=1.0, log=True),
        ConfigSpace.Constant("epochs", 3),
    )
    space.add(ConfigSpace.EqualsCondition(space["c"], space["kind"], "a"))
    space.add(
        ConfigSpace.ForbiddenAndConjunction(
            ConfigSpace.ForbiddenEqualsClause(space["kind"], "b"), ConfigSpace.ForbiddenEqualsClause(space["n"], 8)
        )
    )
    return space


WHOLE = {"x": 0.5, "n": 3, "kind": "b", "flag": True, "batch": 16, "epochs": 3}


# -- reading -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "direction"),
    [(OURS, None), (DEEPHYPER, None), (OLD_DEEPHYPER, None), (OPTUNA, "minimize")],
    ids=["dhmpi", "deephyper", "old deephyper", "optuna"],
)
def test_every_kind_of_table_is_read(tmp_path, text, direction):
    path = tmp_path / "results.csv"
    path.write_text(text)

    found = warmstart.collect([str(path)], direction)

    assert by_name(found) == by_name(EVALUATIONS)


def test_a_run_its_journal_and_a_copy_say_the_same(tmp_path):
    problem = HpProblem()
    problem.add_hyperparameter((0.0, 1.0), "x")
    run = simulate(UniformSearch(problem.space, 1), Limits(20), 4, lambda config: None if config["x"] > 0.5 else 1.0)
    journal = tmp_path / "run" / "journal" / "0.0.jsonl"
    journal.parent.mkdir(parents=True)
    header = {"e": "launch", "schema": 1, "run": "0123abcd", "launch": 0, "epoch": 0, "t": 0.0, "fences": {}}
    journal.write_text("".join(json.dumps(event) + "\n" for event in [header, *run.events]) + '{"e": "torn')

    directory = warmstart.collect([str(tmp_path / "run")], None, tmp_path / "copy.jsonl")
    file = warmstart.collect([str(journal)], None)
    copy = warmstart.collect([str(tmp_path / "copy.jsonl")], None)

    assert len(directory) == 20
    assert {objective for _, objective in directory} == {1.0, None}
    assert directory == file == copy == warmstart.trials(tmp_path / "copy.jsonl")


def test_several_files_are_put_together(tmp_path):
    for name, text in (("a.csv", OURS), ("b.csv", DEEPHYPER)):
        (tmp_path / name).write_text(text)

    found = warmstart.collect([str(tmp_path / name) for name in ("a.csv", "b.csv")], "minimize")

    assert [objective for _, objective in found] == [-1.5, None, -1.5, None]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, "there is no such file or directory"),
        ("", "has no evaluations"),
        ("a,b\n1,2\n", "it has no column objective, but a, b"),
        (OPTUNA, "give --warm-start-direction maximize or minimize"),
        (OPTUNA.replace(",value,", ",values_0,"), "has several objectives"),
        ("\n".join(OPTUNA.splitlines()[i] for i in (0, 3)), "does not say whether"),
        ("\0\xff" * 50, "cannot read|no column objective|has no evaluations"),
    ],
)
def test_what_cannot_be_read_is_refused_in_a_sentence(tmp_path, text, sentence):
    path = tmp_path / "study.csv"
    if text is not None:
        path.write_text(text)

    with pytest.raises(OptionError, match=sentence) as caught:
        warmstart.collect([str(path)], None)

    assert str(caught.value).startswith(f"--warm-start {path}")
    assert "\n" not in str(caught.value)


def test_lines_that_are_no_journal_are_refused(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"a": 1}\n{"b": 2}\n')

    with pytest.raises(OptionError, match="line 1 is none of a journal"):
        warmstart.collect([str(path)], None)


# -- what fits ---------------------------------------------------------------------------------------------------------


def test_whole_configurations_are_taken_as_they_are():
    encoding = Encoding(space())
    configs = [WHOLE, {**WHOLE, "kind": "a", "c": 10.0}]

    found = adopt(encoding, configs)

    assert encoding.identities(found.rows) == [encoding.identity(encoding.native(config)) for config in configs]
    assert found.whole.tolist() == [True, True]
    assert found.missing == []


def test_what_is_missing_has_its_default_and_what_is_unknown_is_left_out():
    encoding = Encoding(space())

    found = adopt(encoding, [{"x": 0.25, "kind": "a", "optimizer": "sgd"}])

    (config,) = encoding.decode(found.rows)
    assert config == {"x": 0.25, "n": 4, "kind": "a", "flag": True, "batch": 32, "c": pytest.approx(1.0), "epochs": 3}
    assert found.whole.tolist() == [False]
    assert found.missing == ["batch", "flag", "n"] or set(found.missing) == {"batch", "flag", "n"}


@pytest.mark.parametrize(
    ("changes", "usable"),
    [
        ({"n": 3.0}, True),  # a column of integers with gaps
        ({"n": 3.5}, False),
        ({"n": 9}, False),
        ({"x": 1.0 + 1e-12}, True),  # rounded
        ({"x": 1.1}, False),
        ({"x": "much"}, False),
        ({"x": True}, False),
        ({"batch": "64"}, True),
        ({"batch": 64.0}, True),
        ({"batch": 48}, False),
        ({"flag": "True"}, True),
        ({"kind": "z"}, False),
        ({"kind": "b", "n": 8}, False),  # a clause forbids it
        ({"epochs": 10}, False),  # an evaluation of another kind
        ({"c": 1e9}, False),
    ],
)
def test_values_are_used_only_if_the_space_has_them(changes, usable):
    found = adopt(Encoding(space()), [{**WHOLE, **changes}])

    assert found.numbers == ([0] if usable else [])
    assert len(found.rows) == len(found.whole) == usable


def test_configurations_that_share_nothing_are_not_used():
    found = adopt(Encoding(space()), [{"optimizer": "sgd"}, {}, {"epochs": 3}, {"x": 0.1}])

    assert found.numbers == [3]


# -- what searches make of it ------------------------------------------------------------------------------------------


def bowl(config):
    return -((config["x"] - 0.7) ** 2) - (config["y"] - 0.2) ** 2


def plane():
    return ConfigSpace.ConfigurationSpace({"x": (0.0, 1.0), "y": (0.0, 1.0)})


def earlier(n):
    """Return rows, objectives and wholeness of random configurations."""
    encoding = Encoding(plane())
    rows = encoding.sample(np.random.default_rng(7), n)
    return rows, [bowl(config) for config in encoding.decode(rows)], np.ones(n, dtype=bool)


@pytest.mark.parametrize("surrogate_model", ["GP", "ET"])
def test_a_model_knows_where_to_look_at_once(surrogate_model):
    def search():
        return ModelBasedSearch(plane(), 1, n_evaluators=4, max_evals=40, surrogate_model=surrogate_model)

    cold, warm = search(), search()
    warm.warm_start(*earlier(60))

    first = [np.mean([bowl(config) for _, config in s.ask(4)]) for s in (cold, warm)]

    assert first[1] > 0.25 * first[0]  # both are negative
    assert warm.n_told == 0


def test_the_initial_design_shrinks_only_by_whole_configurations():
    searches = []
    for whole in (True, False):
        search = ModelBasedSearch(plane(), 1, n_evaluators=8, max_evals=80, surrogate_model="ET")
        rows, objectives, _ = earlier(5)
        search.warm_start(rows, objectives, np.full(5, whole))
        searches.append(search)

    assert [len(search._design) for search in searches] == [3, 8]


def test_failures_of_earlier_runs_are_avoided():
    search = ModelBasedSearch(plane(), 1, n_evaluators=1, max_evals=400, surrogate_model="ET")
    rows, objectives, whole = earlier(80)
    left = rows[:, 0] < 0.5

    search.warm_start(rows, [None if failed else y for y, failed in zip(objectives, left)], whole)

    proposed = [config["x"] for _, config in search.ask(20)]
    assert np.mean(np.array(proposed) < 0.45) < 0.2


def test_evolution_begins_with_the_best_as_its_population():
    search = RegularizedEvolution(plane(), 1, population_size=10, sample_size=3)

    search.warm_start(*earlier(200))

    children = [bowl(config) for _, config in search.ask(50)]
    random = [bowl(config) for _, config in UniformSearch(plane(), 1).ask(50)]
    assert np.median(children) > 0.5 * np.median(random)
    assert search.informed


def test_evolution_with_a_model_begins_with_both():
    space = plane()
    space.add(ConfigSpace.UniformFloatHyperparameter("rate", 0.0, 1.0))
    search = AgeingBayesianSearch(
        space, 1, ["x", "y"], n_evaluators=4, max_evals=400, population_size=10, sample_size=3, surrogate_model="ET"
    )
    encoding = Encoding(space)
    rows = encoding.sample(np.random.default_rng(7), 100)
    configs = encoding.decode(rows)

    search.warm_start(rows, [bowl(config) - abs(config["rate"] - 0.9) for config in configs], np.ones(100, dtype=bool))

    proposed = [config for _, config in search.ask(30)]
    random = [bowl(config) for _, config in UniformSearch(space, 1).ask(30)]
    assert np.median([bowl(config) for config in proposed]) > 0.5 * np.median(random)
    assert np.median([config["rate"] for config in proposed]) > 0.75


def test_what_was_known_before_may_be_proposed_again():
    finite = ConfigSpace.ConfigurationSpace({"n": (1, 5)})
    search = ModelBasedSearch(finite, 1, n_evaluators=1, max_evals=10, surrogate_model="ET")
    rows = Encoding(finite).sample(np.random.default_rng(1), 30)

    search.warm_start(rows, [1.0] * 30, np.ones(30, dtype=bool))

    assert len(search.ask(10)) == 5


@pytest.fixture
def built(tmp_path):
    """Return a function that builds a search of a problem in three floats, warm."""
    (tmp_path / "warmproblem.py").write_text(
        "from dhmpi.problem import HpProblem\nProblem = HpProblem()\n"
        "for name in 'xyz':\n    Problem.add_hyperparameter((0.0, 1.0), name)\n"
    )

    def build_(text, **changes):
        (tmp_path / "results.csv").write_text(text)
        copy = tmp_path / "warm-start.jsonl"
        warmstart.collect([str(tmp_path / "results.csv")], None, copy)
        options = AmbsOptions(surrogate_model="ET")
        about = {"problem": str(tmp_path / "warmproblem.py"), "seed": 1, "n_evaluators": 2, "max_evals": 20}
        return build({**spec(options), **about, "warm_start": str(copy), **changes})

    return build_


def test_it_is_said_how_many_could_be_used(built):
    _, info = built("objective,x,y,momentum\n1.0,0.5,0.5,0.9\n2.0,0.5,7.0,0.9\nF,0.1,0.5,0.9\n")

    assert info["remarks"] == [
        "warm start: 2 of 3 earlier evaluations could be used, 1 of them failed; 1 have values that this space has "
        "not; none names z, for which the default is taken"
    ]


def test_evaluations_of_another_problem_are_refused(built):
    with pytest.raises(OptionError, match="none of its 1 evaluations is a configuration of x, y, z; they have lr"):
        built("objective,lr\n1.0,0.5\n")


# -- options -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", [AmbsOptions, RegevoOptions, AgeboOptions])
def test_files_may_be_named_several_times_and_in_a_file_of_options(cls, tmp_path):
    (tmp_path / "options.toml").write_text('warm-start = ["a.csv", "b.csv"]\n')
    words = ["--problem", "p", "--run", "r"]

    line = parse(cls, "x", "", [*words, "--warm-start", "a.csv", "--warm-start", "b.csv"])
    file = parse(cls, "x", "", [*words, "--config", str(tmp_path / "options.toml")])

    assert line.warm_start == file.warm_start == ("a.csv", "b.csv")
    assert "--warm-start a.csv --warm-start b.csv" in command_line("dhmpi.x", line)


def test_a_replay_begins_with_the_copy(tmp_path):
    options = AmbsOptions(problem="p", run="r", seed=1, max_evals=20)
    (tmp_path / "run.json").write_text(json.dumps({"problem": "p", "seed": 1, "options": {}}))
    (tmp_path / "journal").mkdir()
    header = {"e": "launch", "schema": 1, "run": "0123abcd", "launch": 0, "epoch": 0, "t": 0.0, "fences": {},
              "ranks": 3, "program": "dhmpi.ambs", "options": options.__dict__}  # fmt: skip
    (tmp_path / "journal" / "0.0.jsonl").write_text(json.dumps(header) + "\n")
    run = replay.Run(tmp_path)

    cold = run.specification(header)
    (tmp_path / "warm-start.jsonl").write_text("")
    warm = run.specification(header)

    assert "warm_start" not in cold
    assert warm["warm_start"] == str(tmp_path / "warm-start.jsonl")


# -- priors of the problem ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("search", ["ambs", "random"])
def test_priors_shape_the_first_proposals(search):
    problem = HpProblem()
    problem.add_hyperparameter(ConfigSpace.NormalFloatHyperparameter("x", mu=3.0, sigma=0.5, lower=-10.0, upper=10.0))
    problem.add_hyperparameter(ConfigSpace.BetaFloatHyperparameter("y", alpha=2, beta=8, lower=0.0, upper=1.0))
    problem.add_hyperparameter(ConfigSpace.NormalIntegerHyperparameter("n", mu=20, sigma=2, lower=1, upper=100))
    make = {
        "ambs": lambda: ModelBasedSearch(problem.space, 1, n_evaluators=128, max_evals=1000),
        "random": lambda: UniformSearch(problem.space, 1),
    }

    configs = [config for _, config in make[search]().ask(128)]

    means = {name: np.mean([config[name] for config in configs]) for name in ("x", "y", "n")}
    assert means == {"x": pytest.approx(3.0, abs=0.2), "y": pytest.approx(0.2, abs=0.05), "n": pytest.approx(20, abs=1)}
