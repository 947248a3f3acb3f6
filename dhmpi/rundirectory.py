"""The run directory: made, found again, locked, described.  Only the master's rank touches it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import tempfile
import time
import uuid
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dhmpi import external, journal, platform
from dhmpi.errors import RunDirectoryError
from dhmpi.mpi.environment import job_id
from dhmpi.names import in_file
from dhmpi.results import write_json

LOCK_RENEWED = 10.0
LOCK_STALE = 40.0
"""Seconds: a lock of another host that was not renewed for so long belongs to a run that is over."""
TAKEOVER = 0.2
WARM_START = "warm-start.jsonl"


class RunDirectory:
    """A directory that holds one run, and this process the right to write it.

    Use `prepare`.

    Attributes
    ----------
    path : Path
    run_id : str
        8 hexadecimal digits.
    fresh : bool
        Whether this launch is the run's first.
    """

    def __init__(self, path: Path, run_id: str, fresh: bool, created: bool) -> None:
        self.path = path
        self.run_id = run_id
        self.fresh = fresh
        self._created = created
        self._renewed = 0.0

    @property
    def journal(self) -> Path:
        return self.path / "journal"

    @property
    def results(self) -> Path:
        return self.path / "results.csv"

    @property
    def best(self) -> Path:
        return self.path / "best.json"

    @property
    def log(self) -> Path:
        return self.path / "dhmpi.log"

    @property
    def warm_start(self) -> Path:
        """Copy of the earlier evaluations that the run began with, if it did."""
        return self.path / WARM_START

    @property
    def description(self) -> Path:
        return self.path / "run.json"

    @property
    def lock(self) -> Path:
        return self.path / "lock"

    def describe(self, content: dict[str, Any]) -> None:
        """Write run.json."""
        write_json(self.description, {"run": self.run_id, **content})

    def described(self) -> dict[str, Any]:
        """Return run.json, empty if the run has none yet."""
        try:
            content = json.loads(self.description.read_text())
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    def renew(self, at_once: bool = False) -> None:
        """Say that the run is alive, at most every 10 s."""
        now = time.monotonic()
        if at_once or now - self._renewed >= LOCK_RENEWED:
            self._renewed = now
            write_json(self.lock, _lock_content())

    def release(self) -> None:
        """Give the lock back."""
        self.lock.unlink(missing_ok=True)

    def discard(self) -> None:
        """Take back what `prepare` has made, if this launch is the run's first: nothing is left half-written."""
        self.release()
        if not self.fresh:
            return
        if self._created:
            shutil.rmtree(self.path, ignore_errors=True)
            for parent in list(self.path.parents)[:2]:  # <dhmpi-runs>/<workflow>, if nothing else is there
                try:
                    parent.rmdir()
                except OSError:
                    break
        else:
            for leftover in self.path.iterdir():
                if leftover.name in _SUBMITTED:
                    continue
                if leftover.is_dir():
                    shutil.rmtree(leftover, ignore_errors=True)
                else:
                    leftover.unlink(missing_ok=True)


def described(directory: Path, *needed: str) -> dict[str, Any]:
    """Return the run.json of somebody's run; the names of its objects are such that they are found from here.

    Parameters
    ----------
    directory : Path
        Of the run.
    *needed : str
        Entries that it must have.

    Raises
    ------
    RunDirectoryError
        If there is none, or it lacks some.
    """
    path = directory / "run.json"
    try:
        content = json.loads(path.read_text())
    except OSError as error:
        raise RunDirectoryError(f"{directory} holds no run: cannot read {path.name}: {error.strerror}") from error
    except ValueError as error:
        raise RunDirectoryError(f"{path} is no JSON: {error}") from error
    missing = set(needed).difference(content if isinstance(content, dict) else ())
    if missing or not isinstance(content, dict):
        lacks = f"has no {', '.join(sorted(missing))}" if missing else "is no JSON object"
        raise RunDirectoryError(f"{path} {lacks}: it does not describe a run of dhmpi")
    for name in ("problem", "function"):
        if isinstance(content.get(name), str):
            content[name] = _found(content[name], content.get("home"))
    return content


def new_id() -> str:
    """Return 8 hexadecimal digits that name a run or a launch."""
    return uuid.uuid4().hex[:8]


def default_path(workflow: str, name: str, run_id: str | None = None) -> Path:
    """Return the path of a new run, dhmpi-runs/<workflow>/<name>_<8 hexadecimal digits>."""
    return Path("dhmpi-runs") / workflow / f"{name}_{run_id or new_id()}"


def prepare(path: Path, resume: bool, run_id: str | None = None, inherit: bool = False) -> RunDirectory:
    """Make, or take over, a run directory and lock it.

    Parameters
    ----------
    path : Path
    resume : bool
        Whether a run that is there already should be continued.
    run_id : str, optional
        Of a run that begins here; by default a new one.
    inherit : bool, default False
        Whether the lock is taken from an earlier master of this launch, and whatever is there is its own.

    Raises
    ------
    RunDirectoryError
        If it cannot be written, holds a run and `resume` is not given, holds something else, or is in use.
    """
    path = path.absolute()
    created = not path.exists()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunDirectoryError(f"cannot make the run directory {path}: {error.strerror}") from error
    try:
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise RunDirectoryError(f"cannot write into the run directory {path}: {error.strerror}") from error
    holds_run = any((path / "journal").glob("*.jsonl"))
    if inherit:
        write_json(path / "lock", _lock_content())
    elif holds_run and not resume:
        raise RunDirectoryError(f"{path} already holds a run: give --resume to continue it, or another --log-dir")
    elif not holds_run and not created and any(entry.name not in _OURS for entry in path.iterdir()):
        raise RunDirectoryError(f"{path} is not empty and holds no run: give an empty or a new directory as --log-dir")
    if not inherit:
        _take_lock(path / "lock")
    directory = RunDirectory(path, run_id or new_id(), not holds_run, created)
    if holds_run:
        headers = journal.replay(directory.journal).headers
        if headers:
            directory.run_id = headers[0]["run"]
        else:
            directory.fresh = True  # a launch that was killed before its journal had a first line
    directory.renew()
    return directory


_SUBMITTED = {"job.sh", "jobs"}
"""What `dhmpi.submit` has put there: job.sh, and jobs/ where schedulers write."""
_OURS = {"lock", "run.json", "dhmpi.log", "journal", "search.out", WARM_START, *_SUBMITTED}


def _lock_content() -> dict[str, Any]:
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "process_start": platform.start_time(os.getpid()),
        "job": job_id(),
        "renewed": time.time(),
    }


def _take_lock(path: Path) -> None:
    """Take the lock unless its holder lives."""
    aside = path.with_name(f"lock.{socket.gethostname()}.{os.getpid()}")
    write_json(aside, _lock_content())
    try:
        if _link(aside, path):
            return
        holder = _read_lock(path)
        if holder is None or not _alive(holder):
            path.unlink(missing_ok=True)
            _link(aside, path)
            # Two that find the same dead holder at once may each take the lock; the later one has it.
            time.sleep(TAKEOVER)
            holder = _read_lock(path)
            if holder is not None and (holder["host"], holder["pid"]) == (socket.gethostname(), os.getpid()):
                return
    finally:
        aside.unlink(missing_ok=True)
    who = f"process {holder['pid']} on {holder['host']}" if holder else "another process"
    raise RunDirectoryError(f"{path.parent} is in use by {who}: wait for its end, or give another --log-dir")


def _link(aside: Path, path: Path) -> bool:
    """Give a file a second name, if nothing has that name yet."""
    try:
        os.link(aside, path)
    except FileExistsError:
        return False
    except OSError as error:
        raise RunDirectoryError(f"cannot lock the run directory {path.parent}: {error.strerror}") from error
    return True


def _read_lock(path: Path) -> dict[str, Any] | None:
    try:
        holder = json.loads(path.read_text())
        return holder if {"host", "pid", "process_start", "renewed"} <= holder.keys() else None
    except (OSError, ValueError, AttributeError):
        return None


def _alive(holder: dict[str, Any]) -> bool:
    if holder["host"] == socket.gethostname():
        start = platform.start_time(holder["pid"])
        return start is not None and start == holder["process_start"]
    return bool(time.time() - holder["renewed"] < LOCK_STALE)


def live(path: Path) -> bool:
    """Return whether somebody who lives holds the lock of a run directory."""
    holder = _read_lock(path / "lock")
    return holder is not None and _alive(holder)


def same_object(name: str, home: str | None, other: str, other_home: str) -> bool:
    """Return whether two names of objects, each in a directory, mean the same one.

    The same name means the same in two directories: a project may have moved.
    """
    if name == other or home is None or not (_file_of(name) and _file_of(other)):
        return name == other
    return os.path.realpath(Path(home, name)) == os.path.realpath(Path(other_home, other))


def _file_of(name: str) -> str | None:
    """Return the file that a name means, None if it is a dotted one or a command."""
    place = None if external.is_external(name) else in_file(name)
    return None if place is None else place[0]


def _found(name: str, home: str | None) -> str:
    """Return the name of an object in a file such that it is found here; `home` is where it was given."""
    file = _file_of(name)
    return name if home is None or file is None or Path(file).exists() else str(Path(home, name))


def source_digest(name: str) -> str | None:
    """Return a digest of the file that defines a run function, found without importing it; None if there is none."""
    if external.is_external(name):
        return hashlib.sha1(name.encode(), usedforsecurity=False).hexdigest()
    origin, locations = _file_of(name), None
    if origin is None:
        for part in name.split("."):
            spec = PathFinder.find_spec(part, locations) if locations else find_spec(part)
            if spec is None:
                break
            origin, locations = spec.origin, spec.submodule_search_locations
            if locations is None:
                break
    try:
        return hashlib.sha1(Path(origin or "").read_bytes(), usedforsecurity=False).hexdigest()
    except OSError:
        return None
