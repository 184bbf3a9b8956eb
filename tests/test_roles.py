"""The rules of the loop, without any engine: what follows from which answer."""

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toys import bare

from pfdhpc import messages as m
from pfdhpc.config import parse
from pfdhpc.config.schema import TestSection as SharesSection
from pfdhpc.data import Frame, Label, Labelling, Origin, Record
from pfdhpc.data.error_metrics import error_table, exploring_errors
from pfdhpc.errors import StoreError
from pfdhpc.parallel.layout import plan_layout
from pfdhpc.workflow.apply import apply, lose
from pfdhpc.workflow.label_split import assign
from pfdhpc.workflow.plan import plan, seed_of
from pfdhpc.workflow.resume import resume
from pfdhpc.workflow.state import (
    DONE,
    EVALUATE,
    EXPLORE,
    LABEL,
    SELECT,
    TRAIN,
    JobState,
    Replica,
    RoundRecord,
    RunState,
)
from pfdhpc.workflow.state_codec import from_tree, to_tree

HERE = Path(__file__)


def config(**changes):
    values = {
        "workflow": "finetune",
        "model": {"checkpoint": str(HERE)},
        "system": [{"name": "Cu", "structures": [str(HERE)]}],
        "explore": {"steps": 100},
        "label": {"type": "ase", "options": {"calculator": "ase.calculators.emt.EMT"}},
        "train": {},
        "converge": {"force_rmse": 0.1, "max_rounds": 3},
    }
    for key, value in changes.items():
        values[key] = {**values.get(key, {}), **value}
    return parse(values, HERE.parent)


def frame(seed=0, n_atoms=2):
    rng = np.random.default_rng(seed)
    return Frame(np.full(n_atoms, 29), np.eye(3) * 4, rng.uniform(0, 4, (n_atoms, 3)))


def labelled(seed, error=0.0, version=1, system="Cu"):
    rng = np.random.default_rng(seed)
    truth = Label(rng.normal(), rng.normal(size=(2, 3)), rng.normal(size=(3, 3)))
    guess = Label(truth.energy + 2 * error, truth.forces + error, truth.virial + 2 * error)
    return Record(frame(seed), Origin(system, model_version=version), guess, truth, Labelling("pbe", "ase"))


def started(**changes):
    replicas = tuple(Replica(f"Cu-{i}", "Cu", frame(i), (300.0, 300.0), (0.0, 0.0)) for i in range(3))
    state = RunState(
        type_map=("Cu",),
        models=(m.ModelRef(0, "a"), m.ModelRef(1, "b")),
        replicas=replicas,
        history=(RoundRecord(0), RoundRecord(1, model_version=1)),
        phase=EXPLORE,
        round=1,
        train_ids=("x:pbe",),
        determining={"Cu": 1},
    )
    job = {item.name: changes.pop(item.name) for item in fields(JobState) if item.name in changes}
    return replace(state, **changes).in_job(**job)


def run_orders(setup, state, layout, answer):
    """Issue what the policy wants and answer each order, as often as it wants something."""
    for _ in range(50):
        orders = plan(setup, state, layout)
        if not orders:
            return state
        for team, order in orders:
            state = state.issued(order, team.name)
        for _, order in orders:
            state = apply(setup, state, answer(order), lambda ids: [])
    raise AssertionError("the policy never stops asking")


def test_exploration_gives_each_replica_to_one_idle_team_and_waits_for_all():
    setup = config(ranks={"explorer": {"teams": 2}})
    layout = plan_layout(setup.ranks, 6)
    state = started()
    first = plan(setup, state, layout)
    assert [(team.name, order.task.replica) for team, order in first] == [
        ("explorer-0", "Cu-0"),
        ("explorer-1", "Cu-1"),
    ]
    for team, order in first:
        state = state.issued(order, team.name)
    assert plan(setup, state, layout) == []
    state = apply(setup, state, m.Explored(first[0][1].order_id, 1.0, "Cu-0", b"end", 100, 5, ""), None)
    assert [order.task.replica for _, order in plan(setup, state, layout)] == ["Cu-2"]
    assert state.phase == EXPLORE and state.replicas[0].state == b"end"


def test_an_answer_is_filed_once():
    setup, state = config(), started().issued(bare(m.Explore, "explore/1/Cu-0"), "explorer-0")
    answer = m.Explored("explore/1/Cu-0", 1.0, "Cu-0", b"", 100, 5, "")
    once = apply(setup, state, answer, None)
    assert apply(setup, once, answer, None) == once


def test_a_replica_is_restarted_by_its_guard_and_retired_when_that_never_ends():
    setup, state = config(explore={"steps": 100, "max_restarts": 1}), started()
    for segment in range(2):
        order_id = f"explore/1/Cu-{segment}"
        state = replace(state, explored=()).issued(bare(m.Explore, order_id), "explorer-0")
        state = apply(setup, state, m.Explored(order_id, 1.0, "Cu-0", None, 10, 0, "temperature"), None)
    replica = state.replicas[0]
    assert replica.restarts == 2 and replica.retired and replica.state is None


def test_order_of_answers_does_not_matter():
    setup = config(ranks={"labeler": {"teams": 2}})
    records = [labelled(seed, error=0.3) for seed in range(6)]
    by_id = {record.label_id: record for record in records}
    pending = tuple(replace(record, label=None, labelling=None) for record in records)

    def outcome(order):
        state = started(phase=LABEL, pending=pending)
        for record in pending:
            state = state.issued(m.LabelFrames(f"label/{record.frame_id}", (record,)), "labeler-0")
        for index in order:
            done = m.LabelOutcome(records[index])
            answer = m.Labelled(f"label/{records[index].frame_id}", 1.0, (done,))
            state = apply(setup, state, answer, lambda ids: [by_id[key] for key in ids])
        return state

    forward, backward = outcome(range(6)), outcome(range(5, -1, -1))
    assert forward.phase == TRAIN
    assert _same(to_tree(forward), to_tree(backward))
    assert forward.current.errors.total.force == pytest.approx(0.3)


def test_rejected_frames_are_counted_and_never_asked_for_again():
    setup, record = config(), replace(labelled(1), label=None)
    state = started(phase=LABEL, pending=(record,)).issued(m.LabelFrames("label/a", ()), "labeler-0")
    state = apply(setup, state, m.Labelled("label/a", 1.0, (m.LabelOutcome(record, "SCF"),)), lambda ids: [])
    assert state.history[1].rejected == 1 and state.refused == (record.frame_id,)
    assert state.phase == EXPLORE and state.round == 2  # nothing to train on
    select = plan(setup, replace(state, phase=SELECT), plan_layout(setup.ranks, 4))[0][1]
    assert record.frame_id in select.reference_ids


def test_a_finished_round_trains_and_the_run_ends_when_the_criteria_hold():
    setup, layout = config(), plan_layout(config().ranks, 4)
    records = [labelled(seed, error=0.05) for seed in range(4)]
    state = started(phase=LABEL, pending=tuple(records))
    for record in records:
        state = state.issued(m.LabelFrames(f"label/{record.frame_id}", (record,)), "labeler-0")
        answer = m.Labelled(f"label/{record.frame_id}", 1.0, (m.LabelOutcome(record),))
        state = apply(setup, state, answer, lambda ids: [r for r in records if r.label_id in ids])
    ((team, order),) = plan(setup, state, layout)
    assert isinstance(order, m.Train) and order.parent == m.ModelRef(1, "b") and not order.first
    state = state.issued(order, team.name)
    state = apply(setup, state, m.Trained(order.order_id, 1.0, m.ModelRef(2, "c"), 9, 0.9), None)
    assert (state.phase, state.ended) == (EVALUATE, "converged")
    assert isinstance(plan(setup, state, layout)[0][1], m.Evaluate)


def test_limits_end_the_run_and_are_not_called_convergence():
    setup = config(converge={"force_rmse": 1e-9, "max_rounds": 1})
    state = started(phase=TRAIN, fresh=("y:pbe",)).issued(bare(m.Train, "train/1"), "trainer-0")
    state = apply(setup, state, m.Trained("train/1", 1.0, m.ModelRef(2, "c"), 9, 0.9), None)
    assert state.ended == "max_rounds"


def test_a_selection_that_finds_nothing_new_ends_the_run():
    setup, layout = config(), plan_layout(config().ranks, 4)
    state = started(phase=SELECT, explored=("Cu-0",))

    def answer(order):
        if isinstance(order, m.Select):
            return m.Selected(order.order_id, 1.0, (), m.SelectReport(10, {}, (), True))
        return m.Evaluated(order.order_id, 1.0, order.test_ids, (), ())

    state = run_orders(setup, state, layout, answer)
    assert (state.phase, state.ended) == (DONE, "saturated")


def test_a_lost_team_leaves_its_work_to_others():
    setup = config(ranks={"explorer": {"teams": 2}})
    layout = plan_layout(setup.ranks, 6)
    state = started()
    for team, order in plan(setup, state, layout):
        state = state.issued(order, team.name)
    state = lose(setup, state, "explorer-1", lambda ids: [])
    state = apply(setup, state, m.Explored("explore/1/Cu-0", 1.0, "Cu-0", b"", 100, 5, ""), None)
    assert [(team.name, order.task.replica) for team, order in plan(setup, state, layout)] == [("explorer-0", "Cu-1")]


def test_a_failed_training_ends_the_run_with_its_reason():
    state = started(phase=TRAIN, fresh=("y:pbe",)).issued(bare(m.Train, "train/1"), "trainer-0")
    state = apply(config(), state, m.Failed("train/1", 1.0, "loss is nan"), None)
    assert "loss is nan" in state.job.failure


def test_the_label_budget_bounds_the_selection():
    setup = config(select={"max_sel": 10}, converge={"max_labels": 4, "max_rounds": 3})
    order = plan(setup, started(phase=SELECT), plan_layout(setup.ranks, 4))[0][1]
    assert order.max_sel == 3


@given(n_rounds=st.integers(1, 6), size=st.integers(0, 9), holdout=st.floats(0, 0.6), validation=st.floats(0, 0.3))
def test_shares_hold_over_all_rounds_and_something_always_trains(n_rounds, size, holdout, validation):
    section = SharesSection(holdout=holdout, validation=validation)
    state, train = RunState(), ()
    for number in range(n_rounds):
        state, new = assign(state, [f"{number}-{i}:pbe" for i in range(size)], section)
        train += new
        state = replace(state, train_ids=train)
    total = n_rounds * size
    everything = (*state.train_ids, *state.validation_ids, *state.test_ids)
    assert len(set(everything)) == len(everything) == total
    assert not total or state.train_ids
    assert abs(len(state.test_ids) - holdout * total) <= 2


def test_a_state_survives_the_checkpoint_tree():
    state = started(pending=(labelled(3),), pretrained=error_table([labelled(1)], [labelled(1).prediction]))
    state = state.note(errors=exploring_errors([labelled(2, 0.1)])).spent("trainer", 2.5)
    again = from_tree(to_tree(state))
    assert _same(to_tree(again), to_tree(state))
    assert again.pending[0].frame_id == state.pending[0].frame_id
    assert again.current.errors == state.current.errors


def _same(left, right):
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(_same(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(_same, left, right))
    if isinstance(left, np.ndarray):
        return np.array_equal(left, right)
    return left == right or (left != left and right != right)


def test_energy_offsets_of_an_unaligned_model_do_not_count_as_error():
    records = [labelled(seed, version=0) for seed in range(5)]
    shifted = [
        replace(record, prediction=replace(record.prediction, energy=record.label.energy + 2 * 101.0))
        for record in records
    ]
    assert exploring_errors(shifted).total.energy < 1e-9
    aligned = [record.with_origin(model_version=1) for record in shifted]
    assert exploring_errors(aligned).total.energy == pytest.approx(101.0)


def test_errors_by_system_and_element_add_up():
    records = [labelled(1, 0.1), labelled(2, 0.3, system="surface")]
    table = exploring_errors(records)
    assert table.systems["Cu"].force == pytest.approx(0.1)
    assert table.systems["surface"].energy == pytest.approx(0.3)
    assert table.total.force == pytest.approx(np.sqrt((0.01 + 0.09) / 2))
    assert table.elements == {"Cu": pytest.approx(table.total.force)}


def test_seeds_depend_on_the_purpose_only():
    setup = config()
    assert seed_of(setup, "md", "a", 1) == seed_of(setup, "md", "a", 1)
    assert len({seed_of(setup, "md", "a", i) for i in range(100)}) == 100


def test_lines_on_the_terminal_show_any_text_as_it_is(capsys):
    from pfdhpc.report.terminal.event_log import EventLog
    from pfdhpc.store.run_directory import RunFolder

    setup, record = config(), replace(labelled(1), label=None)
    narrator = EventLog(setup, RunFolder(HERE.parent), plan_layout(setup.ranks, 4))
    before = started(phase=LABEL, pending=(record,)).issued(m.LabelFrames("label/a", ()), "labeler-0")
    answer = m.Labelled("label/a", 1.0, (m.LabelOutcome(record, "SCF [/bold] failed [ranks]"),))
    narrator.event(before, apply(setup, before, answer, lambda ids: []), answer)
    assert "rejected: SCF [/bold] failed [ranks]" in capsys.readouterr().out


def test_what_a_newer_version_wrote_is_refused_and_what_an_older_one_lacks_has_its_default():
    tree = to_tree(started())
    del tree["production"], tree["species"]
    assert from_tree(tree).species == ()
    for strange in ({**tree, "flavour": 1}, {**tree, "class:": "RunStateOfTomorrow"}):
        with pytest.raises(StoreError, match="newer pfdhpc"):
            from_tree(strange)


def test_a_training_without_a_label_left_is_a_clear_failure():
    state = started(phase=TRAIN, train_ids=(), fresh=())
    assert "no label to train on" in resume(config(), state, state).job.failure
