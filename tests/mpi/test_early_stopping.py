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
    table = rows(directory)
    assert [row["status"] for row in table] == ["done"] * 40
    steps = {int(row["trial"]): int(row["m:steps"]) for row in table}
    events = [json.loads(line) for line in (directory / "journal" / "0.0.jsonl").read_text().splitlines()]
    told = {event["trial"] for event in events if event["e"] == "stopped early"}
    short = {trial for trial, n in steps.items() if n < N_STEPS}
    assert 5 <= len(short) <= 35
    assert short <= told
    assert min(steps.values()) >= 5
    best = max(table, key=lambda row: float(row["objective"]))
    assert int(best["m:steps"]) == N_STEPS
