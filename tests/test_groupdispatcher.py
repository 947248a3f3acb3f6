"""The dispatcher of groups: every trial once, whatever its size, and whoever dies in the middle of it."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dhmpi import journal
from dhmpi.budget import Limits
from dhmpi.mpi.protocol import Proposed
from dhmpi.problem import HpProblem
from dhmpi.roles.groupdispatcher import GroupDispatcher
from dhmpi.roles.virtual import simulate
from dhmpi.search.uniform import UniformSearch
from dhmpi.trials import Outcome, Proposal, Status

HOSTS = {1: "a", 2: "a", 3: "a", 4: "a", 5: "b", 6: "b", 7: "b", 8: "b"}


def proposed(*sizes, first=0):
    return Proposed(0, 0, (), [Proposal(first + i, {"x": i, "num_ranks": k}) for i, k in enumerate(sizes)])


def made(max_evals=100, hosts=HOSTS, size=1, fixed=(), **limits):
    d = GroupDispatcher(Limits(max_evals, **limits), hosts, fixed, size)
    for rank, host in hosts.items():
        d.join(rank, host, 0.0)
    d.take_events()
    return d


def given_(d):
    """Return what each rank was given, and was told to leave."""
    work = d.take_work()
    trials = {rank: [(t.id, tuple(t.ranks), t.group) for t in w.trials] for rank, w in work if w.trials}
    cancelled = {rank: list(w.cancelled) for rank, w in work if w.cancelled}
    return trials, cancelled


def outcome(id_, rank, objective=1.0, status=None, attempt=0):
    status = status or (Status.DONE if objective is not None else Status.FAILED)
    return Outcome(id_, attempt, status, objective, {}, rank, HOSTS[rank], 0.0, 1.0, 1.0)


def events(d, kind):
    return [event for event in d.take_events() if event["e"] == kind]


def test_every_member_gets_the_trial():
    d = made()

    d.propose(proposed(4, 2), 0.0)

    trials, _ = given_(d)
    assert {rank: ids[0][0] for rank, ids in trials.items()} == {1: 0, 2: 0, 3: 0, 4: 0, 5: 1, 6: 1}
    assert trials[1][0][1] == (1, 2, 3, 4)
    assert [(e["rank"], e["ranks"]) for e in events(d, "placed")] == [(1, [1, 2, 3, 4]), (5, [5, 6])]


def test_the_leaders_outcome_frees_the_group_and_keeps_its_communicator():
    d = made()
    d.propose(proposed(8, 8), 0.0)
    before, _ = given_(d)

    d.report(1, [outcome(0, 1)], 1.0)

    after, _ = given_(d)
    assert before[8][0][2] == after[8][0][2]
    assert after[8][0][0] == 1
    (finished,) = events(d, "finished")
    assert finished["metrics"] == {"ranks": "1-8"}


def test_after_a_failure_the_communicator_is_made_anew():
    d = made()
    d.propose(proposed(8, 8), 0.0)
    before, _ = given_(d)

    d.report(1, [outcome(0, 1, None)], 1.0)

    work = dict(d.take_work())
    assert all(list(w.dropped) == [before[1][0][2]] for w in work.values())
    assert work[3].trials[0].group != before[3][0][2]


def test_a_dead_member_is_blamed_and_the_others_are_idle_once_they_are_out():
    d = made()
    d.propose(proposed(4, 4, 4), 0.0)
    given_(d)

    d.leave(2, 1.0, "rank 2 has died", died=True)

    trials, cancelled = given_(d)
    assert not trials
    assert cancelled == {1: [0], 3: [0], 4: [0]}
    (lost,) = events(d, "lost")
    assert (lost["trial"], lost["rank"], lost["died"]) == (0, 1, True)
    d.report(5, [outcome(1, 5)], 2.0)
    trials, _ = given_(d)
    assert trials[5][0][:2] == (0, (5, 6, 7, 8))
    d.propose(proposed(2, first=10), 2.0)
    assert not given_(d)[0]
    d.report(1, [outcome(0, 1, None, Status.CANCELLED)], 3.0)
    d.returned(3, [0], 3.0)
    trials, _ = given_(d)
    assert trials[1][0][:2] == (2, (1, 3))


def test_a_trial_that_kills_two_ranks_is_given_up():
    d = made()
    d.propose(proposed(2), 0.0)
    given_(d)

    d.leave(1, 1.0, "rank 1 has died", died=True)
    first, _ = given_(d)
    (member, *_) = [rank for rank, ids in first.items() if ids[0][0] == 0]
    d.leave(member, 2.0, "it has died too", died=True)

    (finished,) = events(d, "finished")
    assert finished["status"] == "lost"
    assert "2 ranks died" in finished["reason"]
    assert HOSTS[member] == "b"  # not where it was lost before


def test_a_group_that_does_not_come_together_is_formed_again_but_not_for_ever():
    d = made(retries=1)
    d.propose(proposed(4), 0.0)

    for _ in range(2):
        trials, _ = given_(d)
        ranks = trials[next(iter(trials))][0][1]
        d.returned(ranks[0], [0], 1.0)
        for rank in ranks[1:]:
            d.returned(rank, [0], 1.0)

    (finished,) = events(d, "finished")
    assert "2 groups of ranks have not come together" in finished["reason"]


def test_what_needs_more_ranks_than_there_are_fails():
    d = made()

    d.propose(proposed(9, "many", 0, 8), 0.0)

    reasons = [event["reason"] for event in events(d, "finished")]
    assert reasons == [
        "num_ranks is 9, and only 8 ranks evaluate",
        "num_ranks must be a positive integer, got 'many'",
        "num_ranks must be a positive integer, got 0",
    ]
    assert given_(d)[0][1][0][0] == 3


def test_what_needs_more_ranks_than_are_left_is_lost():
    d = made()
    d.propose(proposed(8), 0.0)

    d.leave(3, 1.0, "rank 3 has died", died=True)
    d.returned(1, [0], 2.0)

    (finished,) = events(d, "finished")
    assert (finished["status"], finished["reason"]) == ("lost", "it needs 8 ranks, and only 7 are left")


def test_a_large_trial_waits_for_ranks_that_have_yet_to_come():
    d = GroupDispatcher(Limits(10), HOSTS)
    d.join(1, "a", 0.0)
    d.propose(proposed(8), 0.0)

    assert d.take_events()[-1]["e"] != "finished"
    for rank in range(2, 9):
        d.join(rank, HOSTS[rank], 1.0)

    assert len(given_(d)[0]) == 8


def test_groups_wait_for_members_that_have_yet_to_come_but_not_for_ever():
    d = GroupDispatcher(Limits(10), {rank: HOSTS[rank] for rank in (1, 2, 5, 6)}, [(1, 2), (5, 6)], 2, silence=30.0)
    d.join(1, "a", 100.0)
    d.join(5, "b", 110.0)
    d.propose(Proposed(0, 0, (), [Proposal(i, {"x": i}) for i in range(4)]), 110.0)

    d.tick(129.0)
    assert given_(d) == ({}, {})
    for rank in (1, 5):
        d.alive(rank, 130.0)
    d.tick(130.0)
    trials, _ = given_(d)
    assert {ids[0][1] for ids in trials.values()} == {(1, 5)}
    assert d.take_remarks() == ["ranks 2,6 have not come: others work without them until they do"]
    assert [event["ranks"] for event in events(d, "missing")] == [[2, 6]]

    d.join(2, "a", 140.0)
    d.join(6, "b", 140.0)
    d.report(1, [outcome(0, 1)], 141.0)
    trials, _ = given_(d)
    assert {ids[0][1] for ids in trials.values()} == {(1, 2), (5, 6)}


def test_the_run_stops_when_too_few_ranks_are_left_for_the_usual_size():
    d = made(size=8)

    d.leave(1, 1.0, "it has died", died=True)

    assert d.stopping == "only 7 ranks are left, and an evaluation needs 8"
    assert d.short_of_ranks
    history = journal.History(headers=[{"launch": 0, "t": 0.0}])
    for event in d.take_events():
        history.apply(event)
    heir = GroupDispatcher(Limits(100), HOSTS, size=8)
    heir.inherit(history, ["x", *HOSTS.values()], 2.0)
    assert heir.short_of_ranks


def test_fixed_groups_are_those_of_the_layout():
    d = made(size=3, fixed=[(1, 2, 3), (5, 6, 7)])

    d.propose(Proposed(0, 0, (), [Proposal(i, {"x": i}) for i in range(4)]), 0.0)

    trials, _ = given_(d)
    assert {ids[0][1] for ids in trials.values()} == {(1, 2, 3), (5, 6, 7)}
    assert d.n_evaluators == 2


def test_large_trials_do_not_starve():
    d = made(max_evals=1000)
    d.propose(proposed(*[1] * 8, 8, *[1] * 300), 0.0)
    running = {rank: ids[0] for rank, ids in given_(d)[0].items()}
    assert len({id_ for id_, *_ in running.values()}) in (1, 8)

    for t in range(1, 40):
        rank = min(running)  # never all at once
        id_, ranks, _ = running[rank]
        if len(ranks) == 8:
            return
        d.report(rank, [outcome(id_, rank)], float(t))
        del running[rank]
        for new, ids in given_(d)[0].items():
            running[new] = ids[0]

    pytest.fail("the trial of 8 ranks was never started")


def test_cancelling_everything_waits_for_leaders_only():
    d = made()
    d.propose(proposed(4, 4), 0.0)
    given_(d)

    d.stop("enough", 1.0, cancel=True)
    for leader in (1, 5):
        d.returned(leader + 1, [leader // 5], 2.0)
        d.report(leader, [outcome(leader // 5, leader, None, Status.CANCELLED)], 2.0)

    assert d.over
    assert len(events(d, "cancelled")) == 2


def test_a_silent_member_takes_its_trial_along_and_comes_back_idle():
    d = made()
    d.propose(proposed(4), 0.0)
    given_(d)
    for rank in HOSTS:
        if rank != 2:
            d.alive(rank, 100.0)

    d.tick(100.0)

    trials, cancelled = given_(d)
    assert trials[5][0][0] == 0
    assert set(cancelled) == {1, 3, 4}
    d.alive(2, 101.0)
    _, cancelled = given_(d)
    assert cancelled == {2: [0]}
    for rank in (1, 2, 3, 4):
        d.returned(rank, [0], 102.0)
    d.propose(proposed(4, first=10), 103.0)
    assert set(given_(d)[0]) == {1, 2, 3, 4}


def test_an_heir_goes_on_with_groups_that_all_members_hold():
    d = made()
    d.propose(proposed(4, 4), 0.0)
    given_(d)
    history = journal.History(headers=[{"launch": 0, "t": 0.0}])
    for event in d.take_events():
        history.apply(event)
    heir = GroupDispatcher(Limits(100), HOSTS)
    heir.inherit(history, ["x", *HOSTS.values()], 1.0)

    for rank in HOSTS:
        held = {5: [1], 6: [], 7: [1], 8: [1]}.get(rank, [0])
        heir.holds(rank, HOSTS[rank], held, 2.0)

    assert [trial.id for trial in heir.in_flight] == [0, 1]
    _, cancelled = given_(heir)
    assert {rank for rank, ids in cancelled.items() if 1 in ids} == {5, 7, 8}
    for rank in (5, 7, 8):
        heir.returned(rank, [1], 3.0)
    trials, _ = given_(heir)
    assert trials[5][0][:2] == (1, (5, 6, 7, 8))
    assert trials[5][0][2] > max(event.get("group", 0) for event in heir.take_events()[:1])
    heir.report(1, [outcome(0, 1)], 4.0)
    assert [o.trial for o, _ in heir.take_outcomes()] == [0]


def test_an_heir_uses_the_communicators_that_there_are():
    d = made()
    d.propose(proposed(4, 4, 4, 4, 4), 0.0)
    d.report(1, [outcome(0, 1)], 1.0)
    d.report(5, [outcome(1, 5, None)], 1.0)
    history = journal.History(headers=[{"launch": 0, "t": 0.0}])
    for event in d.take_events():
        history.apply(event)
    assert set(history.groups) == {(1, 2, 3, 4), (5, 6, 7, 8)}
    heir = GroupDispatcher(Limits(100), HOSTS)
    heir.inherit(history, ["x", *HOSTS.values()], 2.0)
    for rank in HOSTS:
        heir.holds(rank, HOSTS[rank], [2 if rank < 5 else 3], 2.0)
    heir.propose(proposed(4, 4, first=4), 2.0)

    heir.report(1, [outcome(2, 1)], 3.0)
    heir.report(5, [outcome(3, 5, None)], 3.0)

    trials, _ = given_(heir)
    assert trials[1][0][1:] == ((1, 2, 3, 4), history.groups[1, 2, 3, 4])
    assert trials[5][0][1] == (5, 6, 7, 8)
    assert trials[5][0][2] > history.n_groups


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.sampled_from([1, 2, 3, 4, 8]), min_size=1, max_size=25),
    deaths=st.lists(st.integers(1, 8), max_size=3, unique=True),
    seed=st.integers(0, 2**16),
)
def test_whoever_dies_every_trial_ends_once_and_no_rank_has_two(sizes, deaths, seed):
    rng = np.random.default_rng(seed)
    d = made(max_evals=len(sizes), retries=5)
    d.propose(proposed(*sizes), 0.0)
    holding, told, dead, now = {}, [], set(), 0.0
    deaths = list(deaths)
    history, recorded, kept = journal.History(), [], {rank: set() for rank in HOSTS}
    for _ in range(2000):
        if d.over:
            break
        now += 1.0
        for rank, w in d.take_work():
            kept[rank] -= set(w.dropped)
            kept[rank] |= {trial.group for trial in w.trials}
            for id_ in w.cancelled:
                told.append((rank, id_))
            for trial in w.trials:
                assert rank not in holding, "a rank has two trials"
                assert rank in trial.ranks
                holding[rank] = trial
        for event in d.take_events():
            recorded.append(event)
            history.apply(event)
        for ranks, group in history.groups.items():
            assert all(group in kept[rank] for rank in ranks), "the journal knows a communicator that was given up"
        if deaths and rng.random() < 0.2:
            rank = deaths.pop()
            dead.add(rank)
            holding.pop(rank, None)
            d.leave(rank, now, "died", died=rng.random() < 0.5)
        elif told and rng.random() < 0.7:
            rank, id_ = told.pop(rng.integers(len(told)))
            if rank not in dead and rank in holding and holding[rank].id == id_:
                del holding[rank]
                d.returned(rank, [id_], now)
        elif leaders := [r for r, t in holding.items() if t.ranks[0] == r and (r, t.id) not in told]:
            rank = leaders[rng.integers(len(leaders))]
            trial = holding[rank]
            if dead & set(trial.ranks):
                continue  # it waits until it is told to leave
            for member in trial.ranks:
                del holding[member]
            objective = None if rng.random() < 0.2 else 1.0
            d.report(rank, [outcome(trial.id, rank, objective, attempt=trial.attempt)], now)

    assert d.over
    finished = Counter(e["trial"] for e in [*recorded, *d.take_events()] if e["e"] == "finished")
    assert finished == Counter(range(len(sizes)))


def test_ranks_are_kept_busy_by_evaluations_of_mixed_sizes():
    problem = HpProblem()
    problem.add_hyperparameter((-5.0, 5.0), "x")
    problem.add_hyperparameter([1, 2, 4, 8], "num_ranks")

    run = simulate(
        UniformSearch(problem.space, 1),
        Limits(800),
        32,
        lambda config: -(config["x"] ** 2),
        lambda config, rng: float(rng.lognormal(0.0, 0.5)),
        ranks_per_host=8,
    )

    assert sorted(trial.id for _, trial in run.outcomes) == list(range(800))
    assert run.utilisation > 0.9
    assert Counter(trial.config["num_ranks"] for _, trial in run.outcomes[:400])[8] > 50
