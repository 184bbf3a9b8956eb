"""DPA-4 models: fine-tuned as they are or by low-rank adapters, explored as checkpoints. deepmd for real."""

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from engines.test_restart import begin_again, broken_off
from engines.test_trainer import weights
from models import tiny_checkpoint

from pfdhpc.config import parse
from pfdhpc.config.load import stage_config
from pfdhpc.config.pfd_stages import second_act
from pfdhpc.config.train import ModelSection, TrainSection
from pfdhpc.data import Frame, Label, Record
from pfdhpc.engines.base import TrainTask
from pfdhpc.engines.deepmd_inference import Predictor
from pfdhpc.engines.train.deepmd.input_checks import check
from pfdhpc.engines.train.deepmd.trainer import DeepmdTrainer
from pfdhpc.errors import InputError
from pfdhpc.store.run_directory import RunFolder

ADAPTED = ("so2_conv", "so3_linear")
STEPS = 12


def make_trainer(checkpoint, branch=None, **train):
    model = ModelSection.model_validate({"checkpoint": checkpoint, "branch": branch})
    return DeepmdTrainer(model, TrainSection.model_validate({"type": "dpa4", "batch_size": 2, **train}), None)


def copper(n):
    rng, made = np.random.default_rng(1), []
    for _ in range(n):
        atoms = bulk("Cu", cubic=True)
        atoms.rattle(0.1, rng=rng)
        atoms.calc = EMT()
        made.append(Record(Frame.from_atoms(atoms), label=Label(atoms.get_potential_energy(), atoms.get_forces())))
    return tuple(sorted(made, key=lambda record: record.frame_id))


DATA = copper(6)


def task(parent, directory, **changes):
    directory.mkdir(exist_ok=True)
    values = dict(round=0, parent=parent, first=True, old=(), new=DATA, validation=(), steps=STEPS, seed=5)
    return TrainTask(**{**values, "directory": directory, **changes})


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """With two branches, as those there are to be had."""
    return tiny_checkpoint(tmp_path_factory.mktemp("dpa4"), ("Cu", "Al"), branches=("a", "b"), descriptor="dpa4")


@pytest.fixture(scope="module")
def parent(pretrained, tmp_path_factory):
    return make_trainer(pretrained, "b").import_parent(tmp_path_factory.mktemp("parent")).checkpoint


@pytest.fixture(scope="module")
def adapted(pretrained, parent, tmp_path_factory):
    """After two rounds with adapters of rank 1."""
    folder, trainer = tmp_path_factory.mktemp("adapted"), make_trainer(pretrained, "b", lora={"rank": 1})
    first = trainer.train(task(parent, folder / "first"))
    second = task(first.checkpoint, folder / "second", round=1, first=False, old=DATA[:3], new=DATA[3:])
    return first, trainer.train(second)


def differences(before, after):
    one, two = weights(before), weights(after)
    assert one.keys() == two.keys(), "no adapters are left in a model"
    return {key: (two[key] - one[key]) for key in one if one[key].is_floating_point() and "out_bias" not in key}


def test_a_round_trains_all_and_its_checkpoint_is_what_explores(pretrained, parent, tmp_path):
    trainer = make_trainer(pretrained, "b", start_lr=2e-2)
    result = trainer.train(task(parent, tmp_path / "round", steps=40))
    assert result.frozen == result.checkpoint
    folder = RunFolder(tmp_path / "run")
    used = folder.frozen(folder.publish(result.checkpoint, result.frozen))
    assert used.suffix == ".pt" and len(list(folder.models.iterdir())) == 1
    frames = [record.frame for record in DATA]
    expected = trainer.predict(result.checkpoint, frames)
    for found, wanted in zip(Predictor(used)(frames), expected, strict=True):
        assert found.energy == pytest.approx(wanted.energy, abs=1e-8)
        assert np.allclose(found.forces, wanted.forces, atol=1e-7)
    before = trainer.predict(parent, frames)
    wrong = [np.sqrt(np.mean([(p.forces - r.label.forces) ** 2 for p, r in zip(some, DATA, strict=True)]))
             for some in (before, expected)]  # fmt: skip
    assert wrong[1] < 0.9 * wrong[0]
    moved = [key for key, change in differences(parent, result.checkpoint).items() if (change != 0).any()]
    assert any("type_embedding" in key for key in moved)


def test_adapters_change_the_backbone_by_matrices_of_low_rank(parent, adapted):
    changes = differences(parent, adapted[0].checkpoint)
    large = {key: change for key, change in changes.items() if "so2_linears" in key and key.endswith("weight_m0")}
    assert large and all((change != 0).any() for change in large.values())
    for change in large.values():
        values = np.linalg.svd(change.numpy().reshape(change.shape[0], -1), compute_uv=False)
        assert values[1] < 1e-10 * values[0], "rank 1"
    frozen = [key for key in changes if "type_embedding" in key]
    assert frozen and not any((changes[key] != 0).any() for key in frozen)
    assert any((change != 0).any() for key, change in changes.items() if "fitting_net" in key)


def test_a_later_round_goes_on_with_new_adapters(adapted):
    changes = differences(adapted[0].checkpoint, adapted[1].checkpoint)
    large = [change for key, change in changes.items() if key.endswith("weight_m0")]
    assert large and all((change != 0).any() for change in large)


def test_a_round_with_adapters_that_was_killed_goes_on_where_it_was(pretrained, parent, tmp_path, monkeypatch):
    trainer = make_trainer(pretrained, "b", lora={"rank": 1}, restart_after=1e-6)
    work = task(parent, tmp_path / "round")
    assert broken_off(trainer, monkeypatch, 7, work)[1] == list(range(1, 8))
    begin_again(work.directory)
    result, steps = broken_off(trainer, monkeypatch, None, work)
    assert result.begun_at == 7 and steps == list(range(8, STEPS + 1))
    changes = differences(parent, result.checkpoint)
    assert all((change != 0).any() for key, change in changes.items() if key.endswith("weight_m0"))


def test_the_kind_of_trainer_must_be_that_of_the_model(pretrained, tmp_path):
    other = tiny_checkpoint(tmp_path, ("Cu", "Al"))
    dpa4, plain = (TrainSection.model_validate({"type": kind}) for kind in ("dpa4", "deepmd"))
    given, strange = (ModelSection.model_validate(v) for v in (
        {"checkpoint": pretrained, "branch": "b"}, {"checkpoint": other}))  # fmt: skip
    assert check(given, dpa4, True) == check(strange, plain, True) == []
    assert 'set train.type = "dpa4"' in check(given, plain, True)[0]
    assert 'set train.type = "dpa4"' in check(given, plain, None)[0], "a teacher too"
    assert "the model is a se_e2_a; remove the key" in check(strange, dpa4, True)[0]


def whole_input(pretrained, **changes):
    bulk("Cu", cubic=True).write(pretrained.parent / "cu.extxyz")
    values = {
        "workflow": "pfd",
        "model": {"checkpoint": str(pretrained), "branch": "b"},
        "system": [{"name": "Cu", "structures": ["cu.extxyz"]}],
        "explore": {"steps": 40},
        "label": {"type": "ase", "options": {"calculator": "ase.calculators.emt.EMT"}},
        "train": {"type": "dpa4", "lora": {"rank": 4}},
        "student": {"preset": "se_e2_a"},
    }
    for key, value in changes.items():
        values[key] = {**values.get(key, {}), **value} if isinstance(value, dict) else value
    return parse({key: value for key, value in values.items() if value}, pretrained.parent)


def test_it_explores_by_ase_and_is_the_teacher_of_a_chain(pretrained, tmp_path):
    config = whole_input(pretrained)
    assert config.explore.engine == "ase" and config.explore.options["calculator"] == "deepmd.calculator.DP"
    (tmp_path / "model.pt").write_bytes(b"")
    second = stage_config(config, 1, tmp_path / "model.pt")
    assert second.model.calculator == "deepmd.calculator.DP" and second.model.checkpoint == tmp_path / "model.pt"
    assert second.explore.engine == "ase" and second.explore.steps == 40 and second.train.type == "deepmd"
    assert second_act(config)["model"]["arguments"] == {"head": "b"}


@pytest.mark.parametrize(
    "changes, problem",
    [
        ({"train": {"type": "deepmd"}}, "train.lora: deepmd has it for DPA-4 models alone"),
        ({"train": {"lora": {"rank": 0}}}, "train.lora.rank"),
        ({"train": {"replay": {"a": {"data": ["x"]}}}}, "train.lora: not with train.replay"),
        ({"train": {"stages": ["direct", "conservative"]}}, "train.stages: not for DPA-4"),
        ({"explore": {"engine": "lammps", "options": {}}}, 'explore.engine: "lammps" cannot run a DPA-4'),
        ({"model": {"type_map": ["Cu"]}}, "model.type_map: a DPA-4 keeps"),
        ({"workflow": "distill", "label": {}}, "train.type: a student is for LAMMPS"),
    ],
)
def test_what_does_not_go_with_it_is_refused(pretrained, changes, problem):
    with pytest.raises(InputError, match=problem):
        whole_input(pretrained, **changes)
