"""What waiting costs: ranks that wait for a message as roles do print the part of a core they use."""

from __future__ import annotations

import json
import time

from dhmpi.mpi import layout, world
from dhmpi.mpi.wait import Wait

SECONDS = 5.0


def main() -> None:
    here = world.start(lambda hosts: layout.plan(hosts))
    wait = Wait()
    cpu, start = time.process_time(), time.monotonic()
    while time.monotonic() - start < SECONDS:
        here.post.receive()
        wait.sleep()
    print(json.dumps({"share": (time.process_time() - cpu) / (time.monotonic() - start)}), flush=True)
    world.finish(here)


if __name__ == "__main__":
    main()
