"""What is particular to a machine: its nodes, launchers, queues and limits, from TOML files.

Those shipped lie beside this file, a user's own in ``~/.config/dhmpi/sites/``; the user's win, and may name one of the
shipped as their ``base`` and change a line.  `KEYS` says what can stand in a file.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import os
import shutil
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from dhmpi.errors import SiteError
from dhmpi.mpi.binding import Node

SCHEDULERS = ("cobalt", "pbs", "slurm", "local")
"""Each has a site file of its own name, for machines that have none."""
SUFFIX = ".toml"


@dataclass(frozen=True)
class Launcher:
    """How ranks are started.  Its options may name ``$ranks_per_node``, ``$depth`` and the other `PLACEHOLDERS`.

    Attributes
    ----------
    executable : str
        Empty: the mpiexec of mpi4py's own MPI library.
    options : str
        Besides ``-n RANKS``.
    bound : str
        Options that bind each rank to its cores too; used where their number is known.
    """

    executable: str = ""
    options: str = ""
    bound: str = ""


PLACEHOLDERS = ("nodes", "ranks", "ranks_per_node", "cores", "depth", "cpus", "threads_per_core")
"""What the lines of a site may name: depth is the cores of a rank, cpus its hardware threads, cores those of a node."""


@dataclass(frozen=True)
class Bin:
    """For how many nodes a queue gives how much time."""

    min_nodes: int = 1
    max_nodes: int | None = None
    max_minutes: float | None = None


@dataclass(frozen=True)
class Site:
    """A machine.

    Attributes
    ----------
    name : str
    description : str
    scheduler : {"cobalt", "pbs", "slurm", "local"}
    hosts : tuple of str
        Patterns of the names of its login nodes.
    variables : dict of str to str
        Environment variables that only this machine sets so.
    node : Node
        Cores and GPUs.
    threads_per_core : int
        Hardware threads of a core that the launcher counts.
    gpu_variable : str
        Says which GPUs a process may use.
    launchers : dict of str to Launcher
    launcher : str
        The one used unless asked otherwise.
    directives : tuple of str
        More lines for the head of the job script, without ``#PBS`` and its like.
    queue_option : str
        With which the scheduler takes a queue.
    queue : str
        Used unless asked otherwise; may be empty.
    queues : dict of str to tuple of Bin
        Empty if unknown.
    account_needed : bool
    modules : tuple of str
    environment : dict of str to str
    margin_minutes : float
        Before the end of the walltime a run has to have ended.
    """

    name: str
    scheduler: str
    description: str = ""
    hosts: tuple[str, ...] = ()
    variables: dict[str, str] = field(default_factory=dict)
    node: Node = Node()
    threads_per_core: int = 1
    gpu_variable: str = "CUDA_VISIBLE_DEVICES"
    launchers: dict[str, Launcher] = field(default_factory=dict)
    launcher: str = ""
    directives: tuple[str, ...] = ()
    queue_option: str = "-q"
    queue: str = ""
    queues: dict[str, tuple[Bin, ...]] = field(default_factory=dict)
    account_needed: bool = False
    modules: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    margin_minutes: float = 2.0

    def check_limits(self, queue: str, nodes: int, minutes: float) -> None:
        """Refuse what the site's queues do not give.

        Raises
        ------
        SiteError
        """
        if not self.queues or not queue:
            return
        if queue not in self.queues:
            raise SiteError(f"{self.name} has no queue {queue!r}, but {', '.join(self.queues)}")
        bins = self.queues[queue]
        fitting = [one for one in bins if one.min_nodes <= nodes <= (one.max_nodes or nodes)]
        if not fitting:
            least, most = min(one.min_nodes for one in bins), max(one.max_nodes or sys.maxsize for one in bins)
            takes = f"from {least} nodes on" if most == sys.maxsize else f"{least} to {most} nodes"
            raise SiteError(f"queue {queue} of {self.name} takes {takes}, got -n {nodes}")
        allowed = max(one.max_minutes or float("inf") for one in fitting)
        if minutes > allowed:
            raise SiteError(
                f"queue {queue} of {self.name} gives {nodes} node{'s' * (nodes > 1)} at most {allowed:g} minutes, "
                f"got -t {minutes:g}"
            )


KEYS = {
    item.name.replace("_", "-"): item.name for item in dataclasses.fields(Site) if item.name not in ("name", "node")
} | {"cores": "cores", "gpus": "gpus", "base": "base"}
"""Keys of a site file -> attributes of `Site`; ``cores`` and ``gpus`` are those of its node."""


def own_directory(environment: Mapping[str, str] = os.environ) -> Path:
    """Return where a user's own site files lie."""
    return Path(environment.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "dhmpi" / "sites"


def names() -> list[str]:
    """Return the names of all sites, the user's own included."""
    shipped = {entry.name for entry in resources.files(__name__).iterdir()}
    own = {path.name for path in own_directory().glob(f"*{SUFFIX}")}
    return sorted(name.removesuffix(SUFFIX) for name in shipped | own if name.endswith(SUFFIX))


def load(name: str) -> Site:
    """Return a site.

    Raises
    ------
    SiteError
        If there is none of that name, or its file is wrong.
    """
    values = _read(name, ())
    node = Node(values.pop("cores", None), values.pop("gpus", ()))
    if values.get("scheduler") not in SCHEDULERS:
        raise SiteError(
            f"site {name!r} must have a scheduler, one of {', '.join(SCHEDULERS)}, got {values.get('scheduler')!r}"
        )
    site = Site(name=name, node=node, **values)
    if site.launcher not in site.launchers:
        raise SiteError(f"site {name!r} has no launcher {site.launcher!r}, but {', '.join(site.launchers) or 'none'}")
    return site


def detect(environment: Mapping[str, str] = os.environ, host: str | None = None) -> Site:
    """Return the site whose login node this is; failing that the generic one of the scheduler that is installed.

    Raises
    ------
    SiteError
        If there is no scheduler here.
    """
    host = socket.getfqdn() if host is None else host
    for name in names():
        site = load(name)
        if any(environment.get(key) == value for key, value in site.variables.items()) or any(
            fnmatch.fnmatch(host, pattern) for pattern in site.hosts
        ):
            return site
    path = environment.get("PATH", os.defpath)
    for command, beside, scheduler in (("sbatch", "", "slurm"), ("qsub", "partlist", "cobalt"), ("qsub", "", "pbs")):
        if shutil.which(command, path=path) and (not beside or shutil.which(beside, path=path)):
            return load(scheduler)
    raise SiteError(
        "no scheduler is found here: name one with --scheduler {cobalt,pbs,slurm,local}, or a machine with --site"
    )


def _read(name: str, below: tuple[str, ...]) -> dict[str, Any]:
    """Return the attributes that a site's file gives, with those of its base."""
    text, where = _text(name)
    content = _parse(text, where)
    base = content.pop("base", None)
    if base is not None and (not isinstance(base, str) or base in (*below, name)):
        raise SiteError(f"{where}: base must be the name of another site, got {base!r}")
    values = _read(base, (*below, name)) if base is not None else {}
    for key, value in content.items():
        if key not in KEYS:
            raise SiteError(f"{where} has an unknown key {key!r}; there are {', '.join(sorted(KEYS))}")
        attribute = KEYS[key]
        converted = _convert(attribute, value, f"{where}: {key}")
        if attribute in ("launchers", "environment") and attribute in values:
            converted = {**values[attribute], **converted}
        values[attribute] = converted
    return values


def _text(name: str) -> tuple[str, str]:
    """Return the text of a site's file, and where it is."""
    if name not in names():
        raise SiteError(f"there is no site {name!r}; there are {', '.join(names())}")
    path = own_directory() / f"{name}{SUFFIX}"
    try:
        if path.is_file():
            return path.read_text(), str(path)
        return resources.files(__name__).joinpath(f"{name}{SUFFIX}").read_text(), f"site {name}"
    except (OSError, UnicodeDecodeError) as error:
        raise SiteError(f"cannot read {path}: {error}") from error


def _parse(text: str, where: str) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SiteError(f"{where} is no TOML: {error}") from error


def _convert(attribute: str, value: Any, where: str) -> Any:
    """Return a value of a file as the attribute has it."""
    if attribute == "launchers":
        return {name: _table(Launcher, entry, f"{where}.{name}") for name, entry in _dict(value, where).items()}
    if attribute == "queues":
        return {
            name: tuple(_table(Bin, entry, f"{where}.{name}") for entry in _list(entries, dict, f"{where}.{name}"))
            for name, entries in _dict(value, where).items()
        }
    if attribute in ("environment", "variables"):
        return {name: _a(str, entry, f"{where}.{name}") for name, entry in _dict(value, where).items()}
    if attribute in ("hosts", "directives", "modules", "gpus"):
        return tuple(_list(value, str, where))
    if attribute in ("cores", "threads_per_core"):
        return _positive(_a(int, value, where), where)
    if attribute == "margin_minutes":
        return _positive(float(_a((int, float), value, where)), where)
    return _a(bool if attribute == "account_needed" else str, value, where)


def _table(cls: Any, entry: Any, where: str) -> Any:
    """Return a dataclass from a table of a file."""
    known = {item.name.replace("_", "-"): item.name for item in dataclasses.fields(cls)}
    values = {}
    for key, value in _dict(entry, where).items():
        if key not in known:
            raise SiteError(f"{where} has an unknown key {key!r}; there are {', '.join(known)}")
        kind = str if cls is Launcher else (int, float) if key == "max-minutes" else int
        values[known[key]] = _a(kind, value, f"{where}.{key}")
    return cls(**values)


def _dict(value: Any, where: str) -> dict[str, Any]:
    return dict(_a(dict, value, where))


def _list(value: Any, kind: Any, where: str) -> list[Any]:
    return [_a(kind, entry, where) for entry in _a(list, value, where)]


def _a(kind: Any, value: Any, where: str) -> Any:
    """Return a value if it is of the kind that is wanted there."""
    kinds = kind if isinstance(kind, tuple) else (kind,)
    if type(value) not in kinds:
        raise SiteError(f"{where} must be of type {' or '.join(one.__name__ for one in kinds)}, got {value!r}")
    return value


def _positive(value: Any, where: str) -> Any:
    if value <= 0:
        raise SiteError(f"{where} must be > 0, got {value}")
    return value
