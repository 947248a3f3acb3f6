"""DeepHyper's old search spaces mean what they meant."""

import collections
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dhmpi.errors import ProblemError
from dhmpi.nas import SearchSpace
from dhmpi.nas.compat import (
    LSTM,
    Activation,
    AddByPadding,
    AddByProjecting,
    AutoKSearchSpace,
    AvgPool2D,
    Concatenate,
    Connect,
    ConstantNode,
    Conv1D,
    Conv2D,
    Dense,
    Dropout,
    Embedding,
    Flatten,
    Identity,
    KSearchSpace,
    MaxPool2D,
    MaxPooling1D,
    MimeNode,
    MirrorNode,
    Operation,
    SeparableConv2D,
    Tensor,
    TimestepDropout,
    VariableNode,
    Zero,
    operation,
)
from dhmpi.nas.space import as_search_space

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def keras():
    import keras

    return keras


def variable(space, source, *ops, name=""):
    node = VariableNode(name)
    for op in ops:
        node.add_op(op)
    space.connect(source, node)
    return node


def skip_connections(num_layers, units=range(16, 97, 16), activations=(None, "swish", "relu", "tanh", "sigmoid")):
    """Return the space of dense layers with skip connections from up to three earlier outputs, and its nodes."""
    space = AutoKSearchSpace((10,), (7,), regression=True)
    source = space.input_nodes[0]
    anchors = collections.deque([source], maxlen=3)
    for _ in range(num_layers):
        layer = variable(space, source, Identity(), *(Dense(n, a) for n in units for a in activations))
        source = ConstantNode()
        source.set_op(AddByProjecting(space, [layer], activation="relu"))
        for anchor in anchors:
            skip = VariableNode()
            skip.add_op(Tensor([]))
            skip.add_op(Connect(space, anchor))
            space.connect(skip, source)
        anchors.append(source)
    return space


def sources(space, arch):
    """Return the names of the sources of every layer by its name."""
    steps = space.resolve(arch).steps
    return {step.name: [steps[source].name for source in step.sources] for step in steps}


@pytest.mark.parametrize(("num_layers", "decisions", "size"), [(3, 9, 1_906_624), (10, 37, 31**10 * 2**27)])
def test_skip_connections_have_the_sizes_of_the_original(num_layers, decisions, size):
    old = skip_connections(num_layers)

    assert (old.num_nodes, old.size, old.max_num_ops) == (decisions, size, 31)
    assert isinstance(old.convert(), SearchSpace)
    assert as_search_space(old).size == size


def test_decisions_come_in_the_order_in_which_nodes_were_connected():
    assert [decision.name for decision in skip_connections(3).convert().decisions] == [
        "layer_0", "skip_1", "layer_2", "skip_3", "skip_4", "layer_5", "skip_6", "skip_7", "skip_8",
    ]  # fmt: skip
    assert skip_connections(2).convert().decisions[3].options == ("no", "from input_0")


def test_a_connection_is_an_edge_into_the_merge():
    space = skip_connections(3).convert()

    assert sources(space, [3, 1, 0, 0, 0, 5, 1, 1, 0]) == {
        "input_0": [],
        "layer_0_dense": ["input_0"],
        "add_2": ["layer_0_dense", "input_0"],
        "layer_5_dense": ["add_2"],
        "add_9": ["layer_5_dense", "input_0", "add_2"],
        "output_0": ["add_9"],
    }


def test_old_vectors_of_floats_are_the_same_architectures():
    old = skip_connections(3)

    assert old.denormalize([0.5, 0.5, 0.0, 0.49, 1.0, 1.0, 0.2, 0.9, 0.0]) == [15, 1, 0, 0, 1, 30, 0, 1, 0]
    with pytest.raises(ProblemError, match="9 entries"):
        old.denormalize([0.5])


def test_mirrors_share_the_layer_and_mimes_the_choice():
    space = AutoKSearchSpace([(4,), (4,), (4,)], (1,), regression=True)
    a, b, c = space.input_nodes
    chosen = variable(space, a, Dense(3), Dense(5), name="chosen")
    mirror = MirrorNode(chosen)
    space.connect(b, mirror)
    mime = MimeNode(chosen, name="mime")
    mime.add_op(Dense(30))
    mime.add_op(Dense(50))
    space.connect(c, mime)

    converted = space.convert()

    assert converted.decisions == (("chosen", ("Dense(3)", "Dense(5)")),)
    steps = converted.resolve([1]).steps
    assert [str(step.operation) for step in steps[3:6]] == ["Dense(5)", "Dense(5)", "Dense(50)"]
    assert steps[3].layer == steps[4].layer != steps[5].layer


def test_nodes_that_lead_nowhere_are_concatenated_for_the_output():
    space = AutoKSearchSpace((4,), (2,), regression=False)
    source = space.input_nodes[0]
    side = variable(space, source, Dense(3), name="side")
    last = variable(space, source, Dense(5), name="last")
    skip = VariableNode("skip")
    skip.add_op(Zero())
    skip.add_op(Connect(space, side))
    end = ConstantNode(op=AddByProjecting(space, [last]))
    space.connect(skip, end)
    converted = space.convert()

    assert sources(converted, [0, 0, 0])["output_merge"] == ["side_dense", "last_dense"]
    assert sources(converted, [0, 0, 1])["output_0"] == ["add_3"]
    assert str(converted.resolve([0, 0, 0]).steps[-1].operation) == "Dense(2, softmax)"


def test_several_outputs_are_told_by_their_names():
    space = KSearchSpace((10,), [(1), (4,)])
    hidden = variable(space, space.input_nodes[0], Dense(8), Identity())
    for units, name in ((4, "output_1"), (1, "output_0")):
        space.connect(hidden, ConstantNode(op=Dense(units, name=name)))

    converted = space.convert()

    network = converted.resolve([0])
    assert [network.steps[i].name for i in network.outputs] == ["output_0", "output_1"]
    assert converted.output_shapes == ((1,), (4,))


def test_a_merge_can_be_an_option_with_edges_of_its_own():
    space = AutoKSearchSpace([(3,), (4,)], (1,), regression=True)
    a, b = space.input_nodes
    merge = VariableNode("merge")
    merge.add_op(Concatenate(space, [a, b]))
    merge.add_op(AddByPadding(space, [b], activation="tanh"))
    space.add_node(merge)
    converted = space.convert()

    assert converted.decisions == (("merge", ("concat", "pad(tanh)")),)
    assert sources(converted, [0])["merge_concat"] == ["input_0", "input_1"]
    assert sources(converted, [1])["output_merge"] == ["input_0", "input_1"]


def test_a_list_of_sources_is_one_option():
    space = AutoKSearchSpace([(3,), (4,)], (1,), regression=True)
    a, b = space.input_nodes
    skip = VariableNode("skip")
    for source in ([], a, [a, b]):
        skip.add_op(Connect(space, source))
    space.connect(skip, ConstantNode(op=Concatenate(space, [a])))
    converted = space.convert()

    assert converted.decisions[0].options == ("no", "from input_0", "from input_0 + input_1")
    assert sources(converted, [2])["concat_2"] == ["input_0", "input_0", "input_1"]


def test_a_space_can_be_converted_at_any_time_and_again():
    space = skip_connections(2, units=[16], activations=[None])
    before = space.convert().fingerprint()

    assert space.convert().fingerprint() == before
    last = VariableNode()
    last.add_op(Dense(3))
    space.connect(space.nodes[-2], last)
    assert space.convert().fingerprint() != before


class TestRefused:
    @pytest.fixture
    def space(self):
        return KSearchSpace((4,), (1,))

    def refused(self, function, *args, **kwargs):
        with pytest.raises(ProblemError) as refusal:
            function(*args, **kwargs)
        assert "\n" not in str(refusal.value)
        return str(refusal.value)

    def test_cycles(self, space):
        a, b, c = ConstantNode(Dense(1), "a"), ConstantNode(Dense(1), "b"), VariableNode("c")
        space.connect(space.input_nodes[0], a)
        space.connect(a, b)
        space.connect(b, c)

        assert self.refused(space.connect, b, a) == "the edge from b to a closes a cycle in the search space"
        assert "closes a cycle" in self.refused(space.connect, a, a)
        c.add_op(Identity())
        c.add_op(Connect(space, c))
        assert "option 1 of 'c' closes a cycle" in self.refused(space.convert)

    def test_cycles_through_several_options(self, space):
        a, b = VariableNode("a"), VariableNode("b")
        for node, other in ((a, b), (b, a)):
            space.connect(space.input_nodes[0], node)
            node.add_op(Identity())
            node.add_op(Connect(space, other))
        space.connect(a, end := ConstantNode(Concatenate(space, [b])))
        space.connect(end, ConstantNode(Dense(1)))
        converted = space.convert()

        converted.resolve([0, 1])
        assert "has a cycle through" in self.refused(converted.resolve, [1, 1])

    def test_nodes_without_operations_or_edges(self, space):
        node = VariableNode("a")
        space.connect(space.input_nodes[0], node)
        assert self.refused(space.convert) == "'a' has no options; give it some with add_op()"
        node.add_op(Dense(1))
        constant = ConstantNode(name="b")
        space.connect(node, constant)
        assert self.refused(space.convert) == "'b' has no operation; give it one with set_op()"
        constant.set_op(Dense(1))
        loose = ConstantNode(Dense(1), name="c")
        space.add_node(loose)
        assert self.refused(space.convert) == "'c' has no incoming edge; connect() it"

    def test_what_follows_something_absent_or_different(self, space):
        chosen = VariableNode("chosen")
        chosen.add_op(Dense(1))
        mime = MimeNode(chosen, "mime")
        mime.add_op(Dense(1))
        mime.add_op(Dense(2))
        space.connect(space.input_nodes[0], mime)
        assert "'mime' follows chosen, which is not in the search space" in self.refused(space.convert)
        space.connect(mime, chosen)
        assert "'mime' has 2 options, but 'chosen', which it follows, has 1" in self.refused(space.convert)

    def test_nodes_of_another_space_or_none(self, space):
        other = KSearchSpace((4,), (1,))

        assert "input_0 belongs to another search space" in self.refused(
            space.connect, other.input_nodes[0], ConstantNode()
        )
        assert "connects nodes, got an object of type str" in self.refused(space.connect, "a", ConstantNode())
        assert "Connect() takes nodes" in self.refused(Connect, space, "a")
        assert "takes the search space first" in self.refused(AddByProjecting, [ConstantNode()])

    def test_operations_that_are_none(self, space):
        assert "got an object of type str" in self.refused(VariableNode().add_op, "relu")
        assert "Tensor() takes an empty list" in self.refused(Tensor, np.zeros(3))
        assert "works along the last axis" in self.refused(AddByProjecting, space, axis=1)

    def test_shapes_and_outputs(self, space):
        assert "must be a tuple or a list of tuples, got 4" in self.refused(KSearchSpace, 4, (1,))
        for _ in range(2):
            space.connect(space.input_nodes[0], ConstantNode(Dense(1)))
        assert "has 2 nodes that lead nowhere, its outputs, but 1 in output_shape" in self.refused(space.convert)
        assert "set_ops(), which was not called" in self.refused(space.create_model)
        assert "a dhmpi.nas.SearchSpace is wanted, got an object of type int" in self.refused(as_search_space, 5)


def test_conversion_imports_nothing_heavy():
    script = (
        "import sys\nfrom test_nas_compat import skip_connections\nskip_connections(3).convert().canonical([1] * 9)\n"
        "print(sorted({'tensorflow', 'keras', 'ConfigSpace'} & set(sys.modules)))"
    )

    said = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True, cwd=HERE
    )

    assert said.stdout.strip() == "[]"


@pytest.mark.tensorflow
class TestBuilt:
    @pytest.mark.parametrize(
        ("shape", "op", "expected"),
        [
            ((6, 2), Dense(3, "relu"), (6, 3)),
            ((6,), Conv1D(3, 4), (6, 4)),
            ((6, 2), Conv1D(filter_size=3), (6, 1)),
            ((6,), MaxPooling1D(3), (4, 1)),
            ((6, 6, 1), Conv2D(3), (6, 6, 8)),
            ((6, 6, 1), Conv2D((3, 2), 5, strides=2, padding="VALID", activation="relu"), (2, 3, 5)),
            ((6, 6, 1), SeparableConv2D(3), (6, 6, 8)),
            ((6, 6, 1), MaxPool2D(2), (6, 6, 1)),
            ((6, 6, 1), AvgPool2D(2, strides=2), (3, 3, 1)),
            ((6, 2), LSTM(4), (4,)),
            ((6, 2), LSTM(4, "tanh", True), (6, 4)),
            ((6,), Embedding(9, 3), (6, 3)),
            ((6, 2), TimestepDropout(0.5), (6, 2)),
            ((6, 2), Dropout(0.5), (6, 2)),
            ((6, 2), Activation(), (6, 2)),
            ((6, 2), Flatten(), (12,)),
            ((6, 2), Identity(), (6, 2)),
        ],
        ids=str,
    )
    def test_operations_give_the_shapes_they_gave(self, shape, op, expected):
        space = KSearchSpace(shape, expected)
        space.connect(space.input_nodes[0], ConstantNode(op))

        assert tuple(space.convert().build(()).output.shape[1:]) == expected

    def test_a_wrong_output_shape_is_refused(self):
        space = KSearchSpace((4,), (3,))
        space.connect(space.input_nodes[0], ConstantNode(Dense(2)))

        with pytest.raises(ProblemError, match=r"has the shape \(2,\), but \(3,\) is declared"):
            space.convert().build(())

    def test_skip_connections_compute_what_they_did(self):
        space = skip_connections(2, units=[4], activations=["tanh"]).convert()
        model = space.build([1, 1, 0, 0, 1], seed=0)
        x = np.random.default_rng(0).normal(size=(3, 10)).astype("float32")
        w, b = model.get_layer("layer_0_dense").get_weights()
        v, c = model.get_layer("add_2_1_project").get_weights()
        u, d = model.get_layer("output_0").get_weights()

        hidden = np.maximum(np.tanh(x @ w + b) + (x @ v + c), 0)

        # The second layer is the identity, with a skip connection from the first: twice the same, added.
        assert np.allclose(model(x), np.maximum(2 * hidden, 0) @ u + d, atol=1e-5)

    def test_layer_objects_are_made_anew_for_every_network(self, keras):
        layer = keras.layers.Dense(3, activation="tanh", name="mine")
        space = KSearchSpace((4,), (1,))
        chosen = variable(space, space.input_nodes[0], layer, keras.layers.BatchNormalization(), Operation(layer))
        space.connect(chosen, ConstantNode(Dense(1)))
        converted = space.convert()

        one, other = converted.build([0], seed=1), converted.build([0], seed=1)

        assert converted.decisions[0].options == ("Dense(3, tanh)", "BatchNormalization", "Dense(3, tanh)")
        assert one.layers[1] is not other.layers[1] is not layer
        assert not layer.built
        assert np.array_equal(one.get_weights()[0], other.get_weights()[0])

    def test_classes_of_layers_become_operations(self, keras):
        make = operation(keras.layers.Dense)

        assert str(make(7, activation="relu")) == "Dense(7, relu)"
        assert str(operation(keras.layers.Dropout)(rate=0.5)) == "Dropout(0.5)"
        space = KSearchSpace((6, 2), (6, 7))
        space.connect(space.input_nodes[0], ConstantNode(make(7)))
        assert space.convert().build(()).count_params() == 21

    def test_operations_of_ones_own_keep_their_layer_within_a_network_only(self, keras):
        class Twice(Operation):
            def __init__(self, units):
                self.units = units
                self.layer = None

            def __call__(self, tensors, **kwargs):
                assert len(tensors) == 1
                self.layer = self.layer or keras.layers.Dense(self.units)
                return 2 * self.layer(tensors[0])

        space = KSearchSpace([(4,), (4,)], (6,))
        chosen = variable(space, space.input_nodes[0], Twice(3))
        mirror = MirrorNode(chosen)
        space.connect(space.input_nodes[1], mirror)
        end = ConstantNode(Concatenate(space, [chosen, mirror]))
        converted = space.convert()

        models = [converted.build([0], seed=2) for _ in range(2)]

        assert end.op is not None
        assert [model.count_params() for model in models] == [15, 15]
        assert np.array_equal(models[0].get_weights()[0], models[1].get_weights()[0])
        assert chosen.ops[0].layer._op.layer is None

    def test_set_ops_and_create_model_still_work(self):
        space = skip_connections(3)

        space.set_ops([0.5] * 9)

        assert space.create_model().count_params() == space.convert().build([0.5] * 9).count_params()

    def test_an_old_problem_needs_only_its_imports_changed(self):
        from dhmpi.load import load_problem

        problem = load_problem(str(HERE / "old_covertype.py"))
        space = problem.architecture_space
        rng = np.random.default_rng(3)

        assert (len(space.decisions), space.size) == (37, 31**10 * 2**27)
        assert space.decisions[0].options[:4] == ("Identity", "Dense(16)", "Dense(16, swish)", "Dense(16, relu)")
        assert problem.columns == ["arch_seq", "batch_size", "learning_rate"]
        model = space.build(space.random(rng), seed=1)
        assert [tuple(tensor.shape[1:]) for tensor in (*model.inputs, *model.outputs)] == [(54,), (7,)]
        outputs = model(np.zeros((2, 54), dtype="float32"))
        assert np.allclose(np.sum(outputs, axis=1), 1, atol=1e-5)
