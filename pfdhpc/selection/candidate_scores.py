"""The first half of a selection: a team's candidates against the whole reference, block by block."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import chain

import numpy as np

from .. import messages as m
from ..config.select import SelectSection
from ..data import Record
from .bandwidth import spread_bandwidth, unsuitable
from .entropy import Environments
from .environment_sets import EnvironmentSet, compare_all
from .filters import Filter
from .greedy import Candidate, Pool, Proposal, Rule
from .peer_messages import PeerMessages
from .reference_blocks import Blocks, Shard, grouped

SAMPLE = 512
"""Environments of the reference from which a bandwidth is found, or judged."""
FEW = 192
"""Environments of picks that are compared together in a census, at least; more together can seldom be left out."""
Progress = Callable[[str, int, int], None]


class Comparison:
    """What one team brings to the picking: a pool of its candidates that knows the whole reference."""

    def __init__(
        self,
        section: SelectSection,
        rule: Rule,
        order: m.Select,
        shard: Shard,
        blocks: Blocks,
        talk: PeerMessages,
        progress: Progress,
    ):
        self._section, self._rule, self._order = section, rule, order
        self._shard, self._blocks, self._talk, self.progress = shard, blocks, talk, progress
        self.census: Census | None = None
        self.bandwidth = float("nan")
        self._sampled = np.zeros((0, 1))

    def run(self, candidates: list[Record]) -> None:
        """Filter the candidates and score them; raises Absent, Over."""
        reasons = Filter(self._section.filter, self._order.volumes, self._order.band)
        reason_of = reasons.reason
        if self._order.distilling:  # a bad prediction of the student is a reason to take a frame
            reason_of = lambda record: reasons.reason(replace(record, prediction=None))  # noqa: E731
        self.mine, self.dropped = _filtered(candidates, reason_of, self._blocks.known)
        if self._rule.score == "random" and not self._order.census:
            self.pool = Pool(self._rule, 1.0)
            for record in self.mine.values():
                self.pool.add(record.frame_id, np.zeros((0, 1)), record.origin.system)
        else:
            self._score()

    def accept(self, picks: Sequence[Proposal]) -> list[Candidate]:
        """Count picks as known; returns those that were candidates here."""
        ours = self.pool.accept(picks)
        if self.census is not None and self._order.entropies:
            self.census.extend(ours, picks)
        return ours

    def warning(self) -> str:
        """What is to be said against the bandwidth, judged by a sample of the reference; empty if nothing is."""
        return (unsuitable(self._sampled, self.bandwidth) or "") if len(self._sampled) else ""

    def _score(self) -> None:
        stream = self._blocks.stream(self._section.patience)
        first = _sample(stream)
        self._sampled = np.concatenate(first)[:SAMPLE] if first else np.zeros((0, 1))
        self.bandwidth = self._order.bandwidth or spread_bandwidth(self._sampled)
        self.pool = Pool(self._rule, self.bandwidth, self._shard.device)
        done = 0
        for records in grouped(self.mine.values(), size=lambda record: len(record.frame)):
            self._talk.serve()
            self._add(records)
            done += len(records)
            self.progress("describing", done, len(self.mine))
        if self._order.census:
            own = self._blocks.own() if self._order.entropies else []
            self.census = Census(own, self.bandwidth, self._shard.device)
        for done, block in enumerate(chain(first, stream), 1):
            environments = Environments(block, self.bandwidth, self._shard.device)
            self.pool.observe(environments, self._talk.serve)
            if self.census is not None:
                self.census.observe(environments)
            self.progress("comparing", done, len(self._blocks))

    def _add(self, records: Sequence[Record]) -> None:
        made = self._shard.describe([record.frame for record in records])
        for record, descriptors in zip(records, made, strict=True):
            # PFD-kit leaves equal scores in the order of the trajectory
            place = record.origin.step if self._section.method == "pfd" else 0
            self.pool.add(record.frame_id, descriptors, record.origin.system, place)


class Census:
    """The environments one team answers for in the entropy of the reference and the picks together."""

    def __init__(self, own: Sequence[np.ndarray], h: float, device: str):
        self._h, self._device = h, device
        self._own = [EnvironmentSet.of(self._prepared(some)) for some in own]
        self._ours: list[Candidate] = []
        self._picks: list[np.ndarray] = []

    def observe(self, known: Environments) -> None:
        """A block of the reference."""
        compare_all(self._own, known, self._h)

    def extend(self, ours: Sequence[Candidate], picks: Sequence[Proposal]) -> None:
        """All picks of a step become known; those of our own are environments to answer for."""
        self._ours += ours
        self._picks += [pick.descriptors for pick in picks]

    def total(self) -> np.ndarray:
        """Number of environments, and the sum of ln p over them."""
        lots = [replace(lot) for lot in self._own]
        lots += [EnvironmentSet(ours.environments, ours.box, ours.by_reference) for ours in self._ours]
        for some in _stacked(self._picks):
            compare_all(lots, self._prepared(some), self._h)
        return np.array([sum(map(len, (lot.log_sums for lot in lots))), sum(lot.log_sums.sum() for lot in lots)])

    def _prepared(self, descriptors: np.ndarray) -> Environments:
        return Environments(descriptors, self._h, self._device)


def _stacked(arrays: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    """Neighbours one below the other: many small comparisons take longer than a few large ones."""
    return map(np.concatenate, grouped(arrays, FEW))


def entropy_of(totals: Sequence[np.ndarray]) -> float:
    """H in nats from the totals of all teams; NaN where there is nothing."""
    n, log_sums = np.sum(totals, axis=0)
    return float(np.log(n) - log_sums / n) if n else float("nan")


def _sample(stream: Iterator[np.ndarray]) -> list[np.ndarray]:
    """The first blocks, enough of them to judge by."""
    first: list[np.ndarray] = []
    while sum(map(len, first)) < SAMPLE and (block := next(stream, None)) is not None:
        first.append(block)
    return first


def _filtered(
    candidates: Sequence[Record], reason_of: Callable[[Record], str | None], known: set[str]
) -> tuple[dict[str, Record], Counter]:
    kept: dict[str, Record] = {}
    dropped: Counter[str] = Counter()
    for record in candidates:
        reason = reason_of(record)
        if reason is not None:
            dropped[reason.split(":")[0]] += 1
        elif record.frame_id not in known:
            kept[record.frame_id] = record
    return kept, dropped
