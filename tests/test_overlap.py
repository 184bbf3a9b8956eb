"""Overlapped running: what begins when, what is dropped, when it is over; whole runs with teams in threads."""

import time
from dataclasses import replace

import pytest
from test_roles import config, frame, labelled, started
from toys import ToyRun, bare, make_config

from pfdhpc import messages as m
from pfdhpc.data import Origin, Record
from pfdhpc.errors import EXIT_COMPLETE, EXIT_INCOMPLETE, InputError
from pfdhpc.parallel.layout import EXPLORER, LABELER, TRAINER, plan_layout
from pfdhpc.workflow.apply import apply, lose
from pfdhpc.workflow.convergence import converged, judged
from pfdhpc.workflow.flexible_teams import balanced, seated
from pfdhpc.workflow.overlap import flow, requeued, useful
from pfdhpc.workflow.plan import plan
from pfdhpc.workflow.resume import resume
from pfdhpc.workflow.state import DONE, DRAIN, EVALUATE, EXPLORE, LABEL, SELECT, WAIT, RoundRecord
from pfdhpc.workflow.state_codec import from_tree, to_tree

OVERLAP = {"staleness": 1, "min_new": 2, "queue": 4}


def waiting(seed, number=1):
    return Record(frame(seed), Origin("Cu", round=number, model_version=1))


def flowing(**changes):
    """Round 1 is over, explored by model 1; nothing is under way."""
    return started(**{"phase": WAIT, "train_ids": ("a:pbe",), **changes})


def kinds(orders):
    return sorted({type(order).__name__ for _, order in orders})


def test_a_round_begins_when_its_model_is_new_enough():
    setup, state = config(overlap=OVERLAP), flowing(pending=(waiting(5),))
    assert flow(setup, state).phase == EXPLORE  # round 2, after one training
    later = replace(state, round=2, history=(*state.history, RoundRecord(2, 1)))
    assert flow(setup, later).phase == WAIT
    assert flow(config(overlap={**OVERLAP, "staleness": "inf"}), later).phase == EXPLORE
    assert flow(setup, replace(later, pending=())).phase == EXPLORE  # no new model can come


def test_a_full_queue_holds_exploration_back():
    setup = config(overlap=OVERLAP, select={"max_sel": 2})
    assert flow(setup, flowing(pending=tuple(map(waiting, range(2))))).phase == EXPLORE
    assert flow(setup, flowing(pending=tuple(map(waiting, range(3))))).phase == WAIT


def test_labels_and_a_training_go_on_beside_exploration():
    setup, layout = config(overlap=OVERLAP), plan_layout(config().ranks, 4)
    state = started(phase=EXPLORE, train_ids=("a:pbe",), pending=(waiting(5),), fresh=("b:pbe", "c:pbe"))
    assert kinds(plan(setup, state, layout)) == ["Explore", "LabelFrames", "Train"]
    assert kinds(plan(setup, replace(state, fresh=("b:pbe",)), layout)) == ["Explore", "LabelFrames"]
    old = replace(state, fresh=("b:pbe",), elapsed=1e5)
    assert kinds(plan(setup, old, layout)) == ["Explore", "LabelFrames", "Train"]


def test_labels_that_come_during_a_training_wait_for_the_next():
    setup = config(overlap=OVERLAP)
    state = replace(
        started(phase=EXPLORE, train_ids=("a:pbe",), fresh=("b:pbe",)).issued(bare(m.Train, "train/1"), "trainer-0"),
        training=("b:pbe",),
    )
    state = replace(state, fresh=("b:pbe", "c:pbe"))
    state = apply(setup, state, m.Trained("train/1", 1.0, m.ModelRef(2, "c"), 1, 0.5), lambda ids: [])
    assert state.fresh == ("c:pbe",) and "b:pbe" in state.label_ids and state.trained == 2


def test_a_selection_ranks_the_queue_anew_and_drops_what_has_become_redundant():
    begun, good, dull = waiting(1), waiting(2), waiting(3)
    new = waiting(4, number=2)
    history = (RoundRecord(0), RoundRecord(1, 1, selected=3), RoundRecord(2, 1))
    state = flowing(pending=(begun, dull, good), history=history, round=2)
    state = state.issued(m.LabelFrames(f"label/{begun.frame_id}", (begun,)), "labeler-0")
    offered = (good.frame_id, dull.frame_id)
    state = replace(state, picked=(good, new)).in_job(ranking=(new.frame_id, good.frame_id), offered=offered)
    state = requeued(config(overlap=OVERLAP), state)
    assert [record.frame_id for record in state.pending] == [item.frame_id for item in (begun, new, good)]
    assert [(item.selected, item.dropped) for item in state.history] == [(0, 0), (3, 1), (1, 0)]


def test_a_frame_that_was_labelled_while_the_selection_ran_is_not_queued_again():
    done = waiting(1)
    state = flowing(picked=(done,), fresh=(f"{done.frame_id}:pbe",), ranking=(done.frame_id,))
    assert requeued(config(overlap=OVERLAP), state).pending == ()


def test_what_a_labeler_gave_back_while_the_selection_ran_was_not_ranked_and_stays():
    back = waiting(1)
    state = requeued(config(overlap=OVERLAP), flowing(pending=(back,), picked=(), offered=()))
    assert state.pending == (back,) and state.history[1].dropped == 0


def test_the_budget_and_the_queue_hold_whatever_labelers_began_meanwhile():
    fresh = tuple(waiting(seed, number=2) for seed in range(10, 16))
    begun = tuple(map(waiting, range(3)))
    history = (RoundRecord(0), RoundRecord(1, 1, selected=3), RoundRecord(2, 1))
    state = flowing(pending=begun, picked=fresh, ranking=tuple(r.frame_id for r in fresh), history=history, round=2)
    for record in begun:
        state = state.issued(m.LabelFrames(f"label/{record.frame_id}", (record,)), "labeler-0")
    limited = config(overlap=OVERLAP, converge={"max_labels": 6})
    assert [r.frame_id for r in requeued(limited, state).pending[3:]] == [r.frame_id for r in fresh[:2]]  # 1 is paid
    assert len(requeued(config(overlap=OVERLAP), state).pending) == 3 + 4


def test_the_selection_is_told_what_waits_and_what_is_with_labelers():
    setup, layout = config(overlap=OVERLAP), plan_layout(config().ranks, 4)
    begun, queued, initial = waiting(1), waiting(2), waiting(3, number=0)
    state = started(phase=SELECT, pending=(begun, queued, initial)).issued(
        m.LabelFrames(f"label/{begun.frame_id}", (begun,)), "labeler-0"
    )
    order = next(order for _, order in plan(setup, state, layout) if isinstance(order, m.Select))
    assert order.again == (queued,)
    assert {record.frame_id for record in order.reference} == {begun.frame_id, initial.frame_id}
    assert {begun.frame_id, initial.frame_id} <= set(order.reference_ids)


def test_a_run_without_explorers_labels_what_was_picked_and_trains_on_all_of_it():
    setup, layout = config(overlap=OVERLAP), plan_layout(config().ranks, 4)
    state = started(phase=EXPLORE, train_ids=("a:pbe",), pending=(waiting(5),), fresh=("b:pbe",))
    state = state.in_job(missing=frozenset({EXPLORER}))
    assert kinds(plan(setup, state, layout)) == ["LabelFrames"]
    at_work = state.issued(m.LabelFrames("label/5", (waiting(5),)), "labeler-0")
    assert kinds(plan(setup, at_work, layout)) == [] and useful(at_work)
    assert kinds(plan(setup, replace(state, pending=()), layout)) == ["Train"]
    over = replace(state, pending=(), fresh=()).issued(bare(m.Explore, "explore/1/Cu-0"), "explorer-0")
    assert kinds(plan(setup, over, layout)) == [] and not useful(over)


def test_a_run_without_labelers_trains_on_what_is_there():
    setup, layout = config(overlap=OVERLAP), plan_layout(config().ranks, 4)
    state = started(phase=EXPLORE, train_ids=("a:pbe",), pending=(waiting(5),), fresh=("b:pbe",))
    state = state.in_job(missing=frozenset({LABELER}), lost=frozenset({"labeler-0"}))
    assert kinds(plan(setup, state, layout)) == ["Train"]
    without_trainer = state.in_job(missing=frozenset({TRAINER}), lost=frozenset({"trainer-0"}))
    assert kinds(plan(setup, without_trainer, layout)) == []


def with_labels(state, errors, missing=0):
    """Ten frames of round 1 came back with some error, ``missing`` of them have not."""
    setup = config(overlap=OVERLAP)
    records = [labelled(seed, errors) for seed in range(10)]
    records = [replace(item, origin=replace(item.origin, round=1)) for item in records]
    state = replace(state, pending=tuple(replace(item, label=None) for item in records))
    by_id = {record.label_id: record for record in records}
    for record in records[missing:]:
        state = state.issued(m.LabelFrames(f"label/{record.frame_id}", (record,)), "labeler-0")
        answer = m.Labelled(f"label/{record.frame_id}", 1.0, (m.LabelOutcome(record),))
        state = apply(setup, state, answer, lambda ids: [by_id[key] for key in ids])
    return state


def test_a_model_is_judged_by_its_own_frames_without_the_slowest():
    state = with_labels(started(phase=EXPLORE, train_ids=("a:pbe",)), 0.05, missing=2)
    assert [item.round for item in judged(state)] == [1]
    assert state.history[1].errors.total.n_frames == 8
    assert converged(config(overlap=OVERLAP).converge, state)
    assert (state.phase, state.ended) == (DRAIN, "converged")
    many = with_labels(started(phase=EXPLORE, train_ids=("a:pbe",)), 0.05, missing=4)
    assert judged(many) == [] and many.phase == EXPLORE


def test_the_last_labels_can_make_a_run_that_reached_a_limit_converged():
    state = with_labels(started(phase=DRAIN, ended="max_rounds", train_ids=("a:pbe",)), 0.05)
    state = replace(state.issued(bare(m.Train, "train/1"), "trainer-0"), training=state.fresh)
    setup = config(overlap=OVERLAP)
    state = apply(setup, state, m.Trained("train/1", 1.0, m.ModelRef(2, "c"), 1, 0.5), lambda ids: [])
    assert (state.phase, state.ended) == (EVALUATE, "converged")


def test_a_newer_model_looks_before_a_run_is_saturated():
    history = (RoundRecord(0), RoundRecord(1, model_version=0, saturated=True))
    assert flow(config(overlap=OVERLAP), flowing(history=history)).phase == EXPLORE
    history = (RoundRecord(0), RoundRecord(1, model_version=1, saturated=True))
    assert flow(config(overlap=OVERLAP), flowing(history=history)).ended == "saturated"


def test_a_complete_run_stays_complete_although_its_last_round_was_never_judged():
    setup = config(overlap=OVERLAP)
    state = started(phase=DONE, ended="converged", train_ids=("a:pbe",))
    assert resume(setup, state, state).phase == DONE
    assert resume(setup, state, state, ["converge.force_rmse"]).phase == EXPLORE


def test_a_training_that_was_begun_is_done_again_as_it_was():
    setup, layout = config(overlap=OVERLAP), plan_layout(config().ranks, 4)
    kept = from_tree(to_tree(flowing(phase=EXPLORE, fresh=("b:pbe", "c:pbe"), training=("b:pbe",))))
    order = next(order for _, order in plan(setup, kept, layout) if isinstance(order, m.Train))
    assert order.fresh_ids == ("b:pbe",)


def test_a_team_that_has_told_of_its_absence_is_not_waited_for():
    setup = config()
    state = started(phase=SELECT)
    for team in ("explorer-0", "explorer-1"):
        state = state.issued(bare(m.Select, f"select/1.0/{team}"), team)
    state = apply(setup, state, m.Unselected("select/1.0/explorer-1", 1.0, "", "over"), lambda ids: [])
    report = m.SelectReport(3, {}, (), False, (), ("explorer-1",))
    state = apply(setup, state, m.Selected("select/1.0/explorer-0", 1.0, (), report), lambda ids: [])
    assert state.job.late == frozenset()


def test_a_lost_labeler_skips_no_selection():
    setup = config()
    state = started(phase=SELECT)
    assert lose(setup, state, "labeler-0", lambda ids: []).phase == SELECT


def test_a_drained_run_trains_on_what_is_left_and_is_evaluated():
    setup, layout = config(overlap=OVERLAP), plan_layout(config().ranks, 4)
    state = flowing(fresh=("b:pbe",), round=3, history=tuple(RoundRecord(i, 1) for i in range(4)))
    state = flow(setup, state)
    assert (state.phase, state.ended) == (DRAIN, "max_rounds")
    assert kinds(plan(setup, state, layout)) == ["Train"]
    state = replace(state.issued(bare(m.Train, "train/1"), "trainer-0"), training=("b:pbe",))
    assert flow(setup, state).phase == DRAIN
    state = apply(setup, state, m.Trained("train/1", 1.0, m.ModelRef(2, "c"), 1, 0.5), lambda ids: [])
    assert state.phase == EVALUATE


@pytest.mark.parametrize(
    "overlap, problem",
    [({"staleness": -1}, "negative"), ({"queue": 3}, "overlap.queue: only read with"), ({"staleness": "often"}, "inf")],
)
def test_bad_keys_are_refused(overlap, problem):
    with pytest.raises(InputError, match=problem):
        config(overlap=overlap)


def make_run(tmp_path, staleness=1, size=7, **changes):
    values = {"ranks": {"explorer": {"teams": 2}, "labeler": {"teams": 3}}, "converge": {"max_rounds": 4}}
    overlap = {"staleness": staleness} if staleness else {}
    return ToyRun(make_config(tmp_path, **{**values, "overlap": overlap, **changes}), size=size, threads=size > 4)


@pytest.mark.parametrize("staleness, size", [(1, 7), (2, 4), ("inf", 7)])
def test_a_whole_run_keeps_the_bound_and_labels_everything_once(tmp_path, staleness, size):
    run = make_run(tmp_path, staleness, size, ranks={} if size == 4 else {"explorer": {"teams": 2}})
    assert run.run() == EXIT_COMPLETE
    state = run.state
    assert state.ended == "max_rounds" and state.round == 4 and not state.pending and not state.fresh
    assert len(run.store) == sum(item.labelled for item in state.history) == len(set(state.label_ids))
    assert all(item.selected == item.labelled + item.rejected + item.dropped for item in state.history[1:])
    if staleness != "inf":
        assert all(item.model_version >= item.round - 1 - staleness for item in state.history[1:])
    records = {record.origin.round: record.origin.model_version for record in run.store.records()}
    assert all(state.history[number].model_version == version for number, version in records.items() if number)


@pytest.mark.parametrize("after", [2, 6, 9, 13, 20])
def test_stopped_anywhere_it_goes_on_and_loses_no_label(tmp_path, after):
    first = make_run(tmp_path, size=4, ranks={}).stop_after(after)
    assert first.run() == EXIT_INCOMPLETE
    kept = len(first.store)
    second = make_run(tmp_path, size=4, ranks={})
    assert second.run() == EXIT_COMPLETE
    assert len(second.store) >= max(kept, 4 + 3)
    ids = second.state.label_ids
    assert len(ids) == len(set(ids)) == len(second.store)


@pytest.mark.parametrize("way", [(1, 0), (0, 1)])
def test_a_run_may_go_on_under_the_other_policy(tmp_path, way):
    first = make_run(tmp_path, way[0], size=4, ranks={}).stop_after(12)
    assert first.run() == EXIT_INCOMPLETE
    second = make_run(tmp_path, way[1], size=4, ranks={})
    assert second.run() == EXIT_COMPLETE
    assert second.state.round == 4 and len(second.store) == second.state.n_labels


def test_slow_labels_do_not_stop_exploration(tmp_path):
    """With labels that take as long as all else together, explorers and labelers work at the same time."""
    (tmp_path / "slow.py").write_text(
        "import time\nfrom ase.calculators.lj import LennardJones\n"
        "class Slow(LennardJones):\n"
        "    def __init__(self):\n        super().__init__(sigma=2.3, epsilon=0.4, rc=6.0)\n"
        "    def calculate(self, *args, **more):\n        time.sleep(0.3)\n        super().calculate(*args, **more)\n"
    )
    run = make_run(tmp_path, "inf", label={"options": {"calculator": "slow.Slow", "path": str(tmp_path)}})
    assert run.run() == EXIT_COMPLETE
    between = [
        place
        for place, event in enumerate(run.events)
        if event == "Explored" and "Labelled" in run.events[:place] and "Labelled" in run.events[place:]
    ]
    assert between


def test_flexible_teams_go_where_the_queue_wants_them():
    setup = config(overlap=OVERLAP, ranks={"flexible": {"teams": 2}, "labeler": {"teams": 1}})
    layout = plan_layout(setup.ranks, 6)
    short, full = flowing(pending=(waiting(1),)), flowing(pending=tuple(map(waiting, range(5))))
    assert balanced(setup, short, layout).job.turned == frozenset()
    once = balanced(setup, full, layout)
    assert once.job.turned == {"flexible-0", "flexible-1"} and len(seated(layout, once).of_role(LABELER)) == 3
    assert balanced(setup, replace(once, pending=(waiting(1),)), layout).job.turned == once.job.turned  # hysteresis
    alone = flowing(pending=(waiting(1),), lost=frozenset({"labeler-0"}))
    assert balanced(setup, alone, layout).job.turned == {"flexible-0"}  # or nobody would label it
    assert balanced(setup, replace(once, pending=()), layout).job.turned == frozenset()
    exploring = replace(full, phase=EXPLORE, explored=("Cu-0",))
    assert balanced(setup, exploring, layout).job.turned == frozenset()  # it may hold candidates
    lockstep = config(ranks={"flexible": {"teams": 2}, "labeler": {"teams": 1}})
    assert len(balanced(lockstep, replace(full, phase=LABEL), layout).job.turned) == 2
    assert len(seated(layout, balanced(lockstep, replace(full, phase=EXPLORE), layout)).of_role(EXPLORER)) == 3


@pytest.mark.parametrize("staleness", [0, 1])
def test_a_run_with_flexible_teams(tmp_path, staleness):
    ranks = {"explorer": {"teams": 1}, "labeler": {"teams": 1}, "flexible": {"teams": 2}}
    run = make_run(tmp_path, staleness, size=6, ranks=ranks)
    assert run.run() == EXIT_COMPLETE
    assert run.state.round == 4 and len(run.store) == run.state.n_labels


def test_flexible_teams_change_no_pick_in_lockstep(tmp_path):
    plain = make_run(tmp_path / "a", 0, size=4, ranks={})
    flexible = make_run(tmp_path / "b", 0, size=6, ranks={"labeler": {"teams": 1}, "flexible": {"teams": 2}})
    assert plain.run() == flexible.run() == EXIT_COMPLETE
    assert sorted(plain.state.label_ids) == sorted(flexible.state.label_ids)


def test_a_stop_is_obeyed_while_everything_is_under_way(tmp_path):
    run = make_run(tmp_path)
    run.stop_after(10)
    started_at = time.monotonic()
    assert run.run() == EXIT_INCOMPLETE
    assert time.monotonic() - started_at < 60
