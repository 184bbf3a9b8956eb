"""Who does what, for any number of ranks."""

import pytest
from hypothesis import given, settings
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


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"trainer": {"ranks": 4}, "explorer": {"teams": 8}, "labeler": {"teams": 3, "ranks": 16}},
        {"explorer": {"teams": 0.9}, "labeler": {"teams": 0.9}},
    ],
)
def test_one_rank_plays_all_roles_whatever_is_asked_for(values):
    layout = plan_layout(section(**values), 1)
    assert layout.world_size == 1
    assert counts(layout) == (1, 1, 1, 0)
    assert all(len(team.ranks) == 1 for team in layout.teams)


def test_rest_and_fractions_adapt_to_the_world():
    ranks = section(explorer={"teams": 0.25}, labeler={"teams": "rest", "ranks": 4})
    assert counts(plan_layout(ranks, 64)) == (1, 15, 11, 3)
    assert counts(plan_layout(ranks, 128)) == (1, 31, 23, 3)


@pytest.mark.parametrize("size", [2, 3])
def test_too_few_ranks_are_refused_with_the_arithmetic(size):
    with pytest.raises(InputError, match=f"4 ranks are needed, {size} were given: 1 coordinator"):
        plan_layout(section(), size)


SECTIONS = st.builds(
    lambda trainer, explorers, labelers, team: section(
        trainer={"ranks": trainer}, explorer={"teams": explorers}, labeler={"teams": labelers, "ranks": team}
    ),
    trainer=st.integers(1, 8),
    explorers=st.one_of(st.integers(1, 20), st.floats(0.05, 0.9), st.just("rest")),
    labelers=st.one_of(st.integers(1, 20), st.floats(0.05, 0.9), st.just("rest")),
    team=st.integers(1, 6),
)


def fits(ranks, size):
    try:
        return plan_layout(ranks, size)
    except InputError as error:
        assert "ranks: " in str(error)
        return None


@given(ranks=SECTIONS, size=st.integers(2, 200))
def test_every_rank_has_exactly_one_place(ranks, size):
    layout = fits(ranks, size)
    if layout is not None:
        placed = sorted(rank for item in layout.teams for rank in item.ranks)
        assert placed == list(range(1, size))
        assert min(counts(layout)[:3]) >= 1


@settings(max_examples=30)
@given(ranks=SECTIONS, size=st.integers(2, 60))
def test_the_world_said_to_be_enough_is_the_smallest_that_is(ranks, size):
    try:
        smallest = smallest_world(ranks)
    except InputError as error:
        assert "no number of ranks" in str(error)
        assert fits(ranks, size) is None
        return
    assert fits(ranks, smallest)
    assert not any(fits(ranks, fewer) for fewer in range(max(2, smallest - 40), smallest))


def test_an_error_says_how_many_ranks_would_do():
    ranks = section(explorer={"teams": 0.5}, labeler={"teams": "rest", "ranks": 4})
    with pytest.raises(InputError) as caught:
        plan_layout(ranks, 6)
    assert f"start {smallest_world(ranks)} ranks" in str(caught.value)
    with pytest.raises(InputError, match="no number of ranks"):
        smallest_world(section(explorer={"teams": 0.9}, labeler={"teams": 0.9}))


def test_an_explorer_is_one_rank():
    layout = plan_layout(section(explorer={"teams": "rest"}, labeler={"teams": 1, "ranks": 3}), 9)
    assert [team.ranks for team in layout.of_role(EXPLORER)] == [(2,), (3,), (4,), (5,)]


def test_gpus_go_round_by_node_the_trainer_first():
    layout = plan_layout(section(explorer={"teams": 3}), 8)
    hosts = ["a"] * 4 + ["b"] * 4
    given_out = seats(layout, hosts, [["0", "1"]] * 8)
    assert given_out[0].gpu is None  # the coordinator
    assert [given_out[rank].gpu for rank in range(1, 8)] == ["0", "1", "0", "0", "1", "0", "1"]
    assert {seat.gpu for seat in seats(layout, hosts, [[]] * 8)} == {None}
