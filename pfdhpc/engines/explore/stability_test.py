"""What a model is worth in LAMMPS: its speed, and whether it holds a trajectory together.

Both run the engine that explores (:mod:`..lammps`), one rank, with its guards, and watch it. What a teacher
that is an ASE calculator is compared by is its speed in ASE.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from ...config.explore import ExploreSection, GuardSection
from ...data import Frame
from ...errors import TaskError
from ...units import K_BOLTZMANN
from ..base import SegmentTask
from .ase import AseExplorer
from .lammps import LammpsExplorer
from .md_segment import Breakdown, Motion, Snapshot, freedoms

SETTLE = 300
DAMPING = 50
"""Steps of Langevin dynamics, and its friction time in steps, from the given positions to thermal ones."""
HOT = 3.0
"""Times the target temperature at which constant-energy dynamics counts as exploded: the atoms fell into a hole."""
MAX_DRIFT = 1.0
"""meV/atom/ps. An isolated harmonic solid that gains as much warms by 4 K a picosecond; a sound model and time
step stay far below."""
SEED = 1


@dataclass(frozen=True)
class Speed:
    """How fast a model runs MD."""

    atoms: int
    steps_per_second: float


@dataclass(frozen=True)
class Stability:
    """What became of a trajectory at constant energy."""

    atoms: int
    drift: float  # slope of the total energy, meV/atom/ps; nan when it stopped at the first look
    max_temperature: float  # K
    ok: bool
    reason: str  # why it is not, empty if it is


def speed(
    models: Sequence[Path],
    frame: Frame,
    type_map: tuple[str, ...],
    steps: int,
    repeats: int,
    n_atoms: int = 256,
    temperature: float = 300.0,
) -> tuple[Speed, ...]:
    """MD steps a second of each frozen model on ``frame`` repeated to about ``n_atoms``, medians of ``repeats``.

    The models run in turn, so that a machine that slows down slows all of them; loading them is not counted.
    ``type_map``: at least the elements of the frame, all known to every model. Raises TaskError when a model
    cannot run, and for a frame that is not periodic in three directions.
    """
    _check(frame)
    cell = replicated(frame, n_atoms)
    explorer = _Watched(_section("nve", steps, 1.0, GuardSection()))
    seconds: list[list[float]] = [[] for _ in models]
    try:
        for _ in range(repeats):
            for model, found in zip(models, seconds, strict=True):
                explorer.load_models([model], type_map)
                stopped = explorer.run(_task(cell, temperature)).stopped
                if stopped:
                    raise TaskError(f"the speed of {Path(model).name} cannot be measured: {stopped}")
                found.append(explorer.seconds)
    finally:
        explorer.close()
    return tuple(Speed(len(cell), steps / median(found)) for found in seconds)


def calculator_speed(
    explorer: AseExplorer, frame: Frame, steps: int, n_atoms: int = 256, temperature: float = 300.0
) -> Speed:
    """MD steps a second in ASE of the calculator that explores, as :func:`speed` of models in LAMMPS.

    Raises TaskError when it cannot run, and for a frame that is not periodic in three directions.
    """
    _check(frame)
    cell = replicated(frame, n_atoms)
    try:
        motion = explorer.begin(_task(cell, temperature))
        motion.advance(1)  # what the first call of a calculator does once is not counted
        started = time.perf_counter()
        motion.advance(steps)
    except Breakdown as error:
        raise TaskError(f"the speed of the teacher cannot be measured: {error}") from error
    return Speed(len(cell), steps / (time.perf_counter() - started))


def stability(
    model: Path,
    frame: Frame,
    type_map: tuple[str, ...],
    temperature: float,
    steps: int,
    n_atoms: int = 256,
    timestep: float = 1.0,
    guard: GuardSection = GuardSection(),  # noqa: B008  it never changes
) -> Stability:
    """NVE dynamics of ``frame``, repeated to about ``n_atoms``, after a short thermalisation at ``temperature`` K.

    It is ok when neither stretch meets a bound of ``guard``, the temperature stays below ``HOT`` times the
    target and the total energy drifts by less than ``MAX_DRIFT``. ``timestep`` in fs. Raises TaskError for a
    frame that is not periodic in three directions, or has elements that are not in ``type_map``.
    """
    _check(frame)
    cell = replicated(frame, n_atoms)
    bounds = guard.model_copy(update={"max_temperature": min(guard.max_temperature, HOT * temperature)})
    explorer = _Watched(_section("langevin", SETTLE, timestep, bounds))
    try:
        explorer.load_models([model], type_map)
        state, stopped = explorer.attempt(_task(cell, temperature))
        if stopped:
            hottest = max((look[2] for look in explorer.looks), default=np.nan)
            return Stability(len(cell), np.nan, hottest, False, f"while it was thermalised: {stopped}")
        explorer.section = _section("nve", steps, timestep, bounds)
        _, stopped = explorer.attempt(_task(cell, temperature, state))
        return _verdict(explorer.looks, timestep, len(cell), stopped)
    finally:
        explorer.close()


def replicated(frame: Frame, n_atoms: int) -> Frame:
    """``frame`` repeated along its lattice vectors to about ``n_atoms`` atoms, as near to a cube as it goes.

    Always the direction in which the cell is thinnest is doubled, tripled, ... next; never below one cell.
    """
    repeats = np.ones(3, int)
    heights = frame.volume / np.linalg.norm(np.cross(frame.cell[[1, 2, 0]], frame.cell[[2, 0, 1]]), axis=1)
    while True:
        longer = repeats.copy()
        longer[np.argmin(repeats * heights)] += 1
        sizes = [np.prod(count) * len(frame) for count in (repeats, longer)]
        if abs(sizes[1] - n_atoms) > abs(sizes[0] - n_atoms):
            return Frame.from_atoms(frame.to_atoms().repeat(tuple(repeats)))
        repeats = longer


class _Watch(Motion):
    """Passes everything on to a motion and notes in ``explorer`` the time of its steps, energies and temperatures."""

    def __init__(self, motion: Motion, explorer: "_Watched"):
        self.motion, self.explorer = motion, explorer
        self.step = 0

    def advance(self, steps: int) -> None:
        started = time.perf_counter()
        self.motion.advance(steps)
        self.explorer.seconds += time.perf_counter() - started
        self.step += steps

    def snapshot(self) -> Snapshot:
        snapshot = self.motion.snapshot()
        n_atoms = len(snapshot.frame)
        kinetic = 0.5 * freedoms(n_atoms) * K_BOLTZMANN * snapshot.temperature
        self.explorer.looks.append((self.step, (snapshot.label.energy + kinetic) / n_atoms, snapshot.temperature))
        return snapshot

    def deviation(self) -> float:
        return self.motion.deviation()

    def state(self) -> bytes:
        return self.motion.state()


class _Watched(LammpsExplorer):
    """The explorer, with what was seen of its last trajectory."""

    seconds = 0.0  # in MD steps
    looks: list[tuple[int, float, float]]  # step, total energy per atom (eV), temperature (K)

    def begin(self, task: SegmentTask) -> Motion:
        self.seconds, self.looks = 0.0, []
        return _Watch(super().begin(task), self)

    def attempt(self, task: SegmentTask) -> tuple[bytes | None, str]:
        """The state at the end of a segment, and why it was cut short, also where it could not even begin."""
        self._check(task)
        try:
            result = self.run(task)
        except TaskError as error:
            return None, str(error)
        return result.state, result.stopped


def _check(frame: Frame) -> None:
    if not frame.pbc.all() or frame.volume == 0:
        raise TaskError("the probes run crystals and liquids, periodic in three directions; this frame is not")


def _section(ensemble: str, steps: int, timestep: float, guard: GuardSection) -> ExploreSection:
    return ExploreSection(
        ensemble=ensemble,
        steps=steps,
        interval=steps,
        timestep=timestep,
        temperature_damping=DAMPING * timestep,
        guard=guard,
    )


def _task(cell: Frame, temperature: float, state: bytes | None = None) -> SegmentTask:
    return SegmentTask("probe", "probe", cell, state, 0, (temperature, temperature), (0.0, 0.0), SEED)


def _verdict(looks: list[tuple[int, float, float]], timestep: float, n_atoms: int, stopped: str) -> Stability:
    """``looks`` as in :class:`_Watched`, ``timestep`` in fs."""
    steps, energies, temperatures = np.array(looks or [(0, np.nan, np.nan)]).T
    drift = float("nan")
    if len(steps) > 1 and np.isfinite(energies).all():
        drift = 1000 * float(np.polyfit(steps * timestep / 1000, energies, 1)[0])
    reason = stopped
    if not reason and not abs(drift) <= MAX_DRIFT:
        reason = f"the total energy drifts by {drift:.2g} meV/atom/ps, more than {MAX_DRIFT:g}; shorten the time step"
    return Stability(n_atoms, drift, float(temperatures.max()), not reason, reason)
