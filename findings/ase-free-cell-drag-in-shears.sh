#!/usr/bin/env bash
# ASE 3.29.0, LangevinBAOAB with a free cell: the trace of the barostat's momentum goes to all nine elements of the drag
# on the velocities, the shears too, as a scalar is added to a matrix (_barostat_BAOAB_OU_gamma_mod). In Quigley & Probert
# (J. Chem. Phys. 120 (2004) 11432), Eq. 5b, it stands before the velocity, which is the diagonal.
# Seen: without thermostat the conserved enthalpy drifts by the same amount however short the time step; with
# the trace on the diagonal alone its error vanishes with the time step.
# Exits with 0 if this is still so, with 1 if not. Needs python3 (3.11 or later) and pip.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
pip install --quiet --disable-pip-version-check --target "$place" ase==3.29.0 numpy==2.4.2 scipy==1.17.1
PYTHONPATH="$place" python3 - <<'EOF'
import sys
import warnings

import ase
import numpy as np
from ase import units
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.md.langevinbaoab import LangevinBAOAB

warnings.simplefilter("ignore")  # it announces how it chooses what is not given


class Diagonal(LangevinBAOAB):
    def _barostat_BAOAB_OU_gamma_mod(self):
        return (self.p_eps + np.trace(self.p_eps) / self.Ndof * np.identity(3)) / self.barostat_mass


def drift(kind, timestep):
    """Change of the conserved enthalpy (eV) in 100 fs of an expanding cell of copper."""
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=1)
    atoms.calc = EMT()
    atoms.set_velocities(0.02 * np.random.default_rng(0).normal(size=(4, 3)))
    dynamics = kind(atoms, timestep * units.fs, externalstress=0.0, P_mass=500.0)
    dynamics.p_eps = 3.0 * np.identity(3)

    def enthalpy():
        return atoms.get_total_energy() + (dynamics.p_eps**2).sum() / (2 * dynamics.barostat_mass)

    begin = enthalpy()
    for _ in range(round(100 / timestep)):
        dynamics.step()
    return enthalpy() - begin


print(f"ASE {ase.__version__}")
found = {(kind, step): drift(kind, step) for kind in (LangevinBAOAB, Diagonal) for step in (1.0, 0.25)}
for (kind, step), value in found.items():
    print(f"{kind.__name__:14s} time step {step:4.2f} fs: enthalpy changes by {1000 * value:+.3f} meV in 100 fs")
theirs = [found[LangevinBAOAB, step] for step in (1.0, 0.25)]
right = [abs(found[Diagonal, step]) for step in (1.0, 0.25)]
as_seen = min(theirs) > 0.009 and max(theirs) < 0.0105 and right[1] < 2e-4 < right[0] < 1e-3
print("as seen" if as_seen else "behaves otherwise now")
sys.exit(not as_seen)
EOF
