"""A panel below the lines of a run, where these go to a terminal: how it stands, from moment to moment."""

import logging
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from rich.console import Group
from rich.live import Live
from rich.rule import Rule
from rich.text import Text

from ...log import console
from ...workflow.overlap import labelling
from ...workflow.state import RunState
from ...workflow.time_forecast import medians
from ..snapshot import Snapshot
from .progress_table import lines
from .run_progress import RunProgress, label_seconds, rest

PER_SECOND = 1
"""How often it is drawn anew; a thread does it, so that it goes on where one rank plays all roles."""

_log = logging.getLogger("pfdhpc.panel")


def panel(snapshot: Callable[[], Snapshot | None]) -> AbstractContextManager:
    """The panel of what ``snapshot`` gives, as long as it is entered; nothing where the output is a file or a pipe."""
    if not sys.stdout.isatty() or console.is_dumb_terminal:
        return nullcontext()
    view = View(snapshot)
    return Live(get_renderable=view.drawn, console=console, refresh_per_second=PER_SECOND, transient=True)


class View:
    """What the panel shows of a run."""

    def __init__(self, snapshot: Callable[[], Snapshot | None]):
        self._snapshot = snapshot
        self._failed = False

    def drawn(self) -> Any:
        """A look at a run must not end it: what goes wrong here is written to the log, once."""
        try:
            found = self._snapshot()
            return Text("starting", "dim") if found is None else Group(Rule(style="dim"), lines(progress_of(found)))
        except Exception:
            if not self._failed:
                _log.exception("the panel could not be drawn")
            self._failed = True
            return Text("")


def progress_of(now: Snapshot) -> RunProgress:
    """How far a run is, from what its coordinator knows."""
    state, config, measured = now.state, now.config, medians(now.state)
    under_way, made = labelling(state), state.n_paid
    errors = {str(item.round): item.errors.total.force for item in state.history if item.errors is not None}
    return RunProgress(
        state="running",
        reason="",
        round=state.round,
        max_rounds=config.converge.max_rounds,
        phase=state.phase,
        labels=state.n_labels,
        rejected=sum(item.rejected for item in state.history),
        queue=len(state.pending) - under_way,
        elapsed=state.elapsed,
        silent=0.0,
        core_hours=state.core_hours,
        labels_per_hour=3600 * made / state.elapsed if state.elapsed > 0 and made > 0 else None,
        eta_phase=label_seconds(measured, len(state.pending), now.teams.get("labeler", 1)) or None,
        eta=rest(state.round, config.converge.max_rounds, state.elapsed),
        ends_at=None,  # a line has told it
        measured_seconds=measured,
        force_rmse=errors,
        criterion=config.converge.force_rmse,
        candidates=state.current.candidates,
        under_way=under_way,
        dropped=sum(item.dropped for item in state.history),
        teams=now.teams,
        at_work=now.at_work,
        busy=now.busy,
        utilization=_shares(state, Counter(team.role for team in now.layout.teams)),
    )


def _shares(state: RunState, teams: Mapping[str, int]) -> dict[str, dict[str, float]]:
    """By role: the share of the run so far its teams worked on orders."""
    known = {role: seconds for role, seconds in state.seconds.items() if teams.get(role)}
    return {role: {"busy": seconds / state.elapsed / teams[role]} for role, seconds in known.items() if state.elapsed}
