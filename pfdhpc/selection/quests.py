"""The QUESTS descriptor of atomic environments, made continuous and able to tell species apart.

D. Schwalbe-Koda, S. Hamel, B. Sadigh, F. Zhou, V. Lordi, Nat. Commun. 16, 4014 (2025), and the
program ``quests`` (``quests/descriptor.py``), whose descriptor is that of ``smoothing=0, species=()``.

With the distances r_1 ≤ r_2 ≤ ... of an atom's neighbours and w(r) = (1 - (r/cutoff)²)², zero beyond the
cutoff, the blended weight of neighbour j is

    w_j = w(r_j) s((m - r_j) / smoothing),   m = (r_k + r_(k+1)) / 2,

where s rises smoothly from 0 at -1 to 1 at +1; without smoothing, the k nearest keep w(r_j) and the others
get 0. The columns, in 1/Å:

* k: the largest w_j / r_j, descending;
* k - 1: of each neighbour j the row sqrt(w_j w_l) / r_jl over the other neighbours l, descending, summed
  over j and divided by k;
* with species, k for each of them: as the first, of the neighbours of that species alone, times species_weight;
* with species, one for each of them: species_weight / sqrt(2) for the atom's own.

What is missing is zero. In the search for m a missing neighbour is at cutoff + 2 smoothing, so that the
columns are the program's wherever r_(k+1) - r_k ≥ 2 smoothing or fewer than k are that near, and nothing
jumps when a neighbour crosses the cutoff. Without smoothing, which atoms of a shell that the
k-th neighbour belongs to are taken is arbitrary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import numpy as np
from ase.data import chemical_symbols

from ..config.select import DescriptorSection
from ..data import Frame
from .neighbours import FAR, Neighbourhoods, Points, neighbourhoods, points_of

if TYPE_CHECKING:
    import torch

CHUNK = 2048
"""Atoms of frames that are done together; on a GPU also those whose pairs of neighbours are in memory at a time."""
BLOCK = 64
"""Atoms whose pairs of neighbours are in memory at a time on the CPU: what stays in a core's cache."""
STEP = 4
"""Numbers of neighbours are filled up to multiples of it, and atoms with as many are done together."""
NOWHERE = 1e-16
"""Å², the least square of a distance: atoms in one place have large descriptors, not infinite ones."""
SLOTS = 2**16 - 1
"""The bits of a square distance that give way to a place in a row: a part of 1e-11."""


@dataclass(frozen=True)
class QuestsDescriptor:
    """Settings of the descriptor; called with frames, it returns their descriptors.

    ``species`` are atomic numbers in any order; with fewer than two, atoms are not told apart.
    ``device`` is where torch computes the pairs of neighbours; the neighbours are found on the CPU.
    """

    neighbours: int = 32  # k
    cutoff: float = 5.0  # Å
    smoothing: float = 0.02  # Å, half-width of the blend at the k-th neighbour
    species: tuple[int, ...] = ()
    species_weight: float = 0.1
    precision: Literal["float64", "float32"] = "float64"
    device: str = "cpu"

    def __call__(self, frames: Sequence[Frame]) -> list[np.ndarray]:
        """Descriptors (n_atoms, width) of each frame, 1/Å, in ``precision``.

        Those of a frame are the same to the last bit whatever the other frames are. Raises ValueError
        for an element that is not in ``species`` and for a cell without volume.
        """
        found: list[np.ndarray] = []
        for stack in _stacks(frames):
            sizes = [len(frame) for frame in stack]
            found += np.split(self._of(stack, sizes), np.cumsum(sizes)[:-1])
        return found

    @property
    def width(self) -> int:
        """Columns of the descriptors."""
        return 2 * self.neighbours - 1 + len(self._told_apart) * (self.neighbours + 1)

    @property
    def name(self) -> str:
        """All settings that change the numbers, as the key of a cache."""
        name = f"quests k={self.neighbours} cutoff={self.cutoff} smoothing={self.smoothing} {self.precision}"
        numbers = ",".join(map(str, self._told_apart))
        return f"{name} species={numbers} weight={self.species_weight}" if numbers else name

    @property
    def _told_apart(self) -> list[int]:
        species = sorted(set(self.species))
        return species if len(species) > 1 else []

    def _of(self, frames: Sequence[Frame], sizes: Sequence[int]) -> np.ndarray:
        """Descriptors (n, width) of all atoms of some frames with atoms."""
        points = points_of(frames, self._reach)
        kinds = self._kinds(frames)[points.index]
        found = np.empty((sum(sizes), self.width), self.precision)
        for some in neighbourhoods(points, sizes, self._reach):
            found[some.atoms] = self._columns(points, kinds, some)
        return found

    @property
    def _reach(self) -> float:
        return self.cutoff + 2 * self.smoothing

    def _kinds(self, frames: Sequence[Frame]) -> np.ndarray:
        """Place (n,) of each atom's species among those told apart; zeros if none are."""
        species, numbers = self._told_apart, np.concatenate([frame.numbers for frame in frames])
        kinds = np.searchsorted(species, numbers)
        if species and (np.take(species, kinds, mode="clip") != numbers).any():
            frame = next(frame for frame in frames if not set(frame.numbers.tolist()) <= set(species))
            groups = set(frame.numbers.tolist()) - set(species), species
            names, known = (", ".join(chemical_symbols[z] for z in sorted(group)) for group in groups)
            raise ValueError(f"frame {frame.frame_id} has {names}, but the descriptor is for {known} only")
        return kinds

    def _columns(self, points: Points, kinds: np.ndarray, some: Neighbourhoods) -> np.ndarray:
        """Descriptors (b, width) of some atoms; ``kinds`` are those of the points."""
        k, n_kinds = self.neighbours, len(self._told_apart)
        weights, distances, near, vectors = self._neighbours(points, some)
        radial = weights / (distances + 1e-16)
        found = np.zeros((len(near), self.width))
        _fill(found[:, :k], radial)
        _fill(found[:, k : 2 * k - 1], self._cross(vectors, np.sqrt(weights)))
        if n_kinds:
            theirs, start = kinds.take(near), 2 * k - 1
            for kind in range(n_kinds):
                of_kind = np.where(theirs == kind, -self.species_weight * radial, 0.0)
                of_kind.sort(axis=1)
                _fill(found[:, start + kind * k : start + (kind + 1) * k], 0.0 - of_kind)
            own = kinds[some.points, None] == np.arange(n_kinds)
            found[:, -n_kinds:] = self.species_weight / np.sqrt(2) * own
        return found

    def _neighbours(self, points: Points, some: Neighbourhoods) -> tuple[np.ndarray, ...]:
        """Blended weights, distances in Å and places among the points, (b, m) each, by increasing distance, and
        the vectors (3, b, m) Å.

        m is the largest number of neighbours with weight; a missing one has weight zero and is far away.
        """
        squares = np.zeros(some.near.shape)
        for column in points.columns:
            squares += (column.take(some.near) - column.take(some.points)[:, None]) ** 2
        order = _order(squares)
        distances = np.minimum(np.sqrt(np.take_along_axis(squares, order, axis=1)), self._reach)
        weights = self._weights(distances)
        m = np.count_nonzero(weights.any(axis=0))
        near = np.take_along_axis(some.near, order[:, :m], axis=1)
        vectors = np.stack([column.take(near) - column.take(some.points)[:, None] for column in points.columns])
        return weights[:, :m], distances[:, :m], near, vectors

    def _weights(self, distances: np.ndarray) -> np.ndarray:
        """Blended weights (b, count) of neighbours by increasing distance, missing ones at the reach."""
        k, count = self.neighbours, distances.shape[1]
        weights = (1 - (np.minimum(distances, self.cutoff) / self.cutoff) ** 2) ** 2
        if count < k:
            return weights
        if not self.smoothing:
            weights[:, k:] = 0
            return weights
        following = distances[:, k] if count > k else self._reach
        middle = (distances[:, k - 1] + following)[:, None] / 2
        rise = np.clip((middle - distances) / (2 * self.smoothing) + 0.5, 0, 1)
        return weights * rise * rise * rise * (10 - 15 * rise + 6 * rise * rise)

    def _cross(self, vectors: np.ndarray, roots: np.ndarray) -> np.ndarray:
        """The second part (b, m) from vectors (3, b, m) to the neighbours and the roots (b, m) of their weights.

        How many neighbours an atom is done with follows from it alone, so that its numbers do, to the last bit.
        """
        import torch

        dtype = getattr(torch, self.precision)
        steps = -(-(roots > 0).sum(axis=1) // STEP)
        order = np.argsort(steps, kind="stable")
        bounds = np.searchsorted(steps[order], np.arange(steps.max(initial=0) + 2))
        width = max(steps.max(initial=0) * STEP, roots.shape[1])
        roots = _widened(roots.take(order, axis=0), width, 0.0)
        factors = _factors(_widened(vectors.take(order, axis=1), width, FAR))
        factors = torch.from_numpy(factors).to(self.device)  # float64: differences of squares
        roots = torch.from_numpy(roots).to(self.device, dtype)
        found = np.zeros(roots.shape)  # ascending, in this order
        size = BLOCK if roots.is_cpu else CHUNK
        for step, (first, last) in enumerate(pairwise(bounds.tolist())):
            for start in range(first, last if step else first, size):
                atoms, columns = slice(start, min(start + size, last)), slice(step * STEP)
                sums = _summed_rows(factors[:, atoms, :, columns], roots[atoms, columns])
                found[atoms, width - step * STEP :] = sums.cpu().numpy()
        return found.take(np.argsort(order), axis=0)[:, ::-1] / self.neighbours


def _factors(vectors: np.ndarray) -> np.ndarray:
    """Two arrays (2, b, 5, m) whose products are the square distances of the ends of vectors (3, b, m).

    The squares are enlarged by what keeps the difference of equal vectors positive, vectors of atoms in one place too.
    """
    found = np.ones((2, vectors.shape[1], 5, vectors.shape[2]))
    for axis, components in enumerate(vectors):
        found[1, :, axis] = components
        np.multiply(components, -2, out=found[0, :, axis])
    found[0, :, 3] = found[1, :, 4] = np.maximum((vectors**2).sum(axis=0) * (1 + 1e-14), NOWHERE)
    return found


def _summed_rows(factors: torch.Tensor, roots: torch.Tensor) -> torch.Tensor:
    """Sums over j (b, m), ascending, of the sorted rows sqrt(w_j w_l) / r_jl."""
    import torch

    pairs = factors[0].transpose(1, 2).bmm(factors[1]).sqrt_().to(roots.dtype)
    pairs.diagonal(dim1=1, dim2=2).fill_(float("inf"))
    roots = roots.unsqueeze(1)
    torch.div(roots, pairs, out=pairs)
    if pairs.is_cpu and pairs.dtype.itemsize == 8:
        pairs.numpy().view(np.int64).sort(axis=2)  # in place; torch's own takes ten times as long on short rows
    elif pairs.is_cpu:
        pairs.numpy().sort(axis=2)
    else:
        pairs = pairs.sort(dim=2).values
    return roots.bmm(pairs).squeeze(1)


def _order(squares: np.ndarray) -> np.ndarray:
    """Places (b, m) by increasing square distances, equal ones as they are, whatever the rows are filled up with.

    As integers, positive numbers have the same order; the last bits give way to the place.
    """
    keys = squares.view(np.int64) & ~SLOTS
    keys |= np.arange(squares.shape[1])
    keys.sort(axis=1)
    return keys & SLOTS


def _fill(columns: np.ndarray, values: np.ndarray) -> None:
    """Write values (b, m) into the first of the columns (b, n), as many as there are."""
    m = min(columns.shape[1], values.shape[1])
    columns[:, :m] = values[:, :m]


def _widened(values: np.ndarray, m: int, filling: float) -> np.ndarray:
    """Values (..., any) with m columns, which are no fewer."""
    missing = m - values.shape[-1]
    return np.concatenate([values, np.full((*values.shape[:-1], missing), filling)], axis=-1) if missing else values


def _stacks(frames: Sequence[Frame]) -> Iterator[list[Frame]]:
    """Neighbours that are done together."""
    stack: list[Frame] = []
    for frame in frames:
        if stack and sum(map(len, stack)) + len(frame) > CHUNK:
            yield stack
            stack = []
        stack.append(frame)
    if stack:
        yield stack


def make_quests(section: DescriptorSection, species: Sequence[int], device: str = "cpu") -> QuestsDescriptor:
    """As [select.descriptor] has it: ``species`` (atomic numbers) are told apart unless it says they are not."""
    return QuestsDescriptor(
        neighbours=section.neighbours,
        cutoff=section.cutoff,
        smoothing=section.smoothing,
        species=tuple(sorted(species)) if section.type == "chemistry" else (),
        species_weight=section.species_weight,
        precision=section.precision,
        device=device,
    )


def descriptors(frame: Frame, k: int = 32, cutoff: float = 5.0) -> np.ndarray:
    """Descriptors (n_atoms, 2k - 1) float64, 1/Å, of a frame as the ``quests`` program defines them.

    Any directions may be periodic. Raises ValueError for a cell without volume.
    """
    return QuestsDescriptor(k, cutoff, smoothing=0.0)([frame])[0]
