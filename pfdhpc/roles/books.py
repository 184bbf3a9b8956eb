"""What the coordinator writes of the run itself: checkpoints, and status.json."""

import time
from collections.abc import Mapping
from dataclasses import replace

from ..config import Config
from ..engines.train.restart import kept_step
from ..parallel.layout import Layout
from ..parallel.ledger import ledger
from ..store.checkpoint import save_checkpoint
from ..store.status import write_status
from ..store.store import Store
from .flow import labelling
from .folder import RunFolder
from .forecast import medians, steps_of_round, training_number
from .persist import to_tree
from .rounds import alive
from .state import DONE, EVALUATE, EXPLORE, PROBE, SELECT, RunState
from .stopping import Stopping
from .workload import Workload

LOOK = 5.0
"""Seconds between two looks at how far a training has been kept."""


class Books:
    """Of one job; ``before`` is the state it began with."""

    def __init__(
        self, config: Config, folder: RunFolder, layout: Layout, store: Store, stopping: Stopping,
        attrs: Mapping[str, str], before: RunState,
    ):  # fmt: skip
        self._config, self._folder, self._store, self._stopping, self._attrs = config, folder, store, stopping, attrs
        self.workload = Workload(layout)
        self._cores = layout.world_size * config.ranks.threads
        self._started = time.monotonic()
        self._before, self._last = before, before
        self._saved: tuple = ()
        self._looked = self._started
        self._progress = self._told = self._counted()

    def seconds(self) -> float:
        """Since this job opened its books."""
        return time.monotonic() - self._started

    def aged(self, state: RunState) -> RunState:
        """With what the run has used up until now."""
        seconds = self.seconds()
        hours = self._before.core_hours + self._cores * seconds / 3600
        return replace(state, elapsed=self._before.elapsed + seconds, core_hours=hours)

    def may_save(self, state: RunState) -> bool:
        """Not while candidates are made or reduced, which are not kept; that the run is done is saved last of all.

        An overlapped run drops its candidates at a restart, so that it may be saved at any time.
        """
        begun = state.explored or not alive(state)  # a round whose replicas died is for wider guards to repeat
        lost = state.phase in (SELECT, PROBE) or (state.phase == EXPLORE and begun)
        dropped = self._config.overlapped and state.phase != PROBE
        return not ((lost and not dropped) or state.phase == DONE or state.failure)

    def save_if_due(self, state: RunState) -> None:
        """At the start of each phase, and when there is a new model or a trajectory of [init.aimd] has got on."""
        if _mark(state) != self._saved and self.may_save(state):
            self.save(state)

    def save(self, state: RunState) -> None:
        """Publish a checkpoint. Raises StoreError."""
        state = self.aged(state)
        tree = {"state": to_tree(state), **self._attrs}
        with ledger().during("disk"):
            save_checkpoint(self._folder.checkpoints, tree, self._config.run.keep_checkpoints)
        self._last, self._saved = state, _mark(state)
        self.status(state, "running", state.phase)

    def save_what_can_be(self, state: RunState) -> None:
        """At a stop: what cannot be kept is done again, but its measured durations are not forgotten."""
        self.save(state if self.may_save(state) else replace(self._last, durations=state.durations))

    def got_on(self) -> bool:
        """Whether this job finished anything for good."""
        return self._counted() != self._progress

    def tell_if_kept(self, state: RunState) -> None:
        """Of a training that goes on, how far it need not be done again: that is progress too."""
        if self._config.train.restart_after is None or time.monotonic() - self._looked < LOOK:
            return
        self._looked = time.monotonic()
        if self._counted() != self._told:
            self.status(state, "running", state.phase)

    def _counted(self) -> float:
        """What was finished for good: tasks, labels, and a training that is kept as it goes by its share of steps."""
        done, state, share = self._last.progress + len(self._store), self._last, 0.0
        if self._config.train.restart_after is not None and state.phase not in (EVALUATE, PROBE, DONE):
            number = training_number(self._config, state)
            steps = steps_of_round(self._config, number)
            members = state.untrained(self._config.pool.models) if self._config.pool else [0]
            shares = [kept_step(self._folder.training(number, member)) / max(steps, 1) for member in members]
            share = round(sum(item for item in shares if item < 1), 6)
        return done + share if share else done

    def status(self, state: RunState, condition: str, reason: str) -> None:
        """Write status.json. ``condition``: running, complete, incomplete or failed."""
        self._told = self._counted()
        write_status(
            self._folder.directory,
            condition,
            reason,
            progress=self._told,
            round=state.round,
            phase=state.phase,
            labels=len(self._store),
            core_hours=round(self.aged(state).core_hours, 3),
            ends_at=self._stopping.ends_at(),
            measured_seconds=medians(state),
            waiting=len(state.pending) - labelling(state),
            labelling=labelling(state),
            candidates=state.current.candidates if state.history else 0,
            dropped=sum(item.dropped for item in state.history),
            teams=self.workload.teams,
            at_work=self.workload.at_work,
            busy=self.workload.busy(),
        )


def _mark(state: RunState) -> tuple:
    """What a checkpoint is due for when it changes."""
    return (
        state.phase,
        state.round,
        len(state.models),
        state.members,
        tuple((item.step, item.ended) for item in state.aimd),
    )
