"""What the tests of evaluators and keepers share."""

import os
import secrets
import select
import time
from pathlib import Path

from dhmpi import platform
from dhmpi.evaluate.process import EvaluationSpec, Finished, Keeper, Loaded, ProcessEvaluator, Refused
from dhmpi.trials import Trial

HERE = Path(__file__).parent
LIMIT = 20.0


def search_path(*directories):
    """Return a PYTHONPATH with some directories, and that of the tests, before the present one."""
    present = os.environ.get("PYTHONPATH")
    return os.pathsep.join(map(str, (*directories, HERE, *([present] if present else []))))


def until(condition, limit=5.0):
    """Wait for a condition; return what it gave last."""
    end = time.monotonic() + limit
    while not (value := condition()) and time.monotonic() < end:
        time.sleep(0.01)
    return value


class Bench:
    """An evaluator with its keeper, driven until it answers."""

    def __init__(self, run, directory, **options):
        self.run_id = secrets.token_hex(8)
        environment = {"PYTHONPATH": search_path(), **options.pop("environment", {})}
        self.keeper = Keeper.spawn()
        self.keeper.name_run(self.run_id)
        self.spec = EvaluationSpec(
            run=run, run_directory=directory, seed=7, run_id=self.run_id, environment=environment, **options
        )
        self.evaluator = ProcessEvaluator(self.keeper, self.spec)
        self.events = []

    def wait(self, *kinds, limit=LIMIT):
        """Return the first event of some kinds; keep those of other kinds in `events`."""
        end = time.monotonic() + limit
        while time.monotonic() < end:
            for event in self.evaluator.poll():
                self.events.append(event)
            for event in self.events:
                if isinstance(event, kinds):
                    self.events.remove(event)
                    return event
            waiting = select.poll()
            waiting.register(self.evaluator.fileno(), select.POLLIN)
            waiting.poll(100)
        raise TimeoutError(f"none of {kinds} within {limit} s; there were {self.events}")

    def load(self):
        self.evaluator.load()
        return self.wait(Loaded, Refused)

    def evaluate(self, trial=0, timeout=None, attempt=0, **config):
        self.evaluator.start(Trial(trial, trial, config, attempt), timeout)
        return self.wait(Finished)

    def child(self):
        """Return the process id of the resident child, once there is one that runs."""
        return until(lambda: [pid for pid in platform.children(self.keeper.pid) if platform.start_time(pid)])[0]
