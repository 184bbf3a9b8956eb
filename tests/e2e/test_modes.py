"""Fine-tuning modes through whole jobs: a branch that is replayed, in a run that is killed; parts that are frozen."""

import pytest
from ase.build import bulk
from e2e.jobs import PRETRAINED, Job, finish, results_of, write_copper
from engines.test_modes import write_xyz
from engines.test_trainer import make_records

from pfdhpc.engines.train.deepmd.checkpoint import read, read_branches, single_task

REPLAY = """
restart_after = 0.5
[train.replay.MatPES_r2SCAN]
data = ["known.xyz"]
weight = 1.0
[test]"""


def write_modes(folder, train):
    path = write_copper(folder, rounds=1)
    path.write_text(path.read_text().replace("[test]", train).replace("steps = 20\n", "steps = 30\n"))
    return path


@pytest.fixture(scope="module")
def replayed(tmp_path_factory):
    """Killed in the middle of its second training, and resumed."""
    folder = tmp_path_factory.mktemp("replay")
    write_xyz(folder / "known.xyz", make_records(12, 1, bulk("Si")))
    path = write_modes(folder, REPLAY)
    job = Job(path)
    job.wait_for("round 1  test")
    job.wait_for_state(lambda: list((folder / "run" / "scratch").glob("train-001/restart-*.pt")))
    job.kill()
    return folder, job.text(), finish(path)


def heads(state):
    return {key: value for key, value in state.items() if "fitting_net" in key and value.is_floating_point()}


def test_the_replayed_branch_is_trained_in_every_round_and_told_of(replayed):
    folder, first, second = replayed
    for output in (first, second):
        assert "replayed branch MatPES_r2SCAN: force error on its held-out frames from" in output
    assert "gone on after step" in second
    results = results_of(folder / "run")
    branch = read_branches(folder / "run" / "models" / f"{results['model']}.pt")["MatPES_r2SCAN"]
    parent = heads(single_task(read(PRETRAINED), "MatPES_r2SCAN"))
    found = heads(branch)
    assert found.keys() == parent.keys() and any((found[key] != parent[key]).any() for key in found)


def test_the_final_model_is_the_materials_alone(replayed):
    from deepmd.infer import DeepPot

    model = DeepPot(str(replayed[0] / "run" / "final" / "model.pth"))
    assert "Cu" in model.get_type_map() and model.get_rcut() == 5.5


def test_a_frozen_descriptor_is_the_parents_at_the_end(tmp_path):
    path = write_modes(tmp_path, 'freeze = ["descriptor"]\n[test]')
    finish(path)
    parent, final = single_task(read(PRETRAINED), "MPtrj_PBE"), read(tmp_path / "run" / "final" / "model.pt")
    kept = [key for key in parent if ".descriptor.repflows" in key and parent[key].is_floating_point()]
    assert kept and all((parent[key] == final[key]).all() for key in kept)
    one, two = heads(parent), heads(final)
    assert any((one[key] != two[key]).any() for key in one)
