"""The truth of a run: append-only JSON lines, one writer per file, a torn last line is normal.

Each launch, and each master within a launch (its epoch), writes a file of its own, ``journal/<launch>.<epoch>.jsonl``.
Its first line fences the file before it at a length in bytes: what a writer that was believed dead appends later does
not count.  Everything else of a run (results.csv, the model, the counters) can be rebuilt from here.  Start at
`replay`, which reads; `Journal` writes, and `Tail` follows what others write.
"""

from __future__ import annotations

import itertools
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from dhmpi.budget import Limits
from dhmpi.errors import RunDirectoryError
from dhmpi.steering import Action
from dhmpi.trials import Config, Loss, Outcome, Status, Trial

SCHEMA = 1
_INEXACT = b" "
"""Begins a line that orjson would read inexactly; JSON allows it."""
_STATUSES = {status.value: status for status in Status}
CHUNK = 1 << 16
"""Bytes that a `Tail` reads at a time."""


def path(directory: Path, launch: int, epoch: int) -> Path:
    """Return the journal file of a master."""
    return directory / f"{launch}.{epoch}.jsonl"


class Journal:
    """Writes the events of one master.

    Parameters
    ----------
    directory : Path
        Of the journal's files; made if missing.
    launch, epoch : int
        Name the file, which must not exist.
    header : dict
        Goes into the first line.

    Raises
    ------
    RunDirectoryError
        If the file cannot be written; also later, from every method: a search never goes on unrecorded.
    """

    def __init__(self, directory: Path, launch: int, epoch: int, header: dict[str, Any]) -> None:
        self.path = path(directory, launch, epoch)
        fence = [{"file": file.name, "bytes": _whole(file)} for file in _files(directory)[-1:]]
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o666)
        except OSError as error:
            raise self._failure(error) from error
        self._dirty = False
        self.write([{"e": "launch", "schema": SCHEMA, "launch": launch, "epoch": epoch, "fence": fence, **header}])
        self.sync()

    def write(self, events: Iterable[dict[str, Any]]) -> None:
        """Append events; they survive the end of this process, though not that of the machine before `sync`."""
        lines = b"".join([_line(event) for event in events])
        if not lines:
            return
        view = memoryview(lines)
        self._dirty = True
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError as error:
            raise self._failure(error) from error

    def sync(self) -> None:
        """Force what was written onto the disk."""
        if not self._dirty:
            return
        try:
            os.fsync(self._fd)
        except OSError as error:
            raise self._failure(error) from error
        self._dirty = False

    def close(self) -> None:
        self.sync()
        os.close(self._fd)

    def _failure(self, error: OSError) -> RunDirectoryError:
        return RunDirectoryError(f"cannot write the journal {self.path}: {error.strerror}; the search stops unharmed")


def _line(event: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(event, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:  # an integer of more than 64 bits, which JSON itself allows
        return _INEXACT + json.dumps(event, separators=(",", ":")).encode() + b"\n"


@dataclass
class History:
    """What the journal knows of a run.

    Attributes
    ----------
    headers : list of dict
        First line of each file that counts, in order.
    finished : dict of int to (Outcome, Trial)
        Finished trials by id, in the order of their end.
    unfinished : dict of int to Trial
        Trials that were started and have no outcome, in the order in which they were last given out.
    holders : dict of int to list of int
        For each unfinished trial the ranks that it was given to, in the last launch; none if it was given back.
    since : dict of int to float
        For each unfinished trial when the first of those got it, in seconds since the epoch.
    losses : dict of int to list of Loss
        For each unfinished trial the evaluators that were lost while they ran it, in the last launch.
    n_asks : int
        Asks of the search so far, in all launches.
    exhausted : bool
        Whether the last answer of the search, in the last launch, was that the space holds no other configuration.
    last_stop : str
        Why the last launch stopped, empty if it did not say.
    short_of_ranks : bool
        Whether that was because too few ranks were left.
    ended : bool
        Whether the last launch has come to its end.
    exit_code : int or None
        What its exit code was to be then; None if it has not ended, or its journal does not say.
    n_killed : int
        Ranks that the last launch has killed by ``--chaos``.
    n_retried : int
        Trials that were to be tried again in the last launch because their evaluator was lost.
    n_groups : int
        The largest number that a group of ranks has had.
    groups : dict of tuple of int to int
        Groups of ranks, and their numbers, whose communicators are good in the last launch: no trial on them has ended
        badly.  The one used last comes last.
    deaths : Counter of str
        For each host the evaluators that died while they ran a trial, in the last launch.
    quarantined : set of str
        Hosts that are left out in the last launch.
    presence : dict of int to list of float
        For each evaluator of the last launch when it joined and, perhaps, left.
    added : dict of int to dict
        Points that users have added and nobody has started: their configurations by key.
    n_added : int
        Points that users have added, in all launches.
    max_evals : int or None
        Evaluations in all, where a user has changed that since the last launch was given another number.
    deadline : float or None
        When the last launch must have ended, in seconds since the epoch.
    paused : bool
        Whether a user wants nothing new to be started; that ends with the orderly end of a launch.
    orders : set of str
        Names of the orders of users that were followed.
    torn : int
        Bytes after the last whole line of any file, which do not count.
    """

    headers: list[dict[str, Any]] = field(default_factory=list)
    finished: dict[int, tuple[Outcome, Trial]] = field(default_factory=dict)
    unfinished: dict[int, Trial] = field(default_factory=dict)
    holders: dict[int, list[int]] = field(default_factory=dict)
    since: dict[int, float] = field(default_factory=dict)
    losses: dict[int, list[Loss]] = field(default_factory=dict)
    n_asks: int = 0
    exhausted: bool = False
    last_stop: str = ""
    short_of_ranks: bool = False
    ended: bool = False
    exit_code: int | None = None
    n_killed: int = 0
    n_retried: int = 0
    n_groups: int = 0
    groups: dict[tuple[int, ...], int] = field(default_factory=dict)
    deaths: Counter[str] = field(default_factory=Counter)
    quarantined: set[str] = field(default_factory=set)
    presence: dict[int, list[float]] = field(default_factory=dict)
    added: dict[int, Config] = field(default_factory=dict)
    n_added: int = 0
    max_evals: int | None = None
    deadline: float | None = None
    paused: bool = False
    orders: set[str] = field(default_factory=set)
    torn: int = 0
    _n_before: int = 0  # finished trials when the last launch began

    @property
    def began(self) -> float:
        """When the last launch began, in seconds since the epoch."""
        return float(next(header["t"] for header in self.headers if header["launch"] == self.headers[-1]["launch"]))

    @property
    def n_launches(self) -> int:
        return 1 + max((header["launch"] for header in self.headers), default=-1)

    def outcomes_of_launch(self) -> Iterator[Outcome]:
        """Yield the outcomes of the last launch, in their order."""
        for outcome, _ in itertools.islice(self.finished.values(), self._n_before, None):
            yield outcome

    def apply(self, event: dict[str, Any]) -> None:
        """Take in the next event."""
        kind = event["e"]
        if kind == "placed":
            self._placed(event)
        elif kind == "finished":
            id_ = event["trial"]
            trial = self.unfinished.pop(id_, None)
            if trial is not None:  # otherwise a second answer: the first counts
                self.n_retried -= event["status"] == Status.LOST  # its last loss was one too many
                self.finished[id_] = (outcome_of(event), trial)
                self.holders.pop(id_, None)
                self.since.pop(id_, None)
                self.losses.pop(id_, None)
                if event["status"] != Status.DONE:
                    self._drop_group(trial)
        elif kind == "lost":
            self._lost(event)
        elif kind in ("returned", "cancelled"):
            self._given_up(event)
        elif kind == "kept":
            if event["trial"] in self.unfinished:
                self.holders[event["trial"]] = [event["rank"]]
                self.since[event["trial"]] = event["t"]
        elif kind == "asked":
            self.n_asks = max(self.n_asks, event["ask"] + 1)
            self.exhausted = event.get("exhausted", False)
        elif kind == "launch":
            if not self.headers or self.headers[-1]["launch"] != event["launch"]:
                self._begin_launch()
            self.max_evals = self.steered_max_evals(_given(event))
            self.deadline = event.get("deadline")
            self.headers.append(event)
        elif kind == "stopping":
            self.last_stop = event["reason"]
            self.short_of_ranks = event.get("short_of_ranks", False)
            self.paused = False
        elif kind == "ended":
            self.ended = True
            self.exit_code = event.get("code")
        elif kind == "joined":
            self.presence.setdefault(event["rank"], [event["t"]])[1:] = []
        elif kind == "left":
            self.presence.setdefault(event["rank"], [event["t"]])[1:] = [event["t"]]
        elif kind == "chaos":
            self.n_killed += 1
        elif kind == "quarantined":
            self.quarantined.add(event["host"])
        elif kind == "readmitted":
            self.quarantined.discard(event["host"])
        elif kind == "steered":
            self._steered(event)

    def steered_max_evals(self, given: int | None) -> int | None:
        """Return how many evaluations a user wants who has changed their number; None if nobody has.

        Parameters
        ----------
        given : int or None
            ``--max-evals`` of the present launch; where it is another one than before, and not just the default, it
            counts and nothing else.
        """
        return self.max_evals if self.headers and given in (_given(self.headers[-1]), Limits.max_evals) else None

    def _steered(self, event: dict[str, Any]) -> None:
        self.orders.add(event["order"])
        action = event["action"]
        if action == Action.ADD:
            self.n_added += len(event["points"])
            self.added.update((key, config) for key, config in event["points"])
        elif action == Action.MAX_EVALS:
            self.max_evals = event["max_evals"]
        elif action in (Action.DEADLINE, Action.STOP):
            self.deadline = event["deadline"]
        elif action in (Action.PAUSE, Action.RESUME):
            self.paused = action == Action.PAUSE

    def _begin_launch(self) -> None:
        self.holders, self.since, self.losses, self.presence = {}, {}, {}, {}
        self.deaths, self.quarantined, self._n_before = Counter(), set(), len(self.finished)
        self.n_killed = self.n_retried = 0
        self.groups = {}
        self.last_stop, self.short_of_ranks = "", False
        self.ended, self.exit_code, self.exhausted = False, None, False
        for id_, trial in self.unfinished.items():
            self.unfinished[id_] = trial._replace(attempt=trial.attempt + 1)

    def _placed(self, event: dict[str, Any]) -> None:
        id_ = event["trial"]
        if id_ in self.finished:
            return
        if event.get("copy"):
            self.holders.setdefault(id_, []).append(event["rank"])
            return
        if self.added:
            self.added.pop(event["key"], None)
        self.unfinished.pop(id_, None)  # the order is that of a queue
        ranks, group = tuple(event.get("ranks", ())), event.get("group", 0)
        self.unfinished[id_] = Trial(id_, event["key"], event["config"], event["attempt"], False, ranks, group)
        self.n_groups = max(self.n_groups, group)
        if group:
            self.groups.pop(ranks, None)
            self.groups[ranks] = group
        self.holders[id_] = [event["rank"]]
        self.since[id_] = event["t"]

    def _lost(self, event: dict[str, Any]) -> None:
        id_ = event["trial"]
        if self._given_up(event) and event["ran"]:
            if event["died"]:
                self.deaths[event["host"]] += 1
            self.losses.setdefault(id_, []).append(Loss(event["host"], event["died"]))
            if not self.holders.get(id_):
                self.n_retried += 1
                trial = self.unfinished[id_]
                self.unfinished[id_] = trial._replace(attempt=trial.attempt + 1)

    def _given_up(self, event: dict[str, Any]) -> bool:
        """Take a trial from the rank of an event; return whether the rank had it."""
        holders = self.holders.get(event["trial"], [])
        if event["rank"] not in holders:
            return False
        holders.remove(event["rank"])
        self._drop_group(self.unfinished[event["trial"]])
        return True

    def _drop_group(self, trial: Trial) -> None:
        if trial.group and self.groups.get(tuple(trial.ranks)) == trial.group:
            del self.groups[tuple(trial.ranks)]


def replay(directory: Path) -> History:
    """Read the journal of a run; an empty or missing directory gives an empty history.

    Raises
    ------
    RunDirectoryError
        If a line before the last of a file is no event, or the journal was written by a newer version.
    """
    history = History()
    for event in events(directory, history):
        history.apply(event)
    return history


def events(directory: Path, history: History | None = None) -> Iterator[dict[str, Any]]:
    """Yield every event that counts, in order; torn tails are added up in ``history.torn``."""
    files = _files(directory)
    fences = {fence["file"]: fence["bytes"] for file in files for fence in _header(file).get("fence", ())}
    for file in files:
        data = file.read_bytes()[: fences.get(file.name)]
        lines = data.split(b"\n")
        torn = lines.pop()
        if history is not None:
            history.torn += len(torn)
        for number, line in enumerate(lines, start=1):
            yield _event(file, number, line)


def _event(file: Path, number: int, line: bytes) -> dict[str, Any]:
    """Return what a line holds."""
    try:
        event: dict[str, Any] = json.loads(line)
        kind = event["e"]
    except (ValueError, TypeError, KeyError) as error:
        raise RunDirectoryError(f"{file} line {number} is no event of a journal: {line[:80]!r}") from error
    if kind == "launch":
        _check_schema(file, event)
    return event


def _check_schema(file: Path, header: dict[str, Any]) -> None:
    if header["schema"] > SCHEMA:
        raise RunDirectoryError(
            f"{file} has schema {header['schema']}, this dhmpi reads up to {SCHEMA}: use a newer one"
        )


class Tail:
    """Follows a journal while others write it: what has been read is not read again.

    Parameters
    ----------
    directory : Path
        Of the journal's files; need not exist yet.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._headers: dict[str, dict[str, Any]] = {}
        self._read: dict[str, int] = {}  # bytes read of each file, in the order of reading

    def stale(self) -> bool:
        """Return whether something that was read does not count any more, so that a new tail must begin anew.

        That happens when a new master has fenced an earlier one which was still writing.
        """
        names, fences = self._look()
        begun = list(self._read)
        if names[: len(begun)] != begun:
            return True
        if any(self._read[name] > fences.get(name, self._read[name]) for name in begun):
            return True
        return any(self._unread(name, fences) for name in begun[:-1] if self._read[begun[-1]])

    def read(self) -> Iterator[list[dict[str, Any]]]:
        """Yield the events that count and were not read before, in order, many at a time.

        Raises
        ------
        RunDirectoryError
            As `events`.
        """
        names, fences = self._look()
        for name in names:
            self._read.setdefault(name, 0)
            while batch := self._batch(self._directory / name, fences.get(name)):
                yield batch

    def _look(self) -> tuple[list[str], dict[str, int]]:
        """Return the files in order, and the length in bytes up to which those count that are fenced."""
        files = [file.name for file in _files(self._directory, self._headers)]
        fences = {fence["file"]: fence["bytes"] for name in files for fence in self._headers[name].get("fence", ())}
        return files, fences

    def _unread(self, name: str, fences: dict[str, int]) -> bool:
        """Return whether a file has whole lines that were not read."""
        end = fences.get(name)
        if end is not None:
            return end > self._read[name]
        with (self._directory / name).open("rb") as stream:
            stream.seek(self._read[name])
            return b"\n" in stream.read()

    def _batch(self, file: Path, end: int | None) -> list[dict[str, Any]]:
        begin = self._read[file.name]
        if end is not None and end <= begin:
            return []
        try:
            with file.open("rb") as stream:
                stream.seek(begin)
                size = CHUNK
                while True:
                    data = stream.read(size if end is None else min(size, end - begin))
                    whole = data.rfind(b"\n") + 1
                    if whole or len(data) < size:
                        break
                    stream.seek(begin)
                    size *= 2  # a line that is longer
        except OSError as error:
            raise RunDirectoryError(f"cannot read the journal {file}: {error.strerror}") from error
        if not whole:
            return []
        batch = self._parse(file, data[:whole])
        self._read[file.name] = begin + whole
        return batch

    def _parse(self, file: Path, data: bytes) -> list[dict[str, Any]]:
        """Return what whole lines hold: all at once, which is quick, or one by one if there is anything unusual."""
        if not data.startswith(_INEXACT) and b"\n" + _INEXACT not in data:
            try:
                batch: list[dict[str, Any]] = orjson.loads(b"[" + data[:-1].replace(b"\n", b",") + b"]")
                for event in batch:
                    if event["e"] == "launch":
                        _check_schema(file, event)
                return batch
            except (ValueError, TypeError, KeyError):
                pass
        with file.open("rb") as stream:
            n_before = stream.read(self._read[file.name]).count(b"\n")
        return [_event(file, n_before + n, line) for n, line in enumerate(data[:-1].split(b"\n"), start=1)]


def _files(directory: Path, headers: dict[str, dict[str, Any]] | None = None) -> list[Path]:
    """Return the files whose first line is whole, in the order of their masters; `headers` spares reading it again."""
    found = []
    headers = {} if headers is None else headers
    for file in directory.glob("*.*.jsonl"):
        launch, epoch, *rest = file.name.split(".")
        if launch.isdigit() and epoch.isdigit() and rest == ["jsonl"]:
            header = headers.get(file.name) or _header(file)
            if header:
                headers[file.name] = header
                found.append((int(launch), int(epoch), file))
    return [file for _, _, file in sorted(found)]


def headers(directory: Path) -> list[dict[str, Any]]:
    """Return the first line of each file that counts, in the order of their masters."""
    found: dict[str, dict[str, Any]] = {}
    return [found[file.name] for file in _files(directory, found)]


def next_launch(directory: Path) -> int:
    """Return the number of the next launch: one more than any file has, whole or not."""
    numbers = [file.name.split(".", 1)[0] for file in directory.glob("*.jsonl")]
    return 1 + max((int(number) for number in numbers if number.isdigit()), default=-1)


def _header(file: Path) -> dict[str, Any]:
    with file.open("rb") as stream:
        line = stream.readline()
    if not line.endswith(b"\n"):
        return {}
    try:
        header = json.loads(line)
    except ValueError:
        return {}
    return header if isinstance(header, dict) and header.get("e") == "launch" else {}


def _given(header: dict[str, Any]) -> int | None:
    """Return the ``--max-evals`` of a launch."""
    return (header.get("options") or {}).get("max_evals")


def _whole(file: Path) -> int:
    """Return the length in bytes of the whole lines of a file."""
    return file.read_bytes().rfind(b"\n") + 1


def outcome_of(event: dict[str, Any]) -> Outcome:
    """Return the outcome that an event ``finished`` tells of."""
    return Outcome(
        trial=event["trial"],
        attempt=event["attempt"],
        status=_STATUSES.get(event["status"]) or Status(event["status"]),
        objective=event["objective"],
        metrics=event.get("metrics", {}),
        rank=event["rank"],
        host=event["host"],
        start=event["start"],
        end=event["end"],
        elapsed=event["elapsed"],
        reason=event.get("reason", ""),
    )
