"""The problem: which hyperparameters there are, and where to start.

A space is a ConfigSpace (conditions and forbidden clauses included); this module gives it the short notation that users
of DeepHyper know, and refuses early, in one sentence, what no search, journal or results.csv could carry.  It knows
nothing of searches.  Importing it costs half a second and 75 MB (scipy, through ConfigSpace): whatever an evaluation
needs does not.  Start reading at :class:`HpProblem`.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import ConfigSpace
import numpy as np
from ConfigSpace.conditions import Condition, Conjunction
from ConfigSpace.exceptions import ActiveHyperparameterNotSetError, ForbiddenValueError
from ConfigSpace.forbidden import ForbiddenClause, ForbiddenConjunction, ForbiddenRelation
from ConfigSpace.hyperparameters import (
    CategoricalHyperparameter,
    Constant,
    FloatHyperparameter,
    Hyperparameter,
    IntegerHyperparameter,
    OrdinalHyperparameter,
    UniformFloatHyperparameter,
    UniformIntegerHyperparameter,
)

from dhmpi.errors import ProblemError
from dhmpi.results import FIXED_COLUMNS, METRIC_PREFIX
from dhmpi.trials import Config

PRIORS = ("uniform", "log-uniform")
MAX_INTEGER = 10**15
"""Largest bound of an integer hyperparameter, either way: searches compute with floats of 53 bits."""
MAX_FLOAT = 1e200
"""Largest bound of a float hyperparameter, either way."""
DECIMALS = 13
"""ConfigSpace rounds the bounds of floats to so many."""
MAX_SHOWN = 20
"""Choices or names that a message or a table lists."""

_ConditionLike = Condition | Conjunction
_ForbiddenLike = ForbiddenClause | ForbiddenConjunction | ForbiddenRelation


class HpProblem:
    """The hyperparameters of a function to be maximised, and configurations to try first.

    Parameters
    ----------
    seed : int, optional
        Of what you draw yourself with ``problem.space.sample_configuration()``; searches have ``--seed``.

    Raises
    ------
    ProblemError
        By all methods, in one sentence, as soon as something cannot work.

    Examples
    --------
    >>> problem = HpProblem()
    >>> _ = problem.add_hyperparameter((1e-4, 1e-1, "log-uniform"), "learning_rate")
    >>> units = problem.add_hyperparameter((8, 512), "units")
    >>> activation = problem.add_hyperparameter(["relu", "tanh"], "activation")
    >>> problem.add_starting_point(learning_rate=1e-3, units=64, activation="relu")
    >>> problem.starting_points
    [{'learning_rate': 0.001, 'units': 64, 'activation': 'relu'}]
    """

    def __init__(self, seed: int | None = None) -> None:
        if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32):
            raise ProblemError(f"the seed of a problem must be an integer in [0, 2**32), got {seed!r}")
        self._space = ConfigSpace.ConfigurationSpace(seed=seed)
        self._names: list[str] = []
        self._starting_points: list[dict[str, Any]] = []

    @property
    def space(self) -> ConfigSpace.ConfigurationSpace:
        """The ConfigSpace underneath; what is added to it directly counts too."""
        return self._space

    def add_hyperparameter(self, value: Any, name: str | None = None, default_value: Any = None) -> Hyperparameter:
        """Add a hyperparameter.

        Parameters
        ----------
        value : tuple, list, constant or ConfigSpace hyperparameter
            - ``(low, high)`` or ``(low, high, "log-uniform")``: a range with both ends; integers if both are int,
              floats if any is.
            - a list: choices, without order (categorical) if any is a str or a bool, in the order given (ordinal) if
              all are numbers.
            - an int, float, str or bool: a constant, handed to the function with every configuration.
            - a ConfigSpace hyperparameter: as it is.
        name : str, optional
            How the function finds it in its configuration; only a ConfigSpace hyperparameter has a name already.
        default_value : optional
            Of the default configuration; by default the middle of a range, the first of a list.

        Returns
        -------
        ConfigSpace hyperparameter
            For conditions and forbidden clauses.
        """
        if isinstance(value, Hyperparameter):
            hyperparameter = value
            if name is not None and name != value.name:
                raise ProblemError(f"hyperparameter {value.name!r} has a name already, it cannot be added as {name!r}")
            if default_value is not None:
                raise ProblemError(f"hyperparameter {value.name!r} has a default value already: {value.default_value}")
        else:
            name = _checked_name(name)
            hyperparameter = _make(name, value)
            if default_value is not None:
                hyperparameter = _make(name, value, _legal(f"the default of {name!r}", hyperparameter, default_value))
        _check_hyperparameter(hyperparameter)
        if hyperparameter.name in self._space:
            raise ProblemError(f"hyperparameter {hyperparameter.name!r} is defined twice; give it another name")
        self._add(f"hyperparameter {hyperparameter.name!r}", hyperparameter)
        self._names.append(hyperparameter.name)
        return self._space[hyperparameter.name]

    def add_hyperparameters(self, hyperparameters: Iterable[Hyperparameter]) -> list[Hyperparameter]:
        """Add several ConfigSpace hyperparameters; return them."""
        return [self.add_hyperparameter(hyperparameter) for hyperparameter in hyperparameters]

    def add_dim(self, name: str, value: Any) -> Hyperparameter:
        """Add a hyperparameter: :meth:`add_hyperparameter` with its arguments the other way round."""
        return self.add_hyperparameter(value, name)

    def add_condition(self, condition: Condition | Conjunction) -> None:
        """Make a hyperparameter active only if another has certain values.

        Parameters
        ----------
        condition : ConfigSpace condition
            For example ``ConfigSpace.EqualsCondition(child, parent, value)`` with what :meth:`add_hyperparameter`
            returned.  Where a child is inactive, the function does not find it in its configuration.
        """
        if not isinstance(condition, _ConditionLike):
            raise ProblemError(
                f"a condition is a ConfigSpace object such as ConfigSpace.EqualsCondition(child, parent, value),"
                f" got {_show(condition)}"
            )
        self._add(f"condition {condition}", condition)

    def add_conditions(self, conditions: Iterable[Condition | Conjunction]) -> None:
        """Add several conditions."""
        for condition in conditions:
            self.add_condition(condition)

    def add_forbidden_clause(self, clause: ForbiddenClause | ForbiddenConjunction | ForbiddenRelation) -> None:
        """Rule out a combination of values: it is never evaluated.

        Parameters
        ----------
        clause : ConfigSpace forbidden clause, conjunction or relation
            For example ``ConfigSpace.ForbiddenEqualsClause(hyperparameter, value)``.
        """
        if not isinstance(clause, _ForbiddenLike):
            raise ProblemError(
                "a forbidden clause is a ConfigSpace object such as ConfigSpace.ForbiddenEqualsClause(hyperparameter, "
                f"value), got {_show(clause)}"
            )
        self._add(f"clause {words(clause)}", clause)

    def add_forbidden_clauses(self, clauses: Iterable[ForbiddenClause | ForbiddenConjunction]) -> None:
        """Add several forbidden clauses."""
        for clause in clauses:
            self.add_forbidden_clause(clause)

    def add_starting_point(self, /, **config: Any) -> None:
        """Add a configuration to be evaluated before the search chooses its own.

        Parameters
        ----------
        **config
            A value for every active hyperparameter.  Values of inactive ones may be given as well: they are dropped, so
            that all starting points of a conditional space may name all hyperparameters.
        """
        self._resolve(f"starting point {len(self._starting_points)}", config)
        self._starting_points.append(dict(config))

    @property
    def starting_points(self) -> list[Config]:
        """Starting points in the order added, as plain values of the active hyperparameters.

        Raises
        ------
        ProblemError
            If one does not fit any more, since the space was changed after it was added.
        """
        return [self._resolve(f"starting point {i}", config) for i, config in enumerate(self._starting_points)]

    @property
    def hyperparameter_names(self) -> list[str]:
        """Names in the order of definition."""
        return [*self._names, *(name for name in self.space if name not in self._names)]

    @property
    def decision_names(self) -> list[str]:
        """Names of those that are decisions of an architecture: none, but see :class:`dhmpi.nas.NaProblem`."""
        return []

    @property
    def columns(self) -> list[str]:
        """Names of the entries of a configuration as the function gets it, which are columns of results.csv."""
        return self.hyperparameter_names

    @property
    def logarithmic(self) -> list[str]:
        """Names of those columns that are ranges on a logarithmic scale."""
        return [name for name in self.columns if name in self.space and getattr(self.space[name], "log", False)]

    def to_config(self, values: Mapping[str, Any]) -> Config:
        """Return the configuration that the function gets for values of the hyperparameters of `space`."""
        return dict(values)

    def from_config(self, config: Mapping[str, Any]) -> Config:
        """Return the values of the hyperparameters of `space` in a configuration as the function gets it."""
        return dict(config)

    def describe(self, name: str) -> tuple[str, str]:
        """Return the kind of a hyperparameter ("float", "integer, log", ...) and its values, in words."""
        return describe(self.space[name])

    @property
    def default_configuration(self) -> Config:
        """The configuration of default values.

        Raises
        ------
        ProblemError
            If a clause forbids it.
        """
        return self.complete({})

    def check_configuration(self, config: Mapping[str, Any]) -> Config:
        """Return a configuration as the function gets it: plain values, without those of inactive hyperparameters.

        Parameters
        ----------
        config : dict

        Raises
        ------
        ProblemError
            If a hyperparameter is unknown, an active one is missing, a value is outside, or a clause forbids it.
        """
        return self._resolve("the configuration", config)

    def resolve_point(self, config: Mapping[str, Any], as_text: bool = False) -> Config:
        """Return a configuration that a user has written, as :meth:`check_configuration` does.

        Parameters
        ----------
        config : dict
        as_text : bool, default False
            Whether its values are text, from a table or a command line; an empty one is none.

        Raises
        ------
        ProblemError
        """
        if as_text:
            config = {name: self.read(name, text) for name, text in config.items() if text != ""}
        return self._resolve("the point", config)

    def read(self, name: str, text: str) -> Any:
        """Return the value of a hyperparameter that a text stands for; the text itself if it stands for none.

        Examples
        --------
        >>> problem = HpProblem()
        >>> _ = problem.add_hyperparameter([True, "auto"], "scale")
        >>> problem.read("scale", "True")
        True
        """
        among = choices(self.space[name]) if name in self.space else None
        if among is not None:
            return next((choice for choice in among if str(choice) == text), text)
        for kind in (int, float, json.loads):
            try:
                return kind(text)
            except ValueError:
                continue
        return text

    def complete(self, config: Mapping[str, Any]) -> Config:
        """Return a configuration with default values for the active hyperparameters that `config` leaves out.

        Raises
        ------
        ProblemError
            As :meth:`check_configuration`, but for missing hyperparameters.
        """
        return self._resolve("the configuration", config, fill=True)

    def check(self) -> None:
        """Look once more at everything, since ``space`` is in the user's hands too.

        Raises
        ------
        ProblemError
            If there is no hyperparameter, or one that cannot be used, or a starting point that does not fit.
        """
        if not len(self.space):
            raise ProblemError("the problem has no hyperparameters; add one with add_hyperparameter(value, name)")
        for hyperparameter in self.space.values():
            _check_hyperparameter(hyperparameter)
        _ = self.starting_points

    def fingerprint(self) -> str:
        """Return 16 hexadecimal digits that name the space: hyperparameters, conditions and forbidden clauses.

        The same in every process and on every version of Python; neither the order of definition nor default values,
        starting points and the seed matter.
        """
        space = self.space.to_serialized_dict()
        for hyperparameter in space["hyperparameters"]:
            del hyperparameter["meta"]
            hyperparameter.pop("default_value", None)
        parts = {key: sorted(map(_canonical, space[key])) for key in ("hyperparameters", "conditions", "forbiddens")}
        return hashlib.sha256(_canonical(parts).encode()).hexdigest()[:16]

    def __str__(self) -> str:
        rows = [(name, *self.describe(name)) for name in self.hyperparameter_names]
        widths = [max((len(row[column]) for row in rows), default=0) for column in (0, 1)]
        lines = [f"{type(self).__name__} of {len(rows)} hyperparameter{'' if len(rows) == 1 else 's'}"]
        lines += [f"  {name:{widths[0]}}  {kind:{widths[1]}}  {values}" for name, kind, values in rows]
        for title, items in (
            ("active only if", self.space.conditions),
            ("forbidden", self.space.forbidden_clauses),
            ("starting points", self._starting_points),
        ):
            if items:
                lines += [f"  {title}:", *(f"    {words(item)}" for item in items)]
        return "\n".join(lines)

    def _add(self, what: str, item: Any) -> None:
        """Add something to the space, with ConfigSpace's complaints as one sentence."""
        try:
            self._space.add(item)
        except ForbiddenValueError:
            # The item is in: ConfigSpace only regrets that the default configuration is forbidden.  No search uses it.
            pass
        except ActiveHyperparameterNotSetError as error:
            raise ProblemError(
                f"{what} makes {error.hyperparameter.name!r} active although what it depends on is inactive;"
                " use EqualsCondition or InCondition instead of NotEqualsCondition"
            ) from error
        except (ValueError, TypeError, KeyError) as error:
            raise ProblemError(f"{what} does not fit: {_sentence(error)}") from error

    def _resolve(self, what: str, config: Mapping[str, Any], fill: bool = False) -> Config:
        if not isinstance(config, Mapping):
            raise ProblemError(f"{what} must be a dict of hyperparameters by name, got {_show(config)}")
        names = self.hyperparameter_names
        unknown = [name for name in config if name not in self.space]
        if unknown:
            raise ProblemError(f"{what} names {_list(unknown)}, but the space has {_list(names) or 'nothing'}")
        values: Config = {}
        missing = []
        vector = np.full(len(names), np.nan)  # the configuration as ConfigSpace's conditions and clauses see it
        for name, hyperparameter in self.space.items():  # parents come before their children
            if not all(condition.satisfied_by_vector(vector) for condition in self.space.parent_conditions_of[name]):
                continue
            if name in config:
                values[name] = _legal(f"{what} has {name}", hyperparameter, config[name])
            elif fill:
                values[name] = _plain(hyperparameter.default_value)
            else:
                missing.append(name)
                continue
            vector[self.space.index_of[name]] = _component(hyperparameter, values[name])
        if missing:
            raise ProblemError(f"{what} lacks a value for {_list(missing)}")
        for clause in self.space.forbidden_clauses:
            if clause.is_forbidden_vector(vector):
                raise ProblemError(f"{what} is forbidden by the clause {words(clause)}")
        return {name: values[name] for name in names if name in values}


BaseProblem = HpProblem
"""The name in the oldest DeepHyper examples."""


def choices(hyperparameter: Any) -> tuple[Any, ...] | None:
    """Return the values that a ConfigSpace hyperparameter can take, as plain Python values; ``None`` for a range."""
    if isinstance(hyperparameter, (FloatHyperparameter, IntegerHyperparameter)):
        return None
    if isinstance(hyperparameter, Constant):
        return (_plain(hyperparameter.value),)
    ordered = isinstance(hyperparameter, OrdinalHyperparameter)
    return tuple(map(_plain, hyperparameter.sequence if ordered else hyperparameter.choices))


def describe(hyperparameter: Any) -> tuple[str, str]:
    """Return the kind of a ConfigSpace hyperparameter ("float", "integer, log", ...) and its values, in words."""
    kind = type(hyperparameter).__name__.removesuffix("Hyperparameter")
    values = choices(hyperparameter)
    if values is not None:
        more = f", ... ({len(values)} in all)" if len(values) > MAX_SHOWN else ""
        return kind.lower(), ", ".join(map(str, values[:MAX_SHOWN])) + more
    number = "integer" if isinstance(hyperparameter, IntegerHyperparameter) else "float"
    prior = kind.removesuffix("Integer").removesuffix("Float").lower()
    parts = [number, *([prior] if prior != "uniform" else []), *(["log"] if hyperparameter.log else [])]
    return ", ".join(parts), f"{hyperparameter.lower} to {hyperparameter.upper}"


def words(item: Any) -> str:
    """Return a condition or a forbidden clause as ConfigSpace writes it, without its repeated "Forbidden:"."""
    return str(item).replace("Forbidden: ", "")


def _make(name: str, value: Any, default: Any = None) -> Hyperparameter:
    value = value.tolist() if isinstance(value, np.ndarray) else _plain(value)
    if isinstance(value, tuple):
        return _range(name, value, default)
    if isinstance(value, list):
        return _listed(name, value, default)
    _check_choice(name, value, "value")
    return Constant(name, value)


def _range(name: str, value: tuple[Any, ...], default: int | float | None) -> Hyperparameter:
    where = f"hyperparameter {name!r} with range {_show(value)}"
    if not 2 <= len(value) <= 3:
        raise ProblemError(f"{where}: give (low, high) or (low, high, 'log-uniform'); choices are given as a list")
    low, high = bounds = tuple(map(_plain, value[:2]))
    for bound in bounds:
        if not _is_number(bound):
            raise ProblemError(f"{where}: bounds must be numbers, got {_show(bound)}; choices are given as a list")
    prior = value[2] if len(value) == 3 else "uniform"
    if not isinstance(prior, str) or prior not in PRIORS:
        raise ProblemError(f"{where}: the third element must be 'uniform' or 'log-uniform', got {_show(prior)}")
    integers = isinstance(low, int) and isinstance(high, int)
    most = MAX_INTEGER if integers else MAX_FLOAT
    for bound in bounds:
        if not -most <= bound <= most:  # so is NaN
            kind = "an integer" if integers else "a float"
            raise ProblemError(f"{where}: bounds of {kind} must lie within -{most:g} and {most:g}, got {_show(bound)}")
    if low > high:
        raise ProblemError(f"{where}: the low bound must come first")
    if low == high:
        raise ProblemError(f"{where}: equal bounds leave one value; add the constant {low!r} instead")
    log = prior == "log-uniform"
    if log and low <= 0:
        raise ProblemError(f"{where}: a log-uniform range must start above 0")
    if integers:
        return UniformIntegerHyperparameter(name, low, high, default_value=default, log=log)
    kept = [round(float(bound), DECIMALS) for bound in bounds]
    if kept[0] == kept[1] or any(abs(near - bound) > 1e-3 * abs(bound) for near, bound in zip(kept, bounds)):
        raise ProblemError(
            f"{where}: ConfigSpace rounds bounds to {DECIMALS} decimals, which is too coarse for these; search for the"
            " logarithm or a multiple instead"
        )
    return UniformFloatHyperparameter(name, float(low), float(high), default_value=default, log=log)


def _listed(name: str, value: list[Any], default: Any) -> Hyperparameter:
    if not value:
        raise ProblemError(f"hyperparameter {name!r} has an empty list of choices; give at least one")
    plain = [_plain(choice) for choice in value]
    for choice in plain:
        _check_choice(name, choice, "choice")
    for i, choice in enumerate(plain):
        if choice in plain[:i]:
            other = plain[plain.index(choice)]
            same = "" if repr(other) == repr(choice) else f" ({other!r} and {choice!r} are equal in Python)"
            raise ProblemError(f"hyperparameter {name!r} has the choice {choice!r} twice{same}")
    chosen = {} if default is None else {"default_value": default}
    if all(map(_is_number, plain)):
        return OrdinalHyperparameter(name, plain, **chosen)
    return CategoricalHyperparameter(name, plain, **chosen)


def _checked_name(name: Any) -> str:
    if name is None:
        raise ProblemError("a hyperparameter needs a name: add_hyperparameter(value, name)")
    if not isinstance(name, str):
        raise ProblemError(
            f"the name of a hyperparameter must be a string, got {_show(name)};"
            " it is add_hyperparameter(value, name), but add_dim(name, value)"
        )
    if not name or not name.isprintable():
        raise ProblemError(f"the name of a hyperparameter must consist of printable characters, got {name!r}")
    if name in FIXED_COLUMNS or name.startswith(METRIC_PREFIX):
        reserved = f"the metrics ('{METRIC_PREFIX}...')" if name not in FIXED_COLUMNS else "a column"
        raise ProblemError(
            f"a hyperparameter cannot be named {name!r}, like {reserved} of results.csv; give it another name"
        )
    return name


def _check_hyperparameter(hyperparameter: Any) -> None:
    name, kinds = _checked_name(hyperparameter.name), (CategoricalHyperparameter, OrdinalHyperparameter, Constant)
    if isinstance(hyperparameter, kinds):
        for choice in choices(hyperparameter) or ():
            _check_choice(name, choice, "choice")
    elif not isinstance(hyperparameter, (FloatHyperparameter, IntegerHyperparameter)):
        raise ProblemError(f"hyperparameter {name!r} is of an unknown kind, {type(hyperparameter).__name__}")
    elif isinstance(hyperparameter, IntegerHyperparameter) and not (
        hyperparameter.lower >= -MAX_INTEGER and hyperparameter.upper <= MAX_INTEGER
    ):
        low, high = hyperparameter.lower, hyperparameter.upper
        raise ProblemError(
            f"hyperparameter {name!r} with range ({low}, {high}): bounds of an integer must lie within"
            f" -{MAX_INTEGER:g} and {MAX_INTEGER:g}"
        )


def _check_choice(name: str, choice: Any, word: str) -> None:
    """Refuse what cannot go through JSON and a CSV file to the function and come out the same."""
    where = f"hyperparameter {name!r} has the {word} {_show(choice)}"
    if choice is None:
        raise ProblemError(f"{where}, which results.csv cannot tell from inactive; use a string such as 'none'")
    if not isinstance(choice, (bool, int, float, str)):
        several = word == "value" and isinstance(choice, Iterable)
        hint = "give choices as a list, in their order" if several else "only bool, int, float and str are possible"
        raise ProblemError(f"{where} of type {type(choice).__name__}; {hint}")
    if isinstance(choice, float) and not math.isfinite(choice):
        raise ProblemError(f"{where}; numbers must be finite")
    if isinstance(choice, str) and ("\0" in choice or not _is_unicode(choice)):
        raise ProblemError(f"{where}; strings must be valid Unicode without null characters")


def _legal(what: str, hyperparameter: Any, value: Any) -> Any:
    """Return a value as the hyperparameter has it, or say in a sentence that begins with `what` that it cannot."""
    value = _plain(value)
    among = choices(hyperparameter)
    if among is not None:
        if isinstance(value, (bool, int, float, str)) and value in among:
            return among[among.index(value)]
        raise ProblemError(f"{what} = {_show(value)}, which is none of its choices: {_list(among)}")
    low, high = hyperparameter.lower, hyperparameter.upper
    span = f"in [{low}, {high}]"
    if isinstance(hyperparameter, IntegerHyperparameter):
        if not _is_number(value) or not low <= value <= high or value != int(value):
            raise ProblemError(f"{what} = {_show(value)}, which is no integer {span}")
        return int(value)
    rounded = 10.0**-DECIMALS
    if not _is_number(value) or not low - rounded <= value <= high + rounded:
        raise ProblemError(f"{what} = {_show(value)}, which is no number {span}")
    return min(max(float(value), low), high)


def _component(hyperparameter: Hyperparameter, value: Any) -> float:
    """Return a legal value as ConfigSpace's vectors hold it."""
    among = choices(hyperparameter)
    if among is None or isinstance(hyperparameter, Constant):
        return float(hyperparameter.to_vector(value))
    return float(among.index(value))


def _plain(value: Any) -> Any:
    """Return a scalar of numpy, an enum member or another subclass as the plain Python value that it is."""
    if isinstance(value, np.generic):
        value = value.item()
    for kind in (int, float):
        if isinstance(value, kind) and not isinstance(value, bool):
            return kind(value)
    return str.__str__(value) if isinstance(value, str) else value


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=_plain)


def _list(items: Sequence[Any]) -> str:
    more = f" and {len(items) - MAX_SHOWN} more" if len(items) > MAX_SHOWN else ""
    return ", ".join(map(_show, items[:MAX_SHOWN])) + more


def _show(value: Any, most: int = 200) -> str:
    try:
        shown = repr(value)
    except Exception:  # an integer of thousands of digits, or a user's own class
        return f"an object of type {type(value).__name__}"
    return shown if len(shown) <= most else f"{shown[:most]}..."


def _sentence(error: Exception) -> str:
    return " ".join(str(error).split())
