"""Students: trained from scratch as `dp train` does, warm started, compressed, run by LAMMPS."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT

from pfdhpc.config.student import StudentSection
from pfdhpc.config.train import ModelSection, TrainSection
from pfdhpc.data import Frame, Label, Record
from pfdhpc.engines.base import TrainTask
from pfdhpc.engines.deepmd_inference import Predictor
from pfdhpc.engines.train.deepmd.checkpoint import read
from pfdhpc.engines.train.deepmd.student_model import check_student, student_model
from pfdhpc.engines.train.deepmd.train_input import LOSS
from pfdhpc.engines.train.deepmd.trainer import DeepmdTrainer
from pfdhpc.errors import InputError, TaskError
from tests.models import tiny_checkpoint

BIAS = "model.Default.atomic_model.out_bias"
ELEMENTS = ("Cu", "Al")
DESCRIPTOR = {"rcut": 4.5, "rcut_smth": 0.5, "sel": "auto", "neuron": [4, 8], "axis_neuron": 2}
KINDS = {
    "se_e2_a": {"type": "se_e2_a", "type_one_side": True, **DESCRIPTOR},
    "dpa1": {"type": "se_atten_v2", "attn_layer": 0, "tebd_dim": 2, **DESCRIPTOR},
    "attention": {"type": "se_atten_v2", "attn_layer": 1, "attn": 4, "tebd_dim": 2, **DESCRIPTOR},
}


def tiny(kind, **descriptor):
    """A student's model section that trains in a second."""
    section = {"descriptor": {**KINDS[kind], **descriptor}, "fitting_net": {"neuron": [8, 8]}}
    return student_model(StudentSection.model_validate({"model": section}), ELEMENTS)


def labelled(n, seed, a=2.95, atoms=None):
    """n rattled CuAl crystals of lattice constant a (or copies of ``atoms``), labelled by EMT."""
    rng, records = np.random.default_rng(seed), []
    for _ in range(n):
        copy = (atoms or bulk("CuAl", "cesiumchloride", a=a)).copy()
        copy.rattle(0.05, rng=rng)
        copy.calc = EMT()
        stress = copy.get_stress(voigt=False)
        label = Label(copy.get_potential_energy(), copy.get_forces(), -stress * copy.get_volume())
        records.append(Record(Frame.from_atoms(copy), label=label))
    return tuple(sorted(records, key=lambda record: record.frame_id))


DATA = labelled(4, 1) + labelled(3, 2, atoms=bulk("Cu", cubic=True))
FRAMES = [record.frame for record in DATA]


@pytest.fixture(scope="module")
def trainer(tmp_path_factory):
    model = ModelSection.model_validate({"checkpoint": tiny_checkpoint(tmp_path_factory.mktemp("parent"), ELEMENTS)})
    return DeepmdTrainer(model, TrainSection.model_validate({"batch_size": 2, "best": False}), None)


def round_of(model, directory, new, **changes):
    values = dict(round=0, parent=None, first=False, old=(), new=new, validation=(), steps=12, seed=5, model=model)
    return TrainTask(**{**values, "directory": Path(directory), **changes})


@pytest.fixture(scope="module")
def students(trainer, tmp_path_factory):
    """A trained student of each kind."""
    return {kind: trainer.train(round_of(tiny(kind), tmp_path_factory.mktemp(kind), DATA)).checkpoint for kind in KINDS}


def weights(checkpoint):
    return {key: value for key, value in read(checkpoint).items() if key != "_extra_state"}


def counts(checkpoint):
    return read(checkpoint)["_extra_state"]["model_params"]["descriptor"]["sel"]


def dp_train(model, ours):
    """Start `dp --pt train` on the frames of ``ours``, in a folder beside; returns the process."""
    systems = sorted(str(path.parent) for path in ours.rglob("type.raw"))
    training = {"training_data": {"systems": systems, "batch_size": 2}, "gradient_max_norm": 5.0}
    training |= {"numb_steps": 12, "seed": 5, "save_freq": 100, "disp_freq": 1}
    rates = {"type": "exp", "start_lr": 1e-3, "stop_lr": 1e-5, "decay_steps": 1}
    folder = ours.with_name(ours.name + "-dp")
    folder.mkdir()
    content = {"model": model, "learning_rate": rates, "loss": LOSS, "training": training}
    (folder / "input.json").write_text(json.dumps(content))
    command = [Path(sys.executable).with_name("dp"), "--pt", "train", "input.json"]
    with open(folder / "out", "w") as out:
        environment = {**os.environ, "NUM_WORKERS": "0"}
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=out, stderr=subprocess.STDOUT)


def test_weights_equal_those_of_dp_train(trainer, tmp_path):
    """Every statistic and all weights after 12 steps, where ten batches of a system are all its frames."""
    runs = {}
    for kind in ("se_e2_a", "dpa1"):
        ours = trainer.train(round_of(tiny(kind), tmp_path / kind, DATA)).checkpoint
        runs[ours] = dp_train(tiny(kind), tmp_path / kind)
    for ours, process in runs.items():
        folder = ours.parent.with_name(ours.parent.name + "-dp")
        assert process.wait() == 0, (folder / "out").read_text()[-2000:]
        found, theirs = weights(ours), weights(folder / "model.ckpt-12.pt")
        assert found.keys() == theirs.keys() and counts(ours) == counts(folder / "model.ckpt-12.pt")
        assert not [key for key in found if not np.allclose(found[key], theirs[key], rtol=0, atol=1e-8)]


def test_bias_is_fitted_to_all_frames(trainer, tmp_path):
    """25 frames in batches of 2: deepmd's own ten batches would leave five frames out."""
    crystals, copper = labelled(25, 7), labelled(3, 8, atoms=bulk("Cu"))
    off = [replace(r, label=replace(r.label, energy=r.label.energy + i)) for i, r in enumerate(crystals)]
    records = (*off, *copper)
    bias = weights(trainer.train(round_of(tiny("se_e2_a"), tmp_path, records, steps=1)).checkpoint)[BIAS]
    composition = np.array([[1, 1]] * 25 + [[1, 0]] * 3)
    wanted = np.linalg.lstsq(composition, [record.label.energy for record in records], rcond=None)[0]
    assert np.allclose(bias.numpy().ravel(), wanted, atol=1e-9)


def test_a_given_bias_is_kept(trainer, tmp_path):
    model = {**tiny("se_e2_a"), "preset_out_bias": {"energy": [None, -3.5]}}
    bias = weights(trainer.train(round_of(model, tmp_path, DATA, steps=1)).checkpoint)[BIAS].numpy().ravel()
    assert bias[1] == -3.5 and bias[0] != 0


def test_a_student_depends_on_its_task_alone(trainer, students, tmp_path):
    """From scratch and warm: another training between, frames in another order, the same bytes."""
    again = trainer.train(round_of(tiny("se_e2_a"), tmp_path / "again", DATA[::-1])).checkpoint
    assert again.read_bytes() == students["se_e2_a"].read_bytes()
    parent, results = students["se_e2_a"], []
    for name in ("one", "two"):
        task = round_of(tiny("se_e2_a"), tmp_path / name, DATA[:2], old=DATA[2:], parent=parent, seed=9)
        results.append(trainer.train(task))
        trainer.train(round_of(tiny("se_e2_a"), tmp_path / f"{name}-x", DATA, steps=2, seed=99))
    assert results[0].checkpoint.read_bytes() == results[1].checkpoint.read_bytes() != parent.read_bytes()
    assert (weights(results[0].checkpoint)[BIAS] == weights(parent)[BIAS]).all()
    assert {path.name for path in (tmp_path / "one").iterdir()} == {
        *("last.pt", "last.pth", "lcurve.out", "train.log", "data")
    }


@pytest.mark.parametrize("kind", ["se_e2_a", "dpa1"])
def test_neighbour_counts_grow_when_they_must(trainer, students, kind, tmp_path):
    parent = students[kind]
    dense = labelled(2, 3, a=2.5)
    before = np.ravel(counts(parent))
    same = trainer.train(round_of(tiny(kind), tmp_path / "same", labelled(2, 4), old=DATA, parent=parent, steps=1))
    assert counts(same.checkpoint) == counts(parent)
    result = trainer.train(round_of(tiny(kind), tmp_path / "dense", dense, old=DATA, parent=parent, steps=1))
    after = np.ravel(counts(result.checkpoint))
    neighbours = count_neighbours(dense)
    assert (after >= (neighbours if kind == "se_e2_a" else neighbours.sum())).all() and (after > before).any()
    old, new = weights(parent), weights(result.checkpoint)
    grew = {key for key in old if old[key].shape != new[key].shape}
    assert {key.rpartition(".")[2] for key in grew} == {"mean", "stddev"}
    kept = [key for key in old.keys() - grew if old[key].numel() and "min_nbor" not in key]
    largest = max(float(abs(new[key] - old[key]).max()) for key in kept)
    assert 0 < largest < 2e-3, "the parent's weights, one step of 1e-3 further"
    fixed = tiny(kind, sel=counts(parent))
    kept = trainer.train(round_of(fixed, tmp_path / "fixed", dense, old=DATA, parent=parent, steps=1))
    assert counts(kept.checkpoint) == counts(parent)
    assert "is not enough" in (tmp_path / "fixed" / "train.log").read_text()


def count_neighbours(records):
    """The largest number of Cu and of Al neighbours of an atom, within the cutoff."""
    from ase.neighborlist import neighbor_list

    found = np.zeros(2, int)
    for record in records:
        i, j = neighbor_list("ij", record.frame.to_atoms(), 4.5)
        for column, number in enumerate((29, 13)):
            found[column] = max(found[column], np.bincount(i[record.frame.numbers[j] == number]).max())
    return found


def test_from_scratch_needs_steps(trainer, tmp_path):
    with pytest.raises(TaskError, match="train.first_steps"):
        trainer.train(round_of(tiny("se_e2_a"), tmp_path, DATA, steps=0))


@pytest.mark.parametrize("kind", ["se_e2_a", "dpa1"])
def test_production_model_is_compressed(trainer, students, kind, tmp_path):
    product = trainer.produce(students[kind], FRAMES, tmp_path, True)
    assert product.compressed and not product.reason and product.force_change < 1e-6
    assert {path.name for path in tmp_path.iterdir()} == {"product.pth", "train.log"}
    plain = trainer.predict(students[kind], FRAMES)
    for one, two in zip(Predictor(product.frozen)(FRAMES), plain, strict=True):
        assert one.energy == pytest.approx(two.energy, abs=1e-6)
        assert np.allclose(one.forces, two.forces, atol=1e-6) and np.allclose(one.virial, two.virial, atol=1e-5)
    import torch

    tables = [value for name, value in torch.jit.load(product.frozen).named_parameters() if "compress_data" in name]
    assert tables and all(table.numel() > 1000 for table in tables)


def test_single_precision_is_compared_as_such(trainer, tmp_path):
    task = round_of(tiny("se_e2_a", precision="float32"), tmp_path, DATA, steps=1)
    product = trainer.produce(trainer.train(task).checkpoint, FRAMES, tmp_path, True)
    assert product.compressed and 0 < product.force_change < 1e-3


def test_frames_of_any_composition_share_a_batch(students, trainer, tmp_path, monkeypatch):
    """Three compositions and two sizes: two calls, and each frame's own answer."""
    frozen = trainer.produce(students["se_e2_a"], (), tmp_path, False).frozen
    predictor = Predictor(frozen)
    frames = [record.frame for record in DATA]
    frames.append(Frame(frames[0].numbers[::-1], frames[0].cell, frames[0].positions[::-1]))
    calls, evaluate = [], predictor._evaluate
    monkeypatch.setattr(predictor, "_evaluate", lambda batch: calls.append(len(batch)) or evaluate(batch))
    together = predictor(frames)
    assert sorted(calls) == [3, 5]
    for frame, label in zip(frames, together, strict=True):
        alone = predictor([frame])[0]
        assert alone.energy == pytest.approx(label.energy, abs=1e-10)
        assert np.allclose(alone.forces, label.forces, atol=1e-10)


def test_what_cannot_be_compressed_says_so(trainer, students, tmp_path):
    product = trainer.produce(students["attention"], FRAMES, tmp_path / "a", True)
    assert not product.compressed and "attn_layer = 0" in product.reason and product.frozen.is_file()
    teacher = trainer.produce(tiny_checkpoint(tmp_path, ELEMENTS, descriptor="dpa3"), FRAMES, tmp_path / "b", True)
    assert not teacher.compressed and "cannot compress" in teacher.reason
    assert Predictor(teacher.frozen)(FRAMES)[0].is_finite()
    plain = trainer.produce(students["se_e2_a"], (), tmp_path / "c", False)
    assert not plain.compressed and not plain.reason and plain.frozen.is_file()


def test_a_compression_that_changes_answers_is_not_used(trainer, students, tmp_path, monkeypatch):
    from pfdhpc.engines.train.deepmd import freeze_compress

    monkeypatch.setitem(freeze_compress.TOLERANCE, "float64", (0.0, 0.0))
    product = trainer.produce(students["se_e2_a"], [record.frame for record in DATA], tmp_path, True)
    assert not product.compressed and "compression changes energies" in product.reason
    assert Predictor(product.frozen)([DATA[0].frame])[0].is_finite()


@pytest.mark.parametrize("preset", ["se_e2_a", "dpa1"])
def test_presets_train_and_compress(trainer, preset, tmp_path):
    section = StudentSection.model_validate({"preset": preset})
    assert check_student(section, TrainSection.model_validate({}), ELEMENTS) == []
    task = round_of(student_model(section, ELEMENTS), tmp_path, DATA, steps=1)
    product = trainer.produce(trainer.train(task).checkpoint, [DATA[0].frame], tmp_path, True)
    assert product.compressed and product.reason == ""


GOOD = {"descriptor": {"type": "se_e2_a"}, "fitting_net": {}}


@pytest.mark.parametrize(
    ("student", "words"),
    [
        ({"model": GOOD}, None),
        ({"preset": "dpa1", "elements": ["Al", "Cu", "H"]}, None),
        ({"model": {**GOOD, "descriptor": {"type": "se_e2_a", "rcutt": 6}}}, "^student.model.descriptor.rcutt: "),
        ({"model": {**GOOD, "descriptor": {"type": "se_e2_b"}}}, "^student.model.descriptor.type: .*se_e2_b"),
        ({"model": {"descriptor": GOOD["descriptor"]}}, "^student.model.fitting_net: .*required"),
        ({"model": {**GOOD, "bar": 1}}, "^student.model.bar: "),
        ({"model": {**GOOD, "type_map": ["Cu"]}}, "^student.model.type_map: .*student.elements"),
        ({"model": {"model": GOOD, "training": {}}}, "^student.model.(training|model): .*alone"),
        ({"model": {**GOOD, "descriptor": {"type": "dpa4"}}}, "^student.model.descriptor.type: dpa4.*pt2"),
        ({"model": {**GOOD, "fitting_net": {"type": "dos"}}}, "^student.model.fitting_net.type: .*ener"),
        ({"preset": "dpa1", "elements": ["Al"]}, "^student.elements: Cu: .*add it"),
        ({"preset": "dpa1", "elements": ["Al", "Cu", "Xx"]}, "^student.elements: Xx: no such element"),
    ],
)
def test_the_student_is_checked(student, words, tmp_path):
    train = TrainSection.model_validate({})
    variants = [student]
    if "model" in student:
        (tmp_path / "model.json").write_text(json.dumps(student["model"]))
        variants.append({"model": tmp_path / "model.json"})
    for given in variants:
        problems = check_student(StudentSection.model_validate(given), train, ELEMENTS)
        assert problems == [] if words is None else len(problems) >= 1
        if words is not None:
            with pytest.raises(InputError, match=words):
                raise InputError(problems[-1])


def test_a_student_is_one_thing(tmp_path):
    for given in ({}, {"preset": "dpa1", "model": GOOD}, {"preset": "dpa1", "elements": ["Cu", "Cu"]}):
        with pytest.raises(ValueError, match="either preset|twice"):
            StudentSection.model_validate(given)
    (tmp_path / "model.json").write_text("{")
    problems = check_student(
        StudentSection.model_validate({"model": tmp_path / "model.json"}), TrainSection.model_validate({}), ELEMENTS
    )
    assert len(problems) == 1 and problems[0].startswith("student.model: ")
