"""What the master tells of the start of its ranks."""

from dhmpi.mpi.protocol import STARTUP
from dhmpi.roles.startup import Startup, in_words


def seconds(scale):
    return [scale * (i + 1) for i in range(len(STARTUP))]


def test_the_start_is_told_once_when_every_rank_and_the_problem_are_there():
    startup = Startup([1, 2, 3])
    for rank in (1, 2, 3):
        assert startup.take(set()) is None
        startup.add(rank, seconds(rank))
    assert startup.take(set()) is None
    startup.problem = 0.25

    event = startup.take(set())

    assert event == {
        "e": "startup",
        "ranks": 3,
        "problem": 0.25,
        "seconds": {name: [i + 1, 2 * (i + 1), 3 * (i + 1)] for i, name in enumerate(STARTUP)},
    }
    assert startup.take(set()) is None


def test_ranks_that_have_died_are_not_waited_for_and_none_at_the_end():
    startup = Startup([1, 2, 3])
    startup.problem = 0.0
    startup.add(1, seconds(1))

    assert startup.take({2}) is None
    assert startup.take({2}, ended=True)["ranks"] == 1

    other = Startup([1, 2])
    other.problem = 0.0
    other.add(1, seconds(1))
    assert other.take({2})["ranks"] == 1


def test_a_rank_that_starts_again_does_not_count_twice():
    startup = Startup([1])
    startup.problem = 0.0
    startup.add(1, ())
    assert startup.take(set()) is None
    startup.add(1, seconds(1))
    startup.add(1, seconds(9))

    assert startup.take(set())["seconds"]["interpreter"] == [1, 1, 1]


def test_words():
    startup = Startup([4])
    startup.problem = 0.5
    startup.add(4, seconds(0.1))

    said = in_words(startup.take(set()))

    assert said.startswith("start of 1 evaluator in seconds (min/median/max): interpreter 0.10/0.10/0.10, keeper")
    assert said.endswith("import 0.60/0.60/0.60; problem 0.50")
