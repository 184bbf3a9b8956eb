"""Quantum ESPRESSO's pw.x.

.. code-block:: toml

    [label]
    type = "qe"
    [label.launch]
    command = "mpiexec -n {ranks} pw.x"
    [label.options]
    template = "pw.in"                        # namelists, K_POINTS and other cards; optional
    pseudo_dir = "pseudo"
    pseudopotentials = { Si = "Si.upf" }
    kpts = [4, 4, 4]                          # with koffset; or kspacing = 0.2 (1/Å, with the 2 pi); or "gamma"
    [label.options.input.system]              # goes over the template, namelist by namelist
    ecutwfc = 40
    starting_magnetization = { Fe = 0.5 }     # by element, also hubbard_u and its like; or a list, one for each atom

The energy is QE's total energy, with smearing the free energy -TS included, of which the forces are derivatives.
Source: https://www.quantum-espresso.org/Doc/INPUT_PW.html; files are written and read by ASE (ase.io.espresso).
"""

import io
import re
from math import pi
from pathlib import Path
from typing import Any

from ....config.file_digest import content_digest
from ....data import Frame
from ....errors import InputError, LabelError
from ....units import virial_from_stress
from . import common
from .base import Output, Program, ProgramConnection, check_geometry
from .ipi_socket import SocketLine
from .qe_input import Template, check_input, periodic_directions, read_template

MAGNETIZATION = "starting_magnetization"
PREFIX = "pwscf"
EXAMPLE = '{ Si = "Si.upf" }'


class QuantumEspresso(Program):
    name = "pw.x"
    keys = ("template", "input", "pseudopotentials", "pseudo_dir", "kpts", "koffset", "kspacing")
    soft_stop = (f"{PREFIX}.EXIT", "")
    residents = (True,)
    bulky = (f"{PREFIX}.save", f"{PREFIX}.wfc*", f"{PREFIX}.mix*", f"{PREFIX}.hub*", f"{PREFIX}.restart*")

    def __init__(self, options: dict[str, Any], virial: bool = True):
        problems = common.check_files(options, "pseudo_dir", "pseudopotentials", EXAMPLE)
        problems += check_input(options.get("input", {}))
        template = Template()
        if "template" in options:
            template, found = read_template(Path(options["template"]))
            problems += found
        if not {"kpts", "kspacing"} & options.keys():
            options = options | template.k_points
        meshed = options | {"kpts": [1, 1, 1]} if options.get("kpts") == "gamma" else options
        problems += common.check_kpoints(meshed)
        if problems:
            raise InputError(problems)
        self._options, self._virial, self._cards = options, virial, template.cards
        self._namelists = template.namelists
        for name, given in options.get("input", {}).items():
            self._namelists.setdefault(name, {}).update({key.lower(): value for key, value in given.items()})
        if "ecutwfc" not in self._namelists.get("system", {}):
            raise InputError("label.options.input.system.ecutwfc: missing; the kinetic energy cutoff, Ry")
        self.periodic = periodic_directions(self._namelists["system"])

    def write(self, frame: Frame, directory: Path) -> None:
        from ase.io.espresso import write_espresso_in

        common.check_frame(frame, self.name, self.elements(), "pseudopotentials")
        atoms, kpts, spacing = frame.to_atoms(), self._options.get("kpts"), self._options.get("kspacing")
        text = io.StringIO()
        write_espresso_in(
            text, atoms,
            input_data=self._input(atoms),  # sets the magnetic moments of the atoms, too
            pseudopotentials=self._options["pseudopotentials"],
            kpts=None if kpts == "gamma" else kpts,
            kspacing=spacing and spacing / (2 * pi),  # ASE's is without the 2 pi
            koffset=tuple(self._options.get("koffset", (0, 0, 0))),
            additional_cards=self._cards or None,
        )  # fmt: skip
        (directory / "pw.in").write_text(text.getvalue())

    def arguments(self) -> tuple[list[str], str | None]:
        return ["-in", "pw.in"], None

    def line(self, directory: Path, stdout: Path, way: bool | str) -> ProgramConnection:
        line = SocketLine(self.name, directory, lambda: self.check(stdout))
        line.arguments = ("-in", "pw.in", "--ipi", f"{line.name}:UNIX")
        return line

    def read(self, frame: Frame, directory: Path, stdout: Path) -> Output:
        from ase import units
        from ase.io.espresso import read_espresso_out
        from ase.io.espresso import units as theirs

        processes = self.check(stdout)
        text = stdout.read_text(errors="replace")
        if "JOB DONE." not in text:
            raise LabelError(f"pw.x: no end of the calculation{common.last_words(stdout, stdout.with_suffix('.err'))}")
        try:
            atoms = next(iter(read_espresso_out(io.StringIO(text), slice(-1, None))))
            energy, forces = atoms.get_potential_energy(), atoms.get_forces(apply_constraint=False)
            stress = atoms.get_stress(voigt=False, apply_constraint=False) if self._virial else 0.0
        except Exception as error:  # the reader raises many kinds
            raise LabelError(f"pw.x: the output is not understood: {type(error).__name__}: {error}") from error
        check_geometry(frame, atoms.numbers, atoms.cell, atoms.positions)
        # The reader's Rydberg and Bohr are of 2006, all others here of 2014: 2e-5 eV in 200.
        energy_unit, length = units.Ry / theirs["Ry"], units.Bohr / theirs["Bohr"]
        virial = virial_from_stress(stress * energy_unit / length**3, frame.volume) if self._virial else None
        return Output(energy * energy_unit, forces * energy_unit / length, virial, processes)

    def check(self, stdout: Path) -> int | None:
        """The number of processes it runs on; raises LabelError if the output tells of a failure."""
        text = stdout.read_text(errors="replace")
        starts = re.findall(r"^\s+(?:Parallel version .*running on\s+(\d+) processors|Serial version)", text, re.M)
        if len(starts) > 1:
            raise LabelError(
                f"pw.x: {len(starts)} copies ran in one folder, each by itself: the launcher in label.launch.command is"
                " not of the MPI that pw.x is built with"
            )
        if words := re.search(r"%{9,}\s*\n(.*?)\n\s*%{9,}", text, re.S):
            raise LabelError(f"pw.x: {' '.join(words[1].split())}")
        if found := re.search(r"convergence NOT achieved after\s+(\d+) iterations", text):
            accuracy = re.findall(r"estimated scf accuracy\s+<\s+(\S+ Ry)", text)
            raise LabelError(
                f"pw.x: SCF not converged after {found[1]} iterations"
                + (f" (estimated accuracy {accuracy[-1]})" if accuracy else "")
            )
        return int(starts[0] or 1) if starts else None

    def files(self) -> dict[str, Any]:
        files = {"pseudopotentials": common.digests(common.paths(self._options, "pseudo_dir", "pseudopotentials"))}
        if "template" in self._options:
            files["template"] = content_digest(Path(self._options["template"]))
        return files

    def elements(self) -> set[str]:
        return set(self._options["pseudopotentials"])

    def _input(self, atoms: Any) -> dict[str, dict[str, Any]]:
        """The namelists for these atoms; values by element or atom become values by species."""
        given = {name: dict(values) for name, values in self._namelists.items()}
        given["control"] = {
            "disk_io": "none", **given.get("control", {}), "calculation": "scf", "prefix": PREFIX, "outdir": ".",
            "pseudo_dir": self._options["pseudo_dir"], "tprnfor": True, "tstress": self._virial,
        }  # fmt: skip
        system = given["system"]
        atoms.set_initial_magnetic_moments(_by_atom(system.pop(MAGNETIZATION, 0.0), atoms))
        # The order in which ASE numbers the species, one for each element and magnetisation.
        species = list(dict.fromkeys(zip(atoms.symbols, atoms.get_initial_magnetic_moments(), strict=True)))
        for key in [key for key, value in system.items() if isinstance(value, dict)]:
            values = system.pop(key)
            system |= {f"{key}({n})": values[symbol] for n, (symbol, _) in enumerate(species, 1) if symbol in values}
        return given


def _by_atom(values: Any, atoms: Any) -> list[float]:
    if isinstance(values, dict):
        return [float(values.get(symbol, 0.0)) for symbol in atoms.symbols]
    if isinstance(values, list):
        if len(values) != len(atoms):
            raise LabelError(f"label.options: {MAGNETIZATION} has {len(values)} values, the frame {len(atoms)} atoms")
        return values
    return [float(values)] * len(atoms)
