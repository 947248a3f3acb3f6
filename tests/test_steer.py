"""The command that steers: which orders it writes, what it says of the answers, how it ends."""

import json
import threading
import time

import pytest
from journal_writer import T0, Writer, joined

from dhmpi import steer
from dhmpi.errors import OptionError
from dhmpi.roles.inbox import Inbox
from dhmpi.steering import Action, parse


@pytest.fixture
def going(tmp_path):
    """The directory of a run that goes on, and whose master does not look."""
    return Writer(tmp_path / "run").begin(joined(2, 1)).hold().path


@pytest.fixture
def ordered(going):
    """Return a function that orders without waiting, and returns the orders."""

    def call(*words):
        assert steer.main([str(going), *words, "--no-wait"]) == 0
        return [parse(path.read_bytes()) for path in sorted((going / "inbox").glob("*.json"))]

    return call


@pytest.fixture
def master(going):
    """Answer orders as a master does: pauses are refused."""
    ended = threading.Event()

    def answer():
        inbox = Inbox(going)
        while not ended.wait(0.01):
            for letter in inbox.look(at_once=True):
                if letter.order.action is Action.PAUSE:
                    inbox.refuse(letter.file, "the run is paused already", letter.order.answer)
                else:
                    inbox.answer(letter.file, "the run goes on", letter.order.answer)

    thread = threading.Thread(target=answer)
    thread.start()
    yield going
    ended.set()
    thread.join()


def test_a_point_of_the_command_line_is_text(ordered):
    (order,) = ordered("add", "x=0.5", "name=a=b")

    assert (order.action, order.points, order.as_text) == (Action.ADD, ({"x": "0.5", "name": "a=b"},), True)
    assert "@" in order.by
    assert not order.answer


def test_points_of_a_table_leave_its_outcomes_behind(ordered, tmp_path):
    path = tmp_path / "results.csv"
    path.write_text("trial,status,objective,x,kind,m:accuracy\n0,done,1.5,0.25,a,0.9\n1,failed,,0.75,,\n")

    (order,) = ordered("add", "--file", str(path))

    assert order.points == ({"x": "0.25", "kind": "a"}, {"x": "0.75", "kind": ""})
    assert order.as_text


@pytest.mark.parametrize(
    ("content", "points"),
    [
        ({"x": 1}, ({"x": 1},)),
        ([{"x": 1}, {"x": 2.5}], ({"x": 1}, {"x": 2.5})),
        ({"trial": 3, "objective": 1.5, "config": {"x": 1}}, ({"x": 1},)),
        ([{"trial": 3, "configuration": {"x": 1}}], ({"x": 1},)),
        ({"trial": 3, "objective": 1.5, "m:a": 2, "x": 1}, ({"x": 1},)),
    ],
)
def test_points_of_json(ordered, tmp_path, content, points):
    path = tmp_path / "points.json"
    path.write_text(json.dumps(content))

    (order,) = ordered("add", "--file", str(path))

    assert (order.points, order.as_text) == (points, False)


def test_evaluations_and_end_are_two_orders(ordered):
    before = time.time()

    evaluations, end = ordered("change", "--max-evals", "7", "--minutes-left", "2")

    assert (evaluations.action, evaluations.max_evals) == (Action.MAX_EVALS, 7)
    assert end.action is Action.DEADLINE
    assert before + 120 <= end.deadline <= time.time() + 120


@pytest.mark.parametrize(
    ("words", "deadline"),
    [
        (("--time-limit-minutes", "10"), T0 + 600),
        (("--time-limit-minutes", "none"), None),
        (("--deadline", "1900000000.5"), 1900000000.5),
        (("--deadline", "2030-12-31T18:00+00:00"), 1924970400.0),
    ],
)
def test_an_end_may_be_said_in_several_ways(ordered, words, deadline):
    (order,) = ordered("change", *words)

    assert order.deadline == deadline


@pytest.mark.parametrize("word", ["pause", "resume", "stop"])
def test_words_that_are_orders(ordered, word):
    (order,) = ordered(word)

    assert order.action is Action(word)


def test_an_answer_is_printed_and_removed(master, capsys):
    assert steer.main([str(master), "resume"]) == 0

    assert capsys.readouterr().out == "resume: done: the run goes on\n"
    assert list((master / "inbox" / "answers").iterdir()) == []


def test_a_refusal_is_exit_code_1(master, capsys):
    assert steer.main([str(master), "pause"]) == 1

    assert capsys.readouterr().out == "pause: refused: the run is paused already\n"


def test_no_answer_in_time_is_exit_code_3(going, capsys):
    assert steer.main([str(going), "pause", "--wait", "0.2"]) == 3

    assert "no answer within 0.2 s" in capsys.readouterr().out
    assert len(list((going / "inbox").glob("*.json"))) == 1


def test_a_run_that_ends_before_it_answers_is_exit_code_2(going, capsys):
    release = threading.Timer(0.2, (going / "lock").unlink)
    release.start()

    code = steer.main([str(going), "pause"])

    release.join()
    assert code == 2
    assert "has ended before it has answered" in capsys.readouterr().err
    assert list((going / "inbox").glob("*.json")) == []


def test_a_run_that_does_not_go_on_is_exit_code_2(going, capsys):
    (going / "lock").unlink()

    assert steer.main([str(going), "pause"]) == 2

    err = capsys.readouterr().err
    assert err == f"dhmpi.steer: the run in {going} is not going on: --resume of its own command continues it\n"
    assert not (going / "inbox").exists()


@pytest.mark.parametrize("name", ["nowhere", "."])
def test_no_run_is_exit_code_2(tmp_path, capsys, name):
    assert steer.main([str(tmp_path / name), "pause"]) == 2

    assert "holds no run" in capsys.readouterr().err


def test_nothing_is_written_through_a_link(going, tmp_path, capsys):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (going / "inbox").symlink_to(elsewhere)

    assert steer.main([str(going), "pause"]) == 2

    assert "cannot write into" in capsys.readouterr().err
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("add",), "add needs a point"),
        (("add", "x"), "add takes name=value, got 'x'"),
        (("add", "x=1", "x=2"), "add has two values for 'x'"),
        (("change",), "change needs --max-evals, --time-limit-minutes"),
        (("change", "--max-evals", "0"), "--max-evals must be >= 1, got 0"),
        (("change", "--minutes-left", "-1"), "--minutes-left must be a number > 0, got -1"),
        (("change", "--minutes-left", "nan"), "--minutes-left must be a number > 0, got nan"),
        (("change", "--time-limit-minutes", "soon"), "--time-limit-minutes must be a number > 0"),
        (("change", "--deadline", "soon"), "--deadline must be a time such as"),
        (("change", "--minutes-left", "1", "--deadline", "2"), "not allowed with"),
        (("pause", "--wait", "-1"), "--wait must be >= 0, got -1"),
        (("jump",), "invalid choice: 'jump'"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_sentence(going, words, sentence, capsys):
    assert steer.main([str(going), *words]) == 2

    err = capsys.readouterr().err
    assert sentence in err
    assert err.count("\n") == 1
    assert not (going / "inbox").exists()


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("p.json", "{", "is no JSON"),
        ("p.json", "[3]", "entry 0 of"),
        ("p.json", "[]", "holds no points"),
        ("p.json", '{"trial": 3}', "entry 0 of"),
        ("p.csv", "x,n\n1\n", "row 1 of"),
        ("p.csv", "x,n\n1,2,3\n", "has more values than there are names"),
        ("p.csv", "x,n\n", "holds no points"),
        ("p.csv", 'x\n"1', "is no CSV"),
        ("p.txt", "x=1", "must end in .json or .csv"),
        ("missing.csv", None, "cannot read"),
    ],
)
def test_files_without_points_are_refused(tmp_path, name, text, sentence):
    path = tmp_path / name
    if text is not None:
        path.write_text(text)

    with pytest.raises(OptionError, match=sentence):
        steer.read_points(path)


def test_numbers_that_json_does_not_have_are_refused(going, tmp_path, capsys):
    path = tmp_path / "p.json"
    path.write_text('{"x": NaN}')

    assert steer.main([str(going), "add", "--file", str(path)]) == 2

    assert "numbers of points must be finite" in capsys.readouterr().err
