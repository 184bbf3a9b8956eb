"""PET models by metatrain, as far as it takes no metatrain: what inputs mean, what it is given, what it tells."""

import re

import numpy as np
import pytest
from ase.io import read

from pfdhpc.config.train import ModelSection, TrainSection
from pfdhpc.data import Frame, Label, Record
from pfdhpc.engines.train.metatrain import train_input as options
from pfdhpc.engines.train.metatrain.train_input import Stage, check_options, epoch, read_curve, round_options, stages
from pfdhpc.errors import InputError, TaskError
from pfdhpc.units import virial_from_stress
from tests.toys import make_config

TWO = {"type": "metatrain", "stages": ["direct", "conservative"]}
SCRATCH = {"checkpoint": None, "type_map": ["Cu"]}
CALCULATOR = "metatomic_ase.MetatomicCalculator"


def config(folder, **changes):
    """Copper with a PET model from scratch."""
    values = {"train": {"type": "metatrain"}, "model": SCRATCH, "explore": {"options": {}}}
    return make_config(folder, **{**values, **changes})


def records(n, virial=True, seed=0):
    rng = np.random.default_rng(seed)
    cell, found = 3.6 * np.eye(3), []
    for _ in range(n):
        label = Label(rng.normal(), rng.normal(size=(1, 3)), rng.normal(size=(3, 3)) if virial else None)
        found.append(Record(Frame([29], cell, rng.normal(size=(1, 3))), label=label))
    return tuple(found)


def section(**values):
    return TrainSection.model_validate({"type": "metatrain", **values})


def test_the_trainer_implies_what_explores(tmp_path):
    found = config(tmp_path).explore
    assert found.engine == "ase"
    assert found.options == {"calculator": CALCULATOR, "model_argument": "model"}
    with_device = config(tmp_path, explore={"options": {"arguments": {"device": "cpu"}}}).explore.options
    assert with_device["arguments"] == {"device": "cpu"} and with_device["calculator"] == CALCULATOR


def test_all_that_makes_no_sense_with_it_is_told_at_once(tmp_path):
    (tmp_path / "pet.pt").write_text("exported")
    with pytest.raises(InputError) as caught:
        make_config(
            tmp_path,
            model={"checkpoint": "pet.pt", "branch": "a", "type_map": ["Cu"]},
            train={"type": "metatrain", "freeze": ["descriptor"], "stop_lr": 1e-6, "deepmd": {"loss": {}}},
            ranks={"trainer": {"ranks": 2}},
            select={"descriptor": {"type": "model"}},
        )
    keys = {problem.removeprefix("input: ").split(":")[0] for problem in caught.value.problems}
    assert keys >= {
        "model.branch", "model.checkpoint", "model.type_map", "train.freeze", "train.stop_lr", "train.deepmd",
        "ranks.trainer.ranks", "select.descriptor.type", "explore.options.calculator",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"explore": {"engine": "lammps", "options": {}}}, "explore"),
        ({"workflow": "pfd", "student": {"preset": "dpa1"}}, 'goes with workflow = "finetune"'),
        ({"init": {"frames": 0}}, "random, and must be trained before it explores"),
        ({"train": {"type": "metatrain", "bias": "set"}}, "train.bias: a model without a checkpoint"),
        ({"train": {"type": "metatrain", "stages": ["direct"]}}, "NVE above all"),
        ({"model": {"checkpoint": None}}, "model.checkpoint: missing"),
        ({"train": {}, "explore": {}}, "model.checkpoint: missing"),
        (
            {"train": {"metatrain": {"model": {}}}, "model": {}, "explore": {}},
            'only read with train.type = "metatrain"',
        ),
    ],
)
def test_an_input_it_cannot_follow_is_refused(changes, told, tmp_path):
    with pytest.raises(InputError, match=told):
        config(tmp_path, **changes)


def test_direct_forces_do_not_drive_dynamics_at_constant_energy(tmp_path):
    direct = {"options": {"arguments": {"non_conservative": "forces"}}}
    assert config(tmp_path, train=TWO, explore=direct).explore.ensemble == "langevin"
    with pytest.raises(InputError, match='explore.ensemble: "nve" with direct forces.*nothing keeps the energy'):
        config(tmp_path, train=TWO, explore={**direct, "ensemble": "nve"})
    with pytest.raises(InputError, match="the model has no direct forces"):
        config(tmp_path, explore=direct)


@pytest.mark.parametrize(
    ("given", "model", "told"),
    [
        ({"training": {"num_epochs": 5}}, {"type_map": ["Cu"]}, "num_epochs: set by the run.*train.steps"),
        ({"trainig": {}}, {"type_map": ["Cu"]}, "train.metatrain.trainig: unknown key"),
        ({"model": 3}, {"type_map": ["Cu"]}, "train.metatrain.model: must be a table"),
        ({"model": {"d_pet": 8}}, {"checkpoint": __file__}, "the model comes from the checkpoint"),
    ],
)
def test_its_options_are_the_users_but_for_what_the_run_sets(given, model, told):
    problems = check_options(ModelSection.model_validate(model), section(metatrain=given))
    assert any(re.search(told, line) for line in problems), problems


def test_without_the_package_one_line_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(options, "find_spec", lambda name: None)
    assert check_options(ModelSection.model_validate({"type_map": ["Cu"]}), section()) == [options.MISSING]
    assert 'pip install "pfdhpc[metatrain]"' in options.MISSING


def test_options_from_a_file(tmp_path):
    (tmp_path / "pet.yaml").write_text("model:\n  d_pet: 8\n")
    assert options.read_options(section(metatrain=tmp_path / "pet.yaml")) == {"model": {"d_pet": 8}}
    (tmp_path / "pet.yaml").write_text("model: [")
    with pytest.raises(InputError, match="train.metatrain: .*pet.yaml"):
        options.read_options(section(metatrain=tmp_path / "pet.yaml"))


def test_direct_forces_come_first_and_stay_with_a_small_weight():
    two = section(stages=["direct", "conservative"], direct_share=0.25)
    assert stages(two, 100, True) == [Stage("direct", 25, False, 1.0), Stage("conservative", 75, True, 0.1)]
    assert stages(two, 100, False) == [Stage("conservative", 100, True, 0.1)]
    assert stages(two, 1, True) == [Stage("conservative", 1, True, 0.1)]
    assert stages(section(), 100, True) == [Stage("conservative", 100, True, None)]


def test_what_a_stage_is_told_to_train():
    data = {"n_batch": 4, "virial": True, "training": "t.xyz", "validation": "v.xyz"}
    direct, after = (
        round_options(section(stages=["direct", "conservative"]), stage, parent, [29], 20, 2**32 + 5, **data)
        for stage, parent in ((Stage("a", 9, False, 1.0), None), (Stage("b", 9, True, 0.1), "parent.ckpt"))
    )
    energy = direct["training_set"]["targets"]["energy"]
    assert energy["forces"] is False and energy["stress"] is False  # nothing is differentiated by the positions
    assert set(direct["training_set"]["targets"]) == {"energy", "non_conservative_force", "non_conservative_stress"}
    assert direct["architecture"]["atomic_types"] == [29] and direct["seed"] == 5
    assert after["training_set"]["targets"]["energy"]["forces"] == {"key": "label_forces"}
    assert after["architecture"]["training"]["finetune"] == {"method": "full", "read_from": "parent.ckpt"}
    assert after["architecture"]["training"]["loss"]["non_conservative_force"]["weight"] == 0.1
    assert "model" not in after["architecture"]


@pytest.mark.parametrize(("n_old", "n_new", "share"), [(0, 7, 0.5), (30, 4, 0.5), (3, 40, 0.2), (10, 10, 0.0)])
def test_an_epoch_has_every_frame_and_the_shares_asked_for(n_old, n_new, share):
    old, new = records(n_old, seed=1), records(n_new, seed=2)
    made = section(batch_size=4, new_fraction=share)
    found = epoch(made, old, new, steps=100, seed=3)
    assert len(found) % 4 == 0 and len(found) >= 5 * 4
    assert [r.frame_id for r in found] == [r.frame_id for r in epoch(made, old, new, steps=100, seed=3)]
    ids = [record.frame_id for record in found]
    for some, part in ((old, 1 - share if new else 1), (new, share if old else 1)):
        counts = [ids.count(record.frame_id) for record in some]
        assert not counts or max(counts) - min(counts) <= 1
        assert not counts or (min(counts) >= 1) == (part > 0)
        assert abs(sum(counts) / len(ids) - (part if some else 0)) < 0.5 / len(ids) + 1e-9


def test_an_epoch_of_nothing_is_refused():
    with pytest.raises(TaskError, match="no labelled frame"):
        epoch(section(), (), (), 10, 1)


def test_the_frames_it_reads_are_the_labels(tmp_path):
    given = records(2)
    options.write_frames(given, True, tmp_path / "frames.xyz")
    for record, atoms in zip(given, read(tmp_path / "frames.xyz", ":"), strict=True):
        assert atoms.info["label_energy"] == record.label.energy
        assert np.allclose(atoms.arrays["label_forces"], record.label.forces, atol=1e-8)
        assert np.allclose(virial_from_stress(atoms.info["label_stress"], atoms.get_volume()), record.label.virial)
    options.write_frames(records(1, virial=False), False, tmp_path / "molecule.xyz")
    assert "label_stress" not in read(tmp_path / "molecule.xyz").info


def test_its_curve_is_read_in_our_units(tmp_path):
    (tmp_path / "train.csv").write_text(
        "Epoch,learning rate,training loss,training energy RMSE (per atom),training forces RMSE,"
        "validation loss,validation non_conservative_force RMSE (per atom)\n"
        ",,,meV,meV/A,,meV/A\n   0,1e-3,3.0,111.35,2957.0,1.0,250.0\n   1,0.0,2.0,11.0,57.0,1.0,25.0\n"
    )
    first, second = read_curve(tmp_path / "train.csv", 40, 10)
    assert first == pytest.approx({"step": 50.0, "rmse_e": 0.11135, "rmse_f": 2.957, "rmse_d_val": 0.25})
    assert second == pytest.approx({"step": 60.0, "rmse_e": 0.011, "rmse_f": 0.057, "rmse_d_val": 0.025})
