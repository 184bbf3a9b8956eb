"""One atomic configuration, what was predicted and computed for it, and where it came from.

Shapes and units: positions (n, 3) Å, cell (3, 3) Å with lattice vectors as rows,
forces (n, 3) eV/Å, energy eV, virial (3, 3) eV (sign: :mod:`pfdhpc.units`).
"""

from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import blake2b

import numpy as np
from ase import Atoms


@dataclass(frozen=True, eq=False)
class Frame:
    """Species, cell and positions of one configuration.

    ``numbers`` (n,) int32 atomic numbers, ``cell`` (3, 3) and ``positions`` (n, 3) float64 Å,
    ``pbc`` (3,) bool.
    """

    numbers: np.ndarray
    cell: np.ndarray
    positions: np.ndarray
    pbc: np.ndarray = field(default_factory=lambda: np.ones(3, bool))

    def __post_init__(self):
        for name, dtype in (("numbers", np.int32), ("cell", float), ("positions", float), ("pbc", bool)):
            object.__setattr__(self, name, np.ascontiguousarray(getattr(self, name), dtype))
        n = len(self.numbers)
        if self.positions.shape != (n, 3) or self.cell.shape != (3, 3) or self.pbc.shape != (3,):
            raise ValueError(
                f"frame arrays do not fit: numbers {self.numbers.shape}, "
                f"positions {self.positions.shape}, cell {self.cell.shape}, pbc {self.pbc.shape}"
            )

    def __len__(self) -> int:
        return len(self.numbers)

    @cached_property
    def frame_id(self) -> str:
        """Content hash (32 hex digits) of species, cell, periodicity and positions."""
        digest = blake2b(digest_size=16)
        for array in (self.numbers, self.cell, self.pbc, self.positions):
            digest.update(array.tobytes())
        return digest.hexdigest()

    @property
    def volume(self) -> float:
        """Cell volume in Å³."""
        return float(abs(np.linalg.det(self.cell)))

    @property
    def has_virial(self) -> bool:
        """Whether a virial is defined: only where all three directions are periodic."""
        return bool(self.pbc.all())

    def to_atoms(self) -> Atoms:
        return Atoms(numbers=self.numbers, cell=self.cell, positions=self.positions, pbc=self.pbc)

    @classmethod
    def from_atoms(cls, atoms: Atoms) -> "Frame":
        return cls(atoms.numbers.copy(), atoms.cell.array.copy(), atoms.positions.copy(), atoms.pbc.copy())


@dataclass(frozen=True, eq=False)
class Label:
    """Energy (eV), forces (n, 3) eV/Å and, where known, virial (3, 3) eV of one frame."""

    energy: float
    forces: np.ndarray
    virial: np.ndarray | None = None

    def __post_init__(self):
        object.__setattr__(self, "energy", float(self.energy))
        object.__setattr__(self, "forces", np.ascontiguousarray(self.forces, float))
        if self.virial is not None:
            object.__setattr__(self, "virial", np.ascontiguousarray(self.virial, float).reshape(3, 3))

    def is_finite(self) -> bool:
        virial_ok = self.virial is None or np.isfinite(self.virial).all()
        return bool(np.isfinite(self.energy) and np.isfinite(self.forces).all() and virial_ok)


@dataclass(frozen=True)
class Origin:
    """Where a frame comes from: the provenance kept with it for life."""

    system: str = ""
    replica: str = ""
    round: int = -1
    segment: int = -1
    step: int = -1
    temperature: float = float("nan")  # target, K
    pressure: float = float("nan")  # target, bar
    model_version: int = -1
    model_hash: str = ""
    deviation: float = float("nan")  # max force deviation of the committee, eV/Å
    novelty: float = float("nan")  # entropy gain when it was picked, nats


@dataclass(frozen=True)
class Labelling:
    """How a label was made. ``level`` is the hash of the level of theory and all its settings."""

    level: str = ""
    labeler: str = ""
    seconds: float = float("nan")
    attempts: int = 1
    code_version: str = ""


@dataclass(frozen=True, eq=False)
class Record:
    """A frame with its provenance and, as they come to exist, the exploring model's prediction and the label.

    A virial of a frame that has none (:attr:`Frame.has_virial`), as files, calculators and older stores may hold,
    is left out, so that nothing is trained on it or compared with it.
    """

    frame: Frame
    origin: Origin = Origin()
    prediction: Label | None = None
    label: Label | None = None
    labelling: Labelling | None = None

    def __post_init__(self):
        for name in ("prediction", "label"):
            found = getattr(self, name)
            if found is not None and found.virial is not None and not self.frame.has_virial:
                object.__setattr__(self, name, replace(found, virial=None))

    @cached_property
    def frame_id(self) -> str:
        return self.frame.frame_id

    @property
    def label_id(self) -> str:
        """Identity of a label: one geometry may hold labels of several levels of theory."""
        if self.labelling is None:
            raise ValueError(f"frame {self.frame_id} has no label")
        return label_id(self.frame_id, self.labelling.level)

    def with_origin(self, **changes) -> "Record":
        return replace(self, origin=replace(self.origin, **changes))


def label_id(frame_id: str, level: str) -> str:
    """The key under which a label is stored exactly once."""
    return f"{frame_id}:{level}"


IMPORTED = "imported-"
"""How the levels of theory of imported labels begin: that is how a resumed run knows them."""


def is_imported(label_id: str) -> bool:
    """Whether a label was imported into the run."""
    return label_id.partition(":")[2].startswith(IMPORTED)
