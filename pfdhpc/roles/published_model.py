"""Deep-potential models that the loop itself asks: a teacher for labels, a student for its opinion."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..config.label import LabelSection
from ..data import Label, Record
from ..engines.base import Labeler
from ..engines.registry import make_labeler
from ..messages import ModelRef
from ..parallel.node import near
from ..store.run_directory import RunFolder


def near_copy(folder: RunFolder, digest: str, use: str) -> Path:
    """What explores of a model, from this node's copy of it. Raises InputError for a damaged one."""
    return near(folder.frozen(digest), use, folder.sum_of(digest))


class PublishedModel:
    """The newest published model this rank was asked to use, loaded."""

    def __init__(self, folder: RunFolder):
        self._folder = folder
        self._digest = ""
        self._engine: Labeler | None = None

    def engine(self, model: ModelRef) -> Labeler:
        """A labeler whose labels are the model's predictions, on this rank alone."""
        if model.digest != self._digest:
            options: dict[str, Any] = {"model": str(near_copy(self._folder, model.digest, "predict"))}
            self._engine = make_labeler(LabelSection(type="deepmd", options=options), None)
            self._digest = model.digest
        return self._engine


def judged(records: Sequence[Record], student: Sequence[Label]) -> list[Record]:
    """Candidates with the student's predictions; their deviation is its largest difference to the teacher's forces."""
    return [
        replace(record, prediction=label).with_origin(deviation=_largest(record.prediction.forces - label.forces))
        for record, label in zip(records, student, strict=True)
    ]


def _largest(vectors: np.ndarray) -> float:
    return float(np.linalg.norm(vectors, axis=1).max(initial=0.0))
