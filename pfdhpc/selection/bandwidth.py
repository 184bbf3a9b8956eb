"""Which bandwidth h to compare environments with, and whether one tells anything."""

from collections.abc import Callable
from typing import Literal

import numpy as np

from ..errors import InputError
from .entropy import entropy

MARGIN = 0.02
"""A share of ln n; an entropy as near as this to one of its limits tells nothing."""


def density_bandwidth(volume_per_atom: float, rule: Literal["gaussian", "cutoff"] = "gaussian") -> float:
    """Bandwidth in 1/Å for QUESTS descriptors, from the volume in Å³ per atom.

    With V the volume, 0.0897141 exp(-(V / 10.896)² / 2) + 0.0119417, or by the rule ``cutoff``
    0.086164 (1 - (min(ln² V, c) / c)²)² + 0.016 with c = 11.61172: ``quests.entropy.get_bandwidth``,
    fitted to a few systems. Raises ValueError for a volume that is not positive and an unknown rule.
    """
    if not volume_per_atom > 0:
        raise ValueError(f"the volume per atom is {volume_per_atom}, it must be positive")
    if rule == "gaussian":
        return float(0.0897141 * np.exp(-0.5 * (volume_per_atom / 10.896) ** 2) + 0.0119417)
    if rule == "cutoff":
        share = min(np.log(volume_per_atom) ** 2 / 11.61172, 1.0)
        return float(0.086164 * (1 - share**2) ** 2 + 0.016)
    raise ValueError(f"{rule!r} is no rule for the bandwidth: gaussian or cutoff")


def given_bandwidth(setting: float | str, volume_per_atom: Callable[[], float]) -> float | None:
    """h in 1/Å as ``select.bandwidth`` gives it; None for "spread", where it follows from the descriptors.

    ``volume_per_atom`` tells the volume per atom in Å³, and is asked for "density" only.
    """
    if setting == "density":
        return density_bandwidth(volume_per_atom())
    return None if setting == "spread" else setting


def spread_bandwidth(descriptors: np.ndarray) -> float:
    """Bandwidth, in the unit of the descriptors (n, d), with which their entropy is half of ln n.

    Half way from telling all environments apart to telling none apart; equal ones are counted once.
    Raises InputError where fewer than two differ.
    """
    unlike = _unlike(descriptors)
    if len(unlike) < 2:
        raise InputError(
            'select.bandwidth: "spread" needs unlike environments to start from; rattle the start structures, '
            "or give a number"
        )
    span = float(np.linalg.norm(np.ptp(unlike, axis=0)))
    low, high = 1e-8 * span, 1e2 * span
    while high > 1.001 * low:
        middle = np.sqrt(low * high)
        if entropy(unlike, middle) > np.log(len(unlike)) / 2:
            low = middle
        else:
            high = middle
    return float(np.sqrt(low * high))


def unsuitable(descriptors: np.ndarray, h: float) -> str | None:
    """A sentence on why a bandwidth tells nothing about these environments (n, d); None if it is of use.

    That is where the entropy is within 2 % of ln n, all environments being unlike each other, or of 0, all
    being alike. Equal environments are counted once; fewer than two that differ tell nothing of h.
    """
    unlike = _unlike(descriptors)
    if len(unlike) < 2:
        return None
    found, largest = entropy(unlike, h), float(np.log(len(unlike)))
    if MARGIN * largest <= found <= (1 - MARGIN) * largest:
        return None
    what, how = ("no", "smaller") if found < MARGIN * largest else ("all", "larger")
    return (
        f"bandwidth {h:g} tells {what} environments apart: the entropy of {len(unlike)} is {found:.3g} and ln n "
        f"{largest:.3g}; try a {how} one, as {spread_bandwidth(unlike):.2g}"
    )


def _unlike(descriptors: np.ndarray) -> np.ndarray:
    """The environments without those that are equal up to rounding, 1e-9 of the largest entry."""
    scale = 1e-9 * np.abs(descriptors).max(initial=0.0) or 1.0
    first = np.unique(np.round(descriptors / scale), axis=0, return_index=True)[1]
    return descriptors[np.sort(first)]
