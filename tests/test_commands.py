"""The console command: what it lists, that it does as ``python -m`` does, and what a shell completes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dhmpi import commands, completion

ROOT = Path(__file__).resolve().parents[1]
INTERNAL = {"importable"}
"""Modules that other commands start."""
SCRIPT = "import sys; sys.argv[0] = {0!r}; sys.path[0] = {1!r}; from dhmpi.commands import main; sys.exit(main())"


@pytest.fixture
def dhmpi(tmp_path):
    """Return a function that runs the command as a console script in a directory of its own would."""
    directory = tmp_path / "bin"
    directory.mkdir()

    def call(*words, cwd=tmp_path, **environment):
        script = SCRIPT.format(str(directory / "dhmpi"), str(directory))
        return subprocess.run(
            [sys.executable, "-c", script, *words],
            capture_output=True,
            text=True,
            timeout=60,
            cwd=cwd,
            env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", **environment},
        )

    return call


def test_every_command_that_exists_is_listed_with_a_sentence():
    text = commands.help_text()

    for name in commands.available():
        assert f"  {name} " in text
        assert commands.COMMANDS[name] in text
        assert commands.COMMANDS[name].endswith(".")


def test_every_module_that_is_a_command_is_in_the_table():
    package = ROOT / "dhmpi"
    modules = [*package.glob("*.py"), *package.glob("nas/**/*.py"), *package.glob("*/__main__.py")]
    programs = {
        ".".join(path.relative_to(package).with_suffix("").parts).removesuffix(".__main__")
        for path in modules
        if 'if __name__ == "__main__"' in path.read_text() and path != package / "__main__.py"
    }

    assert programs - INTERNAL == set(commands.available())


def test_every_command_has_help_that_fits_its_name():
    script = (
        "import contextlib, io, json\nfrom dhmpi import commands\nsaid = {}\n"
        "for name in commands.available():\n"
        "    out, err, code = io.StringIO(), io.StringIO(), 0\n"
        "    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):\n"
        "        try:\n            commands.main([name, '--help'])\n"
        "        except SystemExit as end:\n            code = end.code\n"
        "    said[name] = code, out.getvalue(), err.getvalue()\n"
        "print(json.dumps(said))\n"
    )

    # One process for all of them, in which one may have imported what another is.
    words = [sys.executable, "-W", "ignore::RuntimeWarning", "-c", script]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=True, env={"PYTHONPATH": str(ROOT)})

    said = json.loads(done.stdout)
    assert said.keys() == set(commands.available())
    for name, (code, out, err) in said.items():
        assert not code, name
        assert f"dhmpi.{name}" in out, name
        assert err == "", name


def test_a_command_does_what_its_module_does(dhmpi, tmp_path):
    ours = dhmpi("ls", "runs", "nowhere")
    module = subprocess.run(
        [sys.executable, "-m", "dhmpi.ls", "runs", "nowhere"], capture_output=True, text=True, timeout=60, cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
    )  # fmt: skip

    assert (ours.returncode, ours.stdout, ours.stderr) == (module.returncode, module.stdout, module.stderr)
    assert ours.returncode == 2


def test_modules_of_the_working_directory_are_found(dhmpi, tmp_path):
    (tmp_path / "mystudy.py").write_text(
        "from dhmpi.problem import HpProblem\nProblem = HpProblem()\nProblem.add_hyperparameter((0, 4), 'x')\n"
        "def run(config):\n    return config['x']\n"
    )

    said = dhmpi("check", "mystudy.Problem", "mystudy.run", "--set", "x=3")

    assert said.returncode == 0, said.stderr
    assert "objective" in said.stdout


@pytest.mark.parametrize("word", ["--help", "-h", "help"])
def test_help_is_asked_for_in_any_way(word, capsys):
    assert commands.main([word]) == 0

    assert capsys.readouterr().out == commands.help_text() + "\n"


def test_version(capsys):
    assert commands.main(["--version"]) == 0

    assert capsys.readouterr().out.startswith("dhmpi 0.")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "give a command: ambs, "),
        (["amsb"], "there is no command 'amsb': did you mean ambs?"),
        (["zzz"], "there is no command 'zzz': there are ambs, "),
        (["--verbose"], "there is no option '--verbose'"),
        (["../etc"], "there is no command '../etc'"),
    ],
)
def test_what_is_no_command_is_refused_in_a_sentence(words, sentence, capsys):
    assert commands.main(words) == 2

    err = capsys.readouterr().err
    assert err.startswith(f"dhmpi: {sentence}")
    assert err.count("\n") == 1


def test_only_one_rank_of_many_says_what_is_wrong(monkeypatch, capsys):
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "3")

    assert commands.main(["zzz"]) == 2

    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("words", "some", "none"),
    [
        ([], ["ambs", "ls", "--help"], []),
        (["ls"], ["jobs", "workers", "--version"], []),
        (["ls", "jobs"], ["--state", "--wf-filter", "--csv"], ["runs"]),
        (["ambs"], ["--problem", "--resume"], []),
        (["ambs", "--evaluator"], ["inline", "process"], ["--problem"]),
        (["ambs", "--resume"], ["--problem"], []),
        (["steer", "run"], ["add", "change", "--version"], ["runs"]),
        (["steer", "run", "change"], ["--max-evals", "--wait"], ["add"]),
        (["launch"], ["ambs", "-n", "--restarts"], []),
        (["launch", "-n", "4", "ambs"], ["--kappa"], ["--mpiexec"]),
        (["launch", "-n", "4", "ambs", "--surrogate-model"], ["RF", "GP"], ["--kappa"]),
        (["completion"], ["bash", "zsh", "fish"], []),
    ],
)
def test_a_shell_is_told_what_may_follow(words, some, none):
    found = completion.following(words)

    assert set(some) <= set(found)
    assert not set(none) & set(found)


@pytest.mark.parametrize("words", [["ambs", "--log-dir"], ["ls", "jobs", "--name"], ["launch", "-n"], ["zzz"]])
def test_where_anything_may_follow_nothing_is_offered(words):
    assert completion.following(words) == []


def test_bash_completes(tmp_path):
    """The script itself, in a real bash, with a dhmpi on the PATH."""
    command = tmp_path / "dhmpi"
    command.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m dhmpi "$@"\n')
    command.chmod(0o755)
    script = (
        'eval "$(dhmpi completion bash)"\n'
        'complete_() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _dhmpi; echo "${COMPREPLY[*]}"; }\n'
        "complete_ dhmpi re; complete_ dhmpi ambs --surr; complete_ dhmpi ls jobs --by; complete_ dhmpi ls --name x"
    )

    said = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, timeout=60,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
    )  # fmt: skip

    assert said.stdout.split() == ["regevo", "rerun", "replay", "--surrogate-model", "--by-states"]


def test_an_unknown_shell_is_refused(capsys):
    assert completion.main(["tcsh"]) == 2

    assert "invalid choice: 'tcsh'" in capsys.readouterr().err
