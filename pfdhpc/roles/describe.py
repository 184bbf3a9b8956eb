"""What describes the frames of a selection beside QUESTS (:mod:`pfdhpc.select.quests`), and where it computes."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ..data import Frame

Describe = Callable[[Sequence[Frame]], list[np.ndarray]]
"""From frames to their descriptors (n_atoms, width), those of a frame independent of the others."""


def make_model(path: Path, branch: str | None = None) -> Describe:
    """The descriptors of a deep-potential model; raises InputError."""
    from ..engines.inference import Predictor

    return Predictor(path, branch).descriptors


def compute_device() -> str:
    """Where this rank computes: its GPU if it has one."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
