"""The input file, section by section. Units: Å, eV, fs, K, bar, seconds."""

from typing import Any, Literal

from pydantic import Field, ValidationInfo, model_validator

from .base import AnyPath, Section
from .explore import ExploreSection, SystemSection
from .init import Data, InitSection, init_problems
from .label import LabelSection
from .overlap import OverlapSection
from .pool import PoolSection, pool_problems, with_pool
from .ranks import RanksSection
from .select import SelectSection
from .student import StudentSection
from .teacher import changed_teacher, teacher_conflicts, with_calculator
from .train import ModelSection, TrainSection, finetuning_problems
from .trainers import trainer_conflicts, with_implied


class RunSection(Section):
    """Where the run writes, and when a job of it stops."""

    directory: AnyPath = Field("run", validate_default=True, description="where everything the run writes goes")
    time_limit: float | None = Field(
        None, gt=0, description="wall time of a job in seconds: the run stops before, exit code 3; or at an earlier end"
    )
    margin: float = Field(30.0, ge=0, description="seconds before the end of the job in which the run saves itself")
    grace: float = Field(
        20.0,
        ge=0,
        description="seconds an interrupted run waits for labels under way; if the end of the job is known, longer for"
        " those forecast to be made before it, unless SIGINT or SIGTERM came; and those that programs of other labels"
        " have to end by themselves",
    )
    confirm_core_hours: float | None = Field(
        None,
        gt=0,
        description="the cost of all labels is estimated once the first is made; if it is above this (ranks x threads x"
        " hours), the run stops before further ones, exit code 3, and goes on when this has been raised",
    )
    keep_checkpoints: int = Field(3, ge=1, description="number of checkpoints kept")
    overdue: float = Field(
        86400.0, gt=0, description="seconds without an answer after which a team is given up and its work re-issued"
    )

    @model_validator(mode="after")
    def _consistent(self):
        if self.time_limit is not None and self.time_limit <= self.margin:
            raise ValueError(f"time_limit {self.time_limit:g} leaves nothing but the margin {self.margin:g}")
        return self


class TestSection(Section):
    """How the labelled frames are split. Held-out frames never reach a training."""

    holdout: float = Field(0.15, ge=0, lt=1, description="share of the labels that never trains, for honest errors")
    validation: float = Field(0.1, ge=0, lt=1, description="share given to the trainer as validation data")
    data: list[Data] | None = Field(
        None, description="labelled frames that never train and are always tested on, given as in init.data"
    )


class ConvergeSection(Section):
    """When fine-tuning is good enough: every criterion given must hold, ``patience`` rounds in a row.

    The errors compared are those of the model that explored a frame, on that frame's new label.
    """

    force_rmse: float | None = Field(None, gt=0, description="of the forces, eV/Å")
    energy_rmse: float | None = Field(None, gt=0, description="eV/atom")
    virial_rmse: float | None = Field(None, gt=0, description="eV/atom")
    patience: int = Field(1, ge=1, description="rounds in a row that must satisfy the criteria")
    min_frames: int = Field(1, ge=1, description="new labels a round needs for its errors to count")
    max_rounds: int = Field(10, ge=1, description="exploration rounds")
    max_labels: int | None = Field(None, gt=0, description="budget of first-principles labels; given ones are free")
    max_seconds: float | None = Field(None, gt=0, description="seconds over all jobs, at the end of a round")
    max_core_hours: float | None = Field(
        None, gt=0, description="ranks x threads x hours over all jobs, at the end of a round"
    )


class Config(Section):
    """A whole input file."""

    workflow: Literal["finetune", "distill", "pfd", "simplify"] = Field(
        description="finetune: a pre-trained model to first-principles accuracy; distill: a small fast one from it;"
        " pfd: both in one job; simplify: a small part of a pool of frames, on which a model is trained again"
    )
    seed: int = Field(0, ge=0, description="everything random in the run follows from it")
    run: RunSection = Field({}, validate_default=True)
    ranks: RanksSection = Field({}, validate_default=True)
    model: ModelSection
    system: list[SystemSection] = Field(description="the materials: one [[system]] each; simplify has [pool] instead")
    pool: PoolSection | None = Field(None, description="simplify: the frames there are to choose from")
    init: InitSection = Field({}, validate_default=True)
    explore: ExploreSection
    select: SelectSection = Field({}, validate_default=True)
    label: LabelSection
    train: TrainSection
    student: StudentSection | None = Field(None, description="distill, pfd: the light model that is trained")
    distill: dict[str, Any] = Field(
        {}, description="pfd: what is different in the distillation, by section, e.g. [distill.converge]"
    )
    test: TestSection = Field({}, validate_default=True)
    converge: ConvergeSection = Field({}, validate_default=True)
    overlap: OverlapSection = Field({}, validate_default=True)

    @model_validator(mode="before")
    @classmethod
    def _labels_of_a_distillation(cls, values: Any) -> Any:
        if not isinstance(values, dict) or values.get("workflow") != "distill":
            return values
        values = with_calculator(values)
        label = values.get("label", {})
        given = {"type": "teacher", "batch": 16, **label} if isinstance(label, dict) else label
        return {**values, "label": given}

    @model_validator(mode="before")
    @classmethod
    def _implied_by_the_trainer(cls, values: Any) -> Any:
        return with_implied(values) if isinstance(values, dict) else values

    @model_validator(mode="before")
    @classmethod
    def _implied_by_a_pool(cls, values: Any) -> Any:
        if not isinstance(values, dict) or values.get("workflow") != "simplify":
            return values
        return with_pool(values)

    @model_validator(mode="after")
    def _consistent(self, info: ValidationInfo):
        names = [*(system.name for system in self.system), *(self.pool.names if self.pool else ())]
        problems = pool_problems(self)
        if not self.system and self.workflow != "simplify":
            problems.append("system: empty; give at least one [[system]]")
        problems += [
            f"system.name: {name!r} is given more than once; every system needs its own name"
            for name in sorted(set(names))
            if names.count(name) > 1 and not self.pool
        ]
        if self.test.holdout + self.test.validation >= 1:
            problems.append("test.holdout + test.validation must stay below 1, or nothing is left to train on")
        problems += self.select.unread_in_a_run()
        problems += [
            f"label.systems.{name}: there is no system of this name; systems: {', '.join(names)}"
            for name in self.label.systems
            if name not in names
        ]
        if self.run.confirm_core_hours is not None and self.label.type in ("teacher", "offline", "pool"):
            problems.append(
                f'run.confirm_core_hours: labels cost nothing here (label.type = "{self.label.type}"); remove it'
            )
        if self.distill and self.workflow != "pfd":
            problems.append('distill: only used in workflow = "pfd"; remove the section')
        problems += self._selection_problems(names) + self._student_problems() + teacher_conflicts(self)
        problems += changed_teacher(self) if not (info.context or {}).get("standing_in") else []
        problems += trainer_conflicts(self)
        problems += finetuning_problems(self.model, self.train, self.workflow, self.init.gives_labels)
        problems += init_problems(self.init, self.label.type, self.converge.max_labels)
        if problems:
            raise ValueError("\n".join(problems))
        return self

    @property
    def overlapped(self) -> bool:
        """Whether exploration, labels and training go on side by side."""
        return self.overlap.overlapped

    def _student_problems(self) -> list[str]:
        if self.workflow == "distill":
            problems = [] if self.student else ['student: a distillation needs one; e.g. [student] preset = "se_e2_a"']
            if self.label.type != "teacher":
                problems.append(f'label.type: "{self.label.type}", but a teacher labels here: remove the key')
            if self.train.first_steps == 0:
                problems.append("train.first_steps: 0, but a student begins with random weights; give it some")
            if "start_from" in self.train.model_fields_set:
                problems.append("train.start_from: student.warm_start says where a round starts; remove the key")
            if self.explore.engine != "lammps" and self.model.calculator is None:
                problems.append(
                    f'explore.engine: "{self.explore.engine}", but the teacher explores, in LAMMPS: remove it'
                )
            if self.explore.committee:
                problems.append("explore.committee: here it is the teacher and the student; remove the key")
            return problems
        problems = []
        if self.workflow == "pfd" and not self.student:
            problems.append('student: pfd distils one in the end; e.g. [student] preset = "se_e2_a"')
        if self.workflow == "simplify":
            return ['label.type: "teacher" is for workflow = "distill"'] if self.label.type == "teacher" else []
        if self.workflow == "finetune" and self.student:
            problems.append('student: only used in workflow = "distill" or "pfd"; remove the section')
        if self.label.type == "teacher":
            problems.append('label.type: "teacher" is for workflow = "distill"; name a first-principles program')
        return problems

    def _selection_problems(self, names: list[str]) -> list[str]:
        select = self.select
        problems = [
            f"select.quotas.{name}: there is no system of this name; systems: {', '.join(names)}"
            for name in select.quotas
            if name not in names
        ]
        compared = self.explore.committee or self.workflow in ("distill", "simplify")
        if (select.trust_lo or select.trust_hi) and not compared:
            problems.append(
                "select.trust_lo, select.trust_hi: no deviation to compare with; name models in explore.committee"
            )
        if select.bandwidth == "spread" and not self.init.gives_labels:
            source = "pool.init_pick" if self.workflow == "simplify" else "init.frames"
            problems.append(
                f'select.bandwidth: "spread" is found from labelled frames; ask for some ({source}), or give a number'
            )
        return problems
