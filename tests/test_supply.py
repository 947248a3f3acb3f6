"""When the search is asked, for how many, and what its answers replace."""

from dhmpi.mpi.protocol import News
from dhmpi.roles.supply import LONGEST_ASK, MOST_PER_ASK, STEP, Ask, Supply


def news(told=0, started=(), dropped=(), n_evaluators=4, n_wanted=1000, duration=None):
    return News([(key, 1.0) for key in range(told)], list(started), list(dropped), n_evaluators, n_wanted, duration)


def answer(supply, ask, first=0, seconds=0.01, n=None, informed=True):
    """Answer an ask with the keys from `first` on."""
    supply.asked()
    keys = range(first, first + (ask.n if n is None else n))
    supply.answered(ask, keys, informed, seconds)
    return list(keys)


def greedy(n_evaluators=4):
    """Return a supply whose evaluators have just started 1000 trials in 0.02 s."""
    supply = Supply(1_000_000)
    supply.hear(news(n_evaluators=n_evaluators, n_wanted=1_000_000), 0.0)
    done = news(started=range(1000, 2000), n_evaluators=n_evaluators, n_wanted=1_000_000, duration=1e-6)
    supply.hear(done, 0.02)
    return supply


def test_begins_with_a_trial_for_each_evaluator():
    supply = Supply(1000)
    supply.hear(news(n_evaluators=7), 0.0)

    assert supply.next_ask() == (7, ())


def test_asks_for_no_more_than_the_budget_allows():
    supply = Supply(3)
    supply.hear(news(n_evaluators=7, n_wanted=3), 0.0)

    assert supply.next_ask().n == 3


def test_does_not_ask_while_enough_is_ahead():
    supply = Supply(1000)
    supply.hear(news(n_evaluators=8), 0.0)
    answer(supply, supply.next_ask(), informed=False)

    supply.hear(news(told=1, started=[0], n_evaluators=8), 1.0)

    assert supply.n_ahead == 7
    assert supply.next_ask() is None


def test_newer_knowledge_replaces_what_will_not_be_started_soon():
    supply = Supply(1000)
    supply.hear(news(), 0.0)
    keys = answer(supply, supply.next_ask())

    supply.hear(news(told=1, duration=10.0), 100.0)
    ask = supply.next_ask()

    assert ask.replacing == tuple(keys)
    assert ask.n == len(keys)


def test_everything_is_replaced_where_evaluators_wait_for_the_answer():
    supply = Supply(1000)
    supply.hear(news(), 0.0)
    keys = answer(supply, supply.next_ask())

    supply.hear(news(told=1, duration=100.0)._replace(awaited=True), 100.0)

    assert supply.next_ask().replacing == tuple(keys)
    supply.asked()
    assert supply.next_ask() is None


def test_little_is_kept_ahead_of_long_evaluations():
    supply = Supply(1000)
    supply.hear(news(n_evaluators=160), 0.0)
    answer(supply, supply.next_ask(), informed=False)

    supply.hear(news(told=1, started=range(160), n_evaluators=160, duration=100.0), 100.0)

    assert supply.next_ask().n == 160 / 16 + 2
    supply.hear(news(n_evaluators=160, duration=10.0), 110.0)
    assert supply.next_ask().n >= 160


def test_who_is_idle_gets_a_trial_where_little_is_kept_ahead():
    supply = Supply(1000)
    supply.hear(news(n_evaluators=10), 0.0)
    answer(supply, supply.next_ask(), informed=False)

    supply.hear(news(told=1, started=range(10), n_evaluators=10, duration=100.0)._replace(n_idle=4), 100.0)

    assert supply.next_ask().n == 4 + 1 + 2


def test_what_depends_on_no_knowledge_is_not_replaced():
    supply = Supply(1000)
    supply.hear(news(), 0.0)
    answer(supply, supply.next_ask(), informed=False)

    supply.hear(news(told=1, duration=10.0), 100.0)

    assert supply.next_ask() is None


def test_short_evaluations_get_more_ahead_than_evaluators():
    supply = greedy()
    asks = []

    for i in range(3):
        asks.append(supply.next_ask())
        answer(supply, asks[-1], 10_000 * i)

    assert [ask.n for ask in asks] == [8, 8 * STEP, 8 * STEP**2]


def test_a_slow_search_is_asked_for_what_it_can_give_in_a_short_time():
    supply = greedy()
    supply.asked()

    for i in range(9):  # it takes 20 ms for a proposal
        ask = supply.next_ask()
        answer(supply, ask, 10_000 * i, seconds=0.02 * ask.n)
        started = range(10_000 * i, 10_000 * i + ask.n)
        supply.hear(news(told=10, started=started, n_wanted=1_000_000, duration=1e-6), 0.1 + i)

    assert ask.n == LONGEST_ASK / 0.02


def test_a_fast_search_is_never_asked_for_too_many_at_once():
    supply = greedy(n_evaluators=10_000)

    assert supply.next_ask().n == MOST_PER_ASK


def test_replaces_no_more_than_it_asks_for():
    supply = greedy(n_evaluators=100)
    for i in range(8):
        answer(supply, Ask(250, ()), 1000 * i, seconds=1.0)

    supply.hear(news(told=50, started=range(50_000, 60_000), n_evaluators=100, n_wanted=1_000_000, duration=0.1), 0.1)

    ask = supply.next_ask()

    assert len(ask.replacing) == ask.n == LONGEST_ASK * 250 < supply.n_ahead / 2


def test_an_exhausted_space_is_not_asked_again_unless_something_was_dropped():
    supply = Supply(1000)
    supply.hear(news(), 0.0)
    keys = answer(supply, supply.next_ask(), n=2)
    supply.hear(news(told=2, started=keys), 1.0)

    assert supply.exhausted
    assert supply.next_ask() is None
    supply.hear(news(dropped=[0]), 2.0)
    assert supply.next_ask() is not None
