"""Output that may lose its reader: a search goes on although nobody looks any more.  Start at `keep_screens`."""

from __future__ import annotations

import os
import sys
from typing import Any, TextIO


class Screen:
    """A text stream whose output goes nowhere once its reader is gone, such as ``head`` or a terminal hung up.

    Parameters
    ----------
    stream : TextIO
        Of a file descriptor.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError:
            self._give_up()
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            self._give_up()

    def _give_up(self) -> None:
        # What the stream still holds is written there too, at the latest when the interpreter ends.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)


def keep_screens() -> None:
    """Have this process survive the loss of its standard output and standard error."""
    sys.stdout, sys.stderr = Screen(sys.stdout), Screen(sys.stderr)  # type: ignore[assignment]
