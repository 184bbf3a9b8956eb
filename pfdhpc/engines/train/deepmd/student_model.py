"""The student's model section: presets, the user's own, and deepmd's judgement of it."""

import re
from copy import deepcopy
from pathlib import Path
from typing import Any

from ase.data import atomic_numbers

from ....config.student import StudentSection
from ....config.train import TrainSection
from ....errors import InputError
from .checkpoint import COMPILED
from .train_input import SECTIONS, normalised, read_table, round_input

_FITTING = {"neuron": [120, 120, 120], "resnet_dt": True}

PRESETS: dict[str, dict[str, Any]] = {
    "se_e2_a": {
        "descriptor": {
            "type": "se_e2_a",
            "rcut": 6.0,
            "rcut_smth": 0.5,
            "sel": "auto",
            "neuron": [25, 50, 100],
            "axis_neuron": 12,
            "resnet_dt": False,
            "type_one_side": True,
        },
        "fitting_net": _FITTING,
    },
    "dpa1": {
        "descriptor": {
            "type": "se_atten_v2",
            "rcut": 6.0,
            "rcut_smth": 0.5,
            "sel": "auto",
            "neuron": [25, 50, 100],
            "axis_neuron": 12,
            "attn_layer": 0,
            "resnet_dt": False,
        },
        "fitting_net": _FITTING,
    },
}
"""deepmd-kit's water examples (se_e2_a, se_atten) with a fitting net half as wide, in double precision.

Both compress. dpa1 shares one embedding net among all elements, se_e2_a has one for each.
"""


def student_model(section: StudentSection, elements: tuple[str, ...]) -> dict[str, Any]:
    """deepmd's model section of the student, not normalised, with ``elements`` (the run's) as its type map
    unless ``student.elements`` are given. Raises InputError if ``student.model`` cannot be read."""
    given = PRESETS[section.preset] if section.preset else read_table("student.model", section.model)
    return {**deepcopy(given), "type_map": list(section.elements or elements)}


def check_student(section: StudentSection, train: TrainSection, elements: tuple[str, ...]) -> list[str]:
    """Everything wrong with ``[student]``, one line each; deepmd's own argument check has the last word.

    ``elements``: those of the run, which the student must know. ``train`` must have been checked.
    """
    try:
        model = student_model(section, elements)
    except InputError as error:
        return error.problems
    given = {} if section.preset else read_table("student.model", section.model)
    problems = _conflicts(given) + _elements(section, elements)
    if problems:
        return problems
    try:
        normalised(round_input(train, model, 1000, 1, Path("round"), {"systems": ["none"]}))
    except Exception as error:  # dargs raises many kinds
        return [_line(error)]
    return []


def _conflicts(given: dict[str, Any]) -> list[str]:
    """What deepmd would accept and this program cannot use."""
    if "type_map" in given:
        return ["student.model.type_map: set by the run, remove it; order the elements with student.elements"]
    problems = [
        f"student.model.{key}: give the content of the section model alone, not a whole input"
        for key in SECTIONS
        if key in given
    ]
    descriptor, fitting = (given.get(net) for net in ("descriptor", "fitting_net"))
    kind = str(descriptor.get("type", "")).lower() if isinstance(descriptor, dict) else ""
    if kind in COMPILED:
        problems.append(
            f"student.model.descriptor.type: {kind} cannot be explored with here, deepmd freezes it to .pt2 only;"
            " take se_e2_a, se_atten_v2, dpa2 or dpa3"
        )
    if isinstance(fitting, dict) and fitting.get("type", "ener") != "ener":
        problems.append('student.model.fitting_net.type: only "ener" (energy, forces, virial) can be trained here')
    return problems


def _elements(section: StudentSection, elements: tuple[str, ...]) -> list[str]:
    known = tuple(section.elements or elements)
    strange = [name for name in known if name not in atomic_numbers]
    if strange:
        return [f"student.elements: {', '.join(strange)}: no such element"]
    missing = [name for name in elements if name not in known]
    if missing:
        return [f"student.elements: {', '.join(missing)}: in the run's systems, but not in the list; add it"]
    return []


def _line(error: Exception) -> str:
    """dargs' complaint as a line that begins with the key it is about."""
    text = " ".join(str(error).split())
    place = re.match(r"\[at location `model/?([^`]*)`\] ", text)
    if not place:
        return f"student.model: {text}"
    key = re.search(r"key `(\w+)`", text)
    keys = ["student", "model", *filter(None, place[1].split("/")), *([key[1]] if key else [])]
    return f"{'.'.join(keys)}: {text[place.end() :]}"
