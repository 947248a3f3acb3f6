"""``python -m dhmpi.check``: what it evaluates, what it says, how it ends."""

import re
import subprocess
import sys
import textwrap

import pytest

from dhmpi import check

COND = ["dhmpi.benchmark.hps.toy.problem_cond_1.Problem", "dhmpi.benchmark.hps.toy.problem_cond_1.run"]
BASIC = ["dhmpi.benchmark.hps.toy.problem_basic_1.Problem", "dhmpi.benchmark.hps.toy.problem_basic_1.run"]


@pytest.fixture
def study(tmp_path):
    """Return a function that writes a file whose run function has the given body, and returns its arguments."""

    def write(body):
        path = tmp_path / f"study_{tmp_path.name}.py"
        path.write_text(
            "from dhmpi.problem import HpProblem\n\nProblem = HpProblem()\n"
            "Problem.add_hyperparameter((0, 10), 'x')\n"
            "Problem.add_hyperparameter(['[a]', 'b'], 'k')\n"
            "Problem.add_hyperparameter([True, False], 'flag')\n"
            "Problem.add_hyperparameter([1, 2], 'order')\n"
            "Problem.add_hyperparameter((0.0, 1.0), 'rate')\n"
            "Problem.add_starting_point(x=1, k='[a]', flag=True, order=1, rate=0.5)\n"
            "Problem.add_starting_point(x=2, k='b', flag=False, order=2, rate=0.25)\n\n"
            "def run(config):\n" + textwrap.indent(textwrap.dedent(body), "    ") + "\n"
        )
        return [str(path), str(path)]

    return write


@pytest.fixture
def checked(capsys):
    """Return a function that checks and returns exit code, rows of the tables by name, stdout and stderr."""

    def call(arguments):
        code = check.main(arguments)
        out, err = capsys.readouterr()
        cells = [re.split(r"\s*[│|]\s*", line.strip(" │|")) for line in out.splitlines() if "│" in line or "|" in line]
        return code, {row[0]: row[1:] for row in cells if len(row) == 2}, out, err

    return call


def test_the_first_starting_point_is_evaluated(study, checked):
    code, rows, out, err = checked(study("return {'objective': config['x'] * 2, 'loss': 0.125, 'note': '[a]'}"))

    assert code == 0
    assert (rows["x"], rows["k"], rows["flag"]) == (["1"], ["[a]"], ["True"])
    assert (rows["objective"], rows["loss"], rows["note"]) == (["2.0"], ["0.125"], ["[a]"])
    assert float(rows["seconds"][0]) < 5
    assert err == ""
    assert "0 to 10" in out


def test_another_starting_point_is_evaluated(study, checked):
    code, rows, *_ = checked([*study("return config['x']"), "--starting-point", "1"])

    assert (code, rows["x"], rows["objective"]) == (0, ["2"], ["2.0"])


def test_without_starting_points_the_default_is_evaluated(checked):
    code, rows, out, _ = checked(COND)

    assert (code, rows["func"], rows["objective"]) == (0, ["f1"], ["1.0"])
    assert "func == 'f1'" in out


def test_values_can_be_set(study, checked):
    arguments = study("return config['x'] + config['rate'] + config['order'] + (not config['flag'])")

    code, rows, *_ = checked(
        [*arguments, "--set", "x=7", "--set", "k=b", "--set", "flag=False", "--set", "order=2", "--set", "rate=1e-1"]
    )

    assert code == 0
    assert [rows[name] for name in ("x", "k", "flag", "order", "rate")] == [["7"], ["b"], ["False"], ["2"], ["0.1"]]
    assert rows["objective"] == ["10.1"]


def test_what_a_set_value_makes_active_gets_its_default(checked):
    code, rows, *_ = checked([*COND, "--set", "func=f2", "--set", "f2_x=0.25"])

    assert (code, rows["f2_x"], rows["f2_y"], rows["objective"]) == (0, ["0.25"], ["0.5"], ["0.125"])
    assert "f1_x" not in rows


def test_a_random_configuration_depends_on_its_seed_only(study, checked):
    arguments = study("return config['rate']")

    drawn = [checked([*arguments, "--random", seed])[1]["objective"] for seed in ("1", "1", "2")]

    assert drawn[0] == drawn[1] != drawn[2]


def test_forbidden_clauses_are_shown(checked):
    name = "dhmpi.benchmark.hps.toy.problem_forbidden_1"

    code, _, out, _ = checked([f"{name}.Problem", f"{name}.run"])

    assert code == 0
    assert "forbidden: (x == 0 && y == 0)" in out


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("raise KeyError('gone')", ["the function raised KeyError: 'gone'", "Traceback", "in run", "raise KeyError"]),
        ("import sys; sys.exit(4)", ["the function called sys.exit(4)"]),
        ("return None", ["the function returned None; the objective must be a finite number"]),
        ("return float('nan')", ["the function returned nan; the objective must be a finite number"]),
        ("return {'loss': 1}", ["a dict without 'objective'"]),
    ],
)
def test_a_function_that_fails_ends_with_1(study, checked, body, words):
    code, rows, _, err = checked(study(body))

    assert code == 1
    assert "objective" not in rows
    assert all(word in err for word in words)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "the following arguments are required: PROBLEM, RUN (see --help)"),
        ([*BASIC, "--start", "1"], "unrecognized arguments: --start 1 (see --help)"),
        ([*BASIC, "--starting-point", "x"], "invalid int value: 'x'"),
        ([*BASIC, "--starting-point", "1"], "there is no starting point 1: they are numbered 0 to 0"),
        ([*BASIC, "--starting-point", "-1"], "there is no starting point -1: they are numbered 0 to 0"),
        ([*COND, "--starting-point", "0"], "there is no starting point 0: the problem has none"),
        ([*BASIC, "--starting-point", "0", "--random", "1"], "not allowed with"),
        ([*BASIC, "--random", "-1"], "--random must be >= 0, got -1"),
        ([*BASIC, "--set", "x"], "--set takes name=value, got 'x'"),
        ([*BASIC, "--set", "z=1"], "--set z=1: the space has no 'z', but x, y"),
        ([*BASIC, "--set", "x=much"], "--set x=much: the value of 'x' must be a number"),
        ([*BASIC, "--set", "x=11"], "the configuration has x = 11, which is no integer in [0, 10]"),
        ([*COND, "--set", "func=f3"], "the configuration has func = 'f3', which is none of its choices: 'f1', 'f2'"),
        (["no_such_module.Problem", BASIC[1]], "there is no module 'no_such_module'"),
        (["no_such_file.py", BASIC[1]], "no_such_file.py does not exist"),
        ([BASIC[0], BASIC[0]], "names no run function: it is an object of type HpProblem"),
        ([BASIC[1], BASIC[1]], "names no problem: it is the function run"),
    ],
)
def test_bad_input_ends_with_2_and_one_sentence(checked, arguments, words):
    code, _, out, err = checked(arguments)

    assert code == 2
    assert words in err
    assert err.startswith("dhmpi.check: ")
    assert err.count("\n") == 1
    assert out == ""


PREPARED = """
state = {}

def run(config):
    return state["rate"] * 2

def prepare():
    from dhmpi import trial
    state["rate"] = trial().problem.starting_points[0]["rate"]

run.prepare = prepare
"""


def test_a_function_is_prepared_before_it_is_evaluated(study, checked, tmp_path):
    problem, _ = study("return 0")
    run = tmp_path / f"prepared_{tmp_path.name}.py"
    run.write_text(PREPARED)

    code, rows, _, err = checked([problem, str(run)])

    assert (code, err) == (0, "")
    assert rows["objective"] == ["1.0"]


def test_a_function_that_cannot_be_prepared_is_refused_as_by_a_search(study, checked, tmp_path):
    problem, _ = study("return 0")
    run = tmp_path / f"unprepared_{tmp_path.name}.py"
    run.write_text(PREPARED.replace("from dhmpi import trial", "raise OSError('the data are gone')"))

    code, _, out, err = checked([problem, str(run)])

    assert (code, out) == (2, "")
    sentence = f"{run} cannot be prepared: the function raised OSError: the data are gone"
    assert err.startswith(f"dhmpi.check: {sentence}\n")


def test_who_interrupts_a_preparation_ends_the_check(study, checked, tmp_path):
    problem, _ = study("return 0")
    run = tmp_path / f"interrupted_{tmp_path.name}.py"
    run.write_text(PREPARED.replace("from dhmpi import trial", "raise KeyboardInterrupt"))

    with pytest.raises(KeyboardInterrupt):
        checked([problem, str(run)])


def test_help_imports_nothing_heavy():
    program = (
        "import sys\nfrom dhmpi.check import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as end:\n    code = end.code\n"
        "print(code, [m for m in ('ConfigSpace', 'numpy', 'sklearn', 'mpi4py', 'rich', 'keras') if m in sys.modules])"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)

    assert done.stdout.endswith("0 []\n")
    assert "--starting-point" in done.stdout


@pytest.mark.parametrize(("body", "code"), [("return 1", 0), ("return 'much'", 1)])
def test_it_is_a_program(study, body, code):
    done = subprocess.run(
        [sys.executable, "-m", "dhmpi.check", *study(body)], capture_output=True, text=True, timeout=60
    )

    assert done.returncode == code
    assert "Space" in done.stdout


def test_a_function_of_several_ranks_gets_a_communicator_of_one(tmp_path):
    file = tmp_path / "study.py"
    file.write_text(
        "from dhmpi.problem import HpProblem\n"
        "Problem = HpProblem()\nProblem.add_hyperparameter((0.0, 1.0), 'x')\n"
        "def run(config, comm):\n    return comm.allreduce(config['x']) / comm.size\n"
    )

    done = subprocess.run([sys.executable, "-m", "dhmpi.check", file, file], capture_output=True, text=True, timeout=60)

    assert done.returncode == 0, done.stdout + done.stderr
