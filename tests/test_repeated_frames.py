"""What is tested on never trains, whatever format it has been through; and nothing trains twice."""

import shutil
from dataclasses import replace

import ase.io
import dpdata
import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from toys import ToyRun, make_config

from pfdhpc.cli.main import main
from pfdhpc.data import Frame, Label, Labelling, Record
from pfdhpc.data.io import read_labelled
from pfdhpc.data.known_frames import KnownFrames
from pfdhpc.errors import EXIT_COMPLETE, EXIT_INCOMPLETE, InputError
from pfdhpc.start.fresh_state import begin
from pfdhpc.start.input_checks import notes
from pfdhpc.start.repeated_frames import restated
from pfdhpc.store.export import export
from pfdhpc.store.store import read_records


def labelled(n=8, elements=("Cu", "Cu", "Au", "Cu"), seed=0):
    found = []
    for index in range(n):
        atoms = bulk("Cu", cubic=True)
        atoms.symbols[:] = elements
        atoms.rattle(0.1, seed=100 * seed + index)
        found.append(with_label(atoms))
    return found


def with_label(atoms):
    atoms.calc = EMT()
    results = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces(), "stress": atoms.get_stress()}
    atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


def turned(atoms):
    """The same in a lower-triangular, left-handed and permuted cell, atoms in another order."""
    matrix = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]
    new = atoms[[2, 0, 3, 1]]
    new.set_cell(atoms.cell[[1, 0, 2]] @ matrix)
    new.positions = atoms.positions[[2, 0, 3, 1]] @ matrix + 0.7
    return with_label(new)


def written(folder, atoms):
    """The same frames in every format that has a label."""
    folder.mkdir(parents=True, exist_ok=True)
    records = [record for record in _records(atoms)]
    ase.io.write(folder / "full.traj", atoms)
    ase.io.write(folder / "some.extxyz", atoms)
    ase.io.write(folder / "turned.extxyz", [turned(item) for item in atoms])
    export(records, folder / "double", "deepmd/npy")
    export(records, folder / "all.hdf5", "deepmd/hdf5")
    for system in sorted((folder / "double").iterdir()):
        dpdata.LabeledSystem(str(system), fmt="deepmd/npy").to("deepmd/npy", str(folder / "single" / system.name))
    return ["full.traj", "some.extxyz", "turned.extxyz", "double", "all.hdf5", "single"]


def _records(atoms):
    for item in atoms:
        forces, virial = item.get_forces(), -item.get_stress(voigt=False) * item.get_volume()
        label = Label(item.get_potential_energy(), forces, virial)
        yield Record(Frame.from_atoms(item), label=label, labelling=Labelling("x", "x"))


NAMES = "full.traj", "some.extxyz", "turned.extxyz", "double", "all.hdf5", "single"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    assert tuple(written(folder / "all", labelled())) == NAMES
    written(folder / "three", labelled()[2:5])
    return folder


@pytest.mark.parametrize("test", NAMES)
@pytest.mark.parametrize("name", NAMES)
def test_frames_of_test_data_do_not_train_whatever_their_format(files, tmp_path, name, test):
    parts = {
        "init": {"frames": 0, "data": [str(files / "all" / name)]},
        "test": {"data": [str(files / "three" / test)]},
    }
    found = begin(make_config(tmp_path, **parts), ("Cu", "Au"))
    assert (len(found.given), len(found.fixed), found.state.given) == (5, 3, 5)
    assert found.told[0] == "init.data: 3 of 8 frames left out: they are in test.data"
    tested = KnownFrames(record.frame for record in found.fixed)
    assert notes(make_config(tmp_path, **parts)) == list(found.told)
    assert not any(tested.same(record.frame) is not None for record in found.given)


def test_a_frame_that_is_given_several_times_trains_once_and_it_is_told(files, tmp_path):
    data = [str(files / "all" / name) for name in NAMES]
    found = begin(make_config(tmp_path, init={"frames": 0, "data": data}), ("Cu", "Au"))
    assert len(found.given) == 8 and {record.origin.system for record in found.given} == {"full"}
    assert found.told[0] == "init.data: 40 of 48 frames are there more than once; each is taken once"
    other = labelled()[3:5]
    for atoms in other:
        atoms.calc.results["energy"] += 1.0
    ase.io.write(tmp_path / "other.extxyz", [*other, *labelled(1, seed=5)])
    data = [data[0], str(tmp_path / "other.extxyz")]
    found = begin(make_config(tmp_path, init={"frames": 0, "data": data}), ("Cu", "Au"))
    assert len(found.given) == 9 and "2 of 11 frames are there more than once" in found.told[0]
    assert found.told[1] == (
        "init.data: 2 of these (the first: frame 0 of other) have another label than the frame that comes first;"
        " the label named first is taken"
    )
    energies = sorted(record.label.energy for record in found.given if record.origin.system == "full")
    np.testing.assert_allclose(energies, sorted(atoms.get_potential_energy() for atoms in labelled()))


def test_first_frames_that_test_data_or_init_data_has_are_not_labelled(tmp_path):
    """Structures that nothing alters, and the same by hand."""
    atoms = bulk("Cu", cubic=True)
    ase.io.write(tmp_path / "perfect.extxyz", with_label(atoms))
    plain = {"strain": 0.0, "displacement": 0.0}
    system = [{"name": "Cu", "structures": ["cu.vasp"], "perturb": {"count": 1, **plain}}]
    for section in ("test", "init"):
        part = {section: {"data": [str(tmp_path / "perfect.extxyz")]}}
        part["init"] = {"frames": 1, **part.get("init", {})}
        found = begin(make_config(tmp_path / section, system=system, **part), ("Cu",))
        assert found.state.pending == ()
        assert found.told == (f"init.frames: 1 of 1 frames left out: they are in {section}.data",)


# imports


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    test = {"holdout": 0.25, "validation": 0.1, "data": [str(folder / "test.extxyz")]}
    ase.io.write(folder / "test.extxyz", labelled(2, "Cu", seed=9))
    run = ToyRun(make_config(folder, test=test))
    run.trainer.handle = _with_fixed(run.trainer, run.trainer.handle)
    assert run.run() == EXIT_COMPLETE
    return run


def _with_fixed(trainer, handle):
    def answer(order):
        found = handle(order)
        labels = tuple(trainer.records[key].label for key in getattr(order, "fixed_ids", ()))
        return replace(found, fixed_before=labels, fixed_final=labels) if labels else found

    return answer


@pytest.fixture
def copy(finished, tmp_path):
    shutil.copytree(finished.folder.directory, tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.parametrize("name", ["export.extxyz", "export.h5", "export", "single", "run.traj", "turned.extxyz"])
def test_a_runs_own_frames_are_known_whatever_format_they_come_back_in(copy, finished, tmp_path, capsys, name):
    state, records = finished.state, read_records(copy / "frames")
    atoms = [record.frame.to_atoms() for record in records]
    for item, record in zip(atoms, records, strict=True):
        item.calc = SinglePointCalculator(item, energy=record.label.energy, forces=record.label.forces)
    path = tmp_path / name
    if name.startswith("export"):
        assert main(["export", str(copy), str(path)]) == 0
    elif name == "single":
        export(records, tmp_path / "double", "deepmd/npy")
        for system in sorted((tmp_path / "double").iterdir()):
            dpdata.LabeledSystem(str(system), fmt="deepmd/npy").to("deepmd/npy", str(path / system.name))
    else:
        ase.io.write(path, atoms if name == "run.traj" else [with_forces_turned(item) for item in atoms])
    before = len(records)
    assert main(["import", str(path), "--into", str(copy)]) == 0
    told = capsys.readouterr().out
    tested = len(state.test_ids) + len(state.validation_ids) + len(state.fixed_ids)
    assert "0 labels taken" in told and f"{before - tested} frames left out: they have a label already" in told
    assert f"{tested} frames left out: the run is tested on them" in told and "another one" not in told
    assert len(read_records(copy / "frames")) == before and tested > 3


def with_forces_turned(atoms):
    matrix = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]
    order = np.random.default_rng(4).permutation(len(atoms))
    new = atoms[order]
    new.set_cell(atoms.cell[[2, 1, 0]] @ matrix)
    new.positions = atoms.positions[order] @ matrix
    new.calc = SinglePointCalculator(
        new, energy=atoms.get_potential_energy(), forces=atoms.get_forces()[order] @ matrix
    )
    return new


def test_an_import_tells_of_labels_that_differ_and_takes_what_is_new_once(copy, finished, tmp_path, capsys):
    (trained,) = finished.store.records(finished.state.train_ids[:1])
    known = trained.frame.to_atoms()
    known.calc = SinglePointCalculator(known, energy=trained.label.energy + 1.0, forces=trained.label.forces)
    new = labelled(2, "Cu", seed=3)
    ase.io.write(tmp_path / "mixed.extxyz", [known, *new, *map(turned, new)])
    assert main(["import", str(tmp_path / "mixed.extxyz"), "--into", str(copy)]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "2 labels taken" in told and "import: 2 of 5 frames are there more than once; each is taken once" in told
    assert "1 frames left out: they have a label already; 1 of them another one in the files: the run's stays" in told


def test_a_label_of_a_frame_that_waits_is_that_frames_in_whatever_setting_it_comes(tmp_path):
    config = make_config(tmp_path)
    first = ToyRun(config).stop_after(2)
    assert first.run() == EXIT_INCOMPLETE
    waiting = first.state.pending
    assert waiting
    atoms = [turned(record.frame.to_atoms()) for record in waiting]
    ase.io.write(tmp_path / "back.extxyz", atoms)
    assert main(["import", str(tmp_path / "back.extxyz"), "--into", str(config.run.directory)]) == 0
    found = {record.frame_id: record for record in read_records(config.run.directory / "frames")}
    for record in waiting:
        expected = with_label(record.frame.to_atoms())
        label = found[record.frame_id].label
        np.testing.assert_allclose(label.forces, expected.get_forces(), atol=1e-5)
        virial = -expected.get_stress(voigt=False) * expected.get_volume()
        np.testing.assert_allclose(label.virial, virial, atol=1e-4)
    second = ToyRun(config)
    assert second.run() == EXIT_COMPLETE
    assert not any("Labelled" == name for name in second.events[:1])
    assert second.state.n_labels == len({key.partition(":")[0] for key in second.state.label_ids})


def test_a_label_is_not_restated_onto_another_frame():
    one, other = (next(_records(labelled(1, seed=seed))) for seed in (1, 2))
    with pytest.raises(ValueError, match="is not the same as"):
        restated(one, other)


def test_a_run_and_its_held_out_frames_are_told_apart(finished, tmp_path):
    """The run's export, as final/held_out.extxyz has it, and the run itself."""
    held_out = finished.store.records(finished.state.test_ids)
    export(held_out, tmp_path / "held_out.extxyz", "extxyz")
    level = held_out[0].labelling.level
    data = {"path": str(finished.folder.directory), "level": level}
    parts = {"init": {"frames": 0, "data": [data]}, "test": {"data": [str(tmp_path / "held_out.extxyz")]}}
    found = begin(make_config(tmp_path, **parts), ("Cu",))
    assert len(found.fixed) == len(held_out) > 0
    assert len(found.given) == len(finished.store) - len(finished.state.fixed_ids) - len(held_out)
    assert not {record.frame_id for record in found.given} & {record.frame_id for record in held_out}


def test_a_label_that_comes_in_for_a_frame_of_test_data_does_not_train(tmp_path):
    """Dynamics at a start that nothing alters: test.data has it in another setting."""
    ase.io.write(tmp_path / "perfect.extxyz", turned(bulk("Cu", cubic=True)))
    plain = {"count": 1, "strain": 0.0, "displacement": 0.0}
    init = {"frames": 2, "aimd": {"steps": 4, "interval": 2, "temperatures": [300.0]}}
    emt = {"type": "ase", "options": {"calculator": "ase.calculators.emt.EMT", "arguments": {}}}
    changes = {"system": [{"name": "Cu", "structures": ["cu.vasp"], "perturb": plain}], "init": init, "label": emt}
    config = make_config(tmp_path, test={"data": [str(tmp_path / "perfect.extxyz")], "holdout": 0.0}, **changes)
    run = ToyRun(config)
    run.trainer.handle = _with_fixed(run.trainer, run.trainer.handle)
    assert run.run() == EXIT_COMPLETE
    tested = KnownFrames(run.store.records(run.state.fixed_ids)[i].frame for i in (0,))
    assert all(tested.same(record.frame) is None for record in run.store.records(run.state.train_ids))
    reasons = [reason for record, reason in run.store.rejected() if tested.same(record.frame) is not None]
    assert reasons == ["test.data holds this frame"]


def test_cells_that_are_not_finite_are_refused(tmp_path):
    export(list(_records(labelled(2))), tmp_path / "npy", "deepmd/npy")
    (path,) = (tmp_path / "npy").rglob("box.npy")
    np.save(path, np.full((2, 9), np.nan))
    with pytest.raises(InputError, match="init.data: .*frame 0: a position or lattice vector is not a finite number"):
        begin(make_config(tmp_path, init={"data": [str(tmp_path / "npy")]}), ("Cu", "Au"))


def test_exports_read_back_have_the_ids_of_nobody(tmp_path):
    """frame_id in the info of an export is not believed: only the geometry counts."""
    ours, other = labelled(2)
    ours.info["frame_id"] = Frame.from_atoms(other).frame_id
    ase.io.write(tmp_path / "forged.extxyz", ours)
    (record,) = read_labelled(tmp_path / "forged.extxyz")
    known = KnownFrames([Frame.from_atoms(other), Frame.from_atoms(ours)])
    assert known.same(record.frame) == 1


def test_replayed_frames_are_on_one_side_whatever_file_they_are_in(files):
    from pfdhpc.config.train import ReplaySection
    from pfdhpc.engines.train.deepmd.replay import read_replay

    paths = [files / "all" / name for name in NAMES]
    replayed = read_replay({"b": ReplaySection(data=paths, weight=0.5)})["b"]
    training, held_out = ({record.frame_id for record in part} for part in (replayed.training, replayed.held_out))
    assert len(training | held_out) == 8  # of 48


def test_replayed_frames_that_are_tested_on_are_refused(files, tmp_path):
    replay = {"b": {"data": [str(files / "all" / "single")]}}
    config = make_config(tmp_path, test={"data": [str(files / "three" / "turned.extxyz")]}, train={"replay": replay})
    with pytest.raises(InputError, match="train.replay.b.data: 3 of 8 frames are in test.data, which must not train"):
        begin(config, ("Cu", "Au"))
