"""Teams: their start, their failures, and those given up because they do not answer."""

import time
from collections.abc import Callable

from .. import messages as m
from ..parallel.channel import Channel
from ..parallel.layout import IDLE, TRAINER, Layout, Team
from ..workflow.apply import lose
from ..workflow.final_evaluation import patience
from ..workflow.flexible_teams import unmanned
from ..workflow.overlap import useful
from ..workflow.state import DONE
from .run_context import POLL, RunContext
from .stopping import Stopping

START_PATIENCE = 900.0
"""Seconds in which every team must have loaded its programs."""


class TeamWatch:
    """Gives up teams of one run that resign or stay silent: what they worked on is asked of others."""

    def __init__(self, run: RunContext):
        self._run = run
        self._resigned: set[str] = set()  # given up, but they hear

    @property
    def all_hear(self) -> bool:
        """Whether every order has been answered, and no team was lost but those that resigned."""
        return not self._run.sent and self._run.state.job.lost <= self._resigned

    def take_leave(self, team: Team, answer: m.Resigned) -> None:
        """Give up a team that says it cannot go on."""
        run = self._run
        run.sent.pop(answer.order_id, None)
        if len(team.ranks) == 1:  # others of its ranks may be waiting for one that failed
            self._resigned.add(team.name)
        if team.name not in run.state.job.lost:
            reason = " ".join(answer.reason.split())
            run.listener.say(f"{team.name} is retired: {reason}")
            self._give_up(team.name, f": {reason}")

    def give_up_overdue(self) -> None:
        """Give up the teams that have been silent for longer than their order may take."""
        run = self._run
        now = time.monotonic()
        for order_id, (order, team, since) in list(run.sent.items()):
            if team in run.state.job.lost or now - since <= self._patience(order, team, since):
                continue
            run.listener.say(f"{team} gave no answer to {order_id} in {now - since:.0f} s: given up")
            self._give_up(team)

    def _give_up(self, team: str, reason: str = "") -> None:
        """Where no team of its role is left the run cannot go on."""
        run = self._run
        run.state = lose(run.config, run.state, team, run.store.records)
        missing = frozenset(unmanned(run.layout, run.state))
        if run.state.phase != DONE and missing - run.state.job.missing:
            broken = f"no {min(missing - run.state.job.missing)} team is left{reason}"
            run.state = run.state.in_job(broken=run.state.job.broken or broken, missing=run.state.job.missing | missing)
            if useful(run.state):
                run.listener.say(f"{run.state.job.broken}; what is under way is still used")

    def _patience(self, order: m.Order, team: str, since: float) -> float:
        """Seconds an order may take that was sent to a team at ``since`` (monotonic)."""
        run = self._run
        config = run.config
        if isinstance(order, m.Simulate):
            calculations = (1 + config.init.aimd.interval) * (1 + len(config.label.retries))
            return 60 + 2 * config.label.timeout * calculations
        if isinstance(order, m.LabelFrames):
            attempts = 1 + len(config.label.retries)
            return 60 + 2 * config.label.timeout * attempts * len(order.records)
        if isinstance(order, m.Evaluate) and not team.startswith(TRAINER):
            return min(patience(run.state), config.run.overdue)
        if isinstance(order, m.Select) and run.state.job.reported:  # the others have ended: so should this one
            return run.selection_told - since + 4 * config.select.patience
        return config.run.overdue


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
            raise_crash(found[1])
        if found is not None:
            ready.append(found[1])
        elif time.monotonic() > deadline:
            missing = sorted(expected - {answer.team for answer in ready})
            raise RuntimeError(f"{', '.join(missing)} did not start within {START_PATIENCE:.0f} s; see logs/")
    return ready


def raise_crash(crash: m.Crashed) -> None:
    """A bug in a team ends the job. Raises RuntimeError."""
    raise RuntimeError(f"{crash.team} crashed in {crash.order_id}:\n{crash.traceback}")
