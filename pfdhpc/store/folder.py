"""A folder of shards read as one table: every key once, few files, nothing lost to a kill."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from ..data import Record
from ..data.fields import FIELDS, get
from ..errors import StoreError
from .container import Damaged, open_folder, sync_folder
from .shards import Shard, read_shard, write_shard

SMALL = 4 * 2**20
"""Bytes below which a shard counts as small."""
MAX_SMALL = 64
"""Small shards above which they are merged: parallel file systems dislike many small files."""

Row = tuple[Record, Mapping[str, str]]
"""A record and its texts by column."""


class ShardFolder:
    """The single writer of one folder. ``key_of`` names a row; ``rows`` holds all of them by key."""

    def __init__(self, directory: Path, attrs: Mapping[str, str], key_of: Callable[[Row], str]):
        self.directory = directory
        self.rows: dict[str, Row] = {}
        self._attrs, self._key_of = dict(attrs), key_of
        self._small: dict[Path, list[str]] = {}  # keys of the small shards written with our attributes
        open_folder(directory)
        self._last = 0
        for path in reversed(shard_paths(directory)):
            self._take(path)

    def append(self, rows: Sequence[Row]) -> None:
        """Publish rows whose keys are new, in one shard; durable when this returns."""
        new: dict[str, Row] = {}
        for row in rows:
            key = self._key_of(row)
            if key not in self.rows:
                new.setdefault(key, row)
        if not new:
            return
        self._write(new)
        self.rows |= new
        if len(self._small) > MAX_SMALL:
            self._merge()

    def _take(self, path: Path) -> None:
        """Read a shard, newest first: one whose rows are all in newer ones is the leftover of a merge."""
        self._last = max(self._last, _number(path))
        shard = _read(path)
        rows = {self._key_of(row): row for row in rows_of(shard)}
        if all(key in self.rows and same(self.rows[key], row) for key, row in rows.items()):
            path.unlink()
            return
        self.rows = {**rows, **self.rows}
        if path.stat().st_size < SMALL and dict(shard.attrs) == self._attrs:
            self._small[path] = list(rows)

    def _write(self, rows: Mapping[str, Row]) -> Path:
        self._last += 1
        path = self.directory / f"shard-{self._last:06d}.h5"
        names = next(iter(rows.values()))[1]
        columns = {name: [texts[name] for _, texts in rows.values()] for name in names}
        write_shard(path, Shard(tuple(record for record, _ in rows.values()), columns, self._attrs))
        if path.stat().st_size < SMALL:
            self._small[path] = list(rows)
        return path

    def _merge(self) -> None:
        """All small shards in one: first the new file, then the old ones go."""
        parts = self._small
        self._small = {}
        self._write({key: self.rows[key] for path in sorted(parts) for key in parts[path]})
        for path in parts:
            path.unlink()
        sync_folder(self.directory)


def shard_paths(directory: Path) -> list[Path]:
    """The published shards of a folder, in the order they were written."""
    return sorted(directory.glob("shard-*.h5"), key=_number)


def rows_of(shard: Shard) -> list[Row]:
    return [
        (record, {name: texts[index] for name, texts in shard.columns.items()})
        for index, record in enumerate(shard.records)
    ]


def same(one: Row, other: Row) -> bool:
    """Whether two rows are equal to the last bit."""
    if one[1] != other[1]:
        return False
    for item in FIELDS:
        ours, theirs = (get(record, item) for record, _ in (one, other))
        if item.dtype == "str":
            if ours != theirs:
                return False
        elif not np.array_equal(
            np.asarray(ours, item.dtype), np.asarray(theirs, item.dtype), equal_nan=item.dtype == "f8"
        ):
            return False
    return True


def _read(path: Path) -> Shard:
    try:
        return read_shard(path)
    except Damaged as error:
        raise StoreError(
            f"{error}; move this file away (its frames are then labelled again) or restore it from a backup"
        ) from None


def _number(path: Path) -> int:
    return int(path.stem.split("-")[1])
