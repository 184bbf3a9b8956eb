"""Answers: what the team leaders tell the coordinator, and each other in a selection; one frozen dataclass each."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..data import Label, Record
from ..engines.label.aimd import Point
from .orders import ModelRef


@dataclass(frozen=True)
class Ready:
    """A team has started; ``problems`` are lines of bad input it found."""

    team: str
    problems: tuple[str, ...] = ()
    type_map: tuple[str, ...] = ()  # from the trainer, of the pre-trained model


@dataclass(frozen=True)
class Answer:
    order_id: str
    seconds: float


@dataclass(frozen=True)
class Imported(Answer):
    model: ModelRef


@dataclass(frozen=True)
class Explored(Answer):
    replica: str
    state: bytes | None
    steps: int
    n_candidates: int
    stopped: str
    accurate: int = 0  # of a pool: frames the committee agrees on
    failed: int = 0  # of a pool: frames beyond its trust band


@dataclass(frozen=True)
class SelectReport:
    """What the selection saw over all participants."""

    n_candidates: int
    filtered: dict[str, int]  # reason -> frames dropped before the selection
    gains: tuple[float, ...]  # entropy gain of each pick, nats
    saturated: bool
    picked: tuple[str, ...] = ()  # frame ids, in the order they were picked
    absent: tuple[str, ...] = ()  # teams that did not take part in time
    bandwidth: float = float("nan")  # 1/Å; NaN where nothing was compared
    warning: str = ""  # about it
    census: "Census | None" = None
    survey: "Survey | None" = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, eq=False)
class Survey:
    """Some of the candidates, drawn as by lot: what there was to choose from.

    ``novelty`` (n,) nats, against the reference before the first pick, inf where there was none; ``points``
    (n, width) each frame's newest environment, as its descriptor.
    """

    frame_ids: tuple[str, ...]
    novelty: np.ndarray
    points: np.ndarray


@dataclass(frozen=True)
class Selected(Answer):
    picked: tuple[Record, ...]
    report: SelectReport | None  # from the root only


@dataclass(frozen=True)
class Census:
    """Entropies of the reference before, and of it with the picks after, in nats; and what was there to choose from."""

    before: float
    after: float
    novelty: dict[str, float]  # score of every candidate before the first pick, by frame id


@dataclass(frozen=True)
class Unselected(Answer):
    """The selection did not come about, for this team at least, whose candidates wait for another."""

    absent: str  # the team that did not answer; empty where another team knows
    reason: str


@dataclass(frozen=True)
class LabelOutcome:
    """One frame of a :class:`LabelFrames` order: labelled, or the reason why not."""

    record: Record  # with its label, where there is one
    reason: str = ""
    killed: int | None = None  # as of a LabelError: how a program ended that did not end well

    @property
    def accepted(self) -> bool:
        return not self.reason


@dataclass(frozen=True)
class Labelled(Answer):
    outcomes: tuple[LabelOutcome, ...]


@dataclass(frozen=True)
class Unlabelled(Answer):
    """Nothing was found out: programs were ended from outside. The order is given again."""

    reason: str


@dataclass(frozen=True)
class Simulated(Labelled):
    """A segment: its outcomes are the labels to keep and, where it broke off, the frame that has none."""

    trajectory: str
    point: Point | None  # where it ended; None: it broke off
    step: int
    calculations: int
    reason: str = ""


@dataclass(frozen=True)
class Awaiting(Answer):
    """Labels that are to come from outside are not there yet."""

    frames: int
    idle: float  # seconds since something came
    folder: str  # where they are to be put


@dataclass(frozen=True)
class Trained(Answer):
    model: ModelRef
    best_step: int
    step_seconds: float
    curve: tuple[dict[str, float], ...] = ()
    begun_at: int = 0  # the step it went on from, where an earlier job was killed in it
    notes: Mapping[str, str] = field(default_factory=dict)  # what the user must know of the labels, by what it is about
    member: int = 0  # of the committee, in a simplify run


@dataclass(frozen=True)
class Evaluated(Answer):
    """Predictions of a part of the test frames, or of all, in the order of their ids.

    The energies of the parent are as it predicts them in a part, and aligned to the training frames in the whole.
    """

    test_ids: tuple[str, ...]
    parent: tuple[Label, ...]
    final: tuple[Label, ...]
    product: str = ""  # a student's model for production: whether it is compressed, and if not, why
    fixed_before: tuple[Label, ...] = ()  # the parent or the teacher on the frames of test.data
    fixed_final: tuple[Label, ...] = ()
    energies: tuple[float, ...] = ()  # of the parent on the training frames, eV
    role: str = "trainer"  # of the team


@dataclass(frozen=True)
class Probed(Answer):
    """Speeds in MD steps a second on so many atoms; the student's trajectory at constant energy."""

    atoms: int
    teacher_speed: float
    student_speed: float
    drift: float  # meV/atom/ps
    stable: bool
    reason: str  # why it is not
    teacher_engine: str = "LAMMPS"  # in which the teacher ran; the student ran in LAMMPS


@dataclass(frozen=True)
class Failed(Answer):
    """The task failed for a reason of its own; the team goes on."""

    reason: str
    fatal: bool = False  # no fault of the task: no other would do better before it is mended


@dataclass(frozen=True)
class Resigned(Answer):
    """The team can do nothing any more; the order is for another one."""

    reason: str


@dataclass(frozen=True)
class Crashed:
    """A bug: the job ends with this traceback."""

    team: str
    order_id: str
    traceback: str


@dataclass(frozen=True)
class PeerMessage:
    """Leader to leader, inside one reduction."""

    order_id: str
    kind: str
    content: Any = field(repr=False, default=None)
