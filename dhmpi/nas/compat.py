"""DeepHyper 0.1's way to define a search space: nodes of a graph, connected one by one.

For problem files that exist already: change their imports to this module, and ``NaProblem.search_space`` takes the
function as it is.  New spaces are shorter with :class:`dhmpi.nas.SearchSpace`, which :meth:`KSearchSpace.convert` makes
of these.  Keras is imported only when a network is built.

Three things are better than they were.  Building a network leaves no trace in the space.  ``AddByProjecting`` projects
where the widths differ, which the original judged by the wrong axis on sequences, and also merges tensors whose ranks
or lengths differ (see :mod:`dhmpi.nas.build`).  Decisions are named, ``layer_0``, ``skip_1``, ..., unless nodes are.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from dhmpi.errors import ProblemError
from dhmpi.nas import layers as L
from dhmpi.nas.layers import Activator, Size
from dhmpi.nas.layers import Operation as Record
from dhmpi.nas.space import Architecture, Edge, NodeRecord, SearchSpace, Shape

if TYPE_CHECKING:
    import keras

_BATCH_NAMES = ("name", "trainable", "dtype")  # in the configuration of every Keras layer


class Operation:
    """A layer object of Keras as an operation; or the base of an operation of your own.

    Parameters
    ----------
    layer : keras.layers.Layer
        Every network gets a new one, made from its configuration.

    Notes
    -----
    A child may override ``__init__`` and ``__call__(self, tensors, **kwargs)``, which gets a list of tensors and
    returns one; every network works with a copy of the object.
    """

    def __init__(self, layer: Any) -> None:
        self._layer = layer

    def init(self, current_node: Node) -> None:
        """Do nothing; the original called it whenever the operation was chosen."""

    def __call__(self, tensors: list[Any], seed: int | None = None, **kwargs: Any) -> Any:
        return self._layer(tensors[0] if len(tensors) == 1 else tensors)


class _Linked:
    """An operation that brings edges with it, from nodes to the one it belongs to."""

    def __init__(self, space: KSearchSpace, nodes: Sequence[Node], record: Record, words: str) -> None:
        if not isinstance(space, KSearchSpace):
            raise ProblemError(f"{words} takes the search space first, got an object of type {type(space).__name__}")
        for node in nodes:
            if not isinstance(node, Node):
                raise ProblemError(f"{words} takes nodes, got an object of type {type(node).__name__}")
        self.space = space
        self.nodes = tuple(nodes)
        self.record = record


class Connect(_Linked):
    """Pass on what other nodes give, as an option: a skip connection."""

    def __init__(self, search_space: KSearchSpace, source_node: Node | list[Node], *args: Any, **kwargs: Any) -> None:
        sources = source_node if isinstance(source_node, (list, tuple)) else [source_node]
        super().__init__(search_space, sources, L.record("Identity"), "Connect()")


class _Merge(_Linked):
    how = "add"

    def __init__(
        self,
        search_space: KSearchSpace,
        stacked_nodes: Sequence[Node] | None = None,
        activation: Activator = None,
        axis: int = -1,
    ) -> None:
        words = f"{type(self).__name__}()"
        if axis != -1:
            raise ProblemError(f"{words} works along the last axis, got axis={axis!r}")
        super().__init__(search_space, stacked_nodes or (), L.record(self.how, activation=activation), words)


class AddByProjecting(_Merge):
    """Add what comes in, projected to the shape of the first; the activation follows if that is more than one."""


class AddByPadding(_Merge):
    """Add what comes in, padded with zeros to the largest; the activation follows if that is more than one."""

    how = "pad"


class Concatenate(_Merge):
    """Concatenate what comes in along the last axis."""

    how = "concat"

    def __init__(self, search_space: KSearchSpace, stacked_nodes: Sequence[Node] | None = None, axis: int = -1) -> None:
        super().__init__(search_space, stacked_nodes, None, axis)


def Zero() -> Record:
    """Pass nothing on."""
    return L.record("Nothing")


def Tensor(tensor: Any) -> Record:
    """Pass nothing on: ``Tensor([])``."""
    if not isinstance(tensor, (list, tuple)) or tensor:
        raise ProblemError(f"Tensor() takes an empty list, got an object of type {type(tensor).__name__}")
    return Zero()


Identity = L.Identity
Dropout = L.Dropout
TimestepDropout = L.TimestepDropout


def Dense(units: int, activation: Activator = None, **kwargs: Any) -> Record:
    """Connect every unit to the last axis of the input."""
    L.Dense(units)  # for its checks
    return L.record("Dense", _keras_dense, units=units, activation=activation, **kwargs)


def Flatten(data_format: str | None = None) -> Record:
    """Make a vector of whatever comes in."""
    return L.record("Flatten", data_format=data_format)


def Activation(activation: Activator = None) -> Record:
    """Apply an activation function."""
    return L.Activation("linear" if activation is None else activation)


def Conv1D(filter_size: Size, num_filters: int = 1, strides: int = 1, padding: str = "same") -> Record:
    """Convolve a sequence."""
    return L.Conv1D(num_filters, filter_size, strides=strides, padding=padding.lower())


def MaxPooling1D(
    pool_size: Size, strides: int = 1, padding: str = "valid", data_format: str = "channels_last"
) -> Record:
    """Keep the largest of each stretch of a sequence."""
    return L.MaxPooling1D(pool_size, strides=strides, padding=padding.lower(), data_format=data_format)


def Conv2D(
    kernel_size: Size,
    filters: int = 8,
    strides: Size = 1,
    padding: str = "SAME",
    dilation_rate: Size = 1,
    activation: Activator = None,
) -> Record:
    """Convolve an image."""
    more = {"strides": strides, "padding": padding.lower(), "dilation_rate": dilation_rate}
    return L.Conv2D(filters, kernel_size, activation, **more)


def SeparableConv2D(kernel_size: Size, filters: int = 8, strides: Size = 1, padding: str = "same") -> Record:
    """Convolve an image, channel by channel and then across them."""
    return L.SeparableConv2D(filters, kernel_size, strides=strides, padding=padding.lower())


def MaxPool2D(pool_size: Size, strides: Size = 1, padding: str = "same", num_filters: int = 32) -> Record:
    """Keep the largest of each patch of an image; `num_filters` never meant anything."""
    return L.MaxPool2D(pool_size, strides=strides, padding=padding.lower())


def AvgPool2D(pool_size: Size, strides: Size = 1, padding: str = "same", num_filters: int = 32) -> Record:
    """Average each patch of an image; `num_filters` never meant anything."""
    return L.AvgPool2D(pool_size, strides=strides, padding=padding.lower())


def LSTM(units: int, activation: Activator = None, return_sequences: bool = False, **kwargs: Any) -> Record:
    """Read a sequence; without an activation it is linear, as it was."""
    return L.LSTM(units, return_sequences, activation="linear" if activation is None else activation, **kwargs)


def Embedding(input_dim: int, output_dim: int, **kwargs: Any) -> Record:
    """Turn integers into vectors."""
    return L.Embedding(input_dim, output_dim, **{"embeddings_initializer": "glorot_uniform", **kwargs})


def operation(layer: Callable[..., Any]) -> Callable[..., Record]:
    """Return a function that records a layer of this class: ``Dense = operation(keras.layers.Dense)``."""

    def make(*args: Any, **kwargs: Any) -> Record:
        named = inspect.signature(layer).bind(*args, **kwargs).arguments
        further = named.pop("kwargs", {})
        return L.Keras(layer, **named, **further)

    return make


class Node:
    """A node of an old space; it belongs to the space in which it is connected first."""

    def __init__(self, name: str = "", *args: Any, **kwargs: Any) -> None:
        self.name = name
        self._space: KSearchSpace | None = None

    def __str__(self) -> str:
        return self.name or type(self).__name__

    @property
    def owner(self) -> Node:
        """The node whose layer this one uses: itself, but for mirrors."""
        return self

    @property
    def decider(self) -> VariableNode | None:
        """The node whose decision chooses the operation, if there is one."""
        return None

    @property
    def ops(self) -> list[Record | _Linked]:
        """The options, or the one operation."""
        return []


class _ChoosingNode(Node):
    def __init__(self, name: str = "") -> None:
        super().__init__(name)
        self._ops: list[Record | _Linked] = []

    def add_op(self, op: Any) -> None:
        """Add an option."""
        self._ops.append(_recorded(op))

    @property
    def ops(self) -> list[Record | _Linked]:
        return self._ops

    @property
    def num_ops(self) -> int:
        """Number of options."""
        return len(self._ops)


class VariableNode(_ChoosingNode):
    """A decision among operations."""

    @property
    def decider(self) -> VariableNode:
        return self


class MimeNode(_ChoosingNode):
    """A node that follows the decision of a VariableNode, with operations of its own."""

    def __init__(self, node: VariableNode, name: str = "") -> None:
        super().__init__(name)
        if not isinstance(node, VariableNode):
            raise ProblemError(f"MimeNode() follows a VariableNode, got an object of type {type(node).__name__}")
        self.node = node

    @property
    def decider(self) -> VariableNode:
        return self.node


class ConstantNode(Node):
    """A node with one operation."""

    def __init__(self, op: Any = None, name: str = "", *args: Any, **kwargs: Any) -> None:
        super().__init__(name)
        self._op: Record | _Linked | None = None
        if op is not None:
            self.set_op(op)

    def set_op(self, op: Any) -> None:
        """Give the node its operation; edges that it brings are made at once."""
        self._op = _recorded(op)
        if isinstance(self._op, _Linked):
            for source in self._op.nodes:
                self._op.space.connect(source, self)

    @property
    def op(self) -> Record | _Linked | None:
        """The operation."""
        return self._op

    @property
    def ops(self) -> list[Record | _Linked]:
        return [] if self._op is None else [self._op]


class MirrorNode(Node):
    """A node that uses the very layer of another, weights included."""

    def __init__(self, node: Node) -> None:
        super().__init__("")
        if not isinstance(node, Node):
            raise ProblemError(f"MirrorNode() uses the layer of a node, got an object of type {type(node).__name__}")
        self._node = node

    @property
    def owner(self) -> Node:
        return self._node.owner

    @property
    def decider(self) -> VariableNode | None:
        return self._node.decider

    @property
    def ops(self) -> list[Record | _Linked]:
        return self._node.ops


class KSearchSpace:
    """A graph of nodes; those without successors are the outputs.

    Parameters
    ----------
    input_shape : tuple or list of tuple
        Without the batch; each gives one of ``input_nodes``.
    output_shape : tuple or list of tuple
        Checked when a network is built.
    batch_size : optional
        Without a meaning here.
    """

    def __init__(self, input_shape: Any, output_shape: Any, batch_size: Any = None, *args: Any, **kwargs: Any) -> None:
        shapes = list(input_shape) if isinstance(input_shape, list) else [input_shape]
        if not shapes or not all(isinstance(shape, tuple) for shape in shapes):
            raise ProblemError(f"input_shape must be a tuple or a list of tuples, got {input_shape!r}")
        self._predecessors: dict[Node, list[Node]] = {}
        self._architecture: Architecture | None = None
        self.seed: int | None = kwargs.get("seed")
        self.input_shape = input_shape
        self.output_shape = output_shape
        self.input_nodes = [
            ConstantNode(L.record("Input", shape=shape), f"input_{i}") for i, shape in enumerate(shapes)
        ]
        for node in self.input_nodes:
            self.add_node(node)

    def add_node(self, node: Node) -> None:
        """Add a node without edges."""
        self._take(node)

    def connect(self, node1: Node, node2: Node) -> None:
        """Make what `node1` gives an input of `node2`.

        Raises
        ------
        ProblemError
            If that closes a cycle.
        """
        self._take(node1)
        self._take(node2)
        if self._leads(node2, node1):
            raise ProblemError(f"the edge from {node1} to {node2} closes a cycle in the search space")
        if node1 not in self._predecessors[node2]:
            self._predecessors[node2].append(node1)

    @property
    def nodes(self) -> list[Node]:
        """In the order in which they came into the graph."""
        return list(self._predecessors)

    @property
    def variable_nodes(self) -> Iterator[VariableNode]:
        """Nodes with a decision, in the order of an architecture."""
        return (node for node in self._predecessors if isinstance(node, VariableNode))

    @property
    def mime_nodes(self) -> Iterator[MimeNode]:
        """Nodes that follow a decision."""
        return (node for node in self._predecessors if isinstance(node, MimeNode))

    @property
    def num_nodes(self) -> int:
        """Number of decisions."""
        return len(list(self.variable_nodes))

    @property
    def max_num_ops(self) -> int:
        """Options of the decision that has most."""
        return max((node.num_ops for node in self.variable_nodes), default=0)

    @property
    def size(self) -> int:
        """Number of architectures."""
        return self.convert().size

    def denormalize(self, indexes: Sequence[Any]) -> list[int]:
        """Return an architecture as ints; floats in [0, 1] become options."""
        return list(self.convert().validate(indexes))

    def set_ops(self, indexes: Sequence[Any]) -> None:
        """Choose the architecture of :meth:`create_model`."""
        self._architecture = self.convert().validate(indexes)

    def create_model(self) -> keras.Model:
        """Build the network of the architecture given to :meth:`set_ops`."""
        if self._architecture is None:
            raise ProblemError("create_model() builds the architecture given to set_ops(), which was not called")
        return self.convert().build(self._architecture, self.seed)

    def convert(self) -> SearchSpace:
        """Return the space as searches want it.

        Raises
        ------
        ProblemError
            If a node lacks operations or edges, or some decision closes a cycle.
        """
        converted = _ConvertedSpace()
        numbers = {node: i for i, node in enumerate(self._predecessors)}
        decisions = {node: i for i, node in enumerate(self.variable_nodes)}
        names = _named(numbers, decisions)
        for node in decisions:
            converted._decide(names[node], tuple(_words(op, names) for op in node.ops))
        for member in numbers:
            converted._record(self._node_record(member, numbers, decisions, names))
        for source, shape in zip(self.input_nodes, self._input_shapes()):
            converted._inputs.append((numbers[source], shape))
        self._finish(converted, len(numbers))
        converted.check()
        return converted

    def _node_record(
        self, node: Node, numbers: dict[Node, int], decisions: dict[VariableNode, int], names: dict[Node, str]
    ) -> NodeRecord:
        name, owner, decider = names[node], node.owner, node.decider
        for other in (owner, decider):
            if other is not None and other not in numbers:
                raise ProblemError(f"{name!r} follows {other}, which is not in the search space")
        if not node.ops:
            what = "options; give it some with add_op()" if decider else "operation; give it one with set_op()"
            raise ProblemError(f"{name!r} has no {what}")
        if decider is not None and len(node.ops) != decider.num_ops:
            raise ProblemError(
                f"{name!r} has {len(node.ops)} options, but {names[decider]!r}, which it follows, has {decider.num_ops}"
            )
        decision = None if decider is None else decisions[decider]
        edges = [Edge(numbers[source]) for source in self._predecessors[node]]
        if owner is node and decision is not None:
            edges += self._conditional(node, decision, numbers, names)
        if not edges and node not in self.input_nodes:
            raise ProblemError(f"{name!r} has no incoming edge; connect() it")
        operations = tuple(map(_record_of, node.ops))
        return NodeRecord(name, operations, tuple(edges), decision, None if owner is node else numbers[owner])

    def _conditional(self, node: Node, decision: int, numbers: dict[Node, int], names: dict[Node, str]) -> list[Edge]:
        """Return the edges that options bring with them."""
        edges = []
        for i, op in enumerate(node.ops):
            for source in op.nodes if isinstance(op, _Linked) else ():
                if source not in numbers:
                    raise ProblemError(f"option {i} of {names[node]!r} comes from {source}, which is not connected")
                if self._leads(node, source):
                    raise ProblemError(
                        f"option {i} of {names[node]!r} closes a cycle: {names[source]!r} depends on that node"
                    )
                edges.append(Edge(numbers[source], decision, (i,)))
        return edges

    def _finish(self, space: _ConvertedSpace, n_nodes: int) -> None:
        """Give the space its outputs: nodes from which no edge goes anywhere."""
        sources = {edge.source for node in space._nodes for edge in node.edges}
        sinks = [index for index in range(n_nodes) if index not in sources]
        given = {index: space._nodes[index].operations[0].get("name") for index in sinks}
        if all(given.values()):
            sinks.sort(key=lambda index: str(given[index]))
        shapes = list(self.output_shape) if isinstance(self.output_shape, list) else [self.output_shape]
        if len(shapes) != len(sinks):
            raise ProblemError(
                f"the search space has {len(sinks)} nodes that lead nowhere, its outputs, but"
                f" {len(shapes)} in output_shape"
            )
        for i, (index, shape) in enumerate(zip(sinks, shapes)):
            plain = (shape,) if isinstance(shape, int) else tuple(shape)
            if given[index] is None:
                space._record(NodeRecord(f"output_{i}", (L.record("Output"),), (Edge(index),)))
                index = len(space._nodes) - 1
            space._outputs.append((index, plain))

    def _input_shapes(self) -> list[Shape]:
        return list(self.input_shape) if isinstance(self.input_shape, list) else [self.input_shape]

    def _take(self, node: Any) -> None:
        if not isinstance(node, Node):
            raise ProblemError(f"a search space connects nodes, got an object of type {type(node).__name__}")
        if node._space not in (None, self):
            raise ProblemError(f"{node} belongs to another search space")
        node._space = self
        self._predecessors.setdefault(node, [])

    def _leads(self, start: Node, end: Node) -> bool:
        """Return whether edges lead from `start` to `end`."""
        waiting, seen = [end], set()
        while waiting:
            node = waiting.pop()
            if node is start:
                return True
            if node not in seen:
                seen.add(node)
                waiting += self._predecessors.get(node, [])
        return False


class AutoKSearchSpace(KSearchSpace):
    """A graph of nodes with an output layer of its own.

    All nodes without successors are concatenated, flattened, and connected to ``output_shape[0]`` units.

    Parameters
    ----------
    input_shape : tuple or list of tuple
    output_shape : tuple
    regression : bool
        Whether the output is linear; it is a softmax otherwise.
    """

    def __init__(self, input_shape: Any, output_shape: Any, regression: bool, *args: Any, **kwargs: Any) -> None:
        super().__init__(input_shape, output_shape, **kwargs)
        self.regression = regression

    def _finish(self, space: _ConvertedSpace, n_nodes: int) -> None:
        first = self.output_shape[0] if isinstance(self.output_shape, (list, tuple)) else self.output_shape
        dense = L.Dense(first, None if self.regression else "softmax")
        space._collector = n_nodes
        space._record(NodeRecord("output_merge", (L.record("concat"),), tuple(map(Edge, range(n_nodes)))))
        space._record(NodeRecord("output_0", (dense,), (Edge(space._collector),)))
        space._outputs.append((len(space._nodes) - 1, (first,)))


class _ConvertedSpace(SearchSpace):
    """An old space as a new one: an edge counts once, and a collector takes what nobody else does."""

    def __init__(self) -> None:
        super().__init__()
        self._collector: int | None = None

    def _record(self, node: NodeRecord) -> None:
        self._nodes.append(node)

    def _active(self, arch: Architecture) -> list[tuple[int, ...]]:
        sources = [tuple(dict.fromkeys(given)) for given in super()._active(arch)]
        if self._collector is not None:
            taken = {source for i, given in enumerate(sources) if i != self._collector for source in given}
            sources[self._collector] = tuple(i for i in range(self._collector) if i not in taken)
        return sources


class _Remake:
    """Makes layers like one that exists already; what it says of itself is for the eye."""

    def __init__(self, layer: Any) -> None:
        self._type = type(layer)
        self._config = {key: value for key, value in layer.get_config().items() if key != "name"}

    def __call__(self, name: str, **changes: Any) -> Any:
        return self._type.from_config({**self._config, **changes, "name": name})

    def get_config(self) -> dict[str, Any]:
        """Return what tells it from others."""
        return {"type": self._type, **self._config}


class _Copy:
    """Makes copies of an operation of the user's, as something to call like a layer."""

    def __init__(self, op: Operation) -> None:
        self._op = op

    def __call__(self, name: str) -> Callable[[Any], Any]:
        op = copy.deepcopy(self._op)
        return lambda x: op(x if isinstance(x, list) else [x])

    def get_config(self) -> dict[str, Any]:
        """Return what tells it from others."""
        return {"type": type(self._op), **vars(self._op)}


def _recorded(op: Any) -> Record | _Linked:
    """Return what a node keeps of an operation."""
    if isinstance(op, (Record, _Linked)):
        return op
    if isinstance(op, Operation):
        if type(op) is Operation:
            return _recorded(op._layer)
        if type(op).init is not Operation.init:
            raise ProblemError(f"{type(op).__name__}.init() would change the graph while it is used; use Connect()")
        return Record(type(op).__name__, (), _Copy(op))
    if not isinstance(op, type) and hasattr(op, "get_config") and hasattr(op, "from_config"):
        config = op.get_config()
        return Record(type(op).__name__, tuple((key, config[key]) for key in L.SHOWN if config.get(key)), _Remake(op))
    raise ProblemError(f"a node takes operations or layer objects of Keras, got an object of type {type(op).__name__}")


def _keras_dense(**arguments: Any) -> Any:
    import keras

    return keras.layers.Dense(**arguments)


def _words(op: Record | _Linked, names: dict[Node, str]) -> str:
    """Return an option in words."""
    if isinstance(op, Connect):
        return f"from {' + '.join(names.get(node, str(node)) for node in op.nodes)}" if op.nodes else "no"
    record = _record_of(op)
    return "no" if record.name == "Nothing" else str(record)


def _record_of(op: Record | _Linked) -> Record:
    return op.record if isinstance(op, _Linked) else op


def _named(nodes: Iterable[Node], decisions: dict[VariableNode, int]) -> dict[Node, str]:
    """Return a name for every node, all different: its own if it has one to itself."""
    names: dict[Node, str] = {}
    taken = set()
    for i, node in enumerate(nodes):
        fallback = f"{_record_of(node.ops[0]).name.lower()}_{i}" if node.ops else f"node_{i}"
        if isinstance(node, VariableNode):
            skips = any(isinstance(op, Connect) for op in node.ops)
            fallback = f"{'skip' if skips else 'layer'}_{decisions[node]}"
        name = node.name or fallback
        while name in taken:
            name = f"{name}_{i}"
        taken.add(name)
        names[node] = name
    return names
