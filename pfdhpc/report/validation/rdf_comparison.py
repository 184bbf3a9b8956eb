"""The structure of a warm crystal by a model, beside that of the run's own labelled frames, in the very same cells."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

import numpy as np
from ase import Atoms

from ...data import Record
from .crystal_properties import Tell, bath, distribution

ENOUGH = 6
"""Labelled frames from which a distribution can be read off."""
CELLS = 4
"""Of the labelled frames: as many are started from."""
WIDTH = 0.1
"""Å: of a bin; frames are few."""


@dataclass(frozen=True, eq=False)
class Likeness:
    """g(r) at a temperature (K) by a model, or of so many labelled frames; ``overlap`` with that of the frames.

    Of the frames themselves, the overlap is that of one half of them with the other: what no model can surpass.
    ``own``: the frames are of dynamics by the labeler itself, not picked ones.
    """

    distances: np.ndarray
    g: np.ndarray
    temperature: float
    overlap: float
    n_frames: int
    own: bool


def comparable(records: Sequence[Record], system: str) -> list[Record]:
    """The labelled frames of a system at the temperature that has most; none where they are too few.

    Frames of dynamics by the labeler itself come first: picked ones are those with unusual surroundings.
    """
    warm = [record for record in records if record.origin.system == system and isfinite(record.origin.temperature)]
    own = [record for record in warm if made_by_labeler(record)]
    for some in (own, [record for record in warm if not made_by_labeler(record)]):
        groups: dict[float, list[Record]] = {}
        for record in some:
            groups.setdefault(record.origin.temperature, []).append(record)
        largest = max(groups.values(), key=len, default=[])
        if len(largest) >= ENOUGH:
            return largest
    return []


def made_by_labeler(record: Record) -> bool:
    """Whether no model moved the atoms."""
    return record.origin.model_version < 0


def of_labels(records: Sequence[Record]) -> Likeness:
    """g(r) of labelled frames."""
    halves = [np.mean([_g(record.frame.to_atoms()) for record in records[first::2]], axis=0) for first in (0, 1)]
    g = np.mean([_g(record.frame.to_atoms()) for record in records], axis=0)
    own = made_by_labeler(records[0])
    return Likeness(_distances(len(g)), g, records[0].origin.temperature, overlap(*halves), len(records), own)


def by_model(
    truth: Likeness, records: Sequence[Record], calculator: object, steps: int, step: float, tell: Tell
) -> Likeness:
    """g(r) of short dynamics in cells of the labelled frames, from their positions; raises NoCrystal."""
    found = []
    for record in records[:: max(1, len(records) // CELLS)][:CELLS]:
        atoms = record.frame.to_atoms()
        atoms.calc = calculator
        tell("dynamics in the cells of the labels")
        found += [_g(image) for image in bath(atoms, truth.temperature, steps, step)]
    g = np.mean(found, axis=0)
    return Likeness(truth.distances, g, truth.temperature, overlap(g, truth.g), len(found), truth.own)


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """The share of neighbours at the same distances: 1 - Σ|g - g'|r² / Σ(g + g')r²."""
    shells = _distances(len(one)) ** 2
    both = float(((one + other) * shells).sum())
    return 1 - float((abs(one - other) * shells).sum()) / both if both else float("nan")


def _g(atoms: Atoms) -> np.ndarray:
    return distribution(atoms, WIDTH)


def _distances(count: int) -> np.ndarray:
    return WIDTH * (0.5 + np.arange(count))
