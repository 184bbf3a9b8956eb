"""[[system]] and [explore]: where molecular dynamics starts and how it runs."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from .base import ExistingFile, Section, resolve
from .init import AlloySection, Amount, Element, SlabSection

Positive = Annotated[float, Field(gt=0)]
Temperature = Positive | tuple[Positive, Positive]
"""A temperature in K, or [start, end] of a linear ramp over one segment."""
Pressure = float | tuple[float, float]
"""A pressure in bar, or [start, end] of a linear ramp over one segment; negative under tension."""


def ends(ramp: float | tuple[float, float]) -> tuple[float, float]:
    """The values of a :data:`Temperature` or :data:`Pressure` at the start and the end of a segment."""
    start, end = ramp if isinstance(ramp, tuple) else (ramp, ramp)
    return start, end


class PerturbSection(Section):
    """Random changes of the start structures (:mod:`pfdhpc.engines.explore.perturb`).

    The frames of [init] are altered like this whatever ``count`` is.
    """

    count: int = Field(0, ge=0, description="perturbed copies of each start structure; 0: start as given")
    strain: float = Field(0.03, ge=0, lt=0.5, description="largest strain component")
    displacement: float = Field(0.05, ge=0, description="standard length of the random displacements, Å")
    vacancies: Amount | dict[Element, Amount] | None = Field(
        None, description="atoms left out: a number, a fraction (below 1.0), or a table by element as in { O = 1 }"
    )
    alloy: AlloySection | None = Field(None, description="elements that change places")


class SystemSection(Section):
    """A material or cell, and where its molecular dynamics starts; one [[system]] each."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.+-]+$", description="short name, used in reports")
    structures: list[ExistingFile] = Field(min_length=1, description="start structures, any format ASE reads")
    slab: SlabSection | None = Field(None, description="a surface cut out of each structure, before it is repeated")
    supercell: tuple[int, int, int] = Field((1, 1, 1), description="repeats along the three lattice vectors")
    perturb: PerturbSection = PerturbSection()


class GuardSection(Section):
    """A trajectory that leaves these bounds is cut there; its healthy head is kept and the replica restarts."""

    max_temperature: float = Field(10000.0, gt=0, description="instantaneous temperature, K")
    min_distance: float = Field(0.6, gt=0, description="closest pair of atoms, Å")
    max_volume_ratio: float = Field(2.0, gt=1, description="volume over start volume, and its inverse")


class ExploreSection(Section):
    """Molecular dynamics with the current model; each start at each temperature and pressure is a replica."""

    engine: Literal["lammps", "ase"] = Field(
        "lammps", description="lammps: with deepmd's pair style, in the rank; ase: ASE's dynamics, any ASE calculator"
    )
    options: dict[str, Any] = Field(
        {}, description="options of the engine; ase: calculator, arguments, model_argument, path, reuse"
    )
    ensemble: Literal["nve", "nvt", "langevin", "npt-iso", "npt-aniso", "npt-tri"] = Field(
        "nvt", description="what is kept constant; nvt is Nosé-Hoover; iso, aniso and tri say how the cell may change"
    )
    timestep: float = Field(1.0, gt=0, description="of one MD step, fs")
    steps: int = Field(200, ge=1, description="MD steps of a replica in one round")
    interval: int = Field(20, ge=1, description="steps between candidate frames")
    temperatures: list[Temperature] = Field(
        [300.0], min_length=1, description="K; [start, end] ramps over each segment"
    )
    pressures: list[Pressure] = Field(
        [0.0], min_length=1, description="bar; [start, end] ramps over each segment; npt ensembles only"
    )
    temperature_damping: float = Field(100.0, gt=0, description="fs, thermostat time constant")
    pressure_damping: float = Field(1000.0, gt=0, description="fs, barostat time constant")
    committee: list[ExistingFile] = Field(
        [], description="frozen models (.pth) that give, with the current one, the force deviation of each candidate"
    )
    guard: GuardSection = GuardSection()
    isolation: Literal["none", "process"] = Field(
        "none", description="process: the engine runs in a child process, see [label]; none: in the rank itself"
    )
    timeout: float = Field(
        3600.0, gt=0, description='seconds one segment may take before its process is killed (isolation = "process")'
    )
    max_restarts: int = Field(5, ge=0, description="guard restarts after which a replica is retired")

    @field_validator("options")
    @classmethod
    def _paths(cls, options: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        if "path" not in options:
            return options
        if not isinstance(options["path"], str):
            raise ValueError("path must be a path, as text")
        return {**options, "path": str(resolve(Path(options["path"]), info))}

    @field_validator("temperatures", "pressures")
    @classmethod
    def _differ(cls, ramps):
        """Replicas are named by these values, printed with six digits."""
        printed = [tuple(float(f"{value:g}") for value in ends(ramp)) for ramp in ramps]
        for index, values in enumerate(printed):
            if values in printed[:index]:
                text = " to ".join(f"{value:g}" for value in dict.fromkeys(values))
                raise ValueError(f"{text} is given twice (to six digits); every entry is a replica of its own")
        return ramps

    @model_validator(mode="after")
    def _consistent(self):
        problems = []
        if "timeout" in self.model_fields_set and self.isolation != "process":
            problems.append(
                "timeout is given, but only a child process can be stopped in a segment;"
                ' set isolation = "process", or remove timeout'
            )
        if self.interval > self.steps:
            problems.append(f"interval {self.interval} exceeds steps {self.steps}: no frame would ever be kept")
        if not self.ensemble.startswith("npt") and self.pressures != [0.0]:
            problems.append(f"pressures given, but the ensemble is {self.ensemble}; use npt-iso, npt-aniso or npt-tri")
        if self.engine == "ase" and "calculator" not in self.options:
            problems.append('options.calculator is missing; e.g. options.calculator = "ase.calculators.emt.EMT"')
        if self.engine == "lammps" and self.options:
            problems.append(f"options {sorted(self.options)} are not known to the engine lammps; remove them")
        if problems:
            raise ValueError("\n".join(problems))
        return self
