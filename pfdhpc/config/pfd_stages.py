"""A ``pfd`` input as the two inputs it stands for: a fine-tuning, and the distillation of its model.

The second act takes [[system]], [explore], [ranks], [overlap], [run] and the seed from the first, and all else from
its defaults; ``[distill.SECTION]`` says what is different. Its teacher is what the first act leaves.
"""

from pathlib import Path
from typing import Any

from .dpa4 import as_teacher
from .schema import Config

FINETUNE, DISTILL = "finetune", "distill"
"""The acts, and the folders of the run directory they run in."""
SHARED = ("seed", "run", "ranks", "system", "explore", "overlap", "student")


def first_act(config: Config) -> Config:
    """The fine-tuning of a ``pfd`` input."""
    run = config.run.model_copy(update={"directory": config.run.directory / FINETUNE})
    return config.model_copy(update={"workflow": "finetune", "run": run, "student": None, "distill": {}})


def second_act(config: Config, teacher: Path | None = None, held_out: Path | None = None) -> dict[str, Any]:
    """The values of the distillation of a ``pfd`` input.

    ``teacher`` is the fine-tuned checkpoint, ``held_out`` first-principles frames to test on; before they are there,
    the pre-trained model stands for the first and nothing for the second.
    """
    given = config.model_dump(exclude_unset=True)
    values = {key: given[key] for key in SHARED if key in given}
    values["workflow"] = "distill"
    values["run"] = {**values.get("run", {}), "directory": str(config.run.directory / DISTILL)}
    values["run"].pop("confirm_core_hours", None)  # a teacher's labels cost next to nothing
    values["explore"] = {key: value for key, value in values["explore"].items() if key != "committee"}
    values["model"] = given["model"] if teacher is None else {"checkpoint": str(teacher)}
    if config.train.type == "dpa4":
        values["model"] = as_teacher(values["model"])
        values["explore"] = {key: value for key, value in values["explore"].items() if key not in ("engine", "options")}
    for name, section in config.distill.items():
        inherited = values.get(name, {})
        values[name] = {**inherited, **section} if isinstance(section, dict) else section
    values.setdefault("train", {})
    if held_out is not None:
        values.setdefault("test", {}).setdefault("data", [str(held_out)])
    return values
