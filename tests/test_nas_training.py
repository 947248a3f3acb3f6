"""Training and judging networks with Keras: tiny ones, for an epoch or two."""

import gc
import json
import math

import numpy as np
import pytest

from dhmpi.errors import ProblemError
from dhmpi.evaluate.context import TrialContext, enter, leave
from dhmpi.evaluate.result import check
from dhmpi.nas import SearchSpace, metrics, training
from dhmpi.nas import layers as L
from dhmpi.nas.preprocessing import stdscaler
from dhmpi.nas.problem import NaProblem
from dhmpi.nas.run import alpha

pytestmark = pytest.mark.tensorflow

ARCH = [1, 1]


def space(input_shape, output_shape):
    """Return a space of one layer, which may have dropout, and one skip connection."""
    s = SearchSpace()
    inputs = s.input(input_shape)
    hidden = s.choose("layer", [L.Identity(), L.Dense(8, "relu"), L.Dropout(0.5)], inputs)
    s.output(L.Dense(output_shape[-1]), s.skips("skip", hidden, [inputs]))
    return s


def regression(n=96, seed=0):
    """Return data of a linear function of four features, in large units, with noise."""
    rng = np.random.default_rng(seed)
    x = 10 + 3 * rng.normal(size=(n, 4))
    y = 1000 + x @ [[1.0, 0.0], [2.0, 5.0], [-3.0, 0.0], [0.0, 1.0]] + 0.1 * rng.normal(size=(n, 2))
    return (x[:64], y[:64]), (x[64:], y[64:])


def problem_of(data=regression, objective="val_r2", listed=("r2", "mse"), loss="mse", **settings):
    """Return a complete problem, whose data are scaled if they are arrays."""
    problem = NaProblem()
    problem.load_data(data)
    problem.search_space(space)
    problem.preprocessing(stdscaler, outputs=True)
    problem.hyperparameters(**{"batch_size": 16, "learning_rate": 0.02, "num_epochs": 2, **settings})
    problem.loss(loss)
    problem.metrics(list(listed))
    problem.objective(objective)
    return problem


def train(problem, arch=ARCH, seed=1, **kwargs):
    return training.train(problem, {"arch_seq": arch, **kwargs.pop("config", {})}, seed, **kwargs)


def without_times(result):
    return {name: value for name, value in result.items() if name not in ("training_seconds", "peak_rss")}


def failure(problem, error=training.TrainingError, **kwargs):
    """Return the sentence with which a training fails."""
    with pytest.raises(error) as caught:
        train(problem, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(scope="module")
def problem():
    return problem_of()


# --- the result


def test_a_network_is_trained_and_judged(problem, tmp_path):
    reports = []

    result = train(problem, directory=tmp_path, report=lambda *report: reports.append(report))

    assert set(result) == {"objective", "loss", "val_loss", "val_r2", "val_mse"} | {
        "n_parameters",
        "training_seconds",
        "epochs",
        "peak_rss",
    }
    assert result["objective"] == result["val_r2"]
    assert result["n_parameters"] == 4 * 8 + 8 + 4 * 8 + 8 + 8 * 2 + 2
    assert result["epochs"] == 2
    assert result["training_seconds"] > 0
    assert result["peak_rss"] > 100
    assert check(result)[0] == result["objective"]
    assert reports == [(2, result["objective"])]
    history = json.loads((tmp_path / "history.json").read_text())
    assert history["validated_epochs"] == [2]
    assert (len(history["loss"]), len(history["val_r2"])) == (2, 1)


def test_metrics_and_predictions_are_of_the_whole_set_in_original_units(problem, tmp_path):
    result = train(problem, directory=tmp_path)

    saved = np.load(tmp_path / "predictions.npz")
    targets = problem.data.restore(problem.data.valid.outputs)
    assert saved["output_0"].dtype == np.float32
    assert abs(saved["output_0"].mean() - 1000) < 100
    assert str(saved["digest"]) == training.digest(targets)
    assert saved["objective"] == result["objective"]
    assert metrics.r2(targets[0], saved["output_0"]) == result["val_r2"]
    assert metrics.mse(targets[0], saved["output_0"]) == result["val_mse"]


def test_it_learns(problem):
    result = train(problem, config={"num_epochs": 25})

    assert result["objective"] > 0.9
    assert result["epochs"] == 25


def test_equal_seeds_give_equal_results_whatever_was_trained_before(problem):
    dropping = [2, 0]

    first = train(problem, dropping, seed=5)
    other = train(problem, ARCH, seed=6)
    again = train(problem, dropping, seed=5)

    assert without_times(first) == without_times(again)
    assert train(problem, dropping, seed=6)["loss"] != first["loss"]
    assert other["objective"] != first["objective"]


def test_validating_every_epoch_changes_nothing(problem, tmp_path):
    reports = []

    result = train(problem, [2, 1], directory=tmp_path, every_epoch=True, report=lambda *r: reports.append(r))

    assert [epoch for epoch, _ in reports] == [1, 2]
    assert without_times(result) == without_times(train(problem, [2, 1]))


@pytest.mark.parametrize(
    ("optimizer", "arguments"), [("adamw", {"weight_decay": 0.1, "clipnorm": 0.5}), ("sgd", {"momentum": 0.9})]
)
def test_the_loop_trains_as_keras_does(optimizer, arguments):
    problem = problem_of(batch_size=64, num_epochs=3, optimizer=optimizer, **arguments)
    settings, data = problem.settings({}), problem.data
    ours, theirs = (training.build(problem, ARCH, 1, settings) for _ in range(2))
    history = {}

    training.fit(ours, data.train, settings, 1, history)
    keras, _ = training.tensorflow()
    kind = {"adamw": keras.optimizers.AdamW, "sgd": keras.optimizers.SGD}[optimizer]
    theirs.compile(kind(settings.learning_rate, **arguments), "mse")
    fitted = theirs.fit(data.train.inputs[0], data.train.outputs[0], batch_size=64, epochs=3, verbose=0)

    assert history["loss"] == pytest.approx(fitted.history["loss"], rel=1e-4)
    for our_weights, their_weights in zip(ours.get_weights(), theirs.get_weights()):
        assert np.allclose(our_weights, their_weights, rtol=1e-4, atol=1e-5)


def test_nothing_of_a_network_stays_behind():
    def graphs():
        gc.collect()
        return sum(type(thing).__name__ == "FuncGraph" for thing in gc.get_objects())

    problem = problem_of(num_epochs=1, momentum=0.9, weight_decay=0.1)
    problem.add_hyperparameter(["adamw", "sgd"], "optimizer")
    train(problem, config={"optimizer": "adamw"})
    before = graphs()

    train(problem, config={"optimizer": "adamw"})
    train(problem, config={"optimizer": "sgd"})

    assert graphs() == before


# --- when a training ends


def test_who_is_told_to_stop_stops_after_the_epoch(problem):
    reports = []

    result = train(
        problem,
        config={"num_epochs": 5},
        every_epoch=True,
        report=lambda *report: reports.append(report),
        should_stop=lambda: len(reports) == 2,
    )

    assert result["epochs"] == 2
    assert result["objective"] == reports[-1][1]


def test_who_is_told_to_stop_is_validated(problem):
    result = train(problem, config={"num_epochs": 5}, should_stop=lambda: True)

    assert result["epochs"] == 1
    assert math.isfinite(result["objective"])


def test_time_ends_a_training_between_two_batches():
    problem = problem_of(callbacks={"TimeStopping": {"seconds": 1e-9}})
    seen = []
    problem.augment(lambda x, y: (seen.append(len(x)) or x, y))

    result = train(problem)

    assert seen == [16]
    assert result["epochs"] == 1
    assert math.isfinite(result["objective"])


def test_early_stopping_knows_the_direction_of_a_metric(tmp_path):
    problem = problem_of(
        num_epochs=6,
        callbacks={
            "EarlyStopping": {"monitor": "val_r2", "patience": 1, "min_delta": 10},
            "CSVLogger": {},
            "ModelCheckpoint": {"monitor": "val_r2", "save_best_only": True},
        },
    )

    result = train(problem, directory=tmp_path)

    assert result["epochs"] == 2  # the second was not better by 10
    assert (tmp_path / "best.keras").exists()
    assert (tmp_path / "epochs.csv").read_text().startswith("epoch,loss,val_loss,val_mse,val_r2\n")


def test_the_learning_rate_is_reduced_on_a_plateau():
    import keras

    seen = []
    problem = problem_of(
        num_epochs=3, callbacks={"ReduceLROnPlateau": {"monitor": "val_loss", "patience": 1, "min_delta": 1e9}}
    )
    settings = problem.settings({})
    network = training.build(problem, ARCH, 1, settings)
    judge = training.Judge(problem, problem.data, settings)
    looking = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: seen.append(float(network.optimizer.learning_rate))
    )
    listeners = [*training.callbacks_.make(settings.callbacks, None), looking]

    training.fit(network, problem.data.train, settings, 1, {}, listeners, lambda: judge(network))

    assert seen == pytest.approx([0.02, 0.002, 0.0002])


# --- objectives


def test_the_best_epoch_may_count(tmp_path):
    problem = problem_of(objective="-val_mse__min", num_epochs=3)

    result = train(problem, directory=tmp_path)

    errors = json.loads((tmp_path / "history.json").read_text())["val_mse"]
    assert len(errors) == 3
    assert result["objective"] == -min(errors)


def test_the_objective_may_be_a_function_of_all():
    def spread(history):
        assert len(history["val_r2"]) == len(history["loss"]) == 2
        return float(np.mean(history["y_true"] - history["y_pred"])) - history["n_parameters"]

    result = train(problem_of(objective=spread))

    assert -200 < result["objective"] < 0


def test_an_objective_that_cannot_be_computed_is_a_failure():
    words = failure(problem_of(objective=lambda history: history["nothing"]))

    assert words == "the objective <lambda> cannot be computed: KeyError: 'nothing'"


def test_a_network_that_diverges_is_a_failure_at_once():
    words = failure(problem_of(learning_rate=1e30, optimizer="sgd", num_epochs=50))

    assert words.startswith("the objective val_r2 is nan after 1 epoch(s), with a loss of nan") or "inf" in words


# --- what cannot be trained


def test_a_network_may_be_too_large(problem):
    words = failure(problem_of(max_parameters=50))

    assert words == "the network has 98 parameters, more than max_parameters = 50"


def test_a_network_that_cannot_be_built_is_a_failure():
    def fragile(values):
        raise ValueError(f"no layer\nof {values['units']} units")

    problem = problem_of()
    problem.search_space(SearchSpace(decisions={"units": [1, 2]}, build=fragile))

    words = failure(problem, arch=[1])

    assert words.startswith("the network cannot be built: ")
    assert "no layer of 2 units" in words


@pytest.mark.parametrize(
    ("n_inputs", "n_outputs", "words"),
    [
        (3, 2, "the network takes the inputs (3,), but the data have (4,)"),
        (4, 1, "output_0 of the network has the shape (1,), but the data have (2,)"),
    ],
)
def test_a_network_must_fit_the_data(n_inputs, n_outputs, words):
    def build(values):
        import keras

        x = keras.Input((n_inputs,))
        return keras.Model(x, keras.layers.Dense(n_outputs)(x))

    problem = problem_of()
    problem.search_space(SearchSpace(decisions={"units": [1, 2]}, build=build))

    assert failure(problem, arch=[0]) == words


def test_numbers_of_classes_need_a_sparse_loss():
    def labelled():
        (x, y), (v, w) = regression()
        return (x, (y[:, 0] > 1000).astype(int)), (v, (w[:, 0] > 1000).astype(int))

    problem = NaProblem()
    problem.load_data(labelled)
    problem.search_space(space, output_shape=(3,))
    problem.hyperparameters(num_epochs=1)
    problem.metrics(["acc"])
    problem.objective("val_acc")
    problem.loss("mse")
    assert "but the data have (1,); numbers of classes take a sparse loss" in failure(problem)

    problem.loss("sparse_categorical_crossentropy")

    assert 0 <= train(problem)["objective"] <= 1


# --- preparing


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: p.loss("nothing"), "there is no loss 'nothing' in Keras"),
        (lambda p: p.metrics(["r2", "nothing"]), "there is no metric 'nothing': it is none of r2, "),
        (
            lambda p: p.add_hyperparameter((0, 3), "depth"),
            "nothing in the training depends on the hyperparameter 'depth'",
        ),
        (lambda p: p.hyperparameters(momentum=0.9), "Adam has no momentum; leave it out of hyperparameters()"),
        (lambda p: p.hyperparameters(callbacks={"EarlyStopping": {"patient": 3}}), "EarlyStopping does not take"),
        (lambda p: p.hyperparameters(callbacks={"TimeStopping": {"seconds": 0}}), "seconds must be a number > 0"),
        (lambda p: p.loss("mse", [1, 2]), "the loss has 2 weights, but the networks have 1 output(s)"),
        (lambda p: p.load_data(lambda: 1 / 0), "load_data raised ZeroDivisionError"),
        (lambda p: p.search_space(space, input_shape=(7,)), "the search space has the inputs (7,), but the data (4,)"),
    ],
)
def test_preparing_finds_what_is_wrong(change, words):
    problem = problem_of()
    change(problem)

    with pytest.raises(ProblemError) as caught:
        training.prepare(problem)

    assert words in str(caught.value)


def test_arguments_of_optimizers_reach_those_that_have_them():
    problem = problem_of(momentum=0.9, clipnorm=1.0)
    problem.add_hyperparameter(["adam", "SGD"], "optimizer")
    training.prepare(problem)
    keras, _ = training.tensorflow()

    optimizers = [training._make_optimizer(keras, problem.settings({"optimizer": name})) for name in ("adam", "SGD")]

    assert [type(optimizer).__name__ for optimizer in optimizers] == ["Adam", "SGD"]
    assert [optimizer.clipnorm for optimizer in optimizers] == [1.0, 1.0]
    assert optimizers[1].momentum == 0.9


def test_metrics_of_keras_are_of_the_whole_set():
    import keras

    y, p = np.eye(3)[[0, 1, 2, 1]], np.array([[0.9, 0, 0.1], [0.2, 0.7, 0.1], [0.5, 0.3, 0.2], [0.1, 0.8, 0.1]])

    assert metrics.resolve("categorical_accuracy")(y, p) == 0.75
    squares = (np.log1p(p) - np.log1p(y)) ** 2
    assert metrics.resolve("mean_squared_logarithmic_error")(y, p) == pytest.approx(squares.mean(), rel=1e-5)
    auc = metrics.resolve(keras.metrics.AUC())
    assert auc(y, p) == auc(y, p)


# --- several outputs, generators, augmentation, regularised layers


def two_outputs():
    (x, y), (v, w) = regression()
    return ([x[:, :2], x[:, 2:]], [y[:, :1], y[:, 1:]]), ([v[:, :2], v[:, 2:]], [w[:, :1], w[:, 1:]])


def two_ended(input_shape, output_shape):
    s = SearchSpace()
    x = s.merge([s.input(shape) for shape in input_shape], "concat")
    hidden = s.choose("layer", [L.Dense(4, "relu"), L.Dense(8, "relu")], x)
    for shape in output_shape:
        s.output(L.Dense(shape[-1]), hidden)
    return s


def test_outputs_may_have_losses_weights_and_metrics_of_their_own(tmp_path):
    problem = NaProblem()
    problem.load_data(two_outputs)
    problem.search_space(two_ended)
    problem.preprocessing(stdscaler, outputs=stdscaler)
    problem.hyperparameters(num_epochs=1)
    problem.loss({"output_0": "mse", "output_1": "mae"}, weights={"output_0": 0.0})
    problem.metrics({"output_0": ["mae"], "output_1": ["r2", "mae"]})
    problem.objective("val_output_1_r2")
    training.prepare(problem)

    result = training.train(problem, {"arch_seq": [1]}, 0, tmp_path)

    scale = problem.data.valid.outputs[1].std() / problem.data.restore(problem.data.valid.outputs)[1].std()
    assert result["objective"] == result["val_output_1_r2"]
    assert result["val_loss"] == pytest.approx(result["val_output_1_mae"] * scale, rel=1e-3)
    assert np.load(tmp_path / "predictions.npz")["output_1"].shape == (32, 1)


def test_generators_train_as_arrays_do():
    (x, y), (v, w) = regression()

    def streamed():
        return {
            "train_gen": lambda: zip(x, y),
            "train_size": 64,
            "valid_gen": lambda: zip(v, w),
            "valid_size": 32,
            "types": (np.float32, np.float32),
            "shapes": ((4,), (2,)),
        }

    problem = NaProblem()
    problem.load_data(streamed)
    problem.search_space(space)
    problem.hyperparameters(num_epochs=2)
    problem.loss("mse")
    problem.metrics(["mae"])
    problem.objective("-val_mae")

    result = train(problem)

    assert result["epochs"] == 2
    assert result["objective"] == -result["val_mae"]


def test_augmentation_changes_batches_and_draws_from_the_seed():
    drawn = []

    def noisy(x, y, rng, scale):
        noise = rng.normal(size=x.shape) * scale
        drawn.append(noise.sum())
        return x + noise, y

    problem = problem_of(num_epochs=1)
    problem.augment(noisy, scale=0.5)

    results = [without_times(train(problem)) for _ in range(2)]

    assert results[0] == results[1]
    assert drawn[:4] == drawn[4:]
    assert len(set(drawn[:4])) == 4


def test_the_penalty_of_regularised_layers_is_part_of_both_losses():
    def build(values):
        import keras

        x = keras.Input((4,))
        penalty = keras.regularizers.L2(values["strength"])
        return keras.Model(x, keras.layers.Dense(2, kernel_regularizer=penalty)(x))

    def losses(strength):
        problem = problem_of(learning_rate=1e-9, num_epochs=1)
        problem.search_space(SearchSpace(decisions={"strength": [strength]}, build=build))
        result = train(problem, arch=[0])
        return result["loss"], result["val_loss"]

    (loss, val_loss), (penalised, val_penalised) = losses(0.0), losses(10.0)

    assert penalised - loss > 1
    assert val_penalised - val_loss == pytest.approx(penalised - loss, rel=1e-3)


# --- what is kept


def test_predictions_of_good_networks_are_kept():
    good = training.GoodOnes(2)

    assert [good(objective) for objective in (1.0, 3.0, 2.0, 1.5, 2.0, 2.5)] == [True, True, True, False, False, True]


@pytest.mark.parametrize(("keep", "kept"), [("none", False), ("good", False), ("all", True)])
def test_the_problem_says_whose_predictions_are_kept(tmp_path, keep, kept):
    train(problem_of(keep_predictions=keep, num_epochs=1), directory=tmp_path, good=lambda objective: False)

    assert (tmp_path / "predictions.npz").exists() == kept


def test_huge_predictions_are_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "MAX_PREDICTIONS_BYTES", 100)

    assert not training.save_predictions(tmp_path / "predictions.npz", 1.0, (), (np.zeros(26),))
    assert training.save_predictions(tmp_path / "predictions.npz", 1.0, (), (np.zeros(25),))


def test_history_is_json_even_if_it_diverged(tmp_path):
    training.save_history(tmp_path / "history.json", {"loss": [1.0, math.nan], "n_parameters": 3})

    assert json.loads((tmp_path / "history.json").read_text()) == {"loss": [1.0, None], "n_parameters": 3}


# --- the run function


@pytest.fixture
def inside(tmp_path, monkeypatch):
    """Work as in an evaluation of the problem in this file."""
    monkeypatch.setitem(globals(), "Problem", problem_of())
    reports = []
    context = TrialContext(
        3, 0, 7, str(tmp_path), report=lambda *report: reports.append(report), problem=f"{__file__}:Problem"
    )
    enter(context)
    yield context, reports
    leave()


def test_the_run_function_trains_the_problem_that_is_searched(inside, tmp_path):
    context, reports = inside

    alpha.run.prepare()
    result = alpha.run({"arch_seq": ARCH})

    assert check(result)[0] == result["objective"]
    assert reports == [(2, result["objective"])]
    assert without_times(result) == without_times(train(problem_of(), seed=context.seed))
    assert (tmp_path / "history.json").exists()
    assert (tmp_path / "predictions.npz").exists()


def test_who_is_watched_reports_every_epoch(inside):
    context, reports = inside
    context.watched = True

    alpha.run({"arch_seq": ARCH})

    assert [epoch for epoch, _ in reports] == [1, 2]


def test_the_run_function_needs_a_problem():
    with pytest.raises(ProblemError, match="trains networks of an NaProblem, but there is none"):
        alpha.run({"arch_seq": ARCH})
