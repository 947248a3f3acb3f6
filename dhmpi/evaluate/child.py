"""The resident child: imports the run function once, then evaluates one trial after another.

``python -m dhmpi.evaluate.child FD_IN FD_OUT`` is started by the keeper.  User code runs here and may do anything; what
it does to working directory, output and signals is undone between evaluations as far as that is possible.
"""

from __future__ import annotations

import os
import select
import shutil
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from dhmpi import chaos, frames, platform
from dhmpi.errors import DhmpiError
from dhmpi.evaluate import context, failure
from dhmpi.evaluate.link import EXIT_MUTE
from dhmpi.evaluate.loading import load_prepared
from dhmpi.evaluate.reports import Reports
from dhmpi.evaluate.result import check
from dhmpi.evaluate.surroundings import Surroundings, empty, make_directory


class _Link:
    """The pipes to the keeper, and through it to the rank."""

    def __init__(self, fd_in: int, fd_out: int) -> None:
        for fd in (fd_in, fd_out):
            os.set_inheritable(fd, False)
        self._out = fd_out
        self._reader = frames.Reader(fd_in)
        self._inbox: deque[dict[str, Any]] = deque()
        self._waiting = select.poll()
        self._waiting.register(fd_in, select.POLLIN)

    def send(self, **message: Any) -> None:
        """Send a message to the rank; without a keeper there is nothing left to do."""
        try:
            frames.write(self._out, message)
        except OSError:
            os._exit(EXIT_MUTE)

    def receive(self) -> dict[str, Any] | None:
        """Wait for the next message; None when the keeper wants this process to leave."""
        while not self._inbox:
            if self._reader.closed:
                return None
            self._inbox += self._reader.read()
        return self._inbox.popleft()

    def stopped(self, trial: int, attempt: int) -> bool:
        """Return whether a message asks this evaluation to stop."""
        if not self._reader.closed and self._waiting.poll(0):
            self._inbox += self._reader.read()
        asked = {"do": "stop", "trial": trial, "attempt": attempt}
        return asked in self._inbox


def main() -> None:
    """Do what the rank says until the keeper closes the pipe."""
    link = _Link(int(sys.argv[1]), int(sys.argv[2]))
    del sys.argv[1:]  # the user's modules may read it
    surroundings = Surroundings()
    run: Callable[..., Any] | None = None
    common: dict[str, Any] = {}
    weigh = False
    while (message := link.receive()) is not None:
        do = message["do"]
        if do == "load":
            common, weigh = message["common"], message["weigh"]
            run = _load(message["run"], common["problem"], link, surroundings)
        elif do == "evaluate" and run is not None:
            answer = _evaluate(run, message, common, link, surroundings)
            if weigh:
                answer["rss_mb"] = platform.rss_mb(os.getpid())
            link.send(event="finished", trial=message["trial"], attempt=message["attempt"], **answer)
            if message["scratch"]:
                empty(message["directory"])
        elif do == "remove":
            shutil.rmtree(message["directory"], ignore_errors=True)


def _load(name: str, problem: str, link: _Link, surroundings: Surroundings) -> Callable[..., Any] | None:
    began = time.perf_counter()
    try:
        run = load_prepared(name, problem)
    except DhmpiError as error:
        link.send(event="refused", reason=str(error))
        return None
    except BaseException as exception:  # of the user's module, sys.exit for instance
        link.send(event="refused", reason=f"{name} cannot be imported: {failure.describe(exception)}")
        return None
    surroundings.restore()
    link.send(event="loaded", seconds=time.perf_counter() - began)
    return run


def _evaluate(
    run: Callable[..., Any],
    message: dict[str, Any],
    common: dict[str, Any],
    link: _Link,
    surroundings: Surroundings,
) -> dict[str, Any]:
    """Evaluate one trial; return what came of it as plain values.

    What is common to all trials of a run goes into their contexts.
    """
    trial, attempt, timeout, directory = (message[key] for key in ("trial", "attempt", "timeout", "directory"))
    reports = Reports(
        lambda step, value: link.send(event="report", trial=trial, attempt=attempt, step=step, value=value)
    )

    def should_stop() -> bool:
        reports.flush()
        return link.stopped(trial, attempt)

    start = time.time()
    deadline = None if timeout is None else start + timeout
    answer: dict[str, Any] = {"status": "failed", "objective": None, "metrics": {}, "reason": ""}
    began = time.perf_counter()
    try:
        make_directory(directory, message["scratch"])
        os.chdir(directory)
    except OSError as error:
        answer["reason"] = f"the directory {directory} of the evaluation cannot be used: {error.strerror or error}"
    else:
        here = context.TrialContext(
            trial,
            attempt,
            directory=directory,
            deadline=deadline,
            report=reports.take,
            should_stop=should_stop,
            **common,
        )
        context.enter(here)
        began = time.perf_counter()
        kind, factor = message.get("fault") or ("", 1.0)
        try:
            chaos.strike(kind)
            returned = run(message["config"])
            if kind == "slow":
                time.sleep((factor - 1) * (time.perf_counter() - began))
        except BaseException as exception:  # whatever it is, it is an outcome
            answer["status"], answer["reason"] = failure.status(exception).value, failure.describe(exception)
        else:
            answer["elapsed"] = time.perf_counter() - began
            try:
                answer["objective"], answer["metrics"] = check(returned)
                answer["status"] = "done"
            except ValueError as error:
                answer["reason"] = str(error)
        context.leave()
    answer.setdefault("elapsed", time.perf_counter() - began)
    surroundings.restore()
    reports.flush()
    return {**answer, "start": start, "end": start + answer["elapsed"]}


if __name__ == "__main__":
    main()
