"""What ``dp train`` does between reading its input and running its trainer, in process."""

import math
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

from ....config.train import RANDOM, ModelSection, TrainSection
from ...base import TrainTask
from .checkpoint import State, read, read_branches, save
from .dataset import Systems, write_systems
from .evaluate import aligned_bias
from .freezing import freeze_weights
from .mpi_ddp import keep_files_in
from .neighbours import grown, neighbours, widened
from .replay import MATERIAL, Replayed, multi_task, put_together
from .train_input import asked_model, normalised, round_input, with_new_head


class Fit(Enum):
    """When a bias is fitted that the leader cannot give; a member is the same object on every rank it is sent to."""

    LATER = "later"


LATER = Fit.LATER
"""A bias that is fitted when the trainer is built: of a model unlike its parent, by statistics of elements new to
it or by parameters of the user's."""


@dataclass(frozen=True)
class Plan:
    """All that the ranks need to build deepmd's trainer; made by the leader alone."""

    config: dict[str, Any]  # deepmd's normalised input
    start: dict[str, str]  # {"finetune_model" or "init_model": checkpoint}, empty from scratch
    finetune_links: dict[str, Any] | None  # deepmd's fine-tuning rules, first round only
    bias: Any  # energy bias (1, n_types, 1) eV in place of the trainer's own, LATER, or None to keep that of the parent
    min_distance: dict[str, float]  # closest pair in the training data, Å, by branch; "Default" where there is one
    shared_links: dict[str, Any] | None = None  # what the branches share, where there are several
    frozen: tuple[str, ...] = ()  # train.freeze


def prepare(
    section: TrainSection,
    task: TrainTask,
    bias: Any,
    model: ModelSection | None = None,
    replayed: dict[str, Replayed] | None = None,
) -> Plan:
    """Data files and deepmd's input, by the steps of ``deepmd.pt.entrypoints.main.train`` in their order.

    Without a parent it is ``dp train``; with one, the first round is ``dp train --finetune PARENT``, a later one
    ``dp train --init-model PARENT --use-pretrain-script``, in which a student's neighbour counts may grow
    (:func:`grown`). ``model`` says what the first round does with the parent's elements and fitting net. With
    ``replayed`` data (:func:`read_replay`) their branches train beside, from what ``task.parent`` holds of them.
    """
    if task.parent is None:
        return _from_scratch(section, task, bias)
    state = read(task.parent)
    if task.model is not None:
        return replace(_student(section, task, state), bias=bias)
    params = state["_extra_state"]["model_params"]
    if task.first:
        params = _first_model(section, task, params, model)
    if section.lora is not None:  # new adapters in every round: those of the last are in the weights
        params = {**params, "lora": section.lora.model_dump()}
    data = data_input(section, write_data(task, params["type_map"]))
    config = round_input(section, params, task.steps, task.seed, task.directory, data)
    start, links = task.parent, None
    if replayed:
        branches = read_branches(task.parent)
        start = save(put_together(state, branches), task.directory / "model.ckpt-start.pt")
        config, links = _with_branches(section, task, config, branches, replayed)
    frozen = tuple(section.freeze)
    if not task.first:
        config, distances = _measured(normalised(config, bool(replayed)))
        return Plan(config, {"init_model": str(start)}, None, bias, distances, links, frozen)
    plan = _finetune(start, config, bias, bool(model) and model.branch == RANDOM)
    return replace(plan, config=_staged(section, task, plan.config), shared_links=links, frozen=frozen)


def _from_scratch(section: TrainSection, task: TrainTask, bias: Any) -> Plan:
    data = data_input(section, write_data(task, task.model["type_map"]))
    config = normalised(round_input(section, task.model, task.steps, task.seed, task.directory, data))
    config, distances = _measured(config)
    return Plan(_staged(section, task, config), {}, None, bias, distances)


def _staged(section: TrainSection, task: TrainTask, config: dict[str, Any]) -> dict[str, Any]:
    """The input with a stage of direct forces, where one is asked for."""
    if not section.direct:
        return config
    from .two_stage_loss import two_staged

    return two_staged(config, section.direct_share, section.direct_weight, task.seed)


def _student(section: TrainSection, task: TrainTask, state: State) -> Plan:
    """A later round of a student."""
    params, start = state["_extra_state"]["model_params"], task.parent
    data = data_input(section, write_data(task, params["type_map"]))

    def inputs(model: dict[str, Any]) -> dict[str, Any]:
        return normalised(round_input(section, model, task.steps, task.seed, task.directory, data))

    config = inputs(params)
    before = config["model"]
    config["model"], distance = grown(config, inputs(task.model)["model"])
    if config["model"] != before:
        start = save(widened(state, config["model"]), task.directory / "model.ckpt-start.pt")
    return Plan(config, {"init_model": str(start)}, None, None, {"Default": distance})


def _first_model(
    section: TrainSection, task: TrainTask, params: dict[str, Any], model: ModelSection | None
) -> dict[str, Any]:
    """deepmd's model section of a first round: whose parameters, which elements, which fitting net."""
    if model is not None and model.type_map:
        params = {**params, "type_map": list(model.type_map)}
    if model is not None and model.branch == RANDOM:
        params = with_new_head(section, params, task.seed)
    else:
        params = asked_model(section, params)
    # deepmd would take preset values as the shift of the bias; `dp train --finetune` has none either
    return {key: value for key, value in params.items() if key != "preset_out_bias"}


def _with_branches(
    section: TrainSection,
    task: TrainTask,
    config: dict[str, Any],
    branches: dict[str, State],
    replayed: dict[str, Replayed],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The input of the material's branch with those of the replayed ones and their data."""
    type_map, data, models = config["model"]["type_map"], {}, {}
    for name, given in replayed.items():
        paths = write_systems(given.training, type_map, task.directory / "data" / "replay" / name)
        data[name] = data_input(section, Systems(paths, 0))
        models[name] = branches[name]["_extra_state"]["model_params"]
    return multi_task(config, models, data, {name: given.weight for name, given in replayed.items()})


def _finetune(start: Path, config: dict[str, Any], bias: Any, random: bool) -> Plan:
    """The rules of a first round. A replayed branch has no head to be fine-tuned from: it resumes its own."""
    from deepmd.pt.utils.finetune import get_finetune_rules

    several = "model_dict" in config["model"]
    if several:
        config["model"]["model_dict"][MATERIAL]["finetune_head"] = RANDOM if random else MATERIAL
    branch = RANDOM if random and not several else ""
    config["model"], rules = get_finetune_rules(str(start), config["model"], branch, change_model_params=False)
    config, distances = _measured(normalised(config, several))
    return Plan(config, {"finetune_model": str(start)}, rules, bias, distances)


def _measured(config: dict[str, Any]) -> tuple[dict[str, Any], dict[str, float]]:
    """The input with automatic neighbour counts filled in, and the closest pairs, by branch."""
    if "model_dict" not in config["model"]:
        config["model"], distance = neighbours(config)
        return config, {"Default": distance}
    distances = {}
    for name, model in config["model"]["model_dict"].items():
        part = {"model": model, "training": config["training"]["data_dict"][name]}
        config["model"]["model_dict"][name], distances[name] = neighbours(part)
    return config, distances


def build(plan: Plan, task: TrainTask) -> Any:
    """deepmd's trainer, ready to run; every rank calls it, inside the process group.

    The bias replaces the one deepmd's trainer fits: that one sees ten batches of one rank's share. The
    descriptor's mean and spread, which scale its input and nothing else, stay those of deepmd's trainer:
    ``data_stat_nbatch`` batches (10) of every system, of the leader's share.
    """
    from deepmd.pt.entrypoints.main import get_trainer

    from . import two_stage_loss  # which makes its loss known to deepmd

    trainer = get_trainer(plan.config, finetune_links=plan.finetune_links, shared_links=plan.shared_links, **plan.start)
    keep_files_in(task.directory, trainer)
    if isinstance(trainer.loss, two_stage_loss.TwoStageLoss):
        two_stage_loss.restart_learning_rate(trainer)
    model = material(trainer)
    if plan.bias is not None:
        fitted = aligned_bias(model, task.old + task.new) if plan.bias is LATER else plan.bias
        model.set_out_bias(fitted.to(model.get_out_bias().device))
    for name, distance in plan.min_distance.items():
        _set_min_distance(trainer._get_inner_module().model[name], distance)
    freeze_weights(model, plan.frozen)
    return trainer


def material(trainer: Any) -> Any:
    """The model that a training is about: the material's branch where there are several."""
    return trainer.model[MATERIAL] if trainer.multi_task else trainer.model


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
    """deepmd's lcurve.out as ``{step: {"rmse_f_trn": ...}}``, without what a batch has no labels for.

    Of several branches, the material's columns go without its name.
    """
    lines = path.read_text().splitlines() if path.is_file() else []
    names = [name.removesuffix(f"_{MATERIAL}") for name in lines[0].lstrip("# ").split()] if lines else []
    curve = {}
    for line in lines:
        if not line.startswith("#"):
            row = dict(zip(names, map(float, line.split()), strict=True))
            curve[int(row.pop("step"))] = {k: v for k, v in row.items() if not math.isnan(v)}
    return curve
