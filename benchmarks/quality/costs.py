"""What a search costs that knows many trials, in CPU time of one core."""

from __future__ import annotations

import time
from typing import NamedTuple

import numpy as np

from dhmpi.problem import HpProblem
from dhmpi.search.model_based import ModelBasedSearch
from dhmpi.trials import Config

BATCH = 126
SINGLES = 500


class Cost(NamedTuple):
    """CPU seconds.

    Attributes
    ----------
    fit : float
        An ask of `BATCH` that fits anew, since 5 % more trials have ended.
    rate : float
        Proposals a second in asks of `BATCH` without a fit in between.
    single : float
        Seconds a proposal, where a search is asked for one and told one in turns, all fits included.
    """

    fit: float
    rate: float
    single: float


def space() -> HpProblem:
    """Return ten hyperparameters: five floats, two of them logarithmic, three integers and two categoricals."""
    problem = HpProblem()
    for i in range(3):
        problem.add_hyperparameter((-1.0, 1.0), f"x{i}")
    for i in range(2):
        problem.add_hyperparameter((1e-5, 1e1, "log-uniform"), f"log{i}")
    for i in range(3):
        problem.add_hyperparameter((1, 100), f"n{i}")
    for i in range(2):
        problem.add_hyperparameter(["a", "b", "c", "d"], f"c{i}")
    return problem


def objective(config: Config) -> float:
    numbers = [config[f"x{i}"] for i in range(3)] + [np.log10(config[f"log{i}"]) / 3 for i in range(2)]
    numbers += [config[f"n{i}"] / 50 - 1 for i in range(3)]
    return -float(np.sum(np.square(numbers))) - 0.3 * sum(config[f"c{i}"] != "b" for i in range(2))


def measure(n_trials: int, surrogate_model: str) -> Cost:
    """Return what a search costs that has been told `n_trials` random trials."""
    search = ModelBasedSearch(
        space().space, 1, n_evaluators=BATCH, max_evals=10 * n_trials, surrogate_model=surrogate_model
    )
    rng = np.random.default_rng(0)
    configs = search.encoding.decode(search.encoding.sample(rng, int(1.05 * n_trials)))
    known = [(key, config, objective(config)) for key, config in enumerate(configs)]
    search.restore(known[:n_trials], [(key, config) for key, config, _ in known[n_trials:]], 0)
    _, proposals = _ask(search, 2 * BATCH)  # the first are of the initial design
    search.tell([(key, y) for key, _, y in known[n_trials:]])
    fit, more = _ask(search, BATCH)
    batches = [_ask(search, BATCH) for _ in range(3)]
    running = [*proposals, *more, *(proposal for _, batch in batches for proposal in batch)]
    search.tell([(key, objective(config)) for key, config in running[:-BATCH]])
    del running[:-BATCH]
    start = time.process_time()
    for _ in range(SINGLES):
        key, config = running.pop(0)
        search.tell([(key, objective(config))])
        running += search.ask(1)
    single = (time.process_time() - start) / SINGLES
    return Cost(fit, len(batches) * BATCH / sum(seconds for seconds, _ in batches), single)


def _ask(search: ModelBasedSearch, n: int) -> tuple[float, list[tuple[int, Config]]]:
    start = time.process_time()
    proposals = search.ask(n)
    return time.process_time() - start, [(key, config) for key, config in proposals]
