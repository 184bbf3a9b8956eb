"""What the coordinator and the team leaders say to each other: one frozen dataclass each.

An order has an id that is the same whenever the same work is asked for, also after a restart;
its answer carries the id back and is filed once.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..data import Frame, Label, Record
from ..engines.base import SegmentTask
from ..engines.label.aimd import Point


@dataclass(frozen=True)
class ModelRef:
    """A published model: ``digest`` is its name in the run's models folder."""

    version: int
    digest: str


# Orders: coordinator -> leader

LABEL = "label/"
"""How the ids of label orders begin."""


@dataclass(frozen=True)
class Order:
    order_id: str


@dataclass(frozen=True)
class ImportParent(Order):
    """Take the branch out of the pre-trained checkpoint and publish it as model 0."""


@dataclass(frozen=True)
class Explore(Order):
    """Run one segment of one replica; the candidates stay with the team."""

    round: int
    model: ModelRef
    type_map: tuple[str, ...]
    task: SegmentTask
    distilling: bool = False  # the model is a teacher: its own predictions are no test of anything
    judge: ModelRef | None = None  # then the student, whose predictions the candidates carry instead


@dataclass(frozen=True)
class Scan(Order):
    """Judge a chunk of the pool by a committee, the first of which predicts; the candidates stay with the team."""

    round: int
    replica: str  # the name of the chunk
    models: tuple[ModelRef, ...]
    done: tuple[str, ...]  # frame ids that are out of the pool
    forces: tuple[float, float] | None  # trust band, eV/Å; None: nothing is known, all frames are candidates
    energies: tuple[float, float] = (float("inf"), float("inf"))  # eV/atom


@dataclass(frozen=True)
class Select(Order):
    """Reduce over the participants' candidates of a round; each sends back what was picked of its own."""

    round: int
    participants: dict[str, int]  # team -> leader rank; the first one is the root of the reduction
    replicas: tuple[str, ...]  # whose candidates count: each team drops any other it may hold
    volumes: dict[str, float]  # start volume per atom by system, Å³, for the filters
    reference_ids: tuple[str, ...]
    max_sel: int
    band: tuple[float, float] = (0.0, float("inf"))  # of the committee's force deviation, eV/Å
    bandwidth: float | None = 0.015  # 1/Å; None: found from the reference
    species: tuple[int, ...] = ()  # atomic numbers that the descriptors tell apart
    model: ModelRef | None = None  # the current one
    seed: int = 0
    overshoot: bool = False  # method pfd: the last chunk may exceed max_sel
    distilling: bool = False  # predictions are a student's: they say nothing of whether a frame is physical
    census: bool = False  # the report tells entropies and every candidate's novelty
    entropies: bool = True  # False: a census without them; the one before takes the reference against itself
    again: tuple[Record, ...] = ()  # candidates of earlier selections that wait for a label, to be ranked anew
    reference: tuple[Record, ...] = ()  # those of the reference this team holds and has not been sent before


def label_order_id(records: Sequence[Record]) -> str:
    """The id of the order to label some frames, which names them."""
    return LABEL + "+".join(record.frame_id for record in records)


def frames_of(order_id: str) -> list[str]:
    """The frames that the id of a label order names; none of other orders."""
    return order_id.removeprefix(LABEL).split("+") if order_id.startswith(LABEL) else []


@dataclass(frozen=True)
class LabelFrames(Order):
    records: tuple[Record, ...]
    teacher: ModelRef | None = None  # labels by this model; None: by the engine of [label]


@dataclass(frozen=True)
class Trajectory:
    """Dynamics by the labelers, as far as it has come."""

    name: str
    system: str
    temperature: float  # K
    point: Point
    interval: int = 1  # steps of a segment
    step: int = 0
    ended: str = ""  # why it broke off


def segment_order_id(trajectory: Trajectory) -> str:
    """The id of the order to go on with a trajectory."""
    return f"aimd/{trajectory.name}/{trajectory.step}"


@dataclass(frozen=True)
class Simulate(Order):
    """The next segment of a trajectory."""

    trajectory: Trajectory
    seed: int


@dataclass(frozen=True)
class Train(Order):
    round: int
    version: int  # of the model this makes
    parent: ModelRef | None  # None: a student, from scratch
    first: bool
    old_ids: tuple[str, ...]
    new_ids: tuple[str, ...]
    validation_ids: tuple[str, ...]
    steps: int
    seed: int
    species: tuple[int, ...] = ()  # atomic numbers of the run, which a student must know
    fresh_ids: tuple[str, ...] = ()  # labels no training has seen: those to train on, to validate and to hold out
    member: int = 0  # of the committee, in a simplify run
    records: tuple[Record, ...] = ()  # those named above this team has not been sent before


@dataclass(frozen=True)
class Evaluate(Order):
    """Predict held-out frames with the parent (bias aligned to the training frames) and the final model."""

    parent: ModelRef | None  # None: a student had none
    final: ModelRef
    train_ids: tuple[str, ...]
    test_ids: tuple[str, ...]
    fixed_ids: tuple[str, ...] = ()  # of test.data
    teacher: ModelRef | None = None  # what is compared with the final model on these, where there is no parent
    records: tuple[Record, ...] = ()


@dataclass(frozen=True)
class Probe(Order):
    """Run the teacher and the model for production in LAMMPS: how fast they are, and whether the latter holds."""

    teacher: ModelRef
    student: ModelRef
    frame: Frame
    temperature: float  # K
    species: tuple[int, ...]


@dataclass(frozen=True)
class Shutdown(Order):
    """The job ends with this exit code, the same on all ranks; no answer."""

    code: int


# Answers: leader -> coordinator


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


@dataclass(frozen=True)
class Evaluated(Answer):
    """Predictions of the test frames, in the order of their ids."""

    test_ids: tuple[str, ...]
    parent: tuple[Label, ...]
    final: tuple[Label, ...]
    product: str = ""  # a student's model for production: whether it is compressed, and if not, why
    fixed_before: tuple[Label, ...] = ()  # the parent, aligned, or the teacher on the frames of test.data
    fixed_final: tuple[Label, ...] = ()


@dataclass(frozen=True)
class Probed(Answer):
    """Speeds in MD steps a second on so many atoms; the student's trajectory at constant energy."""

    atoms: int
    teacher_speed: float
    student_speed: float
    drift: float  # meV/atom/ps
    stable: bool
    reason: str  # why it is not


@dataclass(frozen=True)
class Failed(Answer):
    """The task failed for a reason of its own; the team goes on."""

    reason: str


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
