"""Which descriptors a selection uses, from the input and what is known of the run."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ..config.select import DescriptorSection
from ..data import Frame
from ..select.quests import QuestsDescriptor

Describe = Callable[[Sequence[Frame]], list[np.ndarray]]
"""From frames to their descriptors (n_atoms, width), those of a frame independent of the others."""


def make_quests(section: DescriptorSection, species: Sequence[int], device: str) -> QuestsDescriptor:
    """``species`` (atomic numbers) are told apart unless the section says they are not."""
    return QuestsDescriptor(
        neighbours=section.neighbours,
        cutoff=section.cutoff,
        smoothing=section.smoothing,
        species=tuple(sorted(species)) if section.type == "chemistry" else (),
        species_weight=section.species_weight,
        precision=section.precision,
        device=device,
    )


def make_model(path: Path) -> Describe:
    """The descriptors of a deep-potential model."""
    from ..engines.descriptor import ModelDescriptor

    return ModelDescriptor(path)


def compute_device() -> str:
    """Where this rank computes: its GPU if it has one."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
