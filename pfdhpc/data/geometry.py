"""Handedness of cells; distances in a frame, periodic images included, any mix of periodic and open directions."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from ase.geometry import complete_cell

from .frame import Frame

FLAT = 1e-4
"""Sine of the angle below which lattice vectors lie in a plane, or on a line."""
SHORTEST, DENSEST = 0.1, 0.1
"""Lengths (Å) of a lattice vector and volumes (Å³) of an atom below which no matter is: those of other units than Å."""


def defect(frame: Frame) -> str:
    """What makes a frame one of no use to any model or program, in words; empty if nothing does."""
    vectors = frame.cell[frame.pbc]
    if not len(frame):
        return "it has no atoms"
    if not (np.isfinite(frame.positions).all() and np.isfinite(vectors).all()):
        return "a position or lattice vector is not a finite number"
    lengths = np.linalg.norm(vectors, axis=1)
    if not lengths.all() or np.linalg.svd(vectors / lengths[:, None], compute_uv=False).min(initial=1.0) < FLAT:
        return "it is periodic, but its lattice vectors span no volume; set its cell or its pbc right"
    if lengths.min(initial=SHORTEST) < SHORTEST:
        return f"a lattice vector is {lengths.min():.2g} Å long; is its cell in Å?"
    if frame.pbc.all() and frame.volume < DENSEST * len(frame):
        return f"its cell has {frame.volume / len(frame):.2g} Å³ for each atom; is it in Å?"
    return ""


def defects(frames: Iterable[Frame]) -> str:
    """How many of some frames are of no use, and what is wrong with the first of them; empty if none are."""
    found = [(number, text) for number, frame in enumerate(frames) if (text := defect(frame))]
    if not found:
        return ""
    number, text = found[0]
    return f"frame {number}: {text}" + f" ({len(found)} frames are of no use)" * (len(found) > 1)


def closest_pair(frame: Frame, cutoff: float) -> float:
    """Distance (Å) of the closest two atoms or images; ``cutoff`` if none are nearer. Raises as :func:`near_pairs`."""
    return float(near_pairs(frame, cutoff)[2].min(initial=cutoff))


def right_handed_cell(cell: np.ndarray) -> np.ndarray:
    """Lattice vectors (3, 3) Å of the same lattice with a determinant that is not negative.

    A left-handed cell has all three vectors negated, which leaves the lattice, and so positions, energy, forces
    and virial, as they are; any other is returned itself. deepmd takes the signed volume of a cell for the distances
    between its faces (3.2.0, ``deepmd/pt/utils/region.py``) and overlooks the periodic images of left-handed ones;
    VASP refuses those.
    """
    return -cell if np.linalg.det(cell) < 0 else cell


def right_handed(frame: Frame) -> Frame:
    """The frame in the :func:`right_handed_cell`; itself where it has one already."""
    cell = right_handed_cell(frame.cell)
    return frame if cell is frame.cell else replace(frame, cell=cell)


def with_images(frame: Frame, cutoff: float) -> tuple[np.ndarray, np.ndarray]:
    """Positions (m, 3) Å of the atoms and of all their images within ``cutoff`` Å of an atom of the cell.

    Returns them with the index (m,) of the atom each is an image of; the first n are the atoms
    themselves, moved into the cell along the periodic directions. Raises ValueError when the
    periodic directions span no volume.
    """
    n, pbc = len(frame), frame.pbc
    cell = complete_cell(frame.cell)
    if not abs(np.linalg.det(cell)) > 1e-12:
        raise ValueError(f"frame {frame.frame_id}: its lattice vectors span no volume")
    inverse = np.linalg.inv(cell)
    fractions = frame.positions @ inverse
    fractions[:, pbc] %= 1.0
    margin = cutoff * np.linalg.norm(inverse, axis=0)  # the cutoff in units of the distances between faces
    low, high = fractions.min(axis=0) - margin, fractions.max(axis=0) + margin
    index = np.arange(n)
    for axis in np.flatnonzero(pbc):
        reach = int(np.ceil(margin[axis]))
        copies = [(fractions, index)]
        for shift in (*range(-reach, 0), *range(1, reach + 1)):
            moved = fractions[:, axis] + shift
            near = np.flatnonzero((moved >= low[axis]) & (moved <= high[axis]))
            copy = fractions[near]
            copy[:, axis] = moved[near]
            copies.append((copy, index[near]))
        fractions, index = (np.concatenate(parts) for parts in zip(*copies, strict=True))
    return fractions @ cell, index


def near_pairs(frame: Frame, cutoff: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All pairs at most ``cutoff`` Å apart: indices (m,) of the two atoms and their distances (m,) in Å.

    Pairs are any two atoms and an atom with its own images; each is there from both sides.
    Raises ValueError when the periodic directions span no volume.
    """
    from scipy.spatial import cKDTree  # late, as only ranks that explore or select come here

    positions, index = with_images(frame, cutoff)
    atoms = cKDTree(positions[: len(frame)])
    near = atoms.sparse_distance_matrix(cKDTree(positions), cutoff, output_type="ndarray")
    near = near[near["i"] != near["j"]]
    return near["i"], index[near["j"]], near["v"]
