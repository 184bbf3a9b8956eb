"""[model] and [train]: the pre-trained parent and how each round continues from it."""

from typing import Any, Literal

from pydantic import Field, model_validator

from .base import ExistingFile, Section


class ModelSection(Section):
    checkpoint: ExistingFile = Field(description="pre-trained deepmd checkpoint, .pt (PyTorch backend)")
    branch: str | None = Field(None, description="branch of a multi-task checkpoint to continue from")


class TrainSection(Section):
    deepmd: ExistingFile | dict[str, Any] = Field(
        {}, description="deepmd training input, file or inline; the run fills in model, data, steps and seeds"
    )
    first_steps: int = Field(400, ge=0, description="steps of the first training, on the initial frames")
    steps: int = Field(400, ge=1, description="steps of each later round")
    start_from: Literal["previous", "parent"] = Field("previous", description="where a round's weights start")
    start_lr: float = Field(1e-3, gt=0, description="learning rate at the start of a round")
    stop_lr: float = Field(1e-5, gt=0, description="learning rate at the end of a round")
    batch_size: int = Field(1, ge=1, description="frames per step and rank")
    new_fraction: float = Field(0.5, ge=0, le=1, description="share of the batches drawn from the round's new frames")
    best: bool = Field(
        True,
        description="go on with the best of about 20 checkpoints (the start included) on the validation frames,"
        " if it beats the last one by two standard errors; with fewer than 10 validation frames, with the last",
    )

    @model_validator(mode="after")
    def _consistent(self):
        if self.stop_lr > self.start_lr:
            raise ValueError(f"stop_lr {self.stop_lr} exceeds start_lr {self.start_lr}")
        return self
