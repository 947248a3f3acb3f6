"""Evaluations of several ranks: whoever fails, hangs or dies in one of them, the others go on."""

import os
import re
import shutil
import signal
from collections import Counter

import pytest
from test_ambs import HERE, n_finished, rows, wait_for

from dhmpi import journal, replay

GROUPED = ("--problem", HERE / "grouped.py", "--run", HERE / "grouped.py", "--seed", 1)
MIXED = ("--problem", f"{HERE / 'grouped.py'}:MixedProblem", "--run", HERE / "grouped.py", "--seed", 1)

only_openmpi = pytest.mark.parametrize("mpi", ["openmpi"], indirect=True)  # the other cannot survive deaths
only_mpich = pytest.mark.parametrize("mpi", ["mpich"], indirect=True)


def check_complete(directory, n):
    """Every trial finished, once, on ranks that had nothing else to do."""
    table = rows(directory)
    assert sorted(int(row["trial"]) for row in table) == list(range(n))
    history = journal.replay(directory / "journal")
    assert history.ended
    assert not history.unfinished
    spans = {}
    for outcome, trial in history.finished.values():
        for rank in trial.ranks:
            spans.setdefault(rank, []).append((outcome.start, outcome.end))
    for times in spans.values():
        times.sort()
        assert all(end <= begin + 1e-3 for (_, end), (begin, _) in zip(times, times[1:]))
    assert replay.main([str(directory)]) == 0
    return {int(row["trial"]): row for row in table}


def test_a_group_survives_members_that_raise_or_hang(run, tmp_path):
    directory = tmp_path / "run"

    ended = run(
        5, "random", *GROUPED, "--max-evals", 12, "--num-ranks-per-eval", 2, "--log-dir", directory,
        "--eval-timeout-minutes", 0.025, environment={"GROUPED": "raise@1,unequal@2,hang@4"},
    )  # fmt: skip

    assert ended.code == 0, ended.err
    table = check_complete(directory, 12)
    assert Counter(row["status"] for row in table.values()) == {"done": 9, "failed": 2, "timeout": 1}
    assert table[4]["status"] == "timeout"
    assert {row["m:ranks"] for row in table.values()} == {"1-2", "3-4"}
    assert {row["m:size"] for row in table.values()} == {"2", ""}
    assert all(float(row["objective"]) <= float(row["x"]) for row in table.values() if row["objective"])
    finished = journal.replay(directory / "journal").finished
    assert finished[1][0].reason.startswith("the function raised ValueError: no luck\non rank ")
    assert "no luck" in finished[2][0].reason or "another reason" in finished[2][0].reason
    (task,) = directory.glob("task0_*")
    assert "trial 0 on rank 0 of 2" in (task / "task0.out").read_text()
    assert "trial 0 on rank 1 of 2" in (task / "task0.1.out").read_text()


@pytest.mark.parametrize("stubborn", [{}, pytest.param({"STUBBORN": "1"}, marks=pytest.mark.large)])
def test_members_that_never_come_are_not_waited_for_by_the_rest_of_their_groups(run, tmp_path, stubborn):
    directory = tmp_path / "run"

    ended = run(
        5, "random", *GROUPED, "--max-evals", 12, "--num-ranks-per-eval", 2, "--log-dir", directory,
        "--silence-minutes", 0.05, environment={"NEVER_COMES": "2,4"} | stubborn,
    )  # fmt: skip

    assert ended.err.count("its import cannot be ended otherwise") == 2 * len(stubborn)
    if not stubborn:
        assert ended.code == 0, ended.err
    assert "anks 2,4 have not come: others work without them until they do" in ended.out
    table = check_complete(directory, 12)
    assert {row["m:ranks"] for row in table.values()} == {"1,3"}


def test_configurations_say_how_many_ranks_they_want(run, tmp_path):
    directory = tmp_path / "run"

    ended = run(6, "random", *MIXED, "--max-evals", 25, "--evaluator", "group", "--log-dir", directory)

    assert ended.code == 0, ended.err
    table = check_complete(directory, 25)
    assert all(row["m:size"] == row["num_ranks"] for row in table.values())
    assert {row["num_ranks"] for row in table.values()} == {"1", "2", "4"}


def test_who_uses_too_much_memory_fails_the_trial_and_frees_it(run, tmp_path):
    directory = tmp_path / "run"

    ended = run(
        5, "random", *GROUPED, "--max-evals", 12, "--num-ranks-per-eval", 2, "--log-dir", directory,
        "--max-rss", 400, environment={"GROUPED": "eat@1"},
    )  # fmt: skip

    assert ended.code == 0, ended.err
    table = check_complete(directory, 12)
    assert Counter(row["status"] for row in table.values()) == {"done": 11, "memory": 1}
    assert table[1]["status"] == "memory"
    reason = journal.replay(directory / "journal").finished[1][0].reason
    assert re.fullmatch(
        r"the evaluation used \d+ MB, more than the limit of 400 MB\non rank \d of the ranks .*", reason
    )
    assert "died" not in ended.out


@pytest.mark.large
@only_openmpi
def test_who_does_not_free_the_memory_ends(run, tmp_path):
    directory = tmp_path / "run"

    ended = run(
        7, "random", *GROUPED, "--max-evals", 24, "--num-ranks-per-eval", 2, "--log-dir", directory,
        "--max-rss", 400, "--grace-minutes", 0.02, environment={"GROUPED": "keep@1", "GROUPED_SECONDS": "0.5"},
    )  # fmt: skip

    assert ended.code == 0, ended.err
    table = check_complete(directory, 24)
    assert Counter(row["status"] for row in table.values()) == {"done": 23, "memory": 1}
    assert "does not free the memory of trial 1" in (directory / "dhmpi.log").read_text()
    assert "1 rank died" in ended.out


@only_openmpi
def test_members_and_leaders_may_die(run, tmp_path):
    directory = tmp_path / "run"

    ended = run(
        8, "random", *GROUPED, "--max-evals", 20, "--num-ranks-per-eval", 2, "--log-dir", directory,
        environment={"GROUPED": "die@1,leader dies@12", "GROUPED_SECONDS": "0.2"},
    )  # fmt: skip

    assert ended.code == 0, ended.err
    table = check_complete(directory, 20)
    assert {row["status"] for row in table.values()} == {"done"}
    assert table[1]["attempt"] >= "1"
    assert table[12]["attempt"] >= "1"
    # Open MPI 5.0.11 now and then keeps the members of a group apart that comes together as a rank dies: these end too.
    if "cannot be ended otherwise" not in ended.err:
        assert "2 ranks died" in ended.out
        assert sum(int(row["attempt"]) for row in table.values()) == 2  # the other groups never noticed


@pytest.mark.large
@only_openmpi
def test_members_that_mpi_keeps_apart_end_and_their_trial_goes_elsewhere(run, tmp_path):
    directory = tmp_path / "run"

    ended = run(
        8, "random", *GROUPED, "--max-evals", 60, "--num-ranks-per-eval", 2, "--log-dir", directory,
        "--grace-minutes", 0.02, environment={"APART": "2", "GROUPED_SECONDS": "1"},
    )  # fmt: skip

    assert ended.code == 0, ended.err
    table = check_complete(directory, 60)
    assert {row["status"] for row in table.values()} == {"done"}
    assert sum(int(row["attempt"]) for row in table.values()) == 1
    assert "2 ranks died" in ended.out
    assert "gets no communicator for trial" in (directory / "dhmpi.log").read_text()


@only_openmpi
def test_the_master_may_die_while_groups_evaluate(start, tmp_path, monkeypatch):
    directory = tmp_path / "run"
    monkeypatch.chdir(tmp_path)
    shutil.copy(HERE / "grouped.py", tmp_path)  # the heir finds it, though it evaluates in another directory
    launch = start(
        6, "random", "--problem", "grouped.py", "--run", "grouped.py", "--seed", 1, "--max-evals", 30,
        "--num-ranks-per-eval", 2, "--log-dir", directory, environment={"GROUPED_SECONDS": "0.2"},
    )  # fmt: skip
    wait_for(lambda: n_finished(directory) >= 4)

    os.kill(launch.rank(0), signal.SIGKILL)
    ended = launch.wait()

    assert ended.code == 0, ended.err
    check_complete(directory, 30)
    assert "Rank 1 on" in ended.out


@only_openmpi
def test_where_too_few_ranks_are_left_for_a_group_the_run_is_resumed(start, tmp_path):
    directory = tmp_path / "run"
    launch = start(
        4, "--restarts", 1, "random", *GROUPED, "--max-evals", 30, "--num-ranks-per-eval", 2, "--log-dir", directory,
        environment={"GROUPED_SECONDS": "0.1"},
    )  # fmt: skip
    wait_for(lambda: n_finished(directory) >= 4)

    for pid in [launch.rank(rank) for rank in (2, 3)]:
        os.kill(pid, signal.SIGKILL)
    ended = launch.wait()

    assert ended.code == 0, ended.err
    assert "only 1 rank is left, and an evaluation needs 2" in ended.out
    assert "the job has died (exit code 75)" in ended.out
    check_complete(directory, 30)


@pytest.mark.large
@only_openmpi
def test_a_member_that_cannot_be_freed_ends_and_counts_as_lost(run, tmp_path):
    directory = tmp_path / "run"

    ended = run(
        7, "random", *GROUPED, "--max-evals", 24, "--num-ranks-per-eval", 2, "--log-dir", directory,
        "--eval-timeout-minutes", 0.02, "--grace-minutes", 0.02,
        environment={"GROUPED": "ignore@1", "GROUPED_SECONDS": "0.5"},
    )  # fmt: skip

    assert ended.code == 0, ended.err
    table = check_complete(directory, 24)
    assert table[1]["status"] == "timeout"
    assert "could not be freed" in journal.replay(directory / "journal").finished[1][0].reason
    assert "1 rank died" in ended.out


@pytest.mark.large
@only_mpich
def test_where_deaths_are_not_survived_the_run_is_resumed_after_such_a_timeout(run, tmp_path):
    directory = tmp_path / "run"
    words = (
        "random", *GROUPED, "--max-evals", 12, "--num-ranks-per-eval", 2, "--log-dir", directory,
        "--eval-timeout-minutes", 0.02, "--grace-minutes", 0.02,
    )  # fmt: skip
    environment = {"GROUPED": "ignore@1", "GROUPED_SECONDS": "1"}

    first = run(5, *words, environment=environment)
    second = run(5, *words, "--resume", environment=environment)

    assert first.code != 0
    assert "cannot be ended otherwise" in first.err
    assert second.code == 0, second.err
    assert {int(row["trial"]): row["status"] for row in rows(directory)}[1] == "timeout"
    assert len(rows(directory)) == 12


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((*GROUPED, "--num-ranks-per-eval", 3), "no evaluator of 3 ranks"),
        ((*MIXED, "--run", HERE / "slow.py"), "has the hyperparameter num_ranks"),
        (GROUPED, "needs a communicator"),
        ((*GROUPED, "--evaluator", "group", "--max-rss", 5), "MB, more than the limit of 5 MB before its first"),
    ],
    ids=["too few ranks", "no groups for num_ranks", "no groups for comm", "too little memory"],
)
@only_openmpi
def test_what_cannot_work_is_refused_at_the_start(run, tmp_path, words, sentence):
    ended = run(0, "random", *words, "--max-evals", 4, "--log-dir", tmp_path / "run")

    assert ended.code == 2
    assert sentence in ended.err
    assert not (tmp_path / "run").exists()


def test_every_operation_of_the_communicator_works(run, tmp_path):
    directory = tmp_path / "run"
    words = ("--problem", HERE / "grouped.py", "--run", HERE / "operations.py", "--num-ranks-per-eval", 3)

    ended = run(4, "random", *words, "--max-evals", 3, "--log-dir", directory)

    assert ended.code == 0, ended.err
    assert [(row["status"], row["m:ranks"]) for row in rows(directory)] == [("done", "1-3")] * 3
