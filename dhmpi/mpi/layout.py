"""Which rank plays which role: pure arithmetic on the list of host names by rank.

The same code places the ranks at launch and plans a job before anybody queues.  No MPI here.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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
    agents : tuple of int
        The rank of each agent; empty for a search without agents.
    workers : tuple of tuple of int
        For each agent the leaders of its evaluators.
    """

    hosts: tuple[str, ...]
    master: int
    searcher: int | None
    groups: tuple[tuple[int, ...], ...]
    spare: tuple[int, ...]
    agents: tuple[int, ...] = ()
    workers: tuple[tuple[int, ...], ...] = ()

    @property
    def n_evaluators(self) -> int:
        return len(self.groups)

    @property
    def leaders(self) -> tuple[int, ...]:
        return tuple(group[0] for group in self.groups)

    @property
    def members(self) -> tuple[int, ...]:
        """The ranks of all evaluators."""
        return tuple(itertools.chain.from_iterable(self.groups))

    @functools.cached_property
    def all_roles(self) -> tuple[tuple[str, ...], ...]:
        """The roles of each rank, in words."""
        roles: list[list[str]] = [[] for _ in self.hosts]
        roles[self.master].append("master")
        if self.searcher is not None:
            roles[self.searcher].append("searcher")
        for agent in self.agents:
            roles[agent].append("agent")
        for rank in itertools.chain.from_iterable(self.groups):
            roles[rank].append("evaluator")
        return tuple(tuple(names) or ("spare",) for names in roles)

    def roles(self, rank: int) -> tuple[str, ...]:
        """Return the roles of a rank, in words."""
        return self.all_roles[rank]

    def by_host(self) -> dict[str, list[int]]:
        """Return the ranks of each host."""
        return _by_host(self.hosts)

    def describe(self) -> str:
        """Return the layout in a sentence."""
        n_hosts = len(set(self.hosts))
        parts = [f"master on rank {self.master}"]
        if self.searcher is not None:
            parts.append(
                f"searcher on rank {self.searcher}" if self.searcher != self.master else "the searcher beside it"
            )
        if self.agents:
            parts.append(f"{len(self.agents)} agent{'s' * (len(self.agents) > 1)}")
        size = len(self.groups[0])
        beside = " beside them" if self.master in self.groups[0] else ""
        ranks = "" if size == 1 else f" of {size} ranks"
        parts.append(f"{self.n_evaluators} evaluator{'s' * (self.n_evaluators > 1)}{ranks}{beside}")
        if self.spare:
            parts.append(f"{len(self.spare)} idle")
        n = len(self.hosts)
        return f"{n} rank{'s' * (n > 1)} on {n_hosts} host{'s' * (n_hosts > 1)}: {', '.join(parts)}"

    def table(self, cores: Sequence[str] = (), gpus: Sequence[str] = ()) -> str:
        """Return who is where: a line for each host, or for hosts in a row that are alike.

        Parameters
        ----------
        cores, gpus : sequence of str, optional
            Of each rank, in words; the columns are left out if empty.

        Examples
        --------
        >>> print(plan([f"node{i // 4}" for i in range(16)], job_mode="serial", node_packing_count=4).table())
        hosts            ranks  on each host
        node0            0-3    master, 3 idle
        node1            4-7    searcher, 3 evaluators
        node2-node3 (2)  8-15   4 evaluators
        """
        alike: list[tuple[tuple[str, ...], list[str], list[int]]] = []
        for host, ranks in self.by_host().items():
            line = (self._words(ranks), *(_some([words[rank] for rank in ranks]) for words in (cores, gpus) if words))
            if alike and alike[-1][0] == line:
                alike[-1][1].append(host)
                alike[-1][2].extend(ranks)
            else:
                alike.append((line, [host], list(ranks)))
        titles = ["on each host", *["cores of each rank"] * bool(cores), *["GPUs of each rank"] * bool(gpus)]
        rows: list[tuple[str, ...]] = [("hosts", "ranks", *titles)]
        for line, names, ranks in alike:
            several = f"{names[0]}-{names[-1]} ({len(names)})" if len(names) > 1 else names[0]
            rows.append((several, spans(sorted(ranks)), *line))
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        return "\n".join("  ".join(f"{cell:{width}}" for cell, width in zip(row, widths)).rstrip() for row in rows)

    def _words(self, ranks: Sequence[int]) -> str:
        """Return who is on one host."""
        parts = []
        size = len(self.groups[0])
        for names, block in itertools.groupby(self.roles(rank) for rank in ranks):
            n = len(list(block))
            if names == ("spare",):
                parts.append(f"{n} idle")
            elif names != ("evaluator",):
                parts.append(" + ".join(names) if n == 1 else f"{n} {' + '.join(names)}s")
            elif size == 1:
                parts.append("evaluator" if n == 1 else f"{n} evaluators")
            elif n % size == 0:
                parts.append(f"{n // size} evaluator{'s' * (n > size)} of {size} ranks")
            else:
                parts.append(f"{n} of the {size} ranks of an evaluator")
        return ", ".join(parts)


def plan(
    hosts: Sequence[str],
    *,
    searcher: bool = True,
    ranks_per_eval: int | None = 1,
    nodes_per_eval: int | None = None,
    job_mode: str = "compact",
    node_packing_count: int | None = None,
    evals_per_node: int | None = None,
    agents: int = 0,
    spread_remainder: bool = False,
) -> Layout:
    """Return who does what in a world.

    Parameters
    ----------
    hosts : sequence of str
        Host name of each rank, in the order of ranks.
    searcher : bool, default True
        Whether the search needs a searcher besides the master.
    ranks_per_eval : int or None, default 1
        Ranks k of one evaluator, by default as many as `nodes_per_eval` hosts have.  Groups stay on one host where k
        ranks fit.
    nodes_per_eval : int, optional
        Whole hosts of one evaluator.
    job_mode : {"compact", "serial", "mpi"}, default "compact"
        compact: master and searcher take one rank each.  serial: the master has the first host to itself, unless there
        is only one, and the searcher a part of the second.  mpi: the searcher lives with the master.
    node_packing_count : int, optional
        In serial mode the searcher takes 1/node_packing_count of a host's ranks; by default one rank.
    evals_per_node : int, optional
        Evaluators that the user expects on a host without other roles; checked.
    agents : int, default 0
        Agents, of which each has as many evaluators as the others; they take a rank each, after the master's, and there
        is no searcher.
    spread_remainder : bool, default False
        Whether some agents may have one evaluator more than others, so that none is left over.

    Raises
    ------
    LayoutError
        If there are too few ranks, or not those that were asked for.
    """
    n, by_host = len(hosts), _by_host(hosts)
    k = ranks_per_eval or 1 if nodes_per_eval is None else _ranks_of_nodes(by_host, nodes_per_eval, ranks_per_eval)
    if k < 1:
        raise LayoutError(f"an evaluation needs at least 1 rank, got {k}")
    if job_mode not in JOB_MODES:
        raise LayoutError(f"unknown job mode {job_mode!r}: choose one of {', '.join(JOB_MODES)}")
    if agents < 0:
        raise LayoutError(f"the number of agents must be >= 0, got {agents}")
    names = list(by_host)

    reserved = {0}
    searcher_rank: int | None = None
    if agents:
        if job_mode == "serial" and len(names) > 1:
            reserved |= set(by_host[names[0]])  # the master has its node to itself
        agent_ranks = [rank for ranks in by_host.values() for rank in ranks if rank not in reserved][:agents]
        reserved |= set(agent_ranks)
    elif job_mode == "serial" and len(names) > 1:
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
    if n == 1 and not agents:
        reserved = set()

    free = {name: [rank for rank in ranks if rank not in reserved] for name, ranks in by_host.items()}
    groups = _groups(free, k, max(map(len, by_host.values()), default=0))
    if agents and len(groups) < agents:
        raise LayoutError(
            f"{n} rank{'s' * (n > 1)} in job mode {job_mode} leave{'s' * (n == 1)} no evaluator of {k} "
            f"rank{'s' * (k > 1)} for each of {agents} agent{'s' * (agents > 1)}: start at least "
            f"{1 + agents * (1 + k)}, or take fewer agents"
        )
    if not groups:
        advice = f"start at least {1 if k == 1 else k + 1}"
        if job_mode != "compact":
            advice = "add nodes, or use --job-mode compact"
        raise LayoutError(
            f"{n} rank{'s' * (n > 1)} in job mode {job_mode} leave{'s' * (n == 1)} no evaluator of {k} "
            f"rank{'s' * (k > 1)}: {advice}"
        )
    _check_evals_per_node(free, by_host, reserved, k, evals_per_node)
    workers: list[list[tuple[int, ...]]] = []
    if agents:
        workers = _share_out(groups, agents, spread_remainder)
        groups = [group for own in workers for group in own]
    used = {rank for group in groups for rank in group} | {0}
    if searcher_rank is not None:
        used.add(searcher_rank)
    if agents:
        used |= set(agent_ranks)
    spare = tuple(rank for rank in range(n) if rank not in used)
    return Layout(
        tuple(hosts),
        0,
        searcher_rank,
        tuple(groups),
        spare,
        tuple(agent_ranks) if agents else (),
        tuple(tuple(group[0] for group in own) for own in workers),
    )


def restored(content: Mapping[str, Any]) -> Layout:
    """Return the layout that `dataclasses.asdict` has made plain, perhaps on its way through JSON."""

    def frozen(value: Any) -> Any:
        return tuple(map(frozen, value)) if isinstance(value, (list, tuple)) else value

    return Layout(**{name: frozen(value) for name, value in content.items()})


def spans(numbers: Sequence[int]) -> str:
    """Return ascending numbers as spans.

    >>> spans([0, 1, 2, 3, 8, 10, 11])
    '0-3,8,10-11'
    """
    parts = []
    for _, run in itertools.groupby(enumerate(numbers), lambda pair: pair[1] - pair[0]):
        members = [number for _, number in run]
        parts.append(f"{members[0]}-{members[-1]}" if len(members) > 1 else str(members[0]))
    return ",".join(parts)


def _some(words: list[str]) -> str:
    """Join the words of one host's ranks; of very many, the first ones and the last."""
    if len(words) > 1 and len(set(words)) == 1:
        return f"{words[0]} each"
    return " | ".join(words if len(words) <= 8 else [*words[:3], "...", words[-1]])


def _by_host(hosts: Sequence[str]) -> dict[str, list[int]]:
    by_host: dict[str, list[int]] = {}
    for rank, host in enumerate(hosts):
        by_host.setdefault(host, []).append(rank)
    return by_host


def _ranks_of_nodes(by_host: dict[str, list[int]], nodes: int, k: int | None) -> int:
    """Return the ranks of an evaluation that has whole hosts."""
    most = max(map(len, by_host.values()), default=1)
    if k is not None and k != nodes * most:
        raise LayoutError(
            f"--num-nodes-per-eval {nodes} of {most} rank{'s' * (most > 1)} each "
            f"{'are' if nodes * most > 1 else 'is'} {nodes * most}, not --num-ranks-per-eval {k}"
        )
    return nodes * most


def _groups(free: dict[str, list[int]], k: int, most: int) -> list[tuple[int, ...]]:
    """Cut the free ranks into groups of k: on one host each where k ranks fit, across hosts where they never do.

    Across hosts, whole ones (of `most` ranks) are preferred, if that costs no group.
    """
    if any(len(ranks) >= k for ranks in free.values()):
        return [tuple(ranks[i : i + k]) for ranks in free.values() for i in range(0, len(ranks) - k + 1, k)]
    everything = _cut([rank for ranks in free.values() for rank in ranks], k)
    whole = _cut([rank for ranks in free.values() if len(ranks) == most for rank in ranks], k)
    return whole if len(whole) == len(everything) else everything


def _cut(ranks: list[int], k: int) -> list[tuple[int, ...]]:
    return [tuple(ranks[i : i + k]) for i in range(0, len(ranks) - k + 1, k)]


def _share_out(groups: list[tuple[int, ...]], agents: int, spread: bool) -> list[list[tuple[int, ...]]]:
    """Return the groups of each agent: equally many, or with the remainder spread over the first agents."""
    each, left = divmod(len(groups), agents)
    share, start = [], 0
    for agent in range(agents):
        end = start + each + (spread and agent < left)
        share.append(groups[start:end])
        start = end
    return share


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
