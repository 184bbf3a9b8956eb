"""What the coordinator writes of the run itself: checkpoints, and status.json."""

import time
from collections.abc import Mapping
from dataclasses import replace

from ..config import Config
from ..parallel.layout import Layout
from ..store.checkpoint import save_checkpoint
from ..store.status import write_status
from ..store.store import Store
from .folder import RunFolder
from .forecast import medians
from .persist import to_tree
from .state import DONE, EXPLORE, PROBE, SELECT, RunState
from .stopping import Stopping


class Books:
    """Of one job; ``before`` is the state it began with."""

    def __init__(
        self, config: Config, folder: RunFolder, layout: Layout, store: Store, stopping: Stopping,
        attrs: Mapping[str, str], before: RunState,
    ):  # fmt: skip
        self._config, self._folder, self._store, self._stopping, self._attrs = config, folder, store, stopping, attrs
        self._cores = layout.world_size * config.ranks.threads
        self._started = time.monotonic()
        self._before, self._last = before, before
        self._saved: tuple = ()
        self._progress = before.progress + len(store)

    def seconds(self) -> float:
        """Since this job opened its books."""
        return time.monotonic() - self._started

    def aged(self, state: RunState) -> RunState:
        """With what the run has used up until now."""
        seconds = self.seconds()
        hours = self._before.core_hours + self._cores * seconds / 3600
        return replace(state, elapsed=self._before.elapsed + seconds, core_hours=hours)

    @staticmethod
    def may_save(state: RunState) -> bool:
        """Not while candidates are made or reduced, which are not kept; that the run is done is saved last of all."""
        lost = state.phase in (SELECT, PROBE) or (state.phase == EXPLORE and state.explored)
        return not (lost or state.phase == DONE or state.failure)

    def save_if_due(self, state: RunState) -> None:
        """At the start of each phase."""
        if (state.phase, state.round) != self._saved and self.may_save(state):
            self.save(state)

    def save(self, state: RunState) -> None:
        """Publish a checkpoint. Raises StoreError."""
        state = self.aged(state)
        tree = {"state": to_tree(state), **self._attrs}
        save_checkpoint(self._folder.checkpoints, tree, self._config.run.keep_checkpoints)
        self._last, self._saved = state, (state.phase, state.round)
        self.status(state, "running", state.phase)

    def save_what_can_be(self, state: RunState) -> None:
        """At a stop: what cannot be kept is done again, but its measured durations are not forgotten."""
        self.save(state if self.may_save(state) else replace(self._last, durations=state.durations))

    def got_on(self) -> bool:
        """Whether this job finished anything for good."""
        return self._last.progress + len(self._store) != self._progress

    def status(self, state: RunState, condition: str, reason: str) -> None:
        """Write status.json. ``condition``: running, complete, incomplete or failed."""
        write_status(
            self._folder.directory,
            condition,
            reason,
            progress=self._last.progress + len(self._store),
            round=state.round,
            phase=state.phase,
            labels=len(self._store),
            core_hours=round(self.aged(state).core_hours, 3),
            ends_at=self._stopping.ends_at(),
            measured_seconds=medians(state),
        )
