"""What is replayed: the lines of a run's journal, and where a replay parts from them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dhmpi import journal
from dhmpi.errors import RunDirectoryError
from dhmpi.mpi.layout import plan
from dhmpi.options import SearchOptions
from dhmpi.rundirectory import WARM_START, described
from dhmpi.steering import added

if TYPE_CHECKING:
    from dhmpi.roles.program import Program


class Line(NamedTuple):
    """A line of the journal that counts."""

    file: str
    number: int
    event: dict[str, Any]

    @property
    def place(self) -> str:
        return f"{self.file} line {self.number}"


@dataclass(frozen=True)
class Divergence:
    """Where journal and replay part.

    Parameters
    ----------
    line : Line
    sentence : str
        What differs.
    rows : tuple of (str, str, str)
        Name, and its value in journal and replay, of what differs.
    """

    line: Line
    sentence: str
    rows: tuple[tuple[str, str, str], ...] = ()


class Mismatch(Exception):
    """The replay cannot go on as the journal does."""

    def __init__(self, sentence: str, rows: Sequence[tuple[str, str, str]] = ()) -> None:
        super().__init__(sentence)
        self.rows = tuple(rows)


class Run:
    """A run on record.

    Parameters
    ----------
    path : Path
        Its directory.

    Attributes
    ----------
    lines : list of Line
    added : dict of int to dict
        Points of users: their configurations by key.
    described : dict
        Content of run.json.

    Raises
    ------
    RunDirectoryError
        If there is no journal, or run.json lacks what is needed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines = list(_located(path / "journal"))
        if not self.lines:
            raise RunDirectoryError(f"{path} holds no run: it has no journal with a whole line")
        self.described = described(path, "problem", "seed", "options")
        # A trial keeps its key, so outcomes can be told before it is known who proposed them.
        self.keys = {line.event["trial"]: line.event["key"] for line in self.lines if line.event["e"] == "placed"}
        self.added = added([line.event for line in self.lines])

    def options(self, header: dict[str, Any]) -> SearchOptions:
        """Return the options of a launch."""
        return self._program(header)[1]

    def repeats(self, header: dict[str, Any]) -> bool:
        """Return whether the search of a launch may evaluate a configuration more than once."""
        program, options = self._program(header)
        return program.repeats(options)

    @property
    def has_agents(self) -> bool:
        """Whether agents share the search: what it proposes depends on their number, to the last bit."""
        program, options = self._program(self.lines[0].event)
        return program.agents(options) > 0

    def _program(self, header: dict[str, Any]) -> tuple[Program, SearchOptions]:
        """Return the entry point of a launch and its options, which give it away in journals that do not name it."""
        values = header.get("options") or self.described["options"]
        common = {item.name for item in dataclasses.fields(SearchOptions)}
        for program in _programs():
            names = {item.name for item in dataclasses.fields(program.options)}
            if header["program"] == program.module if "program" in header else names - common <= values.keys():
                return program, program.options(**{name: values[name] for name in names & values.keys()})
        raise RunDirectoryError(f"{self.path} holds a run of a search that cannot be replayed: its options are unknown")

    def specification(self, header: dict[str, Any]) -> dict[str, Any]:
        """Return what the searcher of a launch built its search from."""
        program, options = self._program(header)
        return {
            **program.spec(options),
            "problem": self.described["problem"],
            "seed": self.described["seed"],
            "n_evaluators": self._n_evaluators(header, options),
            "max_evals": options.max_evals,
            **({"warm_start": str(copy)} if (copy := self.path / WARM_START).exists() else {}),
        }

    def layout(self, header: dict[str, Any]) -> dict[str, Any]:
        """Return the layout of a launch, empty if run.json has another's: it keeps that of the last launch only."""
        layout = self.described.get("layout", {})
        return layout if len(layout.get("hosts", ())) == header.get("ranks") else {}

    def _n_evaluators(self, header: dict[str, Any], options: SearchOptions) -> int:
        layout = self.layout(header)
        if layout:
            return len(layout["groups"])
        return plan(("",) * header["ranks"], job_mode=options.job_mode).n_evaluators

    def begins_launch(self, index: int) -> bool:
        """Return whether a line is the header of a launch's first master."""
        event = self.lines[index].event
        if event["e"] != "launch":
            return False
        earlier = (line.event for line in reversed(self.lines[:index]) if line.event["e"] == "launch")
        before = next(earlier, None)
        return before is None or before["launch"] != event["launch"]


def _programs() -> tuple[Program, ...]:
    """Return the entry points whose searches can be replayed."""
    from dhmpi import agebo, ambs, ppo, random, regevo  # late, as all that --help does without
    from dhmpi.nas import post

    # Random's options are among regevo's, regevo's but one and ambs' among agebo's.
    return (agebo.PROGRAM, ambs.PROGRAM, ppo.PROGRAM, regevo.PROGRAM, random.PROGRAM, post.PROGRAM)


def _located(directory: Path) -> Iterator[Line]:
    """Yield the events of a journal with their places."""
    file, number = "", 0
    try:
        for event in journal.events(directory):
            if event["e"] == "launch":
                file, number = journal.path(directory, event["launch"], event["epoch"]).name, 0
            number += 1
            yield Line(file, number, event)
    except (KeyError, TypeError) as error:
        raise RunDirectoryError(
            f"{directory} is no journal: what follows {file} line {number} lacks {error}"
        ) from error


def keys_in(ranges: Sequence[Sequence[int]]) -> list[int]:
    """Return the keys of ranges as a journal has them: first and last of each."""
    return [key for first, last in ranges for key in range(first, last + 1)]


def differing(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    """Return the names that two dictionaries do not share, or not with the same value."""
    return [name for name in {**a, **b} if name not in a or name not in b or a[name] != b[name]]


def shown(values: dict[str, Any], name: str) -> str:
    """Return a value as a divergence shows it."""
    return repr(values[name]) if name in values else "-"
