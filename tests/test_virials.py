"""A virial only where it means something: three periodic directions, and no placeholder of zeros."""

from dataclasses import replace
from itertools import product

import ase.io
import numpy as np
import pytest
import samples
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from models import tiny_checkpoint

from pfdhpc.config.explore import ExploreSection
from pfdhpc.config.label import LabelSection
from pfdhpc.data import Frame, Label, Labelling, Record
from pfdhpc.data.io import labelled_atoms, read_labelled
from pfdhpc.engines.base import SegmentTask
from pfdhpc.engines.label.label_checks import check_label, label_with_ladder
from pfdhpc.engines.registry import make_explorer, make_labeler
from pfdhpc.engines.train.deepmd.dataset import write_systems
from pfdhpc.errors import LabelError
from pfdhpc.log import remark
from pfdhpc.store.export import export
from pfdhpc.store.shards import read_table
from pfdhpc.store.store import read_records

OPEN = [list(pbc) for pbc in product((True, False), repeat=3) if not all(pbc)]


@pytest.fixture(autouse=True)
def untold():
    """A remark on a file is made once in a process."""
    remark.cache_clear()


def copper(pbc=True, seed=1) -> Atoms:
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=seed)
    atoms.pbc = pbc
    return atoms


def told(atoms, stress, forces=0.3) -> Atoms:
    """As a file has it: labelled with that stress, whatever it is."""
    atoms.calc = SinglePointCalculator(atoms, energy=-1.0, forces=np.full((len(atoms), 3), forces), stress=stress)
    return atoms


def written(path, *frames):
    ase.io.write(path, frames, format="extxyz", parallel=False)
    return path


@pytest.mark.parametrize("pbc", OPEN)
def test_a_record_of_an_open_frame_has_none(pbc):
    label = Label(-1.0, np.ones((4, 3)), np.eye(3))
    record = Record(Frame.from_atoms(copper(pbc)), prediction=label, label=label, labelling=Labelling("emt"))
    assert record.label.virial is record.prediction.virial is None
    assert replace(record, label=label).label.virial is None and record.label.energy == -1.0
    assert Record(Frame.from_atoms(copper()), label=label).label is label


@pytest.mark.parametrize("stress", [np.zeros(6), np.full(6, 0.01)])
def test_a_file_that_has_some_is_told_of_once(stress, tmp_path, caplog):
    frames = [told(copper(pbc), stress) for pbc in OPEN] + [told(copper(), np.arange(6.0))]
    path = written(tmp_path / "mixed.extxyz", *frames)
    for _ in range(2):
        found = read_labelled(path)
    assert [record.label.virial is None for record in found] == [True] * 7 + [False]
    assert [line for line in caplog.messages if "stress" in line] == [
        f"{path}: the stress of 7 of 8 frames is not used: they are not periodic in three directions"
    ]


def test_a_molecule_without_a_cell_but_with_a_stress_is_read(tmp_path):
    path = tmp_path / "molecule.extxyz"
    head = 'Properties=species:S:1:pos:R:3:forces:R:3 energy=-1.0 stress="1 0 0 0 1 0 0 0 1" pbc="F F F"'
    path.write_text(f"1\n{head}\nCu 0 0 0 0 0 0.1\n")
    assert read_labelled(path)[0].label.virial is None


def test_zeros_beside_forces_are_a_placeholder_and_all_zeros_of_that_file_with_them(tmp_path, caplog):
    frames = [told(copper(), np.zeros(6)), told(copper(), np.zeros(6), forces=0.0), told(copper(), np.full(6, 0.1))]
    path = written(tmp_path / "zeros.extxyz", *frames)
    assert [record.label.virial is None for record in read_labelled(path)] == [True, True, False]
    why = "it is exactly zero although there are forces, so a placeholder"
    assert caplog.messages == [f"{path}: the stress of 2 of 3 frames is not used: {why}"]


def test_zeros_of_single_atoms_on_which_nothing_acts_are_real(tmp_path, caplog):
    path = written(tmp_path / "atom.extxyz", told(Atoms("Cu", cell=[20.0] * 3, pbc=True), np.zeros(6), forces=0.0))
    assert read_labelled(path)[0].label.virial is not None and not caplog.messages


def test_virials_of_an_older_store_are_not_taken_up(tmp_path):
    (tmp_path / "labelled").mkdir()
    frozen = samples.FORMATS / "frames-labelled-2.h5"
    (tmp_path / "labelled" / "shard-000001.h5").write_bytes(frozen.read_bytes())
    data = read_table(frozen)[0].data
    assert (np.isfinite(data["label_virial"]).all(axis=(1, 2)) & ~data["pbc"].all(axis=1)).any(), "the file has some"
    for record in read_records(tmp_path):
        assert record.label.virial is None or record.frame.pbc.all()


def test_no_training_data_and_no_export_have_them(tmp_path):
    label = Label(-1.0, np.ones((4, 3)), np.eye(3))
    frames = [Frame.from_atoms(copper(pbc)) for pbc in (False, [True, True, False], True)]
    records = [Record(frame, label=label, labelling=Labelling("emt")) for frame in frames]
    names = [path.name for path in write_systems(records, ("Cu",), tmp_path / "data")]
    assert names == ["Cu4", "Cu4-cluster", "Cu4-virial"]
    assert [path.parent.parent.name for path in (tmp_path / "data").rglob("virial.npy")] == ["Cu4-virial"]
    export(records, tmp_path / "all.extxyz", "extxyz")
    found = [atoms.calc.results for atoms in ase.io.iread(tmp_path / "all.extxyz", parallel=False)]
    assert [("stress" in results) for results in found] == [False, False, True]
    assert "stress" not in labelled_atoms(frames[0], label).calc.results


@pytest.mark.parametrize("pbc", [False, [True, True, False]])
def test_none_is_asked_of_a_calculator_for_an_open_frame(pbc):
    """EMT gives a stress for every cell, and fails without one."""
    section = LabelSection(type="ase", options={"calculator": "ase.calculators.emt.EMT"})
    labeler, atoms = make_labeler(section, None), copper(pbc)
    for cell in (atoms.cell.array, np.diag([4.0, 4.0, 0.0]) * np.any(pbc)):
        atoms.set_cell(cell)
        label, _ = label_with_ladder(labeler, Frame.from_atoms(atoms), section, None)
        assert label.virial is None
    assert label_with_ladder(labeler, Frame.from_atoms(copper()), section, None)[0].virial is not None


class Lazy(EMT):
    """A calculator of one's own whose stress is a placeholder."""

    def calculate(self, *arguments, **keywords):
        super().calculate(*arguments, **keywords)
        self.results["stress"] = np.zeros(6)


def test_a_calculators_placeholder_is_refused_with_the_remedy():
    section = LabelSection(type="ase", options={"calculator": f"{__name__}.Lazy"})
    with pytest.raises(LabelError, match=r"exactly zero .* set label\.virial = false"):
        label_with_ladder(make_labeler(section, None), Frame.from_atoms(copper()), section, None)
    without = section.model_copy(update={"virial": False})
    assert label_with_ladder(make_labeler(without, None), Frame.from_atoms(copper()), without, None)[0].virial is None


def test_a_teacher_labels_molecules_and_crystals_alike(tmp_path):
    model = str(tiny_checkpoint(tmp_path, ("Cu",)))
    section = LabelSection(type="deepmd", options={"model": model})
    labeler = make_labeler(section, None)
    for pbc in (True, False):
        frame = Frame.from_atoms(copper(pbc))
        label = labeler.label(frame, {}, 60.0)
        check_label(frame, label, section)
        assert (label.virial is None) is not pbc


def test_exploring_a_cluster_in_a_cell_predicts_none():
    section = ExploreSection(engine="ase", options={"calculator": "ase.calculators.emt.EMT"}, steps=2, interval=1)
    start = Frame.from_atoms(copper(False))
    found = (
        make_explorer(section).begin(SegmentTask("cu", "cu", start, None, 0, (300.0,) * 2, (0.0,) * 2, 1)).snapshot()
    )
    assert found.label.virial is None if hasattr(found, "label") else True
