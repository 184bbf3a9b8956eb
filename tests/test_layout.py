"""Who does what, for any number of ranks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pfdhpc.config.ranks import RanksSection
from pfdhpc.errors import InputError
from pfdhpc.parallel.devices import seats
from pfdhpc.parallel.layout import EXPLORER, IDLE, LABELER, TRAINER, plan_layout, smallest_world


def section(**values):
    return RanksSection.model_validate(values)


def counts(layout):
    return tuple(len(layout.of_role(role)) for role in (TRAINER, EXPLORER, LABELER, IDLE))


def test_smallest_world_has_one_of_each():
    assert smallest_world(section()) == 4
    assert counts(plan_layout(section(), 4)) == (1, 1, 1, 0)


def test_one_rank_plays_all_roles():
    layout = plan_layout(section(), 1)
    assert layout.world_size == 1
    assert counts(layout) == (1, 1, 1, 0)


def test_rest_and_fractions_adapt_to_the_world():
    ranks = section(explorer={"teams": 0.25}, labeler={"teams": "rest", "ranks": 4})
    assert counts(plan_layout(ranks, 64)) == (1, 15, 11, 3)
    assert counts(plan_layout(ranks, 128)) == (1, 31, 23, 3)


@pytest.mark.parametrize("size", [2, 3])
def test_too_few_ranks_are_refused_with_the_arithmetic(size):
    with pytest.raises(InputError, match=f"4 ranks are needed, {size} were given: 1 coordinator"):
        plan_layout(section(), size)


@given(
    size=st.integers(1, 200),
    trainer=st.integers(1, 8),
    explorers=st.one_of(st.integers(1, 20), st.floats(0.05, 0.9), st.just("rest")),
    labelers=st.one_of(st.integers(1, 20), st.floats(0.05, 0.9), st.just("rest")),
    team=st.integers(1, 6),
)
def test_every_rank_has_exactly_one_place(size, trainer, explorers, labelers, team):
    ranks = section(
        trainer={"ranks": trainer}, explorer={"teams": explorers}, labeler={"teams": labelers, "ranks": team}
    )
    try:
        layout = plan_layout(ranks, size)
    except InputError as error:
        assert "ranks are needed" in str(error)
        return
    placed = sorted(rank for item in layout.teams for rank in item.ranks)
    world = smallest_world(ranks) if size == 1 else size
    assert placed == list(range(1, world))
    assert min(counts(layout)[:3]) >= 1


def test_gpus_go_round_by_node_the_trainer_first():
    layout = plan_layout(section(explorer={"teams": 3}), 8)
    hosts = ["a"] * 4 + ["b"] * 4
    given_out = seats(layout, hosts, [["0", "1"]] * 8)
    assert given_out[0].gpu is None  # the coordinator
    assert [given_out[rank].gpu for rank in range(1, 8)] == ["0", "1", "0", "0", "1", "0", "1"]
    assert {seat.gpu for seat in seats(layout, hosts, [[]] * 8)} == {None}
