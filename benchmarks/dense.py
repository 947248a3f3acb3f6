"""Training dense networks for classification with numpy: fifty times faster than Keras where networks are small.

Keras takes seconds to trace a network that then trains in a tenth of a second.  A benchmark that needs thousands of
real trainings can do without.  The algorithm is that of `dhmpi.nas.training`: Adam on the cross-entropy, shuffled
batches, Glorot's initial weights.  ``python -m benchmarks.agebo check`` compares the two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from dhmpi.nas import SearchSpace

Data = tuple[np.ndarray, np.ndarray]
"""Inputs, shape (n, n_inputs), and one-hot classes, shape (n, n_classes)."""

_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-7  # of Adam, as Keras has them


class _Layer(NamedTuple):
    """A sum of sources, each as it is or through weights, and an activation."""

    sources: tuple[int, ...]
    weights: tuple[int | None, ...]
    """Number of each source's weights, None where it passes as it is."""
    activation: str | None


class Network:
    """A dense network of a search space.

    Parameters
    ----------
    space : SearchSpace
        Of dense layers, identities and sums.
    arch : sequence of int
    rng : Generator
        Of the initial weights.
    """

    def __init__(self, space: SearchSpace, arch: Sequence[int], rng: np.random.Generator) -> None:
        self._layers: list[_Layer] = []
        shapes: list[tuple[int, int]] = []
        widths: list[int] = []
        for step in space.resolve(arch).steps:
            operation, sources = step.operation, step.sources
            weights: list[int | None] = [None] * len(sources)
            if operation.name == "Input":
                width = operation.get("shape")[0]
            elif operation.name == "Dense":
                width = operation.get("units")
                weights = [len(shapes)]
                shapes.append((widths[sources[0]], width))
            elif operation.name in ("add", "Output", "Identity"):
                width = widths[sources[0]]
                for i, source in enumerate(sources):
                    if widths[source] != width:  # projected
                        weights[i] = len(shapes)
                        shapes.append((widths[source], width))
            else:
                raise ValueError(f"{operation.name} is no dense layer")
            widths.append(width)
            self._layers.append(_Layer(sources, tuple(weights), operation.get("activation")))
        self.parameters = np.zeros(sum((a + 1) * b for a, b in shapes), np.float32)
        self._gradient = np.zeros_like(self.parameters)
        self._weights, self._biases = zip(*self._views(self.parameters, shapes))
        self._d_weights, self._d_biases = zip(*self._views(self._gradient, shapes))
        for (fan_in, fan_out), weight in zip(shapes, self._weights):
            limit = np.sqrt(6 / (fan_in + fan_out))
            weight[:] = rng.uniform(-limit, limit, weight.shape)

    @staticmethod
    def _views(flat: np.ndarray, shapes: Sequence[tuple[int, int]]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        begin = 0
        for fan_in, fan_out in shapes:
            end = begin + fan_in * fan_out
            yield flat[begin:end].reshape(fan_in, fan_out), flat[end : end + fan_out]
            begin = end + fan_out

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return the probabilities of classes, shape (n, n_classes)."""
        return self._tensors(x)[-1]

    def _tensors(self, x: np.ndarray) -> list[np.ndarray]:
        tensors = [x]
        for layer in self._layers[1:]:
            z: Any = 0.0
            for source, weight in zip(layer.sources, layer.weights):
                y = tensors[source]
                z = z + (y if weight is None else y @ self._weights[weight] + self._biases[weight])
            tensors.append(_ACTIVATIONS[layer.activation](z))
        return tensors

    def gradient(self, x: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """Return the gradient of the mean cross-entropy by all parameters; the next call overwrites it."""
        tensors = self._tensors(x)
        above: list[Any] = [0.0] * len(tensors)
        for i in range(len(tensors) - 1, 0, -1):
            layer, y, d = self._layers[i], tensors[i], above[i]
            if layer.activation == "softmax":  # the last one: its derivative and the loss's cancel nicely
                d = (y - classes) / len(x)
            elif layer.activation == "relu":
                d = d * (y > 0)
            elif layer.activation == "tanh":
                d = d * (1 - y * y)
            for source, weight in zip(layer.sources, layer.weights):
                if weight is None:
                    above[source] = above[source] + d
                    continue
                np.matmul(tensors[source].T, d, out=self._d_weights[weight])
                d.sum(axis=0, out=self._d_biases[weight])
                if source:
                    above[source] = above[source] + d @ self._weights[weight].T
        return self._gradient


def _softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


_ACTIVATIONS: dict[str | None, Callable[[np.ndarray], np.ndarray]] = {
    None: lambda z: z,
    "relu": lambda z: np.maximum(z, 0),
    "tanh": np.tanh,
    "softmax": _softmax,
}


def train(network: Network, data: Data, batch_size: int, learning_rate: float, n_epochs: int, seed: int) -> None:
    """Train a network with Adam on shuffled batches."""
    x, y = data
    first, second, step, root = (np.zeros_like(network.parameters) for _ in range(4))
    rng, n_steps = np.random.default_rng(seed), 0
    for _ in range(n_epochs):
        order = rng.permutation(len(x))
        for begin in range(0, len(x), batch_size):
            batch = order[begin : begin + batch_size]
            g = network.gradient(x[batch], y[batch])
            n_steps += 1
            # m <- beta1 m + (1 - beta1) g, v <- beta2 v + (1 - beta2) g^2
            first *= _BETA1
            first += np.multiply(g, 1 - _BETA1, out=step)
            second *= _BETA2
            second += np.multiply(np.multiply(g, g, out=step), 1 - _BETA2, out=step)
            rate = learning_rate * np.sqrt(1 - _BETA2**n_steps) / (1 - _BETA1**n_steps)
            np.add(np.sqrt(second, out=root), _EPSILON, out=root)
            network.parameters -= np.multiply(np.divide(first, root, out=step), rate, out=step)


def accuracy(network: Network, data: Data) -> float:
    """Return the share of samples whose class is the most probable one; NaN if the weights have diverged."""
    probabilities = network(data[0])
    if not np.isfinite(probabilities).all():
        return float("nan")
    return float(np.mean(probabilities.argmax(axis=1) == data[1].argmax(axis=1)))
