"""``train.type = "metatrain"``: PET models, trained by metatrain's ``mtt train`` and run through ASE.

What that implies for the rest of a whole input, and what does not go with it.
"""

from typing import Any

CALCULATOR = {"calculator": "metatomic_ase.MetatomicCalculator", "model_argument": "model"}
"""What runs the models, for the engine ase."""

_UNREAD = {
    "deepmd": "that is deepmd's input; metatrain's is train.metatrain",
    "use_pretrain_script": "a PET model's parameters are always those of the checkpoint",
    "freeze": "a PET model is trained whole",
    "replay": "a PET model has no branches",
    "restart_after": "a round that was killed is trained again from its beginning",
    "stop_lr": "metatrain's learning rate falls to 0, as a cosine",
}
"""Keys of [train] that metatrain has no use for."""


def with_metatrain(values: dict[str, Any]) -> dict[str, Any]:
    """An input with what the trainer implies for [explore] filled in: the ASE engine, with metatomic's calculator."""
    explore = values.get("explore", {})
    if not isinstance(explore, dict):
        return values
    options = explore.get("options", {})
    options = {**CALCULATOR, **options} if isinstance(options, dict) else options
    return {**values, "explore": {"engine": "ase", **explore, "options": options}}


def metatrain_conflicts(config: Any) -> list[str]:
    """Where metatrain does not go with the rest of a whole input."""
    return [*_model_conflicts(config), *_train_conflicts(config), *_other_conflicts(config)]


def _model_conflicts(config: Any) -> list[str]:
    model, problems = config.model, []
    if model.branch is not None:
        problems.append("model.branch: a PET model has no branches; remove it")
    if model.checkpoint is not None:
        if model.checkpoint.suffix != ".ckpt":
            problems.append(
                f"model.checkpoint: {model.checkpoint.name}: metatrain goes on from a checkpoint, .ckpt; an exported"
                " model, .pt, cannot be trained"
            )
        if model.type_map is not None:
            problems.append("model.type_map: the elements are those of the checkpoint; remove it")
    elif not (config.init.gives_labels and config.train.first_steps):
        problems.append(
            "model.checkpoint: without one the model is random, and must be trained before it explores; ask for labels"
            " (init.frames or init.data) and steps (train.first_steps)"
        )
    return problems


def _train_conflicts(config: Any) -> list[str]:
    train = config.train
    problems = [f"train.{key}: {why}; remove it" for key, why in _UNREAD.items() if key in train.model_fields_set]
    if config.model.checkpoint is None and "bias" in train.model_fields_set:
        problems.append("train.bias: a model without a checkpoint has no bias to keep or shift; remove it")
    return problems


def _other_conflicts(config: Any) -> list[str]:
    problems = []
    if config.workflow != "finetune":
        problems.append(
            f'workflow: "{config.workflow}" ends with a model for LAMMPS or has a committee of deepmd models;'
            ' train.type = "metatrain" goes with workflow = "finetune"'
        )
    if config.ranks.trainer.ranks > 1:
        problems.append("ranks.trainer.ranks: metatrain trains on one rank here; remove it")
    if config.select.descriptor.type == "model":
        problems.append('select.descriptor.type: "model" needs a deepmd model; take "chemistry" or "quests"')
    return problems + _explore_conflicts(config.explore, config.train)


def _explore_conflicts(explore: Any, train: Any) -> list[str]:
    if explore.engine != "ase":
        return [f'explore.engine: "{explore.engine}" runs deepmd models; a PET model explores with ASE: remove the key']
    problems = [
        f"explore.options.{key}: the model that is trained explores, with {CALCULATOR['calculator']}; remove the key"
        for key, value in CALCULATOR.items()
        if explore.options.get(key) != value
    ]
    arguments = explore.options.get("arguments", {})
    direct = arguments.get("non_conservative") if isinstance(arguments, dict) else None
    if direct and not train.direct:
        problems.append(
            "explore.options.arguments.non_conservative: the model has no direct forces; give train.stages ="
            ' ["direct", "conservative"], or remove it'
        )
    if direct and explore.ensemble == "nve":
        problems.append(
            'explore.ensemble: "nve" with direct forces (non_conservative): they are not the gradient of an energy, so'
            " that nothing keeps the energy constant; take a thermostat, or the conservative forces"
        )
    return problems
