"""The evaluations of a run in columns, from its journal or from a results.csv.  Start at `load`."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dhmpi import csvfiles, runs
from dhmpi.csvfiles import Kind
from dhmpi.errors import DhmpiError, RunDirectoryError
from dhmpi.results import METRIC_PREFIX
from dhmpi.trials import Config, Status

if TYPE_CHECKING:
    from dhmpi.analytics.usage import Usage
    from dhmpi.nas.space import SearchSpace
    from dhmpi.runs import Run

ARCH_SEQ = "arch_seq"
PASSED = ("num_epochs", "parent")
"""Entries that a screening adds to configurations, which are no hyperparameters."""


@dataclass
class Study:
    """Finished evaluations in the order in which they ended.

    Attributes
    ----------
    name : str
    path : Path
    hyperparameters : list of str
    trial, attempt, rank : ndarray of int, shape (n,)
    status : list of str
    objective : ndarray of shape (n,)
        NaN where there is none.
    host : list of str
    start, end, elapsed : ndarray of shape (n,)
        Seconds, the first two since the epoch; NaN where nobody knows.
    seconds : ndarray of shape (n,)
        When each ended, in seconds since the run began, without the time between launches.
    configs : list of dict
    metrics : list of dict
    reasons : list of str
    run : Run or None
        Where there is a journal.
    """

    name: str
    path: Path
    hyperparameters: list[str]
    trial: np.ndarray
    attempt: np.ndarray
    rank: np.ndarray
    status: list[str]
    objective: np.ndarray
    host: list[str]
    start: np.ndarray
    end: np.ndarray
    elapsed: np.ndarray
    seconds: np.ndarray
    configs: list[Config]
    metrics: list[dict[str, Any]]
    reasons: list[str]
    run: Run | None = None

    def __len__(self) -> int:
        return len(self.trial)

    @property
    def succeeded(self) -> np.ndarray:
        """Return which evaluations have an objective."""
        return ~np.isnan(self.objective)

    @property
    def best_so_far(self) -> np.ndarray:
        """Return the largest objective until each evaluation; NaN before the first."""
        filled = np.where(self.succeeded, self.objective, -np.inf)
        best = np.maximum.accumulate(filled) if len(self) else filled
        return np.where(np.isinf(best), np.nan, best)

    @property
    def has_architectures(self) -> bool:
        return any(ARCH_SEQ in config for config in self.configs[:1])

    @cached_property
    def architecture_space(self) -> SearchSpace | None:
        """The space that architectures are of, which knows names and networks.

        None if there are no architectures, or the problem cannot be loaded here, or has changed since.
        """
        name = self.run.described.get("problem") if self.run is not None and self.has_architectures else None
        if not isinstance(name, str):
            return None
        from dhmpi.load import load_problem  # late: brings ConfigSpace, and the user's module

        try:
            problem = load_problem(name)
        except DhmpiError:
            return None
        space: SearchSpace | None = getattr(problem, "architecture_space", None)
        longest = max(len(config.get(ARCH_SEQ, ())) for config in self.configs)
        return space if space is not None and longest == len(space.decisions) else None

    def chosen(self, arch: Sequence[Any]) -> dict[str, str]:
        """Return an architecture in words: what it chooses for each decision, by numbers where names are not known."""
        space = self.architecture_space
        if space is None:
            return {f"{ARCH_SEQ}[{i}]": str(option) for i, option in enumerate(arch)}
        chosen = {}
        for decision, option in zip(space.decisions, arch):
            known = isinstance(option, int) and 0 <= option < len(decision.options)
            chosen[decision.name] = decision.options[option] if known else str(option)
        return chosen

    @property
    def metric_names(self) -> list[str]:
        return list(dict.fromkeys(name for metrics in self.metrics for name in metrics))

    def best(self, k: int) -> list[int]:
        """Return the indices of the k best evaluations of different configurations, the earliest of equals first."""
        found: list[int] = []
        known: set[str] = set()
        for i in np.argsort(-np.where(self.succeeded, self.objective, -np.inf), kind="stable"):
            if len(found) == k or np.isnan(self.objective[i]):
                break
            config = json.dumps(self.configs[i], sort_keys=True)
            if config not in known:
                known.add(config)
                found.append(int(i))
        return found

    def row(self, i: int) -> dict[str, Any]:
        """Return everything about one evaluation."""
        return {
            "trial": int(self.trial[i]),
            "attempt": int(self.attempt[i]),
            "status": self.status[i],
            "objective": _number(self.objective[i]),
            "rank": int(self.rank[i]),
            "host": self.host[i],
            "start": _number(self.start[i]),
            "end": _number(self.end[i]),
            "elapsed_sec": _number(self.elapsed[i]),
            "configuration": self.configs[i],
            "metrics": self.metrics[i],
            "reason": self.reasons[i],
        }

    def usage(self) -> Usage:
        """Return where the time of the evaluators went.

        Raises
        ------
        RunDirectoryError
            If there is no journal, which alone knows.
        """
        from dhmpi.analytics.usage import measure

        return measure(self._journaled())

    @property
    def evaluations(self) -> Any:
        """Return a pandas data frame with a row for each evaluation, columns as in results.csv.

        Raises
        ------
        DhmpiError
            If pandas is not installed; also from what follows.
        """
        return _pandas().DataFrame(list(self.rows()))

    @property
    def events(self) -> Any:
        """Return a pandas data frame with a row for each event of the journal, and a column for each of their entries.

        Raises
        ------
        RunDirectoryError
            If there is no journal.
        """
        return _pandas().DataFrame(list(self._journaled().events()))

    def utilization(self, n: int = 400) -> Any:
        """Return a pandas data frame of what evaluators did over time.

        Parameters
        ----------
        n : int, default 400
            Stretches of time.

        Returns
        -------
        DataFrame
            A row for each stretch: ``seconds``, when it begins, and the part of the evaluators' time in it that was
            ``in flight`` or ``completed`` (both definitions of utilisation), and in each activity.
        """
        pandas = _pandas()
        edges, shares = self.usage().curves(n)
        return pandas.DataFrame({"seconds": edges[:-1], **shares})

    def _journaled(self) -> Run:
        if self.run is None:
            raise RunDirectoryError(f"{self.path} does not say what evaluators did: name a run directory")
        return self.run

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield the rows of results.csv."""
        names = self.metric_names
        for i in range(len(self)):
            row = self.row(i)
            config, metrics = row.pop("configuration"), row.pop("metrics")
            del row["reason"]
            yield {
                **row,
                **{name: config.get(name) for name in self.hyperparameters},
                **{METRIC_PREFIX + name: metrics.get(name) for name in names},
            }


def _pandas() -> Any:
    try:
        import pandas
    except ImportError:
        raise DhmpiError("data frames need pandas: pip install pandas") from None
    return pandas


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def load(path: Path) -> Study:
    """Return what a run directory, or a results.csv of dhmpi or DeepHyper, says; or what was exported to Parquet.

    Raises
    ------
    DhmpiError
        If there is nothing to read.
    """
    if path.suffix == ".parquet" and path.is_file():
        return _from_table(path, csvfiles.tabled(path, _rows_of_parquet(path)))
    if path.is_file():
        return _from_csv(path)
    if (path / "journal").is_dir() or not (path / "results.csv").is_file():
        return from_run(runs.opened(path, keep=True))
    return _from_csv(path / "results.csv")


def from_run(run: Run) -> Study:
    """Return the evaluations of a run."""
    finished = list(run.history.finished.values())
    outcomes = [outcome for outcome, _ in finished]
    configs = [trial.config for _, trial in finished]
    columns = list(zip(*outcomes)) or [()] * 11
    trial, attempt, status, objective, metrics, rank, host, start, end, elapsed, reason = columns
    known = np.array([s is not Status.LOST for s in status], dtype=bool)
    ends = np.where(known, _floats(end), np.nan)
    return Study(
        name=run.name,
        path=run.path,
        hyperparameters=run.hyperparameters or _names(configs),
        trial=np.array(trial, dtype=np.int64),
        attempt=np.array(attempt, dtype=np.int64),
        rank=np.array(rank, dtype=np.int64),
        status=[s.value for s in status],
        objective=_floats(objective),
        host=list(host),
        start=np.where(known, _floats(start), np.nan),
        end=ends,
        elapsed=_floats(elapsed),
        seconds=search_time(run, _carried(ends, run.first)),
        configs=configs,
        metrics=list(metrics),
        reasons=list(reason),
        run=run,
    )


def search_time(run: Run, times: np.ndarray) -> np.ndarray:
    """Return times in seconds since a run began, without those between its launches."""
    launches = run.launches
    if not launches:
        return times * 0.0
    begins = np.array([launch.began for launch in launches])
    lengths = np.array(run.lengths())
    before = np.concatenate([[0.0], np.cumsum(lengths)[:-1]])
    which = np.clip(np.searchsorted(begins, times, side="right") - 1, 0, None)
    return np.maximum(0.0, np.minimum(times - begins[which], lengths[which]) + before[which])


def _carried(ends: np.ndarray, first: float) -> np.ndarray:
    """Return times without gaps: an evaluation that was lost ended about when the one before it did."""
    if not len(ends):
        return ends
    filled = np.where(np.isnan(ends), -np.inf, ends)
    filled = np.where(np.isnan(ends), np.maximum.accumulate(filled), filled)
    return np.where(np.isinf(filled), first, filled)


def _floats(values: Iterable[float | None]) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values], dtype=float)


def _names(configs: Sequence[Config]) -> list[str]:
    return [name for name in dict.fromkeys(name for config in configs for name in config) if name not in PASSED]


# -- results.csv -------------------------------------------------------------------------------------------------------


def _from_csv(path: Path) -> Study:
    """Read a results.csv of dhmpi, or of DeepHyper (its columns are hyperparameters, objective and elapsed_sec)."""
    return _from_table(path, csvfiles.read(path))


def _rows_of_parquet(path: Path) -> list[dict[str, str]]:
    """Return the rows of a file as a results.csv would have them."""
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise DhmpiError("Parquet files need pyarrow: pip install pyarrow") from None
    try:
        table = parquet.read_table(path)
    except (OSError, ArrowException) as error:
        raise RunDirectoryError(f"cannot read {path}: {str(error).splitlines()[0]}") from error
    return [{name: _written(value) for name, value in row.items()} for row in table.to_pylist()]


def _written(value: Any) -> str:
    if value is None:
        return ""
    return json.dumps(value) if isinstance(value, list | dict) else str(value)


def _from_table(path: Path, table: csvfiles.Table) -> Study:
    """Return what a table of results says."""
    if table.kind is Kind.OPTUNA:
        raise RunDirectoryError(f"{path} is no results.csv: it is an export of Optuna, which --warm-start reads")
    rows, configs, ours = table.rows, table.configs, table.kind is Kind.DHMPI
    metrics = [column for column in table.columns if column.startswith(METRIC_PREFIX)]
    objective = _floats(table.objectives)
    elapsed = _column(rows, "elapsed_sec")
    end = _column(rows, "end") if ours else elapsed  # DeepHyper's: seconds since the start, when it was seen
    if not ours and np.isnan(end).all():
        end = _column(rows, "m:timestamp_gather")
    if np.isnan(end).all():
        end = np.arange(1.0, len(rows) + 1)
    order = np.argsort(_carried(end, 0.0), kind="stable")
    rows = [rows[i] for i in order]
    end, start = end[order], (_column(rows, "start") if ours else np.full(len(rows), np.nan))
    began = np.nanmin(start) if not np.isnan(start).all() else 0.0
    return Study(
        name=path.stem if path.stem != "results" else path.absolute().parent.name,
        path=path,
        hyperparameters=table.names,
        trial=np.array([_whole(row.get("trial") or row.get("job_id"), i) for i, row in zip(order, rows)]),
        attempt=np.array([_whole(row.get("attempt"), 0) for row in rows]),
        rank=np.array([_whole(row.get("rank"), 0) for row in rows]),
        status=[row["status"] for row in rows] if ours else _judged(objective[order]),
        objective=objective[order],
        host=[row.get("host") or "" for row in rows],
        start=start,
        end=end,
        elapsed=elapsed[order] if ours else np.full(len(rows), np.nan),
        seconds=np.maximum(0.0, _carried(end, began) - began),
        configs=[configs[i] for i in order],
        metrics=[
            {name[len(METRIC_PREFIX) :]: csvfiles.value(row[name]) for name in metrics if row[name]} for row in rows
        ],
        reasons=[""] * len(rows),
    )


def _judged(objective: np.ndarray) -> list[str]:
    return [str(Status.FAILED if failed else Status.DONE) for failed in np.isnan(objective)]


def _whole(text: str | None, default: int) -> int:
    try:
        return int(float(text)) if text else int(default)
    except ValueError:
        return int(default)


def _column(rows: Sequence[Mapping[str, str]], name: str) -> np.ndarray:
    def number(text: str | None) -> float:
        try:
            return float(text) if text else math.nan
        except ValueError:
            return math.nan

    return np.array([number(row.get(name)) for row in rows])
