"""Labels from VASP 5.4 and 6.

.. code-block:: toml

    [label]
    type = "vasp"
    [label.options]
    template = "INCAR"                               # and, or instead, its tags here:
    incar = { ENCUT = 520, EDIFF = 1e-6, ISMEAR = 0, SIGMA = 0.05 }
    potcar_dir = "/opt/vasp/potpaw_PBE.54"           # a POTCAR is never part of pfdhpc
    potcars = { Si = "Si/POTCAR", C = "C/POTCAR" }
    kspacing = 0.2                                   # 1/Å; or kpts = [4, 4, 4], koffset = [0, 0, 0]
    magmoms = { Fe = 3.0 }                           # by element, or a list with one for each atom; with ISPIN = 2
    charge = 1                                       # of the cell, e

The energy is the free energy (TOTEN, ``e_fr_energy``), the one VASP's forces and stress are derivatives of.

Source: the VASP wiki (INCAR tags, POTCAR, STOPCAR), and ASE's reader of vasprun.xml.
"""

import re
from itertools import groupby
from pathlib import Path
from typing import Any, ClassVar

from ....data import Frame
from ....errors import InputError, LabelError
from ....units import virial_from_stress
from ..per_atom import check_per_atom, per_atom
from . import common
from .base import Output, Program, ProgramConnection, check_geometry
from .vasp_output import RUNNING, check_converged

STILL = {"NSW": ("0",), "IBRION": ("-1",), "ISIF": ("0", "1", "2")}
"""What the INCAR may say of moving atoms and cell; what of it is needed is written."""
REFUSED = {
    "MAGMOM": "atoms are sorted by element; give label.options.magmoms, by element or for each atom",
    "NELECT": "it depends on the number of atoms; give label.options.charge",
    "PSTRESS": "it would enter energy and stress",
    "ML_LMLFF": "labels would come from VASP's own force field",
    "IMAGES": "a label is of one structure",
}
PERFORMANCE = {
    "SYSTEM", "NCORE", "NPAR", "KPAR", "NSIM", "LPLANE", "LSCALU", "LSCALAPACK", "NWRITE", "LWAVE", "LCHARG",
}  # fmt: skip
"""Tags that change no number, and do not enter the level of theory."""
FINISHED = "General timing and accounting"
HEADER = 4096
"""Bytes of a POTCAR that hold its element and valence."""


class Vasp(Program):
    """Atoms are written by element, and given back in the frame's order."""

    name = "VASP"
    keys: ClassVar = (
        "template", "incar", "potcar_dir", "potcars", "kspacing", "kpts", "koffset", "magmoms", "charge",
    )  # fmt: skip
    soft_stop = ("STOPCAR", "LABORT = .TRUE.\n")
    residents = (True,)
    bulky = ("POTCAR", "WAVECAR", "CHG*", "LOCPOT", "vaspout.h5", "vaspwave.h5", "PROCAR", "TMPCAR")

    def __init__(self, options: dict[str, Any], virial: bool = True):
        self.options, self.virial, self.tags = options, virial, {}
        problems = common.check_template(options)
        problems += common.check_table(options, "incar", (str, int, float, list), "incar = { ENCUT = 520 }")
        problems = problems or self._take_tags()
        if type(options.get("charge", 0)) not in (int, float):
            problems.append(f"label.options.charge: {options['charge']!r}; a number, of elementary charges")
        wrong = common.check_files(options, "potcar_dir", "potcars", '{ Si = "Si/POTCAR" }')
        self.potcars = {} if wrong else common.paths(options, "potcar_dir", "potcars")
        problems += wrong or _misplaced(self.potcars)
        if problems:
            raise InputError(problems)

    def _take_tags(self) -> list[str]:
        """The INCAR but for what depends on the atoms; its problems."""
        given = _tags(self.options)
        forced = {"NSW": "0", "IBRION": "-1", "ISIF": "2" if self.virial else "0"}
        self.tags = {"LWAVE": ".FALSE.", "LCHARG": ".FALSE."} | given | forced
        problems = _conflicts(given)
        problems += common.check_kpoints(self.options, "KSPACING of the INCAR" if "KSPACING" in given else "")
        problems += check_per_atom(self.options, "magmoms")
        return problems + common.check_polarised(self.options, given.get("ISPIN") == "2", "ISPIN = 2")

    def elements(self) -> set[str]:
        return set(self.potcars)

    def files(self) -> dict[str, Any]:
        tags = {tag: value for tag, value in sorted(self.tags.items()) if tag not in PERFORMANCE}
        return {"incar": tags, "potcars": common.digests(self.potcars)}

    def arguments(self) -> tuple[list[str], str | None]:
        return [], None

    def write(self, frame: Frame, directory: Path) -> None:
        from ase.io.vasp import write_vasp

        common.check_frame(frame, self.name, self.potcars, "potcars")
        order, species = common.grouped(frame)
        with (directory / "POSCAR").open("w") as file:
            write_vasp(file, frame.to_atoms()[order], direct=False)
        tags = self.tags | self._tags_of(frame)
        (directory / "INCAR").write_text("".join(f"{tag} = {value}\n" for tag, value in tags.items()))
        with (directory / "POTCAR").open("wb") as file:
            for symbol, _ in species:
                file.write(self.potcars[symbol].read_bytes())
        if "kpts" in self.options:
            (directory / "KPOINTS").write_text(f"mesh\n0\nGamma\n{common.mesh_lines(self.options)}\n")

    def _tags_of(self, frame: Frame) -> dict[str, str]:
        """The tags that depend on the atoms."""
        tags, (order, species) = {}, common.grouped(frame)
        if "kspacing" in self.options:
            tags["KSPACING"] = str(self.options["kspacing"])
        if moments := self.options.get("magmoms"):
            values = per_atom(moments, frame, "magmoms")[order].tolist()
            tags["MAGMOM"] = " ".join(f"{len(list(same))}*{value}" for value, same in groupby(values))
        if charge := self.options.get("charge"):
            electrons = sum(count * _header(self.potcars[symbol])[1] for symbol, count in species)
            tags["NELECT"] = f"{electrons - charge:.6f}"
        return tags

    def line(self, directory: Path, stdout: Path, way: bool | str) -> ProgramConnection:
        from .vasp_interactive import KeyboardLine

        return KeyboardLine(directory, stdout, self)

    def check(self, stdout: Path) -> int | None:
        common.check_copies(self.name, stdout.read_text(errors="replace"), RUNNING)

    def refuses_to_stay(self) -> list[str]:
        if self.tags.get("ISYM") in ("0", "-1"):
            return []
        return [
            "label.options.incar.ISYM: a VASP that stays (label.launch.resident) would go on with the symmetry of its"
            " first frame, wrong for others; give ISYM = 0"
        ]

    def read(self, frame: Frame, directory: Path, stdout: Path) -> Output:
        common.check_copies(self.name, stdout.read_text(errors="replace"), RUNNING)
        log = directory / "OUTCAR"
        text = log.read_text(errors="replace") if log.is_file() else ""
        if "aborting job" in text:
            raise LabelError("VASP: stopped by STOPCAR")
        if FINISHED not in text:
            raise LabelError(f"VASP did not finish{common.last_words(stdout, stdout.with_suffix('.err'), log)}")
        check_converged(text)
        processes = re.search(RUNNING, text)
        energy, forces, stress = self._results(frame, directory / "vasprun.xml")
        virial = virial_from_stress(stress, frame.volume) if self.virial else None
        return Output(energy, forces, virial, int(processes[1] or processes[2]) if processes else None)

    def _results(self, frame: Frame, path: Path) -> tuple[float, Any, Any]:
        """Energy (eV), forces (n, 3) eV/Å in the frame's order, and stress (3, 3) eV/Å³ in ASE's sign."""
        import ase.io

        try:
            atoms = ase.io.read(path, format="vasp-xml", parallel=False)
            energy = atoms.get_potential_energy(force_consistent=True)
            forces = atoms.get_forces(apply_constraint=False)
            stress = atoms.get_stress(voigt=False, apply_constraint=False) if self.virial else None
        except Exception as error:  # a damaged file: the reader raises many kinds
            raise LabelError(f"VASP: vasprun.xml cannot be read: {type(error).__name__}: {error}") from error
        order, _ = common.grouped(frame)
        if len(atoms) != len(frame):
            raise LabelError(f"VASP: vasprun.xml has {len(atoms)} atoms, the frame {len(frame)}")
        numbers, positions, forces = (common.ungrouped(v, order) for v in (atoms.numbers, atoms.positions, forces))
        check_geometry(frame, numbers, atoms.cell.array, positions)
        return energy, forces, stress


def _tags(options: dict[str, Any]) -> dict[str, str]:
    """Of the template, then of the table ``incar``, which wins."""
    tags = {}
    text = Path(options["template"]).read_text(errors="replace") if "template" in options else ""
    for line in text.replace("\\\n", " ").splitlines():
        for statement in re.split("[#!]", line)[0].split(";"):
            tag, equals, value = statement.partition("=")
            if equals:
                tags[tag.strip().upper()] = " ".join(value.split())
    return tags | {tag.upper(): _rendered(value) for tag, value in options.get("incar", {}).items()}


def _rendered(value: Any) -> str:
    if isinstance(value, bool):
        return ".TRUE." if value else ".FALSE."
    return " ".join(map(_rendered, value)) if isinstance(value, list) else str(value)


def _conflicts(tags: dict[str, str]) -> list[str]:
    problems = [
        f"label.options.incar: {tag} = {tags[tag]}, but a label is one calculation of a structure that does not "
        f"move: {tag} = {allowed[-1]} is set; remove it"
        for tag, allowed in STILL.items()
        if tags.get(tag, allowed[0]) not in allowed
    ]
    problems += [
        f"label.options.incar: {tag} = {tags[tag]} is refused: {reason}"
        for tag, reason in REFUSED.items()
        if tags.get(tag, ".FALSE.").upper() not in (".FALSE.", "F", "FALSE")
    ]
    if "ENCUT" not in tags:
        problems.append(
            "label.options.incar: ENCUT is missing: VASP would take it from the POTCAR, another one for other elements"
        )
    return problems


def _misplaced(potcars: dict[str, Path]) -> list[str]:
    """Files that are not a POTCAR of the element they are given for."""
    found = {symbol: (path, *_header(path)) for symbol, path in potcars.items()}
    return [
        f"label.options.potcars.{symbol}: {path} is "
        + (f"a POTCAR of {element}" if element else "no POTCAR: it has no line VRHFIN, or no ZVAL")
        for symbol, (path, element, _) in found.items()
        if element != symbol
    ]


def _header(path: Path) -> tuple[str, float]:
    """The element of a POTCAR, "" if it is none, and its number of valence electrons."""
    with path.open("rb") as file:
        text = file.read(HEADER).decode(errors="replace")
    element, valence = re.search(r"VRHFIN *= *([A-Za-z]+)", text), re.search(r"ZVAL *= *([\d.]+)", text)
    return (element[1], float(valence[1])) if element and valence else ("", 0.0)
