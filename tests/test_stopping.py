"""Early stopping: who goes on."""

import math

import pytest

from dhmpi.stopping import MIN_TRIALS, HalvingStopper, MedianStopper


def survivors(stopper, curves):
    """Return the trials that no report has stopped, all trials reporting one after another."""
    return [
        trial
        for trial, curve in enumerate(curves)
        if not any(stopper.report(trial, step, value) for step, value in enumerate(curve, 1))
    ]


def test_the_median_stops_who_is_behind():
    stopper = MedianStopper()
    assert survivors(stopper, [[float(i), float(i)] for i in range(MIN_TRIALS)]) == [0, 1, 2, 3, 4]

    assert stopper.report(10, 1, 1.9)
    assert not stopper.report(11, 1, 2.1)


def test_a_good_value_earlier_protects_from_the_median():
    stopper = MedianStopper()
    survivors(stopper, [[float(i), float(i)] for i in range(MIN_TRIALS)])

    assert not stopper.report(10, 1, 3.0)
    assert not stopper.report(10, 2, 0.0)


def test_infinities_leave_the_median_what_it_is():
    stopper = MedianStopper()
    survivors(stopper, [[1.0]] * MIN_TRIALS)
    for trial in range(20, 30):
        stopper.report(trial, 1, math.inf)
        stopper.report(trial, 1, math.nan)

    assert stopper.report(10, 1, 0.5)
    assert not stopper.report(11, 1, 2.0)


def test_nobody_is_stopped_before_the_least_step():
    stopper = MedianStopper(min_steps=2)
    survivors(stopper, [[1.0, 1.0]] * MIN_TRIALS)

    assert not stopper.report(10, 1, 0.0)
    assert stopper.report(10, 2, 0.0)


def test_nan_is_behind_everything():
    stopper = MedianStopper()
    survivors(stopper, [[-1e300]] * MIN_TRIALS)

    assert stopper.report(10, 1, math.nan)


def test_a_trial_that_starts_anew_is_judged_by_its_new_values():
    stopper = MedianStopper()
    survivors(stopper, [[1.0]] * MIN_TRIALS)
    stopper.report(10, 1, 5.0)

    stopper.forget(10)

    assert stopper.report(10, 1, 0.0)


def test_halving_keeps_the_best_quarter_at_each_rung():
    stopper = HalvingStopper(min_steps=1, factor=4)
    rising = [[float(i)] * 16 for i in range(64)]

    assert survivors(stopper, rising) == list(range(64))  # each is the best so far

    stopper = HalvingStopper(min_steps=1, factor=4)
    falling = [[-float(i)] * 16 for i in range(64)]
    kept = survivors(stopper, falling)
    assert kept[:3] == [0, 1, 2]
    assert len(kept) == 3  # the first three, before whom nobody could be compared; then each is the worst so far


def test_halving_judges_once_at_a_rung():
    stopper = HalvingStopper(min_steps=2, factor=2)
    for trial in range(4):
        stopper.report(trial, 2, float(trial))

    assert not stopper.report(9, 1, -5.0)
    assert stopper.report(9, 3, -5.0)  # the rung of step 2, by a trial that reports every third step
    assert not stopper.report(9, 3, -5.0)


def test_of_equals_not_all_go_on():
    stopper = HalvingStopper(factor=2)

    assert len(survivors(stopper, [[1.0]] * 50)) == 1


@pytest.mark.parametrize("make", [lambda: HalvingStopper(factor=1), lambda: MedianStopper(min_steps=0)])
def test_nonsense_is_refused(make):
    with pytest.raises(ValueError, match="must be >="):
        make()
