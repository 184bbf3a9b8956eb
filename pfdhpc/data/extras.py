"""What a structure of ASE holds beside its atoms and a :class:`Frame` does not keep."""

import numpy as np
from ase import Atoms

MOMENTS, CHARGES, CONSTRAINTS, VELOCITIES = "magnetic moments", "charges", "constraints", "velocities"
COLUMNS = {
    MOMENTS: ("initial_magmoms", "magmoms", "magmom", "spins", "spin"),
    CHARGES: ("initial_charges", "charges", "charge"),
}
"""Names of the columns of a file (extxyz) that hold them, ASE's own first; some readers take them for results."""


def extras(atoms: Atoms) -> list[str]:
    """Which of them it holds, other than zeros: :data:`MOMENTS`, :data:`CHARGES`, :data:`CONSTRAINTS`, ..."""
    found = [name for name in COLUMNS if column(atoms, name) is not None]
    found += [CONSTRAINTS] if atoms.constraints else []
    return found + ([VELOCITIES] if atoms.has("momenta") and atoms.get_momenta().any() else [])


def column(atoms: Atoms, name: str) -> np.ndarray | None:
    """The values (n,) or (n, 3) of :data:`MOMENTS` (Bohr magnetons) or :data:`CHARGES` (e); None if there are none."""
    results = atoms.calc.results if atoms.calc else {}
    for values in (holder.get(key) for holder in (atoms.arrays, results) for key in COLUMNS[name]):
        if isinstance(values, np.ndarray) and values.dtype.kind in "if" and values.any():
            return values
    return None
