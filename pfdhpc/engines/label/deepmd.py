"""Labels from a Deep Potential model: a teacher, evaluated in batches.

.. code-block:: toml

    [label]
    type = "deepmd"
    options = { model = "teacher.pth" }     # .pth, or .pt with branch = "..." if it has several
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ...config.label import LabelSection
from ...data import Frame, Label
from ...errors import InputError, LabelError, TaskError
from ..base import Labeler
from ..deepmd_inference import Predictor
from .input_checks import check_labeler
from .level_of_theory import level_hash
from .timelimit import time_limit

KEYS = {"model.checkpoint": "label.options.model", "model.branch": "label.options.branch"}
"""What the keys of [model] are called where a model labels."""


class DeepmdLabeler(Labeler):
    """One rank; frames with as many atoms go through the model together, see :class:`Predictor`.

    A frame's last digits depend on the batch it came in. ``label`` is a batch of one.
    """

    def __init__(self, section: LabelSection, comm: Any):
        """Raises InputError when the model cannot be loaded or the team has more than one rank."""
        problems = check_labeler(section, 1 if comm is None else comm.Get_size())
        if problems:
            raise InputError(problems)
        self.section = section
        self.level = level_hash(section)
        self._model = _load(section.options)

    def label(self, frame: Frame, changes: dict[str, Any], timeout: float) -> Label:
        """A model has nothing to change or retry: ``changes`` must be empty."""
        return self.label_batch([frame], changes, timeout)[0]

    def label_batch(self, frames: Sequence[Frame], changes: dict[str, Any], timeout: float) -> list[Label]:
        """Labels in the order of ``frames``; ``timeout`` is for all of them together."""
        if changes:
            raise LabelError(f"the deepmd labeler has no options to change: {sorted(changes)}")
        try:
            with time_limit(timeout, interrupt=False):  # in the middle, torch and TorchScript are in any state
                labels = self._model(frames)
        except LabelError:
            raise
        except TaskError as error:
            raise LabelError(f"the teacher: {error}") from error
        except Exception as error:  # torch raises many kinds
            raise LabelError(f"deepmd: {type(error).__name__}: {error}") from error
        if self.section.virial:
            return labels
        return [replace(label, virial=None) for label in labels]


def _load(options: dict[str, Any]) -> Predictor:
    try:
        return Predictor(options["model"], options.get("branch"))
    except InputError as error:
        raise error.about(KEYS) from None
