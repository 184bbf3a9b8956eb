"""[model] and [train]: the pre-trained parent and how each round continues from it."""

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from .base import AnyPath, ExistingFile, Section
from .trainers import TRAINERS

RANDOM = "RANDOM"
"""deepmd's name for "no branch: keep the descriptor, begin with a random fitting net"."""

CALCULATOR = ("calculator", "arguments", "model_argument", "path")
"""Keys of [model] that say which ASE calculator is the teacher; the engine ase knows them by the same names."""


class ModelSection(Section):
    """The pre-trained model a fine-tuning starts from; in a distillation, the teacher."""

    checkpoint: ExistingFile | None = Field(
        None,
        description="pre-trained deepmd model: checkpoint .pt (PyTorch), frozen .pth, or another backend's (.pb, .dp);"
        " metatrain's .ckpt, or none (train.type); or the model file of a calculator",
    )
    branch: str | None = Field(
        None, description='branch of a multi-task checkpoint to continue from; "RANDOM": a new, random fitting net'
    )
    type_map: list[str] | None = Field(
        None,
        min_length=1,
        description="elements of the fine-tuned model, in its order: fewer than the checkpoint has, or new ones;"
        " default: those of the checkpoint",
    )

    calculator: str | None = Field(
        None,
        description="distill: a teacher that is any ASE calculator, by import path, instead of a deepmd model; e.g."
        ' "mace.calculators.mace_mp"',
    )
    arguments: dict[str, Any] = Field({}, description="keywords of the calculator")
    model_argument: str | None = Field(None, description="keyword of the calculator that takes the file checkpoint")
    path: AnyPath | None = Field(None, description="a folder to find a calculator of one's own in")

    @model_validator(mode="after")
    def _whole(self):
        if problems := self._calculator_problems() if self.calculator else self._model_problems():
            raise ValueError("\n".join(problems))
        return self

    def _model_problems(self) -> list[str]:
        unread = [key for key in CALCULATOR if key in self.model_fields_set]
        problems = [f"{key}: only read with model.calculator; remove it" for key in unread]
        if self.checkpoint is None and self.type_map is None:  # by its elements, one from scratch can be made
            problems.append(f"checkpoint: missing; {type(self).model_fields['checkpoint'].description}")
        return problems

    def _calculator_problems(self) -> list[str]:
        unread = [key for key in ("branch", "type_map") if getattr(self, key) is not None]
        problems = [f"{key}: of a deepmd model, a calculator has none; remove it" for key in unread]
        if (self.checkpoint is None) != (self.model_argument is None):
            problems.append(
                "model_argument: the keyword of the calculator that takes the file checkpoint; give both or neither"
            )
        return problems

    @field_validator("type_map")
    @classmethod
    def _elements(cls, names: list[str] | None) -> list[str] | None:
        from ase.data import atomic_numbers

        strange = [name for name in names or () if name not in atomic_numbers or name == "X"]
        if strange:
            raise ValueError(f"no such element: {', '.join(strange)}")
        if names and len(set(names)) < len(names):
            raise ValueError("an element is given twice")
        return names


class ReplaySection(Section):
    """A branch of the pre-trained model that goes on training on its own data, so that it is not forgotten."""

    data: list[AnyPath] = Field(
        min_length=1, description="labelled frames the branch was trained on: any format ASE or dpdata reads"
    )
    weight: float = Field(
        0.5,
        gt=0,
        description="chance of a step to be the branch's, relative to 1 of the material (deepmd's model_prob)",
    )


class LoraSection(Section):
    """Low-rank adaptation: the weights of the backbone stay, small matrices beside them are trained, and added to
    them after each round. The fitting net and small parameters are trained as they are."""

    rank: int = Field(ge=1, description="rank of the adapters")
    alpha: float | None = Field(None, gt=0, description="their scale is alpha / rank; default: 1")


class TrainSection(Section):
    """How each round trains."""

    type: Literal[*TRAINERS] = Field(
        "deepmd", description="; ".join(f"{name}: {kind.help}" for name, kind in TRAINERS.items())
    )
    deepmd: ExistingFile | dict[str, Any] = Field(
        {}, description="deepmd training input, file or inline; the run fills in model, data, steps and seeds"
    )
    metatrain: ExistingFile | dict[str, Any] = Field(
        {},
        description="metatrain's options model and training of the architecture, device and base_precision, file or"
        " inline; the run fills in data, epochs, batch size, learning rate, seed",
    )
    first_steps: int = Field(400, ge=0, description="steps of the first training, on the initial frames")
    steps: int = Field(400, ge=1, description="steps of each later round")
    start_from: Literal["previous", "parent"] = Field("previous", description="where a round's weights start")
    use_pretrain_script: bool = Field(
        True,
        description="the model's parameters are those in the checkpoint; false: those of train.deepmd.model,"
        " which the checkpoint's weights must fit",
    )
    freeze: list[str] = Field(
        [],
        description='parts that are not trained: "descriptor", "fitting_net", or layers, as in'
        ' "fitting_net.layers.0-1" (0: the first; the last one is the output)',
    )
    lora: LoraSection | None = Field(None, description="DPA-4: train low-rank adapters of the weights instead of them")
    bias: Literal["change", "set", "none"] = Field(
        "change",
        description="energy bias per element before the first training: shifted by a fit of label - prediction;"
        " set by a fit of the labels alone; or left as it is",
    )
    replay: dict[str, ReplaySection] = Field(
        {}, description="branches of the checkpoint that go on training beside the material, by name"
    )
    stages: list[Literal["direct", "conservative"]] = Field(
        ["conservative"],
        min_length=1,
        description='["direct", "conservative"]: the training of given or random weights begins with forces that the'
        " model predicts directly, which costs less a step, and ends with those that are the energy's gradient",
    )
    direct_share: float = Field(0.5, gt=0, lt=1, description="share of the steps in the stage of direct forces")
    direct_weight: float = Field(
        0.1, ge=0, description="weight of the direct forces' loss in the conservative stage, relative to the others'"
    )
    start_lr: float = Field(1e-3, gt=0, description="learning rate at the start of a round")
    stop_lr: float = Field(1e-5, gt=0, description="learning rate at the end of a round")
    batch_size: int = Field(1, ge=1, description="frames per step and rank")
    new_fraction: float = Field(0.5, ge=0, le=1, description="share of the batches drawn from the round's new frames")
    restart_after: float | None = Field(
        None,
        gt=0,
        description="seconds between two states kept of a round under way, from the newest of which a killed round goes"
        " on, not bit for bit; none: it is trained again from its beginning, to the same bits",
    )
    best: bool = Field(
        True,
        description="go on with the best of about 20 checkpoints (the start included) on the validation frames,"
        " if it beats the last one by two standard errors; with fewer than 10 validation frames, with the last",
    )

    @model_validator(mode="after")
    def _consistent(self):
        if self.stop_lr > self.start_lr:
            raise ValueError(f"stop_lr {self.stop_lr} exceeds start_lr {self.start_lr}")
        problems = self._stage_problems()
        if problems:
            raise ValueError("\n".join(problems))
        if self.replay and not self.use_pretrain_script:
            raise ValueError(
                "replay: the branches share the checkpoint's descriptor, whose parameters come from the checkpoint;"
                " remove use_pretrain_script = false"
            )
        return self

    @property
    def final_names(self) -> tuple[str, str]:
        """How a finished run calls the checkpoint and the model to use."""
        return TRAINERS[self.type].final_names

    @property
    def direct(self) -> bool:
        """Whether there is a stage of direct forces."""
        return "direct" in self.stages

    def _stage_problems(self) -> list[str]:
        if self.stages not in (["conservative"], ["direct", "conservative"]):
            return [
                f"stages: {self.stages}: direct forces are not the gradient of an energy, a trajectory driven by them"
                ' (NVE above all) heats up or cools down by itself; give ["direct", "conservative"] or ["conservative"]'
            ]
        if not self.direct:
            given = [key for key in ("direct_share", "direct_weight") if key in self.model_fields_set]
            return [f'{key}: there is no direct stage; give stages = ["direct", "conservative"]' for key in given]
        unfit = [key for key, value in (("replay", self.replay), ("restart_after", self.restart_after)) if value]
        return [f"{key}: not with a stage of direct forces; remove one of them" for key in unfit]


FINETUNING = ("use_pretrain_script", "freeze", "lora", "bias", "replay")
"""Keys of [train] that say how pre-trained weights are taken up: nothing a student has."""


def finetuning_problems(model: ModelSection, train: TrainSection, workflow: str, labels: bool) -> list[str]:
    """Where ``[model]`` and ``[train]`` do not go with the workflow. ``labels``: there are some before exploration."""
    if workflow == "distill":
        given = [f"train.{key}" for key in FINETUNING if key in train.model_fields_set]
        return [f"{key}: a student is trained from scratch; remove it" for key in given]
    if model.branch != RANDOM or (labels and train.first_steps):
        return []
    source = "pool.init_pick" if workflow == "simplify" else "init.frames"
    return [
        'model.branch: "RANDOM" begins with a random fitting net, which must be trained before it explores;'
        f" ask for labels ({source} or init.data) and steps (train.first_steps)"
    ]
