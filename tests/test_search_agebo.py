"""Ageing evolution with Bayesian optimisation, and spaces of architectures and hyperparameters in every search."""

import math

import ConfigSpace
import numpy as np
import pytest

from dhmpi.errors import OptionError, ProblemError
from dhmpi.load import load_problem
from dhmpi.search.agebo import AgeingBayesianSearch
from dhmpi.search.build import build
from dhmpi.search.screening import Screening

N_DECISIONS, N_OPTIONS = 8, 4
DECISIONS = [f"d{i}" for i in range(N_DECISIONS)]
TUNED = ["learning_rate", "batch_size", "num_ranks"]
JOINT = """
from dhmpi.nas import NaProblem, SearchSpace, layers as L

def chain(input_shape, output_shape):
    space = SearchSpace()
    x = space.input(input_shape)
    for i in range(6):
        x = space.choose(f"layer{i}", [L.Dense(units, "relu") for units in (4, 8, 16, 32)], x)
    space.output(L.Dense(1), x)
    return space

Problem = NaProblem()
Problem.search_space(chain, input_shape=(4,), output_shape=(1,))
"""
HYPERPARAMETERS = """
Problem.add_hyperparameter((1e-4, 1e-1, "log-uniform"), "learning_rate")
Problem.add_hyperparameter([16, 32, 64], "batch_size")
Problem.add_hyperparameter([1, 2, 4], "num_ranks")
"""


def joint():
    space = ConfigSpace.ConfigurationSpace()
    space.add(*(ConfigSpace.CategoricalHyperparameter(name, list(range(N_OPTIONS))) for name in DECISIONS))
    space.add(
        ConfigSpace.UniformFloatHyperparameter("learning_rate", 1e-4, 1e-1, log=True),
        ConfigSpace.OrdinalHyperparameter("batch_size", [16, 32, 64, 128]),
        ConfigSpace.OrdinalHyperparameter("num_ranks", [1, 2, 4]),
    )
    return space


def make(space=None, seed=1, decisions=tuple(DECISIONS), **options):
    options = {"population_size": 10, "sample_size": 4, "n_evaluators": 4, "max_evals": 200, **options}
    return AgeingBayesianSearch(joint() if space is None else space, seed, decisions, **options)


def n_right(config):
    return sum(config[name] == 1 for name in DECISIONS)


def tuning(config):
    """Return how far the hyperparameters are from their best, <= 0: a learning rate of 0.01 and batches of 32."""
    return -abs(math.log10(config["learning_rate"]) + 2) - abs(math.log2(config["batch_size"]) - 5)


def quality(config):
    return n_right(config) + 2 * tuning(config)


def play(search, n, batch=10, objective=quality):
    proposals = []
    while len(proposals) < n:
        answer = search.ask(batch)
        search.tell([(key, objective(config)) for key, config in answer])
        proposals += answer
    return proposals


def differing(first, second, names):
    return [name for name in names if first[name] != second[name]]


def file_of(tmp_path, text):
    path = tmp_path / "problem.py"
    path.write_text(text)
    return str(path)


def spec(search, problem, **more):
    return {"search": search, "problem": problem, "seed": 3, "n_evaluators": 4, "max_evals": 40, **more}


def test_a_child_has_the_architecture_of_the_best_but_for_one_decision_and_hyperparameters_of_its_own():
    # With a sample far larger than the population every tournament has the same winner.
    search = make(sample_size=500, max_evals=1000)
    population = play(search, 10)
    parent = max(reversed(population), key=lambda proposal: quality(proposal.config)).config

    children = [config for _, config in search.ask(8)]

    assert [len(differing(child, parent, DECISIONS)) for child in children] == [1] * 8
    assert all(child["learning_rate"] != parent["learning_rate"] for child in children)


def test_the_first_hyperparameters_fill_their_space_and_architectures_are_random():
    configs = [config for _, config in make(n_evaluators=16, max_evals=400, population_size=40).ask(16)]

    decades = [math.floor(math.log10(config["learning_rate"])) for config in configs]
    # Half of them are nearer to the middle; evenly there would be five in each decade.
    n_low, n_middle, n_high = (decades.count(decade) for decade in (-4, -3, -2))
    assert min(n_low, n_high) >= 2
    assert 6 <= n_middle <= 11
    assert {config["batch_size"] for config in configs} == {16, 32, 64, 128}
    assert len({tuple(config[name] for name in DECISIONS) for config in configs}) == 16


def test_hyperparameters_are_learned_before_the_population_is_full():
    search = make(population_size=1000, max_evals=1000)

    late = [config for _, config in play(search, 60)[40:]]

    assert np.mean([tuning(config) for config in late]) > -0.8  # of random ones -2.0
    assert len({tuple(config[name] for name in DECISIONS) for config in late}) == 20
    assert np.mean([n_right(config) for config in late]) < 4  # of eight, and of random ones two


def test_architectures_evolve_while_hyperparameters_are_learned():
    runs = [play(make(seed=seed), 200, batch=20)[160:] for seed in range(4)]
    late = [config for run in runs for _, config in run]

    # Of eight, and of random ones two; single runs have 3.6 to 6.2.
    assert np.mean([n_right(config) for config in late]) > 4
    assert np.median([tuning(config) for config in late]) > -0.3


def test_the_best_hyperparameters_are_proposed_again_and_again():
    """There are two sets of them; a batch from a model that could propose each only once would have half of either."""
    space = ConfigSpace.ConfigurationSpace({**{name: list(range(N_OPTIONS)) for name in DECISIONS}, "good": [0, 1]})
    search = make(space)
    play(search, 40, objective=lambda config: 5 * config["good"] + n_right(config) / 10)

    batch = [config["good"] for _, config in search.ask(20)]

    assert sum(batch) >= 18


def test_hyperparameters_with_which_evaluations_fail_are_avoided():
    def fails(config):
        return None if config["learning_rate"] > 0.01 else n_right(config)

    proposals = play(make(), 80, objective=fails)

    rates = [config["learning_rate"] for _, config in proposals]
    assert sum(rate > 0.01 for rate in rates[:20]) >= 4
    assert sum(rate > 0.01 for rate in rates[40:]) <= 4


def test_a_hyperparameter_that_a_decision_rules_out_is_left_out():
    space = ConfigSpace.ConfigurationSpace({"kind": ["plain", "dropout"], "units": [8, 16, 32], "rate": (0.0, 1.0)})
    dropout = ConfigSpace.UniformFloatHyperparameter("dropout", 0.0, 1.0)
    space.add(dropout)
    space.add(ConfigSpace.EqualsCondition(dropout, space["kind"], "dropout"))
    space.add(
        ConfigSpace.ForbiddenAndConjunction(
            ConfigSpace.ForbiddenEqualsClause(space["units"], 8), ConfigSpace.ForbiddenEqualsClause(dropout, 0.5)
        )
    )
    search = make(space, decisions=["kind", "units"])

    proposals = play(search, 60, batch=15, objective=lambda config: -abs(config.get("dropout", 0.0) - 0.3))

    for _, config in proposals:
        ConfigSpace.Configuration(space, values=config)
    with_dropout = [config["dropout"] for _, config in proposals[30:] if "dropout" in config]
    assert 0 < len(with_dropout) < 30


def test_without_a_model_hyperparameters_are_random():
    late = [config for _, config in play(make(surrogate_model="DUMMY"), 120)[40:]]

    decades = [math.floor(math.log10(config["learning_rate"])) for config in late]
    assert all(15 <= decades.count(decade) <= 40 for decade in (-4, -3, -2))


def test_an_architecture_alone_or_hyperparameters_alone_are_refused():
    with pytest.raises(ProblemError, match="no hyperparameters .* use regevo"):
        make(ConfigSpace.ConfigurationSpace({"d0": [0, 1]}), decisions=["d0"])
    with pytest.raises(ProblemError, match="no architecture to evolve: use ambs"):
        make(decisions=[])
    with pytest.raises(OptionError, match="kappa must be >= 0"):
        make(kappa=-1)


@pytest.mark.parametrize("search", ["regevo", "ambs", "agebo", "random"])
def test_architecture_and_hyperparameters_are_searched_together(search, tmp_path):
    path = file_of(tmp_path, JOINT + HYPERPARAMETERS)
    problem = load_problem(path)
    small = {"population_size": 10, "sample_size": 4}
    options = {"regevo": small, "agebo": small}.get(search, {})

    made, info = build(spec(search, path, run="somewhere.run", options=options))
    proposals = play(
        made, 60, objective=lambda config: config["arch_seq"].count(1) - abs(math.log10(config["learning_rate"]) + 2)
    )

    configs = [config for _, config in proposals]
    assert info["hyperparameters"] == ["arch_seq", *TUNED]
    assert all(problem.check_configuration(config) == config for config in configs)
    assert len({tuple(config["arch_seq"]) for config in configs}) > 10
    for name in TUNED:
        assert len({config[name] for config in configs}) >= 3
    if search != "random":
        assert np.mean([config["arch_seq"].count(1) for config in configs[-15:]]) > 2.2  # of random ones 1.5


def test_a_restored_search_knows_the_population_and_what_the_model_has_learned(tmp_path):
    path = file_of(tmp_path, JOINT + HYPERPARAMETERS)
    small = {"population_size": 10, "sample_size": 4}

    def made():
        return build(spec("agebo", path, run="somewhere.run", options=small))[0]

    def told(proposals):
        return [(key, config["arch_seq"].count(1) + config["learning_rate"]) for key, config in proposals]

    one, two = made(), made()
    finished, running = one.ask(12), one.ask(3)
    one.tell(told(finished))
    two.restore([(*proposal, told([proposal])[0][1]) for proposal in finished], running, one.n_asks)

    assert two.ask(5) == one.ask(5)


def test_a_screened_search_proposes_nothing_twice(tmp_path):
    path = file_of(tmp_path, JOINT + 'Problem.add_hyperparameter([16, 32, 64], "batch_size")\n')
    screening = {"epochs": 1, "promote": 0.5}

    made, _ = build(spec("agebo", path, run="somewhere.run", screening=screening, options={"population_size": 5}))
    proposals = play(made, 60, objective=lambda config: config["arch_seq"].count(1))

    assert isinstance(made, Screening)
    screened = [(*config["arch_seq"], config["batch_size"]) for _, config in proposals if "num_epochs" in config]
    assert len(set(screened)) == len(screened) > 20


@pytest.mark.parametrize(
    ("text", "sentence"),
    [(JOINT, "no hyperparameters besides"), ("from dhmpi.benchmark.hps.polynome2 import Problem", "use ambs")],
)
def test_a_problem_of_one_kind_only_is_refused(text, sentence, tmp_path):
    with pytest.raises(ProblemError, match=sentence):
        build(spec("agebo", file_of(tmp_path, text), run="somewhere.run"))
