"""The exceptions that dhmpi raises at its users; each message is one sentence.

An entry point turns any of them into that sentence on stderr, once for the whole job, and exit code 2.
A failed evaluation is no exception but an :class:`dhmpi.trials.Outcome`.
"""

from __future__ import annotations

EXIT_BAD_INPUT = 2
EXIT_BUG = 70
EXIT_LOST = 75


class DhmpiError(Exception):
    """Something a user asked for cannot be done; the message says what, why, and what to do."""


class OptionError(DhmpiError):
    """An option, or a combination of options, makes no sense."""


class ProblemError(DhmpiError):
    """The problem or the run function cannot be loaded, or is no problem or no function."""


class RunDirectoryError(DhmpiError):
    """The run directory cannot be written, is in use, or holds another run."""


class LayoutError(DhmpiError):
    """There are too few ranks for what was asked."""


class EvaluationError(DhmpiError):
    """An evaluation has failed, and the message says all there is to say: nobody needs a traceback.

    Parameters
    ----------
    message : str
    crashed : bool, default False
        Whether it is as if the evaluating process had crashed.
    """

    def __init__(self, message: str, crashed: bool = False) -> None:
        super().__init__(message)
        self.crashed = crashed


class SiteError(DhmpiError):
    """A machine, its scheduler or one of its limits does not allow what was asked, or its description is wrong."""
