"""Molecular dynamics with a labeler's forces, in segments: what one leaves is all the next one needs.

=========  ==============================================================================
nve        velocity Verlet
langevin   BAOAB (Leimkuhler & Matthews, J. Chem. Phys. 138 (2013) 174102)
=========  ==============================================================================

Both by ASE. The label at the end of a segment travels to the next one, whose first step needs its forces,
so that no calculation is made twice; random numbers follow from each segment's seed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...config.init import AimdSection
from ...config.label import LabelSection
from ...data import Frame, Label
from ...errors import LabelError
from ...units import FS
from ..base import Labeler
from ..explore.md_segment import thermal_velocities
from .label_checks import label_with_ladder


@dataclass(frozen=True, eq=False)
class Point:
    """Where a trajectory is. ``velocities`` (n, 3) Å/fs; ``label`` is None before the first calculation."""

    frame: Frame
    velocities: np.ndarray
    label: Label | None = None


@dataclass(frozen=True)
class AimdResult:
    """What a segment gave: its end, or the frame at which there was no label, and why."""

    kept: tuple[Point, ...]  # labelled, in the order of the steps: the start of a trajectory, and the end
    calculations: int
    failed: Frame | None = None
    reason: str = ""
    killed: int | None = None  # of the error (LabelError)


def at_rest(frame: Frame, temperature: float, seed: int) -> Point:
    """The start of a trajectory: thermal velocities, the centre of mass at rest."""
    return Point(frame, thermal_velocities(frame.numbers, temperature, seed))


def run_segment(
    labeler: Labeler, section: LabelSection, aimd: AimdSection, comm: Any, start: Point, temperature: float, seed: int
) -> AimdResult:
    """``aimd.interval`` steps from ``start``. All ranks of the team ``comm`` (None: one rank) call it.

    Every label is checked, and tried again, as any other; the first one that fails ends the segment.
    """
    calculator = _calculator(lambda frame: _label(labeler, frame, section, comm), start)
    kept = []
    try:
        atoms = start.frame.to_atoms()
        atoms.set_velocities(start.velocities / FS)
        atoms.calc = calculator
        if start.label is None:
            atoms.get_potential_energy()
            kept.append(Point(start.frame, start.velocities, calculator.made))
        dynamics = _dynamics(atoms, aimd, temperature, seed)
        for _ in range(aimd.interval):
            dynamics.step()
    except LabelError as error:
        return AimdResult(tuple(kept), calculator.count, calculator.seen, str(error), error.killed)
    kept.append(Point(calculator.seen, atoms.get_velocities() * FS, calculator.made))
    return AimdResult(tuple(kept), calculator.count)


def _label(labeler: Labeler, frame: Frame, section: LabelSection, comm: Any) -> Label:
    """One label, the first rank's on all of them: the last digits decide where a trajectory goes."""
    label, _ = label_with_ladder(labeler, frame, section, comm)
    return label if comm is None or comm.Get_size() == 1 else comm.bcast(label)


def _calculator(make: Callable[[Frame], Label], start: Point) -> Any:
    """An ASE calculator whose results are labels: ``count`` of them, the last one ``made`` of the frame ``seen``."""
    from ase.calculators.calculator import Calculator

    class Labels(Calculator):
        implemented_properties = ["energy", "forces"]

        def __init__(self):
            super().__init__()
            self.count, self.seen, self.made = 0, start.frame, start.label
            if start.label is not None:
                self.atoms, self.results = start.frame.to_atoms(), _results(start.label)

        def calculate(self, atoms, properties, system_changes):
            super().calculate(atoms, properties, system_changes)
            self.count, self.seen = self.count + 1, Frame.from_atoms(atoms)
            self.made = make(self.seen)
            self.results = _results(self.made)

    return Labels()


def _results(label: Label) -> dict[str, Any]:
    return {"energy": label.energy, "free_energy": label.energy, "forces": label.forces.copy()}


def _dynamics(atoms: Any, aimd: AimdSection, temperature: float, seed: int) -> Any:
    from ase.md.langevinbaoab import LangevinBAOAB
    from ase.md.verlet import VelocityVerlet

    if aimd.ensemble == "nve":
        return VelocityVerlet(atoms, aimd.timestep * FS)
    rng = np.random.default_rng(seed)
    step, damping = aimd.timestep * FS, aimd.damping * FS
    return LangevinBAOAB(atoms, step, temperature_K=temperature, T_tau=damping, rng=rng)
