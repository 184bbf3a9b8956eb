"""Frames of other crystals, labelled by the branch that is to be kept: python make_replay.py

A branch's own training data would be better; where they are not to be had, what the branch says of frames like them
is what is to be remembered.
"""

from pathlib import Path

import numpy as np
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from deepmd.calculator import DP

HERE = Path(__file__).parent
CRYSTALS = {"Al": {}, "Ag": {}, "Au": {}, "Si": {}, "MgO": {"crystalstructure": "rocksalt", "a": 4.21}}
FRAMES = 16  # of each


def main() -> None:
    rng, frames = np.random.default_rng(1), []
    model = DP(str(HERE.parent / "pretrained" / "dpa3_small.pt"), head="MatPES_r2SCAN")
    for name, options in CRYSTALS.items():
        for _ in range(FRAMES):
            atoms = bulk(name, cubic=True, **options)
            atoms.set_cell(atoms.cell @ (np.eye(3) + rng.uniform(-0.03, 0.03, (3, 3))), scale_atoms=True)
            atoms.positions += rng.normal(scale=0.08, size=atoms.positions.shape)
            atoms.calc = model
            found = atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress()
            atoms.calc = SinglePointCalculator(atoms, **dict(zip(("energy", "forces", "stress"), found, strict=True)))
            frames.append(atoms)
    write(HERE / "replay.extxyz", frames)


if __name__ == "__main__":
    main()
