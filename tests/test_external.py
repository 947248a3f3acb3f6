"""Programs as run functions: what they are told, what their end means, and which templates are refused."""

import os
import shlex
import signal
import threading

import pytest
from evaluating import Bench, until

from dhmpi import platform
from dhmpi.errors import DhmpiError, EvaluationError, ProblemError
from dhmpi.evaluate import context
from dhmpi.evaluate.interface import Loaded, Refused
from dhmpi.external import MEANINGS, Program
from dhmpi.launch import main as launch
from dhmpi.load import load_run
from dhmpi.options import AmbsOptions
from dhmpi.rundirectory import source_digest
from dhmpi.trials import Status

SQUARE = """python3 -c '
import json, sys
x = json.load(open(sys.argv[1]))["x"]
print("squaring", x)
json.dump({{"objective": x * x, "name": "a"}}, open(sys.argv[2], "w"))' {config} {result}"""


@pytest.fixture
def evaluate(tmp_path):
    """Return a function that evaluates a configuration with a template, here."""

    def evaluate_(template, directory=tmp_path, config=None, **trial):
        directory.mkdir(exist_ok=True)
        context.enter(context.TrialContext(trial.pop("id", 4), directory=str(directory), run_seed=7, **trial))
        try:
            return Program(f"cmd:{template}")(config or {})
        finally:
            context.leave()

    return evaluate_


@pytest.fixture
def bench(tmp_path):
    """Return a function that makes an evaluator of a template in a child process."""
    benches = []

    def make(template):
        benches.append(Bench(f"cmd:{template}", tmp_path))
        return benches[-1]

    yield make
    for made in benches:
        made.evaluator.close()
        made.keeper.close()
        assert until(lambda made=made: not platform.leftovers(made.run_id)), "processes are left"


# -- what a program is told, and what it answers


def test_a_program_reads_its_configuration_and_writes_its_result(bench, tmp_path):
    finished = _loaded(bench(SQUARE)).evaluate(trial=3, x=1.5)

    assert (finished.status, finished.objective, finished.metrics) == (Status.DONE, 2.25, {"name": "a"})
    assert [path.read_text() for path in tmp_path.glob("task3_*/task3.out")] == ["squaring 1.5\n"]


def test_a_bare_number_is_a_result(evaluate):
    assert evaluate("sh -c 'echo 2.5 > {result}'") == {"objective": 2.5}


def test_placeholders_are_filled_and_are_in_the_environment(evaluate, tmp_path):
    names = [name for name in MEANINGS if name != "cwd"]
    words = " ".join(f"{{{name}}}" for name in names)
    script = """sh -c 'printf "%s\\n" "$@" > words; env > env; echo 0 > result.json' -- """

    evaluate(script + words, hosts=["a", "b", "a"], attempt=1)

    told = dict(zip(names, (tmp_path / "words").read_text().splitlines(), strict=True))
    assert told == {
        "config": f"{tmp_path}/config.json",
        "result": f"{tmp_path}/result.json",
        "directory": str(tmp_path),
        "trial": "4",
        "attempt": "1",
        "seed": str(context.TrialContext(4, run_seed=7).seed),
        "ranks": "3",
        "hosts": "a:2,b:1",
        "nodes": "a,b",
    }
    environment = dict(line.partition("=")[::2] for line in (tmp_path / "env").read_text().splitlines())
    assert {name: environment[f"DHMPI_{name.upper()}"] for name in names} == told


def test_no_shell_reads_what_the_template_does_not_give_to_one(evaluate, tmp_path):
    directory = tmp_path / "a $(touch hit); 'b'"

    with pytest.raises(EvaluationError, match="written no result"):
        evaluate("touch {directory}/made $(touch hit) ; touch hit", directory=directory)

    assert {"made", ";", "$(touch", "hit)"} <= {path.name for path in directory.iterdir()}


def test_values_are_quoted_in_the_script_of_a_shell(evaluate, tmp_path):
    directory = tmp_path / "a $(touch hit); 'b'"

    returned = evaluate("env -i bash -e -c 'cp {config} {directory}/copy; echo 1 > {result}'", directory=directory)

    assert returned == {"objective": 1.0}
    assert {path.name for path in directory.iterdir()} == {"config.json", "result.json", "copy"}


def test_doubled_braces_stand_for_braces(evaluate):
    assert evaluate("""sh -c 'printf "{{\\"objective\\": 3}}" > {result}'""") == {"objective": 3.0}


def test_launchers_variables_are_taken_out(evaluate, monkeypatch, tmp_path):
    monkeypatch.setenv("PMIX_RANK", "3")
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "8")

    evaluate("sh -c 'env > env; echo 0 > {result}'")

    assert "PMIX" not in (tmp_path / "env").read_text()
    assert "OMPI" not in (tmp_path / "env").read_text()


def test_the_result_of_an_earlier_attempt_does_not_count(evaluate, tmp_path):
    (tmp_path / "result.json").write_text("5")

    with pytest.raises(EvaluationError, match="the program true has ended well and has written no result.json"):
        evaluate("true")


# -- the ends of a program


@pytest.mark.parametrize(
    ("script", "crashed", "words"),
    [
        ("exit 3", False, "the program sh exited with code 3"),
        ("kill -SEGV $$", True, "the program sh was ended by signal 11 (SIGSEGV"),
        ("exit 139", True, "the program sh exited with code 139"),
        ("exit 143", False, "the program sh exited with code 143"),
        ("echo nonsense > {result}", False, "result.json, the result of sh, is no JSON"),
        ("echo NaN > {result}", False, "the program returned nan; the objective must be a finite number"),
        ("echo [1] > {result}", False, "the program returned an object of type list"),
        ("mkdir {result}", False, "cannot be read: Is a directory"),
        ("head -c 2000000 /dev/zero > {result}", False, "is longer than 1 MB"),
    ],
)
def test_what_is_wrong_is_told_in_a_sentence(evaluate, script, crashed, words):
    with pytest.raises(EvaluationError) as raised:
        evaluate(f"sh -c {shlex.quote(script)}")

    assert words in str(raised.value)
    assert raised.value.crashed is crashed


def test_a_failure_keeps_the_last_output(bench):
    finished = _loaded(bench("sh -c 'echo out of luck >&2; exit 7'")).evaluate()

    assert finished.status is Status.FAILED
    assert finished.reason == "the program sh exited with code 7\nlast output:\nout of luck"


def test_a_crash_has_its_own_status(bench):
    made = _loaded(bench("sh -c 'if [ {trial} = 0 ]; then kill -ABRT $$; fi; echo 1 > {result}'"))

    assert made.evaluate(trial=0).status is Status.CRASHED
    assert made.evaluate(trial=1).status is Status.DONE


def test_a_program_ends_at_its_time_limit_with_all_it_has_started(bench):
    made = _loaded(bench("sh -c 'setsid sleep 1000 & wait'"))

    assert made.evaluate(timeout=0.5).status is Status.TIMEOUT  # and nothing is left, says the fixture


def test_a_program_ends_with_an_evaluation_that_is_abandoned_in_its_rank(evaluate, tmp_path):
    def abandon(number, frame):
        raise KeyboardInterrupt

    def signal_when_it_runs():
        until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
        os.kill(os.getpid(), signal.SIGUSR2)

    before = signal.signal(signal.SIGUSR2, abandon)
    try:
        threading.Thread(target=signal_when_it_runs).start()
        with pytest.raises(KeyboardInterrupt):
            evaluate("sh -c 'setsid sleep 1000 & echo $! > pid; wait'", comm="that of several ranks")
    finally:
        signal.signal(signal.SIGUSR2, before)

    pid = int((tmp_path / "pid").read_text())
    assert until(lambda: platform.start_time(pid) is None)


def test_a_file_that_lies_elsewhere_is_pointed_out(evaluate, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "solve.py").touch()

    with pytest.raises(EvaluationError, match=r"there is no solve.py: write \{cwd\}/solve.py"):
        evaluate("sh solve.py {config}", directory=tmp_path / "task")


# -- templates


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("", "names no program"),
        ("sh -c 'unfinished", "is no command: No closing quotation"),
        ("sh {confg}", "there is no {confg}, but {config}, {result}"),
        ("sh {config!r}", "there is no {config!r}"),
        ("sh {config.name}", "there is no {config.name}"),
        ("sh {trial:03}", "there is no {trial:03}"),
        ("sh {}", "there is no {}"),
        ("sh {config", "has a stray brace"),
        ("sh }", "has a stray brace"),
    ],
)
def test_a_template_that_makes_no_sense_is_refused(template, words):
    with pytest.raises(ProblemError) as raised:
        Program(f"cmd:{template}")

    assert words in str(raised.value)


def test_a_program_that_is_not_there_is_refused(tmp_path, monkeypatch, bench):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plain").touch()

    for name, words in (("nowhere", "no such program"), ("./nowhere", "no such program"), ("./plain", "can be run")):
        with pytest.raises(ProblemError, match=words):
            load_run(f"cmd:{name} {{config}}")
    assert isinstance(bench("./nowhere").load(), Refused)


def test_a_program_beside_the_search_is_found_from_the_directory_of_an_evaluation(evaluate, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/solver").write_text('#!/bin/sh\necho 6 > "$1"\n')
    (tmp_path / "bin/solver").chmod(0o755)

    assert load_run("cmd:bin/solver {result}").words(dict.fromkeys(MEANINGS, ""))[0] == f"{tmp_path}/bin/solver"
    assert evaluate("bin/solver {result}", directory=tmp_path / "task") == {"objective": 6.0}


@pytest.mark.parametrize(
    "words", [("cmd:nowhere {config}",), ("cmd:sh {confg}",), ("cmd:true", "--evaluator", "inline")]
)
def test_a_launch_refuses_before_any_rank_starts(words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    code = launch(["-n", "2", "ambs", "--problem", "dhmpi.benchmark.hps.polynome2.Problem", "--run", *words])

    assert code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_program_in_a_container_is_looked_for_there():
    options = AmbsOptions(problem="a.b", run="cmd:only-in-the-image {config}", container="image.sif")

    options.check()  # does not look for it
    with pytest.raises(DhmpiError, match="there is no {nonsense}"):
        AmbsOptions(problem="a.b", run="cmd:x {nonsense}", container="image.sif").check()


def test_another_command_is_another_source():
    assert source_digest("cmd:a {config}") == source_digest("cmd:a {config}") != source_digest("cmd:b.py {config}")


def _loaded(made):
    assert isinstance(made.load(), Loaded)
    return made
