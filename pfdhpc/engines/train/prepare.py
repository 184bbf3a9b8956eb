"""What ``dp train`` does between reading its input and running its trainer, in process."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...config.train import TrainSection
from ..base import TrainTask
from .checkpoint import read, save
from .dataset import Systems, write_systems
from .ddp_shim import keep_files_in
from .neighbours import grown, neighbours, widened
from .settings import normalised, round_input


@dataclass(frozen=True)
class Plan:
    """All that the ranks need to build deepmd's trainer; made by the leader alone."""

    config: dict[str, Any]  # deepmd's normalised input
    start: dict[str, str]  # {"finetune_model" or "init_model": checkpoint}, empty from scratch
    finetune_links: dict[str, Any] | None  # deepmd's fine-tuning rules, first round only
    bias: Any  # energy bias (1, n_types, 1) eV in place of the trainer's own, None to keep that of the parent
    min_distance: float  # closest pair in the training data, Å


def prepare(section: TrainSection, task: TrainTask, bias: Any) -> Plan:
    """Data files and deepmd's input, by the steps of ``deepmd.pt.entrypoints.main.train`` in their order.

    Without a parent it is ``dp train``; with one, the first round is ``dp train --finetune PARENT
    --use-pretrain-script``, a later one ``dp train --init-model PARENT --use-pretrain-script``, in which a
    student's neighbour counts may grow (:func:`grown`).
    """
    state = None if task.parent is None else read(task.parent)
    params = task.model if state is None else state["_extra_state"]["model_params"]
    data = data_input(section, write_data(task, params["type_map"]))

    def inputs(model: dict[str, Any]) -> dict[str, Any]:
        return round_input(section, model, task.steps, task.seed, task.directory, data)

    if state is None:
        config = normalised(inputs(params))
        config["model"], distance = neighbours(config)
        return Plan(config, {}, None, bias, distance)
    if task.first:
        return _finetune(task, inputs(params), bias)
    config, start = normalised(inputs(params)), task.parent
    if task.model is None:
        config["model"], distance = neighbours(config)
    else:
        before = config["model"]
        config["model"], distance = grown(config, normalised(inputs(task.model))["model"])
        if config["model"] != before:
            start = save(widened(state, config["model"]), task.directory / "model.ckpt-start.pt")
    return Plan(config, {"init_model": str(start)}, None, bias, distance)


def _finetune(task: TrainTask, config: dict[str, Any], bias: Any) -> Plan:
    from deepmd.pt.utils.finetune import get_finetune_rules

    # deepmd would take preset values as the shift of the bias; `dp train --finetune` has none either
    config["model"].pop("preset_out_bias", None)
    config["model"], links = get_finetune_rules(str(task.parent), config["model"])
    config = normalised(config)
    config["model"], distance = neighbours(config)
    return Plan(config, {"finetune_model": str(task.parent)}, links, bias, distance)


def build(plan: Plan, task: TrainTask) -> Any:
    """deepmd's trainer, ready to run; every rank calls it, inside the process group.

    The bias replaces the one deepmd's trainer fits: that one sees ten batches of one rank's share. The
    descriptor's mean and spread, which scale its input and nothing else, stay those of deepmd's trainer:
    ``data_stat_nbatch`` batches (10) of every system, of the leader's share.
    """
    from deepmd.pt.entrypoints.main import get_trainer

    trainer = get_trainer(plan.config, finetune_links=plan.finetune_links, **plan.start)
    keep_files_in(task.directory, trainer)
    if plan.bias is not None:
        trainer.model.set_out_bias(plan.bias.to(trainer.model.get_out_bias().device))
    _set_min_distance(trainer.model, plan.min_distance)
    return trainer


def write_data(task: TrainTask, type_map: list[str]) -> Systems:
    """The training frames of the round in ``task.directory/data``, which must not be there yet.

    Validation frames stay in memory (:mod:`.monitor`).
    """
    folder = task.directory / "data"
    folder.mkdir(parents=True)
    old = write_systems(task.old, type_map, folder / "old")
    new = write_systems(task.new, type_map, folder / "new")
    return Systems(old + new, len(old))


def data_input(section: TrainSection, systems: Systems) -> dict[str, Any]:
    """deepmd's ``training_data``: ``new_fraction`` of the batches come from the systems of new frames."""
    n_old, n_all = systems.n_old, len(systems.paths)
    style = "prob_sys_size"
    if 0 < n_old < n_all:
        share = section.new_fraction
        style = f"prob_sys_size;0:{n_old}:{1 - share};{n_old}:{n_all}:{share}"
    paths = [str(path) for path in systems.paths]
    return {"systems": paths, "auto_prob": style, "batch_size": section.batch_size}


def _set_min_distance(model: Any, distance: float) -> None:
    """Keep in the model the closest pair it was ever trained on: compression tabulates down to it."""
    import torch

    before = float(model.min_nbor_dist)
    closest = min(distance, before) if before > 0 else distance
    model.min_nbor_dist = torch.tensor(closest, dtype=torch.float64, device=model.min_nbor_dist.device)


def read_curve(path: Path) -> dict[int, dict[str, float]]:
    """deepmd's lcurve.out as ``{step: {"rmse_f_trn": ...}}``, without what a batch has no labels for."""
    lines = path.read_text().splitlines() if path.is_file() else []
    names = lines[0].lstrip("# ").split() if lines else []
    curve = {}
    for line in lines:
        if not line.startswith("#"):
            row = dict(zip(names, map(float, line.split()), strict=True))
            curve[int(row.pop("step"))] = {k: v for k, v in row.items() if not math.isnan(v)}
    return curve
