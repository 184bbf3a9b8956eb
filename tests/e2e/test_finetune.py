"""The fine-tuning job for real: 4 ranks, LAMMPS, deepmd training, labels; stopped, killed and resumed."""

import json
import shutil
import signal
import subprocess
import sys

import pytest
from e2e.jobs import PRETRAINED, Job, finish, results_of, write_copper
from stores import problems_of

from pfdhpc.parallel.ledger import read_tracks
from pfdhpc.store.checkpoint import load_checkpoint, save_checkpoint
from pfdhpc.store.store import read_records


def fingerprint(folder):
    """Frames, who picked them, labels and models: what must not depend on interruptions."""
    frames = [
        (r.label_id, repr(r.origin), r.label.energy, r.prediction and r.prediction.energy)
        for r in read_records(folder / "run" / "frames")
    ]
    return frames, results_of(folder / "run")["model"]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    return folder, finish(write_copper(folder))


def test_the_summary_shows_rounds_errors_and_where_things_are(done):
    folder, output = done
    for expected in ("Rounds", "held-out frames", "pre-trained", "fine-tuned", "busy time", "NOT converged"):
        assert expected in output
    assert str(folder / "run" / "final" / "model.pth") in output.replace("\n", "")


def test_the_results_are_complete_and_the_model_learned(done):
    found = results_of(done[0] / "run")
    assert found["ended"] == "max_rounds" and found["labels"] == 5 + 3 + 3
    assert found["train"] + found["validation"] + found["held_out"] == found["labels"]
    assert found["finetuned"]["total"]["force"] < found["pretrained"]["total"]["force"]
    assert set(found["seconds"]) == {"trainer", "explorer", "labeler"}


def test_the_store_is_sound_and_exports_to_what_deepmd_trains_on(done, tmp_path):
    run = done[0] / "run"
    assert problems_of(run / "frames") == []
    for name, form in (("npy", "deepmd/npy"), ("data.hdf5", "deepmd/hdf5"), ("frames.extxyz", "extxyz")):
        command = [sys.executable, "-m", "pfdhpc", "export", str(run), str(tmp_path / name), "--format", form]
        assert subprocess.run(command).returncode == 0
    import ase.io

    frames = ase.io.read(tmp_path / "frames.extxyz", ":")
    assert len(frames) == 11 and frames[0].get_forces().shape == (4, 3)


def test_run_again_it_says_complete_and_what_to_do(done):
    folder, _ = done
    before = fingerprint(folder)
    output = finish(folder / "input.toml")
    assert "complete" in output and "converge.max_rounds" in output
    assert fingerprint(folder) == before


def test_the_final_model_runs_and_predicts_what_the_run_says(done):
    from deepmd.calculator import DP

    record = next(r for r in read_records(done[0] / "run" / "frames") if r.origin.round == 2)
    atoms = record.frame.to_atoms()
    atoms.calc = DP(str(done[0] / "run" / "final" / "model.pth"))
    assert abs(atoms.get_potential_energy() - record.label.energy) < 0.5 * len(atoms)


@pytest.mark.parametrize(
    "moment, number",
    [("on 4 ranks", signal.SIGTERM), (r"round 1.* explore", signal.SIGUSR1), (r"train +model 2", signal.SIGINT)],
)
def test_a_signal_saves_the_run_and_it_goes_on_to_the_same_end(done, tmp_path, moment, number):
    path = write_copper(tmp_path)
    job = Job(path)
    job.wait_for(moment)
    job.interrupt(number)
    assert job.wait(60) == 3, job.text()
    finish(path)
    assert fingerprint(tmp_path) == fingerprint(done[0])


def test_killed_without_warning_it_goes_on_to_the_same_end(done, tmp_path):
    path = write_copper(tmp_path)
    job = Job(path)
    job.wait_for(r"round 1 +label +1/3")
    job.kill()
    held = {record.label_id for record in read_records(tmp_path / "run" / "frames")}
    assert len(held) >= 6  # the five initial ones, and the one the line told of
    finish(path)
    assert fingerprint(tmp_path) == fingerprint(done[0])
    assert held <= {record.label_id for record in read_records(tmp_path / "run" / "frames")}


def test_one_rank_plays_all_roles_and_gives_the_same_run(done, tmp_path):
    finish(write_copper(tmp_path), n_ranks=1)
    assert fingerprint(tmp_path) == fingerprint(done[0])


SHARED = """
import os, pathlib, time
from pfdhpc.cli.main import main
from pfdhpc.roles import evaluator
from pfdhpc.workflow import final_evaluation

final_evaluation.PART, final_evaluation.PAYS = 2, -1.0
make, evaluate = evaluator.make_trainer, evaluator.Evaluator.evaluate
here = pathlib.Path(__file__).parent

def unlucky(*parts):
    if os.environ.get("PMI_RANK") == "3":
        raise MemoryError("no room for another model")
    return make(*parts)

def held(self, order, records):
    if order.order_id.endswith("/2") and (here / "hold").exists():
        (here / "held").touch()
        time.sleep(1000)
    return evaluate(self, order, records)

evaluator.make_trainer, evaluator.Evaluator.evaluate = unlucky, held
raise SystemExit(main())
"""


class SharedEvaluation(Job):
    """A job in which whoever is idle helps with an evaluation in small parts, and one of them fails.

    With a file ``hold`` beside the input the third part is never done.
    """

    def command(self, path, n_ranks):
        (path.parent / "shared.py").write_text(SHARED)
        program = [sys.executable, "-m", "mpi4py", str(path.parent / "shared.py"), "run", str(path)]
        return ["mpiexec", "-n", str(n_ranks), *program]


def before_its_evaluation(done, folder):
    """The finished run once more, where its evaluation begins; with a second explorer."""
    shutil.copytree(done, folder)
    shutil.rmtree(folder / "run" / "ledger", ignore_errors=True)
    tree = load_checkpoint(folder / "run" / "checkpoints")
    tree["state"] |= {"phase": "evaluate", "pretrained": None, "finetuned": None}
    save_checkpoint(folder / "run" / "checkpoints", tree)
    path = write_copper(folder)
    path.write_text(path.read_text().replace("[init]", "[ranks]\nexplorer = { teams = 2 }\n[init]"))
    return path


def evaluated(path, n_ranks):
    """Errors of both models, and what the job told."""
    job = SharedEvaluation(path, n_ranks)
    assert job.wait() == 0, job.text()
    results = results_of(path.parent / "run")
    return [results["pretrained"], results["finetuned"]], job.text()


@pytest.fixture(scope="module")
def alone(done, tmp_path_factory):
    """Errors of both models, found by one rank in small parts."""
    return evaluated(before_its_evaluation(done[0], tmp_path_factory.mktemp("alone") / "run"), 1)[0]


def test_the_last_evaluation_is_the_same_bit_for_bit_when_others_help_and_one_of_them_is_lost(done, alone, tmp_path):
    shared, told = evaluated(before_its_evaluation(done[0], tmp_path / "shared"), 5)
    assert shared == alone
    for now, before in zip(
        shared, (results_of(done[0] / "run")[key] for key in ("pretrained", "finetuned")), strict=True
    ):
        assert now["total"] == pytest.approx(before["total"], rel=1e-4), "the parts are of another size"
    assert "explorer-1 is retired: it cannot help with the evaluation: MemoryError" in told
    tracks = read_tracks(tmp_path / "shared" / "run" / "ledger")
    assert {track.team for track in tracks if "evaluate" in track.states} >= {"trainer-0", "explorer-0"}


def test_killed_in_the_middle_of_its_evaluation_it_goes_on_to_the_same_end(done, alone, tmp_path):
    path = before_its_evaluation(done[0], tmp_path / "killed")
    (path.parent / "hold").touch()
    job = SharedEvaluation(path, 5)
    job.wait_for_state((path.parent / "held").exists)
    job.kill()
    (path.parent / "hold").unlink()
    assert evaluated(path, 5)[0] == alone


def test_two_jobs_cannot_share_a_directory(tmp_path):
    path = write_copper(tmp_path)
    first = Job(path)
    first.wait_for("begins|label")
    second = Job(path)
    assert second.wait(60) == 2
    assert "another" in second.text() or "in use" in second.text(), second.text()
    first.kill()


@pytest.mark.parametrize(
    "change, said",
    [
        (('branch = "MPtrj_PBE"', ""), "model.branch"),
        (('branch = "MPtrj_PBE"', 'branch = "nowhere"'), "MPtrj_PBE"),
        (("ase.calculators.emt.EMT", "ase.calculators.emt.ENT"), "label.options.calculator"),
        ((str(PRETRAINED), "cu.vasp"), "model.checkpoint"),
    ],
)
def test_bad_input_is_one_clear_line_and_starts_nothing(tmp_path, change, said):
    path = write_copper(tmp_path)
    path.write_text(path.read_text().replace(*change))
    job = Job(path)
    assert job.wait(120) == 2, job.text()
    lines = [line for line in job.text().splitlines() if "input error" in line]
    assert len(lines) == 1 and said in lines[0], job.text()
    assert "Traceback" not in job.text()
    assert not (tmp_path / "run" / "frames").exists()


def test_immutable_keys_are_refused_and_mutable_ones_recorded(done):
    folder, _ = done
    path = folder / "input.toml"
    text = path.read_text()
    path.write_text(text.replace("seed = 3", "seed = 4"))
    job = Job(path)
    assert job.wait(60) == 2 and "seed" in job.text()
    path.write_text(text.replace("max_sel = 3", "max_sel = 4"))
    assert "select.max_sel 3 -> 4" in finish(path)
    assert json.loads((folder / "run" / "input.json").read_text())["select"]["max_sel"] == 4
    assert json.loads((folder / "run" / "input-1.json").read_text())["select"]["max_sel"] == 3
    path.write_text(text)


def test_a_job_of_many_teams_and_a_restart_on_other_ranks(tmp_path):
    """Two explorers reduce together, two ranks train data parallel; then it goes on with fewer."""
    path = write_copper(tmp_path, rounds=1)
    text = path.read_text()
    ranks = "[ranks]\ntrainer = { ranks = 2 }\nexplorer = { teams = 2 }\nlabeler = { teams = 1 }\n[model]"
    path.write_text(text.replace("[model]", ranks))
    output = finish(path, n_ranks=6)
    assert "1 trainer, 2 explorers, 1 labeler" in output
    assert results_of(tmp_path / "run")["labels"] == 8
    path.write_text(text.replace("max_rounds = 1", "max_rounds = 2"))
    assert "resumed" in finish(path) and results_of(tmp_path / "run")["labels"] == 11
