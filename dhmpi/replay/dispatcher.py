"""The dispatcher of a run once more: it must decide what was decided.  Start at `DispatcherReplay`."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from typing import Any

from dhmpi import journal
from dhmpi.budget import Limits
from dhmpi.mpi.layout import restored
from dhmpi.mpi.protocol import Proposed
from dhmpi.replay.recorded import Divergence, Line, Run, differing, keys_in, shown
from dhmpi.replay.search import SearchReplay
from dhmpi.roles.dispatcher import Dispatcher
from dhmpi.roles.groupdispatcher import make_dispatcher
from dhmpi.trials import Config, Outcome, Proposal, Status

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
        "missing",
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
_LATER = frozenset({"exhausted", "informed", "start", "end", "short_of_ranks"})
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
                different = [name for name in differing(line.event, event) if not _alike(name, line.event, event)]
                if different:
                    rows = [(name, shown(line.event, name), shown(event, name)) for name in different]
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
        elif kind in ("silent", "missing"):
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
        replacing = keys_in(event["replacing"])
        proposals = self._search.proposals.get(index)
        if proposals is None or len(proposals) != event["n"]:
            proposals = self._guessed(index, event, replacing)
        self._next_key = proposals[-1].key + 1 if proposals else self._next_key
        exhausted = event.get("exhausted", self._exhausted(index))
        pending = keys_in(event["pending"])
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
            informed=event.get("informed", False),
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
    return journal.outcome_of(event)
