"""[label]: the first-principles program and when its answer is trusted."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from .base import Section, resolve

PATHS = {"deepmd": "model", "ase": "path"}
"""The option that is a path, by type of labeler."""

ISOLATION = (
    "none: the program runs in the rank itself, where a crash ends the job and a hang the team; process: in a child "
    "process of the rank, where either costs one attempt. A child costs 0.3 ms a task and 50 MB, and 0.4 to 5 s (its "
    "imports) whenever one is replaced. Take it for programs that crash or hang, or that are new. It is not the "
    "default: the MPI must let a child be a job of its own, and teams of several ranks cannot have one"
)


class LabelSection(Section):
    type: Literal["gpaw", "ase", "deepmd", "teacher"] = Field(
        description="teacher: the model of [model], in a distillation"
    )
    options: dict[str, Any] = Field(
        {}, description="gpaw: GPAW's keywords; ase: calculator, arguments, path; deepmd: model, branch"
    )
    retries: list[dict[str, Any]] = Field(
        [], description="the ladder: options changed in the 2nd, 3rd, ... attempt after a failed one"
    )
    timeout: float = Field(3600.0, gt=0, description="seconds one attempt may take")
    isolation: Literal["none", "process"] = Field("none", description=ISOLATION)
    batch: int = Field(1, ge=1, description="frames in one order; more than 1 pays for the teacher (deepmd)")
    max_force: float = Field(100.0, gt=0, description="a label with a larger force is rejected, eV/Å")
    virial: bool = Field(True, description="compute the virial (stress) too")

    @field_validator("options")
    @classmethod
    def _paths(cls, options: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        """Paths among the options, like all in the input, start from its folder."""
        key = PATHS.get(info.data.get("type", ""))
        if key not in options:
            return options
        if not isinstance(options[key], str):
            raise ValueError(f"{key} must be a path, as text")
        return {**options, key: str(resolve(Path(options[key]), info))}

    @model_validator(mode="after")
    def _consistent(self):
        given = [key for key in ("options", "retries", "isolation") if key in self.model_fields_set]
        if self.type == "teacher" and given:
            raise ValueError("\n".join(f"{key}: a teacher has none; remove it" for key in given))
        if self.type == "ase" and "calculator" not in self.options:
            raise ValueError('options.calculator is missing; e.g. calculator = "ase.calculators.emt.EMT"')
        if self.type == "deepmd" and "model" not in self.options:
            raise ValueError('options.model is missing; e.g. options.model = "teacher.pth"')
        return self
