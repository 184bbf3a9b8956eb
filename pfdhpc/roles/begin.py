"""The state a fresh run starts from, and how a resumed one takes up the kept one."""

from collections.abc import Callable, Collection, Container
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import chemical_symbols

from ..config import Config
from ..config.explore import SystemSection, ends
from ..data import Frame, Origin, Record
from ..data.io import read_labelled
from ..engines.explore.check import check_starts
from ..engines.explore.perturb import perturb, starts
from ..errors import InputError
from .apply import check_alive, next_round
from .converge import SATURATED, reason_to_end
from .policy import seed_of
from .state import DONE, EVALUATE, TRAIN, Replica, RoundRecord, RunState


@dataclass(frozen=True)
class Start:
    """A fresh state, and the labelled frames the user brought along."""

    state: RunState
    given: tuple[Record, ...]


def begin(config: Config, type_map: tuple[str, ...]) -> Start:
    """The state of a run that has done nothing yet; raises InputError with all problems found.

    An empty ``type_map`` (the model could not be read) leaves the elements unchecked.
    """
    problems: list[str] = []
    frames = {system.name: _collect(problems, _starts, config, system) or [] for system in config.system}
    given = [_collect(problems, _given, path) or () for path in config.init.data]
    given = tuple({record.frame_id: record for some in given for record in some}.values())
    given = tuple(sorted(given, key=lambda record: record.frame_id))
    if type_map:
        problems += _unknown_elements(frames, given, type_map)
    for name, some in frames.items():
        problems += check_starts(config.explore, name, some)
    if config.select.bandwidth == "density" and any(frame.volume == 0 for some in frames.values() for frame in some):
        problems.append('select.bandwidth: "density" needs cells with a volume; give a number, or a cell with vacuum')
    if problems:
        raise InputError(problems)
    state = RunState(
        type_map=type_map,
        species=_species(frames, given),
        replicas=tuple(replica for system in config.system for replica in _replicas(config, system, frames)),
        pending=_initial(config),
        fresh=tuple(sorted(record.label_id for record in given)),
        given=len(given),
        history=(RoundRecord(0),),
    )
    return Start(state, given)


def resume(config: Config, kept: RunState, fresh: RunState, changed: Collection[str] = ()) -> RunState:
    """The kept state under a configuration in which the mutable keys ``changed`` differ.

    Replicas at new temperatures or pressures join, those no longer asked for are left out; where
    [explore] changed, guard restarts are forgiven; where [ranks] changed, measured durations are forgotten; a run
    that had reached a limit which has been raised, or was saturated under another [explore] or [select], goes on.
    """
    forgiven = any(key.startswith("explore.") for key in changed)
    old = {replica.replica: _again(replica, config, forgiven) for replica in kept.replicas}
    replicas = tuple(old.get(replica.replica, replica) for replica in fresh.replicas)
    kept = replace(kept, replicas=replicas, species=fresh.species)
    if any(key.startswith("ranks.") for key in changed):
        kept = replace(kept, durations={})
    if kept.phase == TRAIN and not (kept.train_ids or kept.fresh):
        return replace(kept, failure="frames/ holds no label to train on any more; put back the files taken out of it")
    if kept.phase in (EVALUATE, DONE):
        reason = reason_to_end(config.converge, kept)
        searched_otherwise = any(key.startswith(("explore.", "select.")) for key in changed)
        if not reason or (reason == SATURATED and searched_otherwise):
            return next_round(kept)
        return replace(kept, ended=reason)
    return check_alive(kept)


def without_missing(state: RunState, known: Container[str], rejected: Callable[[str], bool]) -> RunState:
    """The kept state without what the store does not hold any more: a damaged file was taken out of it.

    ``known`` holds label ids; ``rejected`` tells of a frame id.
    """
    names = ("train_ids", "validation_ids", "test_ids", "fresh")
    labels = {name: tuple(key for key in getattr(state, name) if key in known) for name in names}
    return replace(state, **labels, refused=tuple(key for key in state.refused if rejected(key)))


def _again(replica: Replica, config: Config, forgiven: bool) -> Replica:
    restarts = 0 if forgiven else replica.restarts
    return replace(replica, restarts=restarts, retired=restarts > config.explore.max_restarts)


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


def _initial(config: Config) -> tuple[Record, ...]:
    """Perturbed copies of the given structures, shared over the systems in turn."""
    sources = {
        system.name: starts(system.model_copy(update={"perturb": system.perturb.model_copy(update={"count": 0})}), 0)
        for system in config.system
    }
    records = []
    budget = config.init.frames
    if config.converge.max_labels is not None:
        budget = min(budget, config.converge.max_labels)
    for index in range(budget):
        system = config.system[index % len(config.system)]
        given = sources[system.name]
        rng = np.random.default_rng(seed_of(config, "init", system.name, index))
        source = given[index // len(config.system) % len(given)]
        frame = perturb(source, system.perturb.strain, system.perturb.displacement, rng)
        records.append(Record(frame, Origin(system=system.name, replica="initial", round=0, step=index)))
    return tuple(sorted(records, key=lambda record: record.frame_id))


def _starts(config: Config, system: SystemSection) -> list[Frame]:
    return starts(system, seed_of(config, "start", system.name))


def _given(path: Path) -> tuple[Record, ...]:
    """Labelled frames the user brought along, at a level of theory of their own."""
    return tuple(
        replace(
            record,
            origin=Origin(system=path.stem, replica="given", round=0),
            labelling=replace(record.labelling, level=f"given-{path.stem}"),
        )
        for record in read_labelled(path)
    )


def _collect(problems: list[str], work: Callable, *arguments: Any) -> Any:
    """The result of ``work``, or its problems added to the list."""
    try:
        return work(*arguments)
    except InputError as error:
        problems += error.problems
        return None


def _species(frames: dict[str, list[Frame]], given: tuple[Record, ...]) -> tuple[int, ...]:
    """All atomic numbers, ascending."""
    everything = (*(frame for some in frames.values() for frame in some), *(record.frame for record in given))
    return tuple(sorted({int(z) for frame in everything for z in frame.numbers}))


def _unknown_elements(frames: dict[str, list[Frame]], given: tuple[Record, ...], type_map) -> list[str]:
    problems = []
    for name, some in frames.items():
        problems += _not_in(f"system {name}", {int(z) for frame in some for z in frame.numbers}, type_map)
    return problems + _not_in("init.data", {int(z) for record in given for z in record.frame.numbers}, type_map)


def _not_in(where: str, numbers: set[int], type_map) -> list[str]:
    missing = [chemical_symbols[z] for z in sorted(numbers) if chemical_symbols[z] not in type_map]
    if not missing:
        return []
    return [
        f"{where}: {', '.join(missing)} not in the type map of model.checkpoint ({' '.join(type_map)});"
        " use a model that knows these elements"
    ]
