"""What ``mtt train`` reads: the options of one stage and the frames of an epoch; and what it tells, its curve.

Needs no metatrain, but for :func:`check_options`, which asks it about the options where it is installed.
"""

import csv
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from ....config.train import ModelSection, TrainSection
from ....data import Record
from ....data.geometry import right_handed
from ....errors import InputError, TaskError

ENERGY, FORCE, STRESS = "energy", "non_conservative_force", "non_conservative_stress"
"""The targets: metatrain's standard names of the energy and of the direct forces and stress."""

EPOCHS = 20
"""Epochs of a round, at most: as many times the validation errors are looked at, and the best weights kept."""

SECTIONS = ("model", "training", "device", "base_precision")
_REMEDIES = {
    "num_epochs": "use train.steps and train.first_steps",
    "batch_size": "use train.batch_size",
    "learning_rate": "use train.start_lr",
    "finetune": "the run says what each round starts from",
    "distributed": "one rank trains",
    "distributed_port": "one rank trains",
    "num_workers": "the frames are in memory",
    "log_interval": "the run keeps the learning curve",
    "checkpoint_interval": "the run saves the models",
}
MISSING = 'train.type: "metatrain" needs the Python package metatrain; pip install "pfdhpc[metatrain]"'

CURVE = {
    "energy RMSE (per atom)": "rmse_e",
    "forces RMSE": "rmse_f",
    "virial RMSE (per atom)": "rmse_v",
    f"{FORCE} RMSE (per atom)": "rmse_d",
}
"""Columns of metatrain's curve, after "training" or "validation"; ``rmse_d``: of the direct forces."""


@dataclass(frozen=True)
class Stage:
    """A stretch of a training. ``conservative``: forces that are the energy's gradient are trained, too."""

    name: str
    steps: int
    conservative: bool
    direct: float | None  # weight of the loss of direct forces; None: the model has none


def stages(section: TrainSection, steps: int, first: bool) -> list[Stage]:
    """Those of one round; direct forces come first only where the weights are given or random ones."""
    if not section.direct:
        return [Stage("conservative", steps, True, None)]
    n_direct = min(round(section.direct_share * steps), steps - 1) if first else 0
    found = [Stage("direct", n_direct, False, 1.0)] if n_direct else []
    return [*found, Stage("conservative", steps - n_direct, True, section.direct_weight)]


def check_options(model: ModelSection, section: TrainSection) -> list[str]:
    """Everything wrong with ``train.metatrain``, one line each; metatrain's own check has the last word."""
    try:
        user = read_options(section)
    except InputError as error:
        return error.problems
    problems = [f"train.metatrain.{key}: unknown key; known here: {', '.join(SECTIONS)}" for key in user if
                key not in SECTIONS]  # fmt: skip
    tables = [key for key in ("model", "training") if not isinstance(user.get(key, {}), dict)]
    problems += [f"train.metatrain.{key}: must be a table" for key in tables]
    if not tables:
        given = user.get("training", {})
        problems += [
            f"train.metatrain.training.{key}: set by the run, remove it; {remedy}"
            for key, remedy in _REMEDIES.items()
            if key in given
        ]
        if model.checkpoint is not None and user.get("model"):
            problems.append("train.metatrain.model: the model comes from the checkpoint; remove it")
        problems += _idle(given)
    if find_spec("metatrain") is None:
        return [*problems, MISSING]
    return problems or _refused(user)


def _idle(training: dict[str, Any]) -> list[str]:
    """Where metatrain would take the options and train nothing, or away from the labels."""
    problems, given = [], dict(_weights("train.metatrain.training.loss", training.get("loss")))
    problems += [f"{key}: {weight}; it must be 0 or more" for key, weight in given.items() if weight < 0]
    energy = f"train.metatrain.training.loss.{ENERGY}"
    of_forces = [given.get(f"{energy}.{name}.weight") for name in ("forces", "gradients.positions")]
    if given.get(f"{energy}.weight") == 0 and 0 in of_forces:
        problems.append(
            f"{energy}.weight: 0, as that of the forces: neither would be trained; give one of them a weight"
        )
    warm_up = training.get("warmup_fraction", 0)
    if isinstance(warm_up, int | float) and not 0 <= warm_up < 1:
        problems.append(f"train.metatrain.training.warmup_fraction: {warm_up}; a share of the steps, from 0 to below 1")
    return problems


def _weights(key: str, value: Any) -> Iterator[tuple[str, float]]:
    """Every weight in metatrain's table of losses, by its key."""
    for name, inner in value.items() if isinstance(value, dict) else ():
        if name == "weight" and isinstance(inner, int | float):
            yield f"{key}.{name}", float(inner)
        yield from _weights(f"{key}.{name}", inner)


def _refused(user: dict[str, Any]) -> list[str]:
    """What metatrain says of the architecture's options."""
    from metatrain.utils.architectures import check_architecture_options, get_default_hypers

    options = get_default_hypers("pet")
    for key in ("model", "training"):
        options[key] = {**options[key], **user.get(key, {})}
    try:
        check_architecture_options("pet", options)
    except Exception as error:  # pydantic's and its own
        return [f"train.metatrain: {' '.join(str(error).split())[:400]}"]
    return []


def read_options(section: TrainSection) -> dict[str, Any]:
    """The user's options as a dict; raises InputError if the file is not readable."""
    if isinstance(section.metatrain, dict):
        return section.metatrain
    import yaml

    try:
        content = yaml.safe_load(section.metatrain.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"train.metatrain: {section.metatrain}: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise InputError(f"train.metatrain: {section.metatrain}: not a table of options")
    return content


def round_options(
    section: TrainSection,
    stage: Stage,
    parent: Path | None,
    numbers: Sequence[int],
    epochs: int,
    seed: int,
    **data: Any,
) -> dict[str, Any]:
    """The options of one stage as ``mtt train`` reads them.

    ``parent``: the checkpoint to start from, None: from scratch, for atomic ``numbers``. ``data``: ``n_batch``
    frames, ``virial`` (whether all frames have one), ``training`` and ``validation``, names of extxyz files.
    """
    user = read_options(section)
    targets = _targets(stage, data["virial"])
    training = {
        "loss": _loss(stage, targets),
        **user.get("training", {}),
        "num_epochs": epochs,
        "batch_size": data["n_batch"],
        "learning_rate": section.start_lr,
        "num_workers": 0,
        "checkpoint_interval": epochs + 1,
    }
    architecture: dict[str, Any] = {"name": "pet", "training": training}
    if parent is None:
        architecture |= {"atomic_types": sorted(numbers), "model": user.get("model", {})}
    else:
        training["finetune"] = {"method": "full", "read_from": str(parent)}
    own = {key: user[key] for key in ("device", "base_precision") if key in user}
    sets = {
        f"{kind}_set": {"systems": {"read_from": data[kind], "length_unit": "angstrom"}, "targets": targets}
        for kind in ("training", "validation")
    }
    return {"seed": seed % 2**32, **own, "final_eval": False, "architecture": architecture, **sets, "test_set": 0.0}


def _targets(stage: Stage, virial: bool) -> dict[str, Any]:
    forces = {"key": "label_forces"} if stage.conservative else False
    stress = {"key": "label_stress"} if stage.conservative and virial else False
    found: dict[str, Any] = {ENERGY: {"key": "label_energy", "unit": "eV", "forces": forces, "stress": stress}}
    if stage.direct is not None:
        vector, tensor = ({"cartesian": {"rank": rank}} for rank in (1, 2))
        found[FORCE] = {"key": "label_forces", "quantity": "force", "unit": "eV/A", "type": vector}
        found[FORCE]["sample_kind"] = "atom"
        if virial:
            found[STRESS] = {"key": "label_stress", "quantity": "pressure", "unit": "eV/A^3", "type": tensor}
    return found


def _loss(stage: Stage, targets: dict[str, Any]) -> dict[str, Any]:
    """Mean squares of the targets in metatrain's units, weighted."""
    return {name: {"type": "mse", "weight": 1.0 if name == ENERGY else stage.direct} for name in targets}


def epoch(section: TrainSection, old: Sequence[Record], new: Sequence[Record], steps: int, seed: int) -> list[Record]:
    """The frames of one epoch, whole batches of them; each frame at least once, most of them as often as others.

    As long as a :data:`EPOCHS`-th of the steps, or longer, so that old and new frames can have the shares that
    ``train.new_fraction`` says. Raises TaskError where there is no frame.
    """
    share = {1.0: section.new_fraction, 0.0: 1 - section.new_fraction}
    groups = [(some, share[kind] if old and new else 1.0) for kind, some in ((0.0, old), (1.0, new)) if some]
    groups = [(some, part) for some, part in groups if part > 0]
    if not groups:
        raise TaskError("there is no labelled frame to train on")
    least = max(math.ceil(steps / EPOCHS) * section.batch_size, *(math.ceil(len(some) / part) for some, part in groups))
    length = math.ceil(least / section.batch_size) * section.batch_size
    first = round(groups[0][1] * length)
    rng = np.random.default_rng(seed)
    counts = [first, length - first] if len(groups) > 1 else [length]
    return [record for (some, _), count in zip(groups, counts, strict=True) for record in _spread(some, count, rng)]


def _spread(records: Sequence[Record], count: int, rng: np.random.Generator) -> list[Record]:
    """So many frames: all of them as often as goes, and a random choice once more."""
    times, rest = divmod(count, len(records))
    more = sorted(rng.choice(len(records), rest, replace=False).tolist())
    return [*(record for record in records for _ in range(times)), *(records[place] for place in more)]


def write_frames(records: Sequence[Record], virial: bool, path: Path) -> None:
    """extxyz with ``label_energy`` (eV), ``label_forces`` (eV/Å) and, with ``virial``, ``label_stress`` (eV/Å³).

    Cells are right-handed.
    """
    from ase.io import write

    images = []
    for record in records:
        atoms = right_handed(record.frame).to_atoms()
        atoms.info["label_energy"] = record.label.energy
        atoms.arrays["label_forces"] = record.label.forces
        if virial:
            atoms.info["label_stress"] = -record.label.virial / record.frame.volume
        images.append(atoms)
    write(path, images, format="extxyz", parallel=False)


def read_curve(path: Path, offset: int, steps: int) -> list[dict[str, float]]:
    """The errors after each epoch of ``steps`` steps, from metatrain's train.csv: eV/Å, eV/atom."""
    with path.open() as file:
        head, units, *rows = csv.reader(file)
    columns = []
    for place, name in enumerate(head):
        kind, _, rest = name.partition(" ")
        if kind in ("training", "validation") and rest in CURVE:
            scale = 1e-3 if units[place].strip().startswith("meV") else 1.0
            columns.append((place, CURVE[rest] + ("_val" if kind == "validation" else ""), scale))
    return [
        {
            "step": float(offset + (int(row[0]) + 1) * steps),
            **{key: scale * float(row[at]) for at, key, scale in columns},
        }
        for row in rows
    ]
