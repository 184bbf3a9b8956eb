"""HDF5 files that are complete or not there, and know when they are damaged.

A file is built in memory, written under a temporary name in the same folder, flushed to the disk and
renamed. Its HDF5 user block (512 bytes that HDF5 itself leaves alone) is one line of text with the
kind of file, the format version and the blake2b checksum of all bytes that follow; any HDF5 tool
reads the rest.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ..data.hdf5_version import newer_form
from ..errors import StoreError
from ..files import UNFINISHED, _remedy, publish, sync_folder

FORMAT_VERSION = 2
"""Version 2 added ``checksum`` to the rows of frames; readers of a kind keep a step from each older version."""

_HEADER = 512
_LAYOUT = "v110", "v110"
"""Oldest and newest form of the objects in a file: those of HDF5 1.10, which every h5py reads that pfdhpc allows.
h5py 3.16 (HDF5 2.0) writes with "latest" what h5py 3.12 to 3.15 cannot read."""


class Damaged(StoreError):
    """The file's content is not what was written."""


class _Image(h5py.File):
    """An HDF5 file in memory, with the name of the file it was read from."""

    def __init__(self, path: Path, content: bytes):
        self._path = path
        super().__init__(h5py.h5f.open_file_image(content))

    @property
    def filename(self) -> str:
        return str(self._path)


def write_hdf5(path: Path, kind: str, fill: Callable[[h5py.File], None]) -> None:
    """Publish an HDF5 file with the content ``fill`` gives it; durable when this returns.

    Raises StoreError when the disk refuses.
    """
    memory = h5py.File(path.name, "w", driver="core", backing_store=False, libver=_LAYOUT, userblock_size=_HEADER)
    with memory:
        fill(memory)
        memory.flush()
        image = memory.id.get_file_image()
    header = f"pfdhpc {kind} {FORMAT_VERSION} {_checksum(image)}\n".encode()
    publish(path, header.ljust(_HEADER, b"\0") + image)


def read_hdf5(path: Path, kind: str) -> tuple[h5py.File, int]:
    """Open a file of :func:`write_hdf5` from memory, with its format version; nothing on the disk stays open.

    Nothing is read of a file whose checksum does not fit. Raises Damaged, StoreError when the file cannot be
    read or a newer program or HDF5 wrote it, FileNotFoundError.
    """
    with _reading(path):
        content = path.read_bytes()
    version, checksum = _parse(path, kind, content[:_HEADER])
    if checksum != _checksum(content[_HEADER:]):
        raise Damaged(f"{path}: damaged, its checksum does not fit its content")
    try:
        return _Image(path, content), version
    except OSError as error:
        raise misread(path, error) from None


def open_hdf5(path: Path, kind: str) -> tuple[h5py.File, int]:
    """The same on the disk, to read little of it: its checksum is not looked at."""
    with _reading(path):
        with open(path, "rb") as handle:
            version, _ = _parse(path, kind, handle.read(_HEADER))
        return h5py.File(path, "r", locking=False), version


def upgraded(content: Any, version: int, steps: Mapping[int, Callable[[Any], Any]]) -> Any:
    """What a file of an older version holds, in the form of the present one; ``steps[v]`` leads from v to v + 1."""
    for number in range(version, FORMAT_VERSION):
        content = steps[number](content)
    return content


def misread(path: str | Path, error: Exception) -> StoreError:
    """The exception to raise where HDF5 cannot read what is in a file: the form is too new for it, or Damaged."""
    if reason := newer_form(error):
        return StoreError(f"{path}: {reason}")
    return Damaged(f"{path}: not laid out as it should be: {error}")


def read_dataset(file: h5py.File, name: str, rows: slice | tuple[()] = slice(None)) -> np.ndarray:
    """Numbers, or texts as bytes, of a dataset that lies in this file; the file may be anybody's.

    Raises Damaged for anything else that HDF5 can put under a name (links to other files, references).
    """
    link = file.get(name, getlink=True)
    dataset = file[name] if isinstance(link, h5py.HardLink) else None
    if not isinstance(dataset, h5py.Dataset) or dataset.is_virtual or dataset.external:
        raise Damaged(f"{file.filename}: {name} is not a dataset of this file")
    if h5py.check_string_dtype(dataset.dtype):
        texts = dataset[rows]
        return np.array(texts if rows == () else list(texts), "S")
    if dataset.dtype.kind not in "biuf":
        raise Damaged(f"{file.filename}: {name} holds neither numbers nor text")
    return dataset[rows]


def open_folder(folder: Path) -> None:
    """Make a folder, and remove what writes that were cut short left in it."""
    try:
        _make(folder)
        for leftover in folder.glob(f".*{UNFINISHED}"):
            leftover.unlink()
        sync_folder(folder.parent)
    except OSError as error:
        raise StoreError(f"{folder}: cannot be written: {error.strerror}; {_remedy(error)}") from error


def _make(folder: Path) -> None:
    """Whatever the umask, not writable for all."""
    if not folder.is_dir():
        _make(folder.parent)
        folder.mkdir(0o775, exist_ok=True)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, StoreError):
        raise
    except OSError as error:
        reason = newer_form(error) or f"cannot be read: {error.strerror or error}; check its permissions"
        raise StoreError(f"{path}: {reason}") from None


def _parse(path: Path, kind: str, header: bytes) -> tuple[int, str]:
    """Format version and checksum."""
    words = header.rstrip(b"\0").decode("ascii", "replace").split()
    if len(words) != 4 or words[:2] != ["pfdhpc", kind] or not words[2].isdigit() or not int(words[2]):
        raise Damaged(f"{path}: not a pfdhpc {kind} file, or its beginning is damaged")
    if int(words[2]) > FORMAT_VERSION:
        raise StoreError(
            f"{path}: written in format {words[2]}, this pfdhpc reads up to {FORMAT_VERSION}; use the newer pfdhpc"
        )
    return int(words[2]), words[3]


def _checksum(content: bytes) -> str:
    return blake2b(content, digest_size=16).hexdigest()
