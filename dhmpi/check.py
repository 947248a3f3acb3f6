"""``python -m dhmpi.check PROBLEM RUN``: evaluate one configuration right here, before anybody queues."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from dhmpi import __version__
from dhmpi.errors import EXIT_BAD_INPUT, DhmpiError, OptionError

if TYPE_CHECKING:
    from rich.console import Console

    from dhmpi.problem import HpProblem
    from dhmpi.trials import Config

PROG = "python -m dhmpi.check"
DESCRIPTION = (
    "Evaluate one configuration of a problem in the foreground: by default its first starting point, or the default"
    " configuration if it has none. Exit code 0 if the function returned an objective, 1 if it failed, 2 if there is"
    " nothing to evaluate."
)
EXIT_FAILED = 1


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise OptionError(f"{message} (see --help)")


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    result = Parser(prog=PROG, description=DESCRIPTION, allow_abbrev=False)
    result.add_argument("problem", metavar="PROBLEM", help="package.module.name, or a .py file with a Problem")
    result.add_argument("run", metavar="RUN", help="package.module.name, or a .py file with a function run")
    base = result.add_mutually_exclusive_group()
    base.add_argument("--starting-point", type=int, metavar="N", help="evaluate starting point N, counted from 0")
    base.add_argument("--random", type=int, metavar="SEED", help="evaluate a random configuration drawn with this seed")
    add_changes(result)
    result.add_argument("--version", action="version", version=f"dhmpi {__version__}")
    return result


def add_changes(parser: argparse.ArgumentParser) -> None:
    """Give a command line the option that changes a configuration."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        dest="changes",
        help="give a hyperparameter another value; may be repeated; what becomes active gets its default",
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Check a problem and its run function; return the exit code."""
    try:
        options = parser().parse_args(arguments)
        from dhmpi.load import load_problem  # late: --help imports nothing that takes time

        problem = load_problem(options.problem)
        from dhmpi.evaluate.loading import load_prepared
        from dhmpi.mpi.teams import alone

        run = alone(load_prepared(options.run, options.problem, with_comm=True))
        config = choose(problem, options.starting_point, options.random, options.changes)
    except DhmpiError as error:
        print(f"dhmpi.check: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    from rich.console import Console

    console = Console()
    _print_space(console, problem)
    print_table(console, "Configuration", ("", ""), pairs(config))
    from dhmpi.evaluate.context import TrialContext, enter, leave

    with tempfile.TemporaryDirectory(prefix="dhmpi-check-", ignore_cleanup_errors=True) as directory:
        enter(TrialContext(directory=directory, problem=options.problem))
        try:
            return EXIT_FAILED if evaluate(run, config, console) is None else 0
        finally:
            leave()


def choose(problem: HpProblem, starting_point: int | None, seed: int | None, changes: Sequence[str]) -> Config:
    """Return the configuration to evaluate.

    Parameters
    ----------
    problem : HpProblem
    starting_point : int, optional
        Number of a starting point, from 0.
    seed : int, optional
        Of a random configuration; without it and `starting_point`, the first starting point or the default.
    changes : sequence of str
        ``name=value`` each.

    Raises
    ------
    DhmpiError
    """
    points = problem.starting_points
    if starting_point is not None and not 0 <= starting_point < len(points):
        has = f"they are numbered 0 to {len(points) - 1}" if points else "the problem has none"
        raise OptionError(f"there is no starting point {starting_point}: {has}")
    if seed is not None and seed < 0:
        raise OptionError(f"--random must be >= 0, got {seed}")
    changed = dict(parse_change(problem, change) for change in changes)
    if seed is not None:
        from dhmpi.search.uniform import UniformSearch  # late, as all that imports ConfigSpace

        base = UniformSearch(problem.space, seed).ask(1)[0].config
    elif points:
        base = points[starting_point or 0]
    else:
        base = {}
    return problem.complete({**base, **changed})


def evaluate(run: Callable[[Config], Any], config: Config, console: Console, prog: str = "dhmpi.check") -> float | None:
    """Call the run function and print what came of it; return the objective, None if there is none."""
    from dhmpi.evaluate.failure import describe
    from dhmpi.evaluate.result import check

    began = time.perf_counter()
    reason, returned = "", None
    try:
        returned = run(dict(config))
    except (Exception, SystemExit) as error:
        reason = describe(error)
    seconds = time.perf_counter() - began
    try:
        objective, metrics = (None, {}) if reason else check(returned)
    except ValueError as error:
        objective, reason = None, str(error)
    sys.stdout.flush()
    if objective is None:
        print(f"{prog}: {reason}\n(after {seconds:.3g} seconds)", file=sys.stderr)
        return None
    print_table(console, "Result", ("", ""), [("objective", repr(objective)), *pairs(metrics), taken(seconds)])
    return objective


def taken(seconds: float) -> tuple[str, str]:
    return "seconds", f"{seconds:.3g}"


def parse_change(problem: HpProblem, change: str) -> tuple[str, Any]:
    """Return name and value of ``name=value``, the value as the hyperparameter has it."""
    from dhmpi.problem import choices

    name, equals, text = change.partition("=")
    if not equals:
        raise OptionError(f"--set takes name=value, got {change!r}")
    if name not in problem.space:
        raise OptionError(f"--set {change}: the space has no {name!r}, but {', '.join(problem.hyperparameter_names)}")
    among = choices(problem.space[name])
    if among is not None:
        return name, next((choice for choice in among if str(choice) == text), text)
    try:
        return name, int(text)
    except ValueError:
        pass
    try:
        return name, float(text)
    except ValueError:
        raise OptionError(f"--set {change}: the value of {name!r} must be a number") from None


def pairs(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(name, value if isinstance(value, str) else repr(value)) for name, value in values.items()]


def _print_space(console: Console, problem: HpProblem) -> None:
    from dhmpi.problem import words

    rows = []
    for name in problem.hyperparameter_names:
        hyperparameter = problem.space[name]
        default = hyperparameter.default_value
        shown = f"{default:.6g}" if isinstance(default, float) else str(default)
        conditions = problem.space.parent_conditions_of[name]
        active = " and ".join(words(condition).replace(f"{name} | ", "") for condition in conditions)
        rows.append((name, *problem.describe(name), shown, active))
    print_table(console, "Space", ("hyperparameter", "kind", "values", "default", "active only if"), rows)
    for clause in problem.space.forbidden_clauses:
        console.print(f"forbidden: {words(clause)}", highlight=False, markup=False)


def print_table(console: Console, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows, without the named columns that are empty."""
    from rich.table import Table
    from rich.text import Text

    used = [i for i, column in enumerate(columns) if not column or any(row[i] for row in rows)]
    table = Table(show_header=any(columns))
    for i in used:
        table.add_column(columns[i], overflow="fold", no_wrap=i == 0)
    for row in rows:
        table.add_row(*(Text(row[i]) for i in used))  # Text: a "[" of the user's is no markup
    console.print(Text(title, "bold"))
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
