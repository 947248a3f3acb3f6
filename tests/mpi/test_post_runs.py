"""The best networks of a search are trained again on real ranks."""

import csv
import json
import os
import signal
from functools import partial

import pytest
from test_ambs import HERE, either, has_finished, rows, wait_for

CHOSEN = HERE / "chosen.py"
STANDIN = ("--run", f"{CHOSEN}:train_slowly")


@pytest.fixture
def search(run, tmp_path):
    """The run directory of a search through all sixteen architectures."""
    directory = tmp_path / "search"
    ended = run(
        0, "random", "--problem", CHOSEN, "--run", CHOSEN, "--evaluator", "inline", "--max-evals", 16,
        "--log-dir", directory,
    )  # fmt: skip
    assert ended.code == 0, ended.err
    return directory


def architectures(directory):
    return [tuple(json.loads(row["arch_seq"])) for row in sorted(rows(directory), key=lambda row: int(row["trial"]))]


def table(directory):
    with (directory / "post.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.tensorflow
@pytest.mark.parametrize("mpi", ["openmpi"], indirect=True)  # TensorFlow is installed there
def test_the_best_networks_are_trained_again_and_combined(run, search):
    ended = run(3, "nas.post", search, "--top", 2, "--repeat", 2, "--epochs", 2, "--ensemble", 3, timeout=200)

    assert ended.code == 0, ended.err
    directory = search / "post"
    assert "all 4 evaluations are finished" in ended.out
    assert architectures(directory)[0] == (3, 3)
    assert {row["status"] for row in rows(directory)} == {"done"}
    for row in rows(directory):
        (place,) = directory.glob(f"task{row['trial']}_*")
        names = {path.name for path in place.iterdir()}
        assert names >= {"model.keras", "predictions.npz", "test_predictions.npz", "history.json"}
    assert [row["n_trained"] for row in table(directory)] == ["2", "2"]
    assert float(table(directory)[0]["objective_mean"]) >= float(table(directory)[1]["objective_mean"])
    content = json.loads((directory / "ensemble.json").read_text())
    best = max(rows(directory), key=lambda row: float(row["objective"]))
    assert content["best_network"]["trial"] == int(best["trial"])
    assert content["best_network"]["validation"]["val_r2"] == pytest.approx(float(best["objective"]))
    assert content["validation"]["val_r2"] >= float(best["objective"]) - 1e-6
    assert "test_r2" in content["test"]
    assert (directory / "best.png").exists()
    assert "Ensemble of" in ended.out


@either
def test_a_killed_training_goes_on(start, search):
    words = ("nas.post", search, *STANDIN, "--top", 6, "--repeat", 5)
    environment = {"CHOSEN_SECONDS": "0.1"}
    directory = search / "post"

    launch = start(3, *words, environment=environment)
    wait_for(partial(has_finished, directory, 8), 110)  # all ranks import TensorFlow first
    launch.kill()
    ended = start(4, "nas.post", search, "--resume", *STANDIN, environment=environment).wait()

    assert ended.code == 0, ended.err
    found = architectures(directory)
    assert len(found) == 30
    assert {found.count(arch) for arch in set(found)} == {5}
    assert [row["n_trained"] for row in table(directory)] == ["5"] * 6
    assert "[3, 3]" in table(directory)[0]["arch_seq"]
    again = start(0, "replay", directory).wait()
    assert again.code == 0, again.out + again.err


@pytest.mark.parametrize("mpi", ["openmpi"], indirect=True)  # the other cannot survive the death of a rank
def test_the_report_comes_although_the_master_has_died(start, search):
    launch = start(4, "nas.post", search, *STANDIN, "--top", 4, "--repeat", 8, environment={"CHOSEN_SECONDS": "0.1"})
    wait_for(partial(has_finished, search / "post", 8), 110)

    os.kill(launch.rank(0), signal.SIGKILL)
    ended = launch.wait()

    assert ended.code == 0, ended.err
    assert [row["n_trained"] for row in table(search / "post")] == ["8"] * 4
    assert "Best network: trial" in ended.out


@either
def test_a_directory_without_a_search_is_refused_in_one_sentence(run, tmp_path):
    ended = run(2, "nas.post", "nowhere")

    assert ended.code == 2
    assert "nowhere holds no run: cannot read run.json" in ended.err
    assert ended.err.count("\n") == 1


@pytest.mark.parametrize("mpi", ["openmpi"], indirect=True)
def test_what_only_the_master_knows_is_refused_in_one_sentence(run, search):
    nothing = run(2, "nas.post", search, "--problem", "dhmpi.benchmark.hps.polynome2.Problem")
    no_predictions = run(2, "nas.post", search, *STANDIN, "--ensemble", 2)

    assert nothing.code == no_predictions.code == 2
    assert "and no NaProblem" in nothing.err
    assert "has its predictions (predictions.npz), of which an ensemble is made" in no_predictions.err
    assert nothing.err.count("\n") == no_predictions.err.count("\n") == 1
