"""Search spaces of neural networks, as plain data.

A search space is a graph of nodes.  Some nodes hold a *decision*, with *options* to choose among: an operation of
:mod:`dhmpi.nas.layers`, or whether there is a skip connection.  An *architecture* is one option per decision, as a
tuple of ints in the order of definition; every decision always exists, so all architectures of a space are equally
long.  Searches need no more than that: nothing here imports Keras, and only :meth:`SearchSpace.build` does when called.

Start reading at :class:`SearchSpace`; :meth:`SearchSpace.resolve` is what turns an architecture into a list of layers.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dhmpi.errors import ProblemError
from dhmpi.nas.layers import Activator, Operation, record, words

if TYPE_CHECKING:
    import keras

Architecture = tuple[int, ...]
Shape = tuple[int, ...]

MERGES = ("add", "concat", "pad")
"""Ways to make one tensor of several; see :meth:`SearchSpace.merge`."""

_IDENTITY = "Identity"
_NOTHING = "Nothing"  # an option that passes nothing on
_OUTPUT = "Output"  # names an output that has no operation of its own


class Decision(NamedTuple):
    """A choice that a search makes."""

    name: str
    options: tuple[str, ...]
    """In words."""


@dataclass(frozen=True)
class Node:
    """A tensor in a space: what the methods of a space take and return."""

    space: SearchSpace
    index: int

    @property
    def name(self) -> str:
        """Under which the space knows it."""
        return self.space._nodes[self.index].name

    def __repr__(self) -> str:
        return f"<node {self.name!r}>"


class Edge(NamedTuple):
    """From where a node gets its input: always, or only if a decision has one of some options."""

    source: int
    decision: int | None = None
    options: tuple[int, ...] = ()


@dataclass(frozen=True)
class NodeRecord:
    """A node as a space keeps it."""

    name: str
    operations: tuple[Operation, ...]
    edges: tuple[Edge, ...] = ()
    decision: int | None = None  # what chooses the operation; without one there is one operation
    layer: int | None = None  # the node whose layer this one uses; by default its own


@dataclass(frozen=True)
class Step:
    """A layer of a network, after all decisions.

    Attributes
    ----------
    name : str
        Of the layer, unique in the network but for layers that are shared.
    node : str
        Name of the node that it comes from.
    operation : Operation
        With the name "Input", "Output" or a merge ("add", "concat", "pad") where it is no layer of Keras's.
    sources : tuple of int
        Steps whose tensors it takes.
    layer : int
        Steps of the same number share one layer.
    """

    name: str
    node: str
    operation: Operation
    sources: tuple[int, ...]
    layer: int


@dataclass(frozen=True)
class Network:
    """What an architecture stands for: steps, each after its sources, the inputs first.

    Attributes
    ----------
    steps : tuple of Step
        Only those that an output depends on, and all inputs.
    inputs, outputs : tuple of int
        Steps.
    output_shapes : tuple of (tuple of int or None)
        As declared.
    """

    steps: tuple[Step, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    output_shapes: tuple[Shape | None, ...]


class SearchSpace:
    """A search space of neural networks.

    Parameters
    ----------
    decisions : dict of str to list, optional
        With `build`, the other way to define a space: decisions by name, each with its options as plain values.
    build : callable, optional
        ``build({name: option}) -> keras.Model``.

    Raises
    ------
    ProblemError
        By all methods, in one sentence, as soon as something cannot work.

    Examples
    --------
    >>> from dhmpi.nas import SearchSpace, layers as L
    >>> space = SearchSpace()
    >>> past = [x := space.input((10,))]
    >>> for i in range(3):
    ...     y = space.choose(f"layer{i}", [L.Identity(), L.Dense(16, "relu"), L.Dense(32, "relu")], x)
    ...     x = space.skips(f"skip{i}", y, past[-3:], activation="relu")
    ...     past.append(x)
    >>> space.output(L.Dense(1), x)
    >>> len(space.decisions), space.size
    (9, 1728)
    >>> print(space.describe((1, 0, 2, 1, 0, 0, 0, 0, 0)))
    layer0   1  Dense(16, relu)
    skip0_0  0  no
    layer1   2  Dense(32, relu)
    skip1_0  1  from input_0
    skip1_1  0  no
    layer2   0  Identity
    skip2_0  0  no
    skip2_1  0  no
    skip2_2  0  no

    A cell is a Python function that adds nodes; ``same_as`` makes every copy of it choose alike.
    """

    def __init__(
        self,
        decisions: Mapping[str, Sequence[Any]] | None = None,
        build: Callable[[dict[str, Any]], keras.Model] | None = None,
    ) -> None:
        self._decisions: list[Decision] = []
        self._values: list[tuple[Any, ...]] = []  # the options themselves, where `build` wants them
        self._nodes: list[NodeRecord] = []
        self._inputs: list[tuple[int, Shape]] = []
        self._outputs: list[tuple[int, Shape | None]] = []
        self._function = build
        if (decisions is None) != (build is None):
            raise ProblemError("SearchSpace takes either both decisions= and build=, or neither")
        if decisions is None:
            return
        if not isinstance(decisions, Mapping):
            raise ProblemError(f"decisions= must be a dict of options by name, got {_show(decisions)}")
        if not callable(build):
            raise ProblemError(f"build= must be a function of a dict, got {_show(build)}")
        for name, options in decisions.items():
            values = _options(name, options)
            self._decide(_checked_name(name), tuple(map(words, values)))
            self._values.append(values)

    def input(self, shape: int | Sequence[int], name: str | None = None) -> Node:
        """Add an input; call it again for more.

        Parameters
        ----------
        shape : tuple of int
            Without the batch.
        name : str, optional
            Default ``input_0``, ``input_1``, ...
        """
        shape = _shape("an input", shape)
        node = self._add(name or f"input_{len(self._inputs)}", [record("Input", shape=shape)])
        self._inputs.append((node.index, shape))
        return node

    def choose(self, name: str, options: Sequence[Operation], x: Node, same_as: str | None = None) -> Node:
        """Apply one of several operations: a decision.

        Parameters
        ----------
        name : str
            Of the decision, and of the node.
        options : sequence of Operation
        x : Node
        same_as : str, optional
            Name of an earlier decision with as many options: the node follows it, with layers of its own, and `name`
            is no decision but only the node's.
        """
        operations = [_operation(f"option {i} of {name!r}", option) for i, option in enumerate(_options(name, options))]
        source = self._index(x)
        name = self._free(name)
        decision = self._decision(name, tuple(map(str, operations)), same_as)
        return self._add(name, operations, [Edge(source)], decision)

    def apply(self, operation: Operation, x: Node, name: str | None = None) -> Node:
        """Apply an operation that every architecture has."""
        operation = _operation("what is applied", operation)
        return self._add(name or self._numbered(operation.name.lower()), [operation], [Edge(self._index(x))])

    def merge(
        self, nodes: Sequence[Node], how: str = "add", activation: Activator = None, name: str | None = None
    ) -> Node:
        """Make one tensor of several.

        Parameters
        ----------
        nodes : sequence of Node
            The first one decides the shape: the others are brought to its rank and lengths.
        how : {"add", "concat", "pad"}
            - add: project the last axes (Dense, a 1x1 convolution) to the first one's width where they differ, and add.
            - concat: concatenate along the last axis.
            - pad: pad the last axes with zeros to the largest width, and add.
        activation : str or callable, optional
            Applied to what two or more tensors give; a tensor alone passes as it is.
        """
        if not isinstance(nodes, Iterable) or not (sources := [self._index(node) for node in nodes]):
            raise ProblemError("merge() needs at least one node")
        return self._add(name or self._numbered(how), [_merge(how, activation)], [Edge(source) for source in sources])

    def skips(
        self,
        name: str,
        y: Node,
        sources: Sequence[Node],
        merge: str = "add",
        activation: Activator = None,
        same_as: str | None = None,
    ) -> Node:
        """Merge a node with any of several earlier ones: skip connections, one yes/no decision each.

        Parameters
        ----------
        name : str
            The decision about source ``i`` is named ``<name>_<i>``.
        y : Node
            What is always there, and decides the shape; where all decisions say no, it passes as it is.
        sources : sequence of Node
        merge, activation
            As in :meth:`merge`.
        same_as : str, optional
            Name of earlier skips with as many sources: these follow them.
        """
        operation = _merge(merge, activation)
        edges = [Edge(self._index(y))]
        name = self._free(name)
        for i, source in enumerate(sources):
            options = ("no", f"from {self._nodes[self._index(source)].name}")
            followed = None if same_as is None else f"{same_as}_{i}"
            edges.append(Edge(source.index, self._decision(f"{name}_{i}", options, followed), (1,)))
        return self._add(name, [operation], edges)

    def select(
        self,
        name: str,
        groups: Sequence[Node | Sequence[Node]],
        y: Node | None = None,
        merge: str = "add",
        activation: Activator = None,
        same_as: str | None = None,
    ) -> Node:
        """Choose which nodes to go on with: one decision among groups of them.

        Parameters
        ----------
        name : str
        groups : sequence of (Node or sequence of Node)
            The options; the nodes of a group are merged.  An empty one adds nothing to `y`.
        y : Node, optional
            Merged with the chosen group, as first.
        merge, activation, same_as
            As in :meth:`merge` and :meth:`choose`.
        """
        operation = _merge(merge, activation)
        edges = [] if y is None else [Edge(self._index(y))]
        name = self._free(name)
        options = []
        for i, group in enumerate(_options(name, groups)):
            members = [group] if isinstance(group, Node) else list(group)
            if not members and y is None:
                raise ProblemError(f"option {i} of {name!r} is empty, and there is no y to go on with")
            edges += [Edge(self._index(member), -1, (i,)) for member in members]
            options.append(" + ".join(member.name for member in members) or "none")
        decision = self._decision(name, tuple(options), same_as)
        edges = [edge if edge.decision is None else edge._replace(decision=decision) for edge in edges]
        return self._add(name, [operation], edges)

    def reuse(self, node: Node, x: Node) -> Node:
        """Apply the very layer of a node, weights included, to another tensor.

        Parameters
        ----------
        node : Node
            Of :meth:`choose`, :meth:`apply` or :meth:`reuse`.
        x : Node
        """
        owner = self._index(node)
        original = self._nodes[owner]
        owner = owner if original.layer is None else original.layer
        original = self._nodes[owner]
        if original.operations[0].name in (*MERGES, "Input", _OUTPUT):
            raise ProblemError(f"only a layer can be used again, and {original.name!r} is none")
        name = self._numbered(f"{original.name}_again")
        return self._add(name, original.operations, [Edge(self._index(x))], original.decision, owner)

    def output(
        self,
        operation: Operation | None,
        x: Node,
        shape: int | Sequence[int] | None = None,
        name: str | None = None,
    ) -> None:
        """Add an output; call it again for more.

        Parameters
        ----------
        operation : Operation or None
            The last layer; ``None`` if `x` is the output.
        x : Node
        shape : tuple of int, optional
            Without the batch: checked when a network is built.
        name : str, optional
            Default ``output_0``, ``output_1``, ...
        """
        operation = record(_OUTPUT) if operation is None else _operation("the output", operation)
        declared = None if shape is None else _shape("an output", shape)
        if declared is None and operation.name == "Dense" and not operation.get("per_step"):
            declared = (operation.get("units"),)
        if operation.name == _IDENTITY:
            operation = record(_OUTPUT)
        node = self._add(name or f"output_{len(self._outputs)}", [operation], [Edge(self._index(x))])
        self._outputs.append((node.index, declared))

    def check(self) -> None:
        """Look at the space as a whole.

        Raises
        ------
        ProblemError
            If there is no input or no output, or something leads to no output.
        """
        if self._function is not None:
            return
        if not self._inputs:
            raise ProblemError("the search space has no input; add one with input(shape)")
        if not self._outputs:
            raise ProblemError("the search space has no output; add one with output(operation, node)")
        used: set[int] = set()
        found = [index for index, _ in self._outputs]
        while found:
            index = found.pop()
            if index not in used:
                used.add(index)
                found += [edge.source for edge in self._nodes[index].edges]
        for index, node in enumerate(self._nodes):
            if index not in used and not any(other.layer == index for other in self._nodes):
                raise ProblemError(
                    f"{node.name!r} leads to no output of the search space; use what defines it, or drop it"
                )

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """In the order of definition, which is that of an architecture."""
        return tuple(self._decisions)

    @property
    def n_options(self) -> tuple[int, ...]:
        """Number of options of every decision."""
        return tuple(len(decision.options) for decision in self.decisions)

    @property
    def size(self) -> int:
        """Number of architectures."""
        return math.prod(self.n_options)

    @property
    def has_graph(self) -> bool:
        """Whether the networks are known without building them: not where a function does."""
        return self._function is None

    @property
    def input_shapes(self) -> tuple[Shape, ...]:
        """Without the batch; empty where a function builds the networks."""
        return tuple(shape for _, shape in self._inputs)

    @property
    def output_shapes(self) -> tuple[Shape | None, ...]:
        """As declared, or known from a Dense; empty where a function builds the networks."""
        return tuple(shape for _, shape in self._outputs)

    def random(self, rng: np.random.Generator) -> Architecture:
        """Draw an architecture, uniformly."""
        return tuple(rng.integers(0, self.n_options).tolist())

    def mutate(self, arch: Sequence[Any], rng: np.random.Generator) -> Architecture:
        """Return the architecture with one decision changed to another option, each uniformly.

        Raises
        ------
        ProblemError
            If no decision has two options.
        """
        changed = list(self.validate(arch))
        n_options = self.n_options
        free = [i for i, n in enumerate(n_options) if n > 1]
        if not free:
            raise ProblemError("the search space has a single architecture, which cannot be mutated")
        i = free[rng.integers(len(free))]
        other = int(rng.integers(n_options[i] - 1))
        changed[i] = other + (other >= changed[i])
        return tuple(changed)

    def validate(self, arch: Sequence[Any]) -> Architecture:
        """Return an architecture as plain ints.

        Parameters
        ----------
        arch : sequence
            One entry per decision: the number of an option, or a float in [0, 1] as DeepHyper has them, of which ``x``
            stands for option ``int(x * n)`` and 1.0 for the last.

        Raises
        ------
        ProblemError
            If the length is wrong, or an entry is out of range or no number.
        """
        if isinstance(arch, (str, bytes, Mapping)) or not isinstance(arch, Iterable):
            raise ProblemError(f"an architecture is a sequence of one option per decision, got {_show(arch)}")
        entries = list(arch)
        if len(entries) != len(self.decisions):
            raise ProblemError(
                f"an architecture of this search space has {_counted(len(self.decisions), 'entry', 'entries')}, one per"
                f" decision, got {len(entries)}"
            )
        return tuple(_option(entry, decision) for entry, decision in zip(entries, self.decisions))

    def describe(self, arch: Sequence[Any]) -> str:
        """Return one line per decision: its name, the number of the chosen option, the option in words."""
        arch = self.validate(arch)
        width = max((len(decision.name) for decision in self.decisions), default=0)
        digits = max((len(str(n - 1)) for n in self.n_options), default=0)
        return "\n".join(
            f"{decision.name:{width}}  {option:{digits}}  {decision.options[option]}"
            for decision, option in zip(self.decisions, arch)
        )

    def canonical(self, arch: Sequence[Any]) -> str:
        """Return 16 hexadecimal digits that are equal for architectures which build the same network.

        Layers that do nothing (Identity), nodes that no output depends on, and names do not count; initial weights do
        not either.  Where a function builds the networks, every architecture has digits of its own.
        """
        arch = self.validate(arch)
        if self._function is not None:
            return _digest(list(arch))
        network = self.resolve(arch)
        numbers: dict[int, int] = {}
        layers = [numbers.setdefault(step.layer, len(numbers)) for step in network.steps]
        steps = [[_specification(step.operation), layer, step.sources] for step, layer in zip(network.steps, layers)]
        return _digest([steps, network.outputs])

    def fingerprint(self) -> str:
        """Return 16 hexadecimal digits that name the space: decisions, operations and how they are connected."""
        if self._function is not None:
            values = [_specification(option) for options in self._values for option in options]
            return _digest([self._decisions, values, _specification(self._function)])
        nodes = [
            [node.name, list(map(_specification, node.operations)), node.edges, node.decision, node.layer]
            for node in self._nodes
        ]
        return _digest([self._decisions, nodes, self._outputs])

    def values(self, arch: Sequence[Any]) -> dict[str, Any]:
        """Return the chosen options by decision: the values themselves where a function builds, otherwise in words."""
        options = self._values or [decision.options for decision in self.decisions]
        arch = self.validate(arch)
        return {decision.name: choices[i] for decision, choices, i in zip(self.decisions, options, arch)}

    def build(self, arch: Sequence[Any], seed: int | None = None) -> keras.Model:
        """Return the network of an architecture, untrained; nothing of it is kept.

        Parameters
        ----------
        arch : sequence
        seed : int, optional
            Of the initial weights and of dropout: equal architectures and seeds give equal weights, bit for bit,
            whatever was built before.  Where a function builds, ``keras.utils.set_random_seed`` gets it first.

        Raises
        ------
        ProblemError
            With the reason, if this architecture gives no network.
        """
        from dhmpi.nas.build import build_network, call_builder  # late: brings TensorFlow

        if self._function is not None:
            return call_builder(self._function, self.values(arch), seed)
        return build_network(self.resolve(arch), seed)

    def resolve(self, arch: Sequence[Any]) -> Network:
        """Return the layers of an architecture, and how they are connected, without building any.

        Raises
        ------
        ProblemError
            If the space has no graph (a function builds the networks) or is incomplete.
        """
        if self._function is not None:
            raise ProblemError("the networks of this search space are known only to its build function")
        self.check()
        arch = self.validate(arch)
        operations = [node.operations[0 if node.decision is None else arch[node.decision]] for node in self._nodes]
        sources = [
            () if operation.name == _NOTHING else given for operation, given in zip(operations, self._active(arch))
        ]
        steps: list[Step] = []
        tensors: dict[int, tuple[int, ...]] = {}  # of every node: none, one, or (in old spaces) several
        for index in self._ordered(sources):
            node, operation = self._nodes[index], operations[index]
            taken = tuple(tensor for source in sources[index] for tensor in tensors[source])
            passes = operation.name in (_IDENTITY, _NOTHING) or (operation.name in MERGES and len(taken) < 2)
            if passes:
                tensors[index] = taken
                continue
            if not taken and operation.name != "Input":
                raise ProblemError(f"{node.name!r} gets no input in this architecture")
            tensors[index] = (len(steps),)
            owner = index if node.layer is None else node.layer
            steps.append(Step(_layer_name(self._nodes[owner], operation), node.name, operation, taken, owner))
        outputs = tuple(tensors[index][0] for index, _ in self._outputs)
        inputs = tuple(tensors[index][0] for index, _ in self._inputs)
        return Network(tuple(steps), inputs, outputs, self.output_shapes)

    def _active(self, arch: Architecture) -> list[tuple[int, ...]]:
        """Return the nodes from which every node gets its input."""
        return [
            tuple(edge.source for edge in node.edges if edge.decision is None or arch[edge.decision] in edge.options)
            for node in self._nodes
        ]

    def _ordered(self, sources: Sequence[Sequence[int]]) -> list[int]:
        """Return the inputs and all nodes that outputs depend on, each after its sources."""
        order: list[int] = []
        waiting: dict[int, bool] = {}  # whether a node that was met is still waiting for its sources
        stack = [index for index, _ in [*reversed(self._outputs), *reversed(self._inputs)]]
        while stack:
            index = stack[-1]
            if index not in waiting:
                waiting[index] = True
                stack += [source for source in reversed(sources[index]) if not self._is_done(source, waiting)]
                continue
            stack.pop()
            if waiting[index]:
                waiting[index] = False
                order.append(index)
        return order

    def _is_done(self, index: int, waiting: Mapping[int, bool]) -> bool:
        if waiting.get(index):
            raise ProblemError(f"the search space has a cycle through {self._nodes[index].name!r}")
        return index in waiting

    def _add(
        self,
        name: str,
        operations: Sequence[Operation],
        edges: Sequence[Edge] = (),
        decision: int | None = None,
        layer: int | None = None,
    ) -> Node:
        name = self._free(name)
        if self._function is not None:
            raise ProblemError(f"{name!r} cannot be added: the networks of this search space are built by a function")
        self._nodes.append(NodeRecord(name, tuple(operations), tuple(edges), decision, layer))
        return Node(self, len(self._nodes) - 1)

    def _decision(self, name: str, options: tuple[str, ...], same_as: str | None) -> int:
        """Add a decision, or find the one to follow."""
        if same_as is None:
            return self._decide(name, options)
        for index, decision in enumerate(self._decisions):
            if decision.name == same_as:
                if len(decision.options) != len(options):
                    raise ProblemError(
                        f"{name!r} cannot follow the decision {same_as!r}: it has {len(options)} options, and that one"
                        f" has {len(decision.options)}"
                    )
                return index
        raise ProblemError(f"{name!r} cannot follow the decision {same_as!r}: there is none of that name yet")

    def _decide(self, name: str, options: tuple[str, ...]) -> int:
        if any(name == decision.name for decision in self._decisions):
            raise ProblemError(f"the search space has two decisions named {name!r}; give one another name")
        self._decisions.append(Decision(name, options))
        return len(self._decisions) - 1

    def _free(self, name: Any) -> str:
        name = _checked_name(name)
        if any(name == node.name for node in self._nodes):
            raise ProblemError(f"the search space has two nodes or decisions named {name!r}; give one another name")
        return name

    def _numbered(self, name: str) -> str:
        taken = {node.name for node in self._nodes}
        names = [name, *(f"{name}_{i}" for i in range(1, len(taken) + 1))]
        return next(candidate for candidate in names if candidate not in taken)

    def _index(self, node: Any) -> int:
        if not isinstance(node, Node):
            raise ProblemError(f"a node of the search space is wanted, as its methods return them, got {_show(node)}")
        if node.space is not self:
            raise ProblemError(f"{node!r} belongs to another search space")
        return node.index


def as_search_space(found: Any) -> SearchSpace:
    """Return what a user's function gave as a search space, complete: an old one is converted.

    Parameters
    ----------
    found : SearchSpace or space of :mod:`dhmpi.nas.compat`

    Raises
    ------
    ProblemError
        If it is neither, or incomplete.
    """
    space = found.convert() if hasattr(found, "convert") else found
    if not isinstance(space, SearchSpace):
        raise ProblemError(f"a dhmpi.nas.SearchSpace is wanted, got an object of type {type(found).__name__}")
    space.check()
    return space


def _layer_name(node: NodeRecord, operation: Operation) -> str:
    given = operation.get("name")
    if given is not None:
        return str(given)
    chooses = len(node.operations) > 1 or node.decision is not None
    if chooses or (operation.name in MERGES and any(edge.decision is not None for edge in node.edges)):
        return f"{node.name}_{operation.name.lower()}"
    return node.name


def _merge(how: Any, activation: Activator) -> Operation:
    if how not in MERGES:
        raise ProblemError(f"nodes are merged by {', '.join(MERGES[:-1])} or {MERGES[-1]}, got {_show(how)}")
    return record(how, activation=activation)


def _operation(what: str, operation: Any) -> Operation:
    if not isinstance(operation, Operation):
        raise ProblemError(
            f"{what} must be an operation of dhmpi.nas.layers, such as layers.Dense(32, 'relu'), got {_show(operation)}"
        )
    return operation


def _options(name: Any, options: Any) -> tuple[Any, ...]:
    if isinstance(options, (str, Mapping, Operation, Node)) or not isinstance(options, Iterable):
        raise ProblemError(f"the options of decision {name!r} must be a list, got {_show(options)}")
    found = tuple(options)
    if not found:
        raise ProblemError(f"decision {name!r} has no options; give at least one")
    return found


def _option(entry: Any, decision: Decision) -> int:
    """Return the number of an option."""
    n = len(decision.options)
    value = entry.item() if isinstance(entry, np.generic) else entry
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < n:
        return value
    if isinstance(value, float) and 0 <= value <= 1:
        return min(int(value * n), n - 1)
    legal = f"0 to {n - 1}" if n > 1 else "0"
    raise ProblemError(
        f"decision {decision.name!r} takes the number of an option, {legal}, or a float in [0, 1], got {_show(entry)}"
    )


def _checked_name(name: Any) -> str:
    if not isinstance(name, str) or not name or not name.isprintable():
        raise ProblemError(
            f"the name of a decision or node must be a string of printable characters, got {_show(name)}"
        )
    return name


def _shape(what: str, shape: Any) -> Shape:
    lengths = (shape,) if isinstance(shape, (int, np.integer)) else shape
    plain = tuple(lengths) if isinstance(lengths, Iterable) and not isinstance(lengths, str) else ()
    if not plain or not all(isinstance(n, (int, np.integer)) and not isinstance(n, bool) and n > 0 for n in plain):
        raise ProblemError(
            f"the shape of {what} must be a tuple of integers > 0, without the batch, got {_show(shape)}"
        )
    return tuple(map(int, plain))


def _specification(value: Any) -> Any:
    """Return what tells a value from others, as JSON has it, the same in every process."""
    if isinstance(value, Operation):
        return [value.name, _specification(dict(value.arguments)), _specification(value.layer)]
    if isinstance(value, Mapping):
        return {str(key): _specification(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return list(map(_specification, value))
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    owner = value if callable(value) and hasattr(value, "__qualname__") else type(value)
    named = f"{owner.__module__}.{owner.__qualname__}"
    return [named, _specification(value.get_config())] if owner is not value and hasattr(value, "get_config") else named


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _counted(n: int, one: str, many: str) -> str:
    return f"{n} {one if n == 1 else many}"


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
