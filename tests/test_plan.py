"""Planning a job: the numbers of the guide, the map for programs, advice, and what is refused."""

import doctest
import importlib.util
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dhmpi import plan, sites
from dhmpi.errors import DhmpiError
from dhmpi.mpi import binding, environment, layout
from dhmpi.mpi.binding import Node


def planned(capsys, words):
    """Return what the command prints for programs."""
    assert plan.main([*words.split(), "--json"]) == 0

    return json.loads(capsys.readouterr().out)


def printed(capsys, words):
    """Return what the command prints for people."""
    assert plan.main(words.split()) == 0

    return capsys.readouterr().out


def roles(node):
    return [" + ".join(rank["roles"]) for rank in node["ranks"]]


@pytest.mark.parametrize(
    ("words", "evaluators", "idle"),
    [
        ("ambs -n 128 -j serial", 126, 0),
        ("ambs -n 128 -j serial --ranks-per-node 4 --node-packing-count 4", 507, 3),
        ("ambs -n 128 -j serial --num-evals-per-node 4 --node-packing-count 4", 507, 3),
        ("ambs -n 128 -j serial --ranks-per-node 4 --node-packing-count 2", 506, 4),
        ("ambs -n 1 -j serial --ranks-per-node 4", 2, 0),
        ("ambs -n 128 -j mpi", 127, 0),
        ("regevo -n 128 -j mpi", 127, 0),
        ("random -n 128 -j mpi", 127, 0),
        ("regevo -n 128", 127, 0),
        ("ambs -n 128", 126, 0),
        ("ambs -n 1", 1, 0),
        ("ambs -n 2", 1, 0),
        ("ambs -n 3", 1, 0),
        ("ppo -n 128 --num-agents 11", 110, 6),
        ("ppo -n 128 --num-nodes 11 -j mpi", 110, 6),
        ("ppo -n 128 --num-agents 11 --spread-remainder", 116, 0),
        ("ppo -n 3", 1, 0),
        ("agebo -n 9 --num-nodes-per-eval 2 --num-ranks-per-node 4", 4, 2),
        ("regevo -n 8 --ranks-per-node 4 --num-ranks-per-eval 2", 15, 1),
    ],
)
def test_the_numbers_of_the_guide(capsys, words, evaluators, idle):
    found = planned(capsys, words)

    assert (found["evaluators"], found["idle"]) == (evaluators, idle)


def test_serial_mode_with_four_slots_a_node_is_the_guides_map(capsys):
    found = planned(capsys, "ambs -n 128 -j serial --ranks-per-node 4 --node-packing-count 4")

    assert roles(found["nodes"][0]) == ["master", "spare", "spare", "spare"]
    assert roles(found["nodes"][1]) == ["searcher", "evaluator", "evaluator", "evaluator"]
    assert len(found["nodes"]) == 128
    assert all(roles(node) == ["evaluator"] * 4 for node in found["nodes"][2:])


def test_a_searcher_of_half_a_node_keeps_its_second_slot_free(capsys):
    found = planned(capsys, "ambs -n 128 -j serial --ranks-per-node 4 --node-packing-count 2")

    assert roles(found["nodes"][1]) == ["searcher", "spare", "evaluator", "evaluator"]


def test_eleven_agents_share_equally_or_spread_the_remainder(capsys):
    equal = planned(capsys, "ppo -n 128 --num-agents 11")
    spread = planned(capsys, "ppo -n 128 --num-agents 11 --spread-remainder")

    assert equal["agents"] == 11
    assert equal["evaluators_of_agents"] == [10] * 11
    assert spread["evaluators_of_agents"] == [11] * 6 + [10] * 5


def test_the_workers_of_an_agent_are_next_to_each_other(capsys):
    found = planned(capsys, "ppo -n 8 --num-agents 2")

    ranks = [rank for node in found["nodes"] for rank in node["ranks"]]
    assert [(rank["agent"], rank["roles"][0]) for rank in ranks] == [
        (None, "master"), (0, "agent"), (1, "agent"), (0, "evaluator"), (0, "evaluator"), (1, "evaluator"),
        (1, "evaluator"), (None, "spare"),
    ]  # fmt: skip


def test_the_map_folds_nodes_that_are_alike(capsys):
    table = printed(capsys, "ambs -n 128 -j serial --ranks-per-node 4 --node-packing-count 4").split("\n\n")[1]
    assert [line.split() for line in table.splitlines()] == [
        ["hosts", "ranks", "on", "each", "host"],
        ["node000", "0-3", "master,", "3", "idle"],
        ["node001", "4-7", "searcher,", "3", "evaluators"],
        ["node002-node127", "(126)", "8-511", "4", "evaluators"],
    ]


def test_the_advice_names_what_is_wasted(capsys):
    said = printed(capsys, "ppo -n 128 --num-agents 11")

    assert "11 are agents, leaving 117: 10 evaluators each take 110, the master takes one, 6 are unused" in said
    assert "9 agents would leave 1 unused" in said
    assert "--spread-remainder would leave none unused" in said


def test_the_advice_on_agents_is_true(capsys):
    assert planned(capsys, "ppo -n 128 --num-agents 9")["idle"] == 1


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("ambs -n 4 -j serial --ranks-per-node 4", "--job-mode mpi would have 15 evaluators"),
        ("regevo -n 4 --ranks-per-node 8 --num-ranks-per-eval 3", "groups of 3 leave 2 of the 8 ranks"),
        ("ambs -n 4 --cores-per-node 16 --num-threads-per-rank 32", "1 x 32 threads on each node are more than its 16"),
        ("ambs -n 4 --gpus-per-node 4 --ranks-per-node 4", "2 of 16 GPUs have no evaluator"),
    ],
)
def test_other_advice(capsys, words, sentence):
    assert sentence in printed(capsys, words)


def test_nothing_is_advised_where_nothing_is_wasted(capsys):
    assert planned(capsys, "ambs -n 128")["advice"] == []


def test_evaluators_per_node_come_from_the_guides_variable(capsys, monkeypatch):
    monkeypatch.setenv("DEEPHYPER_WORKERS_PER_NODE", "4")

    found = planned(capsys, "ambs -n 128 -j serial --node-packing-count 4")
    explicit = planned(capsys, "ambs -n 128 --ranks-per-node 1")

    assert (found["ranks_per_node"], found["evaluators"]) == (4, 507)
    assert explicit["ranks_per_node"] == 1


@pytest.mark.parametrize("mode", ["compact", "serial", "mpi"])
def test_one_node_has_as_many_evaluators_as_asked_for(capsys, mode):
    found = planned(capsys, f"ambs -n 1 -j {mode} --num-evals-per-node 4")

    assert found["evaluators"] == 4


def test_cores_and_gpus_of_polaris(capsys):
    found = planned(capsys, "ambs -n 10 --site polaris --num-evals-per-node 4")

    ranks = found["nodes"][1]["ranks"]
    assert [rank["gpus"] for rank in ranks] == [["3"], ["2"], ["1"], ["0"]]
    assert [(rank["cores"][0], rank["cores"][-1]) for rank in ranks] == [(0, 7), (8, 15), (16, 23), (24, 31)]
    assert found["threads_per_rank"] == 8


def test_several_evaluators_share_a_gpu(capsys):
    found = planned(capsys, "ambs -n 2 --gpus-per-node 2 --ranks-per-node 6")

    assert [rank["gpus"] for rank in found["nodes"][0]["ranks"]] == [[], [], ["0"], ["0"], ["1"], ["1"]]
    assert [rank["gpus"] for rank in found["nodes"][1]["ranks"]] == [["0"], ["0"], ["0"], ["1"], ["1"], ["1"]]


def test_evaluations_are_bound_to_the_planned_gpus(monkeypatch):
    monkeypatch.setenv("DHMPI_GPUS", "3,2,1,0")
    monkeypatch.setenv("DHMPI_GPU_VARIABLE", "ROCR_VISIBLE_DEVICES")
    placed = layout.plan(["a"] * 6)

    bound = [binding.environment(placed, rank, environment.gpus(), environment.gpu_variable()) for rank in range(6)]

    assert [words["ROCR_VISIBLE_DEVICES"] for words in bound] == ["3", "3", "3", "2", "1", "0"]


def test_without_gpus_nothing_is_bound(monkeypatch):
    monkeypatch.delenv("DHMPI_GPUS", raising=False)

    assert binding.environment(layout.plan(["a"] * 6), 3, environment.gpus(), environment.gpu_variable()) == {}


@pytest.mark.parametrize("name", [name for name in plan.SEARCHES if importlib.util.find_spec(f"dhmpi.{name}")])
def test_plans_know_which_searches_have_a_searcher(name):
    program = importlib.import_module(f"dhmpi.{name}").PROGRAM

    assert (name in plan.FITTING) == (not program.with_master and name not in plan.WITH_AGENTS)


@given(st.integers(1, 8), st.integers(1, 12), st.integers(0, 3))
def test_each_evaluator_has_a_gpu_and_none_has_many_more_than_others(n_gpus, n_local, others):
    names = [str(i) for i in range(n_gpus)]
    n_evaluators = max(1, n_local - others)
    first = n_local - n_evaluators

    found = [binding.gpus(names, first + i, n_local, i, n_evaluators) for i in range(n_evaluators)]

    assert len({len(gpus) for gpus in found}) == 1
    assert all(found)
    users = [sum(name in gpus for gpus in found) for name in names]
    assert max(users) <= -(-n_local // n_gpus)


@given(st.integers(1, 128), st.integers(1, 64))
def test_cores_of_neighbours_are_apart_while_there_are_enough(n_cores, n_local):
    each = binding.depth(Node(n_cores), n_local)

    found = [binding.cores(n_cores, i, each) for i in range(n_local)]

    assert all(found)
    if n_local <= n_cores:
        assert len({core for cores in found for core in cores}) == n_local * each


def test_threads_of_a_node_are_shared_by_its_ranks(capsys):
    found = planned(capsys, "ambs -n 4 --ranks-per-node 4 --num-threads-per-node 64")

    assert found["threads_per_rank"] == 16


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("ambs -n 0", "-n must be >= 1, got 0"),
        ("ambs", "the following arguments are required: -n"),
        ("ambs -n x", "invalid int value: 'x'"),
        ("tabu -n 4", "invalid choice: 'tabu'"),
        ("ambs -n 4 --ranks-per-node 0", "--ranks-per-node must be >= 1, got 0"),
        ("ambs -n 4 -j parallel", "invalid choice: 'parallel'"),
        ("ambs -n 2 -j serial", "leave no evaluator of 1 rank: add nodes, or use --job-mode compact"),
        (
            "ambs -n 1 --num-ranks-per-eval 3",
            "compact leaves no evaluator of 3 ranks: start at least 4",
        ),
        ("ppo -n 12 --num-agents 11", "for each of 11 agents: start at least 23"),
        ("ambs -n 4 --num-agents 2", "--num-agents: the search ambs has no agents"),
        ("ambs -n 4 --spread-remainder", "--spread-remainder: the search ambs has no agents"),
        ("ambs -n 4 --ranks-per-node 2 --num-evals-per-node 4", "needs 4 ranks on"),
        (
            "ambs -n 4 --num-nodes-per-eval 2 --ranks-per-node 4 --num-ranks-per-node 2",
            "its 2 ranks a node must be",
        ),
        ("ambs -n 4 --num-nodes-per-eval 2 --num-evals-per-node 4", "--num-evals-per-node must be 1, got 4"),
        ("ambs -n 4 --num-nodes-per-eval 2 --num-ranks-per-eval 3", "--num-ranks-per-eval 3 is not"),
        ("ambs -n 4 --num-threads-per-rank 2 --num-threads-per-node 8", "not both"),
        ("ambs -n 4 --ranks-per-node 8 --num-threads-per-node 4", "less than one for each of 8 ranks"),
        ("ambs -n 4 --site summit", "there is no site 'summit'; there are aurora, cobalt"),
        ("ambs -n 4 --cores-per-node 0", "--cores-per-node must be >= 1, got 0"),
    ],
)
def test_what_makes_no_sense_is_one_sentence(capsys, words, sentence):
    assert plan.main(words.split()) == 2

    said = capsys.readouterr()
    assert sentence in said.err
    assert said.err.startswith("dhmpi.plan: error: ")
    assert (said.err.count("\n"), said.out) == (1, "")


def test_a_wrong_number_of_workers_in_the_environment(capsys, monkeypatch):
    monkeypatch.setenv("DEEPHYPER_WORKERS_PER_NODE", "four")

    assert plan.main(["ambs", "-n", "4"]) == 2
    assert "DEEPHYPER_WORKERS_PER_NODE must be a number >= 1, got 'four'" in capsys.readouterr().err


@given(
    st.integers(1, 12), st.integers(1, 6), st.integers(1, 4), st.integers(1, 4), st.booleans(),
    st.sampled_from(["compact", "serial", "mpi"]),
)  # fmt: skip
def test_agents_have_equal_shares(n_nodes, per_node, k, agents, spread, mode):
    hosts = [f"host{node}" for node in range(n_nodes) for _ in range(per_node)]
    try:
        found = layout.plan(
            hosts, searcher=False, ranks_per_eval=k, job_mode=mode, agents=agents, spread_remainder=spread
        )
    except DhmpiError:
        return

    counts = [len(leaders) for leaders in found.workers]
    assert len(found.agents) == len(counts) == agents
    assert min(counts) >= 1
    assert max(counts) - min(counts) <= int(spread)
    assert sorted(leader for leaders in found.workers for leader in leaders) == sorted(found.leaders)
    members = [rank for group in found.groups for rank in group]
    everybody = [0, *found.agents, *members, *found.spare]
    assert sorted(everybody) == list(range(len(hosts)))
    if k == 1 and mode != "serial":
        each = (len(hosts) - 1 - agents) // (agents * k)
        assert min(counts) == each


@pytest.mark.parametrize("module", [layout, binding])
def test_examples_in_docstrings(module):
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize("name", sites.names())
def test_every_site_can_be_planned_for(name):
    site = sites.load(name)

    found = plan.place(plan.Request("ambs", 16, ranks_per_node=4), site.node)

    assert found.layout.n_evaluators == 62
    assert found.describe()
