"""From plain data to a search: what a search's process does first."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from dhmpi.errors import OptionError
from dhmpi.load import load_problem
from dhmpi.search.space import SpaceSearch
from dhmpi.search.uniform import UniformSearch


def build(spec: Mapping[str, Any]) -> tuple[SpaceSearch, dict[str, Any]]:
    """Load a problem and make the search that `spec` asks for.

    Parameters
    ----------
    spec : dict
        ``search`` ("ambs", or "random" for random configurations), ``problem`` (name or path), ``seed``,
        ``n_evaluators``, ``max_evals``, and for ambs ``options``: any of ``surrogate_model``, ``liar_strategy``,
        ``acq_func``, ``kappa``, ``xi``, ``n_jobs`` as in :class:`dhmpi.search.model_based.ModelBasedSearch`; the
        surrogate ``DUMMY`` means random configurations.

    Returns
    -------
    search : SpaceSearch
    info : dict
        ``hyperparameters`` (their names in the problem's order), ``size`` (of the space; ``None`` if infinite),
        ``fingerprint`` (of the problem), ``fits`` (whether the search fits models), ``n_starting_points``.

    Raises
    ------
    DhmpiError
        If the problem cannot be loaded, or an option makes no sense.
    """
    if spec["search"] not in ("ambs", "random"):
        raise OptionError(f"unknown search {spec['search']!r}; choose one of ambs, random")
    problem = load_problem(spec["problem"])
    options = dict(spec.get("options", {}))
    search: SpaceSearch
    if spec["search"] == "random" or options.get("surrogate_model") == "DUMMY":
        search = UniformSearch(problem.space, spec["seed"], problem.starting_points)
    else:
        from dhmpi.search.model_based import ModelBasedSearch  # late: scipy and scikit-learn take a second

        search = ModelBasedSearch(
            problem.space,
            spec["seed"],
            n_evaluators=spec["n_evaluators"],
            max_evals=spec["max_evals"],
            starting_points=problem.starting_points,
            **options,
        )
    info = {
        "hyperparameters": list(problem.hyperparameter_names),
        "size": None if math.isinf(search.size) else int(search.size),
        "fingerprint": problem.fingerprint(),
        "fits": search.fits,
        "n_starting_points": len(search.starting_points),
    }
    return search, info
