"""Whether two frames are one configuration, written by different programs and formats.

Formats round (deepmd's arrays may be of single precision; extxyz has 8 decimals, OUTCAR 5, LAMMPS' dumps 6 digits),
sort atoms by element, wrap them into the cell, choose other lattice vectors (reduced, right-handed), and turn all into
a setting of their own (lower-triangular cells). So two frames are the same where a rigid motion or reflection, another
basis of the lattice, lattice translations and an order of like atoms turn one into the other within :data:`TOLERANCE`.
Where the cells agree as they stand, nothing was turned: an atom displaced in another direction is another frame then.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from ase.geometry import complete_cell

from .frame import Frame
from .geometry import with_images

TOLERANCE = 1e-4
"""Å, by which an atom may be off. A LAMMPS dump has 5e-5 per coordinate from 10 to 100 Å, OUTCAR
5e-6, single precision 4e-6 up to 128 Å; in a step of dynamics atoms move by 1e-3 and more."""

CELL = 2e-5
"""Å, by which a lattice vector may be off: formats keep more digits of it, and its error adds up over all atoms."""
_NEIGHBOURS, _RANGE = 6, 4.0
"""So many of the shortest distances (Å) of each atom, up to a range, tell which atoms may correspond."""


@dataclass(frozen=True)
class Motion:
    """What turns one frame into another that is the same.

    Atom i of the first is atom ``order[i]`` of the second; row vectors of the second, times ``rotation`` (3, 3), are
    vectors of the first.
    """

    order: np.ndarray
    rotation: np.ndarray


def composition(frame: Frame) -> bytes:
    """A key of the elements and the periodicity."""
    return np.sort(frame.numbers).tobytes() + frame.pbc.tobytes()


def lattice_of(frame: Frame) -> np.ndarray | None:
    """Lattice vectors, completed where a direction is open; None where all are, or where they span no volume."""
    vectors = frame.cell[frame.pbc]
    if not len(vectors) or np.linalg.det(vectors @ vectors.T) < 1e-6:
        return None
    return complete_cell(frame.cell * frame.pbc[:, None])


def motion(frame: Frame, other: Frame) -> Motion | None:
    """What turns ``other`` into ``frame``; None where they are not the same."""
    if frame.frame_id == other.frame_id:
        return Motion(np.arange(len(frame)), np.eye(3))
    if composition(frame) != composition(other):
        return None
    ours, theirs = lattice_of(frame), lattice_of(other)
    if (ours is None) != (theirs is None):
        return None
    return _open_motion(frame, other) if ours is None else _periodic_motion(frame, other, ours, theirs)


# periodic


def _periodic_motion(frame: Frame, other: Frame, ours: np.ndarray, theirs: np.ndarray) -> Motion | None:
    anchors = None
    for rotation, strain in _settings(frame, ours, theirs):
        moved = other.positions @ strain
        order = np.arange(len(frame))
        if (frame.numbers == other.numbers).all() and _fits(frame, ours, moved, order):
            return Motion(order, rotation)
        anchors = _anchors(frame, other) if anchors is None else anchors
        for mine, yours in anchors:
            order = _nearest(frame, ours, other.numbers, moved + frame.positions[mine] - moved[yours])
            if order is not None and _fits(frame, ours, moved, order):
                return Motion(order, rotation)
    return None


def _settings(frame: Frame, ours: np.ndarray, theirs: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rotations and reflections that bring one lattice onto the other, each also with the strain of rounding."""
    if _length(ours - theirs) <= CELL:
        yield np.eye(3), np.linalg.solve(theirs, ours)
        return
    if not frame.pbc.all():
        turned = np.where(frame.pbc[:, None], -theirs, ours)  # the same lattice, of the other handedness
        if _length(ours - turned) <= CELL:
            yield np.eye(3), np.linalg.solve(turned, ours)
        return
    from ase.geometry.minkowski_reduction import minkowski_reduce

    ours, theirs = minkowski_reduce(ours)[0], minkowski_reduce(theirs)[0]
    vectors = np.array(list(product(range(-2, 3), repeat=3))) @ theirs
    like = [vectors[np.abs(np.linalg.norm(vectors, axis=1) - np.linalg.norm(one)) <= 10 * CELL] for one in ours]
    for basis in map(np.array, product(*like)):
        if abs(np.linalg.det(basis)) > 1e-6:
            rotation = _rotation(basis, ours)
            if _length(basis @ rotation - ours) <= 10 * CELL:
                yield rotation, np.linalg.solve(basis, ours)


def _fits(frame: Frame, lattice: np.ndarray, moved: np.ndarray, order: np.ndarray) -> bool:
    """Whether atoms ``order`` of the moved ones are ours, up to one shift of all."""
    away = moved[order] - frame.positions
    away = _shortest(away - away[:1], lattice, frame.pbc)
    return _length(away - away.mean(axis=0)) <= TOLERANCE


def _shortest(vectors: np.ndarray, lattice: np.ndarray, pbc: np.ndarray) -> np.ndarray:
    """Short vectors (n, 3) without the lattice translations in them."""
    fractions = vectors @ np.linalg.inv(lattice)
    fractions[:, pbc] -= np.round(fractions[:, pbc])
    return fractions @ lattice


def _nearest(frame: Frame, lattice: np.ndarray, numbers: np.ndarray, positions: np.ndarray) -> np.ndarray | None:
    """For each atom of the frame the one at its place; None where one has none of its kind there."""
    from scipy.spatial import cKDTree

    inverse = np.linalg.inv(lattice)
    tree = cKDTree(_wrapped(positions @ inverse, frame.pbc), boxsize=frame.pbc.astype(float))
    _, order = tree.query(_wrapped(frame.positions @ inverse, frame.pbc))
    away = _shortest(positions[order] - frame.positions, lattice, frame.pbc)
    return _one_to_one(order, frame.numbers, numbers) if _length(away) <= 4 * TOLERANCE else None


def _wrapped(fractions: np.ndarray, pbc: np.ndarray) -> np.ndarray:
    fractions[:, pbc] -= np.floor(fractions[:, pbc])
    fractions[:, pbc] %= 1.0
    return fractions


def _one_to_one(order: np.ndarray, numbers: np.ndarray, others: np.ndarray) -> np.ndarray | None:
    """The order, where no atom is named twice and each is of the right element."""
    return order if len(np.unique(order)) == len(order) and (numbers == others[order]).all() else None


# nothing periodic


def _open_motion(frame: Frame, other: Frame) -> Motion | None:
    """Both centroids come to rest; a rotation follows from two atoms that are not in line with them."""
    if (frame.pbc.any() or other.pbc.any()) and not np.allclose(frame.cell, other.cell, atol=TOLERANCE):
        return None  # periodic without a volume: compared as it stands
    ours, theirs = (item.positions - item.positions.mean(axis=0) for item in (frame, other))
    order = np.arange(len(frame))
    if (frame.numbers == other.numbers).all():
        for rotation in (np.eye(3), _rotation(theirs, ours)):
            if _length(theirs @ rotation - ours) <= TOLERANCE:
                return Motion(order, rotation)
    from scipy.spatial import cKDTree

    tree = cKDTree(ours)
    for rotation in _turns(frame, other, ours, theirs):
        away, found = tree.query(theirs @ rotation)
        if away.max() > 100 * TOLERANCE or _one_to_one(found, other.numbers, frame.numbers) is None:
            continue
        order = np.argsort(found)
        rotation = _rotation(theirs[order], ours)
        if _length(theirs[order] @ rotation - ours) <= TOLERANCE:
            return Motion(order, rotation)
    return None


def _turns(frame: Frame, other: Frame, ours: np.ndarray, theirs: np.ndarray) -> Iterator[np.ndarray]:
    """Rotations and reflections that bring two atoms of one onto two like atoms of the other."""
    pairs = _candidates(frame, other)
    if not pairs.any(axis=1).all():
        return
    first = _widest(np.linalg.norm(ours, axis=1), pairs)
    direction = ours[first] / max(np.linalg.norm(ours[first]), 1e-12)
    across = np.linalg.norm(ours - np.outer(ours @ direction, direction), axis=1)
    second = _widest(across, pairs)
    alone = across[second] < 0.1  # all in a line
    for one in np.flatnonzero(pairs[first]):
        for two in [one] if alone else np.flatnonzero(pairs[second]):
            gaps = _length(ours[[first]] - ours[[second]]), _length(theirs[[one]] - theirs[[two]])
            if alone or abs(gaps[0] - gaps[1]) <= 2 * TOLERANCE:
                mine = _axes(ours[first], ours[second], alone)
                yours = _axes(theirs[one], theirs[two], alone)
                for sign in (1.0, -1.0):
                    yield (yours * [[1.0], [1.0], [sign]]).T @ mine


def _widest(sizes: np.ndarray, pairs: np.ndarray) -> int:
    """Of the atoms that are far out, the one with the fewest that may be it."""
    far = sizes >= 0.5 * sizes.max(initial=0.0)
    return int(np.lexsort((-sizes, np.where(far, pairs.sum(axis=1), len(sizes) + 1)))[0])


def _axes(first: np.ndarray, second: np.ndarray, alone: bool) -> np.ndarray:
    """Orthonormal rows: along the first vector, along the rest of the second, across both."""
    one = first / max(np.linalg.norm(first), 1e-12)
    if alone:
        second = np.eye(3)[np.argmin(np.abs(one))]
    two = second - (second @ one) * one
    two /= np.linalg.norm(two)
    return np.stack([one, two, np.cross(one, two)])


# both


def _anchors(frame: Frame, other: Frame) -> list[tuple[int, int]]:
    """An atom, and all those of the other frame that may be it; none where some atom has none."""
    pairs = _candidates(frame, other)
    mine = int(pairs.sum(axis=1).argmin())
    return [(mine, int(yours)) for yours in np.flatnonzero(pairs[mine])]


def _candidates(frame: Frame, other: Frame) -> np.ndarray:
    """Whether (n, n) an atom of one may be an atom of the other: like atoms with like distances to their neighbours."""
    mine, yours = _distances(frame), _distances(other)
    pairs = np.zeros((len(frame), len(frame)), bool)
    for index, (number, row) in enumerate(zip(frame.numbers, mine, strict=True)):
        pairs[index] = (other.numbers == number) & (np.abs(yours - row).max(axis=1) <= 4 * TOLERANCE)
    return pairs


def _distances(frame: Frame) -> np.ndarray:
    """The shortest distances (n, few) Å of each atom to others or images; those out of range count as the range."""
    from scipy.spatial import cKDTree

    positions = frame.positions if lattice_of(frame) is None else with_images(frame, _RANGE)[0]
    found, _ = cKDTree(positions).query(positions[: len(frame)], k=_NEIGHBOURS + 1, distance_upper_bound=_RANGE)
    return np.minimum(found[:, 1:], _RANGE)


def _rotation(vectors: np.ndarray, onto: np.ndarray) -> np.ndarray:
    """The orthogonal matrix, reflections included, that brings row vectors onto others best (Kabsch 1976)."""
    left, _, right = np.linalg.svd(vectors.T @ onto)
    return left @ right


def _length(vectors: np.ndarray) -> float:
    """The largest length of row vectors, Å."""
    return float(np.sqrt((vectors**2).sum(axis=-1)).max(initial=0.0))
