"""Behaves as CP2K: cp2k.inp in; standard output, forces and stress in files of their own out."""

import sys
from pathlib import Path

import numpy as np
from ase.units import Bohr, GPa, Hartree, bar
from common import BEHAVIOUR, COPIES, NEW, PROCESSES, compute, converges, obstruct

assert sys.argv[1:] == ["-i", "cp2k.inp"]
settings, coordinates, path = {}, [], []
for line in filter(None, map(str.strip, Path("cp2k.inp").read_text().splitlines())):
    if line.upper().startswith("&END"):
        path.pop()
    elif line.startswith("&"):
        name, _, parameter = line[1:].partition(" ")
        path.append(name)
        settings["/".join(path)] = parameter
    elif path[-1] == "COORD":
        coordinates.append(line.split())
    else:
        keyword, _, value = line.partition(" ")
        settings["/".join([*path, keyword])] = value
cell = np.array([settings[f"FORCE_EVAL/SUBSYS/CELL/{axis}"].split() for axis in "ABC"], float)
symbols, positions = [row[0] for row in coordinates], np.array([row[1:] for row in coordinates], float)
assert settings["GLOBAL/RUN_TYPE"] == "ENERGY_FORCE" and settings["FORCE_EVAL/PRINT/FORCES"] == "ON"


def file(quantity, ending):
    return Path(f"{settings['GLOBAL/PROJECT']}-{settings[f'FORCE_EVAL/PRINT/{quantity}/FILENAME']}-1_0.{ending}")


print("  **** **** ******  **  PROGRAM STARTED AT\n" * COPIES)
print(f" GLOBAL| Total number of message passing processes {PROCESSES:29d}", flush=True)
obstruct(
    " *   ___      *\n *  /   \\     *\n * [ABORT]    *\n *  \\___/     Unknown subsection &XC found   *\n"
    " *    |       in section &DFT *\n *  O/|       *\n * /| |       *\n * / \\   input_parsing.F:241 *\n " + "*" * 79,
    "EXIT",
)
if BEHAVIOUR == "hang":
    print("  *** SCF run terminated by external request ***")
if BEHAVIOUR == "truncated":
    sys.exit(0)
energy, forces, stress = compute(symbols, cell, positions)
if converges(settings.get("FORCE_EVAL/DFT/SCF/MAX_SCF") == "200"):
    print("  *** SCF run converged in    10 steps ***")
else:
    print(
        "  Leaving inner SCF loop after reaching    10 steps.\n"
        " *** WARNING in qs_scf.F:601 :: SCF run NOT converged ***"
    )
unit = "[hartree] " if NEW else "[a.u.]:"
print(f" ENERGY| Total FORCE_EVAL ( QS ) energy {unit} {energy / Hartree:28.15f}")
forces = forces / (Hartree / Bohr)
if NEW:
    lines = [" FORCES| Atomic forces [hartree/bohr]", " FORCES|   Atom     x      y     z    |f|"]
    for n, row in enumerate(forces, 1):
        lines.append(f" FORCES| {n:6d} {' '.join(f'{x:15.8E}' for x in [*row, np.linalg.norm(row)])}")
    lines.append(f" FORCES| Sum    {' '.join(f'{x:15.8E}' for x in forces.sum(0))}")
else:
    lines = [" ATOMIC FORCES in [a.u.]", "", " # Atom   Kind   Element          X              Y              Z"]
    for n, (symbol, row) in enumerate(zip(symbols, forces, strict=False), 1):
        lines.append(f" {n:6d} {1:6d}      {symbol:2s}     {' '.join(f'{x:14.8f}' for x in row)}")
    lines.append(f" SUM OF ATOMIC FORCES  {' '.join(f'{x:14.8f}' for x in [*forces.sum(0), 0])}")
file("FORCES", "xyz").write_text("\n".join(lines) + "\n")
if settings.get("FORCE_EVAL/STRESS_TENSOR") == "ANALYTICAL":
    pressure = -stress / (bar if NEW else GPa)
    lines = [f" STRESS| Analytical stress tensor [{'bar' if NEW else 'GPa'}]", " STRESS|    x    y    z"]
    for axis, row in zip("xyz", pressure, strict=True):
        lines.append(f" STRESS|      {axis}  {' '.join(f'{x:19.11E}' for x in row)}")
    lines += [f" STRESS| 1/3 Trace {np.trace(pressure) / 3:.11E}", "", " STRESS|      x      1.0   0.0  0.0"]
    file("STRESS_TENSOR", "stress_tensor").write_text("\n".join(lines) + "\n")
print("  **** **** ******  **  PROGRAM ENDED AT                 2026-01-01 00:00:00.000")
