"""What comes from each host: which of them are slow, and where evaluations crash far more often than elsewhere.

Pure counting, without a clock; the dispatcher decides what follows from it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from dhmpi.journal import History
from dhmpi.trials import Outcome, Status

FAR_MORE = 4.0
"""Times the others' share of crashed evaluations that a host's must be before it is left out."""
SLOW_HOST = 2.0
"""Times the others' mean duration from which a host is called slow."""
SLOW_AFTER = 20
"""Evaluations before a host is called slow."""


@dataclass
class Host:
    """What has come from the evaluators of a host, in the present launch."""

    n: int = 0
    n_crashed: int = 0
    n_done: int = 0
    seconds: float = 0.0
    quarantined: bool = False
    slow: bool = False


class HostWatch:
    """Counts failures and durations by host.

    Parameters
    ----------
    quarantine_after : int or None
        Crashed evaluations before a host may be suspect; None: none ever is.
    """

    def __init__(self, quarantine_after: int | None) -> None:
        self._quarantine_after = quarantine_after
        self._hosts: dict[str, Host] = {}

    def count(self, outcome: Outcome) -> str:
        """Take in an outcome; return a remark if its host turns out to be slow, mostly nothing."""
        host = self._take(outcome)
        if host is None or outcome.status is not Status.DONE or host.n_done % SLOW_AFTER or host.slow:
            return ""
        host.slow = self._is_slow(outcome.host, host)
        if not host.slow:
            return ""
        n, seconds = self._elsewhere(outcome.host)
        return (
            f"host {outcome.host} is slow: an evaluation takes {host.seconds / host.n_done:.3g} s there, "
            f"{seconds / n:.3g} s elsewhere"
        )

    def count_death(self, name: str) -> None:
        """Take in an evaluator that died while it ran a trial."""
        host = self._host(name)
        host.n += 1
        host.n_crashed += 1

    def recount(self, history: History) -> None:
        """Learn from the journal what earlier masters of this launch knew."""
        for outcome in history.outcomes_of_launch():
            self._take(outcome)
        for name, n in history.deaths.items():
            for _ in range(n):
                self.count_death(name)
        for name, host in self._hosts.items():
            host.quarantined = name in history.quarantined
            host.slow = host.n_done >= SLOW_AFTER and self._is_slow(name, host)

    def is_quarantined(self, name: str) -> bool:
        return name in self._hosts and self._hosts[name].quarantined

    def is_suspect(self, name: str) -> bool:
        """Return whether evaluations crash on a host far more often than elsewhere."""
        host, after = self._host(name), self._quarantine_after
        if after is None or host.n_crashed < after or host.quarantined:
            return False
        return host.n_crashed / max(1, host.n) > FAR_MORE * self._crashed_elsewhere(name)

    def quarantine(self, name: str) -> tuple[Host, str]:
        """Leave a host out; return what has come from it, and the reason in words."""
        host = self._host(name)
        host.quarantined = True
        return host, (
            f"host {name} gets no new trials: {host.n_crashed} of {host.n} evaluations crashed there, "
            f"{100 * self._crashed_elsewhere(name):.0f} % elsewhere"
        )

    def readmit(self) -> Iterator[str]:
        """Yield the hosts that were left out, and are not any more."""
        for name, host in self._hosts.items():
            if host.quarantined:
                host.quarantined = False
                yield name

    def _host(self, name: str) -> Host:
        host = self._hosts.get(name)
        if host is None:
            host = self._hosts[name] = Host()
        return host

    def _take(self, outcome: Outcome) -> Host | None:
        status = outcome.status
        if status is Status.LOST or status is Status.REUSED:
            return None  # the losses are counted; nobody has evaluated the other
        host = self._host(outcome.host)
        host.n += 1
        if status is Status.DONE:
            host.n_done += 1
            host.seconds += outcome.elapsed
        elif status is Status.CRASHED:
            host.n_crashed += 1
        return host

    def _is_slow(self, name: str, host: Host) -> bool:
        n, seconds = self._elsewhere(name)
        return n >= SLOW_AFTER and host.seconds / host.n_done > SLOW_HOST * seconds / n

    def _elsewhere(self, name: str) -> tuple[int, float]:
        """Return how many evaluations have succeeded on other hosts, and the seconds they took."""
        others = [other for name_, other in self._hosts.items() if name_ != name]
        return sum(other.n_done for other in others), sum(other.seconds for other in others)

    def _crashed_elsewhere(self, name: str) -> float:
        """Return the share of evaluations that crash on other hosts, never zero."""
        others = [other for name_, other in self._hosts.items() if name_ != name and not other.quarantined]
        return (sum(other.n_crashed for other in others) + 1) / (sum(other.n for other in others) + 2)
