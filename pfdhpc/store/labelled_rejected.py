"""The two parts of a store, what may be in them, and how they are read beside a live run."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ..data import Record
from ..errors import StoreError
from .shard_folder import RELISTS, shard_paths
from .shards import COLUMNS, Table, read_table

LABELLED, REJECTED = "labelled", "rejected"
LEVEL = {LABELLED: "labelling_level", REJECTED: COLUMNS + "level"}
"""Where the shards of each part hold the level of theory of a row."""


def each_shard(
    folder: Path,
    use: Callable[[Table, dict[str, str]], Any],
    read: Callable[[Path], tuple[Table, dict[str, str]]] = read_table,
) -> None:
    """Read the shards of a folder one by one, each once, also those merged meanwhile. Raises StoreError."""
    visit_shards(folder, lambda path: use(*read(path)))


def visit_shards(folder: Path, visit: Callable[[Path], Any]) -> None:
    """Call ``visit`` for each shard, also for those merged meanwhile: it raises FileNotFoundError for one that is gone.

    Raises StoreError when the files keep changing.
    """
    done: set[Path] = set()
    for _ in range(RELISTS):
        paths = [path for path in shard_paths(folder) if path not in done]
        if not paths:
            return
        for path in paths:
            try:
                visit(path)
            except FileNotFoundError:  # merged into another file since it was listed
                continue
            done.add(path)
    raise StoreError(f"{folder}: its files keep changing; try again")


def check_labels(records: Iterable[Record]) -> None:
    """Raises ValueError for a record without a finite label."""
    for record in records:
        if problem := label_problem(record):
            raise ValueError(f"frame {record.frame_id}: {problem}; only good labels are committed")


def label_problem(record: Record) -> str:
    """What is wrong with the label of a record, if anything."""
    if record.label is None or record.labelling is None or not record.labelling.level:
        return "it has no label, or its level of theory is not known"
    if record.label.forces.shape != record.frame.positions.shape:
        return f"forces {record.label.forces.shape} do not fit positions {record.frame.positions.shape}"
    return "" if record.label.is_finite() else "its label is not finite"
