"""What a run must keep to when it goes on: its problem, its space, its seed.  Start at `Founding`."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

from dhmpi import __version__, warmstart
from dhmpi.budget import Budget
from dhmpi.errors import OptionError, RunDirectoryError
from dhmpi.journal import History
from dhmpi.mpi.protocol import ProblemInfo
from dhmpi.mpi.world import World
from dhmpi.options import SearchOptions
from dhmpi.results import ResultsTable, write_best
from dhmpi.rundirectory import RunDirectory, same_object, source_digest


class Founding:
    """The description of a run (run.json), which the first launch writes and the others must agree with.

    If it is missing, what the journal tells takes its place.

    Parameters
    ----------
    directory : RunDirectory
    history : History
        Of the run so far.
    options : SearchOptions
    program : str
        Module that was started.
    token : str
        Of this launch, in hexadecimal digits; a new run without ``--seed`` has the number for its seed.

    Attributes
    ----------
    seed : int
    hyperparameters : list of str
        Of a run that was described before.

    Raises
    ------
    DhmpiError
        If the directory holds a run of another kind, in words for the user.
    """

    def __init__(
        self, directory: RunDirectory, history: History, options: SearchOptions, program: str, token: str
    ) -> None:
        self._directory = directory
        self._options = options
        self._program = program
        self._program_before = history.headers[-1].get("program", program) if history.headers else program
        self._before = directory.described() or _as_recorded(history)
        self.hyperparameters: list[str] = self._before.get("hyperparameters", [])
        self._check_same_search()
        self._warm_start()
        self.seed = self._choose_seed(token)

    def _check_same_search(self) -> None:
        options, path = self._options, self._directory.path
        problem = self._before.get("problem")
        if problem is not None and not self._is_same(problem, options.problem):
            raise RunDirectoryError(
                f"{path} holds a run of problem {problem}, not {options.problem}: give another --log-dir"
            )
        screened = self._before.get("options", {}).get("screen_epochs") is not None
        if self._before and screened != options.limits.screening:
            how = "with" if screened else "without"
            raise RunDirectoryError(
                f"the run in {path} has begun {how} --screen-epochs: go on {how} it, since objectives of different "
                f"lengths cannot be compared"
            )

    def _warm_start(self) -> None:
        """Read earlier evaluations, once: a run that is resumed has its copy of them."""
        directory, paths = self._directory, getattr(self._options, "warm_start", ())
        if not paths or directory.warm_start.exists():
            return
        if not directory.fresh:
            raise OptionError(
                f"--warm-start cannot be added to the run in {directory.path}, which has begun without it: give "
                f"another --log-dir"
            )
        direction = self._options.warm_start_direction  # type: ignore[attr-defined]
        warmstart.collect(paths, direction, directory.warm_start)

    def _choose_seed(self, token: str) -> int:
        recorded, wanted = self._before.get("seed"), self._options.seed
        if wanted is None:
            return int(token, 16) if recorded is None else int(recorded)
        if recorded is not None and recorded != wanted:
            raise OptionError(f"--seed {wanted}, but the run in {self._directory.path} has seed {recorded}")
        return wanted

    def _is_same(self, before: str, now: str) -> bool:
        """Return whether two names, of the earlier launches and of this one, mean the same object."""
        return same_object(before, self._before.get("home"), now, str(Path.cwd()))

    def rebuild(self, history: History, budget: Budget) -> None:
        """Write anew what people read of a run that is over; some of it may have been deleted."""
        finished = history.finished.values()
        found = dict.fromkeys(name for _, trial in finished for name in trial.config)
        names = self.hyperparameters or list(found)
        ResultsTable(self._directory.results, names, finished).close()
        if budget.best is not None:
            write_best(self._directory.best, budget.best, budget.best_config or {})
        if not self._directory.description.exists():
            self._directory.describe({**self._before, "hyperparameters": names})

    def describe(self, info: ProblemInfo, world: World, now: float) -> list[str]:
        """Write the description anew, now that the problem is known; return what people should know, in sentences.

        Raises
        ------
        RunDirectoryError
            If the run has begun with another space.
        """
        options, before = self._options, self._before
        if before.get("fingerprint") not in (None, info.fingerprint):
            raise RunDirectoryError(
                f"the space of {options.problem} is not the one that the run in {self._directory.path} began with: "
                f"give another --log-dir"
            )
        source = source_digest(options.run)
        remarks = self._what_differs(source)
        self._directory.describe(
            {
                "version": __version__,
                "problem": options.problem,
                "function": options.run,
                "fingerprint": info.fingerprint,
                "hyperparameters": list(info.hyperparameters),
                "logarithmic": list(info.logarithmic),
                "run_source": source,
                "home": str(Path.cwd()),
                "seed": self.seed,
                "start": before.get("start", now),
                "options": dataclasses.asdict(options),
                "layout": dataclasses.asdict(world.layout),
                "library": world.library,
                "python": sys.version.split()[0],
            }
        )
        return remarks

    def _what_differs(self, source: str | None) -> list[str]:
        """Return what is allowed to differ from the last launch, but may be a mistake."""
        remarks, before, run = [], self._before, self._options.run
        function = before.get("function")
        if function is not None and not self._is_same(function, run):
            remarks.append(f"Warning: the run has evaluated {function} so far, and evaluates {run} from now on")
        elif before.get("run_source") not in (None, source):
            remarks.append(f"Warning: the source of {run} has changed since the run began")
        if self._program_before != self._program:
            remarks.append(f"Warning: {self._program_before} has searched so far, and {self._program} goes on")
        return remarks


def _as_recorded(history: History) -> dict[str, Any]:
    """Return what a journal tells of a run, empty if there is none."""
    if not history.headers:
        return {}
    first, last = history.headers[0], history.headers[-1]
    options = last.get("options") or {}
    seed = (first.get("options") or {}).get("seed")
    if seed is None and "token" in first:
        seed = int(first["token"], 16)
    known = {
        "version": last.get("version"),
        "problem": options.get("problem"),
        "function": options.get("run"),
        "seed": seed,
        "hyperparameters": last.get("hyperparameters"),
        "start": first.get("t"),
        "options": options,
        "layout": last.get("layout"),
    }
    return {name: value for name, value in known.items() if value is not None}
