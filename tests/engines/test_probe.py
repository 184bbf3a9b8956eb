"""The probes: a model's speed in LAMMPS, and whether it holds a trajectory together."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT

from pfdhpc.config.explore import GuardSection
from pfdhpc.config.student import StudentSection
from pfdhpc.config.train import ModelSection, TrainSection
from pfdhpc.data import Frame, Label, Record
from pfdhpc.engines.base import TrainTask
from pfdhpc.engines.explore.stability_test import replicated, speed, stability
from pfdhpc.engines.train.deepmd.student_model import student_model
from pfdhpc.engines.train.deepmd.trainer import DeepmdTrainer
from pfdhpc.errors import TaskError
from tests.models import frozen, tiny_checkpoint

ALUMINIUM = Frame.from_atoms(bulk("Al", cubic=True))


def labelled(n):
    rng, records = np.random.default_rng(0), []
    for index in range(n):
        atoms = bulk("Al", cubic=True) * (1, 1, 2)
        atoms.rattle(0.15 * index / n, rng=rng)
        atoms.calc = EMT()
        stress = atoms.get_stress(voigt=False) * atoms.get_volume()
        label = Label(atoms.get_potential_energy(), atoms.get_forces(), -stress)
        records.append(Record(Frame.from_atoms(atoms), label=label))
    return tuple(records)


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    """A compressed student of EMT aluminium, good enough to vibrate."""
    folder = tmp_path_factory.mktemp("student")
    descriptor = {"type": "se_e2_a", "rcut": 5.0, "rcut_smth": 1.0, "neuron": [4, 8], "axis_neuron": 2}
    section = StudentSection(model={"descriptor": descriptor, "fitting_net": {"neuron": [16, 16]}})
    parent = ModelSection.model_validate({"checkpoint": tiny_checkpoint(folder, ("Al",))})
    trainer = DeepmdTrainer(parent, TrainSection(start_lr=1e-2, stop_lr=1e-4, best=False), None)
    records = labelled(20)
    task = TrainTask(0, None, False, (), records, (), 400, 1, folder / "train", student_model(section, ("Al",)))
    trained = trainer.train(task)
    product = trainer.produce(trained.checkpoint, [record.frame for record in records], folder / "product", True)
    assert product.compressed
    return trained.frozen, product.frozen


def test_speed_is_that_of_the_models_in_turn(student):
    fast = speed([*student, student[0]], ALUMINIUM, ("Al",), 10, 2, n_atoms=30)
    assert [found.atoms for found in fast] == [32] * 3
    assert all(found.steps_per_second > 0 for found in fast)


def test_a_sound_student_is_stable_at_its_time_step_alone(student):
    sound = stability(student[1], ALUMINIUM, ("Al",), 300.0, 200, n_atoms=32)
    assert sound.ok and not sound.reason and abs(sound.drift) < 1 and 150 < sound.max_temperature < 900
    again = stability(student[1], ALUMINIUM, ("Al",), 300.0, 200, n_atoms=32)
    assert again == sound
    coarse = stability(student[1], ALUMINIUM, ("Al",), 300.0, 200, n_atoms=32, timestep=60.0)
    assert not coarse.ok and coarse.reason


def test_a_senseless_model_is_not_stable(tmp_path):
    model = frozen(tiny_checkpoint(tmp_path, ("Al",)), tmp_path)
    guard = GuardSection(min_distance=2.5)
    found = stability(model, ALUMINIUM, ("Al",), 900.0, 100, n_atoms=32, guard=guard)
    assert not found.ok and "guard.min_distance" in found.reason and "thermalised" in found.reason
    hopeless = GuardSection(min_distance=3.0)
    found = stability(model, ALUMINIUM, ("Al",), 300.0, 100, n_atoms=32, guard=hopeless)
    assert not found.ok and "cannot begin" in found.reason
    short = Frame.from_atoms(bulk("Al", cubic=True, a=3.4))
    with pytest.raises(TaskError, match="cannot"):
        speed([model], Frame(short.numbers, short.cell / 8, short.positions / 8), ("Al",), 10, 1, n_atoms=4)


def test_what_cannot_be_probed_is_refused(student):
    pair = Frame.from_atoms(Atoms("Al2", [[0, 0, 0], [2.5, 0, 0]], cell=[9, 9, 9], pbc=False))
    copper = Frame.from_atoms(bulk("Cu", cubic=True))
    for frame in (pair, copper):
        with pytest.raises(TaskError):
            stability(student[0], frame, ("Al",), 300.0, 10)
        with pytest.raises(TaskError):
            speed([student[0]], frame, ("Al",), 10, 1)


@pytest.mark.parametrize(("n_atoms", "found"), [(1, 4), (30, 32), (100, 108), (256, 256), (500, 500)])
def test_cells_are_repeated_to_a_cube(n_atoms, found):
    assert len(replicated(ALUMINIUM, n_atoms)) == found
    slab = Frame.from_atoms(bulk("Al", cubic=True) * (1, 1, 4))
    lengths = np.linalg.norm(replicated(slab, 256).cell, axis=1)
    assert lengths.max() / lengths.min() < 1.5
