"""Fine-tuning and distillation as one job: across the seam, and after a kill behind it."""

import json

import pytest
from e2e.jobs import Job, finish, results_of, write_copper

from pfdhpc.cli.main import main
from pfdhpc.config import load
from pfdhpc.errors import InputError
from pfdhpc.store.status import read_status

DISTILLATION = """
[student]
probe_atoms = 32
probe_steps = 40
[student.model]
descriptor = { type = "se_e2_a", rcut = 4.0, rcut_smth = 0.5, sel = "auto", neuron = [4, 8], axis_neuron = 2 }
fitting_net = { neuron = [16, 16] }
[distill.init]
frames = 8
[distill.select]
max_sel = 4
min_gain = -100.0
[distill.train]
first_steps = 30
steps = 30
[distill.converge]
force_rmse = 1e-6
max_rounds = 1
"""


def write_chain(folder, extra=DISTILLATION):
    path = write_copper(folder, rounds=1)
    path.write_text(path.read_text().replace('"finetune"', '"pfd"') + extra)
    return path


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A run that is killed in its distillation, and goes on."""
    folder = tmp_path_factory.mktemp("pfd")
    path = write_chain(folder)
    job = Job(path)
    job.wait_for("teacher is ready")
    job.kill()
    assert read_status(folder / "run")["state"] == "running"
    return folder, job.text(), finish(path)


def test_both_runs_are_there_and_the_links_show_the_last(done):
    folder, first, second = done
    run = folder / "run"
    assert "finetune on 4 ranks" in first and "distill on 4 ranks" in first
    assert "finetune on 4 ranks" not in second  # it was complete
    assert read_status(run)["state"] == "complete"
    assert (run / "final").resolve() == (run / "distill" / "final").resolve()
    results = results_of(run)
    assert results["production"]["product"].startswith("compressed")


def test_the_student_is_tested_on_first_principles_frames_of_the_fine_tuning(done):
    folder, _, second = done
    assert "frames of test.data" in second and "teacher" in second
    held_out = folder / "run" / "finetune" / "final" / "held_out.extxyz"
    assert held_out.stat().st_size > 0


def test_the_teacher_is_the_fine_tuned_model(done):
    run = done[0] / "run"
    resolved = json.loads((run / "distill" / "input.json").read_text())
    assert resolved["model"]["checkpoint"] == str(run / "finetune" / "final" / "model.pt")
    assert resolved["label"]["type"] == "teacher" and resolved["label"]["batch"] == 16


def test_commands_take_the_run_directory_for_the_run_that_is_on(done, capsys):
    run = done[0] / "run"
    assert main(["status", str(run)]) == 0
    assert "complete" in capsys.readouterr().out
    assert main(["export", str(run), str(done[0] / "frames.extxyz")]) == 0
    assert (done[0] / "frames.extxyz").exists()


@pytest.mark.parametrize(
    "extra, problem",
    [
        ("", "student: pfd distils one"),
        (DISTILLATION.replace("max_sel = 4", "max_sell = 4"), "distill.select.max_sell: unknown key"),
        (DISTILLATION + '[distill.label]\ntype = "gpaw"\n', "distill.label.type"),
    ],
)
def test_problems_of_the_second_run_are_told_before_the_first(tmp_path, extra, problem):
    with pytest.raises(InputError, match=problem):
        load(write_chain(tmp_path, extra))


def test_the_section_is_refused_in_other_workflows(tmp_path):
    path = write_chain(tmp_path)
    path.write_text(path.read_text().replace('"pfd"', '"finetune"'))
    with pytest.raises(InputError, match="distill: only used in"):
        load(path)
