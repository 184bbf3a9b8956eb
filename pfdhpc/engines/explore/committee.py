"""Frames that exist already, judged by a committee of models: what ``simplify`` does instead of molecular dynamics."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...data import Frame, Label

ACCURATE, CANDIDATE, FAILED = "accurate", "candidate", "failed"
Band = tuple[float, float]
"""From the first value on a frame is a candidate, from the second on it has failed."""


@dataclass(frozen=True, eq=False)
class Judgement:
    """What the committee says of a frame; ``force`` in eV/Å, ``energy`` in eV/atom."""

    prediction: Label  # of the first member
    force: float
    energy: float

    def kind(self, forces: Band, energies: Band) -> str:
        """DP-GEN's sets: failed if one of the two is beyond its band, accurate if both are below."""
        pairs = (self.force, forces), (self.energy, energies)
        if any(not value < high for value, (_, high) in pairs):  # NaN has failed
            return FAILED
        return ACCURATE if all(value < low for value, (low, _) in pairs) else CANDIDATE


class Committee:
    """Models held in memory, all of which predict the same frames."""

    def __init__(self, models: Sequence[Path]):
        from ..deepmd_inference import Predictor

        self._members = [Predictor(path) for path in models]

    def judge(self, frames: Sequence[Frame], labels: Sequence[Label | None] | None = None) -> list[Judgement]:
        """One judgement a frame; where ``labels`` are given, by the error against them if that is larger.

        Raises TaskError for frames no deepmd model takes.
        """
        found = [member(frames) for member in self._members]
        given = labels if labels is not None else [None] * len(frames)
        return [judged(list(predictions), label) for *predictions, label in zip(*found, given, strict=True)]


def judged(predictions: Sequence[Label], label: Label | None = None) -> Judgement:
    """The judgement of one frame from the predictions of all members.

    Deviations are those of deepmd's ``model_devi``: for forces the largest over the atoms of
    sqrt(<|F - <F>|²>), for the energy the standard deviation (of the population) an atom. Errors put the label in
    the place of the mean.
    """
    forces = np.array([item.forces for item in predictions])  # (members, atoms, 3)
    energies = np.array([item.energy for item in predictions]) / len(predictions[0].forces)
    force, energy = _spread(forces, forces.mean(axis=0)), float(energies.std())
    if label is not None:
        wrong = energies - label.energy / len(label.forces)
        force, energy = max(force, _spread(forces, label.forces)), max(energy, float(np.sqrt(np.mean(wrong**2))))
    return Judgement(predictions[0], force, energy)


def _spread(forces: np.ndarray, centre: np.ndarray) -> float:
    return float(np.sqrt(((forces - centre) ** 2).sum(axis=2).mean(axis=0)).max(initial=0.0))
