"""Staging under real launches: evaluations use the copies, which are used again, and removed."""

import re

import pytest
from test_ambs import either, rows

STUDY = """
import os, sys
import dhmpi
from helper import where
from dhmpi.problem import HpProblem
Problem = HpProblem()
Problem.add_hyperparameter((0.0, 1.0), "x")
def run(config):
    data = dhmpi.staged(ORIGINAL)
    return {"objective": float(data.read_text()), "study": __file__, "helper": where, "data": str(data)}
"""


@pytest.fixture
def code(tmp_path):
    """A directory with a study, a module beside it, and data."""
    top = tmp_path / "code"
    top.mkdir()
    (tmp_path / "data.txt").write_text("7\n")
    (top / "study.py").write_text(f"ORIGINAL = {str(tmp_path / 'data.txt')!r}\n{STUDY}")
    (top / "helper.py").write_text("where = __file__\n")
    (top / "large.bin").write_bytes(bytes(3_000_000))
    return top


def test_evaluations_use_copies_that_are_kept_and_removed(run, code, tmp_path):
    disk = tmp_path / "disk"
    stage = ("--stage", f"{code}:{tmp_path / 'data.txt'}", "--stage-to", disk)
    study = ("--problem", "code/study.py", "--run", "code/study.py", "--max-evals", 4)

    first = run(3, "random", *study, *stage, "--keep-staged", "--log-dir", tmp_path / "first")

    assert first.code == 0, first.err
    (copy,) = [path.parent for path in disk.glob("*/*/code")]
    for row in rows(tmp_path / "first"):
        assert row["objective"] == "7.0"
        assert {row["m:study"], row["m:helper"]} == {f"{copy}/code/study.py", f"{copy}/code/helper.py"}
        assert row["m:data"] == f"{copy}/data.txt"
    assert "dhmpi: staged 4 files, 3.0 MB, on 1 node in" in first.out

    again = run(2, "random", *study, *stage, "--log-dir", tmp_path / "again")

    assert again.code == 0, again.err
    assert "on 0 nodes" in again.out
    assert "; 1 had it" in again.out
    assert rows(tmp_path / "again")[0]["m:study"] == f"{copy}/code/study.py"
    assert list(disk.iterdir()) == []


def test_groups_of_ranks_use_copies_too(run, code, tmp_path):
    study = (code / "study.py").read_text().replace("run(config)", "run(config, comm)")
    (code / "study.py").write_text(study)
    stage = ("--stage", f"{code}:{tmp_path / 'data.txt'}", "--stage-to", tmp_path / "disk")
    words = ("--problem", "code/study.py", "--run", "code/study.py", "--num-ranks-per-eval", 2)

    ended = run(3, "random", *words, *stage, "--max-evals", 4, "--log-dir", tmp_path / "run")

    assert ended.code == 0, ended.err
    copy = re.escape(str(tmp_path / "disk"))
    for row in rows(tmp_path / "run"):
        assert (row["objective"], row["m:ranks"]) == ("7.0", "1-2")
        assert re.fullmatch(rf"{copy}/[^/]*/[^/]*/code/study\.py", row["m:study"])
        assert row["m:helper"] == row["m:study"].replace("study.py", "helper.py")
        assert row["m:data"] == row["m:study"].replace("code/study.py", "data.txt")
    assert list((tmp_path / "disk").iterdir()) == []


@either
def test_what_cannot_be_staged_ends_the_launch_before_it_begins(run, code, tmp_path):
    words = ("--problem", "code/study.py", "--run", "code/study.py", "--stage", f"{code}:nothing")

    ended = run(2, "random", *words, "--log-dir", tmp_path / "run")

    assert ended.code == 2
    message = f"dhmpi.random: error: --stage cannot read {tmp_path}/nothing: No such file or directory"
    assert [line for line in ended.err.splitlines() if "error:" in line] == [message]
    assert not (tmp_path / "run").exists()
