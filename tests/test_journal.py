"""The journal: torn tails, fences, and what is rebuilt from it."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dhmpi import journal
from dhmpi.errors import RunDirectoryError
from dhmpi.roles.events import finished_event
from dhmpi.trials import Loss, Outcome, Status, Trial

CONFIG = {"x": 0.1, "name": "ü, \n", "n": 3, "flag": True}


def placed(id_, attempt=0):
    return {"e": "placed", "t": 1.0, "trial": id_, "attempt": attempt, "rank": 1, "key": id_ + 5, "config": CONFIG}


def finished(id_, objective=1.0):
    status = Status.FAILED if objective is None else Status.DONE
    return finished_event(
        Outcome(id_, 0, status, objective, {"std": 0.5}, 1, "host", 1.0, 2.5, 1.5, "" if objective else "no"), 2.0
    )


def write(directory, launch, *events, epoch=0):
    written = journal.Journal(directory, launch, epoch, {"run": "abcd"})
    written.write(events)
    written.close()
    return written.path


def test_gives_back_what_was_written(tmp_path):
    write(tmp_path, 0, placed(0), placed(1), finished(0), placed(2), finished(1, None))

    history = journal.replay(tmp_path)

    assert list(history.finished) == [0, 1]
    outcome, trial = history.finished[0]
    assert trial == Trial(0, 5, CONFIG, 0)
    assert outcome == Outcome(0, 0, Status.DONE, 1.0, {"std": 0.5}, 1, "host", 1.0, 2.5, 1.5)
    assert history.finished[1][0].reason == "no"
    assert list(history.unfinished) == [2]


def test_integers_of_any_size_come_back(tmp_path):
    written = journal.Journal(tmp_path, 0, 0, {"run": "abc"})
    written.write([{"e": "note", "n": 1 << 80, "text": "\u00fc"}])
    written.close()

    _, event = journal.events(tmp_path)

    assert event == {"e": "note", "n": 1 << 80, "text": "\u00fc"}


def test_an_empty_or_missing_directory_is_an_empty_history(tmp_path):
    assert journal.replay(tmp_path / "nothing") == journal.History()


def test_a_line_torn_at_any_byte_loses_that_line_only(tmp_path):
    path = write(tmp_path, 0, placed(0), finished(0), placed(1))
    before = path.read_bytes()
    line = (json.dumps(finished(1)) + "\n").encode()

    for length in range(len(line) + 1):
        path.write_bytes(before + line[:length])
        history = journal.replay(tmp_path)

        whole = length == len(line)
        assert list(history.finished) == ([0, 1] if whole else [0])
        assert list(history.unfinished) == ([] if whole else [1])
        assert history.torn == (0 if whole else length)


def test_a_first_line_torn_at_any_byte_makes_the_file_count_for_nothing(tmp_path):
    write(tmp_path, 0, placed(0))
    path = write(tmp_path, 1)
    header = path.read_bytes()

    for length in range(len(header)):
        path.write_bytes(header[:length])

        assert list(journal.replay(tmp_path).unfinished) == [0]
        assert journal.next_launch(tmp_path) == 2


def test_the_next_launch_continues_after_a_torn_line(tmp_path):
    path = write(tmp_path, 0, placed(0), placed(1), finished(0))
    with path.open("ab") as stream:
        stream.write(b'{"e":"finis')

    write(tmp_path, 1, finished(1))

    assert list(journal.replay(tmp_path).finished) == [0, 1]


def test_what_a_fenced_writer_appends_later_does_not_count(tmp_path):
    path = write(tmp_path, 0, placed(0), placed(1), finished(0))
    write(tmp_path, 0, finished(1, 2.0), epoch=3)
    with path.open("ab") as stream:
        stream.write((json.dumps(finished(1, 9.0)) + "\n").encode())

    history = journal.replay(tmp_path)

    assert history.finished[1][0].objective == 2.0


def test_files_are_read_in_the_order_of_launches_and_epochs(tmp_path):
    for launch in range(12):
        write(tmp_path, launch, placed(launch))

    assert list(journal.replay(tmp_path).unfinished) == list(range(12))


def test_two_masters_cannot_write_one_file(tmp_path):
    write(tmp_path, 0)

    with pytest.raises(RunDirectoryError, match="cannot write the journal"):
        journal.Journal(tmp_path, 0, 0, {})


def test_the_first_outcome_of_a_trial_counts(tmp_path):
    write(tmp_path, 0, placed(0), finished(0, 1.0), finished(0, 2.0))

    assert journal.replay(tmp_path).finished[0][0].objective == 1.0


def test_a_broken_line_in_the_middle_is_an_error(tmp_path):
    path = write(tmp_path, 0)
    with path.open("ab") as stream:
        stream.write(b"garbage\n" + json.dumps(placed(0)).encode() + b"\n")

    with pytest.raises(RunDirectoryError, match="line 2 is no event"):
        journal.replay(tmp_path)


def test_a_newer_schema_is_refused(tmp_path):
    (tmp_path / "0.0.jsonl").write_text('{"e":"launch","schema":99,"launch":0,"epoch":0,"fence":[]}\n')

    with pytest.raises(RunDirectoryError, match="schema 99"):
        journal.replay(tmp_path)


def test_a_full_disk_is_an_error(monkeypatch, tmp_path):
    written = journal.Journal(tmp_path, 0, 0, {})
    with Path("/dev/full").open("wb") as full:
        monkeypatch.setattr(written, "_fd", full.fileno())

        with pytest.raises(RunDirectoryError, match="No space left"):
            written.write([placed(0)])


def launch(number=0, epoch=0, t=0.0):
    return {"e": "launch", "launch": number, "epoch": epoch, "t": t}


def given_to(rank, id_=0, attempt=0, **more):
    return {**placed(id_, attempt), "rank": rank, **more}


def lost(rank, id_=0, ran=True, died=True, host="host"):
    return {"e": "lost", "t": 1.5, "trial": id_, "rank": rank, "host": host, "ran": ran, "died": died, "reason": "no"}


def happened(kind, rank, t=1.5, id_=0):
    return {"e": kind, "t": t, "rank": rank, "trial": id_}


def history(*events):
    result = journal.History()
    for event in events:
        result.apply(event)
    return result


@pytest.mark.parametrize(
    ("events", "holders"),
    [
        ([given_to(1)], [1]),
        ([given_to(1), given_to(2, copy=True)], [1, 2]),
        ([given_to(1), given_to(2, copy=True), lost(1)], [2]),
        ([given_to(1), given_to(2, copy=True), happened("returned", 2)], [1]),
        ([given_to(1), happened("returned", 1)], []),
        ([given_to(1), happened("cancelled", 1)], []),
        ([given_to(1), lost(1)], []),
        ([given_to(1), lost(1), given_to(2, attempt=1)], [2]),
        ([given_to(1), lost(1), happened("kept", 1)], [1]),
        ([given_to(1), lost(1), given_to(2, attempt=1), happened("returned", 1)], [2]),
        ([given_to(1), launch(0, 1)], [1]),
        ([given_to(1), launch(1)], []),
        ([given_to(1), finished(0), happened("kept", 1)], []),
        ([given_to(1), finished(0), given_to(2, copy=True)], []),
    ],
)
def test_holders_are_the_ranks_that_a_trial_was_given_to(events, holders):
    assert history(launch(), *events).holders.get(0, []) == holders


def test_unfinished_trials_have_the_order_in_which_they_were_last_given_out():
    h = history(launch(), given_to(1, 0), given_to(2, 1), lost(1, 0), given_to(2, 0, 1))

    assert list(h.unfinished) == [1, 0]


def test_losses_are_those_of_evaluators_that_ran_the_trial():
    h = history(
        launch(),
        given_to(1),
        lost(1, ran=False),
        given_to(2),
        lost(2, host="a"),
        given_to(3, attempt=1),
        lost(3, died=False),
    )

    assert h.losses == {0: [Loss("a", True), Loss("host", False)]}
    assert h.unfinished[0].attempt == 2
    assert h.n_retried == 2


def test_a_loss_that_somebody_else_outlives_is_no_retry():
    h = history(launch(), given_to(1), given_to(2, copy=True), lost(1))

    assert h.losses == {0: [Loss("host", True)]}
    assert (h.n_retried, h.unfinished[0].attempt) == (0, 0)


def test_a_loss_of_a_rank_that_has_not_got_the_trial_does_not_count():
    h = history(launch(), given_to(1), lost(2))

    assert (h.losses, h.n_retried, h.holders) == ({}, 0, {0: [1]})


def test_a_trial_that_was_given_up_was_not_tried_again():
    given_up = {**finished(0, None), "status": "lost"}

    h = history(launch(), given_to(1), lost(1), given_to(2, attempt=1), lost(2), given_up)

    assert (h.n_retried, h.losses) == (1, {})


def test_losses_and_counts_are_those_of_a_launch_whoever_is_its_master():
    events = [given_to(1), lost(1), happened("chaos", 1)]
    heirs, resumed = history(launch(), *events, launch(0, 1)), history(launch(), *events, launch(1))

    assert (heirs.losses, heirs.n_killed, heirs.n_retried) == ({0: [Loss("host", True)]}, 1, 1)
    assert (resumed.losses, resumed.n_killed, resumed.n_retried) == ({}, 0, 0)


def test_a_trial_of_an_earlier_launch_is_another_attempt():
    assert history(launch(), given_to(1), launch(1)).unfinished[0].attempt == 1
    assert history(launch(), given_to(1), launch(0, 1)).unfinished[0].attempt == 0


def test_presence_is_when_evaluators_joined_and_left():
    h = history(
        launch(),
        *(happened("joined", rank, 1.0) for rank in (1, 2, 3)),
        happened("left", 1, 4.0),
        launch(0, 1),
        happened("joined", 2, 5.0),
        happened("left", 3, 6.0),
        happened("joined", 3, 7.0),
    )

    assert h.presence == {1: [1.0, 4.0], 2: [1.0], 3: [1.0]}
    h.apply(launch(1))
    assert h.presence == {}


def test_why_a_launch_stopped_is_known_to_all_its_masters():
    events = [launch(), {"e": "stopping", "t": 1.0, "reason": "a signal"}, {"e": "ended", "t": 2.0}]

    heirs, resumed = history(*events, launch(0, 1)), history(*events, launch(1))

    assert (heirs.last_stop, heirs.ended) == ("a signal", True)
    assert (resumed.last_stop, resumed.ended) == ("", False)


def test_an_exhausted_space_is_known_to_all_masters_of_a_launch():
    asked = {"e": "asked", "t": 1.0, "ask": 4, "exhausted": True}

    h = history(launch(), asked, launch(0, 1))
    assert (h.exhausted, h.n_asks) == (True, 5)
    assert not history(launch(), asked, {**asked, "ask": 5, "exhausted": False}).exhausted
    h.apply(launch(1))

    assert (h.exhausted, h.n_asks) == (False, 5)


def test_a_launch_began_with_its_first_master():
    h = history(launch(0, 0, 1.0), launch(1, 0, 20.0), launch(1, 2, 30.0), launch(1, 5, 40.0))

    assert h.began == 20.0
    assert h.n_launches == 2


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 2), max_size=30), st.integers(0, 400))
def test_any_cut_of_any_journal_can_be_read(tmp_path_factory, kinds, cut):
    directory = tmp_path_factory.mktemp("journal")
    events = []
    for number, kind in enumerate(kinds):
        events.append(placed(number))
        if kind:
            events.append(finished(number, None if kind == 1 else 1.5))
    path = write(directory, 0, *events)
    data = path.read_bytes()
    path.write_bytes(data[: max(0, len(data) - cut)])

    history = journal.replay(directory)

    assert set(history.finished).isdisjoint(history.unfinished)
    n_whole = path.read_bytes().count(b'"e":"placed"')
    assert n_whole - 1 <= len(history.finished) + len(history.unfinished) <= n_whole
