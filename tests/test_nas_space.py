"""Search spaces as data: what they contain, what they accept, what they refuse."""

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dhmpi.errors import ProblemError
from dhmpi.nas import SearchSpace
from dhmpi.nas import layers as L

DENSE = [L.Identity(), L.Dense(16, "relu"), L.Dense(32, "relu")]


def pod_lstm():
    """Return the space of the POD-LSTM search: 14 decisions."""
    space = SearchSpace()
    past = [x := space.input((8, 5))]
    for i in range(5):
        options = [L.Identity(), *(L.LSTM(units, return_sequences=True) for units in range(16, 97, 16))]
        y = space.choose(f"node{i}", options, x)
        x = space.skips(f"skip{i}", y, past[-2:], activation="relu")
        past.append(x)
    space.output(L.LSTM(5, return_sequences=True), x, shape=(8, 5))
    return space


def chain(*choices):
    """Return a space of dense layers in a row, one per list of options."""
    space = SearchSpace()
    x = space.input(10)
    for i, options in enumerate(choices):
        x = space.choose(f"layer{i}", options, x)
    space.output(L.Dense(1), x)
    return space


@pytest.fixture(scope="module")
def pod():
    return pod_lstm()


def names(network):
    return [step.name for step in network.steps]


def test_the_pod_lstm_space_has_the_published_size(pod):
    assert (len(pod.decisions), pod.size) == (14, 8_605_184)
    assert pod.n_options == (7, 2, 7, 2, 2, 7, 2, 2, 7, 2, 2, 7, 2, 2)
    assert (pod.input_shapes, pod.output_shapes) == (((8, 5),), ((8, 5),))


def test_decisions_are_in_the_order_of_definition_and_in_words():
    space = SearchSpace()
    x = space.input(4)
    y = space.choose("first", DENSE, x)
    y = space.skips("jump", y, [x])
    space.output(L.Dense(1), space.choose("last", [L.Dropout(0.5)], y))

    assert space.decisions == (
        ("first", ("Identity", "Dense(16, relu)", "Dense(32, relu)")),
        ("jump_0", ("no", "from input_0")),
        ("last", ("Dropout(0.5)",)),
    )


def test_random_architectures_are_uniform_plain_and_reproducible(pod):
    rng = np.random.default_rng(0)

    drawn = [pod.random(rng) for _ in range(2000)]

    assert all(type(option) is int for arch in drawn[:10] for option in arch)
    assert pod.random(np.random.default_rng(0)) == drawn[0]
    for position, n in enumerate(pod.n_options):
        counts = np.bincount([arch[position] for arch in drawn], minlength=n)
        assert counts.min() > 0.75 * 2000 / n
        assert len(counts) == n


def test_a_mutation_changes_one_decision_to_another_option_uniformly():
    space = chain(DENSE, [L.Dropout(0.1)], [L.Identity(), L.Dense(8)])
    rng = np.random.default_rng(1)

    mutants = [space.mutate((1, 0, 0), rng) for _ in range(3000)]

    counts = {mutant: mutants.count(mutant) for mutant in set(mutants)}
    assert set(counts) == {(0, 0, 0), (2, 0, 0), (1, 0, 1)}
    assert 650 < counts[0, 0, 0] < 850
    assert 1350 < counts[1, 0, 1] < 1650
    assert all(type(option) is int for option in mutants[0])


def test_a_space_without_a_choice_cannot_be_mutated():
    space = chain([L.Dense(3)], [L.Dropout(0.1)])

    with pytest.raises(ProblemError, match="single architecture"):
        space.mutate((0, 0), np.random.default_rng(0))


@given(st.data())
@settings(max_examples=50, deadline=None)
def test_what_is_drawn_or_mutated_is_valid_and_survives_json(data):
    space = pod_lstm()
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))

    arch = space.random(rng)
    mutant = space.mutate(arch, rng)

    assert space.validate(json.loads(json.dumps(mutant))) == mutant
    assert sum(a != b for a, b in zip(arch, mutant)) == 1


def test_ints_numpy_ints_and_floats_are_architectures():
    space = chain(DENSE, DENSE, DENSE, DENSE)

    assert space.validate([0, 1, 2, 1]) == (0, 1, 2, 1)
    assert space.validate(np.array([0, 1, 2, 1])) == (0, 1, 2, 1)
    assert space.validate([np.int64(2), 0.0, 0.34, 1.0]) == (2, 0, 1, 2)
    assert space.validate(np.array([0.32, 0.99, 0.67, 0.5], dtype=np.float32)) == (0, 2, 2, 1)


@pytest.mark.parametrize(
    ("arch", "words"),
    [
        ([0, 1], "has 3 entries, one per decision, got 2"),
        ([0, 1, 1, 1], "has 3 entries, one per decision, got 4"),
        ([0, 3, 1], "'layer1' takes the number of an option, 0 to 2, or a float in [0, 1], got 3"),
        ([0, -1, 1], "'layer1' takes the number of an option, 0 to 2, or a float in [0, 1], got -1"),
        ([0, 1.5, 1], "'layer1' takes the number of an option, 0 to 2, or a float in [0, 1], got 1.5"),
        ([0, float("nan"), 1], "got nan"),
        ([True, 0, 0], "'layer0' takes the number of an option, 0 to 2, or a float in [0, 1], got True"),
        ([np.bool_(True), 0, 0], "'layer0'"),
        ([0, 0, "1"], "'layer2' takes"),
        ([0, 0, None], "'layer2' takes"),
        ("012", "one option per decision, got '012'"),
        (5, "one option per decision, got 5"),
        ({"layer0": 1}, "one option per decision"),
    ],
)
def test_what_is_no_architecture_is_refused_in_one_sentence(arch, words):
    space = chain(DENSE, DENSE, DENSE)

    with pytest.raises(ProblemError) as refusal:
        space.validate(arch)

    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_describe_says_what_is_chosen(pod):
    lines = pod.describe([5, 1, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0]).splitlines()

    assert len(lines) == 14
    assert lines[0] == "node0    5  LSTM(80, return_sequences)"
    assert lines[4] == "skip1_1  1  from skip0"


def test_resolve_leaves_out_what_does_nothing(pod):
    network = pod.resolve([2] + [0] * 12 + [1])

    assert names(network) == ["input_0", "node0_lstm", "skip4_add", "output_0"]
    assert [step.sources for step in network.steps] == [(), (0,), (1, 1), (2,)]
    assert (network.inputs, network.outputs, network.output_shapes) == ((0,), (3,), ((8, 5),))


def test_architectures_that_build_the_same_network_have_one_canonical_form():
    space = chain(DENSE, DENSE, DENSE)

    forms = {arch: space.canonical(arch) for arch in np.ndindex(3, 3, 3)}

    one_layer = {forms[1, 0, 0], forms[0, 1, 0], forms[0, 0, 1]}
    assert len(one_layer) == 1
    assert len({forms[1, 2, 0], forms[1, 0, 2], forms[0, 1, 2]}) == 1
    assert len(set(forms.values())) == 1 + 2 + 4 + 8


def test_canonical_forms_tell_skips_apart_that_matter(pod):
    base = [1, 0, 1, 0, 0] + [0] * 9

    def with_skip(position):
        return pod.canonical([*base[:position], 1, *base[position + 1 :]])

    # node1 has skips from the input and from skip0, which is node0's output; later ones start after Identity.
    assert len({with_skip(3), with_skip(4), pod.canonical(base)}) == 3
    assert pod.canonical([0, 0, 1, 1, 0] + [0] * 9) == pod.canonical([0, 0, 1, 0, 1] + [0] * 9)


def test_a_shared_layer_is_not_the_same_network_as_an_equal_one():
    def two(shared):
        space = SearchSpace()
        a, b = space.input(4), space.input(4)
        first = space.choose("layer", DENSE, a)
        second = space.reuse(first, b) if shared else space.choose("other", DENSE, b, same_as="layer")
        space.output(L.Dense(1), space.merge([first, second], "concat"))
        return space

    assert two(True).canonical([1]) != two(False).canonical([1])
    assert two(True).canonical([0]) == two(False).canonical([0])
    assert two(True).decisions == two(False).decisions


def test_nodes_that_follow_a_decision_add_none():
    space = SearchSpace()
    x = space.input((8, 8, 1))
    past = [x]
    for i in range(3):
        y = space.choose(f"cell{i}", [L.Conv2D(4, 3), L.MaxPool2D(2)], x, same_as="cell0" if i else None)
        x = space.skips(f"jump{i}", y, past[-1:], same_as="jump0" if i else None)
        past.append(x)
    space.output(L.Dense(10, "softmax"), x)

    assert [decision.name for decision in space.decisions] == ["cell0", "jump0_0"]
    assert names(space.resolve([0, 1])) == [
        "input_0", "cell0_conv2d", "jump0_add", "cell1_conv2d", "jump1_add", "cell2_conv2d", "jump2_add", "output_0",
    ]  # fmt: skip
    assert names(space.resolve([1, 0])) == [
        "input_0",
        "cell0_maxpool2d",
        "cell1_maxpool2d",
        "cell2_maxpool2d",
        "output_0",
    ]


def test_select_chooses_among_groups_of_nodes():
    space = SearchSpace()
    a, b, c = (space.input(n) for n in (3, 4, 5))
    y = space.select("source", [a, (a, b)], merge="concat")
    z = space.select("jump", [(), b, (b, c)], y)
    space.output(L.Dense(1), z)

    assert space.decisions == (
        ("source", ("input_0", "input_0 + input_1")),
        ("jump", ("none", "input_1", "input_1 + input_2")),
    )
    assert [step.sources for step in space.resolve([0, 0]).steps] == [(), (), (), (0,)]
    assert [step.sources for step in space.resolve([1, 2]).steps] == [(), (), (), (0, 1), (3, 1, 2), (4,)]


def test_several_inputs_and_outputs_have_names_and_shapes():
    space = SearchSpace()
    a, b = space.input(3, name="image"), space.input((4, 2))
    space.output(L.Dense(7), space.merge([a, b]))
    space.output(None, b, shape=(4, 2))
    space.output(L.LSTM(3), b, name="state")

    network = space.resolve(())

    assert space.input_shapes == ((3,), (4, 2))
    assert space.output_shapes == ((7,), (4, 2), None)
    assert [network.steps[i].name for i in network.outputs] == ["output_0", "output_1", "state"]


def test_fingerprints_tell_spaces_apart():
    others = [chain(DENSE[:2]), chain(DENSE[::-1]), chain(DENSE, DENSE), chain([*DENSE[:2], L.Dense(32, "tanh")])]

    assert len({space.fingerprint() for space in [chain(DENSE), *others]}) == 5
    assert chain(DENSE).fingerprint() == chain(DENSE).fingerprint()


def test_fingerprints_and_canonical_forms_are_the_same_in_every_process():
    script = (
        "from dhmpi.nas import SearchSpace, layers as L\n"
        "space = SearchSpace()\n"
        "x = space.choose('a', [L.Dense(2, max), L.Keras('GRU', units=3, dropout=0.1)], space.input(3))\n"
        "space.output(L.Dense(1), x)\n"
    )
    here = {}
    exec(script, here)

    said = subprocess.run(
        [sys.executable, "-c", script + "print(space.fingerprint(), space.canonical([1]))"],
        capture_output=True, text=True, timeout=60, check=True, env={"PYTHONHASHSEED": "5"},
    )  # fmt: skip

    assert said.stdout.split() == [here["space"].fingerprint(), here["space"].canonical([1])]


def test_nothing_heavy_is_imported():
    script = (
        "import sys\nfrom dhmpi.nas import SearchSpace, layers as L\nimport dhmpi.nas.compat\n"
        "s = SearchSpace()\ns.output(L.Dense(1), s.choose('a', [L.Dense(2)], s.input(3)))\ns.canonical([0])\n"
        "print(sorted({'tensorflow', 'keras', 'ConfigSpace', 'scipy', 'sklearn', 'mpi4py'} & set(sys.modules)))"
    )

    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)

    assert said.stdout.strip() == "[]"


def test_plain_values_and_a_function_are_a_space_too():
    space = SearchSpace(decisions={"depth": [1, 2, 3], "act": ["relu", None], "block": [dict, max]}, build=lambda v: v)

    assert space.decisions == (("depth", ("1", "2", "3")), ("act", ("relu", "None")), ("block", ("dict", "max")))
    assert space.values([2, 1, 0]) == {"depth": 3, "act": None, "block": dict}
    assert space.size == 12
    assert not space.has_graph
    assert len({space.canonical(arch) for arch in np.ndindex(3, 2, 2)}) == 12
    with pytest.raises(ProblemError, match="known only to its build function"):
        space.resolve([0, 0, 0])


class TestRefused:
    """Whatever cannot work is refused where it is defined, in one sentence."""

    @pytest.fixture
    def space(self):
        return SearchSpace()

    @pytest.fixture
    def x(self, space):
        return space.input(10)

    @pytest.fixture
    def refused(self):
        """Return a function that calls another one and returns the sentence with which it refuses."""

        def call(function, *args, **kwargs):
            with pytest.raises(ProblemError) as refusal:
                function(*args, **kwargs)
            words = str(refusal.value)
            assert "\n" not in words
            return words

        return call

    def test_decisions_without_options(self, space, x, refused):
        assert refused(space.choose, "a", [], x) == "decision 'a' has no options; give at least one"
        assert "'a' has no options" in refused(SearchSpace, decisions={"a": []}, build=max)
        assert "options of decision 'a' must be a list" in refused(space.choose, "a", "abc", x)
        assert "options of decision 'a' must be a list" in refused(space.choose, "a", L.Dense(3), x)

    def test_two_of_one_name(self, space, x, refused):
        space.skips("a", space.choose("b", DENSE, x), [x])

        assert "two nodes or decisions named 'b'" in refused(space.choose, "b", DENSE, x)
        assert "two nodes or decisions named 'a'" in refused(space.choose, "a", DENSE, x)
        assert "two decisions named 'a_0'" in refused(space.choose, "a_0", DENSE, x)
        assert "named 'input_0'" in refused(space.input, 3, name="input_0")

    def test_names_that_are_none(self, space, x, refused):
        for name in ("", None, 3, "a\nb"):
            assert "printable characters" in refused(space.choose, name, DENSE, x)

    def test_nodes_of_other_spaces(self, space, x, refused):
        other = SearchSpace().input(3)

        for function in (lambda: space.choose("a", DENSE, other), lambda: space.merge([x, other]),
                         lambda: space.skips("a", x, [other]), lambda: space.reuse(other, x),
                         lambda: space.output(None, other)):  # fmt: skip
            assert refused(function) == "<node 'input_0'> belongs to another search space"

    def test_what_is_no_node(self, space, x, refused):
        assert "a node of the search space is wanted" in refused(space.apply, L.Dense(3), L.Dense(3))
        assert "at least one node" in refused(space.merge, [])

    def test_what_is_no_operation(self, space, x, refused):
        assert "option 1 of 'a' must be an operation" in refused(space.choose, "a", [L.Identity(), "relu"], x)
        assert "what is applied must be an operation" in refused(space.apply, L.Dense, x)
        assert "the output must be an operation" in refused(space.output, "softmax", x)
        assert "merged by add, concat or pad, got 'sum'" in refused(space.merge, [x], "sum")

    def test_layers_that_cannot_be(self, refused):
        assert refused(L.Dense, 0) == "units of Dense must be an integer >= 1, got 0"
        assert "filters of Conv2D" in refused(L.Conv2D, 2.5, 3)
        assert refused(L.Dropout, 1) == "the rate of Dropout must be a number in [0, 1), got 1"
        assert "class in keras.layers" in refused(L.Keras, "Dense(3)")
        assert "made anew" in refused(L.Keras, 5)

    def test_shapes_that_are_none(self, space, refused):
        for shape in ((), (0,), (3, -1), (None, 3), "ab", (2.0,), True):
            assert "the shape of an input must be a tuple of integers > 0" in refused(space.input, shape)

    def test_following_what_is_not_there_or_different(self, space, x, refused):
        space.choose("a", DENSE, x)

        assert "there is none of that name yet" in refused(space.choose, "b", DENSE, x, same_as="c")
        assert "it has 2 options, and that one has 3" in refused(space.choose, "b", DENSE[:2], x, same_as="a")
        assert "'s_0' cannot follow the decision 'a_0'" in refused(space.skips, "s", x, [x], same_as="a")

    def test_using_again_what_is_no_layer(self, space, x, refused):
        assert "only a layer can be used again" in refused(space.reuse, x, x)
        assert "only a layer can be used again" in refused(space.reuse, space.merge([x, x]), x)

    def test_groups_that_leave_nothing(self, space, x, refused):
        assert "option 1 of 'a' is empty, and there is no y" in refused(space.select, "a", [x, ()])

    def test_spaces_without_input_or_output(self, space, refused):
        assert "has no input" in refused(space.check)
        x = space.input(3)
        assert "has no output" in refused(space.check)
        assert "has no output" in refused(space.resolve, ())
        space.output(L.Dense(1), x)
        space.check()

    def test_what_leads_nowhere(self, space, x, refused):
        space.output(L.Dense(1), x)
        space.choose("a", DENSE, x)

        assert "'a' leads to no output" in refused(space.check)

    def test_functions_and_graphs_do_not_mix(self, refused):
        space = SearchSpace(decisions={"a": [1, 2]}, build=max)

        assert "built by a function" in refused(space.input, 3)
        assert "either both decisions= and build=, or neither" in refused(SearchSpace, build=max)
        assert "must be a dict of options by name" in refused(SearchSpace, decisions=["a"], build=max)
        assert "must be a function of a dict" in refused(SearchSpace, decisions={"a": [1]}, build=3)
