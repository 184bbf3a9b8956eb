"""deepmd checkpoints (.pt, PyTorch backend) as files: what is in one, one branch of it, saving one."""

from copy import deepcopy
from pathlib import Path
from typing import Any

from ....errors import InputError, reason
from ....files import renamed_into
from ....published_models import check_published

State = dict[str, Any]
"""A model's state: tensors by name, and ``_extra_state`` with its parameters."""

BRANCHES = "pfdhpc_branches"
"""Where a checkpoint keeps its replayed branches."""

COMPILED = {"dpa4", "sezm"}
"""Names of the one kind of model that deepmd 3.2 freezes to .pt2 (deepmd/pt/entrypoints/freeze_pt2.py)."""


def read(checkpoint: Path) -> State:
    """The model state in a checkpoint, on the CPU; raises InputError if there is none.

    Loads with ``weights_only=True``: no code in the file is run. A published model is held to its digest.
    """
    import torch

    check_published(checkpoint)
    remedy = "give a .pt checkpoint of deepmd-kit's PyTorch backend"
    try:
        content = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except OSError as error:
        raise InputError(f"model.checkpoint: {checkpoint} cannot be read: {error.strerror}") from None
    except Exception as error:  # pickle, zip and torch raise many kinds here
        raise InputError(f"model.checkpoint: {checkpoint} is no checkpoint ({reason(error)}); {remedy}") from None
    state = content.get("model", content) if isinstance(content, dict) else None
    extra = state.get("_extra_state") if isinstance(state, dict) else None
    if not isinstance(extra, dict) or "model_params" not in extra:
        raise InputError(f"model.checkpoint: {checkpoint} holds no deepmd model; {remedy}")
    return state


def single_task(state: State, branch: str | None) -> State:
    """The state of one branch as a single-task model, as ``dp freeze --head`` cuts it out.

    Raises InputError when a multi-task model is given no branch: deepmd would start from a random
    fitting net without a word; and when ``branch`` does not fit the model.
    """
    state = one_branch(state, branch_name(state, branch))
    _check_kind(state["_extra_state"]["model_params"])
    return state


def one_branch(state: State, branch: str | None) -> State:
    """The state of a branch, named as in the file, as a single-task model; None: of a single-task model, as it is."""
    if branch is None:
        return state
    params = state["_extra_state"]["model_params"]
    prefix = f"model.{branch}."
    cut = {f"model.Default.{k.removeprefix(prefix)}": v for k, v in state.items() if k.startswith(prefix)}
    extra = {**state["_extra_state"], "model_params": deepcopy(params["model_dict"][branch])}
    return {**cut, "_extra_state": extra}


def with_params(state: State, params: dict[str, Any]) -> State:
    """The state with other parameters of the model."""
    return {**state, "_extra_state": {**state["_extra_state"], "model_params": params}}


def save(state: State, path: Path, branches: dict[str, State] | None = None) -> Path:
    """Write a checkpoint without optimizer moments; the empty entry is what ``init_model`` asks for.

    ``branches``: what deepmd does not look at, the replayed branches (:mod:`.replay`).
    """
    import torch

    content = {"model": _copied(state), "optimizer": {}}
    if branches:
        content[BRANCHES] = {name: _copied(branch) for name, branch in branches.items()}
    # torch names the archive inside after the file, if it is told of one: a stream keeps equal states equal files
    with renamed_into(path) as unfinished, open(unfinished, "wb") as stream:
        torch.save(content, stream)
    return path


def read_branches(checkpoint: Path) -> dict[str, State]:
    """What :func:`save` was given beside the state of a checkpoint of ours."""
    import torch

    content = torch.load(checkpoint, map_location="cpu", weights_only=True)
    return content.get(BRANCHES, {})


def _copied(state: State) -> State:
    import torch

    return {k: v.detach().cpu().clone() if torch.is_tensor(v) else deepcopy(v) for k, v in state.items()}


def branch_name(state: State, branch: str | None) -> str | None:
    """The name in the file of a branch given by it or by one of deepmd's aliases, in capitals or not, as in deepmd.

    None for a single-task model and no branch; raises InputError where branch and model do not fit. (A number is no
    name: deepmd takes any for the first branch.)
    """
    from deepmd.utils.model_branch_dict import get_model_dict

    params = state["_extra_state"]["model_params"]
    branches = tuple(params.get("model_dict", ()))
    if branch is not None and not isinstance(branch, str):
        raise InputError(f"model.branch: {branch!r} is no name of a branch; give one, in quotes")
    if not branches and branch is not None:
        raise InputError(f'model.branch: "{branch}" is given but the checkpoint is single-task, remove it')
    if not branches:
        return None
    if branch is None:
        raise InputError(f"model.branch: missing; the checkpoint is multi-task, choose {_listed(branches)}")
    names = get_model_dict(params["model_dict"])[0]
    alike = {names[name] for name in names if name.lower() == branch.lower()}
    found = names.get(branch, alike.pop() if len(alike) == 1 else None)
    if found is None:
        raise InputError(f'model.branch: the checkpoint has no "{branch}"; choose {_listed(branches)}')
    return found


def kind_of(state: State) -> str:
    """The descriptor's type of a single-task model, or that of a model that has none of its own."""
    params = state["_extra_state"]["model_params"]
    return str(params.get("descriptor", {}).get("type", params.get("type", "unknown"))).lower()


def is_compiled(kind: str) -> bool:
    """Whether deepmd freezes such a model to .pt2, compiled for one machine, and not to TorchScript."""
    return kind in COMPILED


def _check_kind(params: dict[str, Any]) -> None:
    """Refuse a DPA-4 with an analytical short-range part ("bridging"): none was ever tried here."""
    from deepmd.utils.bridging import is_bridged_sezm_config

    if is_bridged_sezm_config(params):
        raise InputError(
            "model.checkpoint: a DPA-4 bridged to an analytical potential is not supported; give one without"
        )


def _listed(branches: tuple[str, ...]) -> str:
    return " or ".join(f'"{name}"' for name in branches)
