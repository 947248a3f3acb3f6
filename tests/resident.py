"""A resident child for the tests of the keeper: answers messages as they ask."""

import os
import sys
import time
from pathlib import Path

from dhmpi import frames


def main():
    fd_in, fd_out = map(int, sys.argv[1:])
    reader = frames.Reader(fd_in)
    print("resident is here", flush=True)
    while not reader.closed:
        for message in reader.read():
            if message["ask"] == "echo":
                frames.write(fd_out, message["text"])
            elif message["ask"] == "describe":
                described = {"pid": os.getpid(), "cwd": str(Path.cwd()), "environment": dict(os.environ)}
                frames.write(fd_out, {**described, "session": os.getsid(0), "sigterm": "SIGTERM" in _ignored()})
            elif message["ask"] == "flood":
                for i in range(message["n"]):
                    frames.write(fd_out, {"i": i, "text": "x" * message["size"]})
            elif message["ask"] == "linger":
                frames.write(fd_out, "lingering")
                time.sleep(600)
            elif message["ask"] == "exit":
                print("going", flush=True)
                os._exit(message["code"])


def _ignored():
    import signal

    return {number.name for number in signal.Signals if signal.getsignal(number) is signal.SIG_IGN}


if __name__ == "__main__":
    main()
