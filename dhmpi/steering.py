"""Orders to a run that goes on: what a user may want, as a file in ``inbox/`` of the run directory, and the answer.

`dhmpi.steer` writes such files and reads answers; the master reads the files and answers (`dhmpi.roles.inbox`).  An
order is a JSON object in a file of its own; whoever writes one by hand moves it there when it is whole.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from dhmpi.errors import DhmpiError

INBOX = "inbox"
"""Directory of orders in the run directory."""
REFUSED = "refused"
"""Directory in the inbox that takes what cannot be done, each with the reason beside it."""
ANSWERS = "answers"
"""Directory in the inbox that takes a file for each order that wants an answer, under the order's name."""
ASIDE = "."
"""Begins the name of a file in the making."""
MOST_BYTES = 1 << 24
"""Size of an order at most."""


class OrderError(DhmpiError):
    """An order makes no sense, or cannot be followed now."""


class Action(str, Enum):
    """What an order wants."""

    ADD = "add"  # evaluate some points next
    MAX_EVALS = "max-evals"  # another number of evaluations in all
    DEADLINE = "deadline"  # another end
    PAUSE = "pause"  # start nothing more for now
    RESUME = "resume"
    STOP = "stop"  # drain and end

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Order:
    """What a user wants of a run that goes on.

    Attributes
    ----------
    action : Action
    points : tuple of dict
        Of ADD: configurations as the function gets them.
    as_text : bool
        Whether the values of `points` are text, of which the problem makes what it needs.
    max_evals : int
        Of MAX_EVALS.
    deadline : float or None
        Of DEADLINE: seconds since the epoch; None for no other limit than that of the scheduler's job.
    by : str
        Who says so.
    answer : bool
        Whether somebody waits for an answer.
    """

    action: Action
    points: tuple[dict[str, Any], ...] = ()
    as_text: bool = False
    max_evals: int = 0
    deadline: float | None = None
    by: str = ""
    answer: bool = True

    def dump(self) -> dict[str, Any]:
        """Return the order as it is written."""
        content: dict[str, Any] = {"action": self.action.value, "by": self.by, "answer": self.answer}
        if self.action is Action.ADD:
            content |= {"points": list(self.points), "as_text": self.as_text}
        elif self.action is Action.MAX_EVALS:
            content["max_evals"] = self.max_evals
        elif self.action is Action.DEADLINE:
            content["deadline"] = self.deadline
        return content


_ENTRIES = {
    Action.ADD: {"points"},
    Action.MAX_EVALS: {"max_evals"},
    Action.DEADLINE: {"deadline"},
}


def parse(text: bytes) -> Order:
    """Return the order that a file holds.

    Raises
    ------
    OrderError
        If it holds none.
    """
    try:
        content = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise OrderError(f"it is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise OrderError('it is no JSON object such as {"action": "pause"}')
    try:
        action = Action(content.get("action"))
    except ValueError:
        names = ", ".join(map(str, Action))
        raise OrderError(f"its action is {_shown(content.get('action'))}, which is none of {names}") from None
    needed = _ENTRIES.get(action, set())
    allowed = {"action", "by", "answer", *needed, *(["as_text"] if action is Action.ADD else [])}
    if missing := sorted(needed - content.keys()):
        raise OrderError(f"an order to {action} needs the entry {missing[0]!r}")
    if unknown := sorted(content.keys() - allowed):
        raise OrderError(f"an order to {action} has no entry {unknown[0]!r}, only {', '.join(sorted(allowed))}")
    return Order(
        action,
        points=_points(content["points"]) if action is Action.ADD else (),
        as_text=_flag(content, "as_text", False),
        max_evals=_count(content["max_evals"]) if action is Action.MAX_EVALS else 0,
        deadline=_moment(content["deadline"]) if action is Action.DEADLINE else None,
        by=_name(content.get("by", "")),
        answer=_flag(content, "answer", True),
    )


def _points(points: Any) -> tuple[dict[str, Any], ...]:
    if not isinstance(points, list) or not points:
        raise OrderError("its points must be a list of at least one configuration")
    for point in points:
        if not isinstance(point, dict) or not point:
            raise OrderError(f"a point must be an object of hyperparameters by name, got {_shown(point)}")
    return tuple(points)


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise OrderError(f"max_evals must be an integer >= 1, got {_shown(value)}")
    return value


def _moment(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise OrderError(f"the deadline must be seconds since the epoch, or null, got {_shown(value)}")
    return float(value)


def _flag(content: Mapping[str, Any], name: str, default: bool) -> bool:
    value = content.get(name, default)
    if not isinstance(value, bool):
        raise OrderError(f"{name} must be true or false, got {_shown(value)}")
    return value


def _name(value: Any) -> str:
    if not isinstance(value, str) or len(value) > 200 or not value.isprintable():
        raise OrderError(f"'by' must be a name of at most 200 printable characters, got {_shown(value)}")
    return value


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:80]}..."


def in_words(event: Mapping[str, Any]) -> str:
    """Return an event ``steered`` of the journal in words."""
    action, by = event["action"], f" by {event['by']}" if event.get("by") else ""
    if action == Action.ADD:
        n = len(event["points"])
        return f"{n} point{'s' * (n != 1)} added{by}"
    if action == Action.MAX_EVALS:
        return f"max-evals set to {event['max_evals']}{by}"
    if action == Action.DEADLINE:
        return f"time limit {'lifted' if event['deadline'] is None else 'changed'}{by}"
    return {Action.PAUSE: "paused", Action.RESUME: "resumed", Action.STOP: "stopped"}[Action(action)] + by


def added(events: Sequence[Mapping[str, Any]]) -> dict[int, dict[str, Any]]:
    """Return key and configuration of the points that events of the journal have added."""
    return {
        key: config
        for event in events
        if event["e"] == "steered" and event["action"] == Action.ADD
        for key, config in event["points"]
    }


@contextlib.contextmanager
def opened(path: Path | str, dir_fd: int | None = None) -> Iterator[int]:
    """Give the descriptor of a directory, which must be no symbolic link."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=dir_fd)
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def made(directory: int, name: str) -> Iterator[int]:
    """Give the descriptor of a directory in another one, which is made if it is missing."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, dir_fd=directory)
    with opened(name, directory) as fd:
        yield fd


def write_at_once(directory: int, name: str, content: bytes) -> None:
    """Write a file at once or not at all."""
    aside = f"{ASIDE}{name}"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(aside, dir_fd=directory)
    fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666, dir_fd=directory)
    with os.fdopen(fd, "wb") as stream:
        stream.write(content)
    os.replace(aside, name, src_dir_fd=directory, dst_dir_fd=directory)
