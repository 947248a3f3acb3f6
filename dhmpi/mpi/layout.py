"""Which rank plays which role: pure arithmetic on the list of host names by rank.

The same code places the ranks at launch and plans a job before anybody queues.  No MPI here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dhmpi.errors import LayoutError

JOB_MODES = ("compact", "serial", "mpi")


@dataclass(frozen=True)
class Layout:
    """Roles of the ranks of a world.

    Attributes
    ----------
    hosts : tuple of str
        Host name of each rank.
    master : int
    searcher : int or None
        None where the search lives in the master.
    groups : tuple of tuple of int
        The ranks of each evaluator; the first is its leader.
    spare : tuple of int
        Ranks that no whole group could use, or that a job mode leaves idle.
    """

    hosts: tuple[str, ...]
    master: int
    searcher: int | None
    groups: tuple[tuple[int, ...], ...]
    spare: tuple[int, ...]

    @property
    def n_evaluators(self) -> int:
        return len(self.groups)

    @property
    def leaders(self) -> tuple[int, ...]:
        return tuple(group[0] for group in self.groups)

    def roles(self, rank: int) -> tuple[str, ...]:
        """Return the roles of a rank, in words."""
        roles = []
        if rank == self.master:
            roles.append("master")
        if rank == self.searcher:
            roles.append("searcher")
        if any(rank in group for group in self.groups):
            roles.append("evaluator")
        return tuple(roles) or ("spare",)

    def describe(self) -> str:
        """Return the layout in a sentence."""
        n_hosts = len(set(self.hosts))
        parts = [f"master on rank {self.master}"]
        if self.searcher is not None:
            parts.append(
                f"searcher on rank {self.searcher}" if self.searcher != self.master else "the searcher beside it"
            )
        size = len(self.groups[0])
        beside = " beside them" if self.master in self.groups[0] else ""
        ranks = "" if size == 1 else f" of {size} ranks"
        parts.append(f"{self.n_evaluators} evaluator{'s' * (self.n_evaluators > 1)}{ranks}{beside}")
        if self.spare:
            parts.append(f"{len(self.spare)} idle")
        n = len(self.hosts)
        return f"{n} rank{'s' * (n > 1)} on {n_hosts} host{'s' * (n_hosts > 1)}: {', '.join(parts)}"


def plan(
    hosts: Sequence[str],
    *,
    searcher: bool = True,
    ranks_per_eval: int = 1,
    job_mode: str = "compact",
    node_packing_count: int | None = None,
    evals_per_node: int | None = None,
) -> Layout:
    """Return who does what in a world.

    Parameters
    ----------
    hosts : sequence of str
        Host name of each rank, in the order of ranks.
    searcher : bool, default True
        Whether the search needs a searcher besides the master.
    ranks_per_eval : int, default 1
        Ranks k of one evaluator.  Groups stay on one host where k ranks fit.
    job_mode : {"compact", "serial", "mpi"}, default "compact"
        compact: master and searcher take one rank each.  serial: the master has the first host to itself, unless there
        is only one, and the searcher a part of the second.  mpi: the searcher lives with the master.
    node_packing_count : int, optional
        In serial mode the searcher takes 1/node_packing_count of a host's ranks; by default one rank.
    evals_per_node : int, optional
        Evaluators that the user expects on a host without other roles; checked.

    Raises
    ------
    LayoutError
        If there are too few ranks, or not those that were asked for.
    """
    n, k = len(hosts), ranks_per_eval
    if k < 1:
        raise LayoutError(f"an evaluation needs at least 1 rank, got {k}")
    if job_mode not in JOB_MODES:
        raise LayoutError(f"unknown job mode {job_mode!r}: choose one of {', '.join(JOB_MODES)}")
    by_host: dict[str, list[int]] = {}
    for rank, host in enumerate(hosts):
        by_host.setdefault(host, []).append(rank)
    names = list(by_host)

    reserved = {0}
    searcher_rank: int | None = None
    if job_mode == "serial" and len(names) > 1:
        reserved |= set(by_host[names[0]])  # the master has its node to itself
        if searcher:
            second = by_host[names[1]]
            share = max(1, len(second) // (node_packing_count or len(second)))
            searcher_rank = second[0]
            reserved |= set(second[:share])
    elif searcher:
        shares = job_mode == "mpi" or n < 2 + k
        searcher_rank = 0 if shares else 1
        reserved.add(searcher_rank)
    if n == 1:
        reserved = set()

    free = {name: [rank for rank in ranks if rank not in reserved] for name, ranks in by_host.items()}
    groups = _groups(free, k)
    if not groups:
        smallest = 1 if k == 1 else k + 1
        raise LayoutError(
            f"{n} rank{'s' * (n > 1)} in job mode {job_mode} leave no evaluator of {k} rank{'s' * (k > 1)}: start "
            f"at least {smallest}, or use --job-mode compact"
        )
    _check_evals_per_node(free, by_host, reserved, k, evals_per_node)
    used = {rank for group in groups for rank in group} | {0}
    if searcher_rank is not None:
        used.add(searcher_rank)
    spare = tuple(rank for rank in range(n) if rank not in used)
    return Layout(tuple(hosts), 0, searcher_rank, tuple(groups), spare)


def _groups(free: dict[str, list[int]], k: int) -> list[tuple[int, ...]]:
    """Cut the free ranks into groups of k, on one host each where k ranks fit, across hosts where they never do."""
    if any(len(ranks) >= k for ranks in free.values()):
        return [tuple(ranks[i : i + k]) for ranks in free.values() for i in range(0, len(ranks) - k + 1, k)]
    everything = [rank for ranks in free.values() for rank in ranks]
    return [tuple(everything[i : i + k]) for i in range(0, len(everything) - k + 1, k)]


def _check_evals_per_node(
    free: dict[str, list[int]], by_host: dict[str, list[int]], reserved: set[int], k: int, wanted: int | None
) -> None:
    if wanted is None:
        return
    alone = len(by_host) == 1
    for name, ranks in by_host.items():
        n_evals = len(free[name]) // k
        if n_evals == wanted or (n_evals < wanted and not alone and not reserved.isdisjoint(ranks)):
            continue  # hosts of the master and the searcher may have fewer
        needed = wanted * k + len(ranks) - len(free[name])
        raise LayoutError(
            f"--num-evals-per-node {wanted} needs {needed} rank{'s' * (needed > 1)} on {name}, but the launcher has "
            f"started {len(ranks)} there, enough for {n_evals} evaluator{'s' * (n_evals != 1)}"
        )
