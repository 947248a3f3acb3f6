"""``python -m dhmpi.nas.show``: networks in words and as pictures."""

import re
import subprocess
import sys
import textwrap

import pytest

from dhmpi.nas import SearchSpace, drawing, show
from dhmpi.nas import layers as L


def dense_skip(n_layers):
    space = SearchSpace()
    past = [x := space.input((10,))]
    for i in range(n_layers):
        y = space.choose(f"layer{i}", [L.Identity(), L.Dense(16, "relu"), L.Dense(32, "tanh")], x)
        x = space.skips(f"skip{i}", y, past[-3:], activation="relu")
        past.append(x)
    space.output(L.Dense(1), x)
    return space


def branched():
    """Return a space of three inputs, with a shared layer."""
    space = SearchSpace()
    a, b, c = (space.input(n, name) for n, name in ((4, "cell"), (6, "drug1"), (6, "drug2")))
    x = space.choose("drug", [L.Dense(3), L.Dense(4)], b)
    y = space.reuse(x, c)
    merged = space.merge([space.apply(L.Dense(5), a), x, y], "concat")
    space.output(L.Dense(1), space.skips("skip", space.apply(L.Dense(5), merged), [a, b, c]))
    return space


@pytest.fixture
def problem(tmp_path):
    """Return the name of a file with a problem of nine decisions."""
    path = tmp_path / f"showable_{tmp_path.name}.py"
    path.write_text(
        textwrap.dedent("""
            from dhmpi.nas import NaProblem, SearchSpace, layers as L

            def make(input_shape=(10,), output_shape=(1,)):
                space = SearchSpace()
                past = [x := space.input(input_shape)]
                for i in range(3):
                    y = space.choose(f"layer{i}", [L.Identity()] + [L.Dense(n, "relu") for n in range(1, 13)], x)
                    x = space.skips(f"skip{i}", y, past[-3:])
                    past.append(x)
                space.output(L.Dense(1), x)
                return space

            Problem = NaProblem()
            Problem.search_space(make, input_shape=(10,), output_shape=(1,))
        """)
    )
    return str(path)


def test_lines_beside_the_layers_show_the_skip_connections():
    space = dense_skip(4)

    shown = show.text(space, [1, 1, 2, 1, 0, 1, 0, 1, 1, 2, 1, 0, 0], build=False)

    assert shown.split("\n\n")[1].splitlines() == [
        "         layer         operation",
        "●─╮      input_0       Input(10)",
        "● │      layer0_dense  Dense(16, relu)",
        "●─┼─╮    skip0_add     add(relu)",
        "● │ │    layer1_dense  Dense(32, tanh)",
        "●─┴─│─╮  skip1_add     add(relu)",
        "●   │ │  layer2_dense  Dense(16, relu)",
        "●───┼─╯  skip2_add     add(relu)",
        "●   │    layer3_dense  Dense(32, tanh)",
        "●───╯    skip3_add     add(relu)",
        "●        output_0      Dense(1)",
    ]


def test_lines_cross_end_and_go_on_where_they_should():
    space = SearchSpace()
    a = space.input(4, "a")
    b = space.apply(L.Dense(4), a, "b")
    c = space.apply(L.Dense(4), b, "c")
    d = space.merge([c, a], name="d")
    e = space.merge([d, a, b], name="e")
    f = space.apply(L.Dense(4), e, "f")
    space.output(L.Dense(1), space.merge([f, d], name="g"), name="h")

    drawn = [line[:8].rstrip() for line in show.text(space, (), build=False).splitlines()[1:]]

    assert drawn == [
        "●─╮",  # a
        "●─│─╮",  # b, below the line from a
        "● │ │",  # c
        "●─┼─│─╮",  # d takes a
        "●─┴─╯ │",  # e takes a and b
        "●     │",  # f
        "●─────╯",  # g takes d
        "●",  # h
    ]


def test_what_does_not_follow_from_the_line_above_stands_apart():
    lines = show.text(branched(), [1, 0, 0, 1], build=False).split("\n\n", 1)[1].splitlines()

    assert [line.split()[0] if "●" in line else "apart" for line in lines[1:7]] == [
        "●─╮", "apart", "●─│─╮", "apart", "●─│─│─╮", "apart",
    ]  # fmt: skip
    assert any(line.rstrip().endswith("Dense(4), shared") for line in lines)


def test_decisions_are_listed_with_the_options_chosen():
    lines = show.text(dense_skip(2), [2, 0, 1, 1, 0], build=False).splitlines()

    assert lines[:6] == [
        "decision  option",
        "layer0    2       Dense(32, tanh)",
        "skip0_0   0       no",
        "layer1    1       Dense(16, relu)",
        "skip1_0   1       from input_0",
        "skip1_1   0       no",
    ]


def test_a_space_is_shown_by_its_decisions(problem, capsys):
    assert show.main([problem]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"9 decisions, {13**3 * 2**6:,} architectures"
    assert lines[3] == (
        "layer0    13       Identity, Dense(1, relu), Dense(2, relu), Dense(3, relu), Dense(4, relu), Dense(5, relu), "
        "Dense(6, relu), Dense(7, relu), ... (5 more)"
    )
    assert lines[5] == "layer1    13       as layer0"
    assert lines[6] == "skip1_0   2        no, from input_0"


@pytest.mark.parametrize("words", ["[3, 1, 0, 0, 1, 0, 0, 0, 1]", "3,1,0,0,1,0,0,0,1", " 3 1 0 0 1.0 0 0 0 0.5 "])
def test_an_architecture_may_be_written_in_several_ways(problem, capsys, words):
    assert show.main([problem, words, "--graph-only"]) == 0

    out = capsys.readouterr().out
    assert "layer0    3       Dense(3, relu)" in out
    assert "skip2_2   1       from skip1" in out


def test_a_random_architecture_depends_on_its_seed(problem, capsys):
    shown = []
    for seed in ("1", "1", "2"):
        assert show.main([problem, "--random", seed, "--graph-only"]) == 0
        shown.append(capsys.readouterr().out)

    assert shown[0] == shown[1] != shown[2]


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_a_network_is_drawn_into_a_file(problem, capsys, tmp_path, suffix):
    file = tmp_path / f"network{suffix}"

    assert show.main([problem, "[3, 1, 0, 0, 1, 0, 0, 0, 1]", "--graph-only", "-o", str(file)]) == 0

    begin = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}[suffix]
    assert file.read_bytes().startswith(begin)


def written(figure):
    return [text.get_text() for text in figure.axes[0].texts]


def test_a_picture_names_layers_shapes_and_parameters():
    network = dense_skip(2).resolve([2, 1, 0, 0, 0])
    measures = [((10,), 0), ((32,), 352), ((32,), 352), ((1,), 33)]

    assert written(drawing.figure(network)) == [
        "2 layers", "Input(10)", "input_0", "Dense(32, tanh)", "layer0", "add, relu", "", "Dense(1)", "output_0",
    ]  # fmt: skip
    assert written(drawing.figure(network, measures, "best")) == [
        "best", "Input(10)", "input_0", "Dense(32, tanh)", "layer0  ·  32  ·  352 parameters",
        "add, relu", "352 parameters", "Dense(1)", "output_0  ·  1  ·  33 parameters",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "network",
    [dense_skip(10).resolve([n - 1 for n in dense_skip(10).n_options]), branched().resolve([1, 1, 1, 1])],
    ids=["37 decisions", "three inputs"],
)
def test_boxes_keep_apart_and_lines_keep_off_boxes(network):
    boxes = drawing.arrange(network)
    rails = drawing.lay_rails(network, boxes)

    for i, box in enumerate(boxes):
        for other in boxes[:i]:
            assert box.y >= other.bottom or other.y >= box.bottom or box.left >= other.right or other.left >= box.right
    for i, step in enumerate(network.steps):
        assert all(boxes[source].bottom < boxes[i].y for source in step.sources)
    lines = [drawing.route(rail, target, rails, boxes) for rail in rails for target in rail.targets]
    assert lines
    for line in lines:
        for (x0, y0), (x1, y1) in zip(line[1:-1], line[2:-1]):
            for box in boxes:
                beside = max(x0, x1) <= box.left or min(x0, x1) >= box.right
                assert beside or max(y0, y1) <= box.y or min(y0, y1) >= box.bottom


def test_lines_that_run_side_by_side_keep_apart():
    network = dense_skip(10).resolve([n - 1 for n in dense_skip(10).n_options])
    boxes = drawing.arrange(network)

    rails = drawing.lay_rails(network, boxes)

    assert len(rails) == 10
    for i, rail in enumerate(rails):
        for other in rails[:i]:
            apart = boxes[rail.source].y > max(boxes[k].bottom for k in other.targets) or boxes[other.source].y > max(
                boxes[k].bottom for k in rail.targets
            )
            assert apart or abs(rail.x - other.x) > 0.1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["1,2"], "has 9 entries, one per decision, got 2"),
        (["3,1,0,0,1,0,0,0,2"], "'skip2_2' takes the number of an option"),
        (["3,x"], "an architecture is a list of numbers such as '[0, 3, 1]', got '3,x'"),
        (["--random", "-1"], "--random must be >= 0, got -1"),
        (["--random", "a"], "invalid int value"),
        (["3,1", "--random", "1"], "not allowed with argument"),
        (["-o", "a.png"], "give ARCH_SEQ or --random SEED"),
        (["--random", "1", "-o", "a.jpg"], "--output must end in .png, .svg, .pdf, got 'a.jpg'"),
        (["--random", "1", "--graph-only", "-o", "/no/such/a.png"], "/no/such/a.png cannot be written"),
    ],
)
def test_bad_input_ends_with_one_sentence(problem, capsys, arguments, words):
    assert show.main([problem, *arguments]) == 2

    said = capsys.readouterr()
    assert words in said.err
    assert said.err.count("\n") == 1
    assert said.out == ""


def test_a_problem_without_architectures_is_refused(capsys):
    assert show.main(["dhmpi.benchmark.hps.polynome2.Problem", "0,1"]) == 2

    assert "has no architectures: it is a HpProblem, and no NaProblem" in capsys.readouterr().err


def test_spaces_that_a_function_builds_show_their_decisions():
    space = SearchSpace(decisions={"units": [2, 4]}, build=lambda values: None)

    assert show.text(space, [1], build=False).splitlines() == ["decision  option", "units     1       4"]


def test_help_imports_nothing_heavy():
    script = (
        "import runpy, sys\nsys.argv = ['x', '--help']\n"
        "try:\n    runpy.run_module('dhmpi.nas.show', run_name='__main__')\nexcept SystemExit:\n    pass\n"
        "print('HEAVY', sorted({'numpy', 'tensorflow', 'keras', 'ConfigSpace', 'matplotlib'} & set(sys.modules)))\n"
    )

    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)

    assert "HEAVY []" in said.stdout


@pytest.mark.tensorflow
class TestWithTensorFlow:
    def test_shapes_and_parameters_are_shown(self):
        space = dense_skip(2)

        lines = show.text(space, [2, 1, 0, 0, 0]).split("\n\n", 1)[1].splitlines()

        assert [re.split(r"  +", line.strip()) for line in lines] == [
            ["layer", "operation", "shape", "parameters"],
            ["●─╮", "input_0", "Input(10)", "10"],
            ["● │", "layer0_dense", "Dense(32, tanh)", "32", "352"],
            ["●─╯", "skip0_add", "add(relu)", "32", "352"],
            ["●", "output_0", "Dense(1)", "1", "33"],
            [""],
            ["737 parameters"],
        ]

    def test_layers_of_a_function_are_listed(self):
        import keras

        def build(values):
            inputs = keras.Input((3,), name="in")
            return keras.Model(inputs, keras.layers.Dense(values["units"], name="out")(inputs))

        shown = show.text(SearchSpace(decisions={"units": [2, 4]}, build=build), [1])

        assert [line.split() for line in shown.splitlines()[3:]] == [
            ["layer", "kind", "shape", "parameters"],
            ["in", "InputLayer", "3", "0"],
            ["out", "Dense", "4", "16"],
            [],
            ["16", "parameters"],
        ]

    def test_a_network_that_cannot_be_built_is_said_in_one_sentence(self, tmp_path, capsys):
        path = tmp_path / "unbuildable.py"
        path.write_text(
            "from dhmpi.nas import NaProblem, SearchSpace, layers as L\n"
            "space = SearchSpace()\n"
            "space.output(L.Dense(1), space.choose('a', [L.Keras('Nonsense')], space.input(3)))\n"
            "Problem = NaProblem()\nProblem.search_space(space)\n"
        )

        assert show.main([str(path), "0"]) == 2

        assert "asks for the layer 'Nonsense'" in capsys.readouterr().err
