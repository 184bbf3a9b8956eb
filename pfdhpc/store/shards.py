"""Immutable HDF5 shards of records, laid out by the table of fields.

One dataset per field, named as in :mod:`pfdhpc.data.fields`: per-atom quantities are concatenated
over the frames (``n_atoms`` tells the lengths), per-frame quantities are stacked, a missing number is
NaN. ``frame_id`` and any further text column stand beside them. Units are attributes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ..data import Record
from ..data.fields import FIELDS, Field, build, get
from .container import read_hdf5, write_hdf5

KIND = "frames"
TEXT = h5py.string_dtype("utf-8")
COMPRESS_ABOVE = 16384
"""Bytes from which a dataset is compressed."""


@dataclass(frozen=True)
class Shard:
    """What one file holds: records, one text per record in each of ``columns``, and the file's attributes."""

    records: tuple[Record, ...]
    columns: Mapping[str, Sequence[str]] = field(default_factory=dict)
    attrs: Mapping[str, str] = field(default_factory=dict)


def write_shard(path: Path, shard: Shard) -> None:
    """Publish a shard; durable when this returns. Raises StoreError."""
    write_hdf5(path, KIND, lambda file: _fill(file, shard))


def read_shard(path: Path) -> Shard:
    """Read a whole shard. Raises Damaged, StoreError or FileNotFoundError."""
    with read_hdf5(path, KIND) as file:
        n_atoms = file["n_atoms"][:]
        data = {item.name: _read(file[item.name], item) for item in FIELDS}
        columns = {name: list(file["columns"][name].asstr()[:]) for name in file["columns"]}
        attrs = dict(file.attrs)
    ends = np.cumsum(n_atoms)
    records = []
    for row, (end, n) in enumerate(zip(ends, n_atoms, strict=True)):
        atoms = slice(end - n, end)
        records.append(build({item.name: _pick(data[item.name], item, row, atoms) for item in FIELDS}))
    return Shard(tuple(records), columns, attrs)


def _fill(file: h5py.File, shard: Shard) -> None:
    records = shard.records
    for name, text in shard.attrs.items():
        file.attrs[name] = text
    file.create_dataset("n_atoms", data=np.array([len(record.frame) for record in records], "i8"))
    _write_text(file, "frame_id", [record.frame_id for record in records])
    for item in FIELDS:
        values = [get(record, item) for record in records]
        if item.dtype == "str":
            _write_text(file, item.name, values)
            continue
        join = np.concatenate if item.per_atom else np.stack
        _write_numbers(file, item, join([np.asarray(value, item.dtype) for value in values]))
    columns = file.create_group("columns")
    for name, texts in shard.columns.items():
        _write_text(columns, name, texts)


def _write_numbers(file: h5py.File, item: Field, array: np.ndarray) -> None:
    packing = {"compression": "gzip", "compression_opts": 1, "shuffle": True} if array.nbytes > COMPRESS_ABOVE else {}
    dataset = file.create_dataset(item.name, data=array, dtype=item.dtype, **packing)
    if item.unit:
        dataset.attrs["unit"] = item.unit


def _write_text(group: h5py.Group, name: str, texts: Sequence[str]) -> None:
    group.create_dataset(name, data=list(texts), dtype=TEXT, shape=(len(texts),))


def _read(dataset: h5py.Dataset, item: Field) -> np.ndarray:
    return dataset.asstr()[:] if item.dtype == "str" else dataset[:]


def _pick(array: np.ndarray, item: Field, row: int, atoms: slice) -> Any:
    if item.per_atom:
        return array[atoms]
    value = array[row]
    return value if item.shape or item.dtype == "str" else value.item()
