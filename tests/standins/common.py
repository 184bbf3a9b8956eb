"""What the stand-ins share: they are told by variables of their environment how to behave.

STANDIN: "" (work), fail, unconverged, hang, truncated (end early, exit code 0), picky (converge only with the
setting each names), copies (as two do that a wrong launcher started). STANDIN_PROCESSES: how many to claim.
STANDIN_VERSION: old or new formats.
"""

import os
import sys
import time
from pathlib import Path

BEHAVIOUR = os.environ.get("STANDIN", "")
PROCESSES = int(os.environ.get("STANDIN_PROCESSES", "1"))
COPIES = 2 if BEHAVIOUR == "copies" else 1
NEW = os.environ.get("STANDIN_VERSION", "old") == "new"


def obstruct(words: str, soft_stop: str) -> None:
    """Crash with ``words``, or run until the file ``soft_stop`` is there, if told to."""
    if BEHAVIOUR == "fail":
        print(words, flush=True)
        sys.exit(3)
    if BEHAVIOUR == "hang":
        print("iterating", flush=True)
        while not Path(soft_stop).exists():
            time.sleep(0.02)


def converges(chosen: bool) -> bool:
    return BEHAVIOUR not in ("unconverged", "hang") and (BEHAVIOUR != "picky" or chosen)


def compute(symbols, cell, positions):
    """Energy (eV), forces (n, 3) eV/Å, stress (3, 3) eV/Å³ in ASE's sign; another one for every element."""
    from ase import Atoms
    from ase.calculators.emt import EMT

    atoms = Atoms(symbols, cell=cell, positions=positions, pbc=True, calculator=EMT())
    return atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress(voigt=False)
