#!/usr/bin/env bash
# ASE 3.29.0, SumCalculator: its properties are those that all parts list in implemented_properties. dftd3 1.7.0 gives a
# free energy in its results and does not list it; so does tblite 0.8.0. A metal with smeared occupations plus DFT-D3
# (DFTD3.add_calculator makes the sum) has no free energy, so that its energy is the metal's extrapolated to
# zero smearing while its forces are derivatives of the free energy: they do not belong together.
# Seen: get_potential_energy(force_consistent=True) raises, get_potential_energy() has the wrong slope.
# Exits with 0 if this is still so, with 1 if not. Needs python3 (3.11 or later) and pip.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
pip install --quiet --disable-pip-version-check --target "$place" ase==3.29.0 numpy==2.4.2 scipy==1.17.1 dftd3==1.7.0
PYTHONPATH="$place" python3 - <<'EOF'
import sys

import ase
from ase.build import bulk
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.emt import EMT
from dftd3.ase import DFTD3


class Smeared(EMT):
    """As a program with smeared occupations: forces of the free energy, and another energy beside it."""

    def calculate(self, *args):
        super().calculate(*args)
        self.results["energy"] += 0.1 * (self.atoms.positions[1, 0] - 1.0) ** 2


def energy(displacement, calculator):
    atoms = bulk("Cu", cubic=True)
    atoms.positions[1, 0] += 0.1 + displacement
    atoms.calc = calculator
    return atoms.get_potential_energy(), atoms.get_forces()[1, 0], atoms


metal, dispersion = Smeared(), DFTD3(method="PBE", damping="d3bj")
total = dispersion.add_calculator(metal)
_, force, atoms = energy(0.0, total)
try:
    atoms.get_potential_energy(force_consistent=True)
    raised = False
except PropertyNotImplementedError:
    raised = True
slope = (energy(1e-3, total)[0] - energy(-1e-3, total)[0]) / 2e-3
print(f"ASE {ase.__version__}: {type(total).__name__} of {[type(part).__name__ for part in total.mixer.calcs]}")
print(f"free energy listed by the metal {'free_energy' in metal.implemented_properties}, by dftd3 "
      f"{'free_energy' in dispersion.implemented_properties}, in dftd3's results {'free_energy' in dispersion.results}, "
      f"of the sum {not raised}")
print(f"force {force:.4f} eV/Å, minus the slope of the energy {-slope:.4f} eV/Å")
as_seen = raised and "free_energy" in dispersion.results and abs(force + slope) > 0.05
print("as seen" if as_seen else "behaves otherwise now")
sys.exit(not as_seen)
EOF
