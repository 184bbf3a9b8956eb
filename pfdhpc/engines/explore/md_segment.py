"""One segment of MD, the same for every engine: when frames are kept, guards, and what stops it."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from time import perf_counter
from typing import NamedTuple

import numpy as np
from ase.data import atomic_masses

from ...config.explore import ExploreSection
from ...data import Frame, Label, Origin, Record
from ...errors import TaskError
from ...units import K_BOLTZMANN
from ..base import SegmentResult, SegmentTask
from .guards import Guards

GUARD_STRIDE = 10
"""Steps between two looks of the guards, at most: the kept head of an exploding trajectory is healthy."""

AMU_A2_PER_FS2 = 103.6426965
"""One amu (Å/fs)² in eV."""


class Breakdown(Exception):
    """The engine could not go on with a trajectory; the message is the reason kept with it."""


class Snapshot(NamedTuple):
    """One step of a trajectory: positions in any periodic image, the instantaneous ``temperature`` in K."""

    frame: Frame
    label: Label
    temperature: float


class Motion(ABC):
    """A trajectory in progress. Its methods raise :class:`Breakdown` when the engine cannot go on."""

    @abstractmethod
    def advance(self, steps: int) -> None:
        """Do so many MD steps."""

    @abstractmethod
    def snapshot(self) -> Snapshot:
        """The present configuration with the first model's prediction."""

    @abstractmethod
    def deviation(self) -> float:
        """Largest over the atoms of the committee's force deviation, eV/Å, now; NaN with one model."""

    @abstractmethod
    def state(self) -> bytes:
        """What the next segment starts from."""


def run_segment(section: ExploreSection, task: SegmentTask, begin: Callable[[SegmentTask], Motion]) -> SegmentResult:
    """Run a segment on the motion that ``begin`` sets up at its first configuration.

    Frames are kept at multiples of ``section.interval``; the step in their origin counts from the start of
    the segment. Raises TaskError when a replica cannot even begin at its start structure.
    """
    started = perf_counter()
    records: list[Record] = []
    guards = Guards(section.guard, task.start)
    done, state, begun = 0, None, False
    try:
        motion = begin(task)
        stopped = guards.violation(*motion.snapshot())
        begun = not stopped
        for step in () if stopped else stops(section):
            motion.advance(step - done)
            snapshot = motion.snapshot()
            stopped = guards.violation(*snapshot)
            if stopped:
                break
            done = step
            if step % section.interval == 0:
                records.append(_record(section, task, step, snapshot, motion.deviation()))
        if not stopped:
            state = motion.state()
    except Breakdown as error:
        stopped = str(error)
    if not begun and task.state is None:
        raise TaskError(f"replica {task.replica} cannot begin at its start structure: {stopped}")
    seconds = perf_counter() - started
    return SegmentResult(task.replica, tuple(records), state, done, stopped, seconds)


def stops(section: ExploreSection) -> list[int]:
    """The steps at which a segment pauses: for the guards, for the frames kept, and at its end."""
    stride = min(section.interval, GUARD_STRIDE)
    guards = range(stride, section.steps, stride)
    kept = range(section.interval, section.steps, section.interval)
    return sorted({*guards, *kept, section.steps})


def target(ramp: tuple[float, float], step: int, steps: int) -> float:
    """Target temperature (K) or pressure (bar) at a step: a linear ramp over the segment."""
    start, end = ramp
    return start + (end - start) * step / steps


def thermal_velocities(numbers: np.ndarray, temperature: float, seed: int) -> np.ndarray:
    """Maxwell-Boltzmann velocities (n, 3) in Å/fs at exactly ``temperature`` K.

    The total momentum is zero, except for a single atom, which then has three degrees of freedom.
    """
    masses = atomic_masses[numbers][:, None]
    velocities = np.random.default_rng(seed).standard_normal((len(numbers), 3)) / np.sqrt(masses)
    if len(numbers) > 1:
        velocities -= (masses * velocities).sum(axis=0) / masses.sum()
    kinetic = 0.5 * (masses * velocities**2).sum() * AMU_A2_PER_FS2
    wanted = 0.5 * freedoms(len(numbers)) * K_BOLTZMANN * temperature
    return velocities * np.sqrt(wanted / kinetic)


def freedoms(n_atoms: int) -> int:
    """Degrees of freedom of atoms whose centre of mass is at rest; a single atom keeps its three."""
    return 3 * n_atoms - 3 if n_atoms > 1 else 3


def force_deviation(forces: np.ndarray) -> float:
    """Largest over the atoms of sqrt(<|F - <F>|²>) over the models, eV/Å; ``forces`` (models, n, 3).

    The ``max_devi_f`` of DP-GEN: Zhang et al., Comput. Phys. Commun. 253 (2020) 107206.
    """
    spread = ((forces - forces.mean(axis=0)) ** 2).sum(axis=2).mean(axis=0)
    return float(np.sqrt(spread.max()))


def _record(section: ExploreSection, task: SegmentTask, step: int, snapshot: Snapshot, deviation: float) -> Record:
    barostat = section.ensemble.startswith("npt")
    origin = Origin(
        system=task.system,
        replica=task.replica,
        segment=task.segment,
        step=step,
        temperature=target(task.temperature, step, section.steps),
        pressure=target(task.pressure, step, section.steps) if barostat else float("nan"),
        deviation=deviation,
    )
    return Record(snapshot.frame, origin, snapshot.label)
