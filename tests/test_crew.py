"""The crew of a rank: whom it obeys, when it succeeds the master, and what the loop does about the dead."""

import signal
from collections import deque
from types import SimpleNamespace

import pytest

from dhmpi.mpi import protocol
from dhmpi.mpi.post import Message
from dhmpi.mpi.protocol import Heir, Kill, Serving, Setup, Stop, Tag, Work
from dhmpi.mpi.wait import Wait
from dhmpi.roles import role
from dhmpi.roles.role import ABSENT, Crew, DeclaredDeadError, OtherRankBrokenError, Role, Spare, serve

SILENCE = 30.0
MOST_POLLS = 1000


class Network:
    """Messages between ranks of one process."""

    def __init__(self, size):
        self.failed = []
        self.inboxes = [deque() for _ in range(size)]
        self.posts = [Post(self, rank) for rank in range(size)]

    def fail(self, rank):
        self.failed.append(rank)


class Post:
    """What `dhmpi.mpi.post.Post` is, without MPI."""

    survives = True

    def __init__(self, network, rank):
        self.network, self.rank, self.size = network, rank, len(network.inboxes)
        self.dead = set()
        self.lowest = 0
        self._n_reported = 0

    def send(self, rank, tag, payload):
        if rank not in self.dead:
            self.network.inboxes[rank].append(Message(self.rank, tag, payload))

    def receive(self):
        inbox = self.network.inboxes[self.rank]
        return inbox.popleft() if inbox else None

    def look(self):
        new, self._n_reported = self.network.failed[self._n_reported :], len(self.network.failed)
        return [rank for rank in new if rank not in self.dead]

    def declare_dead(self, ranks):
        new = sorted(set(ranks) - self.dead)
        self.dead.update(new)
        while self.lowest in self.dead:
            self.lowest += 1
        return new


class Noting(Role):
    """A role that notes what it is told; it ends by STOP."""

    def __init__(self, hears):
        self.hears = frozenset(hears)
        self.notes = []
        self.n_polls = 0

    def hear(self, message):
        self.notes.append(message.tag)
        self.active = self.active and message.tag is not Tag.STOP

    def poll(self):
        self.n_polls += 1
        if self.n_polls > MOST_POLLS:
            raise TimeoutError("nothing ends this crew")
        return False

    def meet(self, heir):
        self.notes.append(heir)

    def lost(self, ranks):
        self.notes.append(list(ranks))


class Rank:
    """A crew with an evaluator, which may become master."""

    def __init__(self, network, rank):
        self.post = network.posts[rank]
        self.taken_up = []
        self.crew = Crew(self.post, self.take_up, self.succeed, SILENCE)
        self.crew.wait = Wait(sleep=lambda seconds: None)
        self.evaluator = Noting({Tag.WORK, Tag.STOP})
        self.master = None
        self.crew.add(self.evaluator)

    def take_up(self, tag):
        self.taken_up.append(tag)
        return Noting({Tag.SETUP}) if tag is Tag.SETUP else None

    def succeed(self, crew):
        self.master = Noting({Tag.REPORT, Tag.STOP})
        crew.add(self.master)
        for rank in range(self.post.size):
            self.post.send(rank, Tag.HEIR, Heir(0))

    def hear(self, source, tag, payload=None):
        self.crew.hear(Message(source, tag, payload))

    def hear_all(self):
        while message := self.post.receive():
            self.crew.hear(message)


@pytest.fixture
def network():
    return Network(4)


@pytest.fixture
def ranks(network):
    return [Rank(network, rank) for rank in range(4)]


@pytest.fixture
def clock(monkeypatch):
    """Time that passes only when a test says so."""
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(role, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


# -- succession --------------------------------------------------------------------------------------------------------


def test_the_lowest_living_rank_succeeds_a_dead_master(ranks):
    for rank in ranks[1:]:
        rank.crew.bury([0])

    assert [rank.master is not None for rank in ranks] == [False, True, False, False]


def test_a_rank_succeeds_once(ranks):
    ranks[1].crew.bury([0])
    master = ranks[1].master

    ranks[1].crew.bury([2])
    ranks[1].crew.bury([0, 2])

    assert ranks[1].master is master
    assert master.notes == [[2]]


def test_the_death_of_others_leaves_the_master_what_it_is(ranks):
    ranks[2].crew.bury([1])
    assert ranks[2].master is None

    ranks[2].crew.bury([0])

    assert ranks[2].master is not None


def test_roles_that_go_on_learn_who_has_died_and_others_do_not(ranks):
    over = Noting({Tag.NEWS})
    over.active = False
    ranks[2].crew.add(over)

    ranks[2].crew.bury([3, 1])
    ranks[2].crew.bury([1])

    assert ranks[2].evaluator.notes == [[1, 3]]
    assert over.notes == []


def test_a_crew_whose_roles_are_over_does_not_succeed(ranks):
    ranks[1].hear(0, Tag.STOP, Stop())

    ranks[1].crew.bury([0])

    assert ranks[1].master is None


def test_an_heir_is_met_by_every_role_of_every_rank(network, ranks):
    ranks[1].crew.bury([0])
    for rank in ranks[1:]:
        rank.hear_all()

    assert [rank.evaluator.notes for rank in ranks] == [[], [[0], Heir(0)], [[0], Heir(0)], [[0], Heir(0)]]


# -- obedience ---------------------------------------------------------------------------------------------------------


def test_a_later_master_is_believed_that_those_below_it_are_dead(ranks):
    ranks[3].hear(2, Tag.HEIR, Heir(0))

    assert ranks[3].post.dead == {0, 1}
    assert ranks[3].post.lowest == 2


@pytest.mark.parametrize("tag", sorted(protocol.FROM_MASTER))
def test_nothing_of_a_former_master_is_heard(monkeypatch, ranks, tag):
    monkeypatch.setattr(role.os, "kill", None)
    ranks[3].hear(1, Tag.HEIR, Heir(0))
    before = list(ranks[3].evaluator.notes)

    ranks[3].hear(0, tag)

    assert ranks[3].evaluator.notes == before
    assert ranks[3].taken_up == []
    assert ranks[3].crew.active


def test_what_is_not_from_a_master_is_heard_from_everybody(ranks):
    ranks[1].crew.bury([0])

    ranks[1].hear(3, Tag.REPORT)

    assert ranks[1].master.notes == [Tag.REPORT]


@pytest.mark.parametrize("tag", [Tag.HEIR, Tag.WORK, Tag.STOP, Tag.SERVING])
def test_a_rank_that_was_declared_dead_ends(ranks, tag):
    with pytest.raises(DeclaredDeadError):
        ranks[1].hear(2, tag)


def test_a_bug_elsewhere_ends_every_rank(ranks):
    with pytest.raises(OtherRankBrokenError):
        ranks[1].hear(3, Tag.BROKEN)


def test_a_rank_dies_when_its_master_says_so(monkeypatch, ranks):
    sent = []
    monkeypatch.setattr(role.os, "kill", lambda pid, number: sent.append(number))

    ranks[1].hear(0, Tag.KILL, Kill())

    assert sent == [signal.SIGKILL]


def test_a_role_is_taken_up_when_a_master_asks_for_it_and_only_then(ranks):
    ranks[1].hear(0, Tag.SETUP, Setup("r", "d", 0, False))
    ranks[1].hear(0, Tag.SETUP, Setup("r", "d", 0, False))
    ranks[1].hear(0, Tag.BEGIN)
    ranks[1].hear(2, Tag.REPORT)  # for a master that this rank is not

    assert ranks[1].taken_up == [Tag.SETUP, Tag.BEGIN]
    assert ranks[1].crew.roles[1].notes == [Tag.SETUP, Tag.SETUP]


# -- the watch over the master -----------------------------------------------------------------------------------------


def test_the_master_tells_those_next_in_line_that_it_is_there(network):
    ranks = [Rank(network, rank) for rank in range(4)]
    ranks[0].post.declare_dead([1])

    ranks[0].crew.watch_master()
    ranks[0].crew.watch_master()  # too soon for another

    assert [[message.tag for message in inbox] for inbox in network.inboxes] == [[], [], [Tag.SERVING], [Tag.SERVING]]


def test_the_next_in_line_takes_the_place_of_a_silent_master(clock, network):
    ranks = [Rank(network, rank) for rank in range(4)]
    clock.now += SILENCE + 1

    for rank in (3, 2, 1):
        ranks[rank].crew.watch_master()

    assert [rank.master is not None for rank in ranks] == [False, True, False, False]
    assert ranks[1].post.dead == {0}
    with pytest.raises(DeclaredDeadError):
        ranks[0].hear_all()


def test_the_third_notices_that_master_and_next_in_line_are_frozen(clock, network):
    ranks = [Rank(network, rank) for rank in range(4)]
    clock.now += 2 * SILENCE - 1
    ranks[2].crew.watch_master()
    assert ranks[2].master is None
    clock.now += 2

    for rank in (3, 2):
        ranks[rank].crew.watch_master()

    assert [rank.master is not None for rank in ranks] == [False, False, True, False]
    assert ranks[2].post.dead == {0, 1}
    for rank in ranks[:2]:
        with pytest.raises(DeclaredDeadError):
            rank.hear_all()


def test_the_third_hears_of_the_master_that_the_second_has_become(clock, network):
    ranks = [Rank(network, rank) for rank in range(3)]
    clock.now += SILENCE + 1
    ranks[1].crew.watch_master()
    ranks[2].hear(1, Tag.HEIR)
    clock.now += SILENCE - 1

    ranks[2].crew.watch_master()

    assert ranks[2].master is None
    assert ranks[2].post.lowest == 1


def test_a_sign_of_life_of_the_master_is_enough(clock, network):
    ranks = [Rank(network, rank) for rank in range(2)]
    clock.now += SILENCE - 1
    ranks[1].hear(0, Tag.SERVING, Serving())
    clock.now += SILENCE - 1

    ranks[1].crew.watch_master()

    assert ranks[1].master is None


def test_words_of_others_are_no_sign_of_life_of_the_master(clock, network):
    rank = Rank(network, 1)
    clock.now += SILENCE + 1
    rank.hear(2, Tag.REPORT)

    rank.crew.watch_master()

    assert rank.master is not None


def test_who_becomes_next_in_line_waits_a_whole_silence(clock, network):
    rank = Rank(network, 2)
    clock.now += 2 * SILENCE
    rank.crew.watch_master()
    rank.crew.bury([1])
    clock.now += SILENCE - 1

    rank.crew.watch_master()
    assert rank.master is None
    clock.now += 2
    rank.crew.watch_master()

    assert rank.master is not None


def test_a_rank_that_was_absent_itself_does_not_miss_the_master(clock, network):
    rank = Rank(network, 1)
    clock.now += SILENCE + ABSENT

    assert rank.crew.was_absent()
    rank.crew.watch_master()

    assert rank.master is None
    assert not rank.crew.was_absent()


def test_the_last_living_rank_watches_nobody(ranks):
    ranks[3].crew.bury([0, 1, 2])

    ranks[3].crew.watch_master()

    assert ranks[3].master is not None


# -- the loop ----------------------------------------------------------------------------------------------------------


def test_stop_ends_all_roles_of_a_rank(network, ranks):
    ranks[1].crew.add(spare := Spare())
    network.posts[0].send(1, Tag.STOP, Stop())

    serve(ranks[1].crew)

    assert not spare.active
    assert not ranks[1].evaluator.active


def test_the_last_words_of_the_dead_are_heard_before_they_are_buried(network, ranks):
    class Ending(Noting):
        def lost(self, dead):
            super().lost(dead)
            self.active = False

    mourner = Ending({Tag.REPORT})
    ranks[1].crew.add(mourner)
    ranks[1].evaluator.active = False
    for _ in range(5):
        network.posts[2].send(1, Tag.REPORT, None)
    network.fail(2)

    serve(ranks[1].crew)

    assert mourner.notes == [*[Tag.REPORT] * 5, [2]]


def test_a_master_that_has_said_stop_before_it_died_is_not_succeeded(network, ranks):
    network.posts[0].send(1, Tag.WORK, Work())
    network.posts[0].send(1, Tag.STOP, Stop())
    network.fail(0)

    serve(ranks[1].crew)

    assert ranks[1].evaluator.notes == [Tag.WORK, Tag.STOP]
    assert ranks[1].master is None


def test_an_heir_serves_until_it_has_told_itself_to_stop(network, ranks):
    network.fail(0)

    class Ending(Noting):
        def poll(self):
            for rank in range(4):
                ranks[1].post.send(rank, Tag.STOP, Stop())
            return True

    def succeed(crew):
        crew.add(Ending({Tag.REPORT, Tag.STOP}))

    ranks[1].crew._succeed = succeed

    for rank in (1, 2, 3):
        serve(ranks[rank].crew)

    assert [rank.evaluator.active for rank in ranks] == [True, False, False, False]
    assert [rank.post.lowest for rank in ranks] == [0, 1, 1, 1]
