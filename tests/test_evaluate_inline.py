"""Evaluating in the rank itself."""

import time
from pathlib import Path

import evaluate_functions
import pytest

import dhmpi
from dhmpi.errors import OptionError
from dhmpi.evaluate.inline import InlineEvaluator
from dhmpi.evaluate.process import EvaluationSpec, Finished, Loaded, Refused, Reported
from dhmpi.trials import Status, Trial


@pytest.fixture
def inline():
    def make(run):
        evaluator = InlineEvaluator(EvaluationSpec(f"evaluate_functions.{run}", Path("nowhere"), seed=3))
        evaluator.load()
        (event,) = evaluator.poll()
        assert isinstance(event, Loaded)
        return evaluator

    return make


def evaluate(evaluator, trial=0, attempt=0, **config):
    evaluator.start(Trial(trial, trial, config, attempt))
    *reports, finished = evaluator.poll()
    assert isinstance(finished, Finished)
    assert all(isinstance(report, Reported) for report in reports)
    return finished


def test_an_objective_comes_back_at_once(inline):
    finished = evaluate(inline("square"), trial=2, attempt=1, x=3)

    assert finished[:5] == (2, 1, Status.DONE, 9.0, {})
    assert abs(finished.start - time.time()) < 10
    assert finished.end == finished.start + finished.elapsed


@pytest.mark.parametrize(
    ("run", "words"), [("nan", "returned nan"), ("fail", "RuntimeError: it is broken"), ("leave", "sys.exit(3)")]
)
def test_a_failure_is_a_value(inline, run, words):
    finished = evaluate(inline(run))

    assert finished.status is Status.FAILED
    assert finished.objective is None
    assert words in finished.reason.splitlines()[0]
    assert dhmpi.trial().id is None


def test_an_interrupt_is_for_the_rank(inline):
    with pytest.raises(KeyboardInterrupt):
        evaluate(inline("interrupt"))


def test_many_are_evaluated_in_order(inline):
    finished = inline("square").evaluate_many([Trial(i, i, {"x": i}) for i in range(5)])

    assert [(one.trial, one.objective) for one in finished] == [(i, float(i * i)) for i in range(5)]


def test_the_function_cannot_change_the_trial(inline, monkeypatch):
    monkeypatch.setattr("evaluate_functions.square", lambda config: config.pop("x"))
    evaluator = inline("square")
    trial = Trial(0, 0, {"x": 1})

    evaluator.evaluate_many([trial])

    assert trial.config == {"x": 1}


def test_reports_are_events(inline, monkeypatch):
    def run(config):
        dhmpi.trial().report(1, 0.25)
        return float(dhmpi.trial().should_stop())

    monkeypatch.setattr("evaluate_functions.square", run)
    evaluator = inline("square")

    evaluator.start(Trial(4, 4, {}, 2))

    reported, finished = evaluator.poll()
    assert reported == Reported(4, 2, 1, 0.25)
    assert finished.objective == 0.0


def test_a_function_that_cannot_be_loaded_is_refused():
    evaluator = InlineEvaluator(EvaluationSpec("no_such_module.run", Path("nowhere"), seed=3))

    evaluator.load()

    (refused,) = evaluator.poll()
    assert isinstance(refused, Refused)
    assert "no_such_module" in refused.reason


def test_the_function_is_imported_with_the_threads_that_it_may_use(monkeypatch, tmp_path):
    (tmp_path / "reads_threads.py").write_text(
        "import os\nN = int(os.environ['OMP_NUM_THREADS'])\ndef run(config):\n    return N\n"
    )
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    monkeypatch.syspath_prepend(tmp_path)
    evaluator = InlineEvaluator(
        EvaluationSpec("reads_threads.run", Path("nowhere"), seed=3, environment={"OMP_NUM_THREADS": "2"})
    )

    evaluator.load()
    evaluator.start(Trial(0, 0, {}))

    _, finished = evaluator.poll()
    assert finished.objective == 2


def test_a_time_limit_is_refused(inline):
    with pytest.raises(OptionError, match="cannot be enforced with --evaluator inline"):
        InlineEvaluator(EvaluationSpec("m.run", Path("nowhere"), seed=3), timeout=5.0)
    with pytest.raises(OptionError, match="cannot be enforced with --evaluator inline"):
        inline("square").start(Trial(0, 0, {"x": 1}), 5.0)


def test_nothing_to_wait_for(inline):
    evaluator = inline("square")

    evaluator.cancel()
    evaluator.stop()
    evaluator.close()

    assert evaluator.fileno() is None
    assert evaluator.poll() == []


def test_a_function_is_prepared_before_its_first_evaluation():
    evaluator = InlineEvaluator(
        EvaluationSpec(
            "evaluate_functions.prepared", Path("nowhere"), 3, problem="dhmpi.benchmark.hps.polynome2.Problem"
        )
    )
    before = evaluate_functions.prepared.state["calls"]

    evaluator.load()
    evaluator.start(Trial(0, 0, {}))

    assert evaluator.poll()[-1].objective == before + 1
