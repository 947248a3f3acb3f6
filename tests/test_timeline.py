"""Where the time of evaluators went: no second is left out, and each is in the right place."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from journal_writer import (
    LAYOUT,
    T0,
    Writer,
    ended,
    event,
    finished,
    header,
    joined,
    left,
    lost,
    placed,
    stopping,
)

from dhmpi.budget import Limits
from dhmpi.problem import HpProblem
from dhmpi.roles.virtual import simulate
from dhmpi.runs import opened
from dhmpi.search.uniform import UniformSearch
from dhmpi.timeline import PACKED, Activity, Curve, Segment

ONE = {**LAYOUT, "hosts": ["node0"] * 3, "groups": [[2]]}


def unpacked(kept):
    return list(map(Segment._make, PACKED.iter_unpack(kept)))


@pytest.fixture
def seconds(tmp_path):
    """Return a function that writes a launch with one evaluator, rank 2, and returns where its seconds went."""

    def account(*events, t=None, live=False, layout=ONE):
        Writer(tmp_path).begin(*events, head=header(layout=layout))
        run = opened(tmp_path, keep=True)
        seconds, _, kept = run.timeline.account(run.now if t is None else T0 + t, live)
        segments = unpacked(kept)
        for activity in Activity:
            total = sum(segment.end - segment.begin for segment in segments if segment.activity == activity)
            assert total == pytest.approx(seconds[activity])
        return {activity.word: round(s, 6) for activity, s in zip(Activity, seconds) if s}

    return account


def test_an_evaluation_and_what_is_around_it(seconds):
    spent = seconds(joined(2, 3), placed(0, 2, 5), finished(0, 2, 6, 10, 1.0, t=10.5), stopping(10.5), ended(12))

    assert spent == {"import": 3, "waiting": 2, "idle": 1.5, "evaluating": 4, "draining": 1.5}


def test_an_evaluation_that_was_there_in_advance_follows_at_once(seconds):
    spent = seconds(
        joined(2, 0), placed(0, 2, 0), placed(1, 2, 1), finished(0, 2, 0, 4, 1.0, t=5), finished(1, 2, 4, 9, 1.0),
        ended(9),
    )  # fmt: skip

    assert spent == {"evaluating": 9}


def test_when_all_that_may_be_started_is_the_others_drain(tmp_path):
    layout = {**LAYOUT, "groups": [[2], [3]]}
    Writer(tmp_path).begin(
        joined(2, 0), joined(3, 0), placed(0, 2, 0), placed(1, 3, 0), finished(0, 2, 0, 2, 1.0),
        finished(1, 3, 0, 7, 1.0), stopping(7), ended(7), head=header(layout=layout, max_evals=2),
    )  # fmt: skip

    run = opened(tmp_path)

    assert run.timeline.seconds[Activity.WAITING] == 0
    assert run.timeline.seconds[Activity.DRAINING] == 5


def test_what_a_dead_rank_ran_is_lost_and_so_is_its_time_afterwards(seconds):
    spent = seconds(joined(2, 1), placed(0, 2, 1), left(2, 4), lost(0, 2, 4), ended(10))

    assert spent == {"import": 1, "lost": 9}


def test_an_evaluation_that_the_end_has_cut_off_is_lost(seconds):
    spent = seconds(joined(2, 0), placed(0, 2, 0), stopping(3), event("cancelled", 5, trial=0, rank=2), ended(6))

    assert spent == {"lost": 5, "draining": 1}


def test_an_evaluation_of_which_nothing_came_began_and_ended_when_its_event_says_so(seconds):
    spent = seconds(
        joined(2, 0), placed(0, 2, 0), {**lost(0, 2, 4), "start": T0 + 1}, placed(0, 2, 4), stopping(9),
        event("cancelled", 9, trial=0, rank=2, start=T0 + 6, end=T0 + 8), ended(10),
    )  # fmt: skip

    assert spent == {"idle": 4, "lost": 5, "draining": 1}


def test_of_an_evaluation_that_runs_twice_one_is_lost(seconds):
    layout = {**LAYOUT, "groups": [[2], [3]]}
    spent = seconds(
        joined(2, 0), joined(3, 0), placed(0, 2, 0), placed(0, 3, 6, copy=True), finished(0, 3, 6, 8, 1.0), ended(8),
        layout=layout,
    )  # fmt: skip

    assert spent == {"waiting": 6, "evaluating": 2, "lost": 8}


def test_a_silent_rank_is_lost_until_it_is_heard(seconds):
    spent = seconds(
        joined(2, 0), placed(0, 2, 0), event("silent", 4, rank=2, seconds=4.0), lost(0, 2, 4, died=False),
        event("heard", 6, rank=2), event("kept", 6, rank=2, trial=0), finished(0, 2, 0, 9, 1.0), ended(9),
    )  # fmt: skip

    assert spent == {"lost": 4, "evaluating": 5}  # when it was heard again it turned out to have run on


@pytest.mark.parametrize(("live", "word"), [(True, "evaluating"), (False, "lost")])
def test_what_still_runs_counts_if_the_run_goes_on(seconds, live, word):
    assert seconds(joined(2, 0), placed(0, 2, 0), t=7, live=live) == {word: 7}


def test_an_evaluator_that_never_came_was_importing(seconds):
    assert seconds(ended(4)) == {"import": 4}


def test_every_rank_of_a_group_counts(seconds):
    layout = {**LAYOUT, "hosts": ["node0"] * 6, "groups": [[2, 3, 4, 5]]}
    there = [joined(rank, 1) for rank in range(2, 6)]
    together = placed(0, 2, 1, ranks=[2, 3, 4, 5], group=1)

    spent = seconds(*there, together, finished(0, 2, 1, 3, 1.0), ended(3), layout=layout)

    assert spent == {"import": 4, "evaluating": 8}


def test_what_is_lost_with_one_member_is_lost_on_all_ranks(seconds):
    layout = {**LAYOUT, "hosts": ["node0"] * 4, "groups": [[2, 3]]}
    lost = {"e": "lost", "t": T0 + 4, "trial": 0, "rank": 2, "host": "node1", "ran": True, "died": True, "reason": "x"}

    spent = seconds(
        joined(2, 0), joined(3, 0), placed(0, 2, 0, ranks=[2, 3], group=1), left(3, 4), lost, ended(6), layout=layout
    )

    assert spent == {"lost": 4 + 6, "waiting": 2}


def test_the_time_between_two_launches_is_nobodys(tmp_path):
    writer = Writer(tmp_path).begin(joined(2, 0), placed(0, 2, 0), finished(0, 2, 0, 2, 1.0), head=header(layout=ONE))
    writer.begin(joined(2, 101), ended(105), head=header(T0 + 100, layout=ONE))

    run = opened(tmp_path)

    assert sum(run.timeline.account(run.now, False)[0]) == pytest.approx(2 + 5)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), n=st.integers(1, 9), mean=st.sampled_from([0.002, 0.1, 3.0]))
def test_no_second_of_a_search_is_left_out(tmp_path_factory, seed, n, mean):
    problem = HpProblem()
    problem.add_hyperparameter((0.0, 1.0), "x")

    def objective(config):
        return None if config["x"] < 0.1 else config["x"]

    def duration(config, rng):
        return float(rng.exponential(mean))

    virtual = simulate(UniformSearch(problem.space, seed), Limits(60), n, objective, duration, seed=seed)
    path = tmp_path_factory.mktemp("run")
    layout = {"hosts": ["a"] * n, "master": 0, "searcher": None, "groups": [[rank] for rank in range(n)], "spare": []}
    Writer(path).begin(*virtual.events, head=header(0.0, layout=layout))

    run = opened(path, keep=True)
    seconds, curve, kept = run.timeline.account(run.last, False)
    segments = unpacked(kept)

    assert sum(seconds) == pytest.approx(n * run.last)
    ours = [segment.end - segment.begin for segment in segments if segment.activity == Activity.EVALUATING]
    exact = sum(outcome.elapsed for outcome, _ in run.history.finished.values())
    assert sum(ours) == pytest.approx(exact)
    assert sum(curve.bins) == pytest.approx(seconds[Activity.EVALUATING] + seconds[Activity.LOST])
    for rank in range(n):  # they touch, and none covers another
        mine = sorted((segment.begin, segment.end) for segment in segments if segment.rank == rank)
        assert np.allclose([b for b, _ in mine[1:]], [e for _, e in mine[:-1]])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1e5), st.floats(0, 100)), max_size=30))
def test_a_curve_keeps_the_sum_whatever_it_covers(intervals):
    curve = Curve(0.0)

    for begin, length in intervals:
        curve.add(begin, begin + length)

    assert sum(curve.bins) == pytest.approx(sum(length for _, length in intervals), abs=1e-6)
    assert max(curve.bins, default=0) <= curve.width * max(1, len(intervals)) * (1 + 1e-9)
