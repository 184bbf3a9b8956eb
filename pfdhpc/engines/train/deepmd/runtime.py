"""deepmd inside a longer-lived process: its random numbers, its log, its models in memory and as files."""

import logging
import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from .checkpoint import State


def seed_everything(seed: int) -> None:
    """Start every random stream a training draws from, so that it never depends on an earlier one."""
    import torch
    from deepmd.pt.utils import dp_random

    seed %= 2**32
    random.seed(seed)
    np.random.seed(seed)
    dp_random.seed(seed)
    torch.manual_seed(seed)


@contextmanager
def logging_to(path: Path) -> Iterator[None]:
    """deepmd's log and Python's warnings go to the end of ``path``, and nowhere else."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("deepmd")
    before = logger.propagate, logger.level
    logger.addHandler(handler)
    logger.propagate = False
    logger.setLevel(logging.INFO)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            warnings.showwarning = lambda text, kind, *place: logger.warning("%s: %s", kind.__name__, text)
            yield
    finally:
        logger.propagate, logger.level = before
        logger.removeHandler(handler)
        handler.close()


def build_model(state: State) -> Any:
    """The model of a single-task state as a torch module on deepmd's device."""
    from deepmd.pt.train.training import get_model_for_wrapper
    from deepmd.pt.train.wrapper import ModelWrapper

    model = get_model_for_wrapper(state["_extra_state"]["model_params"], resuming=True)
    ModelWrapper(model).load_state_dict(state)
    return model.eval()


def freeze(checkpoint: Path, target: Path | None = None) -> Path:
    """The checkpoint as TorchScript, what LAMMPS explores with: beside it, .pth, unless ``target`` is given."""
    from deepmd.pt.entrypoints.main import freeze

    target = target or checkpoint.with_suffix(".pth")
    freeze(str(checkpoint), str(target))
    return target


def weights_of(trainer: Any) -> State:
    """A copy of the model state of a running deepmd trainer, as its checkpoints hold it; of one that trains adapters
    (LoRA), with these added to the weights, as a plain model."""
    import torch
    from deepmd.pt.model.descriptor.sezm_nn import build_merged_state_dict, strip_lora_from_extra_state

    module = trainer._get_inner_module()
    state = module.state_dict()
    if trainer._lora_enabled:
        state = build_merged_state_dict(module, state_dict=state)
        state["_extra_state"] = strip_lora_from_extra_state(state["_extra_state"])
    return {key: value.detach().clone() if torch.is_tensor(value) else value for key, value in state.items()}
