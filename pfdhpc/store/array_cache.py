"""Arrays that are cheaper to read than to make again, shared by the processes of a run and kept for its next jobs.

A file is one line (kind, format, size and checksum of the index), the index as JSON,
``{key: [dtype, [n, d], offset, checksum]}``, and the arrays' bytes. Files appear by rename, without
fsync: one that a crash has spoilt is passed over, and its arrays are made again.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors import StoreError
from ..files import UNFINISHED, renamed_into

KIND = "pfdhpc arrays 1"
SUFFIX = ".arrays"
DTYPES = "<f4", "<f8"
TIER = 16
"""So many files of about the same size are merged into one."""
FULL = 64 * 2**20
"""Bytes from which a file is left as it is."""


class Place(NamedTuple):
    """Where an array lies: byte ``start`` of ``file``."""

    file: str
    start: int
    dtype: str
    shape: tuple[int, int]
    checksum: str


class ArrayCache:
    """Arrays (n, d), float32 or float64, by text key, in the files of a folder.

    Any number of processes read; each writes files of its own ``name`` alone. For one thread.
    A damaged file is passed over, and removed where it is ours. Raises StoreError when the folder cannot be
    written.
    """

    def __init__(self, directory: Path, name: str):
        self.directory, self.name = Path(directory), name
        self._places: dict[str, Place] = {}
        self._seen: set[str] = set()
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            for leftover in self.directory.glob(f".*{SUFFIX}{UNFINISHED}"):
                if self._is_ours(leftover.name.removeprefix(".").removesuffix(UNFINISHED)):
                    leftover.unlink(missing_ok=True)
        except OSError as error:
            raise _refused(self.directory, error) from None
        self._list()

    def get(self, keys: Iterable[str]) -> dict[str, np.ndarray]:
        """Those of the arrays that are there."""
        keys = list(keys)
        if any(key not in self._places for key in keys):
            self._list()
        found = self._read(keys)
        if any(key not in found for key in keys) and self._list():  # its file was merged into another meanwhile
            found |= self._read([key for key in keys if key not in found])
        return found

    def put(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Keep arrays whose keys are new. Raises TypeError for other than 2-dimensional float32 or float64."""
        new = {key: _plain(key, array) for key, array in arrays.items() if key not in self._places}
        if not new:
            return
        self._write(new)
        while parts := self._crowded():
            merged = self._read([key for key, place in self._places.items() if place.file in parts])
            if merged:
                self._write(merged)
            for part in parts:
                (self.directory / part).unlink(missing_ok=True)
            self._seen -= parts

    def _list(self) -> bool:
        """Learn of files that came and went; whether any came."""
        there = {path.name for path in self.directory.glob(f"*{SUFFIX}")}
        if gone := self._seen - there:
            self._places = {key: place for key, place in self._places.items() if place.file not in gone}
            self._seen -= gone
        came = sorted(there - self._seen)
        for file in came:
            self._learn(file)
        return bool(came)

    def _learn(self, file: str) -> None:
        self._seen.add(file)
        try:
            places = _read_index(self.directory / file)
        except FileNotFoundError:
            self._seen.discard(file)
        except (OSError, ValueError, TypeError, KeyError):  # whatever a damaged index leads to
            self._drop(file)
        else:
            self._places |= places  # the newest file wins: it may be the older ones, merged

    def _read(self, keys: Iterable[str]) -> dict[str, np.ndarray]:
        by_file: dict[str, list[str]] = {}
        for key in keys:
            if key in self._places:
                by_file.setdefault(self._places[key].file, []).append(key)
        found: dict[str, np.ndarray] = {}
        for file, mine in by_file.items():
            try:
                with open(self.directory / file, "rb") as handle:
                    found |= {key: _read_array(handle, self._places[key]) for key in mine}
            except FileNotFoundError:
                self._forget(file)
                self._seen.discard(file)
            except (OSError, ValueError):
                self._drop(file)
        return found

    def _write(self, arrays: Mapping[str, np.ndarray]) -> None:
        numbers = [int(_stem(file)[1]) for file in self._seen if self._is_ours(file)]
        file = f"{self.name}-{max(numbers, default=0) + 1:06d}{SUFFIX}"
        try:
            with renamed_into(self.directory / file) as unfinished:
                unfinished.write_bytes(_pack(arrays))
        except OSError as error:
            raise _refused(self.directory / file, error) from None
        self._seen.add(file)
        self._places |= _read_index(self.directory / file)

    def _crowded(self) -> set[str]:
        """Files of ours of about one size, when there are TIER of them."""
        tiers: dict[int, set[str]] = {}
        for file in filter(self._is_ours, self._seen):
            size = (self.directory / file).stat().st_size
            if size < FULL:
                tiers.setdefault(int(math.log(size, TIER)), set()).add(file)
        return next((files for files in tiers.values() if len(files) >= TIER), set())

    def _drop(self, file: str) -> None:
        """Look at a file no more; away with it where it is ours."""
        self._forget(file)
        if self._is_ours(file):
            self._seen.discard(file)
            (self.directory / file).unlink(missing_ok=True)

    def _forget(self, file: str) -> None:
        self._places = {key: place for key, place in self._places.items() if place.file != file}

    def _is_ours(self, file: str) -> bool:
        return _stem(file)[0] == self.name


def _stem(file: str) -> tuple[str, str]:
    """``(name, number)`` of a file name, empty for one that is not of this kind."""
    found = re.fullmatch(rf"(.+)-(\d+){re.escape(SUFFIX)}", file)
    return (found[1], found[2]) if found else ("", "")


def _plain(key: str, array: np.ndarray) -> np.ndarray:
    plain = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    if plain.dtype.str not in DTYPES or array.ndim != 2:
        raise TypeError(f"array {key}: {array.dtype} {array.shape}, not float32 or float64 (n, d)")
    return plain


def _pack(arrays: Mapping[str, np.ndarray]) -> bytes:
    index, offset = {}, 0
    blobs = [array.tobytes() for array in arrays.values()]
    for (key, array), blob in zip(arrays.items(), blobs, strict=True):
        index[key] = [array.dtype.str, array.shape, offset, _checksum(blob)]
        offset += len(blob)
    table = json.dumps(index).encode()
    return b"".join([f"{KIND} {len(table)} {_checksum(table)}\n".encode(), table, *blobs])


def _read_index(path: Path) -> dict[str, Place]:
    """Raises ValueError, TypeError or OSError for a file that is damaged or of another kind."""
    with open(path, "rb") as handle:
        line = handle.readline(200)
        kind, size, checksum = line.decode("ascii").rstrip("\n").rsplit(" ", 2)
        table = handle.read(int(size))
    if kind != KIND or _checksum(table) != checksum:
        raise ValueError(f"{path}: damaged")
    start = len(line) + len(table)
    return {
        key: Place(path.name, start + offset, dtype, (int(n), int(d)), told)
        for key, (dtype, (n, d), offset, told) in json.loads(table).items()
        if dtype in DTYPES
    }


def _read_array(handle, place: Place) -> np.ndarray:
    handle.seek(place.start)
    blob = handle.read(math.prod(place.shape) * np.dtype(place.dtype).itemsize)
    if _checksum(blob) != place.checksum:
        raise ValueError(f"{place.file}: damaged")
    return np.frombuffer(blob, place.dtype).reshape(place.shape).copy()


def _checksum(content: bytes) -> str:
    return blake2b(content, digest_size=8).hexdigest()


def _refused(path: Path, error: OSError) -> StoreError:
    return StoreError(f"{path}: cannot be written: {error.strerror}; free space, or make the folder writable")
