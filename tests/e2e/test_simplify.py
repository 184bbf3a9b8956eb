"""A committee of real models on a pool of frames, killed between two of its members."""

import numpy as np
import pytest
from ase.build import bulk
from ase.io import read, write
from e2e.jobs import PRETRAINED, Job, finish, results_of

from pfdhpc.cli.main import main
from pfdhpc.data.io import read_frames
from pfdhpc.report.run_data import read_run
from pfdhpc.store.status import read_status

INPUT = f"""
workflow = "simplify"
seed = 3
[run]
directory = "run"
[model]
checkpoint = "{PRETRAINED}"
branch = "MPtrj_PBE"
[pool]
data = ["cu.extxyz"]
models = 2
init_pick = 5
chunk = 12
[select]
max_sel = 3
min_gain = -100.0
trust_lo = 1e-6
[label]
type = "ase"
options = {{ calculator = "ase.calculators.emt.EMT" }}
[train]
first_steps = 10
steps = 10
freeze = ["descriptor"]
[test]
holdout = 0.2
[converge]
max_rounds = 1
"""


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("simplify")
    rng = np.random.default_rng(2)
    cells = [bulk("Cu", cubic=True) for _ in range(20)]
    for atoms in cells:
        atoms.positions += rng.normal(scale=0.1, size=(4, 3))
    write(folder / "cu.extxyz", cells)
    path = folder / "input.toml"
    path.write_text(INPUT)
    job = Job(path)
    job.wait_for("member 0 of the committee")
    job.kill()
    assert read_status(folder / "run")["state"] == "running"
    return folder, job.text(), finish(path)


def test_two_trainer_teams_make_the_same_models(done, tmp_path):
    """One after the other with a kill between, or side by side."""
    write(tmp_path / "cu.extxyz", read(done[0] / "cu.extxyz", index=":"))
    path = tmp_path / "input.toml"
    path.write_text(INPUT + "[ranks]\ntrainer.teams = 2\n")
    output = finish(path, 5)
    assert "2 trainer" in output
    runs = [read_run(folder / "run") for folder in (done[0], tmp_path)]
    assert runs[0].state["committee"] == runs[1].state["committee"]
    assert runs[0].models == runs[1].models
    lists = [sorted(record.label_id for record in run.labelled) for run in runs]
    assert lists[0] == lists[1]


def test_what_was_labelled_before_the_kill_is_not_labelled_again(done):
    _, first, second = done
    assert "5/5" in first and "round 0  label" not in second
    assert "round 0  train    member 1 of the committee" in second and "round 1  scan" in second


def test_the_run_tells_what_the_committee_thought(done):
    results = results_of(done[0] / "run")
    first = results["rounds"][1]
    assert first["accurate"] + first["candidates"] + first["failed"] == 20 - 5
    assert first["labelled"] == 3 and first["errors"]["total"]["n_frames"] == 3
    assert results["labels"] == 8


def test_deviations_are_those_deepmd_finds(done):
    from deepmd.infer import DeepPot
    from deepmd.infer.model_devi import calc_model_devi

    from pfdhpc.engines.deepmd_inference import interpreted
    from pfdhpc.engines.explore.committee import Committee

    run = read_run(done[0] / "run")
    models = [done[0] / "run" / "models" / f"{item['digest']}.pth" for item in run.state["committee"]]
    assert len(models) == 2
    frames = [frame for frame, _ in read_frames(done[0] / "cu.extxyz")][:4]
    found = Committee(models).judge(frames)
    positions, cells = (np.array([getattr(frame, name) for frame in frames]) for name in ("positions", "cell"))
    graphs = [DeepPot(str(path)) for path in models]
    kinds = [graphs[0].get_type_map().index("Cu")] * 4
    with interpreted():
        expected = calc_model_devi(positions.reshape(4, -1), cells.reshape(4, -1), kinds, graphs)
    assert [item.force for item in found] == pytest.approx(expected[:, 4], rel=1e-3)
    assert [item.energy for item in found] == pytest.approx(expected[:, 7], rel=1e-3, abs=1e-7)


def test_the_report_speaks_of_a_pool(done, capsys):
    folder = done[0]
    assert main(["report", str(folder / "run"), "-o", str(folder / "report.html")]) == 0
    assert "a pool of frames" in (folder / "report.html").read_text()
    card = (folder / "run" / "final" / "MODEL_CARD.md").read_text()
    assert "no molecular dynamics was run" in card and "DP-GEN" in card
