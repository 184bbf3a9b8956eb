"""What labels will cost is told after the first one, and a run that costs more than was agreed to stops there."""

import re
from dataclasses import replace

import pytest
from test_forecast import answer, record
from test_roles import config, started
from toys import ToyRun, make_config

from pfdhpc import messages as m
from pfdhpc.config.pfd_stages import first_act, second_act
from pfdhpc.errors import EXIT_COMPLETE, EXIT_INCOMPLETE, InputError
from pfdhpc.parallel.layout import plan_layout
from pfdhpc.report.terminal.event_log import EventLog
from pfdhpc.store.status import read_status
from pfdhpc.workflow.apply import apply
from pfdhpc.workflow.label_cost import estimate, unconfirmed
from pfdhpc.workflow.state import LABEL, RoundRecord

ROUNDS = {"converge": {"max_rounds": 5}, "select": {"max_sel": 6}}


def first_labels(setup, seconds=100.0, atoms=2):
    """The first of three labels is there."""
    items = [replace(item, origin=replace(item.origin, round=0)) for item in (record(n, atoms) for n in range(3))]
    state = started(phase=LABEL, round=0, history=(RoundRecord(0),), train_ids=(), test_ids=(), pending=tuple(items))
    state = state.issued(m.LabelFrames("label/x", ()), "labeler-0")
    return apply(setup, state, answer(seconds, items[0]), lambda ids: [])


def test_the_estimate_counts_labels_turns_and_cores():
    setup = config(**ROUNDS, ranks={"labeler": {"teams": 4}, "threads": 2})
    layout = plan_layout(setup.ranks, 7)  # one rank is idle, and paid for
    state = first_labels(setup)
    found = estimate(setup, state, layout)
    assert (found.first, found.later) == (3, 30)
    starts = {len(item.start) for item in state.replicas}
    assert starts == {2} and found.each == {2: pytest.approx(100)}
    assert found.seconds == pytest.approx(300 / 4 + 5 * 2 * 100)  # six picks on four teams take two turns
    assert found.core_hours == pytest.approx(7 * 2 * found.seconds / 3600)
    flowing = config(**ROUNDS, ranks={"labeler": {"teams": 4}}, overlap={"staleness": 1})
    assert estimate(flowing, state, layout).seconds == pytest.approx(300 / 4 + 30 * 100 / 4)


def test_a_budget_bounds_it_and_larger_cells_cost_more():
    setup = config(select={"max_sel": 6}, converge={"max_rounds": 5, "max_labels": 10})
    layout = plan_layout(setup.ranks, 4)
    assert estimate(setup, first_labels(setup), layout).later == 7
    small = estimate(setup, first_labels(setup, atoms=1), layout)
    assert small.each == {1: pytest.approx(100), 2: pytest.approx(800)}
    assert "100 s of 1 atoms, 800 s of 2 atoms" in str(small)


def test_nothing_is_estimated_before_a_label_was_measured():
    setup = config(**ROUNDS, run={"confirm_core_hours": 1e-9})
    state = first_labels(setup)
    layout = plan_layout(setup.ranks, 4)
    assert unconfirmed(setup, state, layout)
    assert not unconfirmed(setup, replace(state, durations={}), layout)
    trained = replace(state, train_ids=state.fresh, fresh=())
    assert not unconfirmed(setup, trained, layout)  # it was agreed to


def make_run(base, limit, **more):
    return ToyRun(make_config(base, run={"confirm_core_hours": limit}, **more))


def test_a_run_stops_after_its_first_label_and_goes_on_when_the_threshold_is_raised(tmp_path):
    first = make_run(tmp_path, 1e-9)
    assert first.run() == EXIT_INCOMPLETE
    assert len(first.store) == 1 and first.events == ["Imported", "Labelled"]
    status = read_status(first.folder.directory)
    assert status["state"] == "incomplete"
    assert re.search(
        r"run.confirm_core_hours allows 1e-09; to go on, raise it to .*10 labels at most", status["reason"]
    )
    again = make_run(tmp_path, 1e-9)
    again.stopping.left = lambda: 1e6  # of a job with an end: more wall time is no remedy
    assert again.run() == EXIT_INCOMPLETE and again.events == []
    assert "wall-time" not in read_status(first.folder.directory)["reason"]
    raised = make_run(tmp_path, 1e3)
    assert raised.run() == EXIT_COMPLETE and len(raised.store) == 4 + 2 * 3


def test_with_trajectories_each_step_is_paid(tmp_path):
    aimd = {"trajectories": 1, "steps": 4, "interval": 2, "temperatures": [300.0]}
    run = make_run(tmp_path, 1e-9, init={"frames": 2, "aimd": aimd})
    assert run.run() == EXIT_INCOMPLETE
    found = estimate(run.config, run.state, run.layout)
    assert found.first == 2 + run.config.init.aimd.labels


def test_one_line_is_told_and_only_once(tmp_path, capsys):
    run = ToyRun(make_config(tmp_path))
    run.context.listener.event = EventLog(run.config, run.folder, run.layout).event
    assert run.run() == EXIT_COMPLETE
    told = [line for line in capsys.readouterr().out.splitlines() if "estimate:" in line]
    assert len(told) == 1 and "10 labels at most (4 first ones, 6 in the rounds)" in told[0]
    assert "core hours" in told[0] and "4 atoms" in told[0]


def test_it_is_refused_where_labels_cost_nothing(tmp_path):
    with pytest.raises(InputError, match="run.confirm_core_hours"):
        make_config(tmp_path, run={"confirm_core_hours": 1.0}, label={"type": "offline", "options": {"level": "PBE"}})


def test_the_distillation_of_a_pfd_run_needs_no_word(tmp_path):
    lammps = {"engine": "lammps", "options": {}, "ensemble": "nvt"}
    more = {"explore": lammps, "student": {"preset": "se_e2_a"}, "run": {"confirm_core_hours": 1.0}}
    setup = make_config(tmp_path, workflow="pfd", **more)
    assert first_act(setup).run.confirm_core_hours == 1.0
    assert "confirm_core_hours" not in second_act(setup)["run"]
