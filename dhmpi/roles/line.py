"""What nobody has got yet, in the order in which it will be started.  Start reading at :class:`Line`."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence

from dhmpi.trials import Config, Trial

Point = tuple[int, Config]
"""Key and configuration."""


class Line:
    """Trials to be tried again, then points of users, then what the search has proposed.

    The search proposes while trials are started and users add points: what is proposed may be there already.  It is
    dropped then, and the search is told.

    Attributes
    ----------
    waiting : deque of Trial
        Trials to be tried again.
    added : deque of (int, dict)
        Points of users.
    ahead : deque of (int, dict)
        Proposals of the search.
    """

    def __init__(self) -> None:
        self.waiting: deque[Trial] = deque()
        self.added: deque[Point] = deque()
        self.ahead: deque[Point] = deque()
        self._unknown: dict[int, Config] = {}  # points of users that the search may not know of
        self._recent: OrderedDict[int, Config] = OrderedDict()  # those started last

    def __bool__(self) -> bool:
        return bool(self.waiting or self.added or self.ahead)

    def add(self, points: Sequence[Point]) -> list[int]:
        """Put points of users in line; return the keys of what is ahead no more, since it equals one of them."""
        self.added.extend(points)
        self._unknown.update(points)
        configs = [config for _, config in points]
        equal = {key for key, config in self.ahead if config in configs}
        if equal:
            self.ahead = deque(item for item in self.ahead if item[0] not in equal)
        return list(equal)

    def propose(self, proposals: Iterable[Point], replacing: Iterable[int], known: Iterable[int]) -> list[int]:
        """Put proposals ahead; return the keys of those that are dropped, new or old.

        Parameters
        ----------
        proposals : iterable of (int, dict)
        replacing : iterable of int
            Keys of those ahead in whose place they come.
        known : iterable of int
            Keys that the search took for pending when it chose them.
        """
        dropped: list[int] = []
        replacing = set(replacing)
        if replacing:
            dropped = [key for key, _ in self.ahead if key in replacing]
            self.ahead = deque(item for item in self.ahead if item[0] not in replacing)
            # Some were started while the search was thinking: what equals one of them is not proposed a second time.
            raced = [self._recent[key] for key in replacing.difference(dropped) if key in self._recent]
            proposals = _without(raced, proposals, dropped)
        if self._unknown:  # so is what equals a point that the search did not know of
            for key in self._unknown.keys() & set(known):
                del self._unknown[key]
            proposals = _without(list(self._unknown.values()), proposals, dropped)
        self.ahead.extend(proposals)
        return dropped

    def started(self, key: int, config: Config, most: int) -> None:
        """Note what was started; the last `most` of them are remembered."""
        self._recent[key] = config
        if len(self._recent) > most:
            self._recent.popitem(last=False)

    def finished(self, key: int) -> None:
        """Note what has finished, of which the search is told."""
        self._unknown.pop(key, None)

    def reclaim(self, id_: int) -> Trial | None:
        """Take out a trial that was waiting for another try; return it, or None."""
        for trial in self.waiting:
            if trial.id == id_:
                self.waiting.remove(trial)
                return trial
        return None


def _without(configs: list[Config], proposals: Iterable[Point], dropped: list[int]) -> Iterable[Point]:
    """Return the proposals that equal none of `configs`; the keys of the others join `dropped`."""
    if not configs:
        return proposals
    proposals = list(proposals)
    dropped += [key for key, config in proposals if config in configs]
    return [(key, config) for key, config in proposals if config not in configs]
