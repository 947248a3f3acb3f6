"""Messages over a pipe between a rank, its keeper and the keeper's children: a length, then JSON.

JSON and not pickle, so that nothing a user's process sends can run code in a rank.  Standard library only.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator
from typing import Any

_LENGTH = struct.Struct(">I")
MAX_FRAME = 1 << 30
"""Bytes; a longer frame means that the pipe carries something else."""

_encode = json.JSONEncoder(separators=(",", ":")).encode


def pack(message: Any) -> bytes:
    """Return `message` as the bytes of one frame."""
    body = _encode(message).encode()
    return _LENGTH.pack(len(body)) + body


def write(fd: int, message: Any) -> None:
    """Write one frame to a blocking file descriptor.

    Raises
    ------
    BrokenPipeError
        If the other side has gone.
    """
    view = memoryview(pack(message))
    while view:
        view = view[os.write(fd, view) :]


class Reader:
    """Cuts the bytes that arrive from a file descriptor into messages."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.closed = False
        self._buffer = bytearray()

    def read(self) -> list[Any]:
        """Return the messages that are complete; block only if the descriptor blocks and nothing has arrived.

        Sets ``closed`` once the other side has closed the pipe.
        """
        try:
            chunk = os.read(self.fd, 1 << 16)
        except BlockingIOError:
            return []
        except OSError:
            chunk = b""
        if not chunk:
            self.closed = True
            return []
        self._buffer += chunk
        return list(self._messages())

    def _messages(self) -> Iterator[Any]:
        while len(self._buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer)
            if length > MAX_FRAME:
                raise ValueError(f"a frame of {length} bytes is longer than the limit of {MAX_FRAME} bytes")
            end = _LENGTH.size + length
            if len(self._buffer) < end:
                return
            body = bytes(self._buffer[_LENGTH.size : end])
            del self._buffer[:end]
            yield json.loads(body)
