"""Searches whose evaluations train on several ranks."""

import pytest
from test_ambs import HERE
from test_group_runs import check_complete, only_openmpi

PARALLEL = (
    "--problem", HERE / "parallel.py", "--run", "dhmpi.nas.run.horovod.run", "--num-ranks-per-eval", 2, "--seed", 1,
)  # fmt: skip
ONE_THREAD = {"OMP_NUM_THREADS": "1", "TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}

pytestmark = pytest.mark.horovod


def test_networks_are_trained_in_groups(run, tmp_path):
    directory = tmp_path / "run"

    ended = run(5, "random", *PARALLEL, "--max-evals", 4, "--log-dir", directory, environment=ONE_THREAD, timeout=600)

    assert ended.code == 0, ended.err
    table = check_complete(directory, 4)
    assert {row["status"] for row in table.values()} == {"done"}
    assert {row["m:ranks"] for row in table.values()} <= {"1-2", "3-4"}
    assert {row["m:epochs"] for row in table.values()} == {"5"}
    assert len(list(directory.glob("task*/history.json"))) == 4


@only_openmpi
def test_who_trains_with_a_rank_that_is_killed_tries_again_and_the_others_never_notice(run, tmp_path):
    directory = tmp_path / "run"

    ended = run(
        9, "random", *PARALLEL, "--max-evals", 8, "--log-dir", directory, environment={**ONE_THREAD, "DYING": "1"},
        timeout=900,
    )  # fmt: skip

    assert ended.code == 0, ended.err
    table = check_complete(directory, 8)
    assert {row["status"] for row in table.values()} == {"done"}
    assert {id_: row["attempt"] for id_, row in table.items()} == {id_: str(int(id_ == 1)) for id_ in range(8)}
