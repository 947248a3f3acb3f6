"""``python -m dhmpi.nas.show PROBLEM [ARCH_SEQ]``: see a search space, or the network of an architecture.

:func:`text` and :func:`draw` do the same for other programs.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dhmpi import __version__
from dhmpi.check import Parser
from dhmpi.errors import EXIT_BAD_INPUT, DhmpiError, OptionError, ProblemError
from dhmpi.tables import write

if TYPE_CHECKING:
    from dhmpi.nas.space import Network, SearchSpace, Shape

PROG = "python -m dhmpi.nas.show"
DESCRIPTION = (
    "Show the search space of a problem: its decisions and their options. With an architecture, show what it chooses"
    " and the layers of its network, with shapes and numbers of parameters if TensorFlow is installed."
)
SUFFIXES = (".png", ".svg", ".pdf")
MAX_OPTIONS = 8
"""Options of a decision that are listed."""

_THROUGH = {"╯": "┴", "┤": "┼", "╮": "┬"}  # a line turns off here, and another goes on beside it

Measures = list[tuple["Shape", int]]


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    result = Parser(prog=PROG, description=DESCRIPTION, allow_abbrev=False)
    result.add_argument("problem", metavar="PROBLEM", help="package.module.name, or a .py file with a Problem")
    which = result.add_mutually_exclusive_group()
    which.add_argument(
        "architecture", metavar="ARCH_SEQ", nargs="?", help="as results.csv has it: '[0, 3, 1]' or 0,3,1"
    )
    which.add_argument("--random", type=int, metavar="SEED", help="show an architecture drawn with this seed")
    result.add_argument(
        "-o", "--output", metavar="FILE", help=f"draw the network into a file ({', '.join(SUFFIXES)}) as well"
    )
    result.add_argument(
        "--graph-only", action="store_true", help="neither import TensorFlow nor show shapes and parameters"
    )
    result.add_argument("--version", action="version", version=f"dhmpi {__version__}")
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Show a search space or an architecture; return the exit code."""
    try:
        options = parser().parse_args(arguments)
        write(sys.stdout, _shown(options))
    except DhmpiError as error:
        print(f"dhmpi.nas.show: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    return 0


def _shown(options: argparse.Namespace) -> str:
    """Return what to print; draw, if that is asked for."""
    wanted = options.architecture is not None or options.random is not None
    if options.output is not None:
        if not wanted:
            raise OptionError("--output draws the network of an architecture: give ARCH_SEQ or --random SEED")
        if Path(options.output).suffix not in SUFFIXES:
            raise OptionError(f"--output must end in {', '.join(SUFFIXES)}, got {options.output!r}")
    if options.random is not None and options.random < 0:
        raise OptionError(f"--random must be >= 0, got {options.random}")
    entries: Sequence[Any] | None = None
    if options.architecture is not None:
        entries = parse_architecture(options.architecture)
    space = _space(options.problem)
    if not wanted:
        return table(space)
    if entries is None:
        import numpy as np  # late: --help imports nothing that takes time

        entries = space.random(np.random.default_rng(options.random))
    arch = space.validate(entries)  # before anything is built
    shown = text(space, arch, not options.graph_only)
    if options.output is not None:
        draw(space, arch, options.output, not options.graph_only)
    return shown


def parse_architecture(words: str) -> list[Any]:
    """Return the entries of an architecture that is given as JSON or separated by commas or spaces.

    Raises
    ------
    OptionError
    """
    bare = words.strip().removeprefix("[").removesuffix("]").replace(",", " ")
    try:
        return [json.loads(word) for word in bare.split()]
    except ValueError:
        raise OptionError(f"an architecture is a list of numbers such as '[0, 3, 1]', got {words!r}") from None


def _space(name: str) -> SearchSpace:
    from dhmpi.load import load_problem  # late: brings ConfigSpace

    problem = load_problem(name)
    space = getattr(problem, "architecture_space", None)
    if space is None:
        raise ProblemError(f"{name!r} has no architectures: it is a {type(problem).__name__}, and no NaProblem")
    return space  # type: ignore[no-any-return]


def table(space: SearchSpace) -> str:
    """Return a search space in words: its decisions and their options."""
    rows = []
    listed: dict[tuple[str, ...], str] = {}  # the decision at which options were listed
    for name, options in space.decisions:
        more = len(options) - MAX_OPTIONS
        words = ", ".join(options[:MAX_OPTIONS]) + (f", ... ({more} more)" if more > 0 else "")
        first = listed.setdefault(options, name)
        rows.append((name, str(len(options)), words if first == name or len(options) <= 2 else f"as {first}"))
    size = f"{space.size:,}" if space.size < 10**15 else f"{space.size:.3g}"
    decisions = "1 decision" if len(rows) == 1 else f"{len(rows)} decisions"
    return f"{decisions}, {size} architectures\n\n{_aligned(('decision', 'options', ''), rows)}"


def text(space: SearchSpace, arch: Sequence[Any], build: bool = True) -> str:
    """Return an architecture in words: what it chooses, and the layers of its network, drawn with characters.

    Parameters
    ----------
    space : SearchSpace
    arch : sequence
    build : bool, default True
        Whether to build the network, if TensorFlow is installed, so as to show shapes and numbers of parameters.

    Raises
    ------
    ProblemError
        If it is no architecture of the space, or its network cannot be built.
    """
    arch = space.validate(arch)
    rows = [(decision.name, str(option), decision.options[option]) for decision, option in zip(space.decisions, arch)]
    parts = [_aligned(("decision", "option", ""), rows)] if rows else []
    if space.has_graph:
        network = space.resolve(arch)
        measures = _measured(network) if build else None
        parts.append(_graph(network, measures))
    elif build and _has_keras():
        model = space.build(arch)
        layers = [
            (layer.name, type(layer).__name__, _dimensions(_output_shape(layer)), f"{layer.count_params():,}")
            for layer in model.layers
        ]
        parts += [_aligned(("layer", "kind", "shape", "parameters"), layers, 3), f"{model.count_params():,} parameters"]
    return "\n\n".join(parts)


def draw(
    space: SearchSpace, arch: Sequence[Any], file: str | Path, build: bool = True, title: str | None = None
) -> None:
    """Draw the network of an architecture into a file, whose suffix says what kind.

    Parameters
    ----------
    space : SearchSpace
    arch : sequence
    file : path
        ``.png``, ``.svg`` or ``.pdf``.
    build : bool, default True
        As in :func:`text`.
    title : str, optional
        Default the number of layers, and of parameters if known.

    Raises
    ------
    ProblemError
        As in :func:`text`, and if a function builds the networks of the space.
    OptionError
        If the file cannot be written.
    """
    from dhmpi.nas.drawing import figure  # late: brings matplotlib

    network = space.resolve(arch)
    measures = _measured(network) if build else None
    try:
        figure(network, measures, title).savefig(file)
    except OSError as error:
        raise OptionError(f"{file} cannot be written: {error.strerror or error}") from error


def _measured(network: Network) -> Measures | None:
    if not _has_keras():
        return None
    from dhmpi.nas.build import measure

    return measure(network)


def _has_keras() -> bool:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # else TensorFlow reports on the processor
    return all(importlib.util.find_spec(name) is not None for name in ("keras", "tensorflow"))


def _output_shape(layer: Any) -> Sequence[int]:
    output = layer.output
    return tuple((output[0] if isinstance(output, (list, tuple)) else output).shape[1:])


def _dimensions(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def _graph(network: Network, measures: Measures | None) -> str:
    """Return one line per layer, with lines to layers that are not neighbours."""
    rows, rails = [], _rails(network)
    for i, step in enumerate(network.steps):
        shared = any(other.layer == step.layer for other in network.steps[:i])
        row = [rails[i], step.name, f"{step.operation}, shared" if shared else str(step.operation)]
        if measures is not None:
            shape, n_parameters = measures[i]
            row += [_dimensions(shape), f"{n_parameters:,}" if n_parameters else ""]
        if i and i - 1 not in step.sources:
            rows.append([_passing(rails[i]), *[""] * (len(row) - 1)])
        rows.append(row)
    columns = ("", "layer", "operation", "shape", "parameters")[: len(rows[0])]
    shown = _aligned(columns, rows, right=4)
    if measures is not None:
        shown += f"\n\n{sum(n for _, n in measures):,} parameters"
    return shown


def _rails(network: Network) -> list[str]:
    """Return the drawing left of every layer: a dot, and lines on rails to its right for edges that skip layers.

    A line turns off where its source is, runs down, and turns in at every layer that takes it.
    """
    last: dict[int, int] = {}  # the last layer that takes a tensor over a rail
    taken: list[set[int]] = [set() for _ in network.steps]
    for i, step in enumerate(network.steps):
        for source in step.sources:
            if source != i - 1:
                last[source] = i
                taken[i].add(source)
    columns: dict[int, int] = {}  # the rail of each source
    free_after: list[int] = []  # the row in which each rail becomes free
    for source in sorted(last):
        column = next((k for k, row in enumerate(free_after) if row < source), len(free_after))
        free_after[column : column + 1] = [last[source]]
        columns[source] = column
    drawings = []
    for i in range(len(network.steps)):
        cells = ["  "] * len(free_after)
        for source, column in columns.items():
            if source < i < last[source]:
                cells[column] = " │"
        ends = {columns[source]: "╯" if last[source] == i else "┤" for source in taken[i]}
        if i in last:
            ends[columns[i]] = "╮"
        farthest = max(ends, default=-1)
        for column in range(farthest + 1):
            through = _THROUGH.get(ends.get(column, ""), "│" if cells[column] == " │" else "─")
            cells[column] = f"─{ends[column] if column == farthest else through}"
        drawings.append("●" + "".join(cells))
    return drawings


def _passing(drawing: str) -> str:
    """Return a drawing of the lines that come from above a row."""
    above = "│┼┤╯┴"
    return " " + "".join("│" if character in above else " " for character in drawing[1:])


def _aligned(columns: Sequence[str], rows: Sequence[Sequence[str]], right: int | None = None) -> str:
    """Return rows as columns of text; the one numbered `right` is flush right."""
    lines = [columns, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(columns))]
    padded = (
        [cell.rjust(width) if i == right else cell.ljust(width) for i, (cell, width) in enumerate(zip(line, widths))]
        for line in lines
    )
    return "\n".join("  ".join(cells).rstrip() for cells in padded)


if __name__ == "__main__":
    sys.exit(main())
