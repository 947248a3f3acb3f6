"""The data of a problem: loaded, checked and preprocessed once, then handed out in batches.

Everything is numpy.  Samples lie in arrays (:class:`Arrays`) or come from a generator (:class:`Stream`); both give the
same batches: a tuple of inputs and a tuple of outputs.  Start reading at :func:`load`.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dhmpi.errors import ProblemError
from dhmpi.nas.parallel import ALONE, Group
from dhmpi.nas.preprocessing import Scaling

Tensors = tuple[np.ndarray, ...]
"""One array an input, or one an output, samples along the first axis."""
Batch = tuple[Tensors, Tensors]
Shape = tuple[int, ...]

GENERATOR_KEYS = ("train_gen", "train_size", "valid_gen", "valid_size", "types", "shapes")
_NUMBERED = re.compile(r"(?:in|out)put_(\d+)")


@dataclass(frozen=True)
class Arrays:
    """Samples in memory.

    Attributes
    ----------
    inputs, outputs : tuple of ndarray
        As a network sees them: preprocessed.
    """

    inputs: Tensors
    outputs: Tensors

    @property
    def types(self) -> tuple[tuple[np.dtype, ...], tuple[np.dtype, ...]]:
        """Types of inputs and outputs."""
        return tuple(x.dtype for x in self.inputs), tuple(y.dtype for y in self.outputs)

    @property
    def shapes(self) -> tuple[tuple[Shape, ...], tuple[Shape, ...]]:
        """Shapes of inputs and outputs, without the batch."""
        return tuple(x.shape[1:] for x in self.inputs), tuple(y.shape[1:] for y in self.outputs)

    def __len__(self) -> int:
        return len(self.inputs[0])

    def batches(self, batch_size: int, rng: np.random.Generator | None = None, group: Group = ALONE) -> Iterator[Batch]:
        """Yield all samples once, shuffled if there is a generator; the last batch may be smaller.

        Of each batch a rank of a group sees its share, which can be empty.
        """
        order = None if rng is None else rng.permutation(len(self))
        for start in range(0, len(self), batch_size):
            part = group.share(min(batch_size, len(self) - start))
            rows: Any = slice(start + part.start, start + part.stop)
            if order is not None:
                rows = order[rows]
            yield tuple(x[rows] for x in self.inputs), tuple(y[rows] for y in self.outputs)


@dataclass(frozen=True)
class Stream:
    """Samples from a user's generator, in its own order: it is started anew for every epoch.

    Attributes
    ----------
    start : callable
        Returns an iterator of samples ``(x, y)``.
    n_samples : int
        How many to take.
    types : (tuple of dtype, tuple of dtype)
        Of inputs and outputs.
    shapes : (tuple of shape, tuple of shape)
        Of inputs and outputs, without the batch.
    what : str
        How messages call it.
    """

    start: Callable[[], Any]
    n_samples: int
    types: tuple[tuple[np.dtype, ...], tuple[np.dtype, ...]]
    shapes: tuple[tuple[Shape, ...], tuple[Shape, ...]]
    what: str

    def __len__(self) -> int:
        return self.n_samples

    def batches(self, batch_size: int, rng: np.random.Generator | None = None, group: Group = ALONE) -> Iterator[Batch]:
        """Yield all samples once; the last batch may be smaller.

        Of each batch a rank of a group takes its share, which can be empty; so generators must give the same samples in
        the same order on each rank.

        Raises
        ------
        ProblemError
            If the generator ends early, or a sample is not as it should be.
        """
        samples = iter(self.start())
        left = self.n_samples
        while left:
            taken = list(itertools.islice(samples, min(batch_size, left)))
            if len(taken) < min(batch_size, left):
                given = self.n_samples - left + len(taken)
                raise ProblemError(f"{self.what} gave {given} samples instead of {self.n_samples}")
            left -= len(taken)
            yield self._stacked(taken[group.share(len(taken))])

    def _stacked(self, samples: Sequence[Any]) -> Batch:
        """Make one array of the values of each input and output."""
        if not samples:
            return tuple(  # type: ignore[return-value]
                tuple(np.empty((0, *shape), dtype) for shape, dtype in zip(shapes, types))
                for shapes, types in zip(self.shapes, self.types)
            )
        sides = []
        for side, word in enumerate(("input", "output")):
            if any(not isinstance(sample, (tuple, list)) or len(sample) != 2 for sample in samples):
                raise ProblemError(f"{self.what} must yield pairs (x, y)")
            values = [_values(sample[side], len(self.shapes[side])) for sample in samples]
            columns = []
            for i, (shape, dtype) in enumerate(zip(self.shapes[side], self.types[side])):
                try:
                    column = np.array([value[i] for value in values], dtype=dtype)
                except (ValueError, TypeError, IndexError) as error:
                    raise ProblemError(f"{self.what}: {word}_{i} of the samples makes no array: {error}") from error
                if column.shape[1:] != shape and (*column.shape[1:], 1) != shape:
                    raise ProblemError(f"{self.what}: {word}_{i} has the shape {column.shape[1:]} instead of {shape}")
                columns.append(_finite(column.reshape(-1, *shape), f"{word}_{i} of {self.what}"))
            sides.append(tuple(columns))
        return sides[0], sides[1]


Source = Arrays | Stream


@dataclass(frozen=True)
class Data:
    """What a problem's networks are trained and judged with.

    Attributes
    ----------
    train, valid : Arrays or Stream
    test : Arrays or Stream, optional
        Kept out of the search.
    input_shapes, output_shapes : tuple of tuple of int
        Of a sample, as networks see them.
    """

    train: Source
    valid: Source
    test: Source | None
    input_shapes: tuple[Shape, ...]
    output_shapes: tuple[Shape, ...]
    scalings: tuple[Scaling | None, ...] = ()

    def restore(self, outputs: Sequence[np.ndarray]) -> Tensors:
        """Return predictions, or outputs of a source, in the original units."""
        return tuple(
            scaling.undo(output) if scaling is not None else np.asarray(output)
            for output, scaling in itertools.zip_longest(outputs, self.scalings[: len(outputs)])
        )


def load(
    function: Callable[[], Any],
    inputs: Callable[[], Any] | None = None,
    outputs: Callable[[], Any] | None = None,
) -> Data:
    """Load the data, check them, and preprocess them with what is fitted on the training data.

    Parameters
    ----------
    function : callable
        As in :meth:`dhmpi.nas.problem.NaProblem.load_data`.
    inputs, outputs : callable, optional
        Return a transformer each.

    Raises
    ------
    ProblemError
        If loading raises, or the data cannot be used.
    """
    try:
        loaded = function()
    except ProblemError:
        raise
    except Exception as error:
        text = " ".join(str(error).split())
        raise ProblemError(f"the data cannot be loaded: load_data raised {type(error).__name__}: {text}") from error
    if isinstance(loaded, Mapping):
        if inputs is not None or outputs is not None:
            raise ProblemError("preprocessing is fitted on arrays; data from generators must be preprocessed by these")
        return _streamed(loaded)
    return _arranged(loaded, inputs, outputs)


def _arranged(loaded: Any, inputs: Callable[[], Any] | None, outputs: Callable[[], Any] | None) -> Data:
    if not isinstance(loaded, (tuple, list)) or not 2 <= len(loaded) <= 3 or any(not _is_pair(pair) for pair in loaded):
        raise ProblemError(
            "load_data must return (train_X, train_y), (valid_X, valid_y), perhaps with a third pair for testing, or a"
            f" dict of {', '.join(GENERATOR_KEYS)}; it returned {_kind(loaded)}"
        )
    sources = [_arrays(pair, name) for pair, name in zip(loaded, ("training", "validation", "test"))]
    for other, name in zip(sources[1:], ("validation", "test")):
        _check_alike(sources[0], other, name)
    input_scalings = _scalings(inputs, sources[0].inputs, "input")
    output_scalings = _scalings(outputs, sources[0].outputs, "output", back=True)
    scaled = [
        Arrays(
            _scaled(source.inputs, input_scalings, f"input_{{}} of the {name} data after preprocessing"),
            _scaled(source.outputs, output_scalings, f"output_{{}} of the {name} data after preprocessing"),
        )
        for source, name in zip(sources, ("training", "validation", "test"))
    ]
    return Data(
        scaled[0],
        scaled[1],
        scaled[2] if len(scaled) == 3 else None,
        tuple(x.shape[1:] for x in scaled[0].inputs),
        tuple(y.shape[1:] for y in scaled[0].outputs),
        output_scalings,
    )


def _arrays(pair: Any, name: str) -> Arrays:
    """Return a pair (X, y) as arrays."""
    sides = []
    for value, word in zip(pair, ("input", "output")):
        arrays = [_array(entry, f"{word}_{i} of the {name} data") for i, entry in enumerate(_values(value))]
        if not arrays:
            raise ProblemError(f"the {name} data have no {word}s")
        sides.append(tuple(arrays))
    lengths = {len(array) for side in sides for array in side}
    if len(lengths) > 1:
        shown = ", ".join(
            f"{word}_{i} {len(array)}" for side, word in zip(sides, ("input", "output")) for i, array in enumerate(side)
        )
        raise ProblemError(f"inputs and outputs of the {name} data differ in their numbers of samples: {shown}")
    return Arrays(*sides)


def _array(value: Any, what: str) -> np.ndarray:
    """Return numbers as an array of 32-bit floats, or of integers, with at least two axes."""
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ProblemError(f"{what} is no array: {error}") from error
    if array.dtype.kind not in "fiub" or not array.ndim:
        kind = f"values of type {array.dtype}" if array.ndim else _kind(value)
        raise ProblemError(f"{what} must be an array of numbers, it has {kind}")
    if not array.size:
        raise ProblemError(f"{what} is empty: it has the shape {array.shape}")
    if array.ndim == 1:
        array = array[:, None]  # a column: Keras and numpy disagree on what a vector beside a column means
    with np.errstate(over="ignore"):  # what 32 bits cannot hold is found by the next line
        return _finite(array.astype(_dtype(array.dtype), copy=False), what)


def _dtype(dtype: np.dtype) -> np.dtype:
    """Return the type in which networks get values of a type."""
    if dtype.kind not in "iu":
        return np.dtype(np.float32)
    return np.dtype(np.int32 if dtype.itemsize <= 4 and dtype != np.uint32 else np.int64)


def _finite(array: np.ndarray, what: str) -> np.ndarray:
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        bad = ~np.isfinite(array)
        nan = "NaN" if np.isnan(array).any() else "infinite (as a 32-bit float)"
        raise ProblemError(
            f"{what}: {int(bad.sum())} of {array.size} values are {nan}, the first in sample {_first(bad)}"
        )
    return array


def _first(bad: np.ndarray) -> int:
    return int(np.flatnonzero(bad.reshape(len(bad), -1).any(1))[0])


def _check_alike(train: Arrays, other: Arrays, name: str) -> None:
    """Refuse validation data whose samples are not like those of training."""
    for word, ours, theirs in (("input", train.inputs, other.inputs), ("output", train.outputs, other.outputs)):
        if len(ours) != len(theirs):
            raise ProblemError(f"the training data have {len(ours)} {word}(s), but the {name} data {len(theirs)}")
        for i, (x, y) in enumerate(zip(ours, theirs)):
            if x.shape[1:] != y.shape[1:]:
                raise ProblemError(
                    f"{word}_{i} has samples of shape {x.shape[1:]} in the training data, but {y.shape[1:]} in the"
                    f" {name} data"
                )


def _scalings(
    make: Callable[[], Any] | None, arrays: Tensors, word: str, back: bool = False
) -> tuple[Scaling | None, ...]:
    if make is None:
        return (None,) * len(arrays)
    return tuple(Scaling(make, x, f"{word}_{i} of the training data", back) for i, x in enumerate(arrays))


def _scaled(arrays: Tensors, scalings: Sequence[Scaling | None], what: str) -> Tensors:
    return tuple(
        x if scaling is None else _finite(scaling(x), what.format(i))
        for i, (x, scaling) in enumerate(zip(arrays, scalings))
    )


def _streamed(loaded: Mapping[str, Any]) -> Data:
    missing = [key for key in GENERATOR_KEYS if key not in loaded]
    if missing:
        raise ProblemError(f"load_data returned a dict without {', '.join(missing)}")
    for key in ("types", "shapes"):
        if not _is_pair(loaded[key]):
            raise ProblemError(f"{key!r} of load_data must be a pair, of inputs and of outputs, got {loaded[key]!r}")
    types = tuple(tuple(map(_given_dtype, _values(side))) for side in loaded["types"])
    shapes = tuple(tuple(map(_given_shape, _shapes(side))) for side in loaded["shapes"])
    if [len(side) for side in types] != [len(side) for side in shapes]:
        raise ProblemError("'types' and 'shapes' of load_data differ in their numbers of inputs or outputs")
    streams = []
    for name, word in (("train", "training"), ("valid", "validation"), ("test", "test")):
        if name == "test" and "test_gen" not in loaded:
            continue
        start, n = loaded[f"{name}_gen"], loaded.get(f"{name}_size")
        if not callable(start):
            raise ProblemError(
                f"{name}_gen of load_data must be a function that returns an iterator, got {_kind(start)}"
            )
        if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1:
            raise ProblemError(f"{name}_size of load_data must be an integer >= 1, got {n!r}")
        streams.append(
            Stream(start, int(n), (types[0], types[1]), (shapes[0], shapes[1]), f"the generator of the {word} data")
        )
    return Data(streams[0], streams[1], streams[2] if len(streams) == 3 else None, shapes[0], shapes[1])


def _given_dtype(value: Any) -> np.dtype:
    try:
        return _dtype(np.dtype(getattr(value, "as_numpy_dtype", value)))  # TensorFlow has types of its own
    except TypeError as error:
        raise ProblemError(f"'types' of load_data names {value!r}, which is no type of numbers") from error


def _given_shape(value: Any) -> Shape:
    try:
        return tuple(int(length) for length in value) or (1,)
    except TypeError as error:
        raise ProblemError(f"'shapes' of load_data has {value!r}, which is no shape of a sample") from error


def _shapes(side: Any) -> Sequence[Any]:
    """Return the shapes of one side: a shape is itself a tuple, unlike values."""
    single = isinstance(side, (tuple, list)) and all(isinstance(length, (int, np.integer)) for length in side)
    return [side] if single else _values(side)


def _values(value: Any, n: int | None = None) -> Sequence[Any]:
    """Return the values of several inputs or outputs in order; a single one stands for itself.

    Lists and tuples are several values, unless only one is expected.
    """
    if isinstance(value, Mapping):
        names = list(value)
        numbers = [_NUMBERED.fullmatch(str(name)) for name in names]
        if all(numbers):
            names.sort(key=lambda name: int(str(name).rpartition("_")[2]))
        return [value[name] for name in names]
    return value if isinstance(value, (list, tuple)) and n != 1 else [value]


def _is_pair(value: Any) -> bool:
    return isinstance(value, (tuple, list)) and len(value) == 2


def _kind(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of {len(value)}"
    return "None" if value is None else f"an object of type {type(value).__name__}"
