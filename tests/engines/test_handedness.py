"""The same crystal in any lattice vectors and any order of atoms is the same to every model, file and program."""

from dataclasses import replace
from itertools import permutations, product

import ase.io
import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from models import tiny_checkpoint
from test_standalone import command

from pfdhpc.config.explore import ExploreSection
from pfdhpc.config.label import LabelSection
from pfdhpc.config.train import ModelSection, TrainSection
from pfdhpc.data import Frame, Label, Labelling, Record
from pfdhpc.data.geometry import near_pairs, right_handed, right_handed_cell
from pfdhpc.data.io import read_labelled
from pfdhpc.engines.base import SegmentTask, TrainTask
from pfdhpc.engines.deepmd_inference import Predictor
from pfdhpc.engines.label.label_checks import check_label
from pfdhpc.engines.label.match_structures import matching
from pfdhpc.engines.models import open_calculator
from pfdhpc.engines.registry import make_explorer, make_labeler
from pfdhpc.engines.train.deepmd.checkpoint import read
from pfdhpc.engines.train.deepmd.dataset import write_systems
from pfdhpc.engines.train.deepmd.evaluate import aligned_bias, errors, evaluate
from pfdhpc.engines.train.deepmd.neighbours import neighbours
from pfdhpc.engines.train.deepmd.runtime import build_model
from pfdhpc.engines.train.deepmd.trainer import DeepmdTrainer
from pfdhpc.report.run_scripts import hand_over
from pfdhpc.store.export import export
from pfdhpc.units import virial_from_stress

TYPES = ("Cu", "Au")


def crystal(seed=0) -> Record:
    """Four atoms in a skew cell, nearer to their images than a cutoff, labelled by EMT."""
    rng = np.random.default_rng(seed)
    atoms = bulk("Cu", cubic=True)
    atoms.symbols[seed % 4] = "Au"
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + rng.normal(scale=0.05, size=(3, 3))), scale_atoms=True)
    atoms.rattle(0.15, rng=rng)
    atoms.calc = EMT()
    virial = virial_from_stress(atoms.get_stress(voigt=False), atoms.get_volume())
    label = Label(atoms.get_potential_energy(), atoms.get_forces(), virial)
    return Record(Frame.from_atoms(atoms), label=label, labelling=Labelling("emt", "ase"))


def twins(record) -> list[Record]:
    """The crystal by its lattice vectors in every order and with every sign, the atoms in another order for each."""
    found, frame, label, rng = [], record.frame, record.label, np.random.default_rng(1)
    for axes in permutations(range(3)):
        for signs in product((1, -1), repeat=3):
            order = rng.permutation(len(frame)) if found else np.arange(len(frame))
            cell = np.array(signs)[:, None] * frame.cell[list(axes)]
            other = Frame(frame.numbers[order], cell, frame.positions[order])
            found.append(replace(record, frame=other, label=replace(label, forces=label.forces[order])))
    return found


RECORDS = twins(crystal())
FRAMES = [record.frame for record in RECORDS]
RIGHT = RECORDS[0]
LEFT_HANDED = [place for place, frame in enumerate(FRAMES) if np.linalg.det(frame.cell) < 0]
LEFT = RECORDS[LEFT_HANDED[0]]


@pytest.fixture(scope="module", params=["se_e2_a", "dpa3"])
def checkpoint(request, tmp_path_factory):
    return tiny_checkpoint(tmp_path_factory.mktemp(request.param), TYPES, descriptor=request.param)


@pytest.fixture(scope="module")
def predictor(checkpoint):
    return Predictor(checkpoint)


@pytest.fixture(scope="module")
def module(checkpoint):
    return build_model(read(checkpoint))


def check_same(labels, atol=1e-9):
    """The same crystal was labelled, whatever the order of the atoms."""
    spread = [errors([record], [label]) for record, label in zip(RECORDS, labels, strict=True)]
    assert len(spread) == 48 and spread[0]["rmse_f"] > 0.01 and spread[0]["rmse_v"] > 0.01
    for one in spread[1:]:
        assert one == pytest.approx(spread[0], abs=atol)


@given(arrays(float, (3, 3), elements=st.floats(-9, 9)))
def test_the_lattice_of_a_cell_stays_and_its_determinant_is_not_negative(cell):
    found = right_handed_cell(cell)
    assert np.linalg.det(found) >= 0 and (np.array_equal(found, cell) or np.array_equal(found, -cell))
    assert right_handed_cell(found) is found


def test_a_flat_or_right_handed_frame_is_itself():
    flat = Frame([29], np.diag([3.0, 3.0, 0.0]), np.zeros((1, 3)), [True, True, False])
    assert right_handed(flat) is flat and right_handed(RIGHT.frame) is RIGHT.frame
    turned = right_handed(LEFT.frame)
    assert turned is not LEFT.frame and turned.volume == pytest.approx(LEFT.frame.volume)
    assert sorted(near_pairs(turned, 4.0)[2]) == pytest.approx(sorted(near_pairs(RIGHT.frame, 4.0)[2]))


def test_a_model_says_the_same_of_all_twins(predictor, module, checkpoint):
    check_same(predictor(FRAMES))
    check_same([evaluate(module, [frame])[0] for frame in FRAMES])  # deepmd looks as far as the widest of a batch
    calculator, labels = open_calculator(checkpoint), []
    for frame in FRAMES:
        atoms = frame.to_atoms()
        atoms.calc = calculator
        virial = virial_from_stress(atoms.get_stress(voigt=False), atoms.get_volume())
        labels.append(Label(atoms.get_potential_energy(), atoms.get_forces(), virial))
        assert calculator.calculation_required(atoms, ["energy"]) is False, "its own atoms are those asked about"
    check_same(labels)


def test_the_models_descriptors_are_those_of_the_atoms(predictor):
    rows = [np.array(sorted(map(tuple, np.round(found, 9)))) for found in predictor.descriptors(FRAMES)]
    for other in rows[1:]:
        np.testing.assert_allclose(other, rows[0], atol=1e-8)


def test_the_bias_is_aligned_alike(module):
    records = [crystal(seed) for seed in range(1, 5)]
    found = [aligned_bias(module, some) for some in zip(*map(twins, records), strict=True)]
    for one in found[1:]:
        np.testing.assert_allclose(one, found[0], atol=1e-9)


def test_training_data_are_the_same_crystals_as_deepmd_reads_them(module, tmp_path):
    """What a training step sees and the neighbours that are counted; a system of each twin."""
    import torch
    from deepmd.utils.data_system import get_data

    energies, counted = [], []
    for place, record in enumerate(RECORDS):
        paths = write_systems([record], TYPES, tmp_path / str(place))
        training = {"systems": [str(path) for path in paths], "batch_size": 1}
        data = get_data(training, 0, list(TYPES), None)
        data.add("energy", 1, atomic=False, must=True, high_prec=True)
        data.add("force", 3, atomic=True, must=True)
        data.add("virial", 9, atomic=False, must=True)
        batch = data.get_batch()
        found = module(*(torch.tensor(batch[key]) for key in ("coord", "type")), box=torch.tensor(batch["box"]))
        assert batch["find_virial"] == 1.0 and batch["virial"].ravel() == pytest.approx(RIGHT.label.virial.ravel())
        force = found["force"].detach().numpy().ravel() - batch["force"].ravel()
        energies.append([found["energy"].item() - batch["energy"].item(), *sorted(np.abs(force))])
        if place < 8:
            descriptor = {"type": "se_e2_a", "sel": "auto", "rcut": 4.5, "rcut_smth": 0.5}
            config = {"model": {"type_map": list(TYPES), "descriptor": descriptor}}
            model, distance = neighbours({**config, "training": {"training_data": training}})
            counted.append((model["descriptor"]["sel"], round(distance, 6)))
    np.testing.assert_allclose(energies, [energies[0]] * len(energies), atol=1e-9)
    assert all(one == counted[0] for one in counted) and counted[0][0][0] > 20


def picks(folder, *more):
    """The numbers of the frames that are picked in the user's lattice vectors and in two left-handed ones."""
    series, found = [twins(crystal(seed)) for seed in range(12)], []
    for place in (0, LEFT_HANDED[5], LEFT_HANDED[17]):
        frames = [some[place].frame for some in series]
        path, out = folder / f"{place}.extxyz", folder / f"{place}-picked.extxyz"
        ase.io.write(path, [frame.to_atoms() for frame in frames], parallel=False)
        command(path, "-o", out, "--max-sel", 4, "--min-gain", -99, *more)
        chosen = [atoms.positions for atoms in ase.io.iread(out, parallel=False)]
        found.append(
            [next(i for i, f in enumerate(frames) if np.abs(f.positions - one).max() < 1e-6) for one in chosen]
        )
    return found


@pytest.mark.parametrize("descriptor", ["chemistry", "quests"])
def test_the_same_frames_are_picked(descriptor, tmp_path):
    own, *left = picks(tmp_path, "--descriptor", descriptor)
    assert len(own) == 4 and left == [own, own]


def test_the_same_frames_are_picked_by_the_models_descriptors(checkpoint, tmp_path):
    own, *left = picks(tmp_path, "--descriptor", "model", "--model", checkpoint)
    assert len(own) == 4 and left == [own, own]


def test_a_training_on_left_handed_cells_is_that_on_right_handed_ones(checkpoint, tmp_path):
    """From the alignment to the validation errors; a batch has all frames, whose order follows from their cells."""
    found = []
    for place in (0, LEFT_HANDED[17]):
        records = tuple(twins(crystal(seed))[place] for seed in range(1, 6))
        records = sorted(records, key=lambda record: record.frame_id)
        model = ModelSection.model_validate({"checkpoint": checkpoint})
        trainer = DeepmdTrainer(model, TrainSection.model_validate({"batch_size": 5}), None)
        (folder := tmp_path / str(place)).mkdir()
        parent = trainer.import_parent(folder)
        task = TrainTask(0, parent.checkpoint, True, (), tuple(records), tuple(records), 4, 5, folder)
        trained = trainer.train(task)
        curve = [{key: value for key, value in row.items() if key != "seconds"} for row in trained.curve]
        found.append((curve, trainer.predict(trained.checkpoint, FRAMES[:1] + [LEFT.frame])))
    (one, own), (other, left) = found
    assert one and [row.keys() for row in one] == [row.keys() for row in other]
    for row, twin in zip(one, other, strict=True):
        assert twin == pytest.approx(row, rel=1e-6, nan_ok=True)
    assert [label.energy for label in left] == pytest.approx([label.energy for label in own], abs=1e-6)
    assert own[0].energy == pytest.approx(own[1].energy, abs=1e-9)


@pytest.mark.parametrize(("fmt", "name"), [("deepmd/npy", "data"), ("deepmd/hdf5", "data.h5"), ("extxyz", "data.xyz")])
def test_what_dp_train_reads_is_right_handed_and_other_files_are_the_users_own(fmt, name, tmp_path):
    path = tmp_path / name
    export([LEFT], path, fmt)
    frame = read_labelled(path)[0].frame
    expected = LEFT.frame if fmt == "extxyz" else right_handed(LEFT.frame)
    np.testing.assert_allclose(frame.cell, expected.cell, atol=1e-8)
    assert (np.linalg.det(frame.cell) < 0) == (fmt == "extxyz")
    matching(LEFT.frame, frame)


class Strict(EMT):
    """A program that refuses left-handed cells, as VASP does."""

    def calculate(self, atoms=None, properties=("energy",), system_changes=("positions",)):
        if np.linalg.det(atoms.cell.array) < 0:
            raise ValueError("the triple product of the basis vectors is negative")
        super().calculate(atoms, list(properties), list(system_changes))


def test_a_labeler_is_given_right_handed_cells():
    section = LabelSection(type="ase", options={"calculator": f"{__name__}.Strict"})
    label = make_labeler(section, None).label(LEFT.frame, {}, 60.0)
    check_label(LEFT.frame, label, section)
    found = errors([LEFT], [label])
    assert max(found.values()) < 1e-9


@pytest.mark.parametrize("ensemble", ["nvt", "npt-iso", "npt-tri"])
def test_ase_explores_twins_alike_and_tells_of_the_users_own_cell(ensemble):
    values = {"engine": "ase", "steps": 20, "interval": 10, "ensemble": ensemble}
    section = ExploreSection(**values, options={"calculator": f"{__name__}.Strict"})
    explorer, results = make_explorer(section), []
    negated = replace(RIGHT.frame, cell=-RIGHT.frame.cell)
    for start in (RIGHT.frame, negated):
        task = SegmentTask("cu-0", "cu", start, None, 0, (300.0, 300.0), (0.0, 0.0), 11)
        first = explorer.run(task)
        results.append((first, explorer.run(replace(task, state=first.state, seed=12))))
    for right, left in zip(*results, strict=True):
        assert not (right.stopped or left.stopped) and len(left.records) == 2
        for one, other in zip(right.records, left.records, strict=True):
            assert np.array_equal(one.frame.positions, other.frame.positions)
            assert np.array_equal(one.frame.cell, -other.frame.cell)
            assert one.prediction.energy == other.prediction.energy
            assert np.array_equal(one.prediction.virial, other.prediction.virial)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 47))
def test_a_finished_run_hands_over_the_same_crystal(tmp_path_factory, place):
    folder = tmp_path_factory.mktemp("final")
    hand_over(folder, "CuAu", FRAMES[place], 300.0, 1.0)
    types = {1: 29, 2: 79}
    form = {"format": "lammps-data", "atom_style": "atomic", "units": "metal", "Z_of_type": types}
    atoms = ase.io.read(folder / "structure.lammps", **form, parallel=False)
    atoms.calc, copies = EMT(), len(atoms) // 4
    assert np.linalg.det(atoms.cell.array) > 0
    assert atoms.get_potential_energy() / copies == pytest.approx(RIGHT.label.energy, abs=1e-4)
