"""Operations: what a decision chooses among.

An operation is a record, the name of a Keras layer and its arguments; nothing here imports Keras, and none of them has
weights.  ``dhmpi/nas/build.py`` turns records into layers, a new one for every node of a space that uses it (only
:meth:`dhmpi.nas.space.SearchSpace.reuse` shares a layer).

Arguments are those of Keras, which any further keyword argument reaches too.  Two defaults differ, so that deep
architectures can be built at all: the padding of convolutions and pools is "same".  ``Dense`` looks at the whole of its
input unless ``per_step=True``; the rule is in :mod:`dhmpi.nas.build`.

Examples
--------
>>> from dhmpi.nas import layers as L
>>> print(L.Dense(32, activation="relu"))
Dense(32, relu)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dhmpi.errors import ProblemError

Size = int | Sequence[int]
Activator = str | Callable[..., Any] | None
"""An activation: a name that Keras knows, or a function of a tensor."""

SHOWN = ("units", "rate", "activation", "filters", "kernel_size", "pool_size", "input_dim", "output_dim", "shape")
_UNSAID = {"padding": "same", "name": None}  # None: whatever it is


@dataclass(frozen=True)
class Operation:
    """A layer to be: its name and arguments.

    Attributes
    ----------
    name : str
        Of a class in ``keras.layers``, unless `layer` is given.
    arguments : tuple of (str, value)
        Keyword arguments of that class, in the order to be shown.
    layer : callable, optional
        What makes the layer when called with the arguments: a class of the user's, say.
    """

    name: str
    arguments: tuple[tuple[str, Any], ...] = ()
    layer: Callable[..., Any] | None = None

    def get(self, argument: str, default: Any = None) -> Any:
        """Return the value of an argument."""
        return dict(self.arguments).get(argument, default)

    def __str__(self) -> str:
        shown = [_argument(name, value) for name, value in self.arguments if _is_said(name, value)]
        return f"{self.name}({', '.join(shown)})" if shown else self.name


def record(name: str, layer: Callable[..., Any] | None = None, /, **arguments: Any) -> Operation:
    """Return an operation; arguments that are None are left to Keras."""
    given = tuple((key, _frozen(value)) for key, value in arguments.items() if value is not None)
    return Operation(name, given, layer)


def Identity() -> Operation:
    """Pass the input on: no layer at all."""
    return record("Identity")


def Dense(units: int, activation: Activator = None, per_step: bool = False, **arguments: Any) -> Operation:
    """Connect every unit to the whole input, which is flattened first.

    Parameters
    ----------
    units : int
    activation : str or callable, optional
    per_step : bool, default False
        Connect to the last axis only, as Keras does: the same layer at every step of a sequence or pixel of an image.
    **arguments
        Further ones of ``keras.layers.Dense``.
    """
    _at_least("units of Dense", units, 1)
    return record("Dense", units=units, activation=activation, per_step=per_step or None, **arguments)


def Dropout(rate: float, **arguments: Any) -> Operation:
    """Drop a fraction of the input while training."""
    return record("Dropout", rate=_rate("Dropout", rate), **arguments)


def TimestepDropout(rate: float) -> Operation:
    """Drop a fraction of the steps of a sequence, each as a whole, while training."""
    return record("TimestepDropout", rate=_rate("TimestepDropout", rate))


def Activation(activation: Activator) -> Operation:
    """Apply an activation function."""
    return record("Activation", activation=activation)


def Flatten() -> Operation:
    """Make a vector of whatever comes in."""
    return record("Flatten")


def BatchNormalization(**arguments: Any) -> Operation:
    """Normalise over the batch."""
    return record("BatchNormalization", **arguments)


def Conv1D(filters: int, kernel_size: Size, activation: Activator = None, **arguments: Any) -> Operation:
    """Convolve a sequence; its padding is "same" unless said otherwise."""
    return _convolution("Conv1D", filters, kernel_size, activation, arguments)


def Conv2D(filters: int, kernel_size: Size, activation: Activator = None, **arguments: Any) -> Operation:
    """Convolve an image; its padding is "same" unless said otherwise."""
    return _convolution("Conv2D", filters, kernel_size, activation, arguments)


def SeparableConv2D(filters: int, kernel_size: Size, activation: Activator = None, **arguments: Any) -> Operation:
    """Convolve an image, channel by channel and then across them; its padding is "same" unless said otherwise."""
    return _convolution("SeparableConv2D", filters, kernel_size, activation, arguments)


def MaxPooling1D(pool_size: Size = 2, **arguments: Any) -> Operation:
    """Keep the largest of each stretch of a sequence; its padding is "same" unless said otherwise."""
    return _pool("MaxPooling1D", pool_size, arguments)


def MaxPool2D(pool_size: Size = 2, **arguments: Any) -> Operation:
    """Keep the largest of each patch of an image; its padding is "same" unless said otherwise."""
    return _pool("MaxPool2D", pool_size, arguments)


def AvgPool2D(pool_size: Size = 2, **arguments: Any) -> Operation:
    """Average each patch of an image; its padding is "same" unless said otherwise."""
    return _pool("AvgPool2D", pool_size, arguments)


def LSTM(units: int, return_sequences: bool = False, **arguments: Any) -> Operation:
    """Read a sequence; return the last state, or those of all steps."""
    _at_least("units of LSTM", units, 1)
    return record("LSTM", units=units, return_sequences=return_sequences or None, **arguments)


def Embedding(input_dim: int, output_dim: int, **arguments: Any) -> Operation:
    """Turn each integer of the input, 0 to `input_dim` - 1, into a vector of `output_dim` numbers."""
    _at_least("input_dim of Embedding", input_dim, 1)
    _at_least("output_dim of Embedding", output_dim, 1)
    return record("Embedding", input_dim=input_dim, output_dim=output_dim, **arguments)


def Keras(layer: str | Callable[..., Any], /, **arguments: Any) -> Operation:
    """Use any layer.

    Parameters
    ----------
    layer : str, class or function
        The name of a class in ``keras.layers``, or what returns a layer when called with `arguments` and ``name=``.
    **arguments
        Its keyword arguments; an operation among them becomes a layer too:
        ``Keras("Bidirectional", layer=LSTM(8))``.
    """
    if isinstance(layer, str):
        if not layer.isidentifier():
            raise ProblemError(f"Keras() takes the name of a class in keras.layers, got {layer!r}")
        return record(layer, **arguments)
    if not callable(layer):
        raise ProblemError(
            f"Keras() takes the name of a layer's class, or the class itself, got an object of type"
            f" {type(layer).__name__}; layers are made anew for every network"
        )
    return record(getattr(layer, "__name__", type(layer).__name__), layer, **arguments)


def _convolution(name: str, filters: int, kernel_size: Size, activation: Activator, rest: dict[str, Any]) -> Operation:
    _at_least(f"filters of {name}", filters, 1)
    padding = rest.pop("padding", "same")
    return record(name, filters=filters, kernel_size=kernel_size, activation=activation, padding=padding, **rest)


def _pool(name: str, pool_size: Size, rest: dict[str, Any]) -> Operation:
    return record(name, pool_size=pool_size, padding=rest.pop("padding", "same"), **rest)


def _at_least(what: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not hasattr(value, "__index__") or value < least:
        raise ProblemError(f"{what} must be an integer >= {least}, got {value!r}")


def _rate(name: str, rate: Any) -> Any:
    if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 <= rate < 1:
        raise ProblemError(f"the rate of {name} must be a number in [0, 1), got {rate!r}")
    return rate


def _frozen(value: Any) -> Any:
    """Return a value that nobody can change behind the space's back, with numpy's numbers as Python's."""
    if isinstance(value, (list, tuple)):
        return tuple(map(_frozen, value))
    if isinstance(value, Mapping):
        return {key: _frozen(item) for key, item in value.items()}
    return value.item() if hasattr(value, "item") and getattr(value, "shape", None) == () else value


def _is_said(name: str, value: Any) -> bool:
    return name not in _UNSAID or _UNSAID[name] not in (None, value)


def _argument(name: str, value: Any) -> str:
    if value is True:
        return name
    return words(value) if name in SHOWN else f"{name}={words(value)}"


def words(value: Any) -> str:
    """Return a value as one would write it in a list of options."""
    if isinstance(value, tuple) and value and all(isinstance(item, int) for item in value):
        return "x".join(map(str, value))
    if isinstance(value, (str, Operation)):
        return str(value)
    return str(getattr(value, "__name__", None) or repr(value))
