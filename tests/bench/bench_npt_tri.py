"""A free cell by the engine ``ase`` against LAMMPS: mean cell, fluctuations and shear of a small soft crystal.

    OMP_NUM_THREADS=1 python tests/bench/bench_npt_tri.py [--steps 60000] [--seeds 4] [--ways lammps ase]

32 atoms of argon at 30 K and 1000 bar, whose Lennard-Jones potential LAMMPS has as a pair style, in place of deepmd's,
and ASE as a calculator. Both run the dynamics of their engine (``npt-tri``), with a restart every 5000 steps. The third
row is the engine ``ase`` with ASE's own drag, which has the trace in its shears. Errors are standard errors over blocks
of all seeds.

``fix npt`` keeps the centre of mass at rest, Langevin dynamics moves it: their volumes are distributed as V^(N-1) and
V^N times the Boltzmann factor. LAMMPS' frames are weighted by V, which takes it to the other's ensemble. The strain is
Green-Lagrange's, which no rotation changes. By the cube's symmetry all shears are zero, and so are their products with
each other and with the volume; the last column is the mean pressure less the external one, with its kinetic part.
"""

import argparse
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
import numpy as np  # noqa: E402
from ase.build import bulk  # noqa: E402
from ase.calculators.calculator import Calculator  # noqa: E402
from ase.neighborlist import neighbor_list  # noqa: E402

from pfdhpc.config.explore import ExploreSection  # noqa: E402
from pfdhpc.data import Frame  # noqa: E402
from pfdhpc.engines.base import SegmentTask  # noqa: E402
from pfdhpc.engines.explore import ase as engine  # noqa: E402
from pfdhpc.engines.explore.lammps import PREPARE, LammpsExplorer, LammpsMotion  # noqa: E402
from pfdhpc.engines.explore.md_segment import Motion, Snapshot  # noqa: E402
from pfdhpc.units import BAR, K_BOLTZMANN  # noqa: E402

EPSILON, SIGMA, CUTOFF = 0.0104, 3.40, 6.5
POTENTIAL = f"pair_style lj/smooth/linear {CUTOFF}\npair_coeff * * {EPSILON} {SIGMA}"
SKIN = 1.5
"""Å by which pairs may come nearer than in the perfect crystal: no atom leaves its place."""
TEMPERATURE, PRESSURE = 30.0, 1000.0
"""K and bar: at 60 K planes of so few atoms slip, and the cell goes away with them."""
SEGMENT, INTERVAL, BLOCKS = 5000, 20, 10
"""Steps of a segment and between two frames, blocks of a seed."""
LONGER = 5
"""Times as many steps in LAMMPS, which takes a thirtieth of the time for one."""
WARM_UP = 0.1
"""Part of a trajectory that is left out."""
COLUMNS = ("volume", "var V", "strain", "var strain", "shear", "var shear", "shear·V", "shear·shear", "pressure")
SCALES = (1, 1, 1e3, 1e6, 1e3, 1e6, 1e3, 1e6, 1)
UNITS = ("Å³", "Å⁶", "10⁻³", "10⁻⁶", "10⁻³", "10⁻⁶", "10⁻³ Å³", "10⁻⁶", "bar")
CELL = bulk("Ar", a=5.30, cubic=True) * (2, 2, 2)


class LennardJones(LammpsMotion):
    """LAMMPS' dynamics of the engine with another pair style."""

    def _set_model(self) -> None:
        self._commands(f"{POTENTIAL}{PREPARE}timestep {self.section.timestep / 1000:.17g}")


class Pairs(Calculator):
    """The same potential, its force shifted to zero at the cutoff, over the pairs that the crystal has."""

    implemented_properties = ("energy", "free_energy", "forces", "stress")

    def __init__(self):
        super().__init__()
        self.first, self.second, self.shifts = neighbor_list("ijS", CELL, CUTOFF + SKIN)
        self.energy_at, self.force_at = (values[0] for values in _lennard_jones(np.array([CUTOFF])))

    def calculate(self, atoms, properties, system_changes):
        super().calculate(atoms, properties, system_changes)
        apart = atoms.positions[self.second] - atoms.positions[self.first] + self.shifts @ atoms.cell.array
        length = np.linalg.norm(apart, axis=1)
        near = length < CUTOFF
        length, apart, first = length[near], apart[near], self.first[near]
        energy, force = _lennard_jones(length)
        energy, force = energy - self.energy_at + (length - CUTOFF) * self.force_at, force - self.force_at
        pushes = apart * (force / length)[:, None]  # on the second atom; every pair is there twice
        forces = -np.array([np.bincount(first, pushes[:, axis], len(atoms)) for axis in range(3)]).T
        stress = -0.5 * apart.T @ pushes / atoms.get_volume()
        total = 0.5 * float(energy.sum())
        self.results = {"energy": total, "free_energy": total, "forces": forces}
        self.results["stress"] = stress.ravel()[[0, 4, 8, 5, 2, 1]]


def _lennard_jones(length: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Energy (eV) and repulsion (eV/Å) at distances (Å)."""
    sixth = (SIGMA / length) ** 6
    return 4 * EPSILON * (sixth**2 - sixth), 24 * EPSILON * (2 * sixth**2 - sixth) / length


def in_lammps(section: ExploreSection) -> Callable[[SegmentTask], Motion]:
    explorer = LammpsExplorer(section)
    explorer.type_map, explorer.models = ("Ar",), (Path(),)  # one model, that no pair style reads
    return lambda task: LennardJones(explorer._lmp, explorer, task)


def in_ase(section: ExploreSection, own_drag: bool) -> Callable[[SegmentTask], Motion]:
    if own_drag:
        engine.FlexibleBarostat = engine.LangevinBAOAB
    return lambda task: engine.AseMotion(section, [Pairs()], task)


WAYS = {
    "lammps": in_lammps,
    "ase": partial(in_ase, own_drag=False),
    "ase, own drag": partial(in_ase, own_drag=True),
}
SLIPPED = 0.1
"""Shear at which the crystal is another one."""


def trajectory(way: str, seed: int, steps: int) -> np.ndarray:
    """Volume, six strains (xx, yy, zz, yz, xz, xy) and pressure (bar) of the frames, (n, 8)."""
    section = ExploreSection(
        ensemble="npt-tri", timestep=5.0, steps=SEGMENT, interval=INTERVAL, temperature_damping=500.0,
        pressure_damping=2500.0,
    )  # fmt: skip
    begin, start, rows = WAYS[way](section), Frame.from_atoms(CELL), []
    task = SegmentTask("a", "a", start, None, 0, (TEMPERATURE,) * 2, (PRESSURE,) * 2, seed * 1_000_003)
    while len(rows) * INTERVAL < steps * (LONGER if way == "lammps" else 1):
        motion = begin(task)
        for _ in range(SEGMENT // INTERVAL):
            motion.advance(INTERVAL)
            rows.append(row(motion.snapshot(), start.cell))
        task = replace(task, state=motion.state(), segment=task.segment + 1, seed=task.seed + 1)
    frames = np.array(rows)
    assert np.abs(frames[:, 4:7]).max() < SLIPPED, "the crystal has slipped: take other seeds"
    return frames


def row(snapshot: Snapshot, reference: np.ndarray) -> np.ndarray:
    stretch = np.linalg.solve(reference, snapshot.frame.cell)
    strain, volume = 0.5 * (stretch @ stretch.T - np.eye(3)), snapshot.frame.volume
    kinetic = len(snapshot.frame) * K_BOLTZMANN * TEMPERATURE
    pressure = (kinetic + np.trace(snapshot.label.virial) / 3) / volume / BAR
    return np.array([volume, *strain[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]], pressure])


def observed(frames: np.ndarray, weighted: bool) -> np.ndarray:
    """The columns of the table from frames (n, 8)."""
    volumes, normal, shear, pressure = frames[:, 0], frames[:, 1:4], frames[:, 4:7], frames[:, 7]
    weights = volumes if weighted else np.ones(len(volumes))

    def mean(values: np.ndarray) -> float:
        return float(np.average(values, weights=weights))

    apart = volumes - mean(volumes)
    return np.array([
        mean(volumes), mean(apart**2), mean(normal.mean(axis=1)),
        mean((normal - np.average(normal, axis=0, weights=weights)).var(axis=1)),
        mean(shear.mean(axis=1)), mean((shear**2).mean(axis=1)), mean(apart * shear.sum(axis=1)),
        mean((shear * np.roll(shear, 1, axis=1)).mean(axis=1)), mean(pressure) - PRESSURE,
    ])  # fmt: skip


def table(way: str, seeds: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Means over blocks and their standard errors."""
    kept = [frames[round(WARM_UP * len(frames)) :] for frames in seeds]
    blocks = [block for frames in kept for block in np.array_split(frames, BLOCKS)]
    # A variance within a block lacks what changes from block to block: all frames give the value, blocks the error.
    spread = np.array([observed(block, way == "lammps") for block in blocks]).std(axis=0, ddof=1)
    return observed(np.concatenate(kept), way == "lammps"), spread / np.sqrt(len(blocks))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=60_000)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    asked = [(way, seed) for way in options.ways for seed in range(1, options.seeds + 1)]
    with ProcessPoolExecutor(options.processes, get_context("spawn"), max_tasks_per_child=1) as processes:
        found = list(processes.map(trajectory, *zip(*asked, strict=True), [options.steps] * len(asked)))
    rows = {
        way: table(way, [one for (name, _), one in zip(asked, found, strict=True) if name == way])
        for way in options.ways
    }
    print(f"{'':14s}" + "".join(f"{f'{name} / {unit}':>24s}" for name, unit in zip(COLUMNS, UNITS, strict=True)))
    for way, (values, errors) in rows.items():
        cells = zip(values * SCALES, errors * SCALES, strict=True)
        print(f"{way:14s}" + "".join(f"{value:>14.4f} ± {error:<7.4f}" for value, error in cells))
    for way in options.ways[1:] if options.ways[0] == "lammps" else []:
        apart = (rows[way][0] - rows["lammps"][0]) / np.hypot(rows[way][1], rows["lammps"][1])
        print(f"{way} from lammps, in standard errors: " + "  ".join(f"{value:+.1f}" for value in apart))


if __name__ == "__main__":
    main()
