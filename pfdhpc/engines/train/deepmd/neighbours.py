"""Neighbour counts (deepmd's ``sel``) of a model section: found in the data, and grown between rounds."""

from typing import Any

from ....errors import TaskError
from .checkpoint import State


def neighbours(config: dict[str, Any]) -> tuple[dict[str, Any], float]:
    """The model section with automatic neighbour counts filled in, and the closest pair in the data, Å."""
    from deepmd.pt.model.model import BaseModel
    from deepmd.utils.data_system import get_data

    type_map = config["model"]["type_map"]
    data = get_data(config["training"]["training_data"], 0, type_map, None)
    return BaseModel.update_sel(data, type_map, config["model"])


def grown(config: dict[str, Any], asked: dict[str, Any]) -> tuple[dict[str, Any], float]:
    """As :func:`neighbours`, for a model that exists: ``config["model"]`` with neighbour counts that suffice.

    A count that ``asked``, the student's own normalised section, leaves to "auto" stays as it is while it is
    enough for every training frame, and is found anew, with deepmd's margin of a tenth, when it is not.
    Counts given as numbers stay: deepmd warns in the log and takes the nearest neighbours.
    """
    needed, distance = neighbours({**config, "model": _exact(asked)})
    return _grown(config["model"], asked, needed), distance


def widened(state: State, params: dict[str, Any]) -> State:
    """``state`` as one of a model of ``params``, which differs in larger neighbour counts alone.

    All weights stay; the descriptor's mean and spread, equal for every neighbour of a kind of atom, are
    repeated. The descriptor is an average over the neighbour slots, empty ones among them, so predictions
    change, by 8 and 34 meV/atom (se_e2_a, DPA-1) in a test where the slots grew by a fourth and by 40 %; training
    goes on from there. Raises TaskError for a descriptor where this does not do.
    """
    from deepmd.pt.train.training import get_model_for_wrapper
    from deepmd.pt.train.wrapper import ModelWrapper

    wanted = ModelWrapper(get_model_for_wrapper(params), model_params=params).state_dict()
    tensors = {key: _repeated(key, value, wanted[key]) for key, value in state.items() if key != "_extra_state"}
    return {**tensors, "_extra_state": wanted["_extra_state"]}


def _repeated(key: str, value: Any, wanted: Any) -> Any:
    """``value`` (types, slots, ...) with as many equal slots as ``wanted``."""
    if value.shape == wanted.shape:
        return value
    if value.ndim == wanted.ndim > 1 and bool((value == value[:, :1]).all()):
        return value[:, :1].expand(wanted.shape).clone()
    raise TaskError(
        f"the student needs more neighbours than it has slots, and {key} cannot be widened; "
        "give student.model fixed, larger neighbour counts, or set student.warm_start = false"
    )


def _exact(asked: Any) -> Any:
    """A section that asks for the counts the data need, without margin."""
    if isinstance(asked, dict):
        return {key: _exact(value) for key, value in asked.items()}
    if isinstance(asked, list):
        return [_exact(value) for value in asked]
    return "auto:1" if _automatic(asked) else asked


def _grown(present: Any, asked: Any, needed: Any) -> Any:
    if isinstance(present, dict) and isinstance(asked, dict):
        return {key: _grown(value, asked.get(key), needed.get(key)) for key, value in present.items()}
    if isinstance(present, list) and isinstance(asked, list):
        return [_grown(*items) for items in zip(present, asked, needed, strict=True)]
    if not _automatic(asked):
        return present
    if isinstance(present, list):
        return [_enough(has, needs, asked) for has, needs in zip(present, needed, strict=True)]
    return _enough(present, needed, asked)


def _enough(has: int, needs: int, asked: str) -> int:
    from deepmd.pt.utils.update_sel import UpdateSel

    rule = UpdateSel()
    return has if needs <= has else rule.wrap_up_4(needs * rule.parse_auto_sel_ratio(asked))


def _automatic(asked: Any) -> bool:
    return isinstance(asked, str) and asked.split(":")[0] == "auto"
