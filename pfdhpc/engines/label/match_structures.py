"""Whether two structures are the same, their atoms perhaps in another order."""

import numpy as np
from ase.geometry import complete_cell

from ...data import Frame
from ...data.geometry import right_handed

TOLERANCE = 1e-4
"""Å: what the digits of other programs' files leave open, and no more."""


def matching(frame: Frame, other: Frame) -> np.ndarray:
    """For each atom of ``frame`` the index (n,) of the same one in ``other``.

    Lattice vectors (of the periodic directions, both cells made right-handed) and positions, up to lattice
    translations, must agree within :data:`TOLERANCE`. Raises ValueError with the reason when they do not, or when an
    atom could be several.
    """
    if sorted(frame.numbers) != sorted(other.numbers):
        raise ValueError(f"it has other atoms: {_formula(other)}, not {_formula(frame)}")
    frame, other, pbc = right_handed(frame), right_handed(other), frame.pbc
    if pbc.any() and (worst := float(np.abs(frame.cell - other.cell)[pbc].max())) > TOLERANCE:
        raise ValueError(f"its lattice vectors differ by up to {worst:.2g} Å")
    cell = complete_cell(frame.cell * pbc[:, None])
    away = _distances(frame.positions - other.positions, cell, pbc)
    if (frame.numbers == other.numbers).all() and away.max(initial=0.0) <= TOLERANCE:
        return np.arange(len(frame))
    order = np.full(len(frame), -1)
    for index, (number, position) in enumerate(zip(frame.numbers, frame.positions, strict=True)):
        rivals = np.flatnonzero(other.numbers == number)
        distances = _distances(other.positions[rivals] - position, cell, pbc)
        near = rivals[distances <= TOLERANCE]
        if len(near) != 1:
            raise ValueError(_why(index, len(near), float(distances.min())))
        order[index] = near[0]
    if len(set(order.tolist())) < len(order):
        raise ValueError("two of its atoms are at one place, so that it is not clear which is which")
    return order


def _distances(vectors: np.ndarray, cell: np.ndarray, pbc: np.ndarray) -> np.ndarray:
    """Lengths (n,) Å of vectors (n, 3) between close positions, up to lattice translations."""
    fractions = vectors @ np.linalg.inv(cell)
    fractions[:, pbc] -= np.round(fractions[:, pbc])
    return np.linalg.norm(fractions @ cell, axis=1)


def _why(index: int, count: int, nearest: float) -> str:
    if count:
        return f"{count} of its atoms are where atom {index} is, so that it is not clear which is which"
    return f"none of its atoms is where atom {index} is; the nearest is {nearest:.2g} Å away"


def _formula(frame: Frame) -> str:
    return frame.to_atoms().get_chemical_formula()
