"""What a run must keep to when it goes on: its problem, its space, its seed.  Start at `Founding`."""

from __future__ import annotations

import dataclasses
import sys

from dhmpi import __version__, warmstart
from dhmpi.errors import OptionError, RunDirectoryError
from dhmpi.mpi.protocol import ProblemInfo
from dhmpi.mpi.world import World
from dhmpi.options import SearchOptions
from dhmpi.rundirectory import RunDirectory, source_digest


class Founding:
    """The description of a run (run.json), which the first launch writes and the others must agree with.

    Parameters
    ----------
    directory : RunDirectory
    options : SearchOptions
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

    def __init__(self, directory: RunDirectory, options: SearchOptions, token: str) -> None:
        self._directory = directory
        self._options = options
        self._before = directory.described()
        self.hyperparameters: list[str] = self._before.get("hyperparameters", [])
        self._check_same_search()
        self._warm_start()
        self.seed = self._choose_seed(token)

    def _check_same_search(self) -> None:
        options, path = self._options, self._directory.path
        problem = self._before.get("problem")
        if problem is not None and problem != options.problem:
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
        self._directory.describe(
            {
                "version": __version__,
                "problem": options.problem,
                "function": options.run,
                "fingerprint": info.fingerprint,
                "hyperparameters": list(info.hyperparameters),
                "logarithmic": list(info.logarithmic),
                "run_source": source,
                "seed": self.seed,
                "start": before.get("start", now),
                "options": dataclasses.asdict(options),
                "layout": dataclasses.asdict(world.layout),
                "library": world.library,
                "python": sys.version.split()[0],
            }
        )
        if before.get("run_source") in (None, source):
            return []
        return [f"Warning: the source of {options.run} has changed since the run began"]
