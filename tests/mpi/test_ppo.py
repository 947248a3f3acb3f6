"""Agents learn together, whatever their number, and whoever of them dies."""

import json
import os
import signal

import pytest
from test_ambs import HERE, either, n_finished, rows, wait_for

from dhmpi import journal

CHOOSING = ("--problem", HERE / "choosing.py", "--run", HERE / "choosing.py", "--network", "ppo_lstm_32", "--seed", 1)
EXACTLY = ("--on-duplicate", "re-evaluate", "--batch-quorum", 1)  # so that two runs can be compared
BATCH = 16


def updates(directory):
    return [event for event in journal.events(directory / "journal") if event["e"] == "update"]


def batches(directory, n):
    """Return the configurations of the first batches, sorted, since within a batch the order may differ."""
    configs = {}
    for event in journal.events(directory / "journal"):
        if event["e"] == "placed":
            configs.setdefault(event["key"], json.dumps(event["config"]))
    values = list(configs.values())
    return [sorted(values[i * BATCH : (i + 1) * BATCH]) for i in range(n)]


def complete(directory, n):
    table = rows(directory)
    assert sorted(int(row["trial"]) for row in table) == list(range(n))
    return table


@either
def test_any_number_of_agents_learns_the_same(run, tmp_path):
    seen = []
    for n_agents in (1, 2, 3):
        directory = tmp_path / f"run{n_agents}"
        ended = run(
            2 * n_agents + 3, "ppo", *CHOOSING, "--num-agents", n_agents, "--max-evals", 5 * BATCH,
            "--episodes-per-update", BATCH, *EXACTLY, "--log-dir", directory,
        )  # fmt: skip

        assert ended.code == 0, ended.err
        assert f"{n_agents} agent" in ended.out
        complete(directory, 5 * BATCH)
        seen.append((batches(directory, 5), [round(update["value_loss"], 9) for update in updates(directory)]))
    assert len(seen[0][1]) == 4  # the last batch ends the run
    assert seen[0] == seen[1] == seen[2]


@either
def test_what_is_known_counts_within_the_budget(run, tmp_path):
    directory = tmp_path / "run"

    ended = run(
        4, "ppo", *CHOOSING, "--max-evals", 300, "--episodes-per-update", 30, "--batch-quorum", 1, "--learning-rate",
        0.03, "--log-dir", directory, environment={"CHOOSING_SECONDS": "0.002"},
    )  # fmt: skip

    assert ended.code == 0, ended.err
    table = complete(directory, 300)
    reused = [row for row in table if row["status"] == "reused"]
    assert reused
    best = {}
    for row in table:
        best.setdefault(tuple(row[f"d{i}"] for i in range(8)), row["objective"])
    assert all(row["objective"] == best[tuple(row[f"d{i}"] for i in range(8))] for row in reused)
    learned = updates(directory)
    assert learned[-1]["reward_mean"] > learned[0]["reward_mean"] + 0.2
    evaluated = [float(row["elapsed_sec"]) for row in table if row["status"] == "done"]
    assert 0 < sum(update["evaluating_seconds"] for update in learned) < sum(evaluated) + 0.01
    assert 0 < sum(update["waiting_seconds"] for update in learned) < 2 * ended.seconds


@either
def test_too_few_ranks_are_refused_with_the_number_that_works(run, tmp_path):
    ended = run(6, "ppo", *CHOOSING, "--num-agents", 3, "--log-dir", tmp_path / "run")

    assert ended.code == 2
    assert ended.err.count("error:") == 1
    assert "start at least 7" in ended.err
    assert not (tmp_path / "run").exists()


@either
def test_a_killed_run_goes_on_with_its_policy(start, run, tmp_path):
    directory = tmp_path / "run"
    words = (5, "ppo", *CHOOSING, "--num-agents", 2, "--max-evals", 8 * BATCH, "--episodes-per-update", BATCH,
             *EXACTLY, "--log-dir")  # fmt: skip
    assert run(*words, tmp_path / "whole").code == 0
    launch = start(*words, directory)
    wait_for(lambda: n_finished(directory) >= 3 * BATCH + 5)
    launch.kill()

    ended = run(*words, directory, "--resume")

    assert ended.code == 0, ended.err
    complete(directory, 8 * BATCH)
    policy = [(update["update"], round(update["value_loss"], 9)) for update in updates(directory)]
    assert dict(policy) == {update["update"]: round(update["value_loss"], 9) for update in updates(tmp_path / "whole")}


class TestDeaths:
    @pytest.fixture(params=["openmpi"])
    def mpi(self, request):
        """Overrides the fixture of the same name: the other MPI cannot survive the death of a rank."""
        return request.param

    # Rank 0 is the master, 1 to 3 the agents, 4 to 6 evaluate.
    @pytest.mark.parametrize(
        "victims",
        [(2,), (1,), (1, 2, 3), (0, 1), *(pytest.param(v, marks=pytest.mark.large) for v in ((0,), (4,)))],
        ids=str,
    )
    def test_the_others_go_on(self, start, tmp_path, victims):
        directory = tmp_path / "run"
        launch = start(
            7, "ppo", *CHOOSING, "--num-agents", 3, "--max-evals", 8 * BATCH, "--episodes-per-update", BATCH,
            *EXACTLY, "--log-dir", directory,
        )  # fmt: skip
        for i, victim in enumerate(victims):
            wait_for(lambda i=i: n_finished(directory) >= (i + 1) * BATCH + 3)
            os.kill(launch.rank(victim), signal.SIGKILL)

        ended = launch.wait()

        assert ended.code == 0, ended.err
        complete(directory, 8 * BATCH)
        numbers = [update["update"] for update in updates(directory)]
        assert sorted(set(numbers)) == list(range(7))
