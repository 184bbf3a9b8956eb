"""The QUESTS descriptor of atomic environments.

D. Schwalbe-Koda, S. Hamel, B. Sadigh, F. Zhou, V. Lordi, Nat. Commun. 16, 4014 (2025), and the
program ``quests`` (``quests/descriptor.py``). The descriptor sees distances, not species.
"""

import numpy as np
from scipy.spatial import cKDTree

from ..data import Frame
from ..data.geometry import with_images

BLOCK = 128
"""Atoms whose neighbour pairs are in memory at a time."""


def descriptors(frame: Frame, k: int = 32, cutoff: float = 5.0) -> np.ndarray:
    """Descriptors (n_atoms, 2k - 1) float64, 1/Å, of all atoms of a frame.

    With the weight ``w(r) = (1 - (r/cutoff)²)²``, zero beyond the cutoff, and the ``k`` nearest
    neighbours j of an atom: the first k entries are ``w(r_j) / r_j`` by increasing distance; the other
    k - 1 are the rows of ``sqrt(w(r_j) w(r_l)) / r_jl``, each sorted from large to small, averaged over j.
    Missing neighbours count as zeros. Periodic directions may be any of the three. Where the k-th
    neighbour is one of several at the same distance, which of them is taken is arbitrary. Raises
    ValueError for a cell without volume.
    """
    positions, _ = with_images(frame, cutoff)
    atoms = positions[: len(frame)]
    distances, neighbours = cKDTree(positions).query(atoms, k + 1, distance_upper_bound=cutoff)
    distances, neighbours = distances[:, 1:], neighbours[:, 1:]  # the first is the atom itself
    weights = (1 - (np.minimum(distances, cutoff) / cutoff) ** 2) ** 2
    radial = weights / (distances + 1e-16)
    positions = np.concatenate([positions, np.zeros((1, 3))])  # what a missing neighbour points to, with weight 0
    blocks = range(0, len(frame), BLOCK)
    cross = [_cross(positions[neighbours[i : i + BLOCK]], np.sqrt(weights[i : i + BLOCK])) for i in blocks]
    return np.concatenate([radial, np.concatenate(cross)], axis=1)


def _cross(places: np.ndarray, roots: np.ndarray) -> np.ndarray:
    """The second part, from neighbour positions (b, k, 3) and roots of their weights (b, k)."""
    k = places.shape[1]
    squared = np.zeros((len(places), k, k))
    for axis in range(3):
        squared += (places[:, :, None, axis] - places[:, None, :, axis]) ** 2
    pairs = roots[:, :, None] * roots[:, None, :] / (np.sqrt(squared) + 1e-15)
    pairs[:, np.arange(k), np.arange(k)] = 0.0
    pairs.sort(axis=2)
    return pairs[:, :, :0:-1].mean(axis=1)
