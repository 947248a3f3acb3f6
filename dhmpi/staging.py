"""Copies of files on a node's own disk: what is in them, how they travel, where they lie, who uses them.

A copy lies in a directory that is named by the digest of its content, so that what is there already is used again.
Everybody who uses it holds a lock on it; the last one removes it.  `dhmpi.mpi.stage` sends it to all nodes.  Standard
library only, and no MPI.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import shutil
import stat
import sys
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dhmpi.errors import DhmpiError
from dhmpi.names import in_file

VARIABLE = "DHMPI_STAGED"
"""Environment variable of evaluations: original paths and their copies, as JSON."""
PATHS = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "PYTHONHOME", "VIRTUAL_ENV", "CONDA_PREFIX")
"""Environment variables that hold paths."""
READ = 1 << 20
"""Bytes that are read at a time."""
BLOCK = tarfile.BLOCKSIZE
LEFT_OUT = ("dhmpi-runs",)
"""Directories that are not copied: runs grow while they are."""


class StagingError(DhmpiError):
    """What was to be staged cannot be read, or not be written on a node."""


@dataclass(frozen=True)
class Entry:
    """A file, a directory or a symbolic link that is copied."""

    name: str
    """In the copy, with slashes."""
    path: str
    mode: int
    size: int
    mtime: int
    link: str | None = None


@dataclass(frozen=True)
class Content:
    """All that is copied.

    Attributes
    ----------
    entries : tuple of Entry
    originals : tuple of str
        The paths that were named, absolute.
    digest : str
        Of names, permissions and contents.
    """

    entries: tuple[Entry, ...]
    originals: tuple[str, ...]
    digest: str

    @property
    def n_bytes(self) -> int:
        return sum(entry.size for entry in self.entries)

    @property
    def n_files(self) -> int:
        return sum(not stat.S_ISDIR(entry.mode) for entry in self.entries)


@dataclass(frozen=True)
class Staged:
    """What came of staging, as a rank sees it.

    Attributes
    ----------
    originals : tuple of str
    place : Place
        Of the copies on this node.
    n_files, n_bytes : int
    n_sent, n_reused : int
        Nodes to which something was sent, and nodes that had it.
    seconds : float
        That all of it took.
    """

    originals: tuple[str, ...]
    place: Place
    n_files: int
    n_bytes: int
    n_sent: int
    n_reused: int
    seconds: float

    @property
    def paths(self) -> dict[str, str]:
        """Original paths and their copies."""
        return {original: str(self.place.copy / Path(original).name) for original in self.originals}

    def __str__(self) -> str:
        megabytes = self.n_bytes / 1e6
        rate = f" ({megabytes * self.n_sent / self.seconds:.0f} MB/s in all)" if self.n_sent and self.seconds else ""
        reused = f"; {self.n_reused} had it" if self.n_reused else ""
        return (
            f"staged {self.n_files} files, {megabytes:.1f} MB, on {self.n_sent} node{'s' * (self.n_sent != 1)} in "
            f"{self.seconds:.2f} s{rate}{reused}"
        )

    def environment(self, present: Mapping[str, str]) -> dict[str, str]:
        """Return the variables that make a process use the copies, from those that it would have."""
        changed = {VARIABLE: json.dumps(self.paths)}
        for name in PATHS:
            if present.get(name):
                words = present[name].split(os.pathsep)
                changed[name] = os.pathsep.join(moved(word, self.paths) if word else word for word in words)
        return changed


def moved(path: str, paths: Mapping[str, str]) -> str:
    """Return where the copy of a path is; the path itself if it has none.

    >>> moved("/home/me/code/lib", {"/home/me/code": "/tmp/copy/code"})
    '/tmp/copy/code/lib'
    """
    for original, copy in sorted(paths.items(), key=lambda pair: -len(pair[0])):
        if path == original or path.startswith(original.rstrip("/") + "/"):
            return copy + path[len(original.rstrip("/")) :]
    return path


def moved_name(name: str, paths: Mapping[str, str]) -> str:
    """Return a name of a problem or a run function so that a file is found in the copy that it has."""
    if in_file(name) is None:
        return name  # it is dotted: where modules are looked for has moved
    original = os.path.abspath(name)  # noqa: PTH100  without ..
    copy = moved(original, paths)
    return name if copy == original else copy


def here(path: str | Path) -> Path:
    """Return where the copy of a path is for the evaluation that is running; the path itself if it has none."""
    paths = _copies()
    return Path(moved(str(Path(path).absolute()), paths)) if paths else Path(path)


def import_copies() -> None:
    """Import from the copies from now on; what is imported already stays, with all that its packages will import."""
    paths = _copies()
    sys.path[:] = [moved(os.path.abspath(word), paths) for word in sys.path] if paths else sys.path  # noqa: PTH100


def _copies() -> dict[str, str]:
    """Return original paths and their copies, as this process was told."""
    found: dict[str, str] = json.loads(os.environ.get(VARIABLE) or "{}")
    return found


# -- what is copied ----------------------------------------------------------------------------------------------------


def look(names: Sequence[str], without: Path | None = None) -> Content:
    """Return what is to be copied; reads everything once.

    Parameters
    ----------
    names : sequence of str
        Files and directories.
    without : Path, optional
        A directory that is left out.

    Raises
    ------
    StagingError
    """
    originals = tuple(os.path.abspath(Path(name).expanduser()) for name in names)  # noqa: PTH100  without ..
    titles = [Path(original).name for original in originals]
    for title in titles:
        if not title or titles.count(title) > 1:
            what = "the whole file system" if not title else f"several things called {title}"
            raise StagingError(f"--stage {os.pathsep.join(names)} names {what}: copies lie in one directory")
    entries: list[Entry] = []
    digest = hashlib.blake2b(digest_size=16)
    try:
        for original in originals:
            for entry in _walk(original, Path(original).name, without):
                entries.append(entry)
                head = (entry.name, stat.S_IMODE(entry.mode), stat.S_IFMT(entry.mode), entry.size, entry.link)
                digest.update(repr(head).encode())
                for chunk in _read(entry):
                    digest.update(chunk)
    except OSError as error:
        raise StagingError(f"--stage cannot read {error.filename}: {error.strerror}") from error
    return Content(tuple(entries), originals, digest.hexdigest())


def _walk(path: str, name: str, without: Path | None) -> Iterator[Entry]:
    status = os.lstat(path)
    kind, mode, mtime = stat.S_IFMT(status.st_mode), status.st_mode, int(status.st_mtime)
    if kind == stat.S_IFLNK and "/" not in name:  # what was named itself is followed
        path = str(Path(path).resolve(strict=True))
        yield from _walk(path, name, without)
    elif kind == stat.S_IFLNK:
        yield Entry(name, path, mode, 0, mtime, str(Path(path).readlink()))
    elif kind == stat.S_IFREG:
        yield Entry(name, path, mode, status.st_size, mtime)
    elif kind == stat.S_IFDIR:
        yield Entry(name, path, mode, 0, mtime)
        with os.scandir(path) as found:
            children = sorted(child.name for child in found)
        for child in children:
            inner = Path(path) / child
            if child not in LEFT_OUT and inner != without:
                yield from _walk(str(inner), f"{name}/{child}", without)
    else:
        raise StagingError(f"--stage cannot copy {path}: it is neither a file, nor a directory, nor a symbolic link")


def _read(entry: Entry) -> Iterator[bytes]:
    """Yield the content of a file; nothing for what is none."""
    if not stat.S_ISREG(entry.mode):
        return
    left = entry.size
    with Path(entry.path).open("rb") as stream:
        while left and (chunk := stream.read(min(left, READ))):
            left -= len(chunk)
            yield chunk
    if left:
        raise StagingError(f"--stage: {entry.path} has become shorter while it was read")


# -- how it travels ----------------------------------------------------------------------------------------------------


def packed(content: Content) -> Iterator[bytes]:
    """Yield everything as a tar archive, in pieces of any length.

    Raises
    ------
    StagingError
    """
    try:
        for entry in content.entries:
            yield _header(entry)
            yield from _read(entry)
            yield bytes(-entry.size % BLOCK)
    except OSError as error:
        raise StagingError(f"--stage cannot read {error.filename}: {error.strerror}") from error
    yield bytes(2 * BLOCK)


def _header(entry: Entry) -> bytes:
    info = tarfile.TarInfo(entry.name)
    info.mode, info.mtime, info.uid, info.gid = stat.S_IMODE(entry.mode), entry.mtime, os.getuid(), os.getgid()
    if entry.link is not None:
        info.type, info.linkname = tarfile.SYMTYPE, entry.link
    elif stat.S_ISDIR(entry.mode):
        info.type = tarfile.DIRTYPE
        info.mode |= stat.S_IRWXU  # so that it can be filled, and removed
    else:
        info.size = entry.size
    return info.tobuf(tarfile.PAX_FORMAT, errors="surrogateescape")


def unpack(pieces: Iterable[bytes], directory: Path) -> None:
    """Unpack what `packed` yields.

    Raises
    ------
    OSError, tarfile.TarError
    """
    trusted: dict[str, Any] = {"filter": "fully_trusted"} if hasattr(tarfile, "fully_trusted_filter") else {}
    with tarfile.open(fileobj=io.BufferedReader(_Pieces(pieces), READ), mode="r|", errorlevel=2) as archive:
        archive.extractall(directory, **trusted)


class _Pieces(io.RawIOBase):
    """Pieces of bytes as a file."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._rest = memoryview(piece)
        n = min(len(buffer), len(self._rest))
        buffer[:n], self._rest = self._rest[:n], self._rest[n:]
        return n


# -- where it lies, and who uses it ------------------------------------------------------------------------------------


class Place:
    """Where copies of some content lie on this node; whoever has called `hold` keeps them from being removed.

    Parameters
    ----------
    directory : Path
        On a disk of the node.
    digest : str
    """

    def __init__(self, directory: Path, digest: str) -> None:
        self._home = directory / f"dhmpi-staged-{os.getuid()}"
        self.copy = self._home / digest
        self._lock = self._home / f"{digest}.lock"
        self._held: io.FileIO | None = None

    @property
    def held(self) -> bool:
        """Whether this process holds it."""
        return self._held is not None

    def hold(self) -> None:
        """Make the place, and use what is or will be there.

        Raises
        ------
        StagingError
            If nothing can be written there.
        """
        try:
            self._home.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self._home.is_symlink() or self._home.stat().st_uid != os.getuid():
                raise StagingError(f"--stage-to: {self._home} belongs to somebody else")
            self._held = self._locked(fcntl.LOCK_SH)
        except OSError as error:
            raise StagingError(f"--stage-to: cannot write {self._home}: {error.strerror}") from error

    def has_it(self) -> bool:
        """Return whether a whole copy is there."""
        return self.copy.is_dir()

    def check_room(self, n_bytes: int) -> None:
        """Refuse a disk that is too full.

        Raises
        ------
        StagingError
        """
        free = shutil.disk_usage(self._home).free
        if free < n_bytes:
            raise StagingError(
                f"--stage needs {n_bytes / 1e6:.1f} MB, and {self._home} has {free / 1e6:.1f} MB left: name another "
                f"disk with --stage-to"
            )

    def fill(self, pieces: Iterable[bytes]) -> None:
        """Unpack a copy; what is there is whole at any time.

        Raises
        ------
        StagingError
        """
        aside = Path(tempfile.mkdtemp(prefix=".", dir=self._home))
        try:
            unpack(pieces, aside)
            try:
                aside.rename(self.copy)
            except OSError:
                if not self.has_it():  # else another run has been quicker
                    raise
        except (OSError, tarfile.TarError) as error:
            words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise StagingError(f"--stage cannot write {self.copy}: {words}") from error
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    def release(self, keep: bool = False) -> None:
        """Use it no longer; whoever does so last removes it, unless it is kept."""
        if self._held is None:
            return
        self._held.close()
        self._held = None
        if keep:
            return
        try:
            held = self._locked(fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return  # others use it, or another one removes it
        shutil.rmtree(self.copy, ignore_errors=True)
        self._lock.unlink(missing_ok=True)
        held.close()
        try:
            self._home.rmdir()
        except OSError:
            pass  # there are other copies

    def _locked(self, kind: int) -> io.FileIO:
        """Return the lock, held; of the file that has its name now."""
        while True:
            fd = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            lock = io.FileIO(fd, "r+")
            fcntl.flock(fd, kind)
            try:
                if os.path.samestat(os.fstat(fd), self._lock.stat()):
                    return lock
            except FileNotFoundError:
                pass  # it was removed meanwhile
            lock.close()
