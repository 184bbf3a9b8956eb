"""Immutable HDF5 shards of records, laid out by the table of fields.

One dataset per field, named as in :mod:`pfdhpc.data.fields`: per-atom quantities are concatenated
over the frames (``n_atoms`` tells the lengths), per-frame quantities are stacked, a missing number is
NaN. ``frame_id``, the further texts under ``columns`` and a ``checksum`` of each row stand beside them. Units
are attributes.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from h5py import h5a, h5d, h5p, h5s, h5t

from ..data import Record
from ..data.fields import FIELDS, build, get
from .hdf5_file import FORMAT_VERSION, Damaged, misread, open_hdf5, read_dataset, read_hdf5, upgraded, write_hdf5

KIND = "frames"
COLUMNS = "columns/"
CHUNK = 32768
"""Bytes compressed together: the least that is read for one frame, and lost where a disk loses a bit. A dataset of
fewer is not compressed: that of a single frame will be, when its shard is merged with others."""
PER_ATOM = frozenset(item.name for item in FIELDS if item.per_atom)
_TEXT = h5py.string_dtype()
_UNITS = {item.name: item.unit for item in FIELDS if item.unit}

Row = tuple[Record, Mapping[str, str]]
"""A record and its texts by column."""


@dataclass(frozen=True)
class Table:
    """Rows as they lie in a file: an array per dataset, ``n_atoms`` among them; texts are bytes."""

    data: Mapping[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.data["n_atoms"])

    def atoms(self) -> list[slice]:
        """Where the atoms of each row are in the per-atom arrays."""
        ends = np.cumsum(self.data["n_atoms"]).tolist()
        return [slice(end - n, end) for end, n in zip(ends, self.data["n_atoms"].tolist(), strict=True)]

    def texts(self, name: str) -> list[str]:
        return [text.decode(errors="replace") for text in self.data[name].tolist()]

    def rows(self, wanted: Iterable[int] | None = None) -> list[Row]:
        """All rows, or those wanted."""
        atoms = self.atoms()
        return [self._row(row, atoms[row]) for row in (range(len(self)) if wanted is None else wanted)]

    def take(self, rows: Sequence[int]) -> "Table":
        """The table of some of the rows."""
        atoms = self.atoms()
        places = np.concatenate([np.arange(atoms[row].start, atoms[row].stop) for row in rows])
        return Table({name: array[places if name in PER_ATOM else rows] for name, array in self.data.items()})

    def _row(self, row: int, atoms: slice) -> Row:
        values: dict[str, Any] = {}
        for item in FIELDS:
            if item.per_atom:
                values[item.name] = self.data[item.name][atoms].copy()  # a view would keep the whole table
                continue
            value = self.data[item.name][row]
            text = item.dtype == "str"
            values[item.name] = _text(value) if text else value.copy() if item.shape else value.item()
        names = [name for name in self.data if name.startswith(COLUMNS)]
        return build(values), {name.removeprefix(COLUMNS): _text(self.data[name][row]) for name in names}


def table_of(rows: Sequence[Row]) -> Table:
    """The table of one or more rows with the same columns."""
    data: dict[str, np.ndarray] = {
        "n_atoms": np.array([len(record.frame) for record, _ in rows], "i8"),
        "frame_id": _bytes(record.frame_id for record, _ in rows),
    }
    for item in FIELDS:
        values = [get(record, item) for record, _ in rows]
        join = np.concatenate if item.per_atom else np.stack
        data[item.name] = (
            _bytes(values) if item.dtype == "str" else join([np.asarray(value, item.dtype) for value in values])
        )
    for name in rows[0][1]:
        data[COLUMNS + name] = _bytes(texts[name] for _, texts in rows)
    return _with_checksums(Table(data))


def joined(tables: Sequence[Table]) -> Table:
    """The rows of several tables with the same datasets, one below the other."""
    return Table({name: np.concatenate([table.data[name] for table in tables]) for name in tables[0].data})


def row_checksums(table: Table) -> list[bytes]:
    """A checksum of all that a row holds, as hexadecimal text."""
    names = sorted(set(table.data) - {"checksum"})
    sums = []
    for row, atoms in enumerate(table.atoms()):
        digest = blake2b(digest_size=12)
        for name in names:
            value = table.data[name][atoms if name in PER_ATOM else row]
            digest.update(value + b"\0" if isinstance(value, bytes) else value.tobytes())
        sums.append(digest.hexdigest().encode())
    return sums


def _with_checksums(table: Table) -> Table:
    return Table({**table.data, "checksum": np.array(row_checksums(table), "S24")})


STEPS = {1: _with_checksums}
"""From the tables of each older format version to those of the next."""


def write_table(path: Path, table: Table, attrs: Mapping[str, str]) -> None:
    """Publish a table with at least one row; durable when this returns. Raises StoreError."""

    def fill(file: h5py.File) -> None:
        file.attrs.update(attrs)
        file.create_group("columns")
        for name, array in table.data.items():
            _write(file, name, array)

    write_hdf5(path, KIND, fill)


def read_table(path: Path) -> tuple[Table, dict[str, str]]:
    """A whole shard and its attributes, its checksum verified. Raises Damaged, StoreError or FileNotFoundError."""
    file, version = read_hdf5(path, KIND)
    with file:
        return sound(upgraded(load(file), version, STEPS), path), dict(file.attrs)


def read_columns(path: Path, names: Sequence[str]) -> tuple[Table, dict[str, str]]:
    """Some per-frame datasets of a shard and its attributes, its checksum verified; raises as :func:`read_table`."""
    file, version = read_hdf5(path, KIND)
    with file:
        table = load(file, names=names) if version == FORMAT_VERSION else upgraded(load(file), version, STEPS)
        return table, dict(file.attrs)


def read_rows(path: Path, rows: Sequence[int]) -> list[Row]:
    """Some rows of a shard, each verified by its own checksum.

    Raises Damaged, StoreError or FileNotFoundError.
    """
    first, last = min(rows), max(rows) + 1
    file, version = open_hdf5(path, KIND)
    with file:
        table = sound(upgraded(load(file, first, last), version, STEPS), path)
    if broken := broken_rows(table):
        raise Damaged(f"{path}: damaged, row {first + broken[0]} does not fit its checksum")
    return table.rows([row - first for row in rows])


def broken_rows(table: Table) -> list[int]:
    """The rows that are not what was written."""
    return [row for row, (a, b) in enumerate(zip(table.data["checksum"], row_checksums(table), strict=True)) if a != b]


def load(file: h5py.File, first: int = 0, last: int | None = None, names: Sequence[str] = ()) -> Table:
    """Rows ``first`` to ``last`` (not included), of some datasets or all, as they are in the file.

    Raises Damaged where they cannot be read: a file may be complete, and yet nothing that a store wrote; StoreError
    where a newer HDF5 wrote them.
    """
    try:
        n_atoms = read_dataset(file, "n_atoms")
        ends = np.cumsum(n_atoms)
        rows = slice(first, len(n_atoms) if last is None else last)
        atoms = slice(ends[first] - n_atoms[first], ends[rows.stop - 1])
        names = names or [name for name in file if name != "columns"] + [COLUMNS + name for name in file["columns"]]
        data = {name: read_dataset(file, name, atoms if name in PER_ATOM else rows) for name in names}
        return Table({**data, "n_atoms": n_atoms[rows]})
    except Damaged:
        raise
    except (KeyError, IndexError, ValueError, TypeError, AttributeError, RuntimeError, OSError) as error:
        raise misread(file.filename, error) from None


def sound(table: Table, path: Path) -> Table:
    """The same table, if it has everything that rows are made of, in fitting shapes and kinds; raises Damaged."""
    n_rows, n_atoms = len(table), table.data["n_atoms"]
    wrong = {"frame_id", "checksum"} - set(table.data)
    for item in FIELDS:
        array, length = table.data.get(item.name), n_atoms.sum() if item.per_atom else n_rows
        if array is None or array.shape != (length, *item.shape) or (array.dtype.kind == "S") != (item.dtype == "str"):
            wrong.add(item.name)
    if wrong or n_atoms.min() < 0:
        raise Damaged(f"{path}: not laid out as frames are: {', '.join(sorted(wrong)) or 'n_atoms'}")
    return table


def _write(file: h5py.File, name: str, array: np.ndarray) -> None:
    """A dataset, by the calls below h5py's own, which take twice the time: a label waits for some thirty of them."""
    form = h5p.create(h5p.DATASET_CREATE)
    form.set_obj_track_times(False)
    if array.nbytes > CHUNK:
        per_row = array.nbytes // len(array)
        form.set_chunk((max(1, min(len(array), CHUNK // per_row)), *array.shape[1:]))
        if array.dtype.kind != "S":
            form.set_shuffle()
        form.set_deflate(1)
    text = array.dtype.kind == "S"
    kind = h5t.py_create(h5py.string_dtype("utf-8", array.dtype.itemsize) if text else array.dtype, logical=True)
    dataset = h5d.create(file.id, name.encode(), kind, h5s.create_simple(array.shape), form)
    dataset.write(h5s.ALL, h5s.ALL, np.ascontiguousarray(array), kind)
    if name in _UNITS:
        unit = h5a.create(dataset, b"unit", h5t.py_create(_TEXT, logical=True), h5s.create(h5s.SCALAR))
        unit.write(np.array(_UNITS[name], dtype=_TEXT))


def _text(value: bytes) -> str:
    return value.decode(errors="replace")


def _bytes(texts: Iterable[str]) -> np.ndarray:
    return np.array([text.encode() for text in texts], "S")
