"""What a run leaves aside, told at the start: moments, charges, constraints, velocities of structures; void virials.

Labels get moments and charges from the options of the labeler alone, as in a run atoms are displaced, exchanged and
taken out; a remark says what to write there.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from ase import Atoms

from ..config import Config
from ..config.explore import SystemSection
from ..config.label import LabelSection, merged
from ..data import Frame
from ..data.extras import CHARGES, CONSTRAINTS, MOMENTS, VELOCITIES, column, extras
from ..engines.explore.perturb import structures
from ..errors import InputError
from ..log import remark

OPTIONS = {MOMENTS: "magmoms", CHARGES: "charges"}
LISTS = {"ase": ("magmoms", "charges"), "gpaw": ("magmoms",), "vasp": ("magmoms",), "abacus": ()}
"""Options that may be a list with a value for each atom, by labeler."""
SPIN = {"vasp": " with ISPIN = 2", "abacus": " with nspin = 2"}
SHOWN = 16
"""Values that a remark writes out."""
REMEDIES = {
    (MOMENTS, "qe"): 'give {where}.input.system."starting_magnetization(1)", by species, with nspin = 2',
    (MOMENTS, "cp2k"): "give MAGNETIZATION in each &KIND of label.options.template",
    (CHARGES, "gpaw"): "give {where}.charge = {charge:g}",
    (CHARGES, "vasp"): "give {where}.charge = {charge:g}",
    (CHARGES, "qe"): "give {where}.input.system.tot_charge = {charge:g}",
    (CHARGES, "abacus"): "give nelec in {where}.input, for a charge of {charge:g}",
    (CHARGES, "cp2k"): 'give {where}.input."FORCE_EVAL/DFT/CHARGE" = {charge:g}',
}
"""What to write where there is no option by element or atom, by labeler."""


def tell_unused(config: Config) -> None:
    """Remark on what structure files hold and the run leaves aside; those that cannot be read are told elsewhere."""
    for system in config.system:
        try:
            found = structures(system)
        except InputError:
            continue
        for what in (MOMENTS, CHARGES, CONSTRAINTS, VELOCITIES):
            holders = [(path, made) for path, image, made in found if what in extras(image)]
            if not holders or _is_given(config.label, system.name, what):
                continue
            some = "" if len(found) == 1 else f" and others, {len(holders)} of {len(found)} structures,"
            remedy = _remedy(config, system, what, [made for _, made in holders])
            remark(f"system {system.name}: the {what} in {holders[0][0].name}{some} are not used; {remedy}")


def _is_given(label: LabelSection, system: str, what: str) -> bool:
    """Whether the labeler's options say it already."""
    options = merged(label.options, label.systems.get(system, {}))
    names = {MOMENTS: ("magmoms", "starting_magnetization"), CHARGES: ("charges", "charge", "tot_charge", "nelec")}
    inner = str(options.get("input", "")).lower()
    return any(name in options or name in inner for name in names.get(what, ()))


def _remedy(config: Config, system: SystemSection, what: str, made: Sequence[Atoms]) -> str:
    kind = config.label.type
    where = "label.options" if len(config.system) == 1 else f"label.systems.{system.name}"
    if what in (CONSTRAINTS, VELOCITIES):
        return "all atoms move" if what == CONSTRAINTS else "exploring begins with thermal ones"
    if kind in ("deepmd", "teacher"):
        return "labels are made without them"
    if kind == "offline":
        return "set them where the labels are made"
    option = OPTIONS[what]
    if option in LISTS.get(kind, ()) or (kind, what) == ("abacus", MOMENTS):
        written = _written([(one, column(one, what)) for one in made], option in LISTS[kind] and not _alters(system))
        return f"give {where}.{option}{written}{SPIN.get(kind, '')}"
    values = column(made[0], what)
    charge = 0.0 if what == MOMENTS or values is None else float(values.sum())
    if what == CHARGES and abs(charge) < 1e-6:
        return "they add up to none, and labels are of neutral cells"
    return REMEDIES.get((what, kind), "give them in the input of the program").format(where=where, charge=charge)


def _alters(system: SystemSection) -> bool:
    """Whether atoms are exchanged or taken out, so that a list for each atom says nothing."""
    return bool(system.perturb.alloy or system.perturb.vacancies)


def _written(given: Sequence[tuple[Atoms, Any]], by_atom: bool) -> str:
    """What to write behind the option: a table if each element has one value, else a list if that is allowed."""
    tables = [_by_element(*pair) for pair in given]
    if tables[0] and all(table == tables[0] for table in tables):
        return f" = {{ {', '.join(f'{name} = {value:g}' for name, value in tables[0].items())} }}"
    first = given[0][1]
    if not by_atom or first is None:
        return ", by element"
    if any(values is None or not np.array_equal(values, first) for _, values in given):
        return ", a list with a value for each atom, and make a system of the structures that agree in it"
    return (
        f" = {first.tolist()}" if len(first) <= SHOWN else f", a list with a value for each of the {len(first)} atoms"
    )


def _by_element(atoms: Atoms, values: Any) -> dict[str, float]:
    """The value of each element; empty where atoms of one differ."""
    if values is None or values.ndim > 1:
        return {}
    pairs = set(zip(atoms.get_chemical_symbols(), values.tolist(), strict=True))
    found = dict(sorted(pairs))
    return found if len(found) == len(pairs) else {}


def tell_open(label: LabelSection, frames: Mapping[str, Sequence[Frame]]) -> None:
    """Remark on the ``frames`` of a system, to be labelled, that can have no virial although one is asked for."""
    for system, some in frames.items():
        if label.virial and (count := sum(not frame.has_virial for frame in some)):
            remark(
                f"system {system}: {count} of {len(some)} frames are not periodic in three directions: their labels"
                " have no virial"
            )


def length_problems(label: LabelSection, frames: Mapping[str, Sequence[Frame]]) -> Iterator[str]:
    """Lists with a value for each atom that do not fit the ``frames`` of a system that are to be labelled."""
    for system, some in frames.items():
        own, sizes = label.systems.get(system, {}), sorted({len(frame) for frame in some})
        for key in LISTS.get(label.type, ()):
            values = own.get(key, label.options.get(key))
            if isinstance(values, list) and sizes and sizes != [len(values)]:
                where = f"label.systems.{system}" if key in own else "label.options"
                yield (
                    f"{where}.{key}: {len(values)} values, but the frames of system {system} have"
                    f" {' or '.join(map(str, sizes))} atoms; give a value for each atom of these (in"
                    f" label.systems.{system}.{key}, if other systems differ), or a table by element"
                )
