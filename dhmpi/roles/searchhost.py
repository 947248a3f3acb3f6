"""Where a search lives: in a process of its own under the keeper, or in the searcher's rank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dhmpi.evaluate.process import RUN, Exited, Keeper
from dhmpi.mpi import protocol


class SearchKilledError(Exception):
    """The process of the search was killed: no bug of the search, so that another one may go on."""


class SearchProcess:
    """A search in the child process "search" of this rank's keeper.

    Parameters
    ----------
    keeper : Keeper
    begin : protocol.Begin
    environment : mapping of str to str
        Variables for the process, besides the rank's own.
    home : Path
        Its working directory.
    """

    NAME = "search"

    def __init__(self, keeper: Keeper, begin: protocol.Begin, environment: Mapping[str, str], home: Path) -> None:
        self._keeper = keeper
        self._log = begin.log
        keeper.name_run(begin.run_id)
        environment = {**environment, RUN: begin.run_id}
        keeper.start_child(self.NAME, "dhmpi.search.host", environment, home, begin.log)

    def send(self, message: dict[str, Any]) -> None:
        self._keeper.send(self.NAME, message)

    def poll(self) -> Sequence[dict[str, Any]]:
        answers = []
        for event in self._keeper.poll(self.NAME):
            if isinstance(event, Exited):
                error = SearchKilledError if event.code is None or event.code < 0 else RuntimeError
                raise error(f"the search's process has ended: {event.reason}; see {self._log}")
            answers.append(event)
        return answers

    def fileno(self) -> int | None:
        return self._keeper.fileno()

    def close(self) -> None:
        """The keeper ends its children."""


class SearchHere:
    """A search in this very process: for searches that cost microseconds."""

    def __init__(self) -> None:
        from dhmpi.search.host import Host  # 80 MB that a rank whose search lives in a process does without

        self._host = Host()
        self._answers: list[dict[str, Any]] = []

    def send(self, message: dict[str, Any]) -> None:
        answer = self._host.handle(message)
        if answer is not None:
            self._answers.append(answer)

    def poll(self) -> Sequence[dict[str, Any]]:
        answers, self._answers = self._answers, []
        return answers

    def fileno(self) -> int | None:
        return None

    def close(self) -> None:
        """Nothing to do."""
