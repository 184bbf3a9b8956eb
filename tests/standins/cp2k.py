"""Behaves as CP2K: cp2k.inp in; standard output, forces and stress in files of their own out.

With --shell it takes commands on its standard input, says that it is ready before each, and prints what it computes on
the same screen.
"""

import re
import sys
from pathlib import Path

import numpy as np
from ase.units import Bohr, GPa, Hartree, bar
from common import BEHAVIOUR, COPIES, NEW, PROCESSES, compute, converges, obstruct

ABORT = (
    " *   ___      *\n *  /   \\     *\n * [ABORT]    *\n *  \\___/     {} *\n *    |       {} *\n *  O/|       *\n"
    " * /| |       *\n * / \\   input_parsing.F:241 *\n " + "*" * 79
)
SYNTAX = ABORT.format("Unknown subsection &XC found  ", "in section &DFT")
LEFT = "  Leaving inner SCF loop after reaching    10 steps."
REFUSED = ABORT.format("SCF run NOT converged. To     ", "continue, please set IGNORE")


class Calculation:
    """What is in cp2k.inp."""

    def __init__(self):
        self.settings, coordinates, path = {}, [], []
        for line in filter(None, map(str.strip, Path("cp2k.inp").read_text().splitlines())):
            if line.upper().startswith("&END"):
                path.pop()
            elif line.startswith("&"):
                name, _, parameter = line[1:].partition(" ")
                path.append(name)
                self.settings["/".join(path)] = parameter
            elif path[-1] == "COORD":
                coordinates.append(line.split())
            else:
                keyword, _, value = line.partition(" ")
                self.settings["/".join([*path, keyword])] = value
        self.cell = np.array([self.settings[f"FORCE_EVAL/SUBSYS/CELL/{axis}"].split() for axis in "ABC"], float)
        self.symbols = [row[0] for row in coordinates]
        self.positions = np.array([row[1:] for row in coordinates], float)
        assert self.settings["GLOBAL/RUN_TYPE"] == "ENERGY_FORCE"
        assert self.settings["FORCE_EVAL/PRINT/FORCES"] == "ON"
        self.stressed = self.settings.get("FORCE_EVAL/STRESS_TENSOR") == "ANALYTICAL"
        print("  **** **** ******  **  PROGRAM STARTED AT\n" * COPIES)
        print(f" GLOBAL| Total number of message passing processes {PROCESSES:29d}", flush=True)

    def file(self, quantity, ending):
        name = self.settings[f"FORCE_EVAL/PRINT/{quantity}/FILENAME"]
        return Path(f"{self.settings['GLOBAL/PROJECT']}-{name}-1_0.{ending}")

    def compute(self):
        """Hartree, hartree/bohr and eV/Å³ in CP2K's sign; whether it converged is on the screen."""
        energy, forces, stress = compute(self.symbols, self.cell, self.positions)
        chosen = self.settings.get("FORCE_EVAL/DFT/SCF/MAX_SCF") == "200"
        if converges(chosen) or (BEHAVIOUR == "hang" and not Path("EXIT").exists()):
            print("  *** SCF run converged in    10 steps ***")
        else:
            print(LEFT, REFUSED if NEW else " *** WARNING in qs_scf.F:601 :: SCF run NOT converged ***", sep="\n")
            if NEW:
                sys.exit(1)
        unit = "[hartree] " if NEW else "[a.u.]:"
        print(f" ENERGY| Total FORCE_EVAL ( QS ) energy {unit} {energy / Hartree:28.15f}")
        return energy / Hartree, forces / (Hartree / Bohr), -stress


def run():
    """One calculation."""
    todo = Calculation()
    obstruct(SYNTAX, "EXIT")
    if BEHAVIOUR == "hang":
        print("  *** SCF run terminated by external request ***")
    if BEHAVIOUR == "truncated":
        sys.exit(0)
    _, forces, pressure = todo.compute()
    if NEW:
        lines = [" FORCES| Atomic forces [hartree/bohr]", " FORCES|   Atom     x      y     z    |f|"]
        for n, row in enumerate(forces, 1):
            lines.append(f" FORCES| {n:6d} {' '.join(f'{x:15.8E}' for x in [*row, np.linalg.norm(row)])}")
        lines.append(f" FORCES| Sum    {' '.join(f'{x:15.8E}' for x in forces.sum(0))}")
    else:
        lines = [" ATOMIC FORCES in [a.u.]", "", " # Atom   Kind   Element          X              Y              Z"]
        for n, (symbol, row) in enumerate(zip(todo.symbols, forces, strict=False), 1):
            lines.append(f" {n:6d} {1:6d}      {symbol:2s}     {' '.join(f'{x:14.8f}' for x in row)}")
        lines.append(f" SUM OF ATOMIC FORCES  {' '.join(f'{x:14.8f}' for x in [*forces.sum(0), 0])}")
    todo.file("FORCES", "xyz").write_text("\n".join(lines) + "\n")
    if todo.stressed:
        pressure = pressure / (bar if NEW else GPa)
        lines = [f" STRESS| Analytical stress tensor [{'bar' if NEW else 'GPa'}]", " STRESS|    x    y    z"]
        for axis, row in zip("xyz", pressure, strict=True):
            lines.append(f" STRESS|      {axis}  {' '.join(f'{x:19.11E}' for x in row)}")
        lines += [f" STRESS| 1/3 Trace {np.trace(pressure) / 3:.11E}", "", " STRESS|      x      1.0   0.0  0.0"]
        todo.file("STRESS_TENSOR", "stress_tensor").write_text("\n".join(lines) + "\n")
    print("  **** **** ******  **  PROGRAM ENDED AT                 2026-01-01 00:00:00.000")


class Shell:
    """Of CP2K 2023 (version 6), or of one that can read positions from a file (7)."""

    def __init__(self):
        self.todo, self.length, self.count = None, Bohr, 0
        self.energy = self.forces = self.pressure = None

    def obey(self):
        if BEHAVIOUR == "deaf":
            print("* READY\n* EOF")
        while True:
            print("* READY", flush=True)
            words = sys.stdin.readline().split()
            if not words:
                return print("* EOF")
            if words[0] == "EXIT":
                return print("* EXIT")
            getattr(self, f"do_{words[0].lower()}")(*words[1:])

    def do_harsh(self):
        pass

    def do_version(self):
        print(f"CP2K Shell Version: {'7.0' if NEW else '6.0'}")

    def do_units_ev_a(self):
        self.length = 1.0

    def do_units_au(self):
        self.length = Bohr

    def do_load(self, name, screen):
        assert (name, screen) == ("cp2k.inp", "__STD_OUT__")
        if BEHAVIOUR != "hang":
            obstruct(SYNTAX, "EXIT")
        self.todo = Calculation()
        print(f"{1:10d}")

    def do_set_cell(self):
        self.todo.cell = self._rows(3)

    def do_set_pos(self):
        assert not NEW, "it would do, but not through all launchers"
        assert int(sys.stdin.readline()) == self.todo.positions.size
        self.todo.positions = self._rows(len(self.todo.symbols))
        assert sys.stdin.readline() == "*END\n"
        print(f"{0.1:22.13E}")

    def do_set_pos_file(self, name):
        size, *rows = Path(name).read_text().split()
        assert int(size) == len(rows)
        self.todo.positions = np.array(rows, float).reshape(-1, 3) * self.length
        print(f"{0.1:22.13E}")

    def do_eval_ef(self):
        self.count += 1
        if BEHAVIOUR == "dies" and self.count == 2:
            sys.exit("Program received signal SIGSEGV: Segmentation fault - invalid memory reference.")
        if BEHAVIOUR == "hang" and self.count == 2:
            obstruct("", "EXIT")
            print("  *** SCF run terminated by external request ***")
        self.energy, self.forces, self.pressure = self.todo.compute()
        if BEHAVIOUR == "moves":
            self.todo.positions = self.todo.positions + 0.01 / np.sqrt(3)

    def do_get_cell(self):
        self._print(self.todo.cell.reshape(1, 9) / self.length)

    def do_get_pos(self):
        self._count(self.todo.positions / self.length)

    def do_get_e(self):
        print("no number" if BEHAVIOUR == "truncated" else f"{self.energy:22.13E}")

    def do_get_f(self):
        self._count(self.forces)

    def do_get_stress(self):
        self._print((self.pressure / (Hartree / Bohr**3)).reshape(1, 9))

    def _rows(self, count):
        return np.array([sys.stdin.readline().split() for _ in range(count)], float) * self.length

    def _count(self, rows):
        print(f"{rows.size:10d}")
        self._print(rows)
        print("* END")

    def _print(self, rows):
        """As Fortran does, without an E if the exponent has three digits."""
        for row in rows:
            print("".join(re.sub(r"E(?=[-+]\d{3})", "", f"{x:22.13E}") for x in row))


if sys.argv[1:] == ["--shell"]:
    Shell().obey()
else:
    assert sys.argv[1:] == ["-i", "cp2k.inp"]
    run()
