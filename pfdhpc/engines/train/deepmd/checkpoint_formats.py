"""Pre-trained models in whatever form they come: checkpoints, frozen models, models of other backends."""

import json
import subprocess
import sys
import tempfile
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from ....errors import InputError, reason
from ....published_models import check_published
from ...isolated.spawner import clean_environment
from .checkpoint import State, read

CONVERTED = {".pb": "tensorflow", ".dp": "", ".yaml": "", ".yml": ""}
"""Endings of the models that ``dp convert-backend`` turns into a .pth, and the package it takes for that."""

PATIENCE = 600.0
"""Seconds a conversion may take; half a minute is usual."""


def read_model(path: Path) -> State:
    """The state of a pre-trained model; raises InputError, one line, when there is none to be had.

    A frozen .pth is taken apart into its weights and the parameters kept in it: training from it is training
    from the checkpoint it was frozen from. Other backends' files go through ``dp convert-backend``; of deepmd-kit
    3.2.0 that may lose the energy bias per element of a .pb, which ``train.bias`` then finds; forces are the same.
    """
    if path.suffix not in (".pth", *CONVERTED):
        return read(path)
    try:
        facts = path.stat()
    except OSError as error:
        raise InputError(f"model.checkpoint: {path} cannot be read: {error.strerror}") from None
    return _read(path, facts.st_size, facts.st_mtime_ns)


@lru_cache(maxsize=1)
def _read(path: Path, size: int, changed: int) -> State:
    """Kept, as a conversion takes half a minute and the model is looked at more than once."""
    if path.suffix == ".pth":
        return _frozen(path, path)
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "converted.pth"
        _convert(path, target)
        return _frozen(target, path)


def _frozen(path: Path, given: Path) -> State:
    """The state in a TorchScript file; ``given``: the file the user named."""
    import deepmd.pt.cxx_op  # noqa: F401  registers the operators models are made of
    import torch

    check_published(path)
    try:
        model = torch.jit.load(path, map_location="cpu")
        params = json.loads(model.get_model_def_script())
    except Exception as error:  # torch raises many kinds; a foreign module lacks the method
        raise InputError(
            f"model.checkpoint: {given} is no frozen deepmd model ({reason(error)}); give a .pt checkpoint or a .pth"
            " of it"
        ) from None
    weights = model.state_dict()
    if any(".compress_" in name and value.numel() for name, value in weights.items()):
        raise InputError(
            f"model.checkpoint: {given} is compressed: tables stand for its embedding net, which cannot be trained;"
            f" give the checkpoint it was frozen from{_beside(given)}"
        )
    tensors = {f"model.Default.{key}": value.clone() for key, value in weights.items()}
    return {**tensors, "_extra_state": {"model_params": params, "train_infos": {"lr": 0, "step": 0}}}


def _beside(frozen: Path) -> str:
    """Where that checkpoint is, or would be: a run's ``final/model.pth`` has it beside it."""
    checkpoint = frozen.with_suffix(".pt")
    return f": {checkpoint}" if checkpoint.is_file() else ", .pt (of a run: final/model.pt)"


def _convert(path: Path, target: Path) -> None:
    """``dp convert-backend`` in a process of its own, without GPU: TensorFlow would take all of its memory."""
    remedy = f"dp convert-backend {path.name} {path.stem}.pth"
    package = CONVERTED[path.suffix]
    if package and find_spec(package) is None:
        raise InputError(
            f"model.checkpoint: {path} is a model of {package}, which is not installed here;"
            f" where it is, run `{remedy}` and give the .pth"
        )
    command = [sys.executable, "-m", "deepmd", "convert-backend", str(path), str(target)]
    environment = {**clean_environment(), "CUDA_VISIBLE_DEVICES": ""}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        raise InputError(
            f"model.checkpoint: {path}: `{remedy}` was not done in {PATIENCE:g} s; run it by hand and give the .pth"
        ) from None
    if done.returncode or not target.is_file():
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1][:200]
        raise InputError(f"model.checkpoint: {path} cannot be converted by `{remedy}`: {reason}")
