"""Labels made elsewhere: frames go out as files, results come back as files, in any order and at any time."""

import shutil
import threading
import time
from pathlib import Path

import ase.io
import ase.test
import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from test_loop import fingerprint
from toys import ToyRun, make_config

from pfdhpc.config.label import LabelSection
from pfdhpc.data import Frame
from pfdhpc.data.io import read_labelled
from pfdhpc.engines.label import offline
from pfdhpc.engines.label.level_of_theory import level_hash
from pfdhpc.engines.label.match_structures import matching
from pfdhpc.engines.registry import make_labeler
from pfdhpc.errors import EXIT_COMPLETE, EXIT_INCOMPLETE, InputError, LabelError
from pfdhpc.store.status import read_status

VASP = Path(ase.test.__file__).parent / "testdata" / "vasp"
LEVEL = {"level": "EMT, as published", "wait": 0}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(offline, "PAUSE", 0.02)


def make(folder, wait=0, **changes):
    label = {"type": "offline", "options": {"level": "EMT", "wait": wait}}
    config = make_config(folder, **{"init": {"frames": 3}, "converge": {"max_rounds": 1}, **changes})
    values = {**config.model_dump(exclude_unset=True), "label": label}
    from pfdhpc.config import parse

    return parse(values, folder)


def todo(config):
    folder = config.run.directory / "offline" / "todo"
    return sorted(path for path in folder.iterdir() if path.name[0] != ".") if folder.exists() else []


def compute(place, name="result.extxyz", shuffle=None, **changes):
    """What a lab does with one folder of todo."""
    atoms = ase.io.read(place / "POSCAR")
    if shuffle is not None:
        atoms = atoms[np.random.default_rng(shuffle).permutation(len(atoms))]
    atoms.calc = EMT()
    results = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces(), "stress": atoms.get_stress()}
    atoms.calc = SinglePointCalculator(atoms, **{key: value for key, value in results.items() if key not in changes})
    atoms.positions += changes.get("shift", 0.0)
    target = place.parents[1] / "done" / place.name
    target.mkdir(exist_ok=True)
    ase.io.write(target / name, atoms, format="extxyz")
    return target


def test_the_whole_trip_a_job_for_each_exchange(tmp_path):
    config = make(tmp_path)
    run = ToyRun(config)
    assert run.run() == EXIT_INCOMPLETE
    places = todo(config)
    assert len(places) == 3 and {path.name for path in places[0].iterdir()} == {"POSCAR", "frame.extxyz", "README"}
    assert "EMT" in (places[0] / "README").read_text() and places[0].name in (places[0] / "README").read_text()
    reason = read_status(config.run.directory)["reason"]
    assert "3 frames wait for labels" in reason and "submit again" in reason
    before = read_status(config.run.directory)["progress"]
    assert ToyRun(config).run() == EXIT_INCOMPLETE
    assert read_status(config.run.directory)["progress"] == before  # job scripts must see that nothing got on

    compute(places[0], shuffle=1)
    partly = ToyRun(config)
    assert partly.run() == EXIT_INCOMPLETE
    assert len(partly.store) == 1 and len(todo(config)) == 2 and partly.store.n_rejected == 0
    for place in todo(config):
        compute(place, shuffle=2)
    trained = ToyRun(config)
    assert trained.run() == EXIT_INCOMPLETE  # the picks of round 1 are out now
    assert len(trained.store) == 3 and trained.state.round == 1 and len(todo(config)) == 3
    for place in todo(config):
        compute(place)
    done = ToyRun(config)
    assert done.run() == EXIT_COMPLETE
    assert len(done.store) == 6 and todo(config) == []
    for record in done.store.records():
        atoms = record.frame.to_atoms()
        atoms.calc = EMT()
        np.testing.assert_allclose(record.label.forces, atoms.get_forces(), atol=1e-6)
        assert record.labelling.labeler == "offline"
    assert len(fingerprint(done)[0]) == len({row[0] for row in fingerprint(done)[0]}) == 6


def test_a_lab_that_answers_while_the_job_waits(tmp_path):
    config = make(tmp_path, wait=20.0)
    run = ToyRun(config, threads=True)
    stop = threading.Event()

    def lab():
        while not stop.is_set():
            for place in todo(config):
                if not (place.parents[1] / "done" / place.name).exists():
                    compute(place)
            time.sleep(0.02)

    helper = threading.Thread(target=lab, daemon=True)
    helper.start()
    try:
        assert run.run() == EXIT_COMPLETE
    finally:
        stop.set()
        helper.join()
    assert len(run.store) == 6


def test_what_cannot_be_used_is_told_beside_it_and_may_be_replaced(tmp_path):
    config = make(tmp_path)
    assert ToyRun(config).run() == EXIT_INCOMPLETE
    first, second, third = todo(config)
    moved, prose = compute(first, shift=0.01), compute(second)
    (prose / "result.extxyz").unlink()
    (prose / "job.log").write_text("Call me Ishmael.\n")
    flat = compute(third, stress=None)
    run = ToyRun(config)
    assert run.run() == EXIT_INCOMPLETE
    assert len(run.store) == 0 and run.store.n_rejected == 0
    assert "not the structure" in (moved / "REFUSED.txt").read_text()
    assert "job.log" in (prose / "REFUSED.txt").read_text()
    assert "no stress" in (flat / "REFUSED.txt").read_text()
    compute(first)
    (prose / "FAILED").write_text("SCF never converged, three mixers tried")
    compute(third)
    assert ToyRun(config).run() == EXIT_INCOMPLETE
    run = ToyRun(config)
    run.run()
    assert len(run.store) == 2 and run.state.history[0].rejected == 1
    assert [reason for _, reason in run.store.rejected()] == ["SCF never converged, three mixers tried"]
    assert not (moved / "REFUSED.txt").exists()


def test_a_folder_that_cannot_be_written_or_read_costs_a_warning(tmp_path, caplog):
    frame = Frame.from_atoms(bulk("Cu", cubic=True))
    engine = make_labeler(LabelSection(type="offline", options=LEVEL), None, log=tmp_path / "logs" / "x.log")
    place = tmp_path / "offline" / "done" / frame.frame_id
    (place / "outputs").mkdir(parents=True)
    assert engine.collect([frame]) == engine.collect([frame]) == {}
    assert "no file here, only folders" in (place / "REFUSED.txt").read_text()
    (place / "REFUSED.txt").unlink()
    for name in ("REFUSED.txt", "FAILED"):  # neither can be written or read
        (place / name).mkdir()
    assert engine.collect([frame]) == engine.collect([frame]) == {}
    engine.close([frame])
    told = [record.getMessage() for record in caplog.records if record.name.startswith("pfdhpc")]
    assert "FAILED" in told[0] and "cannot be written" in told[1] and "cannot be removed" in told[2]


def test_an_energy_far_from_the_prediction_is_rejected(tmp_path):
    from pfdhpc.data import Label, Record
    from pfdhpc.roles.offline_labeler import OfflineProgram

    config = make(tmp_path)
    config = config.model_copy(update={"label": config.label.model_copy(update={"energy_outlier": 1.0})})
    program = OfflineProgram(config, None)
    assert program.ready("labeler").problems == ()
    frame, forces = Frame.from_atoms(bulk("Cu", cubic=True)), np.zeros((4, 3))
    record = Record(frame, prediction=Label(0.0, forces))
    near, far = (program._outcome(record, Label(energy, forces, np.zeros((3, 3)))) for energy in (3.0, 5.0))
    assert near.record.label.energy == 3.0 and near.reason == ""
    assert "label.energy_outlier" in far.reason and far.record.label is None


def test_a_folder_that_is_still_being_written_waits(tmp_path):
    section = LabelSection(type="offline", options=LEVEL)
    engine = make_labeler(section, None, log=tmp_path / "logs" / "x.log")
    atoms = bulk("Cu", cubic=True)
    frame = Frame.from_atoms(atoms)
    place = tmp_path / "offline" / "done" / frame.frame_id
    with pytest.raises(LabelError, match="time-out"):
        engine.label(frame, {}, 0.05)
    place.mkdir()
    (place / "a.extxyz").write_text("4\n")
    assert engine.collect([frame]) == {}
    compute(tmp_path / "offline" / "todo" / frame.frame_id, "a.extxyz")
    assert engine.collect([frame]) == {}  # it has just changed
    atoms.calc = EMT()
    assert engine.collect([frame])[frame.frame_id].energy == pytest.approx(atoms.get_potential_energy(), abs=1e-6)


@pytest.mark.parametrize("source, name", [("OUTCAR_example_1", "OUTCAR"), ("vasprun_dfpt.xml", "vasprun.xml")])
def test_what_vasp_leaves_is_taken_as_it_is(tmp_path, source, name):
    """Its atoms in another order than ours, its digits fewer; other files of the calculation lie about."""
    (record,) = read_labelled(VASP / source)
    order = np.random.default_rng(0).permutation(len(record.frame))
    ours = record.frame.to_atoms()[order]
    ours.positions += 3e-5
    frame = Frame.from_atoms(ours)
    engine = make_labeler(LabelSection(type="offline", options=LEVEL), None, log=tmp_path / "logs" / "x.log")
    place = tmp_path / "offline" / "done" / frame.frame_id
    place.mkdir(parents=True)
    shutil.copy(VASP / source, place / name)
    (place / "INCAR").write_text("ENCUT = 520\n")
    assert engine.collect([frame]) == {}
    label = engine.collect([frame])[frame.frame_id]
    np.testing.assert_array_equal(label.forces, record.label.forces[order])
    assert label.energy == record.label.energy and label.virial is not None


def cell(shuffled=None):
    atoms = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    atoms.rattle(0.05, seed=1)
    atoms = atoms if shuffled is None else atoms[np.random.default_rng(shuffled).permutation(len(atoms))]
    return atoms


def test_atoms_are_told_by_where_they_are():
    frame, other = Frame.from_atoms(cell()), cell(shuffled=4)
    other.positions += other.cell.array.T @ [1, 0, -2]  # another image of each
    found = matching(frame, Frame.from_atoms(other))
    assert sorted(found) == list(range(8)) and found.tolist() != list(range(8))
    np.testing.assert_array_equal(other.numbers[found], frame.numbers)
    other.positions += 5e-5
    np.testing.assert_array_equal(matching(frame, Frame.from_atoms(other)), found)


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda atoms: atoms.positions.__iadd__(3e-4), "nearest is"),
        (lambda atoms: atoms.set_cell(atoms.cell * 1.001), "lattice vectors differ"),
        (lambda atoms: atoms.symbols.__setitem__(0, "K"), "other atoms"),
    ],
)
def test_another_structure_is_not_taken_for_this_one(change, said):
    atoms = cell()
    change(atoms)
    with pytest.raises(ValueError, match=said):
        matching(Frame.from_atoms(cell()), Frame.from_atoms(atoms))


def test_atoms_at_one_place_cannot_be_told_apart():
    atoms = bulk("Cu", cubic=True)
    atoms.positions[1] = atoms.positions[0] + 5e-5
    shuffled = atoms[[3, 1, 2, 0]]
    with pytest.raises(ValueError, match="not clear which"):
        matching(Frame.from_atoms(atoms), Frame.from_atoms(shuffled))


def test_a_molecule_may_be_in_any_box():
    from ase.build import molecule

    small, large = molecule("H2O"), molecule("H2O")[[2, 0, 1]]
    large.set_cell([12, 12, 12])
    assert matching(Frame.from_atoms(small), Frame.from_atoms(large)).tolist() == [1, 2, 0]


@pytest.mark.parametrize(
    "values, said",
    [
        ({"options": {}}, "options.level"),
        ({"options": {"level": " "}}, "options.level"),
        ({"options": {"level": "PBE", "wait": "long"}}, "options.wait"),
        ({"options": {"level": "PBE"}, "retries": [{}]}, "retries: labels are made elsewhere"),
        ({"options": {"level": "PBE"}, "batch": 3}, "batch"),
    ],
)
def test_bad_input_is_said_at_once(tmp_path, values, said):
    from pfdhpc.config import parse

    config = make(tmp_path)
    with pytest.raises(InputError, match=said):
        parse({**config.model_dump(exclude_unset=True), "label": {"type": "offline", **values}}, tmp_path)


def test_patience_is_no_part_of_the_level_of_theory():
    levels = {level_hash(LabelSection(type="offline", options={**LEVEL, "wait": wait})) for wait in (0, 60)}
    assert len(levels) == 1
    assert level_hash(LabelSection(type="offline", options={"level": "other"})) not in levels


def test_patience_may_change_between_jobs(tmp_path):
    import json

    from pfdhpc.config import dump
    from pfdhpc.config.restart_changes import differences, refusals

    before, after = (json.loads(dump(make(tmp_path, wait=wait))) for wait in (0, 60))
    changes = differences(before, after)
    assert [key for key, _, _ in changes] == ["label.options.wait"] and refusals(changes, "run") == []
