"""Selecting from data that is there already: no run and no rounds, on one rank or on several."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from .. import messages as m
from ..config.load import parse_section
from ..config.select import SelectSection
from ..data import Frame, Origin, Record
from ..data.geometry import defect
from ..data.io import read_atoms
from ..errors import InputError
from ..store.export import atoms_of
from ..store.run_directory import RunFolder
from ..store.store import LABELLED, read_records
from .bandwidth import given_bandwidth, spread_bandwidth, unsuitable
from .candidate_scores import SAMPLE, Progress
from .distributed import Reduction
from .filters import Filter
from .peer_messages import Mailbox
from .quests import make_quests
from .reference_blocks import Describe, Shard, block_of, compute_device, make_model, owner_of

MEANINGLESS = {
    "patience": "no team is late here",
    "quotas": "the candidates here are of no system",
    "trust_lo": "there is no committee here",
    "trust_hi": "there is no committee here",
    "filter.max_force": "there is no prediction here",
    "filter.max_volume_ratio": "there is no start volume here",
}
"""Keys of [select] that need a run."""


@dataclass(frozen=True, eq=False)
class Selection:
    """What was picked, and why. Gains, novelty and entropies are in nats.

    ``indices`` are places among the candidates, in the order they were picked; ``gains`` what each added
    when it was picked, inf for the first one where there was no reference, NaN with method random.
    ``novelty`` (n_candidates,) is what each candidate adds to the reference alone; NaN where it was filtered,
    a duplicate, or known. ``filtered`` counts those dropped by reason, ``duplicates`` exact copies of
    other candidates, ``known`` those that are in the reference. The entropies are of the reference, and of it
    with the picks, of ``atoms_before`` and ``atoms_after`` environments; NaN where there are none.
    """

    indices: tuple[int, ...]
    gains: tuple[float, ...]
    saturated: bool
    novelty: np.ndarray
    filtered: Mapping[str, int]
    duplicates: int
    known: int
    entropy_before: float
    entropy_after: float
    atoms_before: int
    atoms_after: int
    bandwidth: float
    warning: str


def select_frames(
    candidates: Iterable[Atoms | Frame],
    reference: Iterable[Atoms | Frame] = (),
    max_sel: int = 10,
    *,
    model: str | Path | None = None,
    branch: str | None = None,
    seed: int = 0,
    **settings: Any,
) -> Selection:
    """The candidates that add most to the reference, at most ``max_sel`` of them.

    ``settings`` are the keys of [select], such as ``method="pfd"``, ``bandwidth="density"`` or
    ``descriptor={"type": "quests", "cutoff": 6.0}``; ``model`` is the file for ``descriptor={"type": "model"}``,
    ``branch`` one of its branches, ``seed`` for all that is random. Raises InputError for settings or frames that
    cannot be used.

        chosen = select_frames(ase.io.read("md.traj", ":"), ase.io.read("train.xyz", ":"), max_sel=50)
        picked = [md[index] for index in chosen.indices]
    """
    section = standalone_section({"max_sel": max_sel, **settings})
    describe = load_model(section, model, branch)
    material = Material(section)
    for index, item in enumerate(reference):
        material.refer(_frame(item), f"reference[{index}]")
    for index, item in enumerate(candidates):
        material.consider(_frame(item), f"candidates[{index}]")
    return choose(section, material, describe, seed=seed)


def standalone_section(values: Mapping[str, Any]) -> SelectSection:
    """[select] from its keys; raises InputError for those that mean something in a run alone, too."""
    section = parse_section("select", SelectSection, dict(values))
    given = section.model_fields_set | {f"filter.{key}" for key in section.filter.model_fields_set}
    if problems := [f"select.{key}: {why}; leave it out" for key, why in MEANINGLESS.items() if key in given]:
        raise InputError(problems)
    return section


def load_model(section: SelectSection, path: str | Path | None, branch: str | None = None) -> Describe | None:
    """The model, or its branch, whose descriptors are asked for; None if none are. Raises InputError."""
    if (path is not None) != (section.descriptor.type == "model"):
        raise InputError('select.descriptor.type: "model", and no other, needs a model: give both, or neither')
    if branch is not None and path is None:
        raise InputError(f'branch: "{branch}": of which model? give it too')
    if path is None:
        return None
    if not Path(path).is_file():
        raise InputError(f"{path}: no such model file")
    try:
        return make_model(Path(path), branch)
    except InputError as error:
        raise error.about({"model.checkpoint": "", "model.branch": "branch"}) from None


def read_structures(path: Path) -> Iterator[Atoms]:
    """The structures of a run directory, of its folder of frames, or of a file or folder of other data.

    Raises InputError when there are none, and when they cannot be read; StoreError for damaged frames of a run.
    """
    store = RunFolder(path).frames if (path / "input.json").is_file() else path
    found = map(atoms_of, read_records(store)) if (store / LABELLED).is_dir() else read_atoms(path)
    empty = True
    for atoms in found:
        empty = False
        yield atoms
    if empty:
        raise InputError(f"{path}: there is no structure in it")


class Material:
    """The candidates and the reference as one rank of ``size`` holds them, and what is known of all.

    Every rank is shown all frames in the same order, the reference first, and keeps its share of them:
    the blocks of the reference it owns, and every size-th of the candidates that may be picked.
    """

    def __init__(self, section: SelectSection, rank: int = 0, size: int = 1):
        self.teams = {f"rank-{number}": number for number in range(size)}
        self.team = f"rank-{rank}"
        self.mine: list[Record] = []
        self.reference: list[Record] = []
        self.reference_ids: dict[str, int] = {}  # with the number of atoms
        self.places: dict[str, tuple[int, int]] = {}  # of the first of equal candidates, with the number of atoms
        self.n_candidates, self.known, self.duplicates = 0, 0, 0
        self.species: set[int] = set()
        self.sample: list[Frame] = []  # the first candidates that are of use
        self._blocks, self._filter = section.blocks, Filter(section.filter, {})
        self._n_periodic, self._volumes = 0, 0.0

    def refer(self, frame: Frame, name: str) -> None:
        """Add a frame to the reference; ``name`` is what errors call it. Raises InputError for one of no use."""
        _must_have_atoms(frame, name)
        if wrong := defect(frame):
            raise InputError(f"{name}: {wrong}; or leave this frame out")
        if frame.frame_id in self.reference_ids:
            return
        self._look_at(frame)
        self.reference_ids[frame.frame_id] = len(frame)
        if owner_of(block_of(frame.frame_id, self._blocks), list(self.teams)) == self.team:
            self.reference.append(Record(frame))

    def consider(self, frame: Frame, name: str) -> bool:
        """Add a candidate; whether it is this rank's. Raises InputError for one without atoms."""
        _must_have_atoms(frame, name)
        place, key = self.n_candidates, frame.frame_id
        self.n_candidates += 1
        if key in self.reference_ids or key in self.places:
            self.known += key in self.reference_ids
            self.duplicates += key not in self.reference_ids
            return False
        mine = len(self.places) % len(self.teams) == self.teams[self.team]
        self.places[key] = place, len(frame)
        self._look_at(frame)
        record = Record(frame, Origin(step=place))
        if mine:
            self.mine.append(record)
        if sum(map(len, self.sample)) < SAMPLE and self._filter.reason(record) is None:
            self.sample.append(frame)
        return mine

    def volume_per_atom(self) -> float:
        """Mean over the frames that are periodic in all directions, Å³; raises InputError if none are."""
        if not self._n_periodic:
            raise InputError('select.bandwidth: "density" needs frames that are periodic; give a number')
        return self._volumes / self._n_periodic

    def _look_at(self, frame: Frame) -> None:
        self.species.update(frame.numbers.tolist())
        if frame.pbc.all() and np.isfinite(frame.volume):
            self._n_periodic += 1
            self._volumes += frame.volume / len(frame)


def choose(
    section: SelectSection,
    material: Material,
    model: Describe | None = None,
    channel: Any = None,
    seed: int = 0,
    entropies: bool = True,
    progress: Progress = lambda *_: None,
) -> Selection | None:
    """The selection; None on other ranks than the first. ``channel`` joins the ranks, if there are several."""
    device = compute_device()
    describe = model or make_quests(section.descriptor, sorted(material.species), device)
    bandwidth, warning = _bandwidth(section, material, describe)
    order = m.Select(
        order_id=f"select/{material.team}",
        round=0,
        participants=material.teams,
        replicas=(),
        volumes={},
        reference_ids=tuple(material.reference_ids),
        max_sel=section.max_sel,
        bandwidth=bandwidth,
        seed=seed,
        overshoot=section.method == "pfd",
        census=entropies or section.method != "random",
        entropies=entropies,
        reference=tuple(material.reference),
    )
    patient = section.model_copy(update={"patience": float("inf")})
    shard = Shard(device, describe)
    _, report = Reduction(patient, material.team, Mailbox(channel), shard, progress).run(order, material.mine)
    return None if report is None else _selection(section, material, report, warning)


def _bandwidth(section: SelectSection, material: Material, describe: Describe) -> tuple[float | None, str]:
    """h, None where it is to be found from the reference, and what is to be said of it where there is none."""
    found = given_bandwidth(section.bandwidth, material.volume_per_atom)
    if material.reference_ids:
        return found, ""
    if not material.sample:
        return found or 1.0, ""  # nothing will be compared
    sample = np.concatenate(describe(material.sample))[:SAMPLE]
    found = found or spread_bandwidth(sample)
    return found, unsuitable(sample, found) or ""


def _selection(section: SelectSection, material: Material, report: m.SelectReport, warning: str) -> Selection:
    picked = [material.places[frame_id] for frame_id in report.picked]
    novelty = np.full(material.n_candidates, np.nan)
    census = report.census or m.Census(np.nan, np.nan, {})
    for frame_id, value in census.novelty.items():
        novelty[material.places[frame_id][0]] = value
    atoms = sum(material.reference_ids.values())
    return Selection(
        indices=tuple(place for place, _ in picked),
        gains=report.gains,
        saturated=report.saturated,
        novelty=novelty,
        filtered=report.filtered,
        duplicates=material.duplicates,
        known=material.known,
        entropy_before=census.before,
        entropy_after=census.after,
        atoms_before=atoms,
        atoms_after=atoms + sum(size for _, size in picked),
        bandwidth=report.bandwidth,
        warning=report.warning or warning,
    )


def _frame(item: Atoms | Frame) -> Frame:
    return Frame.from_atoms(item) if isinstance(item, Atoms) else item


def _must_have_atoms(frame: Frame, name: str) -> None:
    if len(frame) == 0:
        raise InputError(f"{name}: a structure without atoms; leave it out")
