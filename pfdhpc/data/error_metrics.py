"""Errors of a model against labels.

Energies are compared per atom. A model whose energy bias was never aligned to the labels' level of
theory is off by a constant per element: ``aligned=False`` takes the minimum-norm least-squares fit
of such constants out of the energy differences first. One that was aligned to some compositions knows nothing of the
constants others need: their energies are left out, and named.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from ase.data import chemical_symbols

from . import Label, Record
from .compositions import formula_of, systematic, undetermined


@dataclass(frozen=True)
class Errors:
    """Root mean square errors: force eV/Å per component, energy eV/atom, virial eV/atom per component.

    Kept in checkpoints: a new field needs a default, nan where it was not measured.
    """

    n_frames: int
    force: float
    energy: float  # nan where no frame has a composition whose energy the model was told
    virial: float  # nan where no frame has one


@dataclass(frozen=True)
class ErrorTable:
    """Errors over all frames, by system, and of the forces by element (eV/Å)."""

    total: Errors
    systems: dict[str, Errors]
    elements: dict[str, float]
    undetermined: tuple[str, ...] = ()  # formulas of the frames whose energies are left out
    offsets: Mapping[str, float] = field(default_factory=dict)  # eV/atom, by formula: energies that are off as a whole


def error_table(
    records: Sequence[Record],
    predictions: Sequence[Label],
    aligned: bool = True,
    known: Sequence[str] | None = None,
) -> ErrorTable:
    """Compare predictions with the labels of records, in the same order; at least one record.

    ``known``: formulas the model's energies were aligned to, where others are to be left out.
    """
    differences = _energy_differences(records, predictions, aligned) / [len(record.frame) for record in records]
    formulas = list(map(formula_of, records))
    left_out = undetermined(known, formulas) if known is not None else [False] * len(records)
    differences[left_out] = np.nan
    told = [place for place, out in enumerate(left_out) if not out]
    rows = [_row(record, label, off) for record, label, off in zip(records, predictions, differences, strict=True)]
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
        undetermined=tuple(sorted({text for text, out in zip(formulas, left_out, strict=True) if out})),
        offsets=systematic([formulas[place] for place in told], differences[told]) if aligned else {},
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


def exploring_errors(records: Sequence[Record], trained: Mapping[str, int] | None = None) -> ErrorTable | None:
    """Errors of the exploring models' own predictions, made before any training saw the labels.

    ``trained``: formulas that determine the energies in training, with the version of the first model they trained;
    without any all energies count.
    """
    tested = [record for record in records if record.prediction is not None]
    if not tested:
        return None
    version = min(record.origin.model_version for record in tested)
    known = [text for text, first in trained.items() if first <= version] if trained and version > 0 else None
    return error_table(tested, [record.prediction for record in tested], version > 0, known)


def _energy_differences(records, predictions, aligned: bool) -> np.ndarray:
    differences = np.array([p.energy - r.label.energy for r, p in zip(records, predictions, strict=True)])
    if aligned:
        return differences
    counts = compositions(records)
    constants = energies_by_element(counts, differences)
    return differences - [sum(n * constants[z] for z, n in count.items()) for count in counts]


def _row(record: Record, prediction: Label, energy: float) -> tuple[np.ndarray, float, np.ndarray | None]:
    virial = None
    if record.label.virial is not None and prediction.virial is not None:
        virial = (prediction.virial - record.label.virial) / len(record.frame)
    return prediction.forces - record.label.forces, energy, virial


def _errors(rows: list) -> Errors:
    energies = [row[1] for row in rows if row[1] == row[1]]
    virials = [row[2] for row in rows if row[2] is not None]
    return Errors(
        n_frames=len(rows),
        force=_rms(np.concatenate([row[0] for row in rows])),
        energy=_rms(np.array(energies)) if energies else float("nan"),
        virial=_rms(np.stack(virials)) if virials else float("nan"),
    )


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values))))
