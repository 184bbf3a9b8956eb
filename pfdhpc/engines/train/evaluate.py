"""Energies, forces and virials of frames by a deepmd model in memory, and their errors against labels."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...data import Frame, Label, Record
from ...errors import TaskError
from .dataset import types_of

ATOMS_PER_BATCH = 1024
"""A fixed size, so that the last digits of a prediction never depend on how much memory was free."""


def evaluate(model: Any, frames: Sequence[Frame]) -> list[Label]:
    """Label ``frames`` by ``model``, a torch module of deepmd, in batches of frames with as many atoms.

    The model is left in the mode (training or evaluation) it was found in.
    """
    type_map = model.get_type_map()
    labels: list[Label | None] = [None] * len(frames)
    training = model.training
    model.eval()
    try:
        for batch in _batches(frames):
            for index, label in zip(batch, _run(model, type_map, [frames[i] for i in batch]), strict=True):
                labels[index] = label
    finally:
        model.train(training)
    return labels


def _batches(frames: Sequence[Frame]) -> list[list[int]]:
    groups: dict[tuple[int, bool], list[int]] = {}
    for index, frame in enumerate(frames):
        groups.setdefault((len(frame), bool(frame.pbc.any())), []).append(index)
    batches = []
    for (n_atoms, _), members in groups.items():
        size = max(1, ATOMS_PER_BATCH // n_atoms)
        batches += [members[i : i + size] for i in range(0, len(members), size)]
    return batches


def _run(model: Any, type_map: Sequence[str], frames: list[Frame]) -> list[Label]:
    import torch
    from deepmd.pt.utils.env import DEVICE, GLOBAL_PT_FLOAT_PRECISION

    def tensor(rows):
        return torch.tensor(np.array(rows), dtype=GLOBAL_PT_FLOAT_PRECISION, device=DEVICE)

    types = torch.tensor(np.array([types_of(frame, type_map) for frame in frames]), device=DEVICE)
    periodic = frames[0].pbc.any()
    box = tensor([frame.cell.ravel() for frame in frames]) if periodic else None
    output = model(tensor([frame.positions for frame in frames]), types, box=box)
    found = {key: output[key].detach().cpu().double().numpy() for key in ("energy", "force", "virial")}
    energies, forces, virials = found["energy"], found["force"], [None] * len(frames)
    if periodic:
        virials = found["virial"].reshape(-1, 3, 3)
    return [Label(e, f, v) for e, f, v in zip(energies.reshape(-1), forces, virials, strict=True)]


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


def aligned_bias(model: Any, records: Sequence[Record]) -> Any:
    """The model's energy bias shifted, element by element, to labelled records: (1, n_types, 1), eV.

    The shift is deepmd's own least-squares fit of ``label - prediction`` (``dp change-bias``), the
    solution of minimum norm: where the composition cannot tell elements apart (SiC at 1:1) it is shared
    equally, and elements that do not occur keep their bias. All records enter, whatever the batch size
    and the number of ranks. Raises TaskError when there are none.
    """
    import torch
    from deepmd.utils.out_stat import compute_stats_from_redu

    if not records:
        raise TaskError("the energy bias cannot be aligned: there is no labelled frame to train on")

    ordered = sorted(records, key=lambda record: record.frame_id)
    predicted = evaluate(model, [record.frame for record in ordered])
    shift = np.array([[r.label.energy - p.energy] for r, p in zip(ordered, predicted, strict=True)])
    type_map = model.get_type_map()
    counts = [np.bincount(types_of(r.frame, type_map), minlength=len(type_map)) for r in ordered]
    delta, _ = compute_stats_from_redu(shift, np.array(counts, float))
    bias = model.get_out_bias()
    return bias + torch.as_tensor(delta, dtype=bias.dtype, device=bias.device).reshape(bias.shape)
