"""Who does what on which rank."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dhmpi.errors import LayoutError
from dhmpi.mpi.layout import plan


def hosts(n_nodes, ranks_per_node=1):
    return [f"nid{node:05d}" for node in range(n_nodes) for _ in range(ranks_per_node)]


@pytest.mark.parametrize(
    ("nodes", "per_node", "packing", "n_evaluators"),
    [(128, 1, 1, 126), (128, 4, 4, 507), (128, 4, 2, 506), (1, 4, None, 2), (128, 4, None, 507)],
)
def test_serial_mode(nodes, per_node, packing, n_evaluators):
    layout = plan(hosts(nodes, per_node), job_mode="serial", node_packing_count=packing)

    assert layout.n_evaluators == n_evaluators


def test_serial_mode_gives_the_master_its_node():
    layout = plan(hosts(3, 4), job_mode="serial", node_packing_count=4)

    assert layout.master == 0
    assert layout.searcher == 4
    assert layout.spare == (1, 2, 3)
    assert layout.leaders == (5, 6, 7, 8, 9, 10, 11)


def test_mpi_mode_spends_no_rank_on_the_searcher():
    assert plan(hosts(128), job_mode="mpi").n_evaluators == 127
    assert plan(hosts(128), job_mode="mpi", searcher=False).n_evaluators == 127


def test_compact_mode_gives_master_and_searcher_a_rank_each():
    layout = plan(["a"] * 8)

    assert (layout.master, layout.searcher, layout.leaders) == (0, 1, (2, 3, 4, 5, 6, 7))


@pytest.mark.parametrize(
    ("n", "roles"),
    [
        (1, [("master", "searcher", "evaluator")]),
        (2, [("master", "searcher"), ("evaluator",)]),
        (3, [("master",), ("searcher",), ("evaluator",)]),
    ],
)
def test_small_worlds_share_ranks(n, roles):
    layout = plan(["a"] * n)

    assert [layout.roles(rank) for rank in range(n)] == roles


def test_a_search_without_searcher_leaves_all_but_the_master_to_evaluators():
    assert plan(["a"] * 4, searcher=False).leaders == (1, 2, 3)
    assert plan(["a"], searcher=False).roles(0) == ("master", "evaluator")


def test_groups_do_not_straddle_hosts_where_they_fit():
    layout = plan(hosts(3, 4), ranks_per_eval=2)

    assert layout.groups == ((2, 3), (4, 5), (6, 7), (8, 9), (10, 11))


def test_groups_larger_than_a_host_take_several():
    layout = plan(hosts(5, 2), ranks_per_eval=4)

    assert layout.groups == ((2, 3, 4, 5), (6, 7, 8, 9))


@pytest.mark.parametrize(("n", "k", "smallest"), [(2, 2, 3), (3, 4, 5)])
def test_too_few_ranks_name_the_smallest_world(n, k, smallest):
    with pytest.raises(LayoutError, match=f"at least {smallest}"):
        plan(["a"] * n, ranks_per_eval=k)


def test_evals_per_node_are_checked():
    plan(hosts(4, 2), evals_per_node=2)

    with pytest.raises(LayoutError, match="needs 4 ranks on .*, but the launcher has started 2 there"):
        plan(hosts(4, 2), evals_per_node=4)
    with pytest.raises(LayoutError, match="needs 3 ranks on .*, but .* 8 there, enough for 6 evaluators"):
        plan(hosts(1, 8), evals_per_node=1)
    with pytest.raises(LayoutError, match="needs 11 ranks on .*, enough for 3 evaluators"):
        plan(hosts(1, 5), evals_per_node=9)


def test_unknown_job_mode():
    with pytest.raises(LayoutError, match="compact, serial, mpi"):
        plan(["a"] * 4, job_mode="parallel")


@given(
    st.lists(st.integers(1, 6), min_size=1, max_size=8),
    st.integers(1, 4),
    st.sampled_from(["compact", "serial", "mpi"]),
    st.booleans(),
)
def test_every_rank_has_exactly_one_place(per_host, k, job_mode, searcher):
    names = [f"host{host}" for host, n in enumerate(per_host) for _ in range(n)]
    try:
        layout = plan(names, ranks_per_eval=k, job_mode=job_mode, searcher=searcher)
    except LayoutError:
        return

    members = [rank for group in layout.groups for rank in group]
    assert len(members) == len(set(members))
    assert all(len(group) == k for group in layout.groups)
    assert set(layout.spare).isdisjoint(members)
    others = {layout.master} | ({layout.searcher} - {None})
    assert set(members) | set(layout.spare) | others == set(range(len(names)))
    if len(names) > 1:
        assert others.isdisjoint(members)
