"""Ranks die, freeze and come back, and the run goes on: under Open MPI with ULFM, which survives deaths."""

import os
import re
import signal

import pytest
from test_ambs import HERE, SLOW, n_finished, present, rows, wait_for

from dhmpi import journal

FATAL = ("--problem", HERE / "fatal.py", "--run", HERE / "fatal.py")


@pytest.fixture(params=["openmpi"])
def mpi(request):
    """Overrides the fixture of the same name: the other MPI cannot survive the death of a rank."""
    return request.param


def kill_ranks(launch, directory, ranks, after=5):
    """Kill ranks, one after another, each when some more evaluations have finished."""
    for rank in ranks:
        enough = n_finished(directory) + after
        wait_for(lambda enough=enough: n_finished(directory) >= enough)
        os.kill(launch.rank(rank), signal.SIGKILL)


def check_complete(directory, n):
    """Every trial finished, once, and no configuration twice."""
    table = rows(directory)
    assert sorted(int(row["trial"]) for row in table) == list(range(n))
    assert len({(row["x"], row["n"]) for row in table}) == n
    history = journal.replay(directory / "journal")
    assert history.ended
    assert not history.unfinished
    return table


MORE = [pytest.param(ranks, marks=pytest.mark.large) for ranks in ((0, 1), (1, 0), (0, 3))]


@pytest.mark.parametrize(
    "ranks",
    [(0,), (1,), (4,), (2, 0, 1), (0, 1, 2, 3, 4), *MORE],
    ids=lambda ranks: "-".join(map(str, ranks)),
)
def test_any_rank_may_be_killed(start, tmp_path, ranks):
    directory = tmp_path / "run"
    launch = start(6, "ambs", *SLOW, "--max-evals", 60, "--seed", 1, "--log-dir", directory)
    kill_ranks(launch, directory, ranks)

    ended = launch.wait()

    assert ended.code == 0, ended.err
    table = check_complete(directory, 60)
    assert {row["status"] for row in table} == {"done"}
    assert f"{len(ranks)} rank{'s' * (len(ranks) > 1)} died" in ended.out
    heirs = [int(rank) for rank in re.findall(r"Rank (\d+) on \S+ is master now", ended.out)]
    assert heirs == sorted(heirs)
    assert bool(heirs) == (0 in ranks)


def test_several_ranks_killed_at_once(start, tmp_path):
    directory = tmp_path / "run"
    launch = start(6, "ambs", *SLOW, "--max-evals", 60, "--log-dir", directory)
    wait_for(lambda: n_finished(directory) >= 5)
    victims = [launch.rank(rank) for rank in (0, 1, 3)]

    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    ended = launch.wait()

    assert ended.code == 0, ended.err
    check_complete(directory, 60)


def test_a_death_during_a_takeover(start, tmp_path):
    directory = tmp_path / "run"
    launch = start(6, "ambs", *SLOW, "--max-evals", 60, "--log-dir", directory)
    wait_for(lambda: n_finished(directory) >= 5)
    heir = launch.rank(1)

    os.kill(launch.rank(0), signal.SIGKILL)
    wait_for(lambda: (directory / "journal" / "0.1.jsonl").exists())
    os.kill(heir, signal.SIGKILL)
    ended = launch.wait()

    assert ended.code == 0, ended.err
    check_complete(directory, 60)


@pytest.mark.parametrize("frozen", [(0,), (2,), (0, 1)], ids=["master", "evaluator", "master and heir"])
def test_a_frozen_rank_is_given_up_and_may_come_back(start, tmp_path, frozen):
    directory = tmp_path / "run"
    launch = start(
        5, "ambs", *SLOW, "--max-evals", 150, "--log-dir", directory, "--silence-minutes", 0.04,
    )  # fmt: skip
    wait_for(lambda: n_finished(directory) >= 5 and set(frozen) - {0, 1} <= present(directory))
    pids = [launch.rank(rank) for rank in frozen]

    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    if 0 in frozen:
        wait_for(lambda: (directory / "journal" / f"0.{len(frozen)}.jsonl").exists())
    else:
        wait_for(lambda: '"e":"silent"' in (directory / "journal" / "0.0.jsonl").read_text())
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    ended = launch.wait()

    assert ended.code == 0, ended.err
    check_complete(directory, 150)
    if 0 in frozen:
        assert f"Rank {len(frozen)} on" in ended.out
    else:
        assert "was silent" in ended.out


def test_a_trial_that_kills_its_ranks_is_given_up(run, tmp_path):
    directory = tmp_path / "run"

    ended = run(6, "ambs", *FATAL, "--max-evals", 12, "--log-dir", directory)

    assert ended.code == 0, ended.err
    table = check_complete(directory, 12)
    lost = [row for row in table if row["status"] == "lost"]
    assert [row["trial"] for row in lost] == ["0"]
    outcome, _ = journal.replay(directory / "journal").finished[0]
    assert "2 ranks died while they ran it" in outcome.reason
    assert "1 given up" in ended.out


def test_the_first_master_evaluates_when_nobody_else_is_left(run, tmp_path):
    directory = tmp_path / "run"

    ended = run(4, "ambs", *FATAL, "--max-evals", 8, "--log-dir", directory)

    assert ended.code == 0, ended.err
    table = check_complete(directory, 8)
    assert {row["rank"] for row in table if row["status"] == "done"} <= {"0", "2", "3"}
    assert table[-1]["rank"] == "0"
    assert "2 ranks died" in ended.out


def test_chaos_in_every_form_completes(run, tmp_path):
    directory = tmp_path / "run"

    ended = run(
        7, "ambs", *SLOW, "--max-evals", 150, "--seed", 5, "--log-dir", directory, "--eval-timeout-minutes", 0.02,
        "--chaos", "kill=0.05,hang=0.03,segv=0.05,slow=0.1x3,rank-kill=0.04,max-rank-kills=3",
        environment={"SLOW_SECONDS": "0.05"}, timeout=300,  # each fault costs the start of another process
    )  # fmt: skip

    assert ended.code == 0, ended.err
    table = check_complete(directory, 150)
    assert {"done", "crashed", "timeout"} <= {row["status"] for row in table}
    assert "3 ranks died" in ended.out


def test_a_rank_may_die_before_the_search_begins(start, tmp_path):
    directory = tmp_path / "run"
    launch = start(5, "ambs", *SLOW, "--max-evals", 30, "--log-dir", directory)
    wait_for(lambda: (directory / "lock").exists())

    os.kill(launch.rank(0), signal.SIGKILL)
    ended = launch.wait()

    assert ended.code == 0, ended.err
    check_complete(directory, 30)
