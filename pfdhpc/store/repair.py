"""What can be put right in a store: half-written files, leftovers, and whatever is still good of a damaged file."""

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

import h5py

from ..errors import StoreError
from ..files import sync_folder
from .hdf5_file import Damaged, open_folder, read_dataset
from .labelled_rejected import LABELLED, LEVEL
from .shard_folder import ShardFolder, number_of, shard_path, shard_paths
from .shards import Table, broken_rows, joined, load, sound, write_table
from .verify import Part, row_problems

ASIDE = "damaged"
"""Damaged files go to a folder of this name; none is ever removed."""


def repair_frames(frames: Path, parts: Sequence[Part]) -> list[str]:
    """Mend what :func:`pfdhpc.store.verify.check_store` found; one line per thing done. No run may be writing.

    Raises StoreError.
    """
    done: list[str] = []
    for part in parts:
        folder = frames / part.name
        if not folder.is_dir():
            continue
        open_folder(folder)
        if part.unfinished:
            done.append(f"{folder}: {part.unfinished} unfinished files removed")
        for path in part.damaged:
            done.append(_save(path, part.name == LABELLED))
            _set_aside(path, frames / ASIDE, f"{part.name}-{path.name}")
        before = len(shard_paths(folder))
        try:
            ShardFolder(folder, {}, LEVEL[part.name])  # opening removes leftovers
        except StoreError as error:
            done.append(f"not repaired: {error}")
        if gone := before - len(shard_paths(folder)):
            done.append(f"{folder}: {gone} files removed whose frames are all in newer ones")
    return done


def repair_checkpoints(folder: Path, part: Part) -> list[str]:
    """Set damaged checkpoints aside."""
    if not folder.is_dir():
        return []
    open_folder(folder)
    for path in part.damaged:
        _set_aside(path, folder / ASIDE, path.name)
    return [f"{path}: set aside in {folder / ASIDE}" for path in part.damaged]


def _save(path: Path, labelled: bool) -> str:
    """Rewrite the good rows of a damaged shard; in a child process, which HDF5 may crash on what it reads."""
    with ProcessPoolExecutor(1, get_context("fork")) as pool:
        try:
            table, attrs, n_rows = pool.submit(salvage, path, labelled).result()
        except BrokenProcessPool:
            table, attrs, n_rows = None, {}, 0
    saved = 0 if table is None else len(table)
    if table is not None:
        last = max(number_of(other) for other in shard_paths(path.parent))
        write_table(shard_path(path.parent, last + 1), table, attrs)
    return f"{path}: {saved} of {n_rows or 'an unknown number of'} frames saved, file set aside in {ASIDE}"


def salvage(path: Path, labelled: bool) -> tuple[Table | None, dict[str, str], int]:
    """The rows of a damaged shard that their own checksums prove good, its attributes, how many rows it had.

    Shards of format 1 have no checksums of rows: nothing of them can be proven.
    """
    try:
        with h5py.File(h5py.h5f.open_file_image(path.read_bytes())) as file:
            n_rows = len(read_dataset(file, "n_atoms"))
            found = _good_rows(file, 0, n_rows, labelled)
            return joined(found) if found else None, _attributes(file), n_rows
    except (Damaged, OSError, KeyError, ValueError, RuntimeError):
        return None, {}, 0


def _good_rows(file: h5py.File, first: int, last: int, labelled: bool) -> list[Table]:
    """Halve what cannot be read until the rest can."""
    try:
        table = sound(load(file, first, last), Path(file.filename))
    except Damaged:
        if last - first <= 1:
            return []
        middle = (first + last) // 2
        return _good_rows(file, first, middle, labelled) + _good_rows(file, middle, last, labelled)
    broken = set(broken_rows(table))
    intact = [row for row in range(len(table)) if row not in broken]
    good = [
        row
        for row, content in zip(intact, table.rows(intact), strict=True)
        if not row_problems(content, table.data["frame_id"][row].decode(), labelled)
    ]
    return [table.take(good)] if good else []


def _attributes(file: h5py.File) -> dict[str, str]:
    try:
        return {name: str(value) for name, value in file.attrs.items()}
    except (OSError, RuntimeError, KeyError):
        return {}


def _set_aside(path: Path, folder: Path, name: str) -> None:
    open_folder(folder)
    number, target = 1, folder / name
    while target.exists():
        number += 1
        target = folder / f"{number}-{name}"
    try:
        path.rename(target)
        sync_folder(folder)
        sync_folder(path.parent)
    except OSError as error:
        raise StoreError(f"{path}: cannot be moved to {folder}: {error.strerror}") from None
