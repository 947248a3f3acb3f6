"""Ensembles of predictions: numpy only."""

import numpy as np
import pytest

from dhmpi.errors import RunDirectoryError
from dhmpi.nas import ensemble, metrics
from dhmpi.nas.training import digest, save_predictions


def minus_mse(target):
    return lambda predictions: -metrics.mse(target, predictions[0])


def noisy(n_candidates, noise, seed=0, n=200):
    """Return a target, and candidates whose errors are independent."""
    rng = np.random.default_rng(seed)
    target = rng.normal(size=(n, 2))
    return target, [(target + noise * rng.normal(size=target.shape),) for _ in range(n_candidates)]


def test_networks_that_err_differently_are_better_together():
    target, candidates = noisy(6, 0.5)
    score = minus_mse(target)

    selection = ensemble.select(candidates, score, 30)

    combined = ensemble.combine(candidates, selection.weights)
    alone = max(score(candidate) for candidate in candidates)
    assert score(combined) > 0.4 * alone  # both are negative: errors of six average out
    assert score(combined) == pytest.approx(selection.scores[-1])
    assert len(selection.weights) == 6
    assert sum(selection.weights.values()) == pytest.approx(1)


def test_the_first_member_is_the_best_candidate_alone():
    target, candidates = noisy(5, 0.5)

    selection = ensemble.select(candidates, minus_mse(target), 1)

    scores = [minus_mse(target)(candidate) for candidate in candidates]
    assert selection.chosen == (int(np.argmax(scores)),)
    assert selection.scores == (max(scores),)


def test_a_better_member_is_added_several_times():
    target = np.zeros((4, 1))
    good, opposite = (np.full((4, 1), 1.0),), (np.full((4, 1), -3.0),)

    selection = ensemble.select([opposite, good], minus_mse(target), 8)

    assert selection.weights == {1: 0.75, 0: 0.25}
    assert selection.scores[-1] == 0


def test_what_only_makes_it_worse_later_does_not_count():
    target = np.array([[0.0], [0.0], [2.0]])
    exact, other = (target,), (target + 1,)

    selection = ensemble.select([other, exact], minus_mse(target), 10)

    assert selection.chosen == (1,)


def test_predictions_that_are_no_numbers_are_not_chosen():
    target, candidates = noisy(2, 0.5)
    broken = (np.full(target.shape, np.nan),)

    selection = ensemble.select([broken, *candidates], minus_mse(target), 5)

    assert 0 not in selection.chosen


def test_classes_are_voted_for_with_probabilities():
    target = np.eye(3)[[0, 1, 2]]
    sure_of_two = np.array([[0.9, 0.1, 0.0], [0.2, 0.7, 0.1], [0.4, 0.3, 0.3]])
    sure_of_last = np.array([[0.3, 0.4, 0.3], [0.4, 0.3, 0.3], [0.0, 0.1, 0.9]])

    def accuracy(predictions):
        return metrics.acc(target, predictions[0])

    selection = ensemble.select([(sure_of_two,), (sure_of_last,)], accuracy, 4)

    assert selection.scores == (pytest.approx(2 / 3), 1.0)
    combined = ensemble.combine([(sure_of_two,), (sure_of_last,)], selection.weights)
    np.testing.assert_allclose(combined[0], (sure_of_two + sure_of_last) / 2)


def test_several_outputs_are_combined_with_the_same_weights():
    first = (np.full((2, 1), 1.0), np.full((2, 3), 10.0))
    second = (np.full((2, 1), 3.0), np.full((2, 3), 30.0))

    combined = ensemble.combine({4: first, 7: second}, {4: 0.25, 7: 0.75})

    np.testing.assert_allclose(combined[0], np.full((2, 1), 2.5))
    np.testing.assert_allclose(combined[1], np.full((2, 3), 25.0))


@pytest.mark.parametrize(("candidates", "size", "words"), [([], 3, "needs candidates"), ([(np.zeros(2),)], 0, ">= 1")])
def test_what_makes_no_sense_is_refused(candidates, size, words):
    with pytest.raises(ValueError, match=words):
        ensemble.select(candidates, lambda predictions: 0.0, size)


def test_predictions_are_read_as_they_were_written(tmp_path):
    targets = (np.arange(4.0)[:, None], np.eye(2, dtype=int)[[0, 1, 1, 0]])
    outputs = (np.random.default_rng(0).normal(size=(4, 1)), np.full((4, 2), 0.5))
    save_predictions(tmp_path / "predictions.npz", 0.5, targets, outputs, with_targets=True)

    found = ensemble.load(tmp_path / "predictions.npz")

    assert found.digest == digest(targets)
    for read, written in zip((*found.outputs, *found.targets), (*outputs, *targets)):
        np.testing.assert_allclose(read, written, rtol=1e-6)


def test_where_no_predictions_are_there_is_nothing_to_read(tmp_path):
    assert ensemble.load(tmp_path / "predictions.npz") is None


def test_predictions_without_targets_or_torn_are_refused(tmp_path):
    bare, torn = tmp_path / "bare.npz", tmp_path / "torn.npz"
    save_predictions(bare, 0.5, (np.zeros((3, 1)),), (np.ones((3, 1)),))
    torn.write_bytes(bare.read_bytes()[:100])

    for path in (bare, torn):
        with pytest.raises(RunDirectoryError, match=path.name):
            ensemble.load(path)


def test_no_file_can_have_code_run(tmp_path):
    path = tmp_path / "predictions.npz"
    np.savez(path, output_0=np.array([{"an": "object"}], dtype=object), target_0=np.zeros(1), digest="0")

    with pytest.raises(RunDirectoryError, match="Object arrays cannot be loaded"):
        ensemble.load(path)
