"""What a search costs, as a table that was measured once: simulations charge it to the virtual clock.

`measure` makes the entry of one search, `Costs` keeps entries in a file, `Entry.charge` reads the price of an answer.
Seconds are CPU time of one core.
"""

from __future__ import annotations

import json
import math
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dhmpi import __version__
from dhmpi.errors import OptionError
from dhmpi.frames import pack

if TYPE_CHECKING:
    from dhmpi.roles.virtual import Asked
    from dhmpi.search.base import Search
    from dhmpi.trials import Proposal

SHIPPED = Path(__file__).with_name("costs.json")
"""Costs that come with the package; ``python -m benchmarks.costs`` renews them."""
FORMAT = 1
POINTS = (10, 100, 1000, 3000, 10_000, 30_000, 100_000)
"""Numbers of finished trials at which a search that fits models is measured."""
STEP, MOST_STEPS = 0.005, 40
"""Part by which trials grow, and how often, until a model should have been fitted again."""
N_FITS = 4
"""Consecutive fits that are measured: not all are of the same length."""
N_PROPOSALS = 256
"""Proposals of one answer, to learn what each costs."""
SIMILAR = 1.5
"""Times as many columns of a model for which costs are still about the same."""
MATTERS = ("surrogate_model", "acq_func", "liar_strategy", "n_jobs", "network")
"""Options on which costs depend."""


@dataclass(frozen=True)
class Entry:
    """The costs of one search for problems of one size.

    Attributes
    ----------
    search : str
    options : dict
        Those of `MATTERS` that the search was built with.
    n_hyperparameters : int
    points : tuple of int
        Numbers of points that a fit learns from: finished trials, or the episodes of a batch; rising.
    fits : tuple of tuples of float
        Seconds of consecutive fits, for each of `points`; empty where the search does not fit.
    ask : tuple of float
        Seconds of an answer of one proposal without a fit, for each of `points`.
    proposal : tuple of float
        Seconds of each further proposal in the same answer.
    growth : tuple of float
        Part by which the points grow until the next fit, for each of `points`; 0 where the search does not fit.
    machine, command, date : str
        Where, how and when it was measured.
    versions : dict
    """

    search: str
    options: dict[str, Any]
    n_hyperparameters: int
    points: tuple[int, ...]
    fits: tuple[tuple[float, ...], ...]
    ask: tuple[float, ...]
    proposal: tuple[float, ...]
    growth: tuple[float, ...]
    machine: str = ""
    versions: dict[str, str] | None = None
    date: str = ""

    def charge(self, n_points: int, n: int, fits: range) -> float:
        """Return the seconds of an answer.

        Parameters
        ----------
        n_points : int
            That the search had to learn from.
        n : int
            Proposals.
        fits : range
            Numbers of the fits in it, counted from the beginning of the run.
        """
        seconds = self._at(self.ask, n_points) + max(0, n - 1) * self._at(self.proposal, n_points)
        for number in fits:
            seconds += self._at([lengths[number % len(lengths)] for lengths in self.fits if lengths], n_points)
        return seconds

    def fit(self, n_points: int) -> float:
        """Return the mean seconds of a fit."""
        return self._at([math.fsum(lengths) / len(lengths) for lengths in self.fits if lengths], n_points)

    def patience(self, n_points: int) -> float:
        """Return the part by which points grow until the next fit, 0 if there is none."""
        i = max((i for i, point in enumerate(self.points) if point <= n_points), default=0)
        return self.growth[i]

    def each(self, n_points: int) -> float:
        """Return the seconds of one proposal of many in an answer."""
        return self._at(self.proposal, n_points)

    def _at(self, seconds: Sequence[float], n_points: int) -> float:
        """Interpolate, and go on beyond the ends as between the last two; all on logarithmic scales."""
        if not seconds:
            return 0.0
        known = self.points[-len(seconds) :]
        if len(known) == 1 or n_points <= known[0]:
            return seconds[0]
        i = max(1, min(len(known) - 1, next((i for i, point in enumerate(known) if point >= n_points), len(known))))
        low, high = (math.log(max(seconds[j], 1e-9)) for j in (i - 1, i))
        part = (math.log(n_points) - math.log(known[i - 1])) / (math.log(known[i]) - math.log(known[i - 1]))
        return math.exp(low + part * (high - low))


class Costs:
    """Entries by search, options and size of the problem.

    Parameters
    ----------
    entries : sequence of Entry
    origin : str
        Where they come from, in words.
    """

    def __init__(self, entries: Sequence[Entry], origin: str) -> None:
        self.entries = list(entries)
        self.origin = origin

    @classmethod
    def read(cls, path: Path | None = None) -> Costs:
        """Read entries from a JSON or TOML file, by default those that come with the package.

        Raises
        ------
        OptionError
            If it cannot be read, or holds no costs.
        """
        file = SHIPPED if path is None else path
        try:
            text = file.read_text()
            content = _toml(text) if file.suffix == ".toml" else json.loads(text)
            if content.get("format") != FORMAT:
                raise ValueError(f"its format is {content.get('format')!r}, this version of dhmpi reads {FORMAT}")
            entries = [_entry(item) for item in content["costs"]]
        except OSError as error:
            raise OptionError(f"cannot read --costs {file}: {error.strerror}") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            what = f"it lacks {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
            raise OptionError(f"--costs {file} holds no costs of searches: {what}") from error
        return cls(entries, "those that come with dhmpi" if path is None else str(file))

    def write(self, path: Path) -> None:
        """Write all entries as JSON.

        Raises
        ------
        OptionError
            If that cannot be done.
        """
        entries = ",\n".join(json.dumps(asdict(entry)) for entry in self.entries)
        try:
            path.write_text(f'{{"format": {FORMAT}, "costs": [\n{entries}\n]}}\n')
        except OSError as error:
            raise OptionError(f"cannot write {path}: {error.strerror}") from error

    def add(self, entry: Entry) -> None:
        """Put an entry in the place of the one for the same search, options and size."""
        key = _key(entry)
        self.entries = [*(other for other in self.entries if _key(other) != key), entry]

    def find(self, search: str, options: Mapping[str, Any], n_hyperparameters: int) -> tuple[Entry, str]:
        """Return the entry that fits best, and how it differs from what was asked, in words; empty if it does not.

        Raises
        ------
        OptionError
            If there is none for the search.
        """
        ours = [entry for entry in self.entries if entry.search == search]
        if not ours:
            there = ", ".join(sorted({entry.search for entry in self.entries})) or "nothing"
            raise OptionError(
                f"the costs ({self.origin}) know {there}, but not {search}: --costs measure measures it here"
            )
        wanted = matters(options)

        def distance(entry: Entry) -> tuple[int, float]:
            n_other = sum(entry.options.get(name) != value for name, value in wanted.items())
            return n_other, abs(math.log(entry.n_hyperparameters / n_hyperparameters))

        entry = min(ours, key=distance)
        differs = [
            f"{name.replace('_', '-')} {entry.options.get(name)} instead of {value}"
            for name, value in wanted.items()
            if entry.options.get(name) != value
        ]
        if not 1 / SIMILAR <= entry.n_hyperparameters / n_hyperparameters <= SIMILAR:
            differs.append(f"{entry.n_hyperparameters} hyperparameters instead of {n_hyperparameters}")
        return entry, ", ".join(differs)


class Charge:
    """The price of every answer of a search in a simulation.

    Parameters
    ----------
    entry : Entry
    n_batch : int, optional
        Points that each fit learns from; by default the trials told.
    """

    def __init__(self, entry: Entry, n_batch: int | None = None) -> None:
        self.entry = entry
        self._n_batch = n_batch
        self._n_fits = 0

    def points(self, n_told: int) -> int:
        """Return how many points a fit learns from."""
        return max(1, n_told if self._n_batch is None else self._n_batch)

    def __call__(self, asked: Asked) -> float:
        fits = range(self._n_fits, self._n_fits + asked.n_fits)
        self._n_fits += asked.n_fits
        return self.entry.charge(self.points(asked.n_told), asked.n, fits)


def live(asked: Asked) -> float:
    """Return what an answer took here."""
    return asked.seconds


def measure(spec: Mapping[str, Any], most: int, say: Callable[[str], None] = lambda sentence: None) -> Entry:
    """Measure a search on this machine; takes seconds, or minutes where fits do.

    Parameters
    ----------
    spec : dict
        What `dhmpi.search.build.build` builds it from.
    most : int
        Points that fits may have to learn from: finished trials, or episodes.
    say : callable, optional
        Told how far it is, in a sentence.

    Raises
    ------
    DhmpiError
        If the search cannot be built.
    """
    from dhmpi.load import load_problem

    batches = spec["search"] == "ppo"
    if batches:
        points: tuple[int, ...] = (most,) if most < 4 else (most // 2, most)
    elif _built(spec).fits:
        points = (*(point for point in POINTS if point < most), max(most, POINTS[0]))
    else:
        points = (1000,)
    table: list[tuple[list[float], float, float, float]] = []
    for n_points in points:
        if batches:
            options = {**spec.get("options", {}), "episodes_per_update": n_points}
            search = _built({**spec, "options": options})
        else:
            search = _built(spec)
        with one_core(spec):
            table.append(
                _measure_batch(search, n_points) if batches else _measure_at(search, n_points, spec["n_evaluators"])
            )
        fits, _, each, _ = table[-1]
        mean = f"a fit {math.fsum(fits) / len(fits):.3g} s, " if fits else ""
        say(f"{spec['search']}, {n_points} points: {mean}a proposal {1e3 * each:.3g} ms")
    return Entry(
        search=spec["search"],
        options=matters(spec.get("options", {})),
        n_hyperparameters=len(load_problem(spec["problem"]).space),
        points=points,
        fits=tuple(tuple(round(seconds, 6) for seconds in fits) for fits, _, _, _ in table),
        ask=tuple(round(ask, 7) for _, ask, _, _ in table),
        proposal=tuple(round(each, 7) for _, _, each, _ in table),
        growth=tuple(round(growth, 4) for _, _, _, growth in table),
        machine=_machine(),
        versions={
            "dhmpi": __version__,
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in ("numpy", "scikit-learn", "ConfigSpace")},
        },
        date=time.strftime("%Y-%m-%d"),
    )


def _built(spec: Mapping[str, Any]) -> Search:
    from dhmpi.search.build import build

    return build(spec)[0]


def one_core(spec: Mapping[str, Any]) -> AbstractContextManager[Any]:
    """Have numerical libraries use no more threads than the search may, from here on to the end of a ``with``."""
    from threadpoolctl import threadpool_limits

    import dhmpi.search.model_based  # noqa: F401 (limits hold for libraries that are loaded)

    n_jobs = spec.get("options", {}).get("n_jobs", 1)
    return threadpool_limits(None if n_jobs == -1 else n_jobs)


def matters(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return those options of a search on which its costs depend."""
    flat = {**options, **options.get("settings", {})}
    return {name: flat[name] for name in MATTERS if flat.get(name) is not None}


def _measure_at(search: Search, n_points: int, n_evaluators: int) -> tuple[list[float], float, float, float]:
    """Return the seconds of fits to so many trials and more, of an answer of one, of each further proposal, and growth.

    As in a run, the initial design has been asked for, and evaluators are busy with what is not finished.
    """
    design = search.ask(n_evaluators)
    _tell(search, design[:n_points])
    if n_points > len(design):
        _tell(search, _ask_random(search, n_points - len(design)))
    fits: list[float] = []
    growths = [0.0]
    before = search.n_fits
    seconds, _ = _timed(search, 1)
    fitted = search.n_fits > before
    ask, _ = _timed(search, 1)
    many, proposals = _timed(search, N_PROPOSALS)
    each = max(many - ask, 0.0) / max(1, len(proposals) - 1)
    if search.fits:
        fits += [max(seconds - ask, 0.0)] * fitted
        last = search.n_told
        for _ in range(MOST_STEPS):
            if len(fits) == N_FITS:
                break
            _tell(search, _ask_random(search, max(1, math.ceil(STEP * search.n_told))))
            before = search.n_fits
            seconds, _ = _timed(search, 1)
            if search.n_fits > before:
                fits.append(max(seconds - ask, 0.0))
                growths.append(search.n_told / last - 1)
                last = search.n_told
    return fits, ask, each, growths[-1]


def _measure_batch(search: Search, n_points: int) -> tuple[list[float], float, float, float]:
    """Return the seconds of updates of a policy, of an answer of one, and of each further proposal."""
    fits: list[float] = []
    seconds, proposals = _timed(search, n_points)
    each = seconds / max(1, len(proposals))
    for _ in range(2):
        _tell(search, proposals)
        before = search.n_fits
        seconds, proposals = _timed(search, n_points)
        fits += [seconds - each * len(proposals)] * (search.n_fits > before)
    return fits, each, each, 1.0


def _timed(search: Search, n: int) -> tuple[float, list[Proposal]]:
    """Return the CPU seconds of an answer, with those that its process needs to pass it on, and its proposals."""
    began = time.process_time()
    proposals = search.ask(n)
    pack({"proposals": proposals})
    return time.process_time() - began, proposals


def _ask_random(search: Search, n: int) -> list[Proposal]:
    """Return proposals that cost nothing to make, as if they came from the search."""
    from dhmpi.search.space import SpaceSearch
    from dhmpi.search.uniform import UniformSearch
    from dhmpi.trials import Proposal

    if not isinstance(search, SpaceSearch):
        return search.ask(n)
    configs = [config for _, config in UniformSearch(search.encoding.space, search.n_told).ask(n)]
    if search.to_config is not None:
        configs = list(map(search.to_config, configs))
    first = search.next_key
    search.next_key += len(configs)
    proposals = [Proposal(first + i, config) for i, config in enumerate(configs)]
    search._pend(proposals)
    return proposals


def _tell(search: Search, proposals: Sequence[Proposal]) -> None:
    search.tell([(key, made_up(config)) for key, config in proposals])


def made_up(config: Mapping[str, Any]) -> float:
    """Return an objective of any configuration: smooth where values are numbers, with its best in the middle of zero.

    >>> made_up({"x": 3.0, "kind": "b"}) < made_up({"x": 0.5, "kind": "b"})
    True
    """
    total = 0.0
    for value in config.values():
        if isinstance(value, bool | int | float):
            total -= math.log1p(abs(float(value)))
        elif isinstance(value, str):
            total -= sum(map(ord, value)) % 7 / 7
        elif isinstance(value, list | tuple):
            total -= math.fsum(abs(float(item)) for item in value) / (1 + len(value))
    return total


def _entry(item: Mapping[str, Any]) -> Entry:
    values = {name: item[name] for name in Entry.__dataclass_fields__ if name in item}
    for name in ("points", "ask", "proposal", "growth"):
        values[name] = tuple(values[name])
    values["fits"] = tuple(map(tuple, values["fits"]))
    entry = Entry(**values)
    lengths = {len(entry.points), len(entry.ask), len(entry.proposal), len(entry.fits), len(entry.growth)}
    numbers = [*entry.ask, *entry.proposal, *entry.growth, *(seconds for fits in entry.fits for seconds in fits)]
    if lengths != {len(entry.points)} or not entry.points or list(entry.points) != sorted(set(entry.points)):
        raise ValueError(f"points, fits, ask, proposal, growth of {entry.search} must be equally many, and points rise")
    if min(entry.points) < 1 or entry.n_hyperparameters < 1 or not all(0 <= x < math.inf for x in numbers):
        raise ValueError(f"{entry.search} has a number that is none, or negative")
    return entry


def _key(entry: Entry) -> tuple[str, str, int]:
    return entry.search, json.dumps(entry.options, sort_keys=True), entry.n_hyperparameters


def _toml(text: str) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    return tomllib.loads(text)


def _machine() -> str:
    """Return the kind of processor, and how many cores this process may use."""
    kind = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        kind = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), kind)
    except OSError:
        pass
    return f"{kind}, {len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()} cores"
