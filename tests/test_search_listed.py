"""A search over a given list: each configuration once, in order, whatever happens to the run."""

import pytest

from dhmpi.search.listed import ListedSearch

CONFIGS = [{"arch_seq": [i, 1], "rate": 0.1 * i} for i in range(5)]


def configs(proposals):
    return [config for _, config in proposals]


def test_proposes_the_list_in_order_and_then_no_more():
    search = ListedSearch(CONFIGS)

    first, second, third = search.ask(2), search.ask(4), search.ask(1)

    assert configs(first) + configs(second) == CONFIGS
    assert third == []
    assert search.exhausted
    assert search.pending() == [0, 1, 2, 3, 4]


def test_what_is_dropped_is_proposed_again_in_its_place():
    search = ListedSearch(CONFIGS)
    search.ask(4)

    search.drop([1])

    assert configs(search.ask(3)) == [CONFIGS[1], CONFIGS[4]]


def test_what_is_told_is_never_proposed_again():
    search = ListedSearch(CONFIGS)
    asked = search.ask(2)

    search.tell([(asked[0].key, 1.0), (asked[1].key, None)])

    assert search.pending() == []
    assert configs(search.ask(5)) == CONFIGS[2:]


def test_what_is_replaced_may_be_proposed_again():
    search = ListedSearch(CONFIGS)
    keys = [key for key, _ in search.ask(3)]

    again = search.ask(2, replacing=keys[1:])
    search.drop(keys[1:])

    assert configs(again) == CONFIGS[1:3]
    assert configs(search.ask(5)) == CONFIGS[3:]


def test_continues_an_earlier_run_with_a_longer_list():
    search = ListedSearch(CONFIGS)
    other = {"arch_seq": [9, 9], "rate": 0.0}

    search.restore([(0, CONFIGS[0], 0.5), (1, other, None)], [(2, CONFIGS[2])], n_asks=3)

    assert search.pending() == [2]
    proposals = search.ask(5)
    assert configs(proposals) == [CONFIGS[1], CONFIGS[3], CONFIGS[4]]
    assert [key for key, _ in proposals] == [3, 4, 5]


def test_equal_configurations_are_refused():
    with pytest.raises(ValueError, match="of 6 configurations only 5 differ"):
        ListedSearch([*CONFIGS, dict(CONFIGS[0])])
