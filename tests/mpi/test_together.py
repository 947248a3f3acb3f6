"""Ranks that train one network together: with Horovod under both MPIs, and by mpi4py.

``together.py`` is what they run; each test looks at what all of them have seen.
"""

import functools
import json
import os
import subprocess

import pytest
from conftest import PYTHONS, ROOT, Launch

from dhmpi.launch import identify

HERE = ROOT / "tests" / "mpi"
FEW = ("different_data", "one_rank_or_many", "gives_up", "the_run_function")
"""What `make test` looks at, without Horovod: TensorFlow takes its time on each rank."""
ALL = (*FEW, "judged_whole", "moving_averages", "noise", "graphs_left", "ends_alike", "changing_groups")
PLACES = [
    pytest.param((backend, mpi), marks=pytest.mark.horovod, id=f"{backend}-{mpi}")
    for backend in ("horovod", "mpi4py")
    for mpi in sorted(PYTHONS)
]
N_GROUPS = {"horovod": 30, "mpi4py": 6}


class Together(Launch):
    """Ranks under mpiexec alone, without a search."""

    def __init__(self, mpi, cwd, n, *words, timeout=600):
        launcher = identify(str(PYTHONS[mpi].parent / "mpiexec"))
        self.command = [*launcher.command(n), str(PYTHONS[mpi]), "-m", "together", *map(str, words)]
        threads = dict.fromkeys(("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"), "1")
        environment = {
            **launcher.environment(), **threads, "PYTHONPATH": f"{ROOT}{os.pathsep}{HERE}", "TMPDIR": str(cwd),
            "TF_CPP_MIN_LOG_LEVEL": "3",
        }  # fmt: skip
        super().__init__(PYTHONS[mpi], [], cwd, timeout, environment)

    def popen(self, python, words, **options):
        return subprocess.Popen(self.command, **options)


def run_together(directory, backend, mpi, size, scenarios):
    """Return what each rank has seen, by scenario; all in one launch."""
    words = [f"{name}={N_GROUPS[backend]}" if name == "changing_groups" else name for name in scenarios]
    launch = Together(mpi, directory, size, backend, *words)
    try:
        ended = launch.wait()
    finally:
        launch.kill()
    assert ended.code == 0, ended.err
    line = next(line for line in ended.out.splitlines() if line.startswith("FOUND "))
    return json.loads(line.removeprefix("FOUND "))


@pytest.fixture(scope="module")
def launches(tmp_path_factory):
    """Return a function that launches, but nothing twice, not even what has failed."""

    @functools.cache
    def known(*what):
        try:
            return run_together(tmp_path_factory.mktemp("together"), *what)
        except (AssertionError, pytest.fail.Exception) as error:
            return str(error)

    def launched(*what):
        found = known(*what)
        assert not isinstance(found, str), found
        return found

    return launched


@pytest.fixture(params=PLACES)
def seen(request, launches):
    """What three ranks have seen, with Horovod and without, under each MPI."""
    return launches(*request.param, 3, ALL)


@pytest.fixture(params=[pytest.param(None, marks=pytest.mark.tensorflow, id="two"), *PLACES])
def seen_by_few(request, launches):
    """The same, or what two ranks have seen without Horovod."""
    return launches("mpi4py", "openmpi", 2, FEW) if request.param is None else launches(*request.param, 3, ALL)


def test_different_data_on_each_rank_give_equal_weights(seen_by_few):
    """What Horovod's DistributedOptimizer, on Keras 3, silently does not do."""
    together = [rank["together"] for rank in seen_by_few["different_data"]]
    apart = [rank["apart"] for rank in seen_by_few["different_data"]]

    assert len(set(together)) == 1
    assert len({*apart, *together}) == len(apart) + 1


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_many_ranks_train_as_one_would_with_the_whole_batch(seen_by_few, optimizer):
    """The batch is shared out, not multiplied as well: equally many steps, the same losses, the same weights."""
    of_ranks = [rank[optimizer] for rank in seen_by_few["one_rank_or_many"]]

    for rank in of_ranks:
        assert rank["steps"] == [12, 12]  # 3 epochs of 61 samples in batches of 16, the last one of 13
        assert rank["losses"] < 1e-5
        assert rank["weights"] < 1e-5
    assert len({rank["digest"] for rank in of_ranks}) == 1


def test_the_whole_of_the_validation_data_is_judged(seen):
    """Not the first part of it on each rank, nor means of metrics of parts."""
    together = [rank["together"] for rank in seen["judged_whole"]]
    alone = seen["judged_whole"][0]["alone"]

    assert together == [together[0]] * len(together)
    assert together[0] == pytest.approx(alone, rel=1e-4)
    assert together[0]["objective"] == together[0]["val_r2"]


def test_moving_averages_and_penalties_are_those_of_all(seen):
    of_ranks = seen["moving_averages"]

    assert of_ranks == [of_ranks[0]] * len(of_ranks)
    assert of_ranks[0]["moved"]


def test_all_start_with_the_weights_of_the_leader_but_drop_out_differently(seen):
    of_ranks = seen["noise"]

    assert len({rank["weights"] for rank in of_ranks}) == 1
    assert len({rank["noise"] for rank in of_ranks}) == len(of_ranks)


def test_nothing_of_a_network_stays_behind(seen):
    for _, second, third in seen["graphs_left"]:
        assert third == second


@pytest.mark.parametrize("why", ["time", "leader", "members", "early"])
def test_all_end_after_the_same_step(seen, why):
    of_ranks = [rank[why] for rank in seen["ends_alike"]]

    assert of_ranks == [of_ranks[0]] * len(of_ranks)
    if why == "time":
        assert 1 <= of_ranks[0]["batches"] < 9 * 4
    if why == "early":
        assert of_ranks[0]["epochs"] == 2
    if why in ("leader", "members"):
        assert of_ranks[0] == {"leader": 1, "members": 3}[why]


@pytest.mark.parametrize("culprit", [0, 1])
def test_who_raises_frees_the_others_and_tells_them_why(seen_by_few, culprit):
    of_ranks = [rank[f"culprit_{culprit}"] for rank in seen_by_few["gives_up"]]

    raised = "fragile cannot augment a batch: RuntimeError: no more"
    assert of_ranks[culprit] == ["TrainingError", raised]
    for rank in set(range(len(of_ranks))) - {culprit}:
        assert of_ranks[rank] == ["MemberError", f"rank {culprit} of the group has given up: {raised}"]


def test_what_makes_the_leader_fail_is_the_failure_of_all(seen_by_few):
    for rank in seen_by_few["gives_up"]:
        kind, words = rank["diverged"]
        assert kind == "TrainingError"
        assert words.startswith("the objective <lambda> is nan after 2 epoch(s)")


def test_nobody_ends_well_unless_all_do(seen_by_few):
    of_ranks = [rank["late"] for rank in seen_by_few["gives_up"]]

    assert of_ranks[-1] == ["KeyError", "'late'"]
    for kind, words in of_ranks[:-1]:
        assert kind == "MemberError"
        assert words == f"rank {len(of_ranks) - 1} of the group has given up: KeyError: 'late'"


def test_after_a_failure_the_same_ranks_train_again(seen_by_few):
    assert {rank["again"] for rank in seen_by_few["gives_up"]} == {1}


def test_the_run_function_follows_the_leader_who_writes_and_reports(seen_by_few):
    leader, *members = seen_by_few["the_run_function"]

    assert leader["files"] == ["epochs.csv", "history.json", "predictions.npz"]
    assert [epoch for epoch, _ in leader["reports"]] == [1, 2]
    assert leader["reports"][-1][1] == leader["objective"]
    for member in members:
        assert member == {"objective": leader["objective"], "files": [], "reports": []}


def test_groups_change_their_members(seen):
    """One after another in the same processes, each of which has done something else before."""
    rows = [tuple(row) for rank in seen["changing_groups"] for row in rank]

    numbers = {i for i, *_ in rows}
    assert numbers in ({*range(6)}, {*range(30)})
    for i, size, *_ in rows:
        assert sum(row[0] == i for row in rows) == size
    assert len(set(rows)) == len(numbers)  # members of a group have the same losses and objectives
