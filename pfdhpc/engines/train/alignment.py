"""The energies per element of a model in training: what they are shifted by, and what the labels tell of them.

A first training aligns them to all its labels. Later labels may have elements, or ratios of them, that nobody knew of
then. The constants those determine are fitted when they come, along nothing but these new directions
(:mod:`pfdhpc.data.compositions`): what the model predicts for compositions it was trained on stays.
"""

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from ...data import Frame, Label, Record
from ...data.compositions import amounts, formula_of, fractions, open_directions, systematic, undetermined
from ..label.level_of_theory import in_words

Predict = Callable[[Sequence[Frame]], Sequence[Label]]
APART = 0.1
"""eV/atom below which two levels of theory are never called apart."""
FEW = 8
"""Labels of a level of theory up to which it is compared with those trained on before."""


def completing_shift(old: Sequence[Record], new: Sequence[Record], predict: Predict) -> dict[str, float]:
    """What is added to the energy of each element, eV; empty where the ``new`` records determine nothing new.

    Least squares of label - prediction per atom of those ``new`` records that have a new direction, over these
    directions alone. ``predict``: by the model the training starts from, which was aligned to the ``old`` records.
    """
    elements = _elements((*old, *new))
    known, added = (fractions(sorted(set(map(formula_of, records))), elements) for records in (old, new))
    directions = open_directions(known, added)
    if not directions.shape[1]:
        return {}
    ordered = sorted(new, key=lambda record: record.frame_id)
    along = fractions(list(map(formula_of, ordered)), elements) @ directions
    concerned = np.flatnonzero(np.abs(along).max(axis=1) > 1e-9)
    off = off_per_atom([ordered[place] for place in concerned], predict)
    shift = directions @ np.linalg.lstsq(along[concerned], off, rcond=None)[0]
    return dict(zip(elements, shift.tolist(), strict=True))


def off_per_atom(records: Sequence[Record], predict: Predict | None) -> np.ndarray:
    """Energies of labels less those predicted, (n,) eV/atom."""
    return energies_less(records, predict) / [len(record.frame) for record in records]


def energies_less(records: Sequence[Record], predict: Predict | None) -> np.ndarray:
    """Energies of labels less those predicted, (n,) eV; the labels' own without ``predict``."""
    energies = np.array([record.label.energy for record in records])
    if predict is None:
        return energies
    return energies - [label.energy for label in predict([record.frame for record in records])]


def level_notes(records: Sequence[Record], differences: np.ndarray) -> dict[str, str]:
    """A line for each level of theory whose energies lie apart from those of the level of most labels, by their names.

    ``differences``: label - prediction, (n,) eV, of a model that need not be aligned: constants per element are
    fitted to the level of most labels.
    """
    counts = Counter(map(level_of, records))
    main = min(counts, key=lambda level: (-counts[level], level))
    elements = _elements(records)
    rows = fractions(list(map(formula_of, records)), elements)
    per_atom = differences / [len(record.frame) for record in records]
    ours = np.array([level_of(record) == main for record in records])
    constants, _, rank, _ = np.linalg.lstsq(rows[ours], per_atom[ours], rcond=None)
    left = per_atom - rows @ constants
    others = [place for place in range(len(records)) if not ours[place]]
    reference = [record for record, own in zip(records, ours, strict=True) if own]
    free = int(ours.sum() - rank)
    return _notes([records[i] for i in others], left[others], reference, float(np.sum(left[ours] ** 2)), free)


def joining_notes(old: Sequence[Record], new: Sequence[Record], predict: Predict) -> dict[str, str]:
    """The same of levels of theory that are new to a model, which was aligned to the ``old`` records."""
    counts = Counter(map(level_of, old))
    main = min(counts, key=lambda level: (-counts[level], level), default="")
    joining = [record for record in new if level_of(record) != main and counts[level_of(record)] < FEW]
    if not (joining and counts):
        return {}
    reference = [record for record in old if level_of(record) == main]
    return _notes(joining, off_per_atom(joining, predict), reference)


def _notes(
    records: Sequence[Record], left: np.ndarray, reference: Sequence[Record], squares: float = 0.0, n_free: int = 0
) -> dict[str, str]:
    """Of records at other levels than ``reference``; ``left``: their differences, (n,) eV/atom, where constants are
    aligned to it. Those count whose composition it determines. ``squares`` and ``n_free``: its own scatter."""
    formulas = list(map(formula_of, records))
    is_open = undetermined(sorted(set(map(formula_of, reference))), formulas)
    notes: dict[str, str] = {}
    for level in sorted(set(map(level_of, records))):
        places = [i for i, record in enumerate(records) if level_of(record) == level and not is_open[i]]
        found = systematic([formulas[i] for i in places], left[places], squares, n_free, APART)
        if found:
            main = level_of(reference[0])
            notes["levels " + " ".join(sorted((level, main)))] = _apart(level, main, found)
    return notes


def level_of(record: Record) -> str:
    """The level of theory of a label."""
    return record.labelling.level if record.labelling else ""


def _elements(records: Sequence[Record]) -> list[str]:
    return sorted({name for record in records for name in amounts(formula_of(record))})


def _apart(level: str, other: str, offsets: dict[str, float]) -> str:
    text, value = max(offsets.items(), key=lambda item: abs(item[1]))
    return (
        f"labels of two levels of theory: the energies of {in_words(level)} are off from those of {in_words(other)} by"
        f" {1000 * value:+.0f} meV/atom ({text}), which no energy per element explains; make all labels with one method"
        " and one set of pseudopotentials, or leave one of the two out"
    )
