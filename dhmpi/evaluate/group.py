"""Evaluating in the rank itself, as a member of a group of ranks: the function needs MPI, and the rank must answer.

The function runs in the main thread and the rank's messages are served by another one.  So a signal can end whatever
waits in Python: a sleep, a lock, a subprocess, an operation of the group's communicator.  An exception that is thrown
into a second thread would reach none of them before they return (measured: `time.sleep(4)` was left after 4.0 s, and
after 0.5 s by a signal sent then).  Nothing here knows MPI.  Start reading at `GroupEvaluator.work`.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import queue
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dhmpi import platform
from dhmpi.errors import DhmpiError
from dhmpi.evaluate import context, failure
from dhmpi.evaluate.interface import EvaluationSpec, Event, Finished, Loaded, Refused, Reported
from dhmpi.evaluate.loading import load_prepared
from dhmpi.evaluate.reports import Reports
from dhmpi.evaluate.result import check
from dhmpi.evaluate.surroundings import Surroundings, make_directory
from dhmpi.external import is_external
from dhmpi.load import takes_comm
from dhmpi.staging import import_copies
from dhmpi.trials import Status, Trial, digest

ABANDON = getattr(signal, "SIGRTMIN", signal.SIGUSR2 - 2) + 2
"""Signal that ends an evaluation."""
TAIL = 10
"""Lines of output that are told of an evaluation that failed."""
TAIL_BYTES = 4000
MARGIN = 15.0
"""Seconds beyond the time limit and the grace after which a process ends that not even answers messages."""


class Abandoned(BaseException):
    """Raised in the function when its evaluation has no use any more: let it pass."""


class Apart(NamedTuple):
    """The group's communicator could not be made: nothing was evaluated."""

    trial: int
    attempt: int
    reason: str


class Place(NamedTuple):
    """An evaluation as one member of the group sees it."""

    trial: Trial
    position: int
    """Of this member in the group; the leader has 0."""
    hosts: Sequence[str]
    comm: Callable[[], Any]
    """Returns the group's communicator, or makes it."""
    timeout: float | None
    grace: float


class GroupEvaluator:
    """One member's part of evaluations: `work` runs in the main thread, everything else in the one that serves.

    Parameters
    ----------
    clock : callable, default time.monotonic
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._main = threading.main_thread().ident
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._events: deque[Event | Apart] = deque()
        self._wake_in, self._wake_out = os.pipe()
        for fd in (self._wake_in, self._wake_out):
            os.set_blocking(fd, False)
        self._spec: EvaluationSpec | None = None
        self._run: Callable[..., Any] | None = None
        self._takes_comm = False
        self._armed = False  # an abandonment raises
        self._abandoned = False
        self._stop_asked = False
        self._callbacks: list[Callable[[], Any]] = []
        self.busy = False
        """Whether the main thread has something to do."""
        signal.signal(ABANDON, self._interrupt)
        for stream in (sys.stdout, sys.stderr):
            stream.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]
        self._served = (_ByThread(sys.stdout), _ByThread(sys.stderr))
        sys.stdout, sys.stderr = self._served  # type: ignore[assignment]
        self._surroundings = Surroundings()
        self._home = str(Path.cwd())

    # -- the main thread -----------------------------------------------------------------------------------------------

    def work(self, serve: Callable[[], None]) -> None:
        """Do what comes while `serve` runs in a thread of its own, until it returns; raise what it raises."""
        raised: list[BaseException] = []

        def beside() -> None:
            platform.keep_own_directory()  # others change that of the process, by which they find files of theirs
            for stream in self._served:
                stream.serve()
            try:
                serve()
            except BaseException as error:
                raised.append(error)
            finally:
                self._jobs.put(None)

        threading.Thread(target=beside, name="dhmpi messages", daemon=True).start()
        while True:
            try:
                job = self._jobs.get()
                if job is None:
                    break
                job()
            except Abandoned:
                pass  # it came when the function had ended
        for stream in self._served:
            stream.unite()
        self._surroundings.move(self._home)
        if raised:
            raise raised[0]

    def _interrupt(self, number: int, frame: Any) -> None:
        if self._armed and self._abandoned:
            raise Abandoned

    def _load(self, spec: EvaluationSpec) -> None:
        began = time.perf_counter()
        event: Event
        self._redirect_to_log(spec.log)
        try:
            self._surroundings.move(spec.home or self._home)
            import_copies()
            self._armed = True
            try:
                self._run = run = load_prepared(spec.run, spec.problem, with_comm=True)
            finally:
                self._armed = False
            self._takes_comm = takes_comm(run)
            event = Loaded(time.perf_counter() - began)
        except DhmpiError as error:
            event = Refused(str(error))
        except BaseException as exception:  # of the user's module, sys.exit for instance
            event = Refused(f"{spec.run} cannot be imported: {failure.describe(exception)}")
        self._surroundings.restore()
        with contextlib.suppress(OSError):
            if spec.log is not None and spec.log.stat().st_size == 0:
                spec.log.unlink()
        self._end(event)

    def _redirect_to_log(self, log: Path | None) -> None:
        """Let what imports print go to a file, if it can be made."""
        if log is None:
            return
        try:
            log.parent.mkdir(exist_ok=True)
            fd = _opened(str(log))
        except OSError:  # where evaluations can write nothing either, each of them will say so
            return
        self._surroundings.redirect(fd)
        os.close(fd)

    def _evaluate(self, place: Place, directory: str, output: str) -> None:
        """Evaluate a trial; whatever happens, an event says how it ended."""
        trial = place.trial
        start, began = time.time(), time.perf_counter()
        status, objective, metrics, reason = Status.FAILED, None, {}, ""
        if place.timeout is not None:  # ends a process whose other thread cannot run, since this one keeps it from that
            faulthandler.dump_traceback_later(place.timeout + place.grace + MARGIN, exit=True)
        try:
            try:
                comm = place.comm()
            except Exception as error:
                self._end(Apart(trial.id, trial.attempt, f"{type(error).__name__}: {error}"))
                return
            try:
                self._enter(place, directory, output, comm)
            except OSError as error:
                reason = f"the directory {directory} of the evaluation cannot be used: {error.strerror or error}"
            else:
                start, began = time.time(), time.perf_counter()
                try:
                    returned = self._call(dict(trial.config), comm, place.position)
                except Abandoned:
                    status, reason = Status.CANCELLED, "abandoned"
                except BaseException as exception:  # whatever it is, it is an outcome
                    status, reason = failure.status(exception), failure.describe(exception, 2)
                else:
                    try:
                        objective, metrics = check(returned) if place.position == 0 else (None, {})
                        status = Status.DONE
                    except ValueError as error:
                        reason = str(error)
        finally:
            self._armed = False
            faulthandler.cancel_dump_traceback_later()
        elapsed = time.perf_counter() - began
        context.leave()
        self._surroundings.restore()
        if status is Status.CANCELLED:
            platform.free_memory()  # perhaps it was ended because of that
        if status is Status.FAILED:
            reason = _with_output(reason, output)
        end = start + elapsed
        self._end(Finished(trial.id, trial.attempt, status, objective, metrics, start, end, elapsed, reason))

    def _enter(self, place: Place, directory: str, output: str, comm: Any) -> None:
        """Make the surroundings of an evaluation."""
        spec, trial = self._spec, place.trial
        assert spec is not None
        make_directory(directory)
        fd = _opened(output)
        try:
            os.write(fd, f"[dhmpi: attempt {trial.attempt}]\n".encode())
            self._surroundings.redirect(fd)
        finally:
            os.close(fd)
        os.chdir(directory)
        reports = None
        if place.position == 0:
            reports = Reports(lambda step, value: self._report(Reported(trial.id, trial.attempt, step, value)))
        context.enter(
            context.TrialContext(
                trial.id,
                trial.attempt,
                spec.seed,
                directory,
                None if place.timeout is None else time.time() + place.timeout,
                reports.take if reports else None,
                self._should_stop(comm, reports) if spec.watched else None,
                comm,
                spec.problem,
                spec.watched,
                place.hosts,
                self._callbacks.append,
            )
        )

    def _call(self, config: dict[str, Any], comm: Any, index: int) -> Any:
        run, spec = self._run, self._spec
        if run is None or spec is None:
            raise RuntimeError("an evaluation was started before the run function was loaded")
        if index and is_external(spec.run):
            return 0.0  # the program is started once
        self._armed = True
        try:
            if self._abandoned:
                raise Abandoned
            return run(config, comm=comm) if self._takes_comm else run(config)
        finally:
            self._armed = False

    def _should_stop(self, comm: Any, reports: Reports | None) -> Callable[[], bool]:
        def ask() -> bool:
            if reports:
                reports.flush()
            return bool(comm.bcast(self._stop_asked, root=0))  # what is decided together is decided by one

        return ask

    def _report(self, reported: Reported) -> None:
        self._events.append(reported)
        self._wake()

    def _end(self, event: Event | Apart) -> None:
        self._events.append(event)
        self.busy = False
        self._wake()

    def _wake(self) -> None:
        try:
            os.write(self._wake_out, b"\0")
        except BlockingIOError:
            pass  # it will wake

    # -- the thread that serves ----------------------------------------------------------------------------------------

    def begin(self, spec: EvaluationSpec) -> None:
        """Import the run function; `Loaded` or `Refused` follows."""
        self._spec, self._abandoned = spec, False
        os.environ.update(spec.environment)  # numerical libraries look at it when they are imported
        self._put(lambda: self._load(spec))

    def start(self, place: Place) -> None:
        """Begin an evaluation; `Finished` follows, or `Apart`."""
        spec, trial = self._spec, place.trial
        assert spec is not None
        self._abandoned = self._stop_asked = False
        self._callbacks = []
        if spec.task_dirs == "none":
            directory = tempfile.mkdtemp(prefix="dhmpi-")
        else:
            directory = f"{spec.run_directory.absolute()}/task{trial.id}_{digest(trial.config)}"
        member = f".{place.position}" if place.position else ""
        output = f"{directory}/task{trial.id}{member}.out"

        def evaluate() -> None:
            self._evaluate(place, directory, output)
            if spec.task_dirs == "none":
                shutil.rmtree(directory, ignore_errors=True)

        self._put(evaluate)

    def remove(self, trial: Trial) -> None:
        """Remove the directory of a trial."""
        if self._spec is not None:
            path = Path(f"{self._spec.run_directory.absolute()}/task{trial.id}_{digest(trial.config)}")
            shutil.rmtree(path, ignore_errors=True)

    def poll(self) -> list[Event | Apart]:
        """Return what has happened since the last call."""
        if not self._events:
            return []
        try:
            os.read(self._wake_in, 4096)
        except BlockingIOError:
            pass
        events = []
        while self._events:
            events.append(self._events.popleft())
        return events

    def fileno(self) -> int:
        """Return a descriptor that is readable when `poll` has something to return."""
        return self._wake_in

    def abandon(self, first: bool) -> None:
        """End the function, or its import, if it can be ended; to be called again if it goes on.

        Parameters
        ----------
        first : bool
            Whether this is the first call for this evaluation.
        """
        self._abandoned = True
        if first:
            for callback in self._callbacks:
                try:
                    callback()
                except Exception as error:  # of the user's
                    print(f"on_abandon: {failure.describe(error)}", file=sys.stderr, flush=True)
        if self._main is not None and self._armed:
            signal.pthread_kill(self._main, ABANDON)

    def stop(self) -> None:
        """Have `should_stop` return True in the running evaluation."""
        self._stop_asked = True

    def _put(self, job: Callable[[], None]) -> None:
        if self.busy:
            raise RuntimeError("an evaluation was started while another was running")
        self.busy = True
        self._jobs.put(job)


class _ByThread:
    """A standard stream for evaluations, and what it was at the beginning for the thread that serves."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._console = os.fdopen(os.dup(stream.fileno()), "w", buffering=1, errors="backslashreplace")
        self._server: int | None = None

    def serve(self) -> None:
        """Make the calling thread the one that serves."""
        self._server = threading.get_ident()

    def unite(self) -> None:
        """Let all threads have the same stream."""
        self._server = None

    def __getattr__(self, name: str) -> Any:
        serving = threading.get_ident() == self._server
        return getattr(self._console if serving else self._stream, name)


def _opened(output: str) -> int:
    return os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o666)


def _with_output(reason: str, output: str) -> str:
    try:
        with Path(output).open("rb") as stream:
            stream.seek(0, os.SEEK_END)
            stream.seek(max(0, stream.tell() - TAIL_BYTES))
            lines = stream.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return reason
    tail = [line[:500] for line in lines[-TAIL:] if not line.startswith("[dhmpi: attempt ")]
    return "\n".join((reason, "last output:", *tail)) if tail else reason
