"""Run directories for tests of what reads them, written with the package's own journal and without MPI."""

import json
import os
import socket
import time

from dhmpi import journal, platform
from dhmpi.roles.events import finished_event
from dhmpi.trials import Outcome, Status

T0 = 1_790_000_000.0
OPTIONS = {"problem": "p.Problem", "run": "p.run", "max_evals": 10, "workflow": "default", "name": "ambs"}
LAYOUT = {
    "hosts": ["node0", "node0", "node1", "node1"], "master": 0, "searcher": 1, "groups": [[2], [3]], "spare": [],
}  # fmt: skip


def header(t=T0, started=None, layout=LAYOUT, **options):
    return {
        "run": "abcd1234", "token": "abcd1234", "t": t, "started": t if started is None else started,
        "program": "dhmpi.ambs", "ranks": len(layout["hosts"]), "layout": layout, "version": "0.1.0",
        "options": {**OPTIONS, **options},
    }  # fmt: skip


def joined(rank, t, host=None):
    return {"e": "joined", "t": T0 + t, "rank": rank, "host": host or f"node{rank // 2}"}


def left(rank, t, reason="rank has died"):
    return {"e": "left", "t": T0 + t, "rank": rank, "reason": reason}


def placed(trial, rank, t, config=None, attempt=0, **rest):
    config = {"x": trial} if config is None else config
    return {
        "e": "placed", "t": T0 + t, "trial": trial, "attempt": attempt, "rank": rank, "key": trial, "config": config,
        **rest,
    }  # fmt: skip


def finished(trial, rank, start, end, objective=None, status=None, reason="", metrics=None, attempt=0, t=None):
    status = Status(status or ("failed" if objective is None else "done"))
    outcome = Outcome(
        trial, attempt, status, objective, metrics or {}, rank, f"node{rank // 2}", T0 + start, T0 + end, end - start,
        reason,
    )  # fmt: skip
    return finished_event(outcome, T0 + (end if t is None else t))


def lost(trial, rank, t, ran=True, died=True):
    return {
        "e": "lost", "t": T0 + t, "trial": trial, "rank": rank, "host": f"node{rank // 2}", "ran": ran, "died": died,
        "reason": f"rank {rank} has died",
    }  # fmt: skip


def asked(ask, t, n=1, seconds=0.5, **rest):
    return {
        "e": "asked", "t": T0 + t, "ask": ask, "n": n, "told": 0, "pending": [], "replacing": [], "seconds": seconds,
        "exhausted": False, **rest,
    }  # fmt: skip


def event(kind, t, **rest):
    return {"e": kind, "t": T0 + t, **rest}


def stopping(t, reason="all 10 evaluations are finished"):
    return event("stopping", t, reason=reason)


def ended(t, reason="all 10 evaluations are finished", complete=True):
    return event("ended", t, reason=reason, complete=complete)


class Writer:
    """A run directory with one launch after another."""

    def __init__(self, path, **described):
        self.path = path
        self.launch = -1
        self.described = described

    def begin(self, *events, epoch=0, same_launch=False, head=None):
        """Begin a launch, or with `same_launch` the file of its next master."""
        self.launch += not same_launch
        head = head or header()
        self.journal = journal.Journal(self.path / "journal", self.launch, epoch, head)
        described = {
            "run": "abcd1234", "problem": "p.Problem", "function": "p.run", "hyperparameters": ["x"], "seed": 1,
            "options": head["options"], "layout": head.get("layout"), **self.described,
        }  # fmt: skip
        (self.path / "run.json").write_text(json.dumps(described))
        self.add(*events)
        return self

    def add(self, *events):
        self.journal.write(events)
        return self

    def hold(self, renewed=None, **holder):
        """Have this process, or another, hold the lock."""
        content = {
            "host": socket.gethostname(), "pid": os.getpid(), "process_start": platform.start_time(os.getpid()),
            "job": None, "renewed": time.time() if renewed is None else renewed, **holder,
        }  # fmt: skip
        (self.path / "lock").write_text(json.dumps(content))
        return self

    def release(self):
        (self.path / "lock").unlink()
        return self
