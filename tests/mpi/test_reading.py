"""``dhmpi.ls``, ``dhmpi.watch`` and ``dhmpi.analytics`` on a real run, while it goes on and afterwards."""

import json
import re
import time
from pathlib import Path

import pytest

from dhmpi import ls, watch
from dhmpi.analytics.__main__ import main as analyse

HERE = Path(__file__).parent
SLOW = ("--problem", HERE / "slow.py", "--run", HERE / "slow.py")


@pytest.mark.parametrize("mpi", ["openmpi"], indirect=True)
def test_a_run_is_seen_while_it_goes_on_and_measured_afterwards(start, tmp_path, capsys):
    directory = tmp_path / "runs" / "w" / "slow_1"

    def said(tool, *words):
        assert tool([str(word) for word in words]) == 0
        return json.loads(capsys.readouterr().out)

    launch = start(4, "ambs", *SLOW, "--max-evals", 30, "--log-dir", directory, environment={"SLOW_SECONDS": "0.3"})
    deadline = time.monotonic() + 60
    while not (directory / "journal").is_dir() or not list((directory / "journal").glob("*.jsonl")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    while len(said(ls.main, "jobs", directory, "--state", "running", "--json")) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    (run,) = said(ls.main, "runs", tmp_path / "runs", "--json")
    workers = said(ls.main, "workers", directory, "--json")
    assert watch.main([str(directory), "--once"]) == 0
    frame = capsys.readouterr().out
    ended = launch.wait()

    assert ended.code == 0
    assert (run["state"], run["search"], run["of"], run["evaluators"]) == ("running", "ambs", 30, 2)
    assert {worker["role"] for worker in workers} == {"master", "searcher", "evaluator"}
    assert re.search(r"slow_1 +running", frame)
    assert "of 30 evaluations" in frame

    (facts,) = said(analyse, "summary", directory, "--json")
    usage = said(analyse, "utilization", directory, "--json")
    counts = said(ls.main, "jobs", directory, "--by-states", "--json")
    assert facts["state"] == "ended"
    assert counts == {"done": 30}
    assert sum(usage["seconds"].values()) == pytest.approx(2 * usage["length"])
    assert usage["seconds"]["import"] > 0
    table = list((directory / "results.csv").read_text().splitlines())[1:]
    elapsed = sum(float(line.split(",")[8]) for line in table)
    assert usage["seconds"]["evaluating"] == pytest.approx(elapsed, rel=0.02)
