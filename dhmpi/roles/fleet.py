"""The evaluators that a dispatcher knows: what each holds, which could do with more, and what they are to be told.

Start reading at :class:`Fleet`.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from dhmpi.mpi.protocol import Work
from dhmpi.trials import Trial


@dataclass
class Evaluator:
    """What is known of one evaluator."""

    rank: int
    host: str
    queue: deque[int] = field(default_factory=deque)
    """Trials it holds, in order: the first is running, the others are placed."""
    seen: float = 0.0
    since: float = 0.0
    """When the first of the queue became the first."""
    silent: bool = False
    retired: bool = False
    """It gets nothing new."""
    barred: bool = False
    """Its host is left out."""
    awaited: bool = False
    """An earlier master gave it trials, and it has not said yet which of them it has."""
    recalled: bool = False
    leaving: set[int] = field(default_factory=set)
    """Trials that it was told to leave to others, and has not answered for."""

    @property
    def usable(self) -> bool:
        """Whether it may get trials."""
        return not (self.silent or self.retired or self.barred or self.awaited)


class Orders:
    """A `Work` message in the making."""

    __slots__ = ("acknowledged", "cancelled", "dropped", "recalled", "stopped", "trials")

    def __init__(self) -> None:
        self.trials: list[Trial] = []
        self.acknowledged: list[int] = []
        self.recalled: list[int] = []
        self.cancelled: list[int] = []
        self.stopped: list[int] = []
        self.dropped: list[int] = []

    @property
    def work(self) -> Work:
        return Work(self.trials, self.acknowledged, self.recalled, self.cancelled, self.stopped, self.dropped)


class Outbox:
    """Messages for evaluators, until they are sent; most often one for each."""

    def __init__(self) -> None:
        self._orders: dict[int, Orders] = {}
        self._before: list[tuple[int, Orders]] = []  # to be sent before those

    def to(self, rank: int) -> Orders:
        """Return the message for a rank that is in the making."""
        orders = self._orders.get(rank)
        if orders is None:
            orders = self._orders[rank] = Orders()
        return orders

    def cancel(self, rank: int, ids: Iterable[int]) -> None:
        """Have a rank leave trials."""
        orders = self.to(rank)
        if orders.trials:  # of one message it leaves first, and takes in afterwards
            self._before.append((rank, orders))
            orders = self._orders[rank] = Orders()
        orders.cancelled += ids

    def forget(self, rank: int) -> None:
        """Send nothing to a rank of what has collected."""
        self._orders.pop(rank, None)
        self._before = [(to, orders) for to, orders in self._before if to != rank]

    def take(self) -> list[tuple[int, Work]]:
        """Return the messages that have collected, and forget them."""
        work = [(rank, orders.work) for rank, orders in (*self._before, *self._orders.items())]
        self._before, self._orders = [], {}
        return work


class Fleet:
    """The evaluators of a dispatcher, by their ranks.

    Attributes
    ----------
    idle : OrderedDict of int to None
        Ranks that hold nothing and may get trials, first come first.
    roomy : OrderedDict of int to None
        Busy ranks with room for a placed trial.
    depth : int
        How many trials are placed with a busy rank; `deepen` sets it.
    n_usable : int
        Evaluators that may get trials.
    outbox : Outbox
    """

    def __init__(self) -> None:
        self._evaluators: dict[int, Evaluator] = {}
        # The first of a plain dict takes ever longer to find when the first is what is always removed.
        self.idle: OrderedDict[int, None] = OrderedDict()
        self.roomy: OrderedDict[int, None] = OrderedDict()
        self.depth = 0
        self.n_usable = 0
        self.outbox = Outbox()

    def __getitem__(self, rank: int) -> Evaluator:
        return self._evaluators[rank]

    def __contains__(self, rank: int) -> bool:
        return rank in self._evaluators

    def __iter__(self) -> Iterator[Evaluator]:
        return iter(self._evaluators.values())

    def __len__(self) -> int:
        return len(self._evaluators)

    def get(self, rank: int) -> Evaluator | None:
        """Return the evaluator of a rank, if there is one."""
        return self._evaluators.get(rank)

    def add(self, evaluator: Evaluator) -> None:
        """Take in an evaluator, perhaps in the place of an earlier one of its rank."""
        self._evaluators[evaluator.rank] = evaluator
        self.n_usable += evaluator.usable
        if evaluator.usable:
            self.rest(evaluator)

    def remove(self, evaluator: Evaluator) -> None:
        """Give up an evaluator, and what was to be sent to it."""
        self.change(evaluator, retired=True)
        del self._evaluators[evaluator.rank]
        self.outbox.forget(evaluator.rank)

    def change(self, evaluator: Evaluator, **flags: bool) -> None:
        """Change whether an evaluator may get trials."""
        before = evaluator.usable
        for name, value in flags.items():
            setattr(evaluator, name, value)
        self.n_usable += evaluator.usable - before
        if not evaluator.usable:
            self.idle.pop(evaluator.rank, None)
            self.roomy.pop(evaluator.rank, None)
        elif not before:
            self.rest(evaluator)

    def rest(self, evaluator: Evaluator) -> None:
        """Note whether an evaluator could do with another trial."""
        rank = evaluator.rank
        if not evaluator.queue:
            self.roomy.pop(rank, None)
            if evaluator.usable:
                self.idle[rank] = None
        elif len(evaluator.queue) <= self.depth and evaluator.usable:
            self.roomy[rank] = None

    def unqueue(self, evaluator: Evaluator, id_: int, now: float) -> None:
        """Note that an evaluator holds a trial no more, if it did."""
        queue = evaluator.queue
        if queue and queue[0] == id_:
            queue.popleft()
            evaluator.since = now
        elif id_ in queue:
            queue.remove(id_)
        if not queue:
            evaluator.recalled = False
        self.rest(evaluator)

    def deepen(self, depth: int) -> None:
        """Place so many trials with a busy evaluator from now on."""
        if depth > self.depth:
            for evaluator in self:
                if 0 < len(evaluator.queue) <= depth and evaluator.usable:
                    self.roomy[evaluator.rank] = None
        self.depth = depth

    def recall(self, now: float, patience: float) -> None:
        """Have those return what is placed with them whose evaluation has lasted longer than `patience`."""
        for evaluator in self:
            if len(evaluator.queue) > 1 and not evaluator.recalled and now - evaluator.since > patience:
                evaluator.recalled = True
                self.recall_placed(evaluator)

    def recall_placed(self, evaluator: Evaluator) -> None:
        """Have an evaluator return what is placed with it."""
        self.outbox.to(evaluator.rank).recalled += list(evaluator.queue)[1:]
