"""Following a journal while it is written: what a `Tail` gives is what `events` gives, whenever it looks."""

import json
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dhmpi import journal
from dhmpi.errors import RunDirectoryError

HEADER = {"run": "abcd", "t": 1.0}


def note(n, **rest):
    return {"e": "note", "n": n, **rest}


def read(tail):
    return [event for batch in tail.read() for event in batch]


def write(directory, launch, *events, epoch=0):
    written = journal.Journal(directory, launch, epoch, HEADER)
    written.write(events)
    return written


def test_each_look_brings_only_what_is_new(tmp_path):
    written = write(tmp_path, 0, note(0), note(1))
    tail = journal.Tail(tmp_path)

    first = read(tail)
    written.write([note(2)])
    second, third = read(tail), read(tail)

    assert [event["e"] for event in first] == ["launch", "note", "note"]
    assert second == [note(2)]
    assert third == []


def test_a_journal_that_is_not_there_yet_has_no_events(tmp_path):
    tail = journal.Tail(tmp_path / "later")

    before = read(tail)
    write(tmp_path / "later", 0, note(0))

    assert before == []
    assert len(read(tail)) == 2


def test_a_line_that_is_being_written_comes_when_it_is_whole(tmp_path):
    path = write(tmp_path, 0).path
    tail = journal.Tail(tmp_path)
    read(tail)
    line = json.dumps(note(7)).encode() + b"\n"
    seen = []

    for byte in line:
        with path.open("ab") as stream:
            stream.write(bytes([byte]))
        seen.append(read(tail))

    assert seen[:-1] == [[]] * (len(line) - 1)
    assert seen[-1] == [note(7)]


def test_a_new_master_is_followed_and_what_the_old_one_adds_does_not_count(tmp_path):
    old = write(tmp_path, 0, note(0))
    tail = journal.Tail(tmp_path)
    read(tail)
    old.write([note(1)])
    new = write(tmp_path, 0, note(2), epoch=3)
    old.write([note(99)])

    events = read(tail)

    assert [event.get("n") for event in events] == [1, None, 2]
    assert not tail.stale()
    new.write([note(3)])
    assert read(tail) == [note(3)]


def test_a_tail_that_has_read_what_is_fenced_off_knows_it(tmp_path):
    old = write(tmp_path, 0, note(0))
    fenced = journal._whole(old.path)
    old.write([note(99)])
    tail = journal.Tail(tmp_path)
    read(tail)
    assert not tail.stale()

    header = {"e": "launch", "schema": 1, "launch": 0, "epoch": 1, "fence": [{"file": old.path.name, "bytes": fenced}]}
    (tmp_path / "0.1.jsonl").write_text(json.dumps(header) + "\n")

    assert tail.stale()
    assert [event.get("n") for event in read(journal.Tail(tmp_path))] == [None, 0, None]


def test_lines_longer_than_a_chunk_and_integers_of_any_size_come_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(journal, "CHUNK", 64)
    events = [note(1 << 80), note(0, text="x" * 1000), note(1)]
    write(tmp_path, 0, *events)

    assert read(journal.Tail(tmp_path))[1:] == events


@pytest.mark.parametrize("line", [b"garbage", b"5", b"{}", b'{"n":1}'])
def test_a_broken_line_is_named(tmp_path, line):
    path = write(tmp_path, 0, note(0)).path
    tail = journal.Tail(tmp_path)
    read(tail)
    with path.open("ab") as stream:
        stream.write(json.dumps(note(1)).encode() + b"\n" + line + b"\n")

    with pytest.raises(RunDirectoryError, match="line 4 is no event of a journal"):
        read(tail)


def test_a_newer_schema_is_refused(tmp_path):
    (tmp_path / "0.0.jsonl").write_text('{"e":"launch","schema":99,"launch":0,"epoch":0,"fence":[]}\n')

    with pytest.raises(RunDirectoryError, match="schema 99"):
        read(journal.Tail(tmp_path))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_however_often_it_looks_it_reads_the_whole(tmp_path_factory, data):
    directory = tmp_path_factory.mktemp("journal")
    tail, seen, n = journal.Tail(directory), [], 0
    try:
        for launch in range(data.draw(st.integers(1, 3))):
            for epoch in range(data.draw(st.integers(1, 2))):
                written = write(directory, launch, epoch=epoch)
                for _ in range(data.draw(st.integers(0, 4))):
                    size = data.draw(st.integers(0, 3))
                    written.write([note(n + i, text="ü" * i) for i in range(size)])
                    n += size
                    if data.draw(st.booleans()):
                        assert not tail.stale()
                        seen += read(tail)
                if data.draw(st.booleans()):
                    with written.path.open("ab") as stream:
                        stream.write(b'{"e":"torn')
        seen += read(tail)

        assert seen == list(journal.events(directory))
    finally:
        shutil.rmtree(directory)
