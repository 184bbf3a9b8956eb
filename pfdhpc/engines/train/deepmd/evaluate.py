"""Energies, forces and virials of frames by a deepmd model in memory, and their errors against labels."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from ....data import Frame, Label, Record
from ....data.geometry import right_handed_cell
from ....errors import TaskError
from ...deepmd_inference import batches
from ..alignment import energies_less
from .dataset import types_of


def evaluate(model: Any, frames: Sequence[Frame]) -> list[Label]:
    """Label ``frames`` by ``model``, a torch module of deepmd, in batches of frames with as many atoms.

    The model is left in the mode (training or evaluation) it was found in.
    """
    type_map = model.get_type_map()
    labels: list[Label | None] = [None] * len(frames)
    training = model.training
    model.eval()
    try:
        for batch in batches(frames):
            for index, label in zip(batch, _run(model, type_map, [frames[i] for i in batch]), strict=True):
                labels[index] = label
    finally:
        model.train(training)
    return labels


def _run(model: Any, type_map: Sequence[str], frames: list[Frame]) -> list[Label]:
    import torch
    from deepmd.pt.utils.env import DEVICE, GLOBAL_PT_FLOAT_PRECISION

    def tensor(rows):
        return torch.tensor(np.array(rows), dtype=GLOBAL_PT_FLOAT_PRECISION, device=DEVICE)

    types = torch.tensor(np.array([types_of(frame, type_map) for frame in frames]), device=DEVICE)
    periodic = frames[0].pbc.any()
    box = tensor([right_handed_cell(frame.cell).ravel() for frame in frames]) if periodic else None
    output = model(tensor([frame.positions for frame in frames]), types, box=box)
    found = {key: output[key].detach().cpu().double().numpy() for key in ("energy", "force", "virial")}
    found = zip(frames, found["energy"].reshape(-1), found["force"], found["virial"].reshape(-1, 3, 3), strict=True)
    return [Label(e, f, v if frame.has_virial else None) for frame, e, f, v in found]


def errors(records: Sequence[Record], predictions: Sequence[Label]) -> dict[str, float]:
    """Root mean square errors: ``rmse_e`` eV/atom, ``rmse_f`` eV/Å, ``rmse_v`` eV/atom (nan: no virials)."""
    energy = [(p.energy - r.label.energy) / len(r.frame) for r, p in zip(records, predictions, strict=True)]
    force = [p.forces - r.label.forces for r, p in zip(records, predictions, strict=True)]
    virial = [
        (p.virial - r.label.virial) / len(r.frame)
        for r, p in zip(records, predictions, strict=True)
        if r.label.virial is not None and p.virial is not None
    ]
    return {"rmse_e": _rms(energy), "rmse_f": _rms(force), "rmse_v": _rms(virial)}


def _rms(differences: list) -> float:
    if not differences:
        return float("nan")
    return float(np.sqrt(np.mean(np.concatenate([np.ravel(item) for item in differences]) ** 2)))


def aligned_bias(model: Any, records: Sequence[Record], differences: np.ndarray | None = None) -> Any:
    """The model's energy bias shifted, element by element, to labelled records: (1, n_types, 1), eV.

    The shift is deepmd's own least-squares fit of ``label - prediction`` (``dp change-bias``), the
    solution of minimum norm: where the composition cannot tell elements apart (SiC at 1:1) it is shared
    equally, and elements that do not occur keep their bias. All records enter, whatever the batch size
    and the number of ranks. ``differences``: label - prediction, (n,) eV, where they are known already.
    Raises TaskError when there are no records.
    """
    from deepmd.utils.out_stat import compute_stats_from_redu

    ordered = _ordered(records)
    if differences is None:
        differences = energies_less(ordered, partial(evaluate, model))
    else:
        differences = differences[np.argsort([record.frame_id for record in records], kind="stable")]
    delta, _ = compute_stats_from_redu(differences[:, None], _composition(ordered, model.get_type_map()).astype(float))
    return shifted_bias(model, delta)


def shifted_bias(model: Any, delta: np.ndarray) -> Any:
    """The model's energy bias (1, n_types, 1) and ``delta``, (n_types,) eV."""
    import torch

    bias = model.get_out_bias()
    return bias + torch.as_tensor(delta, dtype=bias.dtype, device=bias.device).reshape(bias.shape)


def initial_bias(model: dict[str, Any], records: Sequence[Record]) -> Any:
    """The energy bias a model of this deepmd section is trained from scratch with: (1, n_types, 1), eV.

    Least squares of the energies alone on the composition, as ``dp train`` does (the network, still random,
    is not asked) and with the section's ``preset_out_bias`` and ``rcond``; but of all records, as
    :func:`aligned_bias`, where deepmd takes ten batches of each system. Raises TaskError when there are none.
    """
    import torch
    from deepmd.pt.utils.stat import compute_output_stats

    ordered, type_map = _ordered(records), model["type_map"]
    counts = _composition(ordered, type_map)
    natoms = np.concatenate([counts.sum(axis=1, keepdims=True)] * 2 + [counts], axis=1)  # all, local, by type
    energies = np.array([[record.label.energy] for record in ordered])
    given = (model.get("preset_out_bias") or {}).get("energy")
    preset = given and {"energy": [None if item is None else np.ravel(item).astype(float) for item in given]}
    system = {"energy": torch.tensor(energies), "natoms": torch.tensor(natoms), "find_energy": 1.0}
    bias, _ = compute_output_stats([system], len(type_map), rcond=model.get("rcond"), preset_bias=preset)
    return bias["energy"].cpu().reshape(1, len(type_map), 1)


def _ordered(records: Sequence[Record]) -> list[Record]:
    if not records:
        raise TaskError("the energy bias cannot be aligned: there is no labelled frame to train on")
    return sorted(records, key=lambda record: record.frame_id)


def _composition(records: Sequence[Record], type_map: Sequence[str]) -> np.ndarray:
    """Number of atoms of each type, (n_records, n_types) int."""
    return np.array([np.bincount(types_of(r.frame, type_map), minlength=len(type_map)) for r in records])
