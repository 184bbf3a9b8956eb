"""PET models in memory: from checkpoints and back, their energies per element, and export for use.

To be used where metatrain is installed; it and torch are loaded by the functions.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import chemical_symbols

from ....config.train import ModelSection, TrainSection
from ....data import Record
from ....errors import InputError, TaskError
from ....files import renamed_into
from ....published_models import check_published
from ..deepmd.monitor import DIVERGED
from .train_input import ENERGY, check_options


def check(model: ModelSection, train: TrainSection, labels: bool | None) -> list[str]:
    """See :func:`pfdhpc.engines.registry.trainer_checks`."""
    return check_options(model, train)


def notes(model: ModelSection, train: TrainSection, virial: bool) -> list[str]:
    """See :func:`pfdhpc.engines.registry.trainer_checks`."""
    return []


def facts(section: ModelSection) -> tuple[list[str], tuple[str, ...]]:
    """What is wrong with the pre-trained model, and its elements if there are none (from scratch: those named)."""
    from importlib.util import find_spec

    if find_spec("metatrain") is None:
        return [], ()  # which check() tells of
    if section.checkpoint is None:
        return [], tuple(section.type_map)
    try:
        model = load_pet(section.checkpoint)
    except InputError as error:
        return error.problems, ()
    return [], tuple(chemical_symbols[number] for number in model.atomic_types)


def load_pet(path: Path) -> Any:
    """The model in a checkpoint, the best one of its training; raises InputError, one line, if it is of no use here."""
    from metatrain.utils.io import model_from_checkpoint

    where = f"model.checkpoint: {path}"
    try:
        model = model_from_checkpoint(_content(path), context="export")
    except InputError:
        raise
    except Exception as error:  # pickle, torch and metatrain raise many kinds
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{where}: metatrain cannot read it ({reason}); give a .ckpt of a PET model") from None
    name = type(model).__name__
    if name != "PET":
        raise InputError(f"{where}: a model of the architecture {name}; only PET models are trained here")
    target = model.dataset_info.targets.get(ENERGY)
    if target is None or target.unit.lower() != "ev" or model.dataset_info.length_unit.lower() not in ("angstrom", "a"):
        raise InputError(f'{where}: it has no target "{ENERGY}" in eV, with lengths in Å')
    return model


def new_pet(hypers: dict[str, Any], numbers: Sequence[int]) -> Any:
    """A PET model with random weights, always the same ones, that knows an energy."""
    import torch
    from metatrain.pet import __model__ as PET
    from metatrain.utils.architectures import get_default_hypers
    from metatrain.utils.data import DatasetInfo
    from metatrain.utils.data.target_info import get_energy_target_info

    target = get_energy_target_info(ENERGY, {"quantity": "energy", "unit": "eV", "description": ""})
    info = DatasetInfo(length_unit="angstrom", atomic_types=sorted(numbers), targets={ENERGY: target})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return PET({**get_default_hypers("pet")["model"], **hypers}, info).eval()


def latest(path: Path) -> tuple[Any, Any | None, int]:
    """The last model of a training, the best one (None: it is the last) and the epoch of that."""
    from metatrain.utils.io import model_from_checkpoint

    content = _content(path)
    best, same = content["best_epoch"], content["best_epoch"] == content["epoch"]
    last = model_from_checkpoint(content, context="restart").eval()
    return last, None if same else load_pet(path), best


def check_finite(model: Any) -> None:
    """Raises TaskError if any weight is NaN or infinite."""
    import torch

    if not all(torch.isfinite(weight).all() for weight in model.parameters()):
        raise TaskError(DIVERGED)


def save(model: Any, path: Path) -> Path:
    """Write a checkpoint of weights alone, which fine-tuning starts from. Equal models are equal files."""
    import torch

    content = model.get_checkpoint()
    for state in (content["model_state_dict"], content["best_model_state_dict"]):
        _settle(state, model.atomic_types)
    content["model_state_dict"]["finetune_config"] = {}  # it names a scratch folder
    # torch names the archive inside after the file, if it is told of one: a stream keeps equal models equal files
    with renamed_into(path) as unfinished, open(unfinished, "wb") as stream:
        torch.save(content, stream)
    return path


def _settle(state: dict[str, Any], numbers: Sequence[int]) -> None:
    """Zero what metatrain leaves as it was in memory: the places of elements the model does not know."""
    import torch

    for name in [name for name in state if name.endswith("type_to_index")]:
        table = torch.zeros_like(state[name])
        table[numbers] = state[name][numbers]
        state[name] = table


def export(model: Any, path: Path) -> Path:
    """Write a model as metatomic's TorchScript file, for every engine that knows those."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch announces that TorchScript is deprecated
        model.export().save(str(path))
    return path


def aligned(model: Any, records: Sequence[Record], wanted: np.ndarray, keep: bool) -> Any:
    """The model with an energy per element that fits ``wanted``, (n,) eV, best: least squares of minimum norm.

    Shifted by the fit, of label - prediction; with ``keep`` False set to it, of the labels alone. Elements that do not
    occur stay as they are. Raises TaskError when there are no records.
    """
    if not records:
        raise TaskError("the energy bias cannot be aligned: there is no labelled frame to train on")
    numbers = model.additive_models[0].atomic_types
    counts = np.array([[(record.frame.numbers == number).sum() for number in numbers] for record in records], float)
    fit = np.linalg.lstsq(counts, wanted, rcond=None)[0].tolist()
    found = zip(numbers, fit, counts.any(axis=0), strict=True)
    return shifted(model, {chemical_symbols[number]: value for number, value, occurs in found if occurs}, keep)


def shifted(model: Any, energies: dict[str, float], keep: bool = True) -> Any:
    """The model with ``energies`` (eV, by element) added to its own; with ``keep`` False in place of these."""
    import metatensor.torch as mts
    import torch

    composition = model.additive_models[0]
    weights = mts.load_buffer(getattr(composition, f"{ENERGY}_composition_buffer").cpu())
    values = weights.block().values
    for place, number in enumerate(composition.atomic_types):
        if (more := energies.get(chemical_symbols[number])) is not None:
            values[place, 0] = torch.as_tensor(more, dtype=values.dtype) + (values[place, 0] if keep else 0.0)
    setattr(composition, f"{ENERGY}_composition_buffer", mts.save_buffer(weights))
    composition.sync_tensor_maps()
    return model


def _content(path: Path) -> dict[str, Any]:
    import metatrain.utils.io  # noqa: F401  with metatomic's classes, which a checkpoint holds
    import torch

    check_published(path)
    return torch.load(path, map_location="cpu", weights_only=False)
