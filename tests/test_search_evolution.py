"""Regularized evolution: what the contract of all searches does not say."""

import math

import ConfigSpace
import numpy as np
import pytest

from dhmpi.search.evolution import RegularizedEvolution
from dhmpi.search.uniform import UniformSearch

N_DECISIONS, N_OPTIONS = 10, 4


def decisions(n=N_DECISIONS, options=N_OPTIONS):
    space = ConfigSpace.ConfigurationSpace()
    for i in range(n):
        space.add(ConfigSpace.CategoricalHyperparameter(f"d{i}", list(range(options))))
    return space


def joint():
    """Decisions, numbers of every kind, a weighted choice, conditions two deep and a clause."""
    space = ConfigSpace.ConfigurationSpace({"x": (-1.0, 1.0), "n": (1, 3), "kind": ["a", "b", "c"]})
    depth = ConfigSpace.UniformIntegerHyperparameter("depth", 1, 1000, log=True)
    rate = ConfigSpace.UniformFloatHyperparameter("rate", 1e-5, 1.0, log=True)
    weighted = ConfigSpace.CategoricalHyperparameter("weighted", ["p", "q", "r"], weights=[1, 8, 1])
    space.add(depth, rate, weighted, ConfigSpace.OrdinalHyperparameter("batch", [8, 16, 64]))
    space.add(
        ConfigSpace.InCondition(depth, space["kind"], ["b", "c"]),
        ConfigSpace.GreaterThanCondition(rate, depth, 10),
        ConfigSpace.ForbiddenAndConjunction(
            ConfigSpace.ForbiddenEqualsClause(space["kind"], "c"), ConfigSpace.ForbiddenEqualsClause(weighted, "r")
        ),
    )
    return space


def n_right(config):
    return sum(value == 1 for value in config.values())


def differing(first, second):
    return [name for name in first.keys() & second.keys() if first[name] != second[name]]


def fill(search, objective=n_right):
    """Tell as many random configurations as the population holds; return them by key."""
    proposals = search.ask(search.population_size)
    search.tell([(key, objective(config)) for key, config in proposals])
    return dict(proposals)


def test_proposals_are_random_until_the_population_is_full():
    search = RegularizedEvolution(decisions(), 1, population_size=20)
    random = UniformSearch(decisions(), 1)

    first = search.ask(19)
    search.tell([(key, n_right(config)) for key, config in first])
    last = search.ask(1)

    assert (first, last) == (random.ask(19), random.ask(1))


def test_a_child_differs_from_the_best_of_the_sample_in_one_decision():
    # With a sample far larger than the population every tournament has the same winner.
    search = RegularizedEvolution(decisions(), 1, population_size=5, sample_size=500)
    population = fill(search)
    best = max(sorted(population, reverse=True), key=lambda key: n_right(population[key]))

    children = search.ask(20)

    assert all(len(differing(config, population[best])) == 1 for _, config in children)
    assert len({differing(config, population[best])[0] for _, config in children}) > 5


def test_of_equally_good_ones_the_younger_is_the_parent():
    search = RegularizedEvolution(decisions(), 1, population_size=5, sample_size=500)
    proposals = search.ask(5)

    search.tell([(key, 1.0) for key in (0, 1, 3, 4, 2)])

    assert all(len(differing(config, proposals[2].config)) == 1 for _, config in search.ask(10))


def test_the_oldest_dies_however_good():
    search = RegularizedEvolution(decisions(), 1, population_size=3, sample_size=500)
    proposals = search.ask(4)

    search.tell([(0, 9.0), (1, 1.0), (2, 5.0), (3, 2.0)])

    assert all(len(differing(config, proposals[2].config)) == 1 for _, config in search.ask(10))


def test_failures_are_the_worst_members():
    search = RegularizedEvolution(decisions(), 1, population_size=4, sample_size=500)
    proposals = search.ask(4)

    search.tell([(0, -1e300), (1, None), (2, math.nan), (3, None)])

    assert all(len(differing(config, proposals[0].config)) == 1 for _, config in search.ask(10))


def test_a_known_child_is_mutated_a_second_time():
    """Around one parent there are 10 * 3 children; what is asked beyond them differs in two decisions."""
    search = RegularizedEvolution(decisions(), 1, population_size=1, sample_size=1)
    (parent,) = fill(search).values()

    children = [config for _, config in search.ask(60)]

    distances = [len(differing(config, parent)) for config in children]
    assert distances.count(1) >= 25
    assert distances.count(2) >= 15
    assert len({tuple(config.items()) for config in children}) == 60


def test_a_finite_space_is_exhausted_though_children_crowd_around_one_parent():
    search = RegularizedEvolution(decisions(4, 5), 1, population_size=1, sample_size=1)
    fill(search)

    children = search.ask(10_000)

    assert len({tuple(config.items()) for _, config in children}) == len(children)
    assert len(children) >= 5**4 - 1  # the one that was told may be there again


def test_what_was_told_may_be_proposed_again_but_not_what_is_pending():
    search = RegularizedEvolution(decisions(3, 4), 1, population_size=2, sample_size=2)
    fill(search)
    seen = []
    for _ in range(10):
        proposals = search.ask(2) + search.ask(2)
        together = [tuple(config.items()) for _, config in proposals]
        assert len(set(together)) == 4
        search.tell([(key, n_right(config)) for key, config in proposals])
        seen += together

    assert len(set(seen)) < len(seen)


def test_unique_ones_are_never_proposed_again():
    search = RegularizedEvolution(decisions(3, 4), 1, population_size=2, sample_size=2, unique=True)
    seen = list(fill(search).values())
    for _ in range(20):
        proposals = search.ask(2)
        search.tell([(key, n_right(config)) for key, config in proposals])
        seen += [config for _, config in proposals]

    assert len({tuple(config.items()) for config in seen}) == len(seen) == 42


def test_a_finite_space_is_exhausted_also_where_it_could_revisit():
    search = RegularizedEvolution(decisions(3, 4), 1, population_size=2, sample_size=2)
    seen = set()
    for _ in range(500):
        proposals = search.ask(2)
        search.tell([(key, n_right(config)) for key, config in proposals])
        seen |= {tuple(config.items()) for _, config in proposals}

    assert len(seen) == 4**3
    assert search.ask(1) == []


def test_crossover_mixes_two_members():
    zeros, ones = ({f"d{i}": value for i in range(N_DECISIONS)} for value in (0, 1))
    search = RegularizedEvolution(decisions(), 1, [zeros, ones], population_size=2, sample_size=1, crossover=1.0)
    fill(search)

    children = [config for _, config in search.ask(40)]

    n_ones = [sum(value == 1 for value in config.values()) for config in children]
    assert sum(2 <= n <= 8 for n in n_ones) > 5  # without crossover: none
    # All but the mutated decision come from a parent.
    assert max(sum(value not in (0, 1) for value in config.values()) for config in children) == 1


def test_children_of_a_joint_space_are_valid_and_change_every_kind_of_hyperparameter():
    search = RegularizedEvolution(joint(), 1, population_size=10, sample_size=2)
    fill(search, lambda config: config["x"])

    children = [config for _, config in search.ask(400)]

    for config in children:
        ConfigSpace.Configuration(joint(), values=config)
    assert {config["weighted"] for config in children} == {"p", "q", "r"}
    assert {config["batch"] for config in children} == {8, 16, 64}


@pytest.mark.parametrize("space", [decisions(), joint(), decisions(3, 1)], ids=["decisions", "joint", "one"])
def test_one_mutation_changes_one_hyperparameter_and_what_depends_on_it(space):
    search = RegularizedEvolution(space, 1)
    encoding = search.encoding
    rng = np.random.default_rng(3)
    rows = encoding.sample(rng, 500)

    changed, valid = encoding.change_one(rows, rng)

    able = encoding.size > 1
    for before, after in zip(encoding.decode(rows[valid]), encoding.decode(changed[valid])):
        assert len(differing(before, after)) == able


def test_every_decision_and_every_other_option_is_as_likely():
    encoding = RegularizedEvolution(decisions(), 1).encoding
    rows = np.repeat(encoding.encode([{f"d{i}": 2 for i in range(N_DECISIONS)}]), 30_000, axis=0)

    changed, _ = encoding.change_one(rows, np.random.default_rng(1))

    options = (changed * N_OPTIONS).astype(int)
    counts = np.array([(options == option).sum(axis=0) for option in (0, 1, 3)])
    # Each of 30 cells expects 1000, with a standard deviation of 31.
    assert counts.sum() == 30_000
    assert np.abs(counts - 1000).max() < 140


def test_a_weighted_choice_changes_by_its_weights():
    space = ConfigSpace.ConfigurationSpace()
    space.add(ConfigSpace.CategoricalHyperparameter("kind", ["a", "b", "c", "d"], weights=[1, 2, 1, 6]))
    encoding = RegularizedEvolution(space, 1).encoding
    rows = np.repeat(encoding.encode([{"kind": "b"}]), 8000, axis=0)

    changed, _ = encoding.change_one(rows, np.random.default_rng(1))

    counts = np.bincount((changed[:, 0] * 4).astype(int), minlength=4)
    assert counts[1] == 0
    assert np.abs(counts - np.array([1000, 0, 1000, 6000])).max() < 200


def test_a_number_takes_near_and_far_values():
    space = ConfigSpace.ConfigurationSpace({"x": (0.0, 1.0), "n": (0, 99)})
    encoding = RegularizedEvolution(space, 1).encoding
    rows = np.repeat(encoding.encode([{"x": 0.5, "n": 50}]), 4000, axis=0)

    configs = encoding.decode(encoding.change_one(rows, np.random.default_rng(1))[0])

    for name, scale in (("x", 1.0), ("n", 100.0)):
        moves = np.array([abs(config[name] - 0.5 * scale) / scale for config in configs if config[name] != 0.5 * scale])
        assert len(moves) == pytest.approx(2000, abs=200)
        assert 0.22 < np.mean(moves > 0.25) < 0.29  # half of those drawn anew, and hardly a step
    assert 50 not in {config["n"] for config in configs if config["x"] == 0.5}


def test_restored_it_has_its_population_again():
    one = RegularizedEvolution(decisions(), 7, population_size=10, sample_size=3)
    told = []
    for _ in range(6):
        proposals = one.ask(5)
        results = [(key, None if key % 7 == 0 else n_right(config)) for key, config in reversed(proposals)]
        one.tell(results)
        configs = dict(proposals)
        told += [(key, configs[key], objective) for key, objective in results]
    unfinished = one.ask(4)

    two = RegularizedEvolution(decisions(), 7, population_size=10, sample_size=3)
    two.restore(told, unfinished, one.n_asks)

    assert two.ask(20) == one.ask(20)


def test_it_finds_what_random_search_does_not():
    late = {}
    for name, search in (
        ("evolution", RegularizedEvolution(decisions(), 1, population_size=20, sample_size=5)),
        ("random", UniformSearch(decisions(), 1)),
    ):
        objectives = []
        for _ in range(100):
            proposals = search.ask(5)
            results = [(key, n_right(config)) for key, config in proposals]
            search.tell(results)
            objectives += [objective for _, objective in results]
        late[name] = objectives[-100:]

    assert np.mean(late["evolution"]) > 2 * np.mean(late["random"])
    assert max(late["evolution"]) > max(late["random"])


@pytest.mark.parametrize(
    "options", [{"population_size": 0}, {"sample_size": 0}, {"crossover": -0.1}, {"crossover": math.nan}]
)
def test_what_makes_no_sense_is_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        RegularizedEvolution(decisions(), 1, **options)
