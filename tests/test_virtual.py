"""Dispatcher, supply and search together, in virtual time."""

import numpy as np
import pytest

from dhmpi.budget import Limits
from dhmpi.problem import HpProblem
from dhmpi.roles.virtual import simulate
from dhmpi.search.model_based import ModelBasedSearch
from dhmpi.search.uniform import UniformSearch


@pytest.fixture
def problem():
    problem = HpProblem()
    for name in "xyz":
        problem.add_hyperparameter((-5.0, 5.0), name)
    return problem


def objective(config):
    return -sum(value**2 for value in config.values())


def lognormal(config, rng):
    return float(rng.lognormal(0.0, 0.5))


def test_a_thousand_evaluators_are_kept_busy(problem):
    run = simulate(UniformSearch(problem.space, 1), Limits(20_000), 1000, objective, lognormal)

    assert len(run.outcomes) == 20_000
    assert sorted(trial.id for _, trial in run.outcomes) == list(range(20_000))
    assert run.utilisation > 0.85  # the rest is the end, when fewer and fewer are left


def test_the_same_seed_gives_the_same_run(problem):
    runs = [
        simulate(
            ModelBasedSearch(problem.space, 3, n_evaluators=4, max_evals=60),
            Limits(60),
            4,
            objective,
            lognormal,
            seed=5,
        )
        for _ in range(2)
    ]

    assert runs[0].events == runs[1].events
    assert runs[0].outcomes == runs[1].outcomes


def test_a_model_beats_random_configurations(problem):
    best = {}
    for name, search in (
        ("model", ModelBasedSearch(problem.space, 1, n_evaluators=8, max_evals=120)),
        ("random", UniformSearch(problem.space, 1)),
    ):
        run = simulate(search, Limits(120), 8, objective, lognormal, seed=2)
        best[name] = max(outcome.objective for outcome, _ in run.outcomes)

    assert best["model"] > 0.1 * best["random"]


def test_evaluators_do_not_wait_for_a_slow_model(problem):
    """A fit of half an evaluation's length costs nothing but the beginning: its answer is ahead when it is wanted."""
    search = ModelBasedSearch(problem.space, 1, n_evaluators=8, max_evals=140, surrogate_model="ET")

    run = simulate(search, Limits(140), 8, objective, lognormal, ask_seconds=lambda n_told, n: 0.5)

    waited = [event["t"] for event in run.events if event["e"] == "placed" and event["trial"] > 8]
    assert len(waited) == 131
    assert run.utilisation > 0.85


@pytest.mark.parametrize("n_evaluators", [16, pytest.param(64, marks=pytest.mark.large)])
def test_a_model_is_used_as_soon_as_anything_is_known(problem, n_evaluators):
    """Long evaluations all begin before the first ends: what was proposed meanwhile must not keep the model waiting."""
    search = ModelBasedSearch(problem.space, 1, n_evaluators=n_evaluators, max_evals=10**6, surrogate_model="ET")

    run = simulate(
        search, Limits(3 * n_evaluators), n_evaluators, objective, lambda config, rng: float(rng.normal(60, 10))
    )

    started = [event["key"] for event in run.events if event["e"] == "placed"]
    last_blind = max(thought.asked.n for thought in run.thoughts if not thought.asked.n_told)
    assert search.n_fits > 0
    assert sum(thought.asked.n for thought in run.thoughts if not thought.asked.n_told) <= 2 * n_evaluators
    assert max(started) > last_blind  # some were proposed by the model


@pytest.mark.parametrize("n_evaluators", [1, 4])
def test_long_evaluations_begin_with_all_that_is_known(problem, n_evaluators):
    search = ModelBasedSearch(problem.space, 1, n_evaluators=n_evaluators, max_evals=30)

    run = simulate(
        search, Limits(30), n_evaluators, objective, lambda config, rng: float(rng.normal(60, 10)),
        ask_seconds=lambda n_told, n: 0.1,
    )  # fmt: skip

    told: list[int] = []  # of the ask that brought each key
    late, n_finished = [], 0
    for event in run.events:
        if event["e"] == "asked":
            told += [event["told"]] * event["n"]
        elif event["e"] == "finished":
            n_finished += 1
        elif event["e"] == "placed":
            late.append(n_finished - told[event["key"]])
    assert late[-20:] == [0] * 20
    assert run.waiting_seconds < 0.005 * run.busy_seconds


def test_evaluators_wait_for_no_answer_that_takes_longer_than_it_is_worth(problem):
    search = ModelBasedSearch(problem.space, 1, n_evaluators=1, max_evals=30)

    run = simulate(search, Limits(30), 1, objective, lambda config, rng: 60.0, ask_seconds=lambda n_told, n: 1.0)

    assert run.waiting_seconds - run.first_waiting_seconds < 1.0


def test_short_evaluations_are_placed_in_advance(problem):
    def short(config, rng):
        return 0.01

    run = simulate(UniformSearch(problem.space, 1), Limits(5000), 16, objective, short, latency=0.002)

    assert run.utilisation > 0.95


def test_failures_do_not_stop_the_search(problem):
    def sometimes(config):
        return None if config["x"] > 0 else objective(config)

    search = ModelBasedSearch(problem.space, 1, n_evaluators=4, max_evals=80)
    run = simulate(search, Limits(80), 4, sometimes, lognormal)

    assert len(run.outcomes) == 80
    late = [trial.config["x"] > 0 for _, trial in run.outcomes[40:]]
    assert np.mean(late) < 0.5


def test_a_finite_space_ends_with_a_sentence():
    problem = HpProblem()
    problem.add_hyperparameter((0, 9), "n")
    problem.add_hyperparameter(["a", "b", "c"], "letter")

    for search in (
        UniformSearch(problem.space, 1),
        ModelBasedSearch(problem.space, 1, n_evaluators=4, max_evals=1000),
    ):
        run = simulate(search, Limits(1000), 4, lambda config: float(config["n"]), lognormal)

        assert len({tuple(trial.config.items()) for _, trial in run.outcomes}) == len(run.outcomes) == 30
        assert "exhausted" in run.reason
