"""Model files of whatever kind, opened for prediction or as an ASE calculator."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..data import Frame, Label
from ..data.geometry import right_handed_cell
from ..errors import InputError
from .metatomic import is_metatomic

Predict = Callable[[Sequence[Frame]], list[Label]]
"""Energies, forces and, in cells, virials of frames; raises TaskError for elements a model does not know."""


def open_predictor(path: Path, branch: str | None = None) -> Predict:
    """The predictions of a deepmd model (.pth or .pt) or of an exported metatomic one; torch's errors pass."""
    if is_metatomic(path):
        from .metatomic import MetatomicPredictor

        if branch is not None:
            raise InputError(f"{path.name}: a metatomic model has no branches; leave the branch out")
        return MetatomicPredictor(path)
    from .inference import Predictor

    return Predictor(path, branch)


def open_calculator(path: Path) -> Any:
    """The ASE calculator of a model file, likewise; it takes cells of either handedness."""
    if is_metatomic(path):
        from metatomic_ase import MetatomicCalculator

        return MetatomicCalculator(str(path))
    return _deepmd_calculator(str(path))


def _deepmd_calculator(path: str) -> Any:
    """deepmd's calculator, which is given right-handed cells; see :func:`right_handed_cell`."""
    from ase.calculators.calculator import all_changes
    from deepmd.calculator import DP

    class RightHandedDP(DP):
        def calculate(self, atoms=None, properties=("energy", "forces", "virial"), system_changes=all_changes):
            asked = self.atoms if atoms is None else atoms
            turned = asked.copy()
            turned.set_cell(right_handed_cell(asked.cell.array))
            super().calculate(turned, properties, system_changes)
            self.atoms = asked.copy()  # what the next question is compared with

    return RightHandedDP(path)
