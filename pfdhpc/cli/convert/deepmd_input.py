"""DeePMD-kit's training input, as other programs keep a template of it, in terms of [train] and [student]."""

from typing import Any

from ...engines.train.deepmd.objective import UNREAD
from ...engines.train.deepmd.train_input import OWNED
from .translation import Translation

STEPS = ("numb_steps", "stop_batch", "num_steps")
RATES = ("start_lr", "stop_lr")
DECAY = ("decay_steps", "decay_rate", "decay_steps_ratio")
WARM_UP = ("warmup_steps", "warmup_ratio", "warmup_start_factor")
BATCHES = ("training.batch_size", "training.training_data.batch_size")
FILES = ("systems", "set_prefix", "training_data", "validation_data", "auto_prob", "auto_prob_style", "sys_probs")
OLD = ("disp_training", "time_training", "numb_test", "load_ckpt", "profiling_file", "coord_norm", "fitting_ndata")
"""Of DeePMD-kit 1 and 2; how training talks, or no longer read."""


def script(done: Translation, where: str, distilling: bool = False) -> None:
    """Steps, learning rates, loss and, of a student, the model; ``where``: its path in the source."""
    _steps(done, where)
    _batch(done, where)
    _rates(done, where)
    _loss(done, where)
    _model(done, where, distilling)
    for key in FILES:
        done.ignore(f"{where}.training.{key}", "the run chooses the data")
    for key in OLD:
        done.ignore(f"{where}.training.{key}", "of older releases of DeePMD-kit")
    for key, remedy in OWNED.items():
        done.ignore(f"{where}.training.{key}", remedy)
    for key in UNREAD["training"]:
        done.lack(f"{where}.training.{key}", "not read by DeePMD-kit in PyTorch")
    done.move(f"{where}.training.gradient_max_norm", "train.deepmd.training.gradient_max_norm")
    done.lack(where, "a key of DeePMD-kit's input: train.deepmd takes it, if it is wanted")


def _steps(done: Translation, where: str) -> None:
    for key in STEPS:
        done.move(f"{where}.training.{key}", "train.first_steps")
        done.move(f"{where}.training.{key}", "train.steps")
        if done.get(f"{where}.training.{key}") is not None:
            done.read(f"{where}.training.{key}", "train.first_steps, train.steps")


def _batch(done: Translation, where: str) -> None:
    for key in BATCHES:
        why = "train.batch_size is a number of frames per step and rank"
        done.move(f"{where}.{key}", "train.batch_size", lambda size: size if type(size) is int else None, why)


def _rates(done: Translation, where: str) -> None:
    rate = f"{where}.learning_rate"
    given = {key: value for key, value in done.get(rate, {}).items() if not key.startswith("_")}
    for key in RATES:
        done.move(f"{rate}.{key}", f"train.{key}")
    if given.get("type", "exp") == "exp":
        done.ignore(f"{rate}.type", "it decays exponentially in each training")
        done.ignore(f"{rate}.decay_steps", "it decays a little in each step")
        done.lack(f"{rate}.decay_rate", "train.stop_lr says where it ends")
        given = {key: value for key, value in given.items() if key not in (*DECAY, "type")}
    for key in WARM_UP:  # of DeePMD-kit 3.0: it takes them as of the learning rate
        done.move(f"{where}.training.{key}", f"train.deepmd.learning_rate.{key}")
    for key in UNREAD["learning_rate"]:
        done.lack(f"{rate}.{key}", "not read by DeePMD-kit in PyTorch")
    for key in sorted(given.keys() - {*RATES, *UNREAD["learning_rate"]}):
        done.move(f"{rate}.{key}", f"train.deepmd.learning_rate.{key}")


def _loss(done: Translation, where: str) -> None:
    loss = {key: value for key, value in done.get(f"{where}.loss", {}).items() if not key.startswith("_")}
    if loss.get("type", "ener") != "ener":
        done.lack(f"{where}.loss", "only energies, forces and virials are trained: train.deepmd.loss")
    elif loss:
        done.read(f"{where}.loss", "train.deepmd.loss")
        done.put("train.deepmd.loss", {"type": "ener", **loss}, _ramps(loss))


def _ramps(loss: dict[str, Any]) -> str:
    """What is to be settled of ramps from or to zero, which count with TensorFlow only; DeePMD-kit's own defaults."""
    ends = {"e": (0.02, 1.0), "f": (1000.0, 1.0), "v": (0.0, 0.0)}
    found = {
        term: (loss.get(f"start_pref_{term}", a), loss.get(f"limit_pref_{term}", b)) for term, (a, b) in ends.items()
    }
    half = [f"start_pref_{term}, limit_pref_{term}" for term, (a, b) in found.items() if bool(a) != bool(b)]
    return f"{', '.join(half)}: one is 0, and PyTorch then trains none; write a small number for it" if half else ""


def _model(done: Translation, where: str, distilling: bool) -> None:
    model = done.get(f"{where}.model", {})
    kept: dict[str, Any] = {k: v for k, v in model.items() if k != "type_map" and not k.startswith("_")}
    done.ignore(f"{where}.model.type_map", "the checkpoint knows its elements")
    if distilling and kept:
        done.put("student", {"model": without_comments(kept)})
        done.read(f"{where}.model", "student.model")
    elif distilling:
        done.put("student", {"preset": "se_e2_a"}, "no model in train.template_script")
    done.ignore(f"{where}.model", "the parameters are those of the checkpoint (train.use_pretrain_script)")


def without_comments(values: Any) -> Any:
    """A table without keys that begin with an underscore, at any depth."""
    if not isinstance(values, dict):
        return values
    return {key: without_comments(value) for key, value in values.items() if not key.startswith("_")}
