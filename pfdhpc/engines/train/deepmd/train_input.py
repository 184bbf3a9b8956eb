"""``train.deepmd``: the user's part of a deepmd input, and the whole input of one round made from it."""

from copy import deepcopy
from pathlib import Path
from typing import Any

from ....config.train import RANDOM, ModelSection, TrainSection
from ....errors import InputError
from .freezing import WHOLE, check_freeze
from .objective import check_objective, unread

LOSS = {
    "type": "ener",
    "start_pref_e": 0.2,
    "limit_pref_e": 20,
    "start_pref_f": 100,
    "limit_pref_f": 60,
    "start_pref_v": 5,
    "limit_pref_v": 5,
}
"""Forces first, energy last, as in the DPA-3 example of deepmd-kit (examples/water/dpa3). The virial, 0.02 to 1
there, weighs more: at 0.02 it has no say while the learning rate is high. On 28 strained silicon cells and 2400
steps 5 brings the virial error from 46 to 35 meV/atom and leaves that of the forces as it is."""

TRAINING = {"gradient_max_norm": 5.0}
"""Used unless ``train.deepmd`` says otherwise; also from the DPA-3 example."""

SECTIONS = ("loss", "learning_rate", "optimizer", "training", "model")

_REMEDIES = {
    "training_data validation_data data_dict model_prob": "the run chooses the data",
    "numb_steps stop_batch num_steps": "use train.steps and train.first_steps",
    "numb_epoch num_epoch numb_epochs num_epochs num_epoch_dict": "use train.steps",
    "seed": "use the input's seed",
    "save_ckpt save_dir save_freq max_ckpt_keep ckpt_keep_ratio": "the run saves the models",
    "disp_file disp_freq stat_file stat_file_mode": "the run keeps the files of a round",
    "tensorboard tensorboard_log_dir tensorboard_freq": "the run keeps the learning curve",
    "profiling profiling_file enable_profiler": "profile with dp train instead",
    "change_bias_after_training": "the bias is aligned once, before the first training",
    "enable_ema ema_decay ema_ckpt_keep": "train.best chooses the weights that go on",
    "zero_stage": "the trainer team is plain data parallel",
}
OWNED = {key: remedy for keys, remedy in _REMEDIES.items() for key in keys.split()}
"""Keys of the ``training`` section that the run sets itself, and what to do instead."""


def check_deepmd_input(section: TrainSection, model: ModelSection | None = None) -> list[str]:
    """Everything wrong with ``train.deepmd`` and ``train.freeze``, one line each, but for what depends on the
    pre-trained model; deepmd's own argument check has the last word. ``model`` says whether a fitting net may be given.
    """
    try:
        user = read_input(section)
    except InputError as error:
        return error.problems
    branch = None if model is None else model.branch
    problems = _conflicts(section, user, branch) or check_freeze(section.freeze, user.get("model", {}))
    if problems:
        return problems
    try:
        config = toy_input(section, branch)
    except Exception as error:  # dargs raises many kinds
        return [f"train.deepmd: {' '.join(str(error).split())}"]
    return unread(user) + check_objective(section, config)


def toy_input(section: TrainSection, branch: str | None = None) -> dict[str, Any]:
    """The normalised input of a round, of some model and data; raises what deepmd's argument check does."""
    params = {"type_map": ["H"], "descriptor": {"type": "se_e2_a", "sel": [1]}, "fitting_net": {}}
    toy = asked_model(section, params) if branch != RANDOM else with_new_head(section, params, 1)
    return normalised(round_input(section, toy, section.steps, 1, Path("round"), {"systems": ["none"]}))


def read_input(section: TrainSection) -> dict[str, Any]:
    """The user's deepmd input as a dict; raises InputError if the file is not readable."""
    return read_table("train.deepmd", section.deepmd)


def read_table(key: str, given: dict[str, Any] | Path) -> dict[str, Any]:
    """A copy of a table given inline or as a .json or .yaml file; raises InputError naming ``key``."""
    if isinstance(given, dict):
        return deepcopy(given)
    from deepmd.common import j_loader

    try:
        content = j_loader(str(given))
    except Exception as error:  # json, yaml and deepmd raise many kinds
        reason = " ".join(str(error).split())
        raise InputError(f"{key}: {given}: {reason}; give a .json or .yaml file") from None
    if not isinstance(content, dict):
        raise InputError(f"{key}: {given}: not a table of deepmd's input")
    return content


def round_input(
    section: TrainSection, model: dict[str, Any], steps: int, seed: int, folder: Path, data: dict[str, Any]
) -> dict[str, Any]:
    """The deepmd input of one round, not yet normalised; ``data``: its section ``training_data``."""
    user = read_input(section)
    model = deepcopy(model)
    for net, given in user.get("model", {}).items():
        if net in WHOLE and "trainable" in given:
            model[net]["trainable"] = given["trainable"]
    interval = max(1, steps // 20)
    own = {
        "training_data": data,
        "numb_steps": steps,
        "seed": seed % 2**32,
        "save_ckpt": str(folder / "model.ckpt"),
        "save_freq": 0,
        "disp_file": str(folder / "lcurve.out"),
        "disp_freq": interval,
    }
    sections = {key: user[key] for key in ("optimizer",) if key in user}
    return {
        **sections,
        "model": model,
        "loss": user.get("loss", dict(LOSS)),
        "learning_rate": _learning_rate(section, user.get("learning_rate", {})),
        "training": {**TRAINING, **user.get("training", {}), **own},
    }


def asked_model(section: TrainSection, params: dict[str, Any]) -> dict[str, Any]:
    """The model section of a first round: ``params``, the checkpoint's, or the user's where those count.

    What an earlier training froze is trained, unless ``train.freeze`` names it, as with ``--use-pretrain-script``.
    """
    if not section.use_pretrain_script:
        return {**read_input(section).get("model", {}), "type_map": params["type_map"]}
    return {**params, **{net: _flagged(section, net, params[net]) for net in WHOLE if net in params}}


def _flagged(section: TrainSection, net: str, given: dict[str, Any]) -> dict[str, Any]:
    return {**given, "trainable": net not in section.freeze} if "trainable" in given else given


def with_new_head(section: TrainSection, params: dict[str, Any], seed: int) -> dict[str, Any]:
    """``params`` with the fitting net the user gives, or one as it was, to begin with random weights."""
    given = read_input(section).get("model", {}).get("fitting_net") or params["fitting_net"]
    return {**asked_model(section, params), "fitting_net": {**given, "seed": seed % 2**32}}


def normalised(config: dict[str, Any], multi_task: bool = False) -> dict[str, Any]:
    """``config`` as ``dp train`` normalises it: every default filled in, unknown keys refused."""
    from deepmd.utils.argcheck import normalize
    from deepmd.utils.compat import update_deepmd_input

    return normalize(update_deepmd_input(config, warning=False), multi_task=multi_task)


def _learning_rate(section: TrainSection, user: dict[str, Any]) -> dict[str, Any]:
    """Exponential decay from start_lr to stop_lr over the round, unless the user says otherwise."""
    rates = {"type": "exp", "start_lr": section.start_lr, **user}
    if "stop_lr" not in rates and "stop_lr_ratio" not in rates:
        rates["stop_lr"] = section.stop_lr
    if rates["type"] == "exp" and "decay_steps" not in rates:
        rates["decay_steps"] = 1
    return rates


def _conflicts(section: TrainSection, user: dict[str, Any], branch: str | None) -> list[str]:
    user = {key: value for key, value in user.items() if not key.startswith("_")}
    problems = []
    for key, value in user.items():
        if key not in SECTIONS:
            problems.append(f"train.deepmd.{key}: not used here; known are {', '.join(SECTIONS)}")
        elif not isinstance(value, dict):
            problems.append(f"train.deepmd.{key}: must be a table")
    if problems:
        return problems
    for key, remedy in OWNED.items():
        if key in user.get("training", {}):
            problems.append(f"train.deepmd.training.{key}: set by the run, remove it; {remedy}")
    for key in ("start_lr", "stop_lr"):
        if key in user.get("learning_rate", {}) and key in section.model_fields_set:
            problems.append(f"train.deepmd.learning_rate.{key}: train.{key} is given too; remove one of them")
    problems += _model_conflicts(section, user.get("model", {}), branch)
    if user.get("loss", {}).get("type", "ener") != "ener":
        problems.append('train.deepmd.loss.type: only "ener" (energy, forces, virial) can be trained here')
    return problems


def _model_conflicts(section: TrainSection, user: dict[str, Any], branch: str | None) -> list[str]:
    """What of ``train.deepmd.model`` nothing would read."""
    problems = [f"train.deepmd.model.{key}: {remedy}" for key, remedy in _NOT_IN_MODEL.items() if key in user]
    if problems:
        return problems
    for net, given in user.items():
        if net in WHOLE and not isinstance(given, dict):
            problems.append(f"train.deepmd.model.{net}: must be a table")
        elif net in WHOLE and isinstance(given.get("trainable"), list):
            problems.append(
                f"train.deepmd.model.{net}.trainable: a list freezes the whole net in PyTorch as soon as one is false;"
                ' name the layers in train.freeze, as in "fitting_net.layers.0-1"'
            )
        elif section.use_pretrain_script and not (net == "fitting_net" and branch == RANDOM):
            if net not in WHOLE or not set(given) <= {"trainable"}:
                problems.append(
                    f"train.deepmd.model.{net}: the model comes from the checkpoint, remove it; only"
                    " descriptor.trainable and fitting_net.trainable may be given, or use_pretrain_script = false"
                )
    missing = [net for net in WHOLE if net not in user]
    if not section.use_pretrain_script and missing:
        problems.append(f"train.deepmd.model: use_pretrain_script = false needs {' and '.join(missing)} here")
    if branch == RANDOM and "seed" in user.get("fitting_net", {}):
        problems.append("train.deepmd.model.fitting_net.seed: set by the run, remove it; use the input's seed")
    return problems


_NOT_IN_MODEL = {
    "type_map": "set by the run, remove it; use model.type_map",
    "finetune_head": "use model.branch",
    "model_dict": "use train.replay for a multi-task fine-tuning",
    "shared_dict": "use train.replay for a multi-task fine-tuning",
    "lora": "use train.lora",
}
