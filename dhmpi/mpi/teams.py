"""Communicators of groups of ranks, made among their members only, kept by number and used again."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from dhmpi.errors import ProblemError
from dhmpi.load import takes_comm

if TYPE_CHECKING:
    from mpi4py import MPI

    from dhmpi.mpi.interruptible import Team

MAX_TAG = 32767
"""The largest tag that every MPI library knows."""


class TeamLostError(Exception):
    """A communicator could not be made, since a member died."""


def alone(run: Callable[..., Any]) -> Callable[..., Any]:
    """Return a run function that gets, if it takes one, the communicator of this process alone.

    Raises
    ------
    ProblemError
        If it takes one and MPI cannot be used here.
    """
    if not takes_comm(run):
        return run
    try:
        from mpi4py import MPI

        from dhmpi.mpi.interruptible import Team
    except (ImportError, RuntimeError) as error:
        raise ProblemError(f"the run function takes a communicator, and there is no MPI here: {error}") from error
    return functools.partial(run, comm=Team(MPI.COMM_SELF))


class Teams:
    """The groups that this rank is a member of.

    Parameters
    ----------
    parent : MPI.Intracomm or None
        All ranks; used for nothing else.  None where no groups will be formed.
    survives : bool, default False
        Whether the death of a rank is survived.
    """

    def __init__(self, parent: MPI.Intracomm | None, survives: bool = False) -> None:
        self._parent = parent
        self._survives = survives
        self._teams: dict[int, Team] = {}

    def __contains__(self, number: int) -> bool:
        return number in self._teams

    def get(self, ranks: Sequence[int], number: int, damaged: bool = False) -> Team:
        """Return the communicator of a group; make it the first time (collective over the ranks).

        Parameters
        ----------
        ranks : sequence of int
        number : int
            Another one for each communicator; 0 for this rank alone.
        damaged : bool
            Whether some rank of the world has died; the same on all ranks of the group.

        Raises
        ------
        TeamLostError
            If a member has died.

        References
        ----------
        Dinan et al. (2011), Noncollective Communicator Creation in MPI, EuroMPI.
        """
        from mpi4py import MPI

        from dhmpi.mpi.interruptible import Team

        if number in self._teams:
            return self._teams[number]
        try:
            if number == 0 or self._parent is None:
                made = MPI.COMM_SELF.Dup()
            else:
                group = self._parent.Get_group().Incl(ranks)
                if damaged:  # Open MPI makes no communicator of a part of one that has lost a rank (measured)
                    made = MPI.Intracomm.Create_from_group(group, f"dhmpi {number}")
                else:
                    made = self._parent.Create_group(group, number % MAX_TAG)
                group.Free()
            made.Set_errhandler(MPI.ERRORS_RETURN)
        except MPI.Exception as error:
            raise TeamLostError(" ".join(error.Get_error_string().split())) from error
        team = self._teams[number] = Team(made)
        return team

    def drop(self, numbers: Iterable[int]) -> None:
        """Free communicators; one with operations that never ended is only forgotten."""
        for number in numbers:
            team = self._teams.pop(number, None)
            if team is not None:
                team.dispose()

    def clear(self) -> None:
        """Free all communicators."""
        self.drop(list(self._teams))

    def revoke(self, number: int) -> None:
        """Where MPI can, end what members are doing on a communicator, in whatever code that is."""
        from mpi4py import MPI

        team = self._teams.get(number)
        if team is None or not self._survives or number == 0:
            return
        try:
            team.broken = True
            team.Revoke()
        except (MPI.Exception, NotImplementedError):
            pass  # it has been revoked, or cannot be
