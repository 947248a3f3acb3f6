"""``python -m dhmpi.nas.post RUN_DIRECTORY``: train the best networks of a search again, longer and several times.

It is a search over a fixed list, so everything that searches can is there: deaths are survived, ``--resume`` goes on,
time limits hold.  Start reading at :func:`configurations`; what is reported at the end is in
:mod:`dhmpi.nas.summary`.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dhmpi import journal
from dhmpi.errors import EXIT_BAD_INPUT, DhmpiError, OptionError, RunDirectoryError
from dhmpi.mpi.environment import launcher_rank
from dhmpi.options import SearchOptions, flag, option
from dhmpi.roles import program
from dhmpi.roles.program import Program
from dhmpi.rundirectory import described
from dhmpi.trials import EPOCHS, Config, Outcome, Status, Trial

if TYPE_CHECKING:
    from dhmpi.nas.problem import NaProblem

DESCRIPTION = (
    "Train the best architectures that a search has found again, longer and several times, on all ranks of one MPI "
    "launch; then compare them, on test data too, and perhaps combine them. A default that is not named is what the "
    "problem says with post_training."
)
TRAINING_AGAIN = "dhmpi.nas.run.post.run"
TOP = 50
PLACE = "post"
"""Directory of a post-training in the run directory of its search, unless it is said otherwise."""


@dataclass(frozen=True)
class PostOptions(SearchOptions):
    """Options of training the best networks again."""

    directory: str = option(
        "", "of the search; with --summary, of the training", "what to train", metavar="RUN_DIRECTORY", positional=True
    )
    problem: str = option(
        "", "package.module.name of the problem, or a .py file; by default that of the search", "what to train",
        metavar="NAME",
    )  # fmt: skip
    run: str = option(
        TRAINING_AGAIN, "package.module.name of the function that trains, or a .py file", "what to train",
        metavar="NAME",
    )  # fmt: skip
    top: int | None = option(
        None, f"best distinct architectures to train (default: {TOP})", "what to train", int, metavar="N"
    )
    repeat: int | None = option(
        None, "trainings of each, which differ in their seeds", "what to train", int, metavar="N"
    )
    epochs: int | None = option(None, "of a training, at most", "what to train", int, metavar="N")
    ensemble: int | None = option(
        None,
        "at the end combine trained networks into an ensemble, in so many steps: each adds the one that helps most",
        "what to report",
        int,
        metavar="SIZE",
    )
    summary: bool = option(False, "only report what is there: trains nothing, needs no MPI", "what to report")

    considered: int | None = None
    """Finished trials of the search that were looked at, first ones first: it may go on meanwhile."""

    def check(self) -> None:
        for name in ("top", "repeat", "epochs", "ensemble"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise OptionError(f"{flag(name)} must be >= 1, got {value}")
        if self.task_dirs != "all":
            raise OptionError(f"--task-dirs {self.task_dirs} would remove the networks that are trained: leave it out")
        super(PostOptions, self.completed()).check()

    def completed(self) -> PostOptions:
        """Return these options with what follows from the run directory.

        Raises
        ------
        RunDirectoryError
            If it holds no run, or no search.
        """
        directory = Path(self.directory).absolute()
        found = described(directory, "problem")
        if is_post_training(found) and not self.summary:
            raise RunDirectoryError(f"{directory} holds no search: what is there was trained by dhmpi.nas.post already")
        return dataclasses.replace(
            self,
            directory=str(directory),
            problem=self.problem or found["problem"],
            log_dir=self.log_dir or str(directory / PLACE),
        )


@dataclass(frozen=True)
class PostProgram(Program):
    """The entry point, whose options are completed by a run directory."""

    def parse(self, arguments: Sequence[str] | None = None) -> PostOptions:
        options = super().parse(arguments)
        assert isinstance(options, PostOptions)
        return options.completed()


class Candidate(NamedTuple):
    """A configuration of the search."""

    objective: float
    """Mean over all its evaluations."""
    trial: int
    """The first of them."""
    config: Config


def is_post_training(found: dict[str, Any]) -> bool:
    """Return whether a run.json is one of this program."""
    return "considered" in found.get("options", {})


def settle(options: PostOptions) -> PostOptions:
    """Return options that say exactly what is trained: as before if the training goes on, else by the problem.

    Raises
    ------
    DhmpiError
        If there is nothing to train, or a training that goes on would become another one.
    """
    place = Path(options.log_dir or "")
    before: dict[str, Any] = {}
    if (place / "run.json").is_file():
        found = described(place, "problem")
        if not is_post_training(found):
            raise RunDirectoryError(f"{place} holds another run, which trains nothing again: give another --log-dir")
        before = found["options"]
    post = load_problem(options.problem).post_training_settings
    settled = dataclasses.replace(
        options,
        top=options.top or before.get("top") or TOP,
        repeat=options.repeat or before.get("repeat") or post.repeat,
        epochs=options.epochs or before.get("epochs") or post.num_epochs,
        considered=before.get("considered") or len(_finished(options)),
    )
    for name, words in (("directory", "of the search in {}"), ("epochs", "over {} epochs")):
        if name in before and before[name] != getattr(settled, name):
            raise RunDirectoryError(
                f"{place} holds a training {words.format(before[name])}, not {words.format(getattr(settled, name))}: "
                f"give another --log-dir"
            )
    return dataclasses.replace(settled, max_evals=min(options.max_evals, len(configurations(settled))))


def spec(options: PostOptions) -> dict[str, Any]:
    """Return what the search over the list is built from."""
    return {"search": "listed", "run": options.run, "options": {"configs": configurations(options)}}


@functools.lru_cache(maxsize=1)
def configurations(options: PostOptions) -> list[Config]:
    """Return what is trained: the best architectures once, best first, then all of them again, and so on.

    Parameters
    ----------
    options : PostOptions
        Settled.

    Returns
    -------
    list of dict
        ``arch_seq`` and hyperparameters as in the search, ``num_epochs``, ``repeat`` from 0, and ``source``, the trial
        of the search.

    Raises
    ------
    DhmpiError
        If the search has found nothing, or was one of another problem.
    """
    from dhmpi.nas.run.post import ADDED  # late: brings numpy

    problem = load_problem(options.problem)
    recorded = described(Path(options.directory)).get("fingerprint")
    if recorded not in (None, problem.fingerprint()):
        raise RunDirectoryError(
            f"the space of {options.problem} is not the one that was searched in {options.directory}: its "
            f"architectures mean something else now"
        )
    for name in ADDED:
        if name in problem.columns:
            raise OptionError(
                f"training again sets {name!r} in configurations, but the problem has a hyperparameter of that name"
            )
    assert options.top is not None
    assert options.repeat is not None
    best = distinct(ranked(_finished(options)[: options.considered], problem), problem, options.top)
    if not best:
        raise RunDirectoryError(f"the search in {options.directory} has no finished evaluation with an objective yet")
    return [
        {**candidate.config, EPOCHS: options.epochs, **dict(zip(ADDED, (repeat, candidate.trial)))}
        for repeat in range(options.repeat)
        for candidate in best
    ]


def ranked(finished: Iterable[tuple[Outcome, Trial]], problem: NaProblem) -> list[Candidate]:
    """Return the configurations of a search, best first.

    What was evaluated several times has the mean of its objectives: the best of several would be a matter of luck.
    What was only screened does not count, unless there is nothing else.
    """
    found: dict[bool, dict[str, list[tuple[float, Trial]]]] = {True: defaultdict(list), False: defaultdict(list)}
    for outcome, trial in finished:
        if outcome.status is Status.DONE and outcome.objective is not None:
            screened = EPOCHS in trial.config and EPOCHS not in problem.space
            identity = json.dumps(_bare(trial.config, problem), sort_keys=True)
            found[screened][identity].append((outcome.objective, trial))
    candidates = [
        Candidate(
            sum(objective for objective, _ in evaluations) / len(evaluations),
            evaluations[0][1].id,
            _bare(evaluations[0][1].config, problem),
        )
        for evaluations in (found[False] or found[True]).values()
    ]
    return sorted(candidates, key=lambda candidate: (-candidate.objective, candidate.trial))


def distinct(candidates: Iterable[Candidate], problem: NaProblem, n: int) -> list[Candidate]:
    """Return the first `n` that build different networks."""
    found: dict[str, Candidate] = {}
    for candidate in candidates:
        if len(found) == n:
            break
        found.setdefault(problem.architecture_space.canonical(candidate.config["arch_seq"]), candidate)
    return list(found.values())


def load_problem(name: str) -> NaProblem:
    """Return the problem of a search of architectures.

    Raises
    ------
    ProblemError, OptionError
        If it cannot be loaded, or has no architectures.
    """
    from dhmpi import load  # late, as all that imports ConfigSpace
    from dhmpi.nas.problem import NaProblem

    problem = load.load_problem(name)
    if not isinstance(problem, NaProblem):
        raise OptionError(
            f"{name} has no architectures to be trained again: it is of type {type(problem).__name__}, and no NaProblem"
        )
    return problem


def conclude(options: PostOptions) -> int:
    """Report what came of the training; return the exit code."""
    from dhmpi.nas import summary  # late: numpy, matplotlib

    directory = Path(options.log_dir or "")
    try:
        recorded = described(directory).get("options", {})
        return summary.report(directory, load_problem(options.problem), recorded, options.ensemble)
    except DhmpiError as error:
        print(f"dhmpi.nas.post: error: {error}", file=sys.stderr, flush=True)
        return EXIT_BAD_INPUT


PROGRAM = PostProgram(
    "nas.post",
    PostOptions,
    DESCRIPTION,
    spec,
    fits=lambda options: False,
    with_master=True,
    settle=settle,
    conclude=conclude,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, or only report; return the exit code."""
    if "--summary" not in (sys.argv[1:] if arguments is None else arguments):
        return program.main(PROGRAM, arguments)
    if launcher_rank() > 0:
        return 0
    try:
        options = PROGRAM.parse(arguments)
        directory = Path(options.directory)
        if not is_post_training(described(directory)):
            directory = Path(options.log_dir or "")
    except DhmpiError as error:
        print(f"dhmpi.nas.post: error: {error}", file=sys.stderr, flush=True)
        return EXIT_BAD_INPUT
    return conclude(dataclasses.replace(options, log_dir=str(directory)))


def _finished(options: PostOptions) -> list[tuple[Outcome, Trial]]:
    return list(journal.replay(Path(options.directory) / "journal").finished.values())


def _bare(config: Config, problem: NaProblem) -> Config:
    return {name: config[name] for name in problem.columns if name in config}


if __name__ == "__main__":
    sys.exit(main())
