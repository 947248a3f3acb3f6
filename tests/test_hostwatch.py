"""Which hosts are slow, and which are suspect."""

import pytest

from dhmpi.roles.hostwatch import SLOW_AFTER, HostWatch
from dhmpi.trials import Outcome, Status


def outcome(host, status=Status.DONE, seconds=1.0):
    done = status is Status.DONE
    return Outcome(0, 0, status, 1.0 if done else None, {}, 1, host, elapsed=seconds)


def count(watch, n, *args, **kwargs):
    """Take in n outcomes alike; return the remarks."""
    return [remark for _ in range(n) if (remark := watch.count(outcome(*args, **kwargs)))]


def test_a_slow_host_is_remarked_on_once():
    watch = HostWatch(3)

    remarks = count(watch, SLOW_AFTER, "a") + count(watch, 5 * SLOW_AFTER, "b", seconds=2.5)

    assert remarks == ["host b is slow: an evaluation takes 2.5 s there, 1 s elsewhere"]


def test_no_host_is_slow_alone_or_before_others_are_known():
    watch = HostWatch(3)

    assert count(watch, 5 * SLOW_AFTER, "a", seconds=9.0) == []
    assert count(watch, SLOW_AFTER - 1, "b") + count(watch, SLOW_AFTER, "a", seconds=9.0) == []


@pytest.mark.parametrize(
    ("crashed_elsewhere", "suspect"),
    [(0, True), (6, True), (7, False), (30, False)],
    ids=["none", "some", "many", "all"],
)
def test_a_host_is_suspect_where_far_more_crashes_than_elsewhere(crashed_elsewhere, suspect):
    watch = HostWatch(3)
    count(watch, 3, "bad", Status.CRASHED)
    count(watch, crashed_elsewhere, "good", Status.CRASHED)
    count(watch, 30 - crashed_elsewhere, "good")

    assert watch.is_suspect("bad") is suspect


def test_too_few_crashes_make_no_suspect_and_deaths_count_as_crashes():
    watch = HostWatch(3)
    count(watch, 20, "good")
    count(watch, 2, "bad", Status.CRASHED)
    assert not watch.is_suspect("bad")

    watch.count_death("bad")

    assert watch.is_suspect("bad")
    host, reason = watch.quarantine("bad")
    assert (host.n, host.n_crashed) == (3, 3)
    assert reason == "host bad gets no new trials: 3 of 3 evaluations crashed there, 5 % elsewhere"
    assert watch.is_quarantined("bad")
    assert not watch.is_suspect("bad")
    assert list(watch.readmit()) == ["bad"]
    assert not watch.is_quarantined("bad")


def test_without_a_limit_nobody_is_suspect():
    watch = HostWatch(None)
    count(watch, 50, "bad", Status.CRASHED)

    assert not watch.is_suspect("bad")


@pytest.mark.parametrize("status", [Status.LOST, Status.REUSED])
def test_what_nobody_has_evaluated_does_not_count(status):
    watch = HostWatch(1)
    count(watch, 5, "a", status)
    watch.count_death("a")

    assert watch.quarantine("a")[0].n == 1
