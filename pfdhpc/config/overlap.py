"""[overlap]: how far exploration may run ahead of training, so that no team waits for another."""

from typing import Literal

from pydantic import Field, model_validator

from .base import Section


class OverlapSection(Section):
    """Whether exploration, labels and training wait for each other."""

    staleness: int | Literal["inf"] = Field(
        0,
        union_mode="left_to_right",
        description="exploration round r begins once training r - staleness is done. 0: lock-step, one step at a time"
        " and bit for bit the same when repeated; 1, 2, ...: exploration, labels and training go on side by side;"
        ' "inf": exploration never waits for a training',
    )
    queue: int | None = Field(
        None, ge=1, description="frames that wait for a label, at most; default: twice select.max_sel"
    )
    min_new: int | None = Field(
        None, ge=1, description="new labels that begin a training; default: half of select.max_sel, rounded up"
    )
    wait: float = Field(1800.0, gt=0, description="seconds after which a training begins with fewer new labels")

    @property
    def overlapped(self) -> bool:
        return self.staleness != 0

    def allows(self, round: int, trained: int) -> bool:
        """Whether exploration round ``round`` may begin after ``trained`` trainings."""
        return self.staleness == "inf" or trained >= round - self.staleness

    @model_validator(mode="after")
    def _consistent(self):
        problems = []
        if isinstance(self.staleness, int) and self.staleness < 0:
            problems.append(f'staleness: {self.staleness} is negative; 0 is lock-step, "inf" waits for no training')
        given = [key for key in ("queue", "min_new", "wait") if key in self.model_fields_set]
        if not self.overlapped and given:
            problems += [f"{key}: only read with overlap.staleness above 0; remove it" for key in given]
        if problems:
            raise ValueError("\n".join(problems))
        return self
