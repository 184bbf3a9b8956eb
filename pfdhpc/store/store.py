"""Every frame a run has paid for, on disk the moment it exists.

``labelled`` holds the frames with a label, each label once; ``rejected`` those that got none, with
the reason. Only the coordinator writes; anyone may read (:func:`read_records`).
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ..data import Record, label_id
from .labelled_rejected import LABELLED, LEVEL, REJECTED, check_labels, each_shard
from .shard_folder import ShardFolder, keys_of
from .shards import Table


class Store:
    """The single writer of a run's frames. ``attrs`` go into every file it writes.

    Opening verifies every file and cleans up after a killed job; raises StoreError when a file is
    damaged or the folder cannot be used. In memory is an index; records are read when asked for, also by other
    threads than the one that writes, and each is verified as it is read (StoreError).
    """

    def __init__(self, directory: Path, attrs: Mapping[str, str]):
        self.directory = Path(directory)
        self._labelled = ShardFolder(self.directory / LABELLED, attrs, LEVEL[LABELLED])
        self._rejected = ShardFolder(self.directory / REJECTED, attrs, LEVEL[REJECTED])

    def __len__(self) -> int:
        """How many labels there are."""
        return len(self._labelled.index)

    def __contains__(self, label_id: str) -> bool:
        return label_id in self._labelled.index

    @property
    def label_ids(self) -> list[str]:
        """What :meth:`records` can be asked for."""
        return sorted(self._labelled.index)

    @property
    def n_rejected(self) -> int:
        """How many frames got no label."""
        return len(self._rejected.index)

    def commit(self, labelled: Sequence[Record]) -> None:
        """Keep labelled records; on disk when this returns. A label that is there already is left as it is.

        Raises StoreError, and ValueError for a record without a finite label; nothing of the batch is kept then,
        but where the disk refused the merging of files that follows.
        """
        self.append(labelled, ())
        self.merge()

    def reject(self, record: Record, reason: str, level: str) -> None:
        """Keep a frame that got no label at this level, with the reason. Durable, once."""
        self.reject_all([(record, reason, level)])

    def reject_all(self, rejected: Sequence[tuple[Record, str, str]]) -> None:
        """Keep several ``(record, reason, level)`` as :meth:`reject` does, in one file."""
        self.append((), rejected)
        self.merge()

    def append(self, labelled: Sequence[Record], rejected: Sequence[tuple[Record, str, str]]) -> None:
        """Keep labelled records and ``(record, reason, level)`` of others, one file each; the same, unmerged."""
        check_labels(labelled)
        self._labelled.append([(record, {}) for record in labelled])
        self._rejected.append([(record, {"reason": _clean(why), "level": level}) for record, why, level in rejected])

    def merge(self) -> None:
        """Make many small files few. Raises StoreError; what was kept stays kept."""
        self._labelled.merge()
        self._rejected.merge()

    def records(self, label_ids: Iterable[str] | None = None) -> list[Record]:
        """Labelled records by label id, in the order asked for; all of them in the order of their ids.

        Ask for many at once: each file is read once. Raises KeyError.
        """
        keys = sorted(self._labelled.index) if label_ids is None else label_ids
        return [record for record, _ in self._labelled.read(keys)]

    def get(self, frame_id: str, level: str) -> Record | None:
        """The labelled record of a frame at a level of theory."""
        key = label_id(frame_id, level)
        return self.records([key])[0] if key in self._labelled.index else None

    def rejected(self) -> list[tuple[Record, str]]:
        """``(record, reason)`` of every frame that got no label."""
        return [(record, texts["reason"]) for record, texts in self._rejected.read(sorted(self._rejected.index))]

    def was_rejected(self, frame_id: str, level: str) -> str | None:
        """Why a frame has no label at this level; None if it was not rejected."""
        key = label_id(frame_id, level)
        return self._rejected.read([key])[0][1]["reason"] if key in self._rejected.index else None

    def refused(self, frame_id: str, level: str) -> Record:
        """The record of a frame that got no label at this level. Raises KeyError."""
        return self._rejected.read([label_id(frame_id, level)])[0][0]


def read_records(directory: Path) -> list[Record]:
    """All labelled records of a store, also while a run is writing to it; raises StoreError."""
    found: dict[str, Record] = {}

    def take(table: Table, attrs: Mapping[str, str]) -> None:
        found.update(zip(keys_of(table, LEVEL[LABELLED]), (record for record, _ in table.rows()), strict=True))

    each_shard(Path(directory) / LABELLED, take)
    return [found[key] for key in sorted(found)]


def _clean(reason: str) -> str:
    """Text without what text cannot hold: programs print anything."""
    return reason.encode("utf-8", "replace").decode().replace("\0", "")
