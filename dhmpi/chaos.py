"""Faults on purpose, so that a campaign can be rehearsed on a laptop and tests use the same switch: ``--chaos``.

Seeded: the same run meets the same faults in the same trials.  Faults of evaluations hit the process that evaluates
(`strike`), deaths of ranks are ordered by the master (`Chaos.kills`).  Numpy is imported only where something is drawn.
"""

from __future__ import annotations

import os
import re
import signal
import time
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

from dhmpi.errors import OptionError

FOR_EVER = 1e6


class Fault(NamedTuple):
    """What happens to one evaluation."""

    kind: str
    """kill, hang, segv or slow; "" for nothing."""
    factor: float = 1.0
    """Times that a slow evaluation lasts longer."""


@dataclass(frozen=True)
class Chaos:
    """How often what goes wrong.

    Attributes
    ----------
    kill, hang, segv, slow : float
        Probability per attempt of an evaluation that its process is killed, never answers, crashes, is slow.
    slow_factor : float
        Times that a slow evaluation lasts longer.
    rank_kill : float
        Probability per attempt of an evaluation that some rank dies when it is given out.
    max_rank_kills : int
        Ranks that die in a launch at most.
    """

    kill: float = 0.0
    hang: float = 0.0
    segv: float = 0.0
    slow: float = 0.0
    slow_factor: float = 1.0
    rank_kill: float = 0.0
    max_rank_kills: int = 1

    def fault(self, seed: int, trial: int, attempt: int) -> Fault:
        """Return what happens to an attempt at a trial."""
        drawn = _draw(seed, trial, attempt, 0)
        for kind in ("kill", "hang", "segv", "slow"):
            drawn -= getattr(self, kind)
            if drawn < 0:
                return Fault(kind, self.slow_factor)
        return Fault("")

    def kills(self, seed: int, trial: int, attempt: int) -> bool:
        """Return whether a rank should die when an attempt at a trial is given out."""
        return self.rank_kill > 0 and _draw(seed, trial, attempt, 1) < self.rank_kill

    def victim(self, seed: int, trial: int, attempt: int, n: int) -> int:
        """Return which of `n` ranks dies."""
        return int(_draw(seed, trial, attempt, 2) * n)


def _draw(*key: int) -> float:
    from numpy.random import default_rng

    return float(default_rng(key).random())


def parse(text: str) -> Chaos:
    """Return what ``--chaos`` asks for.

    >>> parse("kill=0.01,slow=0.1x3").slow_factor
    3.0

    Raises
    ------
    OptionError
        With the sentence to show.
    """
    values: dict[str, Any] = {}
    known = [field.name.replace("_", "-") for field in fields(Chaos) if field.name != "slow_factor"]
    for word in text.split(","):
        name, _, value = word.strip().partition("=")
        if name not in known:
            raise OptionError(f"--chaos knows no fault {name!r}: choose from {', '.join(known)}")
        factor = re.fullmatch(r"(.*)x(.*)", value) if name == "slow" else None
        try:
            if name == "max-rank-kills":
                values["max_rank_kills"] = int(value)
            else:
                values[name.replace("-", "_")] = float(factor[1] if factor else value)
            if factor:
                values["slow_factor"] = float(factor[2])
        except ValueError:
            raise OptionError(f"--chaos {word.strip()} is not of the form {name}=NUMBER") from None
    chaos = Chaos(**values)
    for name in ("kill", "hang", "segv", "slow", "rank_kill"):
        if not 0 <= getattr(chaos, name) <= 1:
            raise OptionError(f"--chaos {name.replace('_', '-')} must be between 0 and 1, got {getattr(chaos, name):g}")
    if chaos.kill + chaos.hang + chaos.segv + chaos.slow > 1:
        raise OptionError("--chaos has faults of evaluations whose probabilities add up to more than 1")
    if not 1 <= chaos.slow_factor < float("inf"):
        raise OptionError(
            f"--chaos slow must be of the form slow=NUMBERxTIMES with TIMES >= 1, got {chaos.slow_factor:g}"
        )
    if chaos.max_rank_kills < 0:
        raise OptionError(f"--chaos max-rank-kills must be >= 0, got {chaos.max_rank_kills}")
    return chaos


def strike(kind: str) -> None:
    """Have this process suffer a fault before it evaluates; a slow one is slow afterwards."""
    if kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif kind == "segv":
        signal.signal(signal.SIGSEGV, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGSEGV)
    elif kind == "hang":
        time.sleep(FOR_EVER)
