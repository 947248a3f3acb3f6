"""The dispatcher when ranks die, hosts break, masters are succeeded: blame, copies, quarantine, inheritance."""

import numpy as np
import pytest
from faulty_world import World
from hypothesis import given, settings
from hypothesis import strategies as st

from dhmpi.budget import Limits
from dhmpi.journal import History
from dhmpi.mpi.protocol import Proposed
from dhmpi.roles.dispatcher import Dispatcher
from dhmpi.trials import Outcome, Proposal, Status

HOSTS = ("m", "a", "a", "b", "b")
"""Of ranks 0 to 4; rank 0 is the master."""


def dispatcher(*ranks, max_evals=100, **limits):
    d = Dispatcher(Limits(max_evals, **limits))
    for rank in ranks:
        d.join(rank, HOSTS[rank], 0.0)
    return d


def propose(d, *keys, exhausted=False, now=0.0):
    d.propose(Proposed(d.n_asks, 0, (), [Proposal(key, {"x": key}) for key in keys], (), exhausted), now)


def work(d):
    """Return the ids that each rank is sent."""
    sent = {}
    for rank, w in d.take_work():
        sent.setdefault(rank, []).extend(trial.id for trial in w.trials)
    return {rank: ids for rank, ids in sent.items() if ids}


def cancelled(d):
    return {rank: sorted(w.cancelled) for rank, w in d.take_work() if w.cancelled}


def answer(d, rank, id_, now=1.0, status=Status.DONE, attempt=0, elapsed=1.0):
    objective = 1.0 if status is Status.DONE else None
    d.report(rank, [Outcome(id_, attempt, status, objective, {}, rank, HOSTS[rank], 0.0, elapsed, elapsed)], now)


def die(d, rank, now=1.0):
    d.leave(rank, now, f"rank {rank} has died", died=True)


def finished(d):
    return {trial.id: outcome.status for outcome, trial in d.take_outcomes()}


def events(d, kind):
    return [event for event in d.take_events() if event["e"] == kind]


def heir(*dispatchers, now=10.0, **limits):
    """Return the history of dead masters of one launch, and a dispatcher that goes on from it."""
    history = History()
    for epoch, d in enumerate(dispatchers):
        for event in [{"e": "launch", "launch": 0, "epoch": epoch, "t": 0.0}, *d.take_events()]:
            history.apply(event)
    successor = Dispatcher(Limits(**{"max_evals": 100, **limits}))
    successor.inherit(history, HOSTS, now)
    return successor


# -- blame -------------------------------------------------------------------------------------------------------------


def test_a_trial_whose_evaluators_died_on_two_hosts_is_lost_with_retries_left():
    d = dispatcher(1, 3, retries=9)
    propose(d, 0)

    die(d, 1)
    die(d, 3)

    assert finished(d) == {0: Status.LOST}


def test_two_deaths_on_one_of_two_hosts_are_not_blamed_on_the_trial():
    d = dispatcher(1, 2, retries=9)
    propose(d, 0)
    die(d, 1)
    d.join(3, "b", 1.0)
    d.retire(3, 1.0)

    die(d, 2)

    assert finished(d) == {}
    assert [(trial.id, trial.attempt) for trial in d.in_flight] == [(0, 2)]


def test_two_deaths_on_the_only_host_are_blamed_on_the_trial():
    d = dispatcher(1, 2, retries=9)
    propose(d, 0)

    die(d, 1)
    die(d, 2)

    assert finished(d) == {0: Status.LOST}


def test_silences_are_bounded_by_the_retries_alone():
    d = dispatcher(1, retries=2)
    propose(d, 0)

    for n in (1, 2, 3):
        assert finished(d) == {}
        d.tick(1000.0 * n)
        d.alive(1, 1000.0 * n)

    assert finished(d) == {0: Status.LOST}


def test_a_lost_trial_says_why():
    d = dispatcher(1, 3)
    propose(d, 0)

    die(d, 1)
    die(d, 3)

    ((outcome, _),) = d.take_outcomes()
    assert outcome.reason == "not tried again after 2 ranks died while they ran it; the last time: rank 3 has died"
    assert (outcome.rank, outcome.host) == (3, "b")


def test_a_lost_trial_that_empties_an_exhausted_space_ends_the_search():
    d = dispatcher(1, 2, retries=0)
    propose(d, 0, exhausted=True)

    die(d, 1)

    assert d.over


def test_only_what_ran_counts_as_started_again():
    d = dispatcher(1, retries=9)
    propose(d, *range(20))
    answer(d, 1, 0, elapsed=0.01)
    assert len(d.in_flight) > 1

    die(d, 1)

    assert d.n_retried == 1


# -- where a trial is tried again --------------------------------------------------------------------------------------


def test_a_trial_is_tried_again_on_another_host():
    d = dispatcher(1, 2, 3)
    propose(d, 0, 1, 2)
    d.take_work()
    die(d, 1)

    answer(d, 2, 1)
    assert work(d) == {}
    answer(d, 3, 2)

    assert work(d) == {3: [0]}


def test_a_trial_is_tried_again_on_the_same_host_where_no_other_can_be_used():
    d = dispatcher(1, 2, 3)
    propose(d, 0, 1, 2)
    d.retire(3, 0.5)
    d.take_work()
    die(d, 1)

    answer(d, 2, 1)

    assert work(d) == {2: [0]}


def test_new_trials_do_not_wait_for_one_that_must_go_elsewhere():
    d = dispatcher(1, 2, 3)
    propose(d, 0, 1, 2, 3)
    d.take_work()
    die(d, 1)

    answer(d, 2, 1)

    assert work(d) == {2: [3]}


# -- silence -----------------------------------------------------------------------------------------------------------


def test_a_rank_that_was_silent_keeps_what_nobody_else_has_started():
    d = dispatcher(1)
    propose(d, 0)
    d.take_work()
    d.tick(91.0)

    d.alive(1, 92.0)

    assert work(d) == {}
    assert [event["trial"] for event in events(d, "kept")] == [0]
    die(d, 1, 93.0)
    assert [trial.id for trial in d.in_flight] == [0]


def test_a_cancellation_of_a_rank_that_was_silent_leaves_the_trial_to_those_who_have_it():
    d = dispatcher(1, 3)
    propose(d, 0)
    d.alive(3, 80.0)
    d.tick(91.0)
    assert work(d) == {1: [0], 3: [0]}
    d.alive(1, 92.0)
    assert cancelled(d) == {1: [0]}

    answer(d, 1, 0, 93.0, Status.CANCELLED)

    assert cancelled(d) == {}
    answer(d, 3, 0, 94.0)
    assert finished(d) == {0: Status.DONE}


def test_a_cancellation_does_not_concern_the_same_trial_given_once_more():
    d = dispatcher(1, 3, retries=9)
    propose(d, 0)
    d.alive(3, 80.0)
    d.tick(91.0)
    d.alive(1, 92.0)  # which is told to leave the trial
    d.take_work()
    d.leave(3, 93.0, "refused")
    assert work(d) == {1: [0]}

    answer(d, 1, 0, 94.0, Status.CANCELLED)

    assert work(d) == {}
    answer(d, 1, 0, 95.0, attempt=2)
    assert finished(d) == {0: Status.DONE}


# -- copies ------------------------------------------------------------------------------------------------------------


def straggling():
    """Return a dispatcher whose rank 1 has run trial 3 far longer than others, and nothing else is left."""
    d = dispatcher(1, 2, 3, max_evals=4)
    propose(d, 0, 1, 2, 3)
    for rank, id_ in ((1, 0), (2, 1), (3, 2)):
        answer(d, rank, id_, 1.0)
    d.take_work()
    d.take_outcomes()
    for rank in (1, 2, 3):
        d.alive(rank, 60.0)
    return d


def test_what_lasts_far_longer_than_others_is_started_a_second_time_on_another_host():
    d = straggling()

    d.tick(60.0)

    ((rank, w),) = d.take_work()
    assert rank == 3
    assert [(trial.id, trial.copy) for trial in w.trials] == [(3, True)]
    d.tick(61.0)
    assert work(d) == {}


def test_nothing_is_copied_while_there_is_something_else_to_do():
    d = straggling()
    d.limits = Limits(100)

    d.tick(60.0)

    assert work(d) == {}


@pytest.mark.parametrize(("first", "other"), [(1, 3), (3, 1)])
def test_the_first_answer_counts_and_the_other_is_told_to_leave(first, other):
    d = straggling()
    d.tick(60.0)
    d.take_work()

    d.limits = d.budget.limits = Limits(5)  # so that it goes on
    answer(d, first, 3, 61.0)

    assert cancelled(d) == {other: [3]}
    answer(d, other, 3, 62.0, Status.CANCELLED)
    assert finished(d) == {3: Status.DONE}
    assert d.in_flight == []


@pytest.mark.parametrize(("dead", "other"), [(1, 3), (3, 1)])
def test_a_trial_with_a_copy_survives_the_death_of_either(dead, other):
    d = straggling()
    d.tick(60.0)
    d.take_work()

    die(d, dead, 61.0)

    assert work(d) == {}
    assert d.n_retried == 0
    answer(d, other, 3, 62.0)
    assert finished(d) == {3: Status.DONE}


def test_a_copy_that_has_not_left_yet_is_still_cancelled():
    """An evaluator looks at what it should leave before it takes in new trials."""
    d = straggling()
    d.limits = d.budget.limits = Limits(5)
    d.exhausted = True
    d.tick(60.0)

    answer(d, 1, 3, 60.0)

    to_3 = [w for rank, w in d.take_work() if rank == 3]
    assert [[trial.id for trial in w.trials] for w in to_3] == [[3], []]
    assert [list(w.cancelled) for w in to_3] == [[], [3]]


def test_a_straggler_is_copied_even_if_another_trial_waits_for_its_host():
    d = dispatcher(1, 3, 4, max_evals=5)
    propose(d, 0, 1, 2, 3, 4)
    for rank, id_ in ((1, 0), (3, 1), (4, 2)):
        answer(d, rank, id_, 1.0)
    die(d, 3)  # while it ran trial 4, which should now run on host a
    d.take_work()
    for rank in (1, 4):
        d.alive(rank, 60.0)

    d.tick(60.0)
    assert work(d) == {4: [3]}
    answer(d, 4, 3, 61.0)

    assert work(d) == {1: [4]}


# -- hosts -------------------------------------------------------------------------------------------------------------


def crashing(*ranks, n_good=20, n_bad=3, after=3):
    """Return a dispatcher after good evaluations on rank 3 (host b) and crashes on rank 1 (host a)."""
    d = dispatcher(*ranks, max_evals=1000, quarantine_after=after)
    propose(d, *range(100))
    holds = {rank: ids[0] for rank, ids in work(d).items()}
    for rank, n, status in ((3, n_good, Status.DONE), (1, n_bad, Status.CRASHED)):
        for _ in range(n):
            answer(d, rank, holds[rank], status=status)
            holds.update({rank: ids[0] for rank, ids in work(d).items()})
    return d


def test_a_host_where_evaluations_crash_far_more_often_gets_no_new_trials():
    d = crashing(1, 2, 3)

    assert d.n_evaluators == 1
    assert [event["host"] for event in events(d, "quarantined")] == ["a"]
    assert d.take_remarks() == ["host a gets no new trials: 3 of 3 evaluations crashed there, 5 % elsewhere"]


def test_an_evaluator_that_joins_from_a_host_left_out_gets_nothing():
    d = crashing(1, 3)

    d.join(2, "a", 2.0)
    d.enlist(1, 2.0)

    assert work(d) == {}
    assert d.n_evaluators == 1


@pytest.mark.parametrize(("n_good", "n_bad", "after"), [(20, 2, 3), (0, 50, 3), (20, 20, None)])
def test_no_host_is_left_out_without_enough_to_compare(n_good, n_bad, after):
    assert crashing(1, 2, 3, n_good=n_good, n_bad=n_bad, after=after).n_evaluators == 3


def test_deaths_of_ranks_count_as_crashes_of_their_host():
    d = crashing(1, 2, 3, n_bad=1, after=2)
    d.join(4, "a", 1.0)

    die(d, 2)

    (event,) = events(d, "quarantined")
    assert (event["host"], event["crashed"], event["of"]) == ("a", 2, 2)


@pytest.mark.parametrize("how", ["dies", "falls silent", "retires"])
def test_a_host_that_was_left_out_is_better_than_none(how):
    d = crashing(1, 3)
    d.take_work()

    if how == "dies":
        die(d, 3)
    elif how == "retires":
        d.retire(3, 2.0)
    else:
        d.alive(1, 80.0)
        d.tick(92.0)

    assert d.n_evaluators == 1
    assert 1 in work(d)


def test_a_slow_host_is_named_once():
    d = dispatcher(1, 3, max_evals=1000)
    propose(d, *range(500))
    holds = {rank: ids[0] for rank, ids in work(d).items()}

    for _ in range(60):
        for rank, elapsed in ((1, 9.0), (3, 3.0)):
            answer(d, rank, holds[rank], elapsed=elapsed)
            holds[rank] = work(d)[rank][0]

    assert d.take_remarks() == ["host a is slow: an evaluation takes 9 s there, 3 s elsewhere"]


def met(d, *ranks, now=11.0):
    """Have evaluators tell an heir that they hold nothing; return whom it gives work."""
    for rank in ranks:
        d.holds(rank, HOSTS[rank], (), now)
    return work(d)


def test_an_heir_leaves_out_the_hosts_that_were_left_out():
    d = heir(crashing(1, 2, 3), quarantine_after=3)

    assert met(d, 1, 2, 3).keys() == {3}
    assert d.n_evaluators == 1
    assert events(d, "readmitted") == []


def test_an_heir_to_whom_only_a_host_left_out_answers_gives_it_work():
    d = heir(crashing(1, 2, 3), quarantine_after=3)
    assert met(d, 1, 2) == {}

    die(d, 3, now=12.0)

    assert work(d).keys() & {1, 2}
    assert [event["host"] for event in events(d, "readmitted")] == ["a"]


def test_crashes_and_deaths_are_counted_over_all_masters_of_a_launch():
    old = crashing(1, 2, 3, n_bad=1, after=3)
    die(old, 1)
    d = heir(old, quarantine_after=3)
    holds = met(d, 2, 3)

    answer(d, 2, holds[2][0], now=12.0, status=Status.CRASHED)

    (event,) = events(d, "quarantined")
    assert (event["host"], event["crashed"], event["of"]) == ("a", 3, 3)


def test_a_host_that_is_slow_is_named_by_one_of_all_masters():
    old = dispatcher(1, 3, max_evals=1000)
    propose(old, *range(500))
    holds = {rank: ids[0] for rank, ids in work(old).items()}
    for _ in range(45):
        for rank, elapsed in ((1, 9.0), (3, 3.0)):
            answer(old, rank, holds[rank], elapsed=elapsed)
            holds[rank] = work(old)[rank][0]
    d = heir(old, max_evals=1000)
    holds = met(d, 1, 3)
    propose(d, *range(1000, 1200), now=11.0)

    for _ in range(30):
        for rank, elapsed in ((1, 9.0), (3, 3.0)):
            answer(d, rank, holds[rank][0], elapsed=elapsed)
            holds[rank] = work(d)[rank]

    assert len(old.take_remarks()) == 1
    assert d.take_remarks() == []


def test_an_heir_knows_how_long_evaluations_take():
    old = dispatcher(1)
    propose(old, *range(10))
    for id_ in range(4):
        answer(old, 1, id_, elapsed=3.0)

    assert heir(old).longest() == 3.0


def test_longest_is_the_time_within_which_so_many_evaluations_ended():
    d = dispatcher(1)
    assert d.longest() is None
    propose(d, *range(10))

    for id_ in range(10):
        answer(d, 1, id_, elapsed=10.0 - id_)

    assert (d.longest(0.5), d.longest(), d.longest(1.0)) == (6.0, 10.0, 10.0)


def test_retired_evaluators_keep_what_they_run_and_get_nothing_until_they_are_enlisted():
    d = dispatcher(1)
    propose(d, 0, 1)
    d.take_work()
    d.retire(1, 0.5)

    answer(d, 1, 0)
    assert finished(d) == {0: Status.DONE}
    assert work(d) == {}
    d.enlist(1, 2.0)

    assert work(d) == {1: [1]}


# -- heirs -------------------------------------------------------------------------------------------------------------


def test_an_heir_leaves_to_evaluators_what_they_run():
    before = dispatcher(1, 3)
    propose(before, 0, 1)

    d = heir(before)
    d.holds(1, "a", [0], 11.0)
    d.holds(3, "b", [1], 11.0)

    assert work(d) == {}
    assert events(d, "placed") == []
    answer(d, 1, 0)
    answer(d, 3, 1)
    assert finished(d) == {0: Status.DONE, 1: Status.DONE}


def test_an_heir_gives_nothing_to_an_evaluator_before_it_has_said_what_it_holds():
    before = dispatcher(1, 3)
    propose(before, 0)

    d = heir(before)
    d.put_ahead([(7, {})], 10.0)
    d.alive(1, 11.0)
    assert d.n_evaluators == 0
    assert work(d) == {}
    d.holds(1, "a", [0], 11.0)
    d.holds(3, "b", [], 11.0)

    assert work(d) == {3: [1]}


def test_what_never_arrived_is_given_out_again():
    before = dispatcher(1)
    propose(before, 0)

    d = heir(before)
    d.holds(1, "a", [], 11.0)

    ((rank, w),) = d.take_work()
    assert (rank, [(trial.id, trial.attempt) for trial in w.trials]) == (1, [(0, 0)])


def test_an_evaluator_keeps_what_an_earlier_master_has_not_given_to_anybody_else():
    before = dispatcher(1)
    propose(before, 0)
    before.tick(91.0)  # it is silent

    d = heir(before, now=92.0)
    d.holds(1, "a", [0], 93.0)

    assert work(d) == {}
    assert [trial.id for trial in d.in_flight] == [0]
    answer(d, 1, 0)
    assert finished(d) == {0: Status.DONE}


def test_an_evaluator_is_not_sent_twice_what_it_gets_when_it_says_what_it_holds():
    before = dispatcher(1)
    propose(before, 0)
    before.leave(1, 1.0, "refused")

    d = heir(before)
    d.holds(3, "b", [], 11.0)

    assert work(d) == {3: [0]}


def test_what_an_heir_has_given_is_not_missing_where_an_evaluator_spoke_before_it_arrived():
    d = heir(dispatcher())
    d.put_ahead([(0, {})], 10.0)
    d.join(1, "a", 11.0)
    assert work(d) == {1: [0]}

    d.holds(1, "a", [], 11.1)

    assert work(d) == {}


def test_an_evaluator_leaves_what_others_have_finished_or_run():
    before = dispatcher(1, 3)
    propose(before, 0)
    before.alive(3, 80.0)
    before.tick(91.0)  # rank 1 is silent, and rank 3 tries it

    d = heir(before, now=92.0)
    d.holds(3, "b", [0], 93.0)
    d.holds(1, "a", [0], 93.0)

    assert cancelled(d) == {1: [0]}
    answer(d, 1, 0, 94.0, Status.CANCELLED)
    assert [trial.id for trial in d.in_flight] == [0]


def test_the_dead_of_an_earlier_master_are_blamed_for_what_they_ran_and_not_for_what_was_placed():
    before = dispatcher(1, 3)
    propose(before, 0, 1, 2)
    answer(before, 3, 1, elapsed=0.01)
    before.leave(1, 2.0, "refused")  # trial 0 is placed behind trial 2

    d = heir(before)
    d.take_events()
    die(d, 3, 11.0)

    assert [(event["trial"], event["ran"]) for event in events(d, "lost")] == [(2, True), (0, False)]


def test_what_nothing_came_of_says_when_it_began():
    before = dispatcher(1, 3)
    propose(before, 0, 1, 2, now=1.0)
    answer(before, 3, 1, now=2.0, elapsed=1.0)  # trial 2 begins

    d = heir(before)
    d.take_events()
    die(d, 3, 11.0)
    d.stop("a signal", 12.0, cancel=True)
    d.holds(1, "a", [0], 12.0)
    d.report(1, [Outcome(0, 0, Status.CANCELLED, None, rank=1, start=1.5, end=12.5, elapsed=11.0)], 13.0)

    told = {event["e"]: event for event in d.take_events()}
    assert told["lost"]["start"] == 2.0
    assert (told["cancelled"]["start"], told["cancelled"]["end"]) == (1.5, 12.5)


def test_losses_under_earlier_masters_count():
    before = dispatcher(1, 3, retries=9)
    propose(before, 0)
    die(before, 1)

    d = heir(before, retries=9)
    die(d, 3)

    assert finished(d) == {0: Status.LOST}


def test_losses_of_a_rank_that_was_silent_and_came_back_count_under_the_next_master():
    before = dispatcher(1, retries=1)
    propose(before, 0)
    before.tick(91.0)
    before.alive(1, 92.0)

    d = heir(before, retries=1, now=93.0)
    die(d, 1, 94.0)

    assert finished(d) == {0: Status.LOST}


def test_an_evaluator_that_never_says_what_it_holds_is_not_waited_for():
    before = dispatcher(1)
    propose(before, 0)

    d = heir(before)
    d.alive(1, 60.0)
    d.join(3, "b", 60.0)
    d.tick(101.0)

    assert work(d) == {3: [0]}


def test_an_heir_knows_a_copy_and_its_original():
    before = straggling()
    before.tick(60.0)

    d = heir(before, now=61.0, max_evals=5)
    d.holds(1, "a", [3], 61.0)
    d.holds(3, "b", [3], 61.0)
    answer(d, 3, 3, 62.0)

    assert cancelled(d) == {1: [3]}
    assert finished(d) == {3: Status.DONE}


def test_an_heir_ends_a_search_whose_space_was_exhausted_but_not_before_what_is_ahead():
    before = dispatcher(1)
    propose(before, 0, 1, exhausted=True)

    d = heir(before)
    d.holds(1, "a", [0], 11.0)
    answer(d, 1, 0, 12.0)
    assert not d.over
    d.put_ahead([(1, {"x": 1})], 13.0)
    assert not d.over
    answer(d, 1, 1, 14.0)

    assert d.over


def test_an_heir_ends_what_its_predecessor_had_cancelled():
    before = dispatcher(1)
    propose(before, 0)
    before.stop("a signal", 1.0, cancel=True)

    d = heir(before)
    d.stop("a signal", 10.0)
    d.holds(1, "a", [0], 11.0)
    assert not d.over
    answer(d, 1, 0, 12.0, Status.CANCELLED)

    assert d.over


def test_an_heir_of_a_finished_search_is_over_at_once():
    before = dispatcher(1, max_evals=1)
    propose(before, 0)
    answer(before, 1, 0)

    d = heir(before, max_evals=1)

    assert d.over


def test_an_heir_takes_up_no_more_unfinished_trials_than_the_budget_has_room_for():
    history = History()
    for launch, ids in ((0, range(5)), (1, ())):
        history.apply({"e": "launch", "launch": launch, "epoch": 0, "t": 0.0})
        for id_ in ids:
            placed = {"trial": id_, "attempt": 0, "rank": 1, "key": id_, "config": {}}
            history.apply({"e": "placed", "t": 0.0, **placed})
    d = Dispatcher(Limits(2))

    d.inherit(history, HOSTS, 1.0)

    assert [(trial.id, trial.attempt) for trial in d.in_flight] == [(0, 1), (1, 1)]


# -- whatever happens --------------------------------------------------------------------------------------------------


worlds = {
    "seed": st.integers(0, 2**32 - 1),
    "n_steps": st.integers(0, 500),
    "max_evals": st.integers(1, 50),
    "n_evaluators": st.integers(1, 6),
    "n_hosts": st.integers(1, 3),
    "retries": st.integers(0, 4),
    "elapsed": st.sampled_from([1e-6, 0.01, 0.2, 2.0]),
    "quarantine_after": st.none() | st.just(3),
}


def play(seed, n_steps, **parameters):
    """Let anything happen for a while, then nothing bad; the world checks itself at each step."""
    world = World(np.random.default_rng(seed), **parameters)
    for step in range(n_steps + 500):
        if world.dispatcher.over:
            break
        world.step() if step < n_steps else world.calm_step()
    assert world.dispatcher.over
    return world


@settings(max_examples=100, deadline=None)
@given(space=st.none() | st.integers(0, 50), **worlds)
def test_every_trial_finishes_once_whoever_dies(space, **parameters):
    world = play(space=space, stops=False, **parameters)

    n = world.max_evals if space is None else min(space, world.max_evals)
    assert sorted(world.history.finished) == list(range(n))


@settings(max_examples=30, deadline=None)
@given(**worlds)
def test_every_trial_finishes_once_whatever_users_order(**parameters):
    world = play(space=None, stops=False, steers=True, **parameters)

    n = world.dispatcher.limits.max_evals
    assert sorted(world.history.finished) == list(range(n))
    keys = [trial.key for _, trial in world.history.finished.values()]
    assert len(set(keys)) == n
    points = {*range(-world.dispatcher.n_added, 0)}
    assert points == {key for key in keys if key < 0} | world.history.added.keys()


@settings(max_examples=50, deadline=None)
@given(**worlds)
def test_a_search_that_is_stopped_ends_and_records_what_is_unfinished(**parameters):
    world = play(space=None, stops=True, **parameters)

    known = sorted([*world.history.finished, *world.history.unfinished])
    assert known == list(range(len(known)))
