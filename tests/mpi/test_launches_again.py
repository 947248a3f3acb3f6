"""Where MPI does not survive the death of a rank, `dhmpi.launch --restarts` goes on by itself."""

import os
import signal

from conftest import PYTHONS, Launch
from test_ambs import SLOW, n_finished, rows, wait_for

from dhmpi import journal


def launch(python, cwd, *words, timeout=120, **environment):
    return Launch(python, ["dhmpi.launch", *words], cwd, timeout, environment)


def test_a_job_that_dies_is_resumed_until_done(tmp_path):
    directory = tmp_path / "run"
    running = launch(
        PYTHONS["mpich"], tmp_path, "--restarts", 3, "-n", 5, "ambs", *SLOW, "--max-evals", 60, "--seed", 1,
        "--log-dir", directory,
    )  # fmt: skip
    try:
        for rank in (3, 0):
            enough = n_finished(directory) + 5
            wait_for(lambda enough=enough: n_finished(directory) >= enough)
            os.kill(running.rank(rank), signal.SIGKILL)
        ended = running.wait()
    finally:
        running.kill()

    assert ended.code == 0, ended.err
    assert sorted(int(row["trial"]) for row in rows(directory)) == list(range(60))
    assert ended.out.count("the job has died") == 2
    assert "was with rank 3 on" in ended.out
    assert "1 restarts left" in ended.out
    assert len(journal.replay(directory / "journal").headers) == 3


def test_restarts_come_to_an_end(tmp_path):
    module = tmp_path / "deadly.py"
    module.write_text(
        "import os\nfrom dhmpi.problem import HpProblem\nProblem = HpProblem()\n"
        "Problem.add_hyperparameter((0.0, 1.0), 'x')\n"
        "def run(config):\n    os.kill(os.getpid(), 9)\n"
    )
    running = launch(
        PYTHONS["mpich"], tmp_path, "--restarts", 1, "-n", 3, "ambs", "--problem", module, "--run", module,
        "--evaluator", "inline", "--log-dir", tmp_path / "run",
    )  # fmt: skip
    try:
        ended = running.wait()
    finally:
        running.kill()

    assert ended.code != 0
    assert ended.out.count("the job has died") == 2
    assert "no restarts are left" in ended.out


def test_bad_input_is_not_tried_again(tmp_path):
    running = launch(
        PYTHONS["mpich"], tmp_path, "--restarts", 3, "-n", 3, "ambs", "--problem", "no.such.Problem",
        "--run", "no.such.run",
    )  # fmt: skip
    try:
        ended = running.wait()
    finally:
        running.kill()

    assert ended.code == 2
    assert "the job has died" not in ended.out
    assert ended.err.count("error:") == 1
