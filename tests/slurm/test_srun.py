"""Ranks that Slurm itself starts and binds: srun in a real allocation, with MPICH, whose ranks meet through PMI-2."""

import csv
import os
import subprocess
import time
from pathlib import Path

import pytest
from slurm_cluster import Cluster, ended, missing, output

from dhmpi import journal

pytestmark = pytest.mark.slurm
ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv-mpich/bin/python"
STUDY = """
import os, time
from dhmpi.problem import HpProblem
Problem = HpProblem()
Problem.add_hyperparameter((0.0, 1.0), "x")
def run(config):
    time.sleep(0.2)
    return {"objective": config["x"], "cores": ",".join(map(str, sorted(os.sched_getaffinity(0))))}
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    if missing() or os.geteuid() != 0 or not PYTHON.exists():
        pytest.fail("`make test-slurm` as root installs what is missing")
    if (os.cpu_count() or 1) < 2:
        pytest.skip("ranks can be bound to cores of their own only where there are two")
    running = Cluster(tmp_path_factory.mktemp("slurm"), n_cpus=2, task_plugin="task/affinity")
    yield running
    running.stop()


@pytest.fixture
def submit(cluster, tmp_path):
    """Submit a search on two ranks that srun starts, each with a core of its own; return run directory and job."""
    (tmp_path / "study.py").write_text(STUDY)

    def submit_(run, *words):
        done = subprocess.run(
            [
                *(PYTHON, "-m", "dhmpi.submit", "hps", "test", "--search", "random", "-p", "study.py", "-r", run),
                *("--scheduler", "slurm", "--launcher", "srun", "--env", "SLURM_MPI_TYPE=pmi2", "-t", "5", "-n", "1"),
                *("--ranks-per-node", "2", "--cores-per-node", "2", *words),
            ],
            cwd=tmp_path,
            env={**os.environ, **cluster.environment, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        first, second = done.stdout.splitlines()
        return Path(second.removeprefix("run directory ")), first.split()[1]

    return submit_


def wait_for(condition, directory, seconds=180):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain\n{output(directory)}"
        time.sleep(0.5)


def rows(directory):
    with (directory / "results.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_srun_starts_the_ranks_and_binds_them(cluster, submit):
    directory, job = submit("study.py", "--max-evals", "6")
    wait_for(lambda: ended(cluster, job), directory)

    assert cluster.state(job) == "COMPLETED", output(directory)
    assert "srun" in (directory / "job.sh").read_text()
    assert "2 ranks on 1 host" in output(directory)
    assert "master, evaluator  0 | 1" in (directory / "dhmpi.log").read_text()
    assert {row["m:cores"] for row in rows(directory)} == {"1"}


def test_a_warning_reaches_ranks_below_srun(cluster, submit):
    directory, job = submit("study.py", "--max-evals", "100000")
    wait_for(lambda: (directory / "results.csv").exists() and len(rows(directory)) > 2, directory)

    cluster.ask("scancel", "--signal=USR1", "--batch", job)
    wait_for(lambda: ended(cluster, job), directory)

    assert cluster.state(job) == "COMPLETED", output(directory)
    assert "SIGUSR1 asked for an end" in output(directory)
    history = journal.replay(directory / "journal")
    assert history.ended
    assert not history.unfinished


def test_an_evaluation_may_be_a_step_of_its_own(cluster, submit):
    step = f"srun --overlap --mpi=pmi2 --nodelist={{nodes}} -n 2 {PYTHON}"
    program = f"cmd:{step} -m dhmpi.benchmark.hps.polynome2_program {{config}} {{result}}"
    directory, job = submit(program, "--max-evals", "3")
    wait_for(lambda: ended(cluster, job), directory)

    assert cluster.state(job) == "COMPLETED", output(directory)
    assert [row["m:ranks"] for row in rows(directory)] == ["2"] * 3
