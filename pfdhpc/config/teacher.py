"""A teacher that is an ASE calculator instead of a deepmd model: ``model.calculator`` in a distillation.

It drives the dynamics of the ASE engine and labels as ``label.type = "ase"`` does; both get their options from [model].
"""

import json
from hashlib import blake2b
from pathlib import Path
from typing import Any

from .file_digest import content_digest
from .label import LabelSection
from .train import CALCULATOR, RANDOM, ModelSection


def with_calculator(values: dict[str, Any]) -> dict[str, Any]:
    """A ``distill`` input with what ``model.calculator`` implies for [explore] and [label] filled in."""
    model, explore, label = (values.get(name, {}) for name in ("model", "explore", "label"))
    if not all(isinstance(section, dict) for section in (model, explore, label)) or "calculator" not in model:
        return values
    options = {key: model[key] for key in CALCULATOR if key in model}
    explore = {"engine": "ase", "options": {**options, "reuse": True}, **explore}
    return {**values, "explore": explore, "label": {"batch": 1, **label}}


def teacher_conflicts(config: Any) -> list[str]:
    """Where a calculator does not go with the rest of a whole input."""
    model, explore = config.model, config.explore
    if model.calculator is None:
        return []
    if config.workflow != "distill":
        return ['model.calculator: a calculator cannot be trained, only be a teacher; use workflow = "distill"']
    problems = []
    if explore.engine != "ase":
        problems.append(f'explore.engine: "{explore.engine}", but the teacher is an ASE calculator: remove the key')
    elif explore.options != {**calculator_options(model), "reuse": True}:
        problems.append("explore.options: the calculator is that of [model]; remove the key")
    if config.select.descriptor.type == "model":
        problems.append('select.descriptor.type: "model" needs a deepmd model as teacher; take "chemistry"')
    return problems


def changed_teacher(config: Any) -> list[str]:
    """What would change the teacher of a distillation."""
    model = config.model
    given = [("branch", model.branch == RANDOM), ("type_map", bool(model.type_map) and model.calculator is None)]
    changed = [key for key, wrong in given if wrong and config.workflow == "distill"]
    return [f"model.{key}: a teacher stays as it is; remove it" for key in changed]


def calculator_options(model: ModelSection) -> dict[str, Any]:
    """``calculator``, ``arguments``, ``model_argument`` and ``path``, those that were given."""
    given = {key: getattr(model, key) for key in CALCULATOR if key in model.model_fields_set}
    return {key: str(value) if isinstance(value, Path) else value for key, value in given.items()}


def labeling(config: Any) -> LabelSection:
    """[label] of a whole input as the labelers take it: that of an ASE calculator where this is the teacher."""
    model = config.model
    if model.calculator is None:
        return config.label
    options = {**calculator_options(model), "reuse": True}
    keyword = options.pop("model_argument", None)
    if keyword is not None:
        options["arguments"] = {**model.arguments, keyword: str(model.checkpoint)}
    return config.label.model_copy(update={"type": "ase", "options": options})


def calculator_identity(model: ModelSection) -> str:
    """32 hex digits over the calculator, its arguments and the content of its model file, if it has one."""
    content = None if model.checkpoint is None else content_digest(model.checkpoint)
    facts = [model.calculator, model.arguments, model.model_argument, content]
    return blake2b(json.dumps(facts, sort_keys=True, default=str).encode(), digest_size=16).hexdigest()


def of_teacher(model: ModelSection, problems: list[str]) -> list[str]:
    """Problems the engines found with the calculator, by the keys of [model], each told once."""
    if model.calculator is None:
        return problems
    lines = [line.replace("explore.options.", "model.").replace("label.options.", "model.") for line in problems]
    return list(dict.fromkeys(lines))
