"""Is what is on the disk what was written? Reads only, also beside a run that is writing."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..errors import StoreError
from ..files import UNFINISHED
from .checkpoint import checkpoint_paths, read_checkpoint
from .hdf5_file import Damaged
from .labelled_rejected import LABELLED, LEVEL, REJECTED, label_problem, visit_shards
from .shard_folder import keys_of
from .shards import Row, Table, broken_rows, read_table

LOST = "run `pfdhpc store verify --repair`; the run goes on without the frames that are lost"
EDIT = "set this file aside, and run again: the run goes on without its frames"


@dataclass
class Part:
    """What was found in one folder: a part of the store, or the checkpoints.

    ``files`` can be read; ``damaged`` cannot. ``leftovers`` are frames that a merge cut short left in two files,
    ``unfinished`` files half written: harmless, and there for a moment beside a live run. ``problems`` are
    ``(what, remedy)``.
    """

    name: str
    files: int = 0
    frames: int = 0
    size: int = 0
    rows: int = 0
    unfinished: int = 0
    problems: list[tuple[str, str]] = field(default_factory=list)
    damaged: list[Path] = field(default_factory=list)

    @property
    def leftovers(self) -> int:
        return self.rows - self.frames

    def add(self, what: str, remedy: str) -> None:
        self.problems.append((what, remedy))


def check_store(frames: Path) -> list[Part]:
    """Checksums, shapes, identities, finiteness and duplicates of everything in a frames folder."""
    return [_check_part(frames / name, name) for name in (LABELLED, REJECTED)]


def check_checkpoints(folder: Path) -> Part:
    """How many of the checkpoints can be read."""
    part = Part("checkpoints", unfinished=_unfinished(folder))
    for path in checkpoint_paths(folder):
        try:
            size = path.stat().st_size
            read_checkpoint(path)
        except FileNotFoundError:  # a live run has published a newer one
            continue
        except Damaged as error:
            part.damaged.append(path)
            part.add(str(error), "a run goes back to the one before; --repair sets it aside")
        except StoreError as error:
            part.add(*_parted(str(error)))
        else:
            part.files += 1
            part.size += size
    return part


def _check_part(folder: Path, name: str) -> Part:
    part = Part(name, unfinished=_unfinished(folder))
    seen: dict[str, bytes] = {}
    try:
        visit_shards(folder, lambda path: _check_shard(path, part, seen))
    except StoreError as error:
        part.add(*_parted(str(error)))
    part.frames = len(seen)
    return part


def _check_shard(path: Path, part: Part, seen: dict[str, bytes]) -> None:
    try:
        size = path.stat().st_size
        table, _ = read_table(path)
        found = _table_problems(table, part.name == LABELLED)
        keys = keys_of(table, LEVEL[part.name])
    except FileNotFoundError:
        raise
    except (Damaged, ValueError, KeyError) as error:
        part.damaged.append(path)
        return part.add(_named(path, str(error)), LOST)
    except StoreError as error:
        return part.add(*_parted(str(error)))
    part.files += 1
    part.size += size
    for text in found:
        part.add(_named(path, text), EDIT)
    for key, checksum in zip(keys, table.data["checksum"].tolist(), strict=True):
        if seen.setdefault(key, checksum) != checksum:
            part.add(_named(path, f"{key} is there twice, with different content"), EDIT)
    part.rows += len(keys)


def _table_problems(table: Table, labelled: bool) -> list[str]:
    told = [f"row {row} does not fit its checksum" for row in broken_rows(table)]
    for row, frame_id in zip(table.rows(), table.texts("frame_id"), strict=True):
        told += [f"frame {frame_id}: {text}" for text in row_problems(row, frame_id, labelled)]
    return told


def row_problems(row: Row, frame_id: str, labelled: bool) -> Sequence[str]:
    """What is wrong with one row, whose file says it is frame ``frame_id``."""
    record, found = row[0], []
    if record.frame_id != frame_id:
        found.append("its content is that of another frame")
    if not (np.isfinite(record.frame.positions).all() and np.isfinite(record.frame.cell).all()):
        found.append("positions or cell are not finite")
    if labelled and (problem := label_problem(record)):
        found.append(problem)
    return found


def _unfinished(folder: Path) -> int:
    return len(list(folder.glob(f".*{UNFINISHED}")))


def _parted(message: str) -> tuple[str, str]:
    """What is wrong and the remedy, of a message that tells both."""
    what, _, remedy = message.partition("; ")
    return what, remedy


def _named(path: Path, text: str) -> str:
    return text if str(path) in text else f"{path}: {text}"
