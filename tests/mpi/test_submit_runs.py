"""Submitted searches run: on this machine, and under stand-ins for schedulers that check what they are told."""

import json
import sys
from pathlib import Path

import pytest
from conftest import PYTHONS, Launch
from standins import STANDINS
from test_ambs import n_finished, rows

from dhmpi import journal

HERE = Path(__file__).parent
POLYNOME2 = ("-p", "dhmpi.benchmark.hps.polynome2.Problem", "-r", "dhmpi.benchmark.hps.polynome2.run")
SLOW = ("-p", HERE / "slow.py", "-r", HERE / "slow.py")
CHEAP = ("--evaluator", "inline", "--surrogate-model", "DUMMY", "--no-import-check")


@pytest.fixture
def submit(tmp_path):
    """Submit from a directory with a space in its name: `submit(*words, scheduler=None)`; return what has ended."""
    work = tmp_path / "my work"
    work.mkdir()
    launches = []

    def submit_(*words, scheduler=None, cores=64, timeout=120):
        environment = {"HOME": str(tmp_path)}
        if scheduler is not None:
            install(tmp_path / "standins", scheduler, cores)
            environment |= {
                "PATH": f"{tmp_path / 'standins' / 'bin'}:/usr/bin:/bin",
                "STANDINS": str(tmp_path / "standins"),
            }
        launch = Launch(PYTHONS["openmpi"], ["dhmpi.submit", *words], work, timeout, environment)
        launches.append(launch)
        return launch.wait()

    yield submit_
    for launch in launches:
        launch.kill()


def install(state, scheduler, cores):
    """Make the commands of a scheduler."""
    (state / "bin").mkdir(parents=True)
    # A job's shell is a login shell, which sets the PATH anew.
    (state.parent / ".bash_profile").write_text(f"PATH={state / 'bin'}:$PATH\n")
    mpiexec = PYTHONS["openmpi"].parent / "mpiexec"
    (state / "machine.json").write_text(json.dumps({"scheduler": scheduler, "cores": cores, "mpiexec": str(mpiexec)}))
    for name in STANDINS[scheduler]:
        path = state / "bin" / name
        path.write_text(f'#!/bin/sh\nexec {sys.executable} {HERE / "standins.py"} {name} "$@"\n')
        path.chmod(0o755)


def run_directory(ended):
    return Path(ended.out.splitlines()[-1].removeprefix("run directory "))


def jobs(tmp_path):
    return [json.loads(path.read_text()) for path in sorted((tmp_path / "standins").glob("[0-9]*.json"))]


def output(directory):
    return "".join(path.read_text() for path in (directory / "jobs").iterdir() if path.name != "submitted.json")


def test_a_search_is_submitted_on_a_laptop(submit, tmp_path):
    ended = submit("hps", "test", *POLYNOME2, *CHEAP, "-t", 5, "-n", 1, "--scheduler", "local", "--max-evals", 20)

    assert ended.code == 0, ended.err
    (directory,) = (tmp_path / "my work" / "dhmpi-runs" / "test").iterdir()
    assert ended.out.startswith(f"run directory {directory}\n")
    assert "20 evaluations finished" in ended.out
    assert len(rows(directory)) == 20


@pytest.mark.large
@pytest.mark.tensorflow
def test_a_post_training_is_submitted_on_a_laptop(submit, tmp_path):
    chosen, words = HERE / "chosen.py", ("-t", 5, "-n", 1, "--scheduler", "local")
    found = submit(
        "nas", "test", "-p", chosen, "-r", chosen, "--search", "random", *CHEAP[:2], "--max-evals", 16, *words
    )
    assert found.code == 0, found.err
    (search,) = (tmp_path / "my work/dhmpi-runs/test").iterdir()

    ended = submit("post", search, "-r", f"{chosen}:train_slowly", "--top", 2, "--repeat", 2, *words)

    assert ended.code == 0, ended.err + ended.out
    assert {row["status"] for row in rows(search / "post")} == {"done"}
    assert len(rows(search / "post")) == 4
    assert (search / "post/post.csv").exists()


def test_evaluations_see_the_gpus_of_their_rank(submit, tmp_path):
    (tmp_path / "my work" / "which.py").write_text(
        "import os\nfrom dhmpi.problem import HpProblem\n"
        "Problem = HpProblem()\nProblem.add_hyperparameter((0.0, 1.0), 'x')\n"
        "def run(config):\n    return {'objective': 0, 'gpu': int(os.environ['CUDA_VISIBLE_DEVICES'])}\n"
    )
    words = ("--ranks-per-node", 4, "--gpus-per-node", 2, "--surrogate-model", "DUMMY", "--max-evals", 20)

    ended = submit("hps", "t", "-p", "which.py", "-r", "which.py", "-t", 5, "-n", 1, "--scheduler", "local", *words)

    assert ended.code == 0, ended.err
    (directory,) = (tmp_path / "my work" / "dhmpi-runs" / "t").iterdir()
    seen = {(row["rank"], row["m:gpu"]) for row in rows(directory)}
    assert seen
    assert seen <= {("2", "0"), ("3", "1")}  # one may be too late for a trial
    assert "none | none | 0 | 1" in (directory / "dhmpi.log").read_text()


def test_a_search_that_fails_here_passes_its_status_on(submit, tmp_path):
    words = ("-t", 5, "-n", 1, "--scheduler", "local", "--env", "SLOW_SECONDS=x", "--max-failures", 2)

    assert submit("hps", "test", *SLOW, *words).code == 1


@pytest.mark.parametrize(
    ("scheduler", "cores", "words", "noted", "layout"),
    [
        (
            "cobalt",
            64,
            ("--site", "theta", "-q", "debug-cache-quad", "-n", 4, "-A", "datascience", "-j", "mpi", "-t", 60),
            {"nodes": 4, "queue": "debug-cache-quad", "account": "datascience"},
            "4 ranks on 1 host: master on rank 0, the searcher beside it, 3 evaluators",
        ),
        (
            "pbs",
            32,
            ("--site", "polaris", "-q", "debug", "-n", 2, "-A", "study", "--ranks-per-node", 2, "-t", "00:30:00"),
            {"nodes": 2, "queue": "debug", "account": "study"},
            "4 ranks on 1 host: master on rank 0, searcher on rank 1, 2 evaluators",
        ),
        (
            "slurm",
            64,
            ("--site", "perlmutter", "-q", "debug", "-n", 3, "-A", "m1_g", "-t", "30m"),
            {"nodes": 3, "queue": "debug", "account": "m1_g"},
            "3 ranks on 1 host: master on rank 0, searcher on rank 1, 1 evaluator",
        ),
    ],
    ids=["cobalt", "pbs", "slurm"],
)
def test_each_scheduler_runs_the_ranks_as_planned(submit, tmp_path, scheduler, cores, words, noted, layout):
    ended = submit(
        "hps", "test", *POLYNOME2, *words, *CHEAP, "--max-evals", 12, scheduler=scheduler, cores=cores
    )  # fmt: skip

    assert ended.code == 0, ended.err
    directory = run_directory(ended)
    (job,) = jobs(tmp_path)
    assert job["code"] == 0, output(directory)
    assert job.items() >= noted.items()
    assert Path(job["cwd"]) == directory / "jobs"
    assert layout in output(directory)
    assert len(rows(directory)) == 12


@pytest.mark.large
def test_a_campaign_is_warned_in_time_and_each_job_resumes_the_last(submit, tmp_path):
    words = (
        "--site",
        "theta",
        "-q",
        "debug-cache-quad",
        "-n",
        3,
        "-A",
        "p",
        "-t",
        "00:00:40",
        "--campaign",
        "00:01:20",
    )

    ended = submit("hps", "test", *SLOW, *words, *CHEAP, scheduler="cobalt", timeout=200)

    assert ended.code == 0, ended.err
    directory = run_directory(ended)
    first, second = jobs(tmp_path)
    assert (first["code"], second["code"]) == (0, 0), output(directory)
    assert second["after"] == "4000"
    assert max(first["seconds"], second["seconds"]) < 40
    history = journal.replay(directory / "journal")
    assert len(history.headers) == 2
    assert n_finished(directory) == len({row["trial"] for row in rows(directory)}) > 10


def test_a_job_that_dies_is_resumed_inside_its_allocation(submit, tmp_path):
    (tmp_path / "my work" / "deadly.py").write_text(
        "import os, pathlib, signal\n"
        "from dhmpi.problem import HpProblem\n"
        "Problem = HpProblem()\nProblem.add_hyperparameter((0.0, 1.0), 'x')\n"
        f"HIT = pathlib.Path({str(tmp_path / 'hit')!r})\n"
        "def run(config):\n"
        "    if not HIT.exists():\n        HIT.touch()\n        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return config['x']\n"
    )
    words = ("--site", "theta", "-q", "debug-cache-quad", "-n", 4, "-A", "p", "-t", 30, "--max-evals", 20)

    ended = submit("hps", "test", "-p", "deadly.py", "-r", "deadly.py", *words, *CHEAP, scheduler="cobalt")

    assert ended.code == 0, ended.err
    directory = run_directory(ended)
    assert jobs(tmp_path)[0]["code"] == 0, output(directory)
    assert "dhmpi.launch: the job has died" in output(directory)
    assert len(rows(directory)) == 20
