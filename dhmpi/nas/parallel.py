"""Ranks that train one network together: who sees which samples, and how they agree.

Here is what training asks of them, and a rank that trains alone: no MPI, no TensorFlow.  How several ranks do it is
:mod:`dhmpi.nas.run.horovod`.  Start reading at :class:`Group`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from dhmpi.errors import DhmpiError

T = TypeVar("T")


class MemberError(DhmpiError):
    """Another rank has given up the training; the sentence says which, and why."""


def share(n: int, rank: int, size: int) -> slice:
    """Return which of n samples in a row belong to one of several ranks.

    Shares follow each other in the order of ranks, cover everything once, and differ by one sample at most.

    >>> [share(10, rank, 4) for rank in range(4)]
    [slice(0, 2, None), slice(2, 5, None), slice(5, 7, None), slice(7, 10, None)]
    """
    return slice(n * rank // size, n * (rank + 1) // size)


class Group:
    """The ranks that train one network, seen by one of them; this class is a rank alone.

    Attributes
    ----------
    rank : int
        Of this one, from 0; 0 is the leader, who writes files, reports, and decides where it matters.
    size : int
        How many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this rank is the leader."""
        return self.rank == 0

    def share(self, n: int) -> slice:
        """Return which of n samples in a row belong to this rank: see :func:`share`."""
        return share(n, self.rank, self.size)

    def gather(self, value: T) -> list[T]:
        """Return the values of all ranks, in their order, on each of them (collective).

        Raises
        ------
        MemberError
            If another rank has given up.
        """
        return [value]

    def mean(self, tensors: Sequence[Any]) -> list[Any]:
        """Return the means over all ranks of tensors of TensorFlow's, also within a graph (collective)."""
        return list(tensors)

    def lead(self, function: Callable[[], T]) -> T:
        """Return on each rank what a function returns on the leader, where alone it is called (collective).

        Raises
        ------
        DhmpiError
            On each rank, if the function raises one.
        MemberError
            If another rank has given up.
        """
        told: tuple[Any, DhmpiError | None] = (None, None)
        if self.leads:
            try:
                told = (function(), None)
            except DhmpiError as error:
                told = (None, error)
        value, failure = self.gather(told)[0]
        if failure is not None:
            raise failure
        return value  # type: ignore[no-any-return]

    def any(self, said: bool) -> bool:
        """Return on each rank whether one of them has said yes (collective)."""
        return any(self.gather(said))


ALONE = Group()
