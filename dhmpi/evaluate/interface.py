"""What every kind of evaluator is told, and what it answers: data only, and the methods they share."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from dhmpi.chaos import Chaos
from dhmpi.trials import Status, Trial

OUTPUT_CAP = 10_000_000


class Loaded(NamedTuple):
    """The run function is imported: evaluations can start.  Comes once for each `load`."""

    seconds: float
    """That the import took."""


class Refused(NamedTuple):
    """The run function cannot be loaded; a trial that was given meanwhile has not been started."""

    reason: str
    """One sentence; then perhaps the last lines of output."""


class Reported(NamedTuple):
    """The running function has reported an intermediate value."""

    trial: int
    attempt: int
    step: int
    value: float
    """As reported; NaN and infinities too."""


class Finished(NamedTuple):
    """An evaluation has ended."""

    trial: int
    attempt: int
    status: Status
    """done, failed, timeout, memory, crashed or cancelled."""
    objective: float | None
    metrics: dict[str, Any]
    start: float
    """Seconds since the epoch, on this host's clock."""
    end: float
    elapsed: float
    """Seconds, on the monotonic clock where the function ran."""
    reason: str = ""
    """Why there is no objective: one sentence, then perhaps a traceback and the last lines of output."""


Event = Loaded | Refused | Reported | Finished


@dataclass(frozen=True)
class EvaluationSpec:
    """What is evaluated in a run, and under which limits.

    Parameters
    ----------
    run : str
        Name of the run function, as given to ``--run``.
    run_directory : Path
        Where task directories are made.
    seed : int
        Of the run; the seed of each trial follows from it.
    run_id : str, default ""
        Exported to child processes as DHMPI_RUN, so that leftovers can be found.
    environment : dict of str to str
        Variables that the child process gets besides the inherited ones: threads, GPU.
    max_rss_mb : float, optional
        An evaluation whose processes together use more memory (MB of 2^20 bytes) is killed.
    recycle_rss_mb : float, optional
        A child process that uses more memory than this after an evaluation is replaced by a new one.
    task_dirs : {"all", "failed", "none"}, default "all"
        Which task directories are kept; with "none" an evaluation works in a temporary directory.
    output_cap_bytes : int, default 10,000,000
        Of what one attempt prints, so much is kept.
    log : Path, optional
        File for what is printed outside evaluations, by imports for instance; by default it is dropped.
    chaos : Chaos, optional
        Faults that evaluations suffer on purpose.
    problem : str, optional
        Name of the problem, as given to ``--problem``, for functions that ask for it.
    wrap : tuple of str, optional
        Words of a command in which ``{}`` stands for that of the evaluating process: a container, for instance.
    python : str, optional
        The interpreter of the evaluating process.
    watched : bool, default False
        Whether somebody looks at what running functions report.
    home : str, optional
        Where the evaluating process starts, and looks for modules; by default the working directory.
    """

    run: str
    run_directory: Path
    seed: int
    run_id: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    max_rss_mb: float | None = None
    recycle_rss_mb: float | None = None
    task_dirs: str = "all"
    output_cap_bytes: int = OUTPUT_CAP
    log: Path | None = None
    chaos: Chaos | None = None
    problem: str = ""
    wrap: tuple[str, ...] = ()
    python: str = sys.executable
    watched: bool = False
    home: str | None = None


class Evaluator(Protocol):
    """Evaluates one trial at a time; nothing here blocks, except `InlineEvaluator.start`."""

    def load(self) -> None:
        """Begin to import the run function; `Loaded` or `Refused` follows."""

    def start(self, trial: Trial, timeout: float | None = None) -> None:
        """Begin to evaluate a trial; `Finished` follows, at the latest soon after `timeout` seconds."""

    def poll(self) -> Sequence[Event]:
        """Return what has happened since the last call."""

    def fileno(self) -> int | None:
        """Return a descriptor that is readable when `poll` has something to do; ask again before each wait."""

    def cancel(self) -> None:
        """End the running evaluation; its `Finished` says cancelled.  Nothing happens if none is running."""

    def stop(self) -> None:
        """Have `should_stop` return True in the running evaluation."""

    def close(self) -> None:
        """End everything that the evaluator has started."""
