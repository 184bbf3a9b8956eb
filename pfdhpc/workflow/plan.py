"""``plan(config, state, layout)``: the orders that should run now. Pure.

Two policies. Lock-step (staleness 0): explore -> select -> label -> test -> train, a barrier after each. Overlapped:
exploration, labels and training side by side (:mod:`pfdhpc.workflow.overlap`). Order ids, seeds and contents follow
from the state alone.
"""

import math
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from itertools import chain, islice

from .. import messages as m
from ..config import Config
from ..config.explore import ends
from ..config.select import SelectSection
from ..engines.base import SegmentTask
from ..parallel.layout import EXPLORER, LABELER, TRAINER, Layout, Team
from ..selection.bandwidth import given_bandwidth
from . import aimd, final_evaluation
from .flexible_teams import seated
from .label_split import assign
from .overlap import CYCLE, capacity, queued, training_due
from .pool_rules import done_with
from .state import DRAIN, EVALUATE, EXPLORE, IMPORT, INIT, LABEL, PROBE, SELECT, TRAIN, Replica, RunState
from .time_forecast import affordable, cost, explain, steps_of_round, training_number, within

TRUST_RANGE = 5.0
"""Width of the adaptive trust band: frames whose forces the committee disputes by more have failed."""


def plan(config: Config, state: RunState, layout: Layout, left: float | None = None) -> Sequence[tuple[Team, m.Order]]:
    """Orders for teams that are idle, none of which is running already; with ``left`` seconds, those that fit."""
    layout, short = seated(layout, state), affordable(state, left)
    orders = _overlapped(config, state, short, layout) if config.overlapped else _lockstep(config, short, layout)
    fresh = [(team, order) for team, order in orders if order.order_id not in state.job.running]
    if state.job.missing:
        fresh = [(team, order) for team, order in fresh if _still_of_use(state, order)]
    return within(config, state, layout, fresh, left)


def _still_of_use(state: RunState, order: m.Order) -> bool:
    """A run that has lost all teams of a role labels what was picked and trains on it, and begins nothing else."""
    if isinstance(order, m.LabelFrames | m.Simulate):
        return TRAINER not in state.job.missing
    return isinstance(order, m.ImportParent | m.Train | m.Evaluate)


def shortage(config: Config, state: RunState, layout: Layout, left: float | None) -> str:
    """Why nothing more is begun in a job with so many seconds left (None: no limit).

    Empty if something is, or if something is under way that is worth waiting for.
    """
    worth = any(
        state.phase != EXPLORE or not isinstance(item.order, m.Explore | m.Scan) for item in state.job.running.values()
    )
    if left is None or worth:
        return ""
    wanted = plan(config, state, layout)
    if not wanted or plan(config, state, layout, left):
        return ""
    order = wanted[0][1]
    return explain(order, cost(config, state, layout, order), left)


def seed_of(config: Config, *parts: object) -> int:
    """A seed (31 bits) that depends on the run's seed and on what it is for, not on when or where."""
    text = "/".join(str(part) for part in (config.seed, *parts))
    return int.from_bytes(blake2b(text.encode(), digest_size=4).digest(), "big") >> 1 or 1


def _idle(state: RunState, layout: Layout, role: str) -> Iterator[Team]:
    busy = state.busy | state.job.lost | state.job.late
    return (team for team in layout.of_role(role) if team.name not in busy)


def _one(state: RunState, layout: Layout, role: str, order: m.Order) -> Iterator[tuple[Team, m.Order]]:
    """One order for one team of a role, if it is not running anywhere."""
    if order.order_id not in state.job.running:
        yield from ((team, order) for team in [next(_idle(state, layout, role), None)] if team)


def _lockstep(config: Config, state: RunState, layout: Layout) -> Iterator[tuple[Team, m.Order]]:
    """What the phase asks for, and nothing else."""
    make = _ORDERS.get(state.phase)
    return make(config, state, layout) if make else iter(())


def _overlapped(config: Config, state: RunState, short: RunState, layout: Layout) -> Iterator[tuple[Team, m.Order]]:
    """What the phase asks of the explorers; labels and trainings whenever there is reason for them.

    ``short`` is the state without the frames whose label does not fit into the rest of the job.
    """
    if state.phase not in (*CYCLE, DRAIN):
        return _lockstep(config, short, layout)
    trained = _train(config, state, layout) if training_due(config, state) else iter(())
    return chain(_lockstep(config, state, layout), _label(config, short, layout), trained)


def _import(config: Config, state: RunState, layout: Layout):
    yield from _one(state, layout, TRAINER, m.ImportParent("import"))


def _explore(config: Config, state: RunState, layout: Layout):
    idle, distilling = _idle(state, layout, EXPLORER), state.teacher is not None
    judge = state.explorer if distilling else None
    for replica in state.replicas:
        order_id = f"explore/{state.round}/{replica.replica}"
        if replica.retired or replica.replica in state.explored or order_id in state.job.running:
            continue
        team = next(idle, None)
        if team is None:
            return
        if config.pool is not None:
            yield team, _scan(config, state, replica, order_id)
            continue
        task = _segment(config, replica)
        model = state.teacher or state.explorer
        yield team, m.Explore(order_id, state.round, model, state.type_map, task, distilling, judge)


def _scan(config: Config, state: RunState, replica: Replica, order_id: str) -> m.Scan:
    """Before the first training there is no committee, and nothing is known of any frame."""
    models, known = state.committee or (state.model,), bool(state.committee)
    low, high = trust_band(config.select, state)
    forces = (low if config.select.trust_lo else math.inf, high) if known else None
    done = done_with(state)
    return m.Scan(order_id, state.round, replica.replica, models, done, forces, config.pool.energy_band)


def _segment(config: Config, replica: Replica) -> SegmentTask:
    return SegmentTask(
        replica=replica.replica,
        system=replica.system,
        start=replica.start,
        state=replica.state,
        segment=replica.segment,
        temperature=replica.temperature,
        pressure=replica.pressure,
        seed=seed_of(config, "md", replica.replica, replica.segment),
    )


def _select(config: Config, state: RunState, layout: Layout):
    """The same order for every explorer team: the reduction runs among them."""
    if state.picked or state.runs(m.Select):
        return
    alive = [team for team in layout.of_role(EXPLORER) if team.name not in state.job.lost]
    teams = [team for team in alive if team.name not in state.job.late] or alive
    ranked = config.select.method != "random"  # a lot tells nothing of what waits
    again = queued(state) if ranked else ()
    kept = [record for record in state.pending if record not in again]
    room = config.select.max_sel
    if config.overlapped:
        room = min(room + len(again), capacity(config) - len(queued(state)) + len(again))
    if config.converge.max_labels is not None:
        room = min(room, config.converge.max_labels - state.n_paid - len(kept))
    reference = {*state.label_ids, *state.refused, *(record.frame_id for record in kept)}
    for team in teams:
        yield (
            team,
            m.Select(
                order_id=f"select/{state.round}.{state.job.attempt}/{team.name}",
                round=state.round,
                participants={item.name: item.leader for item in teams},
                replicas=state.explored,
                volumes={} if config.pool else _start_volumes(state),
                reference_ids=tuple(sorted(reference)),
                max_sel=max(0, room),
                band=(0.0, math.inf) if config.pool else trust_band(config.select, state),
                bandwidth=_bandwidth(config.select, state),
                species=state.species,
                model=state.driver,
                distilling=state.teacher is not None,
                seed=seed_of(config, "select", state.round),
                again=again if team is teams[0] else (),
                reference=tuple(kept),
            ),
        )


def trust_band(section: SelectSection, state: RunState) -> tuple[float, float]:
    """The committee deviations (eV/Å) between which a frame is a candidate.

    "adaptive" follows the force RMSE the exploring models have shown on new labels, last of all: from
    one to :data:`TRUST_RANGE` times of it, no bound while there is none.
    """
    shown = [record.errors.total.force for record in state.history if record.errors is not None]
    low, high = (shown[-1], TRUST_RANGE * shown[-1]) if shown else (0.0, math.inf)
    given = section.trust_lo or 0.0, section.trust_hi or math.inf
    return tuple(found if value == "adaptive" else value for value, found in zip(given, (low, high), strict=True))


def _bandwidth(section: SelectSection, state: RunState) -> float | None:
    """h in 1/Å, None where it follows from the descriptors."""

    def volume_per_atom() -> float:
        volumes = [replica.start.volume / len(replica.start) for replica in state.replicas]
        return sum(volumes) / len(volumes)

    return given_bandwidth(section.bandwidth, volume_per_atom)


def _start_volumes(state: RunState) -> dict[str, float]:
    """Volume per atom at the start, Å³, averaged over each system's replicas."""
    volumes: dict[str, list[float]] = {}
    for replica in state.replicas:
        volumes.setdefault(replica.system, []).append(replica.start.volume / len(replica.start))
    return {system: sum(some) / len(some) for system, some in volumes.items()}


def _init(config: Config, state: RunState, layout: Layout):
    """Trajectories first, which take longest; teams they leave idle label frames."""

    def seed(*parts: object) -> int:
        return seed_of(config, *parts)

    for team, order in aimd.orders(config, state.aimd, state.job.running, _idle(state, layout, LABELER), seed):
        state = state.issued(order, team.name)
        yield team, order
    yield from _label(config, state, layout)


def _label(config: Config, state: RunState, layout: Layout):
    idle = list(_idle(state, layout, LABELER))
    if not idle or not state.pending:
        return
    begun = state.with_labelers
    waiting = (record for record in state.pending if record.frame_id not in begun)
    size = len(state.pending) if config.label.type == "offline" else config.label.batch
    for team in idle:
        batch = tuple(islice(waiting, size))
        if not batch:
            return
        yield team, m.LabelFrames(m.label_order_id(batch), batch, state.teacher)


def _train(config: Config, state: RunState, layout: Layout):
    """The model, or the members of a committee that are not there yet: any team trains any of them to the same bits."""
    idle = _idle(state, layout, TRAINER)
    for member in state.untrained(config.pool.models) if config.pool else [0]:
        number = training_number(config, state)
        name = f"{number}/{member}" if config.pool else f"{number}"
        if f"train/{name}" in state.job.running:
            continue
        team = next(idle, None)
        if team is None:
            return
        yield team, _training(config, state, member, name)


def _training(config: Config, state: RunState, member: int, name: str) -> m.Train:
    fresh = (config.overlapped and state.training) or state.fresh  # one that was begun is done again as it was
    split, new = assign(state, fresh, config.test)
    first = not state.train_ids
    parent, from_parent = _parent(config, state, first)
    number = training_number(config, state)
    if config.pool is not None and not from_parent:
        parent = state.committee[member]
    return m.Train(
        order_id=f"train/{name}",
        round=number,
        version=state.next_version,
        parent=parent,
        first=from_parent,
        old_ids=state.train_ids,
        new_ids=new,
        validation_ids=split.validation_ids,
        steps=steps_of_round(config, number),
        seed=seed_of(config, "train", name),
        species=state.species,
        fresh_ids=fresh,
        member=member,
    )


def _parent(config: Config, state: RunState, first: bool) -> tuple[m.ModelRef | None, bool]:
    """Whose weights a training starts from, and whether it is one the run was given, or none at all."""
    if state.teacher:
        scratch = first or not config.student.warm_start
        return (None, True) if scratch else (state.model, False)
    from_parent = first or config.train.start_from == "parent"
    return (state.models[0], True) if from_parent else (state.model, False)


def _evaluate(config: Config, state: RunState, layout: Layout):
    idle = [team for role in (EXPLORER, LABELER) for team in _idle(state, layout, role)]
    helpers = [team for team in idle if final_evaluation.can_help(config, state, layout, team)]
    yield from final_evaluation.orders(config, state, list(_idle(state, layout, TRAINER)), helpers)


def _probe(config: Config, state: RunState, layout: Layout):
    hottest = max(max(ends(ramp)) for ramp in config.explore.temperatures)
    frame = state.replicas[0].start
    order = m.Probe(f"probe/{state.round}", state.teacher, state.model, frame, hottest, state.species)
    yield from _one(state, layout, EXPLORER, order)


_ORDERS = {
    IMPORT: _import,
    INIT: _init,
    EXPLORE: _explore,
    SELECT: _select,
    LABEL: _label,
    TRAIN: _train,
    EVALUATE: _evaluate,
    PROBE: _probe,
}
