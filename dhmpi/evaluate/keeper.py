"""The keeper: a small process beside a rank that starts, watches and ends the processes in which user code runs.

``python -m dhmpi.evaluate.keeper FD_IN FD_OUT`` is started by :class:`dhmpi.evaluate.process.Keeper` before the rank
initialises MPI.  It has one resident child for each name ("evaluate", "search"), passes messages between them and the
rank, always drains what they print, and holds their time and memory limits.  When the rank goes, so does everything.
It must not know what the messages say (only that an evaluation has finished) and imports nothing heavy.

Start reading at `_Keeper.serve`.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from dhmpi import platform
from dhmpi.evaluate.link import CHUNK, EXIT_MUTE, Inlet, Outlet, enclose, frame, open_envelope, raised

LOOK_EVERY = 0.5
"""Seconds between looks at the memory of an evaluation."""
GRACE = 1.0
"""Seconds that an idle child gets to leave by itself."""
SILENCE = 0.2
"""Seconds that a child may live on after it has closed its pipe to the keeper."""
GIVE_UP = 10.0
"""Seconds after which the keeper leaves although a process cannot be killed (it hangs in a driver or a file system)."""
PATIENCE = 1 << 20
"""Bytes waiting for the rank above which children are no longer read."""
HIGH_FD = 900
"""Children get their pipes from this number on, where user code does not hit them by accident."""
TAIL_BYTES = 4000
TAIL_LINES = 20


class _Output:
    """What a child prints: its beginning goes to a file, its end is remembered.

    The file is opened when there is something to write.  Directories and files are never reached through a symbolic
    link that the child may have planted.
    """

    def __init__(self, directory: str | None, name: str | None, cap: int, heading: str = "") -> None:
        self._directory = directory
        self._name = name
        self._room = cap
        self._cap = cap
        self._heading = heading.encode()
        self._fd: int | None = None
        self._tail = b""

    def feed(self, chunk: bytes) -> None:
        """Take a part of the output."""
        self._tail = (self._tail + chunk)[-TAIL_BYTES:]
        if self._name is None:
            return
        try:
            if self._fd is None:
                self._fd = self._open()
                if self._heading and os.fstat(self._fd).st_size:
                    os.write(self._fd, self._heading)
            if len(chunk) <= self._room:
                os.write(self._fd, chunk)
                self._room -= len(chunk)
            else:
                os.write(self._fd, chunk[: self._room])
                os.write(
                    self._fd, f"\n[dhmpi: more than {self._cap} bytes were printed; the rest was dropped]\n".encode()
                )
                self.close()
        except OSError:  # no space, or the directory has gone: an evaluation does not need its output
            self.close()

    def tail(self) -> list[str]:
        """Return the last lines."""
        return self._tail.decode("utf-8", "replace").splitlines()[-TAIL_LINES:]

    def close(self) -> None:
        """Write no more."""
        self._name = None
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _open(self) -> int:
        assert self._name is not None
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        if self._directory is None:
            return os.open(self._name, flags, 0o666)
        directory = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            return os.open(self._name, flags, 0o666, dir_fd=directory)
        finally:
            os.close(directory)


class _Watch:
    """The limits of an evaluation that is running."""

    def __init__(self, timeout: float | None, max_rss_mb: float | None, output: _Output, n_put: int) -> None:
        self.began = time.monotonic()
        self.n_put = n_put  # bytes that the child had been sent before
        self.timeout = timeout
        self.max_rss_mb = max_rss_mb
        self.output = output
        self.deadline = self.began + timeout if timeout is not None else float("inf")
        self.look_at = self.began + LOOK_EVERY if max_rss_mb is not None else float("inf")


class _Child:
    """A resident child process."""

    def __init__(self, name: str, pid: int, outlet: Outlet, inlet: Inlet, printed: int, log: _Output) -> None:
        self.name = name
        self.pid = pid
        self.outlet = outlet
        self.inlet = inlet
        self.printed = printed
        self.log = log
        self.watch: _Watch | None = None
        self.why = ""  # it is being ended, and this is the reason
        self.detail = ""
        self.leave_by = float("inf")

    @property
    def output(self) -> _Output:
        return self.log if self.watch is None else self.watch.output


class _Keeper:
    """See the module.

    Parameters
    ----------
    fd_in, fd_out : int
        Pipes from and to the rank.
    """

    def __init__(self, fd_in: int, fd_out: int) -> None:
        for fd in (fd_in, fd_out):
            os.set_inheritable(fd, False)  # a daemon that held them would hide the keeper's death from the rank
        self._rank = os.getppid()
        self._inlet = Inlet(fd_in)
        self._outlet = Outlet(fd_out)
        self._selector = selectors.DefaultSelector()
        self._children: dict[str, _Child] = {}
        self._scratch: str | None = None
        self._leave_by = float("inf")
        self._leaving = False
        self._orphans = False  # some are being ended
        self._deaf = False  # the rank does not read, so children are not read either
        self._listen(fd_in, self._hear_rank)
        self._listen(_wakeup_pipe(), self._woken)

    def serve(self) -> None:
        """Work until the rank goes or says so, then end everything."""
        while not self._leaving:
            self._step()
        self._end_everything()
        if self._scratch is not None:
            import shutil  # late: it would double the modules that the keeper holds

            shutil.rmtree(self._scratch, ignore_errors=True)

    def _step(self) -> None:
        for key, _ in self._selector.select(self._patience()):
            if self._selector.get_map().get(key.fd) is key:  # else an earlier event of this round has closed it
                key.data(key.fd)
        self._look_at_clock()

    def _listen(self, fd: int, callback: Callable[[int], None], events: int = selectors.EVENT_READ) -> None:
        self._selector.register(fd, events, callback)

    def _unlisten(self, *fds: int) -> None:
        for fd in fds:
            try:
                self._selector.unregister(fd)
            except (KeyError, ValueError):
                pass

    # -- the rank

    def _hear_rank(self, _: int) -> None:
        for content in self._inlet.read():
            envelope, body = open_envelope(content)
            getattr(self, "_do_" + envelope.pop("do"))(body=body, **envelope)
        if self._inlet.closed:
            self._leaving = True

    def _do_name(self, run_id: str, body: bytes) -> None:
        platform.set_process_name(platform.keeper_name(run_id))

    def _do_scratch(self, path: str, body: bytes) -> None:
        self._scratch = path

    def _do_start(
        self,
        child: str,
        command: list[str],
        environment: dict[str, str],
        cwd: str,
        log: str | None,
        cap: int,
        body: bytes,
    ) -> None:
        try:
            started = self._start(child, command, {**os.environ, **environment}, cwd, _Output(None, log, cap))
        except OSError as error:  # too many processes or open files
            self._tell(_exit_of(child, 127, "unstartable", str(error)))
            return
        self._children[child] = started
        self._listen(started.printed, lambda _: self._drain(started))
        if not self._deaf:
            self._listen_to(started)

    def _start(self, name: str, command: list[str], environment: dict[str, str], cwd: str, log: _Output) -> _Child:
        fds: list[int] = []
        try:
            for _ in range(3):
                fds += os.pipe()
            keeper = os.getpid()
            pid = os.fork()  # of a process this small, and without threads, the simplest way to set up a child
        except OSError:
            for fd in fds:
                os.close(fd)
            raise
        to_child, outlet, inlet, from_child, printed, prints = fds
        if pid == 0:
            _become(command, to_child, from_child, prints, environment, cwd, keeper)
        for fd in (to_child, from_child, prints):
            os.close(fd)
        os.set_blocking(printed, False)
        return _Child(name, pid, Outlet(outlet), Inlet(inlet), printed, log)

    def _do_send(self, child: str, body: bytes, watch: dict[str, Any] | None = None) -> None:
        receiver = self._children.get(child)
        if receiver is None or receiver.why:
            return  # the rank is about to learn that it has ended
        if watch is not None:
            output = _Output(watch["directory"], watch["file"], watch["cap"], watch["heading"])
            receiver.watch = _Watch(watch["timeout"], watch["max_rss_mb"], output, receiver.outlet.n_put)
        receiver.outlet.put(frame(body))
        self._await_room(receiver.outlet)

    def _do_end(self, child: str, body: bytes) -> None:
        """End a child: at once if it evaluates, else it may leave by itself."""
        ending = self._children.get(child)
        if ending is None or ending.why:
            return
        if ending.watch is not None:
            self._kill(ending, "ended")
            return
        ending.why = "ended"
        ending.leave_by = time.monotonic() + GRACE
        self._close_outlet(ending)

    def _do_close(self, body: bytes) -> None:
        for name in list(self._children):
            self._do_end(name, b"")
        self._leave_by = time.monotonic() + GRACE
        self._leave_if_alone()

    def _tell(self, envelope: dict[str, Any], body: bytes = b"") -> None:
        self._outlet.put(enclose(envelope, body))
        self._await_room(self._outlet)
        if self._outlet.n_bytes > PATIENCE and not self._deaf:
            self._deaf = True
            self._unlisten(*(child.inlet.fd for child in self._children.values()))

    def _await_room(self, outlet: Outlet) -> None:
        if outlet.n_bytes and outlet.fd not in self._selector.get_map():
            self._listen(outlet.fd, lambda _: self._flush(outlet), selectors.EVENT_WRITE)

    def _flush(self, outlet: Outlet) -> None:
        outlet.flush()
        if not outlet.n_bytes:
            self._unlisten(outlet.fd)
        if self._deaf and self._outlet.n_bytes < PATIENCE:
            self._deaf = False
            for child in self._children.values():
                if not child.inlet.closed:
                    self._listen_to(child)

    # -- the children

    def _listen_to(self, child: _Child) -> None:
        self._listen(child.inlet.fd, lambda _: self._hear_child(child))

    def _hear_child(self, child: _Child) -> None:
        try:
            contents = child.inlet.read()
        except ValueError:
            self._kill(child, "babble")
            return
        self._pass_on(child, contents)
        if child.inlet.closed:
            self._unlisten(child.inlet.fd)
            if not child.why:
                child.leave_by = time.monotonic() + SILENCE  # most likely it is ending by itself

    def _pass_on(self, child: _Child, contents: list[bytes]) -> None:
        for content in contents:
            envelope: dict[str, Any] = {"child": child.name, "event": "message"}
            if child.watch is not None:
                try:
                    message = json.loads(content)
                    finished, done = message.get("event") == "finished", message.get("status") == "done"
                except (ValueError, AttributeError):
                    self._kill(child, "babble")
                    return
                if finished:
                    tail = self._settle(child)
                    if not done:
                        envelope["tail"] = tail
            self._tell(envelope, content)

    def _settle(self, child: _Child) -> list[str]:
        """End the watch over an evaluation; return its last lines of output."""
        self._drain(child)
        output = child.output
        output.close()
        child.watch = None
        self._end_orphans()
        return output.tail()

    def _drain(self, child: _Child) -> None:
        try:
            chunk = os.read(child.printed, CHUNK)
        except BlockingIOError:
            return
        if chunk:
            child.output.feed(chunk)
        else:
            self._unlisten(child.printed)

    def _kill(self, child: _Child, why: str, detail: str = "") -> None:
        child.why = why
        child.detail = detail
        platform.kill_group(child.pid)

    def _bury(self, child: _Child, code: int) -> None:
        """Tell the rank that a child has ended; what it started ends too."""
        watch = child.watch
        try:
            self._pass_on(child, child.inlet.read_all())
        except ValueError:
            pass  # it ended in the middle of a message, or of nonsense
        # It may have died before it took the trial.
        unfinished = child.watch is not None and child.outlet.n_read > child.watch.n_put
        if code == EXIT_MUTE and not child.why:
            child.why = "mute"
        tail = self._settle(child)
        self._unlisten(child.printed, child.inlet.fd)
        self._close_outlet(child)
        os.close(child.printed)
        os.close(child.inlet.fd)
        del self._children[child.name]
        if not platform.HAS_PROC:
            platform.kill_group(child.pid)
        elapsed = time.monotonic() - watch.began if watch is not None else 0.0
        self._tell(_exit_of(child.name, code, child.why, child.detail, unfinished, elapsed, tail))
        self._leave_if_alone()

    def _close_outlet(self, child: _Child) -> None:
        if child.outlet.fd >= 0:
            self._unlisten(child.outlet.fd)
            child.outlet.close()

    # -- signals and clock

    def _woken(self, fd: int) -> None:
        signals = os.read(fd, 4096)
        if signal.SIGHUP in signals and os.getppid() != self._rank:
            self._leaving = True  # the rank has died; its pipe may still be open in a process that it forked
        self._reap()
        if self._orphans:
            self._end_orphans()

    def _reap(self) -> bool:
        """Take note of all processes that have ended; return whether any remain."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            for child in list(self._children.values()):
                if child.pid == pid:
                    self._bury(child, os.waitstatus_to_exitcode(status))

    def _end_orphans(self) -> None:
        """Kill what evaluations have left behind: children of the keeper that it has not started."""
        residents = {child.pid for child in self._children.values()}
        orphans = [pid for pid in platform.children(os.getpid()) if pid not in residents] if platform.HAS_PROC else []
        platform.kill(orphans)
        self._orphans = bool(orphans)  # what they started comes next, when they have been reaped

    def _patience(self) -> float | None:
        """Return for how many seconds nothing needs to be looked at, None for ever."""
        moments = [self._leave_by]
        for child in self._children.values():
            moments.append(child.leave_by)
            if child.watch is not None and not child.why:
                moments += (child.watch.deadline, child.watch.look_at)
        moment = min(moments)
        return None if moment == float("inf") else max(0.0, moment - time.monotonic())

    def _look_at_clock(self) -> None:
        now = time.monotonic()
        if now >= self._leave_by:
            self._leaving = True
        for child in list(self._children.values()):
            if now >= child.leave_by:
                child.leave_by = float("inf")
                self._kill(child, child.why or "mute")
            watch = child.watch
            if watch is None or child.why:
                continue
            if now >= watch.deadline:
                self._kill(child, "timeout", f"{watch.timeout:g}")
            elif now >= watch.look_at:
                watch.look_at = now + LOOK_EVERY
                self._look_at_memory(child, watch)

    def _look_at_memory(self, child: _Child, watch: _Watch) -> None:
        assert watch.max_rss_mb is not None
        rss_mb = platform.tree_rss_mb(child.pid, watch.max_rss_mb)
        if rss_mb > watch.max_rss_mb:
            self._kill(child, "memory", f"{rss_mb:.0f}")

    def _leave_if_alone(self) -> None:
        if self._leave_by != float("inf") and not self._children:
            self._leaving = True

    def _end_everything(self) -> None:
        give_up = time.monotonic() + GIVE_UP
        while time.monotonic() < give_up:
            for child in list(self._children.values()):
                platform.kill_group(child.pid)
            self._end_orphans()
            if not self._reap():
                return
            time.sleep(0.005)


def _exit_of(
    child: str,
    code: int,
    why: str,
    detail: str,
    evaluating: bool = False,
    elapsed: float = 0.0,
    tail: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the envelope that tells of the end of a child."""
    return {
        "child": child,
        "event": "exit",
        "code": code,
        "why": why,
        "detail": detail,
        "evaluating": evaluating,
        "elapsed": elapsed,
        "tail": list(tail),
    }


def _become(
    command: list[str], to_child: int, from_child: int, prints: int, environment: dict[str, str], cwd: str, keeper: int
) -> None:
    """Turn this fork of the keeper into a child; never return.

    A word ``{fds}`` of the command becomes the numbers of the two descriptors by which the child hears and answers.
    """
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGHUP, signal.SIGTERM, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        os.setsid()
        platform.set_parent_death_signal(signal.SIGKILL)
        platform.offer_to_oom_killer()
        os.dup2(prints, 1)
        os.dup2(prints, 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        fds = [str(raised(fd, HIGH_FD)) for fd in (to_child, from_child)]
        os.chdir(cwd)
        if os.getppid() == keeper:
            words = [word for part in command for word in (fds if part == "{fds}" else [part])]
            os.execvpe(words[0], words, environment)
    except BaseException as error:
        os.write(2, f"{command[0]} cannot be started: {error}\n".encode())
    finally:
        os._exit(127)


def _wakeup_pipe() -> int:
    """Return a descriptor from which the numbers of arriving signals can be read."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    return reading


def main() -> None:
    """Be the keeper of the process that started this one."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)  # the rank decides when to end
    platform.set_process_name("dhmpi-keeper")
    platform.set_child_subreaper()
    keeper = _Keeper(int(sys.argv[1]), int(sys.argv[2]))
    platform.set_parent_death_signal(signal.SIGHUP)
    keeper.serve()


if __name__ == "__main__":
    main()
