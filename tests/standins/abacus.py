"""Behaves as ABACUS: INPUT, STRU, KPT and the pseudopotentials in, OUT.ABACUS/running_scf.log out."""

import sys
from pathlib import Path

import numpy as np
from ase.units import GPa
from common import BEHAVIOUR, COPIES, NEW, PROCESSES, compute, converges, obstruct

BOHR_TO_A = 0.529177

words = dict(line.split(maxsplit=1) for line in Path("INPUT").read_text().splitlines()[1:])
assert words["calculation"] == "scf" and words["cal_force"] == "1"
assert "kspacing" in words or Path("KPT").read_text().startswith("K_POINTS")
blocks = {}
for line in Path("STRU").read_text().splitlines():
    if line and line == line.upper() and len(line.split()) == 1 and "_" in line:
        rows = blocks.setdefault(line, [])
    elif line.strip():
        rows.append(line.split())
for _, _, name in blocks["ATOMIC_SPECIES"]:
    assert Path(name).read_text().startswith("<UPF"), name
if words.get("basis_type") == "lcao":
    assert all(Path(name).is_file() for (name,) in blocks["NUMERICAL_ORBITAL"])
scale = float(blocks["LATTICE_CONSTANT"][0][0]) * BOHR_TO_A
cell = scale * np.array(blocks["LATTICE_VECTORS"], float)
assert blocks["ATOMIC_POSITIONS"][0] == ["Cartesian"]
rest, symbols, positions = blocks["ATOMIC_POSITIONS"][1:], [], []
while rest:
    (symbol,), _, (count,), *rest = rest
    symbols += [symbol] * int(count)
    positions += rest[: int(count)]
    rest = rest[int(count) :]
positions = scale * np.array(positions, float)

for _ in range(COPIES):
    print("     SPIN         KPOINTS  PROCESSORS     THREADS")
    print(f"        1              36  {PROCESSES:10d}  {PROCESSES:10d}", flush=True)
folder = Path(f"OUT.{words['suffix']}")
folder.mkdir()
obstruct("  Can not find the file", "EXIT")
if BEHAVIOUR == "hang":
    assert Path("EXIT").read_text() == "stop_elec true\n"
log = ["DSIZE = 77", *(f" PW ALGORITHM --------------- ION=   1  ELEC={n:4d}----" for n in range(1, 6))]
if BEHAVIOUR == "truncated":
    (folder / "running_scf.log").write_text("\n".join(log))
    sys.exit(0)
energy, forces, stress = compute(symbols, cell, positions)
if converges(words.get("mixing_beta") == "0.1"):
    log += [" #SCF IS CONVERGED#", f" #TOTAL ENERGY# {energy:.11f} eV"] if NEW else [
        " charge density convergence is achieved",
        f" final etot is {energy:.11f} eV",
    ]  # fmt: skip
else:
    log.append(" !!SCF IS NOT CONVERGED!!" if NEW else " !! convergence has not been achieved @_@")
numbered = [f"{symbol}{symbols[: n + 1].count(symbol)}" for n, symbol in enumerate(symbols)]
line = "-" * 80
log += [line, " #TOTAL-FORCE (eV/Angstrom)#" if NEW else " TOTAL-FORCE (eV/Angstrom)", line]
log += [f"{name:>8} {' '.join(f'{x:18.10f}' for x in row)}" for name, row in zip(numbered, forces, strict=False)]
if words["cal_stress"] == "1":
    kbar = -stress / (0.1 * GPa)
    log += [line, " #TOTAL-STRESS (kbar)#" if NEW else " TOTAL-STRESS (KBAR)", line]
    log += [" ".join(f"{x:18.10f}" for x in row) for row in kbar] + [line]
log += [f" !FINAL_ETOT_IS {energy:.16f} eV", " Finish Time  : Fri Aug 23 16:06:12 2024", ""]
(folder / "running_scf.log").write_text("\n".join(log))
