"""Configurations as rows of numbers: the bridge between a ConfigSpace and the searches.

A row lies in the unit cube, one column a hyperparameter, and is canonical: discrete values sit in the middle of their
cell, floats on a grid of 2**-40 of their range, inactive hyperparameters are NaN.  So equal configurations have equal
rows, bit for bit, also after they went through JSON.  Start reading at :class:`Encoding`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from operator import itemgetter
from typing import Any

import ConfigSpace
import numpy as np
from ConfigSpace.hyperparameters import (
    FloatHyperparameter,
    Hyperparameter,
    IntegerHyperparameter,
    UniformFloatHyperparameter,
    UniformIntegerHyperparameter,
)
from scipy.special import ndtri

from dhmpi.errors import ProblemError
from dhmpi.trials import Config

ENUMERABLE = 300_000
"""A finite space of at most so many configurations is listed, counted exactly and exhausted."""

_GRID = 2.0**40
_CATEGORY = 0.7  # two categories are then about as far apart as the two ends of a number
_STEP = 0.1  # standard deviation of a step, in units of the range
_ROUNDS = 200  # of rejection sampling without a single valid point, before giving up
_ABSENT = object()


class Encoding:
    """Maps configurations of a space to rows of the unit cube and back, many at a time.

    Conditions and forbidden clauses are evaluated by ConfigSpace's own vectorised rules, so that what is proposed is
    valid by the very definition that checks it.

    Parameters
    ----------
    space : ConfigurationSpace
        At least one hyperparameter; choices must be bool, int, float, str or None.

    Attributes
    ----------
    names : tuple of str
        Hyperparameters in the order of the columns; parents come before their children.
    n_dims : int
        Number of columns.
    n_free : int
        Number of hyperparameters that can vary.
    n_conditional : int
        Number of hyperparameters that are not always active.
    nominal : ndarray of bool, shape (n_dims,)
        Which hyperparameters are choices without an order.
    groups : ndarray of shape (n_features,)
        Which free hyperparameter, counted from 0, a column of :meth:`features` belongs to.

    Raises
    ------
    ProblemError
        If the space is empty or a choice is of another type.
    """

    def __init__(self, space: ConfigSpace.ConfigurationSpace) -> None:
        if not len(space):
            raise ProblemError("the space has no hyperparameters; add at least one")
        self.space = space
        self.names = tuple(space.keys())
        self.n_dims = len(self.names)
        hyperparameters = [space[name] for name in self.names]
        self._choices = [_choices(hp) for hp in hyperparameters]
        self._index = [{choice: i for i, choice in enumerate(choices or ())} for choices in self._choices]
        self.nominal = np.array([_is_nominal(hp) for hp in hyperparameters])
        self._discrete = np.array([not isinstance(hp, FloatHyperparameter) for hp in hyperparameters])
        self._log = np.array([bool(getattr(hp, "log", False)) for hp in hyperparameters])
        # A float lies in [least, most], an integer v in the cell [v, v + 1), choice number i in [i, i + 1).
        self._least = np.array([float(getattr(hp, "lower", 0)) for hp in hyperparameters])
        self._most = self._least + [hp.size - 1 if self._discrete[j] else 0 for j, hp in enumerate(hyperparameters)]
        for j in np.flatnonzero(~self._discrete):
            self._most[j] = float(getattr(hyperparameters[j], "upper", 0))
        self._cells = np.where(self._discrete, self._most - self._least + 1, np.inf)
        self._low, self._high = self._least.copy(), self._most + self._discrete
        self._low[self._log], self._high[self._log] = np.log(self._low[self._log]), np.log(self._high[self._log])
        self._log_cells = self._log & self._discrete
        self._priors = [self._prior(hp, j) for j, hp in enumerate(hyperparameters)]
        self._weighted = {j: prior for j, prior in enumerate(self._priors) if prior is not None and self.nominal[j]}
        self._conditions = [list(space.parent_conditions_of[name]) for name in self.names]
        self._clauses = list(space.forbidden_clauses)
        self._conditional = [j for j, conditions in enumerate(self._conditions) if conditions]
        self.n_conditional = len(self._conditional)
        self._numeric = all(choices is None for choices in self._choices)
        self._row_of = itemgetter(*self.names) if self.n_dims > 1 else lambda config: (config[self.names[0]],)

        self._free = np.flatnonzero(self._cells > 1)
        self.n_free = len(self._free)
        widths = np.where(self.nominal, np.where(np.isinf(self._cells), 1, self._cells), 1).astype(int)[self._free]
        self.groups = np.repeat(np.arange(self.n_free), widths)
        self._first_feature = np.cumsum(widths) - widths

    @property
    def n_features(self) -> int:
        """Number of columns of :meth:`features`."""
        return len(self.groups)

    @cached_property
    def size(self) -> int | float:
        """Number of distinct configurations: ``inf`` with any float, exact up to `ENUMERABLE`, above it a bound."""
        if not self._discrete.all():
            return math.inf
        bound = math.prod(int(cells) for cells in self._cells)
        if not self._clauses and not self.n_conditional:
            return bound
        rows = self.enumerated
        return bound if rows is None else len(rows)

    @cached_property
    def enumerated(self) -> np.ndarray | None:
        """Every configuration, shape (size, n_dims), in a fixed order; ``None`` if there are more than `ENUMERABLE`."""
        if not self._discrete.all():
            return None
        values = np.full((1, self.n_dims), np.nan)
        for j in range(self.n_dims):
            copies = np.where(self._is_active(self._vectors(values), j), self._cells[j], 1)
            if copies.sum() > 4 * ENUMERABLE:
                return None
            parent = np.repeat(np.arange(len(values)), copies.astype(int))
            within = np.arange(len(parent)) - np.searchsorted(parent, parent)
            values = values[parent]
            active = self._is_active(self._vectors(values), j)
            values[active, j] = self._least[j] + within[active]
        values = values[~self._is_forbidden(self._vectors(values))]
        return self._units(values) if len(values) <= ENUMERABLE else None

    def sample(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """Draw valid configurations from the prior of the space (uniform unless a hyperparameter says otherwise).

        Parameters
        ----------
        rng : Generator
        n : int
            How many rows; repeats are possible.

        Returns
        -------
        ndarray of shape (n, n_dims)

        Raises
        ------
        ProblemError
            If the forbidden clauses leave (almost) nothing of the space.
        """
        found: list[np.ndarray] = []
        missing, rounds = n, 0
        while missing > 0:
            rows = self.place(rng.random((missing if not found and not rounds else max(missing, 256), self.n_dims)))
            rounds = 0 if len(rows) else rounds + 1
            if rounds == _ROUNDS:
                every = self.enumerated
                if every is None or not len(every):
                    raise ProblemError(
                        f"{256 * _ROUNDS} random configurations all break a forbidden clause;"
                        " loosen the clauses or narrow the ranges"
                    )
                rows = every[rng.integers(len(every), size=missing)]
            found.append(rows[:missing])
            missing -= len(found[-1])
        return np.concatenate(found) if len(found) != 1 else found[0]

    def default(self) -> np.ndarray:
        """Return the default configuration, shape (1, n_dims); ConfigSpace refuses clauses that forbid it."""
        numbers = [
            choice[hp.default_value] if choice else float(hp.default_value)
            for hp, choice in zip((self.space[name] for name in self.names), self._index)
        ]
        return self.resolve(self._units(np.array([numbers], dtype=float)))[0]

    def place(self, quantiles: np.ndarray) -> np.ndarray:
        """Return the valid ones of the configurations that stand at quantiles of each hyperparameter's prior.

        Parameters
        ----------
        quantiles : ndarray of shape (n, n_dims)
            In [0, 1), e.g. a low-discrepancy sequence.

        Returns
        -------
        ndarray of shape (m, n_dims), m <= n
            Without those that a clause forbids.
        """
        rows, valid = self.resolve(self._at(quantiles))
        return rows if valid.all() else rows[valid]

    def _at(self, quantiles: np.ndarray) -> np.ndarray:
        """Return the units that stand at quantiles of each hyperparameter's prior, shape (n, n_dims)."""
        raw = np.array(quantiles, dtype=float)
        for j, prior in enumerate(self._priors):
            if prior is None:
                continue
            if self._choices[j] is None:
                raw[:, j] = np.interp(raw[:, j], np.linspace(0, 1, len(prior)), prior)
            else:
                choice = np.searchsorted(prior, raw[:, j], side="right")
                raw[:, j] = (np.minimum(choice, len(prior) - 1) + 0.5) / len(prior)
        return raw

    def resolve(self, raw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Make rows canonical: snap discrete values, decide which hyperparameters are active.

        Parameters
        ----------
        raw : ndarray of shape (n, n_dims)
            In [0, 1], nowhere NaN.

        Returns
        -------
        rows : ndarray of shape (n, n_dims)
            NaN where inactive.
        valid : ndarray of bool, shape (n,)
            False where a clause forbids the configuration.
        """
        rows = np.where(self._discrete, raw, _on_grid(raw))
        values = self._values(rows)
        vectors = self._vectors(values) if self.n_conditional or self._clauses else values.T
        for j in self._conditional:
            inactive = ~self._is_active(vectors, j)
            values[inactive, j] = vectors[j, inactive] = np.nan
        rows = np.where(self._discrete, self._units(values), np.where(np.isnan(values), np.nan, rows))
        return rows, ~self._is_forbidden(vectors)

    def decode(self, rows: np.ndarray) -> list[Config]:
        """Return the configurations of `rows`, shape (n, n_dims), as plain Python values; inactive ones are absent."""
        values = self._values(rows)
        if self._numeric and not self._discrete.any() and not self.n_conditional:
            names = self.names
            return [dict(zip(names, row)) for row in values.tolist()]
        columns = [self._column(values[:, j], j) for j in range(self.n_dims)]
        if not self.n_conditional:
            return [dict(zip(self.names, row)) for row in zip(*columns)]
        return [{name: value for name, value in zip(self.names, row) if value is not _ABSENT} for row in zip(*columns)]

    def encode(self, configs: Sequence[Config]) -> np.ndarray:
        """Return the canonical rows of configurations, shape (n, n_dims).

        Raises
        ------
        ProblemError
            If one lacks an unconditional hyperparameter, or has a value that is none of the choices.
        """
        if not len(configs):
            return np.empty((0, self.n_dims))
        try:
            if not self.n_conditional and self._numeric:
                values = np.array(list(map(self._row_of, configs)), dtype=float)
            else:
                values = np.empty((len(configs), self.n_dims))
                for j in range(self.n_dims):
                    values[:, j] = self._numbers(configs, j)
        except KeyError as error:
            raise ProblemError(
                f"a configuration lacks hyperparameter {error}, or that is a value which the hyperparameter cannot take"
            ) from error
        return self._units(values)

    def native(self, config: Config) -> Config:
        """Return a configuration with values of the types that :meth:`decode` gives, in its order.

        Raises
        ------
        ProblemError
            If it is not a configuration of the space.
        """
        unknown = sorted(config.keys() - set(self.names))
        if unknown:
            raise ProblemError(f"{config!r} has unknown hyperparameter(s) {', '.join(unknown)}")
        try:
            ConfigSpace.Configuration(self.space, values=config)
        except (ValueError, TypeError) as error:
            reason = " ".join(str(error).split())
            raise ProblemError(f"{config!r} is no configuration of the space: {reason}") from error
        result = {}
        for j, name in enumerate(self.names):
            if name in config:
                choices = self._choices[j]
                if choices is not None:
                    result[name] = choices[self._index[j][config[name]]]
                else:
                    result[name] = int(config[name]) if self._discrete[j] else float(config[name])
        return result

    def identity(self, config: Config) -> bytes:
        """Return what is equal for equal configurations (floats: equal to 2**-41 of the range), and hashable."""
        return self.encode([config])[0].tobytes()

    def identities(self, rows: np.ndarray) -> list[bytes]:
        """Return :meth:`identity` of each row, shape (n, n_dims)."""
        data, width = np.ascontiguousarray(rows, dtype=float).tobytes(), 8 * self.n_dims
        return [data[i : i + width] for i in range(0, len(data), width)]

    def activity(self, rows: np.ndarray) -> np.ndarray:
        """Return which hyperparameters are active, bool of shape (n, n_dims)."""
        return ~np.isnan(rows)

    def features(self, rows: np.ndarray) -> np.ndarray:
        """Return what models see of rows.

        Numbers and ordinals are in [0, 1], on the log scale where they are logarithmic.  A categorical is one-hot
        times 0.7, so that two of its values are about as far apart as the ends of a number.  What cannot vary is left
        out.  An inactive number is 0.5 and an inactive categorical all zeros: constants, so that they add nothing to
        the distance between two configurations that both lack them (which a Gaussian process measures), while their
        parents' columns, which are there too, tell active from inactive (which a tree can split on).

        Parameters
        ----------
        rows : ndarray of shape (n, n_dims)

        Returns
        -------
        ndarray of shape (n, n_features)
        """
        result = np.zeros((len(rows), self.n_features))
        for j, first in zip(self._free, self._first_feature):
            column = rows[:, j]
            active = ~np.isnan(column)
            if self.nominal[j]:
                choice = (column[active] * self._cells[j]).astype(int)
                result[np.flatnonzero(active), first + choice] = _CATEGORY
            elif np.isinf(self._cells[j]):
                result[:, first] = np.where(active, column, 0.5)
            else:
                # Cell centres would leave the ends of a short range out of reach: stretch them to [0, 1].
                ends = self._ends[:, j]
                result[:, first] = np.where(active, (column - ends[0]) / (ends[1] - ends[0]), 0.5)
        return result

    def mutate(
        self, rows: np.ndarray, scale: float | np.ndarray, chance: float, rng: np.random.Generator
    ) -> np.ndarray:
        """Perturb each row in some of its free hyperparameters, at least one.

        Parameters
        ----------
        rows : ndarray of shape (n, n_dims)
        scale : float or ndarray of shape (n, 1)
            Standard deviation of a step, in units of a hyperparameter's range; a discrete one steps at least to its
            neighbours now and then, a categorical one takes any value.
        chance : float
            That a hyperparameter is perturbed.

        Returns
        -------
        ndarray of shape (m, n_dims), m <= n
            The valid ones.
        """
        n = len(rows)
        filled = self._filled(rows, rng)
        chosen = rng.random((n, self.n_dims)) < chance
        if self.n_free:
            chosen[np.arange(n), self._free[rng.integers(self.n_free, size=n)]] = True
        steps = rng.normal(0, np.maximum(scale, 0.7 / self._cells), (n, self.n_dims))
        moved = np.where(self.nominal, rng.random((n, self.n_dims)), _reflected(filled + steps))
        result, valid = self.resolve(np.where(chosen, moved, filled))
        return result[valid]

    def change_one(
        self, rows: np.ndarray, rng: np.random.Generator, among: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Give one hyperparameter of each row another value, each that is active and can vary with the same chance.

        A categorical takes any other of its choices, by their weights.  A number or an ordinal is drawn anew from its
        prior half of the time; else it takes a normal step of a tenth of its range, a discrete one at least to a
        neighbour.  What becomes active thereby is drawn from its prior.

        Parameters
        ----------
        rows : ndarray of shape (n, n_dims)
        rng : Generator
        among : ndarray of int, optional
            Columns of the hyperparameters that may change; by default all.

        Returns
        -------
        rows : ndarray of shape (n, n_dims)
        valid : ndarray of bool, shape (n,)
            False where a clause forbids the configuration.
        """
        n, everywhere = len(rows), np.ones(len(rows), dtype=bool)
        free = self._free if among is None else np.intersect1d(self._free, among)
        if not len(free):
            return rows, everywhere
        columns, able = free[rng.integers(len(free), size=n)], everywhere
        if self.n_conditional:
            active = ~np.isnan(rows[:, free])
            columns = free[np.argmax(np.where(active, rng.random(active.shape), -1.0), axis=1)]
            able = active.any(axis=1)
        at = (np.arange(n), columns)
        changed = rows.copy()
        changed[at] = np.where(able, self._others(rows[at], columns, rng), rows[at])
        if not self.n_conditional and not self._clauses:
            return changed, everywhere
        return self.resolve(self._drawn(changed, rng))

    def put(
        self, rows: np.ndarray, columns: np.ndarray, units: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Give some hyperparameters of each row other values; what becomes active thereby is drawn from its prior.

        Parameters
        ----------
        rows : ndarray of shape (n, n_dims)
        columns : ndarray of int, shape (m,)
        units : ndarray of shape (n, m)
            Where NaN, a hyperparameter that turns out to be active is drawn, too.
        rng : Generator

        Returns
        -------
        rows : ndarray of shape (n, n_dims)
        valid : ndarray of bool, shape (n,)
            False where a clause forbids the configuration.
        """
        result = rows.copy()
        result[:, columns] = units
        if not self.n_conditional and not self._clauses:
            return result, np.ones(len(rows), dtype=bool)
        return self.resolve(self._drawn(result, rng))

    def _drawn(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return rows with what is inactive drawn from its prior: it may become active."""
        return np.where(np.isnan(rows), self._at(rng.random(rows.shape)), rows) if self.n_conditional else rows

    def _others(self, units: np.ndarray, columns: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return for units of some columns, shape (n,) both, those of other values: what :meth:`change_one` changes."""
        u, which = rng.random(len(units)), rng.random(len(units))
        result = np.empty(len(units))
        nominal = self.nominal[columns]
        if nominal.any():
            result[nominal] = self._other_choices(units[nominal], columns[nominal], u[nominal])
        if not nominal.all():
            numbers = ~nominal
            result[numbers] = self._other_numbers(units[numbers], columns[numbers], u[numbers], which[numbers] < 0.5)
        return result

    def _other_choices(self, units: np.ndarray, columns: np.ndarray, u: np.ndarray) -> np.ndarray:
        """Return another choice for each, at quantile `u` of those that there are."""
        cells = self._cells[columns]
        old = np.floor(units * cells)
        new = (old + 1 + np.floor(u * (cells - 1))) % cells
        for j, cumulated in self._weighted.items():
            if not (here := columns == j).any():
                continue
            choice = old[here].astype(int)
            weight = np.diff(cumulated, prepend=0.0)[choice]
            # A quantile of what the old choice leaves, moved past the old one's share.
            quantile = u[here] * (1 - weight)
            quantile = np.where(quantile >= cumulated[choice] - weight, quantile + weight, quantile)
            other = np.minimum(np.searchsorted(cumulated, quantile, side="right"), len(cumulated) - 1)
            new[here] = np.where(other == choice, (choice + 1) % len(cumulated), other)
        return (new + 0.5) / cells

    def _other_numbers(self, units: np.ndarray, columns: np.ndarray, u: np.ndarray, near: np.ndarray) -> np.ndarray:
        """Return another number for each: a normal step away where `near`, else at quantile `u` of its prior."""
        rows, at = np.full((len(units), self.n_dims), 0.5), (np.arange(len(units)), columns)
        rows[at] = u
        steps = _STEP * ndtri(np.clip(u, 1e-12, 1 - 1e-12))
        rows[at] = new = np.where(near, _reflected(units + steps), self._at(rows)[at])
        values = self._values(rows)
        rows[at] = units
        old = self._values(rows)[at]
        # A discrete value that would stay moves to a neighbour.
        neighbour = old + np.where(u < 0.5, -1, 1)
        neighbour = np.where(neighbour < self._least[columns], old + 1, neighbour)
        neighbour = np.where(neighbour > self._most[columns], old - 1, neighbour)
        values[at] = np.where(values[at] == old, neighbour, values[at])
        return np.where(self._discrete[columns], self._units(values)[at], _on_grid(new))

    def mix(
        self, first: np.ndarray, second: np.ndarray, rng: np.random.Generator, share: float = 0.5
    ) -> tuple[np.ndarray, np.ndarray]:
        """Take each hyperparameter from the first parent with probability `share`, else from the second.

        Where neither has it and it becomes active, it is drawn from its prior.

        Returns
        -------
        rows : ndarray of shape (n, n_dims)
        valid : ndarray of bool, shape (n,)
            False where a clause forbids the configuration.
        """
        mixed = np.where(rng.random(first.shape) < share, first, second)
        return self.resolve(self._drawn(mixed, rng))

    def cross(self, first: np.ndarray, second: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Take each hyperparameter from the first parent with probability 0.7, else from the second; the valid ones."""
        mine = rng.random(first.shape) < 0.7
        result, valid = self.resolve(self._filled(np.where(mine, first, second), rng))
        return result[valid]

    @cached_property
    def _ends(self) -> np.ndarray:
        """Units of the smallest and the largest value, shape (2, n_dims)."""
        return self._units(np.stack([self._least, self._most]))

    def _prior(self, hp: Hyperparameter, j: int) -> np.ndarray | None:
        """Return the quantiles of a number's prior in units, the cumulated weights of choices, ``None`` if uniform."""
        if isinstance(hp, ConfigSpace.CategoricalHyperparameter):
            return np.cumsum(hp.probabilities) if hp.weights is not None else None
        uniform = (UniformFloatHyperparameter, UniformIntegerHyperparameter)
        if isinstance(hp, uniform) or not isinstance(hp, (FloatHyperparameter, IntegerHyperparameter)):
            return None
        drawn = hp.sample_vector(1 << 14, seed=np.random.RandomState(0))  # ConfigSpace draws from legacy generators
        values = np.tile(self._least, (len(drawn), 1))
        values[:, j] = hp.to_value(drawn)
        return np.sort(self._units(values)[:, j])

    def _filled(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return rows with random values for what is inactive: a mutation may activate it."""
        inactive = np.isnan(rows)
        return np.where(inactive, rng.random(rows.shape), rows) if inactive.any() else rows

    def _values(self, rows: np.ndarray) -> np.ndarray:
        """Return rows in the hyperparameters' own units; a choice is its number.  NaN stays NaN."""
        values = self._low * (1 - rows) + self._high * rows  # not low + (high - low) * rows: that can overflow
        if self._log.any():
            values[:, self._log] = np.exp(values[:, self._log])
        if self._discrete.any():
            values[:, self._discrete] = np.floor(values[:, self._discrete])
        return np.clip(values, self._least, self._most)

    def _units(self, values: np.ndarray) -> np.ndarray:
        """Return the canonical rows of values; the inverse of :meth:`_values`."""
        scaled = values + np.where(self._discrete, 0.5, 0.0)
        if self._log.any():
            scaled[:, self._log] = np.log(values[:, self._log])
            if self._log_cells.any():
                cells = values[:, self._log_cells]
                scaled[:, self._log_cells] = (np.log(cells) + np.log(cells + 1)) / 2
        halves = self._high / 2 - self._low / 2
        rows = np.clip((scaled / 2 - self._low / 2) / np.where(halves > 0, halves, 1), 0, 1)
        floats = ~self._discrete
        rows[:, floats] = _on_grid(rows[:, floats])
        return rows

    def _vectors(self, values: np.ndarray) -> np.ndarray:
        """Return values as ConfigSpace's own vectors, shape (n_dims, n)."""
        vectors = values.T.copy()
        for j, name in enumerate(self.names):
            hp = self.space[name]
            if isinstance(hp, ConfigSpace.Constant):
                vectors[j] = np.where(np.isnan(vectors[j]), np.nan, float(hp.to_vector(hp.value)))
            elif self._choices[j] is None:
                vectors[j] = hp.to_vector(vectors[j])
        return vectors

    def _is_active(self, vectors: np.ndarray, j: int) -> np.ndarray:
        active = np.ones(vectors.shape[1], dtype=bool)
        for condition in self._conditions[j]:
            active &= condition.satisfied_by_vector_array(vectors)
        return active

    def _is_forbidden(self, vectors: np.ndarray) -> np.ndarray:
        forbidden = np.zeros(vectors.shape[1], dtype=bool)
        for clause in self._clauses:
            forbidden |= clause.is_forbidden_vector_array(vectors)
        return forbidden

    def _column(self, values: np.ndarray, j: int) -> list[Any]:
        """Return one column as plain Python values."""
        if not self._discrete[j]:
            column = values.tolist()
        else:
            column = np.nan_to_num(values).astype(np.int64).tolist()
            choices = self._choices[j]
            if choices is not None:
                column = list(map(choices.__getitem__, column))
        if self._conditions[j]:
            for i in np.flatnonzero(np.isnan(values)):
                column[i] = _ABSENT
        return column

    def _numbers(self, configs: Sequence[Config], j: int) -> list[float]:
        """Return one hyperparameter of configurations as numbers, NaN where it is absent."""
        name, index, choices = self.names[j], self._index[j], self._choices[j]
        if self._conditions[j]:
            if choices is None:
                return [config.get(name, math.nan) for config in configs]
            return [index[config[name]] if name in config else math.nan for config in configs]
        if choices is None:
            return [config[name] for config in configs]
        return [index[config[name]] for config in configs]


def _choices(hp: Hyperparameter) -> tuple[Any, ...] | None:
    """Return the choices of a hyperparameter as plain Python values, ``None`` if it is a number."""
    if isinstance(hp, (FloatHyperparameter, IntegerHyperparameter)):
        return None
    if isinstance(hp, ConfigSpace.Constant):
        choices: Sequence[Any] = (hp.value,)
    elif isinstance(hp, ConfigSpace.OrdinalHyperparameter):
        choices = hp.sequence
    elif isinstance(hp, ConfigSpace.CategoricalHyperparameter):
        choices = hp.choices
    else:
        raise ProblemError(f"hyperparameter {hp.name!r} is of the unknown kind {type(hp).__name__}")
    plain = tuple(choice.item() if isinstance(choice, np.generic) else choice for choice in choices)
    for choice in plain:
        if not isinstance(choice, (bool, int, float, str, type(None))):
            raise ProblemError(
                f"hyperparameter {hp.name!r} has the choice {choice!r} of type {type(choice).__name__};"
                " choices must be bool, int, float, str or None"
            )
    return plain


def _is_nominal(hp: Hyperparameter) -> bool:
    return isinstance(hp, ConfigSpace.CategoricalHyperparameter)


def _on_grid(units: np.ndarray) -> np.ndarray:
    return np.rint(units * _GRID) / _GRID


def _reflected(units: np.ndarray) -> np.ndarray:
    """Mirror what left [0, 1] at the border that it crossed."""
    folded = np.abs(units) % 2
    return np.where(folded > 1, 2 - folded, folded)
