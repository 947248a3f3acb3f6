"""Where the time of every evaluator went: the events of a journal become segments that leave no second out.

An evaluator's time, from the start of its launch to the end, is cut into segments that touch.  In each it is in one
`Activity`.  An evaluation of which nothing came is taken to have begun when its event says so, but not before the one
ahead of it ended, or it was given out; journals of dhmpi 0.1.0 do not say it.
"""

from __future__ import annotations

import copy
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, NamedTuple


class Activity(IntEnum):
    """What an evaluator does."""

    IMPORT = 0
    WAITING = 1
    IDLE = 2
    EVALUATING = 3
    LOST = 4
    DRAINING = 5

    @property
    def word(self) -> str:
        return self.name.lower()

    @property
    def meaning(self) -> str:
        return _MEANINGS[self]


_MEANINGS = (
    "from the start of the launch until it was ready",
    "it had no trial, since none was proposed yet",
    "it had a trial and was not evaluating: messages, directories, preparations",
    "an evaluation ran of which the outcome is known, or which still runs",
    "an evaluation ran of which nothing came, or its process was dead or silent",
    "nothing new was to be started, and it had nothing left to do",
)
N_BINS = 240
"""Bins of a `Curve`, at most."""
FIRST_BIN = 1e-3
"""Seconds of a bin of a curve that begins."""
NOT_ONE = -1
"""In the place of a trial where there is none."""


class Segment(NamedTuple):
    """What an evaluator did for a time.

    ``trial`` is `NOT_ONE` where no evaluation ran; ``open`` says whether the evaluation was still running.
    """

    launch: int
    rank: int
    activity: Activity
    begin: float
    end: float
    trial: int
    open: bool


PACKED = struct.Struct("=iibddq?")
"""A `Segment` as bytes: there are millions, and to keep objects takes six times as long."""


class Curve:
    """A sum of intervals over time, in at most `N_BINS` bins that grow wider with the time they cover.

    Parameters
    ----------
    origin : float
        Time at which it begins.

    Attributes
    ----------
    width : float
        Seconds of a bin.
    bins : list of float
        Seconds of all intervals within each.
    """

    def __init__(self, origin: float) -> None:
        self.origin = origin
        self.width = FIRST_BIN
        self.bins: list[float] = [0.0] * N_BINS

    def add(self, begin: float, end: float) -> None:
        """Add an interval."""
        begin -= self.origin
        end -= self.origin
        while end > self.width * N_BINS:
            self._widen()
        width, bins = self.width, self.bins
        first, last = max(0, int(begin / width)), min(N_BINS - 1, int(end / width))
        if first == last:
            bins[first] += end - begin
            return
        bins[first] += (first + 1) * width - begin
        bins[last] += end - last * width
        for i in range(first + 1, last):
            bins[i] += width

    def _widen(self) -> None:
        bins = self.bins
        self.bins = [bins[i] + bins[i + 1] for i in range(0, N_BINS, 2)] + [0.0] * (N_BINS // 2)
        self.width *= 2


@dataclass
class Lane:
    """One evaluator in one launch.

    Attributes
    ----------
    rank : int
    at : float
        Up to when its time is accounted for.
    activity : Activity
        What it does at that time, unless it evaluates.
    queue : list of (int, float)
        Trials that it has, with the times at which it got them; the first is the one that runs.
    changes : list of (float, Activity)
        What it does later.
    """

    rank: int
    at: float
    activity: Activity = Activity.IMPORT
    loading: bool = True
    gone: bool = False
    silent: bool = False
    queue: list[tuple[int, float]] = field(default_factory=list)
    changes: list[tuple[float, Activity]] = field(default_factory=list)


class Timeline:
    """Turns events into segments.

    Parameters
    ----------
    keep : bool, default False
        Whether every segment is kept; otherwise only their sums are.

    Attributes
    ----------
    seconds : list of float
        Seconds of all ranks of evaluators by `Activity`, in all launches, up to what is accounted for.
    busy : Curve or None
        Seconds of ranks that were evaluating, or lost, over the time of the last launch.
    lanes : dict of int to Lane
        Of the last launch, by rank.
    """

    def __init__(self, keep: bool = False) -> None:
        self.keep = keep
        self.seconds = [0.0] * len(Activity)
        self.lanes: dict[int, Lane] = {}
        self.busy: Curve | None = None
        self.began = 0.0
        self.launch = -1
        self._expected: frozenset[int] = frozenset()
        self._stopping = False
        self._closed = True
        self._kept = bytearray()

    # -- events, in the order of the journal ---------------------------------------------------------------------------

    def begin(self, launch: int, started: float, ranks: Iterable[int]) -> None:
        """Begin a launch; `ranks` are its evaluators, as far as they are known."""
        self.launch, self.began = launch, started
        self._expected = frozenset(ranks)
        self._stopping, self._closed = False, False
        self.lanes = {}
        self.busy = Curve(started)
        for rank in sorted(self._expected):
            self._lane(rank)

    def join(self, rank: int, t: float) -> None:
        recruited = bool(self._expected) and rank not in self.lanes  # a spare rank, which was to do nothing before
        lane = self._lane(rank)
        if recruited:
            lane.at = t
        if lane.gone or lane.loading:
            lane.loading = lane.gone = False
            self._change(lane, t)

    def leave(self, rank: int, t: float) -> None:
        lane = self._lane(rank)
        lane.gone = True
        self._change(lane, t)

    def silent(self, rank: int, t: float, silent: bool) -> None:
        lane = self._lane(rank)
        lane.silent = silent
        self._change(lane, t)

    def place(self, rank: int, trial: int, t: float) -> None:
        lane = self._lane(rank)
        lane.queue.append((trial, t))
        if len(lane.queue) == 1:
            self._change(lane, t)

    def finish(self, rank: int, trial: int, begin: float, end: float, t: float) -> None:
        """Note an evaluation of which the outcome is known."""
        lane = self._lane(rank)
        begin = max(begin, lane.at)
        if end > begin:
            self._fill(lane, begin)
            self._emit(lane, Activity.EVALUATING, begin, end, trial)
            lane.at = end
        self._unqueue(lane, trial, t)

    def waste(self, rank: int, trial: int, t: float, began: float | None = None, ended: float | None = None) -> None:
        """Note that nothing came of a trial that a rank had; when it began and ended there, if anybody says."""
        lane = self._lane(rank)
        if lane.queue and lane.queue[0][0] == trial:
            self._run(lane, t if ended is None else min(t, ended), Activity.LOST, began=began)
        self._unqueue(lane, trial, t)

    def stop(self, t: float) -> None:
        """Note that nothing new is started from now on."""
        if self._stopping:
            return
        self._stopping = True
        for lane in self.lanes.values():
            self._change(lane, t)

    def go_on(self, t: float) -> None:
        """Note that new evaluations are started again."""
        if not self._stopping:
            return
        self._stopping = False
        for lane in self.lanes.values():
            self._change(lane, t)

    def end(self, t: float, in_flight: Activity = Activity.LOST) -> None:
        """End the launch; what still runs is of the given activity."""
        if self._closed:
            return
        self._closed = True
        for lane in self.lanes.values():
            if lane.queue and not (lane.gone or lane.silent):
                self._run(lane, t, in_flight, running=in_flight is Activity.EVALUATING)
            self._fill(lane, t)

    # -- what came of it -----------------------------------------------------------------------------------------------

    def account(self, t: float, live: bool) -> tuple[list[float], Curve | None, bytearray]:
        """Return seconds by activity, the curve and the packed segments up to a time, with what is still running.

        Parameters
        ----------
        t : float
        live : bool
            Whether the run goes on; otherwise what still runs has come to nothing.
        """
        if self._closed:
            return self.seconds, self.busy, self._kept
        other = copy.deepcopy(self)
        other.end(t, Activity.EVALUATING if live else Activity.LOST)
        return other.seconds, other.busy, other._kept

    # -- how -----------------------------------------------------------------------------------------------------------

    def _lane(self, rank: int) -> Lane:
        lane = self.lanes.get(rank)
        if lane is None:
            lane = self.lanes[rank] = Lane(rank, self.began)
        return lane

    def _change(self, lane: Lane, t: float) -> None:
        """Note what a lane does from a time on, unless it evaluates."""
        if lane.gone or lane.silent:
            activity = Activity.LOST
        elif lane.loading:
            activity = Activity.IMPORT
        elif lane.queue:
            activity = Activity.IDLE
        elif self._stopping:
            activity = Activity.DRAINING
        else:
            activity = Activity.WAITING
        if activity is not (lane.changes[-1][1] if lane.changes else lane.activity):
            lane.changes.append((t, activity))

    def _unqueue(self, lane: Lane, trial: int, t: float) -> None:
        queue = lane.queue
        if queue and queue[0][0] == trial:
            del queue[0]
        else:
            lane.queue = [item for item in queue if item[0] != trial]
        if not lane.queue:
            self._change(lane, t)

    def _run(self, lane: Lane, t: float, activity: Activity, running: bool = False, began: float | None = None) -> None:
        """Account for an evaluation that has no outcome, up to a time."""
        trial, placed = lane.queue[0]
        begin = max(lane.at, placed, began or 0.0)
        if t > begin:
            self._fill(lane, begin)
            self._emit(lane, activity, begin, t, trial, running)
            lane.at = t

    def _fill(self, lane: Lane, until: float) -> None:
        """Account for what a lane did, without evaluating, up to a time."""
        changes = lane.changes
        n = 0
        for t, activity in changes:
            if t >= until:
                break
            if t > lane.at:
                self._emit(lane, lane.activity, lane.at, t)
                lane.at = t
            lane.activity = activity
            n += 1
        if n:
            del changes[:n]
        if until > lane.at:
            self._emit(lane, lane.activity, lane.at, until)
            lane.at = until

    def _emit(
        self, lane: Lane, activity: Activity, begin: float, end: float, trial: int = NOT_ONE, running: bool = False
    ) -> None:
        self.seconds[activity] += end - begin
        if trial != NOT_ONE and self.busy is not None:
            self.busy.add(begin, end)
        if self.keep:
            self._kept += PACKED.pack(self.launch, lane.rank, activity, begin, end, trial, running)


def evaluators_of(header: dict[str, Any], described: dict[str, Any]) -> list[int]:
    """Return the evaluators of a launch; empty if nobody says.

    Parameters
    ----------
    header : dict
        First line of a file of the journal.
    described : dict
        Content of run.json, which has the layout of the last launch.
    """
    layout = header.get("layout") or described.get("layout") or {}
    if "ranks" in header and len(layout.get("hosts", ())) != header["ranks"]:
        return []
    return [rank for group in layout.get("groups", ()) for rank in group]
