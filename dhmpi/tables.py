"""Rows as people and programs read them: aligned columns, CSV, JSON.

Quick enough for a hundred thousand rows, which tables with frames are not.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TextIO

from dhmpi.roles.progress import clock

Row = Mapping[str, Any]
DIGITS = 6
SHORT_DIGITS = 3
SHORT = frozenset({"seconds", "mean_seconds", "busy", "after", "share"})
"""Columns of measured things, of which nobody reads more digits."""


def aligned(rows: Sequence[Row], columns: Sequence[str], width: int | None = None) -> str:
    """Return rows as text, a line each below a line of titles.

    Parameters
    ----------
    rows : sequence of mappings
        Values by column; what is missing or None is a ``-``.
    columns : sequence of str
        Those to show, with ``_`` for spaces in titles.
    width : int, optional
        Longer lines are cut.

    Examples
    --------
    >>> print(aligned([{"trial": 3, "state": "done"}, {"trial": 12}], ["trial", "state"]))
    trial  state
        3  done
       12  -
    """
    digits = [SHORT_DIGITS if column in SHORT else DIGITS for column in columns]
    cells = [[text(row.get(column), n) for row in rows] for column, n in zip(columns, digits)]
    padded = []
    for i, column in enumerate(columns):
        title = column.replace("_", " ")
        longest = max(map(len, cells[i]), default=0)
        numbers = all(isinstance(row.get(column), int | float | None) for row in rows)
        size = max(len(title), longest)
        if i == len(columns) - 1 and not numbers:
            size = 0
        place = str.rjust if numbers else str.ljust
        padded.append([place(cell, size) for cell in [title, *cells[i]]])
    lines = map("  ".join, zip(*padded))
    return "\n".join((line if width is None else line[:width]).rstrip() for line in lines)


def text(value: Any, digits: int = DIGITS) -> str:
    """Return a value as a cell of a table shows it: short, and on one line.

    Parameters
    ----------
    value
    digits : int, default 6
        That are shown of a number with a fraction, without zeros in front.

    >>> text(0.98666666), text(None), text("a\\nb"), text({"x": 1, "y": 0.5})
    ('0.986667', '-', 'a b', 'x=1 y=0.5')
    """
    if value is None:
        return "-"
    if isinstance(value, bool | int):
        return str(value)
    if isinstance(value, float):
        return f"{value:.{digits}g}"
    if isinstance(value, Mapping):
        return " ".join(f"{name}={text(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(text, value)) + "]"
    return "".join(c if c.isprintable() else " " for c in str(value))


def as_csv(rows: Iterable[Row], columns: Sequence[str]) -> str:
    """Return rows as CSV with a header; lists and dicts are JSON, what is missing is empty."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_csv_cell(row.get(column)) for column in columns])
    return buffer.getvalue().rstrip("\n")


def _csv_cell(value: Any) -> Any:
    if isinstance(value, Mapping | list | tuple):
        return json.dumps(value)
    return value


def as_json(content: Any) -> str:
    """Return JSON, with null for numbers that are none."""
    return json.dumps(_finite(content), indent=2)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def add_formats(parser: argparse.ArgumentParser) -> None:
    """Give a command line the options that say how rows are shown."""
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help="for programs: everything that is known, times in seconds")
    how.add_argument("--csv", action="store_true", help="for spreadsheets")


def write(stream: TextIO, content: str) -> None:
    """Write text and a newline; a reader that has gone, as `head` does, ends the process quietly."""
    try:
        stream.write(content + "\n")
        stream.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # of what the end of the process would write
        sys.exit(0)


def terminal_width(stream: TextIO) -> int | None:
    """Return the width of the terminal that a stream is, None if it is none."""
    if not stream.isatty():
        return None
    try:
        return os.get_terminal_size(stream.fileno()).columns
    except OSError:
        return None


def moment(t: float | None) -> str | None:
    """Return a time as people here read it."""
    return None if t is None or t <= 0 else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(t))


def duration(seconds: float | None, digits: int = 0) -> str | None:
    """Return seconds as H:MM:SS, perhaps with decimals.

    >>> duration(3725.2), duration(59.96, digits=1)
    ('1:02:05', '0:01:00.0')
    """
    if seconds is None:
        return None
    rounded = round(max(0.0, seconds), digits)
    whole = math.floor(rounded)
    return clock(whole) + f"{rounded - whole:.{digits}f}"[1:]
