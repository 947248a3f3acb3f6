"""Evolution and random search on real ranks: they live with the master, and all other ranks evaluate."""

import os
import re
import signal
from functools import partial

import pytest
from test_ambs import CHEAP, HERE, POLYNOME2, SLOW, either, has_finished, n_finished, rows, wait_for

from dhmpi import journal

SCREENED = ("--problem", HERE / "screened.py", "--run", HERE / "screened.py")


@either
@pytest.mark.parametrize(("program", "n"), [("regevo", 0), ("regevo", 2), ("regevo", 5), ("random", 3)])
def test_all_ranks_but_the_master_evaluate(run, tmp_path, program, n):
    directory = tmp_path / "run"

    ended = run(
        n, program, *POLYNOME2, "--evaluator", "inline", "--max-evals", 400, "--seed", 1, "--num-nodes", 1,
        "--log-dir", directory,
    )  # fmt: skip

    assert ended.code == 0, ended.err
    table = rows(directory)
    assert sorted(int(row["trial"]) for row in table) == list(range(400))
    assert {int(row["rank"]) for row in table} == set(range(1, n) if n > 1 else [0])


@either
def test_a_killed_run_resumes_with_its_population(start, tmp_path):
    directory = tmp_path / "run"
    evolution = ("--population-size", 10, "--sample-size", 3, "--unique")
    words = ("regevo", *SLOW, *evolution, "--max-evals", 80, "--log-dir", directory)
    environment = {"SLOW_SECONDS": "0.03"}

    launch = start(3, *words, environment=environment)
    wait_for(partial(has_finished, directory, 40))
    launch.kill()
    before = n_finished(directory)
    ended = start(3, *words, "--resume", environment=environment).wait()

    assert ended.code == 0, ended.err
    assert before >= 40
    configs = [trial.config for _, trial in journal.replay(directory / "journal").finished.values()]
    assert len({(config["x"], config["n"]) for config in configs}) == 80
    # A child shares a value with its parent; random configurations never share x.
    assert len({config["x"] for config in configs[before + 10 :]}) < 70 - before


@pytest.mark.parametrize("mpi", ["openmpi"], indirect=True)  # the other cannot survive the death of a rank
def test_the_search_lives_on_when_the_master_dies(start, tmp_path):
    directory = tmp_path / "run"
    launch = start(4, "regevo", *SLOW, "--population-size", 10, "--unique", "--max-evals", 80, "--log-dir", directory)
    wait_for(partial(has_finished, directory, 25))

    os.kill(launch.rank(0), signal.SIGKILL)
    ended = launch.wait()

    assert ended.code == 0, ended.err
    table = rows(directory)
    assert sorted(int(row["trial"]) for row in table) == list(range(80))
    assert len({(row["x"], row["n"]) for row in table}) == 80


@either
@pytest.mark.parametrize("program", ["regevo", pytest.param("random", marks=pytest.mark.large)])
def test_what_was_screened_is_promoted_also_after_a_kill(start, tmp_path, program):
    directory = tmp_path / "run"
    words = (program, *SCREENED, "--screen-epochs", 1, "--promote", 0.25, "--max-evals", 250, "--log-dir", directory)

    launch = start(3, *words)
    wait_for(partial(has_finished, directory, 60))
    launch.kill()
    ended = start(3, *words, "--resume").wait()

    assert ended.code == 0, ended.err
    finished = journal.replay(directory / "journal").finished.values()
    screened = {trial.key: (trial.config, outcome) for outcome, trial in finished if "num_epochs" in trial.config}
    promoted = [(trial.config, outcome) for outcome, trial in finished if "num_epochs" not in trial.config]
    assert len(screened) + len(promoted) == 250
    assert 30 < len(promoted) < 70
    assert len({config["parent"] for config, _ in promoted}) == len(promoted)
    for config, outcome in promoted:
        before, screening = screened[config["parent"]]
        assert outcome.metrics["parent"] == screening.trial
        assert outcome.objective == screening.objective + 100
        assert {**config, "num_epochs": 1} == {**before, "parent": config["parent"]}


@either
def test_a_replay_proposes_the_same(run, tmp_path):
    directory = tmp_path / "run"
    screening = ("--screen-epochs", 1, "--promote", 0.5)
    ended = run(4, "regevo", *SCREENED, *screening, "--population-size", 10, "--max-evals", 120, "--log-dir", directory)

    again = run(0, "replay", directory)

    assert ended.code == 0, ended.err
    assert again.code == 0, again.out + again.err


@either
@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((*CHEAP[:4], "--num-nodes", 2), "--num-nodes must be 1, got 2"),
        (POLYNOME2[:2], "--run is missing|name another function"),  # the search, or the function if it is faster
        ((*POLYNOME2, "--sample-size", 200), "--sample-size must be at most --population-size, 100, got 200"),
    ],
)
def test_what_makes_no_sense_is_one_sentence(run, tmp_path, words, sentence):
    ended = run(2, "regevo", *words)

    assert ended.code == 2
    assert re.search(sentence, ended.err)
    assert "Traceback" not in ended.err


@either
def test_a_screened_run_goes_on_only_as_one(run, tmp_path):
    words = ("regevo", *SCREENED, "--log-dir", tmp_path / "run")
    assert run(2, *words, "--max-evals", 20, "--screen-epochs", 1).code == 0

    ended = run(2, *words, "--max-evals", 30, "--resume")

    assert ended.code == 2
    assert "has begun with --screen-epochs" in ended.err
