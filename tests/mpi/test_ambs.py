"""The whole program on real ranks: every end a run can have, under both MPIs."""

import csv
import json
import os
import re
import signal
import subprocess
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from conftest import PYTHONS, ROOT

from dhmpi import journal
from dhmpi.launch import GAVE_UP, TRIES

HERE = Path(__file__).parent
POLYNOME2 = ("--problem", "dhmpi.benchmark.hps.polynome2.Problem", "--run", "dhmpi.benchmark.hps.polynome2.run")
HOSTILE = ("--problem", HERE / "hostile.py", "--run", HERE / "hostile.py")
SLOW = ("--problem", HERE / "slow.py", "--run", HERE / "slow.py")
CHEAP = (*POLYNOME2, "--evaluator", "inline", "--surrogate-model", "DUMMY")


either = pytest.mark.parametrize("mpi", ["openmpi", pytest.param("mpich", marks=pytest.mark.large)], indirect=True)
"""For a test of what no MPI library has a part in: `make test` runs it under one, `make test-large` under the other."""


def rows(directory):
    with (directory / "results.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def wait_for(condition, seconds=100):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def n_finished(directory):
    return len(journal.replay(directory / "journal").finished)


def present(directory):
    """Return the evaluators that have joined."""
    return journal.replay(directory / "journal").presence.keys()


def has_finished(directory, n):
    return n_finished(directory) >= n


@pytest.mark.parametrize("n", [0, 2, 5, *(pytest.param(n, marks=pytest.mark.large) for n in (1, 3))])
def test_a_search_runs_from_one_rank_on(run, tmp_path, n):
    directory = tmp_path / "run"

    ended = run(n, "ambs", *POLYNOME2, "--max-evals", 30, "--seed", 1, "--log-dir", directory)

    assert ended.code == 0, ended.err
    table = rows(directory)
    assert sorted(int(row["trial"]) for row in table) == list(range(30))
    assert {row["status"] for row in table} == {"done"}
    for row in table:
        expected = -sum(float(row[f"e{i}"]) ** 2 for i in range(10))
        assert float(row["objective"]) == pytest.approx(expected)
    first = next(row for row in table if row["trial"] == "0")
    assert float(first["objective"]) == -1000  # the starting point
    best = json.loads((directory / "best.json").read_text())
    assert best["objective"] == max(float(row["objective"]) for row in table)
    assert "all 30 evaluations are finished" in ended.out
    assert f"Results in {directory}" in ended.out
    assert not (directory / "lock").exists()
    assert len(list(directory.glob("task*_????????"))) == 30
    assert "cores of each rank" in (directory / "dhmpi.log").read_text()
    (startup,) = [event for event in journal.events(directory / "journal") if event["e"] == "startup"]
    assert startup["ranks"] == max(1, n - 2)
    assert 0 < startup["problem"] < ended.seconds
    for least, median, most in startup["seconds"].values():
        assert 0 <= least <= median <= most < ended.seconds


@either
def test_thirty_three_ranks_share_the_work(run, tmp_path):
    directory = tmp_path / "run"

    ended = run(33, "ambs", *CHEAP, "--max-evals", 3000, "--log-dir", directory)

    assert ended.code == 0, ended.err
    table = rows(directory)
    assert sorted(int(row["trial"]) for row in table) == list(range(3000))
    assert {int(row["rank"]) for row in table} == set(range(2, 33))


@either
def test_every_misdeed_of_a_function_is_an_outcome(run, tmp_path):
    directory = tmp_path / "run"

    ended = run(
        5, "ambs", *HOSTILE, "--max-evals", 44, "--log-dir", directory,
        "--eval-timeout-minutes", 0.15, "--max-rss", 300,
    )  # fmt: skip

    assert ended.code == 0, ended.err
    table = rows(directory)
    assert len(table) == 44  # the whole space: 11 deeds x 4
    status = {(row["deed"], int(row["n"])): row["status"] for row in table}
    expected = {
        "fine": "done", "talks": "done", "raises": "failed", "nan": "failed", "none": "failed", "exits": "failed",
        "vanishes": "crashed", "segfaults": "crashed", "kills": "crashed", "hangs": "timeout", "eats": "memory",
    }  # fmt: skip
    assert {deed: status[deed, 0] for deed in expected} == expected
    assert all((row["objective"] == "") == (row["status"] != "done") for row in table)
    log = (directory / "dhmpi.log").read_text()
    for words in ("KeyError", "SIGSEGV", "nan", "exit"):
        assert words.lower() in log.lower()
    outcome, trial = next(o for o in journal.replay(directory / "journal").finished.values() if o[0].trial == 0)
    assert trial.config == {"deed": "raises", "n": 0}
    assert "what was never there" in outcome.reason


@either
def test_a_finite_space_is_exhausted_cleanly(run, tmp_path):
    directory = tmp_path / "run"
    problem = "dhmpi.benchmark.hps.toy.problem_basic_1"

    ended = run(
        4, "ambs", "--problem", f"{problem}.Problem", "--run", f"{problem}.run", "--log-dir", directory,
        "--evaluator", "inline", "--surrogate-model", "DUMMY",
    )  # fmt: skip

    assert ended.code == 0, ended.err
    table = rows(directory)
    assert len({(row["x"], row["y"]) for row in table}) == len(table) == 121
    assert "the space is exhausted" in ended.out


@pytest.mark.parametrize("n_kills", [3, pytest.param(10, marks=pytest.mark.large)])
def test_killed_at_random_moments_it_resumes_until_done(start, tmp_path, n_kills):
    directory = tmp_path / "run"
    rng = np.random.default_rng(7)
    max_evals = 15 * n_kills
    words = (*SLOW, "--max-evals", max_evals, "--seed", 3, "--log-dir", directory, "--resume")

    seen = {}
    for _ in range(n_kills):
        launch = start(4, "ambs", *words)
        enough = n_finished(directory) + int(rng.integers(1, 8))
        wait_for(partial(has_finished, directory, enough))
        launch.kill()
        finished = {id_: outcome for id_, (outcome, _) in journal.replay(directory / "journal").finished.items()}
        assert seen.items() <= finished.items()  # nothing finished is ever lost, or changed
        seen = finished
    ended = start(4, "ambs", *words).wait()

    assert ended.code == 0, ended.err
    table = rows(directory)
    assert sorted(int(row["trial"]) for row in table) == list(range(max_evals))
    assert len({(row["x"], row["n"]) for row in table}) == max_evals
    assert len(list((directory / "journal").iterdir())) == n_kills + 1


@either
def test_a_finished_run_says_so_and_a_larger_budget_continues_it(run, tmp_path):
    directory = tmp_path / "run"
    words = (*CHEAP, "--log-dir", directory)
    run(3, "ambs", *words, "--max-evals", 20)

    again = run(3, "ambs", *words, "--max-evals", 20, "--resume")
    more = run(2, "ambs", *words, "--max-evals", 30, "--resume")

    assert (again.code, more.code) == (0, 0), again.err + more.err
    assert "finished run" in again.out
    assert sorted(int(row["trial"]) for row in rows(directory)) == list(range(30))


@either
def test_the_time_limit_drains_and_names_the_command_to_resume(run, tmp_path):
    directory = tmp_path / "run"
    words = (*SLOW, "--log-dir", directory, "--max-evals", 10_000)

    ended = run(3, "ambs", *words, "--time-limit-minutes", 0.25)

    assert ended.code == 0, ended.err
    assert ended.seconds < 30
    assert re.search("the time limit is (near|reached)", ended.out)  # on a crowded machine it takes long to start
    assert "--resume" in ended.out
    history = journal.replay(directory / "journal")
    assert history.finished
    assert not history.unfinished


@either
def test_what_cannot_end_before_the_job_does_is_not_started(run, tmp_path):
    directory = tmp_path / "run"

    ended = run(
        3, "ambs", *SLOW, "--log-dir", directory, "--grace-minutes", 0.01,
        environment={"SLOW_SECONDS": "2", "DHMPI_DEADLINE": str(time.time() + 22)},
    )  # fmt: skip

    assert ended.code == 0, ended.err
    assert ended.seconds < 25
    assert "the time limit is near, and an evaluation takes 2 s" in ended.out
    assert {row["status"] for row in rows(directory)} == {"done"}
    history = journal.replay(directory / "journal")
    assert history.ended
    assert not history.unfinished  # nothing was cancelled


def test_sigusr1_drains(start, tmp_path):
    directory = tmp_path / "run"
    launch = start(3, "ambs", *SLOW, "--log-dir", directory)
    wait_for(lambda: (directory / "results.csv").exists() and len(rows(directory)) > 2)

    os.kill(launch.process.pid, signal.SIGUSR1)
    ended = launch.wait()

    assert ended.code == 0, ended.err
    assert "SIGUSR1" in ended.out


@either
def test_the_target_ends_the_run_before_long_evaluations_do(run, tmp_path):
    directory = tmp_path / "run"

    ended = run(
        4, "ambs", *SLOW, "--log-dir", directory, "--target", -0.25, "--max-evals", 1000,
        environment={"SLOW_SECONDS": "0.5"},
    )  # fmt: skip

    assert ended.code == 0, ended.err
    assert "the target of -0.25 is reached" in ended.out
    assert len(rows(directory)) < 10


def test_a_search_whose_process_is_killed_goes_on(start, tmp_path):
    directory = tmp_path / "run"
    launch = start(4, "ambs", *SLOW, "--log-dir", directory, "--max-evals", 60)
    for n in (5, 15):
        wait_for(partial(has_finished, directory, n))
        (pid,) = launch.running("dhmpi.search.host")
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda pid=pid: launch.running("dhmpi.search.host") not in ([], [pid]))
    ended = launch.wait()

    assert ended.code == 0, ended.err
    table = rows(directory)
    assert sorted(int(row["trial"]) for row in table) == list(range(60))
    assert len({(row["x"], row["n"]) for row in table}) == 60


@either
def test_ends_when_every_evaluation_fails(run, tmp_path):
    module = tmp_path / "broken.py"
    module.write_text(
        "from dhmpi.problem import HpProblem\nProblem = HpProblem()\nProblem.add_hyperparameter((0.0, 1.0), 'x')\n"
        "def run(config):\n    raise OSError('no data here')\n"
    )

    ended = run(3, "ambs", "--problem", module, "--run", module, "--log-dir", tmp_path / "run")

    assert ended.code == 1
    assert "the first 50 evaluations all failed" in ended.out
    assert "no data here" in ended.out


@either
def test_a_search_none_of_whose_evaluations_succeeds_has_failed(run, tmp_path):
    module = tmp_path / "fails.py"
    module.write_text(
        "from dhmpi.problem import HpProblem\nProblem = HpProblem()\nProblem.add_hyperparameter((0.0, 1.0), 'x')\n"
        "def run(config):\n    raise ValueError('no data here')\n"
    )

    ended = run(0, "ambs", "--problem", module, "--run", module, "--max-evals", 4, "--log-dir", tmp_path / "run")

    assert ended.code == 1
    assert "all 4 evaluations are finished" in ended.out
    assert "No evaluation has succeeded." in ended.out


def test_a_bug_in_any_rank_ends_the_job_with_one_report(run, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\n"
        "rank = os.environ.get('OMPI_COMM_WORLD_RANK', os.environ.get('PMI_RANK'))\n"
        "if rank == '3':\n"
        "    import dhmpi.roles.evaluator as evaluator\n"
        "    def broken(self, work):\n"
        "        raise RuntimeError('a planted bug')\n"
        "    evaluator.Evaluator._work = broken\n"
    )

    ended = run(5, "ambs", *CHEAP, "--log-dir", tmp_path / "run", timeout=60)

    assert ended.code != 0
    assert ended.err.count("internal error on rank 3") == 1
    assert "a planted bug" in ended.err


BAD = {
    "unknown module": (("--problem", "no.such.Problem", "--run", "dhmpi.benchmark.hps.polynome2.run"), "no"),
    "unknown attribute": (
        ("--problem", "dhmpi.benchmark.hps.polynome2.Probem", "--run", "dhmpi.benchmark.hps.polynome2.run"),
        "Probem",
    ),
    "unknown file": (("--problem", "missing.py", "--run", "dhmpi.benchmark.hps.polynome2.run"), "missing.py"),
    "no problem": (
        ("--problem", "dhmpi.benchmark.hps.polynome2.run", "--run", "dhmpi.benchmark.hps.polynome2.run"),
        "problem",
    ),
    "not callable": (
        ("--problem", "dhmpi.benchmark.hps.polynome2.Problem", "--run", "dhmpi.benchmark.hps.polynome2.__doc__"),
        "call",
    ),
    "unknown run": (("--problem", "dhmpi.benchmark.hps.polynome2.Problem", "--run", "dhmpi.nothing.run"), "nothing"),
    "no function": (("--problem", "nothing.py", "--run", "nothing.py"), "no attribute 'run'"),
    "no argument": (("--problem", "useless.py", "--run", "useless.py"), "one argument"),
    "kappa": ((*POLYNOME2, "--kappa", "-1"), "--kappa must be >= 0, got -1"),
    "max evals": ((*POLYNOME2, "--max-evals", "0"), "--max-evals must be >= 1, got 0"),
    "surrogate": ((*POLYNOME2, "--surrogate-model", "XGB"), "XGB"),
    "inline limit": ((*POLYNOME2, "--evaluator", "inline", "--eval-timeout-minutes", "1"), "inline"),
    "empty space": (("--problem", "bad.py:empty", "--run", "bad.py"), "hyperparameter"),
    "starting point": (("--problem", "outside.py", "--run", "bad.py"), "x"),
    "reserved name": (("--problem", "reserved.py", "--run", "bad.py"), "objective"),
    "log dir": ((*POLYNOME2, "--log-dir", "/proc/nothing/here"), "/proc/nothing"),
    "too few ranks": ((*POLYNOME2, "--num-evals-per-node", "9", "--job-mode", "serial"), "--num-evals-per-node 9"),
}


def write_bad_modules(directory):
    head = "from dhmpi.problem import HpProblem\nProblem = HpProblem()\n"
    (directory / "bad.py").write_text(head + "empty = Problem\ndef run(config):\n    return 0.0\n")
    (directory / "outside.py").write_text(
        head + "Problem.add_hyperparameter((0, 1), 'x')\nProblem.add_starting_point(x=7)\n"
    )
    fine = head + "Problem.add_hyperparameter((0, 1), 'x')\n"
    (directory / "nothing.py").write_text(fine)
    (directory / "useless.py").write_text(fine + "def run():\n    return 0.0\n")
    (directory / "reserved.py").write_text(head + "Problem.add_hyperparameter((0, 1), 'objective')\n")


@either
@pytest.mark.parametrize("case", sorted(set(BAD) - {"too few ranks"}))
def test_bad_input_gets_one_sentence(run, tmp_path, case):
    words, part = BAD[case]
    write_bad_modules(tmp_path)
    before = sorted(entry.name for entry in tmp_path.iterdir())

    ended = run(0, "ambs", *words)

    assert ended.code == 2, ended.err
    errors = [line for line in ended.err.splitlines() if "error:" in line]
    assert len(errors) == 1
    assert ended.err.strip() == errors[0]
    assert part in errors[0]
    left = [entry.name for entry in tmp_path.iterdir() if entry.suffix not in (".out", ".err")]
    assert sorted(left) == before  # nothing half-written


@pytest.mark.parametrize("case", ["unknown module", "not callable", "no function", "kappa", "log dir", "too few ranks"])
def test_bad_input_is_reported_once_by_many_ranks(run, mpi, tmp_path, case):
    words, part = BAD[case]
    write_bad_modules(tmp_path)

    ended = run(5, "ambs", *words)

    assert ended.code == 2, ended.err
    errors = [line for line in ended.err.splitlines() if "error:" in line]
    assert len(errors) == 1, ended.err
    assert part in errors[0]


@either
def test_a_run_directory_in_use_is_refused(start, run, tmp_path):
    directory = tmp_path / "run"
    launch = start(2, "ambs", *SLOW, "--log-dir", directory)
    wait_for(lambda: (directory / "results.csv").exists())

    other = run(2, "ambs", *SLOW, "--log-dir", directory, "--resume")

    assert other.code == 2
    assert "is in use by process" in other.err
    assert launch.process.poll() is None
    launch.kill()


@either
def test_a_directory_that_holds_a_run_is_not_overwritten(run, tmp_path):
    directory = tmp_path / "run"
    words = (*CHEAP, "--log-dir", directory, "--max-evals", 10)
    run(2, "ambs", *words)

    again = run(2, "ambs", *words)

    assert again.code == 2
    assert "--resume" in again.err
    assert len(rows(directory)) == 10


@either
def test_another_problem_is_refused_on_resume(run, tmp_path):
    directory = tmp_path / "run"
    run(2, "ambs", *CHEAP, "--log-dir", directory, "--max-evals", 10)
    toy = "dhmpi.benchmark.hps.toy.problem_basic_1"

    other = run(2, "ambs", "--problem", f"{toy}.Problem", "--run", f"{toy}.run", "--log-dir", directory, "--resume")

    assert other.code == 2
    assert "polynome2" in other.err


@either
def test_what_was_deleted_is_rebuilt_from_the_journal(run, tmp_path):
    directory = tmp_path / "run"
    words = (*CHEAP, "--log-dir", directory, "--max-evals", 10)
    run(2, "ambs", *words)
    table, best, description = (directory / name for name in ("results.csv", "best.json", "run.json"))
    before = table.read_text(), best.read_text(), json.loads(description.read_text())
    for path in (table, best, description):
        path.unlink()

    finished = run(2, "ambs", *words, "--resume")
    rebuilt = table.read_text(), best.read_text(), json.loads(description.read_text())
    description.unlink()
    resumed = run(2, "ambs", *words[:-1], 15, "--resume")

    assert (finished.code, resumed.code) == (0, 0)
    assert "holds a finished run: all 10 evaluations are finished" in finished.out
    assert rebuilt[:2] == before[:2]
    for name in ("problem", "function", "seed", "hyperparameters"):
        assert rebuilt[2][name] == before[2][name]
        assert json.loads(description.read_text())[name] == before[2][name]
    assert len(rows(directory)) == 15


@either
def test_fewer_evaluations_than_are_finished_are_no_reason_to_say_that_those_are_all(run, tmp_path):
    directory = tmp_path / "run"
    words = (*CHEAP, "--log-dir", directory, "--max-evals")
    run(0, "ambs", *words, 10)

    ended = run(0, "ambs", *words, 4, "--resume")

    assert ended.code == 0
    assert "10 evaluations are finished, and 4 are wanted" in ended.out


@either
def test_a_resumed_run_says_what_it_evaluates_and_searches_otherwise(run, tmp_path):
    source = "from dhmpi.problem import HpProblem\nProblem = HpProblem()\nProblem.add_hyperparameter((0.0, 1.0), 'x')\n"
    for name in ("one.py", "two.py"):
        (tmp_path / name).write_text(source + "def run(config):\n    return config['x']\n")
    words = ("--problem", "one.py", "--log-dir", "run", "--max-evals")
    run(0, "ambs", "--run", "one.py", *words, 3)

    same = run(0, "ambs", "--run", tmp_path / "one.py", *words[2:], 4, "--problem", tmp_path / "one.py", "--resume")
    other = run(0, "random", "--run", "two.py", *words, 5, "--resume")
    (tmp_path / "two.py").write_text(source + "def run(config):\n    return -config['x']\n")
    changed = run(0, "random", "--run", "two.py", *words, 6, "--resume")

    assert (same.code, other.code, changed.code) == (0, 0, 0)
    assert "Warning" not in same.out
    assert f"has evaluated {tmp_path / 'one.py'} so far, and evaluates two.py from now on" in other.out
    assert "dhmpi.ambs has searched so far, and dhmpi.random goes on" in other.out
    assert "the source of" not in other.out
    assert "the source of two.py has changed" in changed.out


def bare(mpi, n, *words, cwd=None, **environment):
    """Run ranks by the bare mpiexec: what dhmpi.launch says itself, ranks must not each say."""
    launcher = PYTHONS[mpi].parent / "mpiexec"
    extra = ["--oversubscribe"] if mpi == "openmpi" else []
    permission = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    env = {**os.environ, **permission, "PYTHONPATH": str(ROOT), **environment}
    for _ in range(TRIES):
        said = subprocess.run(
            [launcher, *extra, "-n", str(n), PYTHONS[mpi], "-m", *map(str, words)],
            capture_output=True, text=True, timeout=60, cwd=cwd, env=env, check=False,
        )  # fmt: skip
        if said.returncode != GAVE_UP:
            break
    return said


def test_a_deadline_that_is_no_time_is_refused_once_by_many_ranks(mpi, tmp_path):
    said = bare(mpi, 4, "dhmpi.ambs", *CHEAP, "--max-evals", 5, cwd=tmp_path, DHMPI_DEADLINE="soon")

    assert said.returncode == 2, said.stderr
    errors = [line for line in said.stderr.splitlines() if "error:" in line]
    assert errors == ["dhmpi.ambs: error: DHMPI_DEADLINE must be a time in seconds since the epoch, got 'soon'"]
    assert not list(tmp_path.iterdir())


def test_help_appears_once_on_many_ranks(mpi):
    said = bare(mpi, 4, "dhmpi.ambs", "--help")

    assert said.returncode == 0
    assert said.stdout.count("usage:") == 1
