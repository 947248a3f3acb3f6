"""Evaluations in CSV files: results.csv of dhmpi and of DeepHyper, and what Optuna exports.  Start at `read`."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

from dhmpi.errors import RunDirectoryError
from dhmpi.results import FIXED_COLUMNS, METRIC_PREFIX
from dhmpi.trials import Config

FAILED_OBJECTIVE = -3.4e38
"""DeepHyper's objectives of failed evaluations are below this (the smallest 32-bit number is -3.4028e38)."""
OPTUNA_COLUMNS = frozenset({"number", "state"})
OPTUNA_PREFIX = "params_"
DEEPHYPER_PREFIX = "p:"


class Kind(Enum):
    """Whose file it is."""

    DHMPI = "dhmpi"
    DEEPHYPER = "DeepHyper"
    OPTUNA = "Optuna"


class Table(NamedTuple):
    """A file, row by row."""

    kind: Kind
    columns: list[str]
    rows: list[dict[str, str]]
    names: list[str]
    """Of the hyperparameters."""
    configs: list[Config]
    """Of each row; what is empty is absent."""
    objectives: list[float | None]
    """Of each row; None where there is none, in any of its spellings."""


def read(path: Path) -> Table:
    """Return what a file holds.

    Raises
    ------
    RunDirectoryError
        If it cannot be read, is of another kind, or has no row.
    """
    try:
        with path.open(newline="") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise RunDirectoryError(f"cannot read {path}: {error}") from error
    return tabled(path, rows)


def tabled(path: Path, rows: list[dict[str, str]]) -> Table:
    """Return what rows mean, each with the text of every column.

    Raises
    ------
    RunDirectoryError
        If they are of another kind, or there are none.
    """
    if not rows:
        raise RunDirectoryError(f"{path} has no evaluations")
    columns = [column for column in rows[0] if column]
    if set(columns) >= OPTUNA_COLUMNS and any(column.startswith(OPTUNA_PREFIX) for column in columns):
        if "value" not in columns:
            raise RunDirectoryError(f"{path} has several objectives: dhmpi knows only one")
        kind, objective = Kind.OPTUNA, "value"
        found = [column for column in columns if column.startswith(OPTUNA_PREFIX)]
    else:
        objective = "objective"
        if objective not in columns:
            raise RunDirectoryError(f"{path} is no results.csv: it has no column objective, but {', '.join(columns)}")
        kind = Kind.DHMPI if set(FIXED_COLUMNS) <= set(columns) else Kind.DEEPHYPER
        known = {Kind.DHMPI: set(FIXED_COLUMNS)}.get(kind, {"objective", "elapsed_sec", "id", "job_id", "job_status"})
        found = [column for column in columns if column not in known and not column.startswith(METRIC_PREFIX)]
    parsed = {_name(column, kind): _parsed([row[column] for row in rows]) for column in found}
    configs = [{name: values[i] for name, values in parsed.items() if values[i] is not None} for i in range(len(rows))]
    return Table(kind, columns, rows, list(parsed), configs, [_objective(row[objective]) for row in rows])


def _name(column: str, kind: Kind) -> str:
    prefix = {Kind.OPTUNA: OPTUNA_PREFIX, Kind.DEEPHYPER: DEEPHYPER_PREFIX}.get(kind, "")
    return column.removeprefix(prefix)


def _objective(text: str) -> float | None:
    """Return an objective, None for a failed evaluation in any of its spellings."""
    try:
        number = float(text)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) and number > FAILED_OBJECTIVE else None


def _parsed(texts: Sequence[str | None]) -> list[Any]:
    """Return the values of a column: numbers only if all are, so that a category named 1 stays with its kind."""
    values = [None if text is None or text == "" else value(text) for text in texts]
    kinds = {type(value) for value in values if value is not None}
    if kinds == {int, float}:
        return [None if value is None else float(value) for value in values]
    if len(kinds) > 1:
        return [None if text is None or text == "" else text for text in texts]
    return values


def value(text: str) -> Any:
    """Return what a cell holds: a bool, a list, a number, or the text itself."""
    if text in ("True", "true"):
        return True
    if text in ("False", "false"):
        return False
    if text.startswith("["):
        try:
            return json.loads(text)
        except ValueError:
            return text
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
