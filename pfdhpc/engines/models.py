"""Model files of whatever kind, opened for prediction or as an ASE calculator."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..data import Frame, Label
from ..errors import InputError, reason
from ..published_models import check_published
from .deep_potential import open_dp_calculator
from .metatomic import is_metatomic

Predict = Callable[[Sequence[Frame]], list[Label]]
"""Energies, forces and, in cells, virials of frames; raises TaskError for elements a model does not know."""


def open_predictor(path: Path, branch: str | None = None) -> Predict:
    """The predictions of a deepmd model (.pth or .pt) or of an exported metatomic one.

    Raises InputError, a line that begins with model.checkpoint or model.branch.
    """
    if is_metatomic(path):
        from .metatomic import MetatomicPredictor

        if branch is not None:
            raise InputError(f"model.branch: {path.name}: a metatomic model has no branches; leave the branch out")
        return _metatomic(path, MetatomicPredictor)
    from .deepmd_inference import Predictor

    return Predictor(path, branch)


def open_calculator(path: Path) -> Any:
    """The ASE calculator of a model file, likewise; it takes cells of either handedness."""
    if is_metatomic(path):
        from metatomic_ase import MetatomicCalculator

        return _metatomic(path, MetatomicCalculator)
    return open_dp_calculator(path)


def _metatomic(path: Path, make: Callable[[str], Any]) -> Any:
    check_published(path)
    try:
        return make(str(path))
    except Exception as error:  # torch and metatomic raise many kinds
        raise InputError(f"model.checkpoint: {path} cannot be used as a metatomic model: {reason(error)}") from error
