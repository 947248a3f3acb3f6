"""Agents without MPI: what they say to each other, who hears it, and what becomes of an update when one has gone."""

import dataclasses
import threading
import time
from collections import deque

import numpy as np
import pytest

from dhmpi.mpi.post import Message
from dhmpi.mpi.protocol import Learn, Tag
from dhmpi.roles.agent import Agent, Bell, Team
from dhmpi.search.ppo import Learner, Settings

LIMIT = 20.0
SETTINGS = Settings(network="ppo_lstm_32", noptepochs=2)
REWARDS = np.arange(6.0)


class Post:
    """Messages between agents of one process."""

    lowest = 0

    def __init__(self, rank, inboxes):
        self.rank, self.inboxes = rank, inboxes
        self.dead = set()

    def send(self, rank, tag, payload):
        self.inboxes[rank].append(Message(self.rank, tag, payload))


@pytest.fixture
def inboxes():
    """Return what each rank has been sent."""
    return {rank: deque() for rank in range(4)}


@pytest.fixture
def agents(inboxes):
    """Return the agents of ranks 2 and 3; that of rank 1 leads."""
    agents = {rank: Agent(Post(rank, inboxes), (1, 2, 3)) for rank in (2, 3)}
    yield agents
    for agent in agents.values():
        agent.close()


def learner():
    return Learner([2, 3], SETTINGS, 1)


def share():
    episodes = learner().sample(range(6))
    maker = {"n_options": [2, 3], "settings": dataclasses.asdict(SETTINGS), "seed": 1}
    return Learn(
        1,
        1,
        learner().fingerprint(),
        maker,
        episodes.choices,
        episodes.log_probabilities,
        episodes.values,
        REWARDS,
        0.0,
    )


def wait_for(condition):
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_what_an_earlier_leader_has_not_got_does_not_reach_the_next(agents, inboxes):
    agent = agents[3]
    agent.hear(Message(1, Tag.LEARN, share()))
    wait_for(lambda: agent._apprentice.outbox)

    agent.hear(Message(2, Tag.LEARN, share()))
    wait_for(lambda: agent._apprentice.outbox)
    agent.poll()

    assert not inboxes[1]
    assert [message.tag for message in inboxes[2]] == [Tag.PART]


@pytest.mark.parametrize("n_parts", [None, 0, 3], ids=["nobody", "at once", "on the way"])
def test_a_team_learns_what_one_alone_does_whoever_dies(agents, inboxes, n_parts):
    alone, leading = learner(), learner()
    alone.update(alone.sample(range(6)), REWARDS)
    living = set(agents)
    team = Team(Bell(), lambda: sorted(living), LIMIT)
    thread = threading.Thread(target=team.update, args=(leading, leading.sample(range(6)), REWARDS, 0.0), daemon=True)

    thread.start()
    n_heard = 0

    def go_on():
        nonlocal n_heard
        if n_heard == n_parts:
            living.discard(3)
        while team.outbox:
            rank, tag, payload = team.outbox.popleft()
            if rank in living:
                agents[rank].hear(Message(1, tag, payload))
        for rank in living:
            agents[rank].poll()
        while inboxes[1]:
            message = inboxes[1].popleft()
            n_heard += message.source == 3
            team.hear(message)
        return not thread.is_alive()

    wait_for(go_on)
    wait_for(lambda: go_on() and not any(agents[rank]._apprentice._thread.is_alive() for rank in living))

    np.testing.assert_allclose(leading.policy.parameters, alone.policy.parameters, rtol=1e-9, atol=1e-12)
    for rank in living:
        assert agents[rank]._apprentice._learner.fingerprint() == leading.fingerprint()
