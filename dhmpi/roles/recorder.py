"""Puts a run on record: the journal first, then what people read."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any

from dhmpi.budget import Budget
from dhmpi.journal import Journal
from dhmpi.results import ResultsTable, write_best
from dhmpi.rundirectory import RunDirectory
from dhmpi.trials import Outcome, Trial

log = logging.getLogger("dhmpi")


class Recorder:
    """Writes the files of a run while it goes on.

    Parameters
    ----------
    directory : RunDirectory
    launch : int
        Number of this launch in the run.
    epoch : int
        Rank of the master.
    header : dict
        For the first line of the journal.
    hyperparameters : sequence of str
        Columns of results.csv.
    finished : iterable of (Outcome, Trial)
        Of earlier launches.

    Raises
    ------
    RunDirectoryError
        If something cannot be written; also from every method.
    """

    def __init__(
        self,
        directory: RunDirectory,
        launch: int,
        epoch: int,
        header: dict[str, Any],
        hyperparameters: Sequence[str],
        finished: Iterable[tuple[Outcome, Trial]],
    ) -> None:
        self._directory = directory
        self._journal = Journal(directory.journal, launch, epoch, header)
        self._results = ResultsTable(directory.results, hyperparameters, finished)
        self._rows: list[tuple[Outcome, Trial]] = []
        self._best_written = -1

    def write(self, events: Iterable[dict[str, Any]]) -> None:
        """Append events to the journal."""
        self._journal.write(events)

    def add(self, finished: Sequence[tuple[Outcome, Trial]]) -> None:
        """Take finished trials, for results.csv at the next `flush`; failures go to the log."""
        self._rows += finished
        for outcome, trial in finished:
            if outcome.objective is None:
                log.warning("trial %d %s on rank %d: %s", trial.id, outcome.status, outcome.rank, outcome.reason)

    def flush(self) -> None:
        """Append what has finished since the last call to results.csv."""
        if self._rows:
            rows, self._rows = self._rows, []
            self._results.add(rows)

    def sync(self, budget: Budget) -> None:
        """Force the journal onto the disk, bring best.json up to date, renew the lock."""
        self._journal.sync()
        self._directory.renew()
        best = budget.best
        if best is not None and best.trial != self._best_written:
            self._best_written = best.trial
            write_best(self._directory.best, best, budget.best_config or {})
            log.info("best so far: %.10g, trial %d", best.objective, best.trial)

    def close(self, budget: Budget) -> None:
        """Write the last state and give the lock back."""
        self.flush()
        self.sync(budget)
        self._journal.close()
        self._results.close()
        self._directory.release()
