"""Behaves as VASP: POSCAR, POTCAR, INCAR and KPOINTS in, OUTCAR and vasprun.xml out.

With INTERACTIVE = .TRUE. it asks for the positions of the next step, and ends by STOPCAR or without an answer.
"""

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
interactive = incar.get("INTERACTIVE") == ".TRUE."
assert incar["NSW"] == ("9999" if interactive else "0") and incar["IBRION"] == "-1"
assert not interactive or (incar["POTIM"], incar["ISYM"]) == ("0", "0")
assert "KSPACING" in incar or Path("KPOINTS").read_text().split()[2] == "Gamma"


def told(positions):
    """The positions it prints."""
    return positions + 0.01 / np.sqrt(3) if BEHAVIOUR == "moves" else positions


def step(number, converged):
    """A step of the OUTCAR, as VASP 6 prints it."""
    energy, forces, stress = compute(symbols, cell, positions)
    lines = [f"--- Iteration {number:6d}(   {n}) ---" for n in range(1, 6)]
    if converged:
        lines.append("------------------------ aborting loop because EDIFF is reached -----------------------")
    elif NEW:
        lines.append("------------------------ aborting loop EDIFF was not reached (unconverged) ------------")
    lines += ["  Free energy of the ion-electron system (eV)", "  free energy    TOTEN  =  77.0 eV", ""]
    xx, yy, zz, xy, yz, zx = (-stress / (0.1 * GPa))[[0, 1, 2, 0, 1, 2], [0, 1, 2, 1, 2, 0]]
    lines.append(f"  in kB {xx:11.5f} {yy:11.5f} {zz:11.5f} {xy:11.5f} {yz:11.5f} {zx:11.5f}")
    lines.append("      direct lattice vectors                 reciprocal lattice vectors")
    reciprocal = np.linalg.inv(cell).T
    lines += [" ".join(f"{x:12.9f}" for x in (*a, *b)) for a, b in zip(cell, reciprocal, strict=True)]
    lines += [" POSITION                                       TOTAL-FORCE (eV/Angst)", " " + "-" * 83]
    lines += [" ".join(f"{x:12.6f}" for x in (*a, *b)) for a, b in zip(told(positions), forces, strict=True)]
    lines += [" " + "-" * 83, "  FREE ENERGIE OF THE ION-ELECTRON SYSTEM (eV)", "  " + "-" * 51]
    lines += [f"  free  energy   TOTEN  = {energy:18.8f} eV", ""]
    lines += [f"  energy  without entropy= {energy + 1:18.8f}  energy(sigma->0) = {energy + 0.5:18.8f}", ""]
    return "\n".join(lines), forces, energy


def stay():
    """Steps until there is a STOPCAR, which it looks for in each, or nobody speaks."""
    global positions
    number = 0
    while True:
        number += 1
        if BEHAVIOUR == "dies" and number == 2:
            print("forrtl: severe (174): SIGSEGV", flush=True)
            sys.exit(174)
        if BEHAVIOUR == "hang" and number == 2:
            obstruct("", "STOPCAR")
        if Path("STOPCAR").exists():
            with Path("OUTCAR").open("a") as file:
                file.write("hard stop encountered!  aborting job ...\n General timing and accounting\n")
            sys.exit(0)
        text, forces, energy = step(number, BEHAVIOUR == "hang" or converges(incar.get("ALGO") == "All"))
        with Path("OUTCAR").open("a") as file:
            file.write(text if BEHAVIOUR != "truncated" else text[:-100])
        print("FORCES:", *(" ".join(f"{x:12.6f}" for x in row) for row in forces), sep="\n")
        print(f"  {number} F= {energy:.8E} E0= {energy:.8E}  d E =0.0\nPOSITIONS: reading from stdin", flush=True)
        rows = [sys.stdin.readline().split() for _ in symbols]
        if not all(rows):
            sys.exit(24)  # end of file
        positions = np.array(rows, float) @ cell


if not (interactive and BEHAVIOUR == "hang"):  # that hangs in its second step
    obstruct(" ERROR: there must be 1 or 3 items on line 2 of POSCAR", "STOPCAR")
cores = (
    f" running   {PROCESSES:2d} mpi-ranks, with    1 threads/rank" if NEW else f" running on   {PROCESSES} total cores"
)
print(f"{cores}\n" * COPIES, flush=True)
if interactive:
    Path("OUTCAR").write_text(f"{cores}\nINCAR:\n")
    stay()
converged = converges(incar.get("ALGO") == "All")
log = [cores, "INCAR:"]
if BEHAVIOUR == "hang":
    assert Path("STOPCAR").read_text() == "LABORT = .TRUE.\n"
    log.append("hard stop encountered!  aborting job ...")
else:
    log.append(step(1, converged)[0])
if BEHAVIOUR == "truncated":
    Path("OUTCAR").write_text("\n".join(log))
    sys.exit(0)
Path("OUTCAR").write_text("\n".join([*log, " General timing and accounting informations for this job:", ""]))

energy, forces, stress = compute(symbols, cell, positions)
scaled = np.linalg.solve(cell.T, told(positions).T).T
energies = f'<energy><i name="e_fr_energy">{energy:.8f}</i><i name="e_0_energy">{energy + 0.5:.8f}</i></energy>'
printed = symbols[::-1] if BEHAVIOUR == "other" else symbols
atoms = "".join(f"<rc><c>{symbol}</c><c>1</c></rc>" for symbol in printed)
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
