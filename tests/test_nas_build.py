"""Networks of search spaces, built in Keras."""

import numpy as np
import pytest

from dhmpi.errors import ProblemError
from dhmpi.nas import SearchSpace
from dhmpi.nas import layers as L
from dhmpi.nas.build import measure

pytestmark = pytest.mark.tensorflow


@pytest.fixture(scope="module")
def keras():
    import keras

    return keras


def pod_lstm():
    space = SearchSpace()
    past = [x := space.input((8, 5))]
    for i in range(5):
        options = [L.Identity(), *(L.LSTM(units, return_sequences=True) for units in range(16, 97, 16))]
        y = space.choose(f"node{i}", options, x)
        x = space.skips(f"skip{i}", y, past[-2:], activation="relu")
        past.append(x)
    space.output(L.LSTM(5, return_sequences=True), x, shape=(8, 5))
    return space


def network(shape, *operations, outputs=None):
    """Return the model of operations in a row, without an output layer."""
    space = SearchSpace()
    x = space.input(shape)
    for operation in operations:
        x = space.apply(operation, x)
    space.output(None, x, outputs)
    return space.build((), seed=0)


def shapes(model):
    return {layer.name: tuple(layer.output.shape[1:]) for layer in model.layers}


def compute(model, inputs):
    """Return the outputs of a model, without tracing it first as predict() would."""
    arrays = [np.asarray(x, "float32") for x in (inputs if isinstance(inputs, list) else [inputs])]
    outputs = model(arrays if len(arrays) > 1 else arrays[0], training=False)
    return [output.numpy() for output in outputs] if isinstance(outputs, list) else outputs.numpy()


def same(one, other):
    pairs = list(zip(one.get_weights(), other.get_weights()))
    return len(one.weights) == len(other.weights) and all(np.array_equal(a, b) for a, b in pairs)


def test_a_pod_lstm_gives_the_published_network():
    space = pod_lstm()

    model = space.build([2, 1, 0, 0, 0, 1, 1, 0, 0, 0, 0, 6, 0, 1], seed=1)

    assert shapes(model) == {
        "input_0": (8, 5),
        "node0_lstm": (8, 32),
        "skip0_add_1_project": (8, 32),
        "skip0_add": (8, 32),
        "skip0_add_activation": (8, 32),
        "node2_lstm": (8, 16),
        "skip2_add_1_project": (8, 16),
        "skip2_add": (8, 16),
        "skip2_add_activation": (8, 16),
        "node4_lstm": (8, 96),
        "skip4_add_1_project": (8, 96),
        "skip4_add": (8, 96),
        "skip4_add_activation": (8, 96),
        "output_0": (8, 5),
    }
    lstm = [4 * (n * (n + m + 1)) for m, n in ((5, 32), (32, 16), (16, 96), (96, 5))]
    project = [(5 + 1) * 32, (32 + 1) * 16, (16 + 1) * 96]
    assert model.count_params() == sum(lstm) + sum(project)
    assert compute(model, np.zeros((2, 8, 5))).shape == (2, 8, 5)


def test_what_a_skip_adds_is_what_keras_would_compute(keras):
    space = SearchSpace()
    x = space.input(3)
    y = space.apply(L.Dense(4, "tanh"), x)
    space.output(None, space.merge([y, x], activation="relu"))
    model = space.build((), seed=2)
    inputs = np.random.default_rng(0).normal(size=(5, 3)).astype("float32")

    (w, b), (v, c) = (model.get_layer(name).get_weights() for name in ("dense", "add_1_project"))

    expected = np.maximum(np.tanh(inputs @ w + b) + inputs @ v + c, 0)
    assert np.allclose(compute(model, inputs), expected, atol=1e-5)


def test_equal_architectures_and_seeds_give_equal_weights_whatever_was_built_before(keras):
    space = pod_lstm()
    arch, other = [1, 1, 2, 0, 1] + [0] * 9, [1, 0, 3, 1, 1] + [0] * 9

    first = space.build(arch, seed=5)
    space.build(other, seed=6)
    keras.layers.Dense(3).build((None, 2))
    again = pod_lstm().build(arch, seed=5)

    assert same(first, again)
    assert not same(first, space.build(arch, seed=6))
    assert not same(space.build(arch), space.build(arch))


def test_a_layer_starts_alike_in_all_architectures_that_have_it():
    space = pod_lstm()

    one, other = space.build([1, 0, 2] + [0] * 11, seed=3), space.build([1, 0, 0, 0, 0, 4] + [0] * 8, seed=3)

    assert np.array_equal(one.get_layer("node0_lstm").get_weights()[1], other.get_layer("node0_lstm").get_weights()[1])
    kernels = [layer.get_weights()[1] for layer in one.layers if layer.name in ("node0_lstm", "output_0")]
    assert not np.array_equal(kernels[0][:5, :5], kernels[1][:5, :5])


@pytest.mark.parametrize(
    "operation",
    [
        L.Keras("Bidirectional", layer=L.LSTM(3)),
        L.Keras("SeparableConv1D", filters=4, kernel_size=3),
        L.Keras("GRU", units=4, dropout=0.5, recurrent_dropout=0.1),
        L.Dense(4, kernel_initializer="he_normal"),
    ],
    ids=str,
)
def test_all_kinds_of_layers_start_from_the_seed(operation):
    space = SearchSpace()
    space.output(operation, space.input((6, 2)))

    assert same(space.build((), seed=1), space.build((), seed=1))
    assert not same(space.build((), seed=1), space.build((), seed=2))


def test_dropout_draws_from_the_seed():
    ones = np.ones((4, 50), dtype="float32")

    masks = [np.array(network(50, L.Dropout(0.5))(ones, training=True)) for _ in range(2)]

    assert np.array_equal(*masks)
    assert 0 < (masks[0] == 0).mean() < 1


def test_timestep_dropout_drops_whole_steps():
    kept = np.array(network((30, 4), L.TimestepDropout(0.5))(np.ones((3, 30, 4), dtype="float32"), training=True)) > 0

    assert np.array_equal(kept.all(axis=2), kept.any(axis=2))
    assert 0 < kept.mean() < 1


@pytest.mark.parametrize(
    ("shape", "operation", "expected"),
    [
        ((6, 2), L.Dense(3), (3,)),
        ((6, 2), L.Dense(3, per_step=True), (6, 3)),
        ((4, 4, 2), L.Dense(3), (3,)),
        ((10,), L.Conv1D(3, 2), (10, 3)),
        ((4, 4, 2), L.Conv1D(3, 2), (4, 3)),
        ((10,), L.MaxPooling1D(2), (5, 1)),
        ((10,), L.LSTM(3), (3,)),
        ((4, 4, 2), L.LSTM(3, return_sequences=True), (4, 3)),
        ((4, 4), L.Conv2D(3, 2, padding="valid"), (3, 3, 3)),
        ((4, 4), L.MaxPool2D(2), (2, 2, 1)),
        ((4, 4, 2), L.AvgPool2D(3), (2, 2, 2)),
        ((4, 4, 2), L.SeparableConv2D(5, 3), (4, 4, 5)),
        ((4, 4, 2), L.Flatten(), (32,)),
        ((4,), L.Flatten(), (4,)),
        ((4, 4, 2), L.BatchNormalization(), (4, 4, 2)),
        ((4, 2), L.Activation("tanh"), (4, 2)),
        ((7,), L.Embedding(10, 3), (7, 3)),
        ((7, 2), L.Keras("GlobalAveragePooling1D"), (2,)),
        ((7, 2), L.Keras("LayerNormalization", epsilon=0.1), (7, 2)),
    ],
    ids=str,
)
def test_an_operation_sees_the_rank_it_works_on(shape, operation, expected):
    model = network(shape, operation)

    assert tuple(model.output.shape[1:]) == expected


@pytest.mark.parametrize(
    ("how", "first", "second", "expected"),
    [
        ("add", (4,), (4,), (4,)),
        ("add", (4,), (6,), (4,)),
        ("add", (4,), (6, 2), (4,)),
        ("add", (8, 3), (8, 5), (8, 3)),
        ("add", (8, 3), (20, 3), (8, 3)),
        ("add", (8, 3), (5, 1), (8, 3)),
        ("add", (8, 3), (8,), (8, 3)),
        ("add", (4, 4, 8), (8, 8, 2), (4, 4, 8)),
        ("add", (5, 3, 8), (8, 8, 8), (5, 3, 8)),
        ("concat", (4,), (6,), (10,)),
        ("concat", (4, 2), (6, 3), (6, 5)),
        ("concat", (4,), (6, 3), (6, 4)),
        ("concat", (4, 4, 1), (4, 2), (4, 4, 2)),
        ("pad", (4,), (6,), (6,)),
        ("pad", (4, 5), (6, 3), (6, 5)),
    ],
    ids=str,
)
def test_merged_tensors_get_one_shape(how, first, second, expected):
    space = SearchSpace()
    space.output(None, space.merge([space.input(first), space.input(second)], how))

    assert tuple(space.build(()).output.shape[1:]) == expected


def test_zeros_go_to_both_ends():
    space = SearchSpace()
    space.output(None, space.merge([space.input((1, 1)), space.input((4, 2))], "pad"))

    padded = compute(space.build(()), [np.ones((1, 1, 1)), np.zeros((1, 4, 2))])

    assert padded[0].tolist() == [[0, 0], [1, 0], [0, 0], [0, 0]]


def test_what_is_longer_is_averaged_down():
    space = SearchSpace()
    space.output(None, space.merge([space.input((2, 1)), space.input((4, 1))]))

    averaged = compute(space.build(()), [np.zeros((1, 2, 1)), np.array([[[1], [3], [5], [9]]])])

    assert averaged[0].tolist() == [[2], [7]]


def test_a_layer_used_again_has_the_same_weights():
    space = SearchSpace()
    a, b = space.input(4), space.input(4)
    first = space.choose("layer", [L.Identity(), L.Dense(3)], a)
    space.output(None, space.merge([first, space.reuse(first, b)], "concat"))
    model = space.build([1], seed=0)
    inputs = np.random.default_rng(0).normal(size=(2, 4))

    outputs = compute(model, [inputs, inputs])

    assert model.count_params() == 15
    assert np.array_equal(outputs[:, :3], outputs[:, 3:])
    assert tuple(space.build([0]).output.shape[1:]) == (8,)


def test_layers_of_equal_choices_have_weights_of_their_own():
    space = SearchSpace()
    x = space.choose("layer", [L.Identity(), L.Dense(4)], space.input(4))
    x = space.choose("copy", [L.Identity(), L.Dense(4)], x, same_as="layer")
    space.output(None, x)

    model = space.build([1], seed=0)

    one, other = (model.get_layer(name).get_weights()[0] for name in ("layer_dense", "copy_dense"))
    assert not np.array_equal(one, other)


def test_several_inputs_and_outputs_keep_their_order():
    space = SearchSpace()
    a, unused, b = space.input(3), space.input(2, name="aside"), space.input(4)
    x = space.choose("which", [L.Dense(5)], a)
    space.output(L.Dense(2), space.select("aside?", [(), unused], x))
    space.output(None, b)

    model = space.build([0, 0], seed=0)

    assert [tuple(tensor.shape[1:]) for tensor in model.inputs] == [(3,), (2,), (4,)]
    assert model.output_names == ["output_0", "output_1"]
    outputs = compute(model, [np.ones((6, 3)), np.ones((6, 2)), np.full((6, 4), 7)])
    assert [output.shape for output in outputs] == [(6, 2), (6, 4)]
    assert (outputs[1] == 7).all()


def test_a_network_is_saved_and_loaded_without_us(keras, tmp_path):
    space = SearchSpace()
    x = space.input((8, 3))
    y = space.apply(L.Conv1D(4, 3, "relu"), x)
    y = space.apply(L.MaxPooling1D(2), y)
    z = space.merge([y, x], activation="relu")
    z = space.apply(L.TimestepDropout(0.2), space.merge([z, x], "concat"))
    space.output(L.Dense(2, "softmax"), z)
    model = space.build((), seed=0)
    inputs = np.random.default_rng(0).normal(size=(4, 8, 3))

    model.save(tmp_path / "network.keras")

    loaded = keras.models.load_model(tmp_path / "network.keras")
    assert np.array_equal(compute(loaded, inputs), compute(model, inputs))


def test_measures_are_those_of_the_model():
    space = pod_lstm()
    arch = space.validate([2, 1, 0, 0, 0, 1, 1, 0, 0, 0, 0, 6, 0, 1])
    model = space.build(arch)

    measures = measure(space.resolve(arch))

    assert sum(count for _, count in measures) == model.count_params()
    assert [shape for shape, _ in measures] == [
        (8, 5), (8, 32), (8, 32), (8, 16), (8, 16), (8, 96), (8, 96), (8, 5),
    ]  # fmt: skip


def test_layers_of_ones_own(keras):
    class Scale(keras.layers.Layer):
        def __init__(self, by, **kwargs):
            super().__init__(**kwargs)
            self.by = by

        def call(self, x):
            return x * self.by

    model = network(3, L.Keras(Scale, by=2), L.Keras(lambda name, by: Scale(by, name=name), by=5))

    assert compute(model, np.ones((1, 3))).tolist() == [[10, 10, 10]]


def test_names_that_tensorflow_does_not_take_are_changed():
    space = SearchSpace()
    x = space.choose("größe / links", [L.Dense(3), L.Dense(4)], space.input(2, name="_in put"))
    space.output(L.Dense(1), x)

    model = space.build([0], seed=0)

    model.compile("adam", "mse")
    model.fit(np.zeros((4, 2)), np.zeros((4, 1)), verbose=0)
    assert [layer.name for layer in model.layers] == ["layer_in_put", "gr__e___links_dense", "output_0"]


def test_a_function_builds_what_it_likes(keras):
    def build(values):
        inputs = keras.Input((3,))
        return keras.Model(inputs, keras.layers.Dense(values["units"])(inputs))

    space = SearchSpace(decisions={"units": [2, 4]}, build=build)

    assert space.build([1]).count_params() == 16
    assert same(space.build([1], seed=1), space.build([1], seed=1))
    assert not same(space.build([1], seed=1), space.build([1], seed=2))


@pytest.mark.parametrize(
    ("define", "words"),
    [
        (lambda s, x: s.output(L.Dense(3), x, shape=(4,)), "'output_0' has the shape (3,), but (4,) is declared"),
        (lambda s, x: s.output(L.Keras("Nonsense"), x), "asks for the layer 'Nonsense', but keras.layers has none"),
        (lambda s, x: s.output(L.Keras("Dense", unit=3), x), "'output_0', Dense(unit=3), cannot be applied"),
        (lambda s, x: s.output(L.Conv1D(2, 9, padding="valid"), x), "cannot be applied to shape (4, 2)"),
        (lambda s, x: s.output(L.Dense(2, "rely"), x), "'output_0', Dense(2, rely), cannot be applied"),
        (lambda s, x: s.output(L.Keras("Reshape", target_shape=(5,)), x), "cannot be applied to shape (4, 2)"),
    ],
)  # fmt: skip
def test_what_cannot_be_built_is_said_in_one_sentence(define, words):
    space = SearchSpace()
    define(space, space.input((4, 2)))

    with pytest.raises(ProblemError) as refusal:
        space.build(())

    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_function_that_returns_no_model_is_refused():
    space = SearchSpace(decisions={"a": [1]}, build=lambda values: 5)

    with pytest.raises(ProblemError, match="must return a keras.Model, got an object of type int"):
        space.build([0])
