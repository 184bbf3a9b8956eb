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

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from ase.data import chemical_symbols
from scipy.spatial import cKDTree

from ..data import Frame
from ..data.geometry import with_images

CHUNK = 2048
"""Atoms whose neighbours are in memory at a time, and on a GPU their pairs of neighbours."""
BLOCK = 48
"""Atoms whose pairs of neighbours are in memory at a time on the CPU: what stays in a core's cache."""


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
        return [self._of(frame) for frame in frames]

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

    def _of(self, frame: Frame) -> np.ndarray:
        own = self._kinds(frame)
        positions, index = with_images(frame, self._reach)
        kinds = own[index]
        tree = cKDTree(positions, 32, balanced_tree=False, compact_nodes=False)
        found = np.empty((len(frame), self.width), self.precision)
        for start in range(0, len(frame), CHUNK):
            chunk = slice(start, min(start + CHUNK, len(frame)))
            found[chunk] = self._columns(tree, kinds, chunk)
        return found

    @property
    def _reach(self) -> float:
        return self.cutoff + 2 * self.smoothing

    def _kinds(self, frame: Frame) -> np.ndarray:
        """Place (n_atoms,) of each atom's species among those told apart; zeros if none are."""
        species = self._told_apart
        unknown = set(frame.numbers.tolist()) - set(species)
        if species and unknown:
            names, known = (", ".join(chemical_symbols[z] for z in sorted(group)) for group in (unknown, species))
            raise ValueError(f"frame {frame.frame_id} has {names}, but the descriptor is for {known} only")
        return np.searchsorted(species, frame.numbers)

    def _columns(self, tree: cKDTree, kinds: np.ndarray, chunk: slice) -> np.ndarray:
        """Descriptors (b, width) of the chunk of atoms, from all positions in the tree and their species."""
        k, n_kinds = self.neighbours, len(self._told_apart)
        atoms = tree.data[chunk]
        weights, distances, neighbours = self._neighbours(tree, atoms)
        vectors = tree.data.T[:, neighbours] - atoms.T[:, :, None]
        radial = weights / (distances + 1e-16)
        parts = [_first(radial, k), _first(self._cross(vectors, np.sqrt(weights)), k - 1)]
        for kind in range(n_kinds):
            of_kind = np.sort(radial * (kinds[neighbours] == kind), axis=1)[:, ::-1]
            parts.append(self.species_weight * _first(of_kind, k))
        own = kinds[chunk, None] == np.arange(n_kinds)
        return np.concatenate([*parts, self.species_weight / np.sqrt(2) * own], axis=1)

    def _neighbours(self, tree: cKDTree, atoms: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Blended weights, distances in Å and places in the tree, (b, m) each, by increasing distance.

        m is the largest number of neighbours with weight; a missing one has weight zero and any place.
        """
        count = self.neighbours
        if self.smoothing:
            count += (count + 1) // 2  # enough for disordered environments and for most lattices
        while True:
            distances, places = tree.query(atoms, count + 1, distance_upper_bound=self._reach)
            distances = np.minimum(distances[:, 1:], self._reach)  # the first is the atom itself
            weights = self._weights(distances)
            if not self.smoothing or not weights[:, -1].any():
                break
            count *= 2
        m = np.count_nonzero(weights.any(axis=0))
        return weights[:, :m], distances[:, :m], np.minimum(places[:, 1 : m + 1], tree.n - 1)

    def _weights(self, distances: np.ndarray) -> np.ndarray:
        """Blended weights (b, count) of neighbours by increasing distance, missing ones at the reach."""
        weights = (1 - (np.minimum(distances, self.cutoff) / self.cutoff) ** 2) ** 2
        if not self.smoothing:
            return weights
        k = self.neighbours
        middle = distances[:, k - 1 : k + 1].mean(axis=1, keepdims=True)
        rise = np.clip((middle - distances) / (2 * self.smoothing) + 0.5, 0, 1)
        return weights * rise * rise * rise * (10 - 15 * rise + 6 * rise * rise)

    def _cross(self, vectors: np.ndarray, roots: np.ndarray) -> np.ndarray:
        """The second part (b, m) from vectors (3, b, m) to the neighbours and the roots (b, m) of their weights.

        Atoms with similar numbers of neighbours are in a block, so that few rows are longer than needed.
        """
        import torch

        dtype = getattr(torch, self.precision)
        counts = np.count_nonzero(roots, axis=1)
        order = np.argsort(counts, kind="stable")
        found = np.zeros(roots.shape)
        vectors, roots = (torch.from_numpy(x).to(self.device, dtype) for x in (vectors[:, order], roots[order]))
        size = BLOCK if roots.is_cpu else CHUNK
        for start in range(0, len(order), size):
            atoms = order[start : start + size]
            m = counts[atoms[-1]]
            sums = _summed_rows(vectors[:, start : start + size, :m], roots[start : start + size, :m])
            found[atoms, :m] = sums.cpu().numpy()[:, ::-1]
        return found / self.neighbours


def _summed_rows(vectors, roots):
    """Sums over j (b, m), ascending, of the sorted rows sqrt(w_j w_l) / r_jl; tensors as the arrays of ``_cross``."""
    import torch

    x, y, z = vectors
    pairs = (x.unsqueeze(2) - x.unsqueeze(1)).square_()
    for component in (y, z):
        difference = component.unsqueeze(2) - component.unsqueeze(1)
        pairs.addcmul_(difference, difference)
    pairs.sqrt_().add_(1e-15)
    pairs.diagonal(dim1=1, dim2=2).fill_(torch.inf)
    roots = roots.unsqueeze(1)
    torch.div(roots, pairs, out=pairs)
    if pairs.is_cpu:
        pairs.numpy().sort(axis=2)  # in place; torch's own takes ten times as long on short rows
    else:
        pairs = pairs.sort(dim=2).values
    return roots.bmm(pairs).squeeze(1)


def _first(values: np.ndarray, n: int) -> np.ndarray:
    """The first n columns of values (b, m); zeros where there are fewer."""
    columns = np.zeros((len(values), n))
    m = min(n, values.shape[1])
    columns[:, :m] = values[:, :m]
    return columns


def descriptors(frame: Frame, k: int = 32, cutoff: float = 5.0) -> np.ndarray:
    """Descriptors (n_atoms, 2k - 1) float64, 1/Å, of a frame as the ``quests`` program defines them.

    Any directions may be periodic. Raises ValueError for a cell without volume.
    """
    return QuestsDescriptor(k, cutoff, smoothing=0.0)([frame])[0]
