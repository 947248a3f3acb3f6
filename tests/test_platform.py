"""What the operating system tells about processes, with and without /proc."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from evaluating import until

from dhmpi import platform

PARENT = (
    "import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', {child!r}]); "
    "print(p.pid, flush=True); p.wait()"
)
CHILD = "x = b'x' * (40 << 20); print('ready', flush=True); import time; time.sleep(60)"

with_and_without_proc = pytest.mark.parametrize("has_proc", [True, False])


@pytest.fixture
def family():
    """Two processes, the second with 40 MB a child of the first."""
    parent = subprocess.Popen([sys.executable, "-c", PARENT.format(child=CHILD)], stdout=subprocess.PIPE, text=True)
    lines = {parent.stdout.readline().strip(), parent.stdout.readline().strip()}
    (child,) = (int(line) for line in lines - {"ready"})
    yield parent.pid, child
    platform.kill([child, parent.pid])
    parent.wait()
    parent.stdout.close()


@pytest.fixture
def proc(has_proc, monkeypatch):
    if has_proc and not platform.HAS_PROC:
        pytest.skip("there is no /proc")
    monkeypatch.setattr(platform, "HAS_PROC", has_proc)


@with_and_without_proc
@pytest.mark.usefixtures("proc")
def test_a_family_is_found(family):
    parent, child = family

    assert platform.children(parent) == [child]
    assert platform.descendants(parent) == [child]
    assert {parent, child} <= set(platform.descendants(os.getpid()))
    assert platform.children(child) == []


@with_and_without_proc
@pytest.mark.usefixtures("proc")
def test_memory_of_a_family_is_that_of_its_members(family):
    parent, child = family

    assert 40 < platform.rss_mb(child) < 80
    assert platform.tree_rss_mb(parent) == pytest.approx(platform.rss_mb(parent) + platform.rss_mb(child), abs=1)
    assert platform.tree_rss_mb(child) == pytest.approx(platform.rss_mb(child), abs=1)


@with_and_without_proc
@pytest.mark.usefixtures("proc")
def test_nothing_is_known_of_a_process_that_has_gone():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()

    assert platform.children(process.pid) == []
    assert platform.descendants(process.pid) == []
    assert platform.rss_mb(process.pid) == 0
    platform.kill([process.pid])
    platform.kill_group(process.pid)


@pytest.mark.skipif(not platform.HAS_PROC, reason="needs /proc")
def test_shared_pages_count_once_where_it_matters():
    block = b"x" * (50 << 20)
    reading, writing = os.pipe()
    pids = []
    for _ in range(3):
        pid = os.fork()
        if pid == 0:
            os.write(writing, block[:1])
            time.sleep(60)
            os._exit(0)
        pids.append(pid)
    for _ in pids:
        os.read(reading, 1)

    rough, careful = platform.tree_rss_mb(os.getpid()), platform.tree_rss_mb(os.getpid(), enough=1.0)

    platform.kill(pids)
    for pid in pids:
        os.waitpid(pid, 0)
    os.close(reading)
    os.close(writing)
    assert rough > careful + 100
    assert careful > 50


@pytest.mark.skipif(not platform.HAS_PROC, reason="needs /proc")
def test_start_time_tells_processes_apart():
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)

    mine, its = platform.start_time(os.getpid()), platform.start_time(process.pid)
    process.communicate(b"\n")

    assert mine is not None
    assert its is not None
    assert mine <= its
    assert platform.start_time(process.pid) is None


@pytest.mark.skipif(not platform.HAS_PROC, reason="needs /proc")
def test_a_zombie_has_gone():
    process = subprocess.Popen([sys.executable, "-c", ""])

    assert until(lambda: platform.start_time(process.pid) is None)
    process.wait()


@pytest.mark.skipif(not platform.HAS_PROC, reason="needs /proc")
def test_leftovers_are_found_by_environment_and_by_name():
    code = "from dhmpi import platform; platform.set_process_name(platform.keeper_name('feedbeef00')); input()"
    by_name = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
    marked = {**os.environ, "DHMPI_RUN": "feedbeef00"}
    by_mark = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, env=marked)
    expected = sorted([by_name.pid, by_mark.pid])

    found = until(lambda: platform.leftovers("feedbeef00") == expected)
    for process in (by_name, by_mark):
        process.communicate(b"\n")

    assert found
    assert platform.leftovers("feedbeef00") == []


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs prctl")
def test_a_process_ends_with_its_parent_if_it_wants():
    child = (
        "from dhmpi import platform; import os, time\n"
        "print(platform.set_parent_death_signal(), os.getpid(), flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"],
        stdout=subprocess.PIPE,
        text=True,
    )
    worked, pid = parent.stdout.readline().split()

    parent.send_signal(signal.SIGKILL)
    gone = until(lambda: platform.start_time(int(pid)) is None)

    parent.wait()
    parent.stdout.close()
    assert worked == "True"
    assert gone


def test_processors_are_those_of_the_affinity_mask():
    assert 1 <= platform.n_cpus() <= (os.cpu_count() or 1)
    if hasattr(os, "sched_setaffinity"):
        code = "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\n"
        code += "from dhmpi import platform; print(platform.n_cpus())"
        assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "1\n"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs unshare")
def test_a_thread_may_have_a_directory_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    moved, seen = threading.Event(), []

    def beside():
        seen.append(platform.keep_own_directory())
        moved.wait(60)
        seen.append(Path.cwd())

    thread = threading.Thread(target=beside)
    thread.start()
    until(lambda: seen)
    os.chdir("/")
    moved.set()
    thread.join()

    assert seen == [True, tmp_path]


def test_without_prctl_nothing_works_and_nothing_breaks(monkeypatch):
    def missing(_):
        raise OSError

    monkeypatch.setattr(platform.ctypes, "CDLL", missing)

    assert not platform.set_child_subreaper()
    assert not platform.set_parent_death_signal()
    assert not platform.set_timer_slack(1)
    assert not platform.keep_own_directory()
    assert not platform.free_memory()


def test_the_age_of_a_process_is_known():
    script = "import time; time.sleep(0.3); from dhmpi import platform; print(platform.age())"
    began = time.monotonic()

    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True).stdout

    assert 0.29 < float(said) < time.monotonic() - began + 0.02
