"""When a trajectory has left physics: the bounds of [explore.guard], the same for every engine."""

import numpy as np
from ase.geometry import complete_cell

from ...config.explore import GuardSection
from ...data import Frame, Label
from ...data.geometry import near_pairs

MARGIN = 1.0
"""Å beyond guard.min_distance within which pairs are searched, so that the next looks need not search."""


class Guards:
    """The bounds for one trajectory that begins at ``start``, looked at again and again.

    A search for near pairs costs as much as a few force calls of a small model, so that its outcome is kept. Vectors
    v between atoms or images become F v + u_j - u_i when the cell changes by F and atoms move by u beyond that: none
    is shorter than the smallest singular value of F times its length before, less twice the largest |u|.
    """

    def __init__(self, section: GuardSection, start: Frame):
        self._section, self._volume = section, start.volume
        self._searched: Frame | None = None
        self._closest = 0.0

    def violation(self, frame: Frame, label: Label, temperature: float) -> str:
        """Why a configuration is unhealthy, with the value; empty if it is healthy.

        ``temperature`` is the instantaneous one in K. Raises ValueError when the periodic directions span no volume.
        """
        guard = self._section
        arrays = (frame.positions, frame.cell, temperature)
        if not (label.is_finite() and all(np.isfinite(array).all() for array in arrays)):
            return "energy, forces or positions are not finite"
        if temperature > guard.max_temperature:
            return f"temperature {temperature:.0f} K exceeds guard.max_temperature {guard.max_temperature:g} K"
        if self._volume > 0:
            ratio = frame.volume / self._volume
            if not 1 / guard.max_volume_ratio <= ratio <= guard.max_volume_ratio:
                return f"volume ratio {ratio:.3g} exceeds guard.max_volume_ratio {guard.max_volume_ratio:g}"
        if self._least(frame) < guard.min_distance:
            reach = guard.min_distance + MARGIN
            self._searched, self._closest = frame, near_pairs(frame, reach)[2].min(initial=reach)
            if self._closest < guard.min_distance:
                return f"closest pair {self._closest:.3f} Å is below guard.min_distance {guard.min_distance:g} Å"
        return ""

    def _least(self, frame: Frame) -> float:
        """What no distance (Å) is below, by the last search."""
        before = self._searched
        if before is None:
            return 0.0
        shrunk, positions = 1.0, before.positions
        if not np.array_equal(frame.cell, before.cell):
            change = np.linalg.solve(complete_cell(before.cell), complete_cell(frame.cell))
            shrunk, positions = np.linalg.svd(change, compute_uv=False)[-1], positions @ change
        moved = ((frame.positions - positions) ** 2).sum(axis=1).max()
        return shrunk * self._closest - 2 * np.sqrt(moved)
