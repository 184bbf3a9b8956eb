"""LAMMPS with DeePMD-kit's pair style: geometry, models that are swapped or bad, and silence."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk, make_supercell, molecule
from hypothesis import given, settings
from hypothesis import strategies as st
from models import frozen, tiny_checkpoint

from pfdhpc import messages as m
from pfdhpc.config import parse
from pfdhpc.config.explore import ExploreSection
from pfdhpc.data import Frame
from pfdhpc.engines.base import SegmentTask
from pfdhpc.engines.explore.lammps import MEMORY, ROOM, LammpsExplorer, private_folder
from pfdhpc.engines.explore.lammps_box import reduced_box
from pfdhpc.errors import InputError, TaskError
from pfdhpc.parallel.channel import local_channels
from pfdhpc.parallel.layout import Team
from pfdhpc.roles import worker
from pfdhpc.roles.explorer import ExplorerProgram
from pfdhpc.store.run_directory import RunFolder

ENSEMBLES = ("nve", "nvt", "langevin", "npt-iso", "npt-aniso", "npt-tri")
TYPE_MAP = ("O", "Si", "C")  # no oxygen in any structure


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> tuple[Path, Path, Path]:
    """Two branches of one kind and a message-passing one."""
    folder = tmp_path_factory.mktemp("models")
    checkpoint = tiny_checkpoint(folder, TYPE_MAP, branches=("a", "b"))
    passing = tiny_checkpoint(folder / "dpa3", TYPE_MAP, descriptor="dpa3")
    return (
        frozen(checkpoint, folder / "a", "a"),
        frozen(checkpoint, folder / "b", "b"),
        frozen(passing, folder / "c"),
    )


@pytest.fixture(scope="module")
def reference(models):
    """Energy, forces and virial of a frame by the Python interface of each model."""
    from deepmd.infer import DeepPot

    potentials = {model: DeepPot(str(model)) for model in models}

    def predict(model, frame):
        types = [TYPE_MAP.index({6: "C", 14: "Si"}[int(number)]) for number in frame.numbers]
        energy, forces, virial = potentials[model].eval(frame.positions[None], frame.cell[None], types)[:3]
        return energy[0, 0], forces[0], virial[0].reshape(3, 3)

    return predict


@pytest.fixture(scope="module")
def explorer(models):
    """One instance for all the tests, as in a job: each leaves it to the next as it happens to be."""
    made = LammpsExplorer(section())
    made.load_models(models[:1], TYPE_MAP)
    yield made
    made.close()


def section(**changes) -> ExploreSection:
    return ExploreSection(**{"steps": 4, "interval": 2, "ensemble": "nve", **changes})


def task(start: Frame, **changes) -> SegmentTask:
    return replace(SegmentTask("r", "s", start, None, 0, (300.0, 300.0), (0.0, 0.0), 3), **changes)


def rattled(atoms, seed=1) -> Frame:
    atoms.rattle(0.05, seed=seed)
    return Frame.from_atoms(atoms)


def carbide() -> Frame:
    return rattled(bulk("SiC", "zincblende", a=4.36, cubic=True))


def cells() -> dict[str, Frame]:
    primitive = bulk("SiC", "zincblende", a=4.36)
    left_handed = primitive.copy()
    left_handed.set_cell(left_handed.cell[[1, 0, 2]])
    turned = primitive.copy()
    turned.rotate(37, (1, 2, 3), rotate_cell=True)
    tilted = make_supercell(bulk("SiC", "zincblende", a=4.36), [[1, 0, 0], [3, 1, 0], [-2, 2, 1]])
    outside = primitive.copy()
    outside.positions += (-17.0, 30.0, 4.0)
    shapes = {
        "primitive": primitive,
        "left-handed": left_handed,
        "turned": turned,
        "strongly tilted": tilted,
        "outside": outside,
    }
    return {name: rattled(atoms) for name, atoms in shapes.items()}


@pytest.mark.parametrize("basis", [(1, 1), (1, 7), (3, 1), (3, 2), (5, 5), (7, 3)])
def test_atoms_on_the_faces_of_a_tilted_box_are_not_lost(basis, explorer, models, reference):
    """The same crystal, as given, by other lattice vectors: LAMMPS found some atoms on neither side of a face."""
    one, two = basis
    crystal = bulk("SiC", "zincblende", a=4.36, cubic=True)
    cell = np.array([[1, one, 0], [0, 1, two], [0, 0, 1]]) @ crystal.cell.array
    start = Frame(crystal.numbers, cell, crystal.positions, crystal.pbc)
    found = explorer.run(task(start)).records[0]
    energy = reference(models[0], found.frame)[0]
    assert found.prediction.energy == pytest.approx(energy, abs=1e-9)
    assert energy == pytest.approx(explorer.run(task(Frame.from_atoms(crystal))).records[0].prediction.energy, abs=1e-3)


@pytest.mark.parametrize("name", cells())
@pytest.mark.parametrize("ensemble", ["nve", "langevin", "npt-tri"])
def test_prediction_cell_and_forces_are_in_one_frame(name, ensemble, explorer, models, reference):
    start = cells()[name]
    explorer.section = section(ensemble=ensemble, pressure_damping=50.0)
    for model in models[::2]:
        explorer.load_models([model], TYPE_MAP)
        result = explorer.run(task(start, pressure=(1000.0, 1000.0)))
        assert not result.stopped
        for record in result.records:
            energy, forces, virial = reference(model, record.frame)
            assert record.prediction.energy == pytest.approx(energy, abs=1e-9)
            np.testing.assert_allclose(record.prediction.forces, forces, atol=1e-9)
            np.testing.assert_allclose(record.prediction.virial, virial, atol=1e-9)
            if ensemble != "npt-tri":
                np.testing.assert_allclose(record.frame.cell, start.cell, atol=1e-12)
            else:
                assert 0 < np.abs(record.frame.cell - start.cell).max() < 0.5


@pytest.mark.parametrize("name", cells())
def test_a_trajectory_begins_at_the_start_structure(name, explorer, models, reference):
    start = cells()[name]
    explorer.section = section(steps=1, interval=1, timestep=1e-6)
    explorer.load_models(models[:1], TYPE_MAP)
    record = explorer.run(task(start)).records[0]
    energy, forces, _ = reference(models[0], start)
    assert record.prediction.energy == pytest.approx(energy, abs=1e-7)
    np.testing.assert_allclose(record.prediction.forces, forces, atol=1e-7)
    moved = np.linalg.solve(start.cell.T, (record.frame.positions - start.positions).T)
    np.testing.assert_allclose(moved, np.round(moved), atol=1e-7)


@pytest.mark.parametrize("ensemble", ENSEMBLES)
@pytest.mark.parametrize("lattice", ["fcc", "sc"])
def test_one_atom_cells_smaller_than_the_cutoff_run(ensemble, lattice, explorer, models, reference):
    explorer.section = section(ensemble=ensemble, steps=20, interval=10)
    explorer.load_models(models[:1], TYPE_MAP)
    start = Frame.from_atoms(bulk("Si", lattice, a=4.0 if lattice == "fcc" else 2.6))
    result = explorer.run(task(start))
    assert not result.stopped and len(result.records) == 2
    again = explorer.run(task(start, state=result.state, segment=1))
    assert not again.stopped
    energy, _, virial = reference(models[0], again.records[-1].frame)
    assert again.records[-1].prediction.energy == pytest.approx(energy, abs=1e-9)
    np.testing.assert_allclose(again.records[-1].prediction.virial, virial, atol=1e-9)


def test_a_new_model_drives_the_next_segment(explorer, models, reference):
    explorer.section = section()
    energies = []
    for model in (models[0], models[1], models[2], models[0]):
        explorer.load_models([model], TYPE_MAP)
        record = explorer.run(task(carbide())).records[0]
        assert record.prediction.energy == pytest.approx(reference(model, record.frame)[0], abs=1e-9)
        energies.append(record.prediction.energy)
    assert len(set(energies)) == 3 and energies[0] == energies[3]


def test_the_committee_deviates_by_the_spread_of_its_forces(explorer, models, reference):
    explorer.section = section(steps=6, interval=3)
    explorer.load_models(models[:2], TYPE_MAP)
    records = explorer.run(task(carbide())).records
    assert [record.origin.step for record in records] == [3, 6]
    for record in records:
        one, other = (reference(model, record.frame)[1] for model in models[:2])
        spread = np.linalg.norm(one - other, axis=1).max() / 2
        assert record.origin.deviation == pytest.approx(spread, rel=1e-5)
        np.testing.assert_allclose(record.prediction.forces, one, atol=1e-9)  # the first one drives


def test_the_committee_of_the_input_marks_the_candidates_of_a_run(models, reference, tmp_path):
    folder = RunFolder(tmp_path / "run")
    program, order = explorer_program(folder, {"committee": [str(models[1])]}, models[0])
    assert program.ready("explorer-0").problems == ()
    answer = program.handle(order)
    assert (answer.stopped, answer.n_candidates) == ("", 2)
    picked = program.handle(m.Select("select/1/explorer-0", 1, {"explorer-0": 0}, ("r",), {}, (), 9)).picked
    assert sorted(record.origin.step for record in picked) == [2, 4]
    for record in picked:
        one, other = (reference(model, record.frame)[1] for model in models[:2])
        spread = np.linalg.norm(one - other, axis=1).max() / 2
        assert np.isfinite(spread) and record.origin.deviation == pytest.approx(spread, rel=1e-5)
    assert not folder.directory.joinpath("scratch").exists()


def test_a_committee_that_does_not_fit_ends_the_job_and_costs_no_replica_a_restart(models, tmp_path):
    """LAMMPS itself would go on with wrong types and neighbours."""
    other = frozen(tiny_checkpoint(tmp_path, TYPE_MAP[::-1]), tmp_path / "other")
    program, order = explorer_program(RunFolder(tmp_path / "run"), {"committee": [str(other)]}, models[0])
    assert program.ready("explorer-0").problems == ()
    answer = worker.work(Team("explorer-0", "explorer", (1,)), program, order)
    assert isinstance(answer, m.Failed) and answer.fatal
    assert "explore.committee" in answer.reason and "type map C Si O" in answer.reason


def test_a_lammps_that_does_not_start_is_found_before_the_run(models, tmp_path, monkeypatch):
    program, _ = explorer_program(RunFolder(tmp_path / "run"), {}, models[0])
    monkeypatch.setattr("lammps.lammps.has_style", lambda *style: False)
    (line,) = program.ready("explorer-0").problems
    assert "no pair style deepmd" in line and "install" in line
    monkeypatch.setattr("lammps.lammps.__init__", foreign_mpi)
    (line,) = program.ready("explorer-0").problems
    assert line.startswith("explore.engine: LAMMPS cannot be loaded: libmpi.so.12") and "MPICH" in line


def foreign_mpi(self, **keywords):
    self.lmp = None
    raise OSError("libmpi.so.12: cannot open shared object file")


def explorer_program(folder, explore, model):
    """The program of an explorer rank, and an order for it with ``model`` published."""
    folder.models.mkdir(parents=True)
    shutil.copy(model, folder.models / "digest.pth")
    here = str(Path(__file__))
    config = parse(
        {
            "workflow": "finetune",
            "model": {"checkpoint": here},
            "system": [{"name": "s", "structures": [here]}],
            "explore": {"steps": 4, "interval": 2, "ensemble": "nve", **explore},
            "select": {"min_gain": -100.0},
            "label": {"type": "ase", "options": {"calculator": "ase.calculators.emt.EMT"}},
            "train": {},
        },
        Path.cwd(),
    )
    order = m.Explore("explore/1/r", 1, m.ModelRef(1, "digest"), TYPE_MAP, task(carbide()))
    return ExplorerProgram(config, folder, "explorer-0", local_channels(1)[0]), order


def test_private_files_lie_in_memory_and_go_with_their_owner(monkeypatch, tmp_path):
    class Owner:
        pass

    owner = Owner()
    folder = private_folder(owner)
    assert folder.is_dir() and list(folder.iterdir()) == []
    if os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > ROOM:
        assert folder.parent == MEMORY
    (folder / "restart").write_bytes(b"x")
    del owner
    assert not folder.exists()
    monkeypatch.setattr("pfdhpc.engines.explore.lammps.MEMORY", tmp_path / "none")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    owner = Owner()
    assert private_folder(owner).parent == tmp_path


@pytest.mark.parametrize("ensemble", [name for name in ENSEMBLES if name != "langevin"])
def test_two_segments_go_the_way_of_a_single_long_one(ensemble, explorer, models):
    """Thermostat and barostat remember: the state of the fixes travels in the restart bytes."""
    explorer.load_models(models[:1], TYPE_MAP)
    changes = {"ensemble": ensemble, "interval": 20, "temperature_damping": 20.0, "pressure_damping": 50.0}
    explorer.section = section(steps=40, **changes)
    long = explorer.run(task(carbide(), pressure=(1000.0, 1000.0)))
    explorer.section = section(steps=20, **changes)
    first = explorer.run(task(carbide(), pressure=(1000.0, 1000.0)))
    second = explorer.run(task(carbide(), pressure=(1000.0, 1000.0), state=first.state, segment=1))
    for one, other in zip(long.records, first.records + second.records, strict=True):
        np.testing.assert_allclose(one.frame.cell, other.frame.cell, atol=1e-8)
        np.testing.assert_allclose(one.prediction.forces, other.prediction.forces, atol=1e-8)


def test_bad_models_fail_the_task_and_the_next_model_works(explorer, models, tmp_path):
    explorer.section = section()
    with pytest.raises(InputError, match="no such model file"):
        explorer.load_models([tmp_path / "none.pth"], TYPE_MAP)
    garbage = tmp_path / "garbage.pth"
    garbage.write_text("not a model")
    explorer.load_models([garbage], TYPE_MAP)
    with pytest.raises(TaskError, match="replica r cannot begin"):
        explorer.run(task(carbide()))
    explorer.load_models(models[:1], TYPE_MAP)
    good = explorer.run(task(carbide()))
    explorer.load_models([garbage], TYPE_MAP)
    result = explorer.run(task(carbide(), state=good.state, segment=1))
    assert result.stopped.startswith("LAMMPS: ") and result.state is None
    explorer.load_models(models[:1], TYPE_MAP)
    assert not explorer.run(task(carbide())).stopped


def test_structures_it_cannot_explore_are_refused(explorer):
    with pytest.raises(TaskError, match="periodic in three directions"):
        explorer.run(task(Frame.from_atoms(molecule("CO"))))
    with pytest.raises(TaskError, match=r"\[13\] are not in the model"):
        explorer.run(task(Frame.from_atoms(bulk("Al"))))


def test_an_explosion_between_kept_frames_leaves_only_healthy_ones(explorer, models):
    explorer.section = section(ensemble="nve", steps=200, interval=50, timestep=60.0)
    explorer.load_models(models[:1], TYPE_MAP)
    result = explorer.run(task(carbide(), temperature=(3000.0, 3000.0)))
    assert result.stopped and result.state is None and result.steps < 200
    assert [record.origin.step for record in result.records] == list(range(50, result.steps + 1, 50))


def test_nothing_is_printed_and_no_file_left_but_the_scratch(explorer, models, capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("OMP_NUM_THREADS", "DP_INTRA_OP_PARALLELISM_THREADS", "DP_INTER_OP_PARALLELISM_THREADS"):
        monkeypatch.setenv(name, "1")  # DeePMD-kit warns when they are not set
    explorer.section = section(steps=20, interval=10)
    explorer.load_models(models[:2], TYPE_MAP)
    result = explorer.run(task(carbide()))
    assert not result.stopped
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []
    assert str(explorer.scratch).encode() not in result.state
    assert [file.name for file in explorer.scratch.iterdir()] == ["deviation.out"]
    assert models[0].name.encode() not in result.state


@settings(max_examples=50)
@given(st.lists(st.floats(-5, 5), min_size=9, max_size=9))
def test_a_cell_turns_into_a_box_and_back(values):
    cell = np.array(values).reshape(3, 3) + 8 * np.eye(3)[[1, 2, 0]]
    if abs(np.linalg.det(cell)) < 1e-3:
        return
    box, rotation, basis = reduced_box(cell)
    assert np.array_equal(box, np.tril(box)) and (np.diag(box) > 0).all()
    assert np.array_equal(basis, np.round(basis)) and np.linalg.det(basis) == pytest.approx(1)
    assert all(abs(box[i, j]) <= 0.5000001 * box[j, j] for i, j in ((1, 0), (2, 1), (2, 0)))
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(basis @ box @ rotation.T, cell, atol=1e-10)
