"""Figures as PNG, SVG or PDF: each function draws one on a `matplotlib` figure, and `save` writes it.

Colours are those of Okabe and Ito (2008, Color universal design), which everybody tells apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PolyCollection
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, NullLocator, PercentFormatter

from dhmpi.analytics.importance import INACTIVE, Column, Importance
from dhmpi.analytics.trajectory import Group, floor, moving_average
from dhmpi.errors import OptionError
from dhmpi.timeline import Activity

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from dhmpi.analytics.study import Study
    from dhmpi.analytics.usage import Usage

SUFFIXES = (".png", ".svg", ".pdf")
BLUE, ORANGE, GREEN, RED, PURPLE, SKY, YELLOW = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442",
)  # fmt: skip
GREY = "#999999"
CYCLE = (BLUE, ORANGE, GREEN, RED, PURPLE, SKY, "#000000")
COLOURS = {
    Activity.EVALUATING: BLUE,
    Activity.IDLE: YELLOW,
    Activity.WAITING: ORANGE,
    Activity.IMPORT: GREY,
    Activity.LOST: RED,
    Activity.DRAINING: "#DDDDDD",
}
FAILED_COLOUR = PURPLE
"""Of evaluations that failed."""
MANY = 4000
"""Points or segments above which a vector figure holds a picture of them."""
N_PIXELS = 1200
MOST_HOSTS = 20
MOST_DEPENDENCES = 6
MOST_AXES = 10
MOST_LINES, BEST_LINES = 200, 25
BELOW = -0.15
"""Height of what was inactive in a figure of parallel axes."""


def save(figure: Figure, path: Path) -> None:
    """Write a figure in the format that the name says.

    Raises
    ------
    OptionError
        If it cannot be written.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise OptionError(f"-o {path}: the name must end in {', '.join(SUFFIXES)}")
    FigureCanvasAgg(figure)
    try:
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise OptionError(f"cannot write {path}: {error.strerror}") from error


def _figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), layout="constrained")


def _unit(seconds: float) -> tuple[float, str]:
    """Return the unit of time that reads best up to some seconds."""
    if seconds >= 3 * 3600:
        return 3600.0, "hours"
    return (60.0, "minutes") if seconds >= 180 else (1.0, "seconds")


def _tidy(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(True, color="#EEEEEE", linewidth=0.8)
    axes.set_axisbelow(True)


# -- utilisation -------------------------------------------------------------------------------------------------------


def utilisation(usage: Usage, name: str) -> Figure:
    """Draw utilisation over time by both definitions, and below it the whole account."""
    edges, shares = usage.curves()
    unit, word = _unit(usage.length)
    figure = _figure(9, 6)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[1, 1.4])
    x = edges / unit
    for label, colour, style, total in (
        ("in flight", BLUE, "-", usage.utilisation),
        ("completed", ORANGE, "--", usage.utilisation_completed),
    ):
        top.stairs(
            shares[label], x, color=colour, linestyle=style, linewidth=1.5, label=f"{label}: {total:.1%}", baseline=None
        )
    top.set_ylim(0, 1.03)
    top.set_ylabel("utilisation")
    top.legend(loc="lower right", framealpha=0.9)
    top.set_title(f"{name}: {usage.sentence()}", fontsize=10, loc="left", wrap=True)
    order = [Activity.EVALUATING, Activity.LOST, Activity.IDLE, Activity.WAITING, Activity.DRAINING, Activity.IMPORT]
    base = np.zeros(len(edges) - 1)
    for activity in order:
        share = np.nan_to_num(shares[activity.word])
        if not usage.seconds[activity.word]:
            continue
        label = f"{activity.word} {_percent(usage.share(activity))}"
        bottom.stairs(base + share, x, baseline=base, fill=True, color=COLOURS[activity], label=label, linewidth=0)
        base = base + share
    bottom.set_ylim(0, 1)
    bottom.set_xlim(0, x[-1])
    bottom.set_xlabel(
        f"{word} since the start, without the time between launches" if usage.boundaries else f"{word} since the start"
    )
    bottom.set_ylabel("part of evaluators' time")
    if usage.total:
        bottom.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    for axes in (top, bottom):
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        _tidy(axes)
        for boundary in usage.boundaries:
            axes.axvline(boundary / unit, color="black", linewidth=0.8, linestyle=":")
    return figure


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share >= 0.001 else "< 0.1 %"


def ranks(usage: Usage, name: str) -> Figure:
    """Draw what every evaluator did over time."""
    numbers = np.unique(usage.rank)
    unit, word = _unit(usage.length)
    figure = _figure(9, min(12.0, 2.0 + 0.22 * len(numbers)))
    axes = figure.subplots()
    rows = np.searchsorted(numbers, usage.rank)
    codes = np.where((usage.activity == Activity.EVALUATING) & (usage.outcome == 0), len(Activity), usage.activity)
    palette = [COLOURS[activity] for activity in Activity] + [FAILED_COLOUR]
    if len(rows) <= MANY:
        for code in np.unique(codes):
            chosen = codes == code
            boxes = [
                [(b, y - 0.4), (e, y - 0.4), (e, y + 0.4), (b, y + 0.4)]
                for b, e, y in zip(usage.begin[chosen] / unit, usage.end[chosen] / unit, rows[chosen])
            ]
            gap = "white" if code in (Activity.EVALUATING, len(Activity)) else "none"
            axes.add_collection(PolyCollection(boxes, facecolors=palette[code], edgecolors=gap, linewidths=0.3))
    else:
        axes.imshow(
            _picture(usage, rows, codes, len(numbers), len(palette)),
            cmap=ListedColormap(palette), vmin=-0.5, vmax=len(palette) - 0.5, aspect="auto", interpolation="nearest",
            extent=(0.0, usage.length / unit, len(numbers) - 0.5, -0.5),
        )  # fmt: skip
    axes.set_xlim(0, usage.length / unit or 1)
    axes.set_ylim(max(1, len(numbers)) - 0.5, -0.5)
    shown = np.arange(0, len(numbers), max(1, -(-len(numbers) // 40)))
    axes.set_yticks(shown, [_rank_label(usage, int(numbers[i])) for i in shown], fontsize=7)
    axes.set_xlabel(f"{word} since the start")
    axes.set_title(f"{name}: what each of {len(numbers)} evaluators did", fontsize=10, loc="left")
    present = [code for code in (*Activity, len(Activity)) if (codes == code).any()]
    words = [*(activity.word for activity in Activity), "failed evaluation"]
    handles = [Patch(color=palette[code], label=words[code]) for code in present]
    figure.legend(handles=handles, loc="outside lower center", ncols=max(1, len(handles)), frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    for boundary in usage.boundaries:
        axes.axvline(boundary / unit, color="black", linewidth=0.8, linestyle=":")
    return figure


def _rank_label(usage: Usage, rank: int) -> str:
    host = usage.hosts.get(rank, "")
    return f"{rank} {host}" if host else str(rank)


def _picture(usage: Usage, rows: np.ndarray, codes: np.ndarray, n_rows: int, n_codes: int) -> np.ndarray:
    """Return for each row and pixel of time what took most of it."""
    edges = np.linspace(0.0, usage.length, N_PIXELS + 1)
    best = np.zeros((n_rows, N_PIXELS))
    picture = np.zeros((n_rows, N_PIXELS), dtype=np.int8)
    for code in range(n_codes):
        for row in range(n_rows):
            chosen = (rows == row) & (codes == code)
            if not chosen.any():
                continue
            seconds = _covered(usage.begin[chosen], usage.end[chosen], edges)
            better = seconds > best[row]
            picture[row, better] = code
            best[row, better] = seconds[better]
    return picture


def _covered(begin: np.ndarray, end: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Return the seconds of intervals that do not overlap in each bin."""
    order = np.argsort(begin, kind="stable")
    begin, end = begin[order], end[order]
    sums = np.concatenate([[0.0], np.cumsum(end - begin)])
    n = np.searchsorted(begin, edges, side="right")
    over = np.where(n > 0, np.maximum(0.0, end[np.maximum(n - 1, 0)] - edges), 0.0)
    return np.diff(sums[n] - over)


def hosts(usage: Usage, name: str) -> Figure:
    """Draw how many evaluations failed on each host, and its part of the time."""
    order = sorted(usage.failures, key=lambda host: (-usage.failures[host][0] / max(1, usage.failures[host][1]), host))
    more = len(order) - MOST_HOSTS
    order = order[:MOST_HOSTS]
    figure = _figure(8, 1.5 + 0.3 * max(2, len(order)))
    axes = figure.subplots()
    parts = [usage.failures[host][0] / max(1, usage.failures[host][1]) for host in order]
    axes.barh(range(len(order)), parts, color=FAILED_COLOUR)
    for i, host in enumerate(order):
        failed, n = usage.failures[host]
        axes.text(parts[i], i, f"  {failed} of {n}", va="center", fontsize=8)
    axes.set_yticks(range(len(order)), [host or "(no host)" for host in order], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, max([*parts, 0.01]) * 1.2)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_xlabel("part of evaluations that failed")
    rest = f" (the worst {MOST_HOSTS} of {MOST_HOSTS + more})" if more > 0 else ""
    axes.set_title(f"{name}: failures by host{rest}", fontsize=10, loc="left")
    _tidy(axes)
    axes.grid(False, axis="y")
    return figure


# -- trajectory --------------------------------------------------------------------------------------------------------


def trajectory(study: Study, by: str, window: int | None) -> Figure:
    """Draw every evaluation, the best so far, and perhaps a moving average; below, what a policy says of itself."""
    updates = study.run.updates if study.run is not None else []
    figure = _figure(9, 7 if updates else 4.8)
    panels = figure.subplots(2 if updates else 1, 1, height_ratios=[2, 1] if updates else [1], squeeze=False)[:, 0]
    axes = panels[0]
    unit, word = _unit(float(study.seconds.max(initial=0.0))) if by == "time" else (1.0, "evaluations")
    x = study.seconds / unit if by == "time" else np.arange(1.0, len(study) + 1)
    good = study.succeeded
    size = 14 if good.sum() < 500 else 5 if good.sum() < MANY else 2
    axes.scatter(
        x[good], study.objective[good], s=size, color=GREY, alpha=0.6, linewidths=0, label="evaluations",
        rasterized=bool(good.sum() > MANY),
    )  # fmt: skip
    if window is not None:
        average = moving_average(study.objective, window)
        axes.plot(x[good], average, color=ORANGE, linewidth=1.5, label=f"mean of the last {window}")
    axes.step(x, study.best_so_far, where="post", color=BLUE, linewidth=2, label="best so far")
    low, hidden = _limits(axes, study.objective[good])
    if (~good).any():
        n_failed = int((~good).sum())
        axes.plot(
            x[~good], np.full(n_failed, 0.015), "|", color=RED, transform=axes.get_xaxis_transform(), markersize=7,
            label=f"failed ({n_failed})", rasterized=bool(n_failed > MANY),
            markeredgewidth=1.0 if n_failed < 100 else 0.4, alpha=0.8 if n_failed < 100 else 0.5,
        )  # fmt: skip
    if hidden:
        axes.text(
            0.995, 0.05, f"{hidden} below {low:.3g}", transform=axes.transAxes, ha="right", fontsize=8, color=GREY
        )
    axes.set_xlabel(f"{word} since the start" if by == "time" else word)
    axes.set_ylabel("objective")
    axes.legend(loc="lower right", framealpha=0.9, fontsize=8, markerscale=1.0 if size > 5 else 2.0)
    best = f", best {study.best_so_far[-1]:.6g}" if good.any() else ""
    axes.set_title(f"{study.name}: {len(study)} evaluations{best}", fontsize=10, loc="left")
    axes.set_xlim(0, 1.01 * x.max(initial=0.0) or 1.0)
    _tidy(axes)
    if updates:
        _policy(panels[1], updates)
    return figure


def _limits(axes: Axes, values: np.ndarray) -> tuple[float, int]:
    """Leave hopeless objectives out of sight; return the lower limit, and how many are below."""
    limit = floor(values)
    if limit is None:
        return -np.inf, 0
    axes.set_ylim(limit, values.max() + 0.08 * (values.max() - limit))
    return limit, int((values < limit).sum())


def _policy(axes: Axes, updates: Sequence[dict[str, Any]]) -> None:
    x = np.arange(1, len(updates) + 1)
    axes.plot(x, _of(updates, "reward_mean"), color=BLUE, label="mean reward of a batch")
    axes.set_ylabel("mean reward", color=BLUE)
    axes.set_xlabel("updates of the policy")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _tidy(axes)
    other = axes.twinx()
    other.plot(x, _of(updates, "entropy_share"), color=ORANGE, linestyle="--")
    other.set_ylabel("entropy, of the largest", color=ORANGE)
    other.set_ylim(0, 1.03)
    other.spines[["top"]].set_visible(False)


def _of(updates: Sequence[dict[str, Any]], name: str) -> np.ndarray:
    return np.array([update.get(name, np.nan) for update in updates], dtype=float)


def comparison(groups: Sequence[Group], by: str) -> Figure:
    """Draw the best so far of each run, and of groups of several the mean, with a band of one standard deviation.

    A line ends with the last evaluation, that of a mean with the last of all runs.
    """
    drawn = [group for group in groups if group.succeeded]
    hopeless = [group.name for group in groups if not group.succeeded]
    figure = _figure(9, 5)
    axes = figure.subplots()
    unit, word = _unit(float(groups[0].grid[-1])) if by == "time" else (1.0, "evaluations")
    for i, group in enumerate(drawn):
        colour = CYCLE[i % len(CYCLE)]
        x = group.grid / unit
        n = len(group.studies)
        label = f"{group.name}, {n} run{'s' * (n > 1)}"
        axes.plot(
            x, group.mean, color=colour, linewidth=2, linestyle=("-", "--", ":")[i // len(CYCLE) % 3], label=label,
            marker="o", markersize=4, markevery=[group.last],
        )  # fmt: skip
        if n > 1:
            axes.fill_between(
                x, group.mean - group.spread, group.mean + group.spread, color=colour, alpha=0.18, linewidth=0
            )
            for values, end in zip(group.values, group.ends):
                until = group.grid <= end
                axes.plot(x[until], values[until], color=colour, linewidth=0.6, alpha=0.5)
    _limits(axes, np.concatenate([group.mean[~np.isnan(group.mean)] for group in drawn]))
    axes.set_xlim(left=0)
    axes.set_xlabel(f"{word} since the start" if by == "time" else word)
    axes.set_ylabel("best objective so far")
    axes.legend(loc="lower right", framealpha=0.9, fontsize=8)
    title = "best so far of each run"
    if any(len(group.studies) > 1 for group in drawn):
        title = "best so far; of several runs the mean, with one standard deviation"
    title += f"; no evaluation of {', '.join(hopeless)} has succeeded" * bool(hopeless)
    axes.set_title(title, fontsize=10, loc="left", wrap=True)
    _tidy(axes)
    return figure


# -- importance --------------------------------------------------------------------------------------------------------


def importance(found: Importance, name: str) -> Figure:
    """Draw the importance of each hyperparameter, and how the objective depends on the most important."""
    n_shown = min(MOST_DEPENDENCES, len(found.columns))
    n_bars = min(20, len(found.columns))
    n_rows = -(-n_shown // 3)
    figure = _figure(10, max(2.2, 0.28 * n_bars + 1.0) + 2.4 * n_rows)
    top, bottom = np.array(figure.subfigures(2, 1, height_ratios=[max(2.2, 0.28 * n_bars + 1.0), 2.4 * n_rows]))
    axes = top.subplots()
    axes.barh(range(n_bars), found.mean[:n_bars], xerr=found.std[:n_bars], color=BLUE, ecolor=GREY)
    axes.set_yticks(range(n_bars), [column.name for column in found.columns[:n_bars]], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(left=min(0.0, float((found.mean - found.std)[:n_bars].min())))
    axes.set_xlabel("loss of R2 when shuffled")
    more = f"; the first {n_bars} of {len(found.columns)}" if n_bars < len(found.columns) else ""
    axes.set_title(
        f"{name}: permutation importance, from {found.n} evaluations{more} (R2 on unseen ones: {found.accuracy:.2f})",
        fontsize=10, loc="left",
    )  # fmt: skip
    _tidy(axes)
    axes.grid(False, axis="y")
    panels = bottom.subplots(n_rows, 3, sharey=True, squeeze=False).ravel()
    for axes, column, (points, values) in zip(panels, found.columns, found.dependence):
        _dependence(axes, column, points, values)
    for axes in panels[n_shown:]:
        axes.set_visible(False)
    for row in range(n_rows):
        panels[3 * row].set_ylabel("mean prediction")
    return figure


def _dependence(axes: Axes, column: Column, points: np.ndarray, values: np.ndarray) -> None:
    if column.categories:
        labels = [column.categories[int(point)] if point >= 0 else INACTIVE for point in points]
        axes.plot(range(len(points)), values, "o", color=BLUE)
        turned = sum(map(len, labels)) > 24
        axes.set_xticks(
            range(len(points)), labels, rotation=30 if turned else 0, ha="right" if turned else "center", fontsize=8
        )
        axes.set_xlim(-0.5, len(points) - 0.5)
    else:
        axes.plot(points, values, color=BLUE, linewidth=1.8, marker="o" if column.few else None)
        if column.log:
            axes.set_xscale("log")
        if column.few:
            axes.set_xticks(*zip(*column.marks()))
            axes.xaxis.set_minor_locator(NullLocator())
        deciles = np.quantile(column.values[column.values >= column.least], np.linspace(0.1, 0.9, 9))
        axes.vlines(deciles, 0, 0.03, color=GREY, transform=axes.get_xaxis_transform(), linewidth=0.8)
    axes.set_title(column.name, fontsize=9)
    axes.tick_params(labelsize=8)
    _tidy(axes)


def parallel(study: Study, found: Importance) -> Figure:
    """Draw configurations as lines over the most important hyperparameters, the better the darker."""
    columns = found.columns[:MOST_AXES]
    y = found.objective
    order = np.argsort(y, kind="stable")
    keep = np.union1d(order[-BEST_LINES:], order[:: max(1, -(-len(order) // MOST_LINES))])
    keep = keep[np.argsort(y[keep], kind="stable")]
    figure = _figure(max(7.0, 1.2 * len(columns) + 2), 5)
    axes = figure.subplots()
    heights = np.column_stack([_height(column) for column in columns])
    spread = _spread(y)
    colours = _colormap()(spread[keep])
    for line, colour, quality in zip(heights[keep], colours, spread[keep]):
        axes.plot(range(len(columns)), line, color=colour, linewidth=0.6 + 1.2 * quality**4, alpha=0.35 + 0.5 * quality)
    for i, column in enumerate(columns):
        axes.vlines(i, 0, 1, color="black", linewidth=0.8)
        _scale(axes, i, column)
    axes.set_xticks(range(len(columns)), [column.name for column in columns], fontsize=8, rotation=20, ha="right")
    axes.set_yticks([])
    axes.set_xlim(-0.3, len(columns) - 0.4)
    inactive = any((column.values < column.least).any() for column in columns)
    axes.set_ylim((BELOW if inactive else 0.0) - 0.07, 1.07)
    axes.spines[:].set_visible(False)
    axes.set_title(
        f"{study.name}: {len(keep)} of {found.n} configurations, the better the darker; most important on the left",
        fontsize=10, loc="left",
    )  # fmt: skip
    return figure


def _spread(y: np.ndarray) -> np.ndarray:
    """Return the rank of each objective between 0 and 1."""
    return np.argsort(np.argsort(y, kind="stable"), kind="stable") / max(1, len(y) - 1)


def _colormap() -> Any:
    from matplotlib import colormaps

    return colormaps["viridis_r"]


def _height(column: Column) -> np.ndarray:
    """Return where lines cross an axis: between 0 and 1, below where the hyperparameter was inactive."""
    inactive = column.values < column.least
    height = np.where(inactive, BELOW, column.places(np.where(inactive, column.active[0], column.values)))
    if column.categories:  # lines that would all run through one point are spread a little
        height = height + np.random.default_rng(0).uniform(-0.015, 0.015, len(height))
    return height


def _scale(axes: Axes, i: int, column: Column) -> None:
    if (column.values < column.least).any():
        axes.text(i + 0.04, BELOW, INACTIVE, fontsize=7, va="center", bbox=_BOX, color=GREY)
    if column.categories:
        values = column.active
        span = values[-1] - values[0] or 1.0
        for value in values if len(values) <= 12 else values[[0, -1]]:
            height = (value - values[0]) / span if len(values) > 1 else 0.5
            axes.text(i + 0.04, height, column.categories[int(value)], fontsize=7, va="center", bbox=_BOX)
        return
    numbers, labels = zip(*column.marks())
    for height, label in zip(column.places(np.array(numbers)).round(6), labels):
        beyond = {0.0: -0.035, 1.0: 1.035}.get(float(height))
        if beyond is None:
            axes.text(i + 0.04, height, label, fontsize=7, va="center", bbox=_BOX)
        else:
            axes.text(i, beyond, label, fontsize=7, ha="center", va="center", bbox=_BOX)


_BOX = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.6}


# -- simulations -------------------------------------------------------------------------------------------------------


def simulated(reports: Sequence[Any], title: str) -> Figure:
    """Draw objectives over virtual time, and below them what evaluators and the searcher do.

    Parameters
    ----------
    reports : sequence of dhmpi.simulate.Report
    title : str
    """
    unit, word = _unit(max(report.run.seconds for report in reports))
    figure = _figure(9, 6.5)
    top, bottom = figure.subplots(2, 1, sharex=True)
    for report, colour in zip(reports, CYCLE * len(reports)):
        end = report.run.seconds
        name = f"{report.n_evaluators} evaluators"
        if report.trajectory:
            _, times, best = zip(*report.trajectory)
            top.step(
                [*(t / unit for t in times), end / unit], [*best, best[-1]], where="post", color=colour, label=name
            )
        edges = [0.0, *(row["time"] / unit for row in report.rows)]
        for column, style, label in (
            ("utilisation", "-", f"utilisation {report.run.utilisation:.1%}"),
            ("searcher", ":", f"searcher busy {report.load:.1%}"),
        ):
            values = [row[column] for row in report.rows]
            bottom.stairs(values, edges, color=colour, linestyle=style, linewidth=1.5, baseline=None, label=label)
    top.set_ylabel("best objective")
    if any(report.trajectory for report in reports):
        top.legend(loc="lower right", framealpha=0.9, fontsize=8)
    top.set_title(title, fontsize=10, loc="left", wrap=True)
    bottom.set_ylim(0, 1.03)
    bottom.set_ylabel("part of the time")
    bottom.set_xlabel(f"virtual {word}")
    bottom.legend(loc="lower right", framealpha=0.9, fontsize=8)
    for axes in (top, bottom):
        _tidy(axes)
    return figure
