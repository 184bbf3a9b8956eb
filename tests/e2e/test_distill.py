"""The distillation job for real: a teacher explores and labels; a student learns, is compressed, is tried in LAMMPS."""

import signal

import pytest
from e2e.jobs import PRETRAINED, Job, finish, results_of, write_copper

from pfdhpc.store.store import read_records

STUDENT = """
[student]
probe_atoms = 32
probe_steps = 60
[student.model]
descriptor = { type = "se_e2_a", rcut = 4.5, rcut_smth = 0.5, sel = "auto", neuron = [4, 8], axis_neuron = 2 }
fitting_net = { neuron = [16, 16] }
"""


def write_distillation(folder):
    path = write_copper(folder, rounds=1)
    text = path.read_text().replace('"finetune"', '"distill"')
    before, after = text.split("[label]")
    path.write_text(before + "[label]\nbatch = 4\n[train]" + after.split("[train]")[1] + STUDENT)
    return path


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("distill")
    return folder, finish(write_distillation(folder))


def check_opinions(records, rel):
    """The three frames explored in the first round carry the student's error at its teacher's labels."""
    explored = [record for record in records if record.origin.round == 1]
    assert len(explored) == 3
    for record in explored:
        difference = record.prediction.forces - record.label.forces
        assert record.origin.deviation == pytest.approx((difference**2).sum(axis=1).max() ** 0.5, rel=rel)
    return explored


def test_the_student_is_judged_by_the_teacher_and_ready_for_production(done):
    folder, output = done
    found = results_of(folder / "run")
    production = found["production"]
    assert production["product"].startswith("compressed") and production["atoms"] == 32
    assert production["student_speed"] > 3 * production["teacher_speed"]
    assert "stable" in production and found["pretrained"] is None and found["finetuned"]["total"]["force"] > 0
    for expected in ("student vs teacher", "speed in LAMMPS", "teacher is ready", "model for production"):
        assert expected in output
    assert (folder / "run" / "final" / "model.pth").stat().st_size > 0
    assert (folder / "run" / "final" / "errors.png").stat().st_size > 0


def test_labels_are_the_teachers_and_candidates_carry_the_students_opinion(done):
    records = read_records(done[0] / "run" / "frames")
    levels = {record.labelling.level for record in records}
    assert len(levels) == 1 and levels.pop().startswith("teacher-")
    check_opinions(records, rel=1e-3)  # LAMMPS and the labeler evaluate the teacher alike


def test_a_killed_distillation_goes_on_to_the_same_student(done, tmp_path):
    path = write_distillation(tmp_path)
    job = Job(path)
    job.wait_for("round 1 begins")
    job.interrupt(signal.SIGTERM)
    assert job.wait() == 3
    job = Job(path)
    job.wait_for("round 1  label")
    job.kill()
    finish(path)
    models = [results_of(f / "run")["model"] for f in (done[0], tmp_path)]
    assert models[0] == models[1]


def test_what_a_distillation_cannot_use_is_refused(tmp_path):
    path = write_distillation(tmp_path)
    path.write_text(path.read_text().replace("batch = 4", 'type = "gpaw"').replace("[student]", "[nobody]", 1))
    job = Job(path, 1)
    assert job.wait() == 2
    assert PRETRAINED.is_file() and "nobody" in job.text()
