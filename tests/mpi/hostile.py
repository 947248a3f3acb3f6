"""A problem whose function does to its process what users' functions do."""

import ctypes
import os
import sys
import time

from dhmpi.problem import HpProblem

Problem = HpProblem()
Problem.add_hyperparameter(
    ["fine", "raises", "nan", "none", "exits", "vanishes", "segfaults", "hangs", "eats", "talks", "kills"], "deed"
)
Problem.add_hyperparameter((0, 3), "n")
for deed in ("raises", "nan", "none", "exits", "vanishes", "segfaults", "hangs", "eats", "talks", "kills", "fine"):
    Problem.add_starting_point(deed=deed, n=0)


def run(config):
    deed = config["deed"]
    print("about to be", deed, flush=True)
    if config["n"] and deed in ("hangs", "eats", "kills"):
        return float(config["n"])  # once of each that takes its time is enough
    if deed == "raises":
        raise KeyError("what was never there")
    if deed == "nan":
        return float("nan")
    if deed == "none":
        return None
    if deed == "exits":
        sys.exit("enough")
    if deed == "vanishes":
        os._exit(0)
    if deed == "segfaults":
        ctypes.string_at(0)
    if deed == "hangs":
        time.sleep(1000)
    if deed == "eats":
        eaten = []
        while True:
            eaten.append(b"x" * (16 << 20))
    if deed == "talks":
        print("x" * (2 << 20))
    if deed == "kills":
        os.kill(os.getpid(), 9)
    return {"objective": float(config["n"]), "deed_length": len(deed)}
