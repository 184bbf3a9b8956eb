"""What a run labels before its first training: altered copies of the given structures, and short dynamics."""

from functools import partial

import numpy as np

from ..config import Config
from ..config.explore import SystemSection
from ..data import Frame, Origin, Record
from ..engines.explore.perturb import copy_of, sources
from . import messages as m
from .aimd import trajectories
from .policy import seed_of


def first_frames(config: Config) -> tuple[Record, ...]:
    """[init] frames, shared over the systems in turn; raises InputError for copies that cannot be made."""
    given = {system.name: sources(system) for system in config.system}
    budget = config.init.frames
    if config.converge.max_labels is not None:
        taken = config.init.aimd.labels if config.init.aimd else 0
        budget = min(budget, max(config.converge.max_labels - taken, 0))
    records = []
    for index in range(budget):
        turn, place = divmod(index, len(config.system))
        system = config.system[place]
        frame = _copy(config, given, system, turn, "init", index)
        records.append(Record(frame, Origin(system=system.name, replica="initial", round=0, step=index)))
    return tuple(sorted(records, key=lambda record: record.frame_id))


def first_trajectories(config: Config) -> tuple[m.Trajectory, ...]:
    """[init.aimd], none of which has begun; raises InputError for starts that cannot be made."""
    if config.init.aimd is None:
        return ()
    given = {system.name: sources(system) for system in config.system}

    def start(system: SystemSection, structure: int, turn: int) -> Frame:
        return _copy(config, given, system, structure, "aimd-start", turn)

    return trajectories(config, start, partial(seed_of, config))


def _copy(
    config: Config, given: dict[str, list[Frame]], system: SystemSection, structure: int, purpose: str, index: int
) -> Frame:
    """An altered copy of one of a system's structures, counted without end."""
    some = given[system.name]
    rng = np.random.default_rng(seed_of(config, purpose, system.name, index))
    return copy_of(some[structure % len(some)], system, rng)
