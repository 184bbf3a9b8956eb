"""The state of a run: immutable, the same after the same messages whatever their order, checkpointed whole."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, NamedTuple

from ..data import Frame, Record
from ..data.error_metrics import ErrorTable
from ..engines.label.level_of_theory import Levels
from ..messages import Evaluated, ModelRef, Order, Select, Train, Trajectory
from ..parallel import layout

IMPORT, LABEL, TRAIN, EXPLORE, SELECT, EVALUATE, PROBE, DONE = (
    "import", "label", "train", "explore", "select", "evaluate", "probe", "done",
)  # fmt: skip
INIT = "init"
"""Before the first labels: dynamics by the labelers."""
WAIT, DRAIN = "wait", "drain"
"""Overlapped only: exploration waits for a newer model or for room in the queue; or is over, and labels come in."""


def teacher_level(teacher: ModelRef) -> str:
    """The level of theory of a teacher's labels."""
    return f"teacher-{teacher.digest[:16]}"


@dataclass(frozen=True)
class Replica:
    """One trajectory: it begins at ``start`` and goes on from ``state`` in the next round."""

    replica: str
    system: str
    start: Frame
    temperature: tuple[float, float]
    pressure: tuple[float, float]
    state: bytes | None = None
    segment: int = 0
    restarts: int = 0
    retired: bool = False


@dataclass(frozen=True)
class RoundRecord:
    """What one round did; round 0 is the initial labels."""

    round: int
    model_version: int = -1
    steps: int = 0
    candidates: int = 0
    filtered: int = 0
    guards: int = 0
    selected: int = 0
    labelled: int = 0
    rejected: int = 0
    dropped: int = 0  # overlapped: picked, and found redundant before a labeler began
    best_gain: float = float("nan")
    saturated: bool = False
    errors: ErrorTable | None = None  # of the exploring model on the new labels
    judged_at: float = float("nan")  # ``RunState.elapsed`` when these were first known
    label_ids: tuple[str, ...] = ()  # overlapped: the labels of frames explored in this round
    train_seconds: float = float("nan")
    step_seconds: float = float("nan")  # of these, the optimisation steps
    scanned: bool = False  # a pool was looked through: ``candidates`` and the next two are its frames without a label
    accurate: int = 0
    failed: int = 0


class Running(NamedTuple):
    """An order under way, and the team at work on it."""

    order: Order
    team: str


@dataclass(frozen=True)
class JobState:
    """What belongs to one job of a run and is not kept."""

    failure: str = ""  # why it has ended
    broken: str = ""  # why it cannot go on, though what is under way is still of use
    missing: frozenset[str] = frozenset()  # the roles it is broken for want of
    standstill: str = ""  # what it waits for that this job will not see
    running: Mapping[str, Running] = field(default_factory=dict)  # by order id
    lost: frozenset[str] = frozenset()  # teams given up
    late: frozenset[str] = frozenset()  # teams that missed a selection and have not been heard of since
    attempt: int = 0  # selections of this round that did not come about
    reported: bool = False  # the root of the selection has told its outcome
    unheard: bool = False  # a team has told that it did not come about for it
    ranking: tuple[str, ...] = ()  # frame ids it picked, best first
    offered: tuple[str, ...] = ()  # frame ids that wait for a label and are ranked anew by the selection under way
    turned: frozenset[str] = frozenset()  # flexible teams that label now; the others explore
    evaluated_parts: Mapping[str, Evaluated] = field(default_factory=dict)  # those done of the evaluation, by order id
    evaluated: Evaluated | None = None  # all of it, if it was made in this job


@dataclass(frozen=True)
class RunState:
    """All that is kept of a run, and :class:`JobState`."""

    phase: str = IMPORT
    round: int = 0
    type_map: tuple[str, ...] = ()
    species: tuple[int, ...] = ()  # atomic numbers in the systems and the given frames
    models: tuple[ModelRef, ...] = ()
    teacher: ModelRef | None = None  # distillation: what drives the dynamics and labels; ``models`` are students
    replicas: tuple[Replica, ...] = ()
    explored: tuple[str, ...] = ()  # replicas done in this round
    picked: tuple[Record, ...] = ()  # picks that have come in while the selection is on
    pending: tuple[Record, ...] = ()  # frames waiting for a label
    fresh: tuple[str, ...] = ()  # label ids of this round, not trained on yet
    train_ids: tuple[str, ...] = ()
    validation_ids: tuple[str, ...] = ()
    test_ids: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()  # frame ids that could not be labelled
    history: tuple[RoundRecord, ...] = ()
    pretrained: ErrorTable | None = None  # on the held-out frames
    finetuned: ErrorTable | None = None
    production: Mapping[str, Any] = field(default_factory=dict)  # of a student: plain values, as in RESULTS.json
    ended: str = ""  # why the run is over
    given: int = 0  # labels the user brought along
    elapsed: float = 0.0  # seconds, over all jobs of the run
    core_hours: float = 0.0  # ranks x threads x hours, over all jobs of the run
    trained_at: float = 0.0  # ``elapsed`` when the last training ended
    training: tuple[str, ...] = ()  # overlapped: label ids that are new to the training under way
    progress: int = 0  # grows with every finished task
    aimd: tuple[Trajectory, ...] = ()  # dynamics by the labelers, before the first training
    committee: tuple[ModelRef, ...] = ()  # simplify: the newest models, the first of which is in ``models``
    members: tuple[ModelRef | None, ...] = ()  # simplify: those of the training that is on; None: not there yet
    fixed_ids: tuple[str, ...] = ()  # label ids of test.data
    elsewhere: tuple[str, ...] = ()  # simplify: ids of pool frames brought along or imported, in whatever setting
    fixed: Mapping[str, ErrorTable] = field(default_factory=dict)  # errors on them: "pretrained" or "teacher", "final"
    compositions: Mapping[str, str] = field(default_factory=dict)  # reduced formulas of the labels in ``fresh``, by id
    shares: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)  # by formula: train, validate, held out
    determining: Mapping[str, int] = field(default_factory=dict)  # formulas that determine the energies per element in
    # training, each with the version of the first model trained on it
    warnings: Mapping[str, str] = field(
        default_factory=dict
    )  # told once each, and with the results; by what they are of
    seconds: Mapping[str, float] = field(default_factory=dict)  # by role, summed over its teams
    durations: Mapping[str, tuple[float, ...]] = field(default_factory=dict)  # last measured, by kind (see forecast)
    job: JobState = field(default_factory=JobState)  # not in the checkpoint

    @property
    def model(self) -> ModelRef:
        return self.models[-1]

    @property
    def driver(self) -> ModelRef:
        """The model that explores."""
        return self.teacher or self.model

    @property
    def student(self) -> ModelRef | None:
        """The newest student, if this is a distillation and there is one."""
        return self.models[-1] if self.teacher and self.models else None

    def levels(self, first_principles: Levels) -> Levels:
        """The levels of theory of the labels being made: the teacher's, or those of [label]."""
        return Levels(teacher_level(self.teacher)) if self.teacher else first_principles

    @property
    def newest(self) -> int:
        """The version of the newest model that was trained; -1: there is none."""
        return self.models[-1].version if self.models else -1

    @property
    def next_version(self) -> int:
        """Of the model the next training makes; version 0 is what the run was given."""
        return len(self.models) + (self.teacher is not None)

    @property
    def trained(self) -> int:
        """Trainings done so far."""
        return len(self.models) - (self.teacher is None)

    @property
    def models_in_use(self) -> set[str]:
        """Digests of the models that what is left of the run may load: the first, the newest, committees, a teacher."""
        exploring = self.explorer if self.history else None  # overlapped, it may be older than the newest
        used = (*self.models[:1], *self.models[-1:], *self.committee, *self.members, self.teacher, exploring)
        return {model.digest for model in used if model is not None}

    def untrained(self, n_models: int) -> list[int]:
        """The members that a committee of so many models still lacks in the training that is on."""
        return [place for place in range(n_models) if not any(self.members[place : place + 1])]

    def with_member(self, place: int, model: ModelRef) -> tuple[ModelRef | None, ...]:
        """``members`` with another one, whatever the order in which they come."""
        filled = [*self.members, *[None] * (place + 1 - len(self.members))]
        return (*filled[:place], model, *filled[place + 1 :])

    @property
    def explorer(self) -> ModelRef | None:
        """The model of the current round: all of it is explored, or judged, by the same one."""
        return next((model for model in self.models if model.version == self.current.model_version), None)

    @property
    def label_ids(self) -> tuple[str, ...]:
        """All labels of the run, given ones included."""
        return (*self.train_ids, *self.validation_ids, *self.test_ids, *self.fresh)

    @property
    def current(self) -> RoundRecord:
        return self.history[-1]

    @property
    def n_labels(self) -> int:
        """Labels made so far, those of the current round included."""
        return len(self.label_ids)

    @property
    def n_paid(self) -> int:
        """Labels this run made itself."""
        return self.n_labels - self.given

    def note(self, **changes: Any) -> "RunState":
        """Change the record of the current round."""
        return self.note_round(self.current.round, **changes)

    def note_round(self, number: int, **changes: Any) -> "RunState":
        """Change the record of a round."""
        changed = replace(self.history[number], **changes)
        return replace(self, history=(*self.history[:number], changed, *self.history[number + 1 :]))

    def warned(self, about: str, text: str) -> "RunState":
        """With a warning, unless there is one about the same."""
        return self if not text or about in self.warnings else replace(self, warnings={**self.warnings, about: text})

    def unwarned(self, *about: str) -> "RunState":
        """Without the warnings about something."""
        return replace(self, warnings={key: text for key, text in self.warnings.items() if key not in about})

    def spent(self, role: str, seconds: float) -> "RunState":
        total = {**self.seconds, role: self.seconds.get(role, 0.0) + seconds}
        return replace(self, seconds=total, progress=self.progress + 1)

    @property
    def busy(self) -> frozenset[str]:
        """Teams at work on an order."""
        return frozenset(item.team for item in self.job.running.values())

    @property
    def with_labelers(self) -> frozenset[str]:
        """Frame ids that labelers are at work on."""
        return frozenset(chain.from_iterable(item.order.frame_ids for item in self.job.running.values()))

    def runs(self, *kinds: type[Order]) -> bool:
        """Whether an order of one of these kinds is under way."""
        return any(isinstance(item.order, kinds) for item in self.job.running.values())

    def in_job(self, **changes: Any) -> "RunState":
        """Change what belongs to this job alone."""
        return replace(self, job=replace(self.job, **changes))

    def settled(self, order_id: str) -> "RunState":
        running = {**self.job.running}
        running.pop(order_id, None)
        return self.in_job(running=running)

    def issued(self, order: Order, team: str) -> "RunState":
        return self.in_job(running={**self.job.running, order.order_id: Running(order, team)})

    def sent(self, order: Order, team: str) -> "RunState":
        """An order is on its way to a team: what it is about is remembered, as its answer comes to another state."""
        state = self.issued(order, team)
        if isinstance(order, Train):
            return replace(state, training=order.fresh_ids)
        if isinstance(order, Select) and order.again:
            return state.in_job(offered=tuple(record.frame_id for record in order.again))
        return state


def next_round(state: RunState) -> RunState:
    """Begin the next exploration round with the newest model."""
    number = state.round + 1
    return check_alive(
        replace(
            state,
            phase=EXPLORE,
            round=number,
            explored=(),
            picked=(),
            ended="",
            history=(*state.history, RoundRecord(number, model_version=state.newest)),
        ).in_job(attempt=0)
    )


def check_alive(state: RunState) -> RunState:
    """Exploration needs a replica."""
    if state.phase == EXPLORE and not alive(state):
        reason = "every replica was retired by its guards; see logs/, explore.guard and explore.max_restarts"
        return state.in_job(broken=reason, missing=state.job.missing | {layout.EXPLORER})
    return state


def alive(state: RunState) -> bool:
    """Whether there is a replica left to explore."""
    return not all(replica.retired for replica in state.replicas)
