"""The console command ``dhmpi``: ``dhmpi NAME ...`` is ``python -m dhmpi.NAME ...``.

`COMMANDS` is the one table of what there is; whoever adds a command adds its line.
"""

from __future__ import annotations

import difflib
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

from dhmpi import __version__
from dhmpi.errors import EXIT_BAD_INPUT
from dhmpi.mpi.environment import launcher_rank

COMMANDS = {
    "ambs": "Search hyperparameters with a model, on all ranks of one MPI launch.",
    "regevo": "Search by regularized evolution.",
    "agebo": "Evolve architectures, and learn with a model how to train them.",
    "random": "Search at random.",
    "ppo": "Search architectures by reinforcement learning, with agents that learn together.",
    "plan": "Show which rank would do what on a machine, before anybody queues.",
    "simulate": "Run a search in virtual time, and say whether one searcher keeps up.",
    "submit": "Write a job script for the scheduler of a site, and submit it.",
    "nas.show": "Show a search space of architectures, and draw a network of it.",
    "nas.post": "Train the best networks of a search again, and combine them.",
    "nas.run.build_horovod": "Build Horovod for the TensorFlow and the MPI at hand, and install it.",
    "launch": "Start a search on several ranks with the mpiexec at hand.",
    "check": "Evaluate one configuration right here, before anybody queues.",
    "doctor": "Examine a machine, under its own launcher, before a search runs there.",
    "ls": "List runs, their evaluations and their workers.",
    "watch": "Watch a run in the terminal while it goes on.",
    "steer": "Change a run while it goes on: points, evaluations, its end, a pause.",
    "analytics": "Say how a run went: utilisation, trajectory, best configurations, what mattered.",
    "rerun": "Repeat one evaluation of a run in the foreground.",
    "replay": "Run search and dispatcher again on a journal, and find where they part.",
    "completion": "Print what makes a shell complete this command.",
}
"""Commands in the order in which they are listed: name, and what it does in a sentence."""

USAGE = "usage: dhmpi [--help] [--version] COMMAND ..."


def help_text() -> str:
    """Return what ``dhmpi --help`` says."""
    names = available()
    width = max(map(len, names))
    lines = [f"  {name:<{width}}  {COMMANDS[name]}" for name in names]
    return "\n".join(
        [
            USAGE,
            "",
            "Hyperparameter and neural architecture search as one MPI program.",
            "",
            "commands (dhmpi COMMAND --help says more; python -m dhmpi.COMMAND is the same):",
            *lines,
        ]
    )


def available() -> list[str]:
    """Return the commands of the table that are installed."""
    here = Path(__file__).parent
    paths = {name: here.joinpath(*name.split(".")) for name in COMMANDS}
    return [
        name
        for name, path in paths.items()
        if path.with_name(path.name + ".py").is_file() or (path / "__main__.py").is_file()
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return the exit code, or end as the command does."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    if not words:
        return _refuse(f"give a command: {', '.join(available())}")
    name, *rest = words
    if name in ("-h", "--help", "help", "--version"):
        if launcher_rank() == 0:
            print(f"dhmpi {__version__}" if name == "--version" else help_text())
        return 0
    if name not in available():
        close = difflib.get_close_matches(name, available(), n=1)
        what = "option" if name.startswith("-") else "command"
        perhaps = f"did you mean {close[0]}?" if close else f"there are {', '.join(available())}"
        return _refuse(f"there is no {what} {name!r}: {perhaps}")
    _look_where_python_looks()
    sys.argv[:] = [f"dhmpi {name}", *rest]
    runpy.run_module(f"dhmpi.{name}", run_name="__main__", alter_sys=True)
    return 0


def _look_where_python_looks() -> None:
    """Let modules of the working directory be found, as ``python -m`` does, in the place of the script's directory.

    Otherwise a study of the user's own would be found by one of two commands that are the same.
    """
    if not getattr(sys.flags, "safe_path", False) and sys.path and Path(sys.path[0]) == _script_directory():
        sys.path[0] = str(Path.cwd())


def _script_directory() -> Path:
    return Path(sys.argv[0]).resolve().parent


def _refuse(sentence: str) -> int:
    if launcher_rank() == 0:
        print(f"dhmpi: {sentence} (see --help)", file=sys.stderr)
    return EXIT_BAD_INPUT
