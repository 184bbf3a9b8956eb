"""The beginning of a job: every team has started, and the run is taken up where it was left."""

import time
from collections.abc import Callable
from dataclasses import replace

from ..engines.label.level import Levels
from ..parallel.channel import Channel
from ..parallel.layout import IDLE, Layout
from ..store.store import Store
from . import messages as m
from .begin import Start, without_missing
from .desk import POLL, crashed
from .given import is_imported
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


def with_imports(start: Start, store: Store) -> RunState:
    """The fresh state, in which frames of the pool that were imported are out of it as those brought along are."""
    ids = [key for key in store.label_ids if is_imported(key)] if start.pool else []
    if not ids:
        return start.state
    found = start.pool.same_as(store.records(ids))
    return replace(start.state, elsewhere=tuple(sorted({*start.state.elsewhere, *found})))
