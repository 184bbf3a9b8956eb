"""Labels from ABACUS 3 (plane waves or numerical atomic orbitals).

.. code-block:: toml

    [label]
    type = "abacus"
    [label.options]
    template = "INPUT"                               # and, or instead, its parameters here:
    input = { basis_type = "lcao", ecutwfc = 100, scf_thr = 1e-7 }
    pseudo_dir = "/opt/abacus/pseudo"
    pseudopotentials = { Si = "Si_ONCV_PBE-1.0.upf" }
    orbital_dir = "/opt/abacus/orbitals"             # for basis_type = "lcao" only
    orbitals = { Si = "Si_gga_8au_100Ry_2s2p1d.orb" }
    kspacing = 0.2                                   # 1/Å; or kpts = [4, 4, 4], koffset = [0, 0, 0]
    magmoms = { Fe = 3.0 }                           # by element, with nspin = 2

The energy is ABACUS's total energy, with smearing the free energy (``E_KohnSham``), the one its forces are
derivatives of.

Source: https://abacus.deepmodeling.com (INPUT, STRU, KPT, running_scf.log) and dpdata's reader of them.
"""

import re
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from ase.data import atomic_masses, atomic_numbers
from ase.units import Bohr

from ....data import Frame
from ....errors import InputError, LabelError
from . import common
from .base import Output, Program, check_geometry

ANGSTROM = 1.889726125457828
"""One Å in bohr as ABACUS has it."""
FORCED = {"calculation": "scf", "cal_force": "1", "suffix": "ABACUS", "pseudo_dir": "./", "orbital_dir": "./"}
REFUSED = {
    "nelec": "it depends on the number of atoms; give nelec_delta, the electrons added to the neutral cell",
    "ntype": "the elements are counted in the frame",
    "latname": "the cell is that of the frame",
    "stru_file": "the structure is that of the frame",
    "kpoint_file": "give label.options.kpts or label.options.kspacing",
    "init_chg": "a label starts from atoms; what came before must not matter",
    "read_file_dir": "a label starts from atoms; what came before must not matter",
}
PERFORMANCE = {"suffix", "kpar", "bndpar", "diago_proc", "pseudo_dir", "orbital_dir", "out_level", "pw_diag_nmax"}
"""Parameters that change no number, and do not enter the level of theory."""
CONVERGED = ("charge density convergence is achieved", "SCF IS CONVERGED")
UNCONVERGED = ("convergence has NOT been achieved", "convergence has not been achieved", "SCF IS NOT CONVERGED")


class Abacus(Program):
    """Atoms are written by element, and given back in the frame's order."""

    name = "ABACUS"
    keys: ClassVar = (
        "template", "input", "pseudo_dir", "pseudopotentials", "orbital_dir", "orbitals",
        "kspacing", "kpts", "koffset", "magmoms",
    )  # fmt: skip
    soft_stop = ("EXIT", "stop_elec true\n")
    bulky = ("OUT.ABACUS/*.cube", "OUT.ABACUS/*.csr", "OUT.ABACUS/WAVEFUNC*", "OUT.ABACUS/*.restart")

    def __init__(self, options: dict[str, Any], virial: bool = True):
        self.options, self.virial, self.input = options, virial, {}
        problems = common.check_template(options)
        problems += common.check_table(options, "input", (str, int, float, list), "input = { ecutwfc = 100 }")
        problems = problems or self._take_input()
        wrong = common.check_files(options, "pseudo_dir", "pseudopotentials", '{ Si = "Si_ONCV_PBE-1.0.upf" }')
        self.pseudopotentials = {} if wrong else common.paths(options, "pseudo_dir", "pseudopotentials")
        problems += wrong + self._check_orbitals()
        if problems:
            raise InputError(problems)

    def _take_input(self) -> list[str]:
        """The INPUT but for what depends on the cell; its problems."""
        given = _parameters(self.options)
        self.input = given | FORCED | {"cal_stress": "1" if self.virial else "0"}
        problems = _conflicts(given) + common.check_kpoints(self.options, _kpoints_of(given))
        problems += common.check_table(self.options, "magmoms", (int, float), "magmoms = { Fe = 3.0, O = 0.0 }")
        return problems + common.check_polarised(self.options, given.get("nspin") in ("2", "4"), "nspin = 2")

    def _check_orbitals(self) -> list[str]:
        basis, self.orbitals = self.input.get("basis_type", "pw"), {}
        given = [key for key in ("orbitals", "orbital_dir") if key in self.options]
        if basis == "pw" and self.input:
            return [f'label.options.{key}: basis_type is "pw", which has no orbitals; remove it' for key in given]
        if not self.input and not given:
            return []  # the problem is in the input, which would say whether there must be any
        wrong = common.check_files(self.options, "orbital_dir", "orbitals", '{ Si = "Si_gga_8au_100Ry_2s2p1d.orb" }')
        if wrong:
            return wrong
        self.orbitals = common.paths(self.options, "orbital_dir", "orbitals")
        missing = self.options.get("pseudopotentials", {}).keys() - self.orbitals.keys()
        return [f"label.options.orbitals.{symbol}: missing; basis_type is {basis!r}" for symbol in sorted(missing)]

    def elements(self) -> set[str]:
        return set(self.pseudopotentials)

    def files(self) -> dict[str, Any]:
        names = {name: value for name, value in sorted(self.input.items()) if name not in PERFORMANCE}
        return {
            "input": names,
            "pseudopotentials": common.digests(self.pseudopotentials),
            "orbitals": common.digests(self.orbitals),
        }

    def arguments(self) -> tuple[list[str], str | None]:
        return [], None

    def write(self, frame: Frame, directory: Path) -> None:
        common.check_frame(frame, self.name, self.pseudopotentials, "pseudopotentials")
        names = dict(self.input)
        if "kspacing" in self.options:
            names["kspacing"] = f"{self.options['kspacing'] * Bohr:.8f}"
        elif "kpts" in self.options:
            mesh = common.mesh_lines(self.options).replace("\n", " ")
            (directory / "KPT").write_text(f"K_POINTS\n0\nGamma\n{mesh}\n")
        lines = [f"{name} {value}" for name, value in names.items()]
        (directory / "INPUT").write_text("\n".join(["INPUT_PARAMETERS", *lines, ""]))
        order, species = common.grouped(frame)
        for symbol, _ in species:
            for table in (self.pseudopotentials, self.orbitals):
                if symbol in table:
                    (directory / _linked(symbol, table)).symlink_to(table[symbol])
        (directory / "STRU").write_text(self._structure(frame, order, species))

    def _structure(self, frame: Frame, order: np.ndarray, species: list[tuple[str, int]]) -> str:
        """The file STRU: lengths in Å."""
        lines = ["ATOMIC_SPECIES"]
        for symbol, _ in species:
            mass = atomic_masses[atomic_numbers[symbol]]
            lines.append(f"{symbol} {mass:.4f} {_linked(symbol, self.pseudopotentials)}")
        if self.orbitals:
            lines += ["", "NUMERICAL_ORBITAL", *(_linked(symbol, self.orbitals) for symbol, _ in species)]
        lines += ["", "LATTICE_CONSTANT", f"{ANGSTROM:.15f}", "", "LATTICE_VECTORS", *map(_numbers, frame.cell)]
        lines += ["", "ATOMIC_POSITIONS", "Cartesian"]
        rows = iter(frame.positions[order])
        for symbol, count in species:
            moment = self.options.get("magmoms", {}).get(symbol, 0.0)
            lines += ["", symbol, str(moment), str(count), *(_numbers(next(rows)) for _ in range(count))]
        return "\n".join([*lines, ""])

    def read(self, frame: Frame, directory: Path, stdout: Path) -> Output:
        screen = stdout.read_text(errors="replace")
        common.check_copies(self.name, screen, "SPIN +KPOINTS +PROCESSORS")
        log = directory / "OUT.ABACUS" / "running_scf.log"
        text = log.read_text(errors="replace") if log.is_file() else ""
        if any(words in text for words in UNCONVERGED):
            steps = len(re.findall(r"ELEC *= *\d+", text))
            raise LabelError(f"ABACUS: SCF not converged after {steps} iterations (scf_nmax), or stopped")
        if "Finish Time" not in text or not any(words in text for words in CONVERGED):
            warnings = directory / "OUT.ABACUS" / "warning.log"
            raise LabelError(
                f"ABACUS did not finish{common.last_words(warnings, stdout, stdout.with_suffix('.err'), log)}"
            )
        energy, forces, virial = self._results(frame, directory)
        return Output(energy, forces, virial, _processes(screen, text))

    def _results(self, frame: Frame, directory: Path) -> tuple[float, np.ndarray, np.ndarray | None]:
        """Energy (eV), forces (n, 3) eV/Å in the frame's order, virial (3, 3) eV."""
        # Not through dpdata.LabeledSystem, which rotates cell, forces and virial to a triangular cell.
        from dpdata.formats.abacus.scf import get_frame

        try:
            data = get_frame(str(directory))
            energy, forces = float(data["energies"][0]), np.array(data["forces"][0])
            symbols = np.array(data["atom_names"])[data["atom_types"]]
            virial = np.array(data["virials"][0]) if self.virial else None
        except Exception as error:  # a damaged file: the reader raises many kinds
            raise LabelError(f"ABACUS: its output cannot be read: {type(error).__name__}: {error}") from error
        if len(forces) != len(frame):
            raise LabelError(f"ABACUS: {len(forces)} forces for {len(frame)} atoms")
        order, _ = common.grouped(frame)
        numbers = np.array([atomic_numbers[symbol] for symbol in symbols])
        numbers, positions, forces = (common.ungrouped(v, order) for v in (numbers, data["coords"][0], forces))
        check_geometry(frame, numbers, data["cells"][0], positions)
        return energy, forces, virial


def _parameters(options: dict[str, Any]) -> dict[str, str]:
    """Of the template, then of the table ``input``, which wins."""
    parameters = {}
    text = Path(options["template"]).read_text(errors="replace") if "template" in options else ""
    for line in text.splitlines():
        words = re.split(r"#|//", line)[0].split()
        if len(words) > 1:
            parameters[words[0].lower()] = " ".join(words[1:])
    return parameters | {name.lower(): _rendered(value) for name, value in options.get("input", {}).items()}


def _rendered(value: Any) -> str:
    if isinstance(value, bool):
        return str(int(value))
    return " ".join(map(_rendered, value)) if isinstance(value, list) else str(value)


def _kpoints_of(parameters: dict[str, str]) -> str:
    """The parameter that already says which k-points, if any."""
    if parameters.get("gamma_only", "0") in ("1", "true"):
        return "gamma_only of the INPUT"
    return "kspacing of the INPUT" if "kspacing" in parameters else ""


def _conflicts(parameters: dict[str, str]) -> list[str]:
    problems = []
    if (kind := parameters.get("calculation", "scf")) != "scf":
        problems.append(
            f"label.options.input: calculation = {kind}, but a label is one calculation of a structure that does not "
            "move: calculation = scf is set; remove it"
        )
    problems += [
        f"label.options.input: {name} = {parameters[name]} is refused: {reason}"
        for name, reason in REFUSED.items()
        if name in parameters
    ]
    if parameters.get("esolver_type", "ksdft") in ("lj", "dp", "nep"):
        problems.append(
            f"label.options.input: esolver_type = {parameters['esolver_type']} is a force field; a label is from "
            "first principles"
        )
    return problems


def _linked(symbol: str, table: dict[str, Path]) -> str:
    """The name of an element's file in the folder of a label; files of two elements may have the same name."""
    return f"{symbol}_{table[symbol].name}"


def _numbers(row: np.ndarray) -> str:
    return " ".join(f"{value:.12f}" for value in row)


def _processes(stdout: str, log: str) -> int | None:
    """From the table SPIN KPOINTS PROCESSORS on the screen, or from the log of older versions."""
    table = re.search(r"SPIN +KPOINTS +PROCESSORS.*\n +\S+ +\S+ +(\d+)", stdout)
    found = table or re.search(r"Processor Number is +(\d+)|DSIZE *= *(\d+)", log)
    return int(next(filter(None, found.groups()))) if found else None
