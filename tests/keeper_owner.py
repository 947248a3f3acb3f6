"""Stands in for a rank: owns a keeper whose children do what the arguments say; it is killed by the test.

``python -m keeper_owner RUN_ID DIRECTORY [fork]`` prints one line when everything runs.
"""

import os
import select
import sys
import time
from pathlib import Path

from dhmpi.evaluate.process import EvaluationSpec, Keeper, ProcessEvaluator, Reported
from dhmpi.trials import Trial


def main():
    run_id, directory, *more = sys.argv[1:]
    keeper = Keeper.spawn()
    keeper.name_run(run_id)
    keeper.start_child("search", "resident", {}, Path.cwd(), None)
    keeper.send("search", {"ask": "linger"})
    evaluator = ProcessEvaluator(keeper, EvaluationSpec("evaluate_functions.daemonize", Path(directory), 0, run_id))
    evaluator.load()
    evaluator.start(Trial(0, 0, {"hang": True}))
    missing = {"report", "search"}
    while missing:
        waiting = select.poll()
        waiting.register(keeper.fileno(), select.POLLIN)
        waiting.poll()
        if any(isinstance(event, Reported) for event in evaluator.poll()):
            missing.discard("report")
        if keeper.poll("search"):
            missing.discard("search")
    holder = 0
    if "fork" in more and (holder := os.fork()) == 0:
        time.sleep(60)  # holds the pipes to the keeper
        os._exit(0)
    print(keeper.pid, holder, flush=True)
    time.sleep(60)


if __name__ == "__main__":
    main()
