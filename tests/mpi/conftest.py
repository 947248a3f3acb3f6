"""Launches real programs under mpiexec, with a hard time limit, and looks for what they leave behind."""

import contextlib
import os
import subprocess
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

import pytest

from dhmpi import platform

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PYTHONS = {"openmpi": ROOT / ".venv/bin/python", "mpich": ROOT / ".venv-mpich/bin/python"}
MARK = "DHMPI_TEST_LAUNCH"
RANKS = ("OMPI_COMM_WORLD_RANK", "PMI_RANK")


@dataclass
class Ended:
    """What a launch has left."""

    code: int
    out: str
    err: str
    seconds: float


def command_of(pid):
    """Return the command line of a process, empty if it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


class Launch:
    """A program under mpiexec.

    Every process of it carries a mark in its environment, so that those which outlive it can be found: at the time
    limit all are killed, and at the end of every launch there must be none.
    """

    def __init__(self, python, words, cwd, timeout, environment=None):
        self.mark = uuid.uuid4().hex
        self.timeout = timeout
        self.began = time.monotonic()
        # The ranks must not take part in a launch that the tests themselves are part of.
        env = {name: value for name, value in os.environ.items() if not name.startswith(("OMPI_", "PMI", "PRTE"))}
        env |= {
            MARK: self.mark,
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONPATH": f"{ROOT}{os.pathsep}{cwd}",
            **(environment or {}),
        }
        self.out_path, self.err_path = cwd / f"{self.mark}.out", cwd / f"{self.mark}.err"
        with self.out_path.open("wb") as out, self.err_path.open("wb") as err:
            self.process = self.popen(
                python,
                words,
                cwd=cwd,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    def popen(self, python, words, **options):
        return subprocess.Popen([str(python), "-m", *map(str, words)], **options)

    @property
    def out(self):
        return self.out_path.read_text(errors="replace")

    def processes(self):
        return platform.marked_processes(MARK, self.mark)

    def rank(self, rank):
        """Return the process id of a rank, None if there is none."""
        for pid in self.processes():
            try:
                environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
                command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"-m" in command[:2] and any(f"{name}={rank}".encode() in environment for name in RANKS):
                return pid
        return None

    def running(self, module):
        """Return the processes that run a module of dhmpi."""
        found = []
        for pid in self.processes():
            try:
                if module.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                    found.append(pid)
            except OSError:
                continue
        return found

    def kill(self):
        """Kill -9 everything at once."""
        while pids := self.processes():
            platform.kill(pids)
            self.process.poll()
            time.sleep(0.01)
        self.process.wait()

    def wait(self):
        try:
            code = self.process.wait(max(0.1, self.timeout - (time.monotonic() - self.began)))
        except subprocess.TimeoutExpired:
            self.kill()
            pytest.fail(f"no end after {self.timeout} s\n{self.out}\n{self.err_path.read_text(errors='replace')}")
        seconds = time.monotonic() - self.began
        deadline = time.monotonic() + 5
        while (left := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.05)
        if left:
            commands = [command_of(pid) for pid in left]
            self.kill()
            pytest.fail(f"outlived the launch: {commands}")
        return Ended(code, self.out, self.err_path.read_text(errors="replace"), seconds)


@pytest.fixture(params=sorted(PYTHONS))
def mpi(request):
    """The name of an MPI; the test runs under each."""
    if not PYTHONS[request.param].exists():
        pytest.fail(f"{PYTHONS[request.param]} is missing: `make test` installs it")
    return request.param


@contextlib.contextmanager
def launching(make):
    """Return a function that launches what `make` makes; at the end nothing of it is left.

    What the launches have printed is shown if the test fails.
    """
    launches = []

    def start(*args, **kwargs):
        launches.append(make(*args, **kwargs))
        return launches[-1]

    yield start
    for launch in launches:
        launch.kill()
        print(launch.out, launch.err_path.read_text(errors="replace"), sep="\n")


@pytest.fixture
def start(mpi, tmp_path):
    """Start `n` ranks of a search: `start(n, "ambs", ...)`; 0 ranks: without a launcher."""

    def make(n, program, *words, timeout=120, environment=None, cwd=None):
        launcher = ["dhmpi.launch", "-n", n, program] if n else [f"dhmpi.{program}"]
        return Launch(PYTHONS[mpi], [*launcher, *words], cwd or tmp_path, timeout, environment)

    with launching(make) as start_:
        yield start_


@pytest.fixture
def run(start):
    """Run `n` ranks of a search to their end."""

    def run_(*args, **kwargs):
        return start(*args, **kwargs).wait()

    return run_
