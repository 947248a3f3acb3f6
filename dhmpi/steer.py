"""``python -m dhmpi.steer RUN ...``: change a run while it goes on: more evaluations, another end, points, a pause.

Writes orders into the inbox of the run directory, where the master finds them, and prints its answers
(:mod:`dhmpi.steering`).  Works on any machine that sees the run directory.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import getpass
import json
import math
import os
import socket
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dhmpi import __version__, journal, rundirectory, runs
from dhmpi.check import Parser
from dhmpi.errors import EXIT_BAD_INPUT, DhmpiError, OptionError, RunDirectoryError
from dhmpi.results import FIXED_COLUMNS, METRIC_PREFIX
from dhmpi.steering import ANSWERS, INBOX, MOST_BYTES, Action, Order, made, opened, write_at_once

PROG = "python -m dhmpi.steer"
DESCRIPTION = (
    "Change a run while it goes on. The master looks for orders once a second; each is put on record in the journal,"
    " and answered. Exit code 0 if all was done, 1 if something was refused, 2 if there is no run that goes on, 3 if"
    " there is no answer yet."
)
EXIT_REFUSED = 1
EXIT_UNANSWERED = 3
WAIT = 10.0
"""Seconds to wait for an answer."""
LOOK = 0.05
"""Seconds between looks for an answer."""
NONE = "none"


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    result = Parser(prog=PROG, description=DESCRIPTION, allow_abbrev=False)
    result.add_argument("run", metavar="RUN", type=Path, help="a run directory")
    result.add_argument("--version", action="version", version=f"dhmpi {__version__}")
    waiting = Parser(add_help=False)
    group = waiting.add_mutually_exclusive_group()
    group.add_argument(
        "--wait", type=float, default=WAIT, metavar="SECONDS", help=f"for the answer, at most (default: {WAIT:g})"
    )
    group.add_argument("--no-wait", action="store_true", help="order, and leave")
    what = result.add_subparsers(dest="what", metavar="{add,change,pause,resume,stop}", required=True)

    part = what.add_parser("add", parents=[waiting], help="evaluate points next, before what the search proposes")
    part.add_argument("values", metavar="NAME=VALUE", nargs="*", help="of one point, a value for each hyperparameter")
    part.add_argument(
        "--file",
        type=Path,
        metavar="FILE",
        help="points from a .json file (an object or a list of them) or a .csv file (a row each, such as results.csv)",
    )

    part = what.add_parser("change", parents=[waiting], help="change how long the run goes on")
    part.add_argument("--max-evals", type=int, metavar="N", help="evaluations in all; also holds after --resume")
    end = part.add_mutually_exclusive_group()
    end.add_argument(
        "--time-limit-minutes",
        metavar="MINUTES",
        help=f"as of the search, since the launch began; {NONE}: no other limit than that of the scheduler's job",
    )
    end.add_argument("--minutes-left", type=float, metavar="MINUTES", help="the same from now on")
    end.add_argument("--deadline", metavar="TIME", help="the same as a local time, 2030-12-31T18:00, or epoch seconds")

    what.add_parser("pause", parents=[waiting], help="start nothing new for now; what runs may finish")
    what.add_parser("resume", parents=[waiting], help="go on after a pause")
    what.add_parser("stop", parents=[waiting], help="drain and end, as at the time limit; --resume continues the run")
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Steer; return the exit code."""
    try:
        options = parser().parse_args(arguments)
        if not 0 <= options.wait < math.inf:
            raise OptionError(f"--wait must be >= 0, got {options.wait:g}")
        _check_goes_on(options.run)
        orders = make(options, time.time())
        return send(options.run, orders, None if options.no_wait else options.wait)
    except DhmpiError as error:
        print(f"dhmpi.steer: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        return EXIT_UNANSWERED


def make(options: argparse.Namespace, now: float) -> list[Order]:
    """Return the orders that a command line asks for.

    Raises
    ------
    DhmpiError
        If it makes no sense.
    """
    common: dict[str, Any] = {"by": _who(), "answer": not options.no_wait}
    if options.what == "add":
        return [Order(Action.ADD, points, as_text, **common) for points, as_text in _points(options)]
    if options.what != "change":
        return [Order(Action(options.what), **common)]
    orders = []
    if options.max_evals is not None:
        if options.max_evals < 1:
            raise OptionError(f"--max-evals must be >= 1, got {options.max_evals}")
        orders.append(Order(Action.MAX_EVALS, max_evals=options.max_evals, **common))
    if any(value is not None for value in (options.time_limit_minutes, options.minutes_left, options.deadline)):
        orders.append(Order(Action.DEADLINE, deadline=_deadline(options, now), **common))
    if not orders:
        raise OptionError("change needs --max-evals, --time-limit-minutes, --minutes-left or --deadline")
    return orders


def send(run: Path, orders: Sequence[Order], wait: float | None) -> int:
    """Put orders into the inbox of a run, wait for the answers and print them; return the exit code.

    Parameters
    ----------
    run : Path
    orders : sequence of Order
    wait : float or None
        Seconds; None not to wait.

    Raises
    ------
    RunDirectoryError
        If an order cannot be written, or the run ends before it has answered.
    """
    files = {}
    try:
        with opened(run) as directory, made(directory, INBOX) as inbox:
            for order in orders:
                name = f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}.json"
                content = _encoded(order)
                write_at_once(inbox, name, content)
                files[name] = order
    except OSError as error:
        raise RunDirectoryError(f"cannot write into {run / INBOX}: {error.strerror}") from error
    if wait is None:
        print(f"ordered; the master will find it in {run / INBOX}")
        return 0
    answers = [_answer(run, name, time.monotonic() + wait) for name in files]
    for order, answer in zip(files.values(), answers):
        if answer is None:
            print(
                f"{order.action}: no answer within {wait:g} s; the master may be busy, and will find the order in "
                f"{run / INBOX}; dhmpi.log will say what came of it"
            )
        else:
            print(f"{order.action}: {'done' if answer['applied'] else 'refused'}: {answer['sentence']}")
    if any(answer is not None and not answer["applied"] for answer in answers):
        return EXIT_REFUSED
    return EXIT_UNANSWERED if None in answers else 0


def _encoded(order: Order) -> bytes:
    try:
        content = json.dumps(order.dump(), allow_nan=False).encode() + b"\n"
    except ValueError as error:
        raise OptionError("numbers of points must be finite") from error
    if len(content) > MOST_BYTES:
        raise OptionError(f"an order has at most {MOST_BYTES} bytes, this one has {len(content)}: add fewer points")
    return content


def _answer(run: Path, name: str, deadline: float) -> dict[str, Any] | None:
    """Return what the master answers to an order, None if it does not in time.

    Raises
    ------
    RunDirectoryError
        If the run has ended instead; the order is taken back.
    """
    path = run / INBOX / ANSWERS / name
    while True:
        alive = rundirectory.live(run)  # before the look: an answer may be the last that a master says
        try:
            answer: dict[str, Any] = json.loads(path.read_bytes())
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:
            raise RunDirectoryError(f"cannot read the answer {path}: {error}") from error
        else:
            path.unlink(missing_ok=True)
            return answer
        if not alive:
            (run / INBOX / name).unlink(missing_ok=True)
            raise RunDirectoryError(f"the run in {run} has ended before it has answered: --resume continues it")
        if time.monotonic() >= deadline:
            return None
        time.sleep(LOOK)


def _check_goes_on(run: Path) -> None:
    if not runs.is_run(run) and not rundirectory.live(run):
        raise RunDirectoryError(f"{run} holds no run: there is neither a journal nor run.json")
    if not rundirectory.live(run):
        raise RunDirectoryError(f"the run in {run} is not going on: --resume of its own command continues it")


def _points(options: argparse.Namespace) -> list[tuple[tuple[dict[str, Any], ...], bool]]:
    """Return points, and whether their values are text."""
    found: list[tuple[tuple[dict[str, Any], ...], bool]] = []
    if options.values:
        values: dict[str, str] = {}
        for word in options.values:
            name, equals, text = word.partition("=")
            if not equals or not name:
                raise OptionError(f"add takes name=value, got {word!r}")
            if name in values:
                raise OptionError(f"add has two values for {name!r}")
            values[name] = text
        found.append(((values,), True))
    if options.file is not None:
        found.append(read_points(options.file))
    if not found:
        raise OptionError("add needs a point as name=value ..., or --file")
    return found


def read_points(path: Path) -> tuple[tuple[dict[str, Any], ...], bool]:
    """Return the points of a JSON or CSV file, and whether their values are text.

    What results.csv, best.json or `dhmpi.analytics` write besides configurations is left out.

    Raises
    ------
    OptionError
        If there are none.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    if path.suffix.lower() == ".json":
        points, as_text = _from_json(path, text), False
    elif path.suffix.lower() == ".csv":
        points, as_text = _from_csv(path, text), True
    else:
        raise OptionError(f"{path} must end in .json or .csv")
    if not points:
        raise OptionError(f"{path} holds no points")
    return tuple(points), as_text


def _from_json(path: Path, text: str) -> list[dict[str, Any]]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise OptionError(f"{path} is no JSON: {error}") from error
    points = []
    for i, entry in enumerate(content if isinstance(content, list) else [content]):
        inner = entry
        for name in ("configuration", "config"):
            if isinstance(entry, dict) and isinstance(entry.get(name), dict):
                inner = entry[name]
        if not isinstance(inner, dict) or not (point := _without_outcomes(inner)):
            raise OptionError(f"entry {i} of {path} is no object of hyperparameters by name")
        points.append(point)
    return points


def _from_csv(path: Path, text: str) -> list[dict[str, Any]]:
    try:
        reader = csv.DictReader(text.splitlines(keepends=True), strict=True)
        rows = list(reader)
    except csv.Error as error:
        raise OptionError(f"{path} is no CSV: {error}") from error
    for i, row in enumerate(rows, start=1):
        if None in row or None in row.values():
            raise OptionError(f"row {i} of {path} has {'more' if None in row else 'fewer'} values than there are names")
    return [point for row in rows if (point := _without_outcomes(row))]


def _without_outcomes(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the hyperparameters of a row of results.csv; no hyperparameter can be named like another column."""
    return {name: v for name, v in values.items() if name not in FIXED_COLUMNS and not name.startswith(METRIC_PREFIX)}


def _deadline(options: argparse.Namespace, now: float) -> float | None:
    """Return when the run should have ended, in seconds since the epoch."""
    if options.minutes_left is not None:
        return now + 60 * _minutes("--minutes-left", options.minutes_left)
    if options.time_limit_minutes is not None:
        if options.time_limit_minutes == NONE:
            return None
        try:
            limit = float(options.time_limit_minutes)
        except ValueError:
            limit = math.nan
        return _began(options.run) + 60 * _minutes("--time-limit-minutes", limit)
    text = options.deadline
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = datetime.datetime.fromisoformat(text).timestamp()
        except (ValueError, OverflowError, OSError):
            seconds = math.nan
    if not math.isfinite(seconds):
        raise OptionError(f"--deadline must be a time such as 2030-12-31T18:00, or seconds, got {text!r}")
    return seconds


def _minutes(name: str, minutes: float) -> float:
    if not 0 < minutes < math.inf:
        raise OptionError(f"{name} must be a number > 0, got {minutes:g}")
    return minutes


def _began(run: Path) -> float:
    """Return when the last launch of a run began, in seconds since the epoch."""
    headers = journal.headers(run / "journal")
    last = [header for header in headers if header["launch"] == headers[-1]["launch"]]
    if not last:
        raise RunDirectoryError(f"the run in {run} has not begun yet: give --minutes-left or --deadline")
    return float(last[0].get("started", last[0]["t"]))


def _who() -> str:
    try:
        name = getpass.getuser()
    except (KeyError, OSError, ImportError):
        name = str(os.getuid())
    return f"{name}@{socket.gethostname()}"


if __name__ == "__main__":
    sys.exit(main())
