"""The last evaluation: cut into parts, which teams that are idle by then share, whatever becomes of them."""

import time
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
import toys
from test_roles import config, labelled, started
from toys import ToyRun, ToyTrainer, make_config

from pfdhpc import messages as m
from pfdhpc.data import Label
from pfdhpc.errors import EXIT_COMPLETE
from pfdhpc.parallel.layout import plan_layout
from pfdhpc.roles import evaluator
from pfdhpc.workflow import final_evaluation
from pfdhpc.workflow.apply import apply, lose
from pfdhpc.workflow.plan import plan
from pfdhpc.workflow.state import DONE, EVALUATE
from pfdhpc.workflow.state_codec import to_tree

RECORDS = {record.label_id: record for record in map(labelled, range(100))}
IDS = tuple(sorted(RECORDS))
SHIFT = 1.5
"""eV an atom by which the energies of the parent are off."""


def known(ids):
    return [RECORDS[key] for key in ids]


def evaluating(**changes):
    values = {"phase": EVALUATE, "train_ids": IDS[:60], "test_ids": IDS[60:90], "fixed_ids": IDS[90:], "ended": "x"}
    return started(**values | changes)


def predicted(ids, off):
    return [
        replace(r.label, energy=r.label.energy + off * len(r.frame), forces=r.label.forces + off) for r in known(ids)
    ]


def answered(order, seconds=1.0, role="trainer"):
    """What a team that does an order finds out."""
    before = [predicted(ids, SHIFT) for ids in (order.train_ids, order.test_ids, order.fixed_ids)]
    after = [tuple(predicted(ids, 0.01)) for ids in (order.test_ids, order.fixed_ids)]
    energies = tuple(label.energy for label in before[0])
    return m.Evaluated(
        order.order_id, seconds, order.test_ids, tuple(before[1]), after[0], "",
        tuple(before[2]), after[1], energies, role,
    )  # fmt: skip


def given_out(state, orders):
    for team, order in orders:
        state = state.issued(order, team.name)
    return state


def test_every_frame_is_in_one_part():
    orders = final_evaluation.parts(config(), evaluating())
    for name in ("train_ids", "test_ids", "fixed_ids"):
        assert tuple(key for order in orders for key in getattr(order, name)) == getattr(evaluating(), name)
    sizes = [len(order.train_ids) + len(order.test_ids) + len(order.fixed_ids) for order in orders]
    assert max(sizes) <= final_evaluation.PART and len({order.order_id for order in orders}) == len(orders) == 4
    empty = evaluating(train_ids=(), test_ids=(), fixed_ids=())
    assert len(final_evaluation.parts(config(), empty)) == 1, "a run without frames to test on comes to its end, too"


def test_idle_teams_help_as_soon_as_that_saves_time():
    setup = config(ranks={"explorer": {"teams": 2}})
    layout, state = plan_layout(setup.ranks, 6), evaluating()
    first = plan(setup, state, layout)
    assert [team.name for team, _ in first] == ["trainer-0"], "how long a part takes is not known yet"
    state = given_out(state, first)
    quick = apply(setup, state, answered(first[0][1], 0.1), known)
    assert [team.name for team, _ in plan(setup, quick, layout)] == ["trainer-0"]
    long = apply(setup, state, answered(first[0][1], 30.0), known)
    shared = plan(setup, long, layout)
    assert [team.name for team, _ in shared] == ["trainer-0", "explorer-0", "explorer-1"]
    assert len({order.order_id for _, order in (*first, *shared)}) == 4
    assert long.progress == state.progress, "a part alone is lost to the next job"


@pytest.mark.parametrize("size", [1, 6])
def test_who_can_help(size):
    setup = config(ranks={"explorer": {"teams": 1}, "flexible": {"teams": 1}} if size > 1 else {})
    layout = plan_layout(setup.ranks, size)
    slow = evaluating(
        turned=frozenset({"flexible-0"}), evaluated_parts={"other": m.Evaluated("other", 30.0, (), (), ())}
    )
    names = {team.name for team, _ in plan(setup, slow, layout)}
    assert names == ({"trainer-0", "explorer-0", "flexible-0"} if size > 1 else {"trainer-0"})
    taught = replace(slow, teacher=m.ModelRef(0, "t"))
    assert any(final_evaluation.can_help(setup, taught, layout, team) for team in layout.of_role("labeler")) == (
        size > 1
    )
    assert not any(final_evaluation.can_help(setup, slow, layout, team) for team in layout.of_role("labeler"))


def test_an_evaluation_is_begun_where_all_of_it_fits_with_the_help_it_will_have():
    setup = config(ranks={"explorer": {"teams": 2}})
    layout, state = plan_layout(setup.ranks, 6), evaluating(durations={"evaluate": (20.0,)})
    assert final_evaluation.seconds_left(setup, state, layout, 30.0) == pytest.approx(4 * 30.0 / 3)
    assert final_evaluation.seconds_left(setup, state, layout, 2.0) == pytest.approx(4 * 2.0), "too little to share"
    assert plan(setup, state, layout, left=45.0) and not plan(setup, state, layout, left=35.0)


def test_the_part_of_a_lost_team_is_for_another_one():
    setup = config(ranks={"explorer": {"teams": 2}})
    layout = plan_layout(setup.ranks, 6)
    slow = evaluating(evaluated_parts={"other": m.Evaluated("other", 30.0, (), (), ())})
    orders = plan(setup, slow, layout)
    state = given_out(slow, orders)
    theirs = next(order for team, order in orders if team.name == "explorer-1")
    state = lose(setup, state, "explorer-1", known)
    state = apply(setup, state, answered(orders[0][1]), known)
    assert (layout.of_role("trainer")[0], theirs) in plan(setup, state, layout)
    assert "explorer-1" not in {team.name for team, _ in plan(setup, state, layout)}
    assert final_evaluation.patience(state) < 300, "a team that hangs is not waited for as a training is"


def test_the_errors_do_not_depend_on_who_did_what_and_when():
    setup, found = config(), []
    for order in permutations(range(4)):
        state = evaluating()
        orders = final_evaluation.parts(setup, state)
        for place in order:
            role = "explorer" if place % 2 else "trainer"
            state = state.issued(orders[place], f"{role}-0")
            state = apply(setup, state, answered(orders[place], role=role), known)
        assert state.phase == DONE and state.job.evaluated.test_ids == IDS[60:90] and not state.job.evaluated_parts
        found.append((state.pretrained, state.finetuned, dict(state.fixed)))
    assert all(item == found[0] for item in found)
    pretrained, finetuned, fixed = found[0]
    assert pretrained.total.force == pytest.approx(SHIFT) and finetuned.total.force == pytest.approx(0.01)
    assert pretrained.total.energy == pytest.approx(0.0, abs=1e-9), "it is aligned to the training frames"
    assert fixed["pretrained"].total.energy == pytest.approx(0.0, abs=1e-9)
    assert fixed["final"].total.energy == pytest.approx(0.01)
    assert set(state.seconds) == {"trainer", "explorer"}
    assert not {"evaluated", "evaluated_parts"} & to_tree(state).keys(), "the next job makes it again"


def test_only_a_trainer_makes_the_model_for_production():
    state = evaluating(teacher=m.ModelRef(0, "t"))
    setup = config().model_copy(update={"workflow": "distill"})
    setup = setup.model_copy(update={"student": object()})
    first, *others = final_evaluation.parts(setup, state)
    assert first.product and not any(order.product for order in others) and first.parent is None
    assert len(first.train_ids) == final_evaluation.COMPARED and not any(order.train_ids for order in others)
    layout = plan_layout(config().ranks, 4)
    slow = state.in_job(evaluated_parts={"other": m.Evaluated("other", 30.0, (), (), ())})
    explorer = layout.of_role("explorer")
    assert first not in [order for _, order in final_evaluation.orders(setup, slow, [], explorer)]


class Lone(ToyTrainer):
    """A toy that evaluates as the others would."""

    def handle(self, order):
        if not isinstance(order, m.Evaluate):
            return super().handle(order)
        self.records.update((record.label_id, record) for record in order.records)
        return evaluator.Evaluator(self.config, self.folder, "trainer").evaluate(order, self.records)


class Engine:
    """Predictions that tell the model and the frame."""

    def predict(self, checkpoint, frames):
        place = len(checkpoint.read_text()) % 7
        return [Label(frame.positions.sum() + place, np.sin(frame.positions + place)) for frame in frames]


@pytest.mark.parametrize("fate", ["helps", "fails", "hangs"])
def test_a_whole_run_has_the_same_errors_with_helpers_and_with_one_that_is_lost(tmp_path, monkeypatch, fate):
    monkeypatch.setattr(final_evaluation, "PART", 1)
    monkeypatch.setattr(final_evaluation, "PAYS", -1.0)
    monkeypatch.setattr(final_evaluation, "LOADING", 0.5)
    monkeypatch.setattr(evaluator, "make_trainer", lambda *_: Engine())
    monkeypatch.setattr(toys, "ToyTrainer", Lone)
    did, plain = [], evaluator.Evaluator.evaluate

    def evaluate(self, order, records):
        did.append(self._role)
        if self._role == "explorer" and fate != "helps":
            if fate == "fails":
                raise MemoryError("no room")
            time.sleep(2.0)  # its answer comes when others have done its work
        return plain(self, order, records)

    found = []  # as text: a virial that no frame has is not a number
    for threads in (False, True):
        setup = make_config(tmp_path / str(threads), ranks={"explorer": {"teams": 1}}, converge={"max_rounds": 1})
        Lone.config = setup
        run = ToyRun(setup, 1 if not threads else 4, threads=threads)
        monkeypatch.setattr(evaluator.Evaluator, "evaluate", evaluate if threads else plain)
        assert run.run() == EXIT_COMPLETE
        found.append(f"{run.state.pretrained} {run.state.finetuned} {run.state.job.evaluated.test_ids}")
    assert found[0] == found[1] and "explorer" in did
    told = "".join(run.lines)
    assert ("retired: it cannot help" in told) == (fate == "fails")
    assert ("given up" in told) == (fate == "hangs")
