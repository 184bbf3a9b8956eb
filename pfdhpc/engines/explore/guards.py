"""When a trajectory has left physics: the bounds of [explore.guard], the same for every engine."""

import numpy as np

from ...config.explore import GuardSection
from ...data import Frame, Label
from ...data.geometry import near_pairs


def violation(guard: GuardSection, frame: Frame, label: Label, temperature: float, start_volume: float) -> str:
    """Why a configuration is unhealthy, with the value; empty if it is healthy.

    ``temperature`` is the instantaneous one in K, ``start_volume`` in Å³ (0 where there is no cell).
    """
    arrays = (frame.positions, frame.cell, temperature)
    if not (label.is_finite() and all(np.isfinite(array).all() for array in arrays)):
        return "energy, forces or positions are not finite"
    if temperature > guard.max_temperature:
        return f"temperature {temperature:.0f} K exceeds guard.max_temperature {guard.max_temperature:g} K"
    if start_volume > 0:
        ratio = frame.volume / start_volume
        if not 1 / guard.max_volume_ratio <= ratio <= guard.max_volume_ratio:
            return f"volume ratio {ratio:.3g} exceeds guard.max_volume_ratio {guard.max_volume_ratio:g}"
    distance = near_pairs(frame, guard.min_distance)[2].min(initial=np.inf)
    if distance < guard.min_distance:
        return f"closest pair {distance:.3f} Å is below guard.min_distance {guard.min_distance:g} Å"
    return ""
