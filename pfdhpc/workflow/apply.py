"""``state = apply(config, state, answer)``: what an answer means. Pure; an answer is filed once."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import singledispatch

from .. import messages as m
from ..config import Config
from ..data.compositions import formula_of
from ..data.error_metrics import exploring_errors
from .aimd import advanced, unfinished
from .convergence import answered, reason_to_end
from .energy_check import confirmed, doubted
from .final_evaluation import Lookup, take_in
from .label_split import assign
from .overlap import flow, requeued
from .pool_rules import scanned
from .state import DONE, EVALUATE, EXPLORE, INIT, LABEL, PROBE, SELECT, TRAIN, WAIT, Replica, RunState, next_round
from .time_forecast import measured

MAX_ATTEMPTS = 3
"""So often a selection is made again without teams that did not answer; then the round has no picks."""


def apply(config: Config, state: RunState, answer: m.Answer, known: Lookup) -> RunState:
    """The state after an answer. An answer to an order that is not running is ignored."""
    under_way = state.job.running.get(answer.order_id)
    if under_way is None:
        return state
    state = measured(config, state.settled(answer.order_id), answer)
    if isinstance(answer, m.Failed):
        return _failed(answer, under_way.order, config, state, known)
    return _apply(answer, config, state, known)


@singledispatch
def _apply(answer, config: Config, state: RunState, known) -> RunState:
    raise TypeError(f"no rule for the answer {type(answer).__name__}")


@_apply.register
def _apply_imported(answer: m.Imported, config, state, known):
    state = replace(state.spent("trainer", answer.seconds), phase=INIT if state.aimd else LABEL)
    if config.workflow == "distill":
        state = replace(state, teacher=answer.model)
    else:
        state = replace(state, models=(answer.model,))
    return _labels_done(config, state, known)


@_apply.register
def _apply_explored(answer: m.Explored, config, state, known):
    replicas = tuple(
        _after_segment(item, answer, config) if item.replica == answer.replica else item for item in state.replicas
    )
    state = replace(
        state.spent("explorer", answer.seconds), replicas=replicas, explored=(*state.explored, answer.replica)
    )
    state = state.note(
        steps=state.current.steps + answer.steps,
        candidates=state.current.candidates + answer.n_candidates,
        guards=state.current.guards + bool(answer.stopped),
    )
    if config.pool is not None:
        state = _exploration_done(scanned(state, answer))
        nothing = state.phase == SELECT and not state.current.candidates
        return _labels_done(config, replace(state, phase=LABEL), known) if nothing else state
    return _exploration_done(state)


def _after_segment(replica: Replica, answer: m.Explored, config: Config) -> Replica:
    restarts = replica.restarts + bool(answer.stopped)
    return replace(
        replica,
        state=answer.state,
        segment=replica.segment + 1,
        restarts=restarts,
        retired=restarts > config.explore.max_restarts,
    )


def _exploration_done(state: RunState) -> RunState:
    waiting = [item for item in state.replicas if not item.retired and item.replica not in state.explored]
    return state if waiting or state.phase != EXPLORE else replace(state, phase=SELECT)


@_apply.register
def _apply_selected(answer: m.Selected, config, state, known):
    state = replace(state.spent("explorer", answer.seconds), picked=(*state.picked, *answer.picked))
    if answer.report is not None:
        absent = frozenset(answer.report.absent)  # their candidates were not looked at
        silent = absent & state.busy  # the others have said so themselves by now
        state = state.in_job(reported=True, late=state.job.late | silent, ranking=answer.report.picked)
        absent |= state.job.late
        state = _without(state, answer.report.absent).note(
            filtered=sum(answer.report.filtered.values()),
            saturated=answer.report.saturated and not _new_picks(state, answer.report) and not absent,
            best_gain=max(answer.report.gains, default=float("nan")),
        )
    return _selection_done(config, state, known)


def _new_picks(state: RunState, report: m.SelectReport) -> bool:
    """Whether a selection picked a frame that was not waiting for its label already."""
    waiting = {record.frame_id for record in state.pending}
    return any(frame_id not in waiting for frame_id in report.picked)


@_apply.register
def _apply_unselected(answer: m.Unselected, config, state, known):
    state = state.spent("explorer", answer.seconds).in_job(unheard=True)
    if answer.absent in state.busy and not state.job.reported:
        state = _without(state, (answer.absent,)).in_job(late=state.job.late | {answer.absent})
    return _selection_done(config, state, known)


def _without(state: RunState, absent: tuple[str, ...]) -> RunState:
    """Nobody waits for the answers of teams the reduction left out."""
    kept = {order_id: item for order_id, item in state.job.running.items() if item.team not in absent}
    return state.in_job(running=kept)


def _selection_done(config: Config, state: RunState, known: Lookup) -> RunState:
    """When all have answered: the picks go on to be labelled; a selection without an outcome is made again."""
    if state.phase != SELECT or state.runs(m.Select):
        return state
    again = not state.job.reported and (state.job.late or state.job.unheard) and state.job.attempt < MAX_ATTEMPTS
    state = state.in_job(unheard=False)
    if again:
        return replace(state, picked=()).in_job(attempt=state.job.attempt + 1)
    if config.overlapped:
        state = requeued(config, state) if state.job.reported else replace(state, picked=())
        return flow(config, replace(state, phase=WAIT).in_job(reported=False, offered=()))
    picked = {record.frame_id: record for record in state.picked if state.job.reported}
    pending = tuple(picked[frame_id] for frame_id in sorted(picked))
    state = replace(state, phase=LABEL, picked=(), pending=pending).in_job(reported=False).note(selected=len(pending))
    return _labels_done(config, state, known)


def lose(config: Config, state: RunState, team: str, known: Lookup) -> RunState:
    """A team is given up: what it was working on is asked of others."""
    selecting = any(item.team == team and isinstance(item.order, m.Select) for item in state.job.running.values())
    state = _without(state, (team,)).in_job(lost=state.job.lost | {team}, late=state.job.late - {team})
    if state.phase == PROBE:
        reason = f"{team} did not come back from the test"
        return replace(state, phase=DONE, production={**state.production, "reason": reason, "stable": False})
    return _selection_done(config, state, known) if selecting else state


@_apply.register
def _apply_labelled(answer: m.Labelled, config, state, known):
    done = {outcome.record.frame_id for outcome in answer.outcomes}
    labels = {out.record.label_id: formula_of(out.record) for out in answer.outcomes if out.accepted}
    accepted = list(labels)
    refused = [outcome.record.frame_id for outcome in answer.outcomes if not outcome.accepted]
    state = replace(
        state.spent("labeler", answer.seconds),
        pending=tuple([record for record in state.pending if record.frame_id not in done]),
        fresh=tuple(sorted({*state.fresh, *accepted})),
        compositions={**state.compositions, **labels},
        refused=tuple(sorted({*state.refused, *refused})),
    )
    if not config.overlapped:
        now = state.current
        state = state.note(labelled=now.labelled + len(accepted), rejected=now.rejected + len(refused))
        return _labels_done(config, state, known)
    for number in {outcome.record.origin.round for outcome in answer.outcomes}:
        state = _noted(config, state, number, answer.outcomes, known)
    return flow(config, state)


@_apply.register
def _apply_simulated(answer: m.Simulated, config, state, known):
    """The labels of a segment are labels as any other; after the last segment of all those of frames are due."""
    state = replace(state, aimd=advanced(state.aimd, answer))
    phase = INIT if unfinished(config, state.aimd) else LABEL
    return _apply_labelled(answer, config, replace(state, phase=phase), known)


@_apply.register
def _apply_unlabelled(answer: m.Unlabelled, config, state, known):
    """What it was about waits as before."""
    return state


@_apply.register
def _apply_awaiting(answer: m.Awaiting, config, state, known):
    """Patience is over, and nobody is at work on anything else: only people can help."""
    at_work = any(not item.order.frame_ids for item in state.job.running.values())  # others wait like this one
    if answer.idle < config.label.wait or at_work:
        return state
    where = f"put the results into {answer.folder}/done/<frame id>/, then submit again"
    return state.in_job(standstill=f"{answer.frames} frames wait for labels in {answer.folder}/todo: {where}")


def _noted(config: Config, state: RunState, number: int, outcomes: Sequence[m.LabelOutcome], known) -> RunState:
    """The outcomes of the frames explored in a round, in its record, with the errors they show."""
    ours = [outcome for outcome in outcomes if outcome.record.origin.round == number]
    label_ids = tuple(outcome.record.label_id for outcome in ours if outcome.accepted)
    record = state.history[number]
    state = state.note_round(
        number,
        labelled=record.labelled + len(label_ids),
        rejected=record.rejected + len(ours) - len(label_ids),
        label_ids=(*record.label_ids, *label_ids),
    )
    if number == 0 or not answered(state, number):
        return state
    first = state.elapsed if record.errors is None else record.judged_at
    errors = exploring_errors(known(state.history[number].label_ids), state.determining)
    return doubted(config, state.note_round(number, errors=errors, judged_at=first), number)


def _labels_done(config: Config, state: RunState, known) -> RunState:
    """Test the exploring model on the round's labels, then decide what comes next."""
    if config.overlapped:
        return flow(config, state)
    if state.pending or state.phase == INIT:
        return state
    if state.fresh and state.round > 0:
        errors = exploring_errors(known(state.fresh), state.determining)
        state = doubted(config, state.note(errors=errors, judged_at=state.elapsed), state.round)
    if state.fresh:
        return replace(state, phase=TRAIN)
    return _round_done(config, state)


@_apply.register
def _apply_trained(answer: m.Trained, config, state, known):
    new = state.training or state.fresh
    for about, note in answer.notes.items():
        state = state.warned(about, note)
    members: tuple = (answer.model,)
    if config.pool is not None:
        members = state.with_member(answer.member, answer.model)
        trained = replace(state.spent("trainer", answer.seconds), members=members)
        if trained.untrained(config.pool.models):
            return trained
    state, train = assign(state, new, config.test)
    state = replace(
        state.spent("trainer", answer.seconds),
        models=(*state.models, members[0]),
        committee=members if config.pool else (),
        members=(),
        train_ids=tuple(sorted((*state.train_ids, *train))),
        fresh=tuple(label_id for label_id in state.fresh if label_id not in new),
        training=(),
        trained_at=state.elapsed,
    ).note(train_seconds=answer.seconds, step_seconds=answer.step_seconds)
    return flow(config, state) if config.overlapped else _round_done(config, state)


def _round_done(config: Config, state: RunState) -> RunState:
    ended = reason_to_end(config.converge, state)
    if ended and not state.train_ids:
        return state.in_job(failure="no label was accepted, so nothing was trained; the reasons are with the frames")
    if ended:
        return replace(state, phase=EVALUATE, ended=ended)
    return next_round(state)


@_apply.register
def _apply_evaluated(answer: m.Evaluated, config, state, known):
    return confirmed(config, take_in(config, state, answer, known))


@_apply.register
def _apply_probed(answer: m.Probed, config, state, known):
    found = {key: value for key, value in asdict(answer).items() if key not in ("order_id", "seconds")}
    return replace(state.spent("explorer", answer.seconds), phase=DONE, production={**state.production, **found})


def _failed(answer: m.Failed, order: m.Order, config: Config, state: RunState, known: Lookup) -> RunState:
    """A failed segment costs its replica a restart, a failed selection its picks, a failed probe its figures;
    a failed training ends the run, and so does what would fail for all alike: a model that is damaged."""
    if isinstance(order, m.Probe):
        return replace(state, phase=DONE, production={**state.production, "reason": answer.reason, "stable": False})
    if isinstance(order, m.Simulate):
        name, step = order.trajectory.name, order.trajectory.step
        broken = m.Simulated(answer.order_id, answer.seconds, (), name, None, step, 0, answer.reason)
        return _apply(broken, config, state, known)
    if isinstance(order, m.Select) and not answer.fatal:
        return _selection_done(config, state, known)
    if answer.fatal or not isinstance(order, m.Explore):
        return state.in_job(failure=f"{answer.order_id}: {answer.reason}")
    lost = m.Explored(answer.order_id, answer.seconds, order.task.replica, None, 0, 0, answer.reason)
    return _apply(lost, config, state, known)
