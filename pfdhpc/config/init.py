"""[init]: what is labelled or brought along before the first training; and how start structures are altered."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from .base import AnyPath, Section

Positive = Annotated[float, Field(gt=0)]


def _is_element(name: str) -> str:
    from ase.data import atomic_numbers  # here: numpy must not be loaded before its threads are limited

    if atomic_numbers.get(name, 0) < 1:
        raise ValueError(f"no such element: {name}")
    return name


Element = Annotated[str, AfterValidator(_is_element)]


def _is_amount(amount: int | float) -> int | float:
    if amount < 0 or (isinstance(amount, float) and amount >= 1):
        raise ValueError(f"{amount} is neither a number of atoms (0, 1, 2, ...) nor a fraction of them (below 1.0)")
    return amount


Amount = Annotated[int | float, AfterValidator(_is_amount)]
"""A number of atoms, or a fraction of them."""


class AlloySection(Section):
    """A sublattice: the sites that hold one of ``elements``, whose atoms are dealt out anew in each copy."""

    elements: list[Element] = Field(min_length=2, description="elements that share the sites")
    composition: Literal["kept", "random"] = Field(
        "kept",
        description="kept: as many atoms of each as in the structure; random: drawn, all compositions equally often",
    )


class SlabSection(Section):
    """A surface cut out of the structure, which must be the conventional cell (ase.build.surface)."""

    miller: tuple[int, int, int] = Field(description="Miller indices of the surface")
    layers: int = Field(ge=1, description="layers of the slab")
    vacuum: float = Field(15.0, gt=0, description="Å between the slab and its periodic image")

    @model_validator(mode="after")
    def _consistent(self):
        if not any(self.miller):
            raise ValueError("miller: (0, 0, 0) is no surface; e.g. [1, 1, 1]")
        return self


class DataSection(Section):
    """Labelled frames whose format does not show."""

    path: AnyPath = Field(description="file or folder")
    format: str = Field("", description='name of a format of dpdata or ASE, e.g. "abacus/scf", "espresso-out"')
    level: str = Field("", description="of a pfdhpc run that has labels of several levels of theory: which to take")


Data = Annotated[
    Annotated[AnyPath, Tag("a path")] | Annotated[DataSection, Tag("a table")],
    Discriminator(lambda value: "a table" if isinstance(value, dict | DataSection) else "a path"),
]
"""A file or folder of labelled frames; a table where its format must be told."""


def source(data: Any) -> DataSection:
    """Any :data:`Data` as a section."""
    return data if isinstance(data, DataSection) else DataSection.model_construct(path=data, format="", level="")


class AimdSection(Section):
    """Short molecular dynamics with the labeler's own forces, before the first training."""

    steps: int = Field(ge=1, description="MD steps of a trajectory, each of them a calculation; a multiple of interval")
    interval: int = Field(
        10, ge=1, description="steps between stored labels; a killed job repeats fewer of a trajectory than these"
    )
    trajectories: int = Field(
        1, ge=1, description="trajectories, over all systems, temperatures and structures in turn"
    )
    temperatures: list[Positive] = Field([300.0], min_length=1, description="K")
    timestep: float = Field(1.0, gt=0, description="fs")
    ensemble: Literal["langevin", "nve"] = Field("langevin", description="constant temperature, or constant energy")
    damping: float = Field(100.0, gt=0, description="fs, time constant of langevin")

    @model_validator(mode="after")
    def _consistent(self):
        problems = []
        if self.steps % self.interval:
            problems.append(f"steps: {self.steps} is no multiple of interval {self.interval}; the rest would be lost")
        if self.ensemble == "nve" and "damping" in self.model_fields_set:
            problems.append('damping: only read with ensemble = "langevin"; remove it')
        if problems:
            raise ValueError("\n".join(problems))
        return self

    @property
    def labels(self) -> int:
        """How many labels are stored: of each trajectory its start, too."""
        return self.trajectories * (1 + self.steps // self.interval)


class InitSection(Section):
    """Frames labelled, or labels brought along, before the first training."""

    frames: int = Field(8, ge=0, description="perturbed starts labelled before the first training, over all systems")
    aimd: AimdSection | None = Field(None, description="short MD by the labeler, whose labels are trained on too")
    data: list[Data] = Field(
        [], description="labelled frames to start from: paths, or tables with path, format and level"
    )

    @property
    def gives_labels(self) -> bool:
        """Whether there are labels before the first exploration."""
        return bool(self.frames or self.data or self.aimd)


def init_problems(init: InitSection, label_type: str, max_labels: int | None) -> list[str]:
    """Where ``[init]`` does not go with the rest of the input."""
    aimd = init.aimd
    if aimd is None:
        return []
    problems = []
    if label_type == "teacher":
        problems.append("init.aimd: a teacher explores by itself; remove the section")
    if label_type == "offline":
        problems.append('init.aimd: labels come from outside (label.type = "offline"), so nothing here has forces')
    if max_labels is not None and aimd.labels > max_labels:
        problems.append(
            f"init.aimd: stores {aimd.labels} labels, converge.max_labels allows {max_labels}; fewer trajectories or"
            " steps, or a longer interval"
        )
    return problems
