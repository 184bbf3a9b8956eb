"""What the coordinator and the team leaders say to each other: one frozen dataclass each.

An order has an id that is the same whenever the same work is asked for, also after a restart;
its answer carries the id back and is filed once.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..data import Frame, Label, Record
from ..engines.base import SegmentTask


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
    records: tuple[Record, ...] = ()  # those named above this team has not been sent before


@dataclass(frozen=True)
class Evaluate(Order):
    """Predict held-out frames with the parent (bias aligned to the training frames) and the final model."""

    parent: ModelRef | None  # None: a student had none
    final: ModelRef
    train_ids: tuple[str, ...]
    test_ids: tuple[str, ...]
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

    @property
    def accepted(self) -> bool:
        return not self.reason


@dataclass(frozen=True)
class Labelled(Answer):
    outcomes: tuple[LabelOutcome, ...]


@dataclass(frozen=True)
class Trained(Answer):
    model: ModelRef
    best_step: int
    step_seconds: float
    curve: tuple[dict[str, float], ...] = ()


@dataclass(frozen=True)
class Evaluated(Answer):
    """Predictions of the test frames, in the order of their ids."""

    test_ids: tuple[str, ...]
    parent: tuple[Label, ...]
    final: tuple[Label, ...]
    product: str = ""  # a student's model for production: whether it is compressed, and if not, why


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
