"""The dispatcher: exact budget, nothing lost, whatever happens in whatever order."""

from collections import Counter, deque

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dhmpi.budget import Limits
from dhmpi.mpi.protocol import Progress, Proposed
from dhmpi.roles.dispatcher import Dispatcher
from dhmpi.roles.events import ranges
from dhmpi.stopping import HalvingStopper
from dhmpi.trials import Outcome, Proposal, Status, Trial


def proposed(*keys, replacing=(), exhausted=False, ask=0):
    proposals = [Proposal(key, {"x": float(key)}) for key in keys]
    return Proposed(ask, 0, (), proposals, replacing, exhausted)


def outcome(trial, rank, objective=1.0, elapsed=1.0, status=None):
    status = status or (Status.DONE if objective is not None else Status.FAILED)
    return Outcome(trial.id, trial.attempt, status, objective, {}, rank, "h", 0.0, elapsed, elapsed)


def dispatcher(max_evals=10, n_evaluators=2, **limits):
    d = Dispatcher(Limits(max_evals, **limits))
    for rank in range(1, n_evaluators + 1):
        d.join(rank, "h", 0.0)
    return d


def work(d):
    return {rank: [trial.id for trial in w.trials] for rank, w in d.take_work() if w.trials}


def events(d, kind):
    return [event for event in d.take_events() if event["e"] == kind]


def test_gives_idle_evaluators_one_trial_each():
    d = dispatcher(n_evaluators=3)

    d.propose(proposed(10, 11, 12, 13), 0.0)

    assert work(d) == {1: [0], 2: [1], 3: [2]}
    assert d.n_ahead == 1


def test_answers_an_outcome_with_the_next_trial_and_an_acknowledgement():
    d = dispatcher(n_evaluators=1)
    d.propose(proposed(10, 11), 0.0)
    ((_, first),) = d.take_work()

    d.report(1, [outcome(first.trials[0], 1)], 1.0)

    ((rank, answer),) = d.take_work()
    assert rank == 1
    assert list(answer.acknowledged) == [0]
    assert [trial.id for trial in answer.trials] == [1]


def test_never_starts_more_than_max_evals():
    d = dispatcher(max_evals=3, n_evaluators=5)

    d.propose(proposed(*range(20)), 0.0)

    assert sum(map(len, work(d).values())) == 3


def test_places_nothing_in_advance_while_evaluations_are_long():
    d = dispatcher(max_evals=100, n_evaluators=1)
    d.propose(proposed(*range(20)), 0.0)
    (trial,) = d.take_work()[0][1].trials

    d.report(1, [outcome(trial, 1, elapsed=0.6)], 1.0)

    assert work(d) == {1: [1]}


def test_places_a_trial_in_advance_while_evaluations_are_short():
    d = dispatcher(max_evals=100, n_evaluators=1)
    d.propose(proposed(*range(20)), 0.0)
    (trial,) = d.take_work()[0][1].trials

    d.report(1, [outcome(trial, 1, elapsed=0.02)], 1.0)

    assert work(d) == {1: [1, 2]}


def test_places_nothing_when_few_evaluations_remain():
    d = dispatcher(max_evals=4, n_evaluators=2)
    d.propose(proposed(*range(20)), 0.0)
    given_ = {rank: w.trials[0] for rank, w in d.take_work()}

    d.report(1, [outcome(given_[1], 1, elapsed=0.01)], 1.0)

    assert work(d) == {1: [2]}


def informed(n_told, *keys, replacing=(), ask=0, seconds=0.01):
    proposals = [Proposal(key, {"x": float(key)}) for key in keys]
    return Proposed(ask, n_told, (), proposals, replacing, seconds=seconds, informed=True)


def after_a_long_evaluation(**answer):
    """Return a dispatcher whose only evaluator has just ended its first trial, with another one ahead."""
    d = dispatcher(n_evaluators=1)
    d.propose(informed(0, 0, 1, **answer), 0.0)
    (trial,) = d.take_work()[0][1].trials
    d.take_news()
    d.report(1, [outcome(trial, 1, elapsed=100.0)], 100.0)
    return d


def test_after_a_long_evaluation_waits_for_what_knows_of_it():
    d = after_a_long_evaluation()

    assert work(d) == {}
    assert d.n_available == 0
    assert d.take_news().awaited
    d.propose(informed(1, 2, 3, replacing=[1], ask=1), 100.1)
    assert [trial.key for _, w in d.take_work() for trial in w.trials] == [2]
    assert d.n_available == 1


def test_an_answer_that_does_not_know_of_it_is_not_waited_for():
    d = after_a_long_evaluation()

    d.propose(informed(0, 2, replacing=[1], ask=1), 100.1)

    assert work(d) == {}


def test_waits_for_a_newer_proposal_no_longer_than_it_is_worth():
    d = after_a_long_evaluation()

    d.tick(100.4)
    before = work(d)
    d.tick(100.6)

    assert before == {}
    assert work(d) == {1: [1]}
    assert not d.take_news().awaited


@pytest.mark.parametrize("answer", [{"seconds": 3.0}, {"n_evaluators": 1000}])
def test_waits_for_no_newer_proposal_of_a_busy_search(answer):
    d = dispatcher(n_evaluators=answer.pop("n_evaluators", 1), max_evals=5000)
    d.propose(informed(0, *range(2000), **answer), 0.0)
    rank, first = d.take_work()[0]

    d.report(rank, [outcome(first.trials[0], rank, elapsed=100.0)], 100.0)

    assert list(work(d)) == [rank]


def test_does_not_wait_where_newer_proposals_are_no_better():
    d = dispatcher(n_evaluators=1)
    d.propose(proposed(0, 1), 0.0)
    (trial,) = d.take_work()[0][1].trials

    d.report(1, [outcome(trial, 1, elapsed=100.0)], 100.0)

    assert work(d) == {1: [1]}


def test_newer_proposals_replace_those_that_nobody_has_started():
    d = dispatcher(n_evaluators=1)
    d.propose(proposed(0, 1, 2), 0.0)
    d.take_news()

    d.propose(proposed(3, 4, replacing=(1, 2)), 1.0)

    assert d.take_news().dropped == [1, 2]
    assert d.n_ahead == 2


def test_a_proposal_equal_to_one_started_meanwhile_is_dropped():
    d = dispatcher(n_evaluators=2)
    d.propose(proposed(0, 1), 0.0)
    d.take_news()
    again = Proposed(1, 0, (), [Proposal(5, {"x": 1.0}), Proposal(6, {"x": 9.0})], replacing=(1,))

    d.propose(again, 1.0)

    assert d.take_news().dropped == [5]
    assert d.n_ahead == 1


def test_a_lost_evaluator_has_its_trial_tried_again_elsewhere():
    d = dispatcher(n_evaluators=2)
    d.propose(proposed(0, 1), 0.0)
    d.take_work()

    d.leave(1, 1.0, "killed")
    d.report(2, [outcome(Trial(1, 1, {}), 2)], 2.0)

    ((rank, answer),) = d.take_work()
    assert rank == 2
    assert [(trial.id, trial.attempt) for trial in answer.trials] == [(0, 1)]


def test_a_trial_is_lost_after_its_retries():
    d = dispatcher(max_evals=1, n_evaluators=3, retries=1)
    d.propose(proposed(0), 0.0)

    d.leave(1, 1.0, "killed")
    d.leave(2, 2.0, "killed")

    assert [(o.status, t.id) for o, t in d.take_outcomes()] == [(Status.LOST, 0)]
    assert d.over
    assert d.take_news().told == [(0, None)]


def test_only_the_running_trial_is_blamed_for_a_lost_evaluator():
    d = dispatcher(max_evals=100, n_evaluators=1, retries=0)
    d.propose(proposed(*range(20)), 0.0)
    (trial,) = d.take_work()[0][1].trials
    d.report(1, [outcome(trial, 1, elapsed=0.02)], 1.0)
    assert work(d) == {1: [1, 2]}
    d.take_outcomes()

    d.leave(1, 2.0, "killed")

    assert [t.id for o, t in d.take_outcomes()] == [1]
    assert [t.id for t in d.in_flight] == [2]


def test_a_silent_evaluator_gets_no_work_and_its_late_answer_counts_if_first():
    d = dispatcher(n_evaluators=1)
    d.propose(proposed(0, 1), 0.0)
    (trial,) = d.take_work()[0][1].trials

    d.tick(91.0)
    assert d.n_evaluators == 0
    d.report(1, [outcome(trial, 1, objective=7.0)], 100.0)

    assert d.budget.best.objective == 7.0
    assert work(d) == {1: [1]}


def test_a_late_answer_that_comes_second_is_acknowledged_and_ignored():
    d = dispatcher(n_evaluators=2)
    d.propose(proposed(0), 0.0)
    (trial,) = d.take_work()[0][1].trials
    d.alive(2, 80.0)
    d.tick(91.0)
    assert work(d) == {2: [0]}
    d.report(2, [outcome(trial, 2, objective=3.0)], 92.0)

    d.report(1, [outcome(trial, 1, objective=5.0)], 93.0)

    assert d.budget.n_finished == 1
    assert d.budget.best.objective == 3.0
    assert 0 in dict(d.take_work())[1].acknowledged


def test_the_slower_of_two_evaluators_of_one_trial_is_told_to_leave_it():
    d = dispatcher(n_evaluators=2)
    d.propose(proposed(0), 0.0)
    (trial,) = d.take_work()[0][1].trials
    d.alive(2, 80.0)
    d.tick(91.0)
    d.take_work()

    d.report(1, [outcome(trial, 1)], 92.0)

    assert dict(d.take_work())[2].cancelled == [0]


def test_recalls_placed_trials_when_others_are_idle():
    d = dispatcher(max_evals=100, n_evaluators=1)
    d.propose(proposed(0, 1, 2), 0.0)
    (trial,) = d.take_work()[0][1].trials
    d.report(1, [outcome(trial, 1, elapsed=0.01)], 1.0)
    d.take_work()
    d.join(2, "h", 1.0)

    d.tick(3.0)
    assert dict(d.take_work())[1].recalled == [2]
    d.returned(1, [2], 3.1)

    assert work(d) == {2: [2]}


def test_target_ends_the_search_and_cancels_what_is_running():
    d = dispatcher(n_evaluators=2, target=5.0)
    d.propose(proposed(0, 1), 0.0)
    trials = {rank: w.trials[0] for rank, w in d.take_work()}

    d.report(1, [outcome(trials[1], 1, objective=5.0)], 1.0)

    assert "target" in d.stopping
    assert dict(d.take_work())[2].cancelled == [1]
    assert not d.over
    d.report(2, [outcome(trials[2], 2, None, status=Status.CANCELLED)], 2.0)
    assert d.over


def test_patience_counts_evaluations_since_the_best():
    d = dispatcher(n_evaluators=1, patience=2)
    d.propose(proposed(0, 1, 2, 3), 0.0)

    for objective in (1.0, 0.5, 0.7):
        assert d.stopping is None
        (trial,) = d.take_work()[0][1].trials
        d.report(1, [outcome(trial, 1, objective)], 1.0)

    assert "no better objective in the last 2" in d.stopping


def test_stops_when_the_first_fifty_all_fail_and_says_why():
    d = dispatcher(max_evals=1000, n_evaluators=1)
    d.propose(proposed(*range(100)), 0.0)

    while d.stopping is None:
        (trial,) = d.take_work()[0][1].trials
        d.report(1, [outcome(trial, 1, None, elapsed=1.0)._replace(reason="ValueError: no\nmore")], 1.0)

    assert d.budget.n_failed == 50
    assert "ValueError: no (50 times)" in d.stopping


def test_an_exhausted_space_ends_the_search_after_its_last_outcome():
    d = dispatcher(n_evaluators=1)
    d.propose(proposed(0, exhausted=True), 0.0)
    (trial,) = d.take_work()[0][1].trials
    assert not d.over

    d.report(1, [outcome(trial, 1)], 1.0)

    assert d.over
    assert "exhausted" in d.stopping


def test_restored_trials_are_tried_first_and_count_in_the_budget():
    d = Dispatcher(Limits(3))
    d.restore([(outcome(Trial(0, 0, {}), 1), Trial(0, 0, {}))], [Trial(1, 4, {"x": 1.0})])
    d.join(1, "h", 0.0)
    d.propose(proposed(7, 8), 0.0)

    ((_, w),) = d.take_work()

    assert [(t.id, t.key, t.attempt) for t in w.trials] == [(1, 4, 1)]
    assert d.n_wanted == 1


def test_a_finished_run_is_over_at_once():
    d = Dispatcher(Limits(1))

    d.restore([(outcome(Trial(0, 0, {}), 1), Trial(0, 0, {}))], [])

    assert d.over


def test_a_smaller_budget_on_resume_drops_unfinished_trials():
    d = Dispatcher(Limits(2))
    d.restore([(outcome(Trial(0, 0, {}), 1), Trial(0, 0, {}))], [Trial(i, i, {}) for i in (1, 2, 3)])
    for rank in (1, 2, 3):
        d.join(rank, "h", 0.0)

    assert work(d) == {1: [1]}


def test_ranges():
    assert ranges([5, 1, 2, 3]) == [[1, 3], [5, 5]]
    assert ranges([]) == []


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    max_evals=st.integers(1, 60),
    n_evaluators=st.integers(1, 7),
    retries=st.integers(0, 2),
    elapsed=st.sampled_from([1e-6, 0.01, 0.2, 2.0]),
)
def test_every_trial_is_accounted_for_whatever_happens(seed, max_evals, n_evaluators, retries, elapsed):
    """Outcomes, losses, silences, late and double answers, recalls, in random order."""
    rng = np.random.default_rng(seed)
    d = Dispatcher(Limits(max_evals, retries=retries, max_failures=10**9), silence=5.0)
    world = _World(d, n_evaluators, rng, elapsed)

    for _ in range(4000):
        if d.over:
            break
        world.step()
        in_flight = [trial.id for trial in d.in_flight]
        assert d.budget.n_finished + len(in_flight) == d.n_started <= max_evals
        assert len(set(in_flight)) == len(in_flight)

    assert d.over
    finished = Counter(trial.id for _, trial in world.finished)
    assert finished == Counter(range(max_evals))


class _World:
    """Evaluators that answer, die, fall silent and come back, at random."""

    def __init__(self, d, n_evaluators, rng, elapsed):
        self.d, self.rng, self.elapsed = d, rng, elapsed
        self.now = 0.0
        self.key = 0
        self.held = {}
        self.muted = set()
        self.answered = []
        self.finished = []
        self.next_rank = n_evaluators + 1
        for rank in range(1, n_evaluators + 1):
            self.join(rank)

    def join(self, rank):
        self.held[rank] = deque()
        self.d.join(rank, f"host{rank % 2}", self.now)

    def step(self):
        self.now += self.rng.exponential(0.5)
        if self.d.n_ahead < 3:
            keys = range(self.key, self.key + int(self.rng.integers(1, 6)))
            self.key = keys.stop
            self.d.propose(proposed(*keys), self.now)
        self.deliver()
        rank = int(self.rng.choice(list(self.held)))
        action = self.rng.choice(["answer", "answer", "answer", "answer", "die", "mute", "tick", "alive", "late"])
        getattr(self, action)(rank)
        self.deliver()
        self.finished += self.d.take_outcomes()
        self.d.take_events()
        self.d.take_news()

    def deliver(self):
        for rank, w in self.d.take_work():
            if rank not in self.held:
                continue
            queue = self.held[rank]
            returned = [trial.id for trial in list(queue)[1:] if trial.id in w.recalled]
            gone = {*returned, *w.cancelled}
            self.held[rank] = deque([trial for trial in queue if trial.id not in gone] + list(w.trials))
            if returned:
                self.d.returned(rank, returned, self.now)

    def answer(self, rank):
        if rank in self.muted or not self.held[rank]:
            return
        trial = self.held[rank].popleft()
        y = None if self.rng.random() < 0.2 else float(self.rng.normal())
        message = outcome(trial, rank, y, self.elapsed)
        self.d.report(rank, [message], self.now)
        if self.rng.random() < 0.1:
            self.answered.append((rank, message))

    def die(self, rank):
        if self.rng.random() < 0.3:
            del self.held[rank]
            self.muted.discard(rank)
            self.d.leave(rank, self.now, "killed")
            self.join(self.next_rank)
            self.next_rank += 1

    def mute(self, rank):
        self.muted.add(rank)

    def tick(self, rank):
        self.d.tick(self.now)

    def alive(self, rank):
        self.muted.discard(rank)
        self.d.alive(rank, self.now)

    def late(self, rank):
        """An old outcome arrives a second time."""
        if self.answered:
            rank, message = self.answered.pop()
            self.d.report(rank, [message], self.now)


def test_a_budget_of_nothing_but_failures_counts_exactly():
    d = dispatcher(max_evals=7, n_evaluators=3)
    d.propose(proposed(*range(20)), 0.0)
    for _ in range(20):
        for rank, w in d.take_work():
            d.report(rank, [outcome(trial, rank, None) for trial in w.trials], 1.0)

    assert d.budget.n_failed == 7
    assert d.over


@pytest.mark.parametrize("n", [1, 3, 40])
def test_outcomes_in_one_message_are_all_taken(n):
    d = dispatcher(max_evals=n, n_evaluators=n)
    d.propose(proposed(*range(n)), 0.0)
    trials = [trial for _, w in d.take_work() for trial in w.trials]

    for rank, trial in enumerate(trials, start=1):
        d.report(rank, [outcome(trial, rank), outcome(trial, rank)], 1.0)

    assert d.budget.n_finished == n


# -- early stopping


def stopped(d):
    return {rank: list(w.stopped) for rank, w in d.take_work() if w.stopped}


def halved():
    """Return a dispatcher whose four evaluators run trials 0 to 3, of which the better half goes on."""
    d = Dispatcher(Limits(10), stopper=HalvingStopper(factor=2))
    for rank in range(1, 5):
        d.join(rank, "h", 0.0)
    d.propose(proposed(*range(4)), 0.0)
    d.take_work()
    return d


def test_a_trial_that_is_behind_is_told_to_stop():
    d = halved()

    d.progress(1, Progress(0, 0, 1, 5.0), 1.0)
    d.progress(2, Progress(1, 0, 1, 3.0), 1.0)

    assert stopped(d) == {2: [1]}
    (event,) = events(d, "stopped early")
    assert (event["trial"], event["rank"], event["step"], event["value"]) == (1, 2, 1, 3.0)


def test_a_trial_is_told_to_stop_once():
    d = halved()
    d.progress(1, Progress(0, 0, 1, 5.0), 1.0)
    d.progress(2, Progress(1, 0, 1, 3.0), 1.0)
    d.take_work()

    d.progress(2, Progress(1, 0, 2, 3.0), 1.0)

    assert stopped(d) == {}


def test_only_what_a_rank_holds_is_judged():
    d = halved()
    d.progress(1, Progress(0, 0, 1, 5.0), 1.0)

    d.progress(2, Progress(3, 0, 1, 3.0), 1.0)  # trial 3 is another's
    d.progress(9, Progress(1, 0, 1, 3.0), 1.0)  # nobody knows rank 9

    assert stopped(d) == {}


def test_without_a_stopper_nobody_is_stopped():
    d = dispatcher()
    d.propose(proposed(10, 11), 0.0)
    d.take_work()

    d.progress(1, Progress(0, 0, 1, -5.0), 1.0)

    assert stopped(d) == {}


# -- screening


def test_what_is_only_screened_is_never_the_best_and_a_promotion_names_it():
    d = Dispatcher(Limits(10, screening=True))
    d.join(1, "h", 0.0)
    configs = [{"x": 1.0, "num_epochs": 1}, {"x": 2.0, "num_epochs": 1}, {"x": 2.0, "parent": 11}]
    d.propose(proposed()._replace(proposals=[Proposal(10 + i, config) for i, config in enumerate(configs)]), 0.0)

    for objective in (5.0, 6.0, 3.0):
        ((_, given),) = d.take_work()
        d.report(1, [outcome(given.trials[0], 1, objective)], 1.0)

    assert d.budget.best.objective == 3.0
    assert [o.metrics for o, _ in d.take_outcomes()] == [{}, {}, {"parent": 1}]


def test_without_screening_a_hyperparameter_may_be_called_parent():
    d = dispatcher(n_evaluators=1)
    d.propose(proposed()._replace(proposals=[Proposal(10, {"parent": "oak"})]), 0.0)
    ((_, given),) = d.take_work()

    d.report(1, [outcome(given.trials[0], 1)], 1.0)

    assert [o.metrics for o, _ in d.take_outcomes()] == [{}]


# -- what is known already


def test_what_is_known_is_finished_without_an_evaluator():
    d = dispatcher(max_evals=3, n_evaluators=1)

    d.propose(proposed(10, 11, 12, 13)._replace(reused=[(11, 0.5), (13, 0.7)]), 0.0)

    assert work(d) == {1: [2]}  # ids 0 and 1 are of those that are known, and the budget is 3
    assert [(o.trial, o.status, o.objective) for o, _ in d.take_outcomes()] == [
        (0, Status.REUSED, 0.5),
        (1, Status.REUSED, 0.7),
    ]
    assert [trial.config["x"] for trial in d.in_flight] == [10.0]
    news = d.take_news()
    assert list(news.told) == [(11, 0.5), (13, 0.7)]
    assert set(news.started) == {10, 11, 13}


def test_what_is_known_is_dropped_beyond_the_budget():
    d = dispatcher(max_evals=2, n_evaluators=1)

    d.propose(proposed(10, 11, 12)._replace(reused=[(10, 0.5), (11, 0.6), (12, 0.7)]), 0.0)

    assert [o.trial for o, _ in d.take_outcomes()] == [0, 1]
    assert d.over
    assert 12 in d.take_news().dropped


def test_a_search_may_want_to_end():
    d = dispatcher(n_evaluators=1)
    d.propose(proposed(10), 0.0)
    ((_, given),) = d.take_work()

    d.propose(proposed(ask=1)._replace(stop="the policy has converged"), 1.0)
    d.report(1, [outcome(given.trials[0], 1)], 2.0)

    assert d.over
    assert d.stopping == "the policy has converged"
