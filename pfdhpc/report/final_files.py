"""What a finished run hands over in ``RUN/final``, besides its figures: see :func:`hand_over`."""

import json
from collections.abc import Iterator, Sequence
from hashlib import file_digest
from pathlib import Path

from ..config import Config
from ..config.explore import ends
from ..data import Frame, Record
from ..data.io import labelled_atoms
from ..engines.explore.perturb import sources
from ..files import publish, renamed_into
from ..store.export import export
from ..store.run_directory import RunFolder
from ..store.store import Store
from ..workflow.state import RunState
from ..workflow.state_codec import to_tree
from . import run_scripts
from .model_card import Known, model_card, survey
from .novelty import Coverage, save_coverage, thinned
from .report_data import HeldOut, keep_held_out, read_chosen
from .run_data import RunData
from .snapshot import Snapshot

AT_A_TIME = 256
"""Frames read from the store together: all of a large run would not fit into memory."""


MOST = 10_000
"""Frames that are handed over as a file, too."""


def hand_over(now: Snapshot, verdict: str) -> None:
    """The model card, the novelty reference, what runs the model, and the held-out predictions."""
    config, folder, state = now.config, now.folder, now.state
    run = run_data(now)
    known: dict[str, Known] = {}
    frames: list[Frame] = []
    for records in _in_parts(now.store, (*state.train_ids, *state.validation_ids)):
        survey(records, known)
        frames += [record.frame for record in records]
    for records in _in_parts(now.store, state.test_ids):
        survey(records, known)
    save_coverage(folder.final / "novelty.npz", _coverage(run, frames))
    first = state.replicas[0].start if config.pool else _first(config)
    name = state.replicas[0].system if config.pool else config.system[0].name
    run_scripts.hand_over(folder.final, name, first, _coldest(config), config.explore.timestep, config.train.type)
    for name, ids in (("train", state.train_ids), ("validation", state.validation_ids)):
        _export(now.store, ids, folder.final / f"{name}.extxyz")
    models = {name: _digest(folder.final / name) for name in reversed(config.train.final_names)}
    publish(folder.final / "MODEL_CARD.md", model_card(run, known, models, verdict).encode())
    if state.job.evaluated is not None:
        found = state.job.evaluated
        keep_held_out(folder.directory, HeldOut(found.test_ids, found.parent, found.final))


def _export(store: Store, label_ids: Sequence[str], path: Path) -> None:
    """The labelled frames as a file that everything reads; of more than :data:`MOST` the store is the only copy."""
    from ase.io import write

    path.unlink(missing_ok=True)
    if not 0 < len(label_ids) <= MOST:
        return
    with renamed_into(path) as unfinished:
        for records in _in_parts(store, label_ids):
            atoms = [labelled_atoms(record.frame, record.label) for record in records]
            write(unfinished, atoms, format="extxyz", append=True, parallel=False)


def run_data(now: Snapshot) -> RunData:
    """The run as its report sees it, before its last checkpoint is written."""
    return RunData(
        directory=now.folder.directory,
        config=json.loads(now.attrs["input"]),
        state=to_tree(now.state),
        versions=json.loads(now.attrs.get("versions", "{}")),
        chosen=read_chosen(now.folder.directory),
    )


def _in_parts(store: Store, label_ids: Sequence[str]) -> Iterator[list[Record]]:
    for start in range(0, len(label_ids), AT_A_TIME):
        yield store.records(label_ids[start : start + AT_A_TIME])


def _coverage(run: RunData, frames: list[Frame]) -> Coverage:
    """The bandwidth is that of the last selection; where none came about, the one asked for."""
    select = run.config["select"]
    measured = [chosen.bandwidth for chosen in run.chosen if chosen.bandwidth == chosen.bandwidth]
    kept = thinned(frames, sum(map(len, frames)))
    bandwidth = measured[-1] if measured else select["bandwidth"]
    return Coverage(select["descriptor"], run.species, bandwidth, tuple(kept), len(frames) - len(kept))


def _first(config: Config) -> Frame:
    """The first structure of the first system, as it was given."""
    return sources(config.system[0])[0]


def _coldest(config: Config) -> float:
    return min(min(ends(ramp)) for ramp in config.explore.temperatures)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


HELD_OUT = "held_out.extxyz"
"""In ``final`` of the fine-tuning: first-principles frames no training saw, on which the student is tested too."""


def export_held_out(folder: RunFolder, state: RunState, store: Store) -> None:
    """At the end of a fine-tuning: its held-out frames, for whoever goes on with its model."""
    path = folder.final / HELD_OUT
    path.unlink(missing_ok=True)
    if state.test_ids:
        export(store.records(state.test_ids), path, "extxyz")
