"""What can be seen of a training by deepmd before it begins; see :func:`pfdhpc.engines.registry.trainer_checks`."""

from collections.abc import Sequence
from pathlib import Path

from ....config.train import ModelSection, TrainSection
from ....errors import InputError
from ...explore.committee_checks import committee_problems
from .checkpoint import is_compiled, kind_of, with_params
from .objective import notes as objective_notes
from .pretrained_model import branch_of, check_training, open_parent
from .runtime import build_model
from .train_input import asked_model, check_deepmd_input, read_input, toy_input
from .type_map import retyped


def check(model: ModelSection, train: TrainSection, labels: bool | None) -> list[str]:
    """Problems of ``train.deepmd``, and what the pre-trained model has against how it is to be fine-tuned."""
    problems = check_deepmd_input(train, model) + _kind(model, train)
    return problems if problems or labels is None else check_training(model, train, labels)


def notes(model: ModelSection, train: TrainSection, virial: bool) -> list[str]:
    """What deepmd makes of an input without problems that may surprise; ``virial``: labels are computed with one."""
    return objective_notes(train, toy_input(train, model.branch), read_input(train), virial)


def _kind(model: ModelSection, train: TrainSection) -> list[str]:
    """Whether the model is one of those ``train.type`` is for; one that cannot be read is told of by :func:`facts`."""
    if model.calculator is not None:
        return []
    try:
        kind = kind_of(branch_of(model))
    except InputError:
        return []
    if is_compiled(kind) == (train.type == "dpa4"):
        return []
    if train.type == "dpa4":
        return [f'train.type: "dpa4", but the model is a {kind}; remove the key']
    return [
        f"model.checkpoint: it is a {kind}, which deepmd freezes to .pt2 only, for one machine: LAMMPS does not run it"
        ' here; set train.type = "dpa4" to fine-tune it and explore with ASE. As a teacher it is given with'
        ' model.calculator = "deepmd.calculator.DP", model.model_argument = "model"'
    ]


def facts(model: ModelSection) -> tuple[list[str], tuple[str, ...]]:
    """What is wrong with the pre-trained model and its branch, and the type map if nothing is.

    The model is built, as a training would: that it can be read does not mean that this deepmd knows it.
    """
    try:
        state = retyped(open_parent(model), model.type_map)
    except InputError as error:
        return error.problems, ()
    return [], tuple(state["_extra_state"]["model_params"]["type_map"])


def committee(model: ModelSection, train: TrainSection, labels: bool | None, paths: Sequence[Path]) -> list[str]:
    """What keeps the models ``paths`` from exploring beside the one that explores first.

    That is the pre-trained one; with ``labels`` it has been trained before, which may give it another cutoff. Of a
    model that cannot be used at all :func:`facts` and :func:`check` tell.
    """
    try:
        state = retyped(open_parent(model), model.type_map)
    except InputError:
        return []
    params = state["_extra_state"]["model_params"]
    try:
        first = build_model(with_params(state, asked_model(train, params) if labels and train.first_steps else params))
    except Exception:  # torch and deepmd raise many kinds
        return []
    return committee_problems(paths, params["type_map"], float(first.get_rcut()))
