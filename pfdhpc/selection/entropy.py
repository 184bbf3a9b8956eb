"""Kernel sums and entropies of atomic environments, finite at any distance.

``p(x|Y) = sum_y exp(-|x - y|² / 2h²)``, ``δH(x|Y) = -ln p(x|Y)``, ``H(X) = -mean_i ln(p(x_i|X) / n)`` and
``D(X) = ln sum_i 1/p(x_i|X)``, in nats (Schwalbe-Koda et al., Nat. Commun. 16, 4014 (2025)).
All is done with ``ln p``: p itself underflows for environments far from all others.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from .kernel_sums import (
    LEAF,
    LOWEST,
    TINY,
    Boxes,
    PlainSum,
    ShiftedSum,
    Sums,
    differences,
    partition,
    runs,
    tile,
    visits,
)

if TYPE_CHECKING:
    import torch

ORDERED = 2048
"""Environments from which on they are put in order, so that far ones can be left out."""
BLOCK = 4096
"""Environments that are copied, or on a GPU compared, at a time."""
RESOLVED = 2e5
"""(|x|² + |y|²) / 2h² up to which a product gives the exponent to 1e-10; above, differences are taken."""
WORTHWHILE = 2**20
"""Pairs of environments from which on it pays to ask which can be left out."""


class Environments:
    """Descriptors (n, d) of some atoms, prepared once for kernel sums with bandwidth ``h``, both in 1/Å.

    Computed in float64 on the torch ``device``. Raises ValueError for what is not an array (n, d) of finite numbers,
    and for a bandwidth that is not positive.
    """

    def __init__(self, descriptors: np.ndarray, h: float, device: str = "cpu"):
        if descriptors.ndim != 2 or not h > 0:
            raise ValueError(f"descriptors have the shape {descriptors.shape}, not (n, d), or h = {h} is not positive")
        n, self._d = descriptors.shape
        self.h, self._dtype = float(h), descriptors.dtype
        self._order, self._boxes = None, None
        if n < ORDERED:
            self._rows = self._prepared(descriptors).to(device)
        else:
            self._order, starts, centre, basis = partition(descriptors)
            self._rows = self._prepared(descriptors).to(device)
            self._boxes = Boxes(self._rows[:, : self._d], starts, centre, basis)
        self._reach = -float(self._rows[:, self._d].min()) if n else 0.0
        if not np.isfinite(self._reach):
            raise ValueError("descriptors that are no finite numbers: are the atoms' positions?")

    def _prepared(self, descriptors: np.ndarray) -> torch.Tensor:
        """Rows [x, -|x|²/2h², 1] in our order; made in blocks, as there is no room for copies."""
        import torch

        n, d = descriptors.shape
        tensor = torch.ones((n, d + 2), dtype=torch.float64)
        rows = tensor.numpy()
        for start in range(0, n, BLOCK):
            part = slice(start, start + BLOCK)
            rows[part, :d] = descriptors[part if self._order is None else self._order[part]]
        np.einsum("ij,ij->i", rows[:, :d], rows[:, :d], out=rows[:, d])
        rows[:, d] /= -2 * self.h**2
        return tensor

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def descriptors(self) -> np.ndarray:
        """(n, d) in the order and precision they were given in, 1/Å; a copy."""
        rows = self._rows[:, : self._d].cpu().numpy()
        found = np.empty(rows.shape, self._dtype)
        found[slice(None) if self._order is None else self._order] = rows
        return found

    def log_sums(self, reference: Environments, tolerance: float = 1e-12) -> np.ndarray:
        """``ln p(x|reference)`` (n,), nats; -inf for an empty reference.

        Environments of a large reference that are far from all of a group of these are left out, such
        that ln p is low by no more than ``tolerance`` (see :func:`pfdhpc.selection.kernel_sums.visits`); 0 leaves
        out none. The result, to the last bit, depends on these two objects and their devices alone.
        Raises ValueError for different bandwidths.
        """
        if self.h != reference.h:
            raise ValueError(f"environments for the bandwidths {self.h} and {reference.h} do not compare")
        pairs, unordered = len(self) * len(reference), self._boxes is None and reference._boxes is None
        if unordered and 0 < pairs <= tile(self._rows.device):
            return self._few(reference)
        found = np.full(len(self), -np.inf)
        if len(reference):
            for part in self._parts():
                found[part if self._order is None else self._order[part]] = self._block(part, reference, tolerance)
        return found

    def _few(self, reference: Environments) -> np.ndarray:
        """ln p where there is one tile: in as few calls as it takes."""
        if self._reach + reference._reach <= RESOLVED:
            sums = (self._rows @ reference._factors.T).clamp_(min=LOWEST).exp_().sum(1)
            if float(sums.min()) >= TINY:
                return sums.log_().cpu().numpy()
        return self._block(slice(None), reference, 0.0)

    @cached_property
    def _factors(self) -> torch.Tensor:
        """Rows [x / h², 1, -|x|²/2h²]; kept for those that others are compared with, which are few at a time."""
        factors = self._rows * self.h**-2
        factors[:, self._d], factors[:, self._d + 1] = 1.0, self._rows[:, self._d]
        return factors

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Smallest and largest value (d,) of each column, 1/Å; inf and -inf where there are none."""
        if not len(self):
            return np.full(self._d, np.inf), np.full(self._d, -np.inf)
        return tuple(side.cpu().numpy() for side in self._rows[:, : self._d].aminmax(dim=0))

    def _parts(self) -> Iterator[slice]:
        """Rows to be done together: a leaf each, or several on a GPU."""
        n = len(self)
        rows = BLOCK if self._rows.is_cuda else LEAF
        if self._boxes is None or self._rows.is_cuda:
            return (slice(start, start + rows) for start in range(0, n, rows))
        return (slice(start, stop) for start, stop in pairwise(self._boxes.starts))

    def _block(self, part: slice, reference: Environments, tolerance: float) -> np.ndarray:
        """ln p of some rows: plain sums, and once more with care for the rows where these underflow."""
        rows, bounds = self._rows[part], None
        if tolerance and reference._boxes is not None and len(rows) * len(reference) >= WORTHWHILE:
            bounds = reference._boxes.log_bounds(rows[:, : self._d], self.h)
        resolved = self._reach + reference._reach <= RESOLVED
        sums = reference._add_up(PlainSum, rows, resolved, bounds, tolerance)
        found = sums.log()
        if float(sums.total.min()) < TINY:
            far = sums.total < TINY
            found[far] = reference._add_up(ShiftedSum, rows[far], resolved, bounds, tolerance).log()
        return found.cpu().numpy()

    def _add_up(
        self, kind: type[Sums], rows: torch.Tensor, resolved: bool, bounds: np.ndarray | None, tolerance: float
    ) -> Sums:
        """The kernel sums of rows (b, d + 2) over these environments."""
        sums = kind(rows)
        factors = rows * self.h**-2
        factors[:, self._d], factors[:, self._d + 1] = 1.0, rows[:, self._d]
        width = max(tile(rows.device) // len(rows), 1) if resolved else LEAF
        if bounds is None:
            spans = ((start, start + width) for start in range(0, len(self), width))
        else:
            groups = visits(bounds, sums.log_smallest, tolerance)
            spans = (span for leaves in groups for span in runs(leaves, self._boxes.starts, width))
        for start, stop in spans:
            others = self._rows[start:stop]
            near = resolved or float(rows[:, self._d].min() + others[:, self._d].min()) >= -RESOLVED
            sums.add(factors @ others.T if near else differences(rows[:, : self._d], others[:, : self._d], self.h))
        return sums


def log_kernel_sums(x: np.ndarray, y: np.ndarray, h: float) -> np.ndarray:
    """``ln p(x|y)`` (n,) of the environments x (n, d) against y (m, d), descriptors and ``h`` in 1/Å."""
    return Environments(x, h).log_sums(Environments(y, h))


def delta_entropy(x: np.ndarray, y: np.ndarray, h: float) -> np.ndarray:
    """``δH(x|y)`` (n,), nats: 0 for one equal environment in y, below for several, above for a new one."""
    return -log_kernel_sums(x, y, h)


def entropy(x: np.ndarray, h: float) -> float:
    """``H(x)`` in nats: 0 if all environments are equal, ln n if none are alike; ValueError if there are none."""
    return float(-(_own_sums(x, h) - np.log(len(x))).mean())


def diversity(x: np.ndarray, h: float) -> float:
    """``D(x)`` in nats: ln of how many unlike environments there are; ValueError if there are none."""
    return float(np.logaddexp.reduce(-_own_sums(x, h)))


def _own_sums(x: np.ndarray, h: float) -> np.ndarray:
    if len(x) == 0:
        raise ValueError("the entropy of no environments is not defined")
    environments = Environments(x, h)
    return environments.log_sums(environments)
