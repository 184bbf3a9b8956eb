"""Models that explore side by side: whether those of ``explore.committee`` fit the one that drives the dynamics."""

from collections.abc import Sequence
from pathlib import Path

from ...errors import InputError
from ..deep_potential import open_potential

KEYS = {"model.checkpoint": "explore.committee"}


def committee_problems(committee: Sequence[Path], elements: Sequence[str], cutoff: float) -> list[str]:
    """What keeps frozen models from exploring in LAMMPS beside one of these elements, in its order, and cutoff in Å.

    The pair style gives every model the atom types and the neighbours of the first, and looks at neither.
    """
    problems = []
    for path in committee:
        try:
            member = open_potential(path)
        except InputError as error:
            problems += error.about(KEYS).problems
            continue
        found = tuple(member.get_type_map()), float(member.get_rcut())
        if found != (tuple(elements), cutoff):
            problems.append(
                f"explore.committee: {path} has the type map {' '.join(found[0])} and the cutoff {found[1]:g} Å, the"
                f" current model {' '.join(elements)} and {cutoff:g} Å; take models with the same type map and cutoff"
            )
    return problems


def unknown_to_committee(committee: Sequence[Path], elements: Sequence[str]) -> list[str]:
    """Of models that deepmd's ASE calculator loads: those that cannot be, and those that lack an element."""
    problems = []
    for path in committee:
        try:
            missing = [name for name in elements if name not in open_potential(path).get_type_map()]
        except InputError as error:
            problems += error.about(KEYS).problems
            continue
        if missing:
            problems.append(f"explore.committee: {path} does not know {', '.join(missing)}, which the systems hold")
    return problems
