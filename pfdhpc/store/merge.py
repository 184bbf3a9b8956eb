"""One store from several."""

import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..data import Label
from ..errors import InputError
from ..files import UNFINISHED, sync_folder
from .hdf5_file import open_folder
from .labelled_rejected import LABELLED, LEVEL, REJECTED, each_shard
from .shard_folder import keys_of, shard_path
from .shards import Table, read_columns, write_table

SHOWN = 5
"""Conflicts named in the message."""


class Chosen(NamedTuple):
    """The row that is kept of a key: that of the first store which has it."""

    source: Path
    checksum: bytes


def merge(sources: Sequence[Path], destination: Path) -> tuple[int, int]:
    """Write one frames folder from several; returns how many labels and rejected frames it holds.

    Each label id is there once, as the first of ``sources`` has it; ``destination`` appears complete or
    not at all. Raises InputError when two sources have different labels for one id or the destination exists,
    StoreError for a damaged source or a disk that refuses.
    """
    if destination.exists():
        raise InputError(f"{destination}: is there already; name a new folder")
    chosen = {part: _choose(sources, part) for part in (LABELLED, REJECTED)}
    unfinished = destination.with_name(f".{destination.name}{UNFINISHED}")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        for part, rows in chosen.items():
            open_folder(unfinished / part)
            _write(sources, part, rows, unfinished / part)
        unfinished.rename(destination)
        sync_folder(destination.parent)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return len(chosen[LABELLED]), len(chosen[REJECTED])


def _choose(sources: Sequence[Path], part: str) -> dict[str, Chosen]:
    """Which row is kept of each key; labels that contradict each other are refused."""
    chosen: dict[str, Chosen] = {}
    others: dict[str, Chosen] = {}
    for source in sources:

        def take(table: Table, attrs: Mapping[str, str], source: Path = source) -> None:
            for key, checksum in zip(keys_of(table, LEVEL[part]), table.data["checksum"].tolist(), strict=True):
                if chosen.setdefault(key, Chosen(source, checksum)).checksum != checksum:
                    others[key] = Chosen(source, checksum)

        each_shard(source / part, take, partial(read_columns, names=("frame_id", LEVEL[part], "checksum")))
    if part == LABELLED and (told := _contradictions(chosen, others)):
        raise InputError(told)
    return chosen


def _contradictions(chosen: Mapping[str, Chosen], others: Mapping[str, Chosen]) -> list[str]:
    """Rows that differ in provenance alone (who explored, when) are one label."""
    told = []
    for key, other in others.items():
        one, two = (_label(key, row) for row in (chosen[key], other))
        if not _equal(one, two):
            told.append(
                f"{key}: {chosen[key].source} has energy {one.energy:.8g} eV, {other.source} {two.energy:.8g} eV,"
                f" forces differ by up to {np.abs(one.forces - two.forces).max():.2g} eV/Å; they cannot be of one"
                " level of theory: leave one of the two stores out"
            )
    more = [f"and {len(told) - SHOWN} more labels"] if len(told) > SHOWN else []
    return told[:SHOWN] + more


def _label(key: str, row: Chosen) -> Label:
    found: list[Label] = []

    def take(table: Table, attrs: Mapping[str, str]) -> None:
        checksums = table.data["checksum"].tolist()
        if row.checksum in checksums:
            found.append(table.rows([checksums.index(row.checksum)])[0][0].label)

    each_shard(row.source / LABELLED, take)
    return found[0]


def _equal(one: Label, two: Label) -> bool:
    virials = [np.full((3, 3), np.nan) if label.virial is None else label.virial for label in (one, two)]
    same_forces = np.array_equal(one.forces, two.forces)
    return one.energy == two.energy and same_forces and np.array_equal(*virials, equal_nan=True)


def _write(sources: Sequence[Path], part: str, chosen: Mapping[str, Chosen], folder: Path) -> None:
    written: set[str] = set()
    for source in sources:

        def take(table: Table, attrs: Mapping[str, str], source: Path = source) -> None:
            keys = keys_of(table, LEVEL[part])
            checksums = table.data["checksum"].tolist()
            rows = [
                row
                for row, key in enumerate(keys)
                if key in chosen and chosen[key] == (source, checksums[row]) and key not in written
            ]
            written.update(keys[row] for row in rows)
            if rows:
                number = len(list(folder.iterdir())) + 1
                write_table(shard_path(folder, number), table.take(rows), attrs)

        each_shard(source / part, take)
