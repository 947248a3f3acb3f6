"""The run directory: fresh, resumed, locked, refused, discarded."""

import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dhmpi import journal, platform
from dhmpi.errors import RunDirectoryError
from dhmpi.rundirectory import default_path, described, prepare, same_object


def record(directory):
    journal.Journal(directory.journal, 0, 0, {"run": directory.run_id}).close()


def lock(path, **changes):
    holder = {
        "host": os.uname().nodename,
        "pid": os.getpid(),
        "process_start": platform.start_time(os.getpid()),
        "job": None,
        "renewed": time.time(),
    }
    path.mkdir(exist_ok=True)
    (path / "lock").write_text(json.dumps({**holder, **changes}))


def test_makes_a_fresh_directory_and_locks_it(tmp_path):
    directory = prepare(tmp_path / "a" / "run", resume=False)

    assert directory.fresh
    assert len(directory.run_id) == 8
    assert json.loads(directory.lock.read_text())["pid"] == os.getpid()


def test_resume_keeps_the_run_id(tmp_path):
    first = prepare(tmp_path / "run", resume=False)
    record(first)
    first.release()

    again = prepare(tmp_path / "run", resume=True)

    assert again.run_id == first.run_id
    assert not again.fresh


def test_resume_of_nothing_starts(tmp_path):
    assert prepare(tmp_path / "run", resume=True).fresh


def test_a_run_is_not_overwritten(tmp_path):
    first = prepare(tmp_path / "run", resume=False)
    record(first)
    first.release()

    with pytest.raises(RunDirectoryError, match="--resume"):
        prepare(tmp_path / "run", resume=False)


def test_a_directory_of_something_else_is_refused_and_untouched(tmp_path):
    (tmp_path / "thesis.tex").write_text("years")

    with pytest.raises(RunDirectoryError, match="holds no run"):
        prepare(tmp_path, resume=True)
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_living_holder_on_this_host_keeps_the_lock(tmp_path):
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        lock(tmp_path, pid=process.pid, process_start=platform.start_time(process.pid))

        with pytest.raises(RunDirectoryError, match=f"in use by process {process.pid}"):
            prepare(tmp_path, resume=True)
        process.stdin.close()


def test_a_dead_holder_on_this_host_loses_the_lock(tmp_path):
    lock(tmp_path, process_start=-1)

    assert prepare(tmp_path, resume=True).fresh


@pytest.mark.parametrize(("age", "lives"), [(5, True), (60, False)])
def test_a_holder_on_another_host_lives_while_it_renews(tmp_path, age, lives):
    lock(tmp_path, host="elsewhere", renewed=time.time() - age)

    if lives:
        with pytest.raises(RunDirectoryError, match="on elsewhere"):
            prepare(tmp_path, resume=True)
    else:
        prepare(tmp_path, resume=True)


def test_a_torn_lock_is_taken_over(tmp_path):
    (tmp_path / "lock").write_text('{"host": "x')

    prepare(tmp_path, resume=True)

    assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()


def test_discard_leaves_nothing_of_a_fresh_run(tmp_path):
    directory = prepare(tmp_path / "dhmpi-runs" / "default" / "ambs_1", resume=False)
    (directory.path / "search.out").write_text("words")

    directory.discard()

    assert list(tmp_path.iterdir()) == []


def test_discard_keeps_an_earlier_run(tmp_path):
    first = prepare(tmp_path / "run", resume=False)
    record(first)
    first.release()

    prepare(tmp_path / "run", resume=True).discard()

    assert list(journal.replay(first.journal).headers)
    assert not first.lock.exists()


def test_an_unwritable_place_is_refused():
    with pytest.raises(RunDirectoryError, match="cannot make the run directory /proc/"):
        prepare(Path("/proc/nothing/run"), resume=False)


@pytest.mark.parametrize("reason", [errno.EROFS, errno.EACCES], ids=["read-only", "somebody else's"])
def test_a_run_that_cannot_be_written_is_refused_with_the_reason(tmp_path, monkeypatch, reason):
    first = prepare(tmp_path / "run", resume=False)
    record(first)
    first.release()
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
    really_open = os.open

    def refused(path, flags, *rest, **names):
        if flags & (os.O_WRONLY | os.O_RDWR):
            raise OSError(reason, os.strerror(reason))
        return really_open(path, flags, *rest, **names)

    monkeypatch.setattr(os, "open", refused)

    with pytest.raises(RunDirectoryError) as refusal:
        prepare(tmp_path / "run", resume=True)

    assert str(refusal.value) == f"cannot write into the run directory {tmp_path / 'run'}: {os.strerror(reason)}"
    assert sorted(tmp_path.rglob("*")) == before


def test_default_paths_differ():
    path = default_path("TEST", "test")

    assert path.parent.as_posix() == "dhmpi-runs/TEST"
    assert path != default_path("TEST", "test")


def test_names_are_found_from_another_directory_but_dotted_ones_and_commands_are_as_they_were(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    home = tmp_path / "home"
    for problem, found in (
        ("study.py:small", f"{home}/study.py:small"),
        ("/elsewhere/study.py", "/elsewhere/study.py"),
        ("models.pytorch.Problem", "models.pytorch.Problem"),
    ):
        content = {"problem": problem, "function": "cmd:python train.py", "home": str(home)}
        (tmp_path / "run.json").write_text(json.dumps(content))

        read = described(tmp_path, "problem")

        assert (read["problem"], read["function"]) == (found, "cmd:python train.py")


@pytest.mark.parametrize(
    ("name", "other", "same"),
    [
        ("study.py", "/here/study.py", True),
        ("study.py:a", "/here/study.py:b", False),
        ("../here/study.py", "study.py", True),
        ("models.pytorch.run", "models.pytorch.run", True),
        ("models.pytorch.run", "/here/models.pytorch.run", False),
    ],
)
def test_a_file_is_the_same_by_another_path(name, other, same):
    assert same_object(name, "/here", other, "/here") is same
