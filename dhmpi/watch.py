"""``python -m dhmpi.watch RUN``: a run in the terminal while it goes on, from its files alone.

A refresh reads what the journal has got since the last one, and draws; it costs the same however long the journal is.
"""

from __future__ import annotations

import argparse
import bisect
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dhmpi import __version__
from dhmpi.check import Parser
from dhmpi.errors import EXIT_BAD_INPUT, DhmpiError, OptionError
from dhmpi.roles.progress import rate as rate_in_words
from dhmpi.runs import Run
from dhmpi.steering import in_words
from dhmpi.tables import duration, moment, text
from dhmpi.timeline import Activity, Curve
from dhmpi.trials import Status

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult

PROG = "python -m dhmpi.watch"
DESCRIPTION = (
    "Watch a run in the terminal while it goes on: the best so far, utilisation, evaluations by state, the last"
    " failures, and when it will end. Ends with the run, or with Ctrl-C. Reads the files of the run, opens no port."
)
INTERVAL = 1.0
LEAST_INTERVAL = 0.1
WIDTH, HEIGHT = 100, 32
"""Of a frame where nobody says."""
EARLY = 0.05
"""Part of the evaluations whose best is where the curve of the best begins: the first are often hopeless."""
DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""Bits of a braille character by row and column."""
BRAILLE = 0x2800
BLOCKS = " ▁▂▃▄▅▆▇█"
GOOD, BAD, DIM = "green", "red", "dim"


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    result = Parser(prog=PROG, description=DESCRIPTION, allow_abbrev=False)
    result.add_argument("run", metavar="RUN", type=Path, help="a run directory")
    result.add_argument(
        "--interval", type=float, default=INTERVAL, metavar="SECONDS", help=f"between looks (default: {INTERVAL:g})"
    )
    result.add_argument("--once", action="store_true", help="print one frame and end")
    result.add_argument("--version", action="version", version=f"dhmpi {__version__}")
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Watch; return the exit code."""
    try:
        options = parser().parse_args(arguments)
        if not LEAST_INTERVAL <= options.interval < math.inf:
            raise OptionError(f"--interval must be >= {LEAST_INTERVAL:g}, got {options.interval:g}")
        run = Run(options.run)
        run.refresh()
        from rich.console import Console  # late: --help does without

        console = Console()
        if options.once:
            size = (None, None) if console.is_terminal else (WIDTH, HEIGHT)
            Console(width=size[0], height=size[1]).print(Frame(run, once=True))
            return 0
        _follow(run, options.interval, console)
    except DhmpiError as error:
        print(f"dhmpi.watch: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        return 0
    return 0


def _follow(run: Run, interval: float, console: Console) -> None:
    """Show a run until it is over."""
    from rich.live import Live

    with Live(Frame(run), console=console, screen=console.is_terminal, auto_refresh=False) as live:
        while run.state in ("running", "draining", "starting", "empty"):
            time.sleep(interval)
            run.refresh()
            live.update(Frame(run), refresh=True)
    if console.is_terminal:  # the screen of the live view is gone
        console.print(Frame(run, once=True))


class Frame:
    """What there is to see of a run at one time, as large as the terminal is when it is drawn.

    Parameters
    ----------
    run : Run
    once : bool, default False
        Whether it is printed once and for all, and need not fill the screen.
    """

    def __init__(self, run: Run, once: bool = False) -> None:
        self.run = run
        self.once = once
        self.now = run.now

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.console import Group
        from rich.panel import Panel

        width = options.max_width
        height = min(options.height or options.max_height, HEIGHT if self.once else 200) - 1
        self._seconds, self._busy, _ = self.run.timeline.account(self.now, self.run.live)
        head = self._head(width - 4)
        failures = self._failures(width - 4, 1 if height < 16 else 3 if height < 28 else 6)
        left = height - (len(head) + 2) - (len(failures) + 2 if failures else 0)
        parts: list[RenderableType] = [Panel(_lines(head), title=self._title(), title_align="left")]
        if left >= 12 and width >= 60:
            parts.append(self._curves_and_tables(width, left))
        else:
            parts.append(_lines([*self._states(), *self._workers()][: max(0, left)]))
        if failures:
            parts.append(Panel(_lines(failures), title="last failures", title_align="left", border_style=BAD))
        yield Group(*parts)

    # -- parts ---------------------------------------------------------------------------------------------------------

    def _title(self) -> Any:
        from rich.text import Text

        run = self.run
        colours = {"running": GOOD, "draining": "yellow", "paused": "yellow", "dead": BAD}
        return Text.assemble((run.name, "bold"), "  ", (run.standing, colours.get(run.standing, "cyan")))

    def _head(self, width: int) -> list[Any]:
        """Return the lines at the top: what, how far, how long, how good."""
        from rich.text import Text

        run = self.run
        problem = run.described.get("problem") or run.options.get("problem") or "unknown problem"
        times = [f"began {moment(run.first) or 'not yet'}"]
        if run.first:
            launches = f" in {len(run.launches)} launches" if len(run.launches) > 1 else ""
            times.append(f"{'running' if run.live else 'ran'} for {duration(run.seconds)}{launches}")
        deadline = run.deadline()
        if run.live and deadline is not None:
            times.append(f"time limit in {duration(deadline - self.now)}")
        if (eta := self.seconds_left()) is not None:
            times.append(f"done in about {duration(eta)}")
        if run.history.last_stop:
            times.append(run.history.last_stop)
        elif run.steering:
            last = run.steering[-1]
            times.append(f"{in_words(last)} at {time.strftime('%H:%M:%S', time.localtime(last['t']))}")
        lines = [
            Text(f"{problem}, {run.search or 'search'}, {run.n_evaluators()} evaluators", overflow="ellipsis"),
            Text("; ".join(times), overflow="ellipsis"),
        ]
        n, limit = run.n_finished, run.max_evals
        done = f"{n} of {limit} evaluations" if limit else f"{n} evaluations"
        speed = f", {rate_in_words(self.rate())}" if self.rate() else ""
        figures = f"{done}{speed}, utilisation {self.utilisation():.3f}"
        if limit:
            lines.append(_bar(n / limit, max(10, min(40, width - len(figures) - 2)), figures))
        else:
            lines.append(Text(figures))
        if run.best is None:
            lines.append(Text("no evaluation has succeeded yet", style=DIM))
        else:
            best = f"best {run.best.objective:.8g} (trial {run.best.trial})"
            lines.append(Text.assemble((best, "bold"), f"  {text(run.best_config() or {})}", overflow="ellipsis"))
        for line in lines:
            line.no_wrap = True
            line.truncate(width, overflow="ellipsis")
        return lines

    def _curves_and_tables(self, width: int, height: int) -> Any:
        from rich.panel import Panel
        from rich.table import Table

        left, right = self._states(), self._workers()
        side = max(24, *(len(line.plain) + 4 for line in (*left, *right)))
        inner = width - side - 5
        upper = max(3, (height - 4) * 3 // 5)
        lower = max(2, height - 4 - upper)
        curves = Table.grid(expand=False)
        best = self._best_curve(inner, upper)
        curves.add_row(
            Panel(_lines(best), title="best so far, over evaluations", title_align="left", width=width - side)
        )
        busy = self._busy_curve(inner, lower)
        title = "utilisation, over time" + " in the last launch" * (len(self.run.launches) > 1)
        curves.add_row(Panel(_lines(busy), title=title, title_align="left", width=width - side))
        tables = Table.grid(expand=False)
        n_left = min(len(left), max(1, height - 4 - min(len(right), 6)))
        tables.add_row(Panel(_lines(left[:n_left]), title="evaluations", title_align="left", width=side))
        n_right = max(1, height - 4 - n_left)
        tables.add_row(Panel(_lines(right[:n_right], n_right), title="evaluators", title_align="left", width=side))
        both = Table.grid(expand=False)
        both.add_row(curves, tables)
        return both

    def _states(self) -> list[Any]:
        counts = self.run.by_state()
        colours = {Status.DONE.value: GOOD, Status.RUNNING.value: "cyan", Status.PLACED.value: DIM}
        return _counted(counts, lambda state: colours.get(state, BAD if Status.DONE.value != state else ""))

    def _workers(self) -> list[Any]:
        words = self.run.worker_states()
        counts: dict[str, int] = {}
        for word in words.values():
            counts[word] = counts.get(word, 0) + 1
        colours = {Activity.EVALUATING.word: GOOD, "left": BAD, "silent": BAD, Activity.WAITING.word: "yellow"}
        lines = _counted(counts, lambda word: colours.get(word, ""))
        total = sum(self._seconds)
        shares = {a.word: self._seconds[a] / total for a in Activity if total and self._seconds[a] > 0.0005 * total}
        if shares:
            lines.append(_text("their time so far", DIM))
            order = sorted(shares.items(), key=lambda item: -item[1])
            lines += [_text(f"{100 * share:5.1f} %  {word}", "") for word, share in order]
        return lines

    def _failures(self, width: int, n: int) -> list[Any]:
        lines = []
        for outcome in list(self.run.failures)[-n:]:
            reason = text(outcome.reason.split("\n", 1)[0]) or "no reason given"
            when = time.strftime("%H:%M:%S", time.localtime(outcome.end)) if outcome.end > 0 else "--:--:--"
            line = _text(f"{when} trial {outcome.trial} {outcome.status} on {outcome.host}: {reason}", "")
            line.truncate(width, overflow="ellipsis")
            lines.append(line)
        return lines

    def _best_curve(self, width: int, height: int) -> list[Any]:
        """Return lines that show the best objective so far over the number of evaluations."""
        steps, n = self.run.improvements, self.run.n_finished
        if not steps:
            return [_text("nothing yet", DIM)] + [_text("", "")] * (height - 1)
        early = [step.objective for step in steps if step.n_finished <= max(1.0, EARLY * n)]
        low, high = (early or [steps[0].objective])[-1], steps[-1].objective
        if high <= low:
            low = high - max(1e-12, abs(high) * 1e-3)
        labels = [f"{high:.5g}", f"{low:.5g}"]
        margin = max(map(len, labels)) + 1
        columns = 2 * max(1, width - margin)
        values: list[float | None] = []
        at = -1
        for i in range(columns):
            count = (i + 1) * n / columns
            while at + 1 < len(steps) and steps[at + 1].n_finished <= count:
                at += 1
            values.append(None if at < 0 else (steps[at].objective - low) / (high - low))
        rows = braille(values, height)
        return [_text(f"{_label(labels, i, height):>{margin - 1}} {row}", "cyan") for i, row in enumerate(rows)]

    def _busy_curve(self, width: int, height: int) -> list[Any]:
        """Return lines that show the part of evaluators that was evaluating, over the time of the last launch."""
        n_lanes = len(self.run.timeline.lanes)
        if self._busy is None or not n_lanes:
            return [_text("nothing yet", DIM)] + [_text("", "")] * (height - 1)
        values = shares(self._busy, self.now, n_lanes, max(1, width - 6))
        labels = ["100 %", "0 %"]
        return [_text(f"{_label(labels, i, height):>5} {row}", "blue") for i, row in enumerate(bars(values, height))]

    # -- figures -------------------------------------------------------------------------------------------------------

    def rate(self) -> float:
        """Return evaluations that finish in a second, of late; of a run that is over, on the whole."""
        recent, run = self.run.recent, self.run
        if not run.live:
            seconds = run.seconds
            return run.n_finished / seconds if seconds else 0.0
        if len(recent) < 2 or not self.run.n_new:
            return 0.0
        n = min(len(recent), self.run.n_new)
        since = recent[-n].end
        return (n - 1) / (self.now - since) if self.now > since > 0 and n > 1 else 0.0

    def seconds_left(self) -> float | None:
        """Return when all evaluations will have finished at this rate; None if that is not to be known."""
        run = self.run
        if not run.live or run.max_evals is None or not self.rate() or run.history.ended:
            return None
        return max(0.0, (run.max_evals - run.n_finished) / self.rate())

    def utilisation(self) -> float:
        """Return the part of the time of all evaluators, in all launches, in which evaluations ran."""
        total = sum(self._seconds)
        return self._seconds[Activity.EVALUATING] / total if total else 0.0


def shares(curve: Curve, now: float, total: float, width: int) -> list[float]:
    """Return for each of `width` stretches of time up to now the part of `total` ranks that was busy."""
    length = now - curve.origin
    if length <= 0:
        return [0.0] * width
    n_bins = min(len(curve.bins), max(1, math.ceil(length / curve.width)))
    edges = [min(length, i * curve.width) for i in range(n_bins + 1)]
    sums = [0.0]
    for seconds in curve.bins[:n_bins]:
        sums.append(sums[-1] + seconds)
    found = []
    for i in range(width):
        begin, end = i * length / width, (i + 1) * length / width
        busy = _until(edges, sums, end) - _until(edges, sums, begin)
        found.append(min(1.0, busy / (total * (end - begin))))
    return found


def _until(edges: Sequence[float], sums: Sequence[float], t: float) -> float:
    """Return the sum up to a time, of which the sums at some are known."""
    i = bisect.bisect_right(edges, t)
    if i >= len(edges):
        return sums[-1]
    part = (t - edges[i - 1]) / (edges[i] - edges[i - 1])
    return sums[i - 1] + (sums[i] - sums[i - 1]) * part


def braille(values: Sequence[float | None], height: int) -> list[str]:
    """Draw values between 0 and 1 as a line of dots, two to a character and four to its height; None draws nothing.

    >>> braille([0.0, 0.0, 1.0, 1.0], 1)
    ['⣀⡏']
    """
    n_rows = 4 * height
    cells = [[0] * (-(-len(values) // 2)) for _ in range(height)]
    before: int | None = None
    for x, value in enumerate(values):
        if value is None:
            continue
        y = n_rows - 1 - min(n_rows - 1, max(0, round(value * (n_rows - 1))))
        for row in range(min(y, y if before is None else before), max(y, y if before is None else before) + 1):
            cells[row // 4][x // 2] |= DOTS[row % 4][x % 2]
        before = y
    return ["".join(chr(BRAILLE + cell) if cell else " " for cell in row) for row in cells]


def bars(values: Sequence[float], height: int) -> list[str]:
    """Draw values between 0 and 1 as bars of eighths.

    >>> bars([0.0, 0.5, 1.0], 1)
    [' ▄█']
    """
    rows = []
    for row in range(height - 1, -1, -1):
        rows.append("".join(BLOCKS[min(8, max(0, round(8 * (value * height - row))))] for value in values))
    return rows


def _label(labels: Sequence[str], i: int, height: int) -> str:
    return labels[0] if i == 0 else labels[1] if i == height - 1 else ""


def _bar(part: float, width: int, figures: str) -> Any:
    from rich.text import Text

    full = min(width, max(0, round(part * width)))
    return Text.assemble(("━" * full, GOOD), ("━" * (width - full), DIM), "  ", figures)


def _counted(counts: dict[str, int], colour: Any) -> list[Any]:
    width = max((len(str(n)) for n in counts.values()), default=1)
    return [_text(f"{n:>{width}}  {word}", colour(word)) for word, n in counts.items()] or [_text("none", DIM)]


def _text(content: str, style: str) -> Any:
    from rich.text import Text

    return Text(content, style=style, no_wrap=True)


def _lines(lines: Sequence[Any], height: int = 0) -> Any:
    """Return lines as one renderable, at least so many."""
    from rich.text import Text

    filled = [*lines, *[Text("")] * (height - len(lines))]
    result = Text("\n", no_wrap=True, overflow="ellipsis").join(filled)
    result.no_wrap = True
    return result


if __name__ == "__main__":
    sys.exit(main())
