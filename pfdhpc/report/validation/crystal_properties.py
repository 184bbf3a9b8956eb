"""What a potential says of a crystal: its lattice, stiffness, structure when warm, and whether energy is conserved.

Everything takes ASE Atoms with a calculator that gives energy, forces and stress. Å, eV, K, fs; moduli in GPa.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from ase import Atoms, units

FMAX = 0.005
"""eV/Å (and eV/Å³ times a length for the cell): where a relaxation ends."""
RELAX_STEPS = 300
STEP, SIDE, FURTHER = 0.02, 3, 4
"""Of an equation of state: relative change of the volume from one to the next, how many there are to each side, and
how many more at most towards a minimum that is not well among these."""
STRAIN = 0.005
"""Of a lattice vector, for the elastic constants."""
MD_ATOMS = 64
BIN, RANGE = 0.05, 6.0
"""Å: width of a bin, and range, of a radial distribution function."""
THZ = 1e12 * units._hplanck / units._e
"""Energy of one THz, eV."""
Tell = Callable[[str], None]


class NoCrystal(ValueError):
    """The structure is not one these calculations are for, or the model takes it apart."""


@dataclass(frozen=True, eq=False)
class Equation:
    """Energy (eV/atom) at volumes (Å³/atom), and the Birch-Murnaghan fit: V0 and the bulk modulus B0 in GPa."""

    volumes: np.ndarray
    energies: np.ndarray
    volume: float
    bulk_modulus: float


@dataclass(frozen=True, eq=False)
class Elastic:
    """C (6, 6) in GPa, Voigt order; averages by Hill; ``stable``: C is positive definite (Born)."""

    constants: np.ndarray
    bulk_modulus: float
    shear_modulus: float
    stable: bool


@dataclass(frozen=True, eq=False)
class Warm:
    """Dynamics at a temperature: g(r) at distances, and afterwards the drift of the energy at constant energy."""

    distances: np.ndarray
    g: np.ndarray
    temperature: float  # K, as it came out
    drift: float  # meV/atom/ps
    n_atoms: int


@dataclass(frozen=True, eq=False)
class Vibrations:
    """Phonon density of states (1/THz) at frequencies (THz), and the lowest one; below zero: unstable."""

    frequencies: np.ndarray
    density: np.ndarray
    lowest: float


def relaxed(atoms: Atoms, calculator: object, cell: bool = True) -> Atoms:
    """A copy at rest, with its cell if ``cell``; raises NoCrystal where it does not come to rest."""
    from ase.filters import FrechetCellFilter
    from ase.optimize import BFGS

    atoms = atoms.copy()
    atoms.calc = calculator
    volume = atoms.get_volume()
    optimizer = BFGS(FrechetCellFilter(atoms) if cell else atoms, logfile=None)
    if not optimizer.run(fmax=FMAX, steps=RELAX_STEPS):
        raise NoCrystal(f"it does not come to rest in {RELAX_STEPS} steps")
    if not 0.5 < atoms.get_volume() / volume < 2:
        raise NoCrystal(f"its volume changes from {volume:.1f} to {atoms.get_volume():.1f} Å³")
    return atoms


def lattice(cell: Sequence[float]) -> str:
    """The Bravais lattice of a cell (a, b, c in Å and the angles) with its lengths, as in ``FCC a=5.431``."""
    from ase.cell import Cell

    found = Cell.fromcellpar(cell).get_bravais_lattice(eps=5e-3)
    lengths = {name: value for name, value in found.vars().items() if name in ("a", "b", "c")}
    return " ".join([found.name, *(f"{name}={value:.4g}" for name, value in lengths.items())])


def equation_of_state(atoms: Atoms, calculator: object) -> Equation:
    """``atoms`` scaled, the inner coordinates kept, about the volume they have or, if that is another one, about the
    lowest in energy; raises NoCrystal without a minimum in reach."""

    def scaled(step: int) -> Atoms:
        image = atoms.copy()
        image.set_cell(atoms.cell * (1 + STEP * step) ** (1 / 3), scale_atoms=True)
        return image

    found = {step: energy(scaled(step), calculator) for step in range(-SIDE, SIDE + 1)}
    for _ in range(FURTHER):
        lowest, first, last = min(found, key=found.get), min(found), max(found)
        if first + 2 <= lowest <= last - 2:
            break
        beyond = first - 1 if lowest < first + 2 else last + 1
        found[beyond] = energy(scaled(beyond), calculator)
    lowest = min(found, key=found.get)
    near = sorted(step for step in found if abs(step - lowest) <= SIDE)
    volumes = np.array([scaled(step).get_volume() for step in near]) / len(atoms)
    return fitted(volumes, np.array([found[step] for step in near]) / len(atoms))


def energy(atoms: Atoms, calculator: object) -> float:
    """eV."""
    atoms.calc = calculator
    return float(atoms.get_potential_energy())


def fitted(volumes: np.ndarray, energies: np.ndarray) -> Equation:
    """The Birch-Murnaghan fit (third order); raises NoCrystal where there is no minimum in reach."""
    import warnings

    from ase.eos import EquationOfState

    volume = modulus = np.nan
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of fits that are no minimum, which is told below
            volume, _, modulus = EquationOfState(volumes, energies, eos="birchmurnaghan").fit(warn=False)
    except (ValueError, RuntimeError):
        pass
    if not (volumes.min() < volume < volumes.max() and modulus > 0):
        raise NoCrystal(f"its energy has no minimum between {volumes.min():.1f} and {volumes.max():.1f} Å³/atom")
    return Equation(volumes, energies, float(volume), float(modulus / units.GPa))


def elastic_constants(atoms: Atoms, calculator: object, guess: object = None) -> Elastic:
    """From the stress of strained cells, forward and back, the atoms relaxed in each (relaxed-ion constants).

    Where steps of ``calculator`` are dear, ``guess``, another one, brings the atoms near to their places first.
    """
    constants = np.zeros((6, 6))
    for column in range(6):
        stresses = []
        for sign in (1, -1):
            image = atoms.copy()
            image.set_cell(atoms.cell @ (np.eye(3) + _strain(column, sign * STRAIN)), scale_atoms=True)
            image = image if guess is None else relaxed(image, guess, cell=False)
            stresses.append(relaxed(image, calculator, cell=False).get_stress() / units.GPa)
        constants[:, column] = (stresses[0] - stresses[1]) / (2 * STRAIN)
    constants = (constants + constants.T) / 2
    return averaged(constants)


def averaged(constants: np.ndarray) -> Elastic:
    """Voigt-Reuss-Hill averages of C (6, 6) in GPa."""
    stable = bool(np.linalg.eigvalsh(constants).min() > 0)
    bulk, shear = _voigt(constants)
    if stable:
        low = _reuss(np.linalg.inv(constants))
        bulk, shear = (bulk + low[0]) / 2, (shear + low[1]) / 2
    return Elastic(constants, bulk, shear, stable)


def _voigt(c: np.ndarray) -> tuple[float, float]:
    normal, off = np.trace(c[:3, :3]), c[0, 1] + c[0, 2] + c[1, 2]
    return float((normal + 2 * off) / 9), float((normal - off + 3 * np.trace(c[3:, 3:])) / 15)


def _reuss(s: np.ndarray) -> tuple[float, float]:
    normal, off = np.trace(s[:3, :3]), s[0, 1] + s[0, 2] + s[1, 2]
    return float(1 / (normal + 2 * off)), float(15 / (4 * normal - 4 * off + 3 * np.trace(s[3:, 3:])))


def _strain(column: int, size: float) -> np.ndarray:
    """The symmetric strain of one Voigt component (xx, yy, zz, yz, xz, xy); shears count twice, as engineers do."""
    first, second = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))[column]
    strain = np.zeros((3, 3))
    strain[first, second] += size / 2
    strain[second, first] += size / 2
    return strain


def warm(atoms: Atoms, calculator: object, temperature: float, steps: int, timestep: float, tell: Tell) -> Warm:
    """Langevin dynamics of a supercell, a half of it to settle; then a half as long at constant energy."""
    from ase.md.verlet import VelocityVerlet

    atoms = supercell(atoms, MD_ATOMS)
    atoms.calc = calculator
    found, temperatures = [], []
    for image in bath(atoms, temperature, steps, timestep):
        tell("dynamics")
        found.append(distribution(image))
        temperatures.append(image.get_temperature())
    energies = []
    free = VelocityVerlet(atoms, timestep * units.fs)
    free.attach(lambda: energies.append(atoms.get_total_energy()), interval=5)
    free.run(max(20, steps // 2))
    times = 5 * timestep / 1000 * np.arange(len(energies))
    drift = 1000 * np.polyfit(times, energies, 1)[0] / len(atoms)
    g = np.mean(found, axis=0)
    return Warm(BIN * (0.5 + np.arange(len(g))), g, float(np.mean(temperatures)), float(drift), len(atoms))


def bath(atoms: Atoms, temperature: float, steps: int, timestep: float) -> Iterator[Atoms]:
    """Langevin dynamics of ``atoms``, which have a calculator; from the second half every tenth step."""
    from ase.md.langevin import Langevin
    from ase.md.velocitydistribution import thermalize_momenta

    random = np.random.default_rng(1)
    # half of the kinetic energy goes into the potential
    thermalize_momenta(atoms, temperature_K=2 * temperature, rng=random)
    friction = 0.02 / units.fs
    works = Langevin(atoms, timestep * units.fs, temperature_K=temperature, friction=friction, rng=random, fixcm=False)
    for step in range(0, steps, 10):
        works.run(10)
        if not np.isfinite(atoms.positions).all():
            raise NoCrystal("its dynamics broke down")
        if 2 * step >= steps:
            yield atoms


def supercell(atoms: Atoms, n_atoms: int) -> Atoms:
    """Repeated to about ``n_atoms``, as near to a cube as it goes."""
    from ...data import Frame
    from ...engines.explore.stability_test import replicated

    return replicated(Frame.from_atoms(atoms), n_atoms).to_atoms()


def distribution(atoms: Atoms, width: float = BIN) -> np.ndarray:
    """g(r) in bins of so many Å up to :data:`RANGE`."""
    from ase.neighborlist import neighbor_list

    edges = np.arange(0.0, RANGE + width / 2, width)
    counts, _ = np.histogram(neighbor_list("d", atoms, RANGE), edges)
    shells = 4 / 3 * np.pi * np.diff(edges**3)
    return counts / len(atoms) / shells / (len(atoms) / atoms.get_volume())


def repeats(atoms: Atoms, reach: float = 10.0) -> tuple[int, int, int]:
    """Of the cell in each direction, so that the supercell is at least ``reach`` Å wide."""
    heights = atoms.get_volume() / np.linalg.norm(np.cross(atoms.cell[[1, 2, 0]], atoms.cell[[2, 0, 1]]), axis=1)
    return tuple(int(count) for count in np.maximum(1, np.ceil(reach / heights)))


def vibrations(atoms: Atoms, calculator: object) -> Vibrations:
    """Phonons by finite displacements in a supercell, on a mesh of wave vectors."""
    from ase.phonons import Phonons

    with TemporaryDirectory(prefix="pfdhpc-phonons-") as folder:
        name = str(Path(folder) / "phonons")
        phonons = Phonons(atoms, calculator, supercell=repeats(atoms), delta=0.01, name=name)
        phonons.run()
        phonons.read(acoustic=True)
        mesh = [np.array(point) for point in np.ndindex(8, 8, 8)]
        energies = phonons.band_structure(np.array(mesh) / 8 - 0.4375, verbose=False).ravel() / THZ
    density, edges = np.histogram(energies, bins=80, density=True)
    return Vibrations((edges[1:] + edges[:-1]) / 2, density, float(energies.min()))


def crystal(atoms: Atoms) -> Atoms:
    """The same; raises NoCrystal for what is not periodic in three directions."""
    if not atoms.pbc.all() or atoms.cell.rank < 3:
        raise NoCrystal("it is not periodic in three directions")
    return atoms


def cubic_constants(elastic: Elastic) -> Sequence[tuple[str, float]]:
    """C11, C12, C44 as averages over the axes: what there is in a cubic crystal, in its conventional axes."""
    c = elastic.constants
    averages = np.trace(c[:3, :3]) / 3, (c[0, 1] + c[0, 2] + c[1, 2]) / 3, np.trace(c[3:, 3:]) / 3
    return list(zip(("C11", "C12", "C44"), map(float, averages), strict=True))
