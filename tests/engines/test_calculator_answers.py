"""The energy of a label is the one its forces are derivatives of, whatever calculators are put together."""

import sys

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from ase.calculators.loggingcalc import LoggingCalculator
from ase.calculators.mixing import AverageCalculator, LinearCombinationCalculator, MixedCalculator, SumCalculator
from ase.calculators.qmmm import ForceConstantCalculator, SimpleQMMM

from pfdhpc.config.explore import ExploreSection
from pfdhpc.config.label import LabelSection
from pfdhpc.data import Frame
from pfdhpc.data.io import read_labelled
from pfdhpc.engines.base import SegmentTask
from pfdhpc.engines.calculator_answers import check_answers, consistent_energy
from pfdhpc.engines.registry import make_explorer, make_labeler
from pfdhpc.errors import InputError, LabelError

STEP = 1e-3


class Metal(EMT):
    """Smeared occupations: forces of the free energy, and an energy that differs by what depends on the positions."""

    def calculate(self, atoms, properties, system_changes):
        super().calculate(atoms, properties, system_changes)
        self.results["energy"] += 0.5 + 0.1 * (atoms.positions**2).sum()


class Dispersion(EMT):
    """One energy, of which no free energy is listed; with ``told`` its results have it, as dftd3's and tblite's."""

    implemented_properties = ("energy", "forces", "stress")
    told = True

    def calculate(self, atoms, properties, system_changes):
        super().calculate(atoms, properties, system_changes)
        if not self.told:
            del self.results["free_energy"]


class Untold(Dispersion):
    told = False


class Wrapper(Calculator):
    """Hands on energy and forces of another one, as Plumed and QM/MM do."""

    implemented_properties = ("energy", "forces")

    def __init__(self, inner, hands_on=("energy", "forces")):
        super().__init__()
        self.inner, self.hands_on = {"it": [inner]}["it"], hands_on

    def calculate(self, atoms, properties, system_changes):
        super().calculate(atoms, properties, system_changes)
        self.inner[0].get_forces(atoms)
        self.inner[0].get_potential_energy(atoms)
        self.results = {name: self.inner[0].results[name] for name in self.hands_on}


def summed():
    return SumCalculator([Metal(), Dispersion()])


def weighted():
    return LinearCombinationCalculator([Metal(), Untold()], [1.0, 0.25])


def nested():
    return MixedCalculator(LoggingCalculator(Metal()), AverageCalculator([weighted(), summed(), EMT()]), -0.5, 3.0)


def telling():
    return Wrapper(Metal(), ("energy", "free_energy", "forces"))


def keeping():
    return SumCalculator([Wrapper(EMT()), Metal()])


SOUND = (Metal, Dispersion, Untold, summed, weighted, nested, telling, keeping)


def copper(seed=3):
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=seed)
    return Frame.from_atoms(atoms)


def labeler(name, **more):
    return make_labeler(LabelSection(type="ase", options={"calculator": f"{__name__}.{name}"}, **more), None)


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.setitem(sys.modules, __name__, sys.modules[Metal.__module__])


@pytest.mark.parametrize("make", SOUND)
def test_forces_are_derivatives_of_the_energy(make):
    given, frame = labeler(make.__name__, virial=False), copper()
    energies = []
    for sign in (1, -1):
        positions = frame.positions.copy()
        positions[1, 0] += sign * STEP
        moved = Frame(frame.numbers, frame.cell, positions, frame.pbc)
        energies.append(given.label(moved, {}, 60.0).energy)
    force = given.label(frame, {}, 60.0).forces[1, 0]
    assert force == pytest.approx((energies[1] - energies[0]) / (2 * STEP), abs=1e-3)


@pytest.mark.parametrize("make", SOUND)
def test_weights_of_sums_count_and_an_explorer_gives_the_same_energy(make):
    """Of EMT's energy, as often as it is in."""
    frame, times = copper(), {"summed": 2, "weighted": 1.25, "nested": -0.5 + 1.25 + 2 + 1, "keeping": 2}
    energy = labeler("EMT").label(frame, {}, 60.0).energy * times.get(make.__name__, 1)
    assert labeler(make.__name__, virial=False).label(frame, {}, 60.0).energy == pytest.approx(energy, abs=1e-9)
    options = {"engine": "ase", "options": {"calculator": f"{__name__}.{make.__name__}"}}
    explorer = make_explorer(ExploreSection(**options, ensemble="nve", steps=1, interval=1, timestep=1e-9))
    (record,) = explorer.run(SegmentTask("a", "a", frame, None, 0, (1e-9, 1e-9), (0.0, 0.0), 1)).records
    assert record.prediction.energy == pytest.approx(energy, abs=1e-6)


def test_a_sum_that_adds_to_its_energy_keeps_it():
    class Shifted(SumCalculator):
        def calculate(self, atoms, properties, system_changes):
            super().calculate(atoms, properties, system_changes)
            self.results["energy"] += 10.0

    plain, shifted = (kind([Metal(), Dispersion()]) for kind in (SumCalculator, Shifted))
    assert [_energy(shifted) - _energy(plain)] == pytest.approx([10.0])


@pytest.mark.parametrize(
    "wrap", [Wrapper, lambda one: Wrapper(Wrapper(one)), lambda one: SumCalculator([Wrapper(one)])]
)
def test_a_free_energy_that_a_wrapper_loses_is_an_error_with_a_remedy(wrap):
    with pytest.raises(LabelError, match=r'Wrapper gives no free energy.*of Metal.*set results\["free_energy"\]'):
        _energy(wrap(Metal()))
    assert _energy(wrap(EMT())) == pytest.approx(_energy(EMT()))
    with pytest.raises(LabelError, match="Metal"):
        _energy(wrap(summed()))


def test_qm_in_mm_is_an_error_where_the_qm_is_smeared():
    with pytest.raises(LabelError, match="SimpleQMMM gives no free energy"):
        _energy(SimpleQMMM([0, 1], Metal(), EMT(), EMT()))
    assert np.isfinite(_energy(SimpleQMMM([0, 1], EMT(), EMT(), EMT())))


def test_forces_without_an_energy_cannot_label():
    frame = copper()
    constants = ForceConstantCalculator(np.eye(12), frame.to_atoms(), np.zeros((4, 3)))
    for calculator in (constants, SumCalculator([EMT(), constants]), Wrapper(constants)):
        with pytest.raises(LabelError, match="ForceConstantCalculator gives forces without their energy"):
            check_answers(calculator, False)
    check_answers(nested(), True)


def _energy(calculator):
    atoms = copper().to_atoms()
    atoms.calc = calculator
    atoms.get_forces()
    return consistent_energy(atoms)


GPAW_TEXT = """{logo}
Free energy:      {free}
Extrapolated:     -4.176864
"""


def test_gpaws_text_is_refused_where_it_has_another_energy_than_its_forces(tmp_path, monkeypatch):
    path = tmp_path / "log.txt"
    monkeypatch.setattr(ase.io, "iread", lambda *_, **__: [_with_label()])
    monkeypatch.setattr("ase.io.formats.filetype", lambda name: "gpaw-log")
    path.write_text(GPAW_TEXT.format(logo="", free="-4.417655"))
    with pytest.raises(InputError, match="extrapolated to zero smearing.*give the .traj or .gpw"):
        read_labelled(path)
    path.write_text(GPAW_TEXT.format(logo="", free="-4.176864"))
    assert len(read_labelled(path)) == 1


def _with_label() -> Atoms:
    atoms = copper().to_atoms()
    atoms.calc = EMT()
    atoms.get_forces()
    return atoms
