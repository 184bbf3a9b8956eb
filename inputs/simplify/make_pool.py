"""Writes the pool: 4-atom fcc cells of Ag, Au and their alloys, strained and distorted, without labels.

And ``test.extxyz``, of the same kind, with labels of the second level.
"""

import numpy as np
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from pbe_d3 import pbe_d3

FRAMES, TEST = 100, 20
LATTICE = 4.12  # Å, between the two elements


def frame(rng, elements):
    atoms = bulk("Ag", "fcc", LATTICE, cubic=True)
    atoms.symbols = rng.choice(elements, len(atoms))
    strain = rng.uniform(-0.04, 0.04, (3, 3))
    atoms.set_cell(atoms.cell @ (np.eye(3) + (strain + strain.T) / 2), scale_atoms=True)
    atoms.positions += rng.normal(scale=rng.uniform(0.02, 0.25), size=(len(atoms), 3))
    return atoms


def labelled(atoms):
    atoms.calc = calculator
    atoms.get_forces()
    atoms.get_stress()
    return SinglePointCalculator(atoms, **{key: calculator.results[key] for key in ("energy", "forces", "stress")})


calculator, test = pbe_d3(), []
for name, elements in (("Ag", ["Ag"]), ("Au", ["Au"]), ("AgAu", ["Ag", "Au"])):
    rng = np.random.default_rng(len(name) * 100 + ord(name[1]))
    write(f"{name}.extxyz", [frame(rng, elements) for _ in range(FRAMES)])
    test += [frame(rng, elements) for _ in range(TEST)]
for atoms in test:
    atoms.calc = labelled(atoms)
write("test.extxyz", test)
