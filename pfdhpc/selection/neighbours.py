"""Neighbours of the atoms of many frames at once; any mix of periodic and open directions.

Positions of atoms and images are compared all with all in float32, which finds out what may be near; small
frames are taken together for that, large ones in parts. What is near is decided later, by exact distances.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from ase.geometry import complete_cell

from ..data import Frame

PART = 256
"""Atoms of a large frame that are looked at together; larger parts have fewer images, but more to compare."""
COMPARED = 2**19
"""Pairs of positions that are compared at a time."""
FAR = 1e9
"""Coordinate (Å) of the position that stands for no neighbour."""
ROUNDING = 4e-6
"""Error of a square distance in float32, in units of the largest squares of coordinates."""


@dataclass(frozen=True)
class Points:
    """Atoms and images of some frames.

    ``positions`` (m + 1, 3) in Å and ``index`` (m + 1,), the atom each is an image of, by place among the atoms of
    all frames. Those of a frame are together, ``starts`` (n_frames + 1,), its atoms first. The last is far from all.
    """

    positions: np.ndarray
    index: np.ndarray
    starts: np.ndarray

    @cached_property
    def columns(self) -> np.ndarray:
        """The positions (3, m + 1) by direction."""
        return np.ascontiguousarray(self.positions.T)


@dataclass(frozen=True)
class Neighbourhoods:
    """Some atoms, by place among the ``points`` (b,) and among all ``atoms`` (b,), with what is near them:
    places (b, any) among the points, filled up with the last point."""

    atoms: np.ndarray
    points: np.ndarray
    near: np.ndarray


def points_of(frames: Sequence[Frame], reach: float) -> Points:
    """The atoms, moved into the cell along periodic directions, and all images within ``reach`` Å of the cell's atoms.

    Those of a frame do not depend on the others. Raises ValueError for a cell without volume.
    """
    sizes = np.array([len(frame) for frame in frames])
    cells = np.array([_complete(frame) for frame in frames])
    inverses, pbc = np.linalg.inv(cells), np.array([frame.pbc for frame in frames])
    owner = np.repeat(np.arange(len(frames)), sizes)
    fractions = _products(np.concatenate([frame.positions for frame in frames]), inverses[owner])
    fractions -= np.where(pbc[owner], np.floor(fractions), 0.0)
    margin = reach * np.linalg.norm(inverses, axis=1)  # the reach in units of the distances between faces
    firsts = np.cumsum(sizes) - sizes
    low = np.minimum.reduceat(fractions, firsts) - margin
    high = np.maximum.reduceat(fractions, firsts) + margin
    index = np.arange(len(owner))
    for axis in range(3):
        if not pbc[:, axis].any():
            continue
        bounds = np.where(pbc[:, axis], [low[:, axis], high[:, axis]], np.nan)[:, owner[index]]
        furthest = int(np.ceil(margin[pbc[:, axis], axis].max()))
        copies = [(fractions, index)]
        for shift in (*range(-furthest, 0), *range(1, furthest + 1)):
            moved = fractions[:, axis] + shift
            near = np.flatnonzero((moved >= bounds[0]) & (moved <= bounds[1]))
            copy = fractions.take(near, axis=0)
            copy[:, axis] = moved[near]
            copies.append((copy, index[near]))
        fractions, index = (np.concatenate(parts) for parts in zip(*copies, strict=True))
    order = np.argsort(owner[index], kind="stable")
    index = index[order]
    positions = _products(fractions.take(order, axis=0), cells.take(owner[index], axis=0))
    starts = np.searchsorted(owner[index], np.arange(len(frames) + 1))
    return Points(np.append(positions, [[FAR] * 3], axis=0), np.append(index, 0), starts)


def neighbourhoods(points: Points, sizes: Sequence[int], reach: float) -> Iterator[Neighbourhoods]:
    """Every atom once, with all points within ``reach`` Å of it and few others; ``sizes`` are those of the frames."""
    parts = [part for frame, size in enumerate(sizes) for part in _parts(points, frame, size, reach)]
    batch: list[tuple[np.ndarray, np.ndarray]] = []
    compared = 0
    for part in sorted(parts, key=lambda part: (len(part[0]), len(part[1]))):
        compared = (len(batch) + 1) * len(part[0]) * len(part[1])
        if batch and compared > COMPARED:
            yield _compared(points, batch, reach)
            batch = []
        batch.append(part)
    if batch:
        yield _compared(points, batch, reach)


def _complete(frame: Frame) -> np.ndarray:
    cell = frame.cell if frame.cell.any(axis=1).all() else complete_cell(frame.cell)
    if not abs(np.linalg.det(cell)) > 1e-12:
        raise ValueError(f"frame {frame.frame_id}: its lattice vectors span no volume")
    return cell


def _products(rows: np.ndarray, matrices: np.ndarray) -> np.ndarray:
    """Each row (m, 3) times its matrix (m, 3, 3), by the same operations wherever it stands."""
    return sum(rows[:, axis, None] * matrices[:, axis] for axis in range(3))


def _parts(points: Points, frame: int, size: int, reach: float) -> Iterable[tuple[np.ndarray, np.ndarray]]:
    """Atoms of a frame and the points that may be near them, by place; the first points are the atoms themselves."""
    places = np.arange(points.starts[frame], points.starts[frame + 1])
    if size <= PART:
        return [(places[:size], places)]
    found, pending = [], [places[:size]]
    while pending:
        atoms = pending.pop()
        positions = points.positions[atoms]
        low, high = positions.min(axis=0), positions.max(axis=0)
        if len(atoms) <= PART:
            inside = (points.positions[places] >= low - reach) & (points.positions[places] <= high + reach)
            inside = inside.all(axis=1)
            inside[atoms - places[0]] = False
            found.append((atoms, np.concatenate([atoms, places[inside]])))
        else:
            order = np.argsort(positions[:, np.argmax(high - low)], kind="stable")
            pending += np.array_split(atoms[order], 2)
    return found


def _compared(points: Points, batch: Sequence[tuple[np.ndarray, np.ndarray]], reach: float) -> Neighbourhoods:
    """The neighbourhoods of the atoms of some parts, padded to one size."""
    import torch

    none = len(points.index) - 1
    atoms, others = (_padded(some, none) for some in zip(*batch, strict=True))
    n, m = atoms.shape[1], others.shape[1]
    left, right = (np.ones((len(batch), 5, size), np.float32) for size in (n, m))
    for axis, column in enumerate(points.columns):
        centres = column[atoms[:, :1]]
        left[:, axis], right[:, axis] = column.take(atoms) - centres, column.take(others) - centres
    left[:, 3], right[:, 4] = ((some[:, :3] ** 2).sum(axis=1) for some in (left, right))
    largest = sum(float(some.max(where=some < FAR**2, initial=0.0)) for some in (left[:, 3], right[:, 4]))
    left[:, :3] *= -2
    squares = torch.from_numpy(left).transpose(1, 2).bmm(torch.from_numpy(right)).numpy()
    near = squares <= np.float32(reach**2 + ROUNDING * largest)
    near[:, range(n), range(n)] = False  # the atom itself
    rows, columns = np.divmod(np.flatnonzero(near), m)
    counts = np.bincount(rows, minlength=near.shape[0] * n)
    table = np.full((len(counts), counts.max(initial=0)), none)
    slots = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    table[rows, slots] = others.ravel().take(rows // n * m + columns)
    there = np.flatnonzero(atoms.ravel() < none)
    places = atoms.ravel()[there]
    return Neighbourhoods(points.index[places], places, table[there])


def _padded(rows: Sequence[np.ndarray], value: int) -> np.ndarray:
    """Rows of different lengths as an array, filled up with a value."""
    found = np.full((len(rows), max(map(len, rows))), value)
    for row, values in zip(found, rows, strict=True):
        row[: len(values)] = values
    return found
