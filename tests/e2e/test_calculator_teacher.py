"""A distillation whose teacher is an ASE calculator, for real: it drives ASE's dynamics and labels."""

import signal

import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.io import write
from e2e.jobs import Job, finish, results_of
from e2e.test_distill import STUDENT, check_opinions

from pfdhpc.cli.main import main
from pfdhpc.store.store import read_records

INPUT = """
workflow = "distill"
seed = 3
[run]
directory = "run"
[model]
calculator = "ase.calculators.emt.EMT"
[[system]]
name = "Cu"
structures = ["cu.vasp"]
perturb = { count = 2, strain = 0.03, displacement = 0.1 }
[init]
frames = 5
[explore]
steps = 40
interval = 10
temperatures = [500.0]
[select]
max_sel = 3
min_gain = -100.0
trust_lo = 0.01
[train]
first_steps = 20
steps = 20
[test]
holdout = 0.2
validation = 0.2
data = ["known.extxyz"]
[converge]
force_rmse = 1e-6
max_rounds = 1
"""


def write_distillation(folder):
    write(folder / "cu.vasp", bulk("Cu", cubic=True), format="vasp")
    known = bulk("Cu", cubic=True)
    known.rattle(0.1, seed=1)
    known.calc = EMT()
    known.get_stress(), known.get_forces()
    write(folder / "known.extxyz", known)
    path = folder / "input.toml"
    path.write_text(INPUT + STUDENT)
    return path


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("teacher")
    return folder, finish(write_distillation(folder))


def test_labels_are_the_calculators_and_candidates_carry_both_opinions(done):
    records = [r for r in read_records(done[0] / "run" / "frames") if not r.labelling.level.startswith("test-")]
    assert {record.labelling.labeler for record in records} == {"teacher"}
    levels = {record.labelling.level for record in records}
    assert len(levels) == 1 and levels.pop().startswith("teacher-")
    for record in records:
        atoms = record.frame.to_atoms()
        atoms.calc = EMT()
        assert record.label.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-9)
    assert all(record.origin.deviation > 0.01 for record in check_opinions(records, rel=1e-6))


def test_student_and_teacher_are_compared_and_the_run_explains_itself(done, capsys):
    folder, output = done
    found = results_of(folder / "run")
    assert found["test_data"]["teacher"]["total"]["force"] < 1e-6 < found["test_data"]["final"]["total"]["force"]
    assert found["production"]["teacher_engine"] == "ASE" and found["production"]["teacher_speed"] > 0
    assert "teacher (ASE)" in output and "student vs teacher" in output
    assert "ase.calculators.emt.EMT" in (folder / "run" / "final" / "MODEL_CARD.md").read_text()
    assert main(["report", str(folder / "run"), "-o", str(folder / "report.html")]) == 0
    assert "ase.calculators.emt.EMT" in (folder / "report.html").read_text()


def test_a_killed_distillation_goes_on_to_the_same_student(done, tmp_path):
    path = write_distillation(tmp_path)
    job = Job(path)
    job.wait_for("round 1 begins")
    job.interrupt(signal.SIGTERM)
    assert job.wait() == 3
    finish(path)
    models = [results_of(f / "run")["model"] for f in (done[0], tmp_path)]
    assert models[0] == models[1]


def test_another_teacher_is_not_taken_for_the_same(done):
    path = done[0] / "input.toml"
    text = path.read_text()
    path.write_text(text.replace("emt.EMT", "lj.LennardJones"))
    job = Job(path)
    assert job.wait() == 2 and "model.calculator" in job.text()
    path.write_text(text)
