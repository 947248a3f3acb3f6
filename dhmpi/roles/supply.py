"""When to ask the search for more, for how many, and which of its proposals to replace.

Pure arithmetic with the time as an argument, so that the searcher and the virtual-time driver decide alike.  The aim:
an idle evaluator finds a trial ahead at the master, made with as much knowledge as possible.  Where evaluations are so
long that waiting for an answer costs next to nothing (:func:`pays_to_wait`), the master keeps back what is ahead until
it has been replaced by what knows of the last outcome, too.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from dhmpi.mpi.protocol import News

LATENCY = 0.02
"""Seconds from a request to proposals at the master, besides the time of the ask itself."""
FIRST_ASK = 0.3
"""Seconds that an ask is believed to take before one has been seen."""
MEMORY = 0.95
"""How much of the longest ask so far is still believed at the next one: fits differ in length."""
GROWTH = 3.0
"""Times the rate seen so far that evaluators may turn out to want: they cannot show it while they wait."""
MOST_PER_ASK = 4096
MOST_AHEAD = 16384
LONGEST_ASK = 2.0
"""Seconds: where evaluators want more than the search can give, asks stay so short that it learns in between."""
STEP = 4
"""Times that one ask may be larger than the one before, since a larger one may take disproportionately longer."""
NEWS_EVERY = 0.01
"""Seconds for which the master collects news for the searcher as long as there are trials ahead."""
WORTH = 0.005
"""Part of an evaluation that an evaluator may be idle for the sake of a proposal that knows of the last outcome."""
LOAD = 0.05
"""Part of its time that the search may spend on that, so that hardly any evaluator waits for another's proposal."""
RESERVE = 1 / 16
"""Part of the evaluators for which there is a trial ahead whatever they are doing, where waiting costs so little."""
RATE_WINDOW = 0.02
RATE_MEMORY = 1.0
"""Seconds: how long a rate is measured, and how fast an older one is forgotten."""


class Ask(NamedTuple):
    """A question for the search."""

    n: int
    replacing: tuple[int, ...]


def pays_to_wait(ask_seconds: float, duration: float, n_evaluators: int) -> bool:
    """Return whether an idle evaluator should wait for an answer rather than start what was proposed before.

    Parameters
    ----------
    ask_seconds : float
        That the search takes for an answer.
    duration : float
        Seconds of an evaluation.
    n_evaluators : int
    """
    seconds = ask_seconds + LATENCY
    return seconds <= WORTH * duration and n_evaluators * seconds <= LOAD * duration


class Supply:
    """Keeps as many trials ahead as evaluators will want before the next answer of the search.

    Parameters
    ----------
    n_wanted : int
        Trials that the budget still allows.
    ahead : iterable of int
        Keys that are ahead already.
    """

    def __init__(self, n_wanted: int, ahead: Iterable[int] = ()) -> None:
        self.n_evaluators = 1
        self.n_wanted = n_wanted
        self.exhausted = False
        self._short = False  # whether the search has no more only until it is told something
        # key -> whether newer knowledge would change it
        self._ahead: dict[int, bool] = dict.fromkeys(ahead, False)
        self._n_informed = 0  # of those, that newer knowledge would change
        self._told = 0
        self._told_at_ask = 0
        self._awaited = False  # whether evaluators wait for an answer that knows what has been told
        self._n_idle = 0
        self._ask_seconds = FIRST_ASK
        self._asks: deque[tuple[int, float]] = deque(maxlen=5)  # proposals and seconds of the last
        self._most = 0  # proposals of the next, if more than two per evaluator
        self._duration: float | None = None
        self._rate = 0.0  # trials started per second
        self._started = 0
        self._window = 0.0  # when the counting of _started began

    @property
    def n_ahead(self) -> int:
        return len(self._ahead)

    def hear(self, news: News, now: float) -> None:
        """Take in what happened at the master."""
        for keys in (news.started, news.dropped):
            for key in keys:
                self._n_informed -= self._ahead.pop(key, False)
        self._told += len(news.told)
        self._awaited |= news.awaited
        self._n_idle = news.n_idle
        self.n_evaluators = max(1, news.n_evaluators)
        self.n_wanted = news.n_wanted
        self._duration = news.duration
        if news.dropped or (self._short and news.told):
            self.exhausted = False  # what was dropped may be proposed again
        self._started += len(news.started)
        elapsed = now - self._window
        if elapsed >= RATE_WINDOW:
            # What evaluators have wanted once they may want again, so a lull is believed later than a rush.
            self._rate = max(self._started / elapsed, self._rate * math.exp(-elapsed / RATE_MEMORY))
            self._started, self._window = 0, now

    def next_ask(self) -> Ask | None:
        """Return what to ask the search now, or None if the supply will do."""
        if self.exhausted:
            return None
        expected = self._demand() * (self._ask_seconds + LATENCY)
        used_meanwhile = math.ceil(expected)
        target = min(self.n_wanted, self._reserve() + 2 * used_meanwhile, MOST_AHEAD)
        if self._n_informed and (self._awaited or self._told - self._told_at_ask >= max(1, self._told // 50)):
            # Those that will be started before the answer is here stay; newer knowledge replaces the others.  One that
            # is started against expectation is no harm: what would have replaced it is dropped if it is the same.
            first = 0 if self._awaited else int(expected)
            stale = tuple(key for key in list(self._ahead)[first:] if self._ahead[key])
        else:
            stale = ()
        most = min(max(self._most, 2 * self.n_evaluators), MOST_PER_ASK)
        stale = stale[:most]
        n = min(target - len(self._ahead) + len(stale), most)
        if n <= 0 or (not stale and 2 * len(self._ahead) >= target):
            return None
        return Ask(n, stale)

    def asked(self) -> None:
        """Note that the search has begun to think."""
        self._told_at_ask = self._told
        self._awaited = False

    def answered(self, ask: Ask, keys: Iterable[int], informed: bool, seconds: float, exhausted: bool = True) -> None:
        """Note the answer of the search.

        Parameters
        ----------
        informed : bool
            Whether the proposals depend on what the search was told, so that later ones may be better.
        seconds : float
            How long the search took.
        exhausted : bool
            Whether, if there are fewer keys than asked for, more outcomes cannot change that.
        """
        before = len(self._ahead)
        self._ahead.update(dict.fromkeys(keys, informed))
        self._n_informed += informed * (len(self._ahead) - before)
        self._short = len(self._ahead) - before < ask.n and not exhausted
        self.exhausted = len(self._ahead) - before < ask.n and not (self._short and self._told > self._told_at_ask)
        self._ask_seconds = max(seconds, MEMORY * self._ask_seconds)
        self._asks.append((ask.n, max(seconds, 1e-6)))
        n_per_second = sum(n for n, _ in self._asks) / sum(seconds for _, seconds in self._asks)
        self._most = int(min(STEP * ask.n, LONGEST_ASK * n_per_second))

    def _reserve(self) -> int:
        """Return for how many evaluators that become idle at the same instant there should be a trial.

        For all; but where they would wait only a tiny part of an evaluation for an answer, or wait for one anyway, what
        is ahead for so many only has to be replaced again and again before it is started.
        """
        if self._duration is None or self._ask_seconds + LATENCY > WORTH * self._duration:
            return self.n_evaluators
        if pays_to_wait(self._ask_seconds, self._duration, self.n_evaluators):
            return min(self._n_idle + 1, self.n_evaluators)
        return math.ceil(RESERVE * self.n_evaluators)

    def _demand(self) -> float:
        """Return the trials per second that evaluators would start if they never waited."""
        if self._duration is None:
            return 0.0  # nothing has finished: what was started were the first ones, and nobody wants a second yet
        seen = GROWTH * self._rate
        return min(seen, self.n_evaluators / self._duration) if self._duration else seen
