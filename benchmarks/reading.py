"""``python -m benchmarks.reading [EVALUATIONS]``: how long the tools take that read runs, on a journal made up for it.

100,000 evaluations of 126 evaluators and a million events by default.  Seconds are those of a core, not of the clock.
"""

from __future__ import annotations

import heapq
import io
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from dhmpi import journal
from dhmpi.roles.events import finished_event
from dhmpi.runs import Run, opened
from dhmpi.trials import Outcome, Status
from dhmpi.watch import Frame

N_EVALUATORS = 126
N_HYPERPARAMETERS = 10
MORE_EVENTS = 8
"""Further events for each evaluation, to make ten of each."""
BEGAN = 1_790_000_000.0
COMMANDS = (
    ("ls", "jobs", "--last", "3"),
    ("ls", "jobs", "--by-states"),
    ("analytics", "summary"),
    ("analytics", "utilization"),
    ("analytics", "topk"),
    ("analytics", "trajectory", "-o", "trajectory.png"),
    ("analytics", "utilization", "--plot", "ranks", "-o", "ranks.png"),
    ("analytics", "importance"),
    ("analytics", "report", "-o", "report.html"),
    ("watch", "--once"),
)


def write(path: Path, n: int) -> int:
    """Write a run of `n` evaluations, of a minute on average; return the number of events."""
    rng = np.random.default_rng(0)
    ranks = range(2, N_EVALUATORS + 2)
    hosts = [f"nid{rank:05d}" for rank in range(N_EVALUATORS + 2)]
    layout = {"hosts": hosts, "master": 0, "searcher": 1, "groups": [[rank] for rank in ranks], "spare": []}
    options = {"max_evals": n, "name": "ambs", "workflow": "bench"}
    header = {
        "run": "0123abcd", "token": "0123abcd", "t": BEGAN + 3, "started": BEGAN, "program": "dhmpi.ambs",
        "ranks": len(hosts), "layout": layout, "options": options,
    }  # fmt: skip
    events: list[dict[str, Any]] = []
    free = []
    for rank in ranks:
        t = BEGAN + 3 + float(rng.exponential(2))
        events.append({"e": "joined", "t": t, "rank": rank, "host": hosts[rank]})
        free.append((t, rank))
    heapq.heapify(free)
    x = rng.uniform(-10, 10, (n, N_HYPERPARAMETERS))
    for i in range(n):
        t, rank = heapq.heappop(free)
        begin = t + 0.002
        end = begin + float(rng.lognormal(np.log(60), 0.5))
        config = {f"e{j}": float(value) for j, value in enumerate(x[i])}
        key = {"trial": i, "attempt": 0, "rank": rank, "key": i}
        events.append({"e": "placed", "t": t, **key, "config": config})
        y = None if rng.random() < 0.01 else float(-np.sum(x[i] ** 2))
        status, reason = (Status.FAILED, "ValueError: no such thing") if y is None else (Status.DONE, "")
        outcome = Outcome(i, 0, status, y, {}, rank, hosts[rank], begin, end, end - begin, reason)
        events.append(finished_event(outcome, end + 0.001))
        events += [{"e": "heard", "t": end + 0.001, "rank": rank}] * MORE_EVENTS
        heapq.heappush(free, (end + 0.002, rank))
    events.sort(key=lambda event: event["t"])
    written = journal.Journal(path / "journal", 0, 0, header)
    for begin in range(0, len(events), 10_000):
        written.write(events[begin : begin + 10_000])
    written.write([{"e": "ended", "t": events[-1]["t"], "reason": "the benchmark is over", "complete": True}])
    written.close()
    (path / "run.json").write_text(json.dumps({"problem": "none", "options": options, "layout": layout}))
    return len(events) + 2


def measure(words: tuple[str, ...], run: Path) -> tuple[float, float]:
    """Return seconds of a core, and MB, of a command."""
    module, *rest = words
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    place = 1 if module in ("ls", "analytics") else 0
    command = [sys.executable, "-c", _REPORTING, module, *rest[:place], str(run), *rest[place:]]
    said = subprocess.run(command, capture_output=True, text=True, check=True, cwd=run.parent)
    seconds = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
    return seconds, float(said.stderr.splitlines()[-1])


_REPORTING = (
    "import sys\nfrom dhmpi.commands import main\ntry:\n    main(sys.argv[1:])\nexcept SystemExit as end:\n"
    "    assert not end.code, end.code\n"
    "peak = next(line for line in open('/proc/self/status') if line.startswith('VmHWM'))\n"
    "print(int(peak.split()[1]) / 1024, file=sys.stderr)\n"
)


def refresh(path: Path) -> float:
    """Return the seconds that a live view takes for a refresh with a hundred new events."""
    run: Run = opened(path)
    console = Console(file=io.StringIO(), width=160, height=50, force_terminal=True)
    head = json.loads((path / "journal" / "0.0.jsonl").open().readline())
    with (path / "journal" / "0.0.jsonl").open("ab") as stream:
        line = json.dumps({"e": "heard", "t": head["t"], "rank": 2}).encode() + b"\n"
        seconds = []
        for _ in range(20):
            stream.write(line * 100)
            stream.flush()
            began = time.process_time()
            run.refresh()
            console.print(Frame(run))
            seconds.append(time.process_time() - began)
    return float(np.median(seconds))


def main() -> int:
    """Measure; return the exit code."""
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "run"
        n_events = write(path, n)
        size = (path / "journal" / "0.0.jsonl").stat().st_size / 1e6
        title = f"{n} evaluations, {n_events} events, {size:.0f} MB of journal"
        table = Table("command", "seconds of a core", "MB", title=title, title_justify="left")
        for words in COMMANDS:
            seconds, mb = measure(words, path)
            table.add_row(f"dhmpi {' '.join(words)}", f"{seconds:.2f}", f"{mb:.0f}")
        table.add_row("one refresh of dhmpi watch", f"{refresh(path):.3f}", "")
        Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
