"""The input file, section by section. Units: Å, eV, fs, K, bar, seconds."""

from typing import Literal

from pydantic import Field, model_validator

from .base import AnyPath, Section
from .explore import ExploreSection, SystemSection
from .label import LabelSection
from .ranks import RanksSection
from .select import SelectSection
from .train import ModelSection, TrainSection


class RunSection(Section):
    directory: AnyPath = Field("run", validate_default=True, description="where everything the run writes goes")
    time_limit: float | None = Field(None, gt=0, description="seconds after which the run stops cleanly, exit code 3")
    grace: float = Field(20.0, ge=0, description="seconds an interrupted run waits for labels that are being made")
    keep_checkpoints: int = Field(3, ge=1, description="number of checkpoints kept")
    overdue: float = Field(
        86400.0, gt=0, description="seconds without an answer after which a team is given up and its work re-issued"
    )


class InitSection(Section):
    """Frames labelled, or labels brought along, before the first training."""

    frames: int = Field(8, ge=0, description="perturbed starts labelled before the first training, over all systems")
    data: list[AnyPath] = Field([], description="labelled frames to start from: any format ASE or dpdata reads")


class TestSection(Section):
    """How the labelled frames are split. Held-out frames never reach a training."""

    holdout: float = Field(0.15, ge=0, lt=1, description="share of the labels that never trains, for honest errors")
    validation: float = Field(0.1, ge=0, lt=1, description="share given to the trainer as validation data")


class ConvergeSection(Section):
    """When fine-tuning is good enough: every criterion given must hold, ``patience`` rounds in a row.

    The errors compared are those of the model that explored a frame, on that frame's new label.
    """

    force_rmse: float | None = Field(None, gt=0, description="eV/Å")
    energy_rmse: float | None = Field(None, gt=0, description="eV/atom")
    virial_rmse: float | None = Field(None, gt=0, description="eV/atom")
    patience: int = Field(1, ge=1, description="rounds in a row that must satisfy the criteria")
    min_frames: int = Field(1, ge=1, description="new labels a round needs for its errors to count")
    max_rounds: int = Field(10, ge=1, description="exploration rounds")
    max_labels: int | None = Field(None, gt=0, description="budget of first-principles labels; given ones are free")
    max_seconds: float | None = Field(None, gt=0, description="wall time over all jobs, at the end of a round")


class Config(Section):
    """A whole input file."""

    workflow: Literal["finetune"]
    seed: int = Field(0, ge=0, description="everything random in the run follows from it")
    run: RunSection = Field({}, validate_default=True)
    ranks: RanksSection = Field({}, validate_default=True)
    model: ModelSection
    system: list[SystemSection] = Field(min_length=1, description="the materials: one [[system]] each")
    init: InitSection = Field({}, validate_default=True)
    explore: ExploreSection
    select: SelectSection = Field({}, validate_default=True)
    label: LabelSection
    train: TrainSection
    test: TestSection = Field({}, validate_default=True)
    converge: ConvergeSection = Field({}, validate_default=True)

    @model_validator(mode="after")
    def _consistent(self):
        names = [system.name for system in self.system]
        problems = [
            f"system.name: {name!r} is given more than once; every system needs its own name"
            for name in sorted(set(names))
            if names.count(name) > 1
        ]
        if self.test.holdout + self.test.validation >= 1:
            problems.append("test.holdout + test.validation must stay below 1, or nothing is left to train on")
        if problems:
            raise ValueError("\n".join(problems))
        return self
