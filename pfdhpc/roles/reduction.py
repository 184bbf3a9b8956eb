"""Entropy selection as a reduction over explorer teams, point to point, with a deadline.

Candidates stay where they are. In each step every team proposes the best of its own; the root takes
the best of those and tells everyone, and the environments of the pick join everybody's reference.
The picks are those one process would make with all candidates.
"""

import time
from collections import Counter
from collections.abc import Iterator

import numpy as np

from ..config.select import SelectSection
from ..data import Record
from ..errors import TaskError
from ..parallel.channel import Channel
from ..select.filters import Filter
from ..select.greedy import Pool, better
from ..select.quests import descriptors
from . import messages as m


class Reduction:
    """One team's part in the selections of a run."""

    def __init__(self, section: SelectSection, team: str, peers: Channel):
        self._section, self._team, self._peers = section, team, peers
        self._reference: dict[str, np.ndarray] = {}  # descriptors by label or frame id, computed once

    def run(self, order: m.Select, candidates: list[Record], reasons: Filter):
        """Returns this team's picks and, on the root, the report over all teams."""
        self._learn(order)
        kept, dropped = _filtered(candidates, reasons)
        pool = Pool(self._section.bandwidth)
        for key in order.reference_ids:
            pool.add_reference(self._reference[key])
        known = {key.split(":")[0] for key in order.reference_ids}
        by_id = {record.frame_id: record for record in kept if record.frame_id not in known}
        for frame_id, record in by_id.items():
            pool.add(frame_id, self._describe(record))
        side = self._lead if next(iter(order.participants)) == self._team else self._follow
        return side(order, pool, by_id, dropped)

    def _learn(self, order: m.Select) -> None:
        for record in order.reference:
            key = record.label_id if record.labelling else record.frame_id
            self._reference[key] = self._describe(record)

    def _describe(self, record: Record) -> np.ndarray:
        return descriptors(record.frame, self._section.neighbours, self._section.cutoff)

    def _lead(self, order: m.Select, pool: Pool, by_id: dict[str, Record], dropped: Counter):
        others = {team: rank for team, rank in order.participants.items() if team != self._team}
        picked, gains, absent, owners = [], [], set(), set()
        n_candidates = len(by_id)
        saturated = False
        for step in range(order.max_sel + 1):
            offers = self._gather(order, step, [team for team in others if team not in absent])
            absent |= {team for team in others if team not in offers}
            if step == 0:
                n_candidates += sum(offer["candidates"] for offer in offers.values())
                for offer in offers.values():
                    dropped.update(offer["dropped"])
            best, owner = pool.best(), self._team
            for team, offer in offers.items():
                winner = better(best, offer["proposal"])
                best, owner = winner, owner if winner is best else team
            if best is None or step == order.max_sel:
                break
            if best.score <= self._section.min_gain:
                saturated = True
                break
            environments = best.descriptors
            self._tell(order, others, ("pick", best.frame_id, environments, float(best.score)))
            gains.append(float(best.score))
            owners.add(owner)
            picked += self._accept(pool, by_id, best.frame_id, environments, gains[-1])
        self._tell(order, others, ("stop",))
        report = m.SelectReport(n_candidates, dict(dropped), tuple(gains), saturated, tuple(sorted(absent - owners)))
        return tuple(picked), report

    def _follow(self, order: m.Select, pool: Pool, by_id: dict[str, Record], dropped: Counter):
        root = next(iter(order.participants.values()))
        picked: list[Record] = []
        for step in range(order.max_sel + 1):
            offer = {"team": self._team, "step": step, "proposal": pool.best()}
            if step == 0:
                offer |= {"candidates": len(by_id), "dropped": dict(dropped)}
            self._peers.send(root, m.PeerMessage(self._name(order), "offer", offer))
            verdict = self._next(order, "verdict", 2 * self._section.patience)
            if verdict is None:
                raise TaskError(f"no word from the root of the selection within {2 * self._section.patience} s")
            if verdict[0] == "stop":
                break
            _, frame_id, environments, gain = verdict
            picked += self._accept(pool, by_id, frame_id, environments, gain)
        return tuple(picked), None

    def _accept(self, pool: Pool, by_id: dict[str, Record], frame_id: str, environments, gain) -> Iterator[Record]:
        record = by_id.get(frame_id)
        if record is not None:
            pool.remove(frame_id)
            yield record.with_origin(novelty=gain)
        pool.add_reference(environments)

    def _gather(self, order: m.Select, step: int, teams: list[str]) -> dict[str, dict]:
        """The others' offers of this step; a team that is not heard of in time is left out."""
        deadline = time.monotonic() + self._section.patience
        offers: dict[str, dict] = {}
        while len(offers) < len(teams):
            offer = self._next(order, "offer", deadline - time.monotonic())
            if offer is None:
                break
            if offer["team"] in teams and offer["step"] == step:
                offers[offer["team"]] = offer
        return offers

    def _tell(self, order: m.Select, others: dict[str, int], verdict: tuple) -> None:
        for rank in others.values():
            self._peers.send(rank, m.PeerMessage(self._name(order), "verdict", verdict))

    def _next(self, order: m.Select, kind: str, timeout: float):
        """The next message of this selection; those of an older one are dropped."""
        deadline = time.monotonic() + timeout
        while (left := deadline - time.monotonic()) > 0:
            found = self._peers.receive(left)
            if found is not None and found[1].order_id == self._name(order) and found[1].kind == kind:
                return found[1].content
        return None

    @staticmethod
    def _name(order: m.Select) -> str:
        """The same for all participants: order ids end in the team's name."""
        return order.order_id.rsplit("/", 1)[0]


def _filtered(candidates: list[Record], reasons: Filter) -> tuple[list[Record], Counter]:
    kept, dropped = [], Counter()
    for record in candidates:
        reason = reasons.reason(record)
        if reason is None:
            kept.append(record)
        else:
            dropped[reason.split(":")[0]] += 1
    return kept, dropped


