"""The runs that one input stands for, one after the other: a ``pfd`` job is a fine-tuning and a distillation.

Each is a run like any other, in a folder of its own below the run directory. What job scripts and people look for
there (``status.json``, ``final``) are links to that of the act that is on; ``current`` is a link to its folder.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..config import Config
from ..config.acts import DISTILL, FINETUNE
from ..config.load import act
from ..errors import InputError, StoreError
from ..store.export import export
from ..store.status import read_status, write_status
from ..store.store import Store
from .folder import RunFolder
from .state import RunState

CURRENT = "current"
HELD_OUT = "held_out.extxyz"
"""In ``final`` of the fine-tuning: first-principles frames no training saw, on which the student is tested too."""


def n_acts(config: Config) -> int:
    """How many runs an input stands for."""
    return 2 if config.workflow == "pfd" else 1


def config_of(config: Config, number: int) -> Config:
    """The input of one of them. The second one can be had when the first is complete."""
    if n_acts(config) == 1:
        return config
    final = RunFolder(config.run.directory / FINETUNE).final
    held_out = final / HELD_OUT
    return act(config, number, final / "model.pt", held_out if held_out.exists() else None)


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
    other = (directory / "input.json").exists() if n_acts(config) > 1 else (directory / CURRENT).is_symlink()
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


def hand_over(folder: RunFolder, state: RunState, store: Store) -> None:
    """At the end of a fine-tuning: its held-out frames, for whoever goes on with its model."""
    path = folder.final / HELD_OUT
    path.unlink(missing_ok=True)
    if state.test_ids:
        export(store.records(state.test_ids), path, "extxyz")
