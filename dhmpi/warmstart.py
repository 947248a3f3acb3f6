"""Evaluations of earlier runs that a search learns from before its own.

The first master of a run reads them (`collect`) and keeps a copy in the run directory, which the search, a resumed run
and a replay read (`trials`).  Which of them fit the space is the business of `dhmpi.search.foreign`.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dhmpi import csvfiles, runs
from dhmpi.budget import objective_for_search
from dhmpi.csvfiles import Kind
from dhmpi.errors import OptionError, RunDirectoryError
from dhmpi.journal import History
from dhmpi.trials import EPOCHS, PARENT, Config, Outcome, Status, Trial

Evaluation = tuple[Config, float | None]
"""A configuration and its objective, maximised; None if it failed."""


def collect(paths: Sequence[str], direction: str | None, copy: Path | None = None) -> list[Evaluation]:
    """Return the evaluations that files hold, and keep a copy of them.

    Parameters
    ----------
    paths : sequence of str
        Each a run directory, a file of a journal, such a copy, a results.csv of dhmpi or DeepHyper, or an export of
        Optuna.
    direction : {"maximize", "minimize"} or None
        Of the objectives in them; None: maximised, and refused for Optuna, whose exports do not say it.
    copy : Path, optional
        File to write.

    Raises
    ------
    DhmpiError
        If one cannot be read or holds nothing of use, or the copy cannot be written.
    """
    found = []
    for path in paths:
        evaluations = list(_read(Path(path), direction))
        if not evaluations:
            raise OptionError(f"--warm-start {path} has no finished evaluations")
        found += evaluations
    if direction == "minimize":
        found = [(config, None if objective is None else -objective) for config, objective in found]
    if copy is not None:
        _write(copy, found)
    return found


def trials(copy: Path) -> list[Evaluation]:
    """Return what `collect` has written.

    Raises
    ------
    RunDirectoryError
        If it cannot be read.
    """
    try:
        lines = [json.loads(line) for line in copy.read_text().splitlines()]
        return [(line["config"], line["objective"]) for line in lines]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunDirectoryError(f"cannot read {copy}: {error}") from error


def _write(copy: Path, found: Sequence[Evaluation]) -> None:
    text = "".join(json.dumps({"config": config, "objective": objective}) + "\n" for config, objective in found)
    aside = copy.with_name(f".{copy.name}.{os.getpid()}")
    try:
        aside.write_text(text)
        aside.replace(copy)
    except OSError as error:
        raise RunDirectoryError(f"cannot write {copy}: {error.strerror}") from error


def _read(path: Path, direction: str | None) -> Iterator[Evaluation]:
    """Yield the finished evaluations of one file or directory."""
    if path.is_dir() and not runs.is_run(path) and (path / "results.csv").is_file():
        path = path / "results.csv"
    try:
        if path.is_dir():
            yield from _of_history(runs.opened(path).history)
        elif path.suffix == ".jsonl":
            yield from _of_lines(path)
        elif path.exists():
            yield from _of_table(path, csvfiles.read(path), direction)
        else:
            raise RunDirectoryError("there is no such file or directory")
    except RunDirectoryError as error:
        raise OptionError(f"--warm-start {path}: {error}") from error


def _of_history(history: History) -> Iterator[Evaluation]:
    for outcome, trial in history.finished.values():
        yield from _of_outcome(outcome, trial)


def _of_outcome(outcome: Outcome, trial: Trial) -> Iterator[Evaluation]:
    config = {name: value for name, value in trial.config.items() if name != PARENT}
    if outcome.status is not Status.LOST and EPOCHS not in config:  # lost with its rank, or only screened
        yield config, objective_for_search(outcome)


def _of_lines(path: Path) -> Iterator[Evaluation]:
    """Read a file of a journal, or the copy of another run."""
    history = History()
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RunDirectoryError(f"it cannot be read: {error}") from error
    for number, line in enumerate(lines, start=1):
        try:
            event = json.loads(line)
            if "e" in event:
                history.apply(event)
            else:
                yield dict(event["config"]), _objective(event["objective"])
        except (ValueError, KeyError, TypeError) as error:
            if number == len(lines):
                break  # a torn last line is normal
            raise RunDirectoryError(f"line {number} is none of a journal ({error})") from error
    yield from _of_history(history)


def _objective(value: Any) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def _of_table(path: Path, table: csvfiles.Table, direction: str | None) -> Iterator[Evaluation]:
    if table.kind is Kind.OPTUNA and direction is None:
        raise RunDirectoryError(
            "an export of Optuna does not say whether its values were to be large or small: give "
            "--warm-start-direction maximize or minimize"
        )
    for row, config, objective in zip(table.rows, table.configs, table.objectives):
        if table.kind is Kind.OPTUNA and row["state"] not in ("COMPLETE", "FAIL"):
            continue  # pruned: the value is one on the way
        if table.kind is Kind.DHMPI and (row["status"] == Status.LOST or EPOCHS in config):
            continue
        failed = table.kind is Kind.OPTUNA and row["state"] == "FAIL"
        yield config, None if failed else objective
