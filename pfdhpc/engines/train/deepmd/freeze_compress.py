"""The model that leaves the run: frozen, and compressed where deepmd can and the answers stay the same."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ....data import Frame, Label
from ....errors import TaskError
from ...base import Product
from ...deepmd_inference import Predictor
from .checkpoint import read
from .runtime import freeze

TOLERANCE = {"float64": (1e-6, 1e-5), "float32": (1e-5, 1e-3)}
"""Largest change of the energy (eV/atom) and of a force component (eV/Å) by compression, by the precision of the
descriptor. In double precision deepmd's tables (5th order, step 0.01) were seen to change forces by 1e-13 only."""


def produce(checkpoint: Path, frames: Sequence[Frame], directory: Path, compress: bool) -> Product:
    """``checkpoint`` as ``directory/product.pth``, what ``dp freeze`` and, with ``compress``, ``dp compress`` make.

    ``frames`` are predicted with and without compression; where deepmd cannot compress the model, or the
    predictions differ by more than ``TOLERANCE``, the plain model is the product and the reason is given.
    Raises TaskError when there is no frame to compare on.
    """
    target = directory / "product.pth"
    plain = freeze(checkpoint, directory / "plain.pth")
    if not compress:
        return Product(plain.replace(target), False)
    if not frames:
        raise TaskError("a compressed model must be compared with the plain one, and there is no frame to do it on")
    params = read(checkpoint)["_extra_state"]["model_params"]
    reason = _unfit(params) or _compressed(plain, target)
    if reason:
        return Product(plain.replace(target), False, reason)
    energy, force = _change(Predictor(plain)(frames), Predictor(target)(frames))
    limits = TOLERANCE["float32" if params["descriptor"].get("precision") == "float32" else "float64"]
    if energy <= limits[0] and force <= limits[1]:  # false for NaN too
        plain.unlink()
        return Product(target, True, "", force)
    reason = f"compression changes energies by {energy:.1e} eV/atom and forces by {force:.1e} eV/Å"
    return Product(plain.replace(target), False, reason, force)


def _unfit(params: dict[str, Any]) -> str:
    """Why a model is not for compression though deepmd may try it; empty if it is."""
    descriptor = params.get("descriptor", {})
    if descriptor.get("type") in ("se_atten", "se_atten_v2", "dpa1") and descriptor.get("attn_layer", 2):
        return "the descriptor has attention layers, and deepmd tabulates it without only; set attn_layer = 0"
    return ""


def _compressed(plain: Path, target: Path) -> str:
    """Compress ``plain`` to ``target``; why deepmd could not, empty if it could."""
    from deepmd.pt.entrypoints.compress import enable_compression

    try:
        enable_compression(str(plain), str(target))
    except Exception as error:  # deepmd raises many kinds: not implemented, wrong activation, no custom operators
        text = " ".join(str(error).split()) or type(error).__name__
        return f"deepmd cannot compress this model: {text[:300]}"
    return ""


def _change(plain: Sequence[Label], compressed: Sequence[Label]) -> tuple[float, float]:
    """Largest difference of the energy per atom and of a force component."""
    pairs = list(zip(plain, compressed, strict=True))
    energy = max(abs(one.energy - two.energy) / len(one.forces) for one, two in pairs)
    return float(energy), float(np.max([np.abs(one.forces - two.forces).max() for one, two in pairs]))
