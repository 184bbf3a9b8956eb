"""The state a fresh run starts from, and how a resumed one takes up the kept one."""

from dataclasses import dataclass, replace

import numpy as np
from ase.data import chemical_symbols

from ..config import Config
from ..config.explore import SystemSection
from ..data import Frame, Origin, Record
from ..data.io import read_labelled
from ..engines.explore.perturb import perturb, starts
from ..errors import InputError
from .apply import next_round
from .converge import reason_to_end
from .policy import seed_of
from .state import DONE, EVALUATE, Replica, RoundRecord, RunState


@dataclass(frozen=True)
class Start:
    """A fresh state, and the labelled frames the user brought along."""

    state: RunState
    given: tuple[Record, ...]


def begin(config: Config, type_map: tuple[str, ...]) -> Start:
    """The state of a run that has done nothing yet; raises InputError with all problems found.

    An empty ``type_map`` (the model could not be read) leaves the elements unchecked.
    """
    frames = {system.name: starts(system, seed_of(config, "start", system.name)) for system in config.system}
    given = _given(config)
    problems = _unknown_elements(frames, given, type_map) if type_map else []
    if problems:
        raise InputError(problems)
    state = RunState(
        type_map=type_map,
        replicas=tuple(replica for system in config.system for replica in _replicas(config, system, frames)),
        pending=_initial(config),
        fresh=tuple(sorted(record.label_id for record in given)),
        history=(RoundRecord(0),),
    )
    return Start(state, given)


def resume(config: Config, kept: RunState, fresh: RunState) -> RunState:
    """The kept state under a configuration whose mutable keys may have changed.

    Replicas at new temperatures or pressures join, those no longer asked for are left out; a run
    that had reached a limit which has been raised goes on.
    """
    old = {replica.replica: replica for replica in kept.replicas}
    merged = tuple(old.get(replica.replica, replica) for replica in fresh.replicas)
    kept = replace(kept, replicas=merged)
    if kept.phase in (EVALUATE, DONE) and kept.ended and not reason_to_end(config.converge, kept):
        return next_round(kept)
    return kept


def _replicas(config: Config, system: SystemSection, frames: dict[str, list[Frame]]):
    """One replica per start structure, temperature and pressure."""
    for index, frame in enumerate(frames[system.name]):
        for ramp in config.explore.temperatures:
            low, high = ramp if isinstance(ramp, tuple) else (ramp, ramp)
            for pressure in config.explore.pressures:
                name = f"{system.name}-{index}-{low:g}K" + (f"-{high:g}K" if high != low else "")
                name += f"-{pressure:g}bar" if config.explore.ensemble.startswith("npt") else ""
                yield Replica(name, system.name, frame, (low, high), pressure)


def _initial(config: Config) -> tuple[Record, ...]:
    """Perturbed copies of the given structures, shared over the systems in turn."""
    sources = {
        system.name: starts(system.model_copy(update={"perturb": system.perturb.model_copy(update={"count": 0})}), 0)
        for system in config.system
    }
    records = []
    for index in range(config.init.frames):
        system = config.system[index % len(config.system)]
        given = sources[system.name]
        rng = np.random.default_rng(seed_of(config, "init", system.name, index))
        source = given[index // len(config.system) % len(given)]
        frame = perturb(source, system.perturb.strain, system.perturb.displacement, rng)
        records.append(Record(frame, Origin(system=system.name, replica="initial", round=0, step=index)))
    return tuple(sorted(records, key=lambda record: record.frame_id))


def _given(config: Config) -> tuple[Record, ...]:
    records = {}
    for path in config.init.data:
        for record in read_labelled(path):
            kept = replace(
                record,
                origin=Origin(system=path.stem, replica="given", round=0),
                labelling=replace(record.labelling, level=f"given-{path.stem}"),
            )
            records[kept.frame_id] = kept
    return tuple(records[key] for key in sorted(records))


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


