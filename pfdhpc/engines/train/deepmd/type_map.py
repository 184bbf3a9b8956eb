"""Another list of elements for a model that exists, by deepmd's own rules."""

from collections.abc import Sequence
from typing import Any

from ....errors import InputError
from .checkpoint import State


def new_elements(state: State, type_map: Sequence[str] | None) -> list[str]:
    """The elements of ``type_map`` that a model does not know."""
    return [name for name in type_map or () if name not in state["_extra_state"]["model_params"]["type_map"]]


def retyped(state: State, type_map: Sequence[str] | None) -> State:
    """A single-task state as one of a model with other elements, or in another order; None: as it is.

    An element new to the model gets a random embedding (always the same one), zero energy bias and trivial
    statistics, as in deepmd where there are no data: a training replaces all but the embedding by what its data
    say. Raises InputError for a model with separate networks per pair of elements: deepmd cannot change those.
    """
    params = state["_extra_state"]["model_params"]
    if type_map is None or list(type_map) == params["type_map"]:
        return state
    from deepmd.pt.train.wrapper import ModelWrapper

    from .runtime import build_model, seed_everything

    model = build_model(state)
    if not model.mixed_types():
        raise InputError(
            f"model.type_map: deepmd cannot change the elements of a {_kind(params)} model, which has networks of its"
            f" own for each; remove the key: the model keeps {', '.join(params['type_map'])}"
        )
    seed_everything(0)
    model.change_type_map(list(type_map))
    wrapper = ModelWrapper(model, model_params={**params, "type_map": list(type_map)})
    return {**wrapper.state_dict()}


def _kind(params: dict[str, Any]) -> str:
    return str(params.get("descriptor", {}).get("type", params.get("type", "")))
