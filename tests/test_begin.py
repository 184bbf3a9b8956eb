"""Where a run starts: altered structures, data sets that exist, frames that only test, labels imported later."""

import json
import shutil
from pathlib import Path

import ase.io
import ase.test
import dpdata
import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from hypothesis import given
from hypothesis import strategies as st
from test_loop import fingerprint
from toys import ToyRun, bare, make_config

from pfdhpc.cli.main import main
from pfdhpc.config.explore import PerturbSection, SystemSection
from pfdhpc.config.init import AlloySection
from pfdhpc.data import Frame
from pfdhpc.data.io import read_labelled
from pfdhpc.engines.explore.perturb import alloyed, altered, perturb, starts, with_vacancies
from pfdhpc.errors import EXIT_COMPLETE, EXIT_INCOMPLETE, InputError
from pfdhpc.report.terminal.summary import collect
from pfdhpc.start.fresh_state import begin
from pfdhpc.start.given_labels import given as read_given
from pfdhpc.store.export import export
from pfdhpc.store.store import read_records

VASP = Path(ase.test.__file__).parent / "testdata" / "vasp"


def brass(n_zinc=4):
    atoms = bulk("Cu", cubic=True).repeat((2, 2, 1))
    atoms.symbols[:n_zinc] = "Zn"
    atoms.symbols[-1] = "O"
    return Frame.from_atoms(atoms)


def rng(seed=0):
    return np.random.default_rng(seed)


def labelled(n=5, seed=0):
    """Copper frames with EMT's labels."""
    found = []
    for index in range(n):
        atoms = bulk("Cu", cubic=True)
        atoms.rattle(0.1, seed=100 * seed + index)
        atoms.calc = EMT()
        results = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces(), "stress": atoms.get_stress()}
        atoms.calc = SinglePointCalculator(atoms, **results)
        found.append(atoms)
    return found


# structures


def test_strain_and_displacement_alone_are_what_they_always_were():
    section = PerturbSection(strain=0.02, displacement=0.1)
    assert altered(brass(), section, rng(4)).frame_id == perturb(brass(), 0.02, 0.1, rng(4)).frame_id


def test_atoms_change_places_on_their_sublattice_only():
    frame, section = brass(), AlloySection(elements=["Cu", "Zn"])
    found = [alloyed(frame, section, rng(seed)) for seed in range(5)]
    assert len({one.frame_id for one in found}) == 5
    for one in found:
        assert sorted(one.numbers) == sorted(frame.numbers) and one.numbers[-1] == 8
        np.testing.assert_array_equal(one.positions, frame.positions)


def test_compositions_are_drawn_evenly():
    section = AlloySection(elements=["Cu", "Zn"], composition="random")
    counts = [int((alloyed(brass(), section, rng(seed)).numbers == 30).sum()) for seed in range(800)]
    assert set(counts) == set(range(16))
    assert max(map(counts.count, range(16))) < 3 * min(map(counts.count, range(16)))


@given(fraction=st.floats(0, 0.99), n_copper=st.integers(0, 11), seed=st.integers(0, 99))
def test_vacancies_are_as_many_as_asked_for(fraction, n_copper, seed):
    frame = brass()
    kept = with_vacancies(frame, {"Cu": n_copper, "Zn": fraction}, rng(seed))
    assert (kept.numbers == 29).sum() == 11 - n_copper and (kept.numbers == 30).sum() == 4 - round(4 * fraction)
    assert {tuple(p) for p in kept.positions} <= {tuple(p) for p in frame.positions}


def test_what_a_structure_does_not_allow_is_said(tmp_path):
    for perturbation, said in (
        ({"vacancies": 4}, "none of the 4 atoms would stay"),
        ({"vacancies": {"O": 1}}, "1 atoms"),
        ({"alloy": {"elements": ["Al", "Ni"]}}, "no atom is Al or Ni"),
    ):
        config = make_config(tmp_path, system=[system(perturb=perturbation)])
        with pytest.raises(InputError, match=said) as caught:
            begin(config, ())
        assert all("system Cu" in line for line in caught.value.problems)


@pytest.mark.parametrize(
    "change, said",
    [
        ({"perturb": {"vacancies": 1.5}}, "perturb.vacancies"),
        ({"perturb": {"vacancies": {"Q": 1}}}, "no such element: Q"),
        ({"perturb": {"alloy": {"elements": ["Cu"]}}}, "system[0].perturb.alloy.elements"),
        ({"slab": {"miller": [0, 0, 0], "layers": 3}}, "is no surface"),
        ({"slab": {"layers": 3}}, "system[0].slab.miller: missing"),
    ],
)
def test_nonsense_is_refused_before_anything_is_read(tmp_path, change, said):
    with pytest.raises(InputError) as caught:
        make_config(tmp_path, system=[system(**change)])
    assert said in str(caught.value)


def system(**changes):
    return {"name": "Cu", "structures": ["cu.vasp"], **changes}


def test_a_slab_has_its_layers_its_vacuum_and_is_periodic(tmp_path):
    ase.io.write(tmp_path / "cu.vasp", bulk("Cu", cubic=True))
    section = SystemSection(
        name="Cu",
        structures=[str(tmp_path / "cu.vasp")],
        slab={"miller": [1, 1, 1], "layers": 4, "vacuum": 12.0},
        supercell=[2, 2, 1],
    )
    (frame,) = starts(section, 0)
    heights = np.unique(frame.positions[:, 2].round(6))
    assert len(heights) == 4 and frame.pbc.all()
    np.testing.assert_allclose(np.diff(heights), 3.61 / 3**0.5, atol=1e-3)
    assert frame.cell[2, 2] - np.ptp(frame.positions[:, 2]) == pytest.approx(12.0)
    assert len(frame) == 4 * len(bulk("Cu", cubic=True)) * 4


def test_alloys_and_vacancies_go_through_a_whole_run(tmp_path):
    perturbation = {"count": 3, "vacancies": 1, "alloy": {"elements": ["Cu", "Ag"], "composition": "random"}}
    emt = {"options": {"calculator": "ase.calculators.emt.EMT"}}
    config = make_config(tmp_path, system=[system(perturb=perturbation, supercell=[2, 1, 1])], label=emt)
    assert begin(config, ()).state.species == (29, 47)
    with pytest.raises(InputError, match="system Cu: Ag not in the type map"):
        begin(config, ("Cu",))
    runs = []
    for _ in range(2):
        run = ToyRun(config)
        run.trainer.ready = run.trainer.ready
        runs.append(begin(config, ("Cu", "Ag")).state)
    assert [r.frame_id for r in runs[0].pending] == [r.frame_id for r in runs[1].pending]
    assert all(len(record.frame) == 7 for record in runs[0].pending)
    assert len({tuple(sorted(replica.start.numbers)) for replica in runs[0].replicas}) > 1


# data sets


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The same frames in every format."""
    folder = tmp_path_factory.mktemp("data")
    ase.io.write(folder / "plain.extxyz", labelled(), format="extxyz")
    ase.io.write(folder / "oddly.named", labelled(), format="extxyz")
    records = read_labelled(folder / "plain.extxyz")
    export(records, folder / "npy", "deepmd/npy")
    export(records, folder / "all.hdf5", "deepmd/hdf5")
    systems = dpdata.MultiSystems(dpdata.LabeledSystem(str(folder / "npy" / "Cu4"), fmt="deepmd/npy"))
    systems.to("deepmd/npy/mixed", str(folder / "mixed"))
    return folder


@pytest.mark.parametrize(
    "name, fmt",
    [
        ("plain.extxyz", ""),
        ("oddly.named", "extxyz"),
        ("npy", ""),
        ("npy/Cu4", "deepmd/npy"),
        ("mixed", ""),
        ("all.hdf5", ""),
    ],
)
def test_a_run_starts_from_data_in_any_format(data, tmp_path, name, fmt):
    path = str(data / name)
    given = [{"path": path, "format": fmt}] if fmt else [path]
    config = make_config(tmp_path, init={"frames": 1, "data": given}, converge={"max_rounds": 1})
    found = begin(config, ("Cu",))
    energies = sorted(record.label.energy for record in found.given)
    expected = sorted(atoms.get_potential_energy() for atoms in labelled())
    np.testing.assert_allclose(energies, expected, atol=1e-6)
    assert found.state.given == 5 and len(found.state.fresh) == 5
    assert all(record.label.virial is not None for record in found.given)


@pytest.mark.parametrize(
    "name, fmt", [("OUTCAR_example_1", ""), ("OUTCAR_example_1", "vasp/outcar"), ("vasprun_dfpt.xml", "")]
)
def test_vasp_outputs_are_data_too(name, fmt):
    from pfdhpc.config.init import DataSection

    (record,) = read_given(DataSection(path=VASP / name, format=fmt))
    assert record.label.is_finite() and record.origin.replica == "given" and record.labelling.level.startswith("given-")


def test_formats_that_are_not_known_or_not_right_are_said(data):
    with pytest.raises(InputError, match="known neither to dpdata nor to ASE; near to it: .*deepmd/npy"):
        read_labelled(data / "npy", fmt="deepmd/nqy")
    with pytest.raises(InputError, match="cannot be read as labelled frames of format vasp/outcar"):
        read_labelled(data / "plain.extxyz", fmt="vasp/outcar")


def test_another_run_is_a_data_set(finished, tmp_path):
    config = make_config(tmp_path, init={"frames": 1, "data": [str(finished.folder.directory)]})
    found = begin(config, ("Cu",))
    assert sorted(r.frame_id for r in found.given) == sorted(r.frame_id for r in finished.store.records())
    assert all(record.prediction is None and record.origin.round == 0 for record in found.given)
    level = finished.store.records()[0].labelling.level
    table = {"path": str(finished.folder.frames), "level": level}
    assert len(begin(make_config(tmp_path, init={"data": [table]}), ("Cu",)).given) == len(found.given)
    with pytest.raises(InputError, match="name one level of theory"):
        begin(make_config(tmp_path, init={"data": [{**table, "level": "other"}]}), ("Cu",))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    run = ToyRun(make_config(tmp_path_factory.mktemp("whole")))
    assert run.run() == EXIT_COMPLETE
    return run


# frames that only test


def test_test_data_never_trains_and_is_always_reported(data, tmp_path):
    """Some of it is in init.data as well: it must not train then."""
    ase.io.write(tmp_path / "more.extxyz", labelled(3, seed=1), format="extxyz")
    test = {"holdout": 0.0, "data": [str(data / "plain.extxyz"), str(tmp_path / "more.extxyz")]}
    ase.io.write(tmp_path / "given.extxyz", labelled()[:2] + labelled(4, seed=2), format="extxyz")
    config = make_config(tmp_path / "a", test=test, init={"frames": 2, "data": [str(tmp_path / "given.extxyz")]})
    run = ToyRun(config)
    toy = run.trainer.handle
    run.trainer.handle = lambda order: _with_fixed(run.trainer, order, toy(order))
    assert run.run() == EXIT_COMPLETE
    state = run.state
    assert state.given == 4 and len(state.fixed_ids) == 8 and not set(state.fixed_ids) & set(state.label_ids)
    tested = {label_id.partition(":")[0] for label_id in state.fixed_ids}
    for order in run.trainer.orders:
        used = (*getattr(order, "old_ids", ()), *getattr(order, "new_ids", ()), *getattr(order, "validation_ids", ()))
        assert not tested & {label_id.partition(":")[0] for label_id in used}
    results = collect(config, state, run.store)["test_data"]
    assert results["frames"] == 8
    assert results["pretrained"]["total"]["force"] == pytest.approx(0.2)
    assert results["final"]["total"]["force"] == pytest.approx(0.05)
    assert set(results["final"]["systems"]) == {"plain", "more"}
    again = ToyRun(config)
    assert again.run() == EXIT_COMPLETE and again.state.fixed_ids == state.fixed_ids


def _with_fixed(trainer, order, answer):
    """What a trainer adds: both models on the frames of test.data, off by 0.2 and 0.05 eV/Å."""
    from dataclasses import replace

    from pfdhpc.data import Label

    labels = [trainer.records[key].label for key in getattr(order, "fixed_ids", ())]
    before, final = (tuple(Label(x.energy, x.forces + off, x.virial) for x in labels) for off in (0.2, 0.05))
    return replace(answer, fixed_before=before, fixed_final=final) if labels else answer


# imported labels


@pytest.fixture
def copy(finished, tmp_path):
    """A finished run of one's own."""
    config = make_config(tmp_path)
    shutil.copytree(finished.folder.directory, config.run.directory)
    ase.io.write(tmp_path / "new.extxyz", labelled(3, seed=7), format="extxyz")
    return config


def test_imported_labels_are_kept_once_and_train_in_the_next_job(copy, tmp_path, capsys):
    run, files = str(copy.run.directory), [str(tmp_path / "new.extxyz")]
    command = ["import", *files, "--into", run, "--as", "labels", "--level", "lab"]
    assert main(command) == 0 and "3 labels taken" in capsys.readouterr().out
    assert main(command) == 0 and "0 labels taken" in capsys.readouterr().out
    records = [r for r in read_records(copy.run.directory / "frames") if r.labelling.labeler == "import"]
    assert len(records) == 3
    assert {(r.labelling.level, r.origin.replica, r.origin.system) for r in records} == {
        ("imported-lab", "imported", "new")
    }
    again = ToyRun(copy)
    assert again.run() == EXIT_COMPLETE
    assert again.events == ["Trained", "Evaluated"] and again.state.ended == "max_rounds"
    train = next(order for order in again.trainer.orders if hasattr(order, "new_ids"))
    ours = {record.label_id for record in records}
    assert ours <= {*train.new_ids, *train.validation_ids, *again.state.test_ids}
    assert again.state.n_labels == 13 and again.state.given == 3 and again.state.n_paid == 10
    assert ToyRun(copy).run() == EXIT_COMPLETE


def test_labels_imported_into_a_stopped_run_join_its_next_training(finished, tmp_path):
    config = make_config(tmp_path)
    first = ToyRun(config).stop_after(7)
    assert first.run() == EXIT_INCOMPLETE
    ase.io.write(tmp_path / "new.extxyz", labelled(3, seed=7), format="extxyz")
    assert main(["import", str(tmp_path / "new.extxyz"), "--into", str(config.run.directory), "--as", "labels"]) == 0
    second = ToyRun(config)
    assert second.run() == EXIT_COMPLETE
    assert second.state.n_labels == 13 and not second.state.fresh
    assert len(fingerprint(second)[0]) == 13


def test_an_import_is_refused_where_it_would_do_harm(copy, tmp_path, capsys):
    from pfdhpc.store.lock import RunLock

    command = ["import", str(tmp_path / "new.extxyz"), "--into", str(copy.run.directory), "--as", "labels"]
    lock = RunLock(copy.run.directory)
    assert main(command) == 2 and "in use" in capsys.readouterr().err
    lock.release()
    silver = labelled(1)[0]
    silver.symbols[0] = "Ag"
    silver.calc = SinglePointCalculator(silver, energy=1.0, forces=np.zeros((4, 3)))
    ase.io.write(tmp_path / "silver.extxyz", silver)
    before = len(read_records(copy.run.directory / "frames"))
    both = [command[0], str(tmp_path / "silver.extxyz"), *command[1:]]
    assert main(both) == 2 and "Ag in the files" in capsys.readouterr().err
    assert main([command[0], str(tmp_path / "nowhere"), *command[1:]]) == 2
    assert "no such file" in capsys.readouterr().err
    assert main([*command[:2], "--into", str(tmp_path), "--as", "labels"]) == 2
    assert len(read_records(copy.run.directory / "frames")) == before


def test_held_out_frames_do_not_come_back_by_an_import(copy, tmp_path, capsys):
    """The whole run exported and imported again: nothing is new, nothing it is tested on begins to train."""
    run = copy.run.directory
    assert main(["import", str(run), "--into", str(run), "--as", "labels", "--level", "again"]) == 0
    told = capsys.readouterr().out
    assert "0 labels taken" in told and "2 frames left out: the run is tested on them" in told
    status = json.loads((run / "status.json").read_text())
    assert status["state"] == "complete"


@pytest.mark.parametrize("distilling", [False, True])
def test_the_trainer_compares_both_models_on_test_data(tmp_path, monkeypatch, distilling):
    """Fine-tuning: the aligned parent and the final model; a distillation: the teacher and the student."""
    from pfdhpc import messages as m
    from pfdhpc.data import Label, Labelling, Record
    from pfdhpc.roles.trainer import TrainerProgram
    from pfdhpc.store.run_directory import RunFolder
    from pfdhpc.workflow.apply import apply
    from pfdhpc.workflow.state import EVALUATE, RoundRecord, RunState

    class Engine:
        """Forces that tell which model predicted, and for which frame."""

        def predict(self, checkpoint, frames):
            off = {"parent": 0.3, "teacher": 0.2, "final": 0.1}[checkpoint.stem]
            return [Label(7.0 * len(frame), np.full((len(frame), 3), off)) for frame in frames]

    config = make_config(tmp_path)
    monkeypatch.setattr("pfdhpc.roles.evaluator.make_trainer", lambda *_: Engine())
    program = TrainerProgram(config, RunFolder(tmp_path / "run"), None)
    frames = [Frame.from_atoms(atoms) for atoms in labelled(6)]
    records = [Record(f, label=Label(0.0, np.zeros((4, 3))), labelling=Labelling("x", "x")) for f in frames]
    ids = tuple(record.label_id for record in records)
    parent, teacher, final = (m.ModelRef(0, name) for name in ("parent", "teacher", "final"))
    who = {"parent": None, "teacher": teacher} if distilling else {"parent": parent, "teacher": None}
    order = m.Evaluate(
        "evaluate/0/0", who["parent"], final, ids[:1], ids[1:3], ids[3:], who["teacher"], records=tuple(records)
    )
    answer = program.handle(order)
    assert len(answer.final) == 2 and len(answer.parent) == (0 if distilling else 2)
    parts = {"train_ids": ids[:1], "test_ids": ids[1:3], "fixed_ids": ids[3:], "models": (parent, final)}
    state = RunState(phase=EVALUATE, teacher=who["teacher"], history=(RoundRecord(0),), **parts)
    by_id = dict(zip(ids, records, strict=True))
    state = apply(
        config,
        state.issued(bare(m.Evaluate, "evaluate/0/0"), "trainer-0"),
        answer,
        lambda keys: [by_id[key] for key in keys],
    )
    assert state.fixed["final"].total.force == pytest.approx(0.1)
    assert state.fixed["teacher" if distilling else "pretrained"].total.force == pytest.approx(
        0.2 if distilling else 0.3
    )
    assert state.fixed["final"].total.energy == pytest.approx(0.0 if distilling else 7.0)
    before = state.fixed["teacher" if distilling else "pretrained"]
    assert before.total.energy == pytest.approx(0.0, abs=1e-9), "by a fit to these frames, or to the training frames"


def test_frames_that_wait_are_not_labelled_again_when_their_labels_were_imported():
    from test_roles import config as plain
    from test_roles import labelled, started

    from pfdhpc.workflow.resume import resume
    from pfdhpc.workflow.state import LABEL, TRAIN

    waiting = [labelled(seed) for seed in range(3)]
    kept = started(phase=LABEL, pending=tuple(waiting))
    some = [f"{record.frame_id}:imported-lab" for record in waiting]
    state = resume(plain(), kept, kept, (), some[:2])
    assert (state.phase, [item.frame_id for item in state.pending]) == (LABEL, [waiting[2].frame_id])
    assert set(some[:2]) <= set(state.fresh)
    assert resume(plain(), kept, kept, (), some).phase == TRAIN


def test_molecules_that_the_labeler_would_take_for_crystals_are_refused(tmp_path):
    from ase.build import molecule

    gpaw = {"type": "gpaw", "options": {"mode": {"name": "pw", "ecut": 300}}}
    names = []
    for gap in (4.0, 6.0, 9.0):
        atoms = molecule("H2O")
        atoms.set_cell(np.ptp(atoms.positions, axis=0) + gap)
        names.append(f"water{gap}.traj")
        ase.io.write(tmp_path / names[-1], atoms)
    water = {"name": "water", "structures": names}
    with pytest.raises(InputError) as caught:
        begin(make_config(tmp_path, system=[water], label=gpaw), ())
    (line,) = caught.value.problems
    assert line.startswith("system water: GPAW cannot label 2 of the 3 structures: it repeats the cell along abc")
    assert "images are 4.0 Å apart; leave 10 Å of vacuum" in line
    water["structures"] = names[2:]
    assert begin(make_config(tmp_path, system=[water], label=gpaw), ()).state.replicas


def test_frames_that_deepmd_would_take_for_others_are_refused(tmp_path):
    from ase.build import fcc111
    from ase.calculators.emt import EMT

    from pfdhpc.config.init import DataSection
    from pfdhpc.start.given_labels import read

    atoms = fcc111("Cu", (1, 1, 3), vacuum=5.0)
    atoms.pbc = (True, True, False)
    atoms.calc = EMT()
    atoms.get_forces()
    ase.io.write(tmp_path / "slab.extxyz", atoms, parallel=False)
    with pytest.raises(InputError, match="periodic in some directions only"):
        read(DataSection(path=tmp_path / "slab.extxyz"))
