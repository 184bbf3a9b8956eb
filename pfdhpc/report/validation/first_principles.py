"""A crystal by first principles: what the labeler of a run says to the questions the models were asked."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.stress import full_3x3_to_voigt_6_stress

from ...data import Frame, Label, Record
from . import crystal_properties
from .crystal_properties import NoCrystal, Tell

EQUATION, ELASTIC, PHONONS = "equation of state", "elastic constants", "phonons"
RELAXATION = 5
"""Labels that bring the atoms of a strained cell to rest, from where the model has them at rest."""


class ByLabels(Calculator):
    """A labeler as a calculator: ``label(Frame)`` gives a Label, and raises NoCrystal where it cannot."""

    implemented_properties = ["energy", "forces", "stress"]

    def __init__(self, label: Callable[[Frame], Label], tell: Tell):
        super().__init__()
        self._label, self._tell, self.count = label, tell, 0

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.count += 1
        self._tell(f"label {self.count}")
        found = self._label(Frame.from_atoms(self.atoms))
        self.results = {"energy": found.energy, "forces": found.forces}
        if found.virial is not None:
            self.results["stress"] = full_3x3_to_voigt_6_stress(-found.virial / self.atoms.get_volume())
        elif "stress" in properties:
            raise NoCrystal("its labels have no virial")


@dataclass(frozen=True)
class Price:
    """Of one question about one structure: labels of so many atoms, and the seconds they take."""

    structure: str
    question: str
    labels: int
    atoms: int
    seconds: float


def prices(structures: Mapping[str, Atoms], phonons: bool, seconds: Callable[[int], float]) -> list[Price]:
    """What can be asked, the cheapest kind first. ``seconds(n)``: of a label of n atoms."""
    asked = [(EQUATION, lambda atoms: (2 * crystal_properties.SIDE + 1, len(atoms)))]
    asked.append((ELASTIC, lambda atoms: (12 * RELAXATION, len(atoms))))
    if phonons:
        asked.append(
            (PHONONS, lambda atoms: (6 * len(atoms), len(atoms) * int(np.prod(crystal_properties.repeats(atoms)))))
        )
    found = []
    for question, size in asked:
        for name, atoms in structures.items():
            if atoms.pbc.all() and atoms.cell.rank == 3:
                labels, n_atoms = size(atoms)
                found.append(Price(name, question, labels, n_atoms, labels * seconds(n_atoms)))
    return found


def affordable(wanted: Sequence[Price], budget: float) -> tuple[list[Price], list[Price]]:
    """Those that fit into so many seconds one after the other, and those that do not."""
    taken, left = [], []
    for one in wanted:
        fits = sum(price.seconds for price in taken) + one.seconds <= budget
        (taken if fits else left).append(one)
    return taken, left


def seconds_by(records: Sequence[Record], ranks: int) -> Callable[[int], float]:
    """The seconds a label of n atoms takes on one rank, by those of a run's teams of ``ranks``.

    From the nearest size that was labelled, with the square of the number of atoms: more atoms make dearer bands, but
    fewer k-points. 0 where nothing was measured.
    """
    measured: dict[int, list[float]] = {}
    for record in records:
        if record.labelling.seconds > 0:
            measured.setdefault(len(record.frame), []).append(record.labelling.seconds)

    def seconds(n_atoms: int) -> float:
        if not measured:
            return 0.0
        near = min(measured, key=lambda size: abs(np.log(size / n_atoms)))
        return ranks * median(measured[near]) * (n_atoms / near) ** 2

    return seconds


def ask_labels(
    found: Any, atoms: Atoms, model: object, label: Callable[[Frame], Label], asked: Sequence[str], tell: Tell
) -> None:
    """Fill ``found`` (Answers) with what the labeler says to the questions ``asked``.

    The cell keeps the shape that ``model``, a calculator, relaxes it to; its volume is that of the labeler.
    """
    labeler = ByLabels(label, tell)
    try:
        rest = crystal_properties.relaxed(crystal_properties.crystal(atoms), model)
        if EQUATION in asked:
            found.equation = crystal_properties.equation_of_state(rest, labeler)
            rest.set_cell(
                rest.cell * (found.equation.volume * len(rest) / rest.get_volume()) ** (1 / 3), scale_atoms=True
            )
            found.cell, found.volume = rest.cell.cellpar().tolist(), found.equation.volume
    except NoCrystal as error:
        found.problems.append(f"{EQUATION}: {error}")
        return
    works = {
        ELASTIC: ("elastic", lambda: crystal_properties.elastic_constants(rest, labeler, model)),
        PHONONS: ("vibrations", lambda: crystal_properties.vibrations(rest, labeler)),
    }
    for question in (name for name in works if name in asked):
        key, work = works[question]
        try:
            setattr(found, key, work())
        except NoCrystal as error:
            found.problems.append(f"{question}: {error}")
