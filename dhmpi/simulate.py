"""``python -m dhmpi.simulate --evaluators 4096 --duration lognormal:60,0.5 ...``: a search in virtual time.

Tells before anybody queues whether one searcher keeps up with so many evaluators, and what the search would find: the
real dispatcher, supply and search run in one process, and the virtual clock is charged what they cost.  Start reading
at `simulate`.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import importlib
import importlib.util
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dhmpi import __version__
from dhmpi.check import Parser
from dhmpi.errors import EXIT_BAD_INPUT, DhmpiError, OptionError
from dhmpi.options import TRAINING, SearchOptions

if TYPE_CHECKING:
    from dhmpi.costs import Charge, Costs
    from dhmpi.durations import Durations
    from dhmpi.roles.program import Program
    from dhmpi.roles.virtual import VirtualRun
    from dhmpi.trials import Config

PROG = "python -m dhmpi.simulate"
DESCRIPTION = (
    "Run a search in virtual time on simulated evaluators, thousands of them in one process: objective over time, "
    "utilisation, what evaluators lose waiting for proposals, how busy the searcher is, and what to change. Options "
    "that are not listed here are those of the search (python -m dhmpi.SEARCH --help), so that its command line can be "
    "taken over as it is; those about ranks, files and processes have no effect."
)
SEARCHES = ("ambs", "regevo", "random", "ppo", "agebo")
MADE_UP = "made-up"
"""Run function of a simulation that was given none."""
MEASURE, LIVE = "measure", "live"
LATENCY = 1.5e-4
DISPATCH = 5e-5
"""Seconds of a message, and of the master for an evaluation: half the median of `benchmarks waiting`, and what 32 ranks
need in `benchmarks dispatch`."""
N_ROWS = 12
A_MINUTE = 60.0
SUFFIXES = (".png", ".svg", ".pdf")
KEEPS_UP = 0.01
"""Part of their time that evaluators may wait for proposals, of a searcher that keeps up."""
MUCH_DRAINING = 0.05
MUCH_MASTER = 0.7
FEW_ROUNDS = 4
"""Evaluations for each evaluator below which a search has hardly anything to learn from."""


@dataclass(frozen=True)
class Case:
    """What is to be simulated.

    Attributes
    ----------
    program : Program
    options : SearchOptions
    durations : Durations
    costs : Costs or None
        None: what each answer takes here.
    objective : callable
        Configuration -> objective, None for a failed evaluation.
    latency, dispatch : float
        Seconds of a message, and of the master for an evaluation.
    warm_start : str or None
        File of earlier evaluations.
    stand_in : bool
        Whether random proposals stand in for those of a search that fits models.
    """

    program: Program
    options: SearchOptions
    durations: Durations
    costs: Costs | None
    objective: Objective
    latency: float
    dispatch: float
    warm_start: str | None = None
    stand_in: bool = False

    def specification(self, n_evaluators: int) -> dict[str, Any]:
        """Return what the search is built from."""
        return {
            **self.program.spec(self.options),
            "run": "" if self.options.run in (MADE_UP, TRAINING) else self.options.run,
            "problem": self.options.problem,
            "seed": self.options.seed,
            "n_evaluators": n_evaluators,
            "max_evals": self.options.max_evals,
            **({} if self.warm_start is None else {"warm_start": self.warm_start}),
        }

    def n_batch(self, n_evaluators: int) -> int | None:
        """Return how many episodes an agent learns from at a time, None for a search that learns from all trials."""
        agents = self.program.agents(self.options)
        if not agents:
            return None
        from dhmpi.search.build import batch_size

        return math.ceil(batch_size(self.specification(n_evaluators)) / agents)


class Objective:
    """The run function in this process; what is no objective is a failed evaluation, as in a run.

    Parameters
    ----------
    function : callable
    """

    def __init__(self, function: Callable[[Config], Any]) -> None:
        self._function = function
        self.failure = ""

    def __call__(self, config: Config) -> float | None:
        from dhmpi.evaluate.result import check

        try:
            return check(self._function(dict(config)))[0]
        except (Exception, SystemExit) as error:
            self.failure = self.failure or f"{type(error).__name__}: {error}".splitlines()[0]
            return None


class Unheard:
    """A run function that is ready to be called, and of which nobody hears what it prints.

    Parameters
    ----------
    name : str
        As given to ``--run``.
    problem : str
        As given to ``--problem``.

    Raises
    ------
    ProblemError
        If it cannot be imported, or its preparation fails.
    """

    def __init__(self, name: str, problem: str) -> None:
        from dhmpi.evaluate.loading import load_prepared
        from dhmpi.evaluate.surroundings import printing_to

        self._quietly = functools.partial(printing_to, Path(os.devnull).open("w", encoding="utf-8"))
        with self._quietly():
            self._run = load_prepared(name, problem, with_comm=True)

    def __call__(self, config: Config) -> Any:
        with self._quietly():
            return self._run(config)


@dataclass(frozen=True)
class Report:
    """What came of a simulation.

    Attributes
    ----------
    n_evaluators : int
    run : VirtualRun
    charged : str
        Whose costs were charged.
    rows : list of dict
        The run by intervals of time: columns `ROW`.
    trajectory : list of (int, float, float)
        Evaluations finished, virtual seconds, and objective, wherever that was better than before.
    best_config : dict or None
    master_load : float
    advice : list of str
    keeps_up : bool
    wall_seconds : float
        That the simulation took.
    """

    n_evaluators: int
    run: VirtualRun
    charged: str
    rows: list[dict[str, Any]]
    trajectory: list[tuple[int, float, float]]
    best_config: Config | None
    master_load: float
    advice: list[str]
    keeps_up: bool
    wall_seconds: float

    @property
    def best(self) -> float | None:
        return self.trajectory[-1][2] if self.trajectory else None

    @property
    def load(self) -> float:
        """Part of the time, until the last trial was started, that the searcher was busy."""
        return min(1.0, self.run.thinking_seconds / self.run.stopped) if self.run.stopped else 0.0

    def share(self, seconds: float) -> float:
        """Return seconds of evaluators as a part of all that they had."""
        return seconds / (self.n_evaluators * self.run.seconds) if self.run.seconds else 0.0

    def content(self) -> dict[str, Any]:
        """Return everything for a program; times in seconds, parts between 0 and 1."""
        run = self.run
        n_failed = sum(outcome.objective is None for outcome, _ in run.outcomes)
        asked = [thought.asked for thought in run.thoughts]
        return {
            "evaluators": self.n_evaluators,
            "seconds": run.seconds,
            "reason": run.reason,
            "finished": len(run.outcomes),
            "failed": n_failed,
            "best": self.best,
            "best_configuration": self.best_config,
            "utilisation": run.utilisation,
            "utilisation_in_flight": run.utilisation_in_flight,
            "waiting": self.share(run.waiting_seconds),
            "waiting_for_the_first": self.share(run.first_waiting_seconds),
            "draining": self.share(run.draining_seconds),
            "searcher": {
                "load": self.load,
                "costs": self.charged,
                "answers": len(asked),
                "fits": sum(a.n_fits for a in asked),
                "proposals": sum(a.n for a in asked),
                "seconds": run.thinking_seconds,
                "longest": max((thought.seconds for thought in run.thoughts), default=0.0),
                "seconds_here": math.fsum(a.seconds for a in asked),
            },
            "master_load": self.master_load,
            "keeps_up": self.keeps_up,
            "advice": self.advice,
            "rows": self.rows,
            "trajectory": self.trajectory,
            "wall_seconds": self.wall_seconds,
        }

    def describe(self) -> str:
        """Return the report for a person."""
        from dhmpi.tables import aligned, duration

        run, content = self.run, self.content()
        searcher, failed = content["searcher"], content["failed"]
        digits = _digits(run.seconds)
        shown = [{**row, "time": duration(row["time"], digits)} for row in self.rows]
        columns = [name for name in ROW if name != "best" or self.trajectory]
        first = self.share(run.first_waiting_seconds)
        lines = [
            aligned(shown, columns),
            "",
            f"{len(run.outcomes)} evaluations{f', {failed} of them failed,' * bool(failed)} in "
            f"{duration(run.seconds, digits)}; {run.reason}",
        ]
        if self.best is not None:
            lines.append(f"best objective {self.best:.8g}, after {self.trajectory[-1][0]} evaluations")
        lines += [
            f"utilisation {run.utilisation:.4f}, {run.utilisation_in_flight:.4f} with what was running at the end",
            f"waiting for proposals {_percent(self.share(run.waiting_seconds))} of evaluators' time "
            f"({_percent(first)} for the first); "
            f"for the end {_percent(self.share(run.draining_seconds))}",
            f"searcher busy {_percent(self.load)} of its time: {searcher['answers']} answers, {searcher['fits']} fits, "
            f"{searcher['proposals']} proposals, the longest answer {searcher['longest']:.3g} s",
            f"costs charged: {self.charged}",
            *(f"note: {sentence}" for sentence in self.advice),
            f"(simulated in {self.wall_seconds:.1f} s)",
        ]
        return "\n".join(lines)


ROW = ("time", "finished", "best", "utilisation", "waiting", "searcher", "master")
"""Columns of a report's rows: the last four are parts of the time since the row before."""


def simulate(case: Case, n_evaluators: int) -> Report:
    """Run a search in virtual time.

    Raises
    ------
    DhmpiError
        If the search cannot be built, or its costs are not known.
    """
    from dhmpi.costs import Charge, live
    from dhmpi.load import load_problem
    from dhmpi.roles import virtual
    from dhmpi.search.build import build

    spec, options = case.specification(n_evaluators), case.options
    search, info = build(spec)
    problem = load_problem(options.problem)
    charge: Charge | None = None
    charged = "what each answer took here, so that another run has others"
    if case.costs is not None:
        name = spec["search"] if search.fits or not case.program.fits(options) else "random"
        entry, differs = case.costs.find(name, spec.get("options", {}), len(problem.space))
        charge = Charge(entry, case.n_batch(n_evaluators))
        charged = f"{case.costs.origin}, measured on {entry.machine or 'an unnamed machine'}"
        charged += f", of {differs} (--costs measure measures yours)" if differs else ""
        if case.stand_in and search.fits:
            from dhmpi.standin import StandIn

            search = StandIn(problem.space, spec["seed"], entry=entry, n_design=n_evaluators)
            search.to_config, search.from_config = problem.to_config, problem.from_config
    began = time.perf_counter()
    time_limit = options.time_limit
    run = virtual.simulate(
        search,
        options.limits,
        n_evaluators,
        case.objective,
        lambda config, rng: case.durations.draw(rng),
        case.latency,
        seed=options.seed or 0,
        cost=live if charge is None else charge,
        dispatch_seconds=case.dispatch,
        time_limit=time_limit,
        grace=0.0 if time_limit is None else min(options.grace, 0.1 * time_limit),
        eval_timeout=options.eval_timeout,
        keep_events=False,
    )
    wall_seconds = time.perf_counter() - began
    trajectory, best_config = _trajectory(run)
    master_load = min(1.0, len(run.outcomes) * case.dispatch / run.seconds) if run.seconds else 0.0
    report = Report(
        n_evaluators,
        run,
        charged,
        _rows(run, trajectory, case.dispatch),
        trajectory,
        best_config,
        master_load,
        [],
        keeps_up=True,
        wall_seconds=wall_seconds,
    )
    advice, keeps_up = _advice(case, report, charge)
    if case.objective.failure:
        advice.append(f"evaluations failed; the first said: {case.objective.failure}")
    advice += info.get("remarks", ())
    return dataclasses.replace(report, advice=advice, keeps_up=keeps_up)


def _trajectory(run: VirtualRun) -> tuple[list[tuple[int, float, float]], Config | None]:
    found: list[tuple[int, float, float]] = []
    best_config = None
    for n, (outcome, trial) in enumerate(run.outcomes, start=1):
        if outcome.objective is not None and (not found or outcome.objective > found[-1][2]):
            found.append((n, outcome.end, outcome.objective))
            best_config = trial.config
    return found, best_config


def _rows(run: VirtualRun, trajectory: Sequence[tuple[int, float, float]], dispatch: float) -> list[dict[str, Any]]:
    """Return the run in so many intervals of the same length."""
    import numpy as np

    if not run.seconds:
        return []
    edges = np.linspace(0, run.seconds, N_ROWS + 1)

    def within(spans: Sequence[tuple[float, float]]) -> np.ndarray:
        """Return how much of some spans of time lies in each interval."""
        if not spans:
            return np.zeros(N_ROWS)
        begins, ends = np.array(spans).T
        until = [np.clip(edge - begins, 0, ends - begins).sum() for edge in edges]
        return np.diff(until)

    length = edges[1]
    busy = within([(outcome.start, outcome.end) for outcome, _ in run.outcomes]) / (run.n_evaluators * length)
    waiting = within(run.waits) / (run.n_evaluators * length)
    thinking = within([(t.start, t.start + t.seconds) for t in run.thoughts]) / length
    ends = np.array([outcome.end for outcome, _ in run.outcomes])
    rows: list[dict[str, Any]] = []
    n_before = 0
    for i, edge in enumerate(edges[1:]):
        n = int((ends <= edge).sum())
        better = [y for _, t, y in trajectory if t <= edge]
        rows.append(
            {
                "time": float(edge),
                "finished": n,
                "best": better[-1] if better else None,
                "utilisation": round(float(busy[i]), 4),
                "waiting": round(float(waiting[i]), 4),
                "searcher": round(float(min(1.0, thinking[i])), 4),
                "master": round(float(min(1.0, (n - n_before) * dispatch / length)), 4),
            }
        )
        n_before = n
    return rows


# -- what to make of it ------------------------------------------------------------------------------------------------


def _advice(case: Case, report: Report, charge: Charge | None) -> tuple[list[str], bool]:
    """Return whether one searcher keeps up, in a sentence, with what could be changed, and as a truth."""
    run, n, mean = report.run, report.n_evaluators, case.durations.mean
    waiting = report.share(run.waiting_seconds - run.first_waiting_seconds)
    needed = n / mean
    n_told = max(1, len(run.outcomes))
    each = charge.entry.each(charge.points(n_told)) if charge else _each(run)
    can = f"between fits it can give {_rate(1 / each)} at {n_told} trials, {_rate(needed)} are needed" if each else ""
    keeps_up = waiting <= KEEPS_UP
    sentences = []
    if keeps_up:
        sentences.append(
            f"one searcher keeps up with {n} evaluators: they wait {_percent(waiting)} of their time for its proposals"
            f"{f'; {can}' * bool(can)}"
        )
    else:
        served = max(1, math.floor((run.busy_seconds + run.cancelled_seconds) / run.seconds))
        sentences.append(
            f"one searcher does not keep up with {n} evaluators: they wait {_percent(waiting)} of their time for its "
            f"proposals; it serves about {served} of them{f'; {can}' * bool(can)}"
        )
        sentences += _remedies(case, report, charge, served)
    first = report.share(run.first_waiting_seconds)
    if first > KEEPS_UP:
        sentences.append(
            f"the first proposals are {_percent(first)} of evaluators' time away: a longer run makes that less"
        )
    if (draining := report.share(run.draining_seconds)) > MUCH_DRAINING:
        sentences.append(
            f"evaluators are idle for {_percent(draining)} of their time at the end, when nothing more is started: a "
            f"larger --max-evals, or --time-limit-minutes in its place, makes that less"
        )
    rounds = len(run.outcomes) / n
    if rounds < FEW_ROUNDS and not case.stand_in and case.program.name != "random":
        sentences.append(
            f"there are only {rounds:.1f} evaluations for each evaluator: the search has little to learn from before "
            f"it is over"
        )
    if report.master_load > MUCH_MASTER:
        sentences.append(
            f"the master is busy {_percent(report.master_load)} of its time: longer evaluations, or several "
            f"configurations in one, would spare it"
        )
    return sentences, keeps_up


def _remedies(case: Case, report: Report, charge: Charge | None, served: int) -> Iterator[str]:
    """Say what would help a searcher that does not keep up."""
    run, mean = report.run, case.durations.mean
    longer = mean * report.n_evaluators / served
    yield f"it would with evaluations of {longer:.3g} s on average instead of {mean:.3g} s"
    fits = 0.0
    if charge is not None:
        fits = math.fsum(t.asked.n_fits * charge.entry.fit(charge.points(t.asked.n_told)) for t in run.thoughts)
    if fits > 0.5 * run.thinking_seconds:
        cores = getattr(case.options, "n_jobs", None)
        more = "; --n-jobs 4 fits forests on more cores" if cores == 1 else ""
        yield f"fits are {_percent(fits / run.thinking_seconds)} of what the searcher does{more}"
    if case.program.name in ("ambs", "agebo"):
        yield "--search regevo costs microseconds a proposal, and learns too"


def _each(run: VirtualRun) -> float:
    """Return the seconds of a proposal in answers without a fit."""
    without = [t.asked for t in run.thoughts if not t.asked.n_fits and t.asked.n]
    n = sum(asked.n for asked in without)
    return math.fsum(asked.seconds for asked in without) / n if n else 0.0


def _digits(seconds: float) -> int:
    """Return how many decimals tell the rows of a run apart that lasts so many seconds: none from a minute on."""
    return max(1, math.ceil(-math.log10(seconds / N_ROWS))) if 0 < seconds < A_MINUTE else 0


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %" if share >= 5e-5 or not share else "< 0.01 %"


def _rate(per_second: float) -> str:
    return f"{per_second:,.3g}/s" if per_second < 1000 else f"{per_second:,.0f}/s"


# -- the command -------------------------------------------------------------------------------------------------------


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    from dhmpi import durations

    result = Parser(
        prog=PROG,
        description=DESCRIPTION,
        allow_abbrev=False,
        usage=f"{PROG} --evaluators N --duration DURATION --problem NAME [options] [options of the search]",
    )
    add = result.add_argument_group("what to simulate").add_argument
    add("--evaluators", required=True, metavar="N", help="how many; several numbers as in 128,512,2048 are compared")
    add("--duration", required=True, metavar="DURATION", help=(
        f"of evaluations, in seconds: {durations.HELP}; or a run directory or results.csv whose durations are drawn"
    ))  # fmt: skip
    add("--search", choices=SEARCHES, default="ambs", help="(default: ambs)")
    add("--stand-in", action="store_true", help=(
        "let random proposals stand in for those of a search that fits models, and charge what its own would have "
        "cost: whether it keeps up is known in seconds, but not what it would find"
    ))  # fmt: skip
    add("--run", metavar="NAME", help=(
        "function that is evaluated here, in this process, without what it prints; by default an objective is made up, "
        "which is enough to learn whether the searcher keeps up"
    ))  # fmt: skip
    add = result.add_argument_group("what things cost").add_argument
    add("--costs", default=None, metavar="FILE", help=(
        "JSON or TOML with what the search takes for fits and proposals; measure: measured now on this machine, for "
        "this search and problem; live: whatever each answer takes here, which cannot be repeated exactly (default: "
        "what comes with dhmpi)"
    ))  # fmt: skip
    add("--keep-costs", metavar="FILE", help="with --costs measure, put what was measured into this JSON file")
    add("--latency", type=float, default=LATENCY, metavar="SECONDS", help=f"of a message (default: {LATENCY:g})")
    add("--dispatch", type=float, default=DISPATCH, metavar="SECONDS", help=(
        f"that the master takes for an evaluation (default: {DISPATCH:g})"
    ))  # fmt: skip
    add = result.add_argument_group("what to show").add_argument
    add("--json", action="store_true", help="for programs: everything that is known, times in seconds")
    add("-o", "--output", type=Path, metavar="FILE", help=f"draw it, as {', '.join(SUFFIXES)}")
    result.add_argument("--version", action="version", version=f"dhmpi {__version__}")
    return result


def prepare(given: argparse.Namespace, rest: Sequence[str]) -> tuple[Case, list[int]]:
    """Return what a command line asks for, checked, and the numbers of evaluators.

    Raises
    ------
    DhmpiError
    """
    from dhmpi import durations

    sizes = _sizes(given.evaluators)
    drawn = durations.parse(given.duration)
    for name in ("latency", "dispatch"):
        if not 0 <= getattr(given, name) < math.inf:
            raise OptionError(f"--{name} must be >= 0, got {getattr(given, name):g}")
    if given.output is not None and given.output.suffix.lower() not in SUFFIXES:
        raise OptionError(f"-o {given.output}: the name must end in {', '.join(SUFFIXES)}")
    if given.stand_in and given.costs == LIVE:
        raise OptionError("--stand-in has no costs of its own: give --costs FILE or --costs measure")
    if given.keep_costs is not None and given.costs != MEASURE:
        raise OptionError("--keep-costs keeps what --costs measure measures: give both")
    if importlib.util.find_spec(f"dhmpi.{given.search}") is None:
        raise OptionError(f"this version of dhmpi has no search {given.search}")
    program: Program = importlib.import_module(f"dhmpi.{given.search}").PROGRAM
    options = _options(program, [*rest, "--run", given.run or MADE_UP])
    if options.max_evals == SearchOptions.max_evals and options.time_limit is None:
        raise OptionError("a simulation needs an end: give --max-evals or --time-limit-minutes")
    for name in ("stopper", "chaos"):
        if getattr(options, name) is not None:
            raise OptionError(f"--{name} cannot be simulated: leave it out")
    from dhmpi.costs import Costs, made_up

    costs = None
    if given.costs == MEASURE:
        costs = Costs([], "measured just now")
    elif given.costs != LIVE:
        costs = Costs.read(None if given.costs is None else Path(given.costs))
    objective = Objective(made_up if given.run is None else Unheard(given.run, options.problem))
    return Case(
        program, options, drawn, costs, objective, given.latency, given.dispatch, stand_in=given.stand_in
    ), sizes


def _sizes(text: str) -> list[int]:
    try:
        sizes = [int(part) for part in text.split(",")]
    except ValueError:
        sizes = [0]
    if min(sizes) < 1:
        raise OptionError(f"--evaluators takes a number >= 1, or several with commas between them, got {text!r}")
    return sizes


def _options(program: Program, words: Sequence[str]) -> SearchOptions:
    """Return the options of the search; its seed is 0 unless one is given."""
    try:
        options = program.parse(words)
    except OptionError as error:
        raise OptionError(f"the search {program.name} says: {error}") from error
    return options if options.seed is not None else dataclasses.replace(options, seed=0)


def _measure(case: Case, sizes: Sequence[int], keep: str | None) -> None:
    """Measure the costs of a case on this machine."""
    from dhmpi import costs

    most = case.n_batch(max(sizes)) or min(case.options.max_evals, costs.POINTS[-1])
    if case.options.time_limit is not None:
        most = min(most, math.ceil(max(sizes) * case.options.time_limit / case.durations.mean))
    entry = costs.measure(
        case.specification(max(sizes)), most, lambda sentence: print(f"measured: {sentence}", file=sys.stderr)
    )
    assert case.costs is not None
    case.costs.add(entry)
    if keep is not None:
        path = Path(keep)
        kept = costs.Costs.read(path) if path.exists() else costs.Costs([], keep)
        kept.add(entry)
        kept.write(path)


@contextlib.contextmanager
def _as_in_a_run(case: Case) -> Iterator[Case]:
    """Compute with as many threads as the searcher has, in a directory that holds what a run's would."""
    from dhmpi.costs import one_core
    from dhmpi.evaluate.context import TrialContext, enter, leave
    from dhmpi.rundirectory import WARM_START
    from dhmpi.warmstart import collect

    with (
        one_core(case.specification(1)),
        tempfile.TemporaryDirectory(prefix="dhmpi-simulate-", ignore_cleanup_errors=True) as directory,
    ):
        enter(TrialContext(directory=directory, problem=case.options.problem))
        try:
            if paths := getattr(case.options, "warm_start", ()):
                case = dataclasses.replace(case, warm_start=str(Path(directory, WARM_START)))
                collect(paths, case.options.warm_start_direction, Path(directory, WARM_START))  # type: ignore[attr-defined]
            yield case
        finally:
            leave()


def main(arguments: Sequence[str] | None = None) -> int:
    """Simulate; return the exit code."""
    try:
        given, rest = parser().parse_known_args(arguments)
        case, sizes = prepare(given, rest)
        from dhmpi import platform

        platform.collect_garbage_rarely()
        with _as_in_a_run(case) as case:
            if given.costs == MEASURE:
                _measure(case, sizes, given.keep_costs)
            reports = [simulate(case, n) for n in sizes]
        if given.output is not None:
            from dhmpi.analytics.plots import save, simulated

            save(simulated(reports, _title(case)), given.output)
    except DhmpiError as error:
        print(f"dhmpi.simulate: error: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    from dhmpi import tables

    tables.write(sys.stdout, _as_json(case, reports) if given.json else _as_text(case, reports))
    return 0


def _title(case: Case) -> str:
    objective = "an objective made up" if case.options.run in (MADE_UP, TRAINING) else case.options.run
    name = f"a stand-in of {case.program.name}" if case.stand_in else case.program.name
    return f"{name} of {case.options.problem}, {objective}; evaluations of {case.durations.words}"


def _as_json(case: Case, reports: Sequence[Report]) -> str:
    from dhmpi.tables import as_json

    about = {
        "search": case.program.name,
        "problem": case.options.problem,
        "run": case.options.run,
        "seed": case.options.seed,
        "max_evals": case.options.max_evals,
        "time_limit": case.options.time_limit,
        "duration": {"words": case.durations.words, "mean": case.durations.mean},
    }
    return as_json({**about, "simulations": [report.content() for report in reports]})


def _as_text(case: Case, reports: Sequence[Report]) -> str:
    heading = f"{_title(case)}; seed {case.options.seed}"
    if len(reports) == 1:
        return f"{heading}; {reports[0].n_evaluators} evaluators\n\n{reports[0].describe()}"
    from dhmpi.tables import aligned, duration

    digits = _digits(max(report.run.seconds for report in reports))
    rows = []
    for report in reports:
        content = report.content()
        rows.append(
            {
                **{name: content[name] for name in ("evaluators", "finished", "best")},
                "time": duration(content["seconds"], digits),
                **{
                    name: round(content[name], 4)
                    for name in ("utilisation", "waiting", "draining")
                },
                "searcher": round(report.load, 4),
                "master": round(report.master_load, 4),
                "keeps_up": "yes" if report.keeps_up else "no",
            }
        )  # fmt: skip
    lines = [heading, "", aligned(rows, list(rows[0])), "", f"costs charged: {reports[-1].charged}"]
    for report in reports:
        lines += [f"{report.n_evaluators} evaluators: {sentence}" for sentence in report.advice]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
