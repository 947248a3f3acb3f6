"""Groups of ranks: whole, on one host where they fit, and none starves."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dhmpi.roles.groups import Groups, Numbers, size_of


def hosts(*sizes):
    names = [f"h{i}" for i, n in enumerate(sizes) for _ in range(n)]
    return dict(enumerate(names, start=1))


def groups(*sizes, fixed=()):
    made = Groups(hosts(*sizes), fixed)
    for rank, host in hosts(*sizes).items():
        made.add(rank, host)
    return made


def test_takes_aligned_blocks():
    g = groups(8)

    taken = [g.take(k) for k in (2, 4, 1, 1)]

    assert taken == [(1, 2), (5, 6, 7, 8), (3,), (4,)]
    assert g.take(1) is None


def test_leaves_hosts_whole_for_large_groups():
    g = groups(4, 4)
    g.take(1)

    small = g.take(2)

    assert small == (3, 4)
    assert g.take(4) == (5, 6, 7, 8)


def test_a_group_larger_than_any_host_takes_whole_ones():
    g = groups(4, 4, 4)
    g.take(1)

    assert g.take(8) == (5, 6, 7, 8, 9, 10, 11, 12)
    assert g.take(4) is None


def test_the_rest_of_a_large_group_comes_from_where_it_leaves_least():
    g = groups(4, 4, 4)
    g.take(1)

    assert g.take(6) == (3, 4, 5, 6, 7, 8)


def test_fixed_groups_are_taken_as_they_are():
    g = groups(5, 5, fixed=[(1, 2), (3, 4), (6, 7), (8, 9)])

    taken = [g.take(2) for _ in range(5)]

    assert taken == [(1, 2), (3, 4), (6, 7), (8, 9), (5, 10)]


def test_who_comes_first_waits_for_its_own_group_and_host():
    fixed = Groups(hosts(2, 2), fixed=[(1, 2), (3, 4)])
    mixed = Groups(hosts(2, 2))
    for g in (fixed, mixed):
        g.add(1, "h0")
        g.add(3, "h1")

        assert g.take(2) is None
        g.add(4, "h1")
        assert g.take(2) == (3, 4)


def test_nobody_waits_for_who_will_not_come():
    g = Groups(hosts(2, 2), fixed=[(1, 2), (3, 4)])
    g.add(1, "h0")
    g.add(3, "h1")

    g.remove(2)
    g.remove(4)

    assert g.take(2) == (1, 3)


def test_who_is_late_is_waited_for_no_longer_and_welcome_nevertheless():
    g = Groups(hosts(2, 2), fixed=[(1, 2), (3, 4)])
    g.add(1, "h0")
    g.add(3, "h1")

    assert g.wait_no_longer() == [2, 4]
    assert g.take(2) == (1, 3)
    g.release([1, 3])
    g.add(2, "h0")
    g.add(4, "h1")
    assert {g.take(2), g.take(2)} == {(1, 2), (3, 4)}


def test_survivors_of_fixed_groups_form_new_ones():
    g = groups(4, 4, fixed=[(1, 2), (3, 4), (5, 6), (7, 8)])
    for rank in (2, 3):
        g.remove(rank)

    taken = {g.take(2) for _ in range(3)}

    assert taken == {(5, 6), (7, 8), (1, 4)}


def test_hosts_to_avoid_are_avoided_while_there_are_others():
    g = groups(2, 2)

    assert g.take(2, avoid={"h0"}) == (3, 4)
    assert g.take(2, avoid={"h1"}) == (1, 2)
    g.release((1, 2))
    g.remove(3)
    assert g.take(2, avoid={"h0"}) == (1, 2)


def test_what_is_reserved_goes_to_nobody_else():
    g = groups(4, 4)
    busy = [g.take(1) for _ in range(4)] + [g.take(2)]
    g.release(busy[3])

    assert g.reserve(4)

    assert g.reserved == {5, 6, 7, 8}
    assert g.take(4, reserved=True) is None
    assert g.take(2) is None
    g.release(busy[4])
    assert g.take(4, reserved=True) == (5, 6, 7, 8)
    assert not g.reserved


def test_a_death_gives_up_a_reservation():
    g = groups(2, 2)
    g.take(2)
    g.reserve(2)

    g.remove(next(iter(g.reserved)))

    assert not g.reserved
    assert g.n_idle == 1


SIZES = st.lists(st.integers(1, 8), min_size=1, max_size=4)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("take"), st.integers(1, 10)),
        st.tuples(st.just("release"), st.integers(0, 100)),
        st.tuples(st.just("remove"), st.integers(1, 32)),
        st.tuples(st.just("add"), st.integers(1, 32)),
        st.tuples(st.just("reserve"), st.integers(1, 10)),
        st.tuples(st.just("take reserved"), st.integers(1, 10)),
    ),
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(sizes=SIZES, steps=STEPS, fixed=st.integers(1, 4))
def test_whatever_happens_groups_are_idle_ranks_of_as_few_hosts_as_possible(sizes, steps, fixed):
    names = hosts(*sizes)
    by_host = {}
    for rank, host in names.items():
        by_host.setdefault(host, []).append(rank)
    whole = [tuple(r[i : i + fixed]) for r in by_host.values() for i in range(0, len(r) - fixed + 1, fixed)]
    g = groups(*sizes, fixed=whole if fixed > 1 else ())
    there, taken = set(names), []
    for what, n in steps:
        busy = {rank for group in taken for rank in group}
        idle = there - busy
        if what in ("take", "take reserved"):
            reserved = g.reserved
            group = g.take(n, reserved=what == "take reserved")
            if group is None:
                largest = max((sum(r in idle - reserved for r in ranks) for ranks in by_host.values()), default=0)
                assert what != "take" or n > largest or n == fixed > 1
                continue
            assert len(group) == n
            assert set(group) <= idle
            assert list(group) == sorted(group)
            assert set(group) == reserved if what == "take reserved" else not reserved & set(group)
            taken.append(group)
            if any(sum(rank in there for rank in ranks) >= n for ranks in by_host.values()) and n != fixed:
                assert len({names[rank] for rank in group}) == 1
        elif what == "release" and taken:
            group = taken.pop(n % len(taken))
            g.release(group)
        elif what == "remove" and n in there:
            there.discard(n)
            g.remove(n)
        elif what == "add" and n in names and n not in there:
            there.add(n)
            g.add(n, names[n], idle=n not in busy)
        elif what == "reserve":
            assert g.reserve(n) == (n <= len(there))
            assert len(g.reserved) in (0, n)
        busy = {rank for group in taken for rank in group}
        assert g.n_there == len(there)
        assert g.n_idle == len(there - busy)


def test_a_group_keeps_its_number_until_it_is_dropped():
    numbers = Numbers()

    first, _ = numbers.get((1, 2))
    again, _ = numbers.get((1, 2))
    other, _ = numbers.get((2, 3))
    numbers.drop((1, 2))
    later, _ = numbers.get((1, 2))

    assert first == again
    assert len({first, other, later}) == 3


def test_of_many_groups_of_a_rank_the_one_used_longest_ago_is_given_up():
    numbers = Numbers(most=2)
    first, _ = numbers.get((1, 2))
    second, _ = numbers.get((1, 3))
    numbers.get((1, 2))

    _, given_up = numbers.get((1, 4))

    assert given_up == [((1, 3), second)]
    assert numbers.get((1, 2))[0] == first


def test_nothing_of_a_dead_rank_is_kept():
    numbers = Numbers()
    before, _ = numbers.get((1, 2))

    numbers.drop_rank(2)

    assert numbers.get((1, 2))[0] != before


def test_known_groups_keep_their_numbers():
    numbers = Numbers(first=9, most=2, known={(1, 2): 4, (1, 3): 8})

    assert numbers.get((1, 3)) == (8, [])
    assert numbers.get((1, 4)) == (9, [((1, 2), 4)])


def test_a_configuration_says_how_many_ranks_it_wants():
    assert size_of({"x": 1}, 3) == 3
    assert size_of({"num_ranks": 4}, 1) == 4
    assert size_of({"num_ranks": 4.0}, 1) == 4


@pytest.mark.parametrize("value", [0, -1, 1.5, "four", True, None])
def test_other_sizes_are_refused(value):
    with pytest.raises(ValueError, match="num_ranks must be a positive integer, got"):
        size_of({"num_ranks": value}, 1)
