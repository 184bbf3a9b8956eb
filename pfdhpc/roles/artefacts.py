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
from ..report import handover
from ..report.card import Known, model_card, survey
from ..report.evidence import HeldOut, keep_held_out, read_chosen
from ..report.novelty import Coverage, save_coverage, thinned
from ..report.reading import RunData
from ..store.container import UNFINISHED, publish
from ..store.store import Store
from .coordinator import Coordinator
from .persist import to_tree

AT_A_TIME = 256
"""Frames read from the store together: all of a large run would not fit into memory."""


MOST = 10_000
"""Frames that are handed over as a file, too."""


def hand_over(coordinator: Coordinator, verdict: str) -> None:
    """The model card, the novelty reference, what runs the model, and the held-out predictions."""
    config, folder, state = coordinator.config, coordinator.folder, coordinator.state
    run = run_data(coordinator)
    known: dict[str, Known] = {}
    frames: list[Frame] = []
    for records in _in_parts(coordinator.store, (*state.train_ids, *state.validation_ids)):
        survey(records, known)
        frames += [record.frame for record in records]
    for records in _in_parts(coordinator.store, state.test_ids):
        survey(records, known)
    save_coverage(folder.final / "novelty.npz", _coverage(run, frames))
    first = state.replicas[0].start if config.pool else _first(config)
    name = state.replicas[0].system if config.pool else config.system[0].name
    handover.hand_over(folder.final, name, first, _coldest(config), config.explore.timestep, config.train.type)
    for name, ids in (("train", state.train_ids), ("validation", state.validation_ids)):
        _export(coordinator.store, ids, folder.final / f"{name}.extxyz")
    models = {name: _digest(folder.final / name) for name in reversed(config.train.final_names)}
    publish(folder.final / "MODEL_CARD.md", model_card(run, known, models, verdict).encode())
    if state.evaluated is not None:
        found = state.evaluated
        keep_held_out(folder.directory, HeldOut(found.test_ids, found.parent, found.final))


def _export(store: Store, label_ids: Sequence[str], path: Path) -> None:
    """The labelled frames as a file that everything reads; of more than :data:`MOST` the store is the only copy."""
    from ase.io import write

    path.unlink(missing_ok=True)
    if not 0 < len(label_ids) <= MOST:
        return
    unfinished = path.with_name(f".{path.name}{UNFINISHED}")
    unfinished.unlink(missing_ok=True)
    for records in _in_parts(store, label_ids):
        atoms = [labelled_atoms(record.frame, record.label) for record in records]
        write(unfinished, atoms, format="extxyz", append=True, parallel=False)
    unfinished.replace(path)


def run_data(coordinator: Coordinator) -> RunData:
    """The run as its report sees it, before its last checkpoint is written."""
    attrs, state = coordinator.attrs, coordinator.books.aged(coordinator.state)
    return RunData(
        directory=coordinator.folder.directory,
        config=json.loads(attrs["input"]),
        state=to_tree(state),
        versions=json.loads(attrs.get("versions", "{}")),
        chosen=read_chosen(coordinator.folder.directory),
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
