"""From plain data to a search: what a search's process does first."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from dhmpi.errors import OptionError
from dhmpi.load import load_problem
from dhmpi.options import TRAINING
from dhmpi.problem import HpProblem
from dhmpi.search.base import Search
from dhmpi.search.evolution import RegularizedEvolution
from dhmpi.search.screening import Screening
from dhmpi.search.space import SpaceSearch
from dhmpi.search.uniform import UniformSearch

SEARCHES = ("ambs", "regevo", "random")


def build(spec: Mapping[str, Any]) -> tuple[Search, dict[str, Any]]:
    """Load a problem and make the search that `spec` asks for.

    Parameters
    ----------
    spec : dict
        ``search`` (one of `SEARCHES`; "random" is for random configurations), ``problem`` (name or path), ``seed``,
        ``n_evaluators``, ``max_evals``, and perhaps

        - ``options``: for ambs any of ``surrogate_model``, ``liar_strategy``, ``acq_func``, ``kappa``, ``xi``,
          ``n_jobs`` as in :class:`dhmpi.search.model_based.ModelBasedSearch`; the surrogate ``DUMMY`` means random
          configurations.  For regevo any of ``population_size``, ``sample_size``, ``crossover`` as in
          :class:`dhmpi.search.evolution.RegularizedEvolution`.
        - ``screening``: ``epochs`` and ``promote`` as in :class:`dhmpi.search.screening.Screening`; None for none.
        - ``run``: name of the run function, refused where it cannot evaluate the problem.

    Returns
    -------
    search : Search
        Of configurations as the run function gets them.
    info : dict
        ``hyperparameters`` (the columns of a table of configurations), ``size`` (of the space; ``None`` if infinite),
        ``fingerprint`` (of the problem), ``fits`` (whether the search fits models), ``n_starting_points``.

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
    inner = _search(problem, spec)
    if not plain:
        inner.to_config, inner.from_config = problem.to_config, problem.from_config
    screening = spec.get("screening")
    info = {
        "hyperparameters": list(problem.columns),
        "size": None if math.isinf(inner.size) else int(inner.size),
        "fingerprint": problem.fingerprint(),
        "fits": inner.fits,
        "n_starting_points": len(inner.starting_points),
    }
    return Screening(inner, **screening) if screening else inner, info


def _search(problem: HpProblem, spec: Mapping[str, Any]) -> SpaceSearch:
    """Return the search, without screening."""
    space, seed, points = problem.space, spec["seed"], problem.starting_points
    options = dict(spec.get("options", {}))
    if spec["search"] == "random" or options.get("surrogate_model") == "DUMMY":
        return UniformSearch(space, seed, points)
    if spec["search"] == "regevo":
        return RegularizedEvolution(space, seed, points, **options)
    from dhmpi.search.model_based import ModelBasedSearch  # late: scipy and scikit-learn take a second

    return ModelBasedSearch(
        space,
        seed,
        n_evaluators=spec["n_evaluators"],
        max_evals=spec["max_evals"],
        starting_points=points,
        **options,
    )
