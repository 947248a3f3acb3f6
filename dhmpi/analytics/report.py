"""A report of runs as one HTML file that needs nothing else: no network, no other file, no program but a browser.

The tables are written here, so that they are there without scripts, for readers of all kinds, and on paper.  The
figures are drawn by ``report.js`` from the JSON that `contents` returns.  How long a file gets does not depend on the
number of evaluations or ranks: what is many is told in bins, quantiles and a sample.  Start at `page`.
"""

from __future__ import annotations

import base64
import html
import io
import json
import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dhmpi import __version__
from dhmpi.analytics import importance, trajectory
from dhmpi.analytics.study import ARCH_SEQ
from dhmpi.errors import DhmpiError, OptionError
from dhmpi.tables import duration, moment, text
from dhmpi.timeline import Activity
from dhmpi.trials import Status

if TYPE_CHECKING:
    from dhmpi.analytics.study import Study
    from dhmpi.analytics.usage import Usage

MOST_POINTS = 3_000
"""Evaluations that are drawn one by one."""
BEST_POINTS = 200
"""Of them the best, which are always among them."""
MOST_FAILED = 500
MOST_STEPS = 1_000
N_BINS = 240
N_BANDS = 200
N_PIXELS = 480
MOST_ROWS = 256
"""Rows of the figure of evaluators; of more evaluators several share a row."""
MOST_LISTED = 100
"""Rows of tables of ranks and hosts."""
MOST_AXES = 10
MOST_LINES, BEST_LINES = 180, 30
MOST_DEPENDENCES = 12
N_DRAWINGS = 3
MOST_LETTERS = 300
"""Of a value in a cell."""
INACTIVE_HEIGHT = -0.08
ORDER = (
    Activity.EVALUATING, Activity.LOST, Activity.IDLE, Activity.WAITING, Activity.DRAINING, Activity.IMPORT,
)  # fmt: skip
CODES = (*(activity.word for activity in Activity), "failed evaluation")
NOTHING = "~"
"""Code of a time in which no evaluator of a row had begun."""
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"


def write(studies: Sequence[Study], path: Path, k: int = 10, seed: int = 0) -> int:
    """Write a report; return its size in bytes.

    Parameters
    ----------
    studies : sequence of Study
    path : Path
    k : int, default 10
        Of the best that are listed.
    seed : int, default 0
        Of the forest.

    Raises
    ------
    OptionError
        If it cannot be written.
    """
    content = page(studies, k, seed).encode()
    try:
        path.write_bytes(content)
    except OSError as error:
        raise OptionError(f"cannot write {path}: {error.strerror}") from error
    return len(content)


def page(studies: Sequence[Study], k: int = 10, seed: int = 0) -> str:
    """Return the report as HTML."""
    here = Path(__file__).parent
    reports = [_Report(study, i, k, seed) for i, study in enumerate(studies)]
    comparison = _comparison(studies) if len(studies) > 1 else None
    body = [report.html() for report in reports]
    data = json.dumps(
        {"runs": [report.data for report in reports], "comparison": comparison}, separators=(",", ":"), allow_nan=False
    )
    title = f"Report: {', '.join(study.name for study in studies)}"
    names = [(f"run{i}", study.name) for i, study in enumerate(studies)] if len(studies) > 1 else reports[0].parts
    if comparison is not None:
        names.insert(0, ("comparison", "comparison"))
        body.insert(0, _comparison_html(studies))
    links = "".join(f'<li><a href="#{anchor}">{_escaped(name)}</a></li>' for anchor, name in names)
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f'<meta name="generator" content="dhmpi {__version__}">',
            f"<title>{_escaped(title)}</title>",
            f"<style>\n{(here / 'report.css').read_text()}</style></head><body>",
            '<a class="skip" href="#main">to the content</a>',
            f"<header><h1>{_escaped(title)}</h1>",
            f'<p class="soft">Written {moment(time.time())} by dhmpi {__version__}. Figures: drag to zoom, double-click'
            " for the whole range; with the keyboard + and -, 0 and arrows. Tables: click a title to sort.</p>",
            '<noscript><p class="soft">The figures are drawn by a script; the tables are all here.</p></noscript>',
            f'</header><nav aria-label="parts"><ul>{links}</ul></nav><main id="main">',
            *body,
            "</main>",
            # Nothing in JSON needs these signs outside of strings, and in strings they may be written so.
            f'<script type="application/json" id="data">{_harmless(data)}</script>',
            f"<script>\n{(here / 'report.js').read_text()}</script></body></html>\n",
        ]
    )


def _harmless(data: str) -> str:
    """Return JSON in which nothing ends a script."""
    return data.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


# -- HTML --------------------------------------------------------------------------------------------------------------


def _escaped(value: Any) -> str:
    """Return text for HTML, without characters that nobody sees."""
    return html.escape("".join(c if c.isprintable() or c == "\n" else "�" for c in str(value)))


class _Cell(str):
    """Content of a cell that is HTML already."""


def _cell(value: Any) -> str:
    """Return a cell of a table with what it is sorted by."""
    if isinstance(value, _Cell):
        return f"<td>{value}</td>"
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return '<td class="n" data-v="">–</td>'
    if isinstance(value, int | float) and not isinstance(value, bool):
        words = f"{value:,.0f}" if 1e6 <= abs(value) < 1e12 else text(value)
        return f'<td class="n" data-v="{value!r}">{words}</td>'
    words = text(value)
    return f"<td>{_escaped(words if len(words) <= MOST_LETTERS else words[: MOST_LETTERS - 1] + '…')}</td>"


def _table(caption: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], sortable: bool = True) -> str:
    """Return a table; columns of numbers are set to the right."""
    if not rows:
        return ""
    numbers = [all(isinstance(row[i], int | float | None) for row in rows) for i in range(len(columns))]
    heads = "".join(
        f'<th scope="col"{" class=n" if number else ""}>{_escaped(name)}</th>' for name, number in zip(columns, numbers)
    )
    lines = "".join(f"<tr>{''.join(map(_cell, row))}</tr>\n" for row in rows)
    kind = ' class="sortable"' if sortable and len(rows) > 1 else ""
    return (
        f'<div class="table" tabindex="0" role="region" aria-label="{_escaped(caption)}"><table{kind}>'
        f'<caption class="soft" style="text-align:left">{_escaped(caption)}</caption>'
        f"<thead><tr>{heads}</tr></thead><tbody>\n{lines}</tbody></table></div>"
    )


def _figure(kind: str, caption: str, run: int | None = None) -> str:
    which = "" if run is None else f' data-run="{run}"'
    return f'<figure><div data-figure="{kind}"{which}></div><figcaption>{_escaped(caption)}</figcaption></figure>'


def _tile(value: str, words: str) -> str:
    return f'<div class="tile"><b>{_escaped(value)}</b><span>{_escaped(words)}</span></div>'


# -- numbers -----------------------------------------------------------------------------------------------------------


def _brief(values: Any, digits: int = 6) -> list[Any]:
    """Return numbers as a list, no more exact than can be seen; None for those that are none."""
    return [float(f"{value:.{digits}g}") if math.isfinite(value) else None for value in np.asarray(values, dtype=float)]


def _sampled(chosen: np.ndarray, n: int) -> np.ndarray:
    """Return at most n of some indices, evenly spread."""
    if len(chosen) <= n:
        return chosen
    return chosen[np.linspace(0, len(chosen) - 1, n).round().astype(int)]


# -- one run -----------------------------------------------------------------------------------------------------------


class _Report:
    """What a page says of one run.

    Attributes
    ----------
    data : dict
        What is drawn, as JSON has it.
    parts : list of (str, str)
        Anchors and titles.
    """

    def __init__(self, study: Study, number: int, k: int, seed: int) -> None:
        self.study = study
        self.number = number
        self.k = k
        self.parts: list[tuple[str, str]] = []
        self.usage = study.usage() if study.run is not None else None
        self.mattered, self.why_not = _mattered(study, seed)
        updates = study.run.updates if study.run is not None else []
        self.data: dict[str, Any] = {
            "usage": None if self.usage is None else _usage(self.usage),
            "gantt": None if self.usage is None else _gantt(self.usage),
            "trajectory": _trajectory(study),
            "durations": _durations(study),
            "updates": {name: _brief(_of(updates, name)) for name in ("reward_mean", "entropy_share")},
            "importance": None if self.mattered is None else {"dependence": _dependence(self.mattered)},
            "parallel": None if self.mattered is None else _parallel(study, self.mattered),
        }

    def html(self) -> str:
        """Return the section of the run."""
        parts = [
            self._summary(),
            self._part("utilisation", self._utilisation()),
            self._part("trajectory", self._trajectory()),
            self._part("policy", self._policy()),
            self._part("best", self._best()),
            self._part("architectures", self._architectures()),
            self._part("what mattered", self._importance()),
            self._part("failures", self._failures()),
            self._part("options", self._options()),
        ]
        return f'<section id="run{self.number}"><h2>{_escaped(self.study.name)}</h2>{"".join(parts)}</section>'

    def _part(self, title: str, content: str) -> str:
        if not content:
            return ""
        anchor = f"run{self.number}-{title.replace(' ', '-')}"
        self.parts.append((anchor, title))
        return f'<h3 id="{anchor}">{title.capitalize()}</h3>{content}'

    def _summary(self) -> str:
        study, usage = self.study, self.usage
        counts = Counter(study.status)
        failed = len(study) - int(study.succeeded.sum())
        best = study.best(1)
        tiles = []
        if best:
            tiles.append(_tile(f"{study.objective[best[0]]:.7g}", f"best objective, trial {study.trial[best[0]]}"))
        tiles.append(_tile(f"{len(study):,}", f"evaluations, {failed:,} without an objective"))
        if study.has_architectures:
            tiles.append(_tile(f"{importance.n_architectures(study):,}", "different architectures"))
        said = [f"Read from {study.path}."]
        if usage is not None and study.run is not None:
            run = study.run
            n_launches = len(run.launches)
            whose = f"{usage.n_evaluators:,} evaluators" if n_launches == 1 else f"evaluators in {n_launches} launches"
            tiles.append(_tile(f"{100 * usage.utilisation:.1f} %", f"utilisation of {whose}"))
            tiles.append(_tile(duration(usage.length) or "", "of search (h:mm:ss)"))
            why = f": {run.history.last_stop}" if run.history.last_stop else ""
            ranks = ", ".join(f"{n} {role}" for role, n in usage.n_ranks.items())
            said = [
                f"{run.described.get('problem') or 'Unknown problem'}, search {run.search or 'unknown'}, "
                f"{run.state}{why}.",
                f"Began {moment(run.first)}{f', {len(run.launches)} launches' if len(run.launches) > 1 else ''}; "
                f"ranks: {ranks}.",
                *said,
            ]
        if not best:
            said.append("No evaluation has succeeded.")
        statuses = ", ".join(f"{counts[s.value]:,} {s.value}" for s in Status if counts[s.value])
        said.append(f"Evaluations: {statuses or 'none'}.")
        return f'<div class="tiles">{"".join(tiles)}</div><p>{_escaped(" ".join(said))}</p>'

    def _utilisation(self) -> str:
        usage, study = self.usage, self.study
        if usage is None:
            return '<p class="soft">A results.csv does not say what evaluators did; the journal of a run does.</p>'
        if not usage.total:
            return f"<p>{_escaped(usage.sentence())}</p>"
        rows = [
            (a.word, usage.seconds[a.word], f"{100 * usage.share(a):.2f} %", a.meaning) for a in ORDER if usage.total
        ]
        by_rank = sorted(usage.by_rank(), key=lambda row: row["evaluating"])
        listed = by_rank[:MOST_LISTED]
        columns = list(listed[0]) if listed else []
        all_of_them = len(by_rank) == len(listed)
        which = "Evaluators" if all_of_them else f"The {len(listed)} of {len(by_rank)} evaluators that evaluated least"
        n_rows = len(self.data["gantt"]["rows"]) if self.data["gantt"] else 0
        share = f", {math.ceil(len(by_rank) / n_rows)} to a row" if n_rows and n_rows < len(by_rank) else ""
        return "".join(
            [
                f"<p><strong>{_escaped(usage.sentence())}</strong> Utilisation is {usage.utilisation:.4f} with "
                f"evaluations in flight, and {usage.utilisation_completed:.4f} of completed ones only.</p>",
                _figure("account", "Above: utilisation by both definitions. Below: the account of all time of "
                        "evaluators; it adds up to all of it.", self.number),
                _table("Time of evaluators' ranks, in seconds", ("", "seconds", "share", "meaning"), rows),
                _figure("gantt", f"What each evaluator did over time{share}; of each stretch what took most of it.",
                        self.number) if self.data["gantt"] else "",
                _table(f"{which}, in seconds", [c.replace("_", " ") for c in columns],
                       [[row[c] for c in columns] for row in listed]),
                _figure("durations", f"How long evaluations took: {study_median(study)}.", self.number)
                if self.data["durations"] else "",
            ]
        )  # fmt: skip

    def _trajectory(self) -> str:
        study = self.study
        if not len(study):
            return "<p>No evaluation has finished.</p>"
        steps = trajectory.improvements(study)
        rows = [(s["evaluations"], duration(s["seconds"]), s["trial"], s["objective"]) for s in steps]
        some = self.data["trajectory"]["some"]
        caption = "Every evaluation, and the best so far." if not some else (
            f"The best so far, and {some:,} of {len(study):,} evaluations, among them the best {BEST_POINTS}; all of "
            "them are in the quantiles."
        )  # fmt: skip
        listed = rows[-MOST_LISTED:]
        return _figure("trajectory", caption, self.number) + _table(
            "Each time it got better", ("evaluations", "after", "trial", "objective"), listed
        )

    def _policy(self) -> str:
        if not self.data["updates"]["reward_mean"]:
            return ""
        return _figure("policy", "What the policy learned: mean reward of each batch, and how undecided it still was.",
                       self.number)  # fmt: skip

    def _best(self) -> str:
        study = self.study
        found = [study.row(i) for i in study.best(self.k)]
        if not found:
            return ""
        configs = [_shown(study, row["configuration"]) for row in found]
        names = list(dict.fromkeys(name for config in configs for name in config))
        metrics = list(dict.fromkeys(name for row in found for name in row["metrics"]))
        rows = [
            [row["trial"], row["objective"], row["elapsed_sec"], *(config.get(n) for n in names),
             *(row["metrics"].get(m) for m in metrics)]
            for row, config in zip(found, configs)
        ]  # fmt: skip
        columns = ["trial", "objective", "seconds", *names, *(f"m:{name}" for name in metrics)]
        return _table(f"The best {len(found)} of {len(study)}, of different configurations", columns, rows)

    def _architectures(self) -> str:
        study = self.study
        if not study.has_architectures:
            return ""
        shares = importance.operations(study, self.k)
        rows = [
            [row["name"], row["operation"], round(100 * row["share_of_best"], 2), round(100 * row["share_of_all"], 2),
             _Cell(f'<span class="bar"><i style="width:{100 * row["share_of_best"]:.1f}%"></i>'
                   f'<i class="second" style="width:{100 * row["share_of_all"]:.1f}%"></i></span>')]
            for row in shares
            if row["share_of_best"] or row["share_of_all"] >= 0.01
        ]  # fmt: skip
        said = f"{importance.n_architectures(study):,} different architectures in {len(study):,} evaluations."
        if study.architecture_space is None:
            said += " Decisions and options have numbers: the problem cannot be loaded here, or has changed."
        table = _table(
            f"Share of each option among the best {self.k}, and below it among all",
            ("decision", "option", "% of the best", "% of all", ""), rows,
        )  # fmt: skip
        return f"<p>{_escaped(said)}</p>{table}{_drawings(study)}"

    def _importance(self) -> str:
        found = self.mattered
        if found is None:
            return f'<p class="soft">{_escaped(self.why_not)}</p>' if len(self.study) else ""
        doubt = "; do not trust what follows" if found.accuracy < 0.2 else ""
        most = max(float(found.mean.max()), 1e-12)
        rows = [
            [row["hyperparameter"], row["importance"], row["std"], text(row["best_at"], 4), text(row["worst_at"], 4),
             row["effect"],
             _Cell(f'<span class="bar"><i style="width:{max(0.0, 100 * row["importance"] / most):.1f}%"></i></span>')]
            for row in found.rows()
        ]  # fmt: skip
        return "".join(
            [
                f"<p>A forest was fitted to {found.n:,} evaluations; on some that it had not seen it has R² "
                f"{found.accuracy:.2f}{doubt}.</p>",
                _table("Importance: what R² loses when a hyperparameter is shuffled; effect: between the best and the "
                       "worst mean prediction",
                       ("hyperparameter", "importance", "spread", "best at", "worst at", "effect", ""), rows),
                _figure("parallel", "Configurations over the most important hyperparameters, the better the bluer. "
                        "Drag along an axis to keep some.", self.number),
                _figure("dependence", "Mean prediction of the forest as one hyperparameter varies.", self.number),
            ]
        )  # fmt: skip

    def _failures(self) -> str:
        study, usage = self.study, self.usage
        bad = np.flatnonzero(~study.succeeded)
        parts = []
        if len(bad):
            groups: dict[tuple[str, str], list[int]] = {}
            for i in bad:
                reason = study.reasons[i].split("\n", 1)[0] or "no reason is known"
                groups.setdefault((study.status[i], reason), []).append(int(study.trial[i]))
            common = sorted(groups.items(), key=lambda item: -len(item[1]))[:20]
            rows = [(len(trials), status, reason, trials[0], trials[-1]) for (status, reason), trials in common]
            columns = ("n", "status", "reason", "first trial", "last trial")
            parts.append(_table(f"Why {len(bad):,} evaluations have no objective", columns, rows))
        if usage is not None and usage.failures:
            hosts = sorted(usage.failures.items(), key=lambda x: (-x[1][0] / max(1, x[1][1]), x[0]))
            shares = [(host, failed, n, round(100 * failed / n, 2)) for host, (failed, n) in hosts[:MOST_LISTED]]
            many = len(hosts) > MOST_LISTED
            which = f"The {MOST_LISTED} of {len(hosts)} hosts with most failures" if many else "Hosts"
            parts.append(_table(which, ("host", "failed", "evaluations", "% failed"), shares))
        losses = study.run.losses if study.run is not None else []
        if losses:
            began = study.run.first if study.run is not None else 0.0
            last = [
                [duration(event["t"] - began), *(event.get(name) for name in ("e", "rank", "host", "reason"))]
                for event in losses[-MOST_LISTED:]
            ]
            caption = f"Ranks and hosts that were lost: the last {len(last)} of {len(losses)} events"
            parts.append(_table(caption, ("after", "event", "rank", "host", "why"), last))
        return "".join(parts) or "<p>Nothing has failed.</p>"

    def _options(self) -> str:
        run = self.study.run
        if run is None or not run.options:
            return ""
        rows = [(name, json.dumps(value)) for name, value in run.options.items() if value is not None]
        return _table("Options of the last launch", ("option", "value"), rows)


def study_median(study: Study) -> str:
    """Return in words how long an evaluation takes."""
    known = study.elapsed[study.elapsed > 0]
    if not len(known):
        return "nobody knows"
    low, middle, high = np.quantile(known, [0.1, 0.5, 0.9])
    return f"{middle:.3g} s in the middle, a tenth less than {low:.3g} s, a tenth more than {high:.3g} s"


def _shown(study: Study, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration with its architecture in words."""
    shown = {name: value for name, value in config.items() if name != ARCH_SEQ}
    if ARCH_SEQ in config:
        shown |= study.chosen(config[ARCH_SEQ])
    return shown


def _of(updates: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    return [value if isinstance(value := update.get(name), int | float) else math.nan for update in updates]


def _mattered(study: Study, seed: int) -> tuple[importance.Importance | None, str]:
    """Return what mattered, or why that cannot be said."""
    try:
        return importance.measure(study, seed), ""
    except OptionError as error:
        return None, str(error).removeprefix(f"{study.path}: ")


def _drawings(study: Study) -> str:
    """Return pictures of the networks of the best architectures, as far as they can be drawn."""
    space = study.architecture_space
    if space is None or not space.has_graph:
        return ""
    from dhmpi.nas.drawing import figure  # late: matplotlib takes a second

    pictures = []
    for i in study.best(N_DRAWINGS):
        words = f"trial {study.trial[i]}: {study.objective[i]:.6g}"
        buffer = io.BytesIO()
        try:
            figure(space.resolve(study.configs[i][ARCH_SEQ]), None, words).savefig(buffer, format="svg")
        except DhmpiError:
            continue
        data = base64.b64encode(buffer.getvalue()).decode()
        chosen = ", ".join(f"{k}: {v}" for k, v in study.chosen(study.configs[i][ARCH_SEQ]).items())
        pictures.append(
            f'<img alt="Network of {_escaped(words)}: {_escaped(chosen)}" src="data:image/svg+xml;base64,{data}">'
        )
    if not pictures:
        return ""
    caption = "<figcaption>Networks of the best architectures.</figcaption>"
    return f'<figure><div class="drawings">{"".join(pictures)}</div>{caption}</figure>'


# -- what is drawn -----------------------------------------------------------------------------------------------------


def _usage(usage: Usage) -> dict[str, Any]:
    edges, shares = usage.curves(N_BINS)
    totals = {a.word: usage.share(a) for a in Activity}
    return {
        "edges": _brief(edges, 7),
        "shares": {name: _brief(values, 4) for name, values in shares.items()},
        "totals": totals | {"in flight": usage.utilisation, "completed": usage.utilisation_completed},
        "order": [activity.word for activity in ORDER if usage.seconds[activity.word]],
        "length": usage.length,
        "boundaries": _brief(usage.boundaries, 7),
        "sentence": usage.sentence(),
    }


def _gantt(usage: Usage) -> dict[str, Any] | None:
    """Return for each row a letter for each stretch of time, for what took most of it."""
    ranks, row = np.unique(usage.rank, return_inverse=True)
    if not len(ranks) or not usage.length:
        return None
    each = math.ceil(len(ranks) / MOST_ROWS)
    row = row // each
    n_rows = int(row.max()) + 1
    codes = np.where((usage.activity == Activity.EVALUATING) & (usage.outcome == 0), len(Activity), usage.activity)
    seconds = np.zeros((len(CODES), n_rows, N_PIXELS))
    for code in np.unique(codes):
        chosen = codes == code
        seconds[code] = _covered(row[chosen], usage.begin[chosen], usage.end[chosen], n_rows, usage.length)
    most = np.where(seconds.max(axis=0) > 1e-9, seconds.argmax(axis=0), -1)
    letters = np.array([*map(str, range(len(CODES))), NOTHING])
    evaluating = seconds[Activity.EVALUATING].sum(axis=1) + seconds[len(Activity)].sum(axis=1)
    total = seconds.sum(axis=(0, 2))
    rows = []
    for i in range(n_rows):
        members = ranks[i * each : (i + 1) * each]
        hosts = list(dict.fromkeys(usage.hosts.get(int(rank), "") for rank in members))
        label = f"{members[0]}–{members[-1]}" if len(members) > 1 else str(members[0])
        host = hosts[0] if len(hosts) == 1 else f"{hosts[0]} … {hosts[-1]}"
        rows.append(
            {
                "label": f"{host} {label}".strip() if len(members) == 1 else label,
                "name": f"rank{'s' * (len(members) > 1)} {label}{f' on {host}' if host else ''}",
                "codes": "".join(letters[most[i]]),
                "share": round(float(evaluating[i] / total[i]), 4) if total[i] else None,
            }
        )
    return {
        "rows": rows,
        "codes": CODES,
        "present": [int(code) for code in np.unique(codes)],
        "n_bins": N_PIXELS,
        "n_evaluators": len(ranks),
        "length": usage.length,
    }


def _covered(row: np.ndarray, begin: np.ndarray, end: np.ndarray, n_rows: int, length: float) -> np.ndarray:
    """Return the seconds of segments in each row and stretch of time."""
    width = length / N_PIXELS
    until = np.zeros((n_rows, N_PIXELS + 2))  # a sum of ramps: how many are open, and what the rest of a stretch adds
    seconds = np.zeros((n_rows, N_PIXELS + 1))
    for times, sign in ((begin, 1.0), (end, -1.0)):
        at = np.clip(times / width, 0.0, N_PIXELS)
        first = at.astype(int)
        np.add.at(seconds, (row, first), sign * (first + 1 - at) * width)
        np.add.at(until, (row, first + 1), sign * width)
    return seconds[:, :N_PIXELS] + np.cumsum(until, axis=1)[:, :N_PIXELS]


def _trajectory(study: Study) -> dict[str, Any]:
    good = np.flatnonzero(study.succeeded)
    bad = np.flatnonzero(~study.succeeded)
    number = np.arange(1, len(study) + 1)
    y = study.objective
    shown = good
    if len(good) > MOST_POINTS:
        steps = np.array([step["evaluations"] - 1 for step in trajectory.improvements(study)], dtype=int)
        best = good[np.argsort(-y[good], kind="stable")[:BEST_POINTS]]
        chance = np.random.default_rng(0).choice(good, MOST_POINTS - BEST_POINTS, replace=False)
        shown = np.union1d(np.union1d(_sampled(steps, BEST_POINTS), best), chance)
    floor, n_below = _floor(y[good])
    window = trajectory.WINDOW if study.has_architectures or len(good) >= 10 * trajectory.WINDOW else None
    found: dict[str, Any] = {
        "n": len(study),
        "length": max(float(study.seconds.max(initial=0.0)), study.usage().length if study.run is not None else 0.0),
        "trial": study.trial[shown].tolist(),
        "number": number[shown].tolist(),
        "seconds": _brief(study.seconds[shown], 7),
        "objective": _brief(y[shown], 7),
        "said": "evaluations" if len(shown) == len(good) else f"{len(shown):,} of {len(good):,} evaluations",
        "some": 0 if len(shown) == len(good) else len(shown),
        "floor": floor,
        "n_below": n_below,
        "failed": _axes(study, number, _sampled(bad, MOST_FAILED)) | {"n": len(bad)},
        "best": {"time": _steps(study.seconds, y), "evaluations": _steps(number.astype(float), y)},
        "window": window,
        "average": None,
        "bands": None,
        "sentence": f"{len(study)} evaluations, {len(bad)} failed"
        + (f", the best {np.nanmax(y):.6g}." if len(good) else "."),
    }
    if window is not None and len(good):
        found["average"] = {
            "time": _average(study.seconds[good], y[good], window),
            "evaluations": _average(number[good].astype(float), y[good], window),
        }
    if found["some"]:
        found["bands"] = {
            "time": _bands(study.seconds[good], y[good]), "evaluations": _bands(number[good].astype(float), y[good]),
        }  # fmt: skip
    return found


def _axes(study: Study, number: np.ndarray, chosen: np.ndarray) -> dict[str, Any]:
    """Return where evaluations are by either axis."""
    return {"time": _brief(study.seconds[chosen], 7), "evaluations": number[chosen].tolist()}


def _steps(x: np.ndarray, y: np.ndarray) -> dict[str, list[Any]]:
    """Return where the best so far changes along an axis, and the end."""
    if not len(x):
        return {"x": [], "y": []}
    order = np.argsort(x, kind="stable")  # reports of evaluators may overtake one another
    best = np.maximum.accumulate(np.where(np.isnan(y[order]), -np.inf, y[order]))
    better = np.concatenate([[best[0] > -np.inf], best[1:] > best[:-1]])
    corners = _sampled(np.union1d(np.flatnonzero(better), [len(best) - 1]), MOST_STEPS)
    return {"x": _brief(x[order][corners], 7), "y": _brief(best[corners], 8)}


def _average(x: np.ndarray, y: np.ndarray, window: int) -> dict[str, list[Any]]:
    order = np.argsort(x, kind="stable")
    picked = _sampled(np.arange(len(x)), MOST_STEPS)
    return {"x": _brief(x[order][picked], 7), "y": _brief(trajectory.moving_average(y[order], window)[picked])}


def _bands(x: np.ndarray, y: np.ndarray) -> dict[str, list[Any]]:
    """Return quantiles of objectives over stretches of an axis that hold equally many."""
    order = np.argsort(x, kind="stable")
    pieces = [piece for piece in np.array_split(order, N_BANDS) if len(piece)]
    low, median, high = np.array([np.quantile(y[piece], [0.1, 0.5, 0.9]) for piece in pieces]).T
    middles = np.array([x[piece].mean() for piece in pieces])
    return {"x": _brief(middles, 7), "low": _brief(low), "median": _brief(median), "high": _brief(high)}


def _floor(y: np.ndarray) -> tuple[float | None, int]:
    """Return below which objective hopeless ones are left out of sight at first, and how many are."""
    limit = trajectory.floor(y)
    return (None, 0) if limit is None else (float(limit), int((y < limit).sum()))


def _durations(study: Study) -> dict[str, Any] | None:
    known = study.elapsed[study.elapsed > 0]
    if len(known) < 2:
        return None
    top = float(np.quantile(known, 0.995))
    n_bins = min(60, max(5, int(math.sqrt(len(known)))))
    counts, edges = np.histogram(np.minimum(known, top), bins=n_bins, range=(0.0, top))
    return {"edges": _brief(edges), "counts": counts.tolist(), "sentence": study_median(study)}


def _dependence(found: importance.Importance) -> list[dict[str, Any]]:
    panels = []
    for column, (points, values) in list(zip(found.columns, found.dependence))[:MOST_DEPENDENCES]:
        shown = [text(importance.shown(column, point)) for point in points] if column.categories else None
        marks = column.marks() if column.few and not column.categories else None
        panels.append(
            {
                "name": column.name, "x": _brief(points), "y": _brief(values), "categories": shown, "log": column.log,
                "marks": marks,
            }
        )  # fmt: skip
    return panels


def _parallel(study: Study, found: importance.Importance) -> dict[str, Any]:
    """Return some configurations as heights over the axes of the hyperparameters that mattered most."""
    columns = found.columns[:MOST_AXES]
    y = found.objective
    order = np.argsort(y, kind="stable")
    keep = np.union1d(order[-BEST_LINES:], order[:: max(1, -(-len(order) // MOST_LINES))])
    keep = keep[np.argsort(y[keep], kind="stable")]
    quality = np.argsort(np.argsort(y, kind="stable"), kind="stable") / max(1, len(y) - 1)
    heights = np.column_stack([_height(column) for column in columns])[keep]
    values = [[text(importance.shown(column, column.values[i])) for column in columns] for i in keep]
    return {
        "axes": [{"name": column.name, "ticks": _axis_ticks(column)} for column in columns],
        "lines": [_brief(line, 4) for line in heights],
        "values": values,
        "quality": _brief(quality[keep], 3),
        "objective": _brief(y[keep], 7),
        "trial": study.trial[found.chosen[keep]].tolist(),
    }


def _height(column: importance.Column) -> np.ndarray:
    """Return where lines cross an axis: between 0 and 1, below where the hyperparameter was inactive."""
    inactive = column.values < column.least
    height = np.where(inactive, INACTIVE_HEIGHT, column.places(np.where(inactive, column.active[0], column.values)))
    if column.categories:  # lines that would all run through one point are spread a little
        height = height + np.random.default_rng(0).uniform(-0.012, 0.012, len(height))
    return height


def _axis_ticks(column: importance.Column) -> list[dict[str, Any]]:
    active = column.active
    marks = [(INACTIVE_HEIGHT, importance.INACTIVE)] if (column.values < column.least).any() else []
    if column.categories:
        span = active[-1] - active[0]
        for value in active if len(active) <= 12 else active[[0, -1]]:
            words = text(column.categories[int(value)])
            marks.append(((value - active[0]) / span if span else 0.5, words if len(words) <= 24 else f"{words[:23]}…"))
    else:
        values, labels = zip(*column.marks())
        marks += zip(column.places(np.array(values)), labels)
    return [{"at": float(at), "text": words} for at, words in marks]


# -- several runs ------------------------------------------------------------------------------------------------------


def _comparison(studies: Sequence[Study]) -> dict[str, Any] | None:
    if not any(study.succeeded.any() for study in studies):
        return None
    found: dict[str, Any] = {}
    for by in trajectory.AXES:
        groups = [group for group in trajectory.compare(studies, by) if group.succeeded]
        means = np.concatenate([group.mean[~np.isnan(group.mean)] for group in groups])
        floor, _ = _floor(means)
        found[by] = {
            "grid": _brief(groups[0].grid, 7),
            "floor": floor,
            "groups": [
                {
                    "name": group.name, "n": len(group.studies), "mean": _brief(group.mean, 7), "last": group.last,
                    "low": _brief(group.mean - group.spread), "high": _brief(group.mean + group.spread),
                    "values": [
                        _brief(np.where(group.grid <= end, values, np.nan))
                        for values, end in zip(group.values[:20], group.ends)
                    ],
                }
                for group in groups
            ],
        }  # fmt: skip
    return found


def _comparison_html(studies: Sequence[Study]) -> str:
    rows = []
    for i, study in enumerate(studies):
        usage = study.usage() if study.run is not None else None
        best = study.best(1)
        rows.append(
            [
                _Cell(f'<a href="#run{i}">{_escaped(study.name)}</a>'),
                None if study.run is None else study.run.search,
                len(study),
                len(study) - int(study.succeeded.sum()),
                float(study.objective[best[0]]) if best else None,
                None if usage is None else usage.n_evaluators,
                None if usage is None else round(100 * usage.utilisation, 2),
                float(study.seconds.max(initial=0.0)) if usage is None else usage.length,
                importance.n_architectures(study) if study.has_architectures else None,
            ]
        )
    names = ("run", "search", "evaluations", "failed", "best", "evaluators", "% utilised", "seconds", "architectures")
    groups = trajectory.compare(studies)
    kinds = trajectory.table(groups)
    caption = "The best objective so far of each run, until its last evaluation."
    if any(len(group.studies) > 1 for group in groups):
        caption = (
            "The best objective so far, until the last evaluation; of several runs of one kind the mean, with a band "
            "of one standard deviation. Of one kind are runs whose names differ in a number at the end."
        )
    hopeless = [group.name for group in groups if not group.succeeded]
    caption += f" No evaluation of {', '.join(hopeless)} has succeeded." * bool(hopeless)
    parts = [
        '<section id="comparison"><h2>Comparison</h2>',
        _figure("comparison", caption),
        _table("Kinds of runs; reached: seconds until the mean was as good as the worst kind's at the end",
               list(kinds[0]), [list(row.values()) for row in kinds]),
        _table("Runs", names, rows),
        "</section>",
    ]  # fmt: skip
    return "".join(parts)
