"""Evaluating in the rank itself: for functions of microseconds, and for tests.

What the function does to the process it does to the rank: nothing is caught but exceptions, and no time limit holds.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from typing import Any

from dhmpi.errors import DhmpiError, OptionError
from dhmpi.evaluate import context, failure
from dhmpi.evaluate.interface import EvaluationSpec, Event, Finished, Loaded, Refused, Reported
from dhmpi.evaluate.loading import load_prepared
from dhmpi.evaluate.result import check
from dhmpi.trials import Config, Status, Trial


class InlineEvaluator:
    """Evaluates a trial as soon as it is started.

    Parameters
    ----------
    spec : EvaluationSpec
        Of which only run, problem and seed matter here.
    timeout : float, optional
        Time limit of an evaluation.

    Raises
    ------
    OptionError
        If there is a time limit.
    """

    def __init__(self, spec: EvaluationSpec, timeout: float | None = None) -> None:
        _refuse(timeout)
        self._spec = spec
        self._run: Callable[[Config], Any] | None = None
        self._events: list[Event] = []

    def load(self) -> None:
        """Import the run function; `Loaded` or `Refused` follows."""
        began = time.perf_counter()
        os.environ.update(self._spec.environment)  # numerical libraries look at it when they are imported
        try:
            self._run = load_prepared(self._spec.run, self._spec.problem)
        except DhmpiError as error:
            self._events.append(Refused(str(error)))
        else:
            self._events.append(Loaded(time.perf_counter() - began))

    def start(self, trial: Trial, timeout: float | None = None) -> None:
        """Evaluate a trial; return when it is done."""
        if timeout is not None:
            _refuse(timeout)
        self._events.append(self._evaluate(trial))

    def evaluate_many(self, trials: Iterable[Trial]) -> list[Finished]:
        """Evaluate trials one after another; reports are left for `poll`."""
        evaluate = self._evaluate
        return [evaluate(trial) for trial in trials]

    def poll(self) -> list[Event]:
        """Return what has happened since the last call."""
        events, self._events = self._events, []
        return events

    def fileno(self) -> None:
        """Return None: there is never anything to wait for."""

    def cancel(self) -> None:
        """Do nothing: no evaluation is running between calls."""

    def stop(self) -> None:
        """Do nothing: no evaluation is running between calls."""

    def close(self) -> None:
        """Do nothing: nothing was started."""

    def _evaluate(self, trial: Trial) -> Finished:
        run = self._run
        if run is None:
            raise RuntimeError("an evaluation was started before the run function was loaded")
        id_, attempt = trial.id, trial.attempt

        def report(step: int, value: float) -> None:
            self._events.append(Reported(id_, attempt, step, value))

        spec = self._spec
        context.enter(context.TrialContext(id_, attempt, spec.seed, report=report, problem=spec.problem))
        start = time.time()
        began = time.perf_counter()
        try:
            returned = run(dict(trial.config))  # whatever the function does to it
        except (Exception, SystemExit) as exception:
            status, reason = failure.status(exception), failure.describe(exception)
            elapsed = time.perf_counter() - began
        else:
            elapsed = time.perf_counter() - began
            try:
                objective, metrics = check(returned)
                return Finished(id_, attempt, Status.DONE, objective, metrics, start, start + elapsed, elapsed)
            except ValueError as error:
                status, reason = Status.FAILED, str(error)
        finally:
            context.leave()
        return Finished(id_, attempt, status, None, {}, start, start + elapsed, elapsed, reason)


def _refuse(timeout: float | None) -> None:
    if timeout is not None:
        raise OptionError(
            f"an evaluation time limit ({timeout:g} s) cannot be enforced with --evaluator inline: use process"
        )
