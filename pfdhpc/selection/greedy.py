"""Redundancy-aware selection: the frames that add most to what is known, whoever holds them.

The candidates may be spread over any number of pools (one per rank). In each step every pool offers its
best, a :class:`Chooser` takes the best of those, and every pool learns the picked environments. A score
depends on its frame and the reference alone, kernel sums are kept and only added to, in one order: the
picks are the same for any distribution. Novelty only falls as the reference grows, so that a pool brings
a candidate up to date when it may be the best one, and not before.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from heapq import heapify, heappop, heappush
from typing import Literal

import numpy as np

from .entropy import Environments
from .environment_sets import Box, EnvironmentSet, compare_all

TOLERANCE = 1e-9
"""Nats; less is rounding."""


@dataclass(frozen=True)
class Rule:
    """How to pick: see the keys of :class:`pfdhpc.config.select.SelectSection` with the same names.

    ``chunk`` frames are picked at a time, blind to each other; ``overshoot`` lets the last chunk be a whole
    one. ``min_gain`` None: nothing but ``max_sel`` ends the selection. ``first_by_chance``: without a
    reference the first chunk is drawn by lot, with ``seed``.
    """

    max_sel: int
    min_gain: float | None = 0.0
    score: Literal["neutral", "sum", "random"] = "neutral"
    chunk: int = 1
    quotas: Mapping[str, int] = field(default_factory=dict)
    overshoot: bool = False
    first_by_chance: bool = False
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Proposal:
    """A candidate as its pool offers it: what it adds in nats, and its environments (n, d) in 1/Å.

    ``spread`` is the frame's own entropy, which decides where all scores are infinite; ``order`` decides
    between equal scores before the id does.
    """

    score: float
    frame_id: str
    descriptors: np.ndarray
    system: str = ""
    spread: float = 0.0
    order: int = 0

    @property
    def rank(self) -> tuple[float, float, int, str]:
        """Sorts proposals, best first; scores equal to 9 digits count as equal."""
        return _rank(self)


@dataclass(eq=False)
class Candidate(EnvironmentSet):
    """A frame of a pool. ``log_sums`` is ln p of its environments against the reference and ``seen`` picks.

    ``by_reference`` is ln p against the reference alone.
    """

    frame_id: str
    system: str
    order: int
    by_reference: np.ndarray | None = None
    seen: int = 0
    spread: float = 0.0
    score: float = np.inf

    def proposal(self) -> Proposal:
        return Proposal(self.score, self.frame_id, self.environments.descriptors, self.system, self.spread, self.order)

    @property
    def rank(self) -> tuple[float, float, int, str]:
        return _rank(self)


class Pool:
    """Candidates of one rank, and what they have been compared with. ``h`` is the bandwidth, 1/Å.

    First :meth:`add` all candidates, then :meth:`observe` the blocks of the reference in order, then
    :meth:`offers` and :meth:`accept` in turn. While the reference is empty every frame is infinitely
    new; then the frame with the largest entropy of its own is the best one.
    """

    def __init__(self, rule: Rule, h: float, device: str = "cpu"):
        self._rule, self._h, self._device = rule, h, device
        self._candidates: dict[str, Candidate] = {}
        self._picks: list[Environments] = []
        self._around_picks: list[Box] = []
        self._taken: Counter[str] = Counter()
        self._heap: list[tuple] | None = None
        self._any_reference = False

    def __len__(self) -> int:
        return len(self._candidates)

    def add(self, frame_id: str, descriptors: np.ndarray, system: str = "", order: int = 0) -> None:
        """Make a frame a candidate; one that is there already is left as it is."""
        if frame_id not in self._candidates:
            environments = Environments(descriptors, self._h, self._device)
            self._candidates[frame_id] = Candidate.of(environments, frame_id, system, order)

    def observe(self, reference: Environments, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Compare all candidates with a block of the reference; calls ``meanwhile`` after each."""
        if len(reference) == 0:
            return
        self._any_reference = True
        compare_all(self._candidates.values(), reference, self._h, meanwhile)

    def offers(self, count: int) -> list[Proposal]:
        """The best ``count`` candidates, fewer where there are not so many; they stay in the pool."""
        if self._heap is None:
            self._start()
        best: list[Candidate] = []
        while self._heap and len(best) < count:
            candidate = self._candidates.get(heappop(self._heap)[-1])
            if candidate is None or self._closed(candidate):
                continue
            if candidate.seen == len(self._picks):
                best.append(candidate)
            else:
                self._update(candidate, self._heap[0] if self._heap else None)
                heappush(self._heap, candidate.rank)
        for candidate in best:
            heappush(self._heap, candidate.rank)
        return [candidate.proposal() for candidate in best]

    def accept(self, picks: Sequence[Proposal]) -> list[Candidate]:
        """Count picks as known; those that are in the pool leave it and are returned."""
        if self._by_lot():
            self._heap = None  # from now on it is novelty that counts
        ours = [self._candidates.pop(pick.frame_id) for pick in picks if pick.frame_id in self._candidates]
        for pick in picks:
            self._taken[pick.system] += 1
            self._picks.append(Environments(pick.descriptors, self._h, self._device))
            self._around_picks.append(Box.around(self._picks[-1]))
        return ours

    def novelty(self) -> dict[str, float]:
        """What each candidate adds to the reference in nats, by frame id; before the first pick."""
        score = SCORES.get(self._rule.score, neutral)
        return {frame_id: score(-candidate.log_sums) for frame_id, candidate in self._candidates.items()}

    def sample(self, count: int) -> list[tuple[str, float, np.ndarray]]:
        """Frame id, novelty (nats, before the first pick) and newest environment (width,) of ``count`` candidates.

        They are the first by id, which is as good as drawing them by lot.
        """
        score = SCORES.get(self._rule.score, neutral)
        some = [self._candidates[frame_id] for frame_id in sorted(self._candidates)[:count]]
        return [
            (one.frame_id, score(-one.log_sums), one.environments.descriptors[np.argmin(one.log_sums)]) for one in some
        ]

    def _start(self) -> None:
        for candidate in self._candidates.values():
            candidate.by_reference = candidate.log_sums
            if not self._any_reference and self._rule.score != "random":
                candidate.spread = _entropy(candidate.environments)
            self._rate(candidate)
        self._heap = [candidate.rank for candidate in self._candidates.values()]
        heapify(self._heap)

    def _update(self, candidate: Candidate, rival: tuple | None) -> None:
        """Add the picks it has not been compared with, in their order, until the rival in the heap is better."""
        unseen = Box.of_several(self._around_picks[candidate.seen :])
        bounds = candidate.box.log_bounds(unseen, self._h).tolist()
        for environments, log_bound in zip(self._picks[candidate.seen :], bounds, strict=True):
            candidate.seen += 1
            if candidate.compare(environments, log_bound):
                self._rate(candidate)
                if rival is not None and rival < candidate.rank:
                    break

    def _rate(self, candidate: Candidate) -> None:
        if self._by_lot():
            candidate.score = _lot(candidate.frame_id, self._rule.seed)
        else:
            candidate.score = SCORES[self._rule.score](-candidate.log_sums)

    def _by_lot(self) -> bool:
        first = self._rule.first_by_chance and not self._any_reference and not self._picks
        return first or self._rule.score == "random"

    def _closed(self, candidate: Candidate) -> bool:
        quota = self._rule.quotas.get(candidate.system)
        return quota is not None and self._taken[candidate.system] >= quota


class Chooser:
    """Decides which of the pools' offers are picked; ``picks`` and ``saturated`` are the outcome."""

    def __init__(self, rule: Rule):
        self._rule = rule
        self._taken: Counter[str] = Counter()
        self.picks: list[Proposal] = []
        self.saturated = False

    def wanted(self) -> int:
        """How many offers to ask every pool for; 0 when the selection is over."""
        left = self._rule.max_sel - len(self.picks)
        if self.saturated or left <= 0:
            return 0
        return self._rule.chunk if self._rule.overshoot else min(self._rule.chunk, left)

    def choose(self, offers: Iterable[Proposal]) -> list[Proposal]:
        """The picks of this step, best first; none when the offers hold nothing more to pick."""
        wanted = self.wanted()
        step: list[Proposal] = []
        for offer in sorted({offer.frame_id: offer for offer in offers}.values(), key=_rank):
            if len(step) == wanted:
                break
            if self._rule.min_gain is not None and offer.score <= self._rule.min_gain + TOLERANCE:
                self.saturated = True
                break
            if self._taken[offer.system] < self._rule.quotas.get(offer.system, np.inf):
                self._taken[offer.system] += 1
                step.append(offer)
        self.picks += step
        return step


def pick(pool: Pool, rule: Rule) -> Chooser:
    """The whole selection from one pool, which loses the picks; the outcome is in the :class:`Chooser`."""
    chooser = Chooser(rule)
    while count := chooser.wanted():
        step = chooser.choose(pool.offers(count))
        if not step:
            break
        pool.accept(step)
    return chooser


def neutral(gains: np.ndarray) -> float:
    """Mean of the average and the largest δH over the atoms, nats.

    A cell twice as large with the same environments has the same score; one new environment in a
    large known cell still counts.
    """
    return float((gains.mean() + gains.max()) / 2)


SCORES: dict[str, Callable[[np.ndarray], float]] = {"neutral": neutral, "sum": lambda gains: float(gains.sum())}
"""From δH (n,) of a frame's atoms to the score of the frame; none rises when an element falls."""


def _rank(item: Proposal | Candidate) -> tuple[float, float, int, str]:
    return -_rounded(item.score), -_rounded(item.spread), item.order, item.frame_id


def _rounded(value: float) -> float:
    return float(f"{value:.8e}")


def _lot(frame_id: str, seed: int) -> float:
    """A number in [0, 1) by which frames are drawn at random."""
    digest = blake2b(f"{seed}/{frame_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def _entropy(environments: Environments) -> float:
    return float(np.log(len(environments)) - environments.log_sums(environments).mean())
