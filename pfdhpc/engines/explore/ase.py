"""Molecular dynamics by ASE with any of its calculators.

``options`` of the section: ``calculator``, the import path of a class or function; ``arguments``, its
keywords; ``model_argument``, the keyword that takes a model file. With it every model given to
``load_models`` becomes a calculator, the first drives the dynamics and all give the deviation;
without it the potential is fixed and models are ignored. ``path``: a folder to find the calculator in; ``reuse``:
calculators are kept from segment to segment, and reset between them.

========  =================================================================================
nve       velocity Verlet
nvt       canonical velocity rescaling (Bussi et al., J. Chem. Phys. 126 (2007) 014101): its only
          state is the velocities, so segments join exactly
langevin  BAOAB Langevin (Leimkuhler & Matthews, J. Chem. Phys. 138 (2013) 174102)
npt-iso   BAOAB with a Langevin-Hoover barostat (Quigley & Probert, J. Chem. Phys. 120 (2004) 11432)
npt-tri   the same, all components of the cell (:class:`FlexibleBarostat`)
========  =================================================================================

npt-aniso is refused. Random numbers follow from the seed of each segment; calculators are built anew or reset
for each, so that nothing they remember distinguishes a continued run from an uninterrupted one.
"""

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator, PropertyNotImplementedError
from ase.md.bussi import Bussi
from ase.md.langevinbaoab import LangevinBAOAB
from ase.md.md import MolecularDynamics
from ase.md.verlet import VelocityVerlet
from ase.parallel import DummyMPI

from ...config.explore import ExploreSection
from ...data import Frame, Label
from ...data.geometry import right_handed, right_handed_cell
from ...errors import InputError, TaskError, reason
from ...published_models import check_published
from ...units import BAR, FS, K_BOLTZMANN, virial_from_stress
from ..base import Explorer, SegmentResult, SegmentTask
from ..calculator_answers import consistent_energy
from ..calculators import Maker, named
from .input_checks import check_explore
from .md_segment import (
    Breakdown,
    Motion,
    Snapshot,
    force_deviation,
    freedoms,
    run_segment,
    target,
    thermal_velocities,
)

ALONE = DummyMPI()
"""One rank has a trajectory to itself. ASE would send random numbers round the whole job, and wait for it for ever."""


class AseExplorer(Explorer):
    """Any ASE calculator."""

    def __init__(self, section: ExploreSection):
        """Raises InputError when the calculator cannot be imported or refuses its arguments."""
        problems = check_explore(section)
        if problems:
            raise InputError(problems)
        self.section = section
        self.models: tuple[Path, ...] = ()
        self._make = Maker("explore.options", section.options)
        if "model_argument" not in section.options:
            self._try()
        for path in section.committee:
            self._try_member(path)

    def load_models(self, models: Sequence[Path], type_map: tuple[str, ...]) -> None:
        """``type_map`` is not needed: a calculator goes by the elements. Raises InputError for a damaged model."""
        self.models = tuple(Path(model).resolve() for model in models)
        for model in self.models:
            check_published(model)
        self._make.forget()

    def run(self, task: SegmentTask) -> SegmentResult:
        return run_segment(self.section, task, self.begin)

    def begin(self, task: SegmentTask) -> Motion:
        """The trajectory of ``task`` at its first configuration."""
        with _broken():
            return AseMotion(self.section, self._calculators(), task)

    def _try(self) -> None:
        try:
            self._calculators()
        except InputError as error:
            raise error.about(named("explore.options.arguments")) from None
        except Exception as error:  # there is no common class of what calculators raise
            place, text = self.section.options["calculator"], f"{type(error).__name__}: {error}"
            raise InputError(f"explore.options.arguments: {place} cannot be made with them: {text}") from error

    def _try_member(self, path: Path) -> None:
        keyword = self.section.options["model_argument"]
        try:
            self._make({**self.section.options.get("arguments", {}), keyword: str(path)})
        except InputError as error:
            raise error.about({"model.checkpoint": "explore.committee"}) from None
        except Exception as error:  # there is no common class of what calculators raise
            text = f"explore.committee: {path} cannot be loaded by {self._make.name}: {reason(error)}"
            raise InputError(text) from error

    def _calculators(self) -> list[BaseCalculator]:
        options = self.section.options
        arguments = options.get("arguments", {})
        keyword = options.get("model_argument")
        if keyword is None:
            return [self._make(arguments)]
        if not self.models:
            raise TaskError("no model is loaded; load_models comes first")
        return [self._make({**arguments, keyword: str(model)}) for model in self.models]


class FlexibleBarostat(LangevinBAOAB):
    """BAOAB Langevin dynamics whose barostat drags on the velocities as Quigley & Probert write it (Eq. 5b).

    ASE 3.29 adds the trace of the strain momentum, divided by the degrees of freedom, to all nine elements of
    the drag of a free cell: a change of volume would shear the velocities.
    """

    def _barostat_BAOAB_OU_gamma_mod(self) -> Any:
        """The drag of the barostat: a rate where the shape is fixed, else (3, 3), in ASE's unit of inverse time."""
        if self.hydrostatic:
            return super()._barostat_BAOAB_OU_gamma_mod()
        isotropic = np.trace(self.p_eps) / self.Ndof * np.identity(3)
        return (self.p_eps + isotropic) / self.barostat_mass


class AseMotion(Motion):
    """A trajectory in ASE, in a right-handed cell; a left-handed one is given back in every snapshot."""

    def __init__(self, section: ExploreSection, calculators: list[BaseCalculator], task: SegmentTask):
        self.section, self.task, self.calculators = section, task, calculators
        self.step = 0
        self.sign = 1.0 if right_handed(task.start) is task.start else -1.0  # of the user's lattice vectors
        self.atoms, strain_momentum = self._atoms()
        self.atoms.calc = calculators[0]
        self.dynamics = self._dynamics(strain_momentum)

    def advance(self, steps: int) -> None:
        with _broken():
            for _ in range(steps):
                self._set_targets()
                self.dynamics.step()
                self.step += 1

    def snapshot(self) -> Snapshot:
        with _broken():
            label = self._label()
        free = freedoms(len(self.atoms)) if self._at_rest() else 3 * len(self.atoms)
        temperature = 2 * self.atoms.get_kinetic_energy() / (free * K_BOLTZMANN)
        frame = Frame.from_atoms(self.atoms.copy())
        return Snapshot(replace(frame, cell=self.sign * frame.cell), label, temperature)

    def deviation(self) -> float:
        if len(self.calculators) == 1:
            return float("nan")
        with _broken():
            others = [calculator.get_forces(self.atoms) for calculator in self.calculators[1:]]
            return force_deviation(np.array([self.atoms.get_forces(), *others]))

    def state(self) -> bytes:
        buffer = io.BytesIO()
        np.savez(
            buffer,
            numbers=self.atoms.numbers,
            positions=self.atoms.positions,
            momenta=self.atoms.get_momenta(),
            cell=np.asarray(self.atoms.cell),
            strain_momentum=np.asarray(getattr(self.dynamics, "p_eps", 0.0)),
        )
        return buffer.getvalue()

    def _atoms(self) -> tuple[Atoms, Any]:
        """The atoms and the momentum of the barostat at the start of the segment."""
        atoms = right_handed(self.task.start).to_atoms()
        if self.task.state is None:
            velocities = thermal_velocities(atoms.numbers, self.task.temperature[0], self.task.seed)
            atoms.set_velocities(velocities / FS)
            return atoms, 0.0
        with np.load(io.BytesIO(self.task.state), allow_pickle=False) as saved:
            if not np.array_equal(saved["numbers"], atoms.numbers):
                raise Breakdown("the restart bytes belong to another structure")
            atoms.set_cell(right_handed_cell(saved["cell"]))
            atoms.positions[:] = saved["positions"]
            atoms.set_momenta(saved["momenta"])
            momentum = saved["strain_momentum"]
        full = self.section.ensemble == "npt-tri"
        if (momentum.ndim == 2) != full:
            return atoms, 0.0  # the ensemble was changed since: the barostat starts at rest
        return atoms, momentum if full else float(momentum)

    def _dynamics(self, strain_momentum: Any) -> MolecularDynamics:
        section, task = self.section, self.task
        step, temperature = section.timestep * FS, task.temperature[0]
        damping = section.temperature_damping * FS
        rng = np.random.default_rng(task.seed)
        if section.ensemble == "nve":
            return VelocityVerlet(self.atoms, step, comm=ALONE)
        if section.ensemble == "nvt":
            dynamics = Bussi(self.atoms, step, temperature, damping, rng, comm=ALONE)
            dynamics.ndof = freedoms(len(self.atoms))  # the centre of mass is at rest and stays there
            return dynamics
        barostat = {}
        if section.ensemble != "langevin":
            barostat = {
                "externalstress": -task.pressure[0] * BAR,
                "hydrostatic": section.ensemble == "npt-iso",
                "P_tau": section.pressure_damping * FS,
            }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it announces its choice of the barostat's mass
            dynamics = FlexibleBarostat(
                self.atoms, step, temperature_K=temperature, T_tau=damping, rng=rng, comm=ALONE, **barostat
            )
        dynamics.p_eps = strain_momentum
        return dynamics

    def _set_targets(self) -> None:
        """The temperature and pressure of the ramps at this step."""
        temperature = target(self.task.temperature, self.step, self.section.steps)
        if isinstance(self.dynamics, Bussi):
            self.dynamics.temp = temperature * K_BOLTZMANN
            self.dynamics.target_kinetic_energy = 0.5 * self.dynamics.temp * self.dynamics.ndof
        elif isinstance(self.dynamics, LangevinBAOAB):
            self.dynamics.set_temperature(temperature)
            if self.section.ensemble.startswith("npt"):
                stress = -target(self.task.pressure, self.step, self.section.steps) * BAR
                self.dynamics.externalstress = stress if self.dynamics.hydrostatic else stress * np.eye(3)

    def _label(self) -> Label:
        forces, energy = self.atoms.get_forces(), consistent_energy(self.atoms)
        if not self.task.start.has_virial:
            return Label(energy, forces)
        try:
            virial = virial_from_stress(self.atoms.get_stress(voigt=False), self.atoms.get_volume())
        except (PropertyNotImplementedError, NotImplementedError, ValueError):
            virial = None  # no stress in this calculator, or no cell to define it
        return Label(energy, forces, virial)

    def _at_rest(self) -> bool:
        return self.section.ensemble in ("nve", "nvt")


@contextmanager
def _broken() -> Iterator[None]:
    """Whatever a calculator raises, and there is no common class, stops the trajectory with a reason."""
    try:
        yield
    except (Breakdown, TaskError, InputError):
        raise
    except Exception as error:
        raise Breakdown(f"{type(error).__name__}: {error}".split("\n")[0]) from error
