"""Checkpoints: a tree of plain values in one file, the last few kept, a damaged one passed over."""

import json
import logging
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ..errors import StoreError
from .hdf5_file import Damaged, misread, open_folder, read_dataset, read_hdf5, upgraded, write_hdf5

log = logging.getLogger(__name__)

KIND = "checkpoint"
STEPS = {1: lambda tree: tree}
"""From the trees of each older format version to those of the next."""


def save_checkpoint(directory: Path, state: Mapping[str, Any], keep: int = 3) -> Path:
    """Publish ``state`` as ``checkpoint-N.h5`` and remove all but the last ``keep``; returns its path.

    ``state`` is a tree of dicts with text keys, lists, text, numbers, None, bytes and numeric numpy
    arrays; tuples come back as lists, numpy scalars as Python numbers. Raises StoreError, and TypeError for
    anything else in the tree.
    """
    directory = Path(directory)
    open_folder(directory)
    numbers = [_number(path) for path in checkpoint_paths(directory)]
    path = directory / f"checkpoint-{max(numbers, default=0) + 1:06d}.h5"
    blobs = bytearray()
    tree = json.dumps(_encode(state, blobs))

    def fill(file: h5py.File) -> None:
        file.create_dataset("tree", data=tree, dtype=h5py.string_dtype("utf-8"))
        file.create_dataset("blobs", data=np.frombuffer(blobs, np.uint8), dtype="u1")

    write_hdf5(path, KIND, fill)
    for old in checkpoint_paths(directory)[:-keep]:
        old.unlink()
    return path


def load_checkpoint(directory: Path) -> dict[str, Any] | None:
    """The newest state that can be read, None where there is no checkpoint.

    A damaged file is passed over with a warning, one in each process; raises StoreError when none is left.
    """
    paths, damaged = checkpoint_paths(Path(directory)), []
    for path in reversed(paths):
        try:
            found = read_checkpoint(path)
        except Damaged as error:
            damaged.append(str(error))
            continue
        for reason in damaged:
            _warn(f"{reason}; going back to the checkpoint before")
        return found
    if paths:
        raise StoreError(
            f"{directory}: none of its {len(paths)} checkpoints can be read; restore one from a backup,"
            " or remove this folder to begin the run again (the labels are kept elsewhere)"
        )
    return None


@cache  # who looks at a run again and again hears it once
def _warn(text: str) -> None:
    log.warning(text)


def checkpoint_paths(directory: Path) -> list[Path]:
    """The checkpoints of a folder, oldest first."""
    paths = directory.glob("checkpoint-*.h5")
    return sorted((path for path in paths if path.stem.removeprefix("checkpoint-").isdigit()), key=_number)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The state in one file: plain values and numbers, whoever wrote it. Raises Damaged, StoreError."""
    file, version = read_hdf5(path, KIND)
    with file:
        try:
            tree = json.loads(read_dataset(file, "tree", ()).item())
            tree = _decode(tree, read_dataset(file, "blobs").tobytes())
        except Damaged:
            raise
        except (KeyError, ValueError, TypeError, AttributeError, RecursionError, OSError) as error:
            raise misread(path, error) from None
    return upgraded(tree, version, STEPS)


def _encode(value: Any, blobs: bytearray) -> Any:
    """JSON for everything but bytes and arrays, which go to ``blobs`` and leave a ``$`` placeholder."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [_encode(item, blobs) for item in value]
    if isinstance(value, Mapping):
        return {_escape(key): _encode(item, blobs) for key, item in value.items()}
    if isinstance(value, bytes | bytearray):
        return {"$bytes": _put(bytes(value), blobs)}
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
        return {"$array": [*_put(value.tobytes(), blobs), value.dtype.str, list(value.shape)]}
    raise TypeError(f"a checkpoint cannot hold {type(value).__name__}")


def _decode(value: Any, blobs: bytes) -> Any:
    if isinstance(value, list):
        return [_decode(item, blobs) for item in value]
    if not isinstance(value, dict):
        return value
    if "$bytes" in value:
        start, size = value["$bytes"]
        return blobs[start : start + size]
    if "$array" in value:
        start, size, dtype, shape = value["$array"]
        return np.frombuffer(blobs[start : start + size], dtype).reshape(shape).copy()
    return {key.removeprefix("$"): _decode(item, blobs) for key, item in value.items()}


def _escape(key: Any) -> str:
    """A key that begins with ``$`` gets one more, so that no tree looks like a placeholder."""
    if not isinstance(key, str):
        raise TypeError(f"a checkpoint needs text keys, not {key!r}")
    return f"${key}" if key.startswith("$") else key


def _put(content: bytes, blobs: bytearray) -> list[int]:
    start = len(blobs)
    blobs += content
    return [start, len(content)]


def _number(path: Path) -> int:
    return int(path.stem.split("-")[1])
