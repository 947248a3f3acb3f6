"""What is known of a run from its files, while it goes on and afterwards."""

import pytest
from journal_writer import (
    LAYOUT,
    T0,
    Writer,
    asked,
    ended,
    event,
    finished,
    header,
    joined,
    left,
    lost,
    placed,
    stopping,
)

from dhmpi import runs
from dhmpi.errors import RunDirectoryError
from dhmpi.timeline import Activity
from dhmpi.trials import Status

STORY = [
    joined(2, 1), joined(3, 1), asked(0, 1, n=4), placed(0, 2, 1), placed(1, 3, 1), placed(2, 2, 1),
    finished(0, 2, 1, 2, 0.5), placed(3, 2, 2), finished(1, 3, 1, 3, None, reason="ValueError: no"),
    placed(4, 3, 3), finished(2, 2, 2, 4, 0.25), finished(3, 2, 4, 5, 0.75), placed(5, 2, 5), placed(6, 2, 5),
]  # fmt: skip


@pytest.fixture
def going(tmp_path):
    """A run that goes on: trial 4 runs on rank 3, trial 5 on rank 2, where trial 6 waits."""
    return Writer(tmp_path / "run").begin(*STORY).hold()


def test_a_run_that_goes_on(going):
    run = runs.opened(going.path)

    assert run.state == "running"
    assert run.by_state() == {"running": 2, "placed": 1, "done": 3, "failed": 1}
    assert (run.n_finished, run.n_failed, run.max_evals) == (4, 1, 10)
    assert (run.best.trial, run.best.objective, run.best.n_finished) == (3, 0.75, 4)
    assert run.best_config() == {"x": 3}
    assert {rank: trial for rank, (trial, _) in run.running().items()} == {3: 4, 2: 5}
    assert run.running()[2][1] == T0 + 5
    assert [outcome.trial for outcome in run.failures] == [1]
    assert (run.search, run.workflow, run.n_asks, run.search_seconds) == ("ambs", "default", 1, 0.5)
    assert run.workers[2].n_done == 3
    assert run.workers[2].seconds == pytest.approx(4.0)


def test_jobs_say_how_every_trial_stands(going):
    jobs = list(runs.opened(going.path).jobs())

    assert [(job.trial.id, job.state, job.rank) for job in jobs] == [
        (0, "done", 2), (1, "failed", 3), (2, "done", 2), (3, "done", 2), (4, "running", 3), (5, "running", 2),
        (6, "placed", 2),
    ]  # fmt: skip
    assert jobs[0].name.startswith("task0_")


def test_looking_again_takes_in_what_is_new(going):
    run = runs.opened(going.path)

    assert not run.refresh()
    going.add(finished(5, 2, 5, 6, 0.9), left(3, 7), lost(4, 3, 7))

    assert run.refresh()
    assert run.best.trial == 5
    assert run.by_state() == {"running": 1, "unfinished": 1, "done": 4, "failed": 1}
    assert run.workers[3].left == T0 + 7
    assert [loss["e"] for loss in run.losses] == ["left", "lost"]
    assert run.n_evaluators() == 1


def test_however_a_journal_is_read_it_says_the_same(tmp_path):
    writer = Writer(tmp_path).begin()
    run = runs.opened(tmp_path, keep=True)

    for item in [*STORY, stopping(6), event("cancelled", 6, trial=6, rank=0), ended(7)]:
        writer.add(item)
        run.refresh()

    at_once = runs.opened(tmp_path, keep=True)
    assert run.history == at_once.history
    assert run.workers == at_once.workers
    assert run.timeline.account(0, False) == at_once.timeline.account(0, False) or (
        run.timeline.account(0, False)[0] == at_once.timeline.account(0, False)[0]
    )


def test_a_run_that_was_killed_is_dead_and_what_it_ran_unfinished(going):
    going.hold(pid=2**22 + 1, process_start=1)

    run = runs.opened(going.path)

    assert run.state == "dead"
    assert run.running() == {}
    assert run.by_state() == {"unfinished": 3, "done": 3, "failed": 1}
    assert run.now == T0 + 5


def test_a_lock_of_another_host_counts_as_long_as_it_is_renewed(going):
    going.hold(host="elsewhere")
    alive = runs.opened(going.path).state
    going.hold(host="elsewhere", renewed=1.0)

    assert (alive, runs.opened(going.path).state) == ("running", "dead")


def test_a_run_that_drains_and_ends(going):
    going.add(stopping(6, "the time limit is near"))
    run = runs.opened(going.path)

    assert run.state == "draining"
    going.add(ended(8, "the time limit is near", complete=False)).release()
    run.refresh()

    assert (run.state, run.history.last_stop, run.now) == ("ended", "the time limit is near", T0 + 8)


def test_a_resumed_run_counts_all_launches_and_shows_the_workers_of_the_last(going):
    layout = {**LAYOUT, "hosts": ["node7"] * 3, "groups": [[2]]}
    going.begin(joined(2, 101, "node7"), placed(4, 2, 101, attempt=1), head=header(T0 + 100, layout=layout))

    run = runs.opened(going.path)

    assert list(run.workers) == [2]
    assert run.workers[2].host == "node7"
    assert (run.n_finished, run.n_new, run.began) == (4, 0, T0 + 100)
    assert run.by_state() == {"running": 1, "unfinished": 2, "done": 3, "failed": 1}
    assert run.layout["hosts"] == ["node7"] * 3


def test_a_new_master_goes_on_with_what_the_old_one_has_begun(going):
    going.begin(joined(2, 6), joined(3, 6), finished(4, 3, 3, 7, 0.1), epoch=1, same_launch=True)

    run = runs.opened(going.path)

    assert run.by_state() == {"running": 1, "placed": 1, "done": 4, "failed": 1}
    assert run.workers[3].joined == T0 + 1


def test_what_a_fenced_master_wrote_is_forgotten(going):
    run = runs.opened(going.path)
    old = going.journal
    new = Writer(going.path)
    new.launch = 0
    new.begin(joined(2, 6), epoch=1, same_launch=True)
    fenced = going.path / "journal" / "0.1.jsonl"
    later = fenced.read_bytes()
    fenced.unlink()
    old.write([finished(5, 2, 5, 6, 9.0)])
    run.refresh()
    before = run.best.objective
    fenced.write_bytes(later)

    run.refresh()

    assert (before, run.best.objective) == (9.0, 0.75)


def test_every_run_below_a_directory_is_found(tmp_path):
    for name in ("b/two", "a/one", "a/three/deep"):
        Writer(tmp_path / name).begin()
    (tmp_path / "a" / "nothing").mkdir()

    assert [str(path.relative_to(tmp_path)) for path in runs.find(tmp_path)] == ["a/one", "a/three/deep", "b/two"]
    assert list(runs.find(tmp_path / "a/one")) == [tmp_path / "a/one"]


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda path: None, "there is no such directory"),
        (lambda path: path.mkdir(), "it has no journal"),
        (lambda path: path.write_text("x"), "it is no directory"),
    ],
)
def test_what_holds_no_run_is_named(tmp_path, make, sentence):
    make(tmp_path / "thing")

    with pytest.raises(RunDirectoryError, match=sentence):
        runs.opened(tmp_path / "thing")


def test_an_empty_run_is_empty(tmp_path):
    (tmp_path / "journal").mkdir()

    run = runs.opened(tmp_path)

    assert (run.state, run.n_finished, run.by_state(), run.best) == ("empty", 0, {}, None)


@pytest.mark.parametrize(
    "bad",
    [{"e": "placed", "t": 1.0}, {"e": "placed", "t": "x", "trial": 1}, {**finished(0, 2, 1, 2), "status": "enchanted"}],
)
def test_a_foreign_journal_is_refused_in_a_sentence(tmp_path, bad):
    Writer(tmp_path).begin(placed(0, 2, 0), bad)

    with pytest.raises(RunDirectoryError, match="is no journal of a run"):
        runs.opened(tmp_path)


def test_an_objective_that_was_known_before_is_nobodys_work(tmp_path):
    known = {**finished(0, 0, 1, 1, 3.0, status="reused"), "host": ""}
    Writer(tmp_path).begin(joined(2, 0), placed(0, 0, 1, reused=True), known).hold()

    run = runs.opened(tmp_path, keep=True)

    assert run.by_state() == {"reused": 1}
    assert (run.best.objective, run.n_failed) == (3.0, 0)
    assert sorted(run.workers) == sorted(run.timeline.lanes) == [2, 3]


def test_launches_know_their_times(going):
    going.begin(joined(2, 101), ended(105), head=header(T0 + 100))

    run = runs.opened(going.path)

    assert [(launch.began - T0, launch.ended - T0) for launch in run.launches] == [(0, 5), (100, 105)]
    assert run.lengths() == [5, 5]
    assert run.seconds == 10


def test_a_trial_given_up_as_lost_is_counted(tmp_path):
    Writer(tmp_path).begin(
        joined(2, 0), placed(0, 2, 0), left(2, 1), lost(0, 2, 1), finished(0, 2, -T0, -T0, status="lost", t=1)
    )

    run = runs.opened(tmp_path)

    assert run.counts == {Status.LOST: 1}
    assert next(run.jobs()).since is None


def steered(action, t, **rest):
    return event("steered", t, action=action, order=f"order{t}", **rest)


def test_a_paused_run_says_so_and_its_idle_evaluators_drain(going):
    run = runs.opened(going.path)
    going.add(steered("pause", 6), finished(4, 3, 3, 7, 0.5))

    run.refresh()

    assert (run.state, run.standing) == ("running", "paused")
    assert [e["action"] for e in run.steering] == ["pause"]
    seconds, _, _ = run.timeline.account(T0 + 17, True)
    assert seconds[Activity.DRAINING] == pytest.approx(10)
    going.add(steered("resume", 17))
    run.refresh()
    assert run.standing == "running"
    more, _, _ = run.timeline.account(T0 + 27, True)
    assert more[Activity.DRAINING] == pytest.approx(10)


def test_a_changed_number_of_evaluations_and_end_are_those_of_the_run(going):
    going.add(steered("max-evals", 6, max_evals=7), steered("deadline", 6.5, deadline=T0 + 99))

    run = runs.opened(going.path)

    assert (run.max_evals, run.deadline()) == (7, T0 + 99)
    seconds, _, _ = run.timeline.account(T0 + 8, True)
    going.add(finished(4, 3, 3, 7, 0.5))
    run.refresh()
    after, _, _ = run.timeline.account(T0 + 8, True)
    assert after[Activity.DRAINING] - seconds[Activity.DRAINING] == pytest.approx(1)
