"""Short dynamics by the labelers before the first training: what is ordered, done, and made of the answers.

A trajectory is cut into segments, each an order of its own that carries where the trajectory is; the answer carries
the labels made on the way and where it is then. So a job that is killed costs a trajectory one segment, and
trajectories run side by side on all labeler teams.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from .. import messages as m
from ..config import Config
from ..config.explore import SystemSection
from ..data import Frame
from ..engines.label.aimd import at_rest
from ..parallel.layout import Team

Seed = Callable[..., int]
"""A seed from what it is for, as :func:`pfdhpc.workflow.plan.seed_of` gives it for one run."""


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


def advanced(found: Iterable[m.Trajectory], answer: m.Simulated) -> tuple[m.Trajectory, ...]:
    """The trajectories after an answer; one without a label ends, with the reason."""
    return tuple(_after(item, answer) if item.name == answer.trajectory else item for item in found)


def _after(item: m.Trajectory, answer: m.Simulated) -> m.Trajectory:
    if answer.point is None:
        return replace(item, ended=answer.reason or "it broke off")
    return replace(item, point=answer.point, step=answer.step)
