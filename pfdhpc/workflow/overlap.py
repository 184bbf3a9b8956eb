"""What begins next when nobody waits for anybody: the rules of overlapped running. Pure.

The explorers' cycle (explore, select, wait) is the phase of the run. Labels are made whenever frames are
queued, and a training begins whenever enough labels are new; neither stops the others. A selection ranks
the frames that wait for a label anew, together with the new candidates: those that are not picked again have
become redundant, and cost nothing.
"""

from dataclasses import replace
from math import ceil

from .. import messages as m
from ..config import Config
from ..parallel.layout import LABELER, TRAINER
from .convergence import CONVERGED, SATURATED, answered, converged, reason_of_limits
from .state import DRAIN, EVALUATE, EXPLORE, LABEL, SELECT, TRAIN, WAIT, RunState, next_round

CYCLE = (EXPLORE, SELECT, WAIT)
"""The phases in which exploration is going on."""


def capacity(config: Config) -> int:
    """Frames that may wait for a label."""
    return config.overlap.queue or 2 * config.select.max_sel


def enough_new(config: Config) -> int:
    """New labels that begin a training."""
    return config.overlap.min_new or ceil(config.select.max_sel / 2)


def queued(state: RunState) -> tuple:
    """Picked frames no labeler has begun, best first. The initial ones are not among them: they are always labelled."""
    begun = state.with_labelers
    return tuple(record for record in state.pending if record.origin.round > 0 and record.frame_id not in begun)


def labelling(state: RunState) -> int:
    """Frames that labelers are at work on."""
    begun = state.with_labelers
    return sum(record.frame_id in begun for record in state.pending)


def training(state: RunState) -> bool:
    """Whether the trainer is at work."""
    return state.runs(m.Train)


def training_due(config: Config, state: RunState) -> bool:
    """Whether the new labels are enough to train on, or old enough, or all there will be."""
    if not state.fresh:
        return False
    if state.training:
        return True  # it was begun
    if not state.train_ids:
        return answered(state, 0)
    starving = not awaited(state) and (state.phase not in (EXPLORE, SELECT) or bool(state.job.missing))
    aged = state.elapsed - state.trained_at >= config.overlap.wait
    return starving or aged or len(state.fresh) >= enough_new(config)


def awaited(state: RunState) -> bool:
    """Whether labels are still to come in this job."""
    return bool(state.with_labelers) if {LABELER, TRAINER} & state.job.missing else bool(state.pending)


def useful(state: RunState) -> bool:
    """Whether something is under way that a run without explorers, or without labelers, still takes in."""
    return any(not isinstance(item.order, m.Explore | m.Scan | m.Select) for item in state.job.running.values())


def flow(config: Config, state: RunState) -> RunState:
    """The state after an answer was taken in: a new round, the end of exploration, or the last evaluation."""
    if state.phase in (LABEL, TRAIN):
        state = replace(state, phase=WAIT)
    if state.phase in CYCLE and converged(config.converge, state):
        state = replace(unqueued(state, ()), phase=DRAIN, ended=CONVERGED)
    if state.phase == WAIT:
        state = _waiting(config, state)
    if state.phase == DRAIN and _still(state):
        if not state.train_ids:
            reason = "no label was accepted, so nothing was trained; the reasons are with the frames"
            return state.in_job(failure=reason)
        good = converged(config.converge, state)  # the last labels have come since exploration ended
        return replace(state, phase=EVALUATE, ended=CONVERGED if good else state.ended)
    return state


def conform(config: Config, state: RunState) -> RunState:
    """A kept state as this policy would have it: candidates of the job before are gone, the policy may be another."""
    if state.phase in (EXPLORE, SELECT):
        state = replace(state, phase=EXPLORE, explored=(), picked=())
        state = state.note(steps=0, candidates=0) if config.overlapped else state
    if config.overlapped:
        state = replace(state, phase=WAIT, ended="") if state.phase == DRAIN else state
        return flow(config, state) if state.phase in (*CYCLE, LABEL, TRAIN) else state
    state = replace(state, training=())
    if state.phase not in (*CYCLE, DRAIN):
        return state
    if state.pending or state.fresh:
        return replace(state, phase=LABEL if state.pending else TRAIN)
    return state if state.phase == EXPLORE else next_round(state)


def _waiting(config: Config, state: RunState) -> RunState:
    reason = reason_of_limits(config.converge, state)
    if not reason and state.current.saturated and state.newest == state.current.model_version and _still(state):
        reason = SATURATED
    if reason:
        return replace(state, phase=DRAIN, ended=reason)
    return next_round(state) if _may_begin(config, state) else state


def _may_begin(config: Config, state: RunState) -> bool:
    """Whether the next exploration round may start: the model is new enough, and its picks will find room."""
    budget = config.converge.max_labels
    if budget is not None and state.n_paid + len(state.pending) >= budget:
        return False
    if len(queued(state)) > capacity(config) // 2:
        return False
    if state.current.saturated and state.newest == state.current.model_version:
        return False
    return config.overlap.allows(state.round + 1, state.trained) or _still(state)


def _still(state: RunState) -> bool:
    """Whether nothing is under way or waiting that could lead to a new model."""
    return not (state.pending or state.fresh or training(state))


def requeued(config: Config, state: RunState) -> RunState:
    """After a selection: its picks are the queue, best first; frames that waited and were not picked again leave it.

    What labelers began, or gave back, while it ran was not ranked: it stays, and there may be less room for new ones.
    """
    done = {key.split(":")[0] for key in (*state.label_ids, *state.refused)}
    rank = {frame_id: place for place, frame_id in enumerate(state.job.ranking)}
    here = {record.frame_id for record in state.pending}
    picked = {record.frame_id: record for record in state.picked}
    unranked = {record.frame_id for record in state.pending} - set(state.job.offered)
    state = unqueued(state, picked.keys() | unranked)
    new = [picked[key] for key in sorted(picked, key=lambda key: rank.get(key, -1)) if key not in here | done]
    new = new[: _room(config, state)]
    for record in new:
        number = record.origin.round
        state = state.note_round(number, selected=state.history[number].selected + 1)
    order = sorted((*state.pending, *new), key=lambda record: rank.get(record.frame_id, -1))
    return replace(state, pending=tuple(order), picked=()).in_job(ranking=())


def _room(config: Config, state: RunState) -> int:
    """Frames that may join the queue."""
    room = capacity(config) - len(queued(state))
    if config.converge.max_labels is not None:
        room = min(room, config.converge.max_labels - state.n_paid - len(state.pending))
    return max(0, room)


def unqueued(state: RunState, kept) -> RunState:
    """Only frames ``kept`` (frame ids) and those already with a labeler stay in the queue; the others are counted."""
    dropped = [record for record in queued(state) if record.frame_id not in kept]
    for record in dropped:
        number = record.origin.round
        state = state.note_round(number, dropped=state.history[number].dropped + 1)
    gone = {record.frame_id for record in dropped}
    return replace(state, pending=tuple(record for record in state.pending if record.frame_id not in gone))
