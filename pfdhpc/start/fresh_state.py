"""The state a fresh run starts from, and how a resumed one takes up the kept one."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
from ase.data import atomic_numbers, chemical_symbols

from .. import messages as m
from ..config import Config
from ..config.explore import SystemSection, ends
from ..config.init import Data
from ..config.teacher import labeling
from ..data import Frame, Origin, Record
from ..data.compositions import determining, formula_of, listed
from ..data.frame import is_imported
from ..data.io import read_labelled
from ..engines.explore.input_checks import check_starts
from ..engines.explore.perturb import copy_of, sources, starts
from ..engines.label.vacuum import check_all_vacuum
from ..errors import InputError
from ..store.store import Store
from ..workflow.aimd import trajectories
from ..workflow.plan import seed_of
from ..workflow.state import (
    Replica,
    RoundRecord,
    RunState,
)
from .given_labels import given as read_given
from .pool import Pool, read_pool
from .repeated_frames import apart, once
from .unused_properties import length_problems, tell_open, tell_unused


@dataclass(frozen=True)
class Start:
    """A fresh state, and the labelled frames the user brought along: to train on, and to test on.

    ``told`` says which of the frames are not used, and what the first labels lack; ``pool`` is that of ``simplify``.
    """

    state: RunState
    given: tuple[Record, ...]
    fixed: tuple[Record, ...] = ()
    told: tuple[str, ...] = ()
    pool: Pool | None = None


def begin(config: Config, type_map: tuple[str, ...]) -> Start:
    """The state of a run that has done nothing yet; raises InputError with all problems found.

    An empty ``type_map`` (the model could not be read) leaves the elements unchecked.
    """
    problems: list[str] = []
    told: list[str] = []
    tell_unused(config)
    frames = {system.name: _collect(problems, _starts, config, system) or [] for system in config.system}
    fixed = _labelled(problems, told, config.test.data or (), "test")
    given = _without(_labelled(problems, told, config.init.data, "given"), fixed, "init.data", "test.data", told)
    problems += _replayed(config, fixed)
    pool = _collect(problems, read_pool, config.pool) if config.pool else None
    if type_map:
        strange = _unknown_elements(config, frames, given, fixed, type_map)
        strange |= {"pool.data": _not_in(_in_pool(pool), type_map)}
        problems += [_of_strange(config, where, names, type_map) for where, names in strange.items() if names]
    for name, some in frames.items():
        problems += check_starts(config.explore, name, some)
        problems += check_all_vacuum(labeling(config), f"system {name}", some, name)
    if pool is not None:
        problems += check_all_vacuum(labeling(config), "pool.data", [record.frame for record in pool.records])
    cells = [frame for some in frames.values() for frame in some]
    cells += [replica.start for replica in pool.replicas()] if pool else []
    if config.select.bandwidth == "density" and any(frame.volume == 0 for frame in cells):
        problems.append('select.bandwidth: "density" needs cells with a volume; give a number, or a cell with vacuum')
    pending, aimd, first = (), (), "pool.init_pick" if config.pool else "init.frames"
    elsewhere: tuple[str, ...] = ()
    if pool is not None:
        told += pool.told
        elsewhere = pool.same_as((*given, *fixed))
        pending = pool.first(config, seed_of(config, "pool"), elsewhere)
    elif not problems:
        pending, aimd = _collect(problems, first_frames, config), _collect(problems, first_trajectories, config)
    wanted = _to_label(frames, pending or (), pool)
    problems += length_problems(config.label, wanted)
    tell_open(config.label, wanted)
    if problems:
        raise InputError(problems)
    pending = _without(pending, fixed, first, "test.data", told)
    pending = _without(pending, given, first, "init.data", told)
    state = RunState(
        type_map=type_map,
        species=tuple(sorted({*_species(config, frames, (*given, *fixed)), *_in_pool(pool)})),
        replicas=pool.replicas()
        if pool
        else tuple(replica for system in config.system for replica in _replicas(config, system, frames)),
        pending=tuple(pending),
        fresh=tuple(sorted(record.label_id for record in given)),
        compositions={record.label_id: formula_of(record) for record in given},
        given=len(given),
        history=(RoundRecord(0),),
        aimd=aimd,
        fixed_ids=tuple(sorted(record.label_id for record in fixed)),
        elsewhere=elsewhere,
    )
    first = (*(item.frame for item in (*given, *state.pending)), *(item.point.frame for item in aimd))
    if pool is None and (lacking := not_in_the_first(config, first)):
        told.append(lacking)
    return Start(state, tuple(given), tuple(fixed), tuple(told), pool)


def _to_label(frames: dict[str, list[Frame]], first: Iterable[Record], pool: Pool | None) -> dict[str, list[Frame]]:
    """Frames such as those that are going to be labelled, by system."""
    found = {name: list(some) for name, some in frames.items()}
    for record in (*first, *(pool.records if pool else ())):
        found.setdefault(record.origin.system, []).append(record.frame)
    return found


def _replicas(config: Config, system: SystemSection, frames: dict[str, list[Frame]]):
    """One replica per start structure, temperature and pressure."""
    for index, frame in enumerate(frames[system.name]):
        for temperature in map(ends, config.explore.temperatures):
            for pressure in map(ends, config.explore.pressures):
                name = f"{system.name}-{index}{_printed(temperature, 'K')}"
                name += _printed(pressure, "bar") if config.explore.ensemble.startswith("npt") else ""
                yield Replica(name, system.name, frame, temperature, pressure)


def _printed(ramp: tuple[float, float], unit: str) -> str:
    """``-300K``, or ``-300K-400K`` for a ramp."""
    return "".join(f"-{value:g}{unit}" for value in dict.fromkeys(ramp))


def _starts(config: Config, system: SystemSection) -> list[Frame]:
    return starts(system, seed_of(config, "start", system.name))


def _labelled(problems: list[str], told: list[str], sources: Iterable[Data], role: str) -> list[Record]:
    """Frames the user brought along, each geometry once, in the order of their ids."""
    where, missing = "test.data" if role == "test" else "init.data", []
    found = [_collect(missing, read_given, data, role) or () for data in sources]
    problems += [f"{where}: {problem}" for problem in missing]
    records, lines = once([record for some in found for record in some], where)
    told += lines
    return sorted(records, key=lambda record: record.frame_id)


def _without(
    records: Sequence[Record], others: Sequence[Record], where: str, there: str, told: list[str]
) -> list[Record]:
    """The records whose geometry none of the others has; tells how many have been left out."""
    kept = apart(records, others)
    if len(kept) < len(records):
        told.append(f"{where}: {len(records) - len(kept)} of {len(records)} frames left out: they are in {there}")
    return kept


def _replayed(config: Config, fixed: Sequence[Record]) -> list[str]:
    """Frames of test.data that a branch beside the material's would train on; data that cannot be read is told of
    by the trainer."""
    problems: list[str] = []
    for name, section in config.train.replay.items() if fixed else ():
        records = [record for path in section.data for record in _collect([], read_labelled, path) or ()]
        if n_tested := len(records) - len(apart(records, fixed)):
            problems.append(
                f"train.replay.{name}.data: {n_tested} of {len(records)} frames are in test.data, which must not train;"
                " take them out of one of the two"
            )
    return problems


def _collect(problems: list[str], work: Callable, *arguments: Any) -> Any:
    """The result of ``work``, or its problems added to the list."""
    try:
        return work(*arguments)
    except InputError as error:
        problems += error.problems
        return None


def _species(config: Config, frames: dict[str, list[Frame]], known: Iterable[Record]) -> tuple[int, ...]:
    """All atomic numbers that may turn up, ascending."""
    everything = (*(frame for some in frames.values() for frame in some), *(record.frame for record in known))
    drawn = {z for system in config.system for z in _alloyed(system)}
    return tuple(sorted(drawn.union(*(_numbers([frame]) for frame in everything))))


def _alloyed(system: SystemSection) -> set[int]:
    """What random compositions may put into a system."""
    alloy = system.perturb.alloy
    return {atomic_numbers[name] for name in alloy.elements} if alloy and alloy.composition == "random" else set()


def _in_pool(pool: Pool | None) -> set[int]:
    return _numbers(record.frame for record in pool.records) if pool else set()


def _numbers(frames: Iterable[Frame]) -> set[int]:
    return {int(z) for frame in frames for z in frame.numbers}


def _unknown_elements(config: Config, frames: dict[str, list[Frame]], given, fixed, type_map) -> dict[str, list[str]]:
    """Elements that are not in the type map, by where they are."""
    found = {f"system {system.name}": _numbers(frames[system.name]) | _alloyed(system) for system in config.system}
    for where, records in (("init.data", given), ("test.data", fixed)):
        found[where] = _numbers(record.frame for record in records)
    return {where: _not_in(numbers, type_map) for where, numbers in found.items()}


def _not_in(numbers: set[int], type_map: Sequence[str]) -> list[str]:
    return [chemical_symbols[z] for z in sorted(numbers) if chemical_symbols[z] not in type_map]


def _of_strange(config: Config, where: str, names: list[str], type_map: Sequence[str]) -> str:
    model = config.model
    source = "model.checkpoint" if model.type_map is None else "model.type_map"
    remedy = "use a model that knows these elements"
    if model.type_map is not None:
        remedy = "add them there"
    elif config.workflow != "distill" and config.train.type == "deepmd":
        remedy += (
            ", or name all elements of the fine-tuned model as model.type_map: new ones are learned from the labels"
        )
    return f"{where}: {', '.join(names)} not in the type map of {source} ({' '.join(type_map)}); {remedy}"


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


def with_imports(start: Start, store: Store) -> RunState:
    """The fresh state, in which frames of the pool that were imported are out of it as those brought along are."""
    ids = [key for key in store.label_ids if is_imported(key)] if start.pool else []
    if not ids:
        return start.state
    found = start.pool.same_as(store.records(ids))
    return replace(start.state, elsewhere=tuple(sorted({*start.state.elsewhere, *found})))
