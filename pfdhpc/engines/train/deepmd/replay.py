"""Multi-task fine-tuning: the material's branch beside branches of the parent that keep training on their data.

A model with replayed branches is one file: the material's branch as a single-task checkpoint, which deepmd and
this program use as any other, and beside it what the other branches do not share with it. The trainer puts the
two together again. All branches share the descriptor; each has a fitting net of its own.
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from ....config.train import ReplaySection
from ....data import Record
from ....data.io import read_labelled
from ....data.known_frames import repeats
from ....errors import InputError
from .checkpoint import State, single_task
from .type_map import retyped

MATERIAL = "downstream"
"""The material's branch in a training, named as in deepmd's documentation."""

HELD_OUT = 5
"""Of the replayed frames, one in so many never trains: forgetting is measured on those."""

Branches = dict[str, State]
"""Single-task states of the replayed branches by name, without the tensors they share with the material's."""


@dataclass(frozen=True)
class Replayed:
    """The data of one branch, each part sorted by frame id."""

    weight: float
    training: tuple[Record, ...]
    held_out: tuple[Record, ...]


def read_replay(sections: dict[str, ReplaySection]) -> dict[str, Replayed]:
    """The data of ``train.replay``; raises InputError with every problem found."""
    problems, found = [], {}
    for name, section in sections.items():
        records: list[Record] = []
        for path in section.data:
            try:
                records += read_labelled(path)
            except InputError as error:
                problems += [f"train.replay.{name}.data: {line}" for line in error.problems]
        again = repeats([record.frame for record in records])  # one that is held out must not train from another file
        once = [record for index, record in enumerate(records) if index not in again]
        found[name] = _split(section.weight, sorted(once, key=lambda record: record.frame_id))
    if problems:
        raise InputError(problems)
    return found


def _split(weight: float, records: list[Record]) -> Replayed:
    """By frame id alone, so that a frame is on the same side in every round and job."""
    out = [int(sha256(record.frame_id.encode()).hexdigest(), 16) % HELD_OUT == 0 for record in records]
    if all(out) or not any(out):  # a handful of frames: all train, and forgetting is measured on what was trained
        return Replayed(weight, tuple(records), tuple(records))
    sides = {side: tuple(r for r, is_out in zip(records, out, strict=True) if is_out == side) for side in (True, False)}
    return Replayed(weight, sides[False], sides[True])


def taken_along(parent: State, material: State, names: Sequence[str]) -> Branches:
    """The branches to be replayed out of a pre-trained model; raises InputError for one that cannot be.

    ``material``: the single-task state of the branch that is fine-tuned.
    """
    branches, problems = {}, []
    for name in names:
        try:
            branch = _named(parent, name)
        except InputError as error:
            problems += [line.replace("model.branch:", f"train.replay.{name}:") for line in error.problems]
            continue
        if name == MATERIAL or not name.isidentifier():
            problems.append(f"train.replay.{name}: a branch of this name cannot be replayed")
        elif not _share_descriptor(branch, material):
            problems.append(f"train.replay.{name}: it does not share the descriptor of the branch that is fine-tuned")
        branches[name] = _own(branch)
    if problems:
        raise InputError(problems)
    return branches


def _named(parent: State, name: str) -> State:
    """A branch by name; the one of a single-task model is called "Default", as in deepmd."""
    multi = "model_dict" in parent["_extra_state"]["model_params"]
    if not multi and name != "Default":
        raise InputError(
            f'model.branch: the checkpoint is single-task, its only branch is called "Default", not "{name}"'
        )
    return single_task(parent, name if multi else None)


def _share_descriptor(branch: State, material: State) -> bool:
    keys = [key for key in branch if ".descriptor." in key]
    return all(key in material and _equal(branch[key], material[key]) for key in keys)


def _equal(one: Any, two: Any) -> bool:
    return one.shape == two.shape and bool((one == two).all())


def _own(branch: State) -> State:
    """What a branch does not share."""
    return {key: value for key, value in branch.items() if ".descriptor." not in key}


def whole(name: str, material: State, branches: Branches) -> State:
    """The single-task state of a replayed branch."""
    return {**{key: value for key, value in material.items() if ".descriptor." in key}, **branches[name]}


def retyped_all(material: State, branches: Branches, type_map: Sequence[str] | None) -> Branches:
    """The branches beside the material's state, all with other elements (:func:`retyped`); it, too, as it was."""
    return {name: _own(retyped(whole(name, material, branches), type_map)) for name in branches}


def put_together(material: State, branches: Branches) -> State:
    """One multi-task state of the material's branch and the replayed ones, as a checkpoint of deepmd's has it."""
    parts = {MATERIAL: material, **{name: whole(name, material, branches) for name in branches}}
    tensors = {
        key.replace("model.Default.", f"model.{name}.", 1): value
        for name, part in parts.items()
        for key, value in part.items()
        if key != "_extra_state"
    }
    params = {name: _without_alias(part["_extra_state"]["model_params"]) for name, part in parts.items()}
    extra = {"model_params": {"model_dict": params}, "train_infos": {"lr": 0, "step": 0}}
    return {**tensors, "_extra_state": deepcopy(extra)}


def _without_alias(params: dict[str, Any]) -> dict[str, Any]:
    """Two branches of one origin would have the same aliases, which deepmd refuses."""
    return {key: value for key, value in params.items() if key != "model_branch_alias"}


def taken_apart(state: State) -> tuple[State, Branches]:
    """What :func:`put_together` made, after a training; a single-task state has no branches."""
    params = state["_extra_state"]["model_params"]
    if MATERIAL not in params.get("model_dict", ()):
        return state, {}
    parts = {name: single_task(state, name) for name in params["model_dict"]}
    material = parts.pop(MATERIAL)
    for part in (material, *parts.values()):
        part["_extra_state"]["model_params"].pop("finetune_head", None)
    return material, {name: _own(part) for name, part in parts.items()}


def multi_task(
    config: dict[str, Any], models: dict[str, Any], data: dict[str, Any], weights: dict[str, float]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """deepmd's input of several branches, and what they share, from that of the material's alone.

    ``models``: sections of the replayed branches; ``data``: their ``training_data``; all by name.
    """
    from deepmd.pt.utils.multi_task import preprocess_shared_params

    material = config["model"]
    shared = {"elements": material["type_map"], "shared_descriptor": material["descriptor"]}
    links = {"type_map": "elements", "descriptor": "shared_descriptor"}
    every = {name: _without_alias(section) for name, section in {MATERIAL: material, **models}.items()}
    model, shared_links = preprocess_shared_params(
        {"shared_dict": shared, "model_dict": {name: {**section, **links} for name, section in every.items()}}
    )
    training = {key: value for key, value in config["training"].items() if key != "training_data"}
    training["data_dict"] = {MATERIAL: {"training_data": config["training"]["training_data"]}}
    training["data_dict"] |= {name: {"training_data": data[name]} for name in models}
    training["model_prob"] = {MATERIAL: 1.0, **weights}
    rest = {key: value for key, value in config.items() if key not in ("model", "loss", "training")}
    losses = {name: deepcopy(config["loss"]) for name in every}
    return {**rest, "model": model, "loss_dict": losses, "training": training}, shared_links
