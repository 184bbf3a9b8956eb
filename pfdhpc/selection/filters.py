"""Which candidates are unphysical, and why."""

from collections.abc import Mapping

import numpy as np
from ase.data import chemical_symbols, covalent_radii

from ..config.select import FilterSection
from ..data import Frame, Record
from ..data.geometry import near_pairs


class Filter:
    """``starts`` gives the volume per atom (Å³) of each system's start structure.

    ``band`` is the committee's force deviation (eV/Å) within which a frame is a candidate: those below
    are accurate already, those above have failed (DP-GEN's sets). A frame without a deviation passes.
    """

    def __init__(self, section: FilterSection, starts: Mapping[str, float], band: tuple[float, float] = (0.0, np.inf)):
        self._section, self._starts, self._band = section, starts, band
        self._checks = (
            self._not_finite,
            self._deviation,
            self._force,
            self._shape,
            self._volume,
            self._distance,
        )  # cheap ones first

    def reason(self, record: Record) -> str | None:
        """Why a frame is dropped, ``kind: detail`` with one of a few kinds; None if it is kept."""
        return next(filter(None, (check(record) for check in self._checks)), None)

    def _not_finite(self, record: Record) -> str | None:
        frame, prediction = record.frame, record.prediction
        if not (np.isfinite(frame.positions).all() and np.isfinite(frame.cell).all()):
            return "not finite: positions or cell"
        if prediction is not None and not prediction.is_finite():
            return "not finite: predicted energy, forces or virial"
        return None

    def _deviation(self, record: Record) -> str | None:
        deviation, (low, high) = record.origin.deviation, self._band
        if deviation < low:
            return f"accurate: committee deviation {deviation:.3f} eV/Å is below {low:g}"
        if deviation > high:
            return f"failed: committee deviation {deviation:.3f} eV/Å is above {high:g}"
        return None

    def _force(self, record: Record) -> str | None:
        if record.prediction is None:
            return None
        force = float(np.sqrt((record.prediction.forces**2).sum(axis=1).max()))
        if force <= self._section.max_force:
            return None
        return f"large force: {force:.1f} eV/Å is more than {self._section.max_force:g}"

    def _shape(self, record: Record) -> str | None:
        """Tilt and lengths of the periodic lattice vectors, those of open directions do not matter."""
        vectors = record.frame.cell[record.frame.pbc]
        if len(vectors) == 0:
            return None
        lengths = np.linalg.norm(vectors, axis=1)
        lower = np.linalg.qr(vectors.T, mode="r").T
        heights = np.abs(np.diag(lower))
        if heights.min() <= 1e-9 * lengths.max():
            return "flat cell: its lattice vectors are linearly dependent"
        if lengths.max() > self._section.max_length_ratio * lengths.min():
            ratio = lengths.max() / lengths.min()
            return f"long cell: length ratio {ratio:.2f} is more than {self._section.max_length_ratio:g}"
        tilt = np.degrees(np.arctan2(np.abs(np.tril(lower, -1)), heights[:, None])).max()
        if tilt > self._section.max_skew:
            return f"skewed cell: {tilt:.1f} degrees is more than {self._section.max_skew:g}"
        return None

    def _volume(self, record: Record) -> str | None:
        start = self._starts.get(record.origin.system)
        if not start or not record.frame.pbc.all():
            return None
        ratio = record.frame.volume / len(record.frame) / start
        if max(ratio, 1 / ratio) <= self._section.max_volume_ratio:
            return None
        return f"volume: {ratio:.2f} times that of the start"

    def _distance(self, record: Record) -> str | None:
        limit = self._section.min_distance_ratio
        if limit == 0 or len(record.frame) == 0:
            return None
        ratio, first, second = closest_pair(record.frame, limit)
        if ratio >= limit:
            return None
        pair = f"{chemical_symbols[first]}-{chemical_symbols[second]}"
        return f"close pair: {pair} at {ratio:.2f} of the sum of covalent radii, less than {limit:g}"


def closest_pair(frame: Frame, limit: float) -> tuple[float, int, int]:
    """The smallest distance over the sum of covalent radii, with the two atomic numbers.

    Pairs are any two atoms and an atom with its own images. Ratios of ``limit`` and above are not
    looked for; (inf, 0, 0) when there is none below. Radii: ``ase.data.covalent_radii``, Cordero et
    al., Dalton Trans. 2832 (2008).
    """
    radii = covalent_radii[frame.numbers]
    first, second, distances = near_pairs(frame, 2 * limit * radii.max())
    ratios = distances / (radii[first] + radii[second])
    if not len(ratios) or ratios.min() >= limit:
        return np.inf, 0, 0
    closest = ratios.argmin()
    return float(ratios[closest]), int(frame.numbers[first[closest]]), int(frame.numbers[second[closest]])
