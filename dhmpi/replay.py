"""``python -m dhmpi.replay RUN_DIRECTORY``: run search and dispatcher again on a journal, find where they part.

A journal holds what happened to a run (ranks that join and leave, outcomes, the time) and what the run decided (what to
propose, who gets what).  Here the first is fed to a new search and a new dispatcher, and the second compared.  What a
journal does not hold is inferred, see `SearchReplay` and `DispatcherReplay`; `Invariants` needs no inference.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dhmpi import __version__, journal
from dhmpi.budget import Limits, objective_for_search
from dhmpi.check import Parser
from dhmpi.errors import EXIT_BAD_INPUT, DhmpiError, RunDirectoryError
from dhmpi.mpi.layout import plan, restored
from dhmpi.mpi.protocol import Proposed
from dhmpi.options import SearchOptions
from dhmpi.roles.dispatcher import Dispatcher
from dhmpi.roles.groupdispatcher import make_dispatcher
from dhmpi.rundirectory import WARM_START, described
from dhmpi.steering import Action, added
from dhmpi.trials import Config, Outcome, Proposal, Status

if TYPE_CHECKING:
    import argparse

    from rich.console import Console

    from dhmpi.roles.program import Program
    from dhmpi.search.base import Search

PROG = "python -m dhmpi.replay"
DESCRIPTION = (
    "Run search and dispatcher again on the journal of a run, and report the first thing they do otherwise. Exit code"
    " 0 if there is none, 1 if there is one, 2 if there is nothing to replay."
)
EXIT_DIVERGED = 1
PARTS = ("search", "dispatcher")
ASKS_BACK = 3
"""Asks before a divergence at which a search that began anew, unrecorded, may explain it."""
MOST_ORDERS = 32
"""Orders in which a new master may have told outcomes, that are tried."""


class Line(NamedTuple):
    """A line of the journal that counts."""

    file: str
    number: int
    event: dict[str, Any]

    @property
    def place(self) -> str:
        return f"{self.file} line {self.number}"


@dataclass(frozen=True)
class Divergence:
    """Where journal and replay part.

    Parameters
    ----------
    line : Line
    sentence : str
        What differs.
    rows : tuple of (str, str, str)
        Name, and its value in journal and replay, of what differs.
    """

    line: Line
    sentence: str
    rows: tuple[tuple[str, str, str], ...] = ()


class Run:
    """A run on record.

    Parameters
    ----------
    path : Path
        Its directory.

    Attributes
    ----------
    lines : list of Line
    added : dict of int to dict
        Points of users: their configurations by key.
    described : dict
        Content of run.json.

    Raises
    ------
    RunDirectoryError
        If there is no journal, or run.json lacks what is needed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines = list(_located(path / "journal"))
        if not self.lines:
            raise RunDirectoryError(f"{path} holds no run: it has no journal with a whole line")
        self.described = described(path, "problem", "seed", "options")
        # A trial keeps its key, so outcomes can be told before it is known who proposed them.
        self.keys = {line.event["trial"]: line.event["key"] for line in self.lines if line.event["e"] == "placed"}
        self.added = added([line.event for line in self.lines])

    def options(self, header: dict[str, Any]) -> SearchOptions:
        """Return the options of a launch."""
        return self._program(header)[1]

    def repeats(self, header: dict[str, Any]) -> bool:
        """Return whether the search of a launch may evaluate a configuration more than once."""
        program, options = self._program(header)
        return program.repeats(options)

    @property
    def has_agents(self) -> bool:
        """Whether agents share the search: what it proposes depends on their number, to the last bit."""
        program, options = self._program(self.lines[0].event)
        return program.agents(options) > 0

    def _program(self, header: dict[str, Any]) -> tuple[Program, SearchOptions]:
        """Return the entry point of a launch and its options, which give it away in journals that do not name it."""
        values = header.get("options") or self.described["options"]
        common = {item.name for item in dataclasses.fields(SearchOptions)}
        for program in _programs():
            names = {item.name for item in dataclasses.fields(program.options)}
            if header["program"] == program.module if "program" in header else names - common <= values.keys():
                return program, program.options(**{name: values[name] for name in names & values.keys()})
        raise RunDirectoryError(f"{self.path} holds a run of a search that cannot be replayed: its options are unknown")

    def specification(self, header: dict[str, Any]) -> dict[str, Any]:
        """Return what the searcher of a launch built its search from."""
        program, options = self._program(header)
        return {
            **program.spec(options),
            "problem": self.described["problem"],
            "seed": self.described["seed"],
            "n_evaluators": self._n_evaluators(header, options),
            "max_evals": options.max_evals,
            **({"warm_start": str(copy)} if (copy := self.path / WARM_START).exists() else {}),
        }

    def layout(self, header: dict[str, Any]) -> dict[str, Any]:
        """Return the layout of a launch, empty if run.json has another's: it keeps that of the last launch only."""
        layout = self.described.get("layout", {})
        return layout if len(layout.get("hosts", ())) == header.get("ranks") else {}

    def _n_evaluators(self, header: dict[str, Any], options: SearchOptions) -> int:
        layout = self.layout(header)
        if layout:
            return len(layout["groups"])
        return plan(("",) * header["ranks"], job_mode=options.job_mode).n_evaluators

    def begins_launch(self, index: int) -> bool:
        """Return whether a line is the header of a launch's first master."""
        event = self.lines[index].event
        if event["e"] != "launch":
            return False
        earlier = (line.event for line in reversed(self.lines[:index]) if line.event["e"] == "launch")
        before = next(earlier, None)
        return before is None or before["launch"] != event["launch"]


def _programs() -> tuple[Program, ...]:
    """Return the entry points whose searches can be replayed."""
    from dhmpi import agebo, ambs, ppo, random, regevo  # late, as all that --help does without
    from dhmpi.nas import post

    # Random's options are among regevo's, regevo's but one and ambs' among agebo's.
    return (agebo.PROGRAM, ambs.PROGRAM, ppo.PROGRAM, regevo.PROGRAM, random.PROGRAM, post.PROGRAM)


def _located(directory: Path) -> Iterator[Line]:
    """Yield the events of a journal with their places."""
    file, number = "", 0
    try:
        for event in journal.events(directory):
            if event["e"] == "launch":
                file, number = journal.path(directory, event["launch"], event["epoch"]).name, 0
            number += 1
            yield Line(file, number, event)
    except (KeyError, TypeError) as error:
        raise RunDirectoryError(
            f"{directory} is no journal: what follows {file} line {number} lacks {error}"
        ) from error


# -- the search --------------------------------------------------------------------------------------------------------


class _Mismatch(Exception):
    """The replay cannot go on as the journal does."""

    def __init__(self, sentence: str, rows: Sequence[tuple[str, str, str]] = ()) -> None:
        super().__init__(sentence)
        self.rows = tuple(rows)


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
            except _Mismatch as mismatch:
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
            raise _Mismatch(f"trial {event['trial']} has key {key}, which no ask of the replay brought")
        rows = [(name, _shown(config, name), _shown(ours, name)) for name in _differing(config, ours)]
        ask = f"ask {life.ask_of[key]}" if key in life.ask_of else "an earlier launch"
        raise _Mismatch(f"{ask} proposed another configuration with key {key} (trial {event['trial']})", rows)

    def _ask(self, life: _Life, event: dict[str, Any], i: int) -> None:
        """Ask again; the search is first told, and made to forget, what it was."""
        search, number = life.search, event["ask"]
        life.asks.append(i)
        if number != search.n_asks:
            raise _Mismatch(f"ask {number} follows where ask {search.n_asks} should")
        replacing = _keys(event["replacing"])
        target = {*_keys(event["pending"]), *replacing}
        self._settle_order(life, target, event["told"], i)
        told = life.order[search.n_told : event["told"]]
        if search.n_told > event["told"] or search.n_told + len(told) < event["told"]:
            raise _Mismatch(
                f"ask {number} knew {event['told']} outcomes; the replay knew {search.n_told} at the ask before, and "
                f"{len(life.order)} trials had finished"
            )
        self._add_points(search, {key for key, _ in told} | target)
        unknown = {key for key, _ in told}.union(target).difference(search.pending())
        if unknown:
            raise _Mismatch(f"ask {number} knew of key {min(unknown)}, which is not pending in the replay")
        wrong = target.intersection(key for key, _ in told)
        if wrong:
            raise _Mismatch(f"ask {number} took key {min(wrong)} for pending, of which the replay knew the end")
        search.tell(told)
        search.drop(set(search.pending()) - target)
        exhausts = life.size is not None and event["n"] == life.size - event["told"] - len(target) + len(replacing)
        proposals = search.ask(max(1, event["n"]), frozenset(replacing))
        self.proposals[i] = proposals
        if len(proposals) != event["n"]:
            raise _Mismatch(f"ask {number} brought {event['n']} proposals, {len(proposals)} in the replay")
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
            except _Mismatch:
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
        pending = sorted({*_keys(event["pending"]), *_keys(event["replacing"])})
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


def _keys(ranges: Sequence[Sequence[int]]) -> list[int]:
    return [key for first, last in ranges for key in range(first, last + 1)]


def _differing(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    return [name for name in {**a, **b} if name not in a or name not in b or a[name] != b[name]]


def _shown(values: dict[str, Any], name: str) -> str:
    return repr(values[name]) if name in values else "-"


# -- the dispatcher ----------------------------------------------------------------------------------------------------

_EVENTS = frozenset(
    {
        "ahead",
        "asked",
        "cancelled",
        "finished",
        "freed",
        "heard",
        "joined",
        "kept",
        "left",
        "lost",
        "placed",
        "quarantined",
        "readmitted",
        "returned",
        "silent",
        "steered",
        "stopping",
    }
)
"""What a dispatcher says; the rest of a journal is its master's."""
_OF_THE_MASTER = re.compile(r"the time limit is |SIG\w+ (asked for an end|ended it)")
_AT_ONCE = re.compile(r"the time limit is reached|SIG\w+ ended it")
_EXHAUSTED = "the space is exhausted"
_CONVERGED = "the policy has converged"
_LATER = frozenset({"exhausted", "start", "end"})
"""What journals of earlier versions lack in their events."""
_SECONDS = re.compile(r"was silent for \d+ s")
_DIED = "has died"


class DispatcherReplay:
    """Feeds dispatchers with what their masters heard, and compares what they say.

    Inferred, since it is not recorded: signs of life (everybody is alive who is not silent); ticks (where only one
    explains what comes next); whether the space was exhausted (from the reason of the end); keys and configurations of
    proposals that no evaluator got, unless the search's replay gives them; what was ahead, and what evaluators held,
    when a new master took over.

    Parameters
    ----------
    run : Run
    search : SearchReplay
        Played, perhaps up to a divergence, perhaps not at all.

    Attributes
    ----------
    n_events : int
        So far the same.
    divergence : Divergence or None
    """

    def __init__(self, run: Run, search: SearchReplay) -> None:
        self._run = run
        self._search = search
        self._history = journal.History()
        self._dispatcher = Dispatcher(Limits())
        self._header: dict[str, Any] = {}
        self._lines: list[tuple[int, Line]] = []
        self._hosts: dict[int, str] = {}
        self._alive: set[int] = set()
        self._left: set[int] = set()
        self._held: dict[int, list[int]] = {}
        self._inherited_ahead: list[tuple[int, Config]] | None = None
        self._next_key = 0
        self.n_events = 0
        self.divergence: Divergence | None = None

    def play(self) -> None:
        """Replay every master, up to the first divergence."""
        lines = self._run.lines
        headers = [i for i, line in enumerate(lines) if line.event["e"] == "launch"]
        for begin, end in zip(headers, [*headers[1:], len(lines)]):
            self._begin(begin)
            self._lines = [(i, lines[i]) for i in range(begin + 1, end) if lines[i].event["e"] in _EVENTS]
            whole = any(line.event["e"] == "ended" for line in lines[begin:end])
            self.divergence = self._epoch(lines[begin], whole)
            if self.divergence is not None:
                return
            for line in lines[begin + 1 : end]:
                if line.event["e"] not in _EVENTS:
                    self._history.apply(line.event)

    def _begin(self, i: int) -> None:
        """Make the dispatcher of a new master as the master does."""
        header = self._header = self._run.lines[i].event
        options = self._run.options(header)
        before, now = self._dispatcher, header["t"]
        layout = header.get("layout") or self._run.layout(header)
        self._dispatcher = (
            make_dispatcher(dataclasses.replace(options, stopper=None), restored(layout))
            if layout and options.grouped
            else Dispatcher(options.limits, options.evaluator_silence)
        )
        history = self._history
        self._alive, self._held, self._inherited_ahead = set(), {}, None
        if self._run.begins_launch(i):
            self._dispatcher.heed(history)
            self._dispatcher.restore(history.finished.values(), history.unfinished.values())
            trials = [*(trial for _, trial in history.finished.values()), *history.unfinished.values()]
            self._next_key = 1 + max((trial.key for trial in trials), default=-1)
            self._left = set()
        else:
            for id_, holders in history.holders.items():
                trial = history.unfinished.get(id_)
                for rank in {*holders, *(trial.ranks if trial and holders else ())}:
                    self._held.setdefault(rank, []).append(id_)
                    self._alive.add(rank)
            size = 1 + max([header["ranks"], *self._hosts])
            self._dispatcher.inherit(history, [self._hosts.get(rank, "") for rank in range(size)], now)
            self._dispatcher.n_retried = history.n_retried
            if history.last_stop:
                self._dispatcher.stop(history.last_stop, now)
            self._inherited_ahead = [item for item in before.ahead if not self._begun(item)]
        self._history.apply(header)

    def _begun(self, item: tuple[int, Config]) -> bool:
        trials = [*self._history.unfinished.values(), *(trial for _, trial in self._history.finished.values())]
        return any(item[0] == trial.key or item[1] == trial.config for trial in trials)

    def _epoch(self, header: Line, whole: bool) -> Divergence | None:
        """Compare what one dispatcher says; `whole` is whether its journal is known to be."""
        lines, i = self._lines, 0
        ours = self._take()
        while ours or i < len(lines):
            if not ours:
                self._feed(i)
                ours = self._take()
                if not ours:
                    line = lines[i][1]
                    return Divergence(line, f"nothing before it explains this event: {_brief(line.event)}")
            for event in ours:
                if i == len(lines):
                    if not whole:
                        return None  # a master that was killed has not written all it decided
                    return Divergence(lines[-1][1] if lines else header, f"the replay goes on: {_brief(event)}")
                line = lines[i][1]
                different = [name for name in _differing(line.event, event) if not _alike(name, line.event, event)]
                if different:
                    rows = [(name, _shown(line.event, name), _shown(event, name)) for name in different]
                    return Divergence(line, f"expected {_brief(event)}, recorded {_brief(line.event)}", tuple(rows))
                self._note(line.event)
                self.n_events += 1
                i += 1
            ours = []
        return None

    def _take(self) -> list[dict[str, Any]]:
        """Take what the dispatcher says, and let it forget what nobody here wants to know."""
        dispatcher = self._dispatcher
        dispatcher.take_work()
        dispatcher.take_outcomes()
        dispatcher.take_news()
        dispatcher.take_remarks()
        return dispatcher.take_events()

    def _note(self, event: dict[str, Any]) -> None:
        kind = event["e"]
        self._history.apply(event)
        if kind == "joined":
            self._hosts[event["rank"]] = event["host"]
        if kind in ("joined", "heard"):
            self._alive.add(event["rank"])
        elif kind in ("left", "silent"):
            self._alive.discard(event["rank"])
        if kind == "left":
            self._left.add(event["rank"])

    def _feed(self, i: int) -> None:
        """Call the dispatcher so that it may say what comes next in the journal."""
        index, line = self._lines[i]
        event, dispatcher = line.event, self._dispatcher
        kind, now = event["e"], event["t"]
        if kind == "asked":
            self._put_ahead(now, index)
            dispatcher.propose(self._proposed(index, event), now)
        elif kind == "joined":
            self._join(i, event, now)
        elif kind == "left":
            same = [e for e in self._at_once(i + 1) if e["e"] == "lost"]
            died = same[0]["died"] if same else event["reason"].endswith(_DIED)
            dispatcher.leave(event["rank"], now, event["reason"], died)
            self._left.add(event["rank"])
            self._fill_vacancies(now)
        elif kind == "steered":
            dispatcher.steer(event, now)
        elif kind == "ahead":
            self._inherited_ahead = None
            dispatcher.put_ahead([(key, config) for key, config in event["proposals"]], now, recorded=True)
        elif kind in ("finished", "cancelled"):
            self._report(i, self._source(event), now)
        elif kind == "returned":
            self._return(i, event["rank"], now)
        elif kind == "freed":
            dispatcher.returned(event["rank"], [event["trial"]], now)
        elif kind == "heard":
            self._hear(i, event["rank"], now)
        elif kind == "silent":
            self._tick(i, now)
        elif kind == "placed":
            ahead = self._inherited_ahead
            if ahead is not None and any(key == event["key"] for key, _ in ahead):
                self._put_ahead(now, None)
            else:
                self._tick(i, now)
        elif kind == "stopping" and _OF_THE_MASTER.match(event["reason"]):
            dispatcher.stop(event["reason"], now, cancel=bool(_AT_ONCE.match(event["reason"])))
        elif kind == "stopping" and event["reason"].startswith(_EXHAUSTED):
            if self._inherited_ahead is None:
                self._tick(i, now)
            else:
                self._put_ahead(now, None)

    def _at_once(self, i: int) -> Iterator[dict[str, Any]]:
        """Yield events from one on as long as they have the same time."""
        now = self._lines[i - 1][1].event["t"] if i else None
        for _, line in self._lines[i:]:
            if line.event["t"] != now:
                return
            yield line.event

    def _source(self, event: dict[str, Any]) -> int:
        """Return who reported an outcome: a trial that is cancelled before it starts is recorded with rank 0."""
        holders = self._history.holders.get(event["trial"], [])
        rank: int = event["rank"]
        return holders[0] if event["e"] == "cancelled" and holders and rank not in holders else rank

    def _join(self, i: int, event: dict[str, Any], now: float) -> None:
        rank = event["rank"]
        of_rank = [e for e in self._at_once(i + 1) if e.get("rank") == rank and e["e"] in ("returned", "kept")]
        if rank in self._dispatcher.ranks or any(e["e"] == "kept" for e in of_rank):
            returned = {e["trial"] for e in of_rank if e["e"] == "returned"}
            held = [id_ for id_ in self._held.get(rank, ()) if id_ not in returned and self._has(rank, id_)]
            held += self._freed_later(i, rank)
            held += [e["trial"] for e in of_rank if e["e"] == "kept"]
            self._dispatcher.holds(rank, event["host"], held, now)
        else:
            self._dispatcher.join(rank, event["host"], now)
        self._fill_vacancies(now)

    def _has(self, rank: int, id_: int) -> bool:
        """Return whether a rank was given an unfinished trial, and nothing came of that yet."""
        holders, trial = self._history.holders.get(id_, ()), self._history.unfinished.get(id_)
        return rank in holders or bool(holders and trial and rank in trial.ranks)

    def _freed_later(self, i: int, rank: int) -> list[int]:
        """Return what a member of a group still had that the new master knew to be over."""
        for _, line in self._lines[i + 1 :]:
            event = line.event
            if event["e"] == "freed" and event["rank"] == rank:
                return [] if self._has(rank, event["trial"]) else [event["trial"]]
            if event["e"] == "placed" and rank in event.get("ranks", ()):
                break
        return []

    def _report(self, i: int, rank: int, now: float) -> None:
        """Report all outcomes that came in one message."""
        outcomes = []
        for event in (self._lines[i][1].event, *self._at_once(i + 1)):
            kind = event["e"]
            if kind not in ("finished", "cancelled"):
                if kind in ("stopping", "quarantined", "heard"):
                    continue
                break
            if self._source(event) != rank:
                break
            outcomes.append(_outcome(event))
        dispatcher = self._dispatcher
        if dispatcher.stopping is not None and any(outcome.status is Status.CANCELLED for outcome in outcomes):
            dispatcher.stop(dispatcher.stopping, now, cancel=True)  # of an end that has become urgent nothing is said
        self._dispatcher.report(rank, outcomes, now)

    def _return(self, i: int, rank: int, now: float) -> None:
        ids = []
        for event in (self._lines[i][1].event, *self._at_once(i + 1)):
            if event["e"] == "returned" and event["rank"] == rank:
                ids.append(event["trial"])
            elif event["e"] != "heard":
                break
        self._dispatcher.returned(rank, ids, now)

    def _hear(self, i: int, rank: int, now: float) -> None:
        following = next(self._at_once(i + 1), None)
        if following is not None and following["e"] in ("finished", "cancelled") and self._source(following) == rank:
            self._report(i, rank, now)
        elif following is not None and following["e"] == "returned" and following["rank"] == rank:
            self._return(i, rank, now)
        else:
            self._dispatcher.alive(rank, now)

    def _tick(self, i: int, now: float) -> None:
        """Let time pass, for those that were silent."""
        dispatcher = self._dispatcher
        for rank in self._alive:
            dispatcher.alive(rank, now)
        for event in (self._lines[i][1].event, *self._at_once(i + 1)):
            if event["e"] == "silent" and event["rank"] in self._alive and dispatcher.silence is not None:
                # Recorded to a tenth of a second, by which it may seem shorter than it was.
                seconds = event["seconds"] + 0.01 * (event["seconds"] <= dispatcher.silence)
                dispatcher.alive(event["rank"], now - seconds)
        dispatcher.tick(now)

    def _put_ahead(self, now: float, index: int | None) -> None:
        """Give a new master what the searcher still had, unless that was a new one too."""
        ahead, self._inherited_ahead = self._inherited_ahead, None
        if ahead is not None and not (index is not None and self._search.restarts.get(index, "").startswith("a ")):
            self._dispatcher.put_ahead([item for item in ahead if not self._begun(item)], now)

    def _fill_vacancies(self, now: float) -> None:
        """A master that was an evaluator evaluates only if there is nobody else."""
        layout, me = self._run.layout(self._header), self._header["epoch"]
        if me == layout.get("master", 0):
            return
        members = {rank for group in layout.get("groups", ()) for rank in group}
        if (members | self._alive) - self._left - {me}:
            self._dispatcher.retire(me, now)
        else:
            self._dispatcher.enlist(me, now)

    def _proposed(self, index: int, event: dict[str, Any]) -> Proposed:
        replacing = _keys(event["replacing"])
        proposals = self._search.proposals.get(index)
        if proposals is None or len(proposals) != event["n"]:
            proposals = self._guessed(index, event, replacing)
        self._next_key = proposals[-1].key + 1 if proposals else self._next_key
        exhausted = event.get("exhausted", self._exhausted(index))
        pending = _keys(event["pending"])
        reused, stop = self._without_evaluation(index, event["t"])
        return Proposed(
            event["ask"],
            event["told"],
            pending,
            proposals,
            replacing,
            exhausted,
            event["seconds"],
            reused=reused,
            stop=stop,
        )

    def _without_evaluation(self, index: int, now: float) -> tuple[list[tuple[int, float]], str]:
        """Return key and objective of what an ask brought that was known already, and why the search wanted to end."""
        keys: dict[int, int] = {}
        reused = []
        for line in self._run.lines[index + 1 :]:
            event = line.event
            if event["t"] != now:
                break
            if event.get("reused"):
                keys[event["trial"]] = event["key"]
            elif event["e"] == "finished" and event["trial"] in keys:
                reused.append((keys[event["trial"]], event["objective"]))
            elif event["e"] == "stopping" and event["reason"].startswith(_CONVERGED):
                return reused, event["reason"]
        return reused, ""

    def _guessed(self, index: int, event: dict[str, Any], replacing: list[int]) -> list[Proposal]:
        """Return what an ask brought as far as the journal says: what nobody got has an empty configuration."""
        configs: dict[int, Config] = {}
        for line in self._run.lines[index + 1 :]:
            if line.event["e"] == "launch" and line.event["launch"] != self._header["launch"]:
                break
            if line.event["e"] == "placed":
                configs.setdefault(line.event["key"], line.event["config"])
        keys = range(self._next_key, self._next_key + event["n"])
        # What equals a proposal that it was to replace, started meanwhile, is dropped: later ones are placed instead.
        trials = [*self._history.unfinished.values(), *(trial for _, trial in self._history.finished.values())]
        started = {trial.key: trial.config for trial in trials} if replacing else {}
        raced = next((started[key] for key in replacing if key in started), {})
        last = max((key for key in keys if key in configs), default=-1)
        return [Proposal(key, configs.get(key, raced if key < last else {})) for key in keys]

    def _exhausted(self, index: int) -> bool:
        """Return whether an ask was the last before the space was found exhausted."""
        for line in self._run.lines[index + 1 :]:
            if line.event["e"] in ("asked", "launch"):
                return False
            if line.event["e"] == "stopping":
                return bool(line.event["reason"].startswith(_EXHAUSTED))
        return False


def _alike(name: str, recorded: dict[str, Any], ours: dict[str, Any]) -> bool:
    """Return whether a difference is none.

    That is one of a silence, which is recorded rounded, of what was not recorded yet, and of when a trial that was lost
    became the first of its evaluator: answers that come too late change it, and are not recorded.
    """
    if name in _LATER and (name not in recorded or recorded["e"] == "lost"):
        return True
    a, b = recorded.get(name), ours.get(name)
    return name == "reason" and all(isinstance(x, str) for x in (a, b)) and _SECONDS.sub("", a) == _SECONDS.sub("", b)  # type: ignore[arg-type]


def _brief(event: dict[str, Any]) -> str:
    parts = [f"{name} {event[name]}" for name in ("trial", "attempt", "rank", "ask", "key", "status") if name in event]
    reason = f" ({event['reason'].splitlines()[0]})" if event["e"] in ("stopping", "left") and event["reason"] else ""
    return " ".join((str(event["e"]), ", ".join(parts))).strip() + reason


def _outcome(event: dict[str, Any]) -> Outcome:
    if event["e"] == "cancelled":
        start, end = event.get("start", 0.0), event.get("end", 0.0)
        return Outcome(event["trial"], 0, Status.CANCELLED, None, rank=event["rank"], start=start, end=end)
    return journal._outcome(event)


# -- what must hold in any case ----------------------------------------------------------------------------------------


class Invariants:
    """Checks what holds of every journal, whatever was not recorded.

    Ids without gaps, no trial beyond the budget, trials only for ranks that have joined and not left, one outcome for a
    trial, no configuration under two ids unless the search repeats some, attempts that rise by one at most with each
    loss or launch.

    Attributes
    ----------
    n_trials, n_outcomes : int
    divergence : Divergence or None
        Here between the journal and what must hold.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._given = self._max_evals = 0
        self._launch = -1
        self._joined: set[int] = set()
        self._repeats = False
        self._attempts: dict[int, list[int]] = {}  # of each trial: the last attempt, and by how much it may have risen
        self._finished: set[int] = set()
        self._ids: dict[str, int] = {}
        self.divergence: Divergence | None = None

    @property
    def n_trials(self) -> int:
        return len(self._attempts)

    @property
    def n_outcomes(self) -> int:
        return len(self._finished)

    def play(self) -> None:
        """Check every line, up to the first that cannot be."""
        checks = {
            "launch": self._header,
            "joined": lambda event: self._joined.add(event["rank"]),
            "left": lambda event: self._joined.discard(event["rank"]),
            "placed": self._placed,
            "finished": self._outcome,
            "lost": self._lost,
            "steered": self._steered,
        }
        for line in self._run.lines:
            try:
                checks.get(line.event["e"], lambda event: None)(line.event)
            except _Mismatch as mismatch:
                self.divergence = Divergence(line, str(mismatch))
                return

    def _header(self, event: dict[str, Any]) -> None:
        given = self._run.options(event).max_evals
        if given != self._given:
            self._given = self._max_evals = given
        self._repeats = self._run.repeats(event)
        self._joined = set()
        if event["launch"] != self._launch:
            self._launch = event["launch"]
            for id_, attempts in self._attempts.items():
                attempts[1] += id_ not in self._finished

    def _steered(self, event: dict[str, Any]) -> None:
        if event["action"] == Action.MAX_EVALS:
            self._max_evals = event["max_evals"]

    def _placed(self, event: dict[str, Any]) -> None:
        id_, rank, attempt = event["trial"], event["rank"], event["attempt"]
        if rank not in self._joined and not (event.get("reused") or event.get("refused")):
            raise _Mismatch(f"trial {id_} was given to rank {rank}, which had not joined or had left")
        if id_ in self._finished:
            raise _Mismatch(f"trial {id_} was given out though it had finished")
        if id_ not in self._attempts:
            self._new(event)
        last, rise = self._attempts[id_]
        if not last <= attempt <= last + rise:
            raise _Mismatch(f"trial {id_} has attempt {attempt} after attempt {last} and {rise} losses or launches")
        self._attempts[id_] = [attempt, last + rise - attempt]

    def _new(self, event: dict[str, Any]) -> None:
        id_ = event["trial"]
        if id_ != len(self._attempts):
            raise _Mismatch(f"trial {id_} follows trial {len(self._attempts) - 1}: ids must have no gaps")
        if id_ >= self._max_evals:
            raise _Mismatch(f"trial {id_} was started within a budget of {self._max_evals} evaluations")
        config = json.dumps(event["config"], sort_keys=True)
        if config in self._ids and not self._repeats:
            raise _Mismatch(f"trial {id_} has the configuration of trial {self._ids[config]}")
        self._ids[config] = id_
        self._attempts[id_] = [0, 0]

    def _outcome(self, event: dict[str, Any]) -> None:
        id_ = event["trial"]
        if id_ not in self._attempts:
            raise _Mismatch(f"trial {id_} has an outcome but was never given out")
        if id_ in self._finished:
            raise _Mismatch(f"trial {id_} has a second outcome")
        if not 0 <= event["attempt"] <= sum(self._attempts[id_]):
            raise _Mismatch(f"trial {id_} has an outcome of attempt {event['attempt']}, which there has not been")
        self._finished.add(id_)

    def _lost(self, event: dict[str, Any]) -> None:
        if event["trial"] in self._attempts:
            self._attempts[event["trial"]][1] += event["ran"]


# -- the command -------------------------------------------------------------------------------------------------------


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    result = Parser(prog=PROG, description=DESCRIPTION, allow_abbrev=False)
    result.add_argument("directory", metavar="RUN_DIRECTORY", type=Path)
    result.add_argument("--only", choices=PARTS, help="replay nothing else; the dispatcher needs no problem")
    result.add_argument("--version", action="version", version=f"dhmpi {__version__}")
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Replay a run; return the exit code."""
    try:
        options = parser().parse_args(arguments)
        run = Run(options.directory)
        search = SearchReplay(run, _build)
        searched = options.only != "dispatcher" and not run.has_agents
        if searched:
            _play_search(search)
        dispatcher, invariants = DispatcherReplay(run, search), Invariants(run)
        if options.only != "search":
            invariants.play()
            dispatcher.play()
    except DhmpiError as error:
        print(f"dhmpi.replay: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    from rich.console import Console  # late: --help imports nothing that takes time

    console = Console()
    _print_summary(console, run, search if searched else None)
    if run.has_agents and options.only != "dispatcher":
        _say(console, "Search: it is not replayed, since agents shared it")
    if options.only != "search":
        _print_dispatcher(console, dispatcher, invariants)
    found = (search.divergence, dispatcher.divergence, invariants.divergence)
    return EXIT_DIVERGED if any(divergence is not None for divergence in found) else 0


def _build(spec: dict[str, Any]) -> tuple[Search, dict[str, Any]]:
    from dhmpi.search.build import build  # late, as all that imports numpy

    return build(spec)


def _play_search(search: SearchReplay) -> None:
    """Replay with as many threads as the search had: sums in another order end in other proposals."""
    from threadpoolctl import threadpool_limits

    options = search._run.described["options"]
    import dhmpi.search.model_based  # noqa: F401 (limits hold for libraries that are loaded)

    n_jobs = options.get("n_jobs", 1)
    with threadpool_limits(None if n_jobs == -1 else n_jobs):
        search.play()


def _print_summary(console: Console, run: Run, search: SearchReplay | None) -> None:
    headers = [line.event for line in run.lines if line.event["e"] == "launch"]
    launches = _many(len({header["launch"] for header in headers}), "launch", "es")
    _say(console, f"{run.path}: {len(run.lines)} lines of {launches}, {_many(len(headers), 'master')}")
    if search is None:
        return
    compared = f"{_many(search.n_asks, 'ask')}, {_many(search.n_proposals, 'proposal')}"
    seen = f"{search.n_compared} of them given to evaluators"
    if search.divergence is None:
        _say(console, f"Search: {compared}: the same ({seen})")
    else:
        _say(console, f"Search: it diverges after {compared} ({seen})")
        _print_divergence(console, search.divergence)
    for index, note in search.restarts.items():
        line = run.lines[index]
        _say(console, f"Search: ask {line.event['ask']} ({line.place}) agrees if {note}")


def _print_dispatcher(console: Console, dispatcher: DispatcherReplay, invariants: Invariants) -> None:
    if dispatcher.divergence is None:
        _say(console, f"Dispatcher, event by event: {_many(dispatcher.n_events, 'event')}: the same")
    else:
        _say(console, f"Dispatcher, event by event: it diverges after {_many(dispatcher.n_events, 'event')}")
        _print_divergence(console, dispatcher.divergence)
    figures = f"{_many(invariants.n_trials, 'trial')}, {_many(invariants.n_outcomes, 'outcome')}"
    if invariants.divergence is None:
        _say(console, f"Dispatcher, invariants: {figures}: they hold")
    else:
        _say(console, f"Dispatcher, invariants: broken after {figures}")
        _print_divergence(console, invariants.divergence)


def _print_divergence(console: Console, divergence: Divergence) -> None:
    from dhmpi.check import print_table

    _say(console, f"{divergence.line.place}: {divergence.sentence}")
    if divergence.rows:
        print_table(console, "First divergence", ("what", "journal", "replay"), divergence.rows)


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def _many(n: int, what: str, plural: str = "s") -> str:
    return f"{n} {what}{plural if n != 1 else ''}"


if __name__ == "__main__":
    sys.exit(main())
