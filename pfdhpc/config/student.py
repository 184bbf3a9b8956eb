"""[student]: the light model that is trained from scratch on what the teacher labelled."""

from typing import Any, Literal

from pydantic import Field, model_validator

from .base import ExistingFile, Section


class StudentSection(Section):
    """The light model of a distillation, trained from scratch on what the teacher labels."""

    preset: Literal["se_e2_a", "dpa1"] | None = Field(
        None, description="a model as shipped: se_e2_a (few elements), or dpa1 without attention (many elements)"
    )
    model: ExistingFile | dict[str, Any] | None = Field(
        None, description="instead of a preset: deepmd's section [model], file or inline, without its type_map"
    )
    elements: list[str] | None = Field(
        None, min_length=1, description="elements the student knows, in its order; default: those of the run"
    )
    warm_start: bool = Field(
        True, description="a later round continues from the previous student; false: every round from scratch"
    )
    probe_atoms: int = Field(256, ge=1, description="atoms of the final tests in LAMMPS: speed, and stability in NVE")
    probe_steps: int = Field(1000, ge=0, description="steps of the stability test; 0: no tests")
    compress: bool = Field(True, description="tabulate the embedding of the final student, where the model allows it")

    @model_validator(mode="after")
    def _consistent(self):
        if (self.preset is None) == (self.model is None):
            raise ValueError('give either preset, "se_e2_a" or "dpa1", or model, a deepmd model section')
        if self.elements and len(set(self.elements)) < len(self.elements):
            raise ValueError("elements: an element is given twice")
        return self
