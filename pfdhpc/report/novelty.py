"""What a model was trained on, kept beside it, and whether other frames are covered by that.

δH(x) = -ln Σ_y exp(-|x - y|² / 2h²) over the environments y of the training frames (:mod:`pfdhpc.selection.entropy`).
Where it is above :data:`THRESHOLD`, training had nothing like it: there the model extrapolates.
"""

import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from ..config.select import DescriptorSection
from ..data import Frame
from ..errors import InputError, TaskError
from ..files import publish
from ..selection.bandwidth import given_bandwidth, spread_bandwidth
from ..selection.entropy import Environments
from ..selection.quests import make_quests

THRESHOLD = 0.0
"""Nats: one equal environment in training gives 0, several give less, none as near as that gives more."""
MAX_ATOMS = 1_000_000
"""Atoms of the training frames that are kept; of more, frames are left out evenly, which the file tells."""
SAMPLE = 512
"""Environments from which a bandwidth is found."""
FORMAT = "pfdhpc training coverage 1"

Describe = Callable[[Sequence[Frame]], list[np.ndarray]]


@dataclass(frozen=True, eq=False)
class Coverage:
    """The training frames and how environments are compared with theirs.

    ``descriptor``: the keys of [select.descriptor]; ``bandwidth`` in 1/Å, or the rule that finds it from the frames.
    """

    descriptor: Mapping[str, Any]
    species: tuple[int, ...]
    bandwidth: float | str
    frames: tuple[Frame, ...]
    left_out: int = 0  # training frames that are not among ``frames``

    def describer(self, model: Path | None = None, branch: str | None = None) -> Describe:
        """What describes frames as the run did; ``model``, or its ``branch``, for descriptors of its own."""
        return describer(self.descriptor, self.species, model, branch)

    def novelty(
        self, frames: Sequence[Frame], model: Path | None = None, branch: str | None = None
    ) -> list[np.ndarray]:
        """δH (n_atoms,) of every frame's environments, nats; inf in frames with elements training had not."""
        describe = self.describer(model, branch)
        known = np.concatenate(describe(self.frames))
        h = self._bandwidth(known)
        reference, trained = Environments(known, h), {z for frame in self.frames for z in frame.numbers.tolist()}
        found = []
        for frame in frames:
            if strange := set(frame.numbers.tolist()) - trained:
                found.append(np.full(len(frame), np.inf) if strange else np.zeros(0))
            else:
                found.append(-Environments(describe([frame])[0], h).log_sums(reference))
        return found

    def _bandwidth(self, known: np.ndarray) -> float:
        def volume_per_atom() -> float:
            return float(np.mean([frame.volume / len(frame) for frame in self.frames]))

        return given_bandwidth(self.bandwidth, volume_per_atom) or spread_bandwidth(known[:SAMPLE])


def describer(
    descriptor: Mapping[str, Any], species: Sequence[int], model: Path | None = None, branch: str | None = None
) -> Describe:
    """Descriptors by the keys of [select.descriptor]; raises InputError where they are a model's and it is missing."""
    section = DescriptorSection(**descriptor)
    if section.type == "model":
        if model is None or not Path(model).is_file():
            raise InputError(f"{model}: the novelty was measured with the model's own descriptors, and it is not there")
        from ..engines.deepmd_inference import Predictor

        return Predictor(model, branch).descriptors
    return make_quests(section, species)


def thinned(frames: Iterable[Frame], n_atoms: int) -> list[Frame]:
    """All frames, or evenly as many of them as keep their ``n_atoms`` atoms below :data:`MAX_ATOMS`."""
    step = -(-n_atoms // MAX_ATOMS) or 1
    return [frame for index, frame in enumerate(frames) if index % step == 0]


def save_coverage(path: Path, coverage: Coverage) -> None:
    """Publish as a numpy archive; positions in single precision (1e-6 Å). Raises StoreError."""
    frames = coverage.frames
    facts = {
        "format": FORMAT,
        "descriptor": dict(coverage.descriptor),
        "species": coverage.species,
        "bandwidth": coverage.bandwidth,
        "threshold": THRESHOLD,
        "left_out": coverage.left_out,
    }
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        facts=np.array(json.dumps(facts)),
        sizes=np.array([len(frame) for frame in frames]),
        numbers=np.concatenate([frame.numbers for frame in frames]).astype(np.int16),
        positions=np.concatenate([frame.positions for frame in frames]).astype(np.float32),
        cells=np.array([frame.cell for frame in frames]),
        pbc=np.array([frame.pbc for frame in frames]),
    )
    publish(path, buffer.getvalue())


def load_coverage(path: Path) -> Coverage:
    """What :func:`save_coverage` wrote; raises InputError for anything else."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        facts = json.loads(arrays["facts"].item())
        if facts["format"] != FORMAT:
            raise ValueError(f"its format is {facts['format']!r}, not {FORMAT!r}")
        ends = np.cumsum(arrays["sizes"])[:-1]
        parts = zip(
            np.split(arrays["numbers"], ends), arrays["cells"], np.split(arrays["positions"], ends), arrays["pbc"],
            strict=True,
        )  # fmt: skip
        frames = tuple(Frame(*part) for part in parts)
    except (OSError, ValueError, KeyError, TypeError, BadZipFile) as error:
        raise InputError(f"{path}: not a novelty reference of pfdhpc: {error}") from None
    keys = ("descriptor", "bandwidth", "left_out")
    return Coverage(species=tuple(facts["species"]), frames=frames, **{key: facts[key] for key in keys})


def judged(
    coverage: Coverage, frames: Sequence[Frame], model: Path | None, branch: str | None = None
) -> list[np.ndarray]:
    """:meth:`Coverage.novelty`, with what a model's descriptors cannot do told as InputError."""
    try:
        return coverage.novelty(frames, model, branch)
    except InputError:
        raise
    except (TaskError, ValueError) as error:
        raise InputError(f"the novelty cannot be measured: {error}") from error
