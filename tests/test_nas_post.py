"""Training the best networks again: what is chosen, what goes on, what is trained, what is reported."""

import csv
import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dhmpi import journal
from dhmpi.errors import DhmpiError, OptionError, ProblemError, RunDirectoryError
from dhmpi.load import load_problem
from dhmpi.nas import post, summary
from dhmpi.nas.run import post as run_post
from dhmpi.nas.training import save_predictions
from dhmpi.options import command_line
from dhmpi.roles.events import finished_event
from dhmpi.trials import Outcome, Status, digest

STUDY = '''
from dhmpi.nas import NaProblem, SearchSpace, layers as L
from dhmpi.problem import HpProblem


def make():
    """Two layers, each of which may be missing: the one, or the other, of 8 units is the same network."""
    space = SearchSpace()
    x = space.input((4,))
    for i in range(2):
        x = space.choose(f"layer{i}", [L.Identity(), L.Dense(8, "relu"), L.Dense(4, "tanh")], x)
    space.output(L.Dense(2, "softmax"), x)
    return space


def problem(objective="val_acc", metrics=("acc",)):
    made = NaProblem()
    made.search_space(make)
    made.metrics(list(metrics))
    made.objective(objective)
    made.load_data(lambda: None)
    made.loss("categorical_crossentropy")
    made.add_hyperparameter((1e-4, 1e-1, "log-uniform"), "learning_rate")
    made.post_training(num_epochs=7, repeat=2)
    return made


Problem = problem()
by_function = problem(lambda history: -history["val_loss"][-1])
unknown = problem(lambda history: 0.0, metrics=())

repeating = problem()
repeating.add_hyperparameter((1, 3), "repeat")

flat = HpProblem()
flat.add_hyperparameter((0, 9), "x")
'''


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    path = tmp_path_factory.mktemp("study") / "study_of_post.py"
    path.write_text(STUDY)
    return str(path)


def done(objective, **metrics):
    return Status.DONE, objective, metrics


FAILED = (Status.FAILED, None, {})


def write_run(directory, problem, trials, launch=0, **described):
    """Write the files of a run: `trials` are pairs of a configuration and what came of it."""
    directory.mkdir(parents=True, exist_ok=True)
    content = {"problem": problem, "fingerprint": load_problem(problem).fingerprint(), "options": {}, **described}
    (directory / "run.json").write_text(json.dumps(content))
    begun = len(journal.replay(directory / "journal").finished)
    file = journal.Journal(directory / "journal", launch, 0, {"t": 0.0})
    for id_, (config, (status, objective, metrics)) in enumerate(trials, begun):
        placed = {"e": "placed", "t": 0.0, "trial": id_, "attempt": 0, "rank": 1, "key": id_, "config": config}
        outcome = Outcome(id_, 0, status, objective, metrics, 1, "host", 0.0, 1.0, 1.0, "it diverged")
        file.write([placed, finished_event(outcome, 1.0)])
    file.close()
    return directory


def arch(*decisions, rate=0.01, **more):
    return {"arch_seq": list(decisions), "learning_rate": rate, **more}


def options_of(directory, **changes):
    return post.PostOptions(directory=str(directory), **changes).completed()


def sources(options):
    return [config["source"] for config in post.configurations(post.settle(options))]


# --- what is trained


@pytest.fixture
def search(study, tmp_path):
    """A search of seven evaluations, of which the first and the last have configurations of the same network."""
    trials = [
        (arch(0, 1), done(0.7)),
        (arch(2, 2), done(0.9)),
        (arch(1, 1), FAILED),
        (arch(2, 2), done(0.5)),
        (arch(1, 2), done(0.6)),
        (arch(1, 2, rate=0.02), done(0.65)),
        (arch(1, 0), done(0.75)),
    ]
    return write_run(tmp_path / "search", study, trials)


def test_the_best_different_networks_are_trained_once_then_again(search):
    configs = post.configurations(post.settle(options_of(search, top=2, repeat=3)))

    # Twice evaluated, [2, 2] has the mean of 0.9 and 0.5; [0, 1] is the network of [1, 0].
    expected = [arch(1, 0, num_epochs=7, repeat=i, source=6) for i in range(3)]
    expected[1:1] = [arch(2, 2, num_epochs=7, repeat=0, source=1)]
    expected[3:3] = [arch(2, 2, num_epochs=7, repeat=1, source=1)]
    expected.append(arch(2, 2, num_epochs=7, repeat=2, source=1))
    assert configs == expected


def test_of_an_architecture_the_best_hyperparameters_count(search):
    configs = post.configurations(post.settle(options_of(search, repeat=1)))

    assert [config["source"] for config in configs] == [6, 1, 5]
    assert configs[2]["learning_rate"] == 0.02


def test_what_was_only_screened_counts_if_there_is_nothing_else(study, tmp_path):
    screened = [(arch(1, 1, num_epochs=1), done(0.8)), (arch(2, 2, num_epochs=1), done(0.9))]
    full = (arch(1, 1, parent=0), done(0.7))

    only = write_run(tmp_path / "only", study, screened)
    both = write_run(tmp_path / "both", study, [*screened, full])

    assert sources(options_of(only, repeat=1)) == [1, 0]
    assert sources(options_of(both, repeat=1)) == [2]
    assert "parent" not in post.configurations(post.settle(options_of(both)))[0]


def test_what_is_not_said_is_as_the_problem_says(search):
    settled = post.settle(options_of(search))

    assert (settled.top, settled.repeat, settled.epochs, settled.max_evals) == (50, 2, 7, 6)
    assert settled.log_dir == str(search / "post")
    assert post.settle(options_of(search, epochs=3)).epochs == 3
    assert post.settle(options_of(search, max_evals=2)).max_evals == 2


def test_a_training_goes_on_as_it_began_although_the_search_went_on(study, search):
    first = post.settle(options_of(search, top=2, repeat=1, epochs=5))
    write_run(search / "post", study, [], options=dataclasses.asdict(first))
    write_run(search, study, [(arch(2, 1), done(0.99))], launch=1)

    again = post.settle(options_of(search, resume=True))

    assert again == dataclasses.replace(first, resume=True)
    assert post.configurations(again) == post.configurations(first)
    assert sources(options_of(search, top=3, resume=True)) == [6, 1, 5]


def test_the_command_to_go_on_is_understood(search):
    settled = post.settle(post.PROGRAM.parse([str(search), "--top", "1", "--ensemble", "4"]))

    words = command_line(post.PROGRAM.module, settled, resume=True).split()

    assert words[:3] == ["python", "-m", "dhmpi.nas.post"]
    assert post.settle(post.PROGRAM.parse(words[3:])) == dataclasses.replace(settled, resume=True)


# --- bad input


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "the following arguments are required: RUN_DIRECTORY"),
        (["nowhere"], "nowhere holds no run: cannot read run.json"),
        (["search", "--top", "0"], "--top must be >= 1, got 0"),
        (["search", "--repeat", "0"], "--repeat must be >= 1, got 0"),
        (["search", "--ensemble", "-2"], "--ensemble must be >= 1, got -2"),
        (["search", "--task-dirs", "none"], "--task-dirs none would remove the networks"),
        (["search/post"], "holds no search: what is there was trained by dhmpi.nas.post already"),
    ],
)
def test_a_command_that_makes_no_sense_is_refused(study, search, words, sentence, monkeypatch):
    write_run(search / "post", study, [], options={"considered": 7})
    monkeypatch.chdir(search.parent)

    with pytest.raises(DhmpiError, match="^[^\n]*$") as caught:
        post.PROGRAM.parse(words)

    assert sentence in str(caught.value)


def test_a_search_without_a_result_or_of_another_kind_is_refused(study, tmp_path):
    empty = write_run(tmp_path / "empty", study, [(arch(1, 1), FAILED)])
    flat = write_run(tmp_path / "flat", f"{study}:flat", [({"x": 1}, done(0.5))])
    moved = write_run(tmp_path / "moved", study, [(arch(1, 1), done(0.5))], fingerprint="0123456789abcdef")
    repeating = write_run(tmp_path / "repeating", f"{study}:repeating", [(arch(1, 1, repeat=1), done(0.5))])

    for directory, error, sentence in (
        (empty, RunDirectoryError, "has no finished evaluation with an objective yet"),
        (flat, OptionError, "it is of type HpProblem, and no NaProblem"),
        (moved, RunDirectoryError, "is not the one that was searched"),
        (repeating, OptionError, "has a hyperparameter of that name"),
    ):
        with pytest.raises(error, match=sentence):
            post.settle(options_of(directory))


def test_a_directory_with_another_training_or_a_search_is_refused(study, search, tmp_path):
    first = post.settle(options_of(search))
    write_run(search / "post", study, [], options=dataclasses.asdict(first))
    other = write_run(tmp_path / "other", study, [(arch(1, 1), done(0.5))])

    with pytest.raises(RunDirectoryError, match="holds a training over 7 epochs, not over 9 epochs"):
        post.settle(options_of(search, epochs=9, resume=True))
    with pytest.raises(RunDirectoryError, match="holds a training of the search in .*search, not of the search in "):
        post.settle(options_of(other, log_dir=str(search / "post"), resume=True))
    with pytest.raises(RunDirectoryError, match="holds another run"):
        post.settle(options_of(search, log_dir=str(search), resume=True))


# --- what is reported


def metrics_of(val, test, seconds=2.0):
    return {
        "val_loss": 1 - val, "val_acc": val, "test_loss": 1 - test, "test_acc": test, "n_parameters": 42,
        "training_seconds": seconds, "epochs": 5,
    }  # fmt: skip


def votes(target, right):
    """Return probabilities of two classes: sure ones where they shall be right, else unsure ones."""
    return np.where(target == 1, np.where(right, 0.9, 0.4)[:, None], np.where(right, 0.1, 0.6)[:, None])


@pytest.fixture
def trained(study, search):
    """A training of two architectures, twice each, of which one failed; with predictions that complement each other."""
    target = np.eye(2)[[0, 1] * 4]
    places = np.arange(8)
    trials = [
        (arch(1, 0, num_epochs=7, repeat=0, source=6), done(0.75, **metrics_of(0.75, 0.5))),
        (arch(2, 2, num_epochs=7, repeat=0, source=1), done(0.5, **metrics_of(0.5, 0.75))),
        (arch(1, 0, num_epochs=7, repeat=1, source=6), done(0.625, **metrics_of(0.625, 0.625, 4.0))),
        (arch(2, 2, num_epochs=7, repeat=1, source=1), FAILED),
    ]
    right = (places < 6, places >= 4, places < 5)
    options = dataclasses.asdict(post.settle(options_of(search, top=2)))
    directory = write_run(search / "post", study, trials, options=options)
    for id_, (config, (status, objective, _)) in enumerate(trials):
        if status is Status.DONE:
            place = directory / f"task{id_}_{digest(config)}"
            place.mkdir()
            predictions = (votes(target, right[id_]),)
            save_predictions(place / "predictions.npz", objective, (target,), predictions, with_targets=True)
            save_predictions(place / "test_predictions.npz", objective, (1 - target,), predictions, with_targets=True)
    return directory


def rows(path):
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def report(directory, *words):
    return post.main(["--summary", str(directory), *words])


def test_a_table_compares_architectures(trained, capsys):
    assert report(trained) == 0

    first, second = rows(trained / "post.csv")
    assert json.loads(first["arch_seq"]) == [1, 0]
    assert (first["n_trained"], first["n_failed"], first["best_trial"], first["source"]) == ("2", "0", "0", "6")
    assert float(first["objective_mean"]) == 0.6875
    assert float(first["objective_std"]) == pytest.approx(0.125 / 2**0.5)
    assert float(first["search_objective"]) == 0.75
    assert float(first["test_acc_mean"]) == 0.5625
    assert float(first["seconds"]) == 3.0
    assert (second["n_trained"], second["n_failed"], second["test_acc_std"]) == ("1", "1", "")
    out = capsys.readouterr().out
    assert "0.6875 ± 0.088" in out
    assert "Best network: trial 0, val_acc 0.75, test_acc 0.5, 42 parameters" in out
    assert (trained / "best.png").read_bytes().startswith(b"\x89PNG")
    assert not (trained / "ensemble.json").exists()


def test_the_directory_of_the_search_leads_to_its_training(trained):
    assert report(trained.parent) == 0

    assert (trained / "post.csv").exists()


def test_an_ensemble_is_reported_beside_the_best_network(trained, capsys):
    assert report(trained, "--ensemble", "10") == 0

    content = json.loads((trained / "ensemble.json").read_text())
    assert content["validation"]["val_acc"] == 1.0
    assert content["test"] == {"test_acc": 0.0}  # whose targets are the other way round
    assert content["best_network"] == {"trial": 0, "validation": {"val_acc": 0.75}, "test": {"test_acc": 0.5}}
    assert {member["trial"] for member in content["members"]} >= {0, 1}
    assert sum(member["weight"] for member in content["members"]) == pytest.approx(1)
    assert content["members"][0]["arch_seq"] in ([1, 0], [2, 2])
    assert content["scores"][0] == 0.75
    assert content["scores"][-1] == 1.0
    assert "val_acc 1, the best network alone 0.75; test_acc 0, the best network alone 0.5" in capsys.readouterr().out


def test_an_objective_that_is_no_metric_gives_way_to_the_first_that_is_one(study, trained):
    problem = load_problem(f"{study}:by_function")

    content = summary.write_ensemble(trained, summary._networks(trained), problem, 5)

    assert content["maximises"] == "val_acc"


def test_without_any_metric_there_is_no_ensemble(study, trained, capsys):
    assert report(trained, "--ensemble", "5", "--problem", f"{study}:unknown") == 2

    assert "--ensemble maximises a metric, and neither is the objective" in capsys.readouterr().err


def test_networks_without_predictions_are_left_out(trained, capsys):
    for path in trained.glob("task1_*/*.npz"):
        path.unlink()

    assert report(trained, "--ensemble", "5") == 0

    assert json.loads((trained / "ensemble.json").read_text())["n_candidates"] == 2
    assert "1 networks were no candidates" in capsys.readouterr().out


def test_without_predictions_there_is_no_ensemble(trained, capsys):
    for path in trained.glob("task*/*.npz"):
        path.unlink()

    assert report(trained, "--ensemble", "5") == 2

    err = capsys.readouterr().err
    assert "has its predictions (predictions.npz), of which an ensemble is made" in err
    assert err.count("\n") == 1


def test_networks_that_were_validated_with_different_data_make_no_ensemble(trained, capsys):
    place = next(trained.glob("task1_*"))
    save_predictions(place / "predictions.npz", 0.5, (np.ones((8, 2)),), (np.ones((8, 2)),), with_targets=True)

    assert report(trained, "--ensemble", "5") == 2

    assert "load_data must return the same each time" in capsys.readouterr().err


def test_what_is_not_complete_is_reported_as_far_as_it_is(study, search, capsys):
    options = dataclasses.asdict(post.settle(options_of(search, top=2)))
    trials = [(arch(1, 0, num_epochs=7, repeat=0, source=6), done(0.75, **metrics_of(0.75, 0.5)))]
    write_run(search / "post", study, trials, options=options)

    assert report(search) == 0

    assert "1 of 4 trainings are finished." in capsys.readouterr().out
    assert len(rows(search / "post" / "post.csv")) == 1


def test_it_is_said_why_no_network_could_be_trained(study, search, capsys):
    trials = [(arch(1, 0, num_epochs=7, repeat=i, source=6), FAILED) for i in range(3)]
    write_run(search / "post", study, trials, options={"considered": 7})

    assert report(search) == 1

    assert "no network could be trained: it diverged (3 times)" in capsys.readouterr().err


def test_there_must_be_something_to_report(study, search, capsys):
    assert report(search) == 2
    write_run(search / "post", study, [], options={"considered": 7})
    assert report(search) == 2

    first, second = capsys.readouterr().err.splitlines()
    assert "post holds no run: cannot read run.json" in first
    assert "has no finished network yet" in second


# --- the training itself


def digits():
    """Return a hundred images for training, and as many for validation and test; noisy ones, so that it overfits."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 4)).astype("float32")
    y = np.eye(2)[(x[:, 0] + rng.normal(size=300) > 0).astype(int)]
    return tuple((x[part], y[part]) for part in (slice(0, 100), slice(100, 200), slice(200, 300)))


@pytest.fixture
def trainable(study):
    problem = load_problem(study)
    problem = type(problem)()
    problem.load_data(digits)
    problem.search_space(sys.modules["study_of_post"].make)
    problem.hyperparameters(batch_size=10, learning_rate=0.1, num_epochs=1)
    problem.loss("categorical_crossentropy")
    problem.metrics(["acc"])
    problem.objective("val_acc")
    problem.post_training(
        num_epochs=12,
        metrics=["mse"],
        callbacks={"EarlyStopping": {"monitor": "val_loss", "patience": 20, "restore_best_weights": True}},
    )
    return problem


@pytest.mark.tensorflow
def test_the_network_that_is_saved_is_the_one_that_is_judged(trainable, tmp_path):
    result = run_post.train(trainable, {"arch_seq": [1, 2], "num_epochs": 8}, 3, tmp_path)

    history = json.loads((tmp_path / "history.json").read_text())
    losses = history["val_loss"]
    assert (result["epochs"], len(losses)) == (8, 8)
    assert min(losses) < losses[-1]  # otherwise nothing is shown: the best weights are restored
    assert result["val_loss"] == pytest.approx(min(losses), rel=1e-5)
    assert result["objective"] == result["val_acc"] == history["val_acc"][int(np.argmin(losses))]
    assert set(result) >= {"val_mse", "test_acc", "test_mse", "test_loss", "n_parameters", "training_seconds"}

    import keras

    model = keras.saving.load_model(tmp_path / "model.keras")
    assert getattr(model, "optimizer", None) is None
    test_x, test_y = digits()[2]
    predicted = np.asarray(model(test_x))
    saved = np.load(tmp_path / "test_predictions.npz")
    np.testing.assert_allclose(saved["output_0"], predicted, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(saved["target_0"], test_y)
    assert result["test_acc"] == np.mean(predicted.argmax(1) == test_y.argmax(1))


@pytest.mark.tensorflow
def test_a_problem_without_test_data_or_post_training_is_trained_as_in_the_search(study, tmp_path):
    problem = load_problem(study)
    problem = type(problem)()
    problem.load_data(lambda: digits()[:2])
    problem.search_space(sys.modules["study_of_post"].make)
    problem.hyperparameters(batch_size=50, num_epochs=2, callbacks={"CSVLogger": {}})
    problem.loss("categorical_crossentropy")
    problem.metrics(["acc"])
    problem.objective("val_acc")

    result = run_post.train(problem, {"arch_seq": [0, 1]}, 3, tmp_path)

    assert result["epochs"] == 2
    assert not any(name.startswith("test_") for name in result)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "epochs.csv",
        "history.json",
        "model.keras",
        "predictions.npz",
    ]


def test_only_a_problem_of_architectures_can_be_trained():
    with pytest.raises(ProblemError, match="trains networks of an NaProblem, but there is none"):
        run_post.run({"arch_seq": [0]})


def test_the_module_says_what_it_takes():
    said = subprocess.run(
        [sys.executable, "-m", "dhmpi.nas.post", "--help"], capture_output=True, text=True, timeout=60, check=True,
        cwd=Path(__file__).parents[1],
    )  # fmt: skip

    assert "RUN_DIRECTORY" in said.stdout
    assert "--ensemble SIZE" in said.stdout
