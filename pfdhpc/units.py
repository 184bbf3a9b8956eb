"""Units and sign conventions, stated once.

=============  ==========================================================
length         Å
energy         eV
force          eV/Å, the negative gradient of the energy
virial         eV, ``-sum_i r_i ⊗ dE/dr_i`` = ``-stress * volume`` with ASE's
               stress (positive under tension); deepmd's convention, so a
               compressed crystal has a positive trace
time           fs
mass           amu
temperature    K
pressure       bar (input), positive under compression
=============  ==========================================================

Cells hold the lattice vectors as rows.
"""

from ase import units as _ase

K_BOLTZMANN = _ase.kB
"""Boltzmann constant, eV/K."""

BAR = _ase.bar
"""One bar, eV/Å³."""

FS = _ase.fs
"""One femtosecond in ASE's unit of time."""


def virial_from_stress(stress, volume):
    """Virial (3, 3) eV from ASE's stress (3, 3) eV/Å³ and a volume in Å³."""
    return -stress * volume


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
