"""Which cores and GPUs of its node a rank has: pure arithmetic, for plans, for job scripts and at launch.  No MPI here.

Cores are bound by the launcher, in the order of node-local ranks; GPUs by a variable in the environment of the
evaluating process, since only evaluations use them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dhmpi.mpi.layout import Layout, spans


@dataclass(frozen=True)
class Node:
    """What one node of a machine has.

    Attributes
    ----------
    n_cores : int or None
        Physical cores that jobs may use; None if unknown.
    gpus : tuple of str
        Names of its GPUs as the variable wants them, in the order of the cores that they are nearest to.
    """

    n_cores: int | None = None
    gpus: tuple[str, ...] = ()


def depth(node: Node, ranks_per_node: int) -> int | None:
    """Return how many cores each rank has, at least one; None if the number of cores is unknown."""
    return None if node.n_cores is None else max(1, node.n_cores // ranks_per_node)


def cores(n_cores: int, local_rank: int, each: int) -> tuple[int, ...]:
    """Return the cores of a node-local rank, `each` in a row; ranks beyond the cores start again with the first.

    >>> cores(64, 1, 16)[:2]
    (16, 17)
    """
    start = local_rank * each % n_cores
    return tuple(range(start, min(start + each, n_cores)))


def gpus(names: Sequence[str], local_rank: int, n_local: int, evaluator: int, n_evaluators: int) -> tuple[str, ...]:
    """Return the GPUs of a node-local rank that evaluates.

    Where there are at least as many GPUs as ranks each rank has an equal share, nearest to its cores.  Where there are
    fewer, each evaluator has one, and neighbours share it.

    Parameters
    ----------
    names : sequence of str
        The node's GPUs.
    local_rank, n_local : int
        Number of the rank among those of its node, and how many these are.
    evaluator, n_evaluators : int
        Number of the rank among those that evaluate on its node, and how many these are.

    Examples
    --------
    >>> gpus("0123", 1, 2, 0, 1)
    ('2', '3')
    >>> [gpus("0123", i + 2, 8, i, 6) for i in range(6)]
    [('0',), ('0',), ('1',), ('2',), ('2',), ('3',)]
    """
    if n_local <= len(names):
        share = len(names) // n_local
        return tuple(names[local_rank * share : (local_rank + 1) * share])
    return (names[evaluator * len(names) // max(n_evaluators, len(names))],) if names else ()


def gpus_of(layout: Layout, names: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the GPUs of each rank; none for one that does not evaluate."""
    found: list[tuple[str, ...]] = [()] * len(layout.hosts)
    for ranks in layout.by_host().values():
        evaluators = [rank for rank in ranks if "evaluator" in layout.roles(rank)]
        for i, rank in enumerate(evaluators):
            found[rank] = gpus(names, ranks.index(rank), len(ranks), i, len(evaluators))
    return found


def environment(layout: Layout, rank: int, names: Sequence[str], variable: str) -> dict[str, str]:
    """Return what binds the evaluations of a rank to its GPUs; nothing where its node has none.

    A rank that evaluates in place of a dead one has the GPUs of its place among all ranks of its node.

    Parameters
    ----------
    layout : Layout
    rank : int
    names : sequence of str
        The GPUs of a node.
    variable : str
        For example CUDA_VISIBLE_DEVICES.
    """
    found = gpus_of(layout, names)[rank]
    if not found:
        ranks = layout.by_host()[layout.hosts[rank]]
        local = ranks.index(rank)
        found = gpus(names, local, len(ranks), local, len(ranks))
    return {variable: ",".join(found)} if found else {}


def cores_of(layout: Layout, n_cores: int, each: int) -> list[tuple[int, ...]]:
    """Return the cores of each rank, if the launcher binds `each` cores to a rank in the order of ranks."""
    found: list[tuple[int, ...]] = [()] * len(layout.hosts)
    for ranks in layout.by_host().values():
        for i, rank in enumerate(ranks):
            found[rank] = cores(n_cores, i, each)
    return found


def table(layout: Layout, node: Node, each: int | None, cores: Sequence[Sequence[int]] = ()) -> str:
    """Return who is where, with the cores and GPUs that are known.

    Parameters
    ----------
    layout : Layout
    node : Node
    each : int or None
        Cores that each rank should have.
    cores : sequence of sequence of int, optional
        Those that each rank has.
    """
    core_words = [spans(numbers) for numbers in cores]
    if not cores and node.n_cores is not None and each is not None:
        core_words = [spans(numbers) for numbers in cores_of(layout, node.n_cores, each)]
    gpu_words = [",".join(names) or "none" for names in gpus_of(layout, node.gpus)] if node.gpus else []
    return layout.table(core_words, gpu_words)
