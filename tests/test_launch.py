"""Finding the launcher and writing its command."""

import os
import signal
import stat

import pytest

from dhmpi import launch
from dhmpi.errors import DhmpiError

AMBS = ["ambs", "--problem", "p.Problem", "--run", "p.run"]


def fake(directory, text):
    path = directory / "mpiexec"
    path.write_text(f"#!/bin/sh\ncat <<'END'\n{text}\nEND\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


@pytest.mark.parametrize(
    ("text", "flavour", "version", "words"),
    [
        ("mpiexec (Open MPI) 5.0.11", "openmpi", (5, 0, 11), ["--with-ft", "ulfm", "--oversubscribe", "-n", "4"]),
        ("mpiexec (OpenRTE) 4.1.6\nOpen MPI v4.1.6", "openmpi", (4, 1, 6), ["--oversubscribe", "-n", "4"]),
        ("HYDRA build details:\n    Version:       5.0.2", "hydra", (5, 0, 2), ["-n", "4"]),
        ("Intel(R) MPI Library for Linux* OS, Version 2021.13", "hydra", (2021, 13), ["-n", "4"]),
        ("HPE Cray PALS 1.2", "other", (), ["-n", "4"]),
    ],
)
def test_each_launcher_gets_what_it_knows(tmp_path, text, flavour, version, words):
    path = fake(tmp_path, text)

    launcher = launch.identify(path)

    assert (launcher.flavour, launcher.version) == (flavour, version)
    assert launcher.command(4) == [path, *words]


def test_fault_tolerance_can_be_left_out(tmp_path):
    launcher = launch.identify(fake(tmp_path, "mpiexec (Open MPI) 5.0.11"))

    assert "ulfm" not in launcher.command(4, fault_tolerance=False)


def test_root_gets_what_open_mpi_asks_of_root(tmp_path, monkeypatch):
    launcher = launch.identify(fake(tmp_path, "mpiexec (Open MPI) 5.0.11"))
    monkeypatch.setattr(os, "geteuid", lambda: 0)

    assert launcher.environment()["OMPI_ALLOW_RUN_AS_ROOT"] == "1"


def test_a_named_launcher_that_is_not_there():
    with pytest.raises(DhmpiError, match="there is no mpiexec 'mpiexec-of-my-dreams'"):
        launch.find("mpiexec-of-my-dreams")


def test_dry_run_prints_the_command(tmp_path, capsys):
    path = fake(tmp_path, "HYDRA build details:\n    Version:       5.0.2")

    code = launch.main(["-n", "8", "--mpiexec", path, "--dry-run", *AMBS, "--kappa", "2"])

    assert code == 0
    line = capsys.readouterr().out.strip()
    assert line.startswith(f"{path} -n 8 ")
    assert line.endswith("-m dhmpi.ambs --problem p.Problem --run p.run --kappa 2")


@pytest.mark.parametrize(
    ("user", "start"),
    [(0, "env OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 {path} --with-ft"), (1000, "{path} --with-ft")],
    ids=["root", "another user"],
)
def test_the_printed_command_gives_root_the_permission_that_launch_gives(tmp_path, capsys, monkeypatch, user, start):
    path = fake(tmp_path, "mpiexec (Open MPI) 5.0.11")
    monkeypatch.setattr(os, "geteuid", lambda: user)

    launch.main(["-n", "8", "--mpiexec", path, "--dry-run", *AMBS])

    assert capsys.readouterr().out.startswith(start.format(path=path))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "the following arguments are required: -n/--ranks, program (see --help)"),
        (["-n", "2"], "the following arguments are required: program (see --help)"),
        (["-n", "abc", *AMBS], "argument -n/--ranks: invalid int value: 'abc' (see --help)"),
        (["-n", "2", "abms"], "argument program: invalid choice: 'abms'"),
        (["-n", "2", "--rank", "ambs"], "unrecognized arguments: --rank (see --help)"),
        (["-n", "0", *AMBS], "-n must be >= 1, got 0"),
        (["-n", "2", *AMBS, "--kappa", "-1"], "--kappa must be >= 0"),
        (["-n", "2", "ambs"], "--problem is missing"),
        (["-n", "2", "--mpiexec", "/no/such", *AMBS], "there is no mpiexec"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_starts(words, sentence, capsys):
    assert launch.main(words) == 2

    err = capsys.readouterr().err
    assert sentence in err
    assert err.startswith("dhmpi.launch: error: ")
    assert err.count("\n") == 1


def test_a_deadline_that_is_no_time_is_refused_before_anything_starts(monkeypatch, capsys):
    monkeypatch.setenv("DHMPI_DEADLINE", "soon")

    code = launch.main(["-n", "2", *AMBS])

    out, err = capsys.readouterr()
    sentence = "DHMPI_DEADLINE must be a time in seconds since the epoch, got 'soon'"
    assert (code, out, err) == (2, "", f"dhmpi.launch: error: {sentence}\n")


@pytest.fixture
def job(tmp_path):
    """Launch with a script in the place of mpiexec: `job(script)` -> exit code."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    handlers = {number: signal.getsignal(number) for number in numbers}

    def run(script):
        path = tmp_path / "mpiexec"
        path.write_text(f'#!/bin/sh\n[ "$1" = --version ] && echo "mpiexec (Open MPI) 5.0.11" && exit\n{script}\n')
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return launch.main(["-n", "2", "--mpiexec", str(path), *AMBS])

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("sent", "given", "code"),
    [
        ("INT", 1, 130),
        ("TERM", 1, 143),
        ("TERM", 15, 143),
        ("TERM", 0, 0),
        ("TERM", 2, 2),
        ("USR1", 0, 0),
        ("USR1", 1, 1),
    ],
)
def test_a_job_that_a_signal_ends_says_so_by_its_exit_code(job, capfd, sent, given, code):
    assert job(f"trap '' TERM USR1; kill -{sent} $PPID; sleep 0.2; exit {given}") == code

    assert (f"SIG{sent} has ended the job" in capfd.readouterr().out) == (code > 128)


@pytest.mark.parametrize(
    ("fails", "expected", "launches"), [(1, 0, 2), (9, launch.GAVE_UP, launch.TRIES)], ids=["once", "always"]
)
def test_a_launcher_that_gives_up_at_once_is_started_again(job, tmp_path, capfd, fails, expected, launches):
    count = tmp_path / "launches"

    code = job(f"echo >>{count}; [ $(wc -l <{count}) -gt {fails} ] || exit {launch.GAVE_UP}")

    assert code == expected
    assert len(count.read_text().splitlines()) == launches
    assert capfd.readouterr().out.count("once more") == launches - 1


def test_another_exit_code_is_the_end(job, tmp_path):
    assert job(f"echo >>{tmp_path}/launches; exit 7") == 7

    assert (tmp_path / "launches").read_text() == "\n"


def test_a_launcher_that_waits_for_nothing_is_killed(job, monkeypatch, capfd):
    monkeypatch.setattr(launch, "ASK_EVERY", 0.1)

    code = job("sleep 0.5\nexec sleep 600")

    assert code == 75
    assert "nothing is left that it started" in capfd.readouterr().out
