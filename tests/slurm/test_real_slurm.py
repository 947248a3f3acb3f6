"""Campaigns on a real Slurm: jobs that hit their time limit, and jobs that go on with their work."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from slurm_cluster import Cluster, ended, missing, output

from dhmpi import journal, platform

pytestmark = pytest.mark.slurm
HERE = Path(__file__).parent
MINUTES = 60


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    if missing() or os.geteuid() != 0:
        pytest.fail(f"`make test-slurm` as root installs what is missing: {', '.join(missing()) or 'root'}")
    running = Cluster(tmp_path_factory.mktemp("slurm"))
    yield running
    running.stop()


def submit(cluster, work, *words):
    """Submit a search of slow evaluations on four ranks; return the run directory and the names of the jobs."""
    (work / "study.py").write_text(
        "import time\nfrom dhmpi.problem import HpProblem\n"
        "Problem = HpProblem()\nProblem.add_hyperparameter((0.0, 1.0), 'x')\n"
        "def run(config):\n    time.sleep(0.5)\n    return -config['x'] ** 2\n"
    )
    done = subprocess.run(
        [
            *(sys.executable, "-m", "dhmpi.submit", "hps", "test", "-p", "study.py", "-r", "study.py"),
            *("--scheduler", "slurm", "-n", "1", "--ranks-per-node", "4", "--surrogate-model", "DUMMY", *words),
        ],
        cwd=work,
        env={**os.environ, **cluster.environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    return Path(second.removeprefix("run directory ")), first.split()[1:]


def wait_for(condition, seconds, told=str):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain\n{told()}"
        time.sleep(0.5)


def launches(directory):
    try:
        return len(journal.replay(directory / "journal").headers)
    except Exception:  # not there yet
        return 0


def finished_trials(directory):
    with (directory / "results.csv").open(newline="") as stream:
        return [int(row["trial"]) for row in csv.DictReader(stream)]


def test_a_job_that_is_warned_of_its_limit_drains_and_the_next_goes_on(cluster, tmp_path):
    directory, jobs = submit(cluster, tmp_path, "-t", "2", "--campaign", "6", "--max-evals", "400")

    assert len(jobs) == 3
    assert "afterany" in cluster.fields(jobs[1])["Dependency"]
    for job in jobs:
        wait_for(lambda job=job: ended(cluster, job), 4 * MINUTES, lambda: output(directory))

    assert [cluster.state(job) for job in jobs] == ["COMPLETED"] * 3, output(directory)
    assert launches(directory) >= 2
    assert "The search has ended: all 400 evaluations are finished." in output(directory)
    assert sorted(finished_trials(directory)) == list(range(400))


def test_a_job_that_slurm_kills_at_its_limit_is_resumed_by_the_next(cluster, tmp_path):
    directory, jobs = submit(cluster, tmp_path, "-t", "2", "--campaign", "4", "--max-evals", "40")
    wait_for(lambda: launches(directory) == 1, MINUTES, lambda: output(directory))

    # A master that hangs heeds no deadline and no signal.
    for pid in platform.marked_processes("SLURM_JOB_ID", jobs[0]):
        if b"dhmpi.ambs" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
            os.kill(pid, signal.SIGSTOP)
    wait_for(lambda: ended(cluster, jobs[0]), 4 * MINUTES, lambda: output(directory))
    wait_for(lambda: ended(cluster, jobs[1]), 3 * MINUTES, lambda: output(directory))

    assert cluster.state(jobs[0]) == "TIMEOUT"
    assert cluster.state(jobs[1]) == "COMPLETED", output(directory)
    assert launches(directory) == 2
    assert sorted(finished_trials(directory)) == list(range(40))
