"""How long an order will take, from what its like took in this run; what fits into the rest of a job. Pure.

Measured are seconds: of a label by number of atoms, of an MD step by system, of a training by step and the
rest of it, of a selection, of the evaluation. A forecast is the median of the last few, times a safety factor.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import singledispatch
from statistics import median

from .. import messages as m
from ..config import Config
from ..parallel.layout import EXPLORER, Layout, Team
from .final_evaluation import seconds_left
from .state import RunState

KEPT = 15
"""Measurements kept of each kind, the last ones."""
SAFETY = {"label": 1.5, "select": 1.5, "evaluate": 1.5, "explore": 1.2, "train": 1.2}
"""Forecast over median: SCF cycles vary and the reference of a selection grows, steps are all alike."""
UPWARDS = 3
"""Power of the number of atoms by which the label of a larger cell takes longer than any measured."""
LEAST = 10.0
"""Seconds in which an order is still begun when none of its like was measured."""

LATE = "late."
"""How the kinds of durations begin that are no work."""

Orders = Sequence[tuple[Team, m.Order]]
Cost = tuple[str, float]


def measured(config: Config, state: RunState, answer: m.Answer) -> RunState:
    """The state that remembers what an answer took; call it before the answer is applied."""
    costs = [(_key(state, kind), seconds) for kind, seconds in _costs(answer, config, state)]
    return _with_durations(state, costs)


def delayed(state: RunState, kind: str, seconds: float) -> RunState:
    """The state that remembers what an order of a kind took beside the work: on its way, published, written to disk."""
    return _with_durations(state, [(_key(state, LATE + kind), max(0.0, seconds))])


def _with_durations(state: RunState, costs: Iterable[Cost]) -> RunState:
    durations = dict(state.durations)
    for key, seconds in costs:
        durations[key] = (*durations.get(key, ()), seconds)[-KEPT:]
    return replace(state, durations=durations)


def steps_of_round(config: Config, number: int) -> int:
    """Training steps at the end of a round."""
    return config.train.first_steps if number == 0 else config.train.steps


def training_number(config: Config, state: RunState) -> int:
    """By which the next training is known: its round, or overlapped the number of those before it."""
    return state.trained if config.overlapped else state.round


@singledispatch
def _costs(answer, config: Config, state: RunState) -> Iterable[Cost]:
    return ()


@_costs.register
def _costs_labelled(answer: m.Labelled, config, state):
    """An order's seconds, shared out by atoms. Labels from the store took none, rejected ones tell little.

    How long people were waited for (offline) tells nothing of the next label.
    """
    if config.label.type == "offline":
        return
    n_atoms = sum(len(outcome.record.frame) for outcome in answer.outcomes)
    for outcome in answer.outcomes if answer.seconds > 0 else ():
        if outcome.accepted:
            own = len(outcome.record.frame)
            yield f"label.{own}", answer.seconds * own / n_atoms


@_costs.register
def _costs_simulated(answer: m.Simulated, config, state):
    """Each step is a calculation, as a label is."""
    for item in state.aimd:
        if item.name == answer.trajectory and answer.calculations:
            yield f"label.{len(item.point.frame)}", answer.seconds / answer.calculations


@_costs.register
def _costs_explored(answer: m.Explored, config, state):
    systems = {replica.replica: replica.system for replica in state.replicas}
    if answer.steps:
        yield f"explore.{systems[answer.replica]}", answer.seconds / answer.steps


@_costs.register
def _costs_selected(answer: m.Selected, config, state):
    if answer.report is not None:
        yield "select", answer.seconds


@_costs.register
def _costs_trained(answer: m.Trained, config, state):
    yield "train.rest", answer.seconds - answer.step_seconds
    if steps := steps_of_round(config, training_number(config, state)) - answer.begun_at:
        yield "train.step", answer.step_seconds / steps


@_costs.register
def _costs_imported(answer: m.Imported, config, state):
    yield "import", answer.seconds


@_costs.register
def _costs_evaluated(answer: m.Evaluated, config, state):
    yield m.Evaluate.kind, answer.seconds


def _key(state: RunState, kind: str) -> str:
    """A teacher's labels and a student's trainings are things of their own."""
    return f"distill.{kind}" if state.teacher else kind


def typical(state: RunState, kind: str) -> float | None:
    """Forecast, seconds, of one of a kind; None if none was measured."""
    values = state.durations.get(_key(state, kind))
    return SAFETY[kind.split(".")[0]] * median(values) if values else None


@singledispatch
def forecast(order, config: Config, state: RunState) -> float | None:
    """Seconds an order will take; None if nothing like it was measured."""
    return None


@forecast.register
def _forecast_label_frames(order: m.LabelFrames, config, state):
    each = [label_seconds(state, len(record.frame)) for record in order.records]
    return None if None in each else sum(each)


@forecast.register
def _forecast_simulate(order: m.Simulate, config, state):
    return _segment_seconds(state, order.trajectory)


@forecast.register
def _forecast_train(order: m.Train, config, state):
    """To its end, or to where it is kept for the next job to go on from."""
    rest, step = typical(state, "train.rest"), typical(state, "train.step")
    if rest is None or step is None:
        return None
    return rest + min(step * order.steps, SAFETY["train"] * (config.train.restart_after or math.inf))


@forecast.register
def _forecast_select(order: m.Select, config, state):
    return typical(state, "select")


def label_seconds(state: RunState, n_atoms: int) -> float | None:
    """Forecast of a label, from those of this number of atoms, or of the nearest number that was measured.

    To both sides of it the pessimistic power: t ~ n³ for more atoms, t ~ n for fewer.
    """
    prefix = _key(state, "label.")
    counts = [int(key.removeprefix(prefix)) for key in state.durations if key.startswith(prefix)]
    if not counts:
        return None
    nearest = min(counts, key=lambda count: (max(count, n_atoms) / min(count, n_atoms), count))
    power = UPWARDS if n_atoms > nearest else 1
    return typical(state, f"label.{nearest}") * (n_atoms / nearest) ** power


def labels_under_way(state: RunState) -> dict[str, float | None]:
    """Running orders for labels, segments of dynamics among them, and the forecast of each from its beginning."""
    pending = {record.frame_id: record for record in state.pending}
    costs: dict[str, float | None] = {}
    for order_id, (order, _) in state.job.running.items():
        if isinstance(order, m.Simulate):
            costs[order_id] = _segment_seconds(state, order.trajectory)
        elif isinstance(order, m.LabelFrames):
            each = [label_seconds(state, len(pending[key].frame)) for key in order.frame_ids if key in pending]
            costs[order_id] = None if None in each else sum(each)
    return costs


def _segment_seconds(state: RunState, trajectory: m.Trajectory) -> float | None:
    """Forecast of the next segment: a calculation a step, and one for the start of the trajectory."""
    point = trajectory.point
    each = label_seconds(state, len(point.frame))
    return None if each is None else each * (trajectory.interval + (point.label is None))


def expected_by(latest: float, state: RunState, since: Mapping[str, float]) -> dict[str, float]:
    """When the label orders under way will be answered: all but those forecast to be later than ``latest``.

    ``since`` is when each order was sent; times are on one clock. -inf where there is no forecast.
    """
    costs = labels_under_way(state)
    ends = {key: -math.inf if seconds is None else since[key] + seconds for key, seconds in costs.items()}
    return {order_id: end for order_id, end in ends.items() if end <= latest}


def medians(state: RunState) -> dict[str, float]:
    """Seconds measured, by kind, for people to look at."""
    work = {key: values for key, values in state.durations.items() if not key.removeprefix("distill.").startswith(LATE)}
    return {key: float(f"{median(values):.3g}") for key, values in work.items()}


def exploration_seconds(config: Config, state: RunState, layout: Layout) -> float | None:
    """Forecast of all that is not begun of a round's exploration, and of its selection.

    Candidates are not kept from job to job, so that a part of it is worth nothing.
    """
    waiting = [
        typical(state, f"explore.{item.system}")
        for item in state.replicas
        if not (item.retired or item.replica in state.explored)
        and f"explore/{state.round}/{item.replica}" not in state.job.running
    ]
    steps = config.pool.chunk if config.pool else config.explore.steps
    segments = [steps * seconds for seconds in waiting if seconds is not None]
    selection = typical(state, "select")
    if not segments and selection is None:
        return None
    n_teams = sum(team.name not in state.job.lost for team in layout.of_role(EXPLORER))
    return max(sum(segments) / max(n_teams, 1), *segments, 0.0) + (selection or 0.0)


def affordable(state: RunState, left: float | None) -> RunState:
    """The state without the pending frames whose label does not fit, so that others come first."""
    if left is None or not state.pending:
        return state
    fits = {n: enough(label_seconds(state, n), left) for n in {len(record.frame) for record in state.pending}}
    return replace(state, pending=tuple(record for record in state.pending if fits[len(record.frame)]))


def within(config: Config, state: RunState, layout: Layout, orders: Orders, left: float | None) -> Orders:
    """The orders that fit into the seconds left; None: all."""
    if left is None or not orders:
        return orders
    return [pair for pair in orders if enough(cost(config, state, layout, pair[1]), left)]


def cost(config: Config, state: RunState, layout: Layout, order: m.Order) -> float | None:
    """Seconds until an order bears fruit: its own, but for segments and evaluations those of all that a stop loses."""
    if isinstance(order, m.Explore | m.Scan):
        return exploration_seconds(config, state, layout)
    if isinstance(order, m.Evaluate) and (each := typical(state, m.Evaluate.kind)) is not None:
        return seconds_left(config, state, layout, each)
    return forecast(order, config, state)


def enough(seconds: float | None, left: float) -> bool:
    return left >= (LEAST if seconds is None else seconds)


NAMES: Mapping[type, str] = {
    m.ImportParent: "taking up the model",
    m.Explore: "the exploration of this round with its selection",
    m.Scan: "the scan of the pool with its selection",
    m.Select: "the selection",
    m.LabelFrames: "the next label",
    m.Simulate: "the next stretch of init.aimd",
    m.Train: "the next training round",
    m.Evaluate: "the final evaluation",
    m.Probe: "the test of the student",
}


def explain(order: m.Order, seconds: float | None, left: float) -> str:
    """Why an order is not begun any more with so many seconds left."""
    name, rest = NAMES[type(order)], f"{max(left, 0.0):.0f} s are left"
    if seconds is None:
        return f"how long {name} takes is not known, and only {rest}"
    return f"{name} needs about {seconds:.0f} s, {rest}"
