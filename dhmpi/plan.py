"""``python -m dhmpi.plan ambs -n 128 ...``: who will be where, before anybody queues.

The ranks are placed by `dhmpi.mpi.layout.plan`, as at launch.  Start reading at `place`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dhmpi import __version__, sites
from dhmpi.check import Parser
from dhmpi.errors import EXIT_BAD_INPUT, DhmpiError, LayoutError, OptionError
from dhmpi.mpi import binding, layout
from dhmpi.mpi.binding import Node
from dhmpi.mpi.layout import JOB_MODES, Layout
from dhmpi.options import flag

PROG = "python -m dhmpi.plan"
DESCRIPTION = (
    "Print which rank of a job would have which role, cores and GPUs, how many evaluators it has and how many ranks are"
    " idle, without starting anything."
)
FITTING = ("ambs", "agebo")
"""Searches that fit models, and so have a searcher."""
WITH_AGENTS = ("ppo",)
SEARCHES = (*FITTING, "regevo", "random", *WITH_AGENTS)
WORKERS_VARIABLE = "DEEPHYPER_WORKERS_PER_NODE"
"""The guide's name for the evaluators on each node."""
WORTH_TELLING = 0.02
"""Gain in evaluators for which another job mode is worth a word."""
NEIGHBOURS = 10
"""Numbers of agents to try for a better one: so many fewer and more, between half and double."""


@dataclass(frozen=True)
class Request:
    """A job as a user describes it; None where nothing was said.

    Attributes
    ----------
    search : str
    nodes : int
    ranks_per_node : int or None
        Ranks that the launcher starts on each node.
    job_mode : {"compact", "serial", "mpi"}
    node_packing_count : int or None
    num_evals_per_node : int or None
    num_nodes_per_eval : int or None
    num_ranks_per_node : int or None
        Ranks of one evaluation on each of its nodes.
    num_ranks_per_eval : int or None
    num_agents : int or None
    spread_remainder : bool
    num_threads_per_rank, num_threads_per_node : int or None
    """

    search: str
    nodes: int
    ranks_per_node: int | None = None
    job_mode: str = "compact"
    node_packing_count: int | None = None
    num_evals_per_node: int | None = None
    num_nodes_per_eval: int | None = None
    num_ranks_per_node: int | None = None
    num_ranks_per_eval: int | None = None
    num_agents: int | None = None
    spread_remainder: bool = False
    num_threads_per_rank: int | None = None
    num_threads_per_node: int | None = None

    @property
    def agents(self) -> int:
        """Return the number of agents, 0 for a search without."""
        return (self.num_agents or 1) if self.search in WITH_AGENTS else 0

    def check(self) -> None:
        """Refuse what makes no sense by itself.

        Raises
        ------
        OptionError
        """
        if self.nodes < 1:
            raise OptionError(f"-n must be >= 1, got {self.nodes}")
        for name in (
            "ranks_per_node", "node_packing_count", "num_evals_per_node", "num_nodes_per_eval", "num_ranks_per_node",
            "num_ranks_per_eval", "num_agents", "num_threads_per_rank", "num_threads_per_node",
        ):  # fmt: skip
            value = getattr(self, name)
            if value is not None and value < 1:
                raise OptionError(f"{flag(name)} must be >= 1, got {value}")
        if self.search not in WITH_AGENTS:
            for name in ("num_agents", "spread_remainder"):
                if getattr(self, name):
                    raise OptionError(f"{flag(name)}: the search {self.search} has no agents, {WITH_AGENTS[0]} has")
        if self.num_threads_per_rank and self.num_threads_per_node:
            raise OptionError("give --num-threads-per-rank or --num-threads-per-node, not both")


@dataclass(frozen=True)
class Plan:
    """A job as it will be.

    Attributes
    ----------
    request : Request
    layout : Layout
    node : Node
    ranks_per_node : int
    ranks_per_eval : int
    depth : int or None
        Cores of a rank, None if unknown.
    threads : int or None
        Threads of a rank, None if the launch decides.
    advice : tuple of str
    """

    request: Request
    layout: Layout
    node: Node
    ranks_per_node: int
    ranks_per_eval: int
    depth: int | None
    threads: int | None
    advice: tuple[str, ...]

    @property
    def n_ranks(self) -> int:
        return len(self.layout.hosts)

    def describe(self) -> str:
        """Return the plan for a person."""
        lines = [self.layout.describe(), "", binding.table(self.layout, self.node, self.depth), ""]
        lines += _agent_lines(self.layout)
        n_idle = len(self.layout.spare)
        lines.append(f"evaluators: {self.layout.n_evaluators}; idle ranks: {n_idle}")
        if self.threads is not None:
            lines.append(f"threads of a rank: {self.threads}")
        lines += [f"note: {sentence}" for sentence in self.advice]
        return "\n".join(lines)

    def content(self) -> dict[str, Any]:
        """Return the plan for a program."""
        placed = self.layout
        evaluator_of = {rank: i for i, group in enumerate(placed.groups) for rank in group}
        agent_of = {rank: i for i, rank in enumerate(placed.agents)}
        for agent, leaders in enumerate(placed.workers):
            agent_of |= {rank: agent for leader in leaders for rank in placed.groups[evaluator_of[leader]]}
        known = self.node.n_cores is not None and self.depth is not None
        cores = binding.cores_of(placed, self.node.n_cores or 1, self.depth or 1) if known else None
        gpus = binding.gpus_of(placed, self.node.gpus)

        def rank_content(rank: int) -> dict[str, Any]:
            return {
                "rank": rank,
                "roles": list(placed.roles(rank)),
                "evaluator": evaluator_of.get(rank),
                "agent": agent_of.get(rank),
                "cores": list(cores[rank]) if cores else None,
                "gpus": list(gpus[rank]),
            }

        return {
            "search": self.request.search,
            "job_mode": self.request.job_mode,
            "ranks": self.n_ranks,
            "ranks_per_node": self.ranks_per_node,
            "ranks_per_eval": self.ranks_per_eval,
            "threads_per_rank": self.threads,
            "evaluators": placed.n_evaluators,
            "agents": len(placed.agents),
            "evaluators_of_agents": [len(leaders) for leaders in placed.workers],
            "idle": len(placed.spare),
            "nodes": [
                {"node": i, "host": host, "ranks": [rank_content(rank) for rank in ranks]}
                for i, (host, ranks) in enumerate(placed.by_host().items())
            ],
            "advice": list(self.advice),
        }


def place(request: Request, node: Node) -> Plan:
    """Return who will be where.

    Raises
    ------
    OptionError
        If the request contradicts itself.
    LayoutError
        If it leaves no evaluator, or not those asked for.
    """
    request.check()
    k, ranks_per_node = _sizes(request)
    if ranks_per_node is None:
        ranks_per_node = _enough(request, k)
    placed = _plan(request, k, ranks_per_node)
    threads = request.num_threads_per_rank
    if request.num_threads_per_node is not None:
        threads = request.num_threads_per_node // ranks_per_node
        if threads < 1:
            raise OptionError(
                f"--num-threads-per-node {request.num_threads_per_node} is less than one for each of "
                f"{ranks_per_node} ranks"
            )
    depth = binding.depth(node, ranks_per_node) or threads
    found = Plan(request, placed, node, ranks_per_node, k, depth, threads or depth, ())
    return replace(found, advice=tuple(_advice(found)))


def _sizes(request: Request) -> tuple[int, int | None]:
    """Return the ranks of an evaluation, and those that the launcher starts on a node, None if nothing says it."""
    n_nodes, each, k = request.num_nodes_per_eval, request.num_ranks_per_node, request.num_ranks_per_eval
    ranks_per_node, evals = request.ranks_per_node, request.num_evals_per_node
    if (n_nodes or 1) > 1:
        each = each or (k // n_nodes if k and n_nodes else ranks_per_node) or 1
        ranks_per_node = ranks_per_node or each
        if ranks_per_node != each:
            raise OptionError(
                f"an evaluation on {n_nodes} nodes has them to itself: its {each} ranks a node must be the "
                f"{ranks_per_node} of --ranks-per-node"
            )
        if evals is not None and evals > 1:
            raise OptionError(
                f"an evaluation on {n_nodes} nodes has them to itself: --num-evals-per-node must be 1, got {evals}"
            )
    if n_nodes or each:
        product = (n_nodes or 1) * (each or 1)
        if k is not None and k != product:
            raise OptionError(
                f"--num-ranks-per-eval {k} is not --num-nodes-per-eval {n_nodes or 1} x --num-ranks-per-node "
                f"{each or 1}"
            )
        k = product
    k = k or 1
    if ranks_per_node is None and evals is None:
        ranks_per_node = each or 1
    return k, ranks_per_node


def _enough(request: Request, k: int) -> int:
    """Return the ranks a node that give as many evaluators a node as asked for; one node has the other roles too."""
    wanted = (request.num_evals_per_node or 1) * k
    if request.nodes == 1:
        for ranks_per_node in range(wanted, wanted + 3 + request.agents):
            try:
                _plan(request, k, ranks_per_node)
            except LayoutError:
                continue
            return ranks_per_node
    return wanted


def _plan(request: Request, k: int, ranks_per_node: int) -> Layout:
    width = len(str(request.nodes - 1))
    return layout.plan(
        [f"node{i:0{width}d}" for i in range(request.nodes) for _ in range(ranks_per_node)],
        searcher=request.search in FITTING,
        ranks_per_eval=k,
        job_mode=request.job_mode,
        node_packing_count=request.node_packing_count,
        evals_per_node=request.num_evals_per_node if (request.num_nodes_per_eval or 1) == 1 else None,
        agents=request.agents,
        spread_remainder=request.spread_remainder,
    )


def _agent_lines(placed: Layout) -> list[str]:
    """Return where the evaluators of each agent are."""
    members = {group[0]: group for group in placed.groups}
    lines = []
    for agent, (rank, leaders) in enumerate(zip(placed.agents, placed.workers)):
        ranks = [member for leader in leaders for member in members[leader]]
        lines.append(f"agent {agent} on rank {rank}: {len(leaders)} evaluators on ranks {layout.spans(ranks)}")
    return [*lines, ""] if lines else []


def _advice(found: Plan) -> Iterator[str]:
    """Tell what is wasted, and what would waste less."""
    if found.layout.agents:
        yield from _advice_on_agents(found)
    else:
        yield from _advice_on_modes(found)
    yield from _advice_on_groups(found)
    node, r = found.node, found.ranks_per_node
    if node.n_cores is not None and found.threads is not None and found.threads * r > node.n_cores:
        yield f"{r} x {found.threads} threads on each node are more than its {node.n_cores} cores"
    used = {
        (host, name)
        for host, names in zip(found.layout.hosts, binding.gpus_of(found.layout, node.gpus))
        for name in names
    }
    n_gpus = len(node.gpus) * found.request.nodes
    if n_gpus > len(used):
        yield f"{n_gpus - len(used)} of {n_gpus} GPUs have no evaluator"


def _advice_on_agents(found: Plan) -> Iterator[str]:
    """Tell, in the guide's words, how the evaluators are shared."""
    placed, request = found.layout, found.request
    n, n_agents, n_idle = found.n_ranks, len(placed.agents), len(placed.spare)
    counts = sorted({len(leaders) for leaders in placed.workers})
    each = " or ".join(str(count) for count in counts)
    yield (
        f"of {n} ranks {n_agents} {'are agents' if n_agents > 1 else 'is the agent'}, leaving {n - n_agents}: "
        f"{each} evaluators each take {sum(map(len, placed.groups))}, the master takes one, {n_idle} are unused"
    )
    if n_idle == 0:
        return
    choices = []
    for agents in range(max(-(-n_agents // 2), n_agents - NEIGHBOURS), min(2 * n_agents, n_agents + NEIGHBOURS) + 1):
        try:
            other = _plan(replace(request, num_agents=agents), found.ranks_per_eval, found.ranks_per_node)
        except LayoutError:
            break
        choices.append((len(other.spare), abs(agents - n_agents), agents))
    least, _, agents = min(choices)
    if least < n_idle:
        yield f"{agents} agent{'s' * (agents > 1)} would leave {least or 'none'} unused"
    if not request.spread_remainder:
        spread = _plan(replace(request, spread_remainder=True), found.ranks_per_eval, found.ranks_per_node)
        if len(spread.spare) < n_idle:
            yield f"--spread-remainder would leave {len(spread.spare) or 'none'} unused: some agents have one more"


def _advice_on_modes(found: Plan) -> Iterator[str]:
    placed, request = found.layout, found.request
    best, mode = placed.n_evaluators, request.job_mode
    for other in JOB_MODES:
        try:
            n_evaluators = _plan(
                replace(request, job_mode=other, num_evals_per_node=None), found.ranks_per_eval, found.ranks_per_node
            ).n_evaluators
        except LayoutError:
            continue
        if n_evaluators > best:
            best, mode = n_evaluators, other
    gain = best - placed.n_evaluators
    if gain and (placed.spare or gain >= WORTH_TELLING * placed.n_evaluators):
        yield f"--job-mode {mode} would have {best} evaluators, {gain} more"


def _advice_on_groups(found: Plan) -> Iterator[str]:
    k, r = found.ranks_per_eval, found.ranks_per_node
    if 1 < k <= r and r % k:
        yield f"groups of {k} leave {r % k} of the {r} ranks on each node idle: a multiple of {k} ranks would not"


def add_placement(parser: argparse.ArgumentParser) -> None:
    """Give a command line what a `Request` needs, besides the search."""
    add = parser.add_argument_group("where").add_argument
    add("-n", "--nodes", type=int, metavar="NODES", required=True, help="nodes of the job")
    add("--ranks-per-node", type=int, metavar="N", help="ranks that the launcher starts on each node (default: 1)")
    add("-j", "--job-mode", choices=JOB_MODES, default="compact", help=(
        "compact: master and searcher take a rank each; serial: the master has the first node to itself; mpi: the"
        " searcher lives with the master (default: compact)"
    ))  # fmt: skip
    add("--node-packing-count", type=int, metavar="N", help=(
        "in job mode serial, the searcher takes 1/N of a node; by default one rank"
    ))  # fmt: skip
    add("--num-evals-per-node", type=int, metavar="N", help=(
        f"evaluators on each node, from which the ranks follow; {WORKERS_VARIABLE} in the environment says the same"
    ))  # fmt: skip
    add("--num-nodes-per-eval", type=int, metavar="N", help="nodes of one evaluation (default: 1)")
    add("--num-ranks-per-node", type=int, metavar="N", help="ranks of one evaluation on each of its nodes (default: 1)")
    add("--num-ranks-per-eval", type=int, metavar="N", help="ranks of one evaluation in all")
    add("--num-threads-per-rank", type=int, metavar="N", help="threads of a rank; by default its cores")
    add("--num-threads-per-node", type=int, metavar="N", help="threads of all ranks of a node")
    add("--num-agents", "--num-nodes", "--nas-nodes", type=int, metavar="N", dest="num_agents", help=(
        "agents of ppo (default: 1)"
    ))  # fmt: skip
    add("--spread-remainder", action="store_true", help="give some agents an evaluator more, so that none is left over")
    add(
        "--site",
        metavar="NAME",
        help=f"machine: one of {', '.join(sites.names())}, or a file of your own".replace("%", "%%"),
    )
    add("--cores-per-node", type=int, metavar="N", help="by default as the site says")
    add("--gpus-per-node", type=int, metavar="N", help="by default as the site says")


def request_of(given: argparse.Namespace, search: str, environment: Mapping[str, str] = os.environ) -> Request:
    """Return the request that a command line makes.

    Raises
    ------
    OptionError
    """
    values = {name: getattr(given, name) for name in Request.__dataclass_fields__ if name != "search"}
    if values["num_evals_per_node"] is None and values["ranks_per_node"] is None:
        values["num_evals_per_node"] = _workers_per_node(environment)
    request = Request(search=search, **values)
    request.check()
    return request


def node_of(given: argparse.Namespace, site: sites.Site | None) -> Node:
    """Return the cores and GPUs of a node: what the command line says, else the site.

    Raises
    ------
    OptionError
    """
    node = site.node if site is not None else Node()
    for name in ("cores_per_node", "gpus_per_node"):
        value, least = getattr(given, name), int(name == "cores_per_node")
        if value is not None and value < least:
            raise OptionError(f"{flag(name)} must be >= {least}, got {value}")
    if given.cores_per_node is not None:
        node = replace(node, n_cores=given.cores_per_node)
    if given.gpus_per_node is not None and given.gpus_per_node != len(node.gpus):
        node = replace(node, gpus=tuple(str(i) for i in range(given.gpus_per_node)))
    return node


def _workers_per_node(environment: Mapping[str, str]) -> int | None:
    text = environment.get(WORKERS_VARIABLE)
    if text is None:
        return None
    try:
        n = int(text)
    except ValueError:
        n = 0
    if n < 1:
        raise OptionError(f"{WORKERS_VARIABLE} must be a number >= 1, got {text!r}")
    return n


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    result = Parser(prog=PROG, description=DESCRIPTION, allow_abbrev=False)
    result.add_argument("search", choices=SEARCHES, help="what would run")
    add_placement(result)
    result.add_argument("--json", action="store_true", help="for programs: the full map, and the counts")
    result.add_argument("--version", action="version", version=f"dhmpi {__version__}")
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a plan; return the exit code."""
    try:
        given = parser().parse_args(arguments)
        site = sites.load(given.site) if given.site is not None else None
        found = place(request_of(given, given.search), node_of(given, site))
    except DhmpiError as error:
        print(f"dhmpi.plan: error: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    print(json.dumps(found.content()) if given.json else found.describe())
    return 0


if __name__ == "__main__":
    sys.exit(main())
