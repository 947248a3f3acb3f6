"""What must hold of every journal, whatever was not recorded."""

from __future__ import annotations

import json
from typing import Any

from dhmpi.replay.recorded import Divergence, Mismatch, Run
from dhmpi.steering import Action


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
            except Mismatch as mismatch:
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
            raise Mismatch(f"trial {id_} was given to rank {rank}, which had not joined or had left")
        if id_ in self._finished:
            raise Mismatch(f"trial {id_} was given out though it had finished")
        if id_ not in self._attempts:
            self._new(event)
        last, rise = self._attempts[id_]
        if not last <= attempt <= last + rise:
            raise Mismatch(f"trial {id_} has attempt {attempt} after attempt {last} and {rise} losses or launches")
        self._attempts[id_] = [attempt, last + rise - attempt]

    def _new(self, event: dict[str, Any]) -> None:
        id_ = event["trial"]
        if id_ != len(self._attempts):
            raise Mismatch(f"trial {id_} follows trial {len(self._attempts) - 1}: ids must have no gaps")
        if id_ >= self._max_evals:
            raise Mismatch(f"trial {id_} was started within a budget of {self._max_evals} evaluations")
        config = json.dumps(event["config"], sort_keys=True)
        if config in self._ids and not self._repeats:
            raise Mismatch(f"trial {id_} has the configuration of trial {self._ids[config]}")
        self._ids[config] = id_
        self._attempts[id_] = [0, 0]

    def _outcome(self, event: dict[str, Any]) -> None:
        id_ = event["trial"]
        if id_ not in self._attempts:
            raise Mismatch(f"trial {id_} has an outcome but was never given out")
        if id_ in self._finished:
            raise Mismatch(f"trial {id_} has a second outcome")
        if not 0 <= event["attempt"] <= sum(self._attempts[id_]):
            raise Mismatch(f"trial {id_} has an outcome of attempt {event['attempt']}, which there has not been")
        self._finished.add(id_)

    def _lost(self, event: dict[str, Any]) -> None:
        if event["trial"] in self._attempts:
            self._attempts[event["trial"]][1] += event["ran"]
