"""What a run keeps for its report alone: small files in ``RUN/report-data``, rewritten whole, each by rename."""

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from .. import messages as m
from ..data import Label
from ..errors import StoreError
from ..files import publish
from ..store.run_directory import RunFolder
from ..workflow.state import RunState

FOLDER = "report-data"
HELD_OUT = "held-out.npz"


@dataclass(frozen=True, eq=False)
class Chosen:
    """What one selection saw and did. Nats, 1/Å.

    ``frame_ids``, ``novelty`` (n,) and ``points`` (n, width) are those of some candidates, drawn as by lot:
    novelty against the reference before the first pick, and the newest environment of each; none with method random.
    """

    round: int
    n_candidates: int
    filtered: Mapping[str, int]
    picked: tuple[str, ...]
    gains: tuple[float, ...]
    saturated: bool
    bandwidth: float
    frame_ids: tuple[str, ...]
    novelty: np.ndarray
    points: np.ndarray


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Predictions of the held-out frames, by label id; ``before`` is empty where there was no model before."""

    label_ids: tuple[str, ...]
    before: tuple[Label, ...]
    after: tuple[Label, ...]


def keep_chosen(directory: Path, chosen: Chosen) -> None:
    """Keep what a selection of a run saw; raises StoreError."""
    facts = {
        "round": chosen.round,
        "n_candidates": chosen.n_candidates,
        "filtered": dict(chosen.filtered),
        "picked": chosen.picked,
        "gains": [float(gain) for gain in chosen.gains],
        "saturated": chosen.saturated,
        "bandwidth": chosen.bandwidth,
        "frame_ids": chosen.frame_ids,
    }
    _keep(directory, f"selection-{chosen.round:04d}.npz", facts, novelty=chosen.novelty, points=chosen.points)


def read_chosen(directory: Path) -> list[Chosen]:
    """The selections of a run in their order; raises StoreError for a file that cannot be read."""
    found = []
    for path in sorted((Path(directory) / FOLDER).glob("selection-*.npz")):
        facts, arrays = _read(path)
        for key in ("picked", "gains", "frame_ids"):
            facts[key] = tuple(facts[key])
        found.append(Chosen(**facts, **arrays))
    return found


def keep_held_out(directory: Path, held_out: HeldOut) -> None:
    """Keep the predictions of the held-out frames; raises StoreError."""
    arrays: dict[str, np.ndarray] = {}
    for name, labels in (("before", held_out.before), ("after", held_out.after)):
        arrays |= {f"{name}_{key}": value for key, value in _packed(labels).items()}
    _keep(directory, HELD_OUT, {"label_ids": held_out.label_ids}, **arrays)


def read_held_out(directory: Path) -> HeldOut | None:
    """The predictions as kept, None where there are none; raises StoreError for a file that cannot be read."""
    path = Path(directory) / FOLDER / HELD_OUT
    if not path.exists():
        return None
    facts, arrays = _read(path)
    before, after = (_unpacked(name, arrays) for name in ("before", "after"))
    return HeldOut(tuple(facts["label_ids"]), before, after)


def _packed(labels: Sequence[Label]) -> dict[str, np.ndarray]:
    """Labels as flat arrays; a missing virial is NaN."""
    return {
        "energies": np.array([label.energy for label in labels], float),
        "sizes": np.array([len(label.forces) for label in labels], int),
        "forces": np.concatenate([label.forces for label in labels]) if labels else np.zeros((0, 3)),
        "virials": np.array([np.full((3, 3), np.nan) if one.virial is None else one.virial for one in labels], float),
    }


def _unpacked(name: str, arrays: Mapping[str, np.ndarray]) -> tuple[Label, ...]:
    energies, sizes, forces, virials = (arrays[f"{name}_{key}"] for key in ("energies", "sizes", "forces", "virials"))
    parts = np.split(forces, np.cumsum(sizes)[:-1]) if len(sizes) else []
    pairs = zip(energies, parts, virials, strict=True)
    return tuple(Label(energy, some, None if np.isnan(virial).any() else virial) for energy, some, virial in pairs)


def _keep(directory: Path, name: str, facts: Mapping[str, Any], **arrays: np.ndarray) -> None:
    folder = Path(directory) / FOLDER
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise StoreError(f"{folder}: cannot be made: {error.strerror}") from error
    buffer = io.BytesIO()
    np.savez_compressed(buffer, facts=np.array(json.dumps(facts)), **arrays)
    publish(folder / name, buffer.getvalue())


def _read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        return json.loads(arrays.pop("facts").item()), arrays
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise StoreError(f"{path}: cannot be read ({error}); remove it, the report does without") from error


Event = Callable[[RunState, RunState, Any], None]


class Evidence:
    """Listens to a run before ``then`` does."""

    def __init__(self, folder: RunFolder, then: Event):
        self._folder, self._then = folder, then

    def event(self, before: RunState, after: RunState, message: Any) -> None:
        """An answer was applied. Raises StoreError."""
        if isinstance(message, m.Selected) and message.report is not None:
            keep_chosen(self._folder.directory, chosen_of(before.round, message.report))
        self._then(before, after, message)


def chosen_of(number: int, report: m.SelectReport) -> Chosen:
    """The selection of a round, as it is kept."""
    survey = report.survey or m.Survey((), np.zeros(0), np.zeros((0, 0), np.float32))
    return Chosen(
        round=number,
        n_candidates=report.n_candidates,
        filtered=report.filtered,
        picked=report.picked,
        gains=report.gains,
        saturated=report.saturated,
        bandwidth=report.bandwidth,
        frame_ids=survey.frame_ids,
        novelty=survey.novelty,
        points=survey.points,
    )
