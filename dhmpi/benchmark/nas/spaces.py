"""The two search spaces that several problems share: layers in a row, and skip connections to the ones before."""

from __future__ import annotations

from collections.abc import Sequence

from dhmpi.nas import SearchSpace
from dhmpi.nas import layers as L

__all__ = ["dense_skip", "lstm_skip"]


def dense_skip(
    input_shape: Sequence[int],
    output_shape: Sequence[int],
    n_layers: int = 5,
    units: Sequence[int] = (16, 32, 64, 96),
    activations: Sequence[str | None] = ("relu", "tanh"),
    last: str | None = None,
) -> SearchSpace:
    """Return a space of dense layers, each with skip connections from up to three earlier ones.

    Parameters
    ----------
    input_shape, output_shape : sequence of int
    n_layers : int, default 5
    units, activations : sequence
        A layer is the identity, or dense with any pair of them.
    last : str, optional
        Activation of the output, "softmax" for classes.

    Returns
    -------
    SearchSpace
        Per layer ``layer<i>`` and ``skip<i>_<j>``, j = 0 being the farthest.  Skip connections are projected where
        widths differ, added, and followed by ReLU.
    """
    space = SearchSpace()
    x = space.input(input_shape)
    past = [x]
    options = [L.Identity(), *(L.Dense(n, activation) for n in units for activation in activations)]
    for i in range(n_layers):
        y = space.choose(f"layer{i}", options, x)
        x = space.skips(f"skip{i}", y, past[-3:], activation="relu")
        past.append(x)
    space.output(L.Dense(output_shape[-1], last), x, shape=output_shape)
    return space


def lstm_skip(
    input_shape: Sequence[int] = (8, 5), output_shape: Sequence[int] = (8, 5), n_layers: int = 5
) -> SearchSpace:
    """Return the space of stacked LSTMs of the POD-LSTM search: 8,605,184 architectures if there are five layers.

    Each layer is the identity or an LSTM of 16, 32, ..., 96 units; skip connections come from up to two earlier layers,
    are projected, added, and followed by ReLU; a last LSTM, always there, has the width of the output.

    References
    ----------
    Maulik, Egele, Lusch, Balaprakash (2020), Recurrent Neural Network Architecture Search for Geophysical Emulation,
    SC20.
    """
    space = SearchSpace()
    x = space.input(input_shape)
    past = [x]
    options = [L.Identity(), *(L.LSTM(units, return_sequences=True) for units in range(16, 97, 16))]
    for i in range(n_layers):
        y = space.choose(f"layer{i}", options, x)
        x = space.skips(f"skip{i}", y, past[-2:], activation="relu")
        past.append(x)
    space.output(L.LSTM(output_shape[-1], return_sequences=True), x, shape=output_shape)
    return space
