"""Model files of whatever kind, opened for prediction or as an ASE calculator."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..data import Frame, Label
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
    """The ASE calculator of a model file, likewise."""
    if is_metatomic(path):
        from metatomic_ase import MetatomicCalculator

        return MetatomicCalculator(str(path))
    from deepmd.calculator import DP

    return DP(str(path))
