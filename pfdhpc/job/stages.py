"""The runs that one input stands for, one after the other: a ``pfd`` job is a fine-tuning and a distillation.

Each is a run like any other, in a folder of its own below the run directory. What job scripts and people look for
there (``status.json``, ``final``) are links to that of the act that is on; ``current`` is a link to its folder.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..config import Config
from ..config.load import stage_config
from ..config.pfd_stages import DISTILL, FINETUNE
from ..errors import InputError, StoreError
from ..report.final_files import HELD_OUT
from ..store.run_directory import RunFolder
from ..store.status import read_status, write_status

CURRENT = "current"


def n_stages(config: Config) -> int:
    """How many runs an input stands for."""
    return 2 if config.workflow == "pfd" else 1


def config_of(config: Config, number: int) -> Config:
    """The input of one of them. The second one can be had when the first is complete."""
    if n_stages(config) == 1:
        return config
    final = RunFolder(config.run.directory / FINETUNE).final
    held_out = final / HELD_OUT
    return stage_config(config, number, final / "model.pt", held_out if held_out.exists() else None)


def is_complete(config: Config) -> bool:
    """Whether the run of an act is complete, as far as its folder tells."""
    try:
        status = read_status(config.run.directory)
    except StoreError:
        return False
    return status is not None and status["state"] == "complete"


def check_kind(config: Config) -> None:
    """Raise InputError when the run directory holds runs of another kind."""
    directory = config.run.directory
    other = (directory / "input.json").exists() if n_stages(config) > 1 else (directory / CURRENT).is_symlink()
    if other:
        raise InputError(f"run.directory: {directory} holds another workflow's run; choose another directory")


def goes_on(config: Config, changes: Sequence[tuple[str, Any, Any]]) -> None:
    """Raise InputError when a complete fine-tuning would go on although its model is a teacher already."""
    distillation = config.run.directory / DISTILL
    if (distillation / "input.json").exists():
        keys = ", ".join(key for key, *_ in changes)
        raise InputError(
            f"{keys}: changed, so that the fine-tuning would go on, but its model is being distilled already;"
            f" restore the input, or remove {distillation} to distil the new model"
        )


def enter(directory: Path, number: int) -> None:
    """Let the links of the run directory show an act, which is incomplete as long as it says nothing else."""
    name = (FINETUNE, DISTILL)[number]
    (directory / name).mkdir(0o775, exist_ok=True)
    if read_status(directory / name) is None:
        write_status(directory / name, "incomplete", "it has not begun", progress=0)
    for link, target in ((CURRENT, name), ("status.json", f"{name}/status.json"), ("final", f"{name}/final")):
        unfinished = directory / f".{link}.unfinished"
        unfinished.unlink(missing_ok=True)
        os.symlink(target, unfinished)
        unfinished.replace(directory / link)
