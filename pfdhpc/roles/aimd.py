"""Short dynamics by the labelers before the first training: what is ordered, done, and made of the answers.

A trajectory is cut into segments, each an order of its own that carries where the trajectory is; the answer carries
the labels made on the way and where it is then. So a job that is killed costs a trajectory one segment, and
trajectories run side by side on all labeler teams.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

from .. import __version__
from ..config import Config
from ..config.explore import SystemSection
from ..config.init import AimdSection
from ..config.label import LabelSection
from ..data import Frame, Labelling, Origin, Record
from ..engines.base import Labeler
from ..engines.label.aimd import at_rest, run_segment
from ..engines.label.level import level_hash
from ..parallel.layout import Team
from . import messages as m

Seed = Callable[..., int]
"""A seed from what it is for, as :func:`pfdhpc.roles.policy.seed_of` gives it for one run."""


def trajectories(
    config: Config, start: Callable[[SystemSection, int, int], Frame], seed: Seed
) -> tuple[m.Trajectory, ...]:
    """Those [init.aimd] asks for, none of which has begun.

    ``start(system, structure, turn)`` gives a frame: an altered copy, the ``turn``-th of that system, of one of its
    structures, counted without end.
    """
    aimd = config.init.aimd
    found = []
    for index in range(aimd.trajectories if aimd else 0):
        turn, place = divmod(index, len(config.system))
        structure, warmth = divmod(turn, len(aimd.temperatures))
        system, temperature = config.system[place], aimd.temperatures[warmth]
        name = f"{system.name}-aimd-{turn}"
        point = at_rest(start(system, structure, turn), temperature, seed("aimd", name))
        found.append(m.Trajectory(name, system.name, temperature, point, aimd.interval))
    return tuple(found)


def unfinished(config: Config, found: Iterable[m.Trajectory]) -> list[m.Trajectory]:
    """Trajectories that go on."""
    return [item for item in found if not item.ended and item.step < config.init.aimd.steps]


def orders(
    config: Config, found: Iterable[m.Trajectory], running: Iterable[str], teams: Iterable[Team], seed: Seed
) -> Iterator[tuple[Team, m.Order]]:
    """The next segment of each trajectory that nobody works on, as long as there are ``teams``."""
    going = unfinished(config, found)
    waiting = [item for item in going if m.segment_order_id(item) not in running]
    for team, item in zip(teams, waiting, strict=False):
        yield team, m.Simulate(m.segment_order_id(item), item, seed("aimd", item.name, item.step))


def carry_out(engine: Labeler, section: LabelSection, aimd: AimdSection, comm: Any, order: m.Simulate) -> m.Simulated:
    """A labeler team's work on one segment."""
    started, now = time.monotonic(), order.trajectory
    result = run_segment(engine, section.of(now.system), aimd, comm, now.point, now.temperature, order.seed)
    seconds = time.monotonic() - started
    level = level_hash(section, now.system)
    labelling = Labelling(level, section.type, seconds / max(result.calculations, 1), code_version=__version__)
    steps = range(
        now.step + (0 if now.point.label is None else aimd.interval), now.step + aimd.interval + 1, aimd.interval
    )
    outcomes = [
        m.LabelOutcome(Record(point.frame, _origin(now, step), None, point.label, labelling))
        for step, point in zip(steps, result.kept, strict=False)
    ]
    if result.failed is not None:
        outcomes.append(m.LabelOutcome(Record(result.failed, _origin(now, -1)), result.reason, result.killed))
    point = None if result.reason else result.kept[-1]
    return m.Simulated(
        order.order_id, seconds, tuple(outcomes), now.name, point, now.step + aimd.interval, result.calculations,
        result.reason,
    )  # fmt: skip


def _origin(now: m.Trajectory, step: int) -> Origin:
    return Origin(system=now.system, replica=now.name, round=0, step=step, temperature=now.temperature)


def advanced(found: Iterable[m.Trajectory], answer: m.Simulated) -> tuple[m.Trajectory, ...]:
    """The trajectories after an answer; one without a label ends, with the reason."""
    return tuple(_after(item, answer) if item.name == answer.trajectory else item for item in found)


def _after(item: m.Trajectory, answer: m.Simulated) -> m.Trajectory:
    if answer.point is None:
        return replace(item, ended=answer.reason or "it broke off")
    return replace(item, point=answer.point, step=answer.step)
