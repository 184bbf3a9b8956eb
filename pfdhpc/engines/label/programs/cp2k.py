"""Labels from CP2K 7 and later.

.. code-block:: toml

    [label]
    type = "cp2k"
    [label.options]
    template = "cp2k.inp"                            # an input that works; cell and atoms in it are replaced
    input = { "FORCE_EVAL/DFT/SCF/MAX_SCF" = 100 }   # keywords changed in it, by section
    data_dir = "basis"                               # of the basis sets and potentials, if they are not CP2K's own

Written into the template: PROJECT, RUN_TYPE ENERGY_FORCE, the cell and the atoms (labelled by element: a
``&KIND Si`` for each), the printing of forces and stress, and STRESS_TENSOR ANALYTICAL unless it says NUMERICAL.
Left out: MOTION.

The energy is that of the force evaluation, with smearing the free energy, the one CP2K's forces and stress are
derivatives of. CP2K does not print where it moved the atoms to, and does not move them in such a run.

CP2K looks for its soft stop, the file EXIT, every 20 seconds of an SCF.

Source: https://manual.cp2k.org (input reference), output of CP2K 2023.1.
"""

import re
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from ase.data import chemical_symbols
from ase.units import Bohr, GPa, Hartree, bar

from ....config.file_digest import content_digest
from ....data import Frame
from ....errors import InputError, LabelError
from . import common
from .base import Output, Program, ProgramConnection
from .cp2k_input import find, print_to_file, read_template, set_keyword, values
from .cp2k_shell import ShellLine
from .ipi_socket import SocketLine

PROJECT = "label"
RUN_TYPE = "RUN_TYPE ENERGY_FORCE"
RESIDENT, SOCKET = "resident.inp", "SOCKET"
"""The input of a program that stays, and the variable in it for the name of its socket."""
DRIVER = f"&MOTION\n   &DRIVER\n      HOST ${{{SOCKET}}}\n      UNIX T\n   &END DRIVER\n&END MOTION\n"
NAMES = ("BASIS_SET_FILE_NAME", "POTENTIAL_FILE_NAME")
"""Keywords of FORCE_EVAL/DFT that name a file of CP2K's data directory."""
STRESS_UNITS = {"GPa": GPa, "bar": bar}
FLOAT = r"[-+]?\d+\.?\d*(?:[EDed][-+]?\d+)?"


class Cp2k(Program):
    """Atoms are written in the frame's order."""

    name = "CP2K"
    keys: ClassVar = ("template", "input", "data_dir")
    soft_stop = ("EXIT", "")
    patience = 25.0
    residents = (True, "shell")
    any_cell = True
    bulky = ("*.wfn*", "*.kp*", "*.cube", "*.restart*")

    def __init__(self, options: dict[str, Any], virial: bool = True):
        self.options, self.virial = options, virial
        if "template" not in options:
            raise InputError('label.options.template: missing; a CP2K input that works, e.g. template = "cp2k.inp"')
        problems = common.check_template(options)
        problems += common.check_table(options, "input", (str, int, float), 'input = { "FORCE_EVAL/DFT/CHARGE" = 1 }')
        if problems:
            raise InputError(problems)
        self.root = read_template(Path(options["template"]))
        problems += self._prepare()
        x, y, z = (
            axis in (values(self.root, "FORCE_EVAL/DFT/POISSON", "PERIODIC") or ["XYZ"])[-1].upper() for axis in "XYZ"
        )
        self.periodic = x, y, z
        self.data, missing = self._data_files()
        if problems or missing:
            raise InputError(problems + missing)

    def _prepare(self) -> list[str]:
        """Change the template; the problems of doing so."""
        problems = [
            f"label.options.template: &{name.rpartition('/')[2]} is refused: {reason}"
            for name, reason in _REFUSED.items()
            if find(self.root, name)
        ]
        for path, value in self.options.get("input", {}).items():
            section, _, keyword = path.upper().rpartition("/")
            if section and keyword:
                problems += set_keyword(self.root, section, f"{keyword} {value}")
            else:
                problems.append(f'label.options.input."{path}": write SECTION/SUBSECTION/KEYWORD')
        if problems:
            return problems
        self.root.subsections = [one for one in self.root.subsections if one.name != "MOTION"]
        problems += set_keyword(self.root, "GLOBAL", f"PROJECT {PROJECT}") + set_keyword(self.root, "GLOBAL", RUN_TYPE)
        problems += print_to_file(self.root, "FORCES")
        if self.virial:
            given = values(self.root, "FORCE_EVAL", "STRESS_TENSOR")
            kind = "NUMERICAL" if given == ["NUMERICAL"] else "ANALYTICAL"
            problems += set_keyword(self.root, "FORCE_EVAL", f"STRESS_TENSOR {kind}")
            problems += print_to_file(self.root, "STRESS_TENSOR")
        return problems

    def _data_files(self) -> tuple[dict[str, Path], list[str]]:
        """The files of ``data_dir`` the template names, by name, and those that are missing there.

        One named by its full path is where it is.
        """
        if "data_dir" not in self.options:
            return {}, []
        names = {name for keyword in NAMES for name in values(self.root, "FORCE_EVAL/DFT", keyword)}
        found = {name: Path(self.options["data_dir"]) / name for name in sorted(names)}
        problems = [
            f"label.options.data_dir: no such file: {path}, which the template names"
            for path in found.values()
            if not path.is_file()
        ]
        return found, problems + [
            f"label.options.data_dir: the template names {name}, outside of it; write the file's full path there"
            for name in found
            if ".." in Path(name).parts and not Path(name).is_absolute()
        ]

    def elements(self) -> set[str] | None:
        named = [kind.params for kind in find(self.root, "FORCE_EVAL/SUBSYS/KIND") if kind.params]
        kinds = {name.split()[0].capitalize() for name in named}
        return kinds if kinds and "Default" not in kinds and kinds <= set(chemical_symbols) else None

    def files(self) -> dict[str, Any]:
        text = "\n".join(self.root.write())
        return {
            "template": sha256(text.encode()).hexdigest(),
            "data_dir": {name: content_digest(path) for name, path in self.data.items()},
        }

    def arguments(self) -> tuple[list[str], str | None]:
        return ["-i", "cp2k.inp"], None

    def line(self, directory: Path, stdout: Path, way: bool | str) -> ProgramConnection:
        if way == "shell":
            return ShellLine(directory, stdout, self.virial, lambda: self.check(stdout))
        line = SocketLine(self.name, directory, lambda: self.check(stdout))
        line.arguments = ("-E", f"{SOCKET}={line.name}", "-i", RESIDENT)
        return line

    def write(self, frame: Frame, directory: Path) -> None:
        common.check_frame(frame, self.name, self.elements(), "template")
        linked = {name: path for name, path in self.data.items() if not Path(name).is_absolute()}
        for name, path in linked.items():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            (directory / name).symlink_to(path)
        cell = [f"{axis} {_numbers(row)}" for axis, row in zip("ABC", frame.cell, strict=True)]
        periodic = "".join(axis for axis, yes in zip("XYZ", frame.pbc, strict=True) if yes)
        subsystem = self.root.get_subsection("FORCE_EVAL/SUBSYS")
        subsystem.subsections = [one for one in subsystem.subsections if one.name not in ("CELL", "COORD")]
        symbols = [chemical_symbols[number] for number in frame.numbers]
        atoms = [f"{symbol} {_numbers(row)}" for symbol, row in zip(symbols, frame.positions, strict=True)]
        subsystem.get_subsection("CELL").keywords = [*cell, f"PERIODIC {periodic or 'NONE'}"]
        subsystem.get_subsection("COORD").keywords = atoms
        text = "\n".join([*self.root.write(), ""])
        (directory / "cp2k.inp").write_text(text)
        (directory / RESIDENT).write_text(text.replace(RUN_TYPE, "RUN_TYPE DRIVER", 1) + DRIVER)

    def read(self, frame: Frame, directory: Path, stdout: Path) -> Output:
        text = stdout.read_text(errors="replace")
        processes = self.check(stdout)
        if "PROGRAM ENDED AT" not in text:
            raise LabelError(f"CP2K did not finish{common.last_words(stdout, stdout.with_suffix('.err'))}")
        energy = re.findall(rf"ENERGY\| Total FORCE_EVAL .*? energy \[(?:a\.u\.|hartree)\]:? +({FLOAT})", text)
        if not energy:
            raise LabelError("CP2K: there is no energy in hartree in its output")
        return Output(
            float(energy[-1]) * Hartree,
            _forces(_printed(directory, "FORCES"), len(frame)),
            _stress(_printed(directory, "STRESS_TENSOR")) * frame.volume if self.virial else None,
            processes,
        )

    def check(self, stdout: Path) -> int | None:
        """The number of processes it runs on; raises LabelError if the output tells of a failure."""
        text = stdout.read_text(errors="replace")
        common.check_copies(self.name, text, "PROGRAM STARTED AT")
        if "terminated by external request" in text:
            raise LabelError("CP2K: stopped by EXIT")
        if re.search(r"SCF run NOT\s+converged|outer SCF loop FAILED", text):
            steps = re.findall(r"reaching +(\d+) +steps", text)
            raise LabelError(f"CP2K: SCF not converged after {'+'.join(steps) or '?'} iterations (MAX_SCF)")
        if words := _abort(text):
            raise LabelError(f"CP2K did not finish: {words}")
        processes = re.search(r"Total number of message passing processes +(\d+)", text)
        return int(processes[1]) if processes else None


_REFUSED = {
    "EXT_RESTART": "it would bring other atoms",
    "FORCE_EVAL/SUBSYS/TOPOLOGY": "the atoms are those of the frame",
}


def _numbers(row: np.ndarray) -> str:
    return " ".join(f"{value:.12f}" for value in row)


def _abort(text: str) -> str:
    """CP2K's own words from the box it draws when it gives up."""
    box = re.search(r"\[ABORT\](.*?)\n *\*{20}", text, re.DOTALL)
    drawing = re.compile(r"[*|\\/_]|O/")
    return " ".join(drawing.sub(" ", box[1]).split()) if box else ""


def _printed(directory: Path, name: str) -> str:
    files = sorted(directory.glob(f"{PROJECT}-{name}*"))
    if not files:
        raise LabelError(f"CP2K wrote no file {PROJECT}-{name}")
    return files[-1].read_text(errors="replace")


def _forces(text: str, n_atoms: int) -> np.ndarray:
    """(n, 3) eV/Å from the table of 2024 and before, or the later one."""
    if "[a.u.]" not in text and "[hartree/bohr]" not in text:
        raise LabelError("CP2K: its forces are not in hartree/bohr; remove FORCE_UNIT from the template")
    three = rf"({FLOAT}) +({FLOAT}) +({FLOAT})"
    rows = re.findall(rf"^ *\d+ +\d+ +[A-Za-z]\w* +{three} *$", text, re.MULTILINE)
    rows = rows or re.findall(rf"^ *FORCES\| +\d+ +{three} +{FLOAT} *$", text, re.MULTILINE)
    if len(rows) != n_atoms:
        raise LabelError(f"CP2K: {len(rows)} forces for {n_atoms} atoms")
    return np.array(rows, float) * Hartree / Bohr


def _stress(text: str) -> np.ndarray:
    """(3, 3) eV/Å³ in CP2K's sign, positive under compression as deepmd's virial."""
    unit = re.search(r"[Ss]tress tensor \[(\w+)\]|STRESS TENSOR \[(\w+)\]", text)
    unit = unit and (unit[1] or unit[2])
    if unit not in STRESS_UNITS:
        raise LabelError(f"CP2K: its stress is in {unit}, and known are {', '.join(STRESS_UNITS)}")
    rows = re.findall(rf"^(?: *STRESS\|)? +[xyzXYZ] +({FLOAT}) +({FLOAT}) +({FLOAT}) *$", text, re.MULTILINE)[:3]
    if len(rows) != 3:
        raise LabelError("CP2K: its stress tensor cannot be read")
    return np.array(rows, float) * STRESS_UNITS[unit]
