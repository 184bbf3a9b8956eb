"""What the selection compares with: the labelled frames' descriptors, shared out in blocks over the teams.

A block is made of the frames whose ids fall into it, in the order of their ids, whoever holds it: sums over
blocks are the same for any number of teams. A frame's descriptors are made once, by the team that owns its
block, and kept in the run directory.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..data import Frame
from ..errors import StoreError
from ..store.array_cache import ArrayCache
from .peer_messages import Absent, PeerMessages

Describe = Callable[[Sequence[Frame]], list[np.ndarray]]
"""From frames to their descriptors (n_atoms, width), those of a frame independent of the others."""


def make_model(path: Path, branch: str | None = None) -> Describe:
    """The descriptors of a deep-potential model; raises InputError."""
    from ..engines.deepmd_inference import Predictor

    return Predictor(path, branch).descriptors


def compute_device() -> str:
    """Where this rank computes: its GPU if it has one."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


log = logging.getLogger(__name__)

TOGETHER = 2048
"""Atoms of frames that are described together; messages are answered in between."""
AHEAD = 2
"""Blocks asked for before they are needed."""


def block_of(frame_id: str, blocks: int) -> int:
    """The block of a frame."""
    return int(frame_id[:8], 16) % blocks


def owner_of(block: int, teams: Sequence[str]) -> str:
    """The team that holds a block."""
    return teams[block % len(teams)]


class Shard:
    """The descriptors one team holds, for the length of a job.

    ``device`` is where it computes; ``cache`` keeps descriptors for later jobs.
    """

    def __init__(self, device: str = "cpu", describe: Describe | None = None, cache: ArrayCache | None = None):
        self.device = device
        self._describe, self._cache = describe, cache
        self._frames: dict[str, Frame] = {}
        self._known: dict[str, np.ndarray] = {}

    def use(self, describe: Describe) -> None:
        """Other descriptors from now on; those made so far count no more."""
        self._describe = describe
        self._known.clear()

    def describe(self, frames: Sequence[Frame]) -> list[np.ndarray]:
        """Descriptors (n_atoms, width) of any frames; not kept."""
        return self._describe(frames)

    def learn(self, frames: Iterable[Frame]) -> None:
        """Frames this team may be asked for."""
        self._frames.update((frame.frame_id, frame) for frame in frames)

    def keep(self, descriptors: Mapping[str, np.ndarray]) -> None:
        """Descriptors by frame id, also for jobs to come."""
        self._known |= descriptors
        if self._cache is not None:
            try:
                self._cache.put(descriptors)
            except StoreError as error:  # they can be made again: no reason to end a job
                log.warning("descriptors are not kept for the next job: %s", error)
                self._cache = None

    def stack(self, frame_ids: Sequence[str]) -> np.ndarray:
        """Descriptors (n, d) of some frames, one below the other; those not made in any job are made now."""
        missing = self._missing(frame_ids)
        if missing and self._cache is not None:
            self._known |= self._cache.get(missing)
            missing = self._missing(missing)
        if missing:
            made = self._describe([self._frames[frame_id] for frame_id in missing])
            self.keep(dict(zip(missing, made, strict=True)))
        return np.concatenate([self._known[frame_id] for frame_id in frame_ids])

    def _missing(self, frame_ids: Sequence[str]) -> list[str]:
        return [frame_id for frame_id in frame_ids if frame_id not in self._known]


class Blocks:
    """The blocks of one selection's reference, in order: our own from the shard, the others from their owners."""

    def __init__(
        self, shard: Shard, talk: PeerMessages, team: str, teams: Sequence[str], keys: Iterable[str], blocks: int
    ):
        """``keys`` are label or frame ids; ``blocks`` is the number of blocks they fall into."""
        self._shard, self._talk, self._team, self._teams, self._blocks = shard, talk, team, teams, blocks
        self.known = {key.split(":")[0] for key in keys}
        self._members = _members(self.known, blocks)
        self._here: dict[int, np.ndarray] = {}
        talk.answer("want", lambda asker, number: talk.tell(asker, "block", (number, self._own(number))))

    def __len__(self) -> int:
        return len(self._members)

    def stream(self, patience: float) -> Iterator[np.ndarray]:
        """All blocks; raises Absent when an owner does not deliver within ``patience`` seconds."""
        numbers = sorted(self._members)
        for number in numbers[:AHEAD]:
            self._ask(number)
        for index, number in enumerate(numbers):
            for later in numbers[index + AHEAD : index + AHEAD + 1]:
                self._ask(later)
            yield self._own(number) if self._is_ours(number) else self._received(number, patience)

    def own(self) -> list[np.ndarray]:
        """The blocks this team holds."""
        return [self._own(number) for number in sorted(self._members) if self._is_ours(number)]

    def keep(self, frame_id: str, descriptors: np.ndarray) -> None:
        """A frame becomes part of the reference: its owner remembers what it is like."""
        if len(descriptors) and self._is_ours(block_of(frame_id, self._blocks)):
            self._shard.keep({frame_id: descriptors})

    def _is_ours(self, number: int) -> bool:
        return owner_of(number, self._teams) == self._team

    def _own(self, number: int) -> np.ndarray:
        return self._shard.stack(self._members[number])

    def _ask(self, number: int) -> None:
        if not self._is_ours(number):
            self._talk.tell(owner_of(number, self._teams), "want", number)

    def _received(self, number: int, patience: float) -> np.ndarray:
        """Owners answer when they can, so blocks may come in another order."""
        while number not in self._here:
            found = self._talk.wait("block", patience)
            if found is None:
                raise Absent(owner_of(number, self._teams), "reference descriptors", patience)
            self._here.update([found[1]])
        return self._here.pop(number)


def grouped(items: Iterable, least: int = TOGETHER, size: Callable[[Any], int] = len) -> Iterator[list]:
    """Neighbours in groups with at least so many atoms or environments, but for the last."""
    group, count = [], 0
    for item in items:
        group.append(item)
        count += size(item)
        if count >= least:
            yield group
            group, count = [], 0
    if group:
        yield group


def _members(frame_ids: Iterable[str], blocks: int) -> dict[int, list[str]]:
    """The frames of each block that has any, in the order of their ids."""
    members: dict[int, list[str]] = {}
    for frame_id in sorted(frame_ids):
        members.setdefault(block_of(frame_id, blocks), []).append(frame_id)
    return members
