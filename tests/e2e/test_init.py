"""A job that begins with dynamics by its labelers, for real: killed in the middle of it, and resumed."""

from functools import partial

import ase.io
from ase.build import bulk
from ase.calculators.emt import EMT
from e2e.jobs import Job, finish, results_of, write_copper

from pfdhpc.config import load
from pfdhpc.engines.registry import make_labeler
from pfdhpc.roles.labeler import carry_out
from pfdhpc.start.fresh_state import begin
from pfdhpc.store.store import read_records
from pfdhpc.store.verify import check_store
from pfdhpc.workflow.aimd import advanced, orders
from pfdhpc.workflow.plan import seed_of

AIMD = """frames = 2
[init.aimd]
steps = 160
interval = 40
trajectories = 2
temperatures = [600.0]
timestep = 2.0
"""


def write_input(folder):
    """Copper by EMT; 10 labels of two trajectories, and frames that only test."""
    path = write_copper(folder, rounds=1)
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=9)
    atoms.calc = EMT()
    atoms.get_forces(), atoms.get_stress()
    ase.io.write(folder / "fixed.extxyz", atoms, format="extxyz")
    text = path.read_text().replace("frames = 5\n", AIMD).replace("[test]\n", '[test]\ndata = ["fixed.extxyz"]\n')
    path.write_text(text)
    return path


def dynamics(records):
    """The labels of the trajectories; a label id names species, cell and positions to the last bit."""
    chosen = [record for record in records if "aimd" in record.origin.replica]
    return sorted((r.origin.replica, r.origin.step, r.label_id, r.label.energy) for r in chosen)


def uninterrupted(path):
    """The same trajectories, here and in one go."""
    config = load(path)
    found, records = begin(config, ()).state.aimd, []
    engine = make_labeler(config.label, None)
    while going := list(orders(config, found, (), [None], partial(seed_of, config))):
        answer = carry_out(engine, config.label, config.init.aimd, None, going[0][1])
        found = advanced(found, answer)
        records += [outcome.record for outcome in answer.outcomes]
    return dynamics(records)


def test_killed_in_its_aimd_a_job_loses_no_label_and_makes_none_twice(tmp_path):
    path, run = write_input(tmp_path), tmp_path / "run"
    expected = uninterrupted(path)
    assert [row[:2] for row in expected] == [(f"Cu-aimd-{i}", step) for i in (0, 1) for step in range(0, 161, 40)]
    job = Job(path)
    job.wait_for(r"round 0 +aimd +Cu-aimd-\d: 40 steps")
    job.kill()
    held = dynamics(read_records(run / "frames"))
    assert 2 <= len(held) < 10 and set(held) <= set(expected)
    output = finish(path)
    assert "resumed: round 0, init" in output and "test.data" in output
    assert dynamics(read_records(run / "frames")) == expected
    assert not any(part.problems for part in check_store(run / "frames"))
    results = results_of(run)
    assert results["rounds"][0]["labelled"] == 12 and results["test_data"]["frames"] == 1
    for name in ("pretrained", "final"):
        assert results["test_data"][name]["total"]["force"] > 0
