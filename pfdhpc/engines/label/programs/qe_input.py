"""The options of Quantum ESPRESSO, judged before any frame pays for a mistake, and its input files as templates."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NAMELISTS = ("control", "system", "electrons", "fcp", "rism")
OWN = {
    "control": ("calculation", "prefix", "outdir", "pseudo_dir", "tstress", "tprnfor", "restart_mode", "title"),
    "system": ("ibrav", "nat", "ntyp", "a", "b", "c", "cosab", "cosac", "cosbc", "celldm"),
}
"""What the frame and this file decide; in a template it is replaced."""
KEPT = ("OCCUPATIONS", "HUBBARD", "SOLVENTS")
"""Cards of a template that are kept; K_POINTS is written anew, and those that describe atoms."""
CARDS = (*KEPT, "ATOMIC_SPECIES", "ATOMIC_POSITIONS", "CELL_PARAMETERS", "K_POINTS", "CONSTRAINTS", "ATOMIC_VELOCITIES",
         "ATOMIC_FORCES", "ADDITIONAL_K_POINTS")  # fmt: skip


@dataclass(frozen=True)
class Template:
    """What counts of an input file of pw.x: ``k_points`` are the options that say the same as its card."""

    namelists: dict[str, dict[str, Any]] = field(default_factory=dict)
    cards: list[str] = field(default_factory=list)
    k_points: dict[str, Any] = field(default_factory=dict)


def check_input(given: Any) -> list[str]:
    if not isinstance(given, dict) or not all(isinstance(values, dict) for values in given.values()):
        return ["label.options.input: a table of namelists, e.g. input.system.ecutwfc = 40"]
    problems = [
        f"label.options.input.{name}: not a namelist of pw.x that is read here; {', '.join(NAMELISTS)}"
        for name in given
        if name not in NAMELISTS
    ]
    for name, values in given.items():
        for key in values:
            if key.lower().split("(")[0] in OWN.get(name, ()):
                problems.append(f"label.options.input.{name}.{key}: the frame and this program decide it; remove it")
            elif name == "system" and _numbered(key):
                problems.append(
                    f"label.options.input.{name}.{key}: give it by element: {key.split('(')[0]} = {{ Fe = ... }}"
                )
    return problems


def periodic_directions(system: dict[str, Any]) -> tuple[bool, bool, bool]:
    """The directions in which the namelist ``system`` leaves the electrostatics periodic (``assume_isolated``).

    Makov and Payne's correction changes the energy of a periodic calculation, and nothing else.
    """
    kind, boundary = (str(system.get(key, "")).strip("'\"").lower() for key in ("assume_isolated", "esm_bc"))
    if kind in ("martyna-tuckerman", "m-t", "mt"):
        return False, False, False
    return True, True, kind != "2d" and (kind != "esm" or boundary in ("", "pbc"))


def read_template(path: Path) -> tuple[Template, list[str]]:
    """A template, and what is wrong with it."""
    from ase.io.espresso import read_fortran_namelist

    try:
        with path.open() as file:
            found, lines = read_fortran_namelist(file)
    except (OSError, ValueError) as error:
        return Template(), [f"label.options.template: {path} cannot be read: {error}"]
    namelists = {
        name: {key: value for key, value in values.items() if key.lower().split("(")[0] not in OWN.get(name, ())}
        for name, values in found.items()
        if name in NAMELISTS
    }
    problems = [
        f"label.options.template: {key} in {path} counts species; take it out, and give it by element, as "
        f"label.options.input.system.{key.split('(')[0]} = {{ Fe = ... }}"
        for key in namelists.get("system", {})
        if _numbered(key)
    ]
    cards: dict[str, list[str]] = {}
    name = ""
    for line in lines:
        word = line.split()[0].upper()
        name = word if word in CARDS else name
        cards.setdefault(name, []).append(line)
    kept = [line for name in KEPT for line in cards.get(name, [])]
    try:
        k_points = _k_points(cards.get("K_POINTS", []))
    except ValueError as error:
        return Template(), [*problems, f"label.options.template: K_POINTS in {path}: {error}"]
    return Template(namelists, kept, k_points), problems


def _numbered(key: str) -> bool:
    """Whether a variable of &system is one of several for the species, whose numbers depend on the frame."""
    return "(" in key and not key.lower().startswith("fixed_magnetization")


def _k_points(card: list[str]) -> dict[str, Any]:
    """The options that stand for a K_POINTS card; none if there is no card."""
    if not card:
        return {}
    kind = "".join(card[0].split()[1:]).strip("{}()").lower()
    if kind == "gamma":
        return {"kpts": "gamma"}
    if kind == "automatic":
        numbers = [int(word) for line in card[1:] for word in line.split()]
        return {"kpts": numbers[:3], "koffset": numbers[3:6]}
    raise ValueError(f"{kind}, of which other cells have no use; write automatic or gamma, or give label.options.kpts")
