"""The pool of a ``simplify`` run: its frames, cut into chunks, and what a run begins with and ends with."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from ..config import Config
from ..config.init import source
from ..config.pool import PoolSection
from ..data import Frame, Label, Origin, Record
from ..data.compositions import determining, formula_of
from ..data.geometry import defects
from ..data.io import read_frames
from ..engines.explore.pool import ACCURATE, CANDIDATE, FAILED, Committee
from ..errors import InputError
from . import messages as m
from .folder import RunFolder
from .given import is_run, read
from .repeated_frames import apart, once
from .state import Replica, RunState


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


class Scanner:
    """An explorer's side: reads the pool once, holds the newest committee."""

    def __init__(self, config: Config, folder: RunFolder):
        self._section, self._folder = config.pool, folder
        self._pool: Pool | None = None
        self._committee: tuple[tuple[str, ...], Committee | None] = (), None

    def read(self) -> None:
        """Read the pool; raises InputError."""
        self._pool = read_pool(self._section)

    def scan(self, order: m.Scan) -> tuple[list[Record], dict[str, int]]:
        """The candidates of a chunk with the first member's predictions, and how many frames are of which kind."""
        done = set(order.done)
        records = [record for record in self._pool.chunks[order.replica] if record.frame_id not in done]
        frames: list[Frame] = [record.frame for record in records]
        labels: list[Label | None] | None = [record.label for record in records] if self._section.true_error else None
        counts, candidates = dict.fromkeys((ACCURATE, CANDIDATE, FAILED), 0), []
        judgements = self._models(order.models).judge(frames, labels) if frames else []
        for record, found in zip(records, judgements, strict=True):
            kind = found.kind(order.forces, order.energies) if order.forces else CANDIDATE
            counts[kind] += 1
            if kind == CANDIDATE:
                candidates.append(self._candidate(order, record, found))
        return candidates, counts

    def _candidate(self, order: m.Scan, record: Record, found) -> Record:
        origin = {"replica": order.replica, "round": order.round, "deviation": found.force}
        origin |= {"model_version": order.models[0].version, "model_hash": order.models[0].digest}
        return replace(record.with_origin(**origin), prediction=found.prediction)

    def _models(self, models: tuple[m.ModelRef, ...]) -> Committee:
        digests = tuple(model.digest for model in models)
        if self._committee[0] != digests:
            paths = [self._folder.near(digest, f"scan {member}") for member, digest in enumerate(digests)]
            self._committee = digests, Committee(paths)
        return self._committee[1]


def done_with(state: RunState) -> tuple[str, ...]:
    """Ids of frames that are out of the pool: labelled, kept to test on, or refused by the labeler."""
    labelled = (key.partition(":")[0] for key in (*state.label_ids, *state.fixed_ids))
    return tuple(sorted({*labelled, *state.refused, *state.elsewhere}))


def scanned(state: RunState, answer: m.Explored) -> RunState:
    """The counts of a chunk in the record of the round."""
    now = state.current
    return state.note(scanned=True, accurate=now.accurate + answer.accurate, failed=now.failed + answer.failed)


def described(accurate: int, candidates: int, failed: int) -> str:
    """The sets of a round in words."""
    total = accurate + candidates + failed
    if not total:
        return "no frame of the pool is without a label"
    shares = ((accurate, ACCURATE), (candidates, CANDIDATE), (failed, FAILED))
    return f"{total} frames without a label: " + ", ".join(f"{n} {name} ({n / total:.0%})" for n, name in shares)
