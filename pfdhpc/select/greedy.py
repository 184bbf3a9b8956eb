"""Redundancy-aware greedy selection: one frame at a time, the one that adds most to what is known.

The candidates may be spread over any number of pools (one per rank). Each pick is a reduction of
the pools' proposals with :func:`better`; then every pool adds the picked environments to its
reference. A frame's score depends on that frame and the reference alone, so that the picks are
the same for any distribution.
"""

from dataclasses import dataclass

import numpy as np

from .entropy import entropy, log_kernel_sums


@dataclass(frozen=True, eq=False)
class Proposal:
    """The best frame of a pool: what it adds in nats, and its environments (n, 2k - 1) in 1/Å.

    ``spread`` is the frame's own entropy, which decides where all scores are infinite.
    """

    score: float
    frame_id: str
    descriptors: np.ndarray
    spread: float = 0.0

    @property
    def rank(self) -> tuple[float, float, str]:
        """Sorts proposals, best first: scores equal to 9 digits count as equal, then the smaller id wins."""
        return -_rounded(self.score), -_rounded(self.spread), self.frame_id


@dataclass(eq=False)
class _Candidate:
    descriptors: np.ndarray
    log_sums: np.ndarray  # ln p of each environment against the reference
    spread: float

    def score(self) -> float:
        """Mean of the average and the largest δH over the atoms, nats.

        A cell twice as large with the same environments has the same score; one new environment
        in a large known cell still counts.
        """
        gains = -self.log_sums
        return float((gains.mean() + gains.max()) / 2)


class Pool:
    """Candidate frames of one rank and the reference all ranks share. ``h`` is the bandwidth, 1/Å.

    While the reference is empty every frame is infinitely new (score inf); then the frame with the
    largest entropy of its own is the best one.
    """

    def __init__(self, h: float):
        self._h = h
        self._reference: list[np.ndarray] = []
        self._candidates: dict[str, _Candidate] = {}

    def __len__(self) -> int:
        return len(self._candidates)

    def add(self, frame_id: str, descriptors: np.ndarray) -> None:
        """Make a frame a candidate; one that is there already is left as it is."""
        if frame_id in self._candidates:
            return
        log_sums = np.full(len(descriptors), -np.inf)
        for known in self._reference:
            log_sums = np.logaddexp(log_sums, log_kernel_sums(descriptors, known, self._h))
        self._candidates[frame_id] = _Candidate(descriptors, log_sums, entropy(descriptors, self._h))

    def add_reference(self, descriptors: np.ndarray) -> None:
        """Environments (m, 2k - 1) known from now on; every pool gets the same, in the same order."""
        self._reference.append(descriptors)
        for candidate in self._candidates.values():
            new = log_kernel_sums(candidate.descriptors, descriptors, self._h)
            candidate.log_sums = np.logaddexp(candidate.log_sums, new)

    def best(self) -> Proposal | None:
        """The candidate that adds most; None when there is none."""
        proposals = (
            Proposal(item.score(), frame_id, item.descriptors, item.spread)
            for frame_id, item in self._candidates.items()
        )
        return min(proposals, key=lambda proposal: proposal.rank, default=None)

    def remove(self, frame_id: str) -> None:
        """Take a frame out, if this pool has it."""
        self._candidates.pop(frame_id, None)


def better(one: Proposal | None, other: Proposal | None) -> Proposal | None:
    """The better of two proposals, None being none: associative, so a reduction may take any order."""
    if one is None or other is None:
        return other if one is None else one
    return min(one, other, key=lambda proposal: proposal.rank)


def greedy(pool: Pool, max_sel: int, min_gain: float) -> tuple[list[Proposal], bool]:
    """Pick up to ``max_sel`` frames of one pool, which loses them and gains their environments.

    Returns the picks, and True when they ended because no frame left adds more than ``min_gain``
    nats: the pool is saturated.
    """
    picked: list[Proposal] = []
    while len(picked) < max_sel:
        best = pool.best()
        if best is None:
            break
        if best.score <= min_gain:
            return picked, True
        pool.remove(best.frame_id)
        pool.add_reference(best.descriptors)
        picked.append(best)
    return picked, False


def _rounded(value: float) -> float:
    return float(f"{value:.8e}")
