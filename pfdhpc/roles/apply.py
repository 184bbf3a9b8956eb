"""``state = apply(config, state, answer)``: what an answer means. Pure; an answer is filed once."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import singledispatch

from ..config import Config
from ..data import Record
from . import messages as m
from .converge import reason_to_end
from .forecast import measured
from .metrics import error_table, exploring_errors
from .split import assign
from .state import DONE, EVALUATE, EXPLORE, LABEL, PROBE, SELECT, TRAIN, Replica, RoundRecord, RunState

MAX_ATTEMPTS = 3
"""So often a selection is made again without teams that did not answer; then the round has no picks."""

Lookup = Callable[[Sequence[str]], Sequence[Record]]
"""From label ids to labelled records, as the store gives them."""


def apply(config: Config, state: RunState, answer: m.Answer, known: Lookup) -> RunState:
    """The state after an answer. An answer to an order that is not running is ignored."""
    if answer.order_id not in state.running:
        return state
    return _apply(answer, config, measured(config, state.settled(answer.order_id), answer), known)


@singledispatch
def _apply(answer, config: Config, state: RunState, known) -> RunState:
    raise TypeError(f"no rule for the answer {type(answer).__name__}")


@_apply.register
def _(answer: m.Imported, config, state, known):
    state = replace(state.spent("trainer", answer.seconds), phase=LABEL)
    if config.workflow == "distill":
        state = replace(state, teacher=answer.model)
    else:
        state = replace(state, models=(answer.model,))
    return _labels_done(config, state, known)


@_apply.register
def _(answer: m.Explored, config, state, known):
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
    return state if waiting else replace(state, phase=SELECT)


@_apply.register
def _(answer: m.Selected, config, state, known):
    state = replace(state.spent("explorer", answer.seconds), picked=(*state.picked, *answer.picked))
    if answer.report is not None:
        state = replace(state, reported=True, late=state.late | frozenset(answer.report.absent))
        absent = state.late  # their candidates were not looked at
        state = _without(state, answer.report.absent).note(
            filtered=sum(answer.report.filtered.values()),
            saturated=answer.report.saturated and not answer.report.gains and not absent,
            best_gain=max(answer.report.gains, default=float("nan")),
        )
    return _selection_done(config, state, known)


@_apply.register
def _(answer: m.Unselected, config, state, known):
    state = state.spent("explorer", answer.seconds)
    if answer.absent and not state.reported:
        state = replace(_without(state, (answer.absent,)), late=state.late | {answer.absent})
    return _selection_done(config, state, known)


def _without(state: RunState, absent: tuple[str, ...]) -> RunState:
    """Nobody waits for the answers of teams the reduction left out."""
    kept = {order_id: team for order_id, team in state.running.items() if team not in absent}
    return replace(state, running=kept)


def _selection_done(config: Config, state: RunState, known: Lookup) -> RunState:
    """When all have answered: the picks go on to be labelled; a selection without an outcome is made again."""
    if state.running:
        return state
    if not state.reported and state.late and state.attempt < MAX_ATTEMPTS:
        return replace(state, picked=(), attempt=state.attempt + 1)
    picked = {record.frame_id: record for record in state.picked if state.reported}
    pending = tuple(picked[frame_id] for frame_id in sorted(picked))
    state = replace(state, phase=LABEL, picked=(), pending=pending, reported=False).note(selected=len(pending))
    return _labels_done(config, state, known)


def lose(config: Config, state: RunState, team: str, known: Lookup) -> RunState:
    """A team is given up: what it was working on is asked of others."""
    state = replace(_without(state, (team,)), lost=state.lost | {team}, late=state.late - {team})
    if state.phase == PROBE:
        reason = f"{team} did not come back from the test"
        return replace(state, phase=DONE, production={**state.production, "reason": reason, "stable": False})
    return _selection_done(config, state, known) if state.phase == SELECT else state


@_apply.register
def _(answer: m.Labelled, config, state, known):
    done = {outcome.record.frame_id for outcome in answer.outcomes}
    accepted = [outcome.record.label_id for outcome in answer.outcomes if outcome.accepted]
    refused = [outcome.record.frame_id for outcome in answer.outcomes if not outcome.accepted]
    state = replace(
        state.spent("labeler", answer.seconds),
        pending=tuple(record for record in state.pending if record.frame_id not in done),
        fresh=tuple(sorted({*state.fresh, *accepted})),
        refused=tuple(sorted({*state.refused, *refused})),
    )
    state = state.note(labelled=state.current.labelled + len(accepted), rejected=state.current.rejected + len(refused))
    return _labels_done(config, state, known)


def _labels_done(config: Config, state: RunState, known) -> RunState:
    """Test the exploring model on the round's labels, then decide what comes next."""
    if state.pending:
        return state
    if state.fresh and state.round > 0:
        errors = exploring_errors(known(state.fresh))
        state = state.note(errors=errors)
    if state.fresh:
        return replace(state, phase=TRAIN)
    return _round_done(config, state)


@_apply.register
def _(answer: m.Trained, config, state, known):
    state, train = assign(state, state.fresh, config.test)
    state = replace(
        state.spent("trainer", answer.seconds),
        models=(*state.models, answer.model),
        train_ids=tuple(sorted((*state.train_ids, *train))),
        fresh=(),
    ).note(train_seconds=answer.seconds, step_seconds=answer.step_seconds)
    return _round_done(config, state)


def _round_done(config: Config, state: RunState) -> RunState:
    ended = reason_to_end(config.converge, state)
    if ended and not state.train_ids:
        return replace(state, failure="no label was accepted, so nothing was trained; the reasons are with the frames")
    if ended:
        return replace(state, phase=EVALUATE, ended=ended)
    return next_round(state)


def next_round(state: RunState) -> RunState:
    """Begin the next exploration round with the newest model."""
    number = state.round + 1
    record = RoundRecord(number, model_version=state.models[-1].version if state.models else -1)
    return check_alive(
        replace(
            state,
            phase=EXPLORE,
            round=number,
            explored=(),
            picked=(),
            ended="",
            history=(*state.history, record),
            attempt=0,
        )
    )


def check_alive(state: RunState) -> RunState:
    """Exploration needs a replica."""
    if state.phase == EXPLORE and all(replica.retired for replica in state.replicas):
        return replace(
            state, failure="every replica was retired by its guards; see logs/, explore.guard and explore.max_restarts"
        )
    return state


@_apply.register
def _(answer: m.Evaluated, config, state, known):
    records = known(answer.test_ids)
    state = state.spent("trainer", answer.seconds)
    if records:
        state = replace(
            state,
            pretrained=error_table(records, answer.parent) if answer.parent else None,
            finetuned=error_table(records, answer.final),
        )
    if config.student is None:
        return replace(state, phase=DONE)
    return replace(state, phase=PROBE if config.student.probe_steps else DONE, production={"product": answer.product})


@_apply.register
def _(answer: m.Probed, config, state, known):
    found = {key: value for key, value in asdict(answer).items() if key not in ("order_id", "seconds")}
    return replace(state.spent("explorer", answer.seconds), phase=DONE, production={**state.production, **found})


@_apply.register
def _(answer: m.Failed, config, state, known):
    """A failed segment costs its replica a restart, a failed selection its picks, a failed probe its figures;
    a failed training ends the run."""
    kind, *rest = answer.order_id.split("/")
    if kind == "select":
        return _selection_done(config, state, known)
    if kind == "probe":
        return replace(state, phase=DONE, production={**state.production, "reason": answer.reason, "stable": False})
    if kind != "explore":
        return replace(state, failure=f"{answer.order_id}: {answer.reason}")
    lost = m.Explored(answer.order_id, answer.seconds, rest[1], None, 0, 0, answer.reason)
    return _apply(lost, config, state, known)
