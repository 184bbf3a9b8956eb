"""Start structures: read, cut into slabs, repeated; then alloyed, thinned, strained and displaced at random."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers

from ...config.explore import PerturbSection, SystemSection
from ...config.init import AlloySection, SlabSection
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


def altered(frame: Frame, section: PerturbSection, rng: np.random.Generator) -> Frame:
    """A copy with everything ``section`` asks for. Raises ValueError where the frame does not allow it."""
    if section.alloy is not None:
        frame = alloyed(frame, section.alloy, rng)
    if section.vacancies:
        frame = with_vacancies(frame, section.vacancies, rng)
    return perturb(frame, section.strain, section.displacement, rng)


def alloyed(frame: Frame, section: AlloySection, rng: np.random.Generator) -> Frame:
    """The atoms on a sublattice dealt out anew.

    ``composition = "random"`` draws how many there are of each element, every possibility equally likely.
    Raises ValueError when the frame has no such sites.
    """
    elements = np.array([atomic_numbers[name] for name in section.elements], np.int32)
    sites = np.flatnonzero(np.isin(frame.numbers, elements))
    if not len(sites):
        raise ValueError(f"perturb.alloy: no atom is {' or '.join(section.elements)}")
    atoms = frame.numbers[sites]
    if section.composition == "random":
        # stars and bars: the places of the bars among the stars are one composition each
        bars = np.sort(rng.choice(len(sites) + len(elements) - 1, len(elements) - 1, replace=False))
        counts = np.diff([-1, *bars, len(sites) + len(elements) - 1]) - 1
        atoms = np.repeat(elements, counts)
    numbers = frame.numbers.copy()
    numbers[sites] = rng.permutation(atoms)
    return Frame(numbers, frame.cell, frame.positions, frame.pbc)


def with_vacancies(frame: Frame, amounts: int | float | Mapping[str, int | float], rng: np.random.Generator) -> Frame:
    """Without some atoms, drawn from all or, given a table by element, from those of each.

    A fraction is rounded to the nearest number of atoms. Raises ValueError when there are too few.
    """
    pools = [("any", np.arange(len(frame)), amounts)]
    if isinstance(amounts, Mapping):
        found = {name: np.flatnonzero(frame.numbers == atomic_numbers[name]) for name in amounts}
        pools = [(name, found[name], amounts[name]) for name in sorted(amounts)]
    gone: list[int] = []
    for name, pool, amount in pools:
        count = round(amount * len(pool)) if isinstance(amount, float) else amount
        if count > len(pool):
            raise ValueError(f"perturb.vacancies: {count} atoms ({name}) are to go, the structure has {len(pool)}")
        gone += rng.choice(pool, count, replace=False).tolist() if count else []
    kept = np.setdiff1d(np.arange(len(frame)), gone)
    if not len(kept):
        raise ValueError(f"perturb.vacancies: none of the {len(frame)} atoms would stay")
    return Frame(frame.numbers[kept], frame.cell, frame.positions[kept], frame.pbc)


def sources(system: SystemSection) -> list[Frame]:
    """The structures of a system as frames; see :func:`structures`."""
    return [Frame.from_atoms(made) for _, _, made in structures(system)]


def structures(system: SystemSection) -> list[tuple[Path, Atoms, Atoms]]:
    """The structures of a system: every image of every file, as it is there, and as a slab or supercell if asked for.

    Raises InputError naming what cannot be read or made, all of it at once.
    """
    problems: list[str] = []
    given: list[tuple[Path, Atoms, Atoms]] = []
    for path in system.structures:
        try:
            given += [(path, one, _repeated(_cut(one, system.slab), system.supercell)) for one in _images(path)]
        except ValueError as error:
            problems.append(f"system.structures: {path} (system {system.name}): {' '.join(str(error).split())}")
    if problems:
        raise InputError(problems)
    return given


def copy_of(frame: Frame, system: SystemSection, rng: np.random.Generator) -> Frame:
    """An altered copy of a structure; raises InputError where it cannot be made."""
    try:
        return altered(frame, system.perturb, rng)
    except ValueError as error:
        raise InputError(f"system.{error} (system {system.name}); correct the table or the structure") from None


def starts(system: SystemSection, seed: int) -> list[Frame]:
    """Where dynamics begins: the structures of a system, or ``perturb.count`` altered copies of each.

    Random numbers follow from ``seed``, the structure itself and the number of the copy, so that
    adding or reordering files leaves the other starts as they were. Raises InputError.
    """
    given = sources(system)
    if not system.perturb.count:
        return given
    return [
        copy_of(frame, system, np.random.default_rng([seed, int(frame.frame_id, 16), copy]))
        for frame in given
        for copy in range(system.perturb.count)
    ]


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


def _cut(image: Atoms, slab: SlabSection | None) -> Atoms:
    """A slab, periodic in all directions: what plane waves, LAMMPS and deepmd all take."""
    from ase.build import surface

    if slab is None:
        return image
    if image.cell.rank < 3:
        raise ValueError("a slab is cut out of a crystal, with three lattice vectors; remove system.slab")
    return surface(image, slab.miller, slab.layers, vacuum=slab.vacuum / 2, periodic=True)


def _repeated(image: Atoms, repeats: tuple[int, int, int]) -> Atoms:
    if repeats != (1, 1, 1) and image.cell.rank < 3:
        raise ValueError("a supercell needs three lattice vectors; remove system.supercell")
    return image.repeat(repeats)
