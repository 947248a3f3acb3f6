"""Warm start on real ranks: what is said and kept, what a resumed run and a replay make of it, what is refused."""

import csv
import json
import subprocess
import sys

POLYNOME2 = ("--problem", "dhmpi.benchmark.hps.polynome2.Problem", "--run", "dhmpi.benchmark.hps.polynome2.run")
FAST = (*POLYNOME2, "--evaluator", "inline", "--surrogate-model", "ET", "--seed", 1)


def test_a_run_begins_with_earlier_evaluations_and_goes_on_without_their_file(run, tmp_path):
    directory, file = tmp_path / "run", tmp_path / "earlier.csv"
    file.write_text("objective,e0,e1,other\n" + "".join(f"{-i * i},{i / 10},0.5,3\n" for i in range(100)))
    words = (*FAST, "--warm-start", file, "--log-dir", directory)

    first = run(4, "ambs", *words, "--max-evals", 8)
    file.unlink()
    second = run(3, "ambs", *words, "--max-evals", 12, "--resume")
    replayed = subprocess.run(
        [sys.executable, "-m", "dhmpi.replay", str(directory), "--only", "search"], capture_output=True, text=True,
        timeout=120,
    )  # fmt: skip

    assert (first.code, second.code) == (0, 0), first.err + second.err
    sentence = "arm start: 100 of 100 earlier evaluations could be used; none names e2, e3"
    assert sentence in first.out
    assert len((directory / "warm-start.jsonl").read_text().splitlines()) == 100
    with (directory / "results.csv").open(newline="") as stream:
        assert len(list(csv.DictReader(stream))) == 12
    assert replayed.returncode == 0, replayed.stdout


def test_a_bad_file_is_refused_before_anything_starts(run, tmp_path):
    file = tmp_path / "earlier.csv"
    file.write_text("a,b\n1,2\n")

    ended = run(4, "ambs", *FAST, "--warm-start", file, "--max-evals", 8, "--log-dir", tmp_path / "run")

    assert ended.code == 2
    (line,) = [line for line in ended.err.splitlines() if "error" in line and "dhmpi" in line]
    assert line == (
        f"dhmpi.ambs: error: --warm-start {file}: {file} is no results.csv: it has no column objective, but a, b"
    )
    assert not (tmp_path / "run").exists()


def test_evaluations_of_another_problem_are_refused(run, tmp_path):
    file = tmp_path / "earlier.jsonl"
    file.write_text(json.dumps({"config": {"lr": 1.0}, "objective": 2.0}) + "\n")

    ended = run(3, "regevo", *POLYNOME2, "--warm-start", file, "--max-evals", 8, "--log-dir", tmp_path / "run")

    assert ended.code == 2
    assert "none of its 1 evaluations is a configuration of e0" in ended.err
    assert not (tmp_path / "run").exists()


def test_it_cannot_be_added_to_a_run_that_began_without(run, tmp_path):
    file = tmp_path / "earlier.csv"
    file.write_text("objective,e0\n1,2\n")
    words = (*FAST, "--log-dir", tmp_path / "run")

    first = run(3, "ambs", *words, "--max-evals", 4)
    second = run(3, "ambs", *words, "--max-evals", 8, "--resume", "--warm-start", file)

    assert first.code == 0
    assert second.code == 2
    assert "has begun without it: give another --log-dir" in second.err
