"""The polite wait."""

import os

import pytest

from dhmpi.mpi.wait import FRACTION, LATER_FRACTION, LONG, LONGEST, SHORTEST, Wait
from dhmpi.roles.role import EverySeconds


class Clock:
    def __init__(self):
        self.now = 0.0
        self.slept = []

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds


def test_sleeps_grow_with_the_time_waited_and_have_a_limit():
    clock = Clock()
    wait = Wait(clock, clock.sleep)

    while clock.now < 10.0:
        wait.sleep()

    assert clock.slept[0] == SHORTEST
    assert LONG in clock.slept
    assert clock.slept[-1] == LONGEST
    assert clock.slept == sorted(clock.slept)


def test_looking_adds_no_more_than_its_fraction_to_a_wait():
    clock = Clock()
    wait = Wait(clock, clock.sleep)

    while clock.now < 100.0:
        before = clock.now
        wait.sleep()
        limit = FRACTION * before if before < LONG / LATER_FRACTION else LATER_FRACTION * before
        assert clock.now - before <= max(SHORTEST, limit) + 1e-12


def test_sleeps_are_short_again_after_something_happened():
    clock = Clock()
    wait = Wait(clock, clock.sleep)
    while clock.now < 1.0:
        wait.sleep()

    wait.restart()
    wait.sleep()

    assert clock.slept[-1] == SHORTEST


def test_a_readable_descriptor_ends_the_sleep():
    clock = Clock()
    wait = Wait(clock, clock.sleep)
    clock.now = 1e9
    read, write = os.pipe()
    os.write(write, b"x")

    wait.sleep([read])

    assert clock.slept == []
    os.close(read)
    os.close(write)


def test_every_seconds():
    clock = Clock()
    due = EverySeconds(2.0, clock)

    assert due()
    assert not due()
    clock.now = 2.0
    assert due()


@pytest.mark.parametrize("n", [1000])
def test_an_hour_of_waiting_takes_few_looks(n):
    clock = Clock()
    wait = Wait(clock, clock.sleep)

    while clock.now < 10.0:
        wait.sleep()

    assert len(clock.slept) < 10.0 / LONGEST + n
