"""A folder of shards read as one table: every key once, few files, nothing lost to a kill.

In memory is an index alone (where each key lies); rows are read when they are asked for. At opening every file is
read once and its checksum verified; a row read later is verified by its own.
"""

import math
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ..data import label_id
from ..errors import StoreError
from ..files import sync_folder
from .hdf5_file import Damaged, open_folder
from .shards import Row, Table, joined, read_columns, read_rows, read_table, table_of, write_table

RECENT_ATOMS = 500_000
"""Atoms whose frames are kept: about 50 MB."""


class Recent:
    """Rows by key, the longest unused forgotten first; safe for several threads."""

    def __init__(self):
        self._rows: OrderedDict[str, Row] = OrderedDict()
        self._atoms = 0
        self._lock = threading.Lock()

    def get(self, key: str) -> Row | None:
        with self._lock:
            if key in self._rows:
                self._rows.move_to_end(key)
            return self._rows.get(key)

    def put(self, key: str, row: Row) -> None:
        with self._lock:
            if key in self._rows:
                return
            self._rows[key] = row
            self._atoms += len(row[0].frame)
            while self._atoms > RECENT_ATOMS and len(self._rows) > 1:
                _, (record, _) = self._rows.popitem(last=False)
                self._atoms -= len(record.frame)


FAN = 16
"""So many shards of about one size become one: a frame is rewritten three times at most, files stay few."""
SMALL = 2**18
"""Bytes up to which a shard that waits to be merged stays in memory; there are at most some fifty of them."""
FULL = 4 * 2**20
"""Bytes from which a shard is left as it is; the largest are about 64 MiB."""
RELISTS = 10


class Place(NamedTuple):
    """Where a row lies: its shard's number, its place in it, its checksum."""

    number: int
    row: int
    checksum: bytes


class ShardFolder:
    """The single writer of one folder. A row's key is its label id, its level that of dataset ``level``.

    One thread appends; any thread reads. ``index`` holds a row once it is on the disk.
    """

    def __init__(self, directory: Path, attrs: Mapping[str, str], level: str):
        self.directory, self.level = directory, level
        self.index: dict[str, Place] = {}
        self._attrs = dict(attrs)
        self._sizes: dict[int, int] = {}  # of the shards with our attributes that are not full
        self._tables: dict[int, Table] = {}  # of those of this job that are small
        self._recent = Recent()
        self._last = 0
        open_folder(directory)
        for path in reversed(shard_paths(directory)):
            self._take(path)

    def append(self, rows: Sequence[Row]) -> None:
        """Publish rows whose keys are new, in one shard; durable when this returns.

        Raises StoreError; what is in ``index`` then is on the disk.
        """
        if not rows:
            return
        table = table_of(rows)
        new = {key: row for row, key in reversed(list(enumerate(keys_of(table, self.level)))) if key not in self.index}
        if not new:
            return
        wanted = sorted(new.values())
        self._publish(table if len(wanted) == len(rows) else table.take(wanted))
        for key, row in new.items():
            self._recent.put(key, rows[row])

    def merge(self) -> None:
        """Make many small shards few. Raises StoreError: all rows are on the disk then as they were."""
        while parts := self._crowded():
            self._merge(parts)

    def read(self, keys: Iterable[str]) -> list[Row]:
        """Rows by key, in the order asked for. Raises KeyError for one that is not there, StoreError."""
        keys = list(keys)
        found = {key: row for key in keys if (row := self._recent.get(key)) is not None}
        for _ in range(RELISTS):
            by_shard: dict[int, dict[str, Place]] = {}
            for key in keys:
                if key not in found:
                    place = self.index[key]
                    by_shard.setdefault(place.number, {})[key] = place
            if not by_shard:
                return [found[key] for key in keys]
            for number, places in by_shard.items():
                found |= self._read(number, places)
        raise StoreError(f"{self.directory}: its files keep changing; run again")

    def _read(self, number: int, places: Mapping[str, Place]) -> dict[str, Row]:
        """Rows of one shard; none of one merged into another just now, which the index knows already."""
        try:
            rows = read_rows(self._path(number), [place.row for place in places.values()])
        except FileNotFoundError:
            if all(self.index[key].number == number for key in places):
                raise StoreError(f"{self._path(number)}: has vanished; restore it from a backup") from None
            return {}
        except Damaged as error:
            raise _with_remedy(error) from None
        found = dict(zip(places, rows, strict=True))
        for key, row in found.items():
            self._recent.put(key, row)
        return found

    def _take(self, path: Path) -> None:
        """Learn of a shard, newest first: one whose rows are all in newer ones is the leftover of a merge."""
        number = number_of(path)
        self._last = max(self._last, number)
        try:
            table, attrs = read_columns(path, ("frame_id", self.level, "checksum"))
        except Damaged as error:
            raise _with_remedy(error) from None
        places = self._places(table, number)
        if all(key in self.index and self.index[key].checksum == place.checksum for key, place in places.items()):
            path.unlink()
            return
        self.index = {**places, **self.index}
        if attrs == self._attrs:
            self._note_size(path)

    def _places(self, table: Table, number: int) -> dict[str, Place]:
        checksums = table.data["checksum"].tolist()
        return {key: Place(number, row, checksums[row]) for row, key in enumerate(keys_of(table, self.level))}

    def _publish(self, table: Table) -> None:
        self._last += 1
        path = self._path(self._last)
        write_table(path, table, self._attrs)
        self._note_size(path, table)
        self.index.update(self._places(table, self._last))

    def _note_size(self, path: Path, table: Table | None = None) -> None:
        if (size := path.stat().st_size) < FULL:
            self._sizes[number_of(path)] = size
        if table is not None and size < SMALL:
            self._tables[number_of(path)] = table

    def _crowded(self) -> list[int]:
        """Shards of about one size, when there are FAN of them; the oldest first."""
        tiers: dict[int, list[int]] = {}
        for number, size in self._sizes.items():
            tiers.setdefault(int(math.log(size, FAN)), []).append(number)
        return next((sorted(numbers)[:FAN] for numbers in tiers.values() if len(numbers) >= FAN), [])

    def _merge(self, parts: Sequence[int]) -> None:
        """Several shards in one: first the new file, then the old ones go."""
        paths = [self._path(number) for number in parts]
        known = [self._tables.pop(number, None) for number in parts]
        self._publish(joined([table or read_table(path)[0] for table, path in zip(known, paths, strict=True)]))
        for number, path in zip(parts, paths, strict=True):
            del self._sizes[number]
            path.unlink()
        sync_folder(self.directory)

    def _path(self, number: int) -> Path:
        return shard_path(self.directory, number)


def shard_paths(directory: Path) -> list[Path]:
    """The published shards of a folder, in the order they were written."""
    paths = directory.glob("shard-*.h5")
    return sorted((path for path in paths if path.stem.removeprefix("shard-").isdigit()), key=number_of)


def shard_path(directory: Path, number: int) -> Path:
    return directory / f"shard-{number:06d}.h5"


def number_of(path: Path) -> int:
    return int(path.stem.split("-")[1])


def keys_of(table: Table, level: str) -> list[str]:
    """The label id of each row."""
    return [label_id(*pair) for pair in zip(table.texts("frame_id"), table.texts(level), strict=True)]


def _with_remedy(error: Damaged) -> StoreError:
    return StoreError(
        f"{error}; `pfdhpc store verify --repair` on the run directory saves what it can;"
        " the run goes on without the frames that are lost"
    )
