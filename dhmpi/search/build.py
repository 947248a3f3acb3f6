"""From plain data to a search: what a search's process does first."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dhmpi import warmstart
from dhmpi.errors import DhmpiError, OptionError
from dhmpi.load import load_problem
from dhmpi.options import TRAINING
from dhmpi.problem import HpProblem, choices
from dhmpi.search.base import Search
from dhmpi.search.evolution import RegularizedEvolution
from dhmpi.search.foreign import adopt
from dhmpi.search.listed import ListedSearch
from dhmpi.search.screening import Screening
from dhmpi.search.space import SpaceSearch
from dhmpi.search.uniform import UniformSearch
from dhmpi.trials import Config

BATCHES_IN_FLIGHT = 1.25
"""Episodes for each evaluator, where a policy need not wait for all of them."""
MOST_NAMES = 20
SEARCHES = ("ambs", "regevo", "agebo", "random", "ppo", "listed")


def build(spec: Mapping[str, Any]) -> tuple[Search, dict[str, Any]]:
    """Load a problem and make the search that `spec` asks for.

    Parameters
    ----------
    spec : dict
        ``search`` (one of `SEARCHES`; "random" is for random configurations), ``problem`` (name or path), ``seed``,
        ``n_evaluators``, ``max_evals``, and perhaps

        - ``options``: for ambs any of ``surrogate_model``, ``liar_strategy``, ``acq_func``, ``kappa``, ``xi``,
          ``n_jobs`` as in :class:`dhmpi.search.chooser.Chooser`; the surrogate ``DUMMY`` means random
          configurations.  For regevo any of ``population_size``, ``sample_size``, ``crossover``,
          ``unique`` as in :class:`dhmpi.search.evolution.RegularizedEvolution`.  For agebo all of these.  For ppo those
          of :class:`dhmpi.search.ppo.Settings` under ``settings``, and any others of
          :class:`dhmpi.search.reinforcement.ReinforcementSearch`.  For listed the configurations, as ``configs``.
        - ``checkpoint``: file in which a search keeps what it has learned, if it learns.
        - ``screening``: ``epochs`` and ``promote`` as in :class:`dhmpi.search.screening.Screening`; None for none.
        - ``warm_start``: file of earlier evaluations that :func:`dhmpi.warmstart.collect` has written.
        - ``run``: name of the run function, refused where it cannot evaluate the problem.

    Returns
    -------
    search : Search
        Of configurations as the run function gets them.
    info : dict
        ``hyperparameters`` (the columns of a table of configurations), ``size`` (of the space; ``None`` if infinite),
        ``fingerprint`` (of the problem), ``fits`` (whether the search fits models), ``n_starting_points``, and perhaps
        ``remarks`` (sentences that people should know).

    Raises
    ------
    DhmpiError
        If the problem cannot be loaded, or an option makes no sense.
    """
    if spec["search"] not in SEARCHES:
        raise OptionError(f"unknown search {spec['search']!r}; choose one of {', '.join(SEARCHES)}")
    problem = load_problem(spec["problem"])
    plain = type(problem).to_config is HpProblem.to_config  # its configurations are the values of its space
    if plain and spec.get("run") == TRAINING:
        raise OptionError(
            f"--run is missing: {spec['problem']} is a problem of hyperparameters, and the default function trains "
            f"architectures; give a package.module.name or a .py file"
        )
    if spec["search"] == "ppo":
        return _reinforcement(problem, spec)
    if spec["search"] == "listed":
        return _listed(problem, spec)
    inner = _search(problem, spec)
    if not plain:
        inner.to_config, inner.from_config = problem.to_config, problem.from_config
    remarks = [_warm_start(problem, inner, Path(spec["warm_start"]))] if spec.get("warm_start") else []
    screening = spec.get("screening")
    info = {
        "hyperparameters": list(problem.columns),
        "logarithmic": problem.logarithmic,
        "size": None if math.isinf(inner.size) else int(inner.size),
        "fingerprint": problem.fingerprint(),
        "fits": inner.fits,
        "n_starting_points": len(inner.starting_points),
        "remarks": remarks,
    }
    search = Screening(inner, **screening) if screening else inner
    search.resolve = problem.resolve_point
    return search, info


def _reinforcement(problem: HpProblem, spec: Mapping[str, Any]) -> tuple[Search, dict[str, Any]]:
    """Return a search by a policy, which makes one decision after another among given options."""
    from dhmpi.search.ppo import Settings
    from dhmpi.search.reinforcement import ReinforcementSearch

    space = problem.space
    options = {name: choices(space[name]) for name in space}
    ranges = [name for name, values in options.items() if values is None]
    if ranges or space.conditions or space.forbidden_clauses:
        what = f"hyperparameter {ranges[0]!r} is a range" if ranges else "there are conditions or forbidden clauses"
        raise OptionError(
            f"ppo decides among given options, but in {spec['problem']} {what}: use regevo or ambs, or fix it"
        )
    given = dict(spec.get("options", {}))
    try:
        settings = Settings(**given.pop("settings", {}))
    except ValueError as error:
        raise OptionError(f"--{str(error).replace('_', '-', 1)}") from error
    search = ReinforcementSearch(
        [values for values in options.values() if values is not None],
        list(options),
        spec["seed"],
        settings=settings,
        **{"episodes_per_update": batch_size(spec), "max_evals": spec["max_evals"], **given},
        checkpoint=Path(spec["checkpoint"]) if spec.get("checkpoint") else None,
    )
    search.to_config, search.from_config = problem.to_config, problem.from_config
    search.resolve = problem.resolve_point
    info = {
        "hyperparameters": list(problem.columns),
        "logarithmic": problem.logarithmic,
        "size": search.size,
        "fingerprint": problem.fingerprint(),
        "fits": search.fits,
        "n_starting_points": 0,
    }
    return search, info


def _listed(problem: HpProblem, spec: Mapping[str, Any]) -> tuple[Search, dict[str, Any]]:
    """Return a search over a list, whose configurations may have more entries than those of the problem."""
    search = ListedSearch(spec["options"]["configs"], spec["seed"])
    entries = dict.fromkeys(name for config in spec["options"]["configs"] for name in config)
    info = {
        "hyperparameters": list(dict.fromkeys([*problem.columns, *entries])),
        "logarithmic": problem.logarithmic,
        "size": len(spec["options"]["configs"]),
        "fingerprint": problem.fingerprint(),
        "fits": search.fits,
        "n_starting_points": 0,
    }
    return search, info


def batch_size(spec: Mapping[str, Any]) -> int:
    """Return how many episodes a policy samples at a time: by default as many as keep all evaluators busy."""
    options = spec.get("options", {})
    n: int = spec["n_evaluators"]
    usual = n if options.get("batch_quorum", 1.0) == 1 else math.ceil(BATCHES_IN_FLIGHT * n)
    return options.get("episodes_per_update") or usual


def _warm_start(problem: HpProblem, search: SpaceSearch, path: Path) -> str:
    """Have a search learn from earlier evaluations; return how many could be used, in a sentence.

    Raises
    ------
    OptionError
        If none could.
    """
    known = warmstart.trials(path)
    values: list[Config] = []
    for config, _ in known:
        try:
            values.append(problem.from_config(config))
        except (DhmpiError, KeyError, ValueError, TypeError):
            values.append({})  # no architecture of this space
    adopted = adopt(search.encoding, values)
    n_used = len(adopted.numbers)
    if not n_used:
        names = ", ".join(list(dict.fromkeys(name for config, _ in known for name in config))[:MOST_NAMES])
        raise OptionError(
            f"--warm-start: none of its {len(known)} evaluations is a configuration of {', '.join(problem.columns)}; "
            f"they have {names or 'no hyperparameters'}"
        )
    objectives = [known[number][1] for number in adopted.numbers]
    search.warm_start(adopted.rows, objectives, adopted.whole)
    n_failed = sum(objective is None for objective in objectives)
    sentence = f"warm start: {n_used} of {len(known)} earlier evaluations could be used"
    sentence += f", {n_failed} of them failed" * bool(n_failed)
    if n_used < len(known):
        sentence += f"; {len(known) - n_used} have values that this space has not"
    if adopted.missing:
        sentence += f"; none names {', '.join(adopted.missing[:MOST_NAMES])}, for which the default is taken"
    return sentence


def _search(problem: HpProblem, spec: Mapping[str, Any]) -> SpaceSearch:
    """Return the search, without screening."""
    space, seed = problem.space, spec["seed"]
    points = [problem.from_config(point) for point in problem.starting_points]
    options = dict(spec.get("options", {}))
    if spec["search"] == "random" or options.get("surrogate_model") == "DUMMY":
        return UniformSearch(space, seed, points)
    if spec.get("screening") and spec["search"] in ("regevo", "agebo"):
        options["unique"] = True  # what was promoted need not be screened again
    if spec["search"] == "regevo":
        return RegularizedEvolution(space, seed, points, **options)
    options.update(n_evaluators=spec["n_evaluators"], max_evals=spec["max_evals"], starting_points=points)
    if spec["search"] == "agebo":
        from dhmpi.search.agebo import AgeingBayesianSearch  # late: scipy and scikit-learn take a second

        return AgeingBayesianSearch(space, seed, problem.decision_names, **options)
    from dhmpi.search.model_based import ModelBasedSearch

    return ModelBasedSearch(space, seed, **options)
