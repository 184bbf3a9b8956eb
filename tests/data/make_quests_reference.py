"""Writes quests_reference.npz with the ``quests`` package (needs numba): python make_quests_reference.py

Descriptors, entropies and δH of a few frames, as the package gives them, for tests that run without it.
"""

from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import bulk, molecule
from quests.descriptor import get_descriptors
from quests.entropy import delta_entropy, entropy

H = 0.015
K, CUTOFF = 32, 5.0


def frames():
    rng = np.random.default_rng(7)
    crystals = {
        "si_primitive": bulk("Si"),
        "si_cell": bulk("Si", cubic=True),
        "si_supercell": bulk("Si", cubic=True).repeat((3, 2, 2)),
        "cu_thin": bulk("Cu", cubic=True).repeat((1, 1, 5)),
        "sic": bulk("SiC", "zincblende", a=4.36, cubic=True),
    }
    for atoms in crystals.values():
        atoms.rattle(0.1, rng=rng)
        atoms.set_cell(atoms.cell @ (np.eye(3) + 0.05 * rng.normal(size=(3, 3))), scale_atoms=True)
        atoms.positions += 20 * rng.normal(size=3)  # outside the cell
    gas = Atoms("H40", rng.random((40, 3)) @ np.diag([14, 15, 16]), cell=np.diag([14, 15, 16]), pbc=True)
    few = Atoms("Ar2", [[0, 0, 0], [1, 2, 2.5]], cell=[20, 20, 20], pbc=True)
    ethanol = molecule("CH3CH2OH")
    droplet = Atoms("H60", 8 * rng.random((60, 3)))
    return {**crystals, "gas": gas, "few": few, "ethanol": ethanol, "droplet": droplet}


def main():
    data = {"h": H, "k": K, "cutoff": CUTOFF}
    found = {}
    for name, atoms in frames().items():
        found[name] = get_descriptors([atoms], k=K, cutoff=CUTOFF)
        data |= {
            f"{name}/numbers": atoms.numbers,
            f"{name}/cell": np.array(atoms.cell),
            f"{name}/positions": atoms.positions,
            f"{name}/pbc": atoms.pbc,
            f"{name}/descriptors": found[name],
        }
    data["small_k"] = get_descriptors([frames()["si_cell"]], k=8, cutoff=4.0)
    data["entropy"] = entropy(found["si_supercell"], h=H)
    data["delta"] = delta_entropy(found["si_cell"], found["si_supercell"], h=H)
    np.savez_compressed(Path(__file__).with_name("quests_reference.npz"), **data)


if __name__ == "__main__":
    main()
