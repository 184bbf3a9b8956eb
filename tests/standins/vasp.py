"""Behaves as VASP: POSCAR, POTCAR, INCAR and KPOINTS in, OUTCAR and vasprun.xml out."""

import re
import sys
from pathlib import Path

import numpy as np
from ase.units import GPa
from common import BEHAVIOUR, COPIES, NEW, PROCESSES, compute, converges, obstruct

INITIAL = 'name="initialpos"'


def rows(array):
    return "".join(f"<v> {' '.join(f'{x:.8f}' for x in row)} </v>\n" for row in array)


def structure(name, cell, scaled):
    return (
        f'<structure {name}><crystal><varray name="basis">{rows(cell)}</varray></crystal>'
        f'<varray name="positions">{rows(scaled)}</varray></structure>'
    )


incar = dict(re.findall(r"(\w+) = (.*)", Path("INCAR").read_text()))
text = Path("POSCAR").read_text().splitlines()
cell = float(text[1]) * np.array([line.split() for line in text[2:5]], float)
counts = [int(word) for word in text[6].split()]
assert text[7].strip().lower() == "cartesian"
positions = np.array([line.split()[:3] for line in text[8 : 8 + sum(counts)]], float)
# VASP counts the atoms of the POSCAR and takes their elements from the POTCAR, in its order.
elements = re.findall(r"VRHFIN =(\w+):", Path("POTCAR").read_text())
symbols = [symbol for symbol, count in zip(elements, counts, strict=True) for _ in range(count)]
assert incar["NSW"] == "0" and incar["IBRION"] == "-1"
assert "KSPACING" in incar or Path("KPOINTS").read_text().split()[2] == "Gamma"

obstruct(" ERROR: there must be 1 or 3 items on line 2 of POSCAR", "STOPCAR")
cores = (
    f" running   {PROCESSES:2d} mpi-ranks, with    1 threads/rank" if NEW else f" running on   {PROCESSES} total cores"
)
print(f"{cores}\n" * COPIES)
converged = converges(incar.get("ALGO") == "All")
log = [cores, "INCAR:", *(f"--- Iteration      1(   {n}) ---" for n in range(1, 6))]
if converged:
    log.append("------------------------ aborting loop because EDIFF is reached -----------------------")
elif BEHAVIOUR == "hang":
    assert Path("STOPCAR").read_text() == "LABORT = .TRUE.\n"
    log.append("hard stop encountered!  aborting job ...")
elif NEW:
    log.append("------------------------ aborting loop EDIFF was not reached (unconverged) ------------")
if BEHAVIOUR == "truncated":
    Path("OUTCAR").write_text("\n".join(log))
    sys.exit(0)
Path("OUTCAR").write_text("\n".join([*log, " General timing and accounting informations for this job:", ""]))

energy, forces, stress = compute(symbols, cell, positions)
scaled = np.linalg.solve(cell.T, positions.T).T
energies = f'<energy><i name="e_fr_energy">{energy:.8f}</i><i name="e_0_energy">{energy + 0.5:.8f}</i></energy>'
atoms = "".join(f"<rc><c>{symbol}</c><c>1</c></rc>" for symbol in symbols)
kbar = -stress / (0.1 * GPa)
block = f'<varray name="stress">{rows(kbar)}</varray>' if incar["ISIF"] == "2" else ""
Path("vasprun.xml").write_text(
    '<?xml version="1.0"?><modeling><kpoints><varray name="kpointlist"><v>0 0 0</v></varray>'
    '<varray name="weights"><v>1</v></varray></kpoints>'
    f'<parameters><i type="int" name="NELM">60</i></parameters>'
    f'<atominfo><array name="atoms"><set>{atoms}</set></array></atominfo>'
    f"{structure(INITIAL, cell, scaled)}"
    f"<calculation><scstep>{energies}</scstep>{structure('', cell, scaled)}"
    f'<varray name="forces">{rows(forces)}</varray>{block}{energies}</calculation></modeling>'
)
