"""Functions that attack what they run in, and disks that are full: the search goes on, or says why not."""

import resource

from nasty import DEEDS
from test_ambs import HERE, SLOW, n_finished, rows, wait_for

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


def test_a_journal_on_a_full_device_is_refused_before_anything_starts(run, tmp_path):
    directory = tmp_path / "run"
    directory.mkdir()
    (directory / "run.json.new").symlink_to("/dev/full")

    ended = run(3, "ambs", *SLOW, "--log-dir", directory, "--max-evals", 10)

    assert ended.code != 0
    assert not list((directory / "journal").glob("*")) if (directory / "journal").exists() else True


def test_a_run_directory_that_goes_away_ends_the_run(start, tmp_path):
    directory = tmp_path / "run"
    launch = start(3, "ambs", *SLOW, "--log-dir", directory)
    wait_for(lambda: (directory / "results.csv").exists() and len(rows(directory)) > 2)

    directory.rename(tmp_path / "elsewhere")
    ended = launch.wait()

    assert ended.code == 1
    assert "cannot write" in ended.err
