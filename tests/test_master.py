"""The master, without MPI: what an heir makes of what the searcher says."""

from dataclasses import dataclass, field

import pytest

from dhmpi import journal
from dhmpi.mpi.layout import plan
from dhmpi.mpi.post import Message
from dhmpi.mpi.protocol import ProblemInfo, Searching, Tag
from dhmpi.mpi.world import Launch, World
from dhmpi.options import AmbsOptions
from dhmpi.roles.master import Master
from dhmpi.trials import Proposal

HOSTS = ("h", "h", "h", "h")
INFO = ProblemInfo(("x",), "0123456789abcdef", None)


@dataclass
class Post:
    """Keeps what is sent."""

    rank: int
    dead: set = field(default_factory=set)
    sent: list = field(default_factory=list)
    survives: bool = True
    size: int = len(HOSTS)

    @property
    def lowest(self):
        return min(set(range(self.size)) - self.dead)

    def send(self, rank, tag, payload):
        self.sent.append((rank, tag, payload))

    def take(self, tag):
        return [payload for _, tag_, payload in self.sent if tag_ is tag]


def placed(id_, key):
    return {"e": "placed", "t": 1.0, "trial": id_, "attempt": 0, "rank": 3, "key": key, "config": {"x": key}}


def finished(id_):
    return {
        "e": "finished", "t": 2.0, "trial": id_, "attempt": 0, "status": "done", "objective": 7.0, "rank": 3,
        "host": "h", "start": 1.0, "end": 2.0, "elapsed": 1.0,
    }  # fmt: skip


@pytest.fixture
def heir(tmp_path):
    """Return a master of rank 1, whose predecessor has started keys 10 to 12, of which 10 has an outcome."""
    launch = Launch("00000000", str(tmp_path / "run"))
    layout = plan(HOSTS)
    post = Post(1, {0})
    world = World(1, len(HOSTS), HOSTS, layout, post, None, 0.0, None, 1, "none", launch)
    directory = tmp_path / "run" / "journal"
    record = journal.Journal(directory, 0, 0, {"run": "00000000", "token": launch.token, "t": 0.0})
    asked = {"e": "asked", "t": 0.5, "ask": 4, "n": 5, "told": 0, "pending": [], "replacing": [], "exhausted": False}
    record.write([asked, placed(0, 10), placed(1, 11), placed(2, 12), finished(0)])
    record.close()
    (tmp_path / "run" / "run.json").write_text('{"hyperparameters": ["x"], "problem": "p"}')
    options = AmbsOptions(problem="p", run="r", log_dir=launch.directory)
    master = Master(world, options, "dhmpi.ambs", {"search": "ambs"}, lambda: None, 0.0, heir=True)
    master.begin()
    return master


@pytest.mark.parametrize("info", [INFO, None], ids=["loaded", "loading"])
def test_an_heir_tells_the_searcher_what_it_has_missed(heir, info):
    pending = [10, 11, 12, 13, 14]
    ahead = [Proposal(12, {"x": 12}), Proposal(13, {"x": 13})]

    heir.hear(Message(heir._world.searcher, Tag.SEARCHING, Searching(True, info, pending, ahead)))

    news = heir._world.post.take(Tag.NEWS)
    assert [list(n.told) for n in news if n.told] == [[(10, 7.0)]]
    assert [sorted(n.started) for n in news if n.started] == [[10, 11, 12]]
    assert [list(n.dropped) for n in news if n.dropped] == [[14]]
    assert heir._dispatcher.n_ahead == 1
