"""A run on other ranks than it ran on, played through with the task times it measured.

The policy and the rules are the real ones (:func:`pfdhpc.workflow.plan.plan`, :func:`pfdhpc.workflow.apply.apply`);
only the work is not done: an order takes a time drawn from those measured for its kind, and its answer is made up. The
coordinator is one server that spends some time on each message (:func:`service`), so that it shows where one is not
enough. Models do not get better in a simulation: it lasts a given number of rounds.
"""

import heapq
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import singledispatch
from itertools import count

import numpy as np

from .. import messages as m
from ..config import Config
from ..config.ranks import RanksSection
from ..data import Frame, Label, Labelling, Origin, Record
from ..parallel.layout import FLEXIBLE, IDLE, Layout, plan_layout
from .apply import apply
from .flexible_teams import balanced
from .plan import plan
from .state import DONE, IMPORT, Replica, RunState
from .time_forecast import KEPT, LATE, steps_of_round

SERVICE, PER_TEAM = 1.2e-3, 3.5e-7
"""Seconds the coordinator spends on an order or an answer, its label's way to the disk included, and more of them for
each team, as it looks through its lists (``tests/bench/bench_messages.py``, with ``--rules``)."""
FEW = 8
"""Numbers of explorers that are tried one by one, and so many beyond them."""
STUCK = 1_000_000
"""Answers after which a simulation is given up."""

Durations = Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Outcome:
    """What a simulated run came to; ``busy`` is the share of its time a role worked, the mean over its teams."""

    seconds: float
    rounds: int
    labels: int
    busy: dict[str, float]
    messages: int
    service: float  # seconds of the coordinator for each

    @property
    def coordinator(self) -> float:
        """Share of its time the coordinator was busy with messages."""
        return min(1.0, self.messages * self.service / self.seconds) if self.seconds else 0.0


def service(layout: Layout) -> float:
    """Seconds the coordinator spends on a message."""
    return SERVICE + PER_TEAM * len(layout.teams)


def simulate(config: Config, start: RunState, layout: Layout, seed: int = 0, picks: Sequence[int] = ()) -> Outcome:
    """Play a run through; ``start`` is a fresh state that carries the ``durations`` of a measured one.

    ``picks`` are the frames a measured one picked in its rounds, from 0 on; without them as many as may be.
    Raises ValueError when the run cannot be played to its end.
    """
    world = _World(config, start.durations, picks, random.Random(seed))
    state, free = replace(start, phase=IMPORT), 0.0
    arriving: list[tuple[float, int, m.Answer]] = []
    busy = {team.name: 0.0 for team in layout.teams}
    messages, each = 0, service(layout)
    while state.phase != DONE and messages < STUCK:
        state = balanced(config, state, layout)
        for team, order in plan(config, state, layout):
            free, messages = free + each, messages + 1
            answer = world.answer(order, state)
            busy[team.name] += answer.seconds
            after = answer.seconds + world.draw(state, LATE + order.kind)
            heapq.heappush(arriving, (free + after, messages, answer))
            state = state.sent(order, team.name)
        if not arriving or state.job.failure:
            reason = state.job.failure or state.job.broken
            raise ValueError(f"the run stands still in round {state.round}, {state.phase} {reason}")
        while True:
            at, _, answer = heapq.heappop(arriving)
            free, messages = max(free, at) + each, messages + 1
            state = apply(config, replace(state, elapsed=free), answer, lambda ids: ())
            if not arriving or arriving[0][0] > free:
                break  # all that had come by then is taken in
    shares = {role: _mean([busy[team.name] / free for team in layout.of_role(role)]) for role in _roles(layout)}
    return Outcome(free, state.round, state.n_paid, shares, messages, each)


def _roles(layout: Layout) -> list[str]:
    return list(dict.fromkeys(team.role for team in layout.teams if team.role != IDLE))


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0


class _World:
    """Makes up answers that take the time they would."""

    def __init__(self, config: Config, durations: Durations, picks: Sequence[int], rng: random.Random):
        self.config, self._durations, self._picks, self._rng = config, durations, picks, rng
        self._frames = count(1)
        self._decks: dict[str, list[float]] = {}

    def draw(self, state: RunState, kind: str) -> float:
        """Seconds of one of a kind: those measured one after the other as they came (the first training of a job, say,
        takes longest), then all of them again, shuffled; 0 where none was."""
        key = f"distill.{kind}" if state.teacher else kind
        if not self._decks.get(key):
            deck = list(self._durations.get(key, ()))
            if key in self._decks or len(deck) == KEPT:  # of more than are kept the first are not known any more
                self._rng.shuffle(deck)
            self._decks[key] = deck[::-1]
        return self._decks[key].pop() if self._decks[key] else 0.0

    def label(self, state: RunState, n_atoms: int) -> float:
        """Seconds of a label: of those of the nearest number of atoms, in proportion."""
        prefix = "distill.label." if state.teacher else "label."
        sizes = [int(key.removeprefix(prefix)) for key in self._durations if key.startswith(prefix)]
        if not sizes:
            return 0.0
        nearest = min(sizes, key=lambda size: abs(size - n_atoms))
        return self.draw(state, f"label.{nearest}") * n_atoms / nearest

    def answer(self, order: m.Order, state: RunState) -> m.Answer:
        return _answer(order, self, state)

    def picks(self, order: m.Select, state: RunState) -> tuple[Record, ...]:
        """As many frames as the round's selection picked, or may pick, of the replicas in turn; those that wait come
        again."""
        made = len(order.replicas) * (self.config.explore.steps // self.config.explore.interval)
        if order.round < len(self._picks):
            made = self._picks[order.round]
        fresh = min(order.max_sel - len(order.again), made)
        replicas = [replica for replica in state.replicas if replica.replica in order.replicas]
        new = [self._record(replicas[place % len(replicas)], order.round) for place in range(max(fresh, 0))]
        return (*order.again, *new)

    def _record(self, replica: Replica, number: int) -> Record:
        return Record(self.another(replica.start), Origin(replica.system, replica.replica, round=number))

    def another(self, frame: Frame) -> Frame:
        """One that nobody has seen."""
        return Frame(frame.numbers, frame.cell, frame.positions + 1e-7 * next(self._frames))


@singledispatch
def _answer(order, world: _World, state: RunState) -> m.Answer:
    raise TypeError(f"a simulation has no answer to {type(order).__name__}")


@_answer.register
def _answer_import_parent(order: m.ImportParent, world, state):
    return m.Imported(order.order_id, world.draw(state, "import"), m.ModelRef(0, "0"))


@_answer.register
def _answer_explore(order: m.Explore, world, state):
    explore = world.config.explore
    seconds = explore.steps * world.draw(state, f"explore.{order.task.system}")
    n_candidates = explore.steps // explore.interval
    return m.Explored(order.order_id, seconds, order.task.replica, b"", explore.steps, n_candidates, "")


@_answer.register
def _answer_select(order: m.Select, world, state):
    seconds, first = world.draw(state, "select"), next(iter(order.participants))
    if not order.order_id.endswith(f"/{first}"):
        return m.Selected(order.order_id, seconds, (), None)
    picked = world.picks(order, state)
    ids = tuple(record.frame_id for record in picked)
    return m.Selected(order.order_id, seconds, picked, m.SelectReport(len(ids), {}, (0.0,) * len(ids), False, ids))


@_answer.register
def _answer_label_frames(order: m.LabelFrames, world, state):
    seconds = sum(world.label(state, len(record.frame)) for record in order.records)
    made = Labelling("simulated", "simulated")
    outcomes = [m.LabelOutcome(replace(item, label=_zeros(len(item.frame)), labelling=made)) for item in order.records]
    return m.Labelled(order.order_id, seconds, tuple(outcomes))


@_answer.register
def _answer_simulate(order: m.Simulate, world, state):
    now, interval = order.trajectory, world.config.init.aimd.interval
    frame, made = world.another(now.point.frame), Labelling("simulated", "simulated")
    record = Record(frame, Origin(now.system, now.name, round=0), label=_zeros(len(frame)), labelling=made)
    seconds = interval * world.label(state, len(frame))
    step, point = now.step + interval, now.point
    return m.Simulated(order.order_id, seconds, (m.LabelOutcome(record),), now.name, point, step, interval)


@_answer.register
def _answer_train(order: m.Train, world, state):
    steps = steps_of_round(world.config, order.round)
    step = steps * world.draw(state, "train.step")
    model = m.ModelRef(order.version, str(order.version))
    return m.Trained(order.order_id, world.draw(state, "train.rest") + step, model, 0, step, member=order.member)


@_answer.register
def _answer_evaluate(order: m.Evaluate, world, state):
    return m.Evaluated(order.order_id, world.draw(state, "evaluate"), (), (), ())


@_answer.register
def _answer_probe(order: m.Probe, world, state):
    return m.Probed(order.order_id, 0.0, 0, 1.0, 1.0, 0.0, True, "")


def _zeros(n_atoms: int) -> Label:
    return Label(0.0, np.zeros((n_atoms, 3)), np.zeros((3, 3)))


def splits(config: Config, world_size: int) -> Iterator[tuple[int, RanksSection]]:
    """Shares of so many ranks: a number of explorers, all the rest labelers of the size asked for."""
    ranks = config.ranks
    flexible = len(plan_layout(ranks, world_size).of_role(FLEXIBLE))
    most = world_size - 1 - ranks.trainer.ranks - ranks.labeler.ranks - flexible
    few = range(1, min(most, FEW) + 1)
    for explorers in sorted({*few, *(round(most ** (step / FEW)) for step in range(FEW + 1))}):
        if 1 <= explorers <= most:
            explorer = ranks.explorer.model_copy(update={"teams": explorers})
            labeler = ranks.labeler.model_copy(update={"teams": "rest"})
            yield explorers, ranks.model_copy(update={"explorer": explorer, "labeler": labeler})
