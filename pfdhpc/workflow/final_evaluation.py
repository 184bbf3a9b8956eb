"""The last evaluation: cut into parts, done by the trainer and by teams that are idle by then. Pure.

What belongs to a part follows from the labels of the run alone, and parts are put together in their order: the figures
do not depend on who did which. A part that was not answered is asked of another team.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from statistics import median

import numpy as np

from .. import messages as m
from ..config import Config
from ..data import Label, Record
from ..data.error_metrics import ErrorTable, compositions, energies_by_element, error_table
from ..parallel.layout import EXPLORER, LABELER, TRAINER, Layout, Team
from .state import DONE, PROBE, RunState

PART = 32
"""Frames of a part: a few batches of a model, and a message of a megabyte at most."""
PAYS = 20.0
"""Seconds of work left for the trainer above which it is helped: others may have to load torch first."""
LOADING = 120.0
"""Seconds that may take before the team is given up."""
COMPARED = 20
"""Frames on which a compressed model is compared with the plain one."""

Lookup = Callable[[Sequence[str]], Sequence[Record]]
"""From label ids to labelled records, as the store gives them."""


def parts(config: Config, state: RunState) -> list[m.Evaluate]:
    """All orders of the evaluation; the first one also makes a student's model for production."""
    parent = None if state.teacher else state.models[0]
    kinds = (state.train_ids if parent else (), state.test_ids, state.fixed_ids)
    frames = [(kind, key) for kind, keys in enumerate(kinds) for key in keys]
    orders = []
    for first in range(0, max(len(frames), 1), PART):
        ids = [tuple(key for kind, key in frames[first : first + PART] if kind == wanted) for wanted in range(3)]
        order_id = f"{m.Evaluate.kind}/{state.round}/{len(orders)}"
        orders.append(m.Evaluate(order_id, parent, state.model, *ids, state.teacher))
    if config.student is not None:
        orders[0] = replace(orders[0], train_ids=state.train_ids[-COMPARED:], product=True)
    return orders


def orders(
    config: Config, state: RunState, trainers: Sequence[Team], helpers: Sequence[Team]
) -> Iterator[tuple[Team, m.Evaluate]]:
    """Parts nobody is at work on: for idle trainers, and for other idle teams if that saves time."""
    waiting = [order for order in _open(config, state) if order.order_id not in state.job.running]
    yield from zip(trainers, waiting, strict=False)
    others = [order for order in waiting[len(trainers) :] if not order.product]
    if _pays(state, len(waiting)):
        yield from zip(helpers, others, strict=False)


def can_help(config: Config, state: RunState, layout: Layout, team: Team) -> bool:
    """Whether a team that is no trainer can evaluate: it is one rank, has torch, and the models are files.

    A teacher that is a calculator is asked by the trainer; labelers have torch where they label with a model.
    """
    if layout.world_size == 1 or len(team.ranks) > 1 or config.model.calculator is not None:
        return False
    return team.role == EXPLORER or (
        team.role == LABELER and (team.name in state.job.turned or state.teacher is not None)
    )


def seconds_left(config: Config, state: RunState, layout: Layout, each: float) -> float:
    """Forecast of all that is not done yet, where a part takes so long."""
    able = (team for team in layout.teams if team.role == TRAINER or can_help(config, state, layout, team))
    n_teams = sum(team.name not in state.job.lost for team in able)
    n_parts = sum(1 for _ in _open(config, state))
    alone = each * n_parts
    return alone if alone <= PAYS else max(each, alone / max(n_teams, 1))


def patience(state: RunState) -> float:
    """Seconds after which a part that is not answered is for another team than the one that was to help."""
    return LOADING + 5 * _part_seconds(state)


def take_in(config: Config, state: RunState, answer: m.Evaluated, known: Lookup) -> RunState:
    """The state after a part; after the last one, the errors of the run."""
    before, state = state, state.spent(answer.role, answer.seconds)
    state = state.in_job(evaluated_parts={**state.job.evaluated_parts, answer.order_id: answer})
    wanted = parts(config, state)
    if any(order.order_id not in state.job.evaluated_parts for order in wanted):
        return replace(state, progress=before.progress)  # a part is worth nothing to the next job
    whole = _whole(wanted, [state.job.evaluated_parts[order.order_id] for order in wanted], known)
    state = replace(state, fixed=_fixed_errors(state, whole, known)).in_job(evaluated_parts={}, evaluated=whole)
    if whole.test_ids:
        records = known(whole.test_ids)
        trained = tuple(state.determining) or None
        pretrained = error_table(records, whole.parent, known=trained) if whole.parent else None
        state = replace(state, pretrained=pretrained, finetuned=error_table(records, whole.final, known=trained))
    if config.student is None:
        return replace(state, phase=DONE)
    return replace(state, phase=PROBE if config.student.probe_steps else DONE, production={"product": whole.product})


def _open(config: Config, state: RunState) -> Iterator[m.Evaluate]:
    return (order for order in parts(config, state) if order.order_id not in state.job.evaluated_parts)


def _part_seconds(state: RunState) -> float:
    """Of a part, as measured in this job; 0 if none is done."""
    return median([answer.seconds for answer in state.job.evaluated_parts.values() if not answer.product] or [0.0])


def _pays(state: RunState, n_waiting: int) -> bool:
    return n_waiting * _part_seconds(state) > PAYS


def _whole(wanted: Sequence[m.Evaluate], found: Sequence[m.Evaluated], known: Lookup) -> m.Evaluated:
    """The parts as one answer, the parent's energies aligned to the labels it was trained on."""

    def joined(name: str) -> tuple:
        return tuple(chain.from_iterable(getattr(answer, name) for answer in found))

    shifts, test_ids = _shifts(wanted, found, known), joined("test_ids")
    fixed_ids = tuple(chain.from_iterable(order.fixed_ids for order in wanted))
    return m.Evaluated(
        order_id=found[0].order_id,
        seconds=sum(answer.seconds for answer in found),
        test_ids=test_ids,
        parent=_shifted(joined("parent"), test_ids, shifts, known),
        final=joined("final"),
        product=found[0].product,
        fixed_before=_shifted(joined("fixed_before"), fixed_ids, shifts, known),
        fixed_final=joined("fixed_final"),
    )


def _shifts(wanted: Sequence[m.Evaluate], found: Sequence[m.Evaluated], known: Lookup) -> dict[int, float]:
    """Energies by element (atomic number) that align the parent to the training frames; none without such.

    Of elements and ratios that these do not determine they say nothing: the tables leave such energies out.
    """
    counts, differences = [], []
    for order, answer in zip(wanted, found, strict=True):
        records = known(order.train_ids) if answer.energies else ()
        counts += compositions(records)
        differences += [r.label.energy - energy for r, energy in zip(records, answer.energies, strict=True)]
    return energies_by_element(counts, np.array(differences)) if counts else {}


def _shifted(
    predictions: tuple[Label, ...], label_ids: Sequence[str], shifts: Mapping[int, float], known: Lookup
) -> tuple[Label, ...]:
    if not shifts or not predictions:
        return predictions
    added = [sum(n * shifts.get(z, 0.0) for z, n in count.items()) for count in compositions(known(label_ids))]
    return tuple(replace(p, energy=p.energy + more) for p, more in zip(predictions, added, strict=True))


def _fixed_errors(state: RunState, answer: m.Evaluated, known: Lookup) -> dict[str, ErrorTable]:
    """On test.data: of the model the run was given, and of the final one.

    A teacher need not count energies from where these labels do, nor need its student: constants per element do not
    count as errors then.
    """
    if not answer.fixed_final:
        return {}
    records, distilling = known(state.fixed_ids), state.teacher is not None
    before, after = "teacher" if distilling else "pretrained", "final"
    trained = None if distilling else tuple(state.determining) or None
    return {
        name: error_table(records, predictions, not distilling, trained)
        for name, predictions in ((before, answer.fixed_before), (after, answer.fixed_final))
    }
