"""What the parts of the coordinator share: one run in one job, with its state."""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import NamedTuple

from ..config import Config
from ..engines.label.level_of_theory import Levels
from ..messages import Order
from ..parallel.channel import Channel
from ..parallel.layout import Layout
from ..report.snapshot import Listener, Snapshot
from ..start.repeated_frames import Untested
from ..store.run_directory import RunFolder
from ..store.store import Store
from ..workflow.label_cost import unconfirmed
from ..workflow.state import DONE, RunState
from .label_commits import LabelCommits
from .run_recorder import RunRecorder
from .stopping import Stopping

POLL = 0.25
"""Seconds the coordinator sleeps at most before it looks at the clock and the signals again."""


class Sent(NamedTuple):
    """An order, the team it went to, and when (monotonic seconds)."""

    order: Order
    team: str
    at: float


@dataclass
class RunContext:
    """One run of one job. ``first_principles`` are the levels of theory that [label] stands for.

    ``store``, ``recorder``, ``commits`` and ``untested`` are there when the run has been taken up.
    """

    config: Config
    folder: RunFolder
    layout: Layout
    channel: Channel
    stopping: Stopping
    first_principles: Levels
    attrs: dict[str, str]
    changed: Collection[str] = ()  # mutable keys that differ from the run so far
    listener: Listener = field(default_factory=Listener)
    state: RunState = field(default_factory=RunState)
    sent: dict[str, Sent] = field(default_factory=dict)  # without an answer, also those others have been asked for
    overheads: dict[str, list[float]] = field(default_factory=dict)  # see Snapshot
    selection_told: float = 0.0  # when (monotonic) the root of the last selection told its outcome
    store: Store = field(init=False)
    recorder: RunRecorder = field(init=False)
    untested: Untested = field(init=False)
    commits: LabelCommits = field(init=False)

    def open(self, store: Store, state: RunState) -> None:
        """Take up the run with the state it is in."""
        self.store, self.state = store, state
        self.commits = LabelCommits(store)
        self.untested = Untested(store.records(state.fixed_ids))
        self.recorder = RunRecorder(
            self.config, self.folder, self.layout, store, self.stopping, self.attrs, state
        )  # fmt: skip

    @property
    def levels(self) -> Levels:
        """The levels of theory of the labels being made now."""
        return self.state.levels(self.first_principles)

    @property
    def over(self) -> bool:
        return self.state.phase == DONE or bool(self.state.job.failure)

    @property
    def awaited(self) -> str:
        """What only people can give this run: labels made elsewhere, or the word that it may cost so much."""
        return self.state.job.standstill or unconfirmed(self.config, self.state, self.layout)

    def snapshot(self) -> Snapshot | None:
        """The run as it is now; None before it has been taken up."""
        if not hasattr(self, "recorder"):
            return None
        workload = self.recorder.workload
        return Snapshot(
            self.config, self.layout, self.folder, self.attrs, self.recorder.aged(self.state), self.store,
            self.overheads, self.recorder.seconds(), workload.teams, workload.at_work, workload.busy(),
        )  # fmt: skip
