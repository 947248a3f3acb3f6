"""Putting an exception of a run function into words."""

from __future__ import annotations

import traceback

from dhmpi.errors import EvaluationError
from dhmpi.trials import Status

SENTENCE_CHARACTERS = 300
_HEAD_CHARACTERS = 1500
_TAIL_CHARACTERS = 4500


def describe(exception: BaseException, skip: int = 1) -> str:
    """Return a sentence about what the run function raised, then the traceback, both cut to a sensible length.

    Parameters
    ----------
    exception : BaseException
    skip : int, default 1
        Frames of the traceback, outermost first, that are not the user's.
    """
    if isinstance(exception, EvaluationError):
        return _text(exception)
    if isinstance(exception, SystemExit):
        return f"the function called sys.exit({_text(exception)})"
    name = type(exception).__name__
    message = next(iter(_text(exception).splitlines()), "")
    sentence = _cut(f"the function raised {name}{f': {message}' if message else ''}", SENTENCE_CHARACTERS, 0)
    where = exception.__traceback__
    for _ in range(skip):
        where = where.tb_next if where is not None else None
    try:
        lines = traceback.format_exception(type(exception), exception, where)
    except Exception:  # out of memory, or an exception class that cannot be printed
        return sentence
    return f"{sentence}\n{_cut(''.join(lines).rstrip(), _HEAD_CHARACTERS, _TAIL_CHARACTERS)}"


def status(exception: BaseException) -> Status:
    """Return the status of an evaluation that has ended with an exception."""
    return Status.CRASHED if isinstance(exception, EvaluationError) and exception.crashed else Status.FAILED


def _text(exception: BaseException) -> str:
    try:
        text = str(exception)
    except Exception:  # of the user's own class
        return "<it cannot be printed>"
    return text[: _HEAD_CHARACTERS + _TAIL_CHARACTERS].encode("utf-8", "replace").decode()


def _cut(text: str, head: int, tail: int) -> str:
    if len(text) <= head + tail:
        return text.encode("utf-8", "replace").decode()
    return f"{text[:head]}..." if not tail else f"{text[:head]}\n...\n{text[-tail:]}"
