"""The inbox: orders are followed once, on record before they are answered; what is none is moved aside."""

import json
import os

import pytest

from dhmpi import journal
from dhmpi.budget import Limits
from dhmpi.mpi.protocol import Checked, Proposed
from dhmpi.roles.dispatcher import Dispatcher
from dhmpi.roles.inbox import Inbox, Steering
from dhmpi.steering import Action, Order, OrderError, in_words, parse
from dhmpi.trials import Outcome, Proposal, Status


class Clock:
    """A time that tests move."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class Run:
    """A run directory with a dispatcher of two evaluators, and what steers it."""

    def __init__(self, path, done=frozenset(), **limits):
        self.path, self.clock, self.asked, self.refusal = path, Clock(), [], ""
        self.can_ask = True
        self.drained = False
        self.deadline = 5.0
        self.dispatcher = Dispatcher(Limits(**{"max_evals": 10, **limits}))
        for rank in (1, 2):
            self.dispatcher.join(rank, "host", 0.0)
        proposals = [Proposal(key, {"x": key}) for key in range(4)]
        self.dispatcher.propose(Proposed(0, 0, (), proposals), 0.0)
        self.dispatcher.take_work()
        self.dispatcher.take_events()
        self.steering = Steering(Inbox(path, self.clock), self.dispatcher, done, self.check, self.limit, self.drain)

    def check(self, check):
        if self.can_ask:
            self.asked.append(check)
        return self.can_ask

    def limit(self, deadline):
        if self.refusal:
            raise OrderError(self.refusal)
        self.deadline = deadline

    def drain(self):
        self.drained = True
        return 60.0

    def order(self, name="a.json", **content):
        (self.path / "inbox").mkdir(exist_ok=True)
        text = content.pop("text", None) or json.dumps(content)
        (self.path / "inbox" / name).write_text(text)

    def look(self):
        """Look as a master does, and put on record what was followed."""
        self.clock.now += 1.0
        self.steering.poll(self.clock.now)
        events = self.dispatcher.take_events()
        self.steering.settle()
        return events

    def answer(self, name="a.json"):
        path = self.path / "inbox" / "answers" / name
        return json.loads(path.read_text()) if path.exists() else None

    def reason(self, name="a.json"):
        return (self.path / "inbox" / "refused" / f"{name}.reason").read_text()

    def waiting(self):
        return sorted(p.name for p in (self.path / "inbox").iterdir() if p.name not in ("answers", "refused"))


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path)


def test_without_an_inbox_nothing_happens(run):
    assert run.look() == []


def test_an_order_is_answered_when_it_is_on_record(run):
    run.order(action="pause", by="me")
    run.clock.now += 1.0

    run.steering.poll(3.0)

    assert run.answer() is None
    event = run.dispatcher.take_events()[-1]
    assert event["order"].startswith("a.json@")
    assert {k: v for k, v in event.items() if k != "order"} == {"e": "steered", "t": 3.0, "action": "pause", "by": "me"}
    run.steering.settle()
    assert run.answer()["applied"]
    assert "2 evaluations may finish" in run.answer()["sentence"]
    assert run.waiting() == []
    assert run.dispatcher.paused


def test_looks_are_a_second_apart(run):
    run.look()
    run.order(action="pause")

    run.steering.poll(run.clock.now)
    assert not run.dispatcher.paused

    run.look()
    assert run.dispatcher.paused


def test_an_inbox_that_does_not_change_is_only_looked_at(run, monkeypatch):
    run.order(action="pause")
    for _ in range(10):
        run.look()
    opened = []
    monkeypatch.setattr("dhmpi.roles.inbox.opened", lambda *args: opened.append(args))

    for _ in range(5):
        run.look()

    assert opened == []


def test_orders_are_followed_in_the_order_of_their_names(run):
    run.order("1.json", action="max-evals", max_evals=20)
    run.order("2.json", action="pause")
    run.order("3.json", action="max-evals", max_evals=30)

    actions = [(event["action"], event.get("max_evals")) for event in run.look()]

    assert actions == [("max-evals", 20), ("pause", None), ("max-evals", 30)]
    assert run.dispatcher.limits.max_evals == 30


def test_several_steerers_each_have_an_answer(run):
    run.order("1.json", action="pause")
    run.order("2.json", action="pause")

    run.look()

    assert run.answer("1.json")["applied"]
    assert run.answer("2.json") == {"applied": False, "sentence": "the run is paused already"}
    assert run.reason("2.json") == "the run is paused already\n"


def test_who_does_not_wait_gets_no_answer(run):
    run.order(action="pause", answer=False)

    run.look()

    assert run.dispatcher.paused
    assert run.answer() is None
    assert run.waiting() == []


def test_an_order_that_is_on_record_already_is_not_followed_again(tmp_path):
    run = Run(tmp_path)
    run.order(action="max-evals", max_evals=20)
    ((event,)) = run.look()[:1]
    heir = Run(tmp_path, {event["order"]})
    run.order(action="max-evals", max_evals=20)
    nanoseconds = int(event["order"].rpartition("@")[2])
    os.utime(tmp_path / "inbox" / "a.json", ns=(nanoseconds, nanoseconds))

    events = heir.look()

    assert events == []
    assert heir.dispatcher.limits.max_evals == 10
    assert heir.answer()["applied"]
    assert heir.waiting() == []


def test_what_is_meant_for_an_earlier_launch_is_refused(run):
    run.order("1.json", action="stop")
    run.order("2.json", action="max-evals", max_evals=20)

    run.steering.begin(0.0)
    events = run.look()

    assert [event["action"] for event in events] == ["max-evals"]
    assert run.reason("1.json") == "it came before this launch\n"
    assert run.answer("2.json")["applied"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("nonsense", "it is no JSON: "),
        ("[]", "it is no JSON object"),
        ("[" * 100_000, "it is no JSON: "),
        ('{"action": "explode"}', 'its action is "explode", which is none of add, max-evals, '),
        ("{}", "its action is null"),
        ('{"action": "max-evals"}', "an order to max-evals needs the entry 'max_evals'"),
        ('{"action": "max-evals", "max_evals": true}', "max_evals must be an integer >= 1, got true"),
        ('{"action": "max-evals", "max_evals": 0}', "max_evals must be an integer >= 1, got 0"),
        ('{"action": "deadline", "deadline": "soon"}', "the deadline must be seconds since the epoch"),
        ('{"action": "deadline", "deadline": 1e999}', "the deadline must be seconds since the epoch"),
        ('{"action": "deadline", "deadline": NaN}', "it is no JSON: NaN is no number"),
        ('{"action": "pause", "for": 3}', "an order to pause has no entry 'for'"),
        ('{"action": "add", "points": []}', "its points must be a list of at least one"),
        ('{"action": "add", "points": [3]}', "a point must be an object of hyperparameters by name, got 3"),
        ('{"action": "pause", "by": "a\\nb"}', "'by' must be a name of at most 200 printable characters"),
        ('{"action": "pause", "answer": 1}', "answer must be true or false, got 1"),
    ],
)
def test_what_is_no_order_is_moved_aside_with_the_reason(run, text, reason):
    run.order(text=text)

    events = run.look()

    assert events == []
    assert run.reason().startswith(reason)
    assert (run.path / "inbox" / "refused" / "a.json").read_text() == text
    assert run.waiting() == []


def test_nothing_is_followed_through_a_link_nor_waited_for(run, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text('{"action": "pause"}')
    run.order("z.json", action="max-evals", max_evals=20)
    inbox = tmp_path / "inbox"
    (inbox / "link").symlink_to(secret)
    os.mkfifo(inbox / "fifo")
    (inbox / "directory").mkdir()
    (inbox / ".unfinished").write_text('{"action": "pause"}')

    run.look()

    assert not run.dispatcher.paused
    assert run.reason("link") == "it is a symbolic link\n"
    assert run.reason("fifo") == "it is no file\n"
    assert run.reason("directory") == "it is no file\n"
    assert (inbox / "refused" / "link").is_symlink()
    assert secret.exists()
    assert run.answer("z.json")["applied"]
    assert run.waiting() == [".unfinished"]


def test_an_order_that_is_too_large_is_refused(run, monkeypatch):
    monkeypatch.setattr("dhmpi.roles.inbox.MOST_BYTES", 10)
    run.order(action="pause")

    run.look()

    assert "bytes, more than 10" in run.reason()


@pytest.mark.parametrize("name", ["inbox", "inbox/answers", "inbox/refused"])
def test_a_directory_that_leads_elsewhere_is_left_alone(run, tmp_path, name):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    if name == "inbox":
        (elsewhere / "a.json").write_text('{"action": "pause"}')
        (tmp_path / "inbox").symlink_to(elsewhere)
    else:
        run.order("a.json", action="pause")
        run.order("b.json", action="pause")
        (tmp_path / name).symlink_to(elsewhere)

    for _ in range(5):
        run.look()

    assert [p.name for p in elsewhere.iterdir()] == (["a.json"] if name == "inbox" else [])
    assert run.dispatcher.paused is (name != "inbox")


def test_fewer_evaluations_than_have_been_started_become_as_many(run):
    run.order(action="max-evals", max_evals=1)

    ((event, *_)) = run.look()

    assert event["max_evals"] == 2
    assert run.answer()["sentence"].endswith("2 have been started already, so 1 is too few")
    assert run.dispatcher.n_wanted == 0


def test_the_end_is_changed_by_the_master(run):
    run.order(action="deadline", deadline=1e10)

    ((event,)) = run.look()

    assert (run.deadline, event["deadline"]) == (1e10, 1e10)


def test_an_end_that_cannot_be_is_refused(run):
    run.refusal = "that time is over"
    run.order(action="deadline", deadline=1.0)

    assert run.look() == []
    assert run.answer() == {"applied": False, "sentence": "that time is over"}


def test_a_stop_drains(run):
    run.order(action="stop", by="me")

    events = run.look()

    assert [event["e"] for event in events] == ["steered", "stopping"]
    assert events[-1]["reason"] == "dhmpi.steer asked for an end, for me"
    assert history(launch(0, 10), *events).deadline == 60.0  # for an heir
    assert run.drained
    assert not run.dispatcher.over  # two evaluations run


@pytest.mark.parametrize("content", [{"action": "pause"}, {"action": "add", "points": [{"x": 1}]}])
def test_an_ending_run_refuses(run, content):
    run.dispatcher.stop("SIGUSR1 asked for an end", 0.0)
    run.order(**content)

    run.look()

    assert run.reason() == "the run is ending: SIGUSR1 asked for an end\n"


def test_a_run_that_has_ended_leaves_nobody_waiting(run):
    run.order("1.json", action="add", points=[{"x": 1}])
    run.look()
    run.order("2.json", action="pause")
    run.order("3.json", text="nonsense")

    run.steering.close("all 10 evaluations are finished")

    for name in ("1.json", "2.json"):
        assert run.answer(name) == {"applied": False, "sentence": "the run has ended: all 10 evaluations are finished"}
    assert run.waiting() == []


# -- points ------------------------------------------------------------------------------------------------------------


def add(run, *points, name="a.json"):
    run.order(name, action="add", points=list(points))
    run.look()


def test_points_are_checked_by_the_searcher_and_evaluated_next(run):
    add(run, {"x": "7"}, {"x": "8"})
    (check,) = run.asked

    run.steering.checked(Checked(check.order, [{"x": 7}, {"x": 8}]), 5.0)
    run.dispatcher.report(1, [Outcome(0, 0, Status.DONE, 1.0, rank=1, elapsed=1.0)], 6.0)

    events = run.dispatcher.take_events()
    assert events[0]["points"] == [[-1, {"x": 7}], [-2, {"x": 8}]]
    placed = [event for event in events if event["e"] == "placed"]
    assert [(event["trial"], event["key"], event["config"]) for event in placed] == [(2, -1, {"x": 7})]
    run.steering.settle()
    assert run.answer() == {"applied": True, "sentence": "2 points will be evaluated next"}


def test_points_that_are_none_are_refused(run):
    add(run, {"x": "much"})

    run.steering.checked(Checked(run.asked[0].order, reason="x is no number"), 5.0)

    assert run.answer() == {"applied": False, "sentence": "x is no number"}
    assert run.dispatcher.n_added == 0


def test_known_points_are_left_out(run):
    add(run, {"x": 0}, {"x": 7})

    run.steering.checked(Checked(run.asked[0].order, [{"x": 7}], 1), 5.0)
    run.steering.settle()

    sentence = "1 point will be evaluated next; left out: 1 point evaluated or proposed already"
    assert run.answer() == {"applied": True, "sentence": sentence}


def test_nothing_but_known_points_is_refused(run):
    add(run, {"x": 0})

    run.steering.checked(Checked(run.asked[0].order, [], 1), 5.0)

    assert run.answer()["sentence"] == "there is nothing to add: 1 point evaluated or proposed already"


def test_more_points_than_evaluations_are_left_are_refused(tmp_path):
    run = Run(tmp_path, max_evals=4)
    add(run, *({"x": i} for i in range(7, 10)))

    run.steering.checked(Checked(run.asked[0].order, [{"x": i} for i in range(7, 10)]), 5.0)

    assert run.answer()["sentence"] == (
        "only 2 of 4 evaluations are left for 3 points: change --max-evals first, to 5 at least"
    )


def test_another_searcher_is_asked_again(run):
    add(run, {"x": 7})
    run.steering.ask_again()
    run.can_ask = False

    run.look()
    assert len(run.asked) == 1
    run.can_ask = True
    run.look()

    assert run.asked[0] == run.asked[1]
    for check in run.asked:  # two answers may come: the first counts
        run.steering.checked(Checked(check.order, [{"x": 7}]), 5.0)
    assert run.dispatcher.n_added == 1


def test_the_search_knows_the_points_of_one_order_before_it_is_asked_about_another(run):
    run.order("b.json", action="add", points=[{"x": 7}])
    add(run, {"x": 7})
    assert len(run.asked) == 1

    run.steering.checked(Checked(run.asked[0].order, [{"x": 7}]), 5.0)
    run.look()
    assert len(run.asked) == 1
    run.dispatcher.take_news()
    run.look()

    assert [check.order.partition("@")[0] for check in run.asked] == ["a.json", "b.json"]


def test_a_point_that_equals_a_proposal_takes_its_place(run):
    add(run, {"x": 3})
    run.dispatcher.take_news()

    run.steering.checked(Checked(run.asked[0].order, [{"x": 3}]), 5.0)

    news = run.dispatcher.take_news()
    assert list(news.dropped) == [3]
    assert news.added == [(-1, {"x": 3})]
    assert [key for key, _ in run.dispatcher.ahead] == [2]


def test_a_proposal_of_a_search_that_did_not_know_of_an_equal_point_is_dropped(run):
    add(run, {"x": 9})
    run.steering.checked(Checked(run.asked[0].order, [{"x": 9}]), 5.0)
    run.dispatcher.take_news()

    run.dispatcher.propose(Proposed(1, 0, [0, 1, 2, 3], [Proposal(4, {"x": 9}), Proposal(5, {"x": 5})]), 6.0)
    assert list(run.dispatcher.take_news().dropped) == [4]

    run.dispatcher.propose(Proposed(2, 0, [-1, 0, 1, 2, 3, 5], [Proposal(6, {"x": 9})]), 7.0)
    assert run.dispatcher.take_news() is None


# -- what is on record -------------------------------------------------------------------------------------------------


def steered(action, n=0, **content):
    return {"e": "steered", "t": 1.0, "action": action, "order": f"order{n}", **content}


def launch(number, max_evals, **content):
    return {"e": "launch", "launch": number, "epoch": 0, "t": 0.0, "options": {"max_evals": max_evals}, **content}


def history(*events):
    result = journal.History()
    for event in events:
        result.apply(event)
    return result


@pytest.mark.parametrize(("given", "wanted"), [(100, 200), (300, None), (Limits.max_evals, 200)])
def test_changed_evaluations_hold_until_another_number_is_given(given, wanted):
    record = [launch(0, 100), steered("max-evals", max_evals=200)]

    assert history(*record).steered_max_evals(given) == wanted
    assert history(*record, launch(1, given)).max_evals == wanted
    assert history(*record, launch(1, given), launch(2, given)).max_evals == wanted


def test_points_that_nobody_has_started_are_kept():
    points = [[-1, {"x": 1}], [-2, {"x": 2}]]
    placed = {"e": "placed", "t": 1.0, "trial": 0, "attempt": 0, "rank": 1, "key": -1, "config": {"x": 1}}

    record = history(launch(0, 100), steered("add", points=points), placed, launch(1, 100))

    assert record.added == {-2: {"x": 2}}
    assert record.n_added == 2


def test_a_pause_outlives_a_launch_that_died_and_no_orderly_end():
    stopping = {"e": "stopping", "t": 2.0, "reason": "the time limit is near"}

    assert history(launch(0, 100), steered("pause"), launch(1, 100)).paused
    assert not history(launch(0, 100), steered("pause"), stopping, launch(1, 100)).paused
    assert not history(launch(0, 100), steered("pause"), steered("resume", 1)).paused


def test_a_changed_deadline_is_that_of_its_launch():
    record = [launch(0, 100, deadline=50.0), steered("deadline", deadline=90.0)]

    assert history(*record).deadline == 90.0
    assert history(*record, launch(1, 100, deadline=70.0)).deadline == 70.0


def test_a_new_launch_goes_on_with_what_users_have_done():
    record = history(
        launch(0, 10), steered("max-evals", max_evals=20), steered("add", 1, points=[[-1, {"x": 1}]]),
        steered("pause", 2),
    )  # fmt: skip
    dispatcher = Dispatcher(Limits(10))

    dispatcher.heed(record)
    dispatcher.restore((), ())
    dispatcher.join(1, "host", 0.0)
    assert [event["e"] for event in dispatcher.take_events()] == ["joined"]
    dispatcher.steer(steered("resume", 3), 1.0)

    placed = [event for event in dispatcher.take_events() if event["e"] == "placed"]
    assert [event["key"] for event in placed] == [-1]
    assert dispatcher.n_wanted == 19


# -- orders ------------------------------------------------------------------------------------------------------------

ORDERS = [
    Order(Action.ADD, ({"x": 1.5},), by="me"),
    Order(Action.ADD, ({"x": "1.5"},), as_text=True),
    Order(Action.MAX_EVALS, max_evals=7),
    Order(Action.DEADLINE, deadline=1.5, answer=False),
    Order(Action.DEADLINE),
    Order(Action.PAUSE),
    Order(Action.RESUME),
    Order(Action.STOP),
]


@pytest.mark.parametrize("order", ORDERS, ids=lambda order: order.action)
def test_an_order_is_read_as_it_was_written(order):
    assert parse(json.dumps(order.dump()).encode()) == order


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (steered("add", points=[[-1, {"x": 1}]], by="me"), "1 point added by me"),
        (steered("max-evals", max_evals=5), "max-evals set to 5"),
        (steered("deadline", deadline=None), "time limit lifted"),
        (steered("pause"), "paused"),
        (steered("stop", by="me"), "stopped by me"),
    ],
)
def test_events_in_words(event, words):
    assert in_words(event) == words
