"""What deepmd makes of a loss and a learning rate: terms it would not train, schedules it changes or refuses.

deepmd's own classes are asked, for trainings of the lengths that the run has. A term of its energy loss counts only
where *both* of its prefactors are not zero (``deepmd/pt/loss/ener.py``), so that a ramp from or to zero trains nothing;
prefactors follow the learning rate: limit + (start - limit) * rate / start_lr.
"""

import math
from typing import Any

import numpy as np

from ....config.train import TrainSection

LABELLED = {"e": "energy", "f": "force", "v": "virial"}
"""What labels here can have, by the letters of deepmd's prefactors."""
UNLABELLED = {
    "ae": "atomic energies",
    "pf": "atomic prefactors of forces",
    "gf": "generalised forces",
    "h": "Hessians",
}
UNREAD = {
    "training": ("mixed_precision", "acc_freq", "neighbor_graph_method", "enable_compile", "enable_tf32"),
    "learning_rate": ("scale_by_worker",),
}
"""Keys that deepmd accepts and reads in other backends only (``deepmd/utils/argcheck.py``)."""
SMALL = 1e-3
"""Of the other end of a ramp: a prefactor that is as good as none."""
FAR = 0.2
"""Of the learning rate at the start: an end from which on prefactors stay far from their limits."""


def unread(user: dict[str, Any]) -> list[str]:
    """Keys of the user's input that do nothing in PyTorch."""
    return [
        f"train.deepmd.{section}.{key}: deepmd does not read it in PyTorch; remove it"
        for section, keys in UNREAD.items()
        for key in keys
        if key in user.get(section, {})
    ]


def check_objective(section: TrainSection, config: dict[str, Any]) -> list[str]:
    """Problems of the loss and the learning rate of a normalised input; one line each."""
    return _loss_problems(config["loss"], section.direct) + _rate_problems(section, config["learning_rate"])


def _loss_problems(loss: dict[str, Any], direct: bool) -> list[str]:
    from deepmd.pt.loss import EnergyStdLoss

    ends = {term: (loss[f"start_pref_{term}"], loss[f"limit_pref_{term}"]) for term in (*LABELLED, *UNLABELLED)}
    problems = [
        f"train.deepmd.loss.{end}_pref_{term}: {value}; it must be 0 or more: deepmd would train away from the labels"
        for term, values in ends.items()
        for end, value in zip(("start", "limit"), values, strict=True)
        if not (0 <= value < math.inf)
    ]
    problems += _unlabelled(loss, ends)
    if problems:
        return problems
    try:
        made = EnergyStdLoss(**{"starter_learning_rate": 1.0, **loss})
    except Exception as error:  # settings that exclude each other
        return [f"train.deepmd.loss: {' '.join(str(error).split())}"]
    problems = [_ramp(term, *ends[term]) for term in LABELLED if any(ends[term]) and not getattr(made, f"has_{term}")]
    if not any(any(ends[term]) for term in LABELLED) and not made.has_pf:
        problems.append("train.deepmd.loss: all prefactors are 0: nothing would be trained")
    elif direct and not any(ends["f"]):
        problems.append(
            'train.stages: "direct" trains forces, and train.deepmd.loss has none (start_pref_f); remove one'
        )
    return problems


def _unlabelled(loss: dict[str, Any], ends: dict[str, tuple[float, float]]) -> list[str]:
    """Terms for which no label here has a value."""
    problems = []
    for term, name in UNLABELLED.items():
        if any(ends[term]) and not (term == "pf" and loss["use_default_pf"]):
            problems.append(
                f"train.deepmd.loss.start_pref_{term}, limit_pref_{term}: labels here have no {name}, nothing would be"
                " trained by them; remove them"
            )
    if loss["enable_atom_ener_coeff"]:
        problems.append(
            "train.deepmd.loss.enable_atom_ener_coeff: labels here have no coefficients of atomic energies; remove it"
        )
    return problems


def _ramp(term: str, start: float, limit: float) -> str:
    end, other = ("start", limit) if start == 0 else ("limit", start)
    return (
        f"train.deepmd.loss.{end}_pref_{term}: 0 while the other end of the ramp is {other:g}: deepmd then leaves the"
        f" {LABELLED[term]} out of the loss altogether; write e.g. {end}_pref_{term} = {SMALL * other:g}, or 0 for both"
    )


def _lengths(section: TrainSection) -> dict[int, str]:
    """How long trainings are, with the keys that say so."""
    first = {section.first_steps: "train.first_steps"} if section.first_steps else {}
    both = section.first_steps == section.steps
    return {**first, section.steps: "train.first_steps, train.steps" if both else "train.steps"}


def _schedule(rates: dict[str, Any], steps: int) -> Any:
    from deepmd.dpmodel.utils.learning_rate import make_learning_rate_schedule

    return make_learning_rate_schedule(rates, steps)


def _rate_problems(section: TrainSection, rates: dict[str, Any]) -> list[str]:
    start, stop = rates["start_lr"], rates.get("stop_lr")
    stop = start * rates["stop_lr_ratio"] if stop is None else stop
    if not (0 <= stop <= start):
        return [f"train.deepmd.learning_rate: ends at {stop:g}; that must be 0 or more and at most start_lr, {start:g}"]
    problems = []
    for steps, key in _lengths(section).items():
        try:
            _schedule(rates, steps)
        except Exception as error:  # a warm-up that is too long, a rate that is none
            problems.append(f"train.deepmd.learning_rate: in a training of {steps} steps ({key}): {error}")
    return problems


def notes(section: TrainSection, config: dict[str, Any], user: dict[str, Any], virial: bool) -> list[str]:
    """What deepmd makes of a correct input that may surprise. ``virial``: whether labels are computed with one."""
    rates, loss, lines = config["learning_rate"], config["loss"], []
    for steps, key in _lengths(section).items():
        lines += [
            f"train.deepmd.{line}, in a training of {steps} steps ({key})" for line in _surprises(rates, loss, steps)
        ]
    if user.get("loss") and loss["start_pref_v"] and not virial:
        lines.append("train.deepmd.loss.start_pref_v: label.virial is false: only virials brought along are trained on")
    if config.get("optimizer", {}).get("type") == "LKF":
        lines.append(
            "train.deepmd.optimizer.type: LKF trains energies and forces by its own kf_ prefactors; those of"
            " train.deepmd.loss, and virials, are not trained by"
        )
    return lines


def _surprises(rates: dict[str, Any], loss: dict[str, Any], steps: int) -> list[str]:
    schedule = _schedule(rates, steps)
    lines = []
    if rates["type"] == "exp" and schedule.decay_steps != rates["decay_steps"]:
        lines.append(f"learning_rate.decay_steps: deepmd makes {schedule.decay_steps} of {rates['decay_steps']}")
    elif rates["type"] == "exp" and rates["decay_steps"] >= schedule.decay_num_steps > 1:
        lines.append(f"learning_rate.decay_steps: {rates['decay_steps']}, with decay_rate: the rate never decays")
    ramps = [term for term in LABELLED if loss[f"start_pref_{term}"] != loss[f"limit_pref_{term}"]]
    last = float(schedule.value(np.array([steps - 1]))[0]) / schedule.start_lr
    if ramps and last > FAR:
        ends = ", ".join(f"{_between(loss, term, last):.3g} ({term})" for term in ramps)
        lines.append(f"loss: prefactors follow the learning rate, which ends at {last:.2g} of start_lr: at {ends}")
    if ramps and schedule.warmup_steps:
        lines.append(
            f"loss: prefactors follow the learning rate: in its {schedule.warmup_steps} steps of warm-up they go from"
            " their limits to their starts"
        )
    return lines


def _between(loss: dict[str, Any], term: str, rate: float) -> float:
    """A prefactor where the learning rate is ``rate`` times that of the start."""
    start, limit = loss[f"start_pref_{term}"], loss[f"limit_pref_{term}"]
    return limit + (start - limit) * rate
