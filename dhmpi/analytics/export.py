"""Evaluations for other programs: CSV, Parquet, DeepHyper's results.csv, an Optuna study."""

from __future__ import annotations

import csv
import datetime
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dhmpi.analytics.importance import columns_of
from dhmpi.csvfiles import FAILED_OBJECTIVE
from dhmpi.errors import DhmpiError, OptionError

if TYPE_CHECKING:
    from dhmpi.analytics.study import Study

DEEPHYPER_FAILED = float(np.finfo(np.float32).min)
"""Objective of a failed evaluation in DeepHyper's results.csv."""
assert DEEPHYPER_FAILED < FAILED_OBJECTIVE


def to_csv(study: Study, path: Path) -> None:
    """Write a row for each evaluation, as in results.csv."""
    rows = list(study.rows())
    _write_csv(path, rows, list(rows[0]) if rows else ["trial"])


def to_deephyper(study: Study, path: Path) -> None:
    """Write what DeepHyper would have written: hyperparameters, objective, elapsed_sec.

    There ``elapsed_sec`` is when an evaluation was known, in seconds since the search began, and the objective of a
    failed one is the smallest 32-bit number.
    """
    rows = []
    for i in range(len(study)):
        objective = study.objective[i]
        rows.append(
            {
                **{name: study.configs[i].get(name) for name in study.hyperparameters},
                "objective": DEEPHYPER_FAILED if np.isnan(objective) else float(objective),
                "elapsed_sec": round(float(study.seconds[i]), 6),
            }
        )
    _write_csv(path, rows, [*study.hyperparameters, "objective", "elapsed_sec"])


def to_parquet(study: Study, path: Path) -> None:
    """Write a Parquet file with the columns of results.csv.

    Raises
    ------
    DhmpiError
        If pyarrow is not installed.
    """
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        raise DhmpiError("Parquet files need pyarrow: pip install pyarrow") from None
    rows = list(study.rows())
    names = list(rows[0]) if rows else ["trial"]
    columns = {name: _plain([row[name] for row in rows]) for name in names}
    _guarded(path, lambda: parquet.write_table(pa.table(columns), path))


def _plain(values: Sequence[Any]) -> list[Any]:
    """Return the values of a column as one kind, text if they are of several."""
    kinds = {type(value) for value in values if value is not None}
    if kinds == {int, float}:
        return [None if value is None else float(value) for value in values]
    return list(values) if len(kinds) <= 1 else [None if value is None else str(value) for value in values]


def to_optuna(study: Study, path: Path) -> None:
    """Put the evaluations into a new Optuna study, in an SQLite file.

    Raises
    ------
    DhmpiError
        If Optuna is not installed, or the file holds a study of this name already.
    """
    try:
        import optuna
    except ImportError:
        raise DhmpiError("Optuna studies need optuna: pip install optuna") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    everything = list(range(len(study)))
    distributions: dict[str, Any] = {}
    for column in columns_of(study, everything):
        if column.categories:
            values = list(dict.fromkeys(_optuna_value(c.get(column.name)) for c in study.configs if column.name in c))
            if "[" in column.name:
                values = list(column.categories)
            distributions[column.name] = optuna.distributions.CategoricalDistribution(values)
            continue
        low, high = float(column.active[0]), float(column.active[-1])
        whole = all(isinstance(config[column.name], int) for config in study.configs if column.name in config)
        distributions[column.name] = (
            optuna.distributions.IntDistribution(int(low), int(high))
            if whole
            else optuna.distributions.FloatDistribution(low, high)
        )
    try:
        target = optuna.create_study(study_name=study.name, storage=f"sqlite:///{path}", direction="maximize")
    except optuna.exceptions.DuplicatedStudyError:
        raise OptionError(f"{path} already holds a study {study.name!r}: give another file") from None
    target.add_trials([_optuna_trial(optuna, study, i, distributions) for i in everything])


def _optuna_trial(optuna: Any, study: Study, i: int, distributions: dict[str, Any]) -> Any:
    params = {}
    for name in distributions:
        base, bracket, index = name.partition("[")
        value = study.configs[i].get(base)
        if value is None:
            continue
        params[name] = str(value[int(index[:-1])]) if bracket else _optuna_value(value)
    good = study.succeeded[i]
    return optuna.trial.FrozenTrial(
        number=i,
        trial_id=i,
        state=optuna.trial.TrialState.COMPLETE if good else optuna.trial.TrialState.FAIL,
        value=float(study.objective[i]) if good else None,
        datetime_start=_date(study.start[i]),
        datetime_complete=_date(study.end[i]) or datetime.datetime.fromtimestamp(0),
        params=params,
        distributions={name: distributions[name] for name in params},
        user_attrs={"trial": int(study.trial[i]), "status": study.status[i], **study.metrics[i]},
        system_attrs={},
        intermediate_values={},
    )


def _optuna_value(value: Any) -> Any:
    return value if isinstance(value, bool | int | float | str | None) else json.dumps(value)


def _date(seconds: float) -> datetime.datetime | None:
    return None if np.isnan(seconds) else datetime.datetime.fromtimestamp(seconds)


def _write_csv(path: Path, rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> None:
    def write() -> None:
        with path.open("w", newline="") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(columns)
            for row in rows:
                writer.writerow([json.dumps(v) if isinstance(v := row[name], list | dict) else v for name in columns])

    _guarded(path, write)


def _guarded(path: Path, write: Callable[[], None]) -> None:
    try:
        write()
    except OSError as error:
        raise OptionError(f"cannot write {path}: {error.strerror}") from error


FORMATS = {
    "csv": (to_csv, ".csv"),
    "parquet": (to_parquet, ".parquet"),
    "deephyper": (to_deephyper, ""),
    "optuna": (to_optuna, ".db"),
}
"""Formats by name: how they are written, and the end of a name that asks for them."""


def export(study: Study, path: Path, format_: str | None) -> str:
    """Write evaluations; return the name of the format.

    Raises
    ------
    DhmpiError
        If the format is unknown, or needs what is not installed, or the file cannot be written.
    """
    if format_ is None:
        found = [name for name, (_, suffix) in FORMATS.items() if suffix and path.suffix == suffix]
        if not found:
            raise OptionError(
                f"-o {path}: what is it to be? Give --format, or a name that ends in .csv, .parquet or .db"
            )
        format_ = found[0]
    if not len(study):
        raise OptionError(f"{study.path} has no finished evaluations to export")
    FORMATS[format_][0](study, path)
    return format_


def as_yaml(rows: Sequence[dict[str, Any]]) -> str:
    """Return rows as YAML: a list of mappings, their values as in JSON, which YAML includes."""
    lines = []
    for row in rows:
        for i, (name, value) in enumerate(row.items()):
            mark = "- " if i == 0 else "  "
            if isinstance(value, dict) and value:
                lines.append(f"{mark}{name}:")
                lines += [f"    {json.dumps(key)}: {json.dumps(item)}" for key, item in value.items()]
            else:
                lines.append(f"{mark}{name}: {json.dumps(value)}")
    return "\n".join(lines)
