"""Entropy selection as a reduction over explorer teams, point to point, with a deadline.

Candidates stay where they are and the reference is shared out. First its blocks go round, and every team
compares its candidates with them (:mod:`pfdhpc.selection.candidate_scores`). Then, pick by pick, the root takes the
best of what the teams offer and tells everyone. What a team has offered bounds what it can offer later, so
that the root waits only for those that could still have the best. The picks are those one process would make
with all candidates.
"""

import time
from collections import ChainMap, Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

import numpy as np

from .. import messages as m
from ..config.select import SelectSection
from ..data import Record
from .candidate_scores import Comparison, Progress, entropy_of
from .greedy import Chooser, Proposal, Rule
from .peer_messages import DONE, STOP, Absent, Mailbox, Over, PeerMessages
from .reference_blocks import Blocks, Shard

SURVEYED = 400
"""Candidates of a round that are described in the report of the run."""


@dataclass(frozen=True)
class Offer:
    """What a team has to offer at a step, best first."""

    step: int
    proposals: tuple[Proposal, ...]


@dataclass(frozen=True)
class Account:
    """What a team tells of its candidates before the picking begins."""

    candidates: int
    dropped: Mapping[str, int]
    novelty: Mapping[str, float] = field(default_factory=dict)  # score by frame id, where there is a census
    total: np.ndarray = field(default_factory=lambda: np.zeros(2))  # of its census
    sample: Sequence[tuple[str, float, np.ndarray]] = ()  # of its candidates: see Pool.sample


class Reduction:
    """One team's part in the selections of a job; ``shard`` is its part of the reference.

    ``progress`` is told what of the team's work is done: the phase, how many, of how many.
    """

    def __init__(
        self, section: SelectSection, team: str, mailbox: Mailbox, shard: Shard, progress: Progress = lambda *_: None
    ):
        self._section, self._team, self._mailbox, self._shard = section, team, mailbox, shard
        self._progress = progress

    def run(self, order: m.Select, candidates: list[Record]) -> tuple[tuple[Record, ...], m.SelectReport | None]:
        """This team's picks and, on the root, the report over all teams.

        Raises Absent when a team the selection cannot do without is not heard of, Over when it has
        ended without this one.
        """
        others = {team: rank for team, rank in order.participants.items() if team != self._team}
        talk = PeerMessages(self._mailbox, selection_of(order), self._team, others)
        self._shard.learn(record.frame for record in order.reference)
        try:
            return self._side(order, talk, candidates)
        except Over:
            raise
        except Exception:
            talk.tell_all(STOP)  # without this team there is no selection
            raise
        finally:
            talk.end()

    def _side(self, order: m.Select, talk: PeerMessages, candidates: list[Record]):
        rule, teams = rule_of(self._section, order), list(order.participants)
        blocks = Blocks(self._shard, talk, self._team, teams, order.reference_ids, self._section.blocks)
        comparison = Comparison(self._section, rule, order, self._shard, blocks, talk, self._progress)
        comparison.run(candidates)
        side = (_Root if self._team == teams[0] else _Follower)(rule, talk, comparison, blocks, self._section.patience)
        return side.run(teams[0])


def selection_of(order: m.Select) -> str:
    """The same for all participants: order ids end in the team's name."""
    return order.order_id.rsplit("/", 1)[0]


def rule_of(section: SelectSection, order: m.Select) -> Rule:
    pfd = section.method == "pfd"
    return Rule(
        max_sel=order.max_sel,
        min_gain=section.min_gain if section.method == "greedy" else None,
        score="random" if section.method == "random" else section.score,
        chunk=section.chunk if pfd else 1,
        quotas=section.quotas,
        overshoot=order.overshoot,
        first_by_chance=pfd,
        seed=order.seed,
    )


class _Side:
    """What both sides do."""

    def __init__(self, rule: Rule, talk: PeerMessages, comparison: Comparison, blocks: Blocks, patience: float):
        self._rule, self._talk, self._comparison, self._blocks = rule, talk, comparison, blocks
        self._patience = patience
        self._picked: list[Record] = []

    def _account(self) -> Account:
        found = self._comparison
        scored = found.bandwidth == found.bandwidth  # NaN where nothing was compared
        sample = found.pool.sample(self._share()) if scored else ()
        if found.census is None:
            return Account(len(found.mine), found.dropped, sample=sample)
        return Account(len(found.mine), found.dropped, found.pool.novelty(), found.census.total(), sample)

    def _share(self) -> int:
        """Candidates of this team that may be surveyed: a few more than its share, as teams differ in size."""
        n_teams = 1 + len(self._talk.others)
        return SURVEYED if n_teams == 1 else -(-2 * SURVEYED // n_teams)

    def _accept(self, picks: Sequence[Proposal]) -> None:
        gains = {pick.frame_id: self._gain(pick) for pick in picks}
        for candidate in self._comparison.accept(picks):
            record = self._comparison.mine[candidate.frame_id]
            self._picked.append(record.with_origin(novelty=gains[candidate.frame_id]))
        for pick in picks:
            self._blocks.keep(pick.frame_id, pick.descriptors)

    def _gain(self, pick: Proposal) -> float:
        """Nats; NaN for a frame that was drawn by lot."""
        return np.nan if self._rule.score == "random" else pick.score


class _Follower(_Side):
    """A team that offers, and is told."""

    def run(self, root: str) -> tuple[tuple[Record, ...], None]:
        self._talk.tell(root, "account", self._account())
        step = 0
        while not self._talk.done:
            offers = tuple(self._comparison.pool.offers(self._rule.chunk))
            self._talk.tell(root, "offer", Offer(step, offers))
            step += self._learn(root)
        if self._comparison.census is not None:
            self._talk.tell(root, "total", self._comparison.census.total())
        return tuple(self._picked), None

    def _learn(self, root: str) -> int:
        """Take up all picks that were told; returns the number of steps."""
        found = self._talk.wait("picks", 2 * self._patience)
        if found is None and not self._talk.done:
            raise Absent(root, "word on the selection", 2 * self._patience)
        steps = 0
        while found is not None:
            self._accept(found[1])
            steps += 1
            found = self._talk.wait("picks", 0.0)
        return steps


class _Root(_Side):
    """The team that decides. Teams that do not answer in time are left out."""

    def run(self, root: str) -> tuple[tuple[Record, ...], m.SelectReport]:
        self._absent: set[str] = set()
        self._offers: dict[str, Offer] = {}
        accounts = self._accounts()
        chooser = Chooser(self._rule)
        step = 0
        owners: set[str] = set()
        while count := chooser.wanted():
            own = self._comparison.pool.offers(count)
            self._gather(step, count, own)
            current = {team: offer.proposals for team, offer in self._offers.items() if offer.step == step}
            picks = chooser.choose(chain(own, *current.values()))
            if not picks:
                break
            self._talk.tell_all("picks", picks)
            self._accept(picks)
            self._comparison.progress("picking", len(chooser.picks), self._rule.max_sel)
            ids = {pick.frame_id for pick in picks}
            owners |= {team for team, some in current.items() if ids & {item.frame_id for item in some}}
            step += 1
        absent = self._absent - owners
        self._talk.tell_all(DONE, absent)
        return tuple(self._picked), self._report(chooser, accounts, absent)

    def _accounts(self) -> list[Account]:
        """What all teams that take part tell of their candidates; the others are absent."""
        accounts = {"": self._account()}
        deadline = time.monotonic() + self._patience
        while len(accounts) <= len(self._talk.others):
            found = self._talk.wait("account", deadline - time.monotonic())
            if found is None:
                break
            accounts[found[0]] = found[1]
        self._absent |= self._talk.others.keys() - accounts.keys()
        return list(accounts.values())

    def _gather(self, step: int, wanted: int, own: Sequence[Proposal]) -> None:
        """Wait for the offers that could matter at this step."""
        deadline = time.monotonic() + self._patience
        while missing := self._missing(step, wanted, own):
            found = self._talk.wait("offer", deadline - time.monotonic())
            if found is None:
                self._absent |= set(missing)
            elif found[0] not in self._absent:
                self._offers[found[0]] = found[1]

    def _missing(self, step: int, wanted: int, own: Sequence[Proposal]) -> list[str]:
        """Teams that could still have a better offer than the best ``wanted`` that are here."""
        current = [offer.proposals for offer in self._offers.values() if offer.step == step]
        best = sorted(proposal.rank for proposal in chain(own, *current))[:wanted]
        bound = best[-1] if len(best) == wanted else None
        return [team for team in self._talk.others if team not in self._absent and self._awaited(team, step, bound)]

    def _awaited(self, team: str, step: int, bound: tuple | None) -> bool:
        offer = self._offers.get(team)
        if offer is None:
            return True
        if offer.step == step or not offer.proposals:
            return False
        drawn = self._rule.first_by_chance and step == 1  # a lot is no bound of a novelty
        return drawn or bound is None or offer.proposals[0].rank < bound

    def _report(self, chooser: Chooser, accounts: list[Account], absent: set[str]) -> m.SelectReport:
        dropped: Counter[str] = Counter()
        for account in accounts:
            dropped.update(account.dropped)
        return m.SelectReport(
            n_candidates=sum(account.candidates for account in accounts),
            filtered=dict(dropped),
            gains=tuple(self._gain(pick) for pick in chooser.picks),
            picked=tuple(pick.frame_id for pick in chooser.picks),
            saturated=chooser.saturated,
            absent=tuple(sorted(absent)),
            bandwidth=self._comparison.bandwidth,
            warning=self._comparison.warning(),
            census=None if self._comparison.census is None else self._census(chooser, accounts),
            survey=_survey([item for account in accounts for item in account.sample]),
        )

    def _census(self, chooser: Chooser, accounts: list[Account]) -> m.Census:
        totals = [self._comparison.census.total()]
        while len(totals) < len(accounts):
            found = self._talk.wait("total", self._patience)
            if found is None:
                raise Absent("a team", "account of its entropy", self._patience)
            totals.append(found[1])
        return m.Census(
            before=entropy_of([account.total for account in accounts]),
            after=entropy_of(totals),
            novelty=dict(ChainMap(*(dict(account.novelty) for account in accounts))),
        )


def _survey(sample: Sequence[tuple[str, float, np.ndarray]]) -> m.Survey | None:
    """The samples of all teams as one; None where there are none."""
    some = sorted(sample, key=lambda item: item[0])[:SURVEYED]
    if not some:
        return None
    ids, novelty, points = zip(*some, strict=True)
    return m.Survey(ids, np.array(novelty), np.array(points, np.float32))
