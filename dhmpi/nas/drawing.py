"""Networks as pictures: boxes from top to bottom, and lines beside them for connections that skip layers.

Everything is computed here but the ink, which is matplotlib's.  Start reading at :func:`figure`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dhmpi.nas.layers import Operation
from dhmpi.nas.space import MERGES, Network, Shape

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WIDTH, _HEIGHT = 2.5, 0.46  # of a box, in inches
_MERGED = 0.34  # height of the box of a merge
_GAP, _ASIDE = 0.26, 0.35  # between boxes below and beside one another
_RAIL = 0.16  # between lines beside the boxes
_PITCH = _WIDTH + _ASIDE + 2 * _RAIL  # from the middle of a box to the next beside it
_ROUND = 0.09  # radius of their corners
_MARGIN = 0.15
_TITLE = 0.25
_COLOURS = {
    "input": ("#eceff1", "#78909c"),
    "output": ("#fff3e0", "#fb8c00"),
    "merge": ("#ffffff", "#9e9e9e"),
    "dense": ("#e3f2fd", "#1e88e5"),
    "convolution": ("#e8f5e9", "#43a047"),
    "recurrent": ("#f3e5f5", "#8e24aa"),
    "other": ("#fffde7", "#c0a000"),
}
_LINES = ("#1e88e5", "#e53935", "#43a047", "#8e24aa", "#fb8c00", "#00897b", "#6d4c41", "#d81b60")


@dataclass
class Box:
    """Where a step is drawn, in inches from the top left corner of the drawing; y grows downwards."""

    x: float
    y: float
    height: float

    @property
    def left(self) -> float:
        """Its left edge; the others likewise."""
        return self.x - _WIDTH / 2

    @property
    def right(self) -> float:
        return self.x + _WIDTH / 2

    @property
    def bottom(self) -> float:
        return self.y + self.height

    @property
    def middle(self) -> float:
        return self.y + self.height / 2


@dataclass
class Rail:
    """A line beside the boxes: from a step down to those further below that take its tensor."""

    source: int
    targets: list[int]
    x: float
    colour: str


Point = tuple[float, float]


def figure(network: Network, measures: Sequence[tuple[Shape, int]] | None = None, title: str | None = None) -> Figure:
    """Return the picture of a network.

    Parameters
    ----------
    network : Network
    measures : sequence of (shape, int), optional
        Shape and number of parameters of every step.
    title : str, optional
        Default the number of layers, and of parameters if known.
    """
    from matplotlib.figure import Figure  # late, and without pyplot: no window, no state

    boxes = arrange(network)
    rails = lay_rails(network, boxes)
    left = min(box.left for box in boxes)
    right = max([box.right for box in boxes] + [rail.x for rail in rails])
    bottom = max(box.bottom for box in boxes)
    width, height = right - left + 2 * _MARGIN, bottom + _TITLE + 2 * _MARGIN
    picture = Figure(figsize=(width, height), dpi=150)
    axes = picture.add_axes((0, 0, 1, 1))
    axes.set_xlim(left - _MARGIN, right + _MARGIN)
    axes.set_ylim(bottom + _MARGIN, -_TITLE - _MARGIN)
    axes.set_axis_off()
    words = _title(network, measures) if title is None else title
    axes.text((left + right) / 2, -_TITLE / 2 - _MARGIN / 2, words, ha="center", va="center", fontsize=9,
              color="#37474f")  # fmt: skip
    for rail in rails:
        for target in rail.targets:
            _draw_line(axes, route(rail, target, rails, boxes), rail.colour)
    for i, step in enumerate(network.steps):
        for source in step.sources:
            if not any(rail.source == source and i in rail.targets for rail in rails):
                _draw_edge(axes, boxes[source], boxes[i])
        _draw_box(axes, network, i, boxes[i], None if measures is None else measures[i])
    return picture


def arrange(network: Network) -> list[Box]:
    """Return the boxes of all steps: in rows by their distance from the inputs, below their sources where possible."""
    rows = _rows(network)
    members: dict[int, list[int]] = {}
    for i, row in enumerate(rows):
        members.setdefault(row, []).append(i)
    xs: dict[int, float] = {}
    boxes: dict[int, Box] = {}
    y = 0.0
    for row in sorted(members):
        wanted = {i: _wanted(network, i, rows, xs) for i in members[row]}
        ordered = sorted(members[row], key=lambda i: (wanted[i], i))
        places = _spread([wanted[i] for i in ordered])
        height = max(_height(network.steps[i].operation) for i in ordered)
        for i, x in zip(ordered, places):
            xs[i] = x
            own = _height(network.steps[i].operation)
            boxes[i] = Box(x, y + (height - own) / 2, own)
        y += height + _GAP
    return [boxes[i] for i in range(len(rows))]


def _rows(network: Network) -> list[int]:
    """Return the row of every step: below all its sources, and as far down as what takes it allows."""
    rows: list[int] = []
    for step in network.steps:
        rows.append(1 + max((rows[source] for source in step.sources), default=-1))
    takers: list[list[int]] = [[] for _ in rows]
    for i, step in reversed(list(enumerate(network.steps))):
        rows[i] = min((rows[taker] for taker in takers[i]), default=rows[i] + 1) - 1
        for source in step.sources:
            takers[source].append(i)
    return rows


def _wanted(network: Network, i: int, rows: Sequence[int], xs: dict[int, float]) -> float:
    """Return where a step would like to be: below what it takes, or first takes; inputs beside one another."""
    step = network.steps[i]
    if not step.sources:
        return _PITCH * network.inputs.index(i)
    main = step.sources[:1]
    if step.operation.name == "concat":
        main = tuple(source for source in step.sources if rows[source] == rows[i] - 1) or main
    return sum(xs[source] for source in main) / len(main)


def _spread(wanted: Sequence[float]) -> list[float]:
    """Return places at least a pitch apart, in the order given, as near as may be to those wanted."""
    places: list[float] = []
    groups: list[list[float]] = []  # (sum of the starts wanted, size): neighbours that touch move together
    for i, x in enumerate(wanted):
        groups.append([x - i * _PITCH, 1])
        while len(groups) > 1 and groups[-2][0] / groups[-2][1] > groups[-1][0] / groups[-1][1]:
            total, size = groups.pop()
            groups[-1][0] += total
            groups[-1][1] += size
    for total, size in groups:
        places += [total / size] * int(size)
    return [start + i * _PITCH for i, start in enumerate(places)]


def lay_rails(network: Network, boxes: Sequence[Box]) -> list[Rail]:
    """Return the lines for edges that do not lead straight from one box to the next below it."""
    targets: dict[int, list[int]] = {}
    for i, step in enumerate(network.steps):
        for source in step.sources:
            if _is_blocked(boxes, source, i):
                targets.setdefault(source, []).append(i)
    rails: list[Rail] = []
    for source, takers in sorted(targets.items(), key=lambda item: (boxes[item[1][-1]].y - boxes[item[0]].y, item[0])):
        top, bottom = boxes[source].middle, max(boxes[i].middle for i in takers)
        x = _ROUND + 0.1 + max(box.right for box in boxes if box.bottom > top and box.y < bottom)
        while any(abs(rail.x - x) < _RAIL * 0.99 and _overlap(rail, boxes, top, bottom) for rail in rails):
            x += _RAIL
        rails.append(Rail(source, takers, x, ""))
    for i, rail in enumerate(sorted(rails, key=lambda rail: rail.source)):
        rail.colour = _LINES[i % len(_LINES)]
    return rails


def route(rail: Rail, target: int, rails: Sequence[Rail], boxes: Sequence[Box]) -> list[Point]:
    """Return the corners of a rail's line to one of the boxes that it leads to.

    It leaves and enters boxes at their right sides, or through the space below and above where boxes are beside them.
    Lines that enter one box do so one below the other, those of outer rails lowest, so that they do not cross.
    """
    start, end = boxes[rail.source], boxes[target]
    entering = sorted((other for other in rails if target in other.targets), key=lambda other: other.x)
    share = (entering.index(rail) + 1) / (len(entering) + 1)
    if _has_neighbour(start, boxes):
        y = start.bottom + _GAP * (0.25 + 0.5 * _fraction(rail, rails))
        points = [(start.x + _WIDTH / 4, start.bottom), (start.x + _WIDTH / 4, y), (rail.x, y)]
    else:
        y = start.bottom - start.height / 6
        points = [(start.x, y), (rail.x, y)]
    if _has_neighbour(end, boxes):
        y = end.y - _GAP * (0.25 + 0.5 * _fraction(rail, rails))
        x = end.x + _inner_width(end) * (0.1 + 0.3 * share)
        return [*points, (rail.x, y), (x, y), (x, end.y)]
    y = end.y + end.height * 2 / 3 * share
    return [*points, (rail.x, y), (end.x + _inner_width(end) / 2, y)]


def _has_neighbour(box: Box, boxes: Sequence[Box]) -> bool:
    """Return whether there is a box in the same row further right."""
    return any(other.x > box.x and other.y < box.bottom and box.y < other.bottom for other in boxes)


def _fraction(rail: Rail, rails: Sequence[Rail]) -> float:
    """Return the place of a rail among all, in (0, 1)."""
    return (1 + rails.index(rail)) / (1 + len(rails))


def _inner_width(box: Box) -> float:
    return _WIDTH * (0.5 if box.height == _MERGED else 1)


def _is_blocked(boxes: Sequence[Box], source: int, target: int) -> bool:
    """Return whether another box lies between two."""
    low, high = boxes[source].bottom, boxes[target].y
    between = [box for box in boxes if box.y >= low - 1e-9 and box.bottom <= high + 1e-9]
    reach = sorted((boxes[source].x, boxes[target].x))
    return any(box.right > reach[0] - _WIDTH / 4 and box.left < reach[1] + _WIDTH / 4 for box in between)


def _overlap(rail: Rail, boxes: Sequence[Box], top: float, bottom: float) -> bool:
    start, end = boxes[rail.source].middle, max(boxes[i].middle for i in rail.targets)
    return start < bottom + _HEIGHT and top < end + _HEIGHT


def _height(operation: Operation) -> float:
    return _MERGED if operation.name in MERGES else _HEIGHT


def _kind(network: Network, i: int) -> str:
    name = network.steps[i].operation.name
    if i in network.inputs or i in network.outputs:
        return "input" if i in network.inputs else "output"
    if name in MERGES:
        return "merge"
    for kind, parts in (("dense", ("Dense",)), ("convolution", ("Conv",)), ("recurrent", ("LSTM", "GRU", "RNN"))):
        if any(part in name for part in parts):
            return kind
    return "other"


def _title(network: Network, measures: Sequence[tuple[Shape, int]] | None) -> str:
    n = sum(step.operation.name not in (*MERGES, "Input", "Output") for step in network.steps)
    layers = f"{n} layer{'' if n == 1 else 's'}"
    return layers if measures is None else f"{layers}, {sum(count for _, count in measures):,} parameters"


def _said(operation: Operation) -> str:
    """Return what a box says, short enough for it."""
    words = str(operation).replace("return_sequences", "sequences")
    if operation.name in MERGES:
        words = words.replace("(", ", ").replace(")", "")
    return words if len(words) <= 34 else f"{words[:33]}…"


def _draw_box(axes: Any, network: Network, i: int, box: Box, measure: tuple[Shape, int] | None) -> None:
    from matplotlib.patches import FancyBboxPatch

    step = network.steps[i]
    face, edge = _COLOURS[_kind(network, i)]
    merge = step.operation.name in MERGES
    width = _inner_width(box)
    axes.add_patch(
        FancyBboxPatch(
            (box.x - width / 2, box.y), width, box.height, boxstyle=f"round,pad=0,rounding_size={box.height / 4}",
            facecolor=face, edgecolor=edge, linewidth=0.9, zorder=3,
        )
    )  # fmt: skip
    shared = any(other.layer == step.layer for other in network.steps[:i])
    details = [] if merge else [f"shares {step.name}" if shared else step.node]
    if measure is not None:
        shape, n_parameters = measure
        details += [] if merge or i in network.inputs else ["x".join(map(str, shape))]
        details += [f"{n_parameters:,} parameters"] if n_parameters else []
    large, small = (7, 5.6) if merge else (8, 6.2)
    axes.text(box.x, box.y + box.height * (0.34 if details else 0.5), _said(step.operation), ha="center", va="center",
              fontsize=large, weight="normal" if merge else "bold", color="#263238", zorder=4)  # fmt: skip
    axes.text(box.x, box.y + box.height * 0.74, "  ·  ".join(details), ha="center", va="center", fontsize=small,
              color="#546e7a", zorder=4)  # fmt: skip


def _draw_edge(axes: Any, above: Box, below: Box) -> None:
    """Draw the edge between two boxes with nothing between them."""
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path

    start, end = (above.x, above.bottom), (below.x, below.y)
    middle = (start[1] + end[1]) / 2
    path = Path([start, (start[0], middle), (end[0], middle), end], [Path.MOVETO, *[Path.CURVE4] * 3])
    axes.add_patch(
        FancyArrowPatch(path=path, arrowstyle="-|>", mutation_scale=6, color="#607d8b", linewidth=0.9, zorder=2,
                        shrinkA=0, shrinkB=0)
    )  # fmt: skip


def _draw_line(axes: Any, points: Sequence[Point], colour: str) -> None:
    """Draw a line with rounded corners and an arrow at its end."""
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path

    vertices, codes = [points[0]], [Path.MOVETO]
    for before, corner, after in zip(points, points[1:], points[2:]):
        vertices += [_towards(corner, before), corner, _towards(corner, after)]
        codes += [Path.LINETO, Path.CURVE3, Path.CURVE3]
    path = Path([*vertices, points[-1]], [*codes, Path.LINETO])
    axes.add_patch(
        FancyArrowPatch(path=path, arrowstyle="-|>", mutation_scale=6, color=colour, linewidth=1.0, zorder=1,
                        shrinkA=0, shrinkB=0)
    )  # fmt: skip


def _towards(corner: Point, other: Point) -> Point:
    """Return the point at which the rounding of a corner begins, on the way to another one."""
    dx, dy = other[0] - corner[0], other[1] - corner[1]
    length = max(abs(dx), abs(dy)) or 1.0
    step = min(_ROUND, length / 2) / length
    return corner[0] + dx * step, corner[1] + dy * step
