"""Errors of a model against labels.

Energies are compared per atom. A model whose energy bias was never aligned to the labels' level of
theory is off by a constant per element: ``aligned=False`` takes the minimum-norm least-squares fit
of such constants out of the energy differences first.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from ase.data import chemical_symbols

from ..data import Label, Record


@dataclass(frozen=True)
class Errors:
    """Root mean square errors: force eV/Å per component, energy eV/atom, virial eV/atom per component."""

    n_frames: int
    force: float
    energy: float
    virial: float  # nan where no frame has one


@dataclass(frozen=True)
class ErrorTable:
    """Errors over all frames, by system, and of the forces by element (eV/Å)."""

    total: Errors
    systems: dict[str, Errors]
    elements: dict[str, float]


def error_table(records: Sequence[Record], predictions: Sequence[Label], aligned: bool = True) -> ErrorTable:
    """Compare predictions with the labels of records, in the same order; at least one record."""
    shifts = _energy_differences(records, predictions, aligned)
    rows = [_row(record, label, shift) for record, label, shift in zip(records, predictions, shifts, strict=True)]
    by_system: dict[str, list] = {}
    by_element: dict[int, list] = {}
    for record, row in zip(records, rows, strict=True):
        by_system.setdefault(record.origin.system, []).append(row)
        for number in np.unique(record.frame.numbers):
            by_element.setdefault(int(number), []).append(row[0][record.frame.numbers == number])
    return ErrorTable(
        total=_errors(rows),
        systems={name: _errors(some) for name, some in sorted(by_system.items())},
        elements={chemical_symbols[z]: _rms(np.concatenate(some)) for z, some in sorted(by_element.items())},
    )


def compositions(records: Sequence[Record]) -> list[Counter[int]]:
    """Of each record: number of atoms by atomic number."""
    return [Counter(record.frame.numbers.tolist()) for record in records]


def energies_by_element(counts: Sequence[Mapping[int, int]], energies: np.ndarray) -> dict[int, float]:
    """Energies by atomic number whose sums over :func:`compositions` fit ``energies``, (n_frames,) eV, best.

    The least-squares solution of minimum norm: what compositions cannot tell apart is shared equally.
    """
    elements = sorted({z for count in counts for z in count})
    matrix = np.array([[count.get(z, 0) for z in elements] for count in counts], float)
    fit = np.linalg.lstsq(matrix, energies, rcond=None)[0]
    return dict(zip(elements, fit.tolist(), strict=True))


def exploring_errors(records: Sequence[Record]) -> ErrorTable | None:
    """Errors of the exploring models' own predictions, made before any training saw the labels."""
    tested = [record for record in records if record.prediction is not None]
    if not tested:
        return None
    aligned = min(record.origin.model_version for record in tested) > 0
    return error_table(tested, [record.prediction for record in tested], aligned)


def _energy_differences(records, predictions, aligned: bool) -> np.ndarray:
    differences = np.array([p.energy - r.label.energy for r, p in zip(records, predictions, strict=True)])
    if aligned:
        return differences
    counts = compositions(records)
    constants = energies_by_element(counts, differences)
    return differences - [sum(n * constants[z] for z, n in count.items()) for count in counts]


def _row(record: Record, prediction: Label, energy: float) -> tuple[np.ndarray, float, np.ndarray | None]:
    n_atoms = len(record.frame)
    virial = None
    if record.label.virial is not None and prediction.virial is not None:
        virial = (prediction.virial - record.label.virial) / n_atoms
    return prediction.forces - record.label.forces, energy / n_atoms, virial


def _errors(rows: list) -> Errors:
    virials = [row[2] for row in rows if row[2] is not None]
    return Errors(
        n_frames=len(rows),
        force=_rms(np.concatenate([row[0] for row in rows])),
        energy=_rms(np.array([row[1] for row in rows])),
        virial=_rms(np.stack(virials)) if virials else float("nan"),
    )


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values))))
