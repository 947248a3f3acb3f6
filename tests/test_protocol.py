"""Payloads travel as plain tuples and come back as they were."""

import pickle

import pytest

from dhmpi.mpi import protocol
from dhmpi.mpi.protocol import Tag
from dhmpi.trials import Outcome, Proposal, Status, Trial

OUTCOME = Outcome(3, 1, Status.FAILED, None, {"loss": 0.5}, 7, "node", 1.0, 2.0, 0.9, "it raised")
TRIALS = [Trial(3, 4, {"x": 1}, 2), Trial(5, 6, {"kind": "a"})]

PAYLOADS = [
    (Tag.SETUP, protocol.Setup("run", "directory", 1, True)),
    (Tag.WORK, protocol.Work(TRIALS, [1, 2], [3], [4], [5])),
    (Tag.READY, protocol.Ready("node", 0.5)),
    (Tag.REFUSED, protocol.Refused("no such module")),
    (Tag.REPORT, protocol.Report([OUTCOME, OUTCOME._replace(status=Status.DONE, objective=1.5)], [8])),
    (Tag.HOLDING, protocol.Holding(protocol.Ready("node", 0.5), [3], [OUTCOME])),
    (Tag.HOLDING, protocol.Holding(None, [], [])),
    (Tag.PROGRESS, protocol.Progress(3, 1, 20, 0.5)),
    (Tag.MEMBER, protocol.Part(3, 1, 2, 4, "why", "failed", True)),
    (Tag.TOGETHER, protocol.Together(3, 1, 2, True)),
    (Tag.BEGIN, protocol.Begin("run", {"search": "ambs"}, "log", [(0, {"x": 1}, None)], [(1, {"x": 2})], 3)),
    (Tag.NEWS, protocol.News([(0, 1.5), (1, None)], [2], [3], 4, 5, 0.25)),
    (Tag.NEWS, protocol.News(n_wanted=5, added=[(-1, {"x": 1})], max_evals=9)),
    (Tag.CHECK, protocol.Check("order", [{"x": "1"}], True)),
    (Tag.CHECKED, protocol.Checked("order", [{"x": 1}], 2, "why not")),
    (Tag.PROBLEM, protocol.ProblemInfo(["x"], "fingerprint", None, ["remark"], ["x"])),
    (Tag.NO_PROBLEM, protocol.Refused("no problem")),
    (Tag.PROPOSED, protocol.Proposed(1, 2, [3], [Proposal(4, {"x": 1})], [5], True, 0.5)),
    (
        Tag.PROPOSED,
        protocol.Proposed(1, 2, [], [Proposal(4, {"x": 1})], [], False, 0.5, [(4, 1.5)], [{"e": "x"}], "end"),
    ),
    (
        Tag.SEARCHING,
        protocol.Searching(True, protocol.ProblemInfo(["x"], "f", 3), [1, 2], [Proposal(2, {"x": 1})], 3),
    ),
    (Tag.SEARCHING, protocol.Searching(False, None, [], [])),
    (Tag.ALIVE, protocol.Alive(6)),
    (Tag.STOP, protocol.Stop("the end")),
    (Tag.HEIR, protocol.Heir(7)),
    (Tag.SERVING, protocol.Serving()),
    (Tag.AHEAD, protocol.Ahead([(1, {"x": 1})])),
    (Tag.KILL, protocol.Kill()),
    (Tag.BROKEN, protocol.Broken()),
    (Tag.LEARN, protocol.Learn(1, 2, "print", {"seed": 3}, [[0]], [[-0.5]], [[0.1]], [1.0], 0.5)),
    (Tag.PART, protocol.Sums(1, 2, [0.5])),
    (Tag.TOTAL, protocol.Sums(1, 2, [1.5])),
    (Tag.NEED, protocol.State(1)),
    (Tag.STATE, protocol.State(1, {"parameters": [0.5]})),
]


@pytest.mark.parametrize(("tag", "payload"), PAYLOADS, ids=lambda value: getattr(value, "name", ""))
def test_payloads_survive_the_journey(tag, payload):
    sent = pickle.dumps(protocol.plain(payload))

    arrived = protocol.rebuilt(tag, pickle.loads(sent))

    assert arrived == payload
    assert type(arrived) is type(payload)
    assert b"dhmpi" not in sent  # no class travels


def test_every_tag_is_tried():
    assert {tag for tag, _ in PAYLOADS} == set(Tag)


def test_trials_and_outcomes_arrive_as_what_they_are():
    work = protocol.rebuilt(Tag.WORK, protocol.plain(protocol.Work(TRIALS)))
    report = protocol.rebuilt(Tag.REPORT, protocol.plain(protocol.Report([OUTCOME])))

    assert [type(trial) for trial in work.trials] == [Trial, Trial]
    assert type(report.outcomes[0]) is Outcome
    assert report.outcomes[0].status is Status.FAILED
