"""What users read: results.csv, a row for each finished trial, and best.json.

Both are rebuilt from the journal at every start and never read back.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import orjson

from dhmpi.errors import RunDirectoryError
from dhmpi.trials import Config, Outcome, Trial

FIXED_COLUMNS = ("trial", "attempt", "status", "objective", "rank", "host", "start", "end", "elapsed_sec")
METRIC_PREFIX = "m:"
_NUMBERS = frozenset({float, int, type(None)})
_QUOTED = frozenset(',"\r\n')


class ResultsTable:
    """Writes results.csv.

    Columns: `FIXED_COLUMNS`, the hyperparameters under their own names, then metrics as ``m:<name>`` in the order in
    which they first appeared.  An inactive hyperparameter, a metric that was not returned and the objective of a failed
    trial are empty.  A list, such as the choices of an architecture (``arch_seq``), is JSON.

    Parameters
    ----------
    path : Path
    hyperparameters : sequence of str
    rows : iterable of (Outcome, Trial)
        Trials that have finished before.

    Raises
    ------
    RunDirectoryError
        If the file cannot be written; also later.
    """

    def __init__(self, path: Path, hyperparameters: Sequence[str], rows: Iterable[tuple[Outcome, Trial]] = ()) -> None:
        self.path = path
        self._hyperparameters = list(hyperparameters)
        self._metrics: dict[str, None] = {}
        self._buffer = io.StringIO()
        self._writer = csv.writer(self._buffer, lineterminator="\n")
        rows = list(rows)
        for outcome, _ in rows:
            self._metrics.update(dict.fromkeys(outcome.metrics))
        self._fd = -1
        self._rewrite(b"")
        self.add(rows)

    def add(self, rows: Iterable[tuple[Outcome, Trial]]) -> None:
        """Append finished trials; a new metric rewrites the file with one more column."""
        rows = list(rows)
        new = [name for outcome, _ in rows for name in outcome.metrics if name not in self._metrics]
        if new:
            self._metrics.update(dict.fromkeys(new))
            self._widen()
        self._append(b"".join([self._line(outcome, trial.config) for outcome, trial in rows]))

    def close(self) -> None:
        os.close(self._fd)

    def _line(self, outcome: Outcome, config: Config) -> bytes:
        """Return a row of the table.

        Numbers are written by orjson, in a fraction of the time: a list of numbers is the same in JSON and in CSV,
        except for those that are missing.
        """
        trial, attempt, status, objective, metrics, rank, host, start, end, elapsed, _ = outcome
        values = [round(start, 6), round(end, 6), round(elapsed, 6), *map(config.get, self._hyperparameters)]
        if self._metrics:
            values += map(metrics.get, self._metrics)
        if _NUMBERS.issuperset(map(type, values)) and _QUOTED.isdisjoint(host):
            head = f"{trial},{attempt},{status.value},{'' if objective is None else objective},{rank},{host},".encode()
            try:
                return head + orjson.dumps(values)[1:-1].replace(b"null", b"") + b"\n"
            except TypeError:  # an integer of more than 64 bits
                pass
        values = [json.dumps(value) if type(value) is list else value for value in values]
        self._writer.writerow([trial, attempt, status.value, objective, rank, host, *values])
        return self._take()

    def _header(self) -> list[str]:
        return [*FIXED_COLUMNS, *self._hyperparameters, *(METRIC_PREFIX + name for name in self._metrics)]

    def _widen(self) -> None:
        with self.path.open(newline="") as stream:
            reader = csv.reader(stream)
            next(reader)
            width = len(self._header())
            for row in reader:
                self._writer.writerow(row + [""] * (width - len(row)))
        self._rewrite(self._take())

    def _rewrite(self, body: bytes) -> None:
        self._writer.writerow(self._header())
        try:
            replace(self.path, self._take() + body)
            if self._fd >= 0:
                os.close(self._fd)
            self._fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW)
        except OSError as error:
            raise self._failure(error) from error

    def _append(self, body: bytes) -> None:
        view = memoryview(body)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError as error:
            raise self._failure(error) from error

    def _take(self) -> bytes:
        body = self._buffer.getvalue().encode()
        self._buffer.seek(0)
        self._buffer.truncate()
        return body

    def _failure(self, error: OSError) -> RunDirectoryError:
        return RunDirectoryError(f"cannot write {self.path}: {error.strerror}; the journal has everything")


def write_json(path: Path, content: Any) -> None:
    """Write a small JSON file at once or not at all.

    Raises
    ------
    RunDirectoryError
        If it cannot be written.
    """
    try:
        replace(path, json.dumps(content, indent=2).encode() + b"\n")
    except OSError as error:
        raise RunDirectoryError(f"cannot write {path}: {error.strerror}") from error


def replace(path: Path, content: bytes) -> None:
    """Write a file at once or not at all, and through no symbolic link that somebody has put there."""
    aside = path.with_name(path.name + ".new")
    aside.unlink(missing_ok=True)
    fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    with os.fdopen(fd, "wb") as stream:
        stream.write(content)
    aside.replace(path)


def write_best(path: Path, outcome: Outcome, config: Config) -> None:
    """Write best.json: the best configuration so far, with its trial, objective and metrics."""
    write_json(
        path,
        {
            "trial": outcome.trial,
            "objective": outcome.objective,
            "config": config,
            "metrics": outcome.metrics,
            "elapsed_sec": round(outcome.elapsed, 6),
        },
    )
