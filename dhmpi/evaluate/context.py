"""What a run function can learn of the evaluation it runs in, through :func:`dhmpi.trial`."""

from __future__ import annotations

import functools
import hashlib
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dhmpi.load import load_problem

if TYPE_CHECKING:
    from dhmpi.problem import HpProblem


class TrialContext:
    """The evaluation that is running.

    Parameters
    ----------
    id : int, optional
        Number of the trial in the run; None outside an evaluation.
    attempt : int, default 0
        0 for the first try.
    run_seed : int, default 0
        Seed of the run, from which `seed` follows.
    directory : str, optional
        Where the evaluation may write; by default the working directory.
    deadline : float, optional
        Seconds since the epoch at which the evaluation is ended by force.
    report : callable, optional
        Takes step and value; by default they are dropped.
    should_stop : callable, optional
        Returns whether to stop; by default never.
    comm : communicator, optional
        Of the ranks that evaluate this trial together; None where one evaluates in a process of its own.
    problem : str, optional
        Name of the problem that is searched.
    watched : bool, default False
        Whether somebody judges by what is reported whether to stop.
    hosts : sequence of str, optional
        Host of each rank that evaluates this trial; by default one, here.
    on_abandon : callable, optional
        Takes what is to be called if the evaluation is abandoned; by default it is dropped.
    """

    __slots__ = (
        "_directory",
        "_hosts",
        "_on_abandon",
        "_problem",
        "_report",
        "_run_seed",
        "_should_stop",
        "attempt",
        "comm",
        "deadline",
        "id",
        "watched",
    )

    def __init__(
        self,
        id: int | None = None,  # noqa: A002 (the name that users read)
        attempt: int = 0,
        run_seed: int = 0,
        directory: str | None = None,
        deadline: float | None = None,
        report: Callable[[int, float], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
        comm: Any = None,
        problem: str = "",
        watched: bool = False,
        hosts: Sequence[str] = (),
        on_abandon: Callable[[Callable[[], Any]], None] | None = None,
    ) -> None:
        self.id = id
        self.attempt = attempt
        self.deadline = deadline
        self.comm = comm
        self.watched = watched
        self._run_seed = run_seed
        self._directory = directory
        self._hosts = tuple(hosts)
        self._on_abandon = on_abandon
        self._report = report
        self._should_stop = should_stop
        self._problem = problem

    @property
    def problem(self) -> HpProblem | None:
        """The problem that is searched, loaded once in each process; None outside an evaluation.

        Raises
        ------
        ProblemError
            If it cannot be loaded here.
        """
        return _load(self._problem) if self._problem else None

    @property
    def seed(self) -> int:
        """Seed for the random choices of this trial, 0 <= seed < 2**31; the same in each attempt."""
        text = f"{self._run_seed} {self.id}".encode()
        return int.from_bytes(hashlib.sha256(text).digest()[:4], "big") >> 1

    @property
    def directory(self) -> Path:
        """Directory of the evaluation, at its start the working directory."""
        return Path.cwd() if self._directory is None else Path(self._directory)

    @property
    def hosts(self) -> tuple[str, ...]:
        """Host of each rank that this trial is evaluated by, as many as there are such ranks."""
        return self._hosts or (socket.gethostname(),)

    def report(self, step: int, value: float) -> None:
        """Report an intermediate value of the objective (maximised), an epoch's validation accuracy for instance.

        At most 20 reports a second leave the process: of those in between only the latest, and always the last.

        Raises
        ------
        TypeError, ValueError
            If step is no integer, or value no number.
        """
        step, value = int(step), float(value)
        if self._report is not None:
            self._report(step, value)

    def should_stop(self) -> bool:
        """Return whether the run has no more use for this evaluation, so that the function had better return now.

        With ``--stopper``, in an evaluation of several ranks: all of them must call it, and have the same answer.
        """
        return self._should_stop is not None and self._should_stop()

    def on_abandon(self, callback: Callable[[], Any]) -> None:
        """Have something called, from another thread, if this evaluation of several ranks is abandoned.

        That is when another of its ranks has failed or died, at its time limit, and when nobody wants it any more.  The
        callback should end what the function may be waiting for where no exception reaches it: in operations of a
        library on a communicator of its own, for instance.
        """
        if self._on_abandon is not None:
            self._on_abandon(callback)


@functools.lru_cache(maxsize=1)
def _load(name: str) -> HpProblem:
    return load_problem(name)


_OUTSIDE = TrialContext()
_current = _OUTSIDE


def current() -> TrialContext:
    """Return the context of the evaluation that is running in this process; outside of one a neutral context."""
    return _current


def enter(context: TrialContext) -> None:
    """Make `context` the current one, in all threads of this process."""
    global _current
    _current = context


def leave() -> None:
    """Return to the neutral context."""
    enter(_OUTSIDE)
