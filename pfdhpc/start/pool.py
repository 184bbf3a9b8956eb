"""The pool of a ``simplify`` run: its frames, cut into chunks, and what a run begins with and ends with."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from ..config import Config
from ..config.init import source
from ..config.pool import PoolSection
from ..data import Origin, Record
from ..data.compositions import determining, formula_of
from ..data.geometry import defects
from ..data.io import read_frames
from ..errors import InputError
from ..workflow.state import Replica
from .given_labels import is_run, read
from .repeated_frames import apart, once


@dataclass(frozen=True, eq=False)
class Pool:
    """Every geometry once, in the order of the files; labels only where they are to be taken.

    ``told`` says how many frames were left out of it.
    """

    records: tuple[Record, ...]
    chunk: int
    told: tuple[str, ...] = ()

    @cached_property
    def chunks(self) -> dict[str, tuple[Record, ...]]:
        """The frames by the name of their chunk; a chunk has frames of one system only."""
        systems: dict[str, list[Record]] = {}
        for record in self.records:
            systems.setdefault(record.origin.system, []).append(record)
        parts = [some[i : i + self.chunk] for some in systems.values() for i in range(0, len(some), self.chunk)]
        return {f"pool-{number:03d}": tuple(part) for number, part in enumerate(parts)}

    def replicas(self) -> tuple[Replica, ...]:
        """A replica for each chunk: what an explorer is given to scan."""
        return tuple(
            Replica(name, part[0].origin.system, part[0].frame, (0.0, 0.0), (0.0, 0.0))
            for name, part in self.chunks.items()
        )

    def same_as(self, others: Iterable[Record]) -> tuple[str, ...]:
        """Ids of its frames whose geometry one of the others has, ascending."""
        new = {record.frame_id for record in apart(self.records, others)}
        return tuple(sorted(record.frame_id for record in self.records if record.frame_id not in new))

    def first(self, config: Config, seed: int, known: Collection[str]) -> tuple[Record, ...]:
        """Frames drawn by lot for the first labels, none of them among those ``known`` (frame ids).

        Of what determines the energies per element the first frames drawn are among them, as many as there may be.
        """
        budget = config.pool.init_pick
        if config.converge.max_labels is not None:
            budget = min(budget, config.converge.max_labels)
        others = [record for record in self.records if record.frame_id not in known]
        drawn = [others[place] for place in np.random.default_rng(seed).permutation(len(others))]
        formulas = list(map(formula_of, drawn))
        needed = [drawn[formulas.index(text)] for text in determining((), formulas)] if budget else []
        picked = list({item.frame_id: item for item in (*needed, *drawn)}.values())[:budget]
        picked = [item.with_origin(replica="initial", round=0) for item in picked]
        return tuple(sorted(picked, key=lambda record: record.frame_id))


def read_pool(section: PoolSection) -> Pool:
    """The frames of [pool]; raises InputError with all problems found."""
    found: list[Record] = []
    problems: list[str] = []
    for data in section.data:
        try:
            records = _read(source(data))
        except InputError as error:
            problems += [f"pool.data: {problem}" for problem in error.problems]
            continue
        problems += _wrong(source(data).path, records, section.labeled)
        found += [record if section.labeled else replace(record, label=None) for record in records]
    if not (problems or found):
        problems = ["pool.data: there is no frame in it"]
    if problems:
        raise InputError(problems)
    records, told = once(found, "pool.data")
    return Pool(tuple(records), section.chunk, tuple(told))


def _read(data) -> list[Record]:
    name = data.path.stem
    if is_run(data.path) and not data.format:
        records = read(data)
        pairs = [(record.frame, record.label) for record in records]
    else:
        pairs = read_frames(data.path, data.format)
    return [Record(frame, Origin(system=name, step=step), label=label) for step, (frame, label) in enumerate(pairs)]


def _wrong(path: Path, records: list[Record], labeled: bool) -> list[str]:
    bare = sum(record.label is None for record in records) if labeled else 0
    partly = sum(bool(record.frame.pbc.any() and not record.frame.pbc.all()) for record in records)
    problems = [f"{bare} of {len(records)} frames have no label; set pool.labeled = false"] if bare else []
    if partly:
        problems.append(f"{partly} frames are periodic in some directions only; deepmd takes all or none")
    if unusable := defects(record.frame for record in records):
        problems.append(unusable)
    return [f"pool.data: {path}: {problem}" for problem in problems]
