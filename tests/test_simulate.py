"""Runs played through with measured task times, on any number of ranks."""

from dataclasses import replace

import pytest
from test_roles import config, started

from pfdhpc.parallel.layout import plan_layout
from pfdhpc.workflow.simulate_run import simulate, splits
from pfdhpc.workflow.state import Replica, RoundRecord

DURATIONS = {
    "import": (1.0,),
    "explore.Cu": (0.1,),  # a step; 100 steps
    "select": (0.5,),
    "label.2": (2.0,),
    "train.step": (0.01,),  # 400 steps
    "train.rest": (1.0,),
    "evaluate": (3.0,),
}


def fresh(n_replicas=4, **changes):
    first = started().replicas[0]
    replicas = tuple(Replica(f"Cu-{i}", "Cu", first.start, (300.0, 300.0), (0.0, 0.0)) for i in range(n_replicas))
    state = started(replicas=replicas, durations={**DURATIONS, **changes}, models=(), round=0)
    return replace(state, history=(RoundRecord(0),), fresh=("given:a",), train_ids=(), given=1)


def setup(rounds=3, **changes):
    return config(**{"converge": {"max_rounds": rounds}, "select": {"max_sel": 8}, **changes})


def test_lock_step_takes_the_sum_of_its_parts():
    two = setup(rounds=2)
    outcome = simulate(two, fresh(), plan_layout(two.ranks, 4))
    exploring, labelling, training = 4 * 10.0, 8 * 2.0, 5.0
    expected = 1.0 + training + 2 * (exploring + 0.5 + labelling + training) + 3.0
    assert outcome.seconds == pytest.approx(expected + outcome.messages * outcome.service, rel=0.01)
    assert (outcome.rounds, outcome.labels) == (2, 16)
    assert outcome.busy["explorer"] == pytest.approx(2 * 40.5 / expected, rel=0.02)


def test_more_ranks_of_the_scarce_kind_help():
    four = setup(ranks={"explorer": {"teams": 4}})
    assert simulate(four, fresh(), plan_layout(four.ranks, 7)).seconds < 0.6 * simulate(
        setup(), fresh(), plan_layout(setup().ranks, 4)
    ).seconds  # fmt: skip


def test_overlapped_running_is_sooner_when_labels_are_long():
    long = {"label.2": (10.0, 12.0, 40.0)}
    lockstep, overlapped = setup(rounds=6), setup(rounds=6, overlap={"staleness": 2})
    layout = plan_layout(lockstep.ranks, 8)
    before, after = simulate(lockstep, fresh(**long), layout), simulate(overlapped, fresh(**long), layout)
    assert after.seconds < 0.8 * before.seconds
    assert after.busy["labeler"] > before.busy["labeler"]


def test_ten_thousand_ranks_and_where_one_coordinator_is_not_enough():
    many = setup(rounds=1, select={"max_sel": 2000}, ranks={"explorer": {"teams": 20}})
    many = many.model_copy(update={"explore": many.explore.model_copy(update={"steps": 100, "interval": 1})})
    quick = {"label.2": (0.05,), "explore.Cu": (1e-4,), "train.step": (1e-6,), "train.rest": (0.1,), "evaluate": (0.1,)}
    outcome = simulate(many, fresh(20, **quick), plan_layout(many.ranks, 10_000))
    assert outcome.labels == 2000
    assert outcome.coordinator > 0.7


def test_splits_cover_few_and_many_explorers():
    found = dict(splits(setup(), 100))
    assert {1, 2, 3} <= found.keys() and max(found) == 97
    for explorers, ranks in found.items():
        layout = plan_layout(ranks, 100)
        assert len(layout.of_role("explorer")) == explorers and not layout.of_role("idle")


def test_a_run_that_cannot_go_on_is_told():
    dead = replace(fresh(), fresh=(), given=0)
    broken = setup(select={"max_sel": 1})
    with pytest.raises(ValueError, match="stands still"):
        simulate(broken, replace(dead, replicas=()), plan_layout(broken.ranks, 4))


def test_a_selection_picks_what_it_picked():
    two = setup(rounds=2)
    assert simulate(two, fresh(), plan_layout(two.ranks, 4), picks=[0, 3, 1]).labels == 3 + 1


def test_what_orders_took_beside_the_work_counts():
    two = setup(rounds=2)
    plain = simulate(two, fresh(), plan_layout(two.ranks, 4)).seconds
    delays = {"late.train": (2.0,), "late.label": (0.5,)}
    slow = simulate(two, fresh(**delays), plan_layout(two.ranks, 4)).seconds
    assert slow - plain == pytest.approx(3 * 2.0 + 16 * 0.5, rel=0.01)


def test_each_measured_time_is_used_once_before_any_again():
    two = setup(rounds=2)  # three trainings
    alike, first = ({"train.rest": times} for times in ((4.0,), (10.0, 1.0, 1.0)))
    results = [simulate(two, fresh(**times), plan_layout(two.ranks, 4), seed=7).seconds for times in (alike, first)]
    assert results[0] == pytest.approx(results[1])
