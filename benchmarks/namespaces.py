"""Several hosts on one machine: network and UTS namespaces on a bridge, and a stand-in for ssh that enters them.

Needs root and iproute2.  Open MPI's launcher starts its daemons through the stand-in, so that ranks carry the names of
their hosts, talk through TCP, and lose a host when it is killed or cut off.
"""

from __future__ import annotations

import fcntl
import os
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from dhmpi import platform

SECONDS = 20.0
NETWORK = "10.78.0"
ETC_HOSTS = Path("/etc/hosts")
LOCK = Path(tempfile.gettempdir()) / "dhmpi-hosts.lock"
"""Held by who has made hosts: they are of the whole machine, and others wait for them to go."""


def possible() -> bool:
    """Return whether hosts can be made here."""
    if os.geteuid() != 0 or not all(map(shutil.which, ("ip", "unshare"))):
        return False
    name = f"dhmpi-try-{os.getpid()}"  # several processes may try at a time
    tried = subprocess.run(["ip", "netns", "add", name], capture_output=True, timeout=SECONDS, check=False)
    if tried.returncode == 0:
        _ip("netns", "del", name)
    return tried.returncode == 0


class Hosts:
    """Hosts of this machine, as a context; whoever else has made some is waited for.

    Parameters
    ----------
    n : int

    Attributes
    ----------
    names : list of str
    """

    def __init__(self, n: int) -> None:
        self.names = [f"dhmpi{i + 1}" for i in range(n)]
        self._scratch = Path(tempfile.mkdtemp())
        self._agent = self._scratch / "enter"
        self._lock = LOCK.open("a")

    def __enter__(self) -> Hosts:
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._remove()  # what one that was killed has left
        self._agent.write_text(
            '#!/bin/sh\nhost=$1\nshift\nexec ip netns exec "$host" unshare --uts bash -c "hostname $host; $*"\n'
        )
        self._agent.chmod(0o755)
        try:
            self._make()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._remove()
        shutil.rmtree(self._scratch, ignore_errors=True)
        self._lock.close()

    def _make(self) -> None:
        _ip("link", "add", "dhmpi0", "type", "bridge")
        _ip("addr", "add", f"{NETWORK}.254/24", "dev", "dhmpi0")
        _ip("link", "set", "dhmpi0", "up")
        lines = []
        for i, name in enumerate(self.names, start=1):
            _ip("netns", "add", name)
            _ip("link", "add", f"dhmpi-v{i}", "type", "veth", "peer", "name", "eth0", "netns", name)
            _ip("link", "set", f"dhmpi-v{i}", "master", "dhmpi0")
            _ip("link", "set", f"dhmpi-v{i}", "up")
            _ip("-n", name, "addr", "add", f"{NETWORK}.{i}/24", "dev", "eth0")
            _ip("-n", name, "link", "set", "eth0", "up")
            _ip("-n", name, "link", "set", "lo", "up")
            lines.append(f"{NETWORK}.{i} {name}\n")
        ETC_HOSTS.write_text("".join([*_other_lines(), *lines]))

    def _remove(self) -> None:
        deadline = time.monotonic() + SECONDS
        while (left := [pid for i in range(len(self.names)) for pid in self.processes(i)]) and (
            time.monotonic() < deadline
        ):
            platform.kill(left)
            time.sleep(0.05)
        for i, name in enumerate(self.names, start=1):
            _try_ip("link", "del", f"dhmpi-v{i}")  # a namespace lives on as long as anything uses it
            _try_ip("netns", "del", name)
        _try_ip("link", "del", "dhmpi0")
        ETC_HOSTS.write_text("".join(_other_lines()))

    def command(self, host: int, words: Sequence[str], prefix: Path) -> list[str]:
        """Return the command that runs another one on a host, with the programs of a virtual environment."""
        path = f"PATH={shlex.quote(f'{prefix}/bin')}:$PATH"
        return [
            str(self._agent),
            self.names[host],
            f"cd {shlex.quote(str(Path.cwd()))}; {path} exec {shlex.join(words)}",
        ]

    def launcher_options(self, n: int, prefix: Path) -> str:
        """Return the options with which Open MPI's mpiexec starts `n` ranks on each host, in turns."""
        hosts = ",".join(f"{name}:{n}" for name in self.names)
        return (
            f"--prtemca plm_ssh_agent {self._agent} --prtemca plm_ssh_no_tree_spawn 1 --prefix {prefix} "
            f"--host {hosts} --map-by node"
        )

    def processes(self, host: int) -> list[int]:
        """Return all processes of a host."""
        found = subprocess.run(
            ["ip", "netns", "pids", self.names[host]], capture_output=True, text=True, timeout=SECONDS, check=False
        )
        return [int(pid) for pid in found.stdout.split()]

    def cut(self, host: int) -> None:
        """Take a host off the network."""
        _ip("-n", self.names[host], "link", "set", "eth0", "down")


def _other_lines() -> list[str]:
    """Return the lines of `ETC_HOSTS` that are not of such hosts."""
    lines = ETC_HOSTS.read_text().splitlines()
    return [f"{line}\n" for line in lines if not line.startswith(f"{NETWORK}.")]


def _try_ip(*words: str) -> None:
    subprocess.run(["ip", *words], capture_output=True, timeout=SECONDS, check=False)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=SECONDS)
