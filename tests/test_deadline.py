"""When a run must have ended, and for how long its evaluators were busy."""

import time

import pytest

from dhmpi.errors import OptionError
from dhmpi.mpi.environment import DEADLINE_VARIABLES
from dhmpi.options import AmbsOptions
from dhmpi.roles.attendance import Attendance, RankSeconds
from dhmpi.roles.deadline import CLOSING, Deadline
from dhmpi.steering import OrderError
from dhmpi.trials import Outcome, Status, Trial


@pytest.fixture(autouse=True)
def no_job(monkeypatch):
    for name in DEADLINE_VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def job(monkeypatch):
    """A job that ends in 1,000 s."""
    monkeypatch.setenv(DEADLINE_VARIABLES[0], str(time.time() + 1000))


def deadline(age=0.0, **options):
    return Deadline(AmbsOptions(problem="p", run="r", **options), time.monotonic() - age)


def test_without_limits_there_is_no_end():
    assert deadline().left is None


def test_the_time_limit_counts_from_the_start_of_the_launch():
    assert deadline(age=100, time_limit_minutes=10).left == pytest.approx(500, abs=5)


def test_a_job_that_ends_before_is_left_in_time(job):
    assert deadline(time_limit_minutes=60).left == pytest.approx(1000 - CLOSING, abs=5)


def test_a_time_limit_that_ends_before_the_job_counts(job):
    assert deadline(time_limit_minutes=5).left == pytest.approx(300, abs=5)


@pytest.mark.parametrize("text", ["abc", "nan", "inf", "-inf", "", "12:30"])
def test_a_deadline_that_is_no_time_is_refused(monkeypatch, text):
    monkeypatch.setenv("DHMPI_DEADLINE", text)

    with pytest.raises(OptionError) as refusal:
        deadline()

    assert str(refusal.value) == f"DHMPI_DEADLINE must be a time in seconds since the epoch, got {text!r}"


@pytest.mark.parametrize("text", ["Unknown", "nan", ""])
def test_a_scheduler_that_says_no_time_says_nothing(monkeypatch, text):
    monkeypatch.setenv("SLURM_JOB_END_TIME", text)

    assert deadline().left is None


def test_nothing_is_started_in_a_tenth_of_the_time_at_most():
    assert deadline(time_limit_minutes=10, grace_minutes=5).grace == pytest.approx(60)
    assert deadline(time_limit_minutes=600, grace_minutes=5).grace == pytest.approx(300)


def test_who_drains_has_the_grace_period_and_no_more():
    unlimited, short = deadline(grace_minutes=2), deadline(time_limit_minutes=1, grace_minutes=2)

    assert unlimited.drain() == pytest.approx(120, abs=5)
    assert short.drain() == pytest.approx(60, abs=5)
    assert unlimited.left == pytest.approx(120, abs=5)


def test_a_user_may_move_the_end_within_the_job(job):
    moved = deadline(time_limit_minutes=5)

    moved.limit(800)
    assert moved.left == pytest.approx(800, abs=5)
    with pytest.raises(OrderError, match=r"the scheduler's job ends before, in 16\.\d minutes"):
        moved.limit(2000)
    with pytest.raises(OrderError, match="that time is over"):
        moved.limit(-1)
    assert moved.left == pytest.approx(800, abs=5)
    moved.limit(None)
    assert moved.left == pytest.approx(1000 - CLOSING, abs=5)


def test_ranks_are_there_from_when_they_are_ready_to_when_they_leave_but_not_before_the_search():
    attendance = Attendance()
    attendance.began = 100.0
    attendance.ready(2, 90.0)
    attendance.ready(3, 110.0)
    attendance.left(3, 130.0)
    attendance.left(4, 130.0)  # was never there
    attendance.add([(Outcome(0, 0, Status.DONE, 1.0, start=112.0, end=120.0, elapsed=8.0), Trial(0, 0, {}))])

    seconds = attendance.seconds(150.0, running=7.0)

    assert seconds == RankSeconds(busy=15.0, available=70.0)
    assert seconds.utilisation == pytest.approx(15 / 70)
    assert seconds.since(RankSeconds(5.0, 60.0)) == RankSeconds(10.0, 10.0)
    assert RankSeconds(0.0, 0.0).utilisation == 0
