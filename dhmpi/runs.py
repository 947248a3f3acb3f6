"""Reading runs: what `dhmpi.ls`, `dhmpi.watch` and `dhmpi.analytics` know, all of it from the files of a run.

A `Run` follows its journal, so that looking again costs what is new and nothing else.  Works on any machine that sees
the files, while the run goes on or after; writes nothing.  Start at `Run.refresh`.
"""

from __future__ import annotations

import gc
import json
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from dhmpi import rundirectory
from dhmpi.errors import RunDirectoryError
from dhmpi.journal import History, Tail
from dhmpi.timeline import Activity, Timeline, evaluators_of
from dhmpi.trials import Config, Outcome, Status, Trial, digest

UNFINISHED = "unfinished"
"""State of a trial that was started, has no outcome, and is with nobody."""
N_RECENT = 256
"""Outcomes that `Run.recent` keeps."""
DEPTH = 4
"""Directories below which runs are not looked for."""


class Improvement(NamedTuple):
    """An objective better than all before."""

    n_finished: int
    """Evaluations that had finished, this one included."""
    end: float
    trial: int
    objective: float


@dataclass
class Launch:
    """A launch of a run.

    Attributes
    ----------
    number : int
    began : float
        Seconds since the epoch.
    ended : float or None
        None for one that goes on, as far as its journal says; one that was killed ended with its last event.
    """

    number: int
    began: float
    ended: float | None = None


@dataclass
class Worker:
    """An evaluator of the last launch.

    Attributes
    ----------
    rank : int
    host : str
    joined, left : float or None
        Seconds since the epoch.
    silent : bool
    reason : str
        Why it has left.
    n_done, n_failed : int
        Evaluations that have finished there, in this launch.
    seconds : float
        That those took.
    last_end : float
        When the last of them ended.
    """

    rank: int
    host: str = ""
    joined: float | None = None
    left: float | None = None
    silent: bool = False
    reason: str = ""
    n_done: int = 0
    n_failed: int = 0
    seconds: float = 0.0
    last_end: float = 0.0


class Job(NamedTuple):
    """A trial as it stands."""

    trial: Trial
    state: str
    """A `Status` in words, or `UNFINISHED`."""
    outcome: Outcome | None
    rank: int | None
    """Where it was evaluated, or is."""
    host: str
    since: float | None
    """When it began, as far as that is known."""

    @property
    def name(self) -> str:
        """Name of its working directory."""
        return f"task{self.trial.id}_{digest(self.trial.config)}"


class Run:
    """A run, as its files tell it.

    Parameters
    ----------
    path : Path
        Run directory.
    keep : bool, default False
        Whether the timeline keeps its segments.

    Attributes
    ----------
    path : Path
    described : dict
        Content of run.json, empty if there is none.
    history : History
    counts : Counter of Status
        Finished trials by how they ended.
    workers : dict of int to Worker
        Evaluators of the last launch, by rank.
    timeline : Timeline
    improvements : list of Improvement
    recent : deque of Outcome
        The last ones.
    failures : deque of Outcome
        The last that failed.
    losses : list of dict
        Events that tell of lost evaluators and hosts left out, in all launches.
    launches : list of Launch
    steering : list of dict
        What users have done to the run, in all launches: events ``steered``.
    startup : dict or None
        Event ``startup`` of the last launch: how long its evaluators took to start.
    updates : list of dict
        Events of a policy that has learned from a batch.
    n_new : int
        Trials that have finished in the last launch.
    n_asks, search_seconds : int, float
        Of the search in all launches: how often it was asked, and how long that took in all.
    first, last : float
        Times of the first and the last event, in seconds since the epoch.
    live : bool
        Whether somebody holds the lock.

    Raises
    ------
    RunDirectoryError
        If there is no run; also from `refresh`.
    """

    def __init__(self, path: Path, keep: bool = False) -> None:
        self.path = path
        if not is_run(path):
            raise RunDirectoryError(f"{path} holds no run: {_absence(path)}")
        self._keep = keep
        self._handlers: dict[str, Callable[[dict[str, Any]], None]] = {
            "launch": self._launched,
            "startup": self._started_up,
            "joined": self._joined,
            "left": self._left,
            "placed": self._placed,
            "finished": self._finished,
            "lost": self._lost,
            "returned": self._given_up,
            "cancelled": self._given_up,
            "kept": self._kept,
            "silent": self._silent,
            "heard": self._silent,
            "quarantined": self._noted,
            "readmitted": self._noted,
            "asked": self._asked,
            "update": self._updated,
            "steered": self._steered,
            "stopping": self._stopping,
            "ended": self._ended,
        }
        self._begin()

    def _begin(self) -> None:
        self._tail = Tail(self.path / "journal")
        self.described: dict[str, Any] = {}
        self._described_at: tuple[int, int] = (0, 0)
        self.history = History()
        self.counts: Counter[Status] = Counter()
        self.workers: dict[int, Worker] = {}
        self.timeline = Timeline(self._keep)
        self.improvements: list[Improvement] = []
        self.recent: deque[Outcome] = deque(maxlen=N_RECENT)
        self.failures: deque[Outcome] = deque(maxlen=N_RECENT)
        self.losses: list[dict[str, Any]] = []
        self.updates: list[dict[str, Any]] = []
        self.steering: list[dict[str, Any]] = []
        self.launches: list[Launch] = []
        self.startup: dict[str, Any] | None = None
        self._budget: float = math.inf
        self.n_new = 0
        self.n_asks = 0
        self.search_seconds = 0.0
        self.first = self.last = 0.0
        self.live = False

    # -- taking in -----------------------------------------------------------------------------------------------------

    def refresh(self) -> bool:
        """Take in what was written since the last call; return whether there was anything."""
        self._read_description()
        self.live = rundirectory.live(self.path)  # before the journal: an end that comes between is seen next time
        if self._tail.stale():
            self._begin()
            self._read_description()
            self.live = rundirectory.live(self.path)
        collecting = gc.isenabled()
        gc.disable()  # what is read makes no cycles, and to look for them again and again takes a fifth of the time
        try:
            return self._take_in()
        except (KeyError, TypeError, ValueError) as error:
            raise RunDirectoryError(f"{self.path / 'journal'} is no journal of a run: an event has {error}") from error
        finally:
            if collecting:
                gc.enable()

    def _take_in(self) -> bool:
        handlers, last = self._handlers, None
        for batch in self._tail.read():
            for event in batch:
                handler = handlers.get(event["e"])
                if handler is not None:
                    handler(event)
            last = batch[-1]
            self.last = max(self.last, last.get("t", 0.0))
        return last is not None

    def _read_description(self) -> None:
        path = self.path / "run.json"
        try:
            stat = path.stat()
            if (stat.st_mtime_ns, stat.st_ino) == self._described_at:
                return
            content = json.loads(path.read_text())
        except (OSError, ValueError):
            return
        if isinstance(content, dict):
            self.described, self._described_at = content, (stat.st_mtime_ns, stat.st_ino)

    def _launched(self, event: dict[str, Any]) -> None:
        headers, t = self.history.headers, event.get("t", self.last)
        new = not headers or headers[-1]["launch"] != event["launch"]
        self.history.apply(event)
        if not self.first:
            self.first = event.get("started", t)
        if not new:
            return
        if self.launches and self.launches[-1].ended is None:  # it did not say that it ended
            self.timeline.end(self.last)
            self.launches[-1].ended = self.last
        self.launches.append(Launch(event["launch"], event.get("started", t)))
        ranks = evaluators_of(event, self.described)
        self.timeline.begin(event["launch"], event.get("started", t), ranks)
        self.workers = {rank: Worker(rank, self._host(event, rank)) for rank in ranks}
        self.n_new = 0
        self.startup = None
        self._set_budget()

    def _started_up(self, event: dict[str, Any]) -> None:
        self.startup = event

    def _host(self, header: dict[str, Any], rank: int) -> str:
        hosts = (header.get("layout") or self.described.get("layout") or {}).get("hosts", ())
        return str(hosts[rank]) if rank < len(hosts) else ""

    def _worker(self, rank: int) -> Worker:
        worker = self.workers.get(rank)
        if worker is None:
            worker = self.workers[rank] = Worker(rank)
        return worker

    def _joined(self, event: dict[str, Any]) -> None:
        self.history.apply(event)
        rank, t = event["rank"], event["t"]
        worker = self._worker(rank)
        worker.host = event["host"]
        if worker.joined is None or worker.left is not None:
            worker.joined, worker.left, worker.silent, worker.reason = t, None, False, ""
        self.timeline.join(rank, t)

    def _left(self, event: dict[str, Any]) -> None:
        self.history.apply(event)
        worker = self._worker(event["rank"])
        worker.left, worker.reason = event["t"], event["reason"]
        self.timeline.leave(event["rank"], event["t"])
        self.losses.append(event)

    def _placed(self, event: dict[str, Any]) -> None:
        self.history.apply(event)
        if not (event.get("reused") or event.get("refused")):
            for rank in event.get("ranks") or (event["rank"],):
                self.timeline.place(rank, event["trial"], event["t"])
        if self._all_started:
            self.timeline.stop(event["t"])

    def _finished(self, event: dict[str, Any]) -> None:
        history, id_, t = self.history, event["trial"], event["t"]
        holders = tuple(history.holders.get(id_, ()))
        n_before = len(history.finished)
        history.apply(event)
        if len(history.finished) == n_before:
            return  # a second answer: the first counts
        outcome, trial = history.finished[id_]
        rank, status, objective = outcome.rank, outcome.status, outcome.objective
        self.counts[status] += 1
        self.n_new += 1
        self.recent.append(outcome)
        if status is not Status.LOST and status is not Status.REUSED:
            together = trial.ranks if rank in trial.ranks else (rank,)
            for member in together:
                self.timeline.finish(member, id_, outcome.start, outcome.end, t)
                worker = self._worker(member)
                worker.seconds += outcome.elapsed
                worker.last_end = outcome.end
            worker = self._worker(rank)
            if objective is None:
                worker.n_failed += 1
            else:
                worker.n_done += 1
            for holder in {*holders, *trial.ranks}:
                if holder not in together:
                    self.timeline.waste(holder, id_, t)
        if objective is None:
            self.failures.append(outcome)
        elif not self.improvements or objective > self.improvements[-1].objective:
            self.improvements.append(Improvement(n_before + 1, outcome.end, id_, objective))

    def _lost(self, event: dict[str, Any]) -> None:
        self._given_up(event)
        if event["ran"]:
            self.losses.append(event)

    def _given_up(self, event: dict[str, Any]) -> None:
        id_ = event["trial"]
        holders = tuple(self.history.holders.get(id_, ()))
        trial = self.history.unfinished.get(id_)
        self.history.apply(event)
        ranks = holders if event["e"] == "cancelled" and event["rank"] not in holders else (event["rank"],)
        if trial is not None and trial.ranks and event["rank"] in holders:
            ranks = tuple(trial.ranks)
        for rank in ranks:
            self.timeline.waste(rank, id_, event["t"], event.get("start"), event.get("end"))

    def _kept(self, event: dict[str, Any]) -> None:
        self.history.apply(event)
        self.timeline.place(event["rank"], event["trial"], event["t"])

    def _silent(self, event: dict[str, Any]) -> None:
        silent, worker = event["e"] == "silent", self.workers.get(event["rank"]) or self._worker(event["rank"])
        if worker.silent is silent:
            return
        worker.silent = silent
        self.timeline.silent(event["rank"], event["t"], silent)
        if silent:
            self.losses.append(event)

    def _noted(self, event: dict[str, Any]) -> None:
        self.losses.append(event)

    def _asked(self, event: dict[str, Any]) -> None:
        self.history.apply(event)
        self.n_asks += 1
        self.search_seconds += event.get("seconds", 0.0)

    def _updated(self, event: dict[str, Any]) -> None:
        self.updates.append(event)

    def _steered(self, event: dict[str, Any]) -> None:
        self.history.apply(event)
        self.steering.append(event)
        self._set_budget()
        if self.history.paused or self.history.last_stop or self._all_started:
            self.timeline.stop(event["t"])
        else:
            self.timeline.go_on(event["t"])

    def _set_budget(self) -> None:
        limit = self.max_evals
        self._budget = math.inf if limit is None else limit

    @property
    def _all_started(self) -> bool:
        return len(self.history.finished) + len(self.history.unfinished) >= self._budget

    def _stopping(self, event: dict[str, Any]) -> None:
        self.history.apply(event)
        self.timeline.stop(event["t"])

    def _ended(self, event: dict[str, Any]) -> None:
        self.history.apply(event)
        self.launches[-1].ended = event["t"]
        self.timeline.end(event["t"])

    # -- what is asked -------------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return self.path.absolute().name

    @property
    def options(self) -> dict[str, Any]:
        """Options of the last launch."""
        headers = self.history.headers
        return dict((headers[-1].get("options") if headers else None) or self.described.get("options") or {})

    @property
    def search(self) -> str | None:
        """Name of the search, None if nobody says."""
        headers = self.history.headers
        program = headers[-1].get("program") if headers else None
        return None if program is None else str(program).rpartition(".")[2]

    @property
    def workflow(self) -> str:
        return str(self.options.get("workflow") or "")

    @property
    def layout(self) -> dict[str, Any]:
        """Layout of the last launch, empty if nobody says."""
        headers = self.history.headers
        return dict((headers[-1].get("layout") if headers else None) or self.described.get("layout") or {})

    @property
    def state(self) -> str:
        """``starting``, ``running``, ``draining``, ``ended``, or ``dead`` for a run that did not say that it ended.

        See `standing` for one that is paused.
        """
        history = self.history
        if history.ended:
            return "ended"
        if self.live:
            return "draining" if history.last_stop else "running" if history.headers else "starting"
        return "dead" if history.headers else "empty"

    @property
    def standing(self) -> str:
        """`state`, or ``paused`` for a running one in which a user wants nothing new to be started."""
        return "paused" if self.state == "running" and self.history.paused else self.state

    @property
    def now(self) -> float:
        """The present if the run goes on, else when it ended."""
        return max(self.last, time.time()) if self.live and not self.history.ended else self.last

    @property
    def began(self) -> float:
        """When the last launch began."""
        return self.timeline.began

    def lengths(self) -> list[float]:
        """Return how many seconds each launch took; the last until now, if it goes on."""
        now = self.now
        return [max(0.0, (now if one.ended is None else one.ended) - one.began) for one in self.launches]

    @property
    def seconds(self) -> float:
        """How long the run ran in all launches, without the time between them."""
        return sum(self.lengths())

    @property
    def n_finished(self) -> int:
        return len(self.history.finished)

    @property
    def n_failed(self) -> int:
        return self.n_finished - self.counts[Status.DONE] - self.counts[Status.REUSED]

    @property
    def best(self) -> Improvement | None:
        return self.improvements[-1] if self.improvements else None

    @property
    def max_evals(self) -> int | None:
        """Evaluations in all: what the last launch was given, or what a user has made of that."""
        if self.history.max_evals is not None:
            return self.history.max_evals
        value = self.options.get("max_evals")
        return value if isinstance(value, int) else None

    @property
    def hyperparameters(self) -> list[str]:
        """Names of the columns of a configuration."""
        names = self.described.get("hyperparameters")
        return [str(name) for name in names] if isinstance(names, list) else []

    @property
    def logarithmic(self) -> list[str]:
        """Names of those that are ranges on a logarithmic scale, as far as anybody says."""
        names = self.described.get("logarithmic")
        return [str(name) for name in names] if isinstance(names, list) else []

    def running(self) -> dict[int, tuple[int, float]]:
        """Return for each rank that evaluates the trial, and since when it must have been running."""
        if self.state not in ("running", "draining"):
            return {}
        result = {}
        for rank, lane in self.timeline.lanes.items():
            if lane.queue and not (lane.gone or lane.silent):
                trial, placed = lane.queue[0]
                result[rank] = (trial, max(lane.at, placed))
        return result

    def worker_states(self) -> dict[int, str]:
        """Return for each evaluator of the last launch, by rank, what it does now, in a word."""
        running, state = self.running(), self.state
        words = {}
        for rank, worker in self.workers.items():
            if worker.left is not None:
                words[rank] = "left"
            elif state not in ("running", "draining", "starting"):
                words[rank] = state
            elif worker.joined is None:
                words[rank] = Activity.IMPORT.word
            elif worker.silent:
                words[rank] = "silent"
            elif rank in running:
                words[rank] = Activity.EVALUATING.word
            else:
                words[rank] = (Activity.DRAINING if state == "draining" else Activity.WAITING).word
        return words

    def jobs(self) -> Iterator[Job]:
        """Yield every trial as it stands, in the order of their numbers."""
        history, running = self.history, self.running()
        where: dict[int, tuple[int, float]] = {}
        for rank in sorted(running):  # of several the leader
            trial_id, since = running[rank]
            where.setdefault(trial_id, (rank, since))
        held = self.state in ("running", "draining")
        for id_ in sorted([*history.finished, *history.unfinished]):
            if id_ in history.finished:
                outcome, trial = history.finished[id_]
                begun = outcome.start if outcome.status is not Status.LOST else None
                yield Job(trial, outcome.status.value, outcome, outcome.rank, outcome.host, begun)
                continue
            trial = history.unfinished[id_]
            if id_ in where:
                rank, since = where[id_]
                yield Job(trial, Status.RUNNING.value, None, rank, self._worker(rank).host, since)
            elif held and history.holders.get(id_):
                rank = history.holders[id_][0]
                yield Job(trial, Status.PLACED.value, None, rank, self._worker(rank).host, None)
            else:
                yield Job(trial, UNFINISHED, None, None, "", None)

    def events(self) -> Iterator[dict[str, Any]]:
        """Yield every event of the journal that counts, in order, read anew."""
        for batch in Tail(self.path / "journal").read():
            yield from batch

    def by_state(self) -> dict[str, int]:
        """Return how many trials are in each state, without those in which there are none."""
        history = self.history
        counts = {status.value: n for status in Status if (n := self.counts[status])}
        n_running = len({trial for trial, _ in self.running().values()})
        n_held = 0
        if self.state in ("running", "draining"):
            n_held = sum(1 for holders in history.holders.values() if holders)
        others = {
            Status.RUNNING.value: n_running,
            Status.PLACED.value: max(0, n_held - n_running),
            UNFINISHED: len(history.unfinished) - max(n_held, n_running),
        }
        return {**{state: n for state, n in others.items() if n > 0}, **counts}

    def best_config(self) -> Config | None:
        return None if self.best is None else self.history.finished[self.best.trial][1].config

    def deadline(self) -> float | None:
        """Return when the last launch must have ended, for its time limit or its job's; None if there is no limit."""
        return self.history.deadline

    def n_evaluators(self) -> int:
        """Return how many evaluators of the last launch there are now."""
        return sum(worker.left is None for worker in self.workers.values())


def is_run(path: Path) -> bool:
    """Return whether a directory is one of a run."""
    return (path / "journal").is_dir() or (path / "run.json").is_file()


def _absence(path: Path) -> str:
    if not path.exists():
        return "there is no such directory"
    if not path.is_dir():
        return "it is no directory"
    return "it has no journal"


def find(path: Path, depth: int = DEPTH) -> Iterator[Path]:
    """Yield the run directories at or below a directory, in the order of their names.

    Raises
    ------
    RunDirectoryError
        If there is no such directory.
    """
    if not path.is_dir():
        raise RunDirectoryError(f"{path} holds no runs: {_absence(path)}")
    if is_run(path):
        yield path
        return
    if not depth:
        return
    try:
        below = sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.is_symlink())
    except OSError:
        return  # somebody else's
    for entry in below:
        yield from find(entry, depth - 1)


def opened(path: Path, keep: bool = False) -> Run:
    """Return a run with everything that its journal says now.

    Parameters
    ----------
    path : Path
    keep : bool, default False
        Whether the timeline keeps its segments.

    Raises
    ------
    RunDirectoryError
        If there is no run.
    """
    run = Run(path, keep)
    run.refresh()
    return run
