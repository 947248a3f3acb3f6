"""``python -m dhmpi.search.host FD_IN FD_OUT``: a search in a process of its own.

Takes one message a frame (:mod:`dhmpi.frames`) and answers some of them; :class:`Host` says which.  Ends quietly when
its input does.  Whoever starts it redirects its stdout and stderr.
"""

from __future__ import annotations

import signal
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

from dhmpi import frames, platform
from dhmpi.errors import EXIT_BUG, DhmpiError
from dhmpi.search.base import Learning, Search, Team
from dhmpi.search.build import build
from dhmpi.trials import Config


class Host:
    """Maps messages onto a search; plain data in, plain data out.

    ======================================================  ==================================================
    message                                                 answer
    ======================================================  ==================================================
    ``{"build": spec}``                                     ``{"ready": info}`` or ``{"refused": sentence}``
    ``{"restore": {"finished": [[key, config, objective],   none
    ...], "pending": [[key, config], ...], "n_asks": n}}``
    ``{"ask": {"n": n, "replacing": [key, ...]}}``          ``{"asked": {"ask": number, "told": n_told, "pending":
                                                            [key, ...], "proposals": [[key, config], ...],
                                                            "informed": bool, "exhausted": bool, "seconds": s,
                                                            "reused": [[key, objective], ...], "notes": [event, ...],
                                                            "stop": sentence}}``
    ``{"tell": [[key, objective or null], ...]}``           none
    ``{"drop": [key, ...]}``                                none
    ``{"add": [[key, config], ...]}``                       none
    ``{"limit": max_evals}``                                none
    ``{"check": {"order": name, "points": [config, ...],    ``{"checked": {"order": name, "configs": [...],
    "as_text": bool}}``                                     "n_known": n, "reason": sentence}}``
    ======================================================  ==================================================

    ``pending`` are those that the ask took for pending; ``informed`` and what follows are as in
    :class:`dhmpi.search.base.Search`.  Where a search cannot go on for a reason that a user can mend, a full disk for
    instance, the answer is ``{"refused": sentence}``.

    Parameters
    ----------
    team : Team, optional
        The agents that learn together with the search, for a search that learns.
    """

    def __init__(self, team: Team | None = None) -> None:
        self._search: Search | None = None
        self._team = team

    def handle(self, message: Mapping[str, Any]) -> dict[str, Any] | None:
        """Act on one message; return the answer, ``None`` if there is none."""
        ((verb, content),) = message.items()
        try:
            return self._handle(verb, content)
        except DhmpiError as error:
            return {"refused": str(error)}

    def _handle(self, verb: str, content: Any) -> dict[str, Any] | None:
        if verb == "build":
            return self._build(content)
        if self._search is None:
            raise RuntimeError(f"message {verb!r} came before a search was built")
        if verb == "ask":
            return {"asked": self._ask(self._search, content["n"], content["replacing"])}
        if verb == "tell":
            self._search.tell([(key, objective) for key, objective in content])
        elif verb == "drop":
            self._search.drop(content)
        elif verb == "add":
            self._search.add([(key, config) for key, config in content])
        elif verb == "limit":
            self._search.limit(content)
        elif verb == "check":
            return {"checked": {"order": content["order"], **check(self._search, **content)}}
        elif verb == "restore":
            self._search.restore(content["finished"], content["pending"], content["n_asks"])
        else:
            raise RuntimeError(f"unknown message {verb!r}")
        return None

    def _build(self, spec: Mapping[str, Any]) -> dict[str, Any]:
        self._search, info = build(spec)
        if self._team is not None and isinstance(self._search, Learning):
            self._search.team = self._team
        platform.collect_garbage_rarely()
        return {"ready": info}

    @staticmethod
    def _ask(search: Search, n: int, replacing: Sequence[int]) -> dict[str, Any]:
        start = time.perf_counter()
        replaced = frozenset(replacing)
        number, told = search.n_asks, search.n_told
        pending = [key for key in search.pending() if key not in replaced]
        proposals = search.ask(n, replaced)
        return {
            "ask": number,
            "told": told,
            "pending": pending,
            "proposals": [[key, config] for key, config in proposals],
            "informed": search.informed,
            "exhausted": search.exhausted,
            "seconds": time.perf_counter() - start,
            "reused": [[key, objective] for key, objective in search.reused.items()],
            "notes": search.notes,
            "stop": search.stop,
        }


def check(search: Search, order: str, points: Sequence[Mapping[str, Any]], as_text: bool) -> dict[str, Any]:
    """Return the points of a user as configurations, without those that the search knows, or why one is none."""
    configs: list[Config] = []
    n_known = 0
    if search.resolve is None:
        return {"configs": [], "n_known": 0, "reason": "the search evaluates what it was given and nothing else"}
    for i, point in enumerate(points):
        try:
            config = search.resolve(point, as_text)
        except DhmpiError as error:
            return {"configs": [], "n_known": 0, "reason": f"point {i}: {error}" if len(points) > 1 else str(error)}
        if config in configs or search.knows(config):
            n_known += 1
        else:
            configs.append(config)
    return {"configs": configs, "n_known": n_known, "reason": ""}


def serve(fd_in: int, fd_out: int) -> int:
    """Answer messages until the other side closes the pipe; return the exit code."""
    host = Host()
    reader = frames.Reader(fd_in)
    try:
        while not reader.closed:
            for message in reader.read():
                answer = host.handle(message)
                if answer is not None:
                    frames.write(fd_out, answer)
    except BrokenPipeError:
        return 0  # whoever asked has gone
    except Exception:  # a bug in a search: its owner learns of it by the exit code and the log
        traceback.print_exc()
        return EXIT_BUG
    return 0


def main(arguments: Sequence[str]) -> int:
    """Serve on the two file descriptors named on the command line."""
    for number in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)  # the rank decides when to end
    fd_in, fd_out = map(int, arguments)
    return serve(fd_in, fd_out)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
