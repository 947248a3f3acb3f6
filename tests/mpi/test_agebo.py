"""Ageing evolution with Bayesian optimisation on real ranks: a searcher, which is interrupted and replayed."""

import re

import pytest
from test_ambs import CHEAP, HERE, POLYNOME2, either, rows

JOINT = ("--problem", HERE / "joint.py", "--run", HERE / "joint.py", "--evaluator", "inline")


@either
def test_architecture_and_hyperparameters_are_searched_also_after_a_break_and_the_same_in_a_replay(run, tmp_path):
    directory = tmp_path / "run"
    words = ("agebo", *JOINT, "--population-size", 10, "--sample-size", 4, "--seed", 1, "--log-dir", directory)

    begun = run(4, *words, "--max-evals", 30)
    ended = run(3, *words, "--max-evals", 60, "--resume")
    again = run(0, "replay", directory)

    assert begun.code == 0, begun.err
    assert ended.code == 0, ended.err
    assert again.code == 0, again.out + again.err
    table = rows(directory)
    assert sorted(int(row["trial"]) for row in table) == list(range(60))
    assert {"arch_seq", "learning_rate", "batch_size"} <= table[0].keys()
    objectives = [float(row["objective"]) for row in sorted(table, key=lambda row: int(row["trial"]))]
    assert sum(objectives[45:]) > sum(objectives[:15]) + 30  # two a trial; 80 to 104 in eight runs


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (POLYNOME2, "no architecture to evolve: use ambs"),
        (("--problem", "dhmpi.benchmark.nas.digits_dense.Problem"), "no hyperparameters .*: use regevo"),
        ((*CHEAP[:4], "--sample-size", 200), "--sample-size must be at most --population-size, 100, got 200"),
    ],
)
def test_what_makes_no_sense_is_one_sentence(run, tmp_path, words, sentence):
    ended = run(2, "agebo", *words, "--log-dir", tmp_path / "run")

    assert ended.code == 2
    assert re.search(sentence, ended.err)
    assert "Traceback" not in ended.err
