"""What the coordinator writes of the run itself: checkpoints, and status.json."""

import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import replace

from ..config import Config
from ..engines.train.deepmd.round_restart import kept_step
from ..parallel.layout import IDLE, Layout
from ..parallel.ledger import ledger
from ..store.checkpoint import save_checkpoint
from ..store.run_directory import RunFolder
from ..store.status import write_status
from ..store.store import Store
from ..workflow.overlap import labelling
from ..workflow.state import DONE, EVALUATE, EXPLORE, PROBE, SELECT, RunState, alive
from ..workflow.state_codec import to_tree
from ..workflow.time_forecast import medians, steps_of_round, training_number
from .stopping import Stopping

WINDOW = 300.0
"""Seconds looked back on."""
GRAIN = 5.0
"""Seconds between two entries."""


class Workload:
    """Of one job. Where one rank plays all roles in turn nothing can be said by role, and nothing is."""

    def __init__(self, layout: Layout):
        teams = () if layout.world_size == 1 else layout.teams
        self._role = {team.name: team.role for team in teams if team.role != IDLE}
        self.teams = dict(Counter(self._role.values()))
        self.at_work: dict[str, int] = dict.fromkeys(self.teams, 0)
        self._spent = dict.fromkeys(self.teams, 0.0)  # team seconds
        self._noted = time.monotonic()
        self._entries = deque([(self._noted, dict(self._spent))])

    def note(self, state: RunState) -> None:
        """Take in what is under way; call it whenever that may have changed."""
        now = time.monotonic()
        for role, count in self.at_work.items():
            self._spent[role] += count * (now - self._noted)
        busy = Counter(self._role[team] for team in state.busy & self._role.keys())
        self.at_work, self._noted = {role: busy[role] for role in self.teams}, now
        if now - self._entries[-1][0] >= GRAIN:
            self._entries.append((now, dict(self._spent)))
        while len(self._entries) > 1 and self._entries[1][0] < now - WINDOW:
            self._entries.popleft()

    def busy(self) -> dict[str, float]:
        """By role: the share of its teams' time in the window with an order under way."""
        since, spent = self._entries[0]
        length = self._noted - since
        if length <= 0:
            return {}
        return {role: round((self._spent[role] - spent[role]) / length / n, 4) for role, n in self.teams.items()}


LOOK = 5.0
"""Seconds between two looks at how far a training has been kept."""


class RunRecorder:
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
        return not ((lost and not dropped) or state.phase == DONE or state.job.failure)

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
