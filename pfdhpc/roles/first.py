"""What a run labels before its first training: altered copies of the given structures, and short dynamics."""

from collections.abc import Iterable, Sequence
from functools import partial
from itertools import islice

import numpy as np

from ..config import Config
from ..config.explore import SystemSection
from ..data import Frame, Origin, Record
from ..data.compositions import determining, formula_of, listed
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
    for index in _chosen(list(map(formula_of, _in_turn(config, given))), budget):
        turn, place = divmod(index, len(config.system))
        system = config.system[place]
        frame = _copy(config, given, system, turn, "init", index)
        records.append(Record(frame, Origin(system=system.name, replica="initial", round=0, step=index)))
    return tuple(sorted(records, key=lambda record: record.frame_id))


def _in_turn(config: Config, given: dict[str, list[Frame]]) -> list[Frame]:
    """The structures of all systems in the order in which copies are made of them, each at least once."""
    most = max(len(some) for some in given.values())
    systems = [given[system.name] for system in config.system]
    return [some[turn % len(some)] for turn in range(most) for some in systems]


def _chosen(formulas: Sequence[str], budget: int) -> list[int]:
    """Places in the endless repetition of ``formulas``: the first ones, or earlier those without which energies per
    element would stay undetermined."""
    needed = [formulas.index(text) for text in determining((), formulas)][:budget]
    others = (index for index in range(budget) if index not in needed)
    return sorted([*needed, *islice(others, budget - len(needed))])


def not_in_the_first(config: Config, labelled: Iterable[Frame]) -> str:
    """What the user must know where the first training has no label that determines the energies of some systems.

    ``labelled``: frames that are to be labelled before it, or are. Empty where none are: then all are aligned together.
    """
    known = sorted(set(map(formula_of, labelled)))
    structures = {formula_of(frame) for system in config.system for frame in sources(system)}
    lacking = determining(known, sorted(structures)) if known else ()
    if not lacking:
        return ""
    return (
        f"no label before the first training determines the energies of {listed(lacking)}: they are aligned when their"
        f" first labels come; with init.frames = {config.init.frames + len(lacking)} or more that is at once"
    )


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
