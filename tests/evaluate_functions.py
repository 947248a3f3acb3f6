"""Run functions, well-behaved and hostile, that the tests of evaluators have evaluated."""

import ctypes
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import dhmpi

NOT_CALLABLE_TWICE = []


def square(config):
    return config["x"] ** 2


def with_metrics(config):
    return {"objective": 1, "loss": 0.5, "name": "a", "diverged": float("nan")}


def none(config):
    return None


def nan(config):
    return float("nan")


def string(config):
    return "F_out_of_luck"


def huge(config):
    return bytes(100_000_000)


def huge_metric(config):
    return {"objective": 1.0, "weights": "w" * 100_000_000}


def fail(config):
    print("about to fail")
    raise RuntimeError("it is broken\nin two lines")


def leave(config):
    sys.exit(3)


def interrupt(config):
    raise KeyboardInterrupt


def exhaust(config):
    raise MemoryError


def exit_without_answer(config):
    print("last words", end="")
    sys.stdout.flush()
    os._exit(0)


def segfault(config):
    ctypes.string_at(0)


def terminate(config):
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)


def hang(config):
    print("hanging")
    while True:
        time.sleep(0.01)


def hang_deaf(config):
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while True:
        pass


def hang_in_c(config):
    return 3 ** (1 << 40 if config.get("huge") else 1 << 28)  # holds the interpreter's lock for minutes


def eat_memory(config):
    eaten = b"x" * (200 << 20)
    time.sleep(60)
    return len(eaten)


def eat_memory_below(config):
    subprocess.run([sys.executable, "-c", "import time; x = b'x' * (200 << 20); time.sleep(60)"], check=True)


def keep_memory(config):
    NOT_CALLABLE_TWICE.append(b"x" * (60 << 20))
    return float(os.getpid())


def close_everything(config):
    os.closerange(0, 4096)
    return 1.0


def close_everything_and_hang(config):
    os.closerange(0, 4096)
    hang_deaf(config)


def close_output(config):
    sys.stdout.close()
    os.closerange(0, 3)
    return 1.0


def redirect_output(config):
    fd = os.open("elsewhere", os.O_WRONLY | os.O_CREAT)
    os.dup2(fd, 1)
    sys.stdout = Path("elsewhere").open("a")
    return 1.0


def print_much(config):
    line = "0123456789" * 100
    for _ in range(50_000):
        print(line)
    return 1.0


def print_unfinished_line(config):
    print(f"of trial {dhmpi.trial().id}", end="")
    return 1.0


def print_from_c(config):
    ctypes.CDLL(None).puts(b"from C")
    return 1.0


def delete_directory(config):
    directory = Path.cwd()
    print("before")
    directory.joinpath("file").write_text("x")
    for path in directory.iterdir():
        path.unlink()
    directory.rmdir()
    print("after")
    return 1.0


def plant_link(config):
    """Replace the own directory by a link to another one, then print."""
    directory = Path.cwd()
    directory.rmdir()
    directory.symlink_to(config["target"])
    print("printed")
    return 1.0


def leave_grandchild(config):
    subprocess.Popen(["sleep", "600"])
    return 1.0


def daemonize(config):
    """Leave a process behind that has detached itself in the classical way."""
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.write(writing, str(os.getpid()).encode())
            os.execvp("sleep", ["sleep", "600"])
        os._exit(0)
    os.wait()
    pid = int(os.read(reading, 20))
    dhmpi.trial().report(0, pid)
    if config.get("hang"):
        hang(config)
    return float(pid)


def fork_and_return(config):
    return float(os.fork() > 0)


def kill_parent(config):
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)


def kill_group(config):
    os.killpg(os.getpgrp(), signal.SIGKILL)
    time.sleep(60)


def write_nonsense(config):
    for fd in range(800, 1000):
        try:
            os.write(fd, b"\xff" * 100)
        except OSError:
            pass
    time.sleep(60)


def write_lies(config):
    body = b'{"event":"finished"}'
    for fd in range(800, 1000):
        try:
            os.write(fd, len(body).to_bytes(4, "big") + body)
        except OSError:
            pass
    time.sleep(60)


def leave_alarm(config):
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    return 1.0


def take(config):
    time.sleep(config["seconds"])
    return float(os.getpid())


def fill_disk(config):
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    Path("file").write_text("x")


def describe_context(config):
    trial = dhmpi.trial()
    return {
        "objective": 1.0,
        "id": trial.id,
        "attempt": trial.attempt,
        "seed": trial.seed,
        "directory": str(trial.directory),
        "cwd": str(Path.cwd()),
        "left": trial.deadline - time.time() if trial.deadline is not None else None,
        "comm": trial.comm,
        "variable": os.environ.get("OMP_NUM_THREADS"),
        "launcher": ",".join(name for name in os.environ if name.startswith(("PMI", "OMPI_"))),
        "run_id": os.environ["DHMPI_RUN"],
        "writable": os.access(".", os.W_OK),
    }


def report_until_stopped(config):
    trial = dhmpi.trial()
    step = 0
    while not trial.should_stop():
        trial.report(step, step / 2)
        step += 1
        time.sleep(0.001)
    trial.report(step, float("inf"))
    return float(step)


def prepared(config):
    return prepared.state["calls"]


def _count_preparations():
    assert dhmpi.trial().problem.hyperparameter_names
    prepared.state["calls"] += 1


prepared.state = {"calls": 0}
prepared.prepare = _count_preparations


def unprepared(config):
    return 0.0


def _fail_to_prepare():
    raise OSError("the data are gone")


unprepared.prepare = _fail_to_prepare


def variable(config):
    return {"objective": 0.0, "value": os.environ.get(config["name"])}


def is_watched(config):
    return float(dhmpi.trial().watched)
