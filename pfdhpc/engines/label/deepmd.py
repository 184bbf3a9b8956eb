"""Labels from a Deep Potential model: a teacher, evaluated in batches.

.. code-block:: toml

    [label]
    type = "deepmd"
    options = { model = "teacher.pth" }     # .pth, or .pt with branch = "..." if it has several
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from ase.data import atomic_numbers, chemical_symbols

from ...config.label import LabelSection
from ...data import Frame, Label
from ...errors import InputError, LabelError
from ..base import Labeler
from .level import level_hash
from .preflight import check_labeler
from .timelimit import time_limit


class DeepmdLabeler(Labeler):
    """One rank; frames of the same atoms go through the model together."""

    def __init__(self, section: LabelSection, comm: Any):
        """Raises InputError when the model cannot be loaded or the team has more than one rank."""
        problems = check_labeler(section, 1 if comm is None else comm.Get_size())
        if problems:
            raise InputError(problems)
        self.section = section
        self.level = level_hash(section)
        self._model = _load(section.options)
        self._types = {atomic_numbers[name]: index for index, name in enumerate(self._model.get_type_map())}

    def label(self, frame: Frame, changes: dict[str, Any], timeout: float) -> Label:
        """A model has nothing to change or retry: ``changes`` must be empty."""
        return self.label_batch([frame], changes, timeout)[0]

    def label_batch(self, frames: Sequence[Frame], changes: dict[str, Any], timeout: float) -> list[Label]:
        """Labels in the order of ``frames``; ``timeout`` is for all of them together."""
        if changes:
            raise LabelError(f"the deepmd labeler has no options to change: {sorted(changes)}")
        labels: list[Label | None] = [None] * len(frames)
        with time_limit(timeout):
            for places in _alike(frames):
                batch = self._evaluate([frames[place] for place in places])
                for place, label in zip(places, batch, strict=True):
                    labels[place] = label
        return labels

    def _evaluate(self, frames: list[Frame]) -> list[Label]:
        first = frames[0]
        unknown = sorted(set(first.numbers.tolist()) - set(self._types))
        if unknown:
            names = ", ".join(chemical_symbols[number] for number in unknown)
            raise LabelError(f"the teacher model does not know the elements {names}")
        if first.pbc.any() and not first.pbc.all():
            raise LabelError("deepmd models take frames periodic in all directions or in none")
        cells = np.array([frame.cell for frame in frames]) if first.pbc.all() else None
        positions = np.array([frame.positions for frame in frames])
        types = [self._types[number] for number in first.numbers.tolist()]
        try:
            energies, forces, virials = self._model.eval(positions, cells, types)
        except Exception as error:
            raise LabelError(f"deepmd: {type(error).__name__}: {error}") from error
        keep = self.section.virial and first.pbc.all()
        return [Label(energies[i, 0], forces[i], virials[i] if keep else None) for i in range(len(frames))]


def _alike(frames: Sequence[Frame]) -> list[list[int]]:
    """Places of frames with the same atoms in the same order and the same periodicity."""
    groups: dict[bytes, list[int]] = {}
    for place, frame in enumerate(frames):
        groups.setdefault(frame.numbers.tobytes() + frame.pbc.tobytes(), []).append(place)
    return list(groups.values())


def _load(options: dict[str, Any]) -> Any:
    from deepmd.infer import DeepPot

    arguments = {"head": options["branch"]} if "branch" in options else {}
    try:
        return DeepPot(str(options["model"]), **arguments)
    except Exception as error:
        raise InputError(f"label.options.model: {options['model']} cannot be loaded: {error}") from error
