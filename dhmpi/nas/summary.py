"""What came of training the best networks again: a table by architecture, the best one drawn, an ensemble.

Reads the run directory of ``dhmpi.nas.post`` and writes post.csv, best.png and ensemble.json there.  No TensorFlow,
unless a metric is one of Keras's.  Start reading at :func:`report`.
"""

from __future__ import annotations

import math
import statistics
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dhmpi import journal
from dhmpi.errors import OptionError, RunDirectoryError
from dhmpi.mpi.environment import in_terminal
from dhmpi.nas import ensemble
from dhmpi.nas.metrics import direction, metric_name, resolve
from dhmpi.nas.problem import NaProblem
from dhmpi.nas.run.post import ADDED, MODEL_FILE, TEST_PREDICTIONS_FILE
from dhmpi.nas.training import PREDICTIONS_FILE, evaluate
from dhmpi.results import write_json
from dhmpi.tables import as_csv
from dhmpi.trials import Config, Outcome, Status, Trial, digest

if TYPE_CHECKING:
    from rich.console import Console

TABLE_FILE = "post.csv"
DRAWING_FILE = "best.png"
ENSEMBLE_FILE = "ensemble.json"
EXIT_FAILED = 1
WIDTH = 120
MAX_CANDIDATES_BYTES = 4 << 30
"""Predictions that are held in memory to select an ensemble; of more, those of the best networks."""

Row = dict[str, Any]


class Network(NamedTuple):
    """One that was trained, or could not be."""

    outcome: Outcome
    trial: Trial
    directory: Path

    @property
    def objective(self) -> float:
        return -math.inf if self.outcome.objective is None else self.outcome.objective


@dataclass(frozen=True)
class Aim:
    """What an ensemble maximises.

    Attributes
    ----------
    key : str
        Of the metric, ``val_...``.
    sign : int
        -1 if smaller is better.
    metrics : dict
        Number of an output and a function, of all metrics by key.
    """

    key: str
    sign: int
    metrics: Mapping[str, tuple[int, Callable[[Any, Any], float]]]

    def score(self, targets: ensemble.Tensors) -> Callable[[ensemble.Tensors], float]:
        """Return what gives predictions a score, to be maximised."""
        return lambda predictions: (
            self.sign * evaluate({self.key: self.metrics[self.key]}, targets, predictions)[self.key]
        )


def report(directory: Path, problem: NaProblem, options: Mapping[str, Any], size: int | None = None) -> int:
    """Write and print everything; return the exit code: 1 if no network could be trained.

    Parameters
    ----------
    directory : Path
        Of the run of ``dhmpi.nas.post``.
    problem : NaProblem
    options : dict
        Of the run, as run.json has them.
    size : int, optional
        Of an ensemble, if there shall be one.

    Raises
    ------
    DhmpiError
        If there is nothing to report, or no ensemble can be selected.
    """
    networks = _networks(directory)
    if not networks:
        raise RunDirectoryError(f"the training in {directory} has no finished network yet")
    asked = options.get("max_evals", len(networks))
    if len(networks) < asked:
        print(f"{len(networks)} of {asked} trainings are finished.", flush=True)
    if not any(network.outcome.status is Status.DONE for network in networks):
        reasons = Counter(network.outcome.reason.split("\n", 1)[0] for network in networks)
        reason, n = reasons.most_common(1)[0]
        print(f"dhmpi.nas.post: no network could be trained: {reason} ({n} times)", file=sys.stderr, flush=True)
        return EXIT_FAILED
    rows = by_architecture(networks, _objectives(options))
    _write_csv(directory / TABLE_FILE, rows, problem)
    best = max(networks, key=lambda network: network.objective)
    _print(rows, best, problem)
    _draw(directory / DRAWING_FILE, best, problem)
    if size is not None:
        _print_ensemble(write_ensemble(directory, networks, problem, size))
    return 0


def by_architecture(networks: Iterable[Network], searched: Mapping[int, float]) -> list[Row]:
    """Return a row for each architecture, the best mean objective first.

    Parameters
    ----------
    networks : iterable of Network
    searched : mapping of int to float
        Objectives of trials of the search, as far as they are known.

    Returns
    -------
    list of dict
        The configuration; ``source`` and ``search_objective``; ``n_trained`` and ``n_failed``; mean and standard
        deviation (of a sample; none of a single one) of the objective and of all metrics of validation and test;
        ``n_parameters``; means of ``seconds`` and ``epochs``; ``best_trial``.
    """
    groups: dict[str, list[Network]] = defaultdict(list)
    for network in networks:
        groups[digest(_bare(network.trial.config))].append(network)
    rows = []
    for members in groups.values():
        done = [member for member in members if member.outcome.status is Status.DONE]
        source = members[0].trial.config.get("source")
        row: Row = {
            **_bare(members[0].trial.config),
            "source": source,
            "search_objective": None if source is None else searched.get(source),
            "n_trained": len(done),
            "n_failed": len(members) - len(done),
        }
        if done:
            row |= _spread("objective", [member.objective for member in done])
            for name in done[0].outcome.metrics:
                if name.startswith(("val_", "test_")):
                    row |= _spread(name, [member.outcome.metrics.get(name) for member in done])
            row["n_parameters"] = done[0].outcome.metrics.get("n_parameters")
            row["seconds"] = statistics.fmean(
                member.outcome.metrics.get("training_seconds", member.outcome.elapsed) for member in done
            )
            if (epochs := _mean([member.outcome.metrics.get("epochs") for member in done])) is not None:
                row["epochs"] = epochs
            row["best_trial"] = max(done, key=lambda member: member.objective).trial.id
        rows.append(row)
    return sorted(rows, key=lambda row: -row.get("objective_mean", -math.inf))


def write_ensemble(directory: Path, networks: Sequence[Network], problem: NaProblem, size: int) -> dict[str, Any]:
    """Select an ensemble of networks, and write it as ensemble.json; return what is there.

    Raises
    ------
    DhmpiError
        If no predictions are there, or they are of different samples, or no metric can be maximised.
    """
    done = sorted((n for n in networks if n.outcome.status is Status.DONE), key=lambda n: -n.objective)
    candidates, predictions, n_without = _candidates(directory, done)
    aim = _aim(problem, len(predictions[0].outputs))
    targets = predictions[0].targets
    selection = ensemble.select([p.outputs for p in predictions], aim.score(targets), size)
    weights = selection.weights
    combined = ensemble.combine([p.outputs for p in predictions], weights)
    content = {
        "maximises": aim.key if aim.sign > 0 else f"-{aim.key}",
        "size": size,
        "n_candidates": len(candidates),
        "n_without_predictions": n_without,
        "members": [
            {
                "trial": candidates[i].trial.id,
                "weight": weight,
                **candidates[i].trial.config,
                "objective": candidates[i].objective,
                "model": str((candidates[i].directory / MODEL_FILE).relative_to(directory)),
            }
            for i, weight in weights.items()
        ],
        "scores": [aim.sign * score for score in selection.scores],
        "validation": evaluate(aim.metrics, targets, combined),
        "test": _test_scores(aim, {i: candidates[i] for i in weights}, weights),
        "best_network": {
            "trial": done[0].trial.id,
            "validation": _of(done[0].outcome.metrics, "val_", aim),
            "test": _of(done[0].outcome.metrics, "test_", aim) or None,
        },
    }
    write_json(directory / ENSEMBLE_FILE, content)
    return content


def _networks(directory: Path) -> list[Network]:
    networks = []
    for outcome, trial in journal.replay(directory / "journal").finished.values():
        place = directory / f"task{trial.id}_{digest(trial.config)}"
        copy = place.with_name(f"{place.name}_copy")  # of a trial that ran twice
        finished_there = not (place / MODEL_FILE).exists() and (copy / MODEL_FILE).exists()
        networks.append(Network(outcome, trial, copy if finished_there else place))
    return networks


def _objectives(options: Mapping[str, Any]) -> dict[int, float]:
    """Return the objectives of the search by trial, empty if it is not there any more."""
    path = Path(options.get("directory", "")) / "journal"
    finished = journal.replay(path).finished.items() if path.is_dir() else ()
    return {id_: outcome.objective for id_, (outcome, _) in finished if outcome.objective is not None}


def _bare(config: Config) -> Config:
    return {name: value for name, value in config.items() if name not in ADDED}


def _spread(name: str, values: Sequence[Any]) -> Row:
    """Return mean and standard deviation of the numbers among values."""
    numbers = [float(value) for value in values if isinstance(value, (int, float))]
    return {
        f"{name}_mean": statistics.fmean(numbers) if numbers else None,
        f"{name}_std": statistics.stdev(numbers) if len(numbers) > 1 else None,
    }


def _mean(values: Sequence[Any]) -> float | None:
    mean: float | None = _spread("", values)["_mean"]
    return mean


def _write_csv(path: Path, rows: Sequence[Row], problem: NaProblem) -> None:
    columns = [*problem.columns, *dict.fromkeys(name for row in rows for name in row if name not in problem.columns)]
    try:
        path.write_text(as_csv(rows, columns) + "\n")
    except OSError as error:
        raise RunDirectoryError(f"cannot write {path}: {error.strerror}") from error


def _print(rows: Sequence[Row], best: Network, problem: NaProblem) -> None:
    from rich.table import Table  # late, as all that only people need
    from rich.text import Text

    key = _test_key(problem, rows[0])
    titles = ("architecture", "search", problem.goal.text, key, "parameters", "seconds", "epochs", "trained")
    shown = [_cells(row, key, problem) for row in rows]
    used = [i for i, title in enumerate(titles) if title and any(cells[i] for cells in shown)]
    table = Table()
    for i in used:  # an architecture may be long, and is broken where there is no room
        table.add_column(titles[i], no_wrap=i > 0, overflow="fold", justify="right" if i else "left")
    for cells in shown:
        table.add_row(*(Text(cells[i]) for i in used))
    console = _console()
    console.print(Text("Trained again: mean and standard deviation", "bold"))
    console.print(table)
    _say(f"Best network: trial {best.trial.id}, {_headline(best, problem)}; {best.directory.name}/{MODEL_FILE}")


def _cells(row: Row, test_key: str, problem: NaProblem) -> tuple[str, ...]:
    others = [f"{name}={_number(row[name])}" for name in problem.columns[1:] if name in row]
    n = row["n_trained"]
    return (
        " ".join([",".join(map(str, row["arch_seq"])), *others]),
        _number(row["search_objective"]),
        _plus_minus(row, "objective"),
        _plus_minus(row, test_key),
        f"{row['n_parameters']:,}" if row.get("n_parameters") is not None else "",
        _number(row.get("seconds"), 3),
        _number(row.get("epochs"), 3),
        f"{n} of {n + row['n_failed']}",
    )


def _console() -> Console:
    from rich.console import Console

    # What a launcher collects, or a file, has no width.
    return Console(force_terminal=True) if in_terminal() else Console(force_terminal=False, width=WIDTH)


def _say(sentence: str) -> None:
    _console().print(sentence, highlight=False, markup=False, soft_wrap=True)


def _print_ensemble(content: Mapping[str, Any]) -> None:
    key = content["maximises"].removeprefix("-")
    alone = content["best_network"]
    sentence = (
        f"Ensemble of {len(content['members'])} of {content['n_candidates']} networks: {key} "
        f"{content['validation'][key]:.6g}, the best network alone {_number(alone['validation'].get(key), 6)}"
    )
    test_key = f"test_{key.removeprefix('val_')}"
    if content["test"]:
        sentence += f"; {test_key} {content['test'][test_key]:.6g}"
        if alone["test"]:
            sentence += f", the best network alone {_number(alone['test'].get(test_key), 6)}"
    if content["n_without_predictions"]:
        sentence += f"; {content['n_without_predictions']} networks were no candidates, their predictions are not there"
    _say(f"{sentence}; {ENSEMBLE_FILE}")


def _headline(network: Network, problem: NaProblem) -> str:
    metrics = network.outcome.metrics
    words = [f"{problem.goal.text} {network.objective:.6g}"]
    key = _test_key(problem, {f"{name}_mean": value for name, value in metrics.items()})
    if isinstance(metrics.get(key), (int, float)):
        words.append(f"{key} {metrics[key]:.6g}")
    if metrics.get("n_parameters") is not None:
        words.append(f"{metrics['n_parameters']:,} parameters")
    return ", ".join(words)


def _test_key(problem: NaProblem, row: Mapping[str, Any]) -> str:
    """Return the metric of the test data to show: that of the objective, else the first that there is."""
    wanted = f"test_{problem.goal.metric}"
    if f"{wanted}_mean" in row:
        return wanted
    found = [name for name in row if name.startswith("test_") and name.endswith("_mean")]
    found.sort(key=lambda name: name == "test_loss_mean")
    return found[0].removesuffix("_mean") if found else ""


def _plus_minus(row: Row, name: str) -> str:
    mean, std = row.get(f"{name}_mean"), row.get(f"{name}_std")
    if mean is None:
        return ""
    return f"{mean:.5g}" if std is None else f"{mean:.5g} ± {std:.2g}"


def _number(value: Any, digits: int = 5) -> str:
    if value is None:
        return ""
    return f"{value:.{digits}g}" if isinstance(value, float) else str(value)


def _draw(path: Path, best: Network, problem: NaProblem) -> None:
    """Draw the best network, where that is possible."""
    if not problem.architecture_space.has_graph:
        return
    from dhmpi.nas.show import draw

    title = f"trial {best.trial.id}: {problem.goal.text} {best.objective:.5g}"
    try:
        draw(problem.architecture_space, best.trial.config["arch_seq"], path, build=False, title=title)
    except ImportError:
        print(f"{path.name} is not drawn: matplotlib is not installed", flush=True)


# --- Parts of an ensemble


def _candidates(directory: Path, done: Sequence[Network]) -> tuple[list[Network], list[ensemble.Predictions], int]:
    """Return those that have predictions, these, and how many have not; as many as fit into memory, best first."""
    candidates: list[Network] = []
    predictions: list[ensemble.Predictions] = []
    n_without = size = 0
    for network in done:
        found = ensemble.load(network.directory / PREDICTIONS_FILE)
        if found is None:
            n_without += 1
            continue
        if predictions and found.digest != predictions[0].digest:
            raise RunDirectoryError(
                f"trials {candidates[0].trial.id} and {network.trial.id} were validated with different data, so they "
                f"make no ensemble: load_data must return the same each time"
            )
        size += sum(output.nbytes for output in found.outputs)
        if candidates and size > MAX_CANDIDATES_BYTES:
            break
        candidates.append(network)
        predictions.append(found if not predictions else replace(found, targets=predictions[0].targets))
    if not candidates:
        raise RunDirectoryError(
            f"no network in {directory} has its predictions ({PREDICTIONS_FILE}), of which an ensemble is made"
        )
    return candidates, predictions, n_without


def _aim(problem: NaProblem, n_outputs: int) -> Aim:
    """Return what an ensemble maximises: the objective if it is a metric of the predictions, else the first metric."""
    sources = problem.post_metric_sources(n_outputs)
    key, sign = problem.goal.key, problem.goal.sign
    if key not in sources:
        known = [(key, direction(metric_name(source))) for key, (_, source) in sources.items()]
        key, sign = next((found for found in known if found[1]), ("", 0))
    if not sign:
        raise OptionError(
            f"--ensemble maximises a metric, and neither is the objective {problem.goal.text} one nor is there another "
            f"whose name says which way is better: add one with post_training(metrics=...)"
        )
    return Aim(key, sign, {name: (i, resolve(source)) for name, (i, source) in sources.items()})


def _test_scores(aim: Aim, members: Mapping[int, Network], weights: Mapping[int, float]) -> dict[str, float] | None:
    """Return the metrics of an ensemble on the test data; None if there are none."""
    predictions = {i: ensemble.load(member.directory / TEST_PREDICTIONS_FILE) for i, member in members.items()}
    found = {i: p for i, p in predictions.items() if p is not None}
    if len(found) < len(predictions):
        return None
    combined = ensemble.combine({i: p.outputs for i, p in found.items()}, weights)
    scores = evaluate(aim.metrics, next(iter(found.values())).targets, combined)
    return {f"test_{name.removeprefix('val_')}": value for name, value in scores.items()}


def _of(metrics: Mapping[str, Any], prefix: str, aim: Aim) -> dict[str, Any]:
    """Return the entries of an outcome that belong to the metrics of the predictions."""
    names = (prefix + key.removeprefix("val_") for key in aim.metrics)
    return {name: metrics[name] for name in names if name in metrics}
