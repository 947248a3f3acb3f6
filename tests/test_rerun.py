"""``python -m dhmpi.rerun``: what it repeats, what it says, how it ends."""

import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from dhmpi import journal, rerun
from dhmpi.evaluate.context import TrialContext

COND = "dhmpi.benchmark.hps.toy.problem_cond_1"
HEADER = {"t": 1.0, "ranks": 1}
OUTCOME = {"host": "node7", "start": 1.0, "end": 3.5, "elapsed": 2.5}


def placed(trial, config, **rest):
    return {"e": "placed", "t": 1.0, "trial": trial, "attempt": 0, "rank": 3, "key": trial, "config": config, **rest}


def finished(trial, status="done", objective=None, **rest):
    return {
        "e": "finished", "t": 4.0, "trial": trial, "attempt": 0, "status": status, "objective": objective, "rank": 3,
        **OUTCOME, **rest,
    }  # fmt: skip


@pytest.fixture
def run(tmp_path):
    """Return a function that makes a run directory from a function's body and events."""

    def make(body, events, **described):
        study = tmp_path / f"study_{tmp_path.name}.py"
        study.write_text(
            "from dhmpi import trial\nfrom dhmpi.problem import HpProblem\n\nProblem = HpProblem()\n"
            "Problem.add_hyperparameter((0, 10), 'x')\n\n"
            "def run(config):\n" + textwrap.indent(textwrap.dedent(body), "    ") + "\n"
        )
        path = tmp_path / "run"
        file = journal.Journal(path / "journal", 0, 0, HEADER)
        file.write(events)
        file.close()
        content = {"problem": str(study), "function": str(study), "seed": 5, **described}
        (path / "run.json").write_text(json.dumps(content))
        return path

    return make


@pytest.fixture
def repeated(capsys):
    """Return a function that repeats a trial and returns exit code, rows of the tables by name, stdout and stderr."""

    def call(path, *arguments):
        code = rerun.main([str(path), *arguments])
        out, err = capsys.readouterr()
        cells = [re.split(r"\s*[│|]\s*", line.strip(" │|")) for line in out.splitlines() if "│" in line or "|" in line]
        rows = {}
        for row in cells:
            rows.setdefault(row[0], []).extend(row[1:])
        return code, rows, out, err

    return call


def test_a_trial_is_repeated_and_compared(run, repeated):
    path = run("return {'objective': 2 * config['x'], 'loss': 1}", [placed(0, {"x": 4}), finished(0, objective=8.0)])

    code, rows, out, err = repeated(path, "0")

    assert (code, err) == (0, "")
    assert (rows["status"], rows["rank"], rows["host"], rows["attempt"]) == (["done"], ["3"], ["node7"], ["0"])
    assert rows["seconds"][0] == "2.5"
    assert rows["objective"] == ["8.0", "8.0"]
    assert (rows["x"], rows["loss"]) == (["4"], ["1"])
    assert "The objective is the same as in the run." in out


def test_another_objective_is_pointed_out(run, repeated):
    path = run("return 2.0 * config['x']", [placed(0, {"x": 4}), finished(0, objective=7.5)])

    code, _, out, _ = repeated(path, "0")

    assert code == 0
    assert "The objective differs from the 7.5 of the run by 0.5." in out


def test_an_unfinished_trial_is_repeated(run, repeated):
    path = run("return 1", [placed(0, {"x": 4}), placed(1, {"x": 5})])

    code, rows, out, _ = repeated(path, "1")

    assert code == 0
    assert (rows["status"], rows["rank"], rows["x"]) == (["not finished"], ["3"], ["5"])
    assert "The run has no outcome to compare with." in out


def test_a_failure_is_repeated(run, repeated):
    reason = "the function raised KeyError: 'gone'"
    path = run("raise KeyError('gone')", [placed(0, {"x": 4}), finished(0, "failed", reason=reason)])

    code, rows, out, err = repeated(path, "0")

    assert code == 1
    assert rows["reason"] == [reason]
    assert err.startswith(f"dhmpi.rerun: {reason}\n")
    assert "raise KeyError('gone')" in err
    assert "The trial was failed in the run, and here it failed too." in out


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("import sys; sys.exit(4)", "the function called sys.exit(4)"),
        ("return None", "the function returned None"),
        ("raise ValueError('odd')", "the function raised ValueError: odd"),
    ],
)
def test_a_new_failure_ends_with_1(run, repeated, body, words):
    path = run(body, [placed(0, {"x": 4}), finished(0, objective=7.5)])

    code, _, out, err = repeated(path, "0")

    assert code == 1
    assert words in err
    assert "The trial gave 7.5 in the run, and here it failed." in out


def test_the_context_is_that_of_the_trial(run, repeated):
    path = run(
        "return {'objective': trial().seed, 'id': trial().id, 'attempt': trial().attempt}",
        [placed(0, {"x": 1}), placed(1, {"x": 4}, attempt=2)],
    )

    _, rows, *_ = repeated(path, "1")

    assert float(rows["objective"][0]) == TrialContext(1, 2, 5).seed
    assert (rows["id"], rows["attempt"]) == (["1"], ["2", "2"])


def test_what_it_writes_is_gone_and_the_run_stays_as_it_is(run, repeated):
    path = run(
        "from pathlib import Path\nPath('left').write_text('x')\nassert trial().directory.samefile('.')\nreturn 1",
        [placed(0, {"x": 4})],
    )
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    here = Path.cwd()

    code, *_ = repeated(path, "0")

    assert code == 0
    assert Path.cwd() == here
    assert not Path("left").exists()
    assert {file: file.read_bytes() for file in path.rglob("*") if file.is_file()} == before


def test_values_can_be_set(run, repeated):
    path = run("return config['x']", [placed(0, {"x": 4}), finished(0, objective=4.0)])

    code, rows, out, _ = repeated(path, "0", "--set", "x=9")

    assert (code, rows["objective"]) == (0, ["4.0", "9.0"])
    assert "nothing to compare" in out


def test_what_a_set_value_makes_inactive_goes(run, repeated):
    config = {"func": "f1", "f1_x": 0.5, "f1_y": 0.25}
    path = run("return 1", [placed(0, config)], problem=f"{COND}.Problem", function=f"{COND}.run")

    code, rows, *_ = repeated(path, "0", "--set", "func=f2", "--set", "f2_x=0.25")
    kept = repeated(path, "0", "--set", "f1_x=1")[1]

    assert (code, rows["func"], rows["f2_x"], rows["f2_y"]) == (0, ["f2"], ["0.25"], ["0.5"])
    assert "f1_x" not in rows
    assert (kept["f1_x"], kept["f1_y"]) == (["1.0"], ["0.25"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "the following arguments are required: RUN_DIRECTORY, TRIAL"),
        (["RUN", "one"], "invalid int value: 'one'"),
        (["RUN", "2"], "has no trial 2: they are numbered 0 to 0"),
        (["RUN", "-1"], "has no trial -1: they are numbered 0 to 0"),
        (["/nowhere", "0"], "/nowhere holds no run"),
        (["RUN", "0", "--set", "x=11"], "the configuration has x = 11, which is no integer in [0, 10]"),
        (["RUN", "0", "--set", "z=1"], "--set z=1: the space has no 'z', but x"),
    ],
)
def test_bad_input_ends_with_2_and_one_sentence(run, repeated, capsys, arguments, words):
    path = run("return 1", [placed(0, {"x": 4})])

    code = rerun.main([str(path) if word == "RUN" else word for word in arguments])

    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert words in err
    assert err.startswith("dhmpi.rerun: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("content", "words"), [("[", "is no JSON"), ("{}", "has no function, problem, seed"), ("[]", "has no function")]
)
def test_a_spoilt_description_is_refused(run, repeated, content, words):
    path = run("return 1", [placed(0, {"x": 4})])
    (path / "run.json").write_text(content)

    code, _, _, err = repeated(path, "0")

    assert code == 2
    assert words in err


def test_a_function_that_is_gone_is_refused(run, repeated):
    path = run("return 1", [placed(0, {"x": 4})], function="no_such_module.run")

    code, _, _, err = repeated(path, "0")

    assert code == 2
    assert "there is no module 'no_such_module'" in err


def test_a_function_is_prepared_before_it_is_repeated(run, repeated, tmp_path):
    prepared = tmp_path / f"prepared_{tmp_path.name}.py"
    prepared.write_text(
        "from dhmpi import trial\nstate = {}\n"
        "def run(config):\n    return state['n'] * config['x']\n"
        "run.prepare = lambda: state.update(n=len(trial().problem.hyperparameter_names))\n"
    )
    path = run("return 0", [placed(0, {"x": 4}), finished(0, objective=4.0)], function=str(prepared))

    code, _, out, err = repeated(path, "0")

    assert (code, err) == (0, "")
    assert "The objective is the same as in the run." in out


def test_a_function_that_cannot_be_prepared_is_refused(run, repeated, tmp_path):
    unprepared = tmp_path / f"unprepared_{tmp_path.name}.py"
    unprepared.write_text("def run(config):\n    return 1\nrun.prepare = lambda: {}['data']\n")
    path = run("return 0", [placed(0, {"x": 4})], function=str(unprepared))

    code, _, out, err = repeated(path, "0")

    assert (code, out) == (2, "")
    assert err.startswith(f"dhmpi.rerun: {unprepared} cannot be prepared: the function raised KeyError: 'data'\n")


def test_it_is_a_program(run):
    path = run("return config['x']", [placed(0, {"x": 4}), finished(0, objective=4.0)])

    done = subprocess.run(
        [sys.executable, "-m", "dhmpi.rerun", str(path), "0"], capture_output=True, text=True, timeout=60
    )

    assert done.returncode == 0, done.stderr
    assert "The objective is the same as in the run." in done.stdout
