"""Labels computed elsewhere, brought into the store of a run that is not in progress."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ase.data import chemical_symbols

from .. import __version__
from ..config.file_digest import content_digest
from ..config.init import DataSection
from ..data import Origin, Record
from ..data.frame import IMPORTED
from ..data.known_frames import KnownFrames
from ..errors import InputError
from ..start.given_labels import is_run, read
from ..start.repeated_frames import labels_differ, once, restated
from ..store.checkpoint import load_checkpoint
from ..store.lock import RunLock
from ..store.run_directory import RunFolder
from ..store.store import Store
from ..workflow.state import RunState
from ..workflow.state_codec import from_tree

AT_A_TIME = 256
"""Frames read from the store together."""
IN_AN_INPUT = "as in { path = ..., level = ... }"
"""How an input names the level to take, in the message of a run that has several."""


@dataclass(frozen=True)
class Report:
    """How many frames were taken; how many not, as they have a label already or are those the run is tested on.

    ``told``: of frames that the files have more than once; ``others`` of those with a label already have another one
    in the files.
    """

    taken: int
    there: int
    tested: int
    others: int = 0
    told: tuple[str, ...] = ()


def import_labels(folder: RunFolder, paths: Sequence[Path], level: str, fmt: str, take: str = "") -> Report:
    """Commit the labelled frames of some files; the next job of the run trains on them.

    ``level`` names their level of theory; ``take`` is the one to take of a run that has several. Raises InputError
    while the run is in progress, for what cannot be read, and for elements the run does not know; nothing is kept then.
    """
    lock = RunLock(folder.directory)
    try:
        tree = load_checkpoint(folder.checkpoints)
        if tree is None:
            raise InputError(f"{folder.directory}: the run has no checkpoint yet; name the files in init.data instead")
        state = from_tree(tree["state"])
        records = _records(paths, level, fmt, take)
        _check(state, tree, records)
        store = Store(folder.frames, _attrs(folder, tree, paths))
        records, told = once(records, "import")
        tested, there, others = _known(records, state, store)
        waiting = KnownFrames(record.frame for record in state.pending)
        new = [
            _as_waited_for(record, waiting, state)
            for index, record in enumerate(records)
            if index not in tested | there
        ]
        store.commit(sorted(new, key=lambda record: record.frame_id))
        return Report(len(new), len(there - tested), len(tested), others, tuple(told))
    finally:
        lock.release()


def _known(records: Sequence[Record], state: RunState, store: Store) -> tuple[set[int], set[int], int]:
    """Indices of the records whose geometry the run is tested on, and has a label of; how many have another label."""
    test_ids = {*state.test_ids, *state.validation_ids, *state.fixed_ids}
    files = KnownFrames(record.frame for record in records)
    tested: set[int] = set()
    there: set[int] = set()
    others: set[int] = set()
    for key, kept in _one_by_one(store):
        same = list(files.all_same(kept.frame))
        there.update(same)
        tested.update(same if key in test_ids else ())
        others.update(index for index in same if labels_differ(kept, records[index]))
    return tested, there, len(others)


def _one_by_one(store: Store) -> Iterator[tuple[str, Record]]:
    """Label ids and records, without all of them in memory at a time."""
    ids = store.label_ids
    for start in range(0, len(ids), AT_A_TIME):
        keys = ids[start : start + AT_A_TIME]
        yield from zip(keys, store.records(keys), strict=True)


def _as_waited_for(record: Record, waiting: KnownFrames, state: RunState) -> Record:
    """The record; with the frame as the run has it, if it waits for this label."""
    index = waiting.same(record.frame)
    return record if index is None else restated(record, state.pending[index])


def _records(paths: Sequence[Path], level: str, fmt: str, take: str) -> list[Record]:
    """All frames of all files; every file that cannot be read is named."""
    runs = [path for path in paths if not fmt and is_run(path)]
    if take and not runs:
        raise InputError("--take: only runs have levels of theory to take one of, and no run is given; leave it out")
    problems: list[str] = []
    found: list[Record] = []
    for path in paths:
        try:
            records = read(DataSection(path=path, format=fmt, level=take if path in runs else ""))
        except InputError as error:
            problems += [line.replace(IN_AN_INPUT, "by --take LEVEL") for line in error.problems]
            continue
        found += [_imported(record, path.stem, level) for record in records]
    if problems:
        raise InputError(problems)
    return found


def _imported(record: Record, name: str, level: str) -> Record:
    origin = Origin(system=name, replica="imported", step=record.origin.step)
    labelling = replace(record.labelling, level=f"{IMPORTED}{level}", labeler="import", code_version=__version__)
    return replace(record, prediction=None, origin=origin, labelling=labelling)


def _check(state: RunState, tree: dict, records: Sequence[Record]) -> None:
    if json.loads(tree["input"])["workflow"] == "distill":
        raise InputError("import: a student learns from its teacher alone; first-principles frames go into test.data")
    strange = {int(z) for record in records for z in record.frame.numbers} - set(state.species)
    if strange:
        names, known = ([chemical_symbols[z] for z in sorted(some)] for some in (strange, state.species))
        raise InputError(f"import: {', '.join(names)} in the files, but the run is of {', '.join(known)}")


def _attrs(folder: RunFolder, tree: dict, paths: Sequence[Path]) -> dict[str, str]:
    """What the files with these frames say of themselves: the run's input, and where they come from."""
    sources = {str(path.resolve()): content_digest(path) for path in paths}
    attrs = {key: tree[key] for key in ("input", "versions") if key in tree}
    return {**attrs, "imported": json.dumps(sources, sort_keys=True)}
