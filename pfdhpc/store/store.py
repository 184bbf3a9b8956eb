"""Every frame a run has paid for, on disk the moment it exists.

``labelled`` holds the frames with a label, each label once; ``rejected`` those that got none, with
the reason. Only the coordinator writes; anyone may read (:func:`read_records`).
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from ..data import Record, label_id
from ..errors import StoreError
from .folder import Row, ShardFolder, rows_of, same, shard_paths
from .shards import read_shard

LABELLED, REJECTED = "labelled", "rejected"
RELISTS = 10


class Store:
    """The single writer of a run's frames. ``attrs`` go into every file it writes.

    Opening reads everything and cleans up after a killed job; raises StoreError when a file is
    damaged or the folder cannot be used.
    """

    def __init__(self, directory: Path, attrs: Mapping[str, str]):
        self.directory = Path(directory)
        self._labelled = ShardFolder(self.directory / LABELLED, attrs, _label_key)
        self._rejected = ShardFolder(self.directory / REJECTED, attrs, _rejection_key)

    def __len__(self) -> int:
        """How many labels there are."""
        return len(self._labelled.rows)

    def commit(self, labelled: Sequence[Record]) -> None:
        """Keep labelled records; on disk when this returns. A label that is there already is left as it is.

        Raises StoreError; nothing of the batch counts as kept then. Raises ValueError for a record
        without a finite label.
        """
        for record in labelled:
            if problem := _label_problem(record):
                raise ValueError(f"frame {record.frame_id}: {problem}; only good labels are committed")
        self._labelled.append([(record, {}) for record in labelled])

    def reject(self, record: Record, reason: str, level: str) -> None:
        """Keep a frame that got no label at this level, with the reason. Durable, once."""
        clean = reason.encode("utf-8", "replace").decode().replace("\0", "")  # programs print anything
        self._rejected.append([(record, {"reason": clean, "level": level})])

    def records(self, label_ids: Iterable[str] | None = None) -> list[Record]:
        """Labelled records by label id, in the order asked for; all of them in the order of their ids."""
        rows = self._labelled.rows
        return [rows[key][0] for key in (sorted(rows) if label_ids is None else label_ids)]

    def get(self, frame_id: str, level: str) -> Record | None:
        """The labelled record of a frame at a level of theory."""
        row = self._labelled.rows.get(label_id(frame_id, level))
        return None if row is None else row[0]

    def rejected(self) -> list[tuple[Record, str]]:
        """``(record, reason)`` of every frame that got no label."""
        rows = self._rejected.rows
        return [(rows[key][0], rows[key][1]["reason"]) for key in sorted(rows)]

    def was_rejected(self, frame_id: str, level: str) -> str | None:
        """Why a frame has no label at this level; None if it was not rejected."""
        row = self._rejected.rows.get(label_id(frame_id, level))
        return None if row is None else row[1]["reason"]

    def refused(self, frame_id: str, level: str) -> Record:
        """The record of a frame that got no label at this level. Raises KeyError."""
        return self._rejected.rows[label_id(frame_id, level)][0]

    def verify(self) -> list[str]:
        """Read all files again; one line per problem found."""
        return verify(self.directory)


def read_records(directory: Path) -> list[Record]:
    """All labelled records of a store, also while a run is writing to it; raises StoreError."""
    folder = Path(directory) / LABELLED
    for _ in range(RELISTS):
        try:
            rows = {_label_key(row): row for path in shard_paths(folder) for row in rows_of(read_shard(path))}
            return [rows[key][0] for key in sorted(rows)]
        except FileNotFoundError:  # merged into another file since it was listed
            continue
    raise StoreError(f"{folder}: its files keep changing; try again")


def verify(directory: Path) -> list[str]:
    """Problems of a store: damaged files, labels missing, not finite, or there twice and different."""
    problems: list[str] = []
    for name, key_of in ((LABELLED, _label_key), (REJECTED, _rejection_key)):
        seen: dict[str, Row] = {}
        for path in shard_paths(Path(directory) / name):
            try:
                rows = rows_of(read_shard(path))
            except StoreError as error:
                problems.append(str(error))
                continue
            problems += _row_problems(path, rows, name == LABELLED)
            for row in rows:
                if not same(seen.setdefault(key_of(row), row), row):
                    problems.append(f"{path}: {key_of(row)} is there twice, with different content")
    return problems


def _row_problems(path: Path, rows: list[Row], labelled: bool) -> list[str]:
    problems = []
    for record, _ in rows:
        if not (np.isfinite(record.frame.positions).all() and np.isfinite(record.frame.cell).all()):
            problems.append(f"{path}: frame {record.frame_id}: positions or cell are not finite")
        if labelled and (problem := _label_problem(record)):
            problems.append(f"{path}: frame {record.frame_id}: {problem}")
    return problems


def _label_problem(record: Record) -> str:
    if record.label is None or record.labelling is None or not record.labelling.level:
        return "it has no label, or its level of theory is not known"
    if record.label.forces.shape != record.frame.positions.shape:
        return f"forces {record.label.forces.shape} do not fit positions {record.frame.positions.shape}"
    return "" if record.label.is_finite() else "its label is not finite"


def _label_key(row: Row) -> str:
    return row[0].label_id


def _rejection_key(row: Row) -> str:
    return label_id(row[0].frame_id, row[1]["level"])
