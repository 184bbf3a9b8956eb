"""``plan(config, state, layout)``: the orders that should run now. Pure; the lock-step policy.

explore -> select -> label -> test -> train, a barrier after each: exploration round r starts when
model r-1 is published (staleness 0). Order ids, seeds and contents follow from the state alone.
"""

from collections.abc import Iterator
from hashlib import blake2b

from ..config import Config
from ..engines.base import SegmentTask
from ..parallel.layout import EXPLORER, LABELER, TRAINER, Layout, Team
from . import messages as m
from .split import assign
from .state import EVALUATE, EXPLORE, IMPORT, LABEL, SELECT, TRAIN, Replica, RunState


def plan(config: Config, state: RunState, layout: Layout) -> list[tuple[Team, m.Order]]:
    """Orders for teams that are idle, none of which is running already."""
    orders = _ORDERS.get(state.phase, _nothing)(config, state, layout)
    return [(team, order) for team, order in orders if order.order_id not in state.running]


def seed_of(config: Config, *parts: object) -> int:
    """A seed (31 bits) that depends on the run's seed and on what it is for, not on when or where."""
    text = "/".join(str(part) for part in (config.seed, *parts))
    return int.from_bytes(blake2b(text.encode(), digest_size=4).digest(), "big") >> 1 or 1


def _idle(state: RunState, layout: Layout, role: str) -> Iterator[Team]:
    busy = set(state.running.values())
    return (team for team in layout.of_role(role) if team.name not in busy and team.name not in state.lost)


def _one(state: RunState, layout: Layout, role: str, order: m.Order) -> Iterator[tuple[Team, m.Order]]:
    """One order for one team of a role, if it is not running anywhere."""
    if order.order_id not in state.running:
        yield from ((team, order) for team in [next(_idle(state, layout, role), None)] if team)


def _nothing(config, state, layout):
    return iter(())


def _import(config: Config, state: RunState, layout: Layout):
    yield from _one(state, layout, TRAINER, m.ImportParent("import"))


def _explore(config: Config, state: RunState, layout: Layout):
    idle = _idle(state, layout, EXPLORER)
    for replica in state.replicas:
        order_id = f"explore/{state.round}/{replica.replica}"
        if replica.retired or replica.replica in state.explored or order_id in state.running:
            continue
        team = next(idle, None)
        if team is None:
            return
        task = _segment(config, replica)
        yield team, m.Explore(order_id, state.round, state.model, state.type_map, task)


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
    teams = [team for team in layout.of_role(EXPLORER) if team.name not in state.lost]
    room = config.select.max_sel
    if config.converge.max_labels is not None:
        room = min(room, config.converge.max_labels - state.n_paid)
    reference = (*state.train_ids, *state.validation_ids, *state.test_ids, *state.refused)
    for team in teams:
        yield team, m.Select(
            order_id=f"select/{state.round}/{team.name}",
            round=state.round,
            participants={item.name: item.leader for item in teams},
            replicas=state.explored,
            volumes=_start_volumes(state),
            reference_ids=tuple(sorted(reference)),
            max_sel=room,
        )


def _start_volumes(state: RunState) -> dict[str, float]:
    """Volume per atom at the start, Å³, averaged over each system's replicas."""
    volumes: dict[str, list[float]] = {}
    for replica in state.replicas:
        volumes.setdefault(replica.system, []).append(replica.start.volume / len(replica.start))
    return {system: sum(some) / len(some) for system, some in volumes.items()}


def _label(config: Config, state: RunState, layout: Layout):
    waiting = [record for record in state.pending if record.frame_id not in in_flight(state)]
    for team in _idle(state, layout, LABELER):
        batch, waiting = tuple(waiting[: config.label.batch]), waiting[config.label.batch :]
        if not batch:
            return
        yield team, m.LabelFrames("label/" + "+".join(record.frame_id for record in batch), batch)


def in_flight(state: RunState) -> set[str]:
    """Frame ids that are with a labeler now; the ids of label orders name them."""
    orders = (order_id for order_id in state.running if order_id.startswith("label/"))
    return {frame_id for order_id in orders for frame_id in order_id.removeprefix("label/").split("+")}


def _train(config: Config, state: RunState, layout: Layout):
    split, new = assign(state, state.fresh, config.test)
    first = not state.train_ids
    from_parent = first or config.train.start_from == "parent"
    order = m.Train(
        order_id=f"train/{state.round}",
        round=state.round,
        version=len(state.models),
        parent=state.models[0] if from_parent else state.model,
        first=from_parent,
        old_ids=state.train_ids,
        new_ids=new,
        validation_ids=split.validation_ids,
        steps=config.train.first_steps if state.round == 0 else config.train.steps,
        seed=seed_of(config, "train", state.round),
    )
    yield from _one(state, layout, TRAINER, order)


def _evaluate(config: Config, state: RunState, layout: Layout):
    order = m.Evaluate(f"evaluate/{state.round}", state.models[0], state.model, state.train_ids, state.test_ids)
    yield from _one(state, layout, TRAINER, order)


_ORDERS = {
    IMPORT: _import,
    EXPLORE: _explore,
    SELECT: _select,
    LABEL: _label,
    TRAIN: _train,
    EVALUATE: _evaluate,
}
