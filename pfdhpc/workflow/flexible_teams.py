"""Flexible teams: explorers or labelers, whichever the run lacks. Pure.

In lock-step a phase makes all of them what it needs. Overlapped, they turn labelers when more frames wait than there
are labelers, and explorers again when none waits: what lies between the two keeps teams from changing to and fro.
"""

from dataclasses import replace

from .. import messages as m
from ..config import Config
from ..parallel.layout import EXPLORER, FLEXIBLE, LABELER, TRAINER, Layout
from .state import EXPLORE, INIT, LABEL, SELECT, RunState


def seated(layout: Layout, state: RunState) -> Layout:
    """The layout in which every flexible team has the role it plays now."""
    if not layout.of_role(FLEXIBLE):
        return layout
    roles = {team.name: LABELER if team.name in state.job.turned else EXPLORER for team in layout.of_role(FLEXIBLE)}
    teams = tuple(replace(team, role=roles.get(team.name, team.role)) for team in layout.teams)
    return replace(layout, teams=teams)


def balanced(config: Config, state: RunState, layout: Layout) -> RunState:
    """The state with flexible teams where they are needed most."""
    flexible = [team.name for team in layout.of_role(FLEXIBLE) if team.name not in state.job.lost]
    if not flexible:
        return state
    if state.phase in (INIT, LABEL) or not config.overlapped:
        return state.in_job(turned=frozenset(flexible if state.phase in (INIT, LABEL) else ()))
    busy = state.busy
    waiting = _waiting(state)
    away = state.job.lost | state.job.late
    labelers = sum(team.name not in away for team in layout.of_role(LABELER)) + len(state.job.turned - away)
    if waiting > labelers and not _holds_candidates(state):
        free = [name for name in flexible if name not in state.job.turned and name not in busy]
        return state.in_job(turned=state.job.turned | set(free[: waiting - labelers]))
    if not waiting and state.job.turned:
        return state.in_job(turned=state.job.turned & busy)
    return state


def unmanned(layout: Layout, state: RunState) -> list[str]:
    """The roles no team is left for."""
    alive = {team.role for team in layout.teams if team.name not in state.job.lost}
    able = {role: {role, FLEXIBLE} for role in (EXPLORER, LABELER)} | {TRAINER: {TRAINER}}
    return [role for role, roles in able.items() if not roles & alive]


def _waiting(state: RunState) -> int:
    """Frames no labeler has begun."""
    begun = state.with_labelers
    return sum(record.frame_id not in begun for record in state.pending)


def _holds_candidates(state: RunState) -> bool:
    """Whether explorers may have candidates that no selection has seen: then none of them leaves."""
    exploring = state.runs(m.Explore, m.Scan, m.Select)
    return state.phase == SELECT or (state.phase == EXPLORE and (exploring or bool(state.explored)))
