"""The keeper: what it passes on, and that nothing outlives it."""

import os
import secrets
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from evaluating import Bench, search_path, until

from dhmpi import platform
from dhmpi.evaluate.process import Exited, Finished, Keeper, Reported
from dhmpi.platform import scrub
from dhmpi.trials import Status, Trial


@pytest.fixture
def keeper():
    run_id = secrets.token_hex(8)
    made = Keeper.spawn()
    made.name_run(run_id)
    yield made
    made.close()
    assert until(lambda: not platform.leftovers(run_id)), "processes are left"


def start_resident(keeper, name="search", log=None, **environment):
    keeper.start_child(name, "resident", {"PYTHONPATH": search_path(), **environment}, Path.cwd(), log)


def receive(keeper, name="search", limit=20.0):
    """Return the next events of a child."""
    end = time.monotonic() + limit
    while time.monotonic() < end:
        if events := keeper.poll(name):
            return events
        waiting = select.poll()
        waiting.register(keeper.fileno(), select.POLLIN)
        waiting.poll(100)
    raise TimeoutError(f"nothing from {name} within {limit} s")


# -- what it does


def test_messages_pass_in_both_directions(keeper):
    start_resident(keeper)

    for text in ("short", "é" * 2_000_000, ""):
        keeper.send("search", {"ask": "echo", "text": text})

        assert receive(keeper) == [text]


def test_children_live_beside_each_other(keeper):
    start_resident(keeper, "a")
    start_resident(keeper, "b")
    for name in "ab":
        keeper.send(name, {"ask": "echo", "text": name})

    assert receive(keeper, "a") == ["a"]
    assert receive(keeper, "b") == ["b"]


def test_a_child_gets_environment_directory_and_a_session_of_its_own(keeper, tmp_path):
    keeper.start_child("search", "resident", {"PYTHONPATH": search_path(), "FRUIT": "pear"}, tmp_path, None)
    keeper.send("search", {"ask": "describe"})

    (described,) = receive(keeper)

    assert described["environment"]["FRUIT"] == "pear"
    assert described["cwd"] == str(tmp_path)
    assert described["session"] == described["pid"]
    assert described["sigterm"] is False


def test_the_end_of_a_child_is_told_with_its_last_output(keeper, tmp_path):
    start_resident(keeper, log=tmp_path / "log")
    keeper.send("search", {"ask": "exit", "code": 3})

    (exited,) = receive(keeper)

    assert isinstance(exited, Exited)
    assert (exited.code, exited.why, exited.evaluating) == (3, "", False)
    assert exited.reason == "the process exited with code 3\nlast output:\nresident is here\ngoing"
    assert (tmp_path / "log").read_text() == "resident is here\ngoing\n"


def test_a_child_is_ended_when_asked(keeper):
    start_resident(keeper)
    keeper.send("search", {"ask": "linger"})
    receive(keeper)

    keeper.end_child("search")
    (exited,) = receive(keeper)

    assert (exited.why, exited.code) == ("ended", -signal.SIGKILL)


def test_a_module_that_does_not_exist_is_an_exit(keeper):
    keeper.start_child("search", "no_such_module", {}, Path.cwd(), None)

    (exited,) = receive(keeper)

    assert exited.code == 1
    assert "No module named no_such_module" in exited.reason


def test_a_directory_that_does_not_exist_is_an_exit(keeper, tmp_path):
    keeper.start_child("search", "resident", {}, tmp_path / "gone", None)

    (exited,) = receive(keeper)

    assert exited.code == 127
    assert "cannot be started" in exited.reason


def test_messages_to_a_child_that_has_ended_are_dropped(keeper):
    start_resident(keeper)
    keeper.send("search", {"ask": "exit", "code": 0})
    receive(keeper)

    keeper.send("search", {"ask": "echo", "text": "lost"})
    start_resident(keeper)
    keeper.send("search", {"ask": "echo", "text": "found"})

    assert receive(keeper) == ["found"]


def test_a_rank_that_does_not_listen_does_not_fill_the_keeper(keeper):
    start_resident(keeper)
    keeper.send("search", {"ask": "flood", "n": 1000, "size": 100_000})
    arrived, largest = [], 0.0

    while len(arrived) < 1000:
        largest = max(largest, platform.rss_mb(keeper.pid))
        arrived += receive(keeper)

    assert [message["i"] for message in arrived] == list(range(1000))
    assert largest < 40


def test_the_keeper_is_small_and_named_after_its_run(keeper):
    keeper.name_run("0123456789abcdef")
    start_resident(keeper)
    keeper.send("search", {"ask": "echo", "text": ""})
    receive(keeper)

    assert platform.process_name(keeper.pid) == "dhmpi-01234567"
    assert platform.rss_mb(keeper.pid) < 16


def test_signals_meant_for_the_rank_do_not_end_the_keeper(keeper):
    start_resident(keeper)
    keeper.send("search", {"ask": "echo", "text": "before"})
    receive(keeper)

    for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGTERM, signal.SIGHUP):
        os.kill(keeper.pid, number)
    keeper.send("search", {"ask": "echo", "text": "after"})

    assert receive(keeper) == ["after"]


def test_closing_twice_is_closing(keeper):
    start_resident(keeper)

    keeper.close()
    keeper.close()

    assert keeper.poll("search") == []
    assert keeper.fileno() is None
    assert platform.start_time(keeper.pid) is None


def test_a_frozen_keeper_does_not_hold_up_the_end(keeper, monkeypatch):
    monkeypatch.setattr("dhmpi.evaluate.process.CLOSING", 0.2)
    start_resident(keeper)
    keeper.send("search", {"ask": "echo", "text": ""})
    receive(keeper)
    os.kill(keeper.pid, signal.SIGSTOP)

    began = time.monotonic()
    keeper.close()

    assert time.monotonic() - began < 5


def test_launchers_leave_no_trace():
    before = {
        "PMI_RANK": "0",
        "PMI2_RANK": "0",
        "PMIX_RANK": "0",
        "OMPI_COMM_WORLD_SIZE": "4",
        "PRTE_MCA_x": "1",
        "HYDRA_PROXY": "1",
        "HYDI_CONTROL_FD": "1",
        "MPI_LOCALRANKID": "0",
        "MPIR_CVAR_X": "0",
        "PALS_RANKID": "0",
        "ALPS_APP_PE": "0",
        "SLURM_PROCID": "0",
        "SLURM_STEP_ID": "0",
        "SLURM_STEPID": "0",
        "SLURM_JOB_ID": "77",
        "SLURM_NTASKS": "4",
        "HOME": "/home",
        "OMP_NUM_THREADS": "2",
    }

    assert scrub(before) == {"SLURM_JOB_ID": "77", "SLURM_NTASKS": "4", "HOME": "/home", "OMP_NUM_THREADS": "2"}


# -- what is left behind: nothing


@pytest.fixture
def owner(tmp_path):
    """Start a process that owns a keeper with busy children and a daemon; return run id, keeper, what it printed."""
    started = []

    def start(*arguments):
        run_id = secrets.token_hex(8)
        process = subprocess.Popen(
            [sys.executable, "-m", "keeper_owner", run_id, str(tmp_path), *arguments],
            env={**os.environ, "PYTHONPATH": search_path()},
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append((process, run_id))
        keeper, holder = map(int, process.stdout.readline().split())
        # The keeper, its two children and the daemon, whose variables are to be seen only when its exec is over.
        assert until(lambda: len(platform.leftovers(run_id)) == 4)
        return process, run_id, keeper, holder

    yield start
    for process, run_id in started:
        process.kill()
        process.wait()
        process.stdout.close()
        platform.kill(platform.leftovers(run_id))


def test_nothing_outlives_a_killed_rank(owner):
    process, run_id, *_ = owner()

    process.send_signal(signal.SIGKILL)

    assert until(lambda: not platform.leftovers(run_id))


def test_nothing_outlives_a_killed_rank_whose_pipes_are_held_by_a_fork(owner):
    process, run_id, _, holder = owner("fork")

    process.send_signal(signal.SIGKILL)
    gone = until(lambda: not platform.leftovers(run_id))

    platform.kill([holder])
    assert gone


def test_nothing_but_daemons_outlives_a_rank_and_its_keeper_killed_together(owner):
    process, run_id, keeper, _ = owner()

    process.send_signal(signal.SIGSTOP)
    os.kill(keeper, signal.SIGKILL)
    process.send_signal(signal.SIGKILL)

    # Daemons can be found by the run's id; that is how a resumed run ends them.
    assert until(lambda: len(platform.leftovers(run_id)) <= 1)
    platform.kill(platform.leftovers(run_id))
    assert until(lambda: not platform.leftovers(run_id))


@pytest.fixture
def busy(tmp_path):
    """An evaluator in the middle of an evaluation that has started a daemon; and the daemon."""
    bench = Bench("evaluate_functions.daemonize", tmp_path)
    bench.load()
    bench.evaluator.start(Trial(0, 0, {"hang": True}))
    daemon = int(bench.wait(Reported).value)
    yield bench, daemon
    bench.evaluator.close()
    bench.keeper.close()
    assert until(lambda: not platform.leftovers(bench.run_id))


def test_nothing_outlives_a_killed_keeper(busy):
    bench, daemon = busy
    child = bench.child()

    os.kill(bench.keeper.pid, signal.SIGKILL)
    finished = bench.wait(Finished)

    assert finished.status is Status.CRASHED
    assert "keeper" in finished.reason
    assert until(lambda: platform.start_time(child) is None)
    assert until(lambda: platform.start_time(daemon) is None)


def test_nothing_outlives_a_killed_child(busy):
    bench, daemon = busy

    os.kill(bench.child(), signal.SIGKILL)

    assert bench.wait(Finished).status is Status.CRASHED
    assert until(lambda: platform.start_time(daemon) is None)


def test_nothing_outlives_a_cancelled_evaluation(busy):
    bench, daemon = busy

    bench.evaluator.cancel()

    assert bench.wait(Finished).status is Status.CANCELLED
    assert until(lambda: platform.start_time(daemon) is None)


def test_nothing_outlives_the_keeper_that_is_closed(busy):
    bench, daemon = busy

    bench.keeper.close()

    assert until(lambda: not platform.leftovers(bench.run_id))
    assert platform.start_time(daemon) is None


def test_ending_an_evaluation_spares_the_other_child(busy):
    bench, _ = busy
    start_resident(bench.keeper)
    bench.keeper.send("search", {"ask": "echo", "text": "before"})
    receive(bench.keeper)

    bench.evaluator.cancel()
    bench.wait(Finished)
    bench.keeper.send("search", {"ask": "echo", "text": "after"})

    assert receive(bench.keeper) == ["after"]
