"""Many frames, in which those that are the same as others are found.

Frames are compared by numbers that no setting changes and that follow displacements of atoms without a jump, norms of
the low-order structure factors, or of the distances to the centroid where nothing is periodic; and only those in
which all of these agree, atom by atom.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from weakref import WeakKeyDictionary

import numpy as np

from .frame import Frame
from .same_geometry import CELL, TOLERANCE, composition, lattice_of, motion

_LOW, _HIGH = np.array([0.0, 0.7, 1.1, 1.5]), np.array([0.9, 1.3, 1.7, 2.2])
"""Ranges of wave vectors over which structure factors are summed, in units of 2π over the cube root of the volume."""
_POWERS = 2, 4, 8
_made: WeakKeyDictionary[Frame, np.ndarray] = WeakKeyDictionary()


class KnownFrames:
    """Frames in which others are found again: log-linear in their number. ``frames`` must be finite."""

    def __init__(self, frames: Iterable[Frame]):
        self._frames = list(frames)
        groups: dict[bytes, list[int]] = {}
        for index, frame in enumerate(self._frames):
            groups.setdefault(composition(frame), []).append(index)
        self._groups = {key: _Group(indices, [self._frames[i] for i in indices]) for key, indices in groups.items()}

    def same(self, frame: Frame) -> int | None:
        """Index of the first known frame that is the same; None if there is none."""
        return next(self.all_same(frame), None)

    def all_same(self, frame: Frame) -> Iterator[int]:
        """Indices of all known frames that are the same, ascending."""
        group = self._groups.get(composition(frame))
        near = group.near(frame) if group else ()
        return (index for index in near if motion(frame, self._frames[index]) is not None)


def repeats(frames: Sequence[Frame]) -> dict[int, int]:
    """Of frames that are the same as an earlier one: index of each, and index of the first that is the same."""
    known, found = KnownFrames(frames), {}
    for index, frame in enumerate(frames):
        first = known.same(frame)
        if first is not None and first < index:
            found[index] = first
    return found


class _Group:
    """Frames of one composition and periodicity, by their invariants."""

    def __init__(self, indices: list[int], frames: Sequence[Frame]):
        from scipy.spatial import cKDTree  # late, as only what compares frames comes here

        self._indices = np.array(indices)
        self._tree = cKDTree(np.array([invariants(frame) for frame in frames]))

    def near(self, frame: Frame) -> list[int]:
        near = self._tree.query_ball_point(invariants(frame), 1.01, p=np.inf)
        return sorted(self._indices[near].tolist())


def invariants(frame: Frame) -> np.ndarray:
    """Numbers that differ by less than 1 between two frames that are the same, whatever their setting."""
    if frame not in _made:
        _made[frame] = _invariants(frame)
    return _made[frame]


def _invariants(frame: Frame) -> np.ndarray:
    charges = np.stack([np.ones(len(frame)), (frame.numbers + 1) / (frame.numbers + 1).mean()])
    lattice = lattice_of(frame)
    return _moments(frame.positions, charges) if lattice is None else _structure_factors(frame, lattice, charges)


def _structure_factors(frame: Frame, lattice: np.ndarray, charges: np.ndarray) -> np.ndarray:
    """Norms (charges x ranges) of the structure factors, and the size of the cell, in units of what they may be off.

    The norm of S(G) = Σ c exp(-iG·x) over some G changes by no more than the norm of the change: of errors of single
    atoms, which are independent (twice as much is allowed), and of one of the cell, which is not.
    """
    size, inverse, whole, weights, steepest = _waves(lattice.tobytes(), frame.pbc.tobytes())
    waves = np.exp(-2j * np.pi * ((frame.positions @ inverse) @ whole.T))
    norms = np.sqrt(np.abs(charges @ waves) ** 2 @ weights.T)
    off = 2 * TOLERANCE * np.sqrt((charges**2).sum(axis=1)) + 2 * CELL * charges.sum(axis=1)
    return np.append(norms / np.outer(off, steepest), size / (6 * TOLERANCE))


@lru_cache(16)  # of a trajectory all frames may have one cell
def _waves(lattice: bytes, pbc: bytes) -> tuple[float, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Size of a cell, its inverse, indices (n, 3) of wave vectors, their weights (ranges, n), and slopes (ranges)."""
    vectors, periodic = np.frombuffer(lattice).reshape(3, 3), np.frombuffer(pbc, bool)
    size, reach, inverse = abs(np.linalg.det(vectors)) ** (1 / 3), _HIGH[-1], np.linalg.inv(vectors)
    most = np.where(periodic, reach * np.linalg.norm(vectors, axis=1) / size, 0).astype(int)
    whole = np.indices(2 * most + 1).reshape(3, -1).T - most
    whole = whole[: len(whole) // 2]  # the other half is conjugate
    q = np.linalg.norm(whole @ inverse.T, axis=1) * size
    whole, q = whole[q < reach], q[q < reach]
    weights = _weights(q)
    return size, inverse, whole, weights, 2 * np.pi / size * _HIGH * np.sqrt(1 + weights.sum(axis=1))


def _weights(q: np.ndarray) -> np.ndarray:
    """Weights (ranges, n) of wave vectors: 1 in the middle of a range, 0 with two derivatives at its ends."""
    place = (2 * q - (_LOW + _HIGH)[:, None]) / (_HIGH - _LOW)[:, None]
    return np.maximum(1 - place**2, 0) ** 3


def _moments(positions: np.ndarray, charges: np.ndarray) -> np.ndarray:
    """Norms (powers x charges) of the distances to the centroid, which change by less than the largest of all moves."""
    away = np.linalg.norm(positions - positions.mean(axis=0), axis=1)
    n = max(len(positions), 1)
    norms = [((c * away**power).sum() / n) ** (1 / power) for c in charges for power in _POWERS]
    return np.array(norms) / (4 * TOLERANCE)
