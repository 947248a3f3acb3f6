"""Metrics of whole sets of predictions, and the objective that is made of a history."""

import math

import numpy as np
import pytest
from sklearn import metrics as reference

from dhmpi.errors import ProblemError
from dhmpi.nas import metrics
from dhmpi.nas.objective import parse


def outputs(seed=0, shape=(50, 4)):
    """Return targets whose columns differ in scale and mean, and predictions near them."""
    rng = np.random.default_rng(seed)
    y = rng.normal(size=shape) * np.array([1.0, 3.0, 0.1, 10.0]) + np.array([0.0, 5.0, 1.0, -3.0])
    return y, y + rng.normal(size=shape)


def classes(n_samples=40, n_classes=5):
    """Return classes and probabilities."""
    rng = np.random.default_rng(1)
    p = rng.random((n_samples, n_classes)) + 0.1
    return rng.integers(n_classes, size=n_samples), p / p.sum(1, keepdims=True)


# --- regression


def test_r2_is_the_mean_over_outputs():
    y, p = outputs()

    assert metrics.r2(y, p) == pytest.approx(reference.r2_score(y, p))


def test_r2_global_weights_outputs_by_their_variance():
    y, p = outputs()

    assert metrics.r2_global(y, p) == pytest.approx(reference.r2_score(y, p, multioutput="variance_weighted"))
    assert abs(metrics.r2_global(y, p) - metrics.r2(y, p)) > 0.1


def test_every_entry_of_a_sequence_is_an_output():
    y, p = outputs(shape=(30, 6, 4))

    assert metrics.r2(y, p) == pytest.approx(reference.r2_score(y.reshape(30, -1), p.reshape(30, -1)))


@pytest.mark.parametrize(("off", "expected"), [(0.0, 1.0), (1.0, 0.5)])
def test_an_output_that_does_not_vary_counts_only_if_it_is_met(off, expected):
    y = np.stack([np.arange(5.0), np.full(5, 2.0)], axis=1)
    p = y + [0.0, off]

    assert metrics.r2(y, p) == expected


@pytest.mark.parametrize("metric", [metrics.r2, metrics.r2_global, metrics.mse, metrics.mae])
def test_a_vector_beside_a_column_is_no_matrix(metric):
    y = np.arange(6.0)

    assert metric(y, y[:, None] + 1) == metric(y[:, None], y[:, None] + 1)


@pytest.mark.parametrize("metric", [metrics.r2, metrics.mse])
def test_other_shapes_are_refused(metric):
    with pytest.raises(ValueError, match=r"targets have the shape \(6, 1\), but predictions \(6, 2\)"):
        metric(np.zeros((6, 1)), np.zeros((6, 2)))


def test_errors_are_means_over_samples_and_outputs():
    y, p = outputs()

    assert metrics.mse(y, p) == pytest.approx(np.mean((y - p) ** 2))
    assert metrics.rmse(y, p) == pytest.approx(math.sqrt(metrics.mse(y, p)))
    assert metrics.mae(y, p) == pytest.approx(np.mean(np.abs(y - p)))


@pytest.mark.parametrize("metric", [metrics.r2, metrics.mse, metrics.mae, metrics.acc])
def test_a_diverged_network_is_nan(metric):
    y = np.eye(3)

    assert math.isnan(metric(y, np.full((3, 3), np.nan)))


# --- classification


@pytest.mark.parametrize("form", ["vector", "column", "one-hot"])
def test_accuracy_takes_targets_in_any_form(form):
    y, p = classes()
    target = {"vector": y, "column": y[:, None], "one-hot": np.eye(5)[y]}[form]

    assert metrics.acc(target, p) == reference.accuracy_score(y, p.argmax(1))


def test_accuracy_of_one_output_is_at_one_half():
    y, p = np.array([0, 1, 1, 0]), np.array([[0.2], [0.9], [0.4], [0.6]])

    assert metrics.acc(y, p) == 0.5
    assert metrics.acc(y[:, None], p) == 0.5


def test_perplexity_is_that_of_the_cross_entropy_in_nats():
    y, p = classes()

    assert metrics.sparse_perplexity(y[:, None], p) == pytest.approx(math.exp(reference.log_loss(y, p)))
    assert metrics.sparse_perplexity(np.zeros(3, int), np.full((3, 4), 0.25)) == pytest.approx(4)


# --- names


@pytest.mark.parametrize(
    ("name", "better"),
    [("r2", 1), ("r2_global", 1), ("acc", 1), ("sparse_categorical_accuracy", 1), ("mse", -1), ("loss", -1)]
    + [("sparse_perplexity", -1), ("mean_absolute_error", -1), ("quality", 0), ("mass", 0)],
)
def test_the_direction_follows_from_the_name(name, better):
    assert metrics.direction(name) == better


def test_metrics_have_names():
    assert metrics.metric_name("r2") == "r2"
    assert metrics.metric_name("numpy.linalg.norm") == "norm"
    assert metrics.metric_name(metrics.mse) == "mse"
    with pytest.raises(ProblemError, match="a metric is a name, such as 'r2'"):
        metrics.metric_name(lambda y, p: 0)
    with pytest.raises(ProblemError, match="got 3"):
        metrics.metric_name(3)


def test_a_function_may_return_a_value_per_sample():
    def worst(y_true, y_pred):
        return np.abs(y_true - y_pred).max(axis=1)

    assert metrics.resolve(worst)(np.zeros((2, 2)), np.array([[1.0, 2.0], [0.0, 4.0]])) == 3.0


def test_a_dotted_path_is_imported():
    assert metrics.resolve("sklearn.metrics.mean_absolute_error")(np.zeros(2), np.ones(2)) == 1.0
    with pytest.raises(ProblemError, match="the metric 'numpy.nothing' cannot be imported"):
        metrics.resolve("numpy.nothing")
    with pytest.raises(ProblemError, match="'numpy.pi' is no function"):
        metrics.resolve("numpy.pi")


# --- objective

HISTORY = {"loss": [3.0, 2.0, 1.0], "val_r2": [0.1, 0.5, 0.3], "val_mse": [9.0, 2.0, 4.0]}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("val_r2", 0.3),
        ("val_r2__last", 0.3),
        ("val_r2__max", 0.5),
        ("val_r2__min", 0.1),
        ("-val_mse", -4.0),
        ("-val_mse__min", -2.0),
        ("-loss__last", -1.0),
    ],
)
def test_the_objective_is_an_entry_of_the_history(text, value):
    objective = parse(text)

    assert objective.value(HISTORY) == value
    assert objective.every_epoch == (text[-3:] in ("max", "min"))


def test_the_objective_may_be_a_function():
    def drop(history):
        return history["loss"][0] - history["loss"][-1]

    objective = parse(drop)

    assert objective.value(HISTORY) == 2.0
    assert objective.every_epoch
    assert objective.text == "drop"


def test_an_epoch_that_diverged_counts_only_for_last():
    history = {"val_r2": [0.1, 0.5, math.nan]}

    assert parse("val_r2__max").value(history) == 0.5
    assert math.isnan(parse("val_r2").value(history))
    assert math.isnan(parse("val_r2__max").value({"val_r2": [math.nan]}))
    assert math.isnan(parse("val_r2").value({}))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("val_mse", "'val_mse' would maximise val_mse; write '-val_mse'"),
        ("val_loss__min", "write '-val_loss__min'"),
        ("-val_r2", "would minimise val_r2; write 'val_r2'"),
        ("-val_output_1_acc__max", "write 'val_output_1_acc__max'"),
        ("val_r2__mean", "ends in __mean; it can end in __last, __max or __min"),
        ("val r2", "got 'val r2'"),
        ("", "got ''"),
        (3, "got 3"),
    ],
)
def test_what_makes_no_objective_is_refused(text, words):
    with pytest.raises(ProblemError) as caught:
        parse(text)

    assert words in str(caught.value)


def test_an_objective_must_be_computed():
    objective = parse("val_acc")

    objective.check(["loss", "val_acc"])
    with pytest.raises(ProblemError, match="'val_acc', which is not computed: there are loss, val_r2"):
        objective.check(["loss", "val_r2"])
