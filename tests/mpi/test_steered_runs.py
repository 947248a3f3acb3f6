"""Runs that are steered while they go on: on real ranks, through heirs and --resume."""

import contextlib
import io
import json
import os
import signal

import pytest
from test_ambs import SLOW, n_finished, rows, wait_for

from dhmpi import journal, replay, steer


def order(directory, *words, code=0):
    """Steer a run; return what is said."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        ended = steer.main([str(directory), *map(str, words), "--wait", "60"])
    assert ended == code, said.getvalue()
    return said.getvalue()


def pause(directory):
    """Pause a run; return how many evaluations have finished when nothing runs any more."""
    assert "may finish" in order(directory, "pause")
    wait_for(lambda: not any(journal.replay(directory / "journal").holders.values()))
    return n_finished(directory)


def check_replay(directory):
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        assert replay.main([str(directory)]) == 0, said.getvalue()


def points(directory):
    """Return the configurations of users' points that have finished, by key."""
    finished = journal.replay(directory / "journal").finished.values()
    return {trial.key: trial.config for _, trial in finished if trial.key < 0}


def test_a_run_is_paused_given_points_and_another_length(start, tmp_path):
    directory = tmp_path / "run"
    launch = start(3, "ambs", *SLOW, "--max-evals", 5000, "--seed", 1, "--log-dir", directory)
    wait_for(lambda: n_finished(directory) >= 3)

    before = pause(directory)
    assert "is no number in" in order(directory, "add", "x=2", "n=3", code=1)
    assert "1 point will be evaluated next" in order(directory, "add", "x=0.125", "n=7")
    said = order(directory, "change", "--max-evals", before + 6, "--minutes-left", 1.5)
    assert said.count("done: ") == 2
    assert n_finished(directory) == before
    order(directory, "resume")
    ended = launch.wait()

    assert ended.code == 0, ended.err
    assert f"all {before + 6} evaluations are finished" in ended.out
    assert len(rows(directory)) == before + 6
    assert points(directory) == {-1: {"x": 0.125, "n": 7}}
    check_replay(directory)
    assert "is not going on" in order(directory, "stop", code=2)


@pytest.mark.large
def test_a_stop_drains_and_what_was_changed_holds_after_resume(start, run, tmp_path, mpi):
    if mpi == "mpich":
        pytest.skip("nothing here depends on the MPI")
    directory = tmp_path / "run"
    words = ("random", *SLOW, "--max-evals", 5000, "--seed", 1, "--log-dir", directory)
    launch = start(3, *words)
    wait_for(lambda: n_finished(directory) >= 3)
    n = pause(directory) + 6
    order(directory, "add", "x=0.125", "n=7")
    order(directory, "change", "--max-evals", n)

    assert "the run ends" in order(directory, "stop")
    ended = launch.wait()
    resumed = run(3, *words, "--resume")

    assert ended.code == resumed.code == 0, ended.err + resumed.err
    assert "dhmpi.steer asked for an end" in ended.out
    assert f"all {n} evaluations are finished" in resumed.out
    assert len(rows(directory)) == n
    assert points(directory) == {-1: {"x": 0.125, "n": 7}}
    check_replay(directory)


def test_an_heir_goes_on_with_what_was_ordered(start, tmp_path, mpi):
    if mpi == "mpich":
        pytest.skip("the death of a rank is survived by the other MPI")
    directory = tmp_path / "run"
    launch = start(5, "ambs", *SLOW, "--max-evals", 5000, "--seed", 1, "--log-dir", directory)
    wait_for(lambda: n_finished(directory) >= 3)
    n = pause(directory) + 6
    order(directory, "add", "x=0.125", "n=7")
    order(directory, "change", "--max-evals", n, "--minutes-left", 1.5)

    os.kill(launch.rank(0), signal.SIGKILL)
    wait_for(lambda: (directory / "journal" / "0.1.jsonl").exists())
    assert "paused already" in order(directory, "pause", code=1)
    order(directory, "add", "x=0.25", "n=7")
    assert n_finished(directory) == n - 6
    order(directory, "resume")
    ended = launch.wait()

    assert ended.code == 0, ended.err
    assert f"all {n} evaluations are finished" in ended.out
    assert points(directory) == {-1: {"x": 0.125, "n": 7}, -2: {"x": 0.25, "n": 7}}
    header = json.loads((directory / "journal" / "0.1.jsonl").read_text().splitlines()[0])
    assert header["deadline"] == pytest.approx(journal.replay(directory / "journal").deadline)
    assert len(rows(directory)) == n
    check_replay(directory)
