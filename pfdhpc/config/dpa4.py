"""``train.type = "dpa4"``: DPA-4 models of deepmd, which explore through ASE; what that implies for a whole input.

deepmd freezes a DPA-4 to .pt2 only, compiled for the machine it is done on. Its checkpoints predict as they are, in
Python: no freezing after each round, but no LAMMPS either.
"""

from typing import Any

CALCULATOR = {"calculator": "deepmd.calculator.DP", "model_argument": "model"}
"""What runs the models, for the engine ase, and as a teacher."""


def with_dpa4(values: dict[str, Any]) -> dict[str, Any]:
    """An input with what the trainer implies for [explore] filled in: the ASE engine, with deepmd's calculator."""
    explore = values.get("explore", {})
    if not isinstance(explore, dict) or values.get("workflow") == "simplify":  # no dynamics, nothing to be run by
        return values
    return {**values, "explore": {"engine": "ase", "options": {**CALCULATOR, "reuse": True}, **explore}}


def dpa4_conflicts(config: Any) -> list[str]:
    """Where a DPA-4 does not go with the rest of a whole input."""
    train, problems = config.train, []
    if config.workflow == "distill":
        problems.append(
            "train.type: a student is for LAMMPS; remove the key. A DPA-4 teacher is given as model.calculator ="
            ' "deepmd.calculator.DP", model.model_argument = "model"'
        )
    if config.model.type_map is not None:
        problems.append("model.type_map: a DPA-4 keeps the elements of its checkpoint here; remove it")
    if train.direct:
        problems.append("train.stages: not for DPA-4 models here; remove it")
    if train.lora and train.replay:
        problems.append("train.lora: not with train.replay, whose branches share what would be adapted; remove one")
    if config.workflow in ("finetune", "pfd") and config.explore.engine != "ase":
        problems.append(f'explore.engine: "{config.explore.engine}" cannot run a DPA-4 model: remove the key')
    return problems


def as_teacher(model: dict[str, Any]) -> dict[str, Any]:
    """[model] of a distillation whose teacher is this DPA-4, given as for a fine-tuning."""
    branch = {"arguments": {"head": model["branch"]}} if model.get("branch") else {}
    return {"checkpoint": model["checkpoint"], **CALCULATOR, **branch}
