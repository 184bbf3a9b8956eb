"""The energies per element in later rounds: completed by what new labels determine, and by nothing else."""

import re
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from pfdhpc.config.student import StudentSection
from pfdhpc.config.train import ModelSection, TrainSection
from pfdhpc.data import Frame, Label, Labelling, Record
from pfdhpc.engines.base import TrainTask
from pfdhpc.engines.train.alignment import completing_shift, joining_notes, level_notes
from pfdhpc.engines.train.deepmd.checkpoint import read
from pfdhpc.engines.train.deepmd.student_model import student_model
from pfdhpc.engines.train.deepmd.trainer import DeepmdTrainer
from tests.models import tiny_checkpoint

BIAS = "model.Default.atomic_model.out_bias"
CONSTANTS = {14: -500.0, 6: -1500.0}
CELLS = {
    "SiC": bulk("SiC", "zincblende", a=4.36, cubic=True),
    "Si": bulk("Si", cubic=True),
    "C": bulk("C", "diamond", a=3.57, cubic=True),
}
CELLS["Si3C"] = CELLS["Si"].copy()
CELLS["Si3C"].numbers[:2] = 6


def make_records(cell, n, seed, level="pbe", offset=0.0):
    """Rattled crystals whose energies are the constants of their atoms, ``offset`` eV/atom, and a little noise."""
    rng, records = np.random.default_rng(seed), []
    for _ in range(n):
        atoms = CELLS[cell].copy()
        atoms.rattle(0.05, rng=rng)
        energy = sum(CONSTANTS[z] for z in atoms.numbers) + len(atoms) * (offset + rng.normal(0, 0.005))
        label = Label(energy, 0.1 * rng.normal(size=(len(atoms), 3)))
        records.append(Record(Frame.from_atoms(atoms), label=label, labelling=Labelling(level, "made up")))
    return tuple(sorted(records, key=lambda record: record.frame_id))


OLD, NEW = make_records("SiC", 4, 1), make_records("Si", 3, 2) + make_records("SiC", 2, 3)


def make_trainer(folder, branch=None, **train):
    model = {"checkpoint": tiny_checkpoint(folder, branches=("a", "b") if branch else None), "branch": branch}
    section = {"batch_size": 2, "best": False, **train}
    return DeepmdTrainer(ModelSection.model_validate(model), TrainSection.model_validate(section), None)


def round_of(parent, directory, **changes):
    values = dict(round=1, parent=parent, first=False, old=OLD, new=NEW, validation=(), steps=0, seed=5)
    return TrainTask(**{**values, "directory": Path(directory), **changes})


@pytest.fixture(scope="module")
def trainer(tmp_path_factory):
    return make_trainer(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def first(trainer, tmp_path_factory):
    """A model aligned to SiC alone, which says nothing of Si without C."""
    parent = trainer.import_parent(tmp_path_factory.mktemp("parent")).checkpoint
    folder = tmp_path_factory.mktemp("first")
    return trainer.train(round_of(parent, folder, round=0, first=True, old=(), new=OLD)).checkpoint


def bias(checkpoint):
    return read(checkpoint)[BIAS].numpy().ravel()[:2]


def off(trainer, checkpoint, records):
    """Mean of prediction - label, eV/atom."""
    predicted = trainer.predict(checkpoint, [record.frame for record in records])
    return np.mean([(p.energy - r.label.energy) / len(r.frame) for r, p in zip(records, predicted, strict=True)])


def test_a_new_ratio_is_aligned_when_it_comes_and_known_ones_stay(trainer, first, tmp_path):
    silicon = make_records("Si", 3, 4)
    assert off(trainer, first, OLD) == pytest.approx(0, abs=0.01) and abs(off(trainer, first, silicon)) > 400
    later = trainer.train(round_of(first, tmp_path / "1")).checkpoint
    assert off(trainer, later, silicon) == pytest.approx(0, abs=0.05)
    assert off(trainer, later, OLD) == pytest.approx(off(trainer, first, OLD), abs=1e-9)
    same = trainer.train(round_of(later, tmp_path / "2", old=OLD + NEW, new=make_records("Si3C", 3, 5))).checkpoint
    assert (bias(same) == bias(later)).all()  # all is determined: a model's error is for the training
    trained = trainer.train(round_of(first, tmp_path / "3", steps=2)).checkpoint
    assert np.allclose(bias(trained), bias(later), atol=1e-9)
    assert off(trainer, trained, silicon) == pytest.approx(0, abs=0.2)


def test_what_is_added_does_not_depend_on_the_order_of_labels(trainer, first, tmp_path):
    turned = round_of(first, tmp_path / "1", old=OLD[::-1], new=NEW[::-1])
    assert (
        bias(trainer.train(turned).checkpoint) == bias(trainer.train(round_of(first, tmp_path / "2")).checkpoint)
    ).all()


@pytest.mark.parametrize("kind", ["none", "set", "RANDOM"])
def test_other_ways_to_begin_are_completed_or_left_alone(tmp_path, kind):
    given = {"branch": "RANDOM"} if kind == "RANDOM" else {"bias": kind}
    engine = make_trainer(tmp_path / "tiny", **given)
    parent = engine.import_parent(_made(tmp_path / "parent")).checkpoint
    steps = 2 if kind == "RANDOM" else 0
    start = round_of(parent, _made(tmp_path / "0"), round=0, first=True, old=(), new=OLD, steps=steps)
    begun = engine.train(start).checkpoint
    later = engine.train(round_of(begun, _made(tmp_path / "1"))).checkpoint
    if kind == "none":
        assert (bias(later) == bias(begun)).all()
    else:
        assert off(engine, later, make_records("Si", 3, 4)) == pytest.approx(0, abs=0.05)
        assert off(engine, later, OLD) == pytest.approx(off(engine, begun, OLD), abs=1e-9)


def _made(folder):
    folder.mkdir()
    return folder


def test_a_replayed_branch_beside_it_stays(tmp_path):
    images = []
    for record in make_records("SiC", 3, 8):
        atoms = record.frame.to_atoms()
        atoms.calc = SinglePointCalculator(atoms, energy=record.label.energy, forces=record.label.forces)
        images.append(atoms)
    write(tmp_path / "a.xyz", images, format="extxyz")
    engine = make_trainer(tmp_path / "tiny", "b", replay={"a": {"data": [tmp_path / "a.xyz"]}})
    parent = engine.import_parent(_made(tmp_path / "parent")).checkpoint
    begun = engine.train(
        round_of(parent, _made(tmp_path / "0"), round=0, first=True, old=(), new=OLD, steps=1)
    ).checkpoint
    later = engine.train(round_of(begun, _made(tmp_path / "1"), steps=1)).checkpoint
    assert off(engine, later, make_records("Si", 3, 4)) == pytest.approx(0, abs=0.2)
    assert off(engine, later, OLD) == pytest.approx(0, abs=0.2)


def test_a_warm_student_learns_the_energies_of_elements_that_come_later(trainer, tmp_path):
    descriptor = {"type": "se_e2_a", "rcut": 4.5, "rcut_smth": 0.5, "sel": "auto", "neuron": [4, 8], "axis_neuron": 2}
    section = {"descriptor": descriptor, "fitting_net": {"neuron": [8, 8]}}
    model = student_model(StudentSection.model_validate({"model": section}), ("C", "Si"))  # not as the teacher's
    silicon = make_records("Si", 4, 1)
    begun = trainer.train(
        round_of(None, _made(tmp_path / "0"), round=0, old=(), new=silicon, steps=2, model=model, first=True)
    )
    new = make_records("SiC", 4, 2)
    later = trainer.train(round_of(begun.checkpoint, _made(tmp_path / "1"), old=silicon, new=new, steps=2, model=model))
    assert off(trainer, later.checkpoint, new) == pytest.approx(0, abs=1.0)  # of constants of 500 and 1500 eV
    assert off(trainer, later.checkpoint, silicon) == pytest.approx(0, abs=1.0)


def test_a_killed_round_in_which_they_were_completed_is_the_same_again(trainer, first, tmp_path):
    models = [trainer.train(round_of(first, tmp_path / str(i), steps=2)).checkpoint.read_bytes() for i in range(2)]
    assert models[0] == models[1]


def nothing(frames):
    """The predictions of a model that knows the energies but for noise."""
    return [Label(sum(CONSTANTS[z] for z in frame.numbers), np.zeros((len(frame), 3))) for frame in frames]


def ideal(records):
    known = nothing([record.frame for record in records])
    return np.array([record.label.energy - label.energy for record, label in zip(records, known, strict=True)])


def test_any_constants_per_element_are_followed():
    """Two elements new at once, in one composition: no more is fitted than that tells."""
    shift = completing_shift((), make_records("SiC", 3, 1), lambda frames: [Label(0.0, f.positions) for f in frames])
    assert shift["Si"] == pytest.approx(shift["C"]) == pytest.approx(-1000, abs=0.1)
    assert completing_shift(OLD, OLD, nothing) == {}


@pytest.mark.parametrize("offset", [0.3, -1.0, 40.0])
def test_two_levels_of_theory_are_told_apart(offset):
    ours, other = make_records("SiC", 4, 1), make_records("SiC", 4, 2, "given-old", offset)
    mixed = ours + other + make_records("Si", 2, 3)
    (note,) = level_notes(mixed, ideal(mixed)).values()
    found = float(re.search(r"by ([+-]\d+) meV/atom", note)[1])
    assert "init.data (old)" in note and found == pytest.approx(1000 * offset, abs=20)
    assert level_notes(mixed, ideal(mixed)).keys() == joining_notes(ours, other, nothing).keys()
    (note,) = joining_notes(ours, other, nothing).values()
    assert "of init.data (old) are off from those of [label] (level pbe)" in note


def test_what_is_one_level_or_cannot_be_compared_is_not_called_two():
    ours, same = make_records("SiC", 4, 1), make_records("SiC", 4, 2, "given-old")
    assert level_notes(ours + same, ideal(ours + same)) == {} == joining_notes(ours, same, nothing)
    far = make_records("Si", 4, 2, "given-old", 40.0)  # an energy of silicon's own explains it
    assert level_notes(ours + far, ideal(ours + far)) == {} == joining_notes(ours, far, nothing)
    aligned_anew = ideal(ours + same) + [7.0 * len(record.frame) for record in ours + same]
    assert level_notes(ours + same, aligned_anew) == {}


def test_the_trainer_tells_of_two_levels_in_any_round(trainer, first, tmp_path):
    other = make_records("SiC", 4, 6, "given-old", 2.0)
    later = trainer.train(round_of(first, tmp_path / "later", new=other))
    assert len(later.notes) == 1 and "two levels of theory" in next(iter(later.notes.values()))
    parent = trainer.import_parent(_made(tmp_path / "parent")).checkpoint
    begun = trainer.train(round_of(parent, _made(tmp_path / "0"), first=True, old=(), new=OLD + other))
    assert len(begun.notes) == 1 and trainer.train(round_of(first, tmp_path / "none")).notes == {}


def test_a_level_is_never_called_off_from_itself():
    """However far an early model is off, and whatever else joins."""
    few, more = make_records("SiC", 4, 1), make_records("SiC", 5, 2, offset=0.4)
    assert joining_notes(few, [*more, *make_records("SiC", 2, 3, "imported-pbe")], nothing) == {}
    assert joining_notes((), more, nothing) == {}
