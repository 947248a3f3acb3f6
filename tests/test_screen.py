"""A search goes on although nobody reads what it says."""

import json
import subprocess
import sys


def test_a_search_survives_the_loss_of_its_output(tmp_path):
    words = "-m dhmpi.random --problem dhmpi.benchmark.hps.polynome2.Problem --run dhmpi.benchmark.hps.polynome2.run"
    process = subprocess.Popen(
        [sys.executable, *words.split(), "--max-evals", "40", "--log-dir", tmp_path / "run"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    process.stdout.close()
    try:
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()

    assert process.returncode == 0, errors
    assert errors == ""
    assert len((tmp_path / "run" / "results.csv").read_text().splitlines()) == 41
    last = (tmp_path / "run" / "journal" / "0.0.jsonl").read_text().splitlines()[-1]
    assert json.loads(last)["e"] == "ended"
