"""Both ends of the pipes at a keeper: they never block, and messages are passed on without being read.

Everything has the framing of :mod:`dhmpi.frames`.  Between a rank and its keeper a frame holds an envelope (JSON, what
the keeper needs to know), a line feed, which compact JSON never contains, and the body (JSON, for or from a child).
"""

from __future__ import annotations

import fcntl
import json
import os
import resource
import select
import struct
import sys
import termios
from collections import deque
from typing import Any

from dhmpi.frames import MAX_FRAME

CHUNK = 1 << 16
"""Bytes; what a pipe holds, so that one read empties it."""

EXIT_MUTE = 74
"""Exit code of a child that cannot write to its keeper any more."""

_LENGTH = struct.Struct(">I")

encode = json.JSONEncoder(separators=(",", ":")).encode


def raised(fd: int, start: int) -> int:
    """Return an inheritable duplicate of a descriptor, numbered from `start` on or as high as the process may go."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return fcntl.fcntl(fd, fcntl.F_DUPFD, start if soft == resource.RLIM_INFINITY else max(3, min(start, soft - 16)))


def frame(body: bytes) -> bytes:
    """Return a body as a frame."""
    return _LENGTH.pack(len(body)) + body


def enclose(envelope: dict[str, Any], body: bytes = b"") -> bytes:
    """Return envelope and body as a frame."""
    return frame(encode(envelope).encode() + b"\n" + body)


def open_envelope(content: bytes) -> tuple[dict[str, Any], bytes]:
    """Return envelope and body of a frame's content."""
    envelope, _, body = content.partition(b"\n")
    return json.loads(envelope), body


class Inlet:
    """Cuts what arrives from a descriptor into the contents of frames."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self.fd = fd
        self.closed = False
        self.empty = False
        """Whether the last read has emptied the pipe."""
        self._buffer = bytearray()

    def read(self) -> list[bytes]:
        """Return the frames that have arrived; sets `closed` when the other side has closed the pipe.

        Raises
        ------
        ValueError
            If what arrives is no frame.
        """
        self.empty = True
        try:
            chunk = os.read(self.fd, CHUNK)
        except BlockingIOError:
            return []
        except OSError:
            chunk = b""
        if not chunk:
            self.closed = True
            return []
        self.empty = len(chunk) < CHUNK
        buffer = self._buffer
        buffer += chunk
        contents = []
        begin = 0
        while len(buffer) - begin >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(buffer, begin)
            if length > MAX_FRAME:
                raise ValueError(f"a frame of {length} bytes is longer than the limit of {MAX_FRAME} bytes")
            end = begin + _LENGTH.size + length
            if len(buffer) < end:
                break
            contents.append(bytes(memoryview(buffer)[begin + _LENGTH.size : end]))
            begin = end
        del buffer[:begin]
        return contents

    def read_all(self, max_reads: int = 64) -> list[bytes]:
        """Return all frames that have arrived, of the 4 MB at least that arrived first."""
        contents = self.read()
        while not self.empty and max_reads > 1:
            max_reads -= 1
            contents += self.read()
        return contents


class Outlet:
    """Sends frames to a descriptor, as fast as the other side takes them."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self.fd = fd
        self.closed = False
        self.n_bytes = 0
        """Bytes that wait."""
        self._n_written = 0
        self._queue: deque[memoryview] = deque()

    def put(self, data: bytes) -> None:
        """Send, or keep until `flush`; what is put after the other side has closed is dropped."""
        if not self.closed:
            self._queue.append(memoryview(data))
            self.n_bytes += len(data)
            if len(self._queue) == 1:
                self.flush()

    @property
    def n_put(self) -> int:
        """Bytes that were put so far."""
        return self._n_written + self.n_bytes

    @property
    def n_read(self) -> int:
        """Bytes that the other side has read so far, even if it has died since."""
        try:
            waiting = fcntl.ioctl(self.fd, termios.FIONREAD, b"\0\0\0\0")
        except OSError:  # not possible on this system: it has read everything
            return self._n_written
        return self._n_written - int.from_bytes(waiting, sys.byteorder)

    def flush_all(self, patience: float) -> None:
        """Send everything; give up when the other side has read nothing for `patience` seconds."""
        waiting = select.poll()
        waiting.register(self.fd, select.POLLOUT)
        while self.n_bytes and waiting.poll(patience * 1000):
            self.flush()

    def flush(self) -> None:
        """Send what the pipe takes; sets `closed` when the other side has closed it."""
        queue = self._queue
        try:
            while queue:
                n = os.write(self.fd, queue[0])
                self.n_bytes -= n
                self._n_written += n
                if n < len(queue[0]):
                    queue[0] = queue[0][n:]
                else:
                    queue.popleft()
        except BlockingIOError:
            pass
        except OSError:
            self.closed = True
            self.n_bytes = 0
            queue.clear()

    def close(self) -> None:
        """Close the descriptor; what waits is dropped."""
        if self.fd >= 0:
            os.close(self.fd)
        self.fd = -1
        self.closed = True
        self.n_bytes = 0
        self._queue.clear()
