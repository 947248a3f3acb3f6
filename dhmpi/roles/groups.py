"""Which ranks evaluate a trial together: groups of idle ranks, of one size or of many.

Pure bookkeeping, without MPI and without a clock.  A group stays on one host where so many ranks fit, in an aligned
block of it if there is one (buddy allocation), so that few different groups are ever formed and blocks stay whole;
across hosts it takes whole ones.  The host that a group leaves the least of is chosen, so that others stay free for
large groups, and a large one that has been passed over too often has ranks reserved for it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from dhmpi.trials import RANKS, Config

Group = tuple[int, ...]
"""Ranks in ascending order; the first is the leader."""

MOST_KEPT = 64
"""Groups that a rank belongs to, of those whose communicators are kept; the one used longest ago is given up."""


class Groups:
    """Idle ranks, and the groups that are made of them.

    Parameters
    ----------
    hosts : mapping of int to str
        Host of each rank that is to come, by which the blocks are aligned; others are welcome too.  Until it has come,
        is removed or is missing its host and its group wait for it: who comes first does not work with whoever comes
        second.
    fixed : sequence of tuple of int, optional
        Groups that are taken as they are, for evaluations of their size, while no rank of them is removed.
    """

    def __init__(self, hosts: Mapping[int, str], fixed: Sequence[Group] = ()) -> None:
        self._blocks: dict[str, list[int]] = {}  # ranks of each host, in the order by which blocks are aligned
        for rank in sorted(hosts):
            self._blocks.setdefault(hosts[rank], []).append(rank)
        self._fixed = [tuple(group) for group in fixed if len(group) > 1]
        self._fixed_of = {rank: group for group in self._fixed for rank in group}
        self._there: dict[int, str] = {}
        self._to_come = dict(hosts)
        self._n_there: dict[str, int] = {}
        self._n_expected: dict[str, int] = {host: len(ranks) for host, ranks in self._blocks.items()}
        """Ranks of each host that are there or to come."""
        self._idle: set[int] = set()
        self._free: dict[str, set[int]] = {}  # idle and not reserved
        self._by_n_free: dict[int, OrderedDict[str, None]] = {}
        self._reserved: frozenset[int] = frozenset()

    # -- who is there --------------------------------------------------------------------------------------------------

    @property
    def n_there(self) -> int:
        """Ranks that may work, idle or not."""
        return len(self._there)

    @property
    def n_idle(self) -> int:
        return len(self._idle)

    @property
    def reserved(self) -> frozenset[int]:
        """Ranks that nobody gets but the group that they are reserved for."""
        return self._reserved

    def add(self, rank: int, host: str, idle: bool = True) -> None:
        """Count on a rank."""
        if rank in self._there:
            self._set_idle(rank, idle)
            return
        ranks = self._blocks.setdefault(host, [])
        if rank not in ranks:
            ranks.append(rank)
        self._there[rank] = host
        self._n_there[host] = self._n_there.get(host, 0) + 1
        if self._to_come.pop(rank, None) is None:
            self._n_expected[host] = self._n_expected.get(host, 0) + 1
        self._set_idle(rank, idle)

    def remove(self, rank: int) -> None:
        """Count on a rank no more: it is dead, silent, or left out with its host."""
        if rank in self._to_come:
            self._n_expected[self._to_come.pop(rank)] -= 1
        if rank not in self._there:
            return
        self._set_idle(rank, False)
        host = self._there.pop(rank)
        self._n_there[host] -= 1
        self._n_expected[host] -= 1
        if rank in self._reserved:
            self.cancel_reservation()

    def wait_no_longer(self) -> list[int]:
        """Let those that are there work without those that have not come, until they do; return the latter."""
        missing = sorted(self._to_come)
        for rank in missing:
            self.remove(rank)
        return missing

    def release(self, ranks: Iterable[int]) -> None:
        """Note that ranks are idle again; those that are not there any more are none."""
        for rank in ranks:
            if rank in self._there:
                self._set_idle(rank, True)

    # -- groups --------------------------------------------------------------------------------------------------------

    def take(self, k: int, avoid: Collection[str] = (), reserved: bool = False) -> Group | None:
        """Make a group of k idle ranks, which are busy from now on; None if there are not enough of them together.

        Parameters
        ----------
        k : int
        avoid : collection of str
            Hosts that should have no part in it, unless there are too few others.
        reserved : bool, default False
            Whether the reserved ranks are meant for it.
        """
        if reserved:
            group = tuple(sorted(self._reserved))
            if len(group) != k or not self._reserved <= self._idle:
                return None
            self.cancel_reservation()
        else:
            found = self._find(k, self._spared(k, avoid))
            if found is None:
                return None
            group = tuple(sorted(found))
        for rank in group:
            self._set_idle(rank, False)
        return group

    def reserve(self, k: int, avoid: Collection[str] = ()) -> bool:
        """Keep ranks for a group of k, those of which the fewest are busy; return whether there are so many at all.

        What was reserved before is free again.
        """
        self.cancel_reservation()
        chosen = self._choose(k, self._spared(k, avoid))
        if chosen is None:
            return False
        self._reserved = frozenset(chosen)
        for rank in chosen:
            self._refresh(rank)
        return True

    def cancel_reservation(self) -> None:
        """Let everybody have what was reserved."""
        ranks, self._reserved = self._reserved, frozenset()
        for rank in ranks:
            self._refresh(rank)

    # -- how -----------------------------------------------------------------------------------------------------------

    def _spared(self, k: int, avoid: Collection[str]) -> Collection[str]:
        """Return the hosts to avoid, none if the others have too few ranks."""
        if not avoid:
            return ()
        elsewhere = sum(n for host, n in self._n_there.items() if host not in avoid)
        return avoid if elsewhere >= k else ()

    def _set_idle(self, rank: int, idle: bool) -> None:
        (self._idle.add if idle else self._idle.discard)(rank)
        self._refresh(rank)

    def _refresh(self, rank: int) -> None:
        """Bring up to date whether a rank is free."""
        host = self._there.get(rank)
        if host is None:
            return
        free = self._free.setdefault(host, set())
        before = len(free)
        (free.add if rank in self._idle and rank not in self._reserved else free.discard)(rank)
        if len(free) != before:
            if before:
                self._by_n_free[before].pop(host, None)
            if free:
                self._by_n_free.setdefault(len(free), OrderedDict())[host] = None

    def _intact(self, group: Group) -> bool:
        return all(rank in self._there for rank in group)

    def _is_expected(self, group: Group) -> bool:
        return all(rank in self._there or rank in self._to_come for rank in group)

    def _is_free(self, rank: int) -> bool:
        return rank in self._idle and rank not in self._reserved

    def _find(self, k: int, avoid: Collection[str]) -> list[int] | None:
        """Return k free ranks that should work together."""
        kept: Collection[int] = ()
        if self._fixed and k == len(self._fixed[0]):
            for group in self._fixed:
                if all(map(self._is_free, group)) and not any(self._there[rank] in avoid for rank in group):
                    return list(group)
            kept = {rank for group in self._fixed if self._is_expected(group) for rank in group}
        if not kept:
            largest = max((n for host, n in self._n_expected.items() if host not in avoid), default=0)
            return self._on_one_host(k, avoid) if k <= largest else self._across(k, avoid)
        # Ranks that are in no whole group: few, after deaths.
        loose: dict[str, list[int]] = {}
        for rank in sorted(self._there):
            if rank not in kept and self._there[rank] not in avoid:
                loose.setdefault(self._there[rank], []).append(rank)
        free = [[rank for rank in ranks if self._is_free(rank)] for ranks in loose.values()]
        if any(len(ranks) >= k for ranks in loose.values()):
            return next((ranks[:k] for ranks in sorted(free, key=len) if len(ranks) >= k), None)
        together = [rank for ranks in sorted(free, key=len, reverse=True) for rank in ranks]
        return together[:k] if len(together) >= k else None

    def _on_one_host(self, k: int, avoid: Collection[str]) -> list[int] | None:
        for n in sorted(n for n in self._by_n_free if n >= k):
            for host in self._by_n_free[n]:
                if host not in avoid:
                    return self._block(host, k)
        return None

    def _block(self, host: str, k: int) -> list[int]:
        """Return k free ranks of a host that has so many: of the smallest aligned block that is free and large enough.

        Where deaths and evaluations of odd sizes have left no aligned block, any ranks do.
        """
        ranks, free = self._blocks[host], self._free[host]
        size = 1 << (k - 1).bit_length()
        best: tuple[int, int] | None = None
        for start in range(0, len(ranks), size):
            block = ranks[start : start + size]
            if len(block) >= k and free.issuperset(block):
                choice = (self._enclosing(ranks, free, start, size), start)
                best = choice if best is None else min(best, choice)
        if best is None:
            return sorted(free)[:k]
        return ranks[best[1] : best[1] + k]

    @staticmethod
    def _enclosing(ranks: list[int], free: set[int], start: int, size: int) -> int:
        """Return the size of the largest aligned block around one, all of it free."""
        while size < len(ranks):
            start -= start % (2 * size)
            if not free.issuperset(ranks[start : start + 2 * size]):
                break
            size *= 2
        return size

    def _across(self, k: int, avoid: Collection[str]) -> list[int] | None:
        """Return k free ranks: of hosts that are free as a whole, the rest from where it leaves least."""
        whole = [
            host
            for n in sorted(self._by_n_free, reverse=True)
            for host in self._by_n_free[n]
            if host not in avoid and n == self._n_expected[host]
        ]
        chosen: list[int] = []
        used = set()
        for host in whole:
            if len(self._free[host]) > k - len(chosen):
                continue
            chosen += self._free[host]
            used.add(host)
            if len(chosen) == k:
                return chosen
        left = k - len(chosen)
        for n in sorted(n for n in self._by_n_free if n >= left):
            for host in self._by_n_free[n]:
                if host not in avoid and host not in used:
                    return chosen + self._block(host, left)
        return None

    def _choose(self, k: int, avoid: Collection[str]) -> list[int] | None:
        """Return k ranks that may be busy: those of which the most are idle."""

        def n_busy(ranks: Iterable[int]) -> int:
            return sum(rank not in self._idle for rank in ranks)

        if self._fixed and k == len(self._fixed[0]):
            whole = [group for group in self._fixed if self._intact(group)]
            whole = [group for group in whole if not any(self._there[rank] in avoid for rank in group)] or whole
            if whole:
                return list(min(whole, key=n_busy))
        by_host: dict[str, list[int]] = {}
        for host, ranks in self._blocks.items():
            there = [rank for rank in ranks if rank in self._there]
            if there and host not in avoid:
                by_host[host] = there
        size = 1 << (k - 1).bit_length()
        candidates: list[list[int]] = []
        for host, there in by_host.items():
            if len(there) < k:
                continue
            ranks = self._blocks[host]
            blocks = [ranks[start : start + size][:k] for start in range(0, len(ranks), size)]
            blocks = [block for block in blocks if len(block) == k and set(block) <= set(there)]
            candidates += blocks or [sorted(there, key=lambda rank: rank not in self._idle)[:k]]
        if candidates:
            return min(candidates, key=n_busy)
        hosts = sorted(by_host.values(), key=lambda there: (n_busy(there), -len(there)))
        together = [rank for there in hosts for rank in there]
        return together[:k] if len(together) >= k else None


class Numbers:
    """Names the groups whose communicators exist, so that all members know alike whether to make one.

    Parameters
    ----------
    first : int, default 1
        Number of the first group; numbers are never used again.
    most : int, default MOST_KEPT
        Groups kept for each rank.
    known : mapping of tuple of int to int, optional
        Groups that have a communicator, and their numbers; the one used last comes last.
    """

    def __init__(self, first: int = 1, most: int = MOST_KEPT, known: Mapping[Group, int] | None = None) -> None:
        self._next = first
        self._most = most
        self._numbers: OrderedDict[Group, int] = OrderedDict(known or {})  # the one used last comes last
        self._of_rank: dict[int, OrderedDict[Group, None]] = {}
        for group in self._numbers:
            for rank in group:
                self._of_rank.setdefault(rank, OrderedDict())[group] = None

    def get(self, group: Group) -> tuple[int, list[tuple[Group, int]]]:
        """Return a group's number, and the groups that are given up for it."""
        number = self._numbers.get(group)
        if number is not None:
            for rank in group:
                self._of_rank[rank].move_to_end(group)
            return number, []
        number = self._numbers[group] = self._next
        self._next += 1
        given_up = []
        for rank in group:
            groups = self._of_rank.setdefault(rank, OrderedDict())
            groups[group] = None
            if len(groups) > self._most:
                oldest = next(iter(groups))
                given_up.append((oldest, self._numbers[oldest]))
                self.drop(oldest)
        return number, given_up

    def drop(self, group: Group) -> None:
        """Use the communicator of a group no more: the next time it has another number."""
        if self._numbers.pop(group, None) is not None:
            for rank in group:
                del self._of_rank[rank][group]

    def drop_rank(self, rank: int) -> None:
        """Use no communicator of a rank any more: it is dead, or a new process in the place of one."""
        for group in list(self._of_rank.get(rank, ())):
            self.drop(group)


def size_of(config: Config, default: int) -> int:
    """Return how many ranks evaluate a configuration.

    Raises
    ------
    ValueError
        If what it says is no positive integer.
    """
    size: Any = config.get(RANKS, default)
    if isinstance(size, float) and size.is_integer():
        size = int(size)
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise ValueError(f"{RANKS} must be a positive integer, got {size!r}")
    return size
