"""What an explorer team holds back, and what the policy asks of a selection."""

import threading
from dataclasses import replace

import models
import numpy as np
import pytest
from ase.build import bulk
from selections import make_order, make_records
from test_roles import config, labelled, started
from toys import bare

from pfdhpc import messages as m
from pfdhpc.config.select import DescriptorSection, SelectSection
from pfdhpc.data import Frame
from pfdhpc.data.error_metrics import exploring_errors
from pfdhpc.errors import InputError
from pfdhpc.parallel.channel import local_channels
from pfdhpc.parallel.layout import plan_layout
from pfdhpc.roles.candidates import Selector
from pfdhpc.selection.quests import make_quests
from pfdhpc.store.run_directory import RunFolder
from pfdhpc.workflow.apply import apply
from pfdhpc.workflow.plan import plan, trust_band
from pfdhpc.workflow.state import LABEL, SELECT

CANDIDATES = make_records(6)
REFERENCE = make_records(3, seed=1, level="pbe")


def with_species(order):
    return replace(order, species=(14,))


def make_selectors(tmp_path, n, **select):
    setup = config(select=select)
    channels = local_channels(n)
    folder = RunFolder(tmp_path / "run")
    return [Selector(setup, folder, f"explorer-{rank}", channels[rank]) for rank in range(n)]


def test_candidates_of_a_late_team_wait_for_the_next_round(tmp_path):
    first, late = make_selectors(tmp_path, 2, patience=0.2, blocks=1)
    first.hold(1, "a", CANDIDATES[:2])
    late.hold(1, "b", CANDIDATES[2:4])
    teams = {"explorer-0": 0, "explorer-1": 1}
    orders = [
        replace(with_species(make_order(teams, team, REFERENCE, blocks=1)), replicas=("a", "b")) for team in teams
    ]
    done = first.select(orders[0])
    assert done.report.n_candidates == 2 and done.report.absent == ("explorer-1",)
    missed = late.select(orders[1])
    assert isinstance(missed, m.Unselected) and missed.absent == ""
    late.hold(2, "b", CANDIDATES[4:])
    first.hold(2, "a", ())
    orders = [
        replace(with_species(make_order(teams, team, REFERENCE, round=2, blocks=1)), replicas=("a", "b"))
        for team in teams
    ]
    results = {}
    threads = [
        threading.Thread(target=lambda part, order: results.update({part: part.select(order)}), args=pair)
        for pair in zip((first, late), orders, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert results[first].report.n_candidates == 4  # those of round 1 and of round 2
    alone = replace(with_species(make_order({"explorer-1": 1}, "explorer-1", REFERENCE, round=3)), replicas=("b",))
    assert late.select(alone).report.n_candidates == 0  # what a selection has looked at is gone


def test_replicas_that_were_asked_of_another_team_do_not_count(tmp_path):
    (only,) = make_selectors(tmp_path, 1)
    only.hold(1, "mine", CANDIDATES[:2])
    only.hold(1, "given up", CANDIDATES[2:])
    order = replace(with_species(make_order({"explorer-0": 0}, "explorer-0", REFERENCE)), replicas=("mine",))
    assert only.select(order).report.n_candidates == 2


def test_the_model_describes_where_it_is_asked_to_and_anew_when_it_changes(tmp_path):
    (only,) = make_selectors(tmp_path, 1, descriptor={"type": "model"}, min_gain=-100.0)
    folder = RunFolder(tmp_path / "run")
    picks = []
    for version, kind in enumerate(("se_e2_a", "dpa3")):
        checkpoint = models.tiny_checkpoint(tmp_path / kind, descriptor=kind)
        digest = folder.publish(checkpoint, models.frozen(checkpoint, tmp_path / kind))
        only.hold(version, "a", CANDIDATES)
        order = make_order({"explorer-0": 0}, "explorer-0", REFERENCE, max_sel=2, round=version, bandwidth=None)
        done = only.select(replace(order, replicas=("a",), model=m.ModelRef(version, digest)))
        assert len(done.picked) == 2 and all(np.isfinite(done.report.gains))
        picks.append(done.report.gains)
    assert picks[0] != picks[1]


def test_swapping_elements_is_new_unless_species_do_not_count():
    ordered = bulk("Cu", cubic=True)
    ordered.numbers[:2] = 30
    mixed = ordered.copy()
    mixed.numbers[:] = [30, 29, 30, 30]
    frames = [Frame.from_atoms(atoms) for atoms in (ordered, mixed)]
    told_apart = make_quests(DescriptorSection(), (29, 30), "cpu")(frames)
    alike = make_quests(DescriptorSection(type="quests"), (29, 30), "cpu")(frames)
    assert np.abs(told_apart[0] - told_apart[1]).max() > 0.01
    np.testing.assert_allclose(alike[0], alike[1], atol=1e-12)


# what the policy asks


def test_the_adaptive_band_follows_the_last_errors_seen():
    section = SelectSection(trust_lo="adaptive", trust_hi="adaptive")
    state = started()
    assert trust_band(section, state) == (0.0, np.inf)
    state = state.note(errors=exploring_errors([labelled(1, 0.2), labelled(2, 0.2)]))
    assert trust_band(section, state) == pytest.approx((0.2, 1.0))
    assert trust_band(SelectSection(trust_lo=0.05), state) == (0.05, np.inf)


def test_bandwidths_are_given_or_follow_from_the_density():
    def asked(**select):
        setup = config(select=select)
        return plan(setup, started(phase=SELECT), plan_layout(setup.ranks, 4))[0][1].bandwidth

    assert asked() == 0.015 and asked(bandwidth=0.02) == 0.02 and asked(bandwidth="spread") is None
    assert asked(bandwidth="density") == pytest.approx(0.0897141 * np.exp(-0.5 * (32 / 10.896) ** 2) + 0.0119417)


@pytest.mark.parametrize(
    "select, words",
    [
        ({"trust_lo": 0.1}, "explore.committee"),
        ({"quotas": {"Zn": 1}}, "select.quotas.Zn: there is no system of this name; systems: Cu"),
        ({"chunk": 3}, "only method"),
        ({"method": "pfd", "score": "neutral"}, "select.score"),
        ({"trust_lo": 0.3, "trust_hi": 0.2}, "not below trust_hi"),
    ],
)
def test_contradictions_are_named(select, words):
    with pytest.raises(InputError) as caught:
        config(select=select)
    assert words in str(caught.value)


def test_pfd_means_the_plain_descriptor_and_sums():
    section = config(select={"method": "pfd"}).select
    assert (section.score, section.descriptor.type, section.descriptor.smoothing) == ("sum", "quests", 0.0)
    assert config(select={"descriptor": {"type": "model"}}).select.bandwidth == "spread"


def unselected(order_id, absent=""):
    return m.Unselected(order_id, 1.0, absent, "no word")


def test_a_selection_that_came_to_nothing_is_made_again_without_the_missing_team():
    setup = config(ranks={"explorer": {"teams": 3}})
    layout = plan_layout(setup.ranks, 7)
    state = started(phase=SELECT)
    for team, order in plan(setup, state, layout):
        state = state.issued(order, team.name)
    for team, absent in (("explorer-0", "explorer-2"), ("explorer-1", "")):
        state = apply(setup, state, unselected(f"select/1.0/{team}", absent), lambda ids: [])
    again = plan(setup, state, layout)
    assert state.phase == SELECT and [order.order_id for _, order in again] == [
        "select/1.1/explorer-0",
        "select/1.1/explorer-1",
    ]
    assert list(again[0][1].participants) == ["explorer-0", "explorer-1"]
    for team, order in again:
        state = state.issued(order, team.name)
    report = m.SelectReport(5, {}, (1.0,), False)
    state = apply(setup, state, m.Selected("select/1.1/explorer-1", 1.0, (), None), lambda ids: [])
    picked = (replace(labelled(3), label=None, labelling=None),)
    state = apply(setup, state, m.Selected("select/1.1/explorer-0", 1.0, picked, report), lambda ids: [])
    assert state.phase == LABEL and len(state.pending) == 1


def test_selections_are_not_repeated_for_ever():
    setup = config(ranks={"explorer": {"teams": 2}})
    layout = plan_layout(setup.ranks, 6)
    state = started(phase=SELECT)
    for _ in range(9):
        if state.phase != SELECT:
            break
        orders = plan(setup, state, layout)
        assert orders  # never a phase in which nothing is asked
        for team, order in orders:
            state = state.issued(order, team.name)
        for team, order in orders:
            other = next(name for name in ("explorer-0", "explorer-1") if name != team.name)
            state = apply(setup, state, unselected(order.order_id, other), lambda ids: [])
    assert state.phase != SELECT


def test_the_state_knows_the_species_of_systems_and_given_frames(tmp_path):
    from ase.io import write

    from pfdhpc.start.fresh_state import begin

    write(tmp_path / "cu.vasp", bulk("Cu", cubic=True), format="vasp")
    base = config()
    system = base.system[0].model_copy(update={"structures": [tmp_path / "cu.vasp"]})
    assert begin(base.model_copy(update={"system": [system]}), ()).state.species == (29,)


def test_a_run_is_not_saturated_while_a_late_team_may_have_something_new():
    setup = config(ranks={"explorer": {"teams": 2}})
    for absent, saturated in (((), True), (("explorer-1",), False)):
        state = started(phase=SELECT).issued(bare(m.Select, "select/1.0/explorer-0"), "explorer-0")
        report = m.SelectReport(5, {}, (), True, absent=absent)
        state = apply(setup, state, m.Selected("select/1.0/explorer-0", 1.0, (), report), lambda ids: [])
        assert state.history[1].saturated == saturated
        assert (state.ended == "saturated") == saturated


def test_a_late_team_gets_no_work_until_it_is_heard_of_again():
    setup = config(ranks={"explorer": {"teams": 2}})
    layout = plan_layout(setup.ranks, 6)
    busy = started(late=frozenset({"explorer-1"}))
    assert [team.name for team, _ in plan(setup, busy, layout)] == ["explorer-0"]
    assert len(plan(setup, busy.in_job(late=frozenset()), layout)) == 2


def test_partial_picks_of_a_selection_without_an_outcome_are_not_labelled():
    setup = config(ranks={"explorer": {"teams": 2}})
    state = started(phase=SELECT)
    for team in ("explorer-0", "explorer-1"):
        state = state.issued(bare(m.Select, f"select/1.0/{team}"), team)
    picked = (replace(labelled(3), label=None, labelling=None),)
    state = apply(setup, state, m.Selected("select/1.0/explorer-1", 1.0, picked, None), lambda ids: [])
    state = apply(setup, state, m.Failed("select/1.0/explorer-0", 1.0, "a reason"), lambda ids: [])
    assert state.phase != SELECT and not state.pending
