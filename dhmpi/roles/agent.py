"""Agents: ranks that hold equal copies of a policy and share the work of teaching it.

The first living agent leads: it is the searcher, samples architectures, and when a batch is in it gives every agent a
share.  Each computes sums over its share; the leader adds them up and says the totals, with which all take the same
step.  That is an all-reduce by messages: they are few and small (a megabyte for the largest policy, ten times an
update), and an agent's death is met where it happens, without a communicator to be repaired.  All that can take long
runs in a thread, which does no MPI; the rank goes on answering.
"""

from __future__ import annotations

import dataclasses
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dhmpi.mpi import protocol
from dhmpi.mpi.post import Message, Post
from dhmpi.mpi.protocol import Tag
from dhmpi.roles.role import SILENCE
from dhmpi.roles.searcher import Searcher
from dhmpi.search.host import Host
from dhmpi.search.policy import Episodes
from dhmpi.search.ppo import Learner, Metrics, Settings

CLOSING = 2.0
"""Seconds that a search has to end what it is doing."""


class _Interrupted(Exception):
    """An update cannot go on: an agent has gone, or everything begins anew."""


class _Closed(BaseException):
    """Nobody wants the search of this thread any more."""


class Bell:
    """Wakes a rank that sleeps on file descriptors, from another thread."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)

    def fileno(self) -> int:
        return self._read

    def ring(self) -> None:
        try:
            os.write(self._write, b"\0")
        except BlockingIOError:
            pass  # it rings already

    def hush(self) -> None:
        try:
            os.read(self._read, 4096)
        except BlockingIOError:
            pass


class Team:
    """All agents, seen from the thread in which the leader's search lives.

    Parameters
    ----------
    bell : Bell
        Rung when there is something to send.
    others : callable
        Returns the ranks of the other agents that live.
    silence : float
        Seconds that an agent may take for its part of an update before the others go on without it.
    """

    def __init__(self, bell: Bell, others: Callable[[], Sequence[int]], silence: float) -> None:
        self._bell = bell
        self._others = others
        self._silence = silence
        self._missing: set[int] = set()  # agents that did not answer, until they do
        self._closed = False
        self._attempt = 0
        self._number = 0  # of the next reduction within the attempt
        self._members: list[int] = []
        self._state: dict[str, np.ndarray] = {}
        self.outbox: deque[tuple[int, Tag, Any]] = deque()
        self._inbox: queue.SimpleQueue[tuple[int, Any]] = queue.SimpleQueue()

    # -- in the search's thread ----------------------------------------------------------------------------------------

    def update(self, learner: Learner, episodes: Episodes, rewards: np.ndarray, progress: float) -> Metrics:
        """Have all agents learn a batch; again from the beginning, without them, when some are lost on the way."""
        self._state = learner.state()
        while True:
            try:
                return self._try(learner, episodes, rewards, progress)
            except _Interrupted:
                learner.restore(self._state)

    def _try(self, learner: Learner, episodes: Episodes, rewards: np.ndarray, progress: float) -> Metrics:
        self._attempt += 1
        self._members = [rank for rank in self._others() if rank not in self._missing][: len(rewards) - 1]
        size = len(self._members) + 1
        maker = {
            "n_options": list(learner.policy.n_options),
            "settings": dataclasses.asdict(learner.settings),
            "seed": learner.seed,
        }
        fingerprint = learner.fingerprint()
        for agent, rank in enumerate(self._members, start=1):
            share = episodes.take(range(agent, len(rewards), size))
            learn = protocol.Learn(
                self._attempt,
                agent,
                fingerprint,
                maker,
                share.choices,
                share.log_probabilities,
                share.values,
                rewards[agent::size],
                progress,
            )
            self._send(rank, Tag.LEARN, learn)
        self._number = 0
        return learner.update(episodes.take(range(0, len(rewards), size)), rewards[::size], self._reduce, progress)

    def _reduce(self, array: np.ndarray) -> np.ndarray:
        """Return the sum over all agents, added up in the order of their ranks, and tell it to all."""
        number, self._number = self._number, self._number + 1
        parts: dict[int, np.ndarray] = {}
        deadline = time.monotonic() + self._silence
        while len(parts) < len(self._members):
            if self._closed:
                raise _Closed
            missing = set(self._members) - parts.keys()
            if not missing.issubset(self._others()):
                raise _Interrupted
            try:
                rank, payload = self._inbox.get(timeout=min(0.5, max(0.0, deadline - time.monotonic())))
            except queue.Empty:
                if time.monotonic() >= deadline:
                    self._missing |= missing
                    raise _Interrupted from None
                continue
            self._missing.discard(rank)
            if payload.attempt != self._attempt:
                continue
            if isinstance(payload, protocol.State):
                self._send(rank, Tag.STATE, protocol.State(self._attempt, self._state))
            elif payload.number == number:
                parts[rank] = payload.array
        total = array.copy()
        for rank in self._members:
            total += parts[rank]
        for rank in self._members:
            self._send(rank, Tag.TOTAL, protocol.Sums(self._attempt, number, total))
        return total.copy()  # the learner works in it, while the other is being sent

    def _send(self, rank: int, tag: Tag, payload: Any) -> None:
        self.outbox.append((rank, tag, payload))
        self._bell.ring()

    # -- in the rank's thread ------------------------------------------------------------------------------------------

    def hear(self, message: Message) -> None:
        """Take in what another agent says."""
        self._inbox.put((message.source, message.payload))

    def close(self) -> None:
        """Have the search's thread end when it next waits for other agents."""
        self._closed = True


class SearchThread:
    """A search in a thread of this rank: for one that learns with a team of ranks.

    Parameters
    ----------
    team : Team
    bell : Bell
    """

    def __init__(self, team: Team, bell: Bell) -> None:
        self._bell = bell
        self._team = team
        self._host = Host(team)
        self._messages: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._answers: deque[dict[str, Any]] = deque()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._live, name="search", daemon=True)
        self._thread.start()

    def send(self, message: dict[str, Any]) -> None:
        self._messages.put(message)

    def poll(self) -> Sequence[dict[str, Any]]:
        if self._error is not None:
            raise RuntimeError("the search has failed") from self._error
        answers = []
        while self._answers:
            answers.append(self._answers.popleft())
        return answers

    def fileno(self) -> int | None:
        return self._bell.fileno()

    def close(self) -> None:
        self._team.close()
        self._messages.put(None)
        self._thread.join(CLOSING)  # it may be writing its checkpoint

    def _live(self) -> None:
        try:
            while (message := self._messages.get()) is not None:
                answer = self._host.handle(message)
                if answer is not None:
                    self._answers.append(answer)
                    self._bell.ring()
        except _Closed:
            pass
        except BaseException as error:  # the rank's thread reports it
            self._error = error
            self._bell.ring()


class Apprentice:
    """An agent that does not lead: learns what the leader gives it.

    Parameters
    ----------
    bell : Bell
        Rung when there is something to send.
    """

    def __init__(self, bell: Bell) -> None:
        self._bell = bell
        self.outbox: deque[tuple[Tag, Any]] = deque()
        self._learner: Learner | None = None
        self._before: dict[str, np.ndarray] = {}  # the learner's state before the last attempt
        self._before_print = ""
        self._inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self.error: BaseException | None = None

    def hear(self, tag: Tag, payload: Any) -> None:
        """Take in a message of the leader."""
        if tag is not Tag.LEARN:
            self._inbox.put(payload)
            return
        self.stop()
        self.outbox.clear()  # what another leader has not got; attempts of both may have one number
        self._inbox = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._learn, args=(payload, self._inbox), name="agent", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End what is being learned; the leader, or another one, will begin it again."""
        if self._thread is not None:
            self._inbox.put(None)
            self._thread.join()
            self._thread = None

    def _learn(self, learn: protocol.Learn, inbox: queue.SimpleQueue[Any]) -> None:
        number = 0

        def reduce(array: np.ndarray) -> np.ndarray:
            nonlocal number
            self._send(Tag.PART, protocol.Sums(learn.attempt, number, array))
            while True:
                total = inbox.get()
                if total is None:
                    raise _Interrupted
                if isinstance(total, protocol.Sums) and (total.attempt, total.number) == (learn.attempt, number):
                    number += 1
                    return np.array(total.array)

        try:
            learner = self._equal_learner(learn, inbox)
            self._before, self._before_print = learner.state(), learn.fingerprint
            learner.agent = learn.agent
            episodes = Episodes(learn.choices, learn.log_probabilities, learn.values)
            learner.update(episodes, learn.rewards, reduce, learn.progress)
        except _Interrupted:
            pass
        except BaseException as error:  # the rank's thread reports it
            self.error = error
            self._bell.ring()

    def _equal_learner(self, learn: protocol.Learn, inbox: queue.SimpleQueue[Any]) -> Learner:
        """Return a learner that equals the leader's to the last bit."""
        learner = self._learner
        if learner is None:
            settings = Settings(**learn.learner["settings"])
            learner = self._learner = Learner(learn.learner["n_options"], settings, learn.learner["seed"])
        if learner.fingerprint() == learn.fingerprint:
            return learner
        if self._before_print == learn.fingerprint:
            learner.restore(self._before)  # the last attempt was broken off
            return learner
        self._send(Tag.NEED, protocol.State(learn.attempt))
        while True:
            state = inbox.get()
            if state is None:
                raise _Interrupted
            if isinstance(state, protocol.State) and state.attempt == learn.attempt and state.learner is not None:
                learner.restore(state.learner)
                return learner

    def _send(self, tag: Tag, payload: Any) -> None:
        self.outbox.append((tag, payload))
        self._bell.ring()


class Agent(Searcher):
    """One agent: the searcher, once a master has told it to begin, and before that one that learns with it.

    Parameters
    ----------
    post : Post
    agents : sequence of int
        The ranks of all agents.
    silence : float, default 90
        Seconds without a sign of life after which others do not count on a rank.
    """

    hears = Searcher.hears | {Tag.LEARN, Tag.TOTAL, Tag.STATE, Tag.PART, Tag.NEED}

    def __init__(self, post: Post, agents: Sequence[int], silence: float = SILENCE) -> None:
        self._bell = Bell()
        self._agents = agents
        self._team: Team | None = None
        self._apprentice = Apprentice(self._bell)
        self._leader = -1
        self._silence = silence
        super().__init__(post, self._lead, silence)

    def hear(self, message: Message) -> None:
        if message.tag in (Tag.LEARN, Tag.TOTAL, Tag.STATE):
            if message.tag is Tag.LEARN:
                self._leader = message.source
            if message.source == self._leader:
                self._apprentice.hear(message.tag, message.payload)
        elif message.tag in (Tag.PART, Tag.NEED):
            if self._team is not None:
                self._team.hear(message)
        else:
            super().hear(message)

    def lost(self, ranks: Sequence[int]) -> None:
        if self._leader in ranks:
            self._apprentice.stop()

    def poll(self) -> bool:
        self._bell.hush()
        if self._apprentice.error is not None:
            raise RuntimeError("an agent cannot learn") from self._apprentice.error
        busy = super().poll()
        while self._apprentice.outbox:
            tag, payload = self._apprentice.outbox.popleft()
            self._post.send(self._leader, tag, payload)
            busy = True
        while self._team is not None and self._team.outbox:
            rank, tag, payload = self._team.outbox.popleft()
            self._post.send(rank, tag, payload)
            busy = True
        return busy

    def filenos(self) -> Sequence[int]:
        return (self._bell.fileno(),)

    def close(self) -> None:
        self._apprentice.stop()
        super().close()

    def _lead(self, begin: protocol.Begin) -> SearchThread:
        self._apprentice.stop()
        if self._host is not None:
            self._host.close()
        self._team = Team(self._bell, self._others, self._silence)
        return SearchThread(self._team, self._bell)

    def _others(self) -> list[int]:
        """Return the other agents that live; also called by the search's thread."""
        post = self._post
        return [rank for rank in self._agents if rank != post.rank and rank not in post.dead]
