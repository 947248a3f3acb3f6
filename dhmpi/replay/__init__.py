"""``python -m dhmpi.replay RUN_DIRECTORY``: run search and dispatcher again on a journal, find where they part.

A journal holds what happened to a run (ranks that join and leave, outcomes, the time) and what the run decided (what to
propose, who gets what).  Here the first is fed to a new search and a new dispatcher, and the second compared.  What a
journal does not hold is inferred, see `SearchReplay` and `DispatcherReplay`; `Invariants` needs no inference.
"""

from dhmpi.replay.command import main, parser
from dhmpi.replay.dispatcher import DispatcherReplay
from dhmpi.replay.invariants import Invariants
from dhmpi.replay.recorded import Divergence, Line, Run
from dhmpi.replay.search import SearchReplay

__all__ = ["DispatcherReplay", "Divergence", "Invariants", "Line", "Run", "SearchReplay", "main", "parser"]
