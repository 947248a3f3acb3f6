"""The searcher: owns the search and keeps trials ahead at the master.

A search that fits models lives in a process of its own, so that this rank answers within milliseconds while a fit takes
minutes; a search that costs microseconds may live right here.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from dhmpi.mpi import protocol
from dhmpi.mpi.post import Message, Post
from dhmpi.mpi.protocol import Tag
from dhmpi.roles.role import SIGNS_OF_LIFE, SILENCE, EverySeconds, Role
from dhmpi.roles.searchhost import SearchKilledError
from dhmpi.roles.supply import Ask, Supply
from dhmpi.trials import Config, Proposal

MOST_KILLED = 3
"""Processes of the search that may be killed, by the system out of memory for instance, and are replaced."""


class SearchHost(Protocol):
    """Where a search lives; it takes and gives the messages of `dhmpi.search.host`."""

    def send(self, message: dict[str, Any]) -> None: ...
    def poll(self) -> Sequence[dict[str, Any]]: ...
    def fileno(self) -> int | None: ...
    def close(self) -> None: ...


class Searcher(Role):
    """Asks the search, tells it, and passes proposals on.

    Parameters
    ----------
    post : Post
        Whose lowest living rank is the master.
    host : callable
        What the master says at the beginning (`protocol.Begin`) -> where the search lives.
    silence : float, default 90
        Seconds without a sign of life after which others do not count on this rank.
    """

    hears = frozenset({Tag.BEGIN, Tag.NEWS, Tag.CHECK, Tag.STOP})
    shortest_sleep = 2e-3  # there are trials ahead meanwhile

    def __init__(self, post: Post, host: Callable[[protocol.Begin], SearchHost], silence: float = SILENCE) -> None:
        self._post = post
        self._make_host = host
        self._host: SearchHost | None = None
        self._supply: Supply | None = None
        self._asked: Ask | None = None
        self._n_killed = 0
        self._from_before: Sequence[int] = ()  # keys that are ahead since before this searcher
        self._news_since = False  # since it was last considered what to ask
        self._sign_of_life = EverySeconds(silence / SIGNS_OF_LIFE)
        # For an heir of the master:
        self._info: protocol.ProblemInfo | None = None
        self._refused: protocol.Refused | None = None
        self._ahead: dict[int, Config] = {}  # proposals that were neither started nor dropped
        self._untold: set[int] = set()  # keys of which the end is not known
        self._unrecorded: deque[protocol.Proposed] = deque()  # those that may not be in the journal yet
        self._n_added = 0  # points of users that the search knows of
        self._max_evals: int | None = None  # that the search knows of

    def hear(self, message: Message) -> None:
        if message.tag is Tag.NEWS:
            self._news(message.payload)
        elif message.tag is Tag.BEGIN:
            self._begin(message.payload)
        elif message.tag is Tag.CHECK:
            self._check(message.payload)
        elif message.tag is Tag.STOP:
            self.active = False

    def meet(self, heir: protocol.Heir) -> None:
        """Tell what is ahead; answers of the search that the journal does not have are given again."""
        again = [proposed for proposed in self._unrecorded if proposed.ask >= heir.n_asks]
        later = {key for proposed in again for key, _ in proposed.proposals}
        ahead = [Proposal(key, config) for key, config in self._ahead.items() if key not in later]
        pending = sorted(self._untold - later)
        master = self._post.lowest
        searching = protocol.Searching(self._host is not None, self._info, pending, ahead, self._n_added)
        self._post.send(master, Tag.SEARCHING, searching)
        if self._refused is not None:
            self._post.send(master, Tag.NO_PROBLEM, self._refused)
        for proposed in again:
            self._post.send(master, Tag.PROPOSED, proposed)

    def poll(self) -> bool:
        if self._host is None:
            return False
        try:
            answers = self._host.poll()
        except SearchKilledError:
            if self._n_killed == MOST_KILLED:
                raise
            self._n_killed += 1
            self._host = None
            self._post.send(self._post.lowest, Tag.SEARCHING, protocol.Searching(begun=False))
            return True
        for answer in answers:
            self._answer(answer)
        if self._sign_of_life():
            self._post.send(self._post.lowest, Tag.ALIVE, protocol.Alive())
        return bool(answers) or self._ask()

    def filenos(self) -> Sequence[int]:
        fd = None if self._host is None else self._host.fileno()
        return () if fd is None else (fd,)

    def close(self) -> None:
        if self._host is not None:
            self._host.close()

    def _begin(self, begin: protocol.Begin) -> None:
        self._supply = self._asked = None
        self._unrecorded.clear()
        self._untold = {key for key, _ in begin.unfinished}
        self._from_before = begin.ahead
        keys = [*(key for key, _, _ in begin.finished), *(key for key, _ in begin.unfinished)]
        self._n_added = -min([0, *keys])  # theirs are -1, -2, ...
        self._max_evals = begin.spec.get("max_evals")
        configs = dict(begin.unfinished)
        self._ahead = {key: configs[key] for key in begin.ahead}
        self._host = self._make_host(begin)
        self._host.send({"build": begin.spec})
        if begin.finished or begin.unfinished:
            self._host.send(
                {"restore": {"finished": begin.finished, "pending": begin.unfinished, "n_asks": begin.n_asks}}
            )

    def _news(self, news: protocol.News) -> None:
        if self._supply is None:
            self._supply = Supply(news.n_wanted, self._from_before)
        for key in news.started:
            self._ahead.pop(key, None)
        for key in news.dropped:
            self._ahead.pop(key, None)
            self._untold.discard(key)
        self._untold.update(key for key, _ in news.added)
        self._untold.difference_update(key for key, _ in news.told)
        self._n_added += len(news.added)
        while self._unrecorded and self._unrecorded[0].ask < news.n_asks:
            self._unrecorded.popleft()
        self._supply.hear(news, time.monotonic())
        self._news_since = True
        if self._host is not None:
            if news.added:
                self._host.send({"add": news.added})
            if news.max_evals not in (None, self._max_evals):
                self._max_evals = news.max_evals
                self._host.send({"limit": news.max_evals})
            if news.told:
                self._host.send({"tell": news.told})
            if news.dropped:
                self._host.send({"drop": news.dropped})

    def _check(self, check: protocol.Check) -> None:
        if self._host is not None:  # else the master asks again when the search has begun
            self._host.send({"check": check._asdict()})

    def _ask(self) -> bool:
        if self._host is None or self._supply is None or self._asked is not None or not self._news_since:
            return False
        self._news_since = False
        ask = self._supply.next_ask()
        if ask is None:
            return False
        self._asked = ask
        self._supply.asked()
        self._host.send({"ask": {"n": ask.n, "replacing": ask.replacing}})
        return True

    def _answer(self, answer: dict[str, Any]) -> None:
        if "asked" in answer:
            self._proposed(answer["asked"])
        elif "ready" in answer:
            info = answer["ready"]
            self._info = protocol.ProblemInfo(
                info["hyperparameters"],
                info["fingerprint"],
                info["size"],
                info.get("remarks", ()),
                info["logarithmic"],
            )
            self._post.send(self._post.lowest, Tag.PROBLEM, self._info)
        elif "checked" in answer:
            self._post.send(self._post.lowest, Tag.CHECKED, protocol.Checked(**answer["checked"]))
        elif "refused" in answer:
            self._refused = protocol.Refused(answer["refused"])
            self._post.send(self._post.lowest, Tag.NO_PROBLEM, self._refused)

    def _proposed(self, asked: dict[str, Any]) -> None:
        ask, self._asked = self._asked, None
        supply = self._supply
        if ask is None or supply is None:
            raise RuntimeError("the search answered a question that nobody has asked")
        proposals = [Proposal(key, config) for key, config in asked["proposals"]]
        keys = [key for key, _ in proposals]
        supply.answered(ask, keys, asked["informed"], asked["seconds"], asked["exhausted"])
        self._news_since = True
        proposed = protocol.Proposed(
            asked["ask"],
            asked["told"],
            asked["pending"],
            proposals,
            ask.replacing,
            exhausted=asked["exhausted"],
            seconds=asked["seconds"],
            reused=asked["reused"],
            notes=asked["notes"],
            stop=asked["stop"],
            informed=asked["informed"],
        )
        for key in ask.replacing:
            self._ahead.pop(key, None)
        self._ahead.update(proposals)
        self._untold.update(key for key, _ in proposals)
        self._unrecorded.append(proposed)
        self._post.send(self._post.lowest, Tag.PROPOSED, proposed)
