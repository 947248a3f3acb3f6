"""Cheap screening: what is proposed again at full length, and what the search underneath learns."""

import ConfigSpace
import numpy as np
import pytest

from dhmpi.budget import Limits
from dhmpi.errors import OptionError
from dhmpi.roles.virtual import simulate
from dhmpi.search.evolution import RegularizedEvolution
from dhmpi.search.screening import Screening
from dhmpi.search.uniform import UniformSearch


def decisions(n=8, options=4):
    space = ConfigSpace.ConfigurationSpace()
    for i in range(n):
        space.add(ConfigSpace.CategoricalHyperparameter(f"d{i}", list(range(options))))
    return space


def screening(promote=0.25, space=None, **options):
    return Screening(UniformSearch(space or decisions(), 1), epochs=2, promote=promote, **options)


def bare(config):
    return {name: value for name, value in config.items() if name.startswith("d")}


def total(config):
    """Return an objective that is better at full length."""
    return sum(bare(config).values()) + 100.0 * ("num_epochs" not in config)


def screen(search, *objectives):
    """Have as many configurations screened, with these objectives; return their keys."""
    proposals = search.ask(len(objectives))
    assert all(config["num_epochs"] == 2 and "parent" not in config for _, config in proposals)
    search.tell([(key, objective) for (key, _), objective in zip(proposals, objectives)])
    return [key for key, _ in proposals]


def parents(proposals):
    return [config.get("parent") for _, config in proposals]


def test_the_best_share_is_proposed_again_at_full_length_best_first():
    search = screening()
    configs = dict(search.ask(8))
    search.tell([(key, objective) for key, objective in zip(configs, (1.0, 5.0, 3.0, 9.0, 0.0, 2.0, 4.0, 8.0))])

    first, second, third = search.ask(3)

    assert first.config == {**bare(configs[3]), "parent": 3}
    assert second.config == {**bare(configs[7]), "parent": 7}
    assert third.config["num_epochs"] == 2
    assert bare(third.config) not in map(bare, configs.values())


def test_promotions_do_not_wait_for_a_rung_to_be_full():
    search = screening()

    screen(search, 1.0, 5.0, 3.0)
    assert parents(search.ask(1)) == [None]
    search.tell([(3, 2.0)])

    assert parents(search.ask(2)) == [1, None]


def test_one_is_promoted_once_and_later_ones_as_the_share_grows():
    search = screening(promote=0.5)

    screen(search, 5.0, 4.0, 3.0, 2.0)
    assert parents(search.ask(3)) == [0, 1, None]
    search.tell([(4, 50.0), (5, 40.0), (6, 1.0)])
    assert parents(search.ask(1)) == [None]
    search.tell([(7, 0.0)])

    assert parents(search.ask(2)) == [2, None]


def test_failures_count_among_the_screened_and_are_never_promoted():
    search = screening()

    screen(search, None, float("nan"), None, -7.0)

    assert parents(search.ask(3)) == [3, None, None]


def test_the_search_underneath_learns_only_from_full_length():
    inner = RegularizedEvolution(decisions(), 1, population_size=2, sample_size=200)
    search = Screening(inner, epochs=2, promote=0.5)

    screen(search, 1.0, 2.0, 3.0, 4.0)
    proposals = search.ask(2)
    assert inner.n_told == 0
    search.tell([(key, 10.0 + i) for i, (key, _) in enumerate(proposals)])

    assert inner.n_told == 2
    parent = bare(proposals[1].config)
    children = [bare(config) for _, config in search.ask(5)]
    assert [sum(child[name] != parent[name] for name in parent) for child in children] == [1] * 5


def test_a_replaced_promotion_is_made_again_if_it_is_still_among_the_best():
    search = screening(promote=0.5)
    screen(search, 5.0, 4.0, 3.0, 2.0)
    promotions = search.ask(2)
    search.tell([])

    again = search.ask(2, replacing=[key for key, _ in promotions])
    search.drop([key for key, _ in promotions])

    assert [config for _, config in again] == [config for _, config in promotions]
    assert parents(search.ask(1)) == [None]


def test_a_replaced_promotion_that_was_started_all_the_same_counts_once():
    inner = UniformSearch(decisions(), 1)
    search = Screening(inner, epochs=2, promote=0.5)
    screen(search, 5.0, 4.0)
    ((first, _),) = search.ask(1)
    ((second, _),) = search.ask(1, replacing=[first])

    search.tell([(first, 50.0)])
    search.tell([(second, 51.0)])

    assert inner.n_told == 1
    assert search.n_told == 4


def test_what_was_evaluated_in_full_is_not_promoted_again_in_the_place_of_a_replaced_promotion():
    search = screening(promote=0.5)
    screen(search, 5.0, 4.0)
    ((first, _),) = search.ask(1)
    ((second, _),) = search.ask(1, replacing=[first])
    search.tell([(first, 50.0)])

    proposals = search.ask(1, replacing=[second])

    assert parents(proposals) == [None]


def test_a_dropped_promotion_may_be_made_again():
    search = screening(promote=0.5)
    screen(search, 5.0, 4.0)
    ((key, _),) = search.ask(1)

    search.drop([key])

    assert parents(search.ask(1)) == [0]


def test_a_dropped_screening_frees_its_configuration():
    search = screening(space=decisions(1, 3))
    search.ask(3)
    assert search.ask(1) == []

    search.drop([1])

    assert len(search.ask(2)) == 1


def test_keys_and_pending_are_as_in_every_search():
    search = screening(promote=0.5)
    screen(search, 5.0, 4.0, 3.0, 2.0)

    proposals = search.ask(5)

    assert [key for key, _ in proposals] == [4, 5, 6, 7, 8]
    assert search.pending() == [4, 5, 6, 7, 8]


def test_restored_it_goes_on_as_an_uninterrupted_one():
    def new():
        inner = RegularizedEvolution(decisions(), 3, population_size=6, sample_size=3)
        return Screening(inner, epochs=2, promote=0.4)

    rng = np.random.default_rng(5)
    one, told, running = new(), [], {}
    for _ in range(15):
        running.update(one.ask(4))
        ended = rng.permutation(list(running))[:4]
        results = [(int(key), None if key % 9 == 0 else total(running[key])) for key in ended]
        one.tell(results)
        told += [(key, running.pop(key), objective) for key, objective in results]
    two = new()
    two.restore(told, list(running.items()), one.n_asks)

    expected, got = one.ask(12), two.ask(12)

    assert got == expected
    assert any("parent" in config for _, config, _ in told)
    assert two.pending() == one.pending()
    assert two.n_told == one.n_told


def test_trials_of_a_launch_without_screening_are_known_at_full_length():
    inner = UniformSearch(decisions(1, 3), 1)
    search = Screening(inner, epochs=2)

    search.restore([(0, {"d0": 1}, 5.0)], [(1, {"d0": 2})], 1)

    assert inner.n_told == 1
    assert [bare(config) for _, config in search.ask(5)] == [{"d0": 0}]


@pytest.mark.parametrize("inner", [UniformSearch, RegularizedEvolution])
def test_a_finite_space_ends_when_its_best_share_is_evaluated_in_full(inner):
    search = Screening(inner(decisions(2, 5), 1), epochs=1, promote=0.2)

    run = simulate(search, Limits(1000), 7, total, lambda config, rng: float(rng.lognormal()))

    configs = [trial.config for _, trial in run.outcomes]
    screened = [config for config in configs if "num_epochs" in config]
    assert len({tuple(bare(config).items()) for config in screened}) == len(screened) == 25
    assert len(configs) - 25 >= 5
    assert "exhausted" in run.reason


def test_no_configuration_is_evaluated_twice_at_the_same_length():
    inner = RegularizedEvolution(decisions(), 1, population_size=20, sample_size=5, unique=True)
    search = Screening(inner, epochs=1, promote=0.3)

    run = simulate(search, Limits(600), 30, total, lambda config, rng: float(rng.lognormal()), ask_seconds=lambda *_: 2)

    seen = [(tuple(bare(t.config).items()), "num_epochs" in t.config) for _, t in run.outcomes]
    full = [t.config for _, t in run.outcomes if "parent" in t.config]
    ids = {t.key: t.config for _, t in run.outcomes}
    assert len(set(seen)) == len(seen) == 600
    assert 0.15 * 600 < len(full) < 0.35 * 600
    assert all(bare(ids[config["parent"]]) == bare(config) for config in full)


def test_a_hyperparameter_of_the_same_name_is_refused():
    space = ConfigSpace.ConfigurationSpace({"num_epochs": (1, 9)})

    with pytest.raises(OptionError, match="a hyperparameter of that name"):
        screening(space=space)


@pytest.mark.parametrize("options", [{"epochs": 0}, {"epochs": 1, "promote": 0.0}, {"epochs": 1, "promote": 1.1}])
def test_what_makes_no_sense_is_refused(options):
    with pytest.raises(ValueError, match="must be"):
        Screening(UniformSearch(decisions(), 1), **options)
