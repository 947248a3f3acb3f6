"""``python -m dhmpi.completion SHELL``: print what makes a shell complete ``dhmpi``.

The shell asks this module for each completion; it reads the commands from the table and their options from their own
``--help``, so that nothing has to be kept twice.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import re
import runpy
import sys
import warnings
from collections.abc import Sequence

from dhmpi import __version__
from dhmpi.check import Parser
from dhmpi.commands import available
from dhmpi.errors import EXIT_BAD_INPUT, DhmpiError

PROG = "python -m dhmpi.completion"
DESCRIPTION = """Print a script that makes a shell complete the command dhmpi. To use it:
  bash  eval "$(dhmpi completion bash)" in ~/.bashrc
  zsh   eval "$(dhmpi completion zsh)" in ~/.zshrc, after compinit
  fish  dhmpi completion fish | source, in ~/.config/fish/config.fish"""

SCRIPTS = {
    "bash": """_dhmpi() {
    local word=${COMP_WORDS[COMP_CWORD]}
    local IFS=$'\\n'
    COMPREPLY=($(compgen -W "$(dhmpi completion words "${COMP_WORDS[@]:1:COMP_CWORD-1}" 2>/dev/null)" -- "$word"))
}
complete -o default -F _dhmpi dhmpi""",
    "zsh": """_dhmpi() {
    local -a words_found
    words_found=(${(f)"$(dhmpi completion words "${(@)words[2,CURRENT-1]}" 2>/dev/null)"})
    (( $#words_found )) && compadd -a words_found
    _files
}
compdef _dhmpi dhmpi""",
    "fish": """function __dhmpi_words
    set -l words (commandline -opc)
    dhmpi completion words $words[2..-1] 2>/dev/null
end
complete -c dhmpi -a '(__dhmpi_words)'""",
}
_OPTION_LINE = re.compile(r"^ {2,}(-\S.*?)(?: {2,}|$)", re.MULTILINE)
_OPTION = re.compile(r"(--?\w[\w-]*)(?: (?:\{([^}]*)\}|([^\s,]+)))?")
_CHOICES = re.compile(r"^ {2,}\{([^}]*)\}", re.MULTILINE)


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    result = Parser(
        prog=PROG,
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    result.add_argument("shell", metavar="SHELL", choices=tuple(SCRIPTS), help=", ".join(SCRIPTS))
    result.add_argument("--version", action="version", version=f"dhmpi {__version__}")
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a script, or what may follow some words; return the exit code."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    if words[:1] == ["words"]:
        print("\n".join(following(words[1:])))
        return 0
    try:
        options = parser().parse_args(words)
    except DhmpiError as error:
        print(f"dhmpi.completion: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    print(SCRIPTS[options.shell])
    return 0


def following(words: Sequence[str]) -> list[str]:
    """Return what may follow some words of a command line; empty where that may be anything, a file for example.

    Parameters
    ----------
    words : sequence of str
        Behind ``dhmpi``, without the one that is being written.
    """
    commands = available()
    if not words:
        return [*commands, "--help", "--version"]
    command, *rest = words
    if command not in commands:
        return []
    if command == "completion":
        return list(SCRIPTS) if not rest else []
    if command == "launch":
        programs = importlib.import_module("dhmpi.launch").PROGRAMS
        started = [i for i, word in enumerate(rest) if word in programs]
        if started:
            return following(rest[started[0] :])
        options = _options(_help("launch"))
        values = options.get(rest[-1]) if rest else None
        return [*programs, *options] if values is None else values
    text = _help(command)
    parts = [part for choices in _CHOICES.findall(text) for part in choices.split(",")]
    chosen = next((i for i, word in enumerate(rest) if word in parts), None)
    if chosen is not None:
        text = _help(command, *rest[: chosen + 1])
        parts = []
    options = _options(text)
    values = options.get(rest[-1]) if rest else None
    return [*parts, *options] if values is None else values


def _help(*words: str) -> str:
    """Return what a command says of itself."""
    said = io.StringIO()
    command, *rest = words
    before = sys.argv
    sys.argv = [command, *rest, "--help"]
    try:
        with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # this module has imported some of them before
            runpy.run_module(f"dhmpi.{command}", run_name="__main__")
    finally:
        sys.argv = before
    return said.getvalue()


def _options(text: str) -> dict[str, list[str] | None]:
    """Return the options of a help text, each with the values among which it chooses.

    An option that takes anything has none, and one that takes no value has None.
    """
    result: dict[str, list[str] | None] = {}
    for line in _OPTION_LINE.findall(text):
        for name, choices, metavar in _OPTION.findall(line):
            result[name] = choices.split(",") if choices else [] if metavar else None
    return result


if __name__ == "__main__":
    sys.exit(main())
