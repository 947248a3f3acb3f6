"""Data of architecture searches: what load_data may return, what is refused, and how they are preprocessed."""

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.preprocessing import Normalizer, StandardScaler

from dhmpi.errors import ProblemError
from dhmpi.nas.data import load
from dhmpi.nas.preprocessing import minmaxstdscaler, stdscaler


def pairs(n_train=20, n_valid=8, n_features=3, seed=0):
    """Return training and validation data of different location and scale."""
    rng = np.random.default_rng(seed)
    x, v = 5 + 2 * rng.normal(size=(n_train, n_features)), 50 + 9 * rng.normal(size=(n_valid, n_features))
    return (x, x.sum(1)), (v, v.sum(1))


def loaded(*returned, **preprocessing):
    return load(lambda: returned, **preprocessing)


def digits(shape):
    return np.arange(np.prod(shape), dtype=float).reshape(shape)


# --- forms


def test_arrays_become_32_bit_floats_and_vectors_columns():
    data = loaded(*pairs())

    assert data.input_shapes == ((3,),)
    assert data.output_shapes == ((1,),)
    assert (len(data.train), len(data.valid), data.test) == (20, 8, None)
    assert {a.dtype for s in (data.train, data.valid) for a in (*s.inputs, *s.outputs)} == {np.dtype(np.float32)}


def test_integers_stay_integers():
    data = loaded((np.zeros((4, 2), np.uint8), np.arange(4)), (np.zeros((2, 2), bool), np.arange(2)))

    assert data.train.inputs[0].dtype == np.int32
    assert data.train.outputs[0].dtype == np.int64
    assert data.valid.inputs[0].dtype == np.float32


def test_there_may_be_test_data():
    train, valid = pairs()

    assert len(loaded(train, valid, (valid[0][:3], valid[1][:3])).test) == 3


def test_lists_are_several_inputs_and_outputs():
    x = [digits((6, 2)), digits((6, 4, 3))]

    data = loaded((x, [np.zeros(6), np.zeros((6, 5))]), (x, [np.zeros(6), np.zeros((6, 5))]))

    assert data.input_shapes == ((2,), (4, 3))
    assert data.output_shapes == ((1,), (5,))


def test_dicts_are_ordered_by_number():
    x = {f"input_{i}": np.zeros((3, i + 1)) for i in reversed(range(11))}

    data = loaded((x, np.zeros(3)), (x, np.zeros(3)))

    assert data.input_shapes == tuple((i + 1,) for i in range(11))


def test_dicts_with_other_names_keep_their_order():
    x = {"wind": np.zeros((3, 2)), "heat": np.zeros((3, 1))}

    assert loaded((x, np.zeros(3)), (x, np.zeros(3))).input_shapes == ((2,), (1,))


# --- batches


def test_batches_hold_every_sample_once_in_another_order_each_time():
    source = loaded((digits((10, 1)), np.arange(10.0)), pairs(n_features=1)[1]).train
    rng = np.random.default_rng(0)

    epochs = [list(source.batches(4, rng)) for _ in range(2)]

    orders = [np.concatenate([y[0][:, 0] for _, y in batches]) for batches in epochs]
    assert [len(x[0]) for x, _ in epochs[0]] == [4, 4, 2]
    assert all(np.array_equal(np.sort(order), np.arange(10)) for order in orders)
    assert not np.array_equal(*orders)
    assert all(np.array_equal(x[0], y[0]) for batches in epochs for x, y in batches)


def test_without_a_generator_batches_are_in_order():
    source = loaded(*pairs()).valid

    assert np.array_equal(np.concatenate([x[0] for x, _ in source.batches(3)]), source.inputs[0])


# --- preprocessing


def test_preprocessing_is_fitted_on_training_data_alone():
    (x, y), (v, w) = pairs()

    data = loaded((x, y), (v, w), inputs=stdscaler)

    assert np.allclose(data.train.inputs[0].mean(0), 0, atol=1e-5)
    assert np.allclose(data.valid.inputs[0], StandardScaler().fit(x).transform(v), rtol=1e-5)
    assert np.allclose(data.train.outputs[0][:, 0], y)


def test_outputs_are_restored_to_their_units():
    (x, y), (v, w) = pairs()

    data = loaded((x, y), (v, w), inputs=minmaxstdscaler, outputs=minmaxstdscaler)

    assert abs(data.train.outputs[0].std() - 1) < 1e-5
    assert np.allclose(data.restore(data.valid.outputs)[0][:, 0], w, rtol=1e-5)


def test_the_last_axis_are_the_features():
    rng = np.random.default_rng(0)
    images = rng.normal(size=(12, 4, 4, 2)) * [1, 10] + [0, 100]

    data = loaded((images, np.zeros(12)), (images, np.zeros(12)), inputs=stdscaler)

    assert data.input_shapes == ((4, 4, 2),)
    assert np.allclose(data.train.inputs[0].mean((0, 1, 2)), 0, atol=1e-4)
    assert np.allclose(data.train.inputs[0].std((0, 1, 2)), 1, atol=1e-4)


def test_a_transformer_may_change_the_number_of_features():
    assert loaded(*pairs(), inputs=lambda: PCA(2)).input_shapes == ((2,),)


def test_outputs_need_a_way_back():
    with pytest.raises(ProblemError, match="output_0 of the training data cannot be undone: Normalizer"):
        loaded(*pairs(), outputs=Normalizer)


def test_a_transformer_that_fails_is_named():
    with pytest.raises(ProblemError, match="cannot be fitted on input_0 of the training data: ValueError"):
        loaded(*pairs(), inputs=lambda: PCA(50))


# --- what is refused


def broken(where, change):
    """Return data with one array changed."""
    data = [list(pair) for pair in pairs()]
    data[where[0]][where[1]] = change(data[where[0]][where[1]])
    return data


def with_nan(array):
    array = array.copy()
    array[5] = np.nan
    return array


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        (broken((0, 0), with_nan), "input_0 of the training data: 3 of 60 values are NaN, the first in sample 5"),
        (broken((1, 1), with_nan), "output_0 of the validation data: 1 of 8 values are NaN"),
        (broken((0, 1), lambda y: y * 1e60), "are infinite (as a 32-bit float), the first in sample 0"),
        (broken((0, 0), lambda x: x[:-1]), "training data differ in their numbers of samples: input_0 19, output_0 20"),
        (broken((1, 0), lambda x: x[:, :2]), "samples of shape (3,) in the training data, but (2,) in the validation"),
        (broken((1, 1), lambda y: [y, y]), "the training data have 1 output(s), but the validation data 2"),
        (broken((0, 0), lambda x: x.astype(str)), "input_0 of the training data must be an array of numbers"),
        (broken((0, 0), lambda x: None), "input_0 of the training data must be an array of numbers, it has None"),
        (broken((1, 0), lambda x: x[:0]), "input_0 of the validation data is empty: it has the shape (0, 3)"),
        (broken((0, 0), lambda x: []), "the training data have no inputs"),
        (pairs()[:1], "load_data must return (train_X, train_y), (valid_X, valid_y)"),
        ((np.zeros(3), np.zeros(3)), "it returned a tuple of 2"),
    ],
)
def test_unusable_data_are_refused_in_one_sentence(returned, words):
    with pytest.raises(ProblemError) as caught:
        load(lambda: tuple(returned))

    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_load_data_may_return_nothing():
    with pytest.raises(ProblemError, match="it returned None"):
        load(lambda: None)


def test_load_data_may_raise():
    def missing():
        raise FileNotFoundError("no file\nhere")

    with pytest.raises(ProblemError, match="load_data raised FileNotFoundError: no file here"):
        load(missing)


# --- generators


def generated(n=10, **changes):
    """Return the dict that DeepHyper's generators come in, with two inputs."""

    def start():
        for i in range(n):
            yield {"input_1": [i, i, i], "input_0": [i]}, [2 * i]

    returned = {
        "train_gen": start,
        "train_size": n,
        "valid_gen": start,
        "valid_size": 4,
        "types": ({"input_0": np.float64, "input_1": np.int32}, np.float64),
        "shapes": ({"input_0": (1,), "input_1": (3,)}, (1,)),
    }
    return {**returned, **changes}


def test_generators_give_the_same_batches_as_arrays():
    data = load(generated)

    batches = list(data.train.batches(4))

    assert data.input_shapes == ((1,), (3,))
    assert (len(data.train), len(data.valid), data.test) == (10, 4, None)
    assert [len(x[0]) for x, _ in batches] == [4, 4, 2]
    assert [a.dtype for a in (*batches[0][0], *batches[0][1])] == [np.float32, np.int32, np.float32]
    assert np.array_equal(np.concatenate([y[0] for _, y in batches])[:, 0], 2 * np.arange(10))
    assert sum(len(x[0]) for x, _ in data.valid.batches(3)) == 4


def test_a_single_input_needs_no_dict():
    def start():
        return (([i, i], i) for i in range(5))

    data = load(
        lambda: generated(train_gen=start, valid_gen=start, train_size=5, types=(float, int), shapes=((2,), ()))
    )

    (x,), (y,) = next(data.train.batches(5))
    assert (x.shape, y.shape, y.dtype) == ((5, 2), (5, 1), np.int64)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"train_size": 11}, "the generator of the training data gave 10 samples instead of 11"),
        ({"shapes": ({"input_0": (2,), "input_1": (3,)}, (1,))}, "input_0 has the shape (1,) instead of (2,)"),
        ({"train_gen": lambda: iter([1] * 10)}, "must yield pairs (x, y)"),
        ({"train_gen": lambda: iter([([1], [1])] * 10)}, "input_1 of the samples makes no array"),
    ],
)
def test_samples_are_checked_as_they_come(changes, words):
    data = load(lambda: generated(**changes))

    with pytest.raises(ProblemError) as caught:
        list(data.train.batches(10))

    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"train_gen": []}, "train_gen of load_data must be a function"),
        ({"valid_size": 0}, "valid_size of load_data must be an integer >= 1, got 0"),
        ({"types": float}, "'types' of load_data must be a pair"),
        ({"types": (float, float)}, "differ in their numbers of inputs or outputs"),
        ({"types": ({"input_0": "quux", "input_1": int}, int)}, "'quux', which is no type of numbers"),
        ({"shapes": ({"input_0": 3, "input_1": (3,)}, (1,))}, "has 3, which is no shape"),
    ],
)
def test_unusable_generators_are_refused(changes, words):
    with pytest.raises(ProblemError) as caught:
        load(lambda: generated(**changes))

    assert words in str(caught.value)


def test_a_dict_must_be_complete():
    with pytest.raises(ProblemError, match="a dict without train_size, valid_gen"):
        load(lambda: {"train_gen": list, "valid_size": 1, "types": (), "shapes": ()})


def test_generators_preprocess_themselves():
    with pytest.raises(ProblemError, match="must be preprocessed by these"):
        load(generated, inputs=stdscaler)
