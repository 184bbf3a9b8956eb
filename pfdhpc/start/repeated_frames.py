"""Labelled frames that are the same as others but for what a format changes: which of them a run takes."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from .. import messages as m
from ..data import Label, Record
from ..data.known_frames import KnownFrames, repeats
from ..data.same_geometry import motion

ENERGY, FORCE = 1e-3, 1e-2
"""eV/atom and eV/Å, by which two labels of one geometry may differ and are one label in several formats."""


def once(records: Sequence[Record], where: str) -> tuple[list[Record], list[str]]:
    """Records without those whose geometry an earlier one has, and lines that say how many these were."""
    again = repeats([record.frame for record in records])
    if not again:
        return list(records), []
    told = f"{where}: {len(again)} of {len(records)} frames are there more than once; each is taken once"
    others = [records[i] for i, first in again.items() if labels_differ(records[first], records[i])]
    lines = [told]
    if others:
        lines.append(f"{where}: {_other_labels(others)} frame that comes first; the label named first is taken")
    return [record for i, record in enumerate(records) if i not in again], lines


def _other_labels(records: Sequence[Record]) -> str:
    """``2 of these, the first of them frame 3 of more, have another label than the``."""
    origin = records[0].origin
    return f"{len(records)} of these (the first: frame {origin.step} of {origin.system}) have another label than the"


def apart(records: Sequence[Record], others: Iterable[Record]) -> list[Record]:
    """Records whose geometry none of the others has."""
    known = KnownFrames(other.frame for other in others)
    return [record for record in records if known.same(record.frame) is None]


class Untested:
    """Rejects labels of frames the run is tested on: an unaltered start, say, which test.data holds."""

    def __init__(self, tested: Iterable[Record]):
        self._known = KnownFrames(record.frame for record in tested)

    def sift(self, answer: m.Labelled) -> m.Labelled:
        """The answer, in which such frames have got no label."""
        return replace(answer, outcomes=tuple(map(self._judged, answer.outcomes)))

    def _judged(self, outcome: m.LabelOutcome) -> m.LabelOutcome:
        if not outcome.accepted or self._known.same(outcome.record.frame) is None:
            return outcome
        return m.LabelOutcome(replace(outcome.record, label=None, labelling=None), "test.data holds this frame")


def labels_differ(record: Record, other: Record) -> bool:
    """Whether two labels of one geometry are more than roundings of the same."""
    one, two, n = record.label, other.label, len(record.frame)
    if one is None or two is None:
        return False
    sizes = [np.sort(np.linalg.norm(label.forces, axis=1)) for label in (one, two)]
    energy = abs(one.energy - two.energy) - 1e-6 * abs(one.energy)  # single precision
    return energy > ENERGY * n or bool(np.abs(sizes[0] - sizes[1]).max(initial=0.0) > FORCE)


def restated(record: Record, onto: Record) -> Record:
    """The labelled record with the frame of another that is the same: forces and virial in that one's setting."""
    found = motion(record.frame, onto.frame)
    if found is None:
        raise ValueError(f"frame {record.frame_id} is not the same as {onto.frame_id}")
    back, virial = found.rotation.T, record.label.virial
    virial = None if virial is None else back.T @ virial @ back
    label = Label(record.label.energy, (record.label.forces @ back)[np.argsort(found.order)], virial)
    return replace(record, frame=onto.frame, label=label)
