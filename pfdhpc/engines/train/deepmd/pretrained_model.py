"""The pre-trained model that the input names, and whether what the input asks of it can be done."""

from ase.data import chemical_symbols

from ....config.train import RANDOM, ModelSection, TrainSection
from ....data import Record
from ....errors import InputError
from .checkpoint import State, single_task, with_params
from .checkpoint_formats import read_model
from .freezing import check_against, weights
from .replay import read_replay, taken_along
from .runtime import build_model, seed_everything
from .train_input import asked_model
from .type_map import new_elements, retyped


def open_parent(section: ModelSection) -> State:
    """The pre-trained model, or its branch, as a single-task state that was seen to build here.

    Its elements are those of the file. With the branch "RANDOM" its fitting net, bias and all, is a random one.
    Raises InputError, one line, for whatever keeps this deepmd from reading, building or freezing it.
    """
    import deepmd

    state = branch_of(section)
    try:
        build_model(state)
    except Exception as error:  # deepmd and torch raise many kinds for parameters and weights they do not know
        raise InputError(
            f"model.checkpoint: {section.checkpoint} cannot be built by deepmd-kit {deepmd.__version__}"
            f" ({_reason(error)}); give a checkpoint made by this version, or one it converts"
        ) from None
    return with_random_head(state) if section.branch == RANDOM else state


def branch_of(section: ModelSection) -> State:
    """The branch named, as read; of "RANDOM" the descriptor is taken from the first one, as deepmd does."""
    state, branch = read_model(section.checkpoint), section.branch
    if branch != RANDOM:
        return single_task(state, branch)
    return single_task(state, next(iter(state["_extra_state"]["model_params"].get("model_dict", ())), None))


def with_random_head(state: State) -> State:
    """The state with everything but the descriptor as it is in a new model; always the same."""
    from deepmd.pt.train.training import get_model_for_wrapper
    from deepmd.pt.train.wrapper import ModelWrapper

    params = state["_extra_state"]["model_params"]
    params = {**params, "fitting_net": {**params["fitting_net"], "seed": 0}}
    seed_everything(0)
    new = ModelWrapper(get_model_for_wrapper(params), model_params=params).state_dict()
    return {key: state[key] if ".descriptor." in key else value for key, value in new.items()}


def check_training(model: ModelSection, train: TrainSection, labels: bool) -> list[str]:
    """What the pre-trained model has against the input; ``labels``: there are some before the first exploration.

    A model that cannot be used at all is told of by :func:`open_parent`, and nothing here.
    """
    try:
        state = open_parent(model)
        there = retyped(state, model.type_map)
    except InputError:
        return []
    problems = _elements(state, model, labels and train.first_steps > 0)
    problems += check_against(train.freeze, [name for name, _ in weights(build_model(there))])
    if model.branch == RANDOM and "fitting_net" in train.freeze:
        problems.append('train.freeze: "fitting_net" is random (model.branch), it must be trained; leave it out')
    return problems + _own_model(there, train) + _replay(state, there, model, train)


def _elements(state: State, model: ModelSection, trained: bool) -> list[str]:
    new = new_elements(state, model.type_map)
    if not new or trained:
        return []
    return [
        f"model.type_map: {', '.join(new)}: new to the model, which must be trained on them before it explores;"
        " ask for labels (init.frames or init.data, for a pool pool.init_pick) and steps (train.first_steps)"
    ]


def _own_model(state: State, train: TrainSection) -> list[str]:
    """Whether the weights fit the user's own model section, where that counts."""
    if train.use_pretrain_script:
        return []
    params = asked_model(train, state["_extra_state"]["model_params"])
    try:
        build_model(with_params(state, params))
    except Exception as error:  # torch for weights of other names and sizes, deepmd for parameters
        return [
            f"train.deepmd.model: the checkpoint's weights do not fit it ({_reason(error)});"
            " leave out use_pretrain_script = false to take the model's parameters from the checkpoint"
        ]
    return []


def _replay(state: State, there: State, model: ModelSection, train: TrainSection) -> list[str]:
    if not train.replay:
        return []
    problems = []
    try:
        taken_along(read_model(model.checkpoint), state, tuple(train.replay))
    except InputError as error:
        problems += error.problems
    try:
        replayed = read_replay(train.replay)
    except InputError as error:
        return problems + error.problems
    known = set(there["_extra_state"]["model_params"]["type_map"])
    for name, data in replayed.items():
        strange = _symbols(data.training + data.held_out) - known
        if strange:
            problems.append(f"train.replay.{name}.data: the model has no type for {', '.join(sorted(strange))}")
    return problems


def _symbols(records: tuple[Record, ...]) -> set[str]:
    return {chemical_symbols[number] for record in records for number in set(record.frame.numbers.tolist())}


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
