"""What belongs to a process and is given back after each evaluation in it: working directory, output, signals."""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import io
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from dhmpi.evaluate.link import raised

HIGH_FD = 950
"""Spare copies of standard output and error are kept from this number on."""


class Surroundings:
    """What belongs to the process and is given back after each evaluation: standard output, working directory."""

    def __init__(self) -> None:
        self._home = Path.cwd()
        self._pid = os.getpid()
        self._printed = [raised(fd, HIGH_FD) for fd in (1, 2)]
        for fd in self._printed:
            os.set_inheritable(fd, False)
        faulthandler.enable()
        self._streams: tuple[Any, Any] = (sys.stdout, sys.stderr)
        for stream in self._streams:
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(line_buffering=True, errors="backslashreplace")

    def move(self, home: str) -> None:
        """Have evaluations begin and end in another directory than this process did."""
        self._home = Path(home)
        os.chdir(home)

    def redirect(self, fd: int) -> None:
        """Let what is printed from now on, by anybody, go to a file."""
        self.flush()
        os.dup2(fd, 1)
        os.dup2(fd, 2)

    def restore(self) -> None:
        """Undo what an evaluation has done to the process."""
        if os.getpid() != self._pid:
            os._exit(0)  # the function has forked, and this is the copy
        self.flush()
        for fd, printed in zip((1, 2), self._printed):
            with contextlib.suppress(OSError):
                os.dup2(printed, fd)
        if any(stream is None or stream.closed for stream in self._streams):
            self._streams = (_stream(1), _stream(2))
        sys.stdout, sys.stderr = self._streams
        signal.setitimer(signal.ITIMER_REAL, 0)
        try:
            os.chdir(self._home)
        except OSError:
            os.chdir("/")

    def flush(self) -> None:
        """Have everything that was printed leave the process."""
        _flush(*self._streams)


@contextlib.contextmanager
def printing_to(stream: TextIO) -> Iterator[None]:
    """Let what is printed within, by anybody in this process, go to a file."""
    printed = [os.dup(fd) for fd in (1, 2)]
    before = (sys.stdout, sys.stderr)
    _flush()
    try:
        for fd in (1, 2):
            os.dup2(stream.fileno(), fd)
        sys.stdout = sys.stderr = stream
        yield
    finally:
        _flush(*before)
        for fd, earlier in zip((1, 2), printed):
            os.dup2(earlier, fd)
            os.close(earlier)
        sys.stdout, sys.stderr = before


def _flush(*streams: Any) -> None:
    for stream in {sys.stdout, sys.stderr, *streams}:
        with contextlib.suppress(Exception):  # of a stream that the user has put there, or closed
            stream.flush()
    if _libc is not None:
        _libc.fflush(None)  # what C code printed


def _stream(fd: int) -> io.TextIOWrapper:
    return open(fd, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: PTH123


def _c_library() -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(None)
    except (OSError, TypeError):
        return None


_libc = _c_library()


def make_directory(directory: str, scratch: bool = False) -> None:
    """Make the directory of an evaluation, or use it again; what is only for this evaluation is emptied.

    Raises
    ------
    OSError
        If it cannot be made, or is a symbolic link.
    """
    try:
        os.mkdir(directory)  # noqa: PTH102 (a Path would cost as much as a null function)
    except FileExistsError:
        if os.path.islink(directory):  # noqa: PTH114
            raise OSError("it is a symbolic link") from None
    if scratch:
        empty(directory)


def empty(directory: str) -> None:
    """Remove what is in a directory."""
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path, ignore_errors=True)
                else:
                    os.unlink(entry.path)  # noqa: PTH108
    except OSError:
        pass  # the function has removed it, or protects it
