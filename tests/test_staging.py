"""Copies on a node: what is in them, where they lie, who uses them, and what cannot be copied."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import dhmpi
from dhmpi.errors import OptionError
from dhmpi.mpi import stage as over_mpi
from dhmpi.options import AmbsOptions
from dhmpi.staging import VARIABLE, Place, Staged, StagingError, import_copies, look, moved, moved_name, packed

HOLD = """
import sys
from pathlib import Path
from dhmpi.staging import Place
place = Place(Path(sys.argv[1]), sys.argv[2])
place.hold()
print("held", flush=True)
sys.stdin.readline()
place.release()
"""


@pytest.fixture
def tree(tmp_path):
    """A directory with one of everything."""
    top = tmp_path / "code"
    (top / "package/deep").mkdir(parents=True)
    (top / "package/__init__.py").write_text("NAME = 'package'\n")
    (top / "package/deep/data.bin").write_bytes(bytes(range(256)) * 20000)
    (top / "empty").touch()
    (top / "run.sh").write_text("#!/bin/sh\n")
    (top / "run.sh").chmod(0o755)
    (top / "link").symlink_to("package/__init__.py")
    (top / "nowhere").symlink_to("/does/not/exist")
    (top / ("long " * 30)).mkdir()
    (top / ("long " * 30) / "ümlaut").write_text("x")
    return top


def copied(content, directory):
    place = Place(directory, content.digest)
    place.hold()
    place.fill(packed(content))
    return place


def described(top):
    return {
        str(path.relative_to(top)): (
            stat.S_IMODE(path.lstat().st_mode),
            path.readlink() if path.is_symlink() else path.read_bytes() if path.is_file() else None,
            None if path.is_symlink() else int(path.stat().st_mtime),
        )
        for path in top.rglob("*")
    }


def test_a_copy_is_as_its_original(tree, tmp_path):
    content = look([str(tree)])

    place = copied(content, tmp_path / "disk")

    assert described(place.copy / "code") == described(tree)
    assert content.n_bytes == 256 * 20000 + len("NAME = 'package'\n#!/bin/sh\nx")
    assert [path.name for path in place.copy.parent.iterdir() if path.name.startswith(".")] == []


def test_a_file_may_be_named_and_a_link_is_followed(tmp_path):
    (tmp_path / "data.csv").write_text("1,2\n")
    (tmp_path / "again").symlink_to("data.csv")

    place = copied(look([str(tmp_path / "data.csv"), str(tmp_path / "again")]), tmp_path / "disk")

    assert sorted(path.name for path in place.copy.iterdir()) == ["again", "data.csv"]
    assert not (place.copy / "again").is_symlink()
    assert (place.copy / "again").read_text() == "1,2\n"


def test_the_digest_is_that_of_the_content(tree):
    before = look([str(tree)]).digest
    os.utime(tree / "empty", (1, 1))
    assert look([str(tree)]).digest == before

    (tree / "empty").write_text("!")
    changed = look([str(tree)]).digest
    (tree / "empty").chmod(0o700)

    assert len({before, changed, look([str(tree)]).digest}) == 3


def test_runs_and_the_run_directory_are_left_out(tree):
    before = look([str(tree)])
    (tree / "dhmpi-runs").mkdir()
    (tree / "dhmpi-runs/journal").touch()
    (tree / "mine").mkdir()

    assert look([str(tree)], without=tree / "mine") == before


def test_the_last_user_of_a_copy_removes_it(tree, tmp_path):
    content, disk = look([str(tree)]), tmp_path / "disk"
    place = copied(content, disk)
    words = [sys.executable, "-c", HOLD, str(disk), content.digest]
    other = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "held\n"

    place.release()
    assert place.has_it()
    other.communicate("\n", timeout=30)

    assert list(disk.iterdir()) == []


def test_a_copy_that_is_kept_is_found_again(tree, tmp_path):
    content = look([str(tree)])
    copied(content, tmp_path / "disk").release(keep=True)

    again = Place(tmp_path / "disk", content.digest)
    again.hold()

    assert again.has_it()
    again.release()
    assert not again.has_it()


# -- what is refused


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda top: top / "missing", "cannot read .*missing: No such file"),
        (lambda top: os.mkfifo(top / "pipe") or top, "pipe: it is neither a file"),
        (lambda top: Path("/"), "the whole file system"),
    ],
)
def test_what_cannot_be_read_is_refused(tree, make, words):
    with pytest.raises(StagingError, match=words):
        look([str(make(tree))])


def test_two_things_of_one_name_are_refused(tree):
    with pytest.raises(StagingError, match="several things called package"):
        look([str(tree / "package"), str(tree / "empty" / ".." / "package")])


def test_a_disk_that_is_no_directory_or_too_small_or_of_somebody_else_is_refused(tree, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StagingError, match="cannot write .*: Not a directory"):
        Place(tmp_path / "file", "0").hold()
    place = Place(tmp_path / "disk", "0")
    place.hold()
    with pytest.raises(StagingError, match=r"needs 1000000000000.0 MB, and .* has .* MB left"):
        place.check_room(10**18)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / f"dhmpi-staged-{os.getuid()}").symlink_to(tmp_path)
    with pytest.raises(StagingError, match="belongs to somebody else"):
        Place(tmp_path / "other", "0").hold()


def test_a_copy_that_breaks_off_leaves_nothing(tree, tmp_path):
    content = look([str(tree)])
    (tree / "package/deep/data.bin").write_bytes(b"short")
    place = Place(tmp_path / "disk", content.digest)
    place.hold()

    with pytest.raises(StagingError, match="has become shorter"):
        place.fill(packed(content))

    assert [path.name for path in place.copy.parent.iterdir()] == [f"{content.digest}.lock"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"stage_to": "/tmp"}, "need --stage"),
        ({"keep_staged": True}, "need --stage"),
        ({"stage": ":"}, "names nothing"),
        ({"stage": "a", "evaluator": "inline"}, "needs --evaluator process or group"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, words):
    with pytest.raises(OptionError, match=words):
        AmbsOptions(problem="a.b", run="a.c", **options).check()


# -- how copies are used


def test_paths_move_with_what_is_copied():
    paths = {"/home/me": "/d/me", "/home/me/code": "/d/code"}

    assert moved("/home/me", paths) == "/d/me"
    assert moved("/home/mean", paths) == "/home/mean"
    assert moved_name("/home/me/code/x.py:run", paths) == "/d/code/x.py:run"
    assert moved_name("package.run", paths) == "package.run"


def test_a_study_in_the_working_directory_moves_only_with_a_copy(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    assert moved_name("study.py", {"/home": "/d"}) == "study.py"
    assert moved_name("a/study.py:go", {str(tmp_path / "a"): "/d/a"}) == "/d/a/study.py:go"


def test_an_evaluation_looks_for_modules_and_programs_in_the_copies(tmp_path, monkeypatch):
    staged = Staged(("/home/me/code", "/opt/venv"), Place(tmp_path, "d"), 1, 1, 1, 0, 1.0)
    copy = staged.place.copy

    environment = staged.environment({"PYTHONPATH": "/home/me/code:/else:", "PATH": "/bin:/opt/venv/bin", "HOME": "/x"})

    assert environment["PYTHONPATH"] == f"{copy}/code:/else:"
    assert environment["PATH"] == f"/bin:{copy}/venv/bin"
    assert environment.keys() == {"PYTHONPATH", "PATH", VARIABLE}
    monkeypatch.setenv(VARIABLE, environment[VARIABLE])
    assert dhmpi.staged("/home/me/code/data.npz") == copy / "code/data.npz"
    monkeypatch.delenv(VARIABLE)
    assert dhmpi.staged("data.npz") == Path("data.npz")


def test_a_process_that_has_begun_imports_copies_from_then_on(monkeypatch):
    monkeypatch.setattr(sys, "path", ["/home/me/code", "/home/me/code/lib", "/else"])
    import_copies()
    assert sys.path == ["/home/me/code", "/home/me/code/lib", "/else"]

    monkeypatch.setenv(VARIABLE, json.dumps({"/home/me/code": "/d/code"}))
    import_copies()

    assert sys.path == ["/d/code", "/d/code/lib", "/else"]


# -- how they travel


def test_every_node_but_the_first_hears_from_one_before_it():
    for n in (1, 2, 3, 7, 128):
        heard = [child for i in range(n) for child in over_mpi.children(i, n)]
        assert sorted(heard) == list(range(1, n))
        assert all(i < child for i in range(n) for child in over_mpi.children(i, n))


@pytest.mark.parametrize("sizes", [[], [5], [over_mpi.PIECE], [over_mpi.PIECE - 1, 3], [10**6] * 5])
def test_messages_hold_all_pieces(sizes):
    pieces = [os.urandom(size) for size in sizes]

    messages = [bytes(message) for message in over_mpi._made(pieces)]

    lengths = [int.from_bytes(message[: over_mpi.HEAD], "little") for message in messages]
    assert b"".join(m[over_mpi.HEAD : over_mpi.HEAD + n] for m, n in zip(messages, lengths, strict=True)) == b"".join(
        pieces
    )
    assert all(n == over_mpi.PIECE for n in lengths[:-1])
    assert lengths[-1] < over_mpi.PIECE
