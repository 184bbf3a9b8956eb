"""The state a fresh run starts from, and how a resumed one takes up the kept one."""

from collections.abc import Callable, Collection, Container, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ase.data import atomic_numbers, chemical_symbols

from ..config import Config
from ..config.explore import SystemSection, ends
from ..config.init import Data
from ..config.teacher import labeling
from ..data import Frame, Record
from ..data.compositions import formula_of
from ..data.io import read_labelled
from ..engines.explore.check import check_starts
from ..engines.explore.perturb import starts
from ..engines.label.vacuum import check_all_vacuum
from ..errors import InputError
from .converge import ACCURATE, ALL_FAILED, SATURATED, reason_to_end
from .first import first_frames, first_trajectories, not_in_the_first
from .flow import conform, reason_to_be_over
from .given import given as read_given
from .given import is_imported
from .policy import seed_of
from .pool import Pool, read_pool
from .repeated_frames import apart, once
from .rounds import check_alive, next_round
from .state import DONE, EVALUATE, EXPLORE, LABEL, PROBE, SELECT, TRAIN, Replica, RoundRecord, RunState
from .unused import length_problems, tell_open, tell_unused


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


def resume(
    config: Config, kept: RunState, fresh: RunState, changed: Collection[str] = (), imported: Sequence[str] = ()
) -> RunState:
    """The kept state under a configuration in which the mutable keys ``changed`` differ.

    Replicas at new temperatures or pressures join, those no longer asked for are left out; where
    [explore] changed, guard restarts are forgiven; where [ranks] changed, measured durations are forgotten; a run
    that had reached a limit which has been raised, or was saturated under another [explore] or [select], goes on.
    Labels ``imported`` since (their ids) are trained on next, also by a run that was over.
    """
    forgiven = any(key.startswith("explore.") for key in changed)
    old = {replica.replica: _again(replica, config, forgiven) for replica in kept.replicas}
    replicas = tuple(old.get(replica.replica, replica) for replica in fresh.replicas)
    kept = replace(kept, replicas=replicas, species=fresh.species, elsewhere=fresh.elsewhere)
    if any(key.startswith("ranks.") for key in changed):
        kept = replace(kept, durations={})
    kept = _with_imported(kept, imported)
    if kept.phase == TRAIN and not (kept.train_ids or kept.fresh):
        return replace(kept, failure="frames/ holds no label to train on any more; put back the files taken out of it")
    if kept.phase in (EVALUATE, DONE):
        reason = reason_to_be_over(config, kept, changed) if config.overlapped else reason_to_end(config.converge, kept)
        searched_otherwise = any(key.startswith(("explore.", "select.", "pool.")) for key in changed)
        if not reason or (reason in (SATURATED, ACCURATE, ALL_FAILED) and searched_otherwise):
            return next_round(kept)
        return replace(kept, ended=reason)
    return check_alive(_conformed(config, kept))


def _conformed(config: Config, kept: RunState) -> RunState:
    """As the policy would have it; in lock-step, imported labels wait for the end of a round that is being explored."""
    held = {key for key in kept.fresh if is_imported(key)}
    if config.overlapped or kept.phase not in (EXPLORE, SELECT) or not held:
        return conform(config, kept)
    state = conform(config, replace(kept, fresh=tuple(key for key in kept.fresh if key not in held)))
    return replace(state, fresh=tuple(sorted({*state.fresh, *held})))


def _with_imported(kept: RunState, imported: Sequence[str]) -> RunState:
    if not imported:
        return kept
    frames = {key.partition(":")[0] for key in imported}
    kept = replace(
        kept,
        pending=tuple(record for record in kept.pending if record.frame_id not in frames),
        fresh=tuple(sorted({*kept.fresh, *imported})),
        given=kept.given + len(imported),
        members=(),  # those of a committee are trained on the same labels
    )
    if kept.phase == LABEL and not kept.pending:
        return replace(kept, phase=TRAIN)
    return replace(kept, phase=TRAIN, ended="") if kept.phase in (EVALUATE, PROBE, DONE) else kept


def without_missing(state: RunState, known: Container[str], rejected: Callable[[str], bool]) -> RunState:
    """The kept state without what the store does not hold any more: a damaged file was taken out of it.

    ``known`` holds label ids; ``rejected`` tells of a frame id.
    """
    names = ("train_ids", "validation_ids", "test_ids", "fresh", "training", "fixed_ids")
    labels = {name: tuple(key for key in getattr(state, name) if key in known) for name in names}
    history = tuple(
        replace(item, label_ids=tuple(key for key in item.label_ids if key in known)) for item in state.history
    )
    refused = tuple(key for key in state.refused if rejected(key))
    return replace(state, **labels, history=history, refused=refused)


def _again(replica: Replica, config: Config, forgiven: bool) -> Replica:
    restarts = 0 if forgiven else replica.restarts
    return replace(replica, restarts=restarts, retired=restarts > config.explore.max_restarts)


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
