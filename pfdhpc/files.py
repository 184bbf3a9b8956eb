"""Publish files so that a crash never leaves half of one."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import StoreError

UNFINISHED = ".unfinished"
"""Ending of temporary names; such a file is what a killed job left and may be removed."""


@contextmanager
def renamed_into(path: Path, durable: bool = False) -> Iterator[Path]:
    """A temporary name to write a file under: renamed to ``path`` when all is written, removed when something fails.

    ``durable``: the content is on the disk before the name is.
    """
    unfinished = path.with_name(f".{path.name}{UNFINISHED}")
    unfinished.unlink(missing_ok=True)
    try:
        yield unfinished
        if durable:
            with open(unfinished, "rb+") as handle:
                os.fsync(handle.fileno())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def publish(path: Path, content: bytes) -> None:
    """Write a file under a temporary name, fsync, rename it into place, fsync the folder. Raises StoreError."""
    try:
        with renamed_into(path, durable=True) as unfinished, open(unfinished, "wb", opener=_never_for_all) as handle:
            handle.write(content)
        sync_folder(path.parent)
    except OSError as error:
        raise StoreError(f"{path}: cannot be written: {error.strerror}; {_remedy(error)}") from error


def sync_folder(folder: Path) -> None:
    """Make what was renamed or removed in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems do not sync folders
            raise
    finally:
        os.close(descriptor)


def _never_for_all(path: str, flags: int) -> int:
    """Open with what the umask allows, but not writable for all."""
    return os.open(path, flags, 0o664)


def _remedy(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "free space on this file system, then run again: everything committed is safe"
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return "make the folder writable, or choose another run.directory"
    return "check the file system, then run again: everything committed is safe"
