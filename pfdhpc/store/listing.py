"""What is in a store, in figures."""

import re
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from .labelled_rejected import LABELLED, LEVEL, REJECTED, each_shard
from .shard_folder import keys_of, shard_paths
from .shards import COLUMNS, Table, read_columns

NEEDED = ("frame_id", "n_atoms", "origin_system", "origin_round", "origin_model_version")


@dataclass
class Group:
    """Frames of one system at one level of theory; ``rejected`` counts those without a label by reason."""

    system: str
    level: str
    frames: int = 0
    atoms: int = 0
    rounds: set[int] = field(default_factory=set)
    model_versions: set[int] = field(default_factory=set)
    rejected: Counter[str] = field(default_factory=Counter)


def groups(frames: Path) -> list[Group]:
    """Every system and level of a frames folder; raises StoreError."""
    found: dict[tuple[str, str], Group] = {}
    for part in (LABELLED, REJECTED):
        extra = (LEVEL[part], COLUMNS + "reason") if part == REJECTED else (LEVEL[part],)
        seen: set[str] = set()
        each_shard(
            frames / part,
            lambda table, attrs, part=part, seen=seen: _count(table, part, seen, found),
            partial(read_columns, names=(*NEEDED, *extra)),
        )
    return [found[key] for key in sorted(found)]


def size(frames: Path) -> tuple[int, int]:
    """Files, and bytes on the disk."""
    sizes = [path.stat().st_size for part in (LABELLED, REJECTED) for path in shard_paths(frames / part)]
    return len(sizes), sum(sizes)


def _count(table: Table, part: str, seen: set[str], found: dict[tuple[str, str], Group]) -> None:
    systems, levels = table.texts("origin_system"), table.texts(LEVEL[part])
    for row, key in enumerate(keys_of(table, LEVEL[part])):
        if key in seen:
            continue
        seen.add(key)
        pair = systems[row], levels[row]
        group = found.setdefault(pair, Group(*pair))
        if part == REJECTED:
            group.rejected[_kind(table.data[COLUMNS + "reason"][row].decode())] += 1
            continue
        group.frames += 1
        group.atoms += int(table.data["n_atoms"][row])
        group.rounds.add(int(table.data["origin_round"][row]))
        group.model_versions.add(int(table.data["origin_model_version"][row]))


def _kind(reason: str) -> str:
    """A reason without its figures: those that differ in them alone are counted together."""
    return re.sub(r"\d[\d.]*", "N", reason.splitlines()[0] if reason else "")
