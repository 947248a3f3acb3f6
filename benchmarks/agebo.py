"""``python -m benchmarks.agebo [run|table|check]``: what it is worth to tune trainings on several ranks.

The same number of rank-seconds is spent by regularized evolution with fixed hyperparameters, whose learning rate and
batch grow with the ranks of an evaluation, and by searches that tune them: AgEBO, AMBS and evolution of everything.

- Objectives come from real training (:mod:`benchmarks.dense`) of networks on `digits_dense`: k ranks with batches of b
  each do what one process does with batches of k b, and its learning rate is k times the configuration's.
- Time is virtual.  A training takes a minute on one rank, give or take 30 %, and k ranks speed it up by
  k / (1 + 0.05 (k - 1)): 1.90, 3.48 and 5.93 for 2, 4 and 8 ranks.  dhmpi's own dispatcher of groups hands out trials
  to 32 ranks on 4 hosts, until four virtual minutes of all of them are spent.
- In a last column the search decides on the ranks of each evaluation, too.

``run`` adds what is missing to a file of JSON lines, one for each search, number of ranks and seed; ``table`` shows it.
``check`` trains some configurations with Keras, too.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy: these networks are too small to share
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import ConfigSpace
import numpy as np
from rich.table import Table

from benchmarks import dense
from benchmarks.__main__ import console
from dhmpi.benchmark.nas import digits_dense
from dhmpi.budget import Limits
from dhmpi.nas import NaProblem
from dhmpi.roles.virtual import simulate
from dhmpi.search.agebo import AgeingBayesianSearch
from dhmpi.search.evolution import RegularizedEvolution
from dhmpi.search.model_based import ModelBasedSearch
from dhmpi.search.space import SpaceSearch
from dhmpi.trials import Config, Outcome

N_RANKS = 32
SECONDS = 240.0
TRAINING_SECONDS = 60.0
N_EPOCHS = 8
RANKS_PER_HOST = 8
RANKS = (1, 2, 4, 8)
TUNED = 0
"""Stands for: as many ranks as the search says."""
FIXED = {"learning_rate": 0.003, "batch_size": 64}
"""Those of `digits_dense`, which suit one rank."""
POPULATION = {"population_size": 40, "sample_size": 10}
N_RETRAINED = 5
RESULTS = Path(__file__).with_name("agebo.jsonl")
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "dhmpi" / "benchmarks-agebo.jsonl"
SEARCHES = ("regevo, fixed", "agebo", "ambs", "regevo")


def speedup(k: int) -> float:
    """Return how much faster k ranks train than one."""
    return k / (1 + 0.05 * (k - 1))


def problem(k: int) -> NaProblem:
    """Return the joint problem for evaluations of k ranks, or `TUNED`."""
    made = NaProblem()
    made.search_space(digits_dense.dense_skip, input_shape=(64,), output_shape=(10,), last="softmax")
    made.add_hyperparameter((1e-4, 1e-1, "log-uniform"), "learning_rate")
    made.add_hyperparameter([16, 32, 64, 128, 256], "batch_size")
    if k == TUNED:
        made.add_hyperparameter(list(RANKS), "num_ranks")
    return made


@cache
def data() -> tuple[dense.Data, dense.Data, dense.Data]:
    train, valid, test = (tuple(part.astype(np.float32) for part in pair) for pair in digits_dense.load_data())
    return train, valid, test  # type: ignore[return-value]


class Trainer:
    """Trains configurations, and remembers on disk what came of them.

    Parameters
    ----------
    path : Path
        File of JSON lines.
    """

    def __init__(self, path: Path) -> None:
        self._space = digits_dense.Problem.architecture_space
        self._known: dict[str, list[float]] = {}
        self.seconds = 0.0
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file():
            for line in path.read_text().splitlines():
                self._known.update(json.loads(line))
        self._file = path.open("a")

    def __call__(self, config: Mapping[str, Any], seed: int) -> tuple[float, float]:
        """Return the accuracy on validation and on test data, NaN if the training diverged."""
        k = config["num_ranks"]
        # What the ranks do together depends on these only.
        facts = [list(config["arch_seq"]), k * config["batch_size"], k * config["learning_rate"], seed]
        name = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
        if name not in self._known:
            start = time.process_time()
            with np.errstate(all="ignore"):
                self._known[name] = self._train(*facts)
            self.seconds += time.process_time() - start
            self._file.write(json.dumps({name: self._known[name]}) + "\n")
            self._file.flush()
        valid, test = self._known[name]
        return valid, test

    def _train(self, arch: list[int], batch_size: int, learning_rate: float, seed: int) -> list[float]:
        train, valid, test = data()
        network = dense.Network(self._space, arch, np.random.default_rng([seed, 1]))
        dense.train(network, train, batch_size, learning_rate, N_EPOCHS, seed)
        return [dense.accuracy(network, part) for part in (valid, test)]


def make(name: str, k: int, n_evaluators: int, max_evals: int, seed: int) -> SpaceSearch:
    """Return a search, which proposes configurations of run functions."""
    joint = problem(k)
    decisions = joint.decision_names
    if name == "regevo, fixed":
        space = ConfigSpace.ConfigurationSpace()
        space.add(*(joint.space[decision] for decision in decisions))
        search: SpaceSearch = RegularizedEvolution(space, seed, **POPULATION)  # type: ignore[arg-type]
    elif name == "regevo":
        search = RegularizedEvolution(joint.space, seed, **POPULATION)  # type: ignore[arg-type]
    elif name == "agebo":
        search = AgeingBayesianSearch(
            joint.space,
            seed,
            decisions,
            n_evaluators=n_evaluators,
            max_evals=max_evals,
            **POPULATION,  # type: ignore[arg-type]
        )
    else:
        search = ModelBasedSearch(joint.space, seed, n_evaluators=n_evaluators, max_evals=max_evals)
    search.to_config, search.from_config = joint.to_config, joint.from_config
    return search


def play(name: str, k: int, seed: int, trainer: Trainer) -> dict[str, Any]:
    """Run a search; return what is kept of it."""
    n_evaluators = N_RANKS // max(k, 1)
    max_evals = round(SECONDS * n_evaluators * speedup(max(k, 1)) / TRAINING_SECONDS)

    def complete(config: Config) -> Config:
        return {**FIXED, "num_ranks": k, **config}

    def objective(config: Config) -> float | None:
        accuracy = trainer(complete(config), seed)[0]
        return None if np.isnan(accuracy) else accuracy

    def duration(config: Config, rng: np.random.Generator) -> float:
        return float(TRAINING_SECONDS * rng.lognormal(0.0, 0.3)) / speedup(complete(config)["num_ranks"])

    ask_seconds = 0.001 if name.startswith("regevo") else 2.0
    run = simulate(
        make(name, k, n_evaluators, max_evals, seed),
        Limits(max_evals),
        N_RANKS,
        objective,
        duration,
        ask_seconds=lambda n_told, n: ask_seconds,
        seed=seed,
        ranks_per_host=RANKS_PER_HOST,
        ranks_per_eval=max(k, 1),
    )
    ended = [(outcome, complete(trial.config)) for outcome, trial in run.outcomes]
    return {"search": name, "ranks": k, "seed": seed, **_summary(ended, trainer)}


def _summary(ended: list[tuple[Outcome, Config]], trainer: Trainer) -> dict[str, Any]:
    """Return what a search has found before the rank-seconds were spent."""
    spent = np.cumsum([outcome.elapsed * config["num_ranks"] for outcome, config in ended])
    n = int(np.searchsorted(spent, N_RANKS * SECONDS, side="right"))
    done = [(outcome.objective, config) for outcome, config in ended[:n] if outcome.objective is not None]
    best, config = max(done, key=lambda item: item[0])
    again = [trainer(config, 1000 + i) for i in range(N_RETRAINED)]
    late = [objective for objective, _ in done[-len(done) // 4 :]]
    return {
        "evaluations": n,
        "rank_seconds": float(spent[n - 1]),
        "best": best,
        "late": statistics.fmean(late),
        "retrained": statistics.fmean(valid for valid, _ in again),
        "test": statistics.fmean(test for _, test in again),
        "config": {name: value for name, value in config.items() if name != "arch_seq"},
        "arch_seq": config["arch_seq"],
    }


def read(path: Path) -> list[dict[str, Any]]:
    """Return what is on record."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def run(n_seeds: int, path: Path, only: Sequence[str] | None) -> None:
    """Add to the record what it lacks."""
    there = {(line["search"], line["ranks"], line["seed"]) for line in read(path)}
    trainer = Trainer(CACHE)
    for seed in range(n_seeds):
        for k in (*RANKS, TUNED):
            for name in SEARCHES:
                if (name, k, seed) in there or (only and name not in only) or (name, k) == (SEARCHES[0], TUNED):
                    continue
                start, trained = time.process_time(), trainer.seconds
                line = play(name, k, seed, trainer)
                with path.open("a") as file:
                    file.write(json.dumps(line) + "\n")
                seconds, trained = time.process_time() - start, trainer.seconds - trained
                console.print(
                    f"{name}, {k} ranks, seed {seed}: best {line['best']:.4f}, test {line['test']:.4f} "
                    f"({seconds:.0f} s of CPU time, {trained:.0f} s of them training)"
                )


def table(path: Path) -> None:
    """Show the record."""
    lines = read(path)
    n_seeds = len({line["seed"] for line in lines})
    shown = Table(
        "search", "accuracy", *(f"{k} rank{'s' * (k > 1)}" for k in RANKS), "tuned",
        title=f"digits_dense, {N_RANKS} ranks for {SECONDS:.0f} virtual seconds, mean of {n_seeds} seeds",
    )  # fmt: skip
    kinds = {"best": "best, validation", "late": "mean of the last quarter", "test": "best trained again, test",
             "evaluations": "evaluations", "rank_seconds": "rank-seconds"}  # fmt: skip
    for name in SEARCHES:
        for kind, words in kinds.items():
            cells = []
            for k in (*RANKS, TUNED):
                values = [line[kind] for line in lines if (line["search"], line["ranks"]) == (name, k)]
                cells.append(_mean(values, kind) if values else "")
            shown.add_row(name if kind == "best" else "", words, *cells, end_section=kind == "rank_seconds")
    console.print(shown)


def _mean(values: list[float], kind: str) -> str:
    mean = statistics.fmean(values)
    if kind in ("evaluations", "rank_seconds"):
        return f"{mean:,.0f}"
    spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
    return f"{mean:.4f}{spread}"


def check(n: int) -> None:
    """Train random configurations with Keras as well."""
    from dhmpi.nas.training import train

    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
    rng, trainer = np.random.default_rng(0), Trainer(CACHE)
    joint = problem(1)
    joint.load_data(digits_dense.load_data)
    joint.hyperparameters(optimizer="adam", num_epochs=N_EPOCHS)
    joint.loss("categorical_crossentropy")
    joint.metrics(["acc"])
    joint.objective("val_acc__last")
    ours, keras = [], []
    for i in range(n):
        arch = list(digits_dense.Problem.architecture_space.random(rng))
        k, batch = int(rng.choice(RANKS)), int(rng.choice([32, 64, 128]))
        rate = float(10 ** rng.uniform(-3.5, -2))
        ours.append(trainer({"arch_seq": arch, "learning_rate": rate, "batch_size": batch, "num_ranks": k}, i)[0])
        theirs = train(joint, {"arch_seq": arch, "learning_rate": min(k * rate, 0.1), "batch_size": k * batch}, i)
        keras.append(theirs["objective"])
        console.print(f"{k} x {batch}, {k} x {rate:.1e}: numpy {ours[-1]:.4f}, Keras {keras[-1]:.4f}")
    console.print(
        f"means {statistics.fmean(ours):.4f} and {statistics.fmean(keras):.4f}, "
        f"correlation {statistics.correlation(ours, keras):.2f}"
    )


def main(arguments: list[str]) -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.agebo", allow_abbrev=False)
    parser.add_argument("what", nargs="?", choices=("run", "table", "check"), default="run")
    parser.add_argument("--seeds", type=int, default=3, metavar="N")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FILE")
    parser.add_argument("--trainings", type=int, default=16, metavar="N", help="of check")
    parser.add_argument("--search", action="append", choices=SEARCHES, help="run only this one; may be repeated")
    options = parser.parse_args(arguments)
    if options.what == "check":
        check(options.trainings)
        return
    if options.what == "run":
        run(options.seeds, options.results, options.search)
    table(options.results)


if __name__ == "__main__":
    main(sys.argv[1:])
