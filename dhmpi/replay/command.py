"""The command: replays a run, and says what came of it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dhmpi import __version__
from dhmpi.check import Parser
from dhmpi.errors import EXIT_BAD_INPUT, DhmpiError
from dhmpi.replay.dispatcher import DispatcherReplay
from dhmpi.replay.invariants import Invariants
from dhmpi.replay.recorded import Divergence, Run
from dhmpi.replay.search import SearchReplay

if TYPE_CHECKING:
    import argparse

    from rich.console import Console

    from dhmpi.search.base import Search

PROG = "python -m dhmpi.replay"
DESCRIPTION = (
    "Run search and dispatcher again on the journal of a run, and report the first thing they do otherwise. Exit code"
    " 0 if there is none, 1 if there is one, 2 if there is nothing to replay."
)
EXIT_DIVERGED = 1
PARTS = ("search", "dispatcher")


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    result = Parser(prog=PROG, description=DESCRIPTION, allow_abbrev=False)
    result.add_argument("directory", metavar="RUN_DIRECTORY", type=Path)
    result.add_argument("--only", choices=PARTS, help="replay nothing else; the dispatcher needs no problem")
    result.add_argument("--version", action="version", version=f"dhmpi {__version__}")
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Replay a run; return the exit code."""
    try:
        options = parser().parse_args(arguments)
        run = Run(options.directory)
        search = SearchReplay(run, _build)
        searched = options.only != "dispatcher" and not run.has_agents
        if searched:
            _play_search(run, search)
        dispatcher, invariants = DispatcherReplay(run, search), Invariants(run)
        if options.only != "search":
            invariants.play()
            dispatcher.play()
    except DhmpiError as error:
        print(f"dhmpi.replay: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    from rich.console import Console  # late: --help imports nothing that takes time

    console = Console()
    _print_summary(console, run, search if searched else None)
    if run.has_agents and options.only != "dispatcher":
        _say(console, "Search: it is not replayed, since agents shared it")
    if options.only != "search":
        _print_dispatcher(console, dispatcher, invariants)
    found = (search.divergence, dispatcher.divergence, invariants.divergence)
    return EXIT_DIVERGED if any(divergence is not None for divergence in found) else 0


def _build(spec: dict[str, Any]) -> tuple[Search, dict[str, Any]]:
    from dhmpi.search.build import build  # late, as all that imports numpy

    return build(spec)


def _play_search(run: Run, search: SearchReplay) -> None:
    """Replay with as many threads as the search had: sums in another order end in other proposals."""
    from threadpoolctl import threadpool_limits

    options = run.described["options"]
    import dhmpi.search.model_based  # noqa: F401 (limits hold for libraries that are loaded)

    n_jobs = options.get("n_jobs", 1)
    with threadpool_limits(None if n_jobs == -1 else n_jobs):
        search.play()


def _print_summary(console: Console, run: Run, search: SearchReplay | None) -> None:
    headers = [line.event for line in run.lines if line.event["e"] == "launch"]
    launches = _many(len({header["launch"] for header in headers}), "launch", "es")
    _say(console, f"{run.path}: {len(run.lines)} lines of {launches}, {_many(len(headers), 'master')}")
    if search is None:
        return
    compared = f"{_many(search.n_asks, 'ask')}, {_many(search.n_proposals, 'proposal')}"
    seen = f"{search.n_compared} of them given to evaluators"
    same, parted = f"{compared}: the same ({seen})", f"it diverges after {compared} ({seen})"
    _print_part(console, "Search", same, parted, search.divergence)
    for index, note in search.restarts.items():
        line = run.lines[index]
        _say(console, f"Search: ask {line.event['ask']} ({line.place}) agrees if {note}")


def _print_dispatcher(console: Console, dispatcher: DispatcherReplay, invariants: Invariants) -> None:
    events = _many(dispatcher.n_events, "event")
    same, parted = f"{events}: the same", f"it diverges after {events}"
    _print_part(console, "Dispatcher, event by event", same, parted, dispatcher.divergence)
    figures = f"{_many(invariants.n_trials, 'trial')}, {_many(invariants.n_outcomes, 'outcome')}"
    same, parted = f"{figures}: they hold", f"broken after {figures}"
    _print_part(console, "Dispatcher, invariants", same, parted, invariants.divergence)


def _print_part(console: Console, part: str, same: str, parted: str, divergence: Divergence | None) -> None:
    """Print one of two sentences on a part of the replay, and where it diverges."""
    _say(console, f"{part}: {same if divergence is None else parted}")
    if divergence is not None:
        _print_divergence(console, divergence)


def _print_divergence(console: Console, divergence: Divergence) -> None:
    from dhmpi.check import print_table

    _say(console, f"{divergence.line.place}: {divergence.sentence}")
    if divergence.rows:
        print_table(console, "First divergence", ("what", "journal", "replay"), divergence.rows)


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def _many(n: int, what: str, plural: str = "s") -> str:
    return f"{n} {what}{plural if n != 1 else ''}"
