"""Sums of Gaussian kernels between rows: products in tiles that stay in the cache, and what need not be computed.

A row x is kept as ``[x, -|x|²/2h², 1]``. With ``[x / h², 1, -|x|²/2h²]`` on the other side the product of two
is the exponent -|x - y|²/2h² itself: a tile of the sums costs a matrix product, an exp and a sum.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

LEAF = 256
"""Rows that are taken or left together, at most."""
DIRECTIONS = 8
"""Principal directions in which leaves are split and bounded."""
MOST = 0.7
"""Share of the leaves from which on it is faster to take all of them, in their order."""
PROBES = 2
"""Leaves after which this is decided."""
CPU_TILE, GPU_TILE = 2**17, 2**26
"""Elements of a tile: a megabyte stays in a core's second-level cache; half a gigabyte fills a GPU."""
TINY = 1e-280
"""Sums below this have lost digits, or everything, to underflow."""
LOWEST = -700.0
"""Exponents below this count as this: exp is slow where the result underflows, and 1e-304 adds nothing to TINY."""


class Boxes:
    """Bounds of the leaves of some rows (n, d): along a few directions, and in the distance from their span.

    ``starts`` (leaves + 1,) are the first rows of the leaves. The coordinates f shorten distances,
    |f(x) - f(y)| ≤ |x - y|, for an orthogonal projection does and so does the norm of the rest: the
    distance of two boxes bounds those of the rows in them from below.
    """

    def __init__(self, rows: torch.Tensor, starts: np.ndarray, centre: np.ndarray, basis: np.ndarray):
        import torch

        self._centre, self._basis = (torch.from_numpy(array).to(rows.device) for array in (centre, basis))
        bounds = [self._bounds(rows[start:stop]) for start, stop in zip(starts[:-1], starts[1:], strict=True)]
        self._low, self._high = (torch.stack(side) for side in zip(*bounds, strict=True))
        self.starts = starts
        self._log_counts = np.log(np.diff(starts))

    def log_bounds(self, rows: torch.Tensor, h: float) -> np.ndarray:
        """(leaves,) ln of what each leaf adds to the sum of any of these rows (b, d), at most."""
        low, high = self._bounds(rows)
        gaps = (self._low - high).clamp_(min=0).add_((low - self._high).clamp_(min=0))
        return self._log_counts - gaps.square_().sum(1).cpu().numpy() / (2 * h * h)

    def _bounds(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Smallest and largest coordinates (directions + 1,) of rows (b, d)."""
        import torch

        shifted = rows - self._centre
        along = shifted @ self._basis
        across = shifted.addmm_(along, self._basis.T, alpha=-1).norm(dim=1, keepdim=True)
        return torch.aminmax(torch.cat([along, across], dim=1), dim=0)


def partition(descriptors: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Order rows (n, d) so that near ones are together, by halving them where they vary most.

    Returns the order (n,), the starts (leaves + 1,) of the leaves of up to LEAF rows, and the centre (d,)
    and principal directions (d, q) of the rows.
    """
    centre = descriptors.mean(axis=0, dtype=float)
    basis = np.ascontiguousarray(np.linalg.eigh(_covariance(descriptors, centre))[1][:, : -DIRECTIONS - 1 : -1])
    points = np.concatenate([block @ basis for block in _blocks(descriptors)])
    order, starts = np.arange(len(points)), [len(points)]
    pending = [(0, len(points))]
    while pending:
        start, stop = pending.pop()
        if stop - start <= LEAF:
            starts.append(start)
            continue
        rows, half = order[start:stop], (stop - start) // 2
        column = points[rows, points[rows].var(axis=0).argmax()]
        order[start:stop] = rows[np.argpartition(column, half)]
        pending += [(start, start + half), (start + half, stop)]
    return order, np.array(sorted(starts)), centre, basis


def _blocks(descriptors: np.ndarray) -> Iterator[np.ndarray]:
    return (descriptors[start : start + 4096] for start in range(0, len(descriptors), 4096))


def _covariance(descriptors: np.ndarray, centre: np.ndarray) -> np.ndarray:
    total = np.zeros((len(centre), len(centre)))
    for block in _blocks(descriptors):
        total += (block - centre).T @ (block - centre)
    return total


class Sums:
    """``total`` (n,): sums over the columns of tiles of exponents (n, any), for rows (n, any)."""

    def __init__(self, rows: torch.Tensor):
        self.total = rows.new_zeros(len(rows))

    def add(self, exponents: torch.Tensor) -> None:
        """Destroys the tile."""
        raise NotImplementedError

    def log_smallest(self) -> float:
        """ln of the smallest sum that is of use."""
        raise NotImplementedError

    def log(self) -> torch.Tensor:
        raise NotImplementedError


class PlainSum(Sums):
    """Sums of exp(exponent). Those below TINY are of no use, a :class:`ShiftedSum` is needed for their rows."""

    def add(self, exponents: torch.Tensor) -> None:
        self.total += exponents.clamp_(min=LOWEST).exp_().sum(1)

    def log_smallest(self) -> float:
        smallest = float(self.total.where(self.total >= TINY, np.inf).min())
        return float(np.log(smallest))

    def log(self) -> torch.Tensor:
        return self.total.log()


class ShiftedSum(Sums):
    """Sums relative to the largest exponent of each row so far: of use at any distance."""

    def __init__(self, rows: torch.Tensor):
        super().__init__(rows)
        self.largest = self.total - np.inf

    def add(self, exponents: torch.Tensor) -> None:
        largest = exponents.amax(1).maximum(self.largest)
        self.total *= (self.largest - largest).exp_()
        self.total += exponents.sub_(largest[:, None]).clamp_(min=LOWEST).exp_().sum(1)
        self.largest = largest

    def log_smallest(self) -> float:
        return float(self.log().min())

    def log(self) -> torch.Tensor:
        return self.total.log().add_(self.largest)


def tile(device: torch.device) -> int:
    """Elements of a tile on a device."""
    return CPU_TILE if device.type == "cpu" else GPU_TILE


def differences(x: torch.Tensor, y: torch.Tensor, h: float) -> torch.Tensor:
    """Exponents (n, m) of rows x (n, d) and y (m, d) without products, which cancel for rows far from zero."""
    import torch

    distances = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
    return distances.square_().div_(-2 * h * h)


def runs(leaves: np.ndarray, starts: np.ndarray, width: int) -> Iterator[tuple[int, int]]:
    """Rows (start, stop) of these leaves, neighbours taken together, ``width`` rows at most."""
    leaves = np.sort(leaves)
    breaks = np.flatnonzero(np.diff(leaves) != 1) + 1
    firsts, lasts = leaves[np.r_[0, breaks]], leaves[np.r_[breaks - 1, len(leaves) - 1]]
    for first, last in zip(starts[firsts].tolist(), starts[lasts + 1].tolist(), strict=True):
        for start in range(first, last, width):
            yield start, min(start + width, last)


def visits(log_bounds: np.ndarray, smallest: Callable[[], float], tolerance: float) -> Iterator[np.ndarray]:
    """Leaves in growing groups, those of the largest bounds first, until the rest does not matter.

    The rest is left out once the sum of its bounds is no more than ``tolerance`` times the smallest sum
    so far, of which ``smallest()`` is the logarithm. Sums only grow: for each row what is missing is no
    more than ``tolerance`` times what is found, so that ln p is low by no more than ``tolerance``.
    """
    order = np.argsort(-log_bounds, kind="stable")
    rest = np.logaddexp.accumulate(log_bounds[order[::-1]])[::-1]
    done, needed = 0, 1
    while done < needed:
        stop = len(order) if needed > MOST * len(order) and done >= PROBES else min(needed, max(2 * done, 1))
        yield order[done:stop]
        done = stop
        needed = int(np.searchsorted(-rest, -(smallest() + np.log(tolerance))))
