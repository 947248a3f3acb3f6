"""The search of a run once more: told what it was told, it must propose what it proposed.  Start at `SearchReplay`."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from dhmpi import journal
from dhmpi.budget import objective_for_search
from dhmpi.errors import RunDirectoryError
from dhmpi.replay.recorded import Divergence, Mismatch, Run, differing, keys_in, shown
from dhmpi.trials import Config, Proposal, Status

if TYPE_CHECKING:
    from dhmpi.search.base import Search

ASKS_BACK = 3
"""Asks before a divergence at which a search that began anew, unrecorded, may explain it."""
MOST_ORDERS = 32
"""Orders in which a new master may have told outcomes, that are tried."""


@dataclass
class _Life:
    """A search from its beginning, or its restoration, to its end."""

    search: Search
    size: int | None
    order: list[tuple[int, float | None]]
    """Key and objective of finished trials in the order in which it is told."""
    known: dict[int, Config]
    finished: set[int]
    """Keys of `order`."""
    ask_of: dict[int, int] = field(default_factory=dict)
    """Number of the ask that brought a key."""
    unordered: dict[int, range] = field(default_factory=dict)
    """Keys of an ask that exhausted the space, by each of them."""
    asks: list[int] = field(default_factory=list)
    """Indices of the lines of its asks."""
    heir_at: int | None = None
    """Outcomes in `order` when a new master took over, until the next ask."""
    branch: tuple[int, _Life, list[list[tuple[int, float | None]]]] | None = None
    """An ask, the life before it, and other orders in which outcomes may have been told."""


class _Restored(NamedTuple):
    finished: list[tuple[int, Config, float | None]]
    pending: list[tuple[int, Config]]
    n_asks: int


class SearchReplay:
    """Asks a search again what it was asked, knowing what it knew.

    Inferred, since it is not recorded: how many proposals were wanted of an ask that exhausted the space (so
    their order is not compared); where a search began anew within a launch because its rank had died; in which order a
    new master told what an earlier one had not.

    Attributes
    ----------
    n_asks, n_proposals, n_compared : int
        So far the same; only proposals that were given to an evaluator are on record, and can be compared.
    proposals : dict of int to list of Proposal
        By the index of the line of the ask.
    restarts : dict of int to str
        What was inferred, by the index of the line of an ask; those where a search began anew start with "a".
    divergence : Divergence or None
    """

    def __init__(self, run: Run, build: Callable[[dict[str, Any]], tuple[Search, dict[str, Any]]]) -> None:
        self._run = run
        self._build = build
        self._restored: dict[int, _Restored] = {}
        self._header: dict[str, Any] = {}
        self.proposals: dict[int, list[Proposal]] = {}
        self.compared: set[int] = set()
        self.restarts: dict[int, str] = {}
        self.divergence: Divergence | None = None

    @property
    def n_asks(self) -> int:
        return len(self.proposals)

    @property
    def n_proposals(self) -> int:
        return sum(map(len, self.proposals.values()))

    @property
    def n_compared(self) -> int:
        return len(self.compared)

    def play(self) -> None:
        """Replay everything, up to the first divergence.

        Raises
        ------
        DhmpiError
            If the problem cannot be loaded, or is not the one of the run.
        """
        lines = self._run.lines
        self._restored = self._restorations()
        life: _Life | None = None
        for i in range(len(lines)):
            try:
                life = self._step(life, i)
            except Mismatch as mismatch:
                assert life is not None
                explained = self._explain(life, i)
                if explained is None:
                    self.divergence = Divergence(lines[i], str(mismatch), mismatch.rows)
                    self._disown(lines[i].event, i)
                    return
                life = explained

    def _disown(self, event: dict[str, Any], i: int) -> None:
        """Forget the proposals of the ask that diverged: the dispatcher had others."""
        self.proposals.pop(i, None)
        key = event.get("key")
        for index, proposals in list(self.proposals.items()):
            if any(proposal.key == key for proposal in proposals):
                del self.proposals[index]

    def _restorations(self) -> dict[int, _Restored]:
        """Return from what the search of each launch was restored, by the index of the launch's first line."""
        result = {}
        history = journal.History()
        for i, line in enumerate(self._run.lines):
            if self._run.begins_launch(i):
                finished = [(t.key, t.config, objective_for_search(out)) for out, t in history.finished.values()]
                pending = [(trial.key, trial.config) for trial in history.unfinished.values()]
                pending += history.added.items()
                result[i] = _Restored(finished, pending, history.n_asks)
            history.apply(line.event)
        return result

    def _step(self, life: _Life | None, i: int) -> _Life:
        """Take in a line; return the search that lives after it."""
        event = self._run.lines[i].event
        kind = event["e"]
        if i in self._restored:
            self._header = event
            return self._born(self._restored[i])
        if life is None:
            raise RunDirectoryError(f"{self._run.lines[i].place} comes before the header of a launch")
        if kind == "launch":
            life.heir_at = len(life.order)
        elif kind == "finished":
            key = self._run.keys.get(event["trial"])
            if key is not None and key not in life.finished:  # otherwise a second answer: the first counts
                objective = event["objective"] if event["status"] in (Status.DONE, Status.REUSED) else None
                life.order.append((key, objective))
                life.finished.add(key)
        elif kind == "placed":
            self._compare(life, event)
            self.compared.add(event["key"])
        elif kind == "asked":
            self._ask(life, event, i)
        return life

    def _born(self, restored: _Restored) -> _Life:
        search, info = self._build(self._run.specification(self._header))
        fingerprint = self._run.described.get("fingerprint")
        if fingerprint is not None and fingerprint != info["fingerprint"]:
            raise RunDirectoryError(
                f"the space of {self._run.described['problem']} is not the one that the run in {self._run.path} has"
            )
        if restored.finished or restored.pending:
            search.restore(*restored)
        known = {key: config for key, config, _ in restored.finished} | dict(restored.pending)
        known |= self._run.added
        order = [(key, objective) for key, _, objective in restored.finished]
        return _Life(search, info["size"], order, known, {key for key, _ in order})

    def _compare(self, life: _Life, event: dict[str, Any]) -> None:
        key, config = event["key"], event["config"]
        ours = life.known.get(key)
        if ours == config:
            return
        for other in life.unordered.get(key, ()):
            if life.known[other] == config:
                life.known[key], life.known[other] = config, life.known[key]
                return
        if ours is None:
            raise Mismatch(f"trial {event['trial']} has key {key}, which no ask of the replay brought")
        rows = [(name, shown(config, name), shown(ours, name)) for name in differing(config, ours)]
        ask = f"ask {life.ask_of[key]}" if key in life.ask_of else "an earlier launch"
        raise Mismatch(f"{ask} proposed another configuration with key {key} (trial {event['trial']})", rows)

    def _ask(self, life: _Life, event: dict[str, Any], i: int) -> None:
        """Ask again; the search is first told, and made to forget, what it was."""
        search, number = life.search, event["ask"]
        life.asks.append(i)
        if number != search.n_asks:
            raise Mismatch(f"ask {number} follows where ask {search.n_asks} should")
        replacing = keys_in(event["replacing"])
        target = {*keys_in(event["pending"]), *replacing}
        self._settle_order(life, target, event["told"], i)
        told = life.order[search.n_told : event["told"]]
        if search.n_told > event["told"] or search.n_told + len(told) < event["told"]:
            raise Mismatch(
                f"ask {number} knew {event['told']} outcomes; the replay knew {search.n_told} at the ask before, and "
                f"{len(life.order)} trials had finished"
            )
        self._add_points(search, {key for key, _ in told} | target)
        unknown = {key for key, _ in told}.union(target).difference(search.pending())
        if unknown:
            raise Mismatch(f"ask {number} knew of key {min(unknown)}, which is not pending in the replay")
        wrong = target.intersection(key for key, _ in told)
        if wrong:
            raise Mismatch(f"ask {number} took key {min(wrong)} for pending, of which the replay knew the end")
        search.tell(told)
        search.drop(set(search.pending()) - target)
        exhausts = life.size is not None and event["n"] == life.size - event["told"] - len(target) + len(replacing)
        proposals = search.ask(max(1, event["n"]), frozenset(replacing))
        self.proposals[i] = proposals
        if len(proposals) != event["n"]:
            raise Mismatch(f"ask {number} brought {event['n']} proposals, {len(proposals)} in the replay")
        keys = range(search.next_key - len(proposals), search.next_key)
        for key, config in proposals:
            life.known[key], life.ask_of[key] = config, number
            life.unordered.pop(key, None)
            if exhausts:
                life.unordered[key] = keys

    def _add_points(self, search: Search, keys: set[int]) -> None:
        """Let the search know of the points of users among some keys, as soon as it must have known of them."""
        new = sorted(keys.intersection(self._run.added).difference(search.pending()), reverse=True)
        if new:
            search.add([(key, self._run.added[key]) for key in new])

    def _settle_order(self, life: _Life, target: set[int], n_told: int, i: int) -> None:
        """After a new master took over, find the orders in which outcomes may have been told."""
        if life.heir_at is None or n_told <= life.search.n_told:
            return
        first, split = life.search.n_told, life.heir_at
        life.heir_at = None
        before, after = life.order[first:split], life.order[split:]
        orders: list[list[tuple[int, float | None]]] = []
        # The old master told the first, the new one has told some of its own, then the rest by key, then its own.
        for n_old in range(len(before), -1, -1):
            for n_new in range(len(after) + 1):
                rest = sorted(before[n_old:])
                order = [*before[:n_old], *after[:n_new], *rest, *after[n_new:]]
                possible = not target.intersection(key for key, _ in order[: n_told - first])
                if possible and all(order[: n_told - first] != o[: n_told - first] for o in orders):
                    orders.append(order)
                if not rest:
                    break
        if len(orders) > 1:
            life.branch = (i, copy.deepcopy(dataclasses.replace(life, branch=None)), orders[1 : MOST_ORDERS + 1])
            life.branch[1].asks.pop()
        if orders:
            life.order[first:] = orders[0]

    def _explain(self, life: _Life, i: int) -> _Life | None:
        """Return the search that agrees with the journal up to line `i` in a way that is not recorded, or None."""
        for start, candidate, note in self._alternatives(life, i):
            proposals, compared = dict(self.proposals), set(self.compared)
            try:
                found = candidate
                for j in range(start, i + 1):
                    found = self._step(found, j)
            except Mismatch:
                self.proposals, self.compared = proposals, compared
            else:
                self.restarts[start] = note
                return found
        return None

    def _alternatives(self, life: _Life, i: int) -> Iterator[tuple[int, _Life, str]]:
        if life.branch is not None:
            start, before, orders = life.branch
            for n_tried, order in enumerate(orders, start=1):
                other = copy.deepcopy(before)
                other.order[other.search.n_told :] = order
                other.heir_at = None
                other.branch = (start, before, orders[n_tried:])
                yield start, other, "outcomes were told in another order by a new master"
        for start in reversed(life.asks[-ASKS_BACK:]):
            restored = self._restored_at(life, start)
            if restored is not None:
                yield start, self._born(restored), "a new search began before it"

    def _restored_at(self, life: _Life, i: int) -> _Restored | None:
        """Return from what a search must have been restored that began just before an ask, or None if none could."""
        event = self._run.lines[i].event
        pending = sorted({*keys_in(event["pending"]), *keys_in(event["replacing"])})
        history = journal.History()
        for line in self._run.lines[:i]:
            history.apply(line.event)
        finished = [(t.key, t.config, objective_for_search(out)) for out, t in history.finished.values()]
        finished = finished[: event["told"]]
        configs = {trial.key: trial.config for trial in history.unfinished.values()}
        configs |= {trial.key: trial.config for _, trial in history.finished.values()}
        configs = life.known | configs
        if len(finished) < event["told"] or not configs.keys() >= set(pending):
            return None
        return _Restored(finished, [(key, configs[key]) for key in pending], event["ask"])
