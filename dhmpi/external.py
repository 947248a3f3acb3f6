"""A run function that is an external program: ``--run "cmd:./solver {config} {result}"``.

The program gets its configuration as a JSON file and answers with another one.  No shell comes between unless the
template names one.  Standard library only: every evaluating process imports this.  Start reading at `Program.__call__`.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import string
import subprocess
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

import dhmpi
from dhmpi import platform
from dhmpi.errors import EvaluationError, ProblemError
from dhmpi.evaluate.result import check, describe_exit

PREFIX = "cmd:"
CONFIG, RESULT = "config.json", "result.json"
"""Files in the directory of an evaluation."""
MEANINGS = {
    "config": "path of the configuration, a JSON object",
    "result": 'path where the result is expected, a number or an object with "objective", as JSON',
    "directory": "directory of the evaluation, in which the program is started",
    "cwd": "directory in which the search was started",
    "trial": "number of the trial",
    "attempt": "0 for the first attempt at it",
    "seed": "of the trial, the same in each attempt",
    "ranks": "ranks of the search that this evaluation has for itself",
    "hosts": "their hosts as mpiexec wants them: a:2,b:2",
    "nodes": "their hosts as srun wants them: a,b",
}
"""What a template may ask for; the program finds the same in its environment, as DHMPI_CONFIG and so on."""
MAX_RESULT = 1 << 20
"""Bytes."""
SHELLS = ("sh", "bash", "dash", "ksh", "zsh")
DEADLY = (signal.SIGILL, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGKILL, signal.SIGSEGV)
"""Signals that shells and MPI launchers pass on as an exit code of 128 and their number."""


def is_external(name: str) -> bool:
    """Return whether the name of a run function is that of a program."""
    return name.startswith(PREFIX)


class Program:
    """A run function that starts a program and reads what it has written.

    Parameters
    ----------
    name : str
        As given to ``--run``: ``cmd:`` and a template.

    Raises
    ------
    ProblemError
        If the template is no command, or asks for what there is not; `look_for_it` looks for the program.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        try:
            self._words = shlex.split(name.removeprefix(PREFIX))
        except ValueError as error:
            raise ProblemError(f"--run {name!r} is no command: {error}") from error
        if not self._words:
            raise ProblemError(f"--run {name!r} names no program: write the command behind {PREFIX}")
        for word in self._words:
            self._check(word)
        self._words = [str(dhmpi.staged(word)) if word.startswith("/") else word for word in self._words]
        self._home = str(Path.cwd())
        self._scripts = _scripts(self._words)

    def look_for_it(self) -> None:
        """Look for the program on this host.

        Raises
        ------
        ProblemError
        """
        first = self._words[0]
        if "{" in first.replace("{cwd}", ""):
            return  # known when an evaluation begins
        path = self._program(first.replace("{cwd}", self._home))
        if shutil.which(path) is None:
            there = "is no program that can be run" if Path(path).exists() else "there is no such program"
            raise ProblemError(f"--run {self.name!r}: {first}: {there} here")

    def __call__(self, config: Mapping[str, Any]) -> float | dict[str, Any]:
        """Evaluate a configuration; return what the program has written.

        Raises
        ------
        EvaluationError
            If it cannot be started, fails, or writes no result.
        """
        trial = dhmpi.trial()
        directory = trial.directory.absolute()
        result = directory / RESULT
        hosts = Counter(trial.hosts)
        values = {
            "config": str(directory / CONFIG),
            "result": str(result),
            "directory": str(directory),
            "cwd": self._home,
            "trial": str(0 if trial.id is None else trial.id),
            "attempt": str(trial.attempt),
            "seed": str(trial.seed),
            "ranks": str(hosts.total()),
            "hosts": ",".join(f"{host}:{n}" for host, n in hosts.items()),
            "nodes": ",".join(hosts),
        }
        try:
            result.unlink(missing_ok=True)  # of an earlier attempt
            (directory / CONFIG).write_text(json.dumps(dict(config)))
        except OSError as error:
            raise EvaluationError(f"cannot write {CONFIG} into {directory}: {error.strerror}") from error
        words = self.words(values)
        self._run(words, values)
        return _read(result, words[0])

    def words(self, values: Mapping[str, str]) -> list[str]:
        """Return the command with its placeholders replaced; in the script of a shell the values are quoted."""
        filled = []
        for i, word in enumerate(self._words):
            quoted = {name: shlex.quote(value) for name, value in values.items()} if i in self._scripts else values
            filled.append(word.format_map(quoted))
        filled[0] = self._program(filled[0])
        return filled

    def _run(self, words: Sequence[str], values: Mapping[str, str]) -> None:
        variables = {f"DHMPI_{name.upper()}": value for name, value in values.items()}
        environment = {**platform.scrub(os.environ), **variables}
        # A child process is killed with all that is in its group; a rank, where several evaluate together, is not.
        apart = dhmpi.trial().comm is not None
        started: list[subprocess.Popen[bytes] | OSError] = []

        options: dict[str, Any] = {"cwd": values["directory"], "env": environment, "stdin": subprocess.DEVNULL}

        def start() -> None:
            try:
                started.append(subprocess.Popen(words, start_new_session=apart, **options))
            except OSError as error:
                started.append(error)

        # In another thread: a signal that ends an evaluation must not raise between the start and its record.
        thread = threading.Thread(target=start)
        try:
            thread.start()
            thread.join()
            process = started[0]
            if isinstance(process, OSError):
                raise EvaluationError(f"the program {words[0]} cannot be started: {process.strerror}") from process
            code = process.wait()
        except BaseException:
            thread.join()
            for process in started:
                if isinstance(process, subprocess.Popen):
                    _end(process, apart)
            raise
        if code:
            crashed = code < 0 or code - 128 in DEADLY
            raise EvaluationError(f"{describe_exit(code, f'the program {words[0]}')}{self._hint(values)}", crashed)

    def _hint(self, values: Mapping[str, str]) -> str:
        """Return what may have been wrong: a file that the program has looked for elsewhere."""
        for word in self._words[1:]:
            there, looked_for = Path(self._home, word), Path(values["directory"], word)
            if there != looked_for and there.is_file() and not looked_for.exists():
                return f"; it runs in {values['directory']}, where there is no {word}: write {{cwd}}/{word}"
        return ""

    def _check(self, word: str) -> None:
        try:
            fields = [found for found in string.Formatter().parse(word) if found[1] is not None]
        except ValueError as error:
            raise ProblemError(
                f"--run {self.name!r}: {word!r} has a stray brace; {{{{ and }}}} stand for braces"
            ) from error
        for _, name, form, conversion in fields:
            if name not in MEANINGS or form or conversion:
                field = f"{name}{'!' if conversion else ''}{conversion or ''}{':' if form else ''}{form}"
                known = ", ".join(f"{{{name}}}" for name in MEANINGS)
                raise ProblemError(
                    f"--run {self.name!r}: there is no {{{field}}}, but {known}; {{{{ and }}}} stand for braces"
                )

    def _program(self, word: str) -> str:
        """Return a program so that it is found from another directory."""
        return str(Path(self._home, word)) if "/" in word else word


def _end(process: subprocess.Popen[bytes], leads_group: bool) -> None:
    """End a program, and what it has started."""
    platform.kill(platform.descendants(process.pid))
    if leads_group:
        platform.kill_group(process.pid)
    process.kill()
    process.wait()


def _scripts(words: Sequence[str]) -> set[int]:
    """Return which words are scripts of a shell: what stands behind its option -c."""
    found = set()
    for i, word in enumerate(words):
        if PurePath(word).name not in SHELLS:
            continue
        for j in range(i + 1, len(words) - 1):
            if not words[j].startswith("-"):
                break
            if re.fullmatch(r"-[a-zA-Z]*c[a-zA-Z]*", words[j]):
                found.add(j + 1)
                break
    return found


def _read(result: Path, program: str) -> Any:
    """Return what a program has written."""
    try:
        with result.open("rb") as stream:
            text = stream.read(MAX_RESULT + 1)
    except FileNotFoundError:
        raise EvaluationError(f"the program {program} has ended well and has written no {RESULT}") from None
    except OSError as error:
        raise EvaluationError(f"{result}, the result of {program}, cannot be read: {error.strerror}") from error
    if len(text) > MAX_RESULT:
        raise EvaluationError(f"{result}, the result of {program}, is longer than {MAX_RESULT >> 20} MB")
    try:
        returned = json.loads(text)
    except ValueError as error:
        raise EvaluationError(f"{result}, the result of {program}, is no JSON: {error}") from error
    try:
        objective, metrics = check(returned, "the program")
    except ValueError as error:
        raise EvaluationError(str(error)) from error
    return {"objective": objective, **metrics}
