"""Exported metatomic models (PET, of metatrain): what files they are, and their predictions, in batches."""

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import chemical_symbols

from ..data import Frame, Label
from ..data.geometry import right_handed
from ..errors import TaskError
from ..published_models import check_published
from ..units import virial_from_stress

ATOMS = {"cpu": 128, "cuda": 1024}
"""Atoms in a batch, fixed so that the last digits never depend on how much memory was free."""


def is_metatomic(path: Path) -> bool:
    """Whether a file is an exported metatomic model, by a look into the archive that TorchScript files are."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/extra/metatomic-version") for name in archive.namelist())


class MetatomicPredictor:
    """A model held in memory, asked by the calculator that drives the dynamics; conservative forces."""

    def __init__(self, model: Path | str | Any):
        """``model``: an exported file, or a metatomic ``AtomisticModel``."""
        from metatomic.torch import load_atomistic_model
        from metatomic_ase import MetatomicCalculator

        if isinstance(model, Path | str):
            check_published(Path(model))
            model = load_atomistic_model(str(model))
        self._known = set(model.capabilities().atomic_types)
        self._calculator = MetatomicCalculator(model)

    def __call__(self, frames: Sequence[Frame]) -> list[Label]:
        """Labels in the order of ``frames``; those without a cell in all directions have no virial.

        Raises TaskError for frames with elements the model does not know.
        """
        unknown = sorted({number for frame in frames for number in frame.numbers.tolist()} - self._known)
        if unknown:
            raise TaskError(f"the model does not know the elements {', '.join(chemical_symbols[z] for z in unknown)}")
        labels: list[Label | None] = [None] * len(frames)
        for batch in _batches(frames):
            for place, label in zip(batch, self._evaluate([frames[place] for place in batch]), strict=True):
                labels[place] = label
        return labels

    def _evaluate(self, frames: list[Frame]) -> list[Label]:
        """Of frames that are all crystals, or all not."""
        found = self._calculator.compute_energy([right_handed(frame).to_atoms() for frame in frames], True)
        stresses = found["stress"] if frames[0].pbc.all() else [None] * len(frames)
        return [
            Label(energy, forces, None if stress is None else virial_from_stress(np.asarray(stress), frame.volume))
            for frame, energy, forces, stress in zip(frames, found["energy"], found["forces"], stresses, strict=True)
        ]


def _batches(frames: Sequence[Frame]) -> list[list[int]]:
    """Places of frames that go through the model together: crystals apart from others, of bounded size."""
    import torch

    bound, found = ATOMS["cuda" if torch.cuda.is_available() else "cpu"], []
    for crystal in (True, False):
        batch, n_atoms = [], 0
        for place, frame in enumerate(frames):
            if bool(frame.pbc.all()) != crystal:
                continue
            if batch and n_atoms + len(frame) > bound:
                found.append(batch)
                batch, n_atoms = [], 0
            batch.append(place)
            n_atoms += len(frame)
        found += [batch] if batch else []
    return found
