"""A PET model trained for real by metatrain, for seconds: what a run relies on."""

from dataclasses import replace

import ase.io
import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT

pytest.importorskip("metatrain", reason='metatrain is not installed: pip install "pfdhpc[metatrain]"')

from pfdhpc.config.train import ModelSection, TrainSection
from pfdhpc.data import Frame, Label, Record
from pfdhpc.engines.base import TrainTask
from pfdhpc.engines.isolated.spawner import Spawner
from pfdhpc.engines.metatomic import MetatomicPredictor, is_metatomic
from pfdhpc.engines.models import open_predictor
from pfdhpc.engines.registry import make_trainer, trainer_checks
from pfdhpc.engines.train.metatrain.model import load_pet
from pfdhpc.engines.train.metatrain.train_input import write_frames
from pfdhpc.errors import InputError, TaskError
from pfdhpc.units import virial_from_stress

HYPERS = {"cutoff": 4.0, "d_pet": 8, "d_head": 8, "d_node": 8, "d_feedforward": 8, "num_heads": 2}
HYPERS |= {"num_attention_layers": 1, "num_gnn_layers": 1}
SECTION = {"type": "metatrain", "stages": ["direct", "conservative"], "batch_size": 4, "start_lr": 3e-3}


def make_records(n, seed, offset=0.0):
    """Shaken copper by EMT, its energies shifted by ``offset`` eV an atom."""
    rng, found = np.random.default_rng(seed), []
    for _ in range(n):
        atoms = bulk("Cu", cubic=True)
        atoms.set_cell(atoms.cell @ (np.eye(3) + rng.uniform(-0.03, 0.03, (3, 3))), scale_atoms=True)
        atoms.rattle(0.1, rng=rng)
        atoms.calc = EMT()
        virial = virial_from_stress(atoms.get_stress(voigt=False), atoms.get_volume())
        label = Label(atoms.get_potential_energy() + offset * len(atoms), atoms.get_forces(), virial)
        found.append(Record(Frame.from_atoms(atoms), label=label))
    return tuple(sorted(found, key=lambda record: record.frame_id))


TRAINING, VALIDATION = make_records(12, 1), make_records(10, 2)


@pytest.fixture(scope="module")
def spawner():
    with Spawner() as one:
        yield one


@pytest.fixture(scope="module")
def trainer(spawner):
    model = ModelSection.model_validate({"type_map": ["Au", "Cu"]})
    section = TrainSection.model_validate({**SECTION, "metatrain": {"model": HYPERS}})
    assert trainer_checks(section).check(model, section, True) == []
    return make_trainer(model, section, None, spawner)


@pytest.fixture(scope="module")
def parent(trainer, tmp_path_factory):
    return trainer.import_parent(tmp_path_factory.mktemp("import"))


def first_round(parent, directory, **changes):
    task = TrainTask(0, parent.checkpoint, True, (), TRAINING, VALIDATION, 40, 5, directory)
    directory.mkdir()
    return replace(task, **changes)


@pytest.fixture(scope="module")
def trained(trainer, parent, tmp_path_factory):
    return trainer.train(first_round(parent, tmp_path_factory.mktemp("first") / "round"))


def force_error(labels, records):
    return float(
        np.sqrt(np.mean([np.mean((a.forces - b.label.forces) ** 2) for a, b in zip(labels, records, strict=True)]))
    )


def frames(records):
    return [record.frame for record in records]


def test_two_stages_leave_a_model_that_explores(trained, parent, trainer):
    steps = [row["step"] for row in trained.curve]
    assert steps == sorted(steps) and steps[-1] >= 40
    assert "rmse_f" not in trained.curve[0] and "rmse_d" in trained.curve[0]  # direct forces first
    assert {"rmse_f_val", "rmse_v_val", "rmse_d_val"} <= trained.curve[-1].keys()
    before, after = (trainer.predict(one.checkpoint, frames(VALIDATION)) for one in (parent, trained))
    assert force_error(after, VALIDATION) < force_error(before, VALIDATION)
    exported = open_predictor(trained.frozen)
    assert isinstance(exported, MetatomicPredictor) and is_metatomic(trained.frozen)
    for one, two in zip(exported(frames(VALIDATION)), after, strict=True):
        assert one.energy == pytest.approx(two.energy, abs=1e-3)
        assert np.allclose(one.forces, two.forces, atol=1e-3) and np.allclose(one.virial, two.virial, atol=1e-2)
    log = (trained.checkpoint.parent / "train.log").read_text()
    assert log.count("Training finished") == 2 and log.index("from scratch") < log.index("Starting finetuning")


def test_left_handed_cells_are_the_same_crystals_to_it(trained, tmp_path):
    mirrored = [replace(record, frame=replace(record.frame, cell=record.frame.cell[[1, 0, 2]])) for record in TRAINING]
    pairs = [open_predictor(trained.frozen)(frames(some)) for some in (TRAINING, mirrored)]
    for one, other in zip(*pairs, strict=True):
        assert other.energy == pytest.approx(one.energy, abs=1e-5)
        assert np.allclose(one.forces, other.forces, atol=1e-5) and np.allclose(one.virial, other.virial, atol=1e-4)
    write_frames(mirrored, True, tmp_path / "epoch.extxyz")
    for atoms, record in zip(ase.io.iread(tmp_path / "epoch.extxyz", parallel=False), TRAINING, strict=True):
        assert np.linalg.det(atoms.cell.array) > 0
        assert np.allclose(atoms.info["label_stress"] * atoms.get_volume(), -record.label.virial, atol=1e-5)


def test_its_forces_are_the_gradient_of_its_energy(trained):
    frame, step = VALIDATION[0].frame, 0.05
    predict = open_predictor(trained.frozen)
    moved = []
    for sign in (1, -1):
        positions = frame.positions.copy()
        positions[0, 0] += sign * step
        moved.append(replace(frame, positions=positions))
    high, low = (label.energy for label in predict(moved))
    assert -(high - low) / (2 * step) == pytest.approx(predict([frame])[0].forces[0, 0], abs=0.03)


def test_a_round_trained_again_is_the_same(trained, trainer, parent, tmp_path):
    again = trainer.train(first_round(parent, tmp_path / "round"))
    assert again.checkpoint.read_bytes() == trained.checkpoint.read_bytes()
    assert again.curve == trained.curve


def test_a_given_checkpoint_is_aligned_and_gone_on_from(trained, spawner, tmp_path):
    """Labels of another level of theory: 50 eV an atom apart."""
    given = tmp_path / "given.ckpt"
    given.write_bytes(trained.checkpoint.read_bytes())
    model, section = ModelSection.model_validate({"checkpoint": given}), TrainSection.model_validate(SECTION)
    assert trainer_checks(section).facts(model) == ([], ("Cu", "Au"))
    engine = make_trainer(model, section, None, spawner)
    new = make_records(12, 3, offset=50.0)
    before = engine.predict(given, frames(new))
    only_aligned = engine.train(TrainTask(0, given, True, (), new, (), 0, 5, tmp_path))
    after = engine.predict(only_aligned.checkpoint, frames(new))
    shift = [b.energy - a.energy for a, b in zip(before, after, strict=True)]
    assert np.allclose(shift, shift[0], atol=1e-3) and shift[0] == pytest.approx(200, abs=3)
    directory = tmp_path / "later"
    directory.mkdir()
    later = engine.train(TrainTask(1, only_aligned.checkpoint, False, new[:6], new[6:], (), 8, 5, directory))
    assert "rmse_f" in later.curve[0]  # conservative from its first step
    assert set(load_pet(later.checkpoint).dataset_info.targets) >= {"energy", "non_conservative_force"}


def test_an_element_that_comes_later_has_its_energy_aligned(trained, trainer, tmp_path):
    """metatrain fits energies per element in a training from scratch alone."""
    known = make_records(4, 7)
    gold = tuple(
        replace(r, frame=replace(r.frame, numbers=np.full(4, 79)), label=replace(r.label, energy=r.label.energy - 8000))
        for r in make_records(4, 8)
    )
    later = trainer.train(TrainTask(1, trained.checkpoint, False, TRAINING, (*known, *gold), (), 0, 5, tmp_path))
    before, after = (trainer.predict(one.checkpoint, frames(known)) for one in (trained, later))
    assert [label.energy for label in after] == pytest.approx([label.energy for label in before], abs=1e-3)
    wrong = [
        p.energy - r.label.energy for p, r in zip(trainer.predict(later.checkpoint, frames(gold)), gold, strict=True)
    ]
    assert np.mean(wrong) == pytest.approx(0, abs=0.1) and not later.notes


def test_what_is_no_pet_checkpoint_is_refused_in_one_line(trained, tmp_path):
    section = TrainSection.model_validate(SECTION)
    for content in (b"nothing", trained.frozen.read_bytes()):
        (tmp_path / "model.ckpt").write_bytes(content)
        problems, type_map = trainer_checks(section).facts(
            ModelSection.model_validate({"checkpoint": tmp_path / "model.ckpt"})
        )
        assert len(problems) == 1 and "model.checkpoint" in problems[0] and type_map == ()


def test_metatrain_has_the_last_word_on_its_options(spawner):
    section = TrainSection.model_validate({**SECTION, "metatrain": {"model": {"d_peet": 8}}})
    with pytest.raises(InputError, match="train.metatrain: .*d_peet"):
        make_trainer(ModelSection.model_validate({"type_map": ["Cu"]}), section, None, spawner)


def test_a_training_that_fails_is_a_failed_task(trainer, parent, tmp_path):
    strange = Record(Frame([79, 47], 4 * np.eye(3), [[0, 0, 0], [2, 2, 2]]), label=Label(0.0, np.zeros((2, 3))))
    with pytest.raises(TaskError, match="metatrain failed"):
        trainer.train(first_round(parent, tmp_path / "round", new=(*TRAINING, strange)))
    with pytest.raises(TaskError, match="does not know the elements Ag"):
        trainer.predict(parent.checkpoint, [strange.frame])
