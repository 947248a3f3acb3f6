"""``python -m dhmpi.rerun RUN_DIRECTORY TRIAL``: repeat one trial of a run right here, to see what it does."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dhmpi import __version__, journal, rundirectory
from dhmpi.check import EXIT_FAILED, Parser, add_changes, evaluate, pairs, parse_change, print_table
from dhmpi.errors import EXIT_BAD_INPUT, DhmpiError, ProblemError, RunDirectoryError
from dhmpi.trials import Config, Outcome, Status, Trial

if TYPE_CHECKING:
    from rich.console import Console

    from dhmpi.problem import HpProblem

PROG = "python -m dhmpi.rerun"
DESCRIPTION = (
    "Repeat one trial of a run in the foreground: the configuration from its journal, the same seed, a temporary"
    " working directory; the run stays as it is. Exit code 0 if the function returned an objective, 1 if it failed, 2"
    " if there is nothing to repeat."
)


class Recorded(NamedTuple):
    """What a run knows of a trial."""

    trial: Trial
    outcome: Outcome | None
    """None if there is none yet."""
    holders: Sequence[int]
    """Ranks that had it last, if there is no outcome."""


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    result = Parser(prog=PROG, description=DESCRIPTION, allow_abbrev=False)
    result.add_argument("directory", metavar="RUN_DIRECTORY", type=Path)
    result.add_argument("trial", metavar="TRIAL", type=int, help="its number, as in results.csv")
    add_changes(result)
    result.add_argument("--version", action="version", version=f"dhmpi {__version__}")
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Repeat a trial; return the exit code."""
    try:
        options = parser().parse_args(arguments)
        described = rundirectory.described(options.directory, "problem", "function", "seed")
        recorded = find(options.directory, options.trial)
        config = recorded.trial.config
        if options.changes:
            from dhmpi.load import load_problem  # late, as all that imports ConfigSpace

            config = changed(load_problem(described["problem"]), config, options.changes)
        from dhmpi.evaluate.loading import load_prepared
        from dhmpi.mpi.teams import alone

        run = alone(load_prepared(described["function"], described["problem"], with_comm=True))
    except DhmpiError as error:
        print(f"dhmpi.rerun: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    from rich.console import Console

    console = Console()
    print_table(console, "Recorded", ("", ""), _history(recorded))
    print_table(console, "Configuration", ("", ""), pairs(config))
    same = config == recorded.trial.config
    return repeat(run, recorded, config, described["seed"], console, same, described["problem"])


def find(directory: Path, number: int) -> Recorded:
    """Return what the journal of a run knows of a trial.

    Raises
    ------
    RunDirectoryError
        If there is no run, or the run has no such trial.
    """
    history = journal.replay(directory / "journal")
    if number in history.finished:
        outcome, trial = history.finished[number]
        return Recorded(trial, outcome, ())
    if number in history.unfinished:
        return Recorded(history.unfinished[number], None, tuple(history.holders.get(number, ())))
    n_trials = len(history.finished) + len(history.unfinished)
    has = f"they are numbered 0 to {n_trials - 1}" if n_trials else "it has none yet"
    raise RunDirectoryError(f"the run in {directory} has no trial {number}: {has}")


def changed(problem: HpProblem, config: Config, changes: Sequence[str]) -> Config:
    """Return a configuration with other values, without what they make inactive.

    Parameters
    ----------
    problem : HpProblem
    config : dict
    changes : sequence of str
        ``name=value`` each.

    Raises
    ------
    DhmpiError
    """
    given = dict(parse_change(problem, change) for change in changes)
    config = problem.from_config(config)
    others = {name for name in config if name in problem.space and name not in given}
    hanging = {name for name in others if problem.space.parents_of[name]}
    kept = {**{name: value for name, value in config.items() if name not in hanging}, **given}
    completed = problem.complete(kept)
    for name in config:
        if name in hanging:
            try:
                completed = problem.complete({**kept, name: config[name]})
            except ProblemError:
                continue  # it hung on a value that is another now
            kept[name] = config[name]
    return completed


def repeat(
    run: Callable[[Config], Any],
    recorded: Recorded,
    config: Config,
    seed: int,
    console: Console,
    same: bool = True,
    problem: str = "",
) -> int:
    """Evaluate in a temporary directory, print what comes out and whether it is what was recorded.

    Parameters
    ----------
    run : callable
    recorded : Recorded
    config : dict
    seed : int
        Of the run, from which that of the trial follows.
    console : Console
    same : bool, default True
        Whether the configuration is the one of the trial, so that the objectives can be compared.
    problem : str, optional
        Name of the problem, for functions that ask for it.

    Returns
    -------
    int
        The exit code.
    """
    from dhmpi.evaluate.context import TrialContext, enter, leave

    trial = recorded.trial
    with _scratch() as directory:
        enter(TrialContext(trial.id, trial.attempt, seed, directory, problem=problem))
        try:
            objective = evaluate(run, config, console, "dhmpi.rerun")
        finally:
            leave()
    console.print(_verdict(recorded, objective, same), highlight=False, markup=False, soft_wrap=True)
    return EXIT_FAILED if objective is None else 0


@contextmanager
def _scratch() -> Iterator[str]:
    """Work in a temporary directory."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory(prefix="dhmpi-rerun-", ignore_cleanup_errors=True) as directory:
        os.chdir(directory)
        try:
            yield directory
        finally:
            os.chdir(before)


def _verdict(recorded: Recorded, objective: float | None, same: bool) -> str:
    """Return in a sentence how the repetition compares with the record."""
    outcome = recorded.outcome
    if not same:
        return "With other values than the trial's there is nothing to compare."
    if outcome is None:
        return "The run has no outcome to compare with."
    if outcome.objective is None or objective is None:
        was = f"was {outcome.status}" if outcome.objective is None else f"gave {outcome.objective!r}"
        now = "failed" if objective is None else f"gave {objective!r}"
        agrees = outcome.status is Status.FAILED and objective is None
        return f"The trial {was} in the run, and here it {now}{' too' if agrees else ''}."
    if objective == outcome.objective:
        return "The objective is the same as in the run."
    difference = objective - outcome.objective
    return f"The objective differs from the {outcome.objective!r} of the run by {difference:.3g}."


def _history(recorded: Recorded) -> list[tuple[str, str]]:
    """Return rows that say what the journal knows."""
    trial, outcome = recorded.trial, recorded.outcome
    rows = [("trial", str(trial.id)), ("attempt", str(trial.attempt if outcome is None else outcome.attempt))]
    if outcome is None:
        ranks = ", ".join(map(str, recorded.holders))
        return [*rows, ("status", "not finished"), ("rank", ranks or "none")]
    rows += [("status", str(outcome.status)), ("rank", str(outcome.rank)), ("host", outcome.host)]
    rows.append(("seconds", f"{outcome.elapsed:.3g}"))
    if outcome.objective is not None:
        rows.append(("objective", repr(outcome.objective)))
    rows += pairs(outcome.metrics)
    if outcome.reason:
        rows.append(("reason", outcome.reason))
    return rows


if __name__ == "__main__":
    sys.exit(main())
