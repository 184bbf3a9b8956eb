"""``plan(config, state, layout)``: the orders that should run now. Pure; the lock-step policy.

explore -> select -> label -> test -> train, a barrier after each: exploration round r starts when
model r-1 is published (staleness 0). Order ids, seeds and contents follow from the state alone.
"""

import math
from collections.abc import Iterator, Sequence
from hashlib import blake2b

from ..config import Config
from ..config.explore import ends
from ..config.select import SelectSection
from ..engines.base import SegmentTask
from ..parallel.layout import EXPLORER, LABELER, TRAINER, Layout, Team
from ..select.bandwidth import density_bandwidth
from . import messages as m
from .forecast import affordable, cost, explain, steps_of_round, within
from .split import assign
from .state import EVALUATE, EXPLORE, IMPORT, LABEL, PROBE, SELECT, TRAIN, Replica, RunState

TRUST_RANGE = 5.0
"""Width of the adaptive trust band: frames whose forces the committee disputes by more have failed."""


def plan(config: Config, state: RunState, layout: Layout, left: float | None = None) -> Sequence[tuple[Team, m.Order]]:
    """Orders for teams that are idle, none of which is running already; with ``left`` seconds, those that fit."""
    orders = _ORDERS.get(state.phase, _nothing)(config, affordable(state, left), layout)
    fresh = [(team, order) for team, order in orders if order.order_id not in state.running]
    return within(config, state, layout, fresh, left)


def shortage(config: Config, state: RunState, layout: Layout, left: float | None) -> str:
    """Why nothing more is begun in a job with so many seconds left (None: no limit).

    Empty if something is, or if something is under way that is worth waiting for.
    """
    if left is None or (state.running and state.phase != EXPLORE):
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
    busy = {*state.running.values(), *state.lost, *state.late}
    return (team for team in layout.of_role(role) if team.name not in busy)


def _one(state: RunState, layout: Layout, role: str, order: m.Order) -> Iterator[tuple[Team, m.Order]]:
    """One order for one team of a role, if it is not running anywhere."""
    if order.order_id not in state.running:
        yield from ((team, order) for team in [next(_idle(state, layout, role), None)] if team)


def _nothing(config, state, layout):
    return iter(())


def _import(config: Config, state: RunState, layout: Layout):
    yield from _one(state, layout, TRAINER, m.ImportParent("import"))


def _explore(config: Config, state: RunState, layout: Layout):
    idle, distilling = _idle(state, layout, EXPLORER), state.teacher is not None
    for replica in state.replicas:
        order_id = f"explore/{state.round}/{replica.replica}"
        if replica.retired or replica.replica in state.explored or order_id in state.running:
            continue
        team = next(idle, None)
        if team is None:
            return
        task = _segment(config, replica)
        yield team, m.Explore(order_id, state.round, state.driver, state.type_map, task, distilling, state.student)


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
    if state.running or state.picked:
        return
    alive = [team for team in layout.of_role(EXPLORER) if team.name not in state.lost]
    teams = [team for team in alive if team.name not in state.late] or alive
    room = config.select.max_sel
    if config.converge.max_labels is not None:
        room = min(room, config.converge.max_labels - state.n_paid)
    reference = (*state.train_ids, *state.validation_ids, *state.test_ids, *state.refused)
    for team in teams:
        yield (
            team,
            m.Select(
                order_id=f"select/{state.round}.{state.attempt}/{team.name}",
                round=state.round,
                participants={item.name: item.leader for item in teams},
                replicas=state.explored,
                volumes=_start_volumes(state),
                reference_ids=tuple(sorted(reference)),
                max_sel=room,
                band=trust_band(config.select, state),
                bandwidth=_bandwidth(config.select, state),
                species=state.species,
                model=state.driver,
                distilling=state.teacher is not None,
                seed=seed_of(config, "select", state.round),
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
    if section.bandwidth == "density":
        volumes = [replica.start.volume / len(replica.start) for replica in state.replicas]
        return density_bandwidth(sum(volumes) / len(volumes))
    return None if section.bandwidth == "spread" else section.bandwidth


def _start_volumes(state: RunState) -> dict[str, float]:
    """Volume per atom at the start, Å³, averaged over each system's replicas."""
    volumes: dict[str, list[float]] = {}
    for replica in state.replicas:
        volumes.setdefault(replica.system, []).append(replica.start.volume / len(replica.start))
    return {system: sum(some) / len(some) for system, some in volumes.items()}


def _label(config: Config, state: RunState, layout: Layout):
    with_labelers = {frame_id for order_id in state.running for frame_id in m.frames_of(order_id)}
    waiting = [record for record in state.pending if record.frame_id not in with_labelers]
    for team in _idle(state, layout, LABELER):
        batch, waiting = tuple(waiting[: config.label.batch]), waiting[config.label.batch :]
        if not batch:
            return
        yield team, m.LabelFrames(m.label_order_id(batch), batch, state.teacher)


def _train(config: Config, state: RunState, layout: Layout):
    split, new = assign(state, state.fresh, config.test)
    first = not state.train_ids
    parent, from_parent = _parent(config, state, first)
    order = m.Train(
        order_id=f"train/{state.round}",
        round=state.round,
        version=len(state.models) + (state.teacher is not None),  # version 0 is what the run was given
        parent=parent,
        first=from_parent,
        old_ids=state.train_ids,
        new_ids=new,
        validation_ids=split.validation_ids,
        steps=steps_of_round(config, state.round),
        seed=seed_of(config, "train", state.round),
        species=state.species,
    )
    yield from _one(state, layout, TRAINER, order)


def _parent(config: Config, state: RunState, first: bool) -> tuple[m.ModelRef | None, bool]:
    """Whose weights a training starts from, and whether it is one the run was given, or none at all."""
    if state.teacher:
        scratch = first or not config.student.warm_start
        return (None, True) if scratch else (state.model, False)
    from_parent = first or config.train.start_from == "parent"
    return (state.models[0], True) if from_parent else (state.model, False)


def _evaluate(config: Config, state: RunState, layout: Layout):
    parent = None if state.teacher else state.models[0]
    order = m.Evaluate(f"evaluate/{state.round}", parent, state.model, state.train_ids, state.test_ids)
    yield from _one(state, layout, TRAINER, order)


def _probe(config: Config, state: RunState, layout: Layout):
    hottest = max(max(ends(ramp)) for ramp in config.explore.temperatures)
    frame = state.replicas[0].start
    order = m.Probe(f"probe/{state.round}", state.teacher, state.model, frame, hottest, state.species)
    yield from _one(state, layout, EXPLORER, order)


_ORDERS = {
    IMPORT: _import,
    EXPLORE: _explore,
    SELECT: _select,
    LABEL: _label,
    TRAIN: _train,
    EVALUATE: _evaluate,
    PROBE: _probe,
}
