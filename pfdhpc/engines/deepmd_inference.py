"""A deep-potential model file in memory: energies, forces and virials in batches, and descriptors."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
from ase.data import atomic_numbers, chemical_symbols

from ..data import Frame, Label
from ..data.geometry import right_handed_cell
from ..errors import TaskError
from .deep_potential import open_potential

ATOMS_ON_CPU = 128
"""Atoms in a batch on a CPU core. Larger ones gained little for a small se_e2_a; for a DPA-3 of three layers and
32-atom cells 256 was slower in one measurement on a busy machine, which is no more than a hint."""

ATOMS_ON_GPU = 1024
"""What deepmd itself begins with. Fixed, so that the last digits never depend on how much memory was free."""


class Predictor:
    """A model, .pth or .pt (with ``branch`` if it has several), held in memory.

    Frames are grouped by number of atoms and periodicity, whatever their elements. The last digits (1e-15 eV
    in double precision, 1e-9 eV/Å seen in single) depend on what else is in the batch, since matrix products
    of other sizes add in another order; on a GPU, where sums of forces have no order, also on the run.
    """

    def __init__(self, path: Path | str, branch: str | None = None):
        """Raises InputError, one line, for a file or a branch that is none: :func:`.deep_potential.open_potential`."""
        self._model = open_potential(Path(path), branch)
        self._types = {atomic_numbers[name]: index for index, name in enumerate(self._model.get_type_map())}

    def __call__(self, frames: Sequence[Frame]) -> list[Label]:
        """Labels in the order of ``frames``; those of molecules have no virial. Raises TaskError for frames
        with elements the model does not know, or periodic in some directions only."""
        self._check(frames)
        labels: list[Label | None] = [None] * len(frames)
        with interpreted():
            for batch in batches(frames):
                for place, label in zip(batch, self._evaluate([frames[place] for place in batch]), strict=True):
                    labels[place] = label
        return labels

    def descriptors(self, frames: Sequence[Frame]) -> list[np.ndarray]:
        """The model's own descriptors (n_atoms, width), in its units, of each frame, evaluated one by one.

        Raises TaskError as a prediction does.
        """
        self._check(frames)
        return [self._described(frame) for frame in frames]

    @property
    def elements(self) -> tuple[str, ...]:
        """The elements it knows, in its order."""
        return tuple(self._model.get_type_map())

    @property
    def cutoff(self) -> float:
        """How far it looks, Å."""
        return float(self._model.get_rcut())

    def _described(self, frame: Frame) -> np.ndarray:
        cells = right_handed_cell(frame.cell).reshape(1, 9) if frame.pbc.any() else None
        types = np.array([self._types[number] for number in frame.numbers.tolist()])
        found = self._model.eval_descriptor(frame.positions.reshape(1, -1), cells, types, dtype="fp64")
        return np.ascontiguousarray(found[0])

    def _check(self, frames: Sequence[Frame]) -> None:
        unknown = sorted({number for frame in frames for number in frame.numbers.tolist()} - set(self._types))
        if unknown:
            names = ", ".join(chemical_symbols[number] for number in unknown)
            raise TaskError(f"the model does not know the elements {names}")
        if any(frame.pbc.any() and not frame.pbc.all() for frame in frames):
            raise TaskError("deepmd models take frames periodic in all directions or in none")

    def _evaluate(self, frames: list[Frame]) -> list[Label]:
        periodic = frames[0].pbc.all()
        cells = np.array([right_handed_cell(frame.cell) for frame in frames]) if periodic else None
        positions = np.array([frame.positions for frame in frames])
        types = np.array([[self._types[number] for number in frame.numbers.tolist()] for frame in frames])
        energies, forces, virials = self._model.eval(positions, cells, types, mixed_type=True)
        return [Label(energies[i, 0], forces[i], virials[i] if periodic else None) for i in range(len(frames))]


def batches(frames: Sequence[Frame]) -> list[list[int]]:
    """Places of frames that go through a model together: as many atoms, periodic or not, of bounded size."""
    from deepmd.pt.utils.env import DEVICE

    bound = ATOMS_ON_CPU if DEVICE.type == "cpu" else ATOMS_ON_GPU
    groups: dict[tuple[int, bool], list[int]] = {}
    for place, frame in enumerate(frames):
        groups.setdefault((len(frame), bool(frame.pbc.any())), []).append(place)
    found = []
    for (n_atoms, _), members in groups.items():
        size = max(1, bound // n_atoms)
        found += [members[i : i + size] for i in range(0, len(members), size)]
    return found


def interpreted() -> AbstractContextManager:
    """TorchScript without its optimiser on CPUs.

    Optimising costs a model's first three calls 2 to 5 s (DPA-3 of one to three layers, one core) where the
    plain interpreter needs 0.2 s, and makes their last digits differ from those of later calls. It gains 4 % at
    most for DPA-3 and 8 % for a small se_e2_a; :mod:`pfdhpc.engines.explore.constant_folding` gains more.
    """
    import torch

    return nullcontext() if torch.cuda.is_available() else torch.jit.optimized_execution(False)
