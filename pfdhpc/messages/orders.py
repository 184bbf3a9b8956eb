"""Orders: what the coordinator asks of the team leaders, one frozen dataclass each."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from typing import ClassVar

from ..data import Frame, Record
from ..engines.base import SegmentTask
from ..engines.label.aimd import Point


@dataclass(frozen=True)
class ModelRef:
    """A published model: ``digest`` is its name in the run's models folder."""

    version: int
    digest: str


@dataclass(frozen=True)
class Order:
    """Work for a team. ``order_id`` is compared, never parsed; it begins with ``kind``, the state in the ledgers."""

    kind: ClassVar[str]

    order_id: str

    @property
    def frame_ids(self) -> tuple[str, ...]:
        """The frames that are being labelled."""
        return ()


@dataclass(frozen=True)
class ImportParent(Order):
    """Take the branch out of the pre-trained checkpoint and publish it as model 0."""

    kind = "import"


@dataclass(frozen=True)
class Explore(Order):
    """Run one segment of one replica; the candidates stay with the team."""

    kind = "explore"

    round: int
    model: ModelRef
    type_map: tuple[str, ...]
    task: SegmentTask
    distilling: bool = False  # the model is a teacher: its own predictions are no test of anything
    judge: ModelRef | None = None  # then the student, whose predictions the candidates carry instead


@dataclass(frozen=True)
class Scan(Order):
    """Judge a chunk of the pool by a committee, the first of which predicts; the candidates stay with the team."""

    kind = "explore"

    round: int
    replica: str  # the name of the chunk
    models: tuple[ModelRef, ...]
    done: tuple[str, ...]  # frame ids that are out of the pool
    forces: tuple[float, float] | None  # trust band, eV/Å; None: nothing is known, all frames are candidates
    energies: tuple[float, float] = (float("inf"), float("inf"))  # eV/atom


@dataclass(frozen=True)
class Select(Order):
    """Reduce over the participants' candidates of a round; each sends back what was picked of its own."""

    kind = "select"

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
    """The id of the order to label some frames: the frame's own, or a digest of those of several."""
    ids = [record.frame_id for record in records]
    return f"label/{ids[0] if len(ids) == 1 else blake2b('+'.join(ids).encode(), digest_size=16).hexdigest()}"


@dataclass(frozen=True)
class LabelFrames(Order):
    """Label some frames."""

    kind = "label"

    records: tuple[Record, ...]
    teacher: ModelRef | None = None  # labels by this model; None: by the engine of [label]

    @cached_property  # it is asked of all orders under way at every message
    def frame_ids(self) -> tuple[str, ...]:
        return tuple(record.frame_id for record in self.records)


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

    kind = "aimd"

    trajectory: Trajectory
    seed: int


@dataclass(frozen=True)
class Train(Order):
    """Train a model on the labels so far."""

    kind = "train"

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
    """A part of the evaluation: predict frames with the parent and, those that never train, with the final model."""

    kind = "evaluate"

    parent: ModelRef | None  # None: a student had none
    final: ModelRef
    train_ids: tuple[str, ...]  # to these the parent's energies will be aligned
    test_ids: tuple[str, ...]
    fixed_ids: tuple[str, ...] = ()  # of test.data
    teacher: ModelRef | None = None  # what is compared with the final model on these, where there is no parent
    product: bool = False  # make the model for production, too, and compare it on the training frames
    records: tuple[Record, ...] = ()


@dataclass(frozen=True)
class Probe(Order):
    """Run the teacher and the model for production in LAMMPS: how fast they are, and whether the latter holds."""

    kind = "probe"

    teacher: ModelRef
    student: ModelRef
    frame: Frame
    temperature: float  # K
    species: tuple[int, ...]


@dataclass(frozen=True)
class CallOff(Order):
    """The order of this id is not wanted any more: a program it runs has so many seconds to end; no other answer."""

    kind = "call off"

    seconds: float


@dataclass(frozen=True)
class Shutdown(Order):
    """The job ends with this exit code, the same on all ranks; no answer."""

    kind = "shutdown"

    code: int
