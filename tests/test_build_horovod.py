"""Building Horovod: what is looked at, what is kept under which name, what is refused.  Nothing is built here."""

import tarfile
from pathlib import Path

import pytest

from dhmpi.errors import DhmpiError
from dhmpi.nas.run import build_horovod

OPENMPI = "Open MPI v5.0.11, package: Open MPI user@localhost Distribution, ident: 5.0.11, Sep 16, 2026\0"
FOUND = {
    "tag": "cpython-311-linux-x86_64",
    "mpi": OPENMPI,
    "tensorflow": "2.21.0",
    "libraries": ["/opt/lib/libmpi.so.40"],
    "horovod": "0.28.1",
    "with_mpi": True,
    "built_for": "2.21.0",
    "libraries_then": ["/opt/lib/libmpi.so.40"],
}


def complaint(**changes):
    return build_horovod.environment({**FOUND, **changes}).complaint


def key(settings=build_horovod.SETTINGS, **changes):
    return build_horovod.environment({**FOUND, **changes}).key(settings)


def test_a_horovod_that_fits_is_left_alone():
    assert complaint() == ""


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"unusable": "ModuleNotFoundError: No module named 'horovod'"},
            "it cannot be imported (ModuleNotFoundError: ",
        ),
        ({"horovod": "0.27.0"}, "it is version 0.27.0 instead of 0.28.1"),
        ({"with_mpi": False}, "it was built without MPI"),
        ({"built_for": "2.16.1"}, "it was built for TensorFlow 2.16.1, but there is 2.21.0"),
        (
            {"libraries_then": ["/opt/lib/libmpi.so.40", "/usr/lib/libmpi.so.12"]},
            "it was built for another MPI than mpi4py: it loads /usr/lib/libmpi.so.12",
        ),
    ],
)
def test_a_horovod_that_does_not_fit_is_found(changes, words):
    assert complaint(**changes).startswith(words)


def test_what_is_missing_is_said():
    with pytest.raises(DhmpiError, match="cannot be imported .*; install it first"):
        build_horovod.environment({"tag": "x", "error": "TensorFlow cannot be imported (no)"})


def test_wheels_are_kept_by_all_that_they_depend_on():
    names = [
        key(),
        key(tensorflow="2.20.0"),
        key(tag="cpython-312-linux-x86_64"),
        key(mpi="MPICH Version:      5.0.2\nMPICH Release date: Fri Sep 25\0"),
        key({**build_horovod.SETTINGS, "HOROVOD_GPU_OPERATIONS": "NCCL"}),
    ]

    assert names[0] == "horovod-0.28.1-tensorflow-2.21.0-cpython-311-linux-x86-64-open-mpi-v5.0.11"
    assert names[3].endswith("-mpich-version-5.0.2")
    assert len(set(names)) == len(names)


def test_the_compiler_is_that_of_the_library(tmp_path):
    wrapper, library = tmp_path / "bin" / "mpicxx", tmp_path / "lib" / "x86_64" / "libmpi.so.40"
    wrapper.parent.mkdir()
    wrapper.touch()

    assert build_horovod.compiler_wrapper(library) == wrapper
    assert build_horovod.compiler_wrapper(None) is None


def test_the_source_that_cannot_be_compiled_is_left_out(tmp_path):
    listing = Path(f"horovod-{build_horovod.HOROVOD}", "horovod", "tensorflow", "CMakeLists.txt")
    (tmp_path / listing).parent.mkdir(parents=True)
    (tmp_path / listing).write_text('list(APPEND TF_SOURCES "mpi_ops.cc")\nlist(APPEND TF_SOURCES "xla_mpi_ops.cc")\n')
    with tarfile.open(tmp_path / "horovod.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / listing, listing)

    source = build_horovod.unpack(tmp_path / "horovod.tar.gz", tmp_path / "unpacked")

    assert (source / "horovod/tensorflow/CMakeLists.txt").read_text() == 'list(APPEND TF_SOURCES "mpi_ops.cc")\n'


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--sdist", "nowhere.tar.gz"], "nowhere.tar.gz cannot be read: No such file or directory"),
        (["--sdist", __file__], "is not the horovod-0.28.1.tar.gz of PyPI: its SHA-256 is "),
        (["--jobs", "0"], "--jobs must be >= 1, got 0"),
        (["--job", "2"], "unrecognized arguments: --job 2"),
    ],
)
def test_wrong_use_is_refused_in_a_sentence(words, said, capsys):
    assert build_horovod.main(words) == 2

    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1


def test_what_is_installed_already_is_not_built(monkeypatch, capsys):
    monkeypatch.setattr(build_horovod, "look", lambda: build_horovod.environment(FOUND))
    monkeypatch.setattr(build_horovod, "build", lambda *args: pytest.fail("built"))

    assert build_horovod.main([]) == 0

    assert capsys.readouterr().out.endswith("Horovod 0.28.1 is installed and works with them\n")


def test_a_wheel_that_was_kept_is_installed(monkeypatch, tmp_path, capsys):
    kept = tmp_path / key() / "horovod-0.28.1-cp311-cp311-linux_x86_64.whl"
    kept.parent.mkdir()
    kept.touch()
    looks = [{**FOUND, "unusable": "no"}, FOUND]
    installed = []
    monkeypatch.setattr(build_horovod, "look", lambda: build_horovod.environment(looks.pop(0)))
    monkeypatch.setattr(build_horovod, "build", lambda *args: pytest.fail("built"))
    monkeypatch.setattr(build_horovod, "_run", lambda command, failing: installed.append(command[-1]))
    for name in build_horovod.SETTINGS:
        monkeypatch.delenv(name, raising=False)

    assert build_horovod.main(["--cache", str(tmp_path)]) == 0

    assert set(installed) == {str(kept)}


def test_what_does_not_work_afterwards_is_said(monkeypatch, tmp_path, capsys):
    found = build_horovod.environment({**FOUND, "with_mpi": False})
    monkeypatch.setattr(build_horovod, "look", lambda: found)
    monkeypatch.setattr(build_horovod, "build", lambda *args: tmp_path)
    monkeypatch.setattr(build_horovod, "_run", lambda command, failing: None)

    assert build_horovod.main(["--cache", str(tmp_path)]) == 1

    assert capsys.readouterr().err.endswith("Horovod is installed but cannot be used: it was built without MPI\n")
