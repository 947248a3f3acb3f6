"""Which hyperparameters mattered: a forest is fitted to the evaluations and asked.

Permutation importance says how much of the forest's accuracy is lost when one column is shuffled (Breiman 2001, Random
forests, Machine Learning 45); partial dependence is its mean prediction as one hyperparameter varies (Friedman 2001,
Greedy function approximation, Annals of Statistics 29).  Both are about the forest: its own accuracy is told with them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from dhmpi.analytics.study import ARCH_SEQ
from dhmpi.errors import OptionError
from dhmpi.tables import text

if TYPE_CHECKING:
    from dhmpi.analytics.study import Study
    from dhmpi.trials import Config

LEAST = 10
"""Evaluations without which a forest says nothing."""
MOST = 4_000
"""Evaluations that are fitted, the last ones and the best; more make it slow and tell little."""
N_TREES = 64
N_REPEATS = 5
N_SHUFFLED = 1_000
"""Evaluations among which a column is shuffled."""
N_POINTS = 25
"""Points of a partial dependence."""
N_SAMPLES = 200
"""Evaluations over which a partial dependence is a mean."""
INACTIVE = "inactive"
FEW = 6
"""Values of a number up to which an axis has a mark for each."""
APART = 0.08
"""Part of an axis by which its marks are apart."""


@dataclass
class Column:
    """A hyperparameter as numbers.

    Attributes
    ----------
    name : str
    values : ndarray of shape (n,)
        The numbers, or for a categorical one the index of each category; less than all where it was inactive.
    categories : list of str
        Empty for a number.
    log : bool
        Whether its logarithm is shown: the problem says so, or it spans many orders of magnitude.
    least : float
        Below it was inactive.
    whole : bool
        Whether all its numbers are integers.
    """

    name: str
    values: np.ndarray
    categories: list[str] = field(default_factory=list)
    log: bool = False
    least: float = 0.0
    whole: bool = False

    @property
    def active(self) -> np.ndarray:
        """Return the values where it was active, sorted, without repetitions."""
        values = np.unique(self.values)
        return values[values >= self.least]

    def places(self, values: np.ndarray) -> np.ndarray:
        """Return where active values are on its axis, which goes from 0 to 1."""
        scale = np.log if self.log else np.asarray
        low, high = scale(self.active[0]), scale(self.active[-1])
        return (scale(values) - low) / (high - low) if high > low else np.full(np.shape(values), 0.5)

    @property
    def few(self) -> bool:
        """Whether it has so few values that its axis has a mark for each."""
        return len(self.active) <= FEW

    def marks(self) -> list[tuple[float, str]]:
        """Return values of a number that its axis shows, in words: a few, or both ends and the middle.

        Of few values those are left out that are too near to another.
        """
        values = self.active
        if not self.few:
            low, high = values[0], values[-1]
            middle = np.sqrt(low * high) if self.log else (low + high) / 2
            values = np.array([low, np.round(middle) if self.whole else middle, high])
        kept = list(values[:1])
        for value, place in zip(values[1:-1], self.places(values[1:-1])):
            if min(place - self.places(kept[-1]), 1 - place) >= APART:
                kept.append(value)
        kept += list(values[1:][-1:])
        return [(float(value), text(shown(self, value), 3)) for value in kept]


@dataclass
class Importance:
    """What mattered.

    Attributes
    ----------
    columns : list of Column
        The most important first.
    mean, std : ndarray of shape (n_columns,)
        Permutation importance: loss of R2, and its spread over shufflings.
    accuracy : float
        R2 of the forest on evaluations that it has not seen.
    n : int
        Evaluations.
    dependence : list of (ndarray, ndarray)
        For each column points, and the mean prediction there.
    objective : ndarray of shape (n,)
    chosen : ndarray of int, shape (n,)
        Indices of the evaluations in the study.
    """

    columns: list[Column]
    mean: np.ndarray
    std: np.ndarray
    accuracy: float
    n: int
    dependence: list[tuple[np.ndarray, np.ndarray]]
    objective: np.ndarray
    chosen: np.ndarray

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each hyperparameter."""
        rows = []
        for column, mean, std, (points, values) in zip(self.columns, self.mean, self.std, self.dependence):
            best, worst = int(np.argmax(values)), int(np.argmin(values))
            rows.append(
                {
                    "hyperparameter": column.name,
                    "importance": float(mean),
                    "std": float(std),
                    "best_at": shown(column, points[best]),
                    "worst_at": shown(column, points[worst]),
                    "effect": float(values[best] - values[worst]),
                }
            )
        return rows


def shown(column: Column, value: float) -> Any:
    """Return a value of a column as the hyperparameter has it."""
    if value < column.least:
        return INACTIVE
    if column.categories:
        return column.categories[int(value)]
    return round(value) if column.whole else float(value)


def columns_of(study: Study, chosen: Sequence[int], in_words: bool = False) -> list[Column]:
    """Return the hyperparameters of some evaluations as columns; an architecture has one for each decision.

    Parameters
    ----------
    study : Study
    chosen : sequence of int
    in_words : bool, default False
        Whether decisions and options have their names, where the problem can be asked, instead of their numbers.
    """
    configs = [study.configs[i] for i in chosen]
    logarithmic = study.run.logarithmic if study.run is not None else []
    columns = []
    for name in study.hyperparameters:
        if name != ARCH_SEQ:
            columns.append(_column(name, [config.get(name) for config in configs], name in logarithmic))
            continue
        length = max((len(config.get(name) or ()) for config in configs), default=0)
        if in_words and study.architecture_space is not None:
            columns += _named(study, configs)
            continue
        for i in range(length):
            values = [config[name][i] if i < len(config.get(name) or ()) else None for config in configs]
            columns.append(_column(f"{name}[{i}]", [None if value is None else str(value) for value in values]))
    return columns


def _named(study: Study, configs: Sequence[Config]) -> list[Column]:
    """Return a column for each decision, its options in their own order."""
    words = [study.chosen(config.get(ARCH_SEQ) or ()) for config in configs]
    space = study.architecture_space
    columns = []
    for decision in () if space is None else space.decisions:
        values = [chosen.get(decision.name) for chosen in words]
        categories = list(dict.fromkeys([*decision.options, *(value for value in values if value is not None)]))
        index = {category: i for i, category in enumerate(categories)}
        numbers = np.array([-1.0 if value is None else index[value] for value in values])
        columns.append(Column(decision.name, numbers, categories))
    return columns


def _column(name: str, values: Sequence[Any], log: bool = False) -> Column:
    known = [value for value in values if value is not None]
    if known and all(isinstance(value, int | float) and not isinstance(value, bool) for value in known):
        numbers = np.array([np.nan if value is None else float(value) for value in values])
        least, most = np.nanmin(numbers), np.nanmax(numbers)
        skewed = np.nanmedian(numbers) < 0.1 * (least + most)
        log = bool(least > 0 and (log or most / least >= 1000 or (most / least >= 100 and skewed)))
        below = least - 0.1 * (most - least or 1.0)
        whole = all(isinstance(value, int) for value in known)
        return Column(name, np.where(np.isnan(numbers), below, numbers), log=log, least=float(least), whole=whole)
    categories = sorted({str(value) for value in known}, key=_natural)
    index = {category: i for i, category in enumerate(categories)}
    numbers = np.array([-1.0 if value is None else index[str(value)] for value in values])
    return Column(name, numbers, categories)


def _natural(text: str) -> tuple[int, float, str]:
    return (0, float(text), "") if text.isdigit() else (1, 0.0, text)


def measure(study: Study, seed: int = 0) -> Importance:
    """Fit a forest to a run and return what mattered.

    Parameters
    ----------
    study : Study
    seed : int, default 0
        Of forest and shufflings.

    Raises
    ------
    OptionError
        If too few evaluations have an objective, or all have the same.
    """
    from sklearn.ensemble import RandomForestRegressor  # late: this takes seconds on a login node
    from sklearn.inspection import permutation_importance

    good = np.flatnonzero(study.succeeded)
    if len(good) < LEAST:
        raise OptionError(f"{study.path}: {len(good)} evaluations have an objective, at least {LEAST} are needed")
    if len(good) > MOST:
        best = good[np.argsort(-study.objective[good], kind="stable")[: MOST // 2]]
        good = np.union1d(best, good[-MOST // 2 :])
    y = study.objective[good]
    if np.ptp(y) == 0:
        raise OptionError(f"{study.path}: all objectives are {y[0]:g}, so nothing mattered")
    columns = [column for column in columns_of(study, list(good), in_words=True) if np.ptp(column.values) > 0]
    if not columns:
        raise OptionError(f"{study.path}: all configurations are the same, so nothing mattered")
    x = np.column_stack([column.values for column in columns])
    target = _bounded(y)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(y))
    tested, fitted = order[: max(3, len(y) // 4)], order[max(3, len(y) // 4) :]
    trial = RandomForestRegressor(N_TREES, min_samples_leaf=2, random_state=seed, n_jobs=1)
    accuracy = float(trial.fit(x[fitted], target[fitted]).score(x[tested], target[tested]))
    forest = RandomForestRegressor(N_TREES, min_samples_leaf=2, random_state=seed, n_jobs=1).fit(x, target)
    sample = rng.permutation(len(y))[:N_SHUFFLED]
    found = permutation_importance(forest, x[sample], target[sample], n_repeats=N_REPEATS, random_state=seed)
    rank = np.argsort(-found.importances_mean, kind="stable")
    background = x[rng.permutation(len(y))[:N_SAMPLES]]
    return Importance(
        columns=[columns[i] for i in rank],
        mean=found.importances_mean[rank],
        std=found.importances_std[rank],
        accuracy=accuracy,
        n=len(y),
        dependence=[_dependence(forest, background, int(i), columns[i]) for i in rank],
        objective=y,
        chosen=good,
    )


def _bounded(y: np.ndarray) -> np.ndarray:
    """Return objectives with far outliers below drawn in: what is hopeless should not decide what matters."""
    low, middle = np.quantile(y, [0.1, 0.5])
    return np.maximum(y, middle - 4 * (middle - low)) if middle > low else y


def _dependence(forest: Any, background: np.ndarray, i: int, column: Column) -> tuple[np.ndarray, np.ndarray]:
    values = np.unique(column.values) if column.categories else column.active
    if column.categories or len(values) <= N_POINTS:
        points = values
    elif column.log:
        points = np.geomspace(values[0], values[-1], N_POINTS)
    else:
        points = np.linspace(values[0], values[-1], N_POINTS)
    if column.whole:
        points = np.unique(np.round(points))
    many = np.tile(background, (len(points), 1))
    many[:, i] = np.repeat(points, len(background))
    return points, forest.predict(many).reshape(len(points), -1).mean(axis=1)


def operations(study: Study, k: int) -> list[dict[str, Any]]:
    """Return for each decision of an architecture search how often each option is among the best, and among all.

    Parameters
    ----------
    study : Study
    k : int
        Of the best.

    Returns
    -------
    list of dict
        ``decision`` and ``option`` are numbers; ``name`` and ``operation`` say the same in words.
    """
    best = [study.configs[i][ARCH_SEQ] for i in study.best(k) if ARCH_SEQ in study.configs[i]]
    everything = [config[ARCH_SEQ] for config in study.configs if ARCH_SEQ in config]
    rows = []
    for i in range(min(map(len, everything), default=0)):
        among_best, among_all = Counter(arch[i] for arch in best), Counter(arch[i] for arch in everything)
        for option in sorted(among_all):
            words = list(study.chosen([*everything[0][:i], option]).items())
            rows.append(
                {
                    "decision": i,
                    "option": option,
                    "name": words[i][0],
                    "operation": words[i][1],
                    "share_of_best": among_best[option] / len(best) if best else 0.0,
                    "share_of_all": among_all[option] / len(everything),
                }
            )
    return rows


def n_architectures(study: Study) -> int:
    """Return how many different architectures were evaluated."""
    return len({tuple(config[ARCH_SEQ]) for config in study.configs if ARCH_SEQ in config})
