"""``python -m dhmpi.ls``: list runs, their evaluations and their workers, while they go on and afterwards.

Reads the files of runs and nothing else, on any machine that sees them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dhmpi import __version__, runs
from dhmpi.check import Parser
from dhmpi.errors import EXIT_BAD_INPUT, DhmpiError, OptionError, RunDirectoryError
from dhmpi.runs import UNFINISHED, Job, Run
from dhmpi.tables import add_formats, aligned, as_csv, as_json, duration, moment, terminal_width, write
from dhmpi.trials import Status

PROG = "python -m dhmpi.ls"
DESCRIPTION = (
    "List runs, evaluations of a run, or its workers, from the files of the runs; also while they go on. Without one of"
    " these words runs are listed, with the options of runs."
)
RUNS = Path("dhmpi-runs")
WHAT = ("runs", "jobs", "workers")
ABOUT = ("-h", "--help", "--version")
OF_JOBS = ("--state", "--id", "--last", "--by-states", "--history")
STATES = (UNFINISHED, *(status.value for status in Status))

RUN_COLUMNS = ("run", "search", "state", "finished", "of", "running", "failed", "best", "evaluators", "began", "time")
JOB_COLUMNS = ("trial", "state", "attempt", "rank", "host", "objective", "seconds", "began", "reason", "configuration")
WORKER_COLUMNS = (
    "rank", "role", "host", "state", "trial", "for", "done", "failed", "mean_seconds", "busy", "reason",
)  # fmt: skip
HISTORY_COLUMNS = ("trial", "time", "after", "event", "rank", "detail")


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    result = Parser(prog=PROG, description=DESCRIPTION, allow_abbrev=False)
    result.add_argument("--version", action="version", version=f"dhmpi {__version__}")
    what = result.add_subparsers(dest="what", metavar="{runs,jobs,workers}", required=True, parser_class=Parser)

    part = what.add_parser("runs", help="the runs below a directory (what is listed if nothing is said)")
    part.add_argument("path", metavar="DIRECTORY", type=Path, nargs="?", default=RUNS, help=f"by default {RUNS}")
    _add_filters(part)
    add_formats(part)

    part = what.add_parser("jobs", help="the evaluations of a run, or of all runs below a directory")
    _add_path(part)
    _add_filters(part)
    part.add_argument(
        "--state",
        action="append",
        default=[],
        metavar="STATE",
        help=f"only those in this state; may be repeated, or several with commas: {', '.join(STATES)}",
    )
    part.add_argument("--id", type=int, action="append", metavar="N", help="only trial N; may be repeated")
    part.add_argument("--last", type=int, metavar="N", help="only the last N")
    part.add_argument("--by-states", action="store_true", help="only how many there are in each state")
    part.add_argument("--history", action="store_true", help="everything that has happened to each")
    add_formats(part)

    part = what.add_parser("workers", help="who is on which rank of a run, and what it does and did in the last launch")
    _add_path(part)
    _add_filters(part)
    add_formats(part)
    return result


def _add_path(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "path",
        metavar="RUN",
        type=Path,
        nargs="?",
        help=f"a run directory, or a directory with runs; by default the run below {RUNS} that was written last",
    )


def _add_filters(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--name", metavar="TEXT", help="only those whose name has this text in it")
    parser.add_argument(
        "--workflow", "--wf-filter", metavar="TEXT", help="only runs whose workflow has this text in it"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """List; return the exit code."""
    try:
        words = sys.argv[1:] if arguments is None else list(arguments)
        if not words or words[0] not in (*WHAT, *ABOUT):
            words = ["runs", *words]  # a directory, options of runs, or nothing at all
        misplaced = [word for word in words if word.partition("=")[0] in OF_JOBS and words[0] != "jobs"]
        if misplaced:
            raise OptionError(f"{misplaced[0]} is an option of {PROG} jobs, not of {words[0]}")
        options = parser().parse_args(words)
        content = {"runs": _list_runs, "jobs": _list_jobs, "workers": _list_workers}[options.what](options)
    except DhmpiError as error:
        print(f"dhmpi.ls: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    write(sys.stdout, content)
    return 0


# -- runs --------------------------------------------------------------------------------------------------------------


def _list_runs(options: argparse.Namespace) -> str:
    rows: list[dict[str, Any]] = []
    for path in runs.find(options.path):
        try:
            run = runs.opened(path)
        except RunDirectoryError as error:
            rows.append({"run": _shown(path, options.path), "state": "unreadable", "reason": str(error)})
            continue
        if (options.name or "") in run.name and _in_workflow(run, options.workflow):
            rows.append(_run_row(run, options.path))
    if options.json:
        return as_json(rows)
    columns = [*RUN_COLUMNS, "problem", "reason"]
    if options.csv:
        return as_csv(rows, [*columns, "workflow", "path"])
    if not rows:
        return f"No runs below {options.path}."
    shown = [{**row, "began": moment(row.get("began")), "time": duration(row.get("time"))} for row in rows]
    return aligned(shown, _used(shown, columns, always=RUN_COLUMNS), terminal_width(sys.stdout))


def _run_row(run: Run, below: Path) -> dict[str, Any]:
    states = run.by_state()
    best = run.best
    return {
        "run": _shown(run.path, below),
        "search": run.search,
        "state": run.standing,
        "finished": run.n_finished,
        "of": run.max_evals,
        "running": states.get(Status.RUNNING.value, 0),
        "failed": run.n_failed,
        "best": None if best is None else best.objective,
        "evaluators": run.n_evaluators(),
        "began": run.first or None,
        "time": run.seconds if run.first else None,
        "problem": run.described.get("problem") or run.options.get("problem"),
        "reason": run.history.last_stop or None,
        "workflow": run.workflow,
        "path": str(run.path.absolute()),
    }


def _shown(path: Path, below: Path) -> str:
    """Return a run's directory as seen from the one that is listed."""
    return path.absolute().name if path == below else str(path.relative_to(below))


# -- evaluations -------------------------------------------------------------------------------------------------------


def _list_jobs(options: argparse.Namespace) -> str:
    states = _states(options.state)
    if options.last is not None and options.last < 1:
        raise OptionError(f"--last must be >= 1, got {options.last}")
    if options.by_states and options.history:
        raise OptionError("--by-states counts evaluations and --history shows each: give one of them")
    selected = list(_selected(options))
    several = len(selected) > 1
    found: list[tuple[Run, Job]] = []
    for run in selected:
        for job in run.jobs():
            if states and job.state not in states:
                continue
            if options.id is not None and job.trial.id not in options.id:
                continue
            if options.name is not None and options.name not in run.name and options.name not in job.name:
                continue
            found.append((run, job))
    if options.last is not None:
        found = found[-options.last :]
    if options.by_states:
        return _by_states(found, options)
    if options.history:
        return _histories(found, options, several)
    rows = [_job_row(run, job) for run, job in found]
    if options.json:
        return as_json(rows)
    if options.csv:
        return _jobs_csv(selected, rows)
    if not rows:
        return "No evaluations."
    for row in rows:
        row["began"] = moment(row["began"])
        row["reason"] = row["reason"] and row["reason"].split("\n", 1)[0]
    columns = _used(rows, [*(["run"] if several else []), *JOB_COLUMNS], always=("trial", "state", "objective"))
    return aligned(rows, columns, terminal_width(sys.stdout))


def _states(given: Sequence[str]) -> set[str]:
    states = {state.strip().lower() for words in given for state in words.split(",")}
    unknown = sorted(states.difference(STATES))
    if unknown:
        raise OptionError(f"--state {unknown[0]}: there is no such state, but {', '.join(STATES)}")
    return states


def _selected(options: argparse.Namespace) -> Iterator[Run]:
    """Yield the runs of which something is listed."""
    paths = [_latest()] if options.path is None else list(runs.find(options.path))
    if not paths:
        raise RunDirectoryError(f"there is no run in or below {options.path}")
    for path in paths:
        run = runs.opened(path)
        if _in_workflow(run, options.workflow):
            yield run


def _latest() -> Path:
    """Return the run that was written last."""
    if not RUNS.is_dir():
        raise OptionError(f"there is no directory {RUNS} here: name a run directory")
    found = [(max(file.stat().st_mtime for file in files), path) for path in runs.find(RUNS) if (files := _files(path))]
    if not found:
        raise RunDirectoryError(f"there is no run below {RUNS}")
    path = max(found)[1]
    print(f"dhmpi.ls: {path}", file=sys.stderr)
    return path


def _files(path: Path) -> list[Path]:
    return list((path / "journal").glob("*.jsonl"))


def _in_workflow(run: Run, wanted: str | None) -> bool:
    return wanted is None or wanted in run.workflow


def _job_row(run: Run, job: Job) -> dict[str, Any]:
    outcome = job.outcome
    seconds = outcome.elapsed if outcome is not None else None
    if outcome is None and job.since is not None:
        seconds = max(0.0, run.now - job.since)
    return {
        "run": run.name,
        "trial": job.trial.id,
        "name": job.name,
        "state": job.state,
        "attempt": job.trial.attempt if outcome is None else outcome.attempt,
        "rank": job.rank,
        "host": job.host or None,
        "objective": None if outcome is None else outcome.objective,
        "seconds": seconds,
        "began": job.since,
        "ended": None if outcome is None or not outcome.end else outcome.end,
        "reason": (outcome.reason or None) if outcome is not None else None,
        "configuration": job.trial.config,
        "metrics": {} if outcome is None else outcome.metrics,
    }


def _jobs_csv(selected: Sequence[Run], rows: Sequence[dict[str, Any]]) -> str:
    """Give every hyperparameter and every metric a column."""
    names = dict.fromkeys(name for run in selected for name in run.hyperparameters)
    metrics: dict[str, None] = {}
    for row in rows:
        names.update(dict.fromkeys(row["configuration"]))
        metrics.update(dict.fromkeys(row["metrics"]))
        row.update({f"m:{name}": value for name, value in row["metrics"].items()})
        row.update({name: value for name, value in row["configuration"].items() if name not in row})
    fixed = ["run", "trial", "name", *JOB_COLUMNS[1:8], "ended", "reason"]
    return as_csv(rows, [*fixed, *(name for name in names if name not in fixed), *(f"m:{name}" for name in metrics)])


def _by_states(found: Sequence[tuple[Run, Job]], options: argparse.Namespace) -> str:
    counts = {state: sum(job.state == state for _, job in found) for state in STATES}
    rows = [{"state": state, "evaluations": n} for state, n in counts.items() if n]
    if options.json:
        return as_json({row["state"]: row["evaluations"] for row in rows})
    if options.csv:
        return as_csv(rows, ("state", "evaluations"))
    return aligned(rows, ("state", "evaluations")) if rows else "No evaluations."


def _histories(found: Sequence[tuple[Run, Job]], options: argparse.Namespace, several: bool) -> str:
    events: dict[tuple[Path, int], list[dict[str, Any]]] = {}
    wanted = {(run.path, job.trial.id) for run, job in found}
    for run in dict.fromkeys(run for run, _ in found):
        for event in run.events():
            key = (run.path, event.get("trial", -1))
            if key in wanted:
                events.setdefault(key, []).append(event)
    if options.json:
        rows = [{**_job_row(run, job), "history": events.get((run.path, job.trial.id), [])} for run, job in found]
        return as_json(rows)
    rows = []
    for run, job in found:
        before: float | None = None
        for event in events.get((run.path, job.trial.id), ()):
            rows.append(
                {
                    "run": run.name,
                    "trial": job.trial.id,
                    "time": event["t"] if options.csv else moment(event["t"]),
                    "after": None if before is None else round(event["t"] - before, 3),
                    "event": event["e"],
                    "rank": event.get("rank"),
                    "detail": _detail(event),
                }
            )
            before = event["t"]
    columns = [*(["run"] if several else []), *HISTORY_COLUMNS]
    if options.csv:
        return as_csv(rows, columns)
    return aligned(rows, columns, terminal_width(sys.stdout)) if rows else "No evaluations."


def _detail(event: dict[str, Any]) -> str:
    """Return in words what an event of a trial adds to its name."""
    kind = event["e"]
    if kind == "placed":
        again = f", attempt {event['attempt']}" if event["attempt"] else ""
        return f"given out{' a second time' if event.get('copy') else ''}{again}"
    if kind == "finished":
        objective = "" if event["objective"] is None else f", objective {event['objective']:.6g}"
        reason = f": {event['reason']}".split("\n", 1)[0] if event.get("reason") else ""
        return f"{event['status']}{objective}, after {event['elapsed']:.3g} s{reason}"
    if kind == "lost":
        return f"{'while it ran' if event['ran'] else 'before it began'}: {event['reason']}"
    words = {
        "returned": "not begun there",
        "cancelled": "ended or never begun, since the run ended",
        "kept": "still runs there",
    }
    return words.get(kind, "")


# -- workers -----------------------------------------------------------------------------------------------------------


def _list_workers(options: argparse.Namespace) -> str:
    selected = [run for run in _selected(options) if (options.name or "") in run.name]
    rows = [{"run": run.name, **row} for run in selected for row in worker_rows(run)]
    if options.json:
        return as_json(rows)
    columns = [*(["run"] if len(selected) > 1 else []), *WORKER_COLUMNS]
    if options.csv:
        return as_csv(rows, columns)
    for row in rows:
        row["for"] = duration(row["for"])
    if not rows:
        return "No workers."
    content = aligned(rows, _used(rows, columns), terminal_width(sys.stdout))
    resumed = [f"{run.name} has had {len(run.launches)}" for run in selected if len(run.launches) > 1]
    if resumed:
        content += f"\nWorkers, and what they have done, are those of the last launch: {', '.join(resumed)}."
    return content


def worker_rows(run: Run) -> list[dict[str, Any]]:
    """Return a row for each rank that leads something, with what it does."""
    layout = run.layout
    hosts = layout.get("hosts", ())
    rows: dict[int, dict[str, Any]] = {}
    agents = layout.get("agents", ())
    roles = {
        "master": [layout["master"]] if "master" in layout else [],
        "searcher": [layout["searcher"]] if layout.get("searcher") is not None else [],
        "agent": agents,
        "spare": layout.get("spare", ()),
    }
    for role, ranks in roles.items():
        for rank in ranks:
            row = rows.setdefault(rank, {**_nobody(rank), "host": hosts[rank] if rank < len(hosts) else None})
            row["role"] = f"{row['role']} + {role}" if row["role"] else role
    running, states = run.running(), run.worker_states()
    group_of = {group[0]: group for group in layout.get("groups", ())}
    agent_of = {
        rank: agent
        for agent, leaders in zip(agents, layout.get("workers", ()))
        for leader in leaders
        for rank in group_of.get(leader, (leader,))
    }
    for rank, worker in run.workers.items():
        before = rows.get(rank, {}).get("role")
        role = "evaluator" if rank not in agent_of else f"evaluator of agent {agent_of[rank]}"
        trial, since = running.get(rank, (None, None))
        n = worker.n_done + worker.n_failed
        lane = run.timeline.lanes.get(rank)
        present = (worker.left or run.now) - (worker.joined or run.now)
        busy = worker.seconds + (run.now - since if since is not None else 0.0)
        rows[rank] = {
            "rank": rank,
            "role": f"{before} + {role}" if before and before != "spare" else role,
            "host": worker.host or None,
            "state": states[rank],
            "trial": trial,
            "for": None if since is None else run.now - since,
            "done": worker.n_done,
            "failed": worker.n_failed,
            "mean_seconds": worker.seconds / n if n else None,
            "busy": min(1.0, busy / present) if lane is not None and present > 0 else None,
            "reason": worker.reason or None,
        }
    return [rows[rank] for rank in sorted(rows)]


def _nobody(rank: int) -> dict[str, Any]:
    return {**dict.fromkeys(WORKER_COLUMNS), "rank": rank, "role": ""}


def _used(rows: Sequence[dict[str, Any]], columns: Sequence[str], always: Sequence[str] = ()) -> list[str]:
    """Return the columns in which there is anything."""
    return [
        column for column in columns if column in always or any(row.get(column) not in (None, "", {}) for row in rows)
    ]


if __name__ == "__main__":
    sys.exit(main())
