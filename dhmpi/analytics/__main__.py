"""``python -m dhmpi.analytics WHAT RUN...``: how runs went, in the terminal, as JSON, as figures."""

from __future__ import annotations

import argparse
import gc
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dhmpi import __version__
from dhmpi.check import Parser, print_table
from dhmpi.errors import EXIT_BAD_INPUT, DhmpiError, OptionError
from dhmpi.roles import startup
from dhmpi.steering import in_words
from dhmpi.tables import as_csv, as_json, duration, moment, text, write
from dhmpi.trials import Status

if TYPE_CHECKING:
    from rich.console import Console

    from dhmpi.analytics.study import Study

PROG = "python -m dhmpi.analytics"
DESCRIPTION = (
    "Say how a run went, while it goes on or after: from the files of the run alone. What is named is a run directory,"
    " or a results.csv of dhmpi or DeepHyper."
)
AXES = ("time", "evaluations")
TRUST = 0.2
"""R2 below which a forest has learned next to nothing."""
LONG = 36_000.0
"""Seconds of all evaluators above which their account is in hours."""
WIDTH = 200
"""Columns of tables where nobody says how wide they may be."""
FIGURE = "FILE"
FORMATS = ("csv", "parquet", "deephyper", "optuna")
ARCH_SEQ = "arch_seq"
BEST_OPTIONS = 10
"""Of the best architectures of runs that are compared, among which options are counted."""


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    result = Parser(prog=PROG, description=DESCRIPTION, allow_abbrev=False)
    result.add_argument("--version", action="version", version=f"dhmpi {__version__}")
    what = result.add_subparsers(
        dest="what",
        required=True,
        parser_class=Parser,
        metavar="{summary,utilization,trajectory,topk,compare,importance,report,export}",
    )

    part = what.add_parser("summary", help="one run, or several, in a few lines each")
    _add_runs(part, several=True)

    part = what.add_parser("utilization", help="where the time of the evaluators went")
    _add_runs(part)
    _add_figure(part)
    part.add_argument(
        "--plot", choices=("overview", "ranks", "hosts"), default="overview",
        help="what the figure shows: shares over time; what each evaluator did; failures by host (default: overview)",
    )  # fmt: skip

    part = what.add_parser("trajectory", help="every evaluation and the best so far")
    _add_runs(part)
    _add_figure(part)
    _add_axis(part)
    part.add_argument(
        "--window", type=int, metavar="N",
        help="also the mean of the last N objectives (by default 100 for architectures, else none)",
    )  # fmt: skip

    part = what.add_parser("topk", help="the best configurations")
    _add_runs(part)
    part.add_argument("-k", type=int, default=10, metavar="K", help="how many (default: 10)")
    part.add_argument("-o", "--output", type=Path, metavar=FIGURE, help="write them as .csv, .json or .yaml")
    part.add_argument(
        "--drawings", type=Path, metavar="DIR", help="draw the networks of architectures into this directory, as SVG"
    )

    part = what.add_parser(
        "compare", help="several runs, those that differ in a number at the end of their name as one"
    )
    _add_runs(part, several=True)
    _add_figure(part)
    _add_axis(part)

    part = what.add_parser("importance", help="which hyperparameters mattered, and how")
    _add_runs(part)
    _add_figure(part)
    part.add_argument(
        "--plot", choices=("overview", "parallel"), default="overview",
        help="what the figure shows: importance and dependence; configurations over parallel axes (default: overview)",
    )  # fmt: skip
    part.add_argument("--seed", type=int, default=0, metavar="N", help="of the forest (default: 0)")

    part = what.add_parser("report", help="all of it as one HTML file, for a browser")
    _add_runs(part, several=True)
    part.add_argument(
        "-o", "--output", type=Path, metavar=FIGURE, default=Path("report.html"),
        help="file to write (default: report.html)",
    )  # fmt: skip
    part.add_argument("-k", type=int, default=20, metavar="K", help="how many of the best are listed (default: 20)")
    part.add_argument("--seed", type=int, default=0, metavar="N", help="of the forest (default: 0)")

    part = what.add_parser("export", help="the evaluations for other programs")
    _add_runs(part)
    part.add_argument("-o", "--output", type=Path, metavar=FIGURE, required=True, help="file to write")
    part.add_argument(
        "--format", choices=FORMATS,
        help="by default what the name ends in: .csv, .parquet, .db (optuna); deephyper is its results.csv of 2020",
    )  # fmt: skip
    return result


def _add_runs(parser: argparse.ArgumentParser, several: bool = False) -> None:
    if several:
        parser.add_argument("runs", metavar="RUN", type=Path, nargs="+", help="run directories or results.csv files")
    else:
        parser.add_argument("run", metavar="RUN", type=Path, help="a run directory or a results.csv")
    parser.add_argument("--json", action="store_true", help="for programs; times in seconds")


def _add_figure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", type=Path, metavar=FIGURE, help="write a figure as .png, .svg or .pdf")


def _add_axis(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--by", choices=AXES, default="time", help="what goes to the right (default: time)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Show, or write, what is asked for; return the exit code."""
    try:
        options = parser().parse_args(arguments)
        what: dict[str, Callable[[argparse.Namespace], tuple[Any, Callable[[Console], None]]]] = {
            "summary": _summary,
            "utilization": _utilization,
            "trajectory": _trajectory,
            "topk": _topk,
            "compare": _compare,
            "importance": _importance,
            "report": _report,
            "export": _export,
        }
        content, show = what[options.what](options)
    except DhmpiError as error:
        print(f"dhmpi.analytics: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    if options.json:
        write(sys.stdout, as_json(content))
        return 0
    from rich.console import Console  # late: programs and --help do without

    show(Console(width=None if sys.stdout.isatty() else WIDTH))
    return 0


def _load(path: Path) -> Study:
    from dhmpi.analytics.study import load  # late, as all that imports numpy

    gc.disable()  # to look for cycles in what is read again and again takes a second for a million events
    try:
        return load(path)
    finally:
        gc.freeze()  # this process ends soon
        gc.enable()


def _draw(options: argparse.Namespace, draw: Callable[[], Any]) -> None:
    """Write the figure that is asked for, if one is."""
    if options.output is None:
        return
    from dhmpi.analytics import plots  # late: matplotlib takes a second

    if options.output.suffix.lower() not in plots.SUFFIXES:
        raise OptionError(f"-o {options.output}: the name must end in {', '.join(plots.SUFFIXES)}")
    plots.save(draw(), options.output)


def _said(console: Console, sentence: str) -> None:
    console.print(sentence, markup=False, highlight=False, soft_wrap=True)


def _cell(value: Any, digits: int) -> str:
    return "" if value is None else text(value, digits)


def _rows(console: Console, title: str, rows: Sequence[dict[str, Any]]) -> None:
    if rows:
        columns = list(rows[0])
        names = [column.replace("_", " ") for column in columns]
        known = {column for column in columns if any(row[column] is not None for row in rows)}
        cells = [[text(row[column], 4) if column in known else "" for column in columns] for row in rows]
        print_table(console, title, names, cells)


# -- summary -----------------------------------------------------------------------------------------------------------


def _summary(options: argparse.Namespace) -> tuple[Any, Callable[[Console], None]]:
    studies = [_load(path) for path in options.runs]
    contents = [_facts(study) for study in studies]

    def show(console: Console) -> None:
        for study, facts in zip(studies, contents):
            print_table(console, study.name, ("", ""), _facts_in_words(facts))

    return contents, show


def _facts(study: Study) -> dict[str, Any]:
    """Return what there is to say of a run."""
    run = study.run
    best = study.best(1)
    counts = Counter(study.status)
    reasons = Counter(reason.split("\n", 1)[0] for reason in study.reasons if reason)
    facts: dict[str, Any] = {
        "run": study.name,
        "path": str(study.path),
        "evaluations": len(study),
        "by_status": {status.value: counts[status.value] for status in Status if counts[status.value]},
        "best": study.row(best[0]) if best else None,
        "seconds": float(study.seconds[-1]) if len(study) else 0.0,
        "median_evaluation_sec": _median(study),
        "commonest_reasons": [{"reason": reason, "n": n} for reason, n in reasons.most_common(3)],
    }
    if study.has_architectures:
        from dhmpi.analytics.importance import n_architectures

        facts["architectures"] = n_architectures(study)
    if run is not None:
        usage = study.usage()
        facts |= {
            "state": run.standing,
            "stopped": run.history.last_stop,
            "steered": [{"at": event["t"], "what": in_words(event)} for event in run.steering],
            "search": run.search,
            "problem": run.described.get("problem"),
            "max_evals": run.max_evals,
            "launches": len(run.launches),
            "began": run.first or None,
            "seconds": usage.length,
            "startup": run.startup and {name: run.startup[name] for name in ("ranks", "problem", "seconds")},
            "ranks": usage.n_ranks,
            "utilisation": usage.utilisation,
            "utilisation_completed": usage.utilisation_completed,
            "account": usage.sentence(),
            "losses": len([event for event in run.losses if event["e"] in ("left", "lost", "silent")]),
            "asks": run.n_asks,
            "search_sec": run.search_seconds,
        }
    facts["per_hour"] = 3600 * len(study) / facts["seconds"] if facts["seconds"] else None
    return facts


def _median(study: Study) -> float | None:
    import numpy as np

    known = study.elapsed[study.elapsed > 0]  # what was known before took no time
    return float(np.median(known)) if len(known) else None


def _facts_in_words(facts: dict[str, Any]) -> list[tuple[str, str]]:
    best = facts["best"]
    statuses = ", ".join(f"{n} {status}" for status, n in facts["by_status"].items())
    rate = "" if facts["per_hour"] is None else f", {facts['per_hour']:.0f} an hour"
    rows = [("evaluations", f"{facts['evaluations']}{f' ({statuses})' if statuses else ''}{rate}")]
    if "architectures" in facts:
        rows.append(("architectures", f"{facts['architectures']} different ones"))
    if "state" in facts:
        why = f": {facts['stopped']}" if facts["stopped"] else ""
        rows.insert(0, ("state", f"{facts['state']}{why}"))
        if facts["steered"]:
            rows.insert(
                1, ("steered", "; ".join(f"{entry['what']}, {moment(entry['at'])}" for entry in facts["steered"]))
            )
        rows.insert(0, ("problem", f"{facts['problem']}, search {facts['search'] or 'unknown'}"))
        launches = f" in {facts['launches']} launches" if facts["launches"] > 1 else ""
        rows.append(("time", f"{duration(facts['seconds'])}{launches}, since {moment(facts['began'])}"))
        rows.append(
            (
                "ranks",
                ", ".join(
                    f"{n} {role[:-1] if n == 1 and role.endswith('s') else role}" for role, n in facts["ranks"].items()
                ),
            )
        )
        if facts["startup"] is not None:
            rows.append(("start", startup.in_words(facts["startup"])))
        rows.append(("time of evaluators", facts["account"]))
        both = f"{facts['utilisation']:.3f}, of completed evaluations alone {facts['utilisation_completed']:.3f}"
        rows.append(("utilisation", both))
        if facts["asks"]:
            rows.append(("search", f"{facts['asks']} asks, {facts['search_sec'] / facts['asks']:.3g} s each"))
        if facts["losses"]:
            rows.append(("losses", f"{facts['losses']} events: dhmpi ls jobs --history, and dhmpi.log, say more"))
    if facts["median_evaluation_sec"] is not None:
        rows.append(("an evaluation takes", f"{facts['median_evaluation_sec']:.3g} s (median)"))
    rows += [("failed because", f"{item['reason']} ({item['n']} times)") for item in facts["commonest_reasons"]]
    if best is None:
        rows.append(("best", "no evaluation has succeeded"))
        return rows
    rows.append(("best objective", f"{best['objective']:.10g}, trial {best['trial']}"))
    rows += [(f"  {name}", text(value, 10)) for name, value in best["configuration"].items()]
    rows += [(f"  m:{name}", text(value)) for name, value in best["metrics"].items()]
    return rows


# -- utilization -------------------------------------------------------------------------------------------------------


def _utilization(options: argparse.Namespace) -> tuple[Any, Callable[[Console], None]]:
    from dhmpi.timeline import Activity

    study = _load(options.run)
    usage = study.usage()

    def draw() -> Any:
        from dhmpi.analytics import plots

        return {"overview": plots.utilisation, "ranks": plots.ranks, "hosts": plots.hosts}[options.plot](
            usage, study.name
        )

    _draw(options, draw)
    edges, shares = usage.curves()
    unit, seconds_each = ("hours", 3600.0) if usage.total >= LONG else ("seconds", 1.0)
    ranks = usage.by_rank()
    content = {
        "utilisation": usage.utilisation,
        "utilisation_completed": usage.utilisation_completed,
        "sentence": usage.sentence(),
        "seconds": usage.seconds,
        "evaluators": usage.n_evaluators,
        "ranks": usage.n_ranks,
        "length": usage.length,
        "by_rank": ranks,
        "failures_by_host": {host: {"failed": f, "evaluations": n} for host, (f, n) in usage.failures.items()},
        "curve": {"seconds": edges[:-1].tolist(), **{name: values.tolist() for name, values in shares.items()}},
    }

    def show(console: Console) -> None:
        _said(console, usage.sentence())
        _said(
            console,
            f"Utilisation {usage.utilisation:.4f} with evaluations in flight, {usage.utilisation_completed:.4f} of "
            f"completed ones only.",
        )
        rows = [
            (a.word, f"{usage.seconds[a.word] / seconds_each:.2f}", f"{100 * usage.share(a):.2f} %", a.meaning)
            for a in Activity
        ]
        print_table(console, "Time of evaluators' ranks", ("", unit, "share", "meaning"), rows)
        worst = sorted(ranks, key=lambda row: row["evaluating"])[:5]
        _rows(console, "Evaluators that evaluated least (seconds)", worst)
        failing = [(h, str(f), str(n)) for h, (f, n) in sorted(usage.failures.items(), key=lambda x: -x[1][0])[:5] if f]
        if failing:
            print_table(console, "Hosts with most failures", ("host", "failed", "evaluations"), failing)

    return content, show


# -- trajectory, compare -----------------------------------------------------------------------------------------------


def _trajectory(options: argparse.Namespace) -> tuple[Any, Callable[[Console], None]]:
    from dhmpi.analytics import trajectory

    study = _load(options.run)
    window = options.window
    if window is not None and window < 1:
        raise OptionError(f"--window must be >= 1, got {window}")
    if window is None and study.has_architectures:
        window = trajectory.WINDOW

    def draw() -> Any:
        from dhmpi.analytics import plots

        return plots.trajectory(study, options.by, window)

    _draw(options, draw)
    steps = trajectory.improvements(study)
    good = study.succeeded
    updates = study.run.updates if study.run is not None else []
    content: dict[str, Any] = {
        "improvements": steps,
        "trial": study.trial.tolist(),
        "seconds": study.seconds.tolist(),
        "objective": study.objective.tolist(),
        "best_so_far": study.best_so_far.tolist(),
    }
    if window is not None:
        content["moving_average"] = trajectory.moving_average(study.objective, window).tolist()
    if updates:
        content["updates"] = updates

    def show(console: Console) -> None:
        rows = [{**step, "seconds": duration(step["seconds"])} for step in steps]
        _rows(console, f"{study.name}: each time it got better", rows)
        _said(console, f"{len(study)} evaluations, {int((~good).sum())} without an objective.")
        if window is not None and good.any():
            _said(console, f"Mean of the last {window}: {content['moving_average'][-1]:.6g}.")
        names = ("n_episodes", "reward_mean", "reward_max", "entropy_share", "kl", "evaluating_seconds",
                 "waiting_seconds")  # fmt: skip
        _rows(
            console,
            f"The last of {len(updates)} updates of the policy",
            [{name: update.get(name) for name in names} for update in updates[-5:]],
        )

    return content, show


def _compare(options: argparse.Namespace) -> tuple[Any, Callable[[Console], None]]:
    from dhmpi.analytics import trajectory

    studies = [_load(path) for path in options.runs]
    groups = trajectory.compare(studies, options.by)

    def draw() -> Any:
        from dhmpi.analytics import plots

        return plots.comparison(groups, options.by)

    _draw(options, draw)
    rows = trajectory.table(groups)
    content = [
        {
            **row,
            options.by: group.grid.tolist(),
            "mean_best_so_far": group.mean.tolist(),
            "std_best_so_far": group.spread.tolist(),
        }
        for row, group in zip(rows, groups)
    ]
    architectures = []
    for one, group in zip(content, groups):
        if group.succeeded and group.studies[0].has_architectures:
            one |= _architectures(group.studies)
            architectures.append(one)

    def show(console: Console) -> None:
        words = [
            {**row, "reached": duration(row["reached"]) if options.by == "time" else row["reached"]} for row in rows
        ]
        _rows(console, "Best objective so far at the end", words)
        _said(
            console,
            "reached: when, on average, a run was as good as those of the worst group are at the end, in "
            + ("time since the start." if options.by == "time" else "evaluations."),
        )
        for one in architectures:
            chosen = ", ".join(f"{name}: {option}" for name, option in one["best_architecture"].items())
            _said(console, f"{one['runs']}: {one['architectures']} different architectures; the best one: {chosen}")
            title = f"{one['runs']}: options in at least half of the best {BEST_OPTIONS}"
            _rows(console, title, _likely(one["operations"]))

    return content, show


def _architectures(studies: Sequence[Study]) -> dict[str, Any]:
    """Return what runs of one kind say of architectures."""
    from dhmpi.analytics.importance import n_architectures, operations

    best = max((study for study in studies if study.succeeded.any()), key=lambda s: s.objective[s.best(1)[0]])
    return {
        "architectures": sum(map(n_architectures, studies)),
        "best_architecture": best.chosen(best.configs[best.best(1)[0]].get(ARCH_SEQ, ())),
        "operations": operations(best, BEST_OPTIONS),
    }


# -- topk, importance, export ------------------------------------------------------------------------------------------


def _topk(options: argparse.Namespace) -> tuple[Any, Callable[[Console], None]]:
    if options.k < 1:
        raise OptionError(f"-k must be >= 1, got {options.k}")
    study = _load(options.run)
    found = [study.row(i) for i in study.best(options.k)]
    if options.output is not None:
        _write_best(options.output, study, found)
    if options.drawings is not None:
        _draw_networks(options.drawings, study, found)
    content: Any = found
    shares = []
    if study.has_architectures:
        from dhmpi.analytics.importance import operations

        shares = operations(study, options.k)
        best = [{**row, "architecture": study.chosen(row["configuration"].get(ARCH_SEQ, ()))} for row in found]
        content = {"best": best, "operations": shares}

    def show(console: Console) -> None:
        if not found:
            _said(console, "No evaluation has succeeded.")
        names = [name for name in study.hyperparameters if any(name in row["configuration"] for row in found)]
        columns = ("trial", "objective", "seconds", *names)
        rows = [
            [
                str(row["trial"]),
                text(row["objective"], 8),
                _cell(row["elapsed_sec"], 3),
                *(_cell(row["configuration"].get(name), 4) for name in names),
            ]
            for row in found
        ]
        if rows:
            print_table(console, f"{study.name}: the best {len(rows)} of {len(study)}", columns, rows)
        _rows(console, f"Options in at least half of the best {len(found)}", _likely(shares))
        if shares and study.architecture_space is not None:
            for row in found[:3]:
                chosen = study.chosen(row["configuration"].get(ARCH_SEQ, ()))
                _said(console, f"Trial {row['trial']}: " + ", ".join(f"{k}: {v}" for k, v in chosen.items()))

    return content, show


def _likely(shares: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the options that at least half of the best have, in words."""
    return [
        {
            "decision": share["name"],
            "option": share["operation"],
            "share_of_best": share["share_of_best"],
            "share_of_all": share["share_of_all"],
        }
        for share in shares
        if share["share_of_best"] >= 0.5
    ]


def _draw_networks(directory: Path, study: Study, found: Sequence[dict[str, Any]]) -> None:
    """Draw the networks of the best evaluations, a file for each."""
    if not study.has_architectures:
        raise OptionError(f"--drawings: {study.path} has no architectures")
    space = study.architecture_space
    if space is None:
        problem = "its problem" if study.run is None else study.run.described.get("problem")
        raise OptionError(f"--drawings: the networks are not known here: {problem} cannot be loaded, or has changed")
    from dhmpi.nas.show import draw  # late: matplotlib takes a second

    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OptionError(f"--drawings {directory}: {error.strerror}") from error
    for row in found:
        title = f"trial {row['trial']}, objective {row['objective']:.6g}"
        arch = row["configuration"][ARCH_SEQ]
        draw(space, arch, directory / f"trial{row['trial']}.svg", build=False, title=title)


def _write_best(path: Path, study: Study, found: Sequence[dict[str, Any]]) -> None:
    from dhmpi.analytics.export import as_yaml

    flat = [
        {
            "trial": row["trial"], "objective": row["objective"], "elapsed_sec": row["elapsed_sec"],
            **row["configuration"], **{f"m:{name}": value for name, value in row["metrics"].items()},
        }
        for row in found
    ]  # fmt: skip
    nested = [{k: row[k] for k in ("trial", "objective", "elapsed_sec", "configuration", "metrics")} for row in found]
    suffix = path.suffix.lower()
    if suffix == ".csv":
        columns = list(
            dict.fromkeys(
                [*("trial", "objective", "elapsed_sec"), *study.hyperparameters, *(c for r in flat for c in r)]
            )
        )
        content = as_csv(flat, columns)
    elif suffix == ".json":
        content = as_json(nested)
    elif suffix in (".yaml", ".yml"):
        content = as_yaml(nested)
    else:
        raise OptionError(f"-o {path}: the name must end in .csv, .json or .yaml")
    try:
        path.write_text(content + "\n")
    except OSError as error:
        raise OptionError(f"cannot write {path}: {error.strerror}") from error


def _importance(options: argparse.Namespace) -> tuple[Any, Callable[[Console], None]]:
    from dhmpi.analytics import importance

    if options.seed < 0:
        raise OptionError(f"--seed must be >= 0, got {options.seed}")
    study = _load(options.run)
    found = importance.measure(study, options.seed)

    def draw() -> Any:
        from dhmpi.analytics import plots

        return plots.parallel(study, found) if options.plot == "parallel" else plots.importance(found, study.name)

    _draw(options, draw)
    rows = found.rows()
    content = {
        "n": found.n,
        "r2_unseen": found.accuracy,
        "hyperparameters": [
            {**row, "points": [importance.shown(column, point) for point in points], "dependence": values.tolist()}
            for row, column, (points, values) in zip(rows, found.columns, found.dependence)
        ],
    }

    def show(console: Console) -> None:
        _rows(console, f"{study.name}: what mattered, from {found.n} evaluations", rows)
        _said(
            console,
            f"importance: what R2 of a forest loses when the hyperparameter is shuffled; effect: between the best and "
            f"the worst mean prediction. On evaluations that it has not seen the forest has R2 {found.accuracy:.2f}"
            + (": do not trust it." if found.accuracy < TRUST else "."),
        )

    return content, show


def _report(options: argparse.Namespace) -> tuple[Any, Callable[[Console], None]]:
    if options.k < 1:
        raise OptionError(f"-k must be >= 1, got {options.k}")
    if options.seed < 0:
        raise OptionError(f"--seed must be >= 0, got {options.seed}")
    if options.output.suffix.lower() not in (".html", ".htm"):
        raise OptionError(f"-o {options.output}: the name must end in .html")
    studies = [_load(path) for path in options.runs]
    from dhmpi.analytics import report  # late, as all that imports numpy

    size = report.write(studies, options.output, options.k, options.seed)
    content = {"runs": [study.name for study in studies], "file": str(options.output), "bytes": size}

    def show(console: Console) -> None:
        _said(console, f"{options.output} written ({size / 1e6:.1f} MB): open it in a browser.")

    return content, show


def _export(options: argparse.Namespace) -> tuple[Any, Callable[[Console], None]]:
    from dhmpi.analytics.export import export

    study = _load(options.run)
    format_ = export(study, options.output, options.format)
    content = {"evaluations": len(study), "format": format_, "file": str(options.output)}

    def show(console: Console) -> None:
        _said(console, f"{len(study)} evaluations written to {options.output} ({format_}).")

    return content, show


if __name__ == "__main__":
    sys.exit(main())
