"""Networks from records: the only module that makes Keras layers of operations.

Operations of a space meet tensors of any shape, so shapes (without the batch) are adapted, by two rules.

1. *An operation sees the rank it works on*: ``Dense`` a vector, unless ``per_step=True``; what has 1D in its name, the
   recurrent layers and ``TimestepDropout`` a sequence (steps, features); what has 2D in its name an image (height,
   width, channels), 3D likewise.  A tensor of too few axes gets further ones of length 1 at the end, of one with too
   many the last ones are made one.  So ``Dense`` flattens, and ``Conv1D`` takes a vector for a sequence of one feature.
   Everything else takes what comes.
2. *Merged tensors get one shape.*  "add": that of the first.  The others are brought to its rank as above; where they
   are longer along any axis but the last they are averaged down, where they are shorter zeros are added at both ends;
   where their last axis differs it is projected (``Dense``, which on an image is a 1x1 convolution).  "concat" and
   "pad" lose nothing: all get the largest rank and lengths, by axes of length 1 and zeros at both ends; "pad" so along
   the last axis too.

A network consists of layers of Keras only (and the user's own), so that it can be saved and loaded without dhmpi.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dhmpi.errors import ProblemError
from dhmpi.nas.layers import Operation
from dhmpi.nas.space import MERGES, Network, Shape, Step

if TYPE_CHECKING:
    import keras

_RANKS = {"Dense": 1, "LSTM": 2, "GRU": 2, "SimpleRNN": 2, "Bidirectional": 2, "TimestepDropout": 2}
_DIMENSIONS = re.compile(r"(?!ConvLSTM).*([123])D")
# One initialiser makes several of their weights, which must differ: so they are left to the global generators, like
# layers that wrap others.
_COMPOSITE = ("MultiHeadAttention", "GroupQueryAttention", "GroupedQueryAttention")
_POOLS = {2: "AveragePooling1D", 3: "AveragePooling2D", 4: "AveragePooling3D"}
_MOST_PADDED = 3  # axes that ZeroPadding3D pads


def build_network(network: Network, seed: int | None = None) -> keras.Model:
    """Return the Keras model of a resolved architecture.

    Parameters
    ----------
    network : Network
    seed : int, optional
        Every layer draws its initial weights from a seed made of this one and the layer's name, so that a layer starts
        alike in all architectures that have it.  The global generators of Keras, numpy and Python are seeded as well,
        for layers of the user's own.

    Raises
    ------
    ProblemError
        If a layer refuses its arguments or its input, or an output has not the shape that was declared.
    """
    builder = _Builder(seed)
    tensors = builder.tensors(network)
    outputs = [tensors[i] for i in network.outputs]
    for step, tensor, shape in zip((network.steps[i] for i in network.outputs), outputs, network.output_shapes):
        if shape is not None and tuple(tensor.shape[1:]) != shape:
            raise ProblemError(f"{step.name!r} has the shape {tuple(tensor.shape[1:])}, but {shape} is declared")
    inputs = [tensors[i] for i in network.inputs]
    return builder.keras.Model(
        inputs[0] if len(inputs) == 1 else inputs, outputs[0] if len(outputs) == 1 else outputs, name="network"
    )


def measure(network: Network) -> list[tuple[Shape, int]]:
    """Return for every step the shape of its tensor and how many parameters it adds, projections included.

    Raises
    ------
    ProblemError
        As :func:`build_network`, but for declared shapes.
    """
    builder = _Builder(None)
    shapes = [tuple(tensor.shape[1:]) for tensor in builder.tensors(network)]
    return list(zip(shapes, builder.n_parameters))


def call_builder(function: Callable[[dict[str, Any]], Any], values: dict[str, Any], seed: int | None) -> keras.Model:
    """Return the model that a user's function builds.

    Raises
    ------
    ProblemError
        If it returns anything else.
    """
    import keras

    if seed is not None:
        keras.utils.set_random_seed(_derived(seed, "network"))
    model = function(values)
    if not isinstance(model, keras.Model):
        name = getattr(function, "__name__", "build")
        raise ProblemError(f"{name}() must return a keras.Model, got an object of type {type(model).__name__}")
    return model


class _Builder:
    """What is kept while one network is built: its layers, and their names."""

    def __init__(self, seed: int | None) -> None:
        import keras  # late: 2 seconds and 490 MB

        if seed is not None:
            keras.utils.set_random_seed(_derived(seed, "network"))
        self.keras: Any = keras
        self.n_parameters: list[int] = []  # of the layers that each step added
        self._seed = seed
        self._layers: dict[int, Any] = {}
        self._names: set[str] = set()
        self._made: list[Any] = []  # all that may have weights

    def tensors(self, network: Network) -> list[Any]:
        """Return the tensors of all steps."""
        tensors: list[Any] = []
        for step in network.steps:
            known = len(self._made)
            tensors.append(self._tensor(step, [tensors[source] for source in step.sources]))
            counts = (layer.count_params() for layer in self._made[known:] if hasattr(layer, "count_params"))
            self.n_parameters.append(sum(counts))
        return tensors

    def _tensor(self, step: Step, sources: Sequence[Any]) -> Any:
        """Return the tensor of a step, given those of its sources."""
        operation = step.operation
        if operation.name == "Input":
            return self.keras.Input(operation.get("shape"), name=self._free(step.name))
        try:
            if operation.name in MERGES:
                return self._merge(step, sources)
            if step.layer not in self._layers:
                self._layers[step.layer] = self._make(operation, step.name)
            if len(sources) > 1:
                return self._layers[step.layer](list(sources))
            rank = _rank(operation)
            x = sources[0] if rank is None else self._to_rank(sources[0], rank, step.node)
            return self._layers[step.layer](x)
        except ProblemError:
            raise
        except Exception as error:  # whatever Keras, or a layer of the user's, has to say
            shapes = " and ".join(str(tuple(source.shape[1:])) for source in sources)
            reason = " ".join(str(error).split()).partition(" Arguments received")[0] or type(error).__name__
            raise ProblemError(f"{step.name!r}, {operation}, cannot be applied to shape {shapes}: {reason}") from error

    def _make(self, operation: Operation, name: str) -> Any:
        """Return a new layer."""
        layer = self._new(operation, name)
        self._made.append(layer)
        return layer

    def _new(self, operation: Operation, name: str) -> Any:
        arguments = dict(operation.arguments)
        name = self._free(str(arguments.pop("name", name)))
        if operation.layer is not None:
            return self._seeded(operation.layer, name, arguments)
        if operation.name == "Output":
            return self.keras.layers.Identity(name=name)
        if operation.name == "Dense":
            arguments.pop("per_step", None)
        if operation.name == "TimestepDropout":
            return self._seeded(self.keras.layers.Dropout, name, {**arguments, "noise_shape": (None, None, 1)})
        layer = getattr(self.keras.layers, operation.name, None)
        if not isinstance(layer, type):
            raise ProblemError(
                f"{name!r} asks for the layer {operation.name!r}, but keras.layers has none of that name"
            )
        return self._seeded(layer, name, arguments)

    def _seeded(self, layer: Callable[..., Any], name: str, arguments: Mapping[str, Any]) -> Any:
        """Call `layer` with seeds wherever it would draw them itself."""
        nested = {key: value for key, value in arguments.items() if isinstance(value, Operation)}
        if self._seed is None or nested:
            inner = _Builder(None)
            return layer(name=name, **{**arguments, **{key: inner._make(value, key) for key, value in nested.items()}})
        made = layer(name=name, **arguments)
        if type(made).__name__ in _COMPOSITE:
            return made
        try:
            config = made.get_config()
        except (AttributeError, NotImplementedError):  # something of the user's: the global generators do
            return made
        seeds = {}
        for key, value in config.items():
            seed = _derived(self._seed, f"{name}/{key}")
            if key == "seed" and value is None:
                seeds[key] = seed
            elif key.endswith("_initializer") and isinstance(value, Mapping) and _draws_seed(value):
                seeds[key] = self.keras.initializers.get({**value, "config": {**value["config"], "seed": seed}})
        return layer(name=name, **{**arguments, **seeds}) if seeds else made

    def _merge(self, step: Step, sources: Sequence[Any]) -> Any:
        how, activation = step.operation.name, step.operation.get("activation")
        name = step.name
        tensors = self._alike(list(sources), step) if how == "add" else self._padded(list(sources), step)
        layer = "Concatenate" if how == "concat" else "Add"
        last = self._free(name)
        merged = getattr(self.keras.layers, layer)(name=last)(tensors)
        if activation is None:
            return merged
        return self.keras.layers.Activation(activation, name=self._free(f"{name}_activation"))(merged)

    def _alike(self, tensors: list[Any], step: Step) -> list[Any]:
        """Bring all to the shape of the first."""
        target = _shape(tensors[0])
        for i, x in enumerate(tensors[1:], start=1):
            name = f"{step.name}_{i}"
            x = self._to_rank(x, len(target), name)
            x = self._to_lengths(x, target[:-1], name)
            if _shape(x)[-1] != target[-1]:
                project = self._make(Operation("Dense", (("units", target[-1]), ("per_step", True))), f"{name}_project")
                x = project(x)
            tensors[i] = x
        return tensors

    def _padded(self, tensors: list[Any], step: Step) -> list[Any]:
        """Bring all to the largest rank and lengths, without losing anything."""
        rank = max(len(x.shape) - 1 for x in tensors)
        tensors = [self._to_rank(x, rank, f"{step.name}_{i}") for i, x in enumerate(tensors)]
        target = [max(lengths) for lengths in zip(*map(_shape, tensors))]
        free = [] if step.operation.name == "pad" else [rank - 1]
        for i, x in enumerate(tensors):
            wanted = tuple(n if axis in free else target[axis] for axis, n in enumerate(_shape(x)))
            tensors[i] = self._pad(x, wanted, f"{step.name}_{i}")
        return tensors

    def _to_rank(self, x: Any, rank: int, name: str) -> Any:
        shape = _shape(x)
        if len(shape) < rank:
            return self._reshape(x, shape + (1,) * (rank - len(shape)), name)
        if len(shape) > rank:
            return self._reshape(x, (*shape[: rank - 1], math.prod(shape[rank - 1 :])), name)
        return x

    def _to_lengths(self, x: Any, lengths: Sequence[int], name: str) -> Any:
        """Bring all axes but the last to certain lengths."""
        shape = _shape(x)
        factors = tuple(math.ceil(n / wanted) for n, wanted in zip(shape, lengths))
        if any(factor > 1 for factor in factors):
            pool = getattr(self.keras.layers, _POOLS[len(shape)])
            x = pool(factors, strides=factors, padding="same", name=self._free(f"{name}_average"))(x)
        return self._pad(x, (*lengths, shape[-1]), name)

    def _pad(self, x: Any, wanted: Shape, name: str) -> Any:
        """Add zeros at both ends of axes that are too short."""
        shape = _shape(x)
        if shape == wanted:
            return x
        if len(shape) > _MOST_PADDED:
            raise ProblemError(
                f"{name!r} would have to pad {shape} to {wanted}, and only {_MOST_PADDED} axes are padded"
            )
        room = (1,) * (_MOST_PADDED - len(shape))
        missing = [(n - have) for have, n in zip(shape, wanted)]
        ends = [(n // 2, n - n // 2) for n in missing] + [(0, 0)] * len(room)
        x = self._reshape(x, (*shape, *room, 1), name)
        x = self.keras.layers.ZeroPadding3D(ends, name=self._free(f"{name}_pad"))(x)
        return self._reshape(x, wanted, name)

    def _reshape(self, x: Any, shape: Shape, name: str) -> Any:
        if len(shape) == 1:
            return self.keras.layers.Flatten(name=self._free(f"{name}_flatten"))(x)
        return self.keras.layers.Reshape(shape, name=self._free(f"{name}_reshape"))(x)

    def _free(self, name: str) -> str:
        """Return a name that TensorFlow takes and no other layer has."""
        name = re.sub(r"[^A-Za-z0-9_.-]", "_", name)
        name = name if re.match(r"[A-Za-z0-9.]", name) else f"layer{name}"
        candidate, i = name, 1
        while candidate in self._names:
            i += 1
            candidate = f"{name}_{i}"
        self._names.add(candidate)
        return candidate


def _rank(operation: Operation) -> int | None:
    """Return the rank that an operation works on, ``None`` if any will do."""
    if operation.layer is not None or operation.get("per_step"):
        return None
    named = _DIMENSIONS.match(operation.name)
    return int(named[1]) + 1 if named else _RANKS.get(operation.name)


def _draws_seed(initializer: Mapping[str, Any]) -> bool:
    config = initializer.get("config")
    return isinstance(config, Mapping) and config.get("seed", 0) is None


def _shape(x: Any) -> Shape:
    shape = tuple(x.shape[1:])
    if None in shape:
        raise ProblemError(f"the shape {shape} has an axis of unknown length, which cannot be adapted")
    return shape


def _derived(seed: int, what: str) -> int:
    """Return a seed for one thing of many."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{what}".encode()).digest()[:4], "big") >> 1
