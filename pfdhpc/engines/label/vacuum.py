"""Open boundaries in programs that compute in a repeated cell: accepted where there is vacuum enough.

Programs of plane waves are periodic in all directions whatever a frame says, and label a molecule in a small cell as a
crystal of molecules. The other way round, one whose Coulomb interaction ends at its cell labels a crystal as a piece of
it. Where images are far from each other, neither makes a difference.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...config.label import EXTERNAL, LabelSection, merged
from ...data import Frame
from ...errors import InputError, LabelError
from ..calculator_answers import parts
from .programs import program_class

VACUUM = 8.0
"""Å between the atoms of two images, from which on they count as apart.

LiH, with a dipole of 5.9 D, in GPAW's plane waves (250 eV): forces are off by up to 0.7 eV/Å at 4 Å, 0.15 at 6 Å, 0.03
at 8 Å, 0.01 at 10 Å.
"""
ADVICE = "leave 10 Å of vacuum or more between images"
"""More than must be: molecules stretch while they move."""
CRYSTAL = (True, True, True)
THE_FRAMES = ()
"""The directions of a program that has the frame's boundaries, in a cell that must be there."""
REPEATING = (
    "Abinit", "Castep", "ELK", "Espresso", "ExcitingGroundStateCalculator", "Onetep", "Siesta", "Vasp",
    "VaspInteractive",
)  # fmt: skip
"""ASE's calculators, by class, that repeat the cell in all directions; others go by the frame."""


def check_vacuum(frame: Frame, name: str, periodic: Sequence[bool] | None) -> None:
    """Raise LabelError for a frame whose images meet where the frame or its label has open boundaries.

    ``periodic`` (3,): directions in which the electrostatics of the program ``name`` are periodic; THE_FRAMES; or None
    for one that also takes frames without a cell.
    """
    if reason := _reason(frame, periodic):
        raise LabelError(f"{name} {reason}; {_remedy(name, reason)}")


def check_vacuum_of(frame: Frame, calculator: Any) -> None:
    """The same for an ASE calculator and those it holds."""
    for part in (calculator, *parts(calculator)):
        name = type(part).__name__
        if type(part).__module__.startswith("gpaw."):
            check_vacuum(frame, "GPAW", gpaw_directions({"mode": getattr(part.parameters, "mode", None)}))
        elif name in REPEATING:
            check_vacuum(frame, name, CRYSTAL)


def check_all_vacuum(section: LabelSection, where: str, frames: Sequence[Frame], system: str = "") -> list[str]:
    """Problems of structures that the options of a ``system`` cannot label, as lines that begin with ``where``."""
    name, periodic = _program(section, merged(section.options, section.systems.get(system, {})))
    reasons = [reason for frame in frames if (reason := _reason(frame, periodic))]
    if not reasons:
        return []
    count = f"{len(reasons)} of the {len(frames)} structures"
    return [f"{where}: {name} cannot label {count}: it {reasons[0]}; {_remedy(name, reasons[0])}"]


def gpaw_directions(options: dict[str, Any]) -> Sequence[bool]:
    """Directions in which GPAW is periodic: all in plane waves, those of the frame on grids and with orbitals."""
    mode = options.get("mode")
    name = mode.get("name") if isinstance(mode, dict) else getattr(mode, "name", mode)
    return CRYSTAL if str(name).lower() == "pw" else THE_FRAMES


def _program(section: LabelSection, options: dict[str, Any]) -> tuple[str, Sequence[bool] | None]:
    """What labels with these options, and the directions it is periodic in as :func:`check_vacuum` takes them."""
    if section.type in EXTERNAL:
        try:
            program = program_class(section.type)(options, section.virial)
        except InputError:
            return section.type, None  # told where the options are looked at
        return program.name, program.periodic
    name = "GPAW" if section.type == "gpaw" else str(options.get("calculator", section.type)).rpartition(".")[2]
    if name == "GPAW":
        return name, gpaw_directions(options if section.type == "gpaw" else options.get("arguments", {}))
    return name, CRYSTAL if section.type == "ase" and name in REPEATING else None


def _reason(frame: Frame, periodic: Sequence[bool] | None) -> str:
    """Why a label would be of another system than the frame, empty if it would not."""
    if periodic is None:
        return ""
    if frame.volume == 0:
        return "needs a cell with a volume, and a frame has none"
    if periodic == THE_FRAMES:
        return ""
    closed = np.array(periodic)
    axes = ~(closed & frame.pbc)
    if not axes.any():
        return ""
    apart = _image_distance(frame, axes)
    if apart >= VACUUM:
        return ""
    if not frame.pbc.all():
        return f"repeats the cell along {_named(~frame.pbc)}, where a frame is open: images are {apart:.1f} Å apart"
    return f"ends at the cell along {_named(~closed)}, where a frame is periodic: images are {apart:.1f} Å apart"


def _image_distance(frame: Frame, axes: np.ndarray) -> float:
    """Shortest distance (Å, at most VACUUM) of an atom to any atom's image in the directions ``axes`` (3,)."""
    from ase.neighborlist import primitive_neighbor_list

    distances, shifts = primitive_neighbor_list("dS", CRYSTAL, frame.cell, frame.positions, VACUUM)
    across = (shifts[:, axes] != 0).any(axis=1)
    return float(distances[across].min(initial=VACUUM))


def _named(axes: np.ndarray) -> str:
    return "".join(axis for axis, yes in zip("abc", axes, strict=True) if yes)


def _remedy(name: str, reason: str) -> str:
    grids = name == "GPAW" and reason.startswith("repeats")
    return f'{ADVICE}, or take mode "fd" or "lcao", whose boundaries are the frame\'s' if grids else ADVICE
