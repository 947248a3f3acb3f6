"""``dhmpi.launch --restarts N``: go on after the death of a whole job, inside the allocation, while time is left.

For MPIs that end the job when a rank dies, and for the loss of a host together with the launcher's daemon, which none
survives.  The journal says whether a launch has come to its end, since exit codes do not; what was running when it died
is told, hosts that no longer answer are left out, and the run is resumed.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dhmpi import journal
from dhmpi.errors import EXIT_BAD_INPUT, EXIT_BUG, EXIT_LOST, RunDirectoryError
from dhmpi.mpi.environment import job_deadline

HOST_OPTIONS = frozenset(
    {"--host", "-host", "-H", "-hosts", "--hosts", "--hostfile", "-hostfile", "-f", "-machinefile", "--machinefile"}
)
"""Options of launchers that say where ranks go; each is followed by a value."""
LEAST_SECONDS = 20.0
"""With less time left a launch could hardly begin to evaluate."""
PROBE_SECONDS = 20.0
MOST_TOLD = 10


@dataclass(frozen=True)
class Attempt:
    """What is started at one time.

    Attributes
    ----------
    n : int
        Ranks.
    launcher_words : list of str
        Options for the launcher.
    words : list of str
        Options for the search.
    """

    n: int
    launcher_words: list[str]
    words: list[str]


def run(
    first: Attempt,
    directory: Path,
    restarts: int,
    time_limit: float | None,
    start: Callable[[Attempt, Callable[[], bool]], int],
    probe: Callable[[Sequence[str]], list[str]],
    host_words: Callable[[Mapping[str, int]], list[str]] | None,
    interrupted: Callable[[], bool] = lambda: False,
) -> int:
    """Launch a search, and resume it as often as allowed if it dies; return the exit code of the last launch.

    It is the one of the journal where that tells the search's end, whatever became of the ranks afterwards, and 75 if
    the launch died with exit code 0, as Open MPI's may.  Nothing is resumed after exit code 2, a mistake of the user,
    and 70, a bug.

    Parameters
    ----------
    first : Attempt
        Its words name the run directory.
    directory : Path
        The run directory.
    restarts : int
        Launches after the first at most.
    time_limit : float, optional
        Seconds for all launches together; the end of the scheduler's job counts besides.
    start : callable
        Attempt and a function that says whether the search has ended -> exit code.  A launcher that goes on without
        end after that waits for a host that is cut off.
    probe : callable
        Hosts -> those that answer.
    host_words : callable or None
        Ranks by host -> the launcher's options that place them; None if the launcher has none.
    interrupted : callable
        Whether somebody has asked for an end meanwhile.
    """
    began = time.monotonic()
    attempt = first
    for left in range(restarts, -1, -1):
        n_before = _n_headers(directory)
        code = start(attempt, functools.partial(_has_ended, directory, n_before))
        if code == EXIT_BAD_INPUT or interrupted():
            return code
        if code == EXIT_BUG:
            _say(f"a bug has ended the job (exit code {code}), and would again: no restart; --resume continues the run")
            return code
        try:
            history = journal.replay(directory / "journal")
        except RunDirectoryError as error:
            _say(f"{error}; no restart")
            return code
        over = history.ended and history.exit_code != EXIT_LOST  # otherwise too few ranks were left to go on
        if over and len(history.headers) > n_before:
            return _code_of_end(history, code)
        if code == 0 and (over or not history.headers):
            return code
        hosts = _hosts(directory)
        _say(f"the job has died (exit code {code}); {_standing(history)}")
        for line in _running(history, hosts):
            _say(line)
        seconds = _seconds_left(began, time_limit)
        if left == 0:
            _say("no restarts are left; --resume continues the run")
            return code or EXIT_LOST
        if seconds is not None and seconds < LEAST_SECONDS:
            _say(f"no restart: only {max(0.0, seconds):.0f} s are left; --resume continues the run")
            return code or EXIT_LOST
        attempt = _next(first, attempt, hosts, seconds, probe, host_words)
        if attempt.n < 1:
            _say("no restart: no host answers; --resume continues the run")
            return code or EXIT_LOST
        # The job has ended.  Should a rank that was cut off live on, the journal does not count what it writes.
        (directory / "lock").unlink(missing_ok=True)
        _say(f"restarting on {attempt.n} ranks, {left - 1} restarts left")
    raise AssertionError("unreachable")


def _next(
    first: Attempt,
    last: Attempt,
    hosts: Sequence[str],
    seconds: float | None,
    probe: Callable[[Sequence[str]], list[str]],
    host_words: Callable[[Mapping[str, int]], list[str]] | None,
) -> Attempt:
    """Return the attempt after one that died, without the hosts that do not answer."""
    words = [*first.words, "--resume"]
    if seconds is not None:
        words += ["--time-limit-minutes", f"{seconds / 60:.4f}"]
    counts = Counter(hosts)
    if len(counts) < 2 or host_words is None:
        return Attempt(last.n, last.launcher_words, words)
    missing = [host for host in counts if host not in probe(list(counts))]
    if not missing:
        return Attempt(last.n, last.launcher_words, words)
    _say(f"left out, since they do not answer: {', '.join(missing)}")
    living = {host: n for host, n in counts.items() if host not in missing}
    return Attempt(sum(living.values()), [*without_hosts(last.launcher_words), *host_words(living)], words)


def without_hosts(words: Sequence[str]) -> list[str]:
    """Return a launcher's options without those that name hosts.

    >>> without_hosts(["--map-by", "node", "--host", "a:3,b:3"])
    ['--map-by', 'node']
    """
    kept: list[str] = []
    skip = False
    for word in words:
        if skip:
            skip = False
        elif word in HOST_OPTIONS:
            skip = True
        elif word.partition("=")[0] not in HOST_OPTIONS:
            kept.append(word)
    return kept


def reachable(commands: Mapping[str, Sequence[str]], environment: Mapping[str, str]) -> list[str]:
    """Return the hosts on which a command runs.

    Parameters
    ----------
    commands : mapping of str to sequence of str
        For each host a launcher's command that starts something small there.
    environment : mapping of str to str
    """
    processes = {
        host: subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        for host, command in commands.items()
    }
    deadline = time.monotonic() + PROBE_SECONDS
    found = []
    for host, process in processes.items():
        try:
            if process.wait(max(0.1, deadline - time.monotonic())) == 0:
                found.append(host)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return found


def _code_of_end(history: journal.History, code: int) -> int:
    """Return the exit code of a launch whose search has ended: a rank that died afterwards changes nothing."""
    if history.exit_code is None or history.exit_code == code:
        return code
    _say(f"exit code {code} came when the search had ended: all is there, and it counts as {history.exit_code}")
    return history.exit_code


def _has_ended(directory: Path, n_before: int) -> bool:
    """Return whether the present launch has recorded its end."""
    try:
        history = journal.replay(directory / "journal")
    except (RunDirectoryError, OSError):
        return False
    return history.ended and len(history.headers) > n_before


def _n_headers(directory: Path) -> int:
    """Return how many masters have written a journal."""
    try:
        return len(journal.replay(directory / "journal").headers)
    except RunDirectoryError:
        return 0


def _hosts(directory: Path) -> list[str]:
    """Return the host of each rank of the last launch."""
    try:
        description: dict[str, Any] = json.loads((directory / "run.json").read_text())
        return [str(host) for host in description["layout"]["hosts"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _standing(history: journal.History) -> str:
    return f"{len(history.finished)} evaluations are finished, {len(history.unfinished)} were not"


def _running(history: journal.History, hosts: Sequence[str]) -> list[str]:
    """Return a line for each trial that some rank held when the job died, the first ones."""
    lines = []
    for id_, ranks in history.holders.items():
        for rank in ranks:
            host = f" on {hosts[rank]}" if rank < len(hosts) else ""
            lines.append(f"  trial {id_} was with rank {rank}{host}")
    return lines[:MOST_TOLD] + [f"  and {len(lines) - MOST_TOLD} more"] * (len(lines) > MOST_TOLD)


def _seconds_left(began: float, time_limit: float | None) -> float | None:
    limits = [] if time_limit is None else [began + time_limit - time.monotonic()]
    job = job_deadline()
    if job is not None:
        limits.append(job - time.time())
    return min(limits, default=None)


def _say(line: str) -> None:
    print(f"dhmpi.launch: {line}", flush=True)
