"""What a person sees while a search runs, and at its end.

A bar in a terminal, else plain lines that come less often the longer the run lasts.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

from dhmpi.trials import Config, Outcome

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

REFRESH = 0.25
"""Seconds between two looks at a terminal."""
PLAIN_FIRST, PLAIN_LAST, PLAIN_FRACTION = 1.0, 60.0, 0.1
"""A plain line comes after this part of the time since the start, in seconds between the first two."""


@dataclass(frozen=True)
class Figures:
    """How a run stands."""

    n_finished: int
    max_evals: int
    n_running: int
    n_failed: int
    best: float | None
    utilisation: float
    seconds: float
    """Since the search began."""
    n_new: int
    """Trials that have finished in this launch."""

    @property
    def rate(self) -> float:
        """Finished evaluations per second in this launch."""
        return self.n_new / self.seconds if self.seconds > 0 else 0.0

    @property
    def seconds_left(self) -> float | None:
        left = self.max_evals - self.n_finished
        return left / self.rate if self.rate > 0 else None

    def __str__(self) -> str:
        best = "none" if self.best is None else f"{self.best:.6g}"
        eta = "?" if self.seconds_left is None else clock(self.seconds_left)
        return (
            f"{self.n_finished}/{self.max_evals} done, {self.n_running} running, {self.n_failed} failed, "
            f"best {best}, utilisation {self.utilisation:.2f}, {rate(self.rate)}, ETA {eta}"
        )


class Progress:
    """Shows figures on a stream.

    Parameters
    ----------
    stream : text file
    terminal : bool
        Whether a person looks at it in a terminal.
    """

    def __init__(self, stream: TextIO, terminal: bool) -> None:
        self._stream = stream
        self._terminal = terminal
        self._start = time.monotonic()
        self._next = self._start + (0 if terminal else PLAIN_FIRST)
        self._bar: RichProgress | None = None

    def due(self) -> bool:
        """Return whether it is time to `show` the figures."""
        return time.monotonic() >= self._next

    def show(self, figures: Figures) -> None:
        now = time.monotonic()
        if self._terminal:
            self._next = now + REFRESH
            self._draw(figures)
            return
        self._next = now + min(PLAIN_LAST, max(PLAIN_FIRST, PLAIN_FRACTION * (now - self._start)))
        self.say(f"[{clock(now - self._start)}] {figures}")

    def say(self, line: str) -> None:
        """Show a line above the bar, or after the others."""
        if self._bar is not None:
            self._bar.console.print(line, markup=False, highlight=False)
        else:
            print(line, file=self._stream, flush=True)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _draw(self, figures: Figures) -> None:
        if self._bar is None:
            from rich.console import Console  # late: only a terminal needs it
            from rich.progress import BarColumn, TextColumn
            from rich.progress import Progress as RichProgress

            console = Console(file=self._stream, force_terminal=True)
            self._bar = RichProgress(BarColumn(bar_width=24), TextColumn("{task.description}"), console=console)
            self._bar.start()
            self._bar.add_task("", total=figures.max_evals)
        self._bar.update(self._bar.task_ids[0], completed=figures.n_finished, description=str(figures))


def clock(seconds: float) -> str:
    """Return seconds as H:MM:SS.

    >>> clock(3725.2)
    '1:02:05'
    """
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def rate(per_second: float) -> str:
    """Return a rate in the unit that reads best.

    >>> rate(0.5)
    '30.0/min'
    """
    return f"{per_second:.1f}/s" if per_second >= 1 else f"{60 * per_second:.1f}/min"


def summary(
    figures: Figures, reason: str, best: tuple[Outcome, Config] | None, losses: str, directory: str, resume: str
) -> str:
    """Return the last words of a run.

    Parameters
    ----------
    reason : str
        Why it ended.
    best : (Outcome, Config) or None
    losses : str
        What ranks and evaluations were lost, empty if none.
    directory : str
        Run directory.
    resume : str
        Command that continues the run, empty if it is complete.
    """
    lines = [f"The search has ended: {reason}."]
    lines.append(
        f"{figures.n_finished} evaluations finished, {figures.n_failed} of them failed, in {clock(figures.seconds)} "
        f"({rate(figures.rate)}); utilisation {figures.utilisation:.3f}"
    )
    if losses:
        lines.append(f"Losses: {losses}.")
    if best is None:
        lines.append("No evaluation has succeeded.")
    else:
        outcome, config = best
        lines.append(f"Best objective {outcome.objective:.10g}, trial {outcome.trial}:")
        width = max(map(len, config))
        lines += [f"  {name:<{width}}  {value}" for name, value in config.items()]
    lines.append(f"Results in {directory}")
    if resume:
        lines.append(f"To go on: {resume}")
    return "\n".join(lines)
