"""Files that many ranks read, once on each node, in memory: what explores is loaded anew at every segment.

The first rank of a node that asks for a file copies it, the others find the copy; no message is needed. A copy is
named by its digest, and a rank holds a shared lock (flock) on the one it uses: a copy that nobody holds is removed
when another is taken, when a job ends and when one begins, also those of jobs that were killed, whose locks went with
them. All jobs of a user on a node share one folder.
"""

import fcntl
import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from hashlib import file_digest, sha256
from pathlib import Path

from ..errors import InputError

_log = logging.getLogger(__name__)

MEMORY = Path("/dev/shm")
"""Memory-backed storage of Linux."""
SPARE = 2
"""A copy is made where so many times its size is free."""
BLOCK = 2**22
"""Bytes that are copied at a time."""


def places() -> list[Path]:
    """Where copies may go, best first: memory, else the node's own disk where the batch system names it."""
    named = os.environ.get("TMPDIR")
    return [MEMORY, *([Path(named)] if named else [])]


class NodeCopies:
    """One rank's hold on the copies of its node; it holds one for each use it has for them."""

    def __init__(self, where: Sequence[Path]):
        self._folders = [place / f"pfdhpc-{os.getuid()}" for place in where if place.is_dir()]
        self._held: dict[str, int] = {}  # descriptors with a shared lock, by use
        self.clear()

    def take(self, shared: Path, use: str, digest: str = "") -> Path:
        """The path of this node's copy of a shared file, which stays until another is taken for the same use.

        ``digest`` is how the file's SHA-256 (hexadecimal) must begin, if that is known: a copy is looked at whenever
        it is taken, and made again if it is damaged; raises InputError where the file is. The shared file itself where
        it is on the same device already, or no copy can be made; then the log says why.
        """
        reason = ""
        for folder in self._folders:
            try:
                if _device(shared) == _device(folder.parent):
                    break
                with _locked(folder):
                    return self._taken(folder, shared, use, digest)
            except OSError as error:
                reason = f"{folder.parent}: {error.strerror or error}"
        if reason:
            _log.warning("%s is read from where it is: %s", shared, reason)
        return shared

    def clear(self) -> None:
        """Let go of all copies; those that nobody on the node holds are removed."""
        for use in list(self._held):
            os.close(self._held.pop(use))
        for folder in self._folders:
            if folder.is_dir():
                with suppress(OSError), _locked(folder):
                    _sweep(folder)

    def _taken(self, folder: Path, shared: Path, use: str, digest: str) -> Path:
        copy = folder / f"{shared.stem}{'-' if digest else ''}{digest[:16]}{shared.suffix}"
        if use in self._held:
            os.close(self._held.pop(use))
        if digest and copy.exists() and not _digest_of(copy).startswith(digest):
            _log.warning("%s is damaged: its SHA-256 does not begin with %s...; it is copied again", copy, digest[:16])
            copy.unlink()
        if copy.exists():
            self._held[use] = _hold(copy)
            _sweep(folder)
        else:
            _sweep(folder)  # before, so that there is room
            _copy(shared, copy, digest)
            self._held[use] = _hold(copy)
            _log.info("%s was copied to %s", shared.name, folder)
        return copy


_here = NodeCopies(())


def copying(where: Sequence[Path] | None = None) -> NodeCopies:
    """From now on this process takes copies (:func:`near`): in :func:`places`, or elsewhere."""
    global _here
    _here = NodeCopies(places() if where is None else where)
    return _here


def near(shared: Path, use: str, digest: str = "") -> Path:
    """As :meth:`NodeCopies.take`; the file itself until :func:`copying` was called."""
    return _here.take(shared, use, digest)


def _device(path: Path) -> int:
    return path.stat().st_dev


def _hold(copy: Path) -> int:
    handle = os.open(copy, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_SH)
    return handle


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One rank of the node at a time; the others wait, as they need what the first is copying."""
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise OSError(f"{folder} belongs to somebody else")
    handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _sweep(folder: Path) -> None:
    """Remove what nobody holds, and what a killed copy left."""
    for path in folder.iterdir():
        if path.name == ".lock":
            continue
        handle = os.open(path, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
        except BlockingIOError:
            pass
        finally:
            os.close(handle)


def _digest_of(path: Path) -> str:
    with open(path, "rb") as file:
        return file_digest(file, "sha256").hexdigest()


def _copy(shared: Path, copy: Path, digest: str) -> None:
    """A copy under its name only when it is complete and is what it should be. Raises OSError."""
    size, free = shared.stat().st_size, shutil.disk_usage(copy.parent).free
    if free < SPARE * size:
        raise OSError(f"{free >> 20} MiB are free, {SPARE * size >> 20} MiB are asked for")
    unfinished = copy.with_name(f".{copy.name}")
    read = sha256()
    with open(shared, "rb") as source, open(unfinished, "wb") as target:
        while block := source.read(BLOCK):
            read.update(block)
            target.write(block)
    found = _digest_of(unfinished)
    if found != read.hexdigest():
        raise OSError("what was copied is not what was written")
    if not found.startswith(digest):
        unfinished.unlink()
        raise InputError(
            f"{shared}: damaged: its SHA-256 is {found[:16]}..., it was published with {digest[:16]}...; put a sound"
            " copy of the file back"
        )
    unfinished.replace(copy)
