"""HDF5 files that are complete or not there, and know when they are damaged.

A file is built in memory, written under a temporary name in the same folder, flushed to the disk and
renamed. Its HDF5 user block (512 bytes that HDF5 itself leaves alone) is one line of text with the
kind of file, the format version and the blake2b checksum of all bytes that follow; any HDF5 tool
reads the rest.
"""

import errno
import os
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path

import h5py

from ..errors import StoreError

FORMAT_VERSION = 1
UNFINISHED = ".unfinished"
"""Ending of temporary names; such a file is what a killed job left and may be removed."""

_HEADER = 512


class Damaged(StoreError):
    """The file's content is not what was written."""


def write_hdf5(path: Path, kind: str, fill: Callable[[h5py.File], None]) -> None:
    """Publish an HDF5 file with the content ``fill`` gives it; durable when this returns.

    Raises StoreError when the disk refuses.
    """
    memory = h5py.File(path.name, "w", driver="core", backing_store=False, libver="latest", userblock_size=_HEADER)
    with memory:
        fill(memory)
        memory.flush()
        image = memory.id.get_file_image()
    header = f"pfdhpc {kind} {FORMAT_VERSION} {_checksum(image)}\n".encode()
    publish(path, header.ljust(_HEADER, b"\0") + image)


def read_hdf5(path: Path, kind: str) -> h5py.File:
    """Open a file of :func:`write_hdf5` from memory; nothing on the disk stays open.

    Raises Damaged when the checksum differs, StoreError when the file cannot be read or a newer
    program wrote it, FileNotFoundError.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StoreError(f"{path}: cannot be read: {error.strerror}; check its permissions") from None
    words = content[:_HEADER].rstrip(b"\0").decode("ascii", "replace").split()
    if len(words) != 4 or words[:2] != ["pfdhpc", kind] or not words[2].isdigit():
        raise Damaged(f"{path}: not a pfdhpc {kind} file, or its beginning is damaged")
    if int(words[2]) > FORMAT_VERSION:
        raise StoreError(
            f"{path}: written in format {words[2]}, this pfdhpc reads up to {FORMAT_VERSION}; use the newer pfdhpc"
        )
    if words[3] != _checksum(content[_HEADER:]):
        raise Damaged(f"{path}: damaged, its checksum does not fit its content")
    return h5py.File(h5py.h5f.open_file_image(content))


def publish(path: Path, content: bytes) -> None:
    """Write a file under a temporary name, fsync, rename it into place, fsync the folder."""
    unfinished = path.with_name(f".{path.name}{UNFINISHED}")
    try:
        with open(unfinished, "wb") as handle:
            handle.write(content)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(unfinished, path)
        sync_folder(path.parent)
    except OSError as error:
        if unfinished.exists():
            unfinished.unlink()
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


def open_folder(folder: Path) -> None:
    """Make a folder, and remove what writes that were cut short left in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob(f".*{UNFINISHED}"):
            leftover.unlink()
        sync_folder(folder.parent)
    except OSError as error:
        raise StoreError(f"{folder}: cannot be written: {error.strerror}; {_remedy(error)}") from error


def _checksum(content: bytes) -> str:
    return blake2b(content, digest_size=16).hexdigest()


def _remedy(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "free space on this file system, then run again: everything committed is safe"
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return "make the folder writable, or choose another run.directory"
    return "check the file system, then run again: everything committed is safe"
