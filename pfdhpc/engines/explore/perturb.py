"""Start structures: read, repeated into supercells, strained and displaced at random."""

from pathlib import Path

import numpy as np
from ase import Atoms

from ...config.explore import SystemSection
from ...data import Frame
from ...errors import InputError


def perturb(frame: Frame, strain: float, displacement: float, rng: np.random.Generator) -> Frame:
    """A strained copy of a frame with displaced atoms, as ``pfd perturb`` of PFD-kit and dpdata make them.

    The lattice vectors become ``cell @ M`` with the symmetric, rotation-free ``M``: 1 + e on the
    diagonal, e/2 off it, six independent e uniform in [-strain, strain]. Atoms move with the cell, then
    each by ``displacement / sqrt(3)`` (Å) times a normal vector: ``displacement`` is the root mean
    square length. A frame without periodicity is not strained.
    """
    e = rng.uniform(-strain, strain, 6)
    matrix = np.eye(3)
    if frame.pbc.any():
        matrix += np.diag(e[:3]) + 0.5 * np.array([[0, e[5], e[4]], [e[5], 0, e[3]], [e[4], e[3], 0]])
    moves = rng.standard_normal(frame.positions.shape) * displacement / np.sqrt(3)
    return Frame(frame.numbers, frame.cell @ matrix, frame.positions @ matrix + moves, frame.pbc)


def starts(system: SystemSection, seed: int) -> list[Frame]:
    """The start structures of a system: every image of every file, or ``perturb.count`` copies of each.

    Random numbers follow from ``seed``, the structure itself and the number of the copy, so that
    adding or reordering files leaves the other starts as they were. Raises InputError naming
    unreadable files, all of them at once.
    """
    problems: list[str] = []
    given: list[Frame] = []
    for path in system.structures:
        try:
            given += [_supercell(image, system.supercell) for image in _images(path)]
        except ValueError as error:
            problems.append(f"system.structures: {path} (system {system.name}): {' '.join(str(error).split())}")
    if problems:
        raise InputError(problems)
    if not system.perturb.count:
        return given
    return [
        _copy(frame, system, np.random.default_rng([seed, int(frame.frame_id, 16), copy]))
        for frame in given
        for copy in range(system.perturb.count)
    ]


def _copy(frame: Frame, system: SystemSection, rng: np.random.Generator) -> Frame:
    return perturb(frame, system.perturb.strain, system.perturb.displacement, rng)


def _images(path: Path) -> list[Atoms]:
    import ase.io  # here: it loads the packages that register file formats, GPAW among them

    try:
        images = ase.io.read(path, index=":", parallel=False)
    except Exception as error:  # ASE's readers raise all kinds, a parser error as likely as an OSError
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(f"ASE cannot read it: {reason}; convert it, e.g. to extxyz") from error
    if not any(len(image) for image in images):
        raise ValueError("it holds no atoms")
    return images


def _supercell(image: Atoms, repeats: tuple[int, int, int]) -> Frame:
    if repeats != (1, 1, 1) and image.cell.rank < 3:
        raise ValueError("a supercell needs three lattice vectors; remove system.supercell")
    return Frame.from_atoms(image.repeat(repeats))
