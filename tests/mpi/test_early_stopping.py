"""Evaluations that are far behind others end early."""

import json

import pytest
from early import N_STEPS
from test_ambs import HERE, either, rows

EARLY = ("--problem", HERE / "early.py", "--run", HERE / "early.py", "--surrogate-model", "DUMMY", "--seed", 1)


@either
@pytest.mark.parametrize("stopper", ["median", "halving"])
def test_evaluations_that_are_behind_end_early(run, tmp_path, stopper):
    directory = tmp_path / "run"

    ended = run(
        4, "ambs", *EARLY, "--max-evals", 40, "--log-dir", directory, "--stopper", stopper, "--stopper-min-steps", 5
    )  # fmt: skip

    assert ended.code == 0, ended.err
    check_ended_early(directory, 40)


def test_all_ranks_of_a_group_that_is_behind_end_alike(run, tmp_path):
    directory = tmp_path / "run"

    ended = run(
        6, "ambs", *EARLY, "--max-evals", 30, "--log-dir", directory, "--stopper", "median", "--stopper-min-steps", 5,
        "--num-ranks-per-eval", 2,
    )  # fmt: skip

    assert ended.code == 0, ended.err
    table = check_ended_early(directory, 30)
    assert {row["m:alike"] for row in table} == {"True"}
    assert {row["m:ranks"] for row in table} == {"2-3", "4-5"}


def check_ended_early(directory, n):
    """Some have ended early, all of them told, and the best has not."""
    table = rows(directory)
    assert [row["status"] for row in table] == ["done"] * n
    steps = {int(row["trial"]): int(row["m:steps"]) for row in table}
    events = [json.loads(line) for line in (directory / "journal" / "0.0.jsonl").read_text().splitlines()]
    told = {event["trial"] for event in events if event["e"] == "stopped early"}
    short = {trial for trial, n_steps in steps.items() if n_steps < N_STEPS}
    assert 5 <= len(short) <= n - 5
    assert short <= told
    assert min(steps.values()) >= 5
    best = max(table, key=lambda row: float(row["objective"]))
    assert int(best["m:steps"]) == N_STEPS
    return table
