"""The beginning of a job: every team has started, and the run is taken up where it was left."""

import time
from collections.abc import Callable

from ..engines.label.level import Levels
from ..parallel.channel import Channel
from ..parallel.layout import IDLE, Layout
from ..store.store import Store
from . import messages as m
from .begin import without_missing
from .desk import POLL, crashed
from .state import RunState
from .stopping import Stopping

START_PATIENCE = 900.0
"""Seconds in which every team must have loaded its programs."""


def all_ready(layout: Layout, channel: Channel, stopping: Stopping, say: Callable[[str], None]) -> list[m.Ready] | None:
    """Wait until every team has started; None if the job is to stop before that."""
    ready: list[m.Ready] = []
    expected = {team.name for team in layout.teams if team.role != IDLE}
    deadline = time.monotonic() + START_PATIENCE
    while len(ready) < len(expected):
        if reason := stopping.reason():
            say(f"stopping before the start: {reason}")
            return None
        found = channel.receive(POLL)
        if found is not None and isinstance(found[1], m.Crashed):
            crashed(found[1])
        if found is not None:
            ready.append(found[1])
        elif time.monotonic() > deadline:
            missing = sorted(expected - {answer.team for answer in ready})
            raise RuntimeError(f"{', '.join(missing)} did not start within {START_PATIENCE:.0f} s; see logs/")
    return ready


def still_there(kept: RunState, store: Store, first_principles: Levels, say: Callable[[str], None]) -> RunState:
    """The kept state without the frames that its store has lost."""
    levels = kept.levels(first_principles)

    def refused(frame_id: str) -> bool:
        return any(store.was_rejected(frame_id, level) for level in levels)

    state = without_missing(kept, store, refused)
    missing = kept.n_labels - state.n_labels + len(kept.refused) - len(state.refused)
    if missing:
        say(f"{missing} frames of this run are not in {store.directory} any more: left out")
    return state
