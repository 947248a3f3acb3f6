"""``python -m dhmpi.watch``: what a frame shows, at every size, and that the live view ends with the run."""

import io
import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from journal_writer import T0, Writer, asked, ended, finished, header, joined, placed, stopping
from rich.console import Console

from dhmpi import watch
from dhmpi.runs import Run, opened
from dhmpi.timeline import Curve

STORY = [
    joined(2, 1), joined(3, 2), asked(0, 1), placed(0, 2, 1), placed(1, 3, 2), finished(0, 2, 1, 5, 0.25),
    placed(2, 2, 5), finished(1, 3, 2, 6, None, reason="ValueError: [bold]no[/bold]\nTraceback ..."),
    placed(3, 3, 6), finished(2, 2, 5, 9, 0.75), placed(4, 2, 9),
]  # fmt: skip


@pytest.fixture
def going(tmp_path):
    """A run that began twenty seconds ago and goes on: two evaluations run, two are done, one has failed."""
    shift = time.time() - 20 - T0
    events = [{**event, **{n: event[n] + shift for n in ("t", "start", "end") if n in event}} for event in STORY]
    head = header(T0 + shift, max_evals=8)
    return Writer(tmp_path / "ambs_1").begin(*events, head={**head, "deadline": T0 + shift + 620}).hold()


def drawn(run, width=100, height=32, once=False):
    """Return the lines of a frame."""
    console = Console(file=io.StringIO(), width=width, height=height, color_system=None)
    console.print(watch.Frame(run, once))
    return console.file.getvalue().splitlines()


def test_a_frame_says_how_a_run_stands(going):
    said = "\n".join(drawn(opened(going.path)))

    for words in (
        "ambs_1  running", "p.Problem, ambs, 2 evaluators", "3 of 8 evaluations", "best 0.75 (trial 2)  x=2",
        "time limit in 0:10:00", "2  running", "2  done", "1  failed", "2  evaluating", "their time so far",
        "trial 1 failed on node1: ValueError: [bold]no[/bold]",
    ):  # fmt: skip
        assert words in said, words
    assert "Traceback" not in said


def test_a_frame_says_what_users_have_done(going):
    order = {"e": "steered", "t": time.time(), "by": "me@here"}
    going.add(
        {**order, "order": "1", "action": "max-evals", "max_evals": 12}, {**order, "order": "2", "action": "pause"}
    )  # fmt: skip

    said = "\n".join(drawn(opened(going.path), width=160))

    for words in ("ambs_1  paused", "3 of 12 evaluations", "paused by me@here at "):
        assert words in said, words


def test_what_is_left_follows_from_the_last_evaluations(going):
    frame = watch.Frame(opened(going.path))

    assert frame.rate() == pytest.approx(2 / 15, rel=0.02)  # two since the first ended, fifteen seconds ago
    assert frame.seconds_left() == pytest.approx(5 / (2 / 15), rel=0.02)


def test_a_run_that_has_ended_says_why_and_leaves_nothing_to_wait_for(going):
    t = time.time() - T0
    going.add(stopping(t, "the target of 0.7 is reached"), ended(t)).release()
    run = opened(going.path)

    said = "\n".join(drawn(run))

    assert "ambs_1  ended" in said
    assert "ran for 0:00:20" in said
    assert "the target of 0.7 is reached" in said
    assert "done in about" not in said


def test_a_resumed_run_ran_in_all_its_launches_and_its_rate_is_over_that_time(tmp_path):
    writer = Writer(tmp_path / "ambs_1").begin(*STORY, ended(10))
    writer.begin(joined(2, 101), placed(5, 2, 101), finished(5, 2, 101, 109, 1.0), ended(110), head=header(T0 + 100))
    run = opened(tmp_path / "ambs_1")

    said = "\n".join(drawn(run))

    assert "ran for 0:00:20 in 2 launches" in said
    assert "utilisation, over time in the last launch" in said
    assert watch.Frame(run).rate() == 4 / 20


@pytest.mark.parametrize("width", [20, 60, 80, 100, 250])
@pytest.mark.parametrize("height", [6, 12, 24, 40, 70])
def test_a_frame_fits_any_terminal(going, width, height):
    lines = drawn(opened(going.path), width, height)

    assert len(lines) <= max(height, 10)
    assert max(map(len, lines)) <= width


def test_the_smallest_terminals_still_show_the_head(going):
    lines = drawn(opened(going.path), 40, 10)

    assert "ambs_1" in lines[0]
    assert any("3 of 8" in line for line in lines)


@pytest.mark.parametrize(
    "events", [[], STORY[:1], STORY[:5], [*STORY[:2], placed(0, 2, 1), finished(0, 2, 1, 2, -1.0)]]
)
def test_a_run_of_which_little_is_known_has_a_frame(tmp_path, events):
    Writer(tmp_path).begin(*events).hold()

    assert drawn(opened(tmp_path))


def test_a_directory_whose_journal_is_empty_has_a_frame(tmp_path):
    (tmp_path / "journal").mkdir()

    assert "began not yet" in "\n".join(drawn(opened(tmp_path)))


def test_the_curve_of_the_best_goes_from_the_lower_left_to_the_upper_right(going):
    run = Run(going.path)
    run.refresh()
    frame = watch.Frame(run)

    lines = [line.plain for line in frame._best_curve(40, 4)]

    assert lines[0].startswith("0.75")
    assert lines[-1].startswith("0.25")
    assert lines[0].rstrip()[-1] not in " ⠀"
    assert all(len(line) == 40 for line in lines)


@given(st.lists(st.one_of(st.none(), st.floats(-0.5, 1.5)), min_size=1, max_size=60), st.integers(1, 6))
def test_lines_of_dots_have_one_dot_at_least_for_each_value(values, height):
    rows = watch.braille(values, height)

    assert len(rows) == height
    assert {len(row) for row in rows} == {-(-len(values) // 2)}
    for x, value in enumerate(values):
        bits = 0
        for row in rows:
            cell = ord(row[x // 2])
            bits |= (cell - watch.BRAILLE) & sum(dots[x % 2] for dots in watch.DOTS) if cell >= watch.BRAILLE else 0
        assert bool(bits) is (value is not None)


def test_bars_are_as_high_as_their_values():
    assert watch.bars([0.0, 0.25, 0.5, 1.0], 2) == ["   █", " ▄██"]


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 50), st.floats(0, 10)), max_size=8), st.integers(1, 30))
def test_shares_over_time_keep_the_sum(intervals, width):
    curve = Curve(100.0)
    for begin, length in intervals:
        curve.add(100 + begin, 100 + begin + length)

    found = watch.shares(curve, 160.0, 10, width)

    assert len(found) == width
    assert sum(found) * 60 / width * 10 == pytest.approx(sum(length for _, length in intervals), abs=1e-6)


def test_one_frame_is_printed_and_that_is_all(going, capsys):
    code = watch.main([str(going.path), "--once"])

    out = capsys.readouterr().out
    assert code == 0
    assert "best 0.75" in out
    assert max(map(len, out.splitlines())) <= watch.WIDTH


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["nowhere"], "nowhere holds no run: there is no such directory"),
        (["RUN", "--interval", "0"], "--interval must be >= 0.1, got 0"),
        (["RUN", "--interval", "nan"], "--interval must be >= 0.1, got nan"),
        ([], "required: RUN"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_sentence(going, capsys, words, sentence):
    code = watch.main([str(going.path) if word == "RUN" else word for word in words])

    err = capsys.readouterr().err
    assert code == 2
    assert sentence in err
    assert err.count("\n") == 1


def test_the_live_view_follows_the_run_to_its_end(going):
    """In a real terminal of a known size, which changes its size meanwhile."""
    import fcntl
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 90, 0, 0))
    root = Path(__file__).resolve().parents[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "dhmpi.watch", str(going.path), "--interval", "0.1"],
        stdin=theirs, stdout=theirs, stderr=theirs, cwd=root, env={**os.environ, "TERM": "xterm"},
    )  # fmt: skip
    os.close(theirs)
    seen = bytearray()

    def until(words, seconds=30):
        deadline = time.monotonic() + seconds
        while words.encode() not in seen:
            assert time.monotonic() < deadline, f"{words!r} was not seen in {bytes(seen[-3000:])!r}"
            if select.select([ours], [], [], 0.1)[0]:
                try:
                    seen.extend(os.read(ours, 1 << 16))
                except OSError:  # the other side is closed
                    break

    try:
        until("3 of 8 evaluations")
        t = time.time() - T0
        going.add(finished(3, 3, t - 5, t, 0.875))
        until("best 0.875 (trial 3)")
        fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 20, 70, 0, 0))
        going.add(stopping(t), ended(t)).release()
        assert process.wait(30) == 0
        until("\x1b[?1049l")  # the screen that was there before is back
    finally:
        process.kill()
        process.wait()
        os.close(ours)
