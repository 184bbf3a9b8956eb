"""A run at one moment as reports and the terminal see it, and what listens to its events."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..config import Config
from ..parallel.layout import Layout
from ..store.run_directory import RunFolder
from ..store.store import Store
from ..workflow.state import RunState


@dataclass(frozen=True)
class Snapshot:
    """A run as its coordinator knows it; states are replaced, never changed, so that any thread may read one.

    ``overheads`` holds, by kind of order, the seconds from sending an order to its answer being filed (committed, for
    a label) less those the team worked on it; ``seconds`` are those since the run was opened in this job. ``teams``,
    ``at_work`` and ``busy`` are by role: teams, teams with an order, and their share of the last minutes with one.
    """

    config: Config
    layout: Layout
    folder: RunFolder
    attrs: Mapping[str, str]
    state: RunState
    store: Store
    overheads: Mapping[str, Sequence[float]]
    seconds: float
    teams: Mapping[str, int]
    at_work: Mapping[str, int]
    busy: Mapping[str, float]


@dataclass
class Listener:
    """What is told of the run as it goes; the terminal lines are one (:mod:`pfdhpc.report.terminal.event_log`)."""

    event: Callable[[RunState, RunState, Any], None] = lambda before, after, message: None
    say: Callable[[str], None] = lambda text: None
    conclude: Callable[[Snapshot], None] = lambda snapshot: None
