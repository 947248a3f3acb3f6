"""Evaluating in a child process that a keeper watches: the rank's side.

`Keeper` is the client of :mod:`dhmpi.evaluate.keeper`, and `ProcessEvaluator` uses it to evaluate trials.  Nothing here
blocks, except `Keeper.close` for a bounded time.  No MPI: a rank starts its keeper before it initialises MPI.
"""

from __future__ import annotations

import json
import os
import secrets
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dhmpi import platform
from dhmpi.evaluate.interface import OUTPUT_CAP, EvaluationSpec, Evaluator, Event, Finished, Loaded, Refused, Reported
from dhmpi.evaluate.link import Inlet, Outlet, enclose, encode, open_envelope
from dhmpi.evaluate.result import describe_exit
from dhmpi.trials import Status, Trial, digest

__all__ = [
    "EvaluationSpec",
    "Evaluator",
    "Event",
    "Exited",
    "Finished",
    "Keeper",
    "Loaded",
    "ProcessEvaluator",
    "Refused",
    "Reported",
]

RUN = "DHMPI_RUN"
"""Environment variable of everything below the keepers of a named run."""
MARK = "DHMPI_KEEPER"
"""Environment variable of a keeper and of everything below it."""
CLOSING = 3.0
"""Seconds that a keeper gets to end everything."""
FROZEN = 0.2
"""Seconds without reading after which a keeper is not waited for; what it has not taken is sent later."""
REPLACING = 0.5
"""Seconds spent at most on what a keeper that died has left behind."""
MAX_LOADS = 3
"""Times in a row that a child may fail to load what an earlier one has loaded."""


class Exited(NamedTuple):
    """A child of a keeper has ended."""

    code: int | None
    """As in :mod:`subprocess`; None if the keeper died with it."""
    why: str = ""
    """By whom it was ended: timeout, memory, ended (as asked), mute, babble, unstartable, keeper; "" if by itself."""
    detail: str = ""
    evaluating: bool = False
    """Whether it was evaluating a trial."""
    elapsed: float = 0.0
    """Seconds it had been evaluating."""
    tail: tuple[str, ...] = ()
    """The last lines of its output."""

    @property
    def reason(self) -> str:
        """One sentence, then the last lines of output."""
        return _with_output(self.describe("the process"), self.tail)

    def describe(self, process: str) -> str:
        """Return the sentence, beginning with a name of the process."""
        if self.why == "keeper":
            return f"{process} was lost with its keeper: {self.detail}"
        if self.why == "unstartable":
            return f"{process} could not be started: {self.detail}"
        if self.why == "mute":
            return f"{process} closed its connection to dhmpi (did the function close all file descriptors?)"
        if self.why == "babble":
            return f"{process} wrote something else into its connection to dhmpi"
        return describe_exit(0 if self.code is None else self.code, process)


class Keeper:
    """A keeper process, and a new one whenever it dies.

    Make it with `spawn`, before MPI is initialised.
    """

    def __init__(self) -> None:
        self._run_id: str | None = None
        self._scratch: str | None = None
        self._children: dict[str, int] = {}
        """By name, the bytes that the keeper had been sent before the last evaluation there."""
        self._events: dict[str, deque[Any]] = {}
        self._closed = False
        self._start()

    @classmethod
    def spawn(cls) -> Keeper:
        """Start a keeper; it ends with this process, and with the thread that calls this."""
        return cls()

    def name_run(self, run_id: str) -> None:
        """Have the keeper name itself after the run, so that its leftovers can be found."""
        self._run_id = run_id
        self._tell({"do": "name", "run_id": run_id})

    def scratch(self) -> str:
        """Return a temporary directory that goes with the keeper."""
        if self._scratch is None:
            path = Path(tempfile.gettempdir()) / f"{platform.keeper_name(self._run_id or '')}-{secrets.token_hex(6)}"
            path.mkdir(mode=0o700)
            self._scratch = str(path)
            self._tell({"do": "scratch", "path": self._scratch})
        return self._scratch

    def start_child(
        self,
        name: str,
        module: str,
        environment: Mapping[str, str],
        cwd: str | Path,
        output: str | Path | None,
        cap: int = OUTPUT_CAP,
        wrap: Sequence[str] = (),
        python: str = sys.executable,
    ) -> None:
        """Start ``python -m module FD_IN FD_OUT`` as the resident child of some name.

        Parameters
        ----------
        name : str
            "evaluate" or "search"; a child of that name must have ended.
        module : str
        environment : mapping of str to str
            Variables besides those of this process.
        cwd : str or Path
            Its working directory.
        output : str, Path or None
            File to which what it prints outside evaluations is appended.
        cap : int, default 10,000,000
            Bytes of output that are kept.
        wrap : sequence of str, optional
            Words of another command that is started instead, in which a word ``{}`` stands for the first.
        python : str, optional
            The interpreter, by default this one.
        """
        command = [python, "-m", module, "{fds}"]
        if wrap:
            command = [word for part in wrap for word in (command if part == "{}" else [part])]
        self._children[name] = sys.maxsize
        self._tell(
            {
                "do": "start",
                "child": name,
                "command": command,
                "environment": {**({} if self._run_id is None else {RUN: self._run_id}), **environment},
                "cwd": str(cwd),
                "log": None if output is None else str(Path(output).absolute()),
                "cap": cap,
            }
        )

    def send(self, name: str, message: Any, watch: Mapping[str, Any] | None = None) -> None:
        """Send a message to a child; one that has ended does not get it.

        Parameters
        ----------
        name : str
        message : JSON
        watch : mapping, optional
            Limits of the evaluation that the message begins, as `dhmpi.evaluate.keeper` wants them.
        """
        envelope: dict[str, Any] = {"do": "send", "child": name}
        if watch is not None:
            envelope["watch"] = watch
            self._children[name] = self._outlet.n_put
        self._tell(envelope, encode(message).encode())

    def end_child(self, name: str) -> None:
        """End a child: at once if it evaluates, else it may leave by itself first; `Exited` follows."""
        self._tell({"do": "end", "child": name})

    def poll(self, name: str) -> list[Any]:
        """Return what has come from a child: its messages, and an `Exited`."""
        if not self._closed:
            self._receive()
        events = self._events.get(name)
        if not events:
            return []
        arrived = list(events)
        events.clear()
        return arrived

    def fileno(self) -> int | None:
        """Return a descriptor that is readable when `poll` has something to do; another after the keeper has died."""
        return None if self._closed else self._inlet.fd

    @property
    def pid(self) -> int:
        """Process id of the present keeper."""
        return self._process.pid

    def close(self) -> None:
        """End the keeper and everything below it, within about three seconds."""
        if self._closed:
            return
        self._tell({"do": "close"})
        self._closed = True
        until = time.monotonic() + CLOSING
        waiting = select.poll()
        waiting.register(self._inlet.fd, select.POLLIN)
        while not self._inlet.closed and (left := until - time.monotonic()) > 0:
            self._outlet.flush()
            waiting.poll(min(left, 0.1) * 1000)
            self._inlet.read()
        self._end(CLOSING)
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)

    def _start(self) -> None:
        in_, to_keeper = os.pipe()
        from_keeper, out = os.pipe()
        self._mark = secrets.token_hex(8)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "dhmpi.evaluate.keeper", str(in_), str(out)],
                env={**platform.scrub(os.environ), MARK: self._mark},
                pass_fds=(in_, out),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError:
            os.close(to_keeper)
            os.close(from_keeper)
            raise
        finally:
            os.close(in_)
            os.close(out)
        self._outlet = Outlet(to_keeper)
        self._inlet = Inlet(from_keeper)

    def _tell(self, envelope: Mapping[str, Any], body: bytes = b"") -> None:
        if not self._closed:
            self._outlet.put(enclose(dict(envelope), body))
            if self._outlet.n_bytes:  # more than a pipe holds; a keeper always reads, unless it is frozen
                self._outlet.flush_all(FROZEN)

    def _receive(self) -> None:
        self._outlet.flush()
        for content in self._inlet.read_all():
            envelope, body = open_envelope(content)
            name, tail = envelope["child"], envelope.get("tail")
            events = self._events.setdefault(name, deque())
            if envelope["event"] == "message":
                message = json.loads(body)
                if tail is not None:
                    message["tail"] = tail
                events.append(message)
            else:
                self._children.pop(name, None)
                events.append(
                    Exited(
                        envelope["code"],
                        envelope["why"],
                        envelope["detail"],
                        envelope["evaluating"],
                        envelope["elapsed"],
                        tuple(envelope["tail"]),
                    )
                )
        if self._inlet.closed:
            self._replace()

    def _replace(self) -> None:
        """The keeper has died, and its children with it: make another one."""
        n_read = self._outlet.n_read
        code = self._end(REPLACING)
        for name, n_put in self._children.items():
            exited = Exited(None, "keeper", describe_exit(code, "it"), evaluating=n_read > n_put)
            self._events.setdefault(name, deque()).append(exited)
        self._children.clear()
        self._start()
        if self._run_id is not None:
            self._tell({"do": "name", "run_id": self._run_id})
        if self._scratch is not None:
            self._tell({"do": "scratch", "path": self._scratch})

    def _end(self, patience: float) -> int:
        """Leave nothing of the present keeper, within `patience` seconds; return its exit code."""
        until = time.monotonic() + patience
        self._outlet.close()
        os.close(self._inlet.fd)
        platform.kill([self._process.pid] if self._process.poll() is None else [])
        try:
            code = self._process.wait(patience)
        except subprocess.TimeoutExpired:
            code = -signal.SIGKILL  # it will come, when a driver or a file system lets it
        # Without their keeper, processes that made themselves daemons are known only by the mark in their environment.
        while (left := platform.marked_processes(MARK, self._mark)) and time.monotonic() < until:
            platform.kill(left)
        return code


class ProcessEvaluator:
    """Evaluates trials one after another in a child process.

    Parameters
    ----------
    keeper : Keeper
    spec : EvaluationSpec
    """

    NAME = "evaluate"

    def __init__(self, keeper: Keeper, spec: EvaluationSpec) -> None:
        self._keeper = keeper
        self._spec = spec
        self._home = spec.home or str(Path.cwd())
        self._run_directory = spec.run_directory.absolute()
        self._events: list[Event] = []
        self._announce = False  # Loaded is told once, for the first child
        self._wanted = False  # a child that ends is replaced
        self._resident = False  # a child was started, and its end has not been noticed
        self._loaded = False
        self._leaving = False  # the child is being replaced: what it says does not count
        self._n_loads = 0  # in a row that have failed
        self._trial: Trial | None = None
        self._timeout: float | None = None
        self._sent = False  # the trial has gone to the child
        self._start = 0.0

    def load(self) -> None:
        """Begin to import the run function; `Loaded` or `Refused` follows."""
        self._announce = self._wanted = True
        self._n_loads = 0
        if not self._resident:
            self._start_child()

    def start(self, trial: Trial, timeout: float | None = None) -> None:
        """Begin to evaluate a trial; while a child is being replaced the evaluation begins as soon as it is ready.

        Parameters
        ----------
        trial : Trial
        timeout : float, optional
            Seconds after which it is killed.

        Raises
        ------
        RuntimeError
            If another trial is running.
        """
        if self._trial is not None:
            raise RuntimeError(f"trial {trial.id} was started while trial {self._trial.id} was running")
        self._trial, self._timeout, self._sent = trial, timeout, False
        self._start = time.time()
        if self._loaded:
            self._send()

    def poll(self) -> list[Event]:
        """Return what has happened since the last call."""
        for event in self._keeper.poll(self.NAME):
            if isinstance(event, Exited):
                self._take_exit(event)
            elif not self._leaving:
                try:
                    self._take(event)
                except (KeyError, TypeError, ValueError):  # user code can write into the pipe of its process
                    self._finish(Status.CRASHED, Exited(None, "babble").describe(_OF_THE_EVALUATION))
                    self._replace_child()
        events, self._events = self._events, []
        return events

    def fileno(self) -> int | None:
        """Return a descriptor that is readable when `poll` has something to do; ask again before each wait."""
        return self._keeper.fileno()

    def cancel(self) -> None:
        """Kill the running evaluation; its `Finished` says cancelled."""
        if self._trial is None:
            return
        if self._sent:
            self._replace_child()
        self._finish(Status.CANCELLED, "cancelled", elapsed=time.time() - self._start if self._sent else 0.0)

    def stop(self) -> None:
        """Have `should_stop` return True in the running evaluation."""
        if self._trial is not None and self._sent:
            self._keeper.send(self.NAME, {"do": "stop", "trial": self._trial.id, "attempt": self._trial.attempt})

    def close(self) -> None:
        """End the child; the keeper is left to its owner."""
        self._trial = None
        self._wanted = False
        if self._resident:
            self._replace_child()

    def _start_child(self) -> None:
        spec = self._spec
        environment = {**spec.environment, RUN: spec.run_id}
        self._resident, self._loaded, self._leaving = True, False, False
        self._keeper.start_child(
            self.NAME,
            "dhmpi.evaluate.child",
            environment,
            self._home,
            spec.log,
            spec.output_cap_bytes,
            spec.wrap,
            spec.python,
        )
        weigh = spec.recycle_rss_mb is not None
        common = {"problem": spec.problem, "run_seed": spec.seed, "watched": spec.watched}
        self._keeper.send(self.NAME, {"do": "load", "run": spec.run, "weigh": weigh, "common": common})

    def _replace_child(self) -> None:
        """End the child; another one is started when it has ended, so that the two never share memory or a GPU."""
        self._loaded = False
        self._leaving = True
        self._keeper.end_child(self.NAME)

    def _send(self) -> None:
        trial, spec = self._trial, self._spec
        assert trial is not None
        scratch = spec.task_dirs == "none"
        directory = f"{self._keeper.scratch()}/task" if scratch else self._directory(trial)
        watch = {
            "timeout": self._timeout,
            "max_rss_mb": spec.max_rss_mb,
            "directory": None if scratch else directory,
            "file": None if scratch else f"task{trial.id}.out",
            "cap": spec.output_cap_bytes,
            "heading": f"[dhmpi: attempt {trial.attempt}]\n",
        }
        message = {
            "do": "evaluate",
            "trial": trial.id,
            "attempt": trial.attempt,
            "config": trial.config,
            "directory": directory,
            "scratch": scratch,
            "timeout": self._timeout,
        }
        if spec.chaos is not None:
            message["fault"] = spec.chaos.fault(spec.seed, trial.id, trial.attempt)
        self._sent = True
        self._start = time.time()
        self._keeper.send(self.NAME, message, watch)

    def _directory(self, trial: Trial) -> str:
        return f"{self._run_directory}/task{trial.id}_{digest(trial.config)}{'_copy' if trial.copy else ''}"

    def _take(self, message: dict[str, Any]) -> None:
        event = message["event"]
        if event == "finished":
            self._take_finished(message)
        elif event == "report":
            trial, attempt = message["trial"], message["attempt"]
            self._events.append(Reported(trial, attempt, message["step"], message["value"]))
        elif event == "loaded":
            self._loaded, self._n_loads = True, 0
            if self._announce:
                self._announce = False
                self._events.append(Loaded(message["seconds"]))
            if self._trial is not None:
                self._send()
        elif event == "refused":
            self._leave_unloaded(message["reason"], self._announce)

    def _take_finished(self, message: dict[str, Any]) -> None:
        trial = self._trial
        if trial is None or (message["trial"], message["attempt"]) != (trial.id, trial.attempt):
            raise ValueError("an answer for a trial that was not asked for")
        self._trial = None
        status = Status(message["status"])
        self._events.append(
            Finished(
                trial.id,
                trial.attempt,
                status,
                message["objective"],
                message["metrics"],
                message["start"],
                message["end"],
                message["elapsed"],
                _with_output(message["reason"], message.get("tail", ())),
            )
        )
        if status is Status.DONE and self._spec.task_dirs == "failed":
            self._keeper.send(self.NAME, {"do": "remove", "directory": self._directory(trial)})
        if self._spec.recycle_rss_mb is not None and message["rss_mb"] > self._spec.recycle_rss_mb:
            self._replace_child()

    def _take_exit(self, exited: Exited) -> None:
        expected, loaded = self._leaving, self._loaded
        self._resident = self._loaded = self._leaving = False
        if exited.evaluating and self._trial is not None and self._sent and not expected:
            self._finish(*_blame(exited, self._timeout, self._spec.max_rss_mb), exited.elapsed)
        self._sent = False
        if loaded or expected:
            if self._wanted:
                self._start_child()
        else:
            process = f"the process that imports {self._spec.run}"
            reason = _with_output(exited.describe(process), exited.tail)
            self._leave_unloaded(reason, self._announce and exited.why != "keeper")

    def _leave_unloaded(self, reason: str, final: bool) -> None:
        """A child has failed to load: the end if it is `final`, or if one after another does so."""
        self._n_loads += 1
        if final or self._n_loads >= MAX_LOADS:
            self._announce = self._wanted = False
            self._trial = None
            self._events.append(Refused(reason))
        if self._resident:
            self._replace_child()
        elif self._wanted:
            self._start_child()

    def _finish(self, status: Status, reason: str, elapsed: float = 0.0) -> None:
        trial, self._trial = self._trial, None
        if trial is not None:
            end = self._start + elapsed
            self._events.append(Finished(trial.id, trial.attempt, status, None, {}, self._start, end, elapsed, reason))


_OF_THE_EVALUATION = "the process of the evaluation"


def _blame(exited: Exited, timeout: float | None, max_rss_mb: float | None) -> tuple[Status, str]:
    """Return status and reason of an evaluation whose process has ended."""
    if exited.why == "timeout":
        status, sentence = Status.TIMEOUT, f"the evaluation was ended at its time limit of {timeout:g} s"
    elif exited.why == "memory":
        status = Status.MEMORY
        sentence = f"the processes of the evaluation used {exited.detail} MB, more than the limit of {max_rss_mb:g} MB"
    else:
        status, sentence = Status.CRASHED, exited.describe(_OF_THE_EVALUATION)
    return status, _with_output(sentence, exited.tail)


def _with_output(reason: str, tail: tuple[str, ...] | list[str]) -> str:
    if not tail:
        return reason
    return "\n".join((reason, "last output:", *(line[:500] for line in tail)))
