"""How problems and functions are named: dotted, or by a file with perhaps ``:attribute`` behind it."""

from __future__ import annotations

import re

_IN_FILE = re.compile(r"(?P<path>.*\.py)(:(?P<attribute>[\w.]+))?")


def in_file(name: str) -> tuple[str, str | None] | None:
    """Return the file and the attribute that a name means, None if it is a dotted one.

    >>> in_file("study.py:train"), in_file("study.py"), in_file("models.pytorch.run")
    (('study.py', 'train'), ('study.py', None), None)
    """
    match = _IN_FILE.fullmatch(name)
    return None if match is None else (match["path"], match["attribute"])
