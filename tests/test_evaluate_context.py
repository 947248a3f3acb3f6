"""What a run function learns of its evaluation."""

import numpy as np
import pytest

import dhmpi
from dhmpi.evaluate import context
from dhmpi.evaluate.context import TrialContext


@pytest.fixture
def entered():
    yield context.enter
    context.leave()


def test_outside_an_evaluation_the_context_is_neutral(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trial = dhmpi.trial()

    trial.report(1, 0.5)

    assert (trial.id, trial.attempt, trial.deadline, trial.comm) == (None, 0, None, None)
    assert trial.directory == tmp_path
    assert trial.should_stop() is False
    assert 0 <= trial.seed < 2**31


def test_the_context_is_that_of_the_evaluation(entered, tmp_path):
    entered(TrialContext(3, 1, directory=str(tmp_path), deadline=12.5, comm="comm", should_stop=lambda: True))

    trial = dhmpi.trial()

    assert (trial.id, trial.attempt, trial.directory, trial.deadline, trial.comm) == (3, 1, tmp_path, 12.5, "comm")
    assert trial.should_stop() is True


def test_seeds_differ_between_trials_and_runs_not_between_attempts():
    seeds = [TrialContext(trial, run_seed=seed).seed for seed in range(20) for trial in range(20)]

    assert len(set(seeds)) == 400
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert TrialContext(1, attempt=0, run_seed=2).seed == TrialContext(1, attempt=3, run_seed=2).seed


def test_reports_are_plain_numbers():
    reported = []
    trial = TrialContext(0, report=lambda *report: reported.append(report))

    trial.report(np.int64(2), np.float32(0.5))

    assert reported == [(2, 0.5)]
    assert [type(value) for value in reported[0]] == [int, float]
    with pytest.raises((TypeError, ValueError)):
        trial.report(1, "high")


def test_the_problem_is_loaded_when_it_is_asked_for():
    inside = context.TrialContext(3, problem="dhmpi.benchmark.hps.polynome2.Problem")

    assert inside.problem.hyperparameter_names[0] == "e0"
    assert inside.problem is inside.problem


def test_there_is_no_problem_outside_an_evaluation():
    assert context.TrialContext().problem is None
