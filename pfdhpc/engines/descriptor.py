"""The descriptors a deep-potential model itself makes of its environments."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ase.data import atomic_numbers, chemical_symbols

from ..data import Frame
from ..errors import TaskError


class ModelDescriptor:
    """Atomic descriptors of a model (.pth or .pt), in its own units."""

    def __init__(self, path: Path):
        from deepmd.infer import DeepPot

        self._model = DeepPot(str(path))
        self._types = {atomic_numbers[name]: index for index, name in enumerate(self._model.get_type_map())}

    def __call__(self, frames: Sequence[Frame]) -> list[np.ndarray]:
        """Descriptors (n_atoms, width) of each frame, evaluated one by one.

        Raises TaskError for an element the model does not know.
        """
        return [self._of(frame) for frame in frames]

    def _of(self, frame: Frame) -> np.ndarray:
        unknown = sorted(set(frame.numbers.tolist()) - set(self._types))
        if unknown:
            names = ", ".join(chemical_symbols[number] for number in unknown)
            raise TaskError(f"the model does not know the elements {names}")
        cells = frame.cell.reshape(1, 9) if frame.pbc.any() else None
        types = np.array([self._types[number] for number in frame.numbers])
        found = self._model.eval_descriptor(frame.positions.reshape(1, -1), cells, types, dtype="fp64")
        return np.ascontiguousarray(found[0])
