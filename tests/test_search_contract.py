"""What every search must do, over every kind of space; a new search only adds itself to SEARCHES."""

from __future__ import annotations

import math

import ConfigSpace
import numpy as np
import pytest

from dhmpi.search.agebo import AgeingBayesianSearch
from dhmpi.search.evolution import RegularizedEvolution
from dhmpi.search.model_based import ModelBasedSearch
from dhmpi.search.uniform import UniformSearch

MODELS = ("auto", "GP", "RF", "ET", "GBRT")


def uniform(space, seed, starting_points=(), max_evals=60):
    return UniformSearch(space, seed, starting_points)


def evolution(space, seed, starting_points=(), max_evals=60):
    """Without `unique` a configuration may be proposed again once it is told; the rest is the same."""
    return RegularizedEvolution(
        space, seed, starting_points, population_size=6, sample_size=3, crossover=0.5, unique=True
    )


def model_based(surrogate_model):
    def make(space, seed, starting_points=(), max_evals=60):
        return ModelBasedSearch(
            space,
            seed,
            n_evaluators=4,
            max_evals=max_evals,
            starting_points=starting_points,
            surrogate_model=surrogate_model,
        )

    return make


def agebo(space, seed, starting_points=(), max_evals=60):
    """Every other hyperparameter that is always there is taken for a decision, also one that others depend on."""
    return AgeingBayesianSearch(
        space,
        seed,
        [name for name in space if not space.parents_of[name]][::2],
        n_evaluators=4,
        max_evals=max_evals,
        starting_points=starting_points,
        population_size=6,
        sample_size=3,
        unique=True,
    )


SEARCHES = {
    "uniform": uniform,
    "evolution": evolution,
    "agebo": agebo,
    **{name: model_based(name) for name in MODELS},
}


def floats():
    return ConfigSpace.ConfigurationSpace({"x": (-10.0, 10.0), "y": (-10.0, 10.0)})


def mixed():
    space = ConfigSpace.ConfigurationSpace({"flag": [True, False], "kind": ["a", "b", "c"], "n": (1, 9)})
    space.add(
        ConfigSpace.UniformFloatHyperparameter("rate", 1e-6, 1.0, log=True),
        ConfigSpace.UniformIntegerHyperparameter("units", 1, 4096, log=True),
        ConfigSpace.OrdinalHyperparameter("batch", [16, 32, 64]),
        ConfigSpace.Constant("epochs", 3),
    )
    return space


def conditional():
    space = ConfigSpace.ConfigurationSpace({"model": ["forest", "svm", "none"], "seed": (0, 99)})
    trees = ConfigSpace.UniformIntegerHyperparameter("trees", 1, 500, log=True)
    c = ConfigSpace.UniformFloatHyperparameter("c", 1e-3, 1e3, log=True)
    kernel = ConfigSpace.CategoricalHyperparameter("kernel", ["linear", "rbf"])
    gamma = ConfigSpace.UniformFloatHyperparameter("gamma", 0.0, 1.0)
    space.add(trees, c, kernel, gamma)
    space.add(
        ConfigSpace.EqualsCondition(trees, space["model"], "forest"),
        ConfigSpace.InCondition(c, space["model"], ["svm"]),
        ConfigSpace.EqualsCondition(kernel, space["model"], "svm"),
        ConfigSpace.AndConjunction(
            ConfigSpace.EqualsCondition(gamma, kernel, "rbf"), ConfigSpace.LessThanCondition(gamma, c, 100.0)
        ),
    )
    return space


def forbidden():
    space = ConfigSpace.ConfigurationSpace({"a": (0, 10), "b": (0, 10), "kind": ["p", "q"], "x": (0.0, 1.0)})
    space.add(
        ConfigSpace.ForbiddenLessThanRelation(space["a"], space["b"]),
        ConfigSpace.ForbiddenAndConjunction(
            ConfigSpace.ForbiddenEqualsClause(space["kind"], "p"),
            ConfigSpace.ForbiddenInClause(space["a"], [2, 3, 7]),
        ),
    )
    return space


def finite():
    """Two configurations without `n`, 3 * 2 with it, of which one is forbidden: 7."""
    space = ConfigSpace.ConfigurationSpace({"kind": ["none", "some"], "n": (1, 3), "flag": [True, False]})
    space.add(ConfigSpace.EqualsCondition(space["n"], space["kind"], "some"))
    space.add(
        ConfigSpace.ForbiddenAndConjunction(
            ConfigSpace.ForbiddenEqualsClause(space["n"], 2), ConfigSpace.ForbiddenEqualsClause(space["flag"], True)
        )
    )
    return space


SIMILAR, TELLING = ("GP", "RF", "ET", "GBRT"), ("mixed", "conditional")
"""Models in the place of "auto", and the spaces that have everything which a model could stumble over."""
N_FINITE = 7
SPACES = {make.__name__: make for make in (floats, mixed, conditional, forbidden, finite)}


def number(config):
    """Return some objective of any configuration."""
    return sum(value if isinstance(value, (int, float)) else len(value) for value in config.values())


def play(search, n, batch=5, objective=number):
    """Ask for `n` configurations in batches and tell them at once; return the proposals."""
    proposals = []
    while len(proposals) < n:
        answer = search.ask(min(batch, n - len(proposals)))
        if not answer:
            break
        search.tell([(key, objective(config)) for key, config in answer])
        proposals += answer
    return proposals


def frozen(config):
    return tuple(sorted(config.items()))


def pytest_generate_tests(metafunc):
    """Have every search meet every space; those that differ in the surrogate alone do so in `make test-large`."""
    if "space" in metafunc.fixturenames:
        pairs = [
            pytest.param(name, kind, marks=[pytest.mark.large] * (name in SIMILAR and kind not in TELLING))
            for name in SEARCHES
            for kind in SPACES
        ]
        metafunc.parametrize(("make", "space"), pairs, indirect=True)
    elif "make" in metafunc.fixturenames:
        metafunc.parametrize("make", SEARCHES, indirect=True)


@pytest.fixture
def make(request):
    return SEARCHES[request.param]


@pytest.fixture
def space(request):
    return SPACES[request.param]()


def test_proposes_valid_configurations_of_native_types_and_no_duplicates(make, space):
    proposals = play(make(space, seed=1), 25)

    for _, config in proposals:
        # Raises unless exactly the active hyperparameters are there, within their bounds, and no clause is broken.
        ConfigSpace.Configuration(space, values=config)
        assert {type(value) for value in config.values()} <= {bool, int, float, str}
    assert len({frozen(config) for _, config in proposals}) == len(proposals)
    assert [key for key, _ in proposals] == list(range(len(proposals)))


def test_float_hyperparameters_are_floats_and_integers_are_integers(make):
    (_, config), *_ = make(mixed(), seed=1).ask(1)

    types = {name: type(value) for name, value in config.items()}
    assert types == {"flag": bool, "kind": str, "n": int, "rate": float, "units": int, "batch": int, "epochs": int}


def test_same_seed_and_calls_give_the_same_proposals(make, space):
    first = play(make(space, seed=3), 25)
    second = play(make(space, seed=3), 25)

    assert first == second


def test_another_seed_gives_other_proposals(make):
    # The first may be the default.
    first = play(make(conditional(), seed=3), 25)[1:]
    second = play(make(conditional(), seed=4), 25)[1:]

    common = {frozen(config) for _, config in first} & {frozen(config) for _, config in second}
    assert all(config["model"] == "none" for config in map(dict, common))  # of which there are a hundred
    assert len(common) < 5


def test_pending_proposals_are_not_proposed_again(make):
    search = make(finite(), seed=1)

    first = search.ask(3)
    second = search.ask(100)

    assert search.pending() == list(range(N_FINITE))
    assert len({frozen(config) for _, config in first + second}) == N_FINITE


def test_dropped_proposals_may_return(make):
    search = make(finite(), seed=1)
    everything = search.ask(N_FINITE)
    dropped = everything[2:4]

    search.drop([key for key, _ in dropped])
    again = search.ask(N_FINITE)

    assert [key for key, _ in again] == [N_FINITE, N_FINITE + 1]
    assert {frozen(config) for _, config in again} == {frozen(config) for _, config in dropped}


def test_replaced_proposals_do_not_count_as_pending_but_stay_known(make):
    search = make(finite(), seed=1)
    everything = search.ask(N_FINITE)

    again = search.ask(N_FINITE, replacing=[1, 2])

    assert {frozen(config) for _, config in again} == {frozen(everything[key].config) for key in (1, 2)}
    assert search.pending() == list(range(N_FINITE + 2))


def test_a_configuration_with_two_keys_is_free_only_when_both_are_dropped(make):
    search = make(finite(), seed=1)
    search.ask(N_FINITE)
    search.ask(N_FINITE, replacing=[3])

    search.drop([3])
    assert search.ask(1) == []

    search.drop([N_FINITE])
    assert len(search.ask(1)) == 1


def test_survives_failures(make, space):
    search = make(space, seed=1)

    proposals = play(search, 25, objective=lambda config: None if number(config) % 2 < 1 else number(config))

    assert len(proposals) == min(25, search.size)
    assert search.pending() == []


def test_survives_when_everything_fails(make, space):
    search = make(space, seed=1)

    proposals = play(search, 20, objective=lambda config: None)

    assert len(proposals) == min(20, search.size)


def test_starting_points_come_first_in_their_order_and_once(make):
    points = [{"x": 1, "y": 0.1}, {"y": -3.0, "x": 7.0}, {"x": 1.0, "y": 0.1}]
    search = make(floats(), seed=1, starting_points=points)

    proposals = search.ask(1) + search.ask(4)

    assert [config for _, config in proposals[:2]] == [{"x": 1.0, "y": 0.1}, {"x": 7.0, "y": -3.0}]
    assert type(proposals[0].config["x"]) is float
    assert len({frozen(config) for _, config in proposals}) == 5


def test_a_dropped_starting_point_is_proposed_again_first(make):
    search = make(floats(), seed=1, starting_points=[{"x": 1.0, "y": 2.0}])
    search.ask(3)

    search.drop([0])

    assert search.ask(1) == [(3, {"x": 1.0, "y": 2.0})]


def test_exhausts_a_finite_space(make):
    search = make(finite(), seed=1)

    proposals = play(search, 100, batch=3)

    assert len({frozen(config) for _, config in proposals}) == len(proposals) == search.size == N_FINITE
    assert search.ask(1) == []


def test_exhausts_a_finite_space_of_some_thousands(make):
    space = ConfigSpace.ConfigurationSpace({"i": (1, 50), "j": (1, 50), "kind": ["a", "b"]})
    search = make(space, seed=1)
    play(search, 12)

    rest = search.ask(10_000)

    assert len(rest) == 5000 - 12
    assert len({frozen(config) for _, config in rest}) == len(rest)


def test_restore_goes_on_with_higher_keys_and_without_repeats(make, space):
    before = make(space, seed=1)
    proposals = play(before, 10, batch=4)
    unfinished = before.ask(2)
    after = make(space, seed=1)

    after.restore(
        [(key, config, None if key % 3 == 0 else number(config)) for key, config in proposals],
        unfinished,
        before.n_asks,
    )
    more = after.ask(6)

    known = {frozen(config) for _, config in (*proposals, *unfinished)}
    assert after.n_told == len(proposals)
    assert not known & {frozen(config) for _, config in more}
    assert [key for key, _ in more] == [before.next_key + i for i in range(len(more))]
    assert after.pending() == [key for key, _ in (*unfinished, *more)]


def test_a_restored_search_proposes_what_an_uninterrupted_one_does(make):
    """As long as no fit has been skipped in between: kernel parameters and forests are rebuilt from the trials."""
    one = make(floats(), seed=5)
    told = one.ask(4)
    one.tell([(key, number(config)) for key, config in told])
    two = make(floats(), seed=5)
    two.restore([(key, config, number(config)) for key, config in told], [], one.n_asks)

    assert one.ask(6) == two.ask(6)


def test_one_point_space_and_useless_choices(make):
    space = ConfigSpace.ConfigurationSpace({"only": ["this"], "fixed": 4})
    search = make(space, seed=1)

    assert search.ask(5) == [(0, {"only": "this", "fixed": 4})]
    search.tell([(0, 1.0)])
    assert search.ask(5) == []


@pytest.mark.parametrize(
    "objective",
    [
        lambda x: 5.0,
        lambda x: 1e308 * math.sin(x),
        lambda x: math.nan if x < 0 else math.inf if x > 5 else x,
        lambda x: 1e-300 * x,
        lambda x: 1e300 if x > 5 else x,
    ],
    ids=["constant", "huge", "not-finite", "tiny", "one-huge"],
)
def test_odd_objectives_do_no_harm(make, objective):
    proposals = play(make(floats(), seed=2), 16, objective=lambda config: objective(config["x"]))

    assert len({frozen(config) for _, config in proposals}) == 16


def test_two_hundred_dimensions(make):
    space = ConfigSpace.ConfigurationSpace({f"e{i}": (0.0, 1.0) for i in range(200)})

    proposals = play(make(space, seed=1, max_evals=24), 16, batch=4)

    assert len(proposals) == 16


@pytest.mark.parametrize("model", MODELS)
def test_a_model_learns(model):
    """On minus the sum of squares of five numbers, most that it proposes is better than three of four random ones."""
    space = ConfigSpace.ConfigurationSpace({f"e{i}": (-10.0, 10.0) for i in range(5)})

    def objective(config):
        return -sum(value**2 for value in config.values())

    learnt: list[float] = []
    for seed in range(3):  # one seed alone is luck, and trees grow differently on other processors
        proposals = play(model_based(model)(space, seed, max_evals=48), 48, batch=4, objective=objective)
        learnt += [objective(config) for _, config in proposals[24:]]
    random = [objective(config) for _, config in play(uniform(space, seed=1), 480, batch=480, objective=objective)]

    assert np.median(learnt) > np.quantile(random, 0.75)
