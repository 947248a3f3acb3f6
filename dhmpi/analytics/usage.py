"""Where the time of evaluators went, as numbers: totals, over time, per rank, per host.

Two definitions of utilisation are in use.  With what is in flight: the part of all evaluators' time in which an
evaluation ran, whatever came of it.  Completed only: the part in which one ran whose outcome is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dhmpi.analytics.study import search_time
from dhmpi.timeline import Activity, Segment
from dhmpi.trials import Status

if TYPE_CHECKING:
    from dhmpi.runs import Run

N_BINS = 400
_TYPES = ("i4", "i4", "i1", "f8", "f8", "i8", "i1")
"""Of the fields of a packed `Segment`."""


@dataclass
class Usage:
    """What evaluators did.

    Attributes
    ----------
    seconds : dict of str to float
        Seconds of all ranks of evaluators in each activity.
    n_evaluators : int
        Of the last launch.
    n_ranks : dict of str to int
        Ranks of the last launch by role.
    length : float
        Seconds of all launches.
    launch, rank, activity, begin, end, trial, open : ndarray
        Segments: begin and end in seconds since the run began, without the time between launches.
    outcome : ndarray of int
        Of each segment: 1 the evaluation succeeded, 0 it failed, -1 it has no outcome, or there was none.
    hosts : dict of int to str
        By rank.
    failures : dict of str to (int, int)
        For each host evaluations that failed there, and all.
    boundaries : list of float
        When launches after the first began.
    """

    seconds: dict[str, float]
    n_evaluators: int
    n_ranks: dict[str, int]
    length: float
    launch: np.ndarray
    rank: np.ndarray
    activity: np.ndarray
    begin: np.ndarray
    end: np.ndarray
    trial: np.ndarray
    open: np.ndarray
    outcome: np.ndarray
    hosts: dict[int, str]
    failures: dict[str, tuple[int, int]]
    boundaries: list[float]

    @property
    def total(self) -> float:
        return sum(self.seconds.values())

    def share(self, activity: Activity) -> float:
        return self.seconds[activity.word] / self.total if self.total else 0.0

    @property
    def utilisation(self) -> float:
        """With what is in flight."""
        return self.share(Activity.EVALUATING) + self._wasted / self.total if self.total else 0.0

    @property
    def utilisation_completed(self) -> float:
        """Of evaluations with an outcome only."""
        lengths = self.end - self.begin
        done = (self.activity == Activity.EVALUATING) & (self.open == 0)
        return float(lengths[done].sum()) / self.total if self.total else 0.0

    @property
    def _wasted(self) -> float:
        """Seconds of evaluations of which nothing came."""
        lost = (self.activity == Activity.LOST) & (self.trial >= 0)
        return float((self.end - self.begin)[lost].sum())

    def losses(self) -> list[tuple[Activity, float]]:
        """Return where time was lost, the largest first."""
        others = [activity for activity in Activity if activity is not Activity.EVALUATING]
        return sorted(((a, self.seconds[a.word]) for a in others if self.seconds[a.word] > 0), key=lambda x: -x[1])

    def sentence(self) -> str:
        """Return the account in a sentence."""
        if not self.total:
            return "No evaluator has had any time yet."
        whose = "the evaluator's time" if self.n_evaluators == 1 else f"{self.n_evaluators} evaluators' time"
        if self.boundaries:  # one launch may have had more of them than another
            whose = f"evaluators' time in {len(self.boundaries) + 1} launches"
        said = f"{100 * self.share(Activity.EVALUATING):.1f} % of {whose} went into evaluations"
        losses = self.losses()
        if not losses:
            return f"{said}."
        activity, seconds = losses[0]
        return f"{said}; the largest loss was {100 * seconds / self.total:.1f} % {_LOSSES[activity]}."

    def curves(self, n: int = N_BINS) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Return shares over time.

        Returns
        -------
        edges : ndarray of shape (n + 1,)
            Seconds.
        shares : dict of str to ndarray of shape (n,)
            For each activity, and for ``in flight`` and ``completed``, the part of the evaluators' time in each bin.
        """
        edges = np.linspace(0.0, self.length or 1.0, n + 1)
        total = self._per_bin(np.ones(len(self.rank), dtype=bool), edges)
        with np.errstate(invalid="ignore", divide="ignore"):
            shares = {activity.word: self._per_bin(self.activity == activity, edges) / total for activity in Activity}
            ran = (self.activity == Activity.EVALUATING) | ((self.activity == Activity.LOST) & (self.trial >= 0))
            shares["in flight"] = self._per_bin(ran, edges) / total
            completed = (self.activity == Activity.EVALUATING) & (self.open == 0)
            shares["completed"] = self._per_bin(completed, edges) / total
        return edges, shares

    def _per_bin(self, chosen: np.ndarray, edges: np.ndarray) -> np.ndarray:
        """Return the seconds of some segments in each bin, exactly."""
        return np.diff(_until(self.begin[chosen], edges)) - np.diff(_until(self.end[chosen], edges))

    def by_rank(self) -> list[dict[str, Any]]:
        """Return for each evaluator its host, its seconds in each activity, and its evaluations."""
        ranks, where = np.unique(self.rank, return_inverse=True)
        lengths = self.end - self.begin
        table = np.zeros((len(ranks), len(Activity)))
        np.add.at(table, (where, self.activity), lengths)
        counts = {
            name: np.bincount(where[chosen], minlength=len(ranks))
            for name, chosen in (("done", self.outcome == 1), ("failed", self.outcome == 0))
        }
        return [
            {
                "rank": int(rank),
                "host": self.hosts.get(int(rank), ""),
                **{activity.word: float(table[i, activity]) for activity in Activity},
                "done": int(counts["done"][i]),
                "failed": int(counts["failed"][i]),
            }
            for i, rank in enumerate(ranks)
        ]


_LOSSES = {
    Activity.IMPORT: "in imports, before evaluators were ready",
    Activity.WAITING: "waiting for proposals of the search",
    Activity.IDLE: "between evaluations: messages, directories, preparations",
    Activity.LOST: "in evaluations of which nothing came, and on ranks that were dead",
    Activity.DRAINING: "at the end, when nothing was left to start",
}


def _until(times: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Return for each edge the sum of times that have passed since those before it."""
    times = np.sort(times)
    n = np.searchsorted(times, edges, side="right")
    return n * edges - np.concatenate([[0.0], np.cumsum(times)])[n]


def measure(run: Run) -> Usage:
    """Return where the time of a run's evaluators went, up to now."""
    seconds, _, kept = run.timeline.account(run.now, run.live)
    table = np.frombuffer(bytes(kept), dtype=np.dtype(list(zip(Segment._fields, _TYPES))))
    launch, rank, activity, begin, end, trial, open_ = (np.ascontiguousarray(table[name]) for name in Segment._fields)
    return Usage(
        seconds={activity.word: seconds[activity] for activity in Activity},
        n_evaluators=len(run.workers),
        n_ranks=_roles(run),
        length=run.seconds,
        launch=launch,
        rank=rank,
        activity=activity,
        begin=search_time(run, begin),
        end=_ends(run, launch, end),
        trial=trial,
        open=open_,
        outcome=_outcomes(run, activity, trial, open_),
        hosts=_hosts(run),
        failures=_failures(run),
        boundaries=[float(search_time(run, np.array([one.began]))[0]) for one in run.launches[1:]],
    )


def _ends(run: Run, launch: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Return ends in search time: a segment that ends where the next launch begins is still of its own."""
    numbers = {one.number: one for one in run.launches}
    limits = np.array([(numbers[int(n)].ended or run.now) for n in np.unique(launch)]) if len(launch) else np.empty(0)
    _, where = np.unique(launch, return_inverse=True)
    begins = np.array([numbers[int(n)].began for n in np.unique(launch)]) if len(launch) else np.empty(0)
    offset = search_time(run, begins) if len(launch) else begins
    return np.minimum(end, limits[where]) - begins[where] + offset[where] if len(launch) else end


def _outcomes(run: Run, activity: np.ndarray, trial: np.ndarray, open_: np.ndarray) -> np.ndarray:
    result = np.full(len(trial), -1, dtype=np.int8)
    finished = run.history.finished
    if not finished:
        return result
    table = np.full(max(int(trial.max(initial=0)), max(finished)) + 1, -1, dtype=np.int8)
    for id_, (outcome, _) in finished.items():
        table[id_] = outcome.objective is not None
    chosen = (activity == Activity.EVALUATING) & (open_ == 0) & (trial >= 0)
    result[chosen] = table[trial[chosen]]
    return result


def _hosts(run: Run) -> dict[int, str]:
    hosts = {outcome.rank: outcome.host for outcome, _ in run.history.finished.values() if outcome.host}
    return {**hosts, **{rank: worker.host for rank, worker in run.workers.items() if worker.host}}


def _failures(run: Run) -> dict[str, tuple[int, int]]:
    counts: dict[str, list[int]] = {}
    for outcome, _ in run.history.finished.values():
        if outcome.status is Status.REUSED:
            continue
        count = counts.setdefault(outcome.host, [0, 0])
        count[0] += outcome.objective is None
        count[1] += 1
    return {host: (failed, n) for host, (failed, n) in counts.items()}


def _roles(run: Run) -> dict[str, int]:
    layout = run.layout
    named: dict[str, Sequence[int]] = {
        "master": [layout["master"]] if "master" in layout else [],
        "searcher": [layout["searcher"]] if layout.get("searcher") is not None else [],
        "agents": layout.get("agents", ()),
        "evaluators": list(run.workers),
        "spare": layout.get("spare", ()),
    }
    return {role: len(ranks) for role, ranks in named.items() if len(ranks)}
