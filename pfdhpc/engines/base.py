"""What every engine is: the contract between the roles and the programs that do the work.

An engine knows nothing of messages, rounds or the store. It is built on the rank that uses it
(heavy imports happen there), reused for the whole job, and a task it gets is a pure function of
the task's content: the same task gives the same answer.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..data import Frame, Label, Record


@dataclass(frozen=True)
class SegmentTask:
    """One stretch of MD of one replica."""

    replica: str
    system: str
    start: Frame  # where the replica begins, and begins again after a guard stopped it
    state: bytes | None  # the engine's own restart bytes at the end of the last segment; None: begin at ``start``
    segment: int
    temperature: tuple[float, float]  # K, at the start and end of the segment
    pressure: tuple[float, float]  # bar, at the start and end of the segment; 0 where there is no barostat
    seed: int


@dataclass(frozen=True)
class SegmentResult:
    """What one segment gave: candidate frames with the exploring model's own prediction of each."""

    replica: str
    records: tuple[Record, ...]
    state: bytes | None  # None: the replica starts again from its start structure
    steps: int  # MD steps done, at most those asked for
    stopped: str = ""  # why a guard cut the segment short, empty if it did not
    seconds: float = 0.0


class Explorer(ABC):
    """Runs molecular dynamics with the current model, one rank, one replica at a time."""

    @abstractmethod
    def load_models(self, models: Sequence[Path], type_map: tuple[str, ...]) -> None:
        """Take new model files; the first one drives the dynamics, all together give the deviation.

        ``type_map`` holds the elements in the models' order.
        """

    @abstractmethod
    def run(self, task: SegmentTask) -> SegmentResult:
        """Run one segment. Raises TaskError when not even its first step is possible."""


class Labeler(ABC):
    """Computes energy, forces and virial of a frame; all ranks of the team make the same calls."""

    level: str
    """Hash of the level of theory and of every setting that changes the numbers."""

    @abstractmethod
    def label(self, frame: Frame, changes: dict[str, Any], timeout: float) -> Label:
        """Label one frame with ``changes`` applied to the options.

        Raises LabelError (on every rank of the team) when it does not converge, fails, or takes
        longer than ``timeout`` seconds.
        """

    def label_batch(self, frames: Sequence[Frame], changes: dict[str, Any], timeout: float) -> list[Label]:
        """Label several frames; engines that profit from batches override it."""
        return [self.label(frame, changes, timeout) for frame in frames]


@dataclass(frozen=True)
class TrainTask:
    """One training round. Records are labelled and sorted by frame id."""

    round: int
    parent: Path | None  # checkpoint whose weights are the start; None: from scratch, a model of ``model``
    first: bool  # parent is the pre-trained model: take the branch, align the energy bias, fit no new head
    old: tuple[Record, ...]  # trained on before
    new: tuple[Record, ...]  # new in this round
    validation: tuple[Record, ...]
    steps: int
    seed: int
    directory: Path  # scratch of this round, on the shared file system; empty but for what the engine is to go on from
    model: dict[str, Any] | None = None  # a student's deepmd model section with its type map; None: fine-tuning


@dataclass(frozen=True)
class TrainResult:
    """The models a training left, as files in the task's directory."""

    checkpoint: Path  # what the next round starts from: deepmd's .pt, metatrain's .ckpt
    frozen: Path  # what explores: deepmd's .pth, or the checkpoint itself; metatomic's .pt
    best_step: int
    curve: tuple[dict[str, float], ...]  # {"step": ..., "rmse_f": ..., ...} as the trainer printed them
    seconds: float  # wall time of the whole call
    step_seconds: float  # of it, the optimisation steps themselves
    begun_at: int = 0  # the step it went on from, where an earlier job was killed in this round
    notes: Mapping[str, str] = field(default_factory=dict)  # what the user must know of the labels, by what it is about


@dataclass(frozen=True)
class Product:
    """A model for production."""

    frozen: Path  # .pth, for LAMMPS and every other program deepmd is part of
    compressed: bool
    reason: str = ""  # why it is not compressed, where it was asked for
    force_change: float = float("nan")  # largest of a force component by compression, on the frames compared, eV/Å


class Trainer(ABC):
    """Trains models, data parallel over the ranks of its team; all ranks make the same calls."""

    @abstractmethod
    def import_parent(self, directory: Path) -> TrainResult:
        """The pre-trained model as a single-task checkpoint and a frozen model, nothing trained."""

    @abstractmethod
    def train(self, task: TrainTask) -> TrainResult:
        """One training round; raises TaskError when it diverges."""

    @abstractmethod
    def produce(self, checkpoint: Path, frames: Sequence[Frame], directory: Path, compress: bool) -> Product:
        """The model frozen for production, compressed if asked for and if it then predicts the same on ``frames``."""

    @abstractmethod
    def predict(self, checkpoint: Path, frames: Sequence[Frame]) -> list[Label]:
        """Energy, forces and virial of frames by a model file, batched."""
