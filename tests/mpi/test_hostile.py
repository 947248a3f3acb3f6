"""Functions that attack what they run in, and disks that are full: the search goes on, or says why not."""

import os
import resource
import subprocess

import pytest
from nasty import DEEDS
from test_ambs import HERE, SLOW, either, n_finished, rows, wait_for

from dhmpi import journal

NASTY = ("--problem", HERE / "nasty.py", "--run", HERE / "nasty.py")


def test_functions_that_attack_what_they_run_in(run, tmp_path):
    directory = tmp_path / "run"

    ended = run(5, "ambs", *NASTY, "--max-evals", 24, "--log-dir", directory, "--eval-timeout-minutes", 0.7)

    assert ended.code == 0, ended.err
    table = rows(directory)
    assert len(table) == 3 * len(DEEDS)  # the whole space
    status = {deed: {row["status"] for row in table if row["deed"] == deed} for deed in DEEDS}
    assert status == {
        "fine": {"done"},
        "kills keeper": {"crashed"},
        "closes": {"crashed"},
        "floods": {"done"},
        "vanishes": {"crashed"},
        "undermines": {"done"},
        "returns much": {"failed"},
        "aborts": {"crashed"},
    }
    history = journal.replay(directory / "journal")
    reasons = {trial.config["deed"]: outcome.reason for outcome, trial in history.finished.values()}
    assert "metrics" in reasons["returns much"]
    sizes = [path.stat().st_size for path in directory.glob("task*/task*.out")]
    assert max(sizes) < 11_000_000  # of the gigabyte that was printed


def test_a_full_disk_ends_the_run_with_the_reason(start, tmp_path):
    directory = tmp_path / "run"
    launch = start(4, "ambs", *SLOW, "--log-dir", directory, environment={"SLOW_SECONDS": "0.01"})
    wait_for(lambda: n_finished(directory) > 2)

    size = (directory / "journal" / "0.0.jsonl").stat().st_size + 20_000
    resource.prlimit(launch.rank(0), resource.RLIMIT_FSIZE, (size, size))  # no file of the master may grow further
    ended = launch.wait()

    assert ended.code == 1
    assert ended.err.count("error:") == 1
    assert f"cannot write the journal {directory}/journal/0.0.jsonl: File too large" in ended.err
    history = journal.replay(directory / "journal")
    assert history.finished
    assert not history.ended


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 400 kB."""
    path = tmp_path / "disk"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", path]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, timeout=20, check=False).returncode:
        pytest.skip("needs the right to mount")
    yield path
    subprocess.run(["umount", "--lazy", path], check=True, timeout=20)


@either
def test_no_space_left_ends_the_run_with_the_reason(run, small_disk):
    directory = small_disk / "run"

    ended = run(
        4, "ambs", *SLOW, "--log-dir", directory, "--task-dirs", "none", environment={"SLOW_SECONDS": "0.001"}
    )  # fmt: skip

    assert ended.code == 1
    assert ended.err.count("error:") == 1
    assert "No space left on device" in ended.err
    assert journal.replay(directory / "journal").finished


@either
def test_a_run_directory_that_goes_away_ends_the_run(start, tmp_path):
    directory = tmp_path / "run"
    launch = start(3, "ambs", *SLOW, "--log-dir", directory)
    wait_for(lambda: (directory / "results.csv").exists() and len(rows(directory)) > 2)

    directory.rename(tmp_path / "elsewhere")
    ended = launch.wait()

    assert ended.code == 1
    assert "cannot write" in ended.err
