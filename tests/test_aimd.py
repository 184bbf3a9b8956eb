"""Dynamics by the labelers before the first training: cut into segments, killed and resumed, the same labels."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from ase import units
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.md.verlet import VelocityVerlet
from test_loop import fingerprint
from toys import ToyRun, make_config

from pfdhpc import messages as m
from pfdhpc.config.init import AimdSection
from pfdhpc.config.label import LabelSection
from pfdhpc.data import Frame, Label
from pfdhpc.engines.base import Labeler
from pfdhpc.engines.label.aimd import at_rest, run_segment
from pfdhpc.engines.registry import make_labeler
from pfdhpc.errors import EXIT_COMPLETE, EXIT_INCOMPLETE, InputError, LabelError
from pfdhpc.store.store import read_records

AIMD = {"steps": 6, "interval": 2, "trajectories": 2, "temperatures": [300.0, 900.0]}
EMT_LABELS = LabelSection(type="ase", options={"calculator": "ase.calculators.emt.EMT"})


def with_aimd(folder, **changes):
    """Labels by EMT, whose dynamics this is; two trajectories of three segments."""
    label = {"options": {"calculator": "ase.calculators.emt.EMT"}}
    return make_config(folder, **{"label": label, "init": {"frames": 2, "aimd": AIMD}, **changes})


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    run = ToyRun(with_aimd(tmp_path_factory.mktemp("aimd")))
    assert run.run() == EXIT_COMPLETE
    return run


def dynamics(run):
    return [record for record in run.store.records() if "aimd" in record.origin.replica]


def test_every_nth_step_of_a_trajectory_is_a_label_and_nothing_else(finished):
    found = sorted((r.origin.replica, r.origin.step, r.origin.temperature) for r in dynamics(finished))
    expected = [(f"Cu-aimd-{i}", step, t) for i, t in enumerate((300.0, 900.0)) for step in (0, 2, 4, 6)]
    assert found == expected
    assert finished.state.history[0].labelled == 2 + 8 and len(finished.store) == 10 + 6
    assert {record.labelling.labeler for record in dynamics(finished)} == {"ase"}
    assert {label_id for label_id in finished.state.label_ids} == set(finished.store.label_ids)


def test_the_labels_belong_to_the_frames(finished):
    for record in dynamics(finished):
        atoms = record.frame.to_atoms()
        atoms.calc = EMT()
        assert record.label.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-9)
        np.testing.assert_allclose(record.label.forces, atoms.get_forces(), atol=1e-9)
        assert record.label.virial is not None


@pytest.mark.parametrize("after", [3, 6])
def test_stopped_in_the_middle_it_goes_on_with_the_next_segment(finished, tmp_path, after):
    config = with_aimd(tmp_path)
    first = ToyRun(config).stop_after(after)
    assert first.run() == EXIT_INCOMPLETE
    second = ToyRun(config)
    assert second.run() == EXIT_COMPLETE
    assert fingerprint(second) == fingerprint(finished)
    assert (first.events + second.events).count("Simulated") == 6


def test_killed_in_the_middle_it_loses_one_segment_at_most(finished, tmp_path):
    """What a kill leaves: the run directory as it was in the middle, copied."""
    config, middle = with_aimd(tmp_path / "a"), tmp_path / "middle"
    run = ToyRun(config)

    def copy(before, after, message):
        run.events.append(type(message).__name__)
        if run.events.count("Simulated") == 3 and not middle.exists():
            shutil.copytree(config.run.directory, middle)

    run.context.listener.event = copy
    assert run.run() == EXIT_COMPLETE
    config = with_aimd(tmp_path / "b")
    shutil.copytree(middle, config.run.directory)
    held = len(read_records(config.run.directory / "frames"))
    again = ToyRun(config)
    assert again.run() == EXIT_COMPLETE
    assert fingerprint(again) == fingerprint(finished)
    assert held >= 4 and 3 <= again.events.count("Simulated") <= 4


def test_several_teams_give_the_same_run(finished, tmp_path):
    config = with_aimd(tmp_path, ranks={"labeler": {"teams": 3}})
    run = ToyRun(config, size=6, threads=True)
    assert run.run() == EXIT_COMPLETE
    assert fingerprint(run) == fingerprint(finished)


def test_an_overlapped_run_begins_with_them_too(tmp_path):
    run = ToyRun(with_aimd(tmp_path, overlap={"staleness": 1}), size=4, threads=True)
    assert run.run() == EXIT_COMPLETE
    assert len(dynamics(run)) == 8 and run.state.history[0].labelled == 10


class Failing(Labeler):
    """EMT that gives up at the n-th label."""

    level = "emt"

    def __init__(self, last):
        self.engine, self.left, self.asked = make_labeler(EMT_LABELS, None), last, []

    def label(self, frame, changes, timeout):
        self.asked.append(frame.frame_id)
        self.left -= 1
        if self.left < 0:
            raise LabelError("SCF not converged")
        return self.engine.label(frame, changes, timeout)


def test_a_label_that_fails_ends_its_trajectory_and_not_the_run(tmp_path):
    run = ToyRun(with_aimd(tmp_path, init={"frames": 3, "aimd": {**AIMD, "temperatures": [300.0]}}))
    failing = Failing(4)
    program = next(cell for cell in _programs(run) if hasattr(cell, "_taught"))
    program._engine, engine = failing, program._engine
    failing.level = engine.level
    handle = program.handle

    def mostly(order):
        program._engine = failing if "aimd-0" in order.order_id else engine
        return handle(order)

    program.handle = mostly
    assert run.run() == EXIT_COMPLETE
    broken, whole = run.state.aimd
    assert "SCF not converged" in broken.ended and broken.step == 2 and not whole.ended and whole.step == 6
    assert run.state.history[0].labelled == 3 + 2 + 4 and run.state.history[0].rejected == 1
    assert [reason for _, reason in run.store.rejected()] == ["SCF not converged"]


def _programs(run):
    """The programs of a run whose roles take turns."""
    for answer in run.context.channel._handlers.values():
        yield from (cell.cell_contents for cell in answer.__closure__)


def frame():
    return Frame.from_atoms(bulk("Cu", cubic=True))


def test_segments_join_and_no_calculation_is_made_twice():
    section = AimdSection(steps=6, interval=3, ensemble="nve", timestep=2.0)
    labeler, start = Failing(99), at_rest(frame(), 800.0, 7)
    first = run_segment(labeler, EMT_LABELS, section, None, start, 800.0, 1)
    second = run_segment(labeler, EMT_LABELS, section, None, first.kept[-1], 800.0, 2)
    assert (first.calculations, second.calculations) == (4, 3) and len(labeler.asked) == len(set(labeler.asked)) == 7
    atoms = frame().to_atoms()
    atoms.calc = EMT()
    atoms.set_velocities(start.velocities / units.fs)
    dynamics = VelocityVerlet(atoms, 2.0 * units.fs)
    for _ in range(6):
        dynamics.step()
    np.testing.assert_allclose(second.kept[-1].frame.positions, atoms.positions, atol=1e-10)
    np.testing.assert_allclose(second.kept[-1].velocities, atoms.get_velocities() * units.fs, atol=1e-12)


def test_langevin_follows_its_seed():
    section = AimdSection(steps=9, interval=9, timestep=2.0, damping=20.0)
    ends = [
        run_segment(Failing(999), EMT_LABELS, section, None, at_rest(frame(), 500.0, 3), 500.0, seed).kept[-1]
        for seed in (1, 1, 2)
    ]
    assert ends[0].frame.frame_id == ends[1].frame.frame_id != ends[2].frame.frame_id


def test_a_team_goes_where_its_first_rank_goes():
    """Two ranks whose labels differ in the last digits; here the second one, which is told what the first has."""

    class Comm:
        def Get_size(self):
            return 2

        def allgather(self, value):
            return [value, value]

        def bcast(self, label):
            return Label(label.energy + 1e-9, label.forces, label.virial)

    section = AimdSection(steps=1, interval=1, ensemble="nve")
    result = run_segment(Failing(9), EMT_LABELS, section, Comm(), at_rest(frame(), 300.0, 1), 300.0, 1)
    atoms = result.kept[0].frame.to_atoms()
    atoms.calc = EMT()
    assert result.kept[0].label.energy - atoms.get_potential_energy() == pytest.approx(1e-9, rel=1e-3)


@pytest.mark.parametrize(
    "aimd, more, said",
    [
        ({"steps": 7, "interval": 2}, {}, "init.aimd.steps: 7 is no multiple"),
        ({"steps": 4, "interval": 2, "ensemble": "nve", "damping": 9.0}, {}, "init.aimd.damping"),
        ({"steps": 4, "interval": 2}, {"converge": {"max_labels": 2}}, "init.aimd: stores 3 labels"),
        ({"step": 4}, {}, 'init.aimd.step: unknown key; did you mean "steps"'),
    ],
)
def test_what_makes_no_sense_is_said(tmp_path, aimd, more, said):
    with pytest.raises(InputError) as caught:
        make_config(tmp_path, init={"aimd": aimd}, **more)
    assert said in str(caught.value)


def test_the_label_budget_counts_them(tmp_path):
    run = ToyRun(with_aimd(tmp_path, converge={"max_labels": 9, "max_rounds": 5}))
    assert run.run() == EXIT_COMPLETE
    assert len(run.store) == 9 and len(dynamics(run)) == 8


def test_a_lab_elsewhere_cannot_run_them(tmp_path):
    label = {"type": "offline", "options": {"level": "PBE"}}
    with pytest.raises(InputError, match="init.aimd: labels come from outside"):
        make_config(tmp_path, label=label, init={"aimd": AIMD})


def test_a_run_with_them_can_be_played_through(tmp_path):
    from pfdhpc.parallel.layout import plan_layout
    from pfdhpc.start.fresh_state import begin
    from pfdhpc.workflow.simulate_run import simulate

    config = with_aimd(tmp_path)
    played = simulate(config, begin(config, ("Cu",)).state, plan_layout(config.ranks, 4))
    assert played.rounds == 2 and played.labels == 2 + 6 + 6


def test_a_segment_under_way_is_waited_for_where_it_will_be_there_in_time(tmp_path):
    from dataclasses import replace

    from pfdhpc.start.fresh_state import begin
    from pfdhpc.workflow.time_forecast import expected_by

    state = begin(with_aimd(tmp_path), ("Cu",)).state
    order = m.Simulate("aimd/Cu-aimd-1/0", state.aimd[1], 0)
    state = replace(state, durations={"label.4": (10.0,)}).issued(order, "labeler-0")
    since = {"aimd/Cu-aimd-1/0": 100.0}
    assert expected_by(146.0, state, since) == {"aimd/Cu-aimd-1/0": 100.0 + 1.5 * 10.0 * 3}
    assert expected_by(144.0, state, since) == {}


def test_the_shipped_input_asks_for_what_its_readme_says():
    from pfdhpc.config import load
    from pfdhpc.start.fresh_state import begin

    config = load(Path(__file__).parents[1] / "inputs" / "aimd-start" / "input.toml")
    state = begin(config, ()).state
    assert (len(state.aimd), config.init.aimd.labels, len(state.pending)) == (2, 10, 6)
    assert [item.temperature for item in state.aimd] == [600.0, 1200.0]
