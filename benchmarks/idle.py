"""What waiting costs: ranks that wait for a message as roles do print the part of a core they use, early and late."""

from __future__ import annotations

import json
import time

from dhmpi.mpi import layout, world
from dhmpi.mpi.wait import Wait

EARLY, LATE = 1.0, 10.0
"""Seconds waited: until the first, and from the second for as long again."""


def main() -> None:
    here = world.start(layout.plan, lambda: world.Launch("00000000", ""))
    wait = Wait()
    began = time.monotonic()
    used = []
    for until in (EARLY, LATE, 2 * LATE):
        cpu, start = time.process_time(), time.monotonic()
        while time.monotonic() - began < until:
            here.post.receive()
            wait.sleep()
        used.append((time.process_time() - cpu) / (time.monotonic() - start))
    print(json.dumps({"early": used[0], "late": used[-1]}), flush=True)
    world.finish(here, 0, together=True)


if __name__ == "__main__":
    main()
