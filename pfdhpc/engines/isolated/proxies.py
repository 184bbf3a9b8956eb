"""Explorers and labelers whose engine runs in a child process: the same contract, call by call."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...config.explore import ExploreSection
from ...config.label import LabelSection
from ...data import Frame, Label
from ...errors import InputError, LabelError, TaskError
from ..base import Explorer, Labeler, SegmentResult, SegmentTask
from ..label.input_checks import check_labeler
from ..label.level_of_theory import level_hash
from .child_engine import Resident
from .spawner import Spawner


class IsolatedExplorer(Explorer):
    """A segment that kills the child, or takes longer than ``explore.timeout``, is a TaskError."""

    def __init__(self, section: ExploreSection, spawner: Spawner, log: Path):
        """Raises InputError when the engine does not start."""
        self._resident = Resident("explore", section, spawner, log)
        self._timeout = section.timeout

    def load_models(self, models: Sequence[Path], type_map: tuple[str, ...]) -> None:
        self._resident.set("load_models", models, type_map)

    def run(self, task: SegmentTask) -> SegmentResult:
        return self._resident.call("run", task, timeout=self._timeout)


class IsolatedLabeler(Labeler):
    """A label that kills the child, or takes longer than its time-out, is a LabelError."""

    def __init__(self, section: LabelSection, comm: Any, spawner: Spawner, log: Path):
        """Raises InputError when the engine does not start, or the team has more than one rank."""
        problems = check_labeler(section, 1 if comm is None else comm.Get_size())
        if problems:
            raise InputError(problems)
        self.level = level_hash(section)
        self._resident = Resident("label", section, spawner, log)

    def label(self, frame: Frame, changes: dict[str, Any], timeout: float) -> Label:
        return self._call("label", frame, changes, timeout)

    def _call(self, method: str, work: Any, changes: dict[str, Any], timeout: float) -> Any:
        try:
            return self._resident.call(method, work, changes, timeout, timeout=timeout)
        except LabelError:
            raise
        except TaskError as error:
            raise LabelError(str(error)) from error


class IsolatedBatchLabeler(IsolatedLabeler):
    """For engines that profit from batches."""

    def label_batch(self, frames: Sequence[Frame], changes: dict[str, Any], timeout: float) -> list[Label]:
        return self._call("label_batch", frames, changes, timeout)
