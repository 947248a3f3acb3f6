"""The master, without MPI: what an heir makes of what the searcher says."""

import json
from dataclasses import dataclass, field

import pytest

from dhmpi import journal
from dhmpi.mpi.layout import plan
from dhmpi.mpi.post import Message
from dhmpi.mpi.protocol import ProblemInfo, Ready, Report, Searching, Tag
from dhmpi.mpi.world import Launch, World
from dhmpi.options import AmbsOptions
from dhmpi.roles.master import Master
from dhmpi.trials import Outcome, Proposal, Status

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


def become_master(tmp_path, rank, ahead=(), token="00000000", **changes):
    """Return a master of some rank, whose predecessors have started keys 10 to 12, of which 10 has an outcome.

    Rank 0 is the first master of another launch.
    """
    launch = Launch(token, str(tmp_path / "run"))
    layout = plan(HOSTS)
    post = Post(rank, set(range(rank)))
    world = World(rank, len(HOSTS), HOSTS, layout, post, None, 0.0, None, 1, "none", launch)
    directory = tmp_path / "run" / "journal"
    record = journal.Journal(directory, 0, 0, {"run": "00000000", "token": "00000000", "t": 0.0})
    asked = {"e": "asked", "t": 0.5, "ask": 4, "n": 5, "told": 0, "pending": [], "replacing": [], "exhausted": False}
    record.write([asked, placed(0, 10), placed(1, 11), placed(2, 12), finished(0)])
    record.close()
    (tmp_path / "run" / "run.json").write_text('{"hyperparameters": ["x"], "problem": "p"}')
    options = AmbsOptions(problem="p", run="r", log_dir=launch.directory, resume=not rank, **changes)
    search = {"search": "ambs"}
    master = Master(world, options, "dhmpi.ambs", search, lambda: None, 0.0, heir=rank > 0, ahead=ahead)
    master.begin()
    return master


@pytest.fixture
def heir(tmp_path):
    return become_master(tmp_path, 1)


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


def test_a_run_is_described_with_the_scales_of_its_hyperparameters(heir, tmp_path):
    info = INFO._replace(logarithmic=("x",))

    heir._founding.describe(info, heir._world, 0.0)

    described = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (described["hyperparameters"], described["logarithmic"]) == (["x"], ["x"])


def test_an_heir_of_master_and_searcher_has_something_ahead_before_there_is_a_search(tmp_path):
    told = [(12, {"x": 12}), (13, {"x": 13}), (14, {"x": 10}), (15, {"x": 15})]

    master = become_master(tmp_path, 2, told)

    assert master._dispatcher.ahead == [(13, {"x": 13}), (15, {"x": 15})]
    (begin,) = master._world.post.take(Tag.BEGIN)
    assert begin.ahead == [13, 15]
    assert {key for key, _ in begin.unfinished} == {11, 12, 13, 15}
    master._recorder.sync(master._dispatcher.budget)
    lines = [event for event in journal.events(tmp_path / "run" / "journal") if event["e"] == "ahead"]
    assert [line["proposals"] for line in lines] == [[[13, {"x": 13}], [15, {"x": 15}]]]


def test_what_an_heir_was_told_counts_less_than_what_the_searcher_says(tmp_path):
    master = become_master(tmp_path, 1, [(13, {"x": 13})])

    ahead = [Proposal(20, {"x": 20})]
    master.hear(Message(1, Tag.SEARCHING, Searching(True, INFO, [11, 12, 20], ahead)))
    master.lost([])

    assert master._dispatcher.ahead == [(20, {"x": 20})]


def test_those_next_in_line_are_told_what_is_ahead_when_that_has_changed(heir):
    ahead = [Proposal(20, {"x": 20}), Proposal(21, {"x": 21})]
    heir.hear(Message(1, Tag.SEARCHING, Searching(True, INFO, [11, 12, 20, 21], ahead)))
    heir.hear(Message(2, Tag.READY, Ready("h", 0.1)))  # takes the first

    for _ in range(2):
        heir._share_ahead()

    told = [(rank, payload.proposals) for rank, tag, payload in heir._world.post.sent if tag is Tag.AHEAD]
    assert told == [(2, [(21, {"x": 21})]), (3, [(21, {"x": 21})])]


def test_quick_evaluations_are_not_told_of(heir):
    ahead = [Proposal(20 + i, {"x": 20 + i}) for i in range(9)]
    heir.hear(Message(1, Tag.SEARCHING, Searching(True, INFO, [11, 12, *range(20, 29)], ahead)))
    heir.hear(Message(2, Tag.READY, Ready("h", 0.1)))
    for id_ in (3, 4, 5):
        outcome = Outcome(id_, 0, Status.DONE, 1.0, rank=2, host="h", elapsed=0.001)
        heir.hear(Message(2, Tag.REPORT, Report([outcome])))

    heir._share_ahead()

    assert heir._world.post.take(Tag.AHEAD) == []


def test_ranks_that_hear_nothing_while_they_evaluate_are_not_told_of_what_is_ahead(tmp_path):
    master = become_master(tmp_path, 1, evaluator="inline")
    ahead = [Proposal(20, {"x": 20}), Proposal(21, {"x": 21})]
    master.hear(Message(1, Tag.SEARCHING, Searching(True, INFO, [11, 12, 20, 21], ahead)))

    master._share_ahead()

    assert master._world.post.take(Tag.AHEAD) == []


def test_an_order_that_waits_for_a_launch_is_followed_when_it_is_known_what_was_started(tmp_path):
    inbox = tmp_path / "run" / "inbox"
    inbox.mkdir(parents=True)
    (inbox / "a.json").write_text('{"action": "max-evals", "max_evals": 1}')
    (inbox / "b.json").write_text('{"action": "stop"}')

    master = become_master(tmp_path, 0, token="11111111")

    assert master._dispatcher.limits.max_evals == 3
    assert master._dispatcher.stopping is None
    assert (inbox / "refused" / "b.json.reason").read_text() == "it came before this launch\n"
