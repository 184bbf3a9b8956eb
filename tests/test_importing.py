"""``pfdhpc import`` of a run whose labels are of several levels of theory."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from ase.build import bulk

from pfdhpc.data import Frame, Label, Labelling, Record
from pfdhpc.errors import InputError
from pfdhpc.job.import_labels import _records
from pfdhpc.store.run_directory import RunFolder
from pfdhpc.store.store import Store


@pytest.fixture
def run(tmp_path):
    """A run of two levels: one frame of the first, two of the second."""
    found = []
    for number, level in enumerate(("pbe", "scan", "scan")):
        frame = Frame.from_atoms(bulk("Cu", a=3.5 + 0.1 * number))
        label = Label(float(number), np.zeros((1, 3)), np.zeros((3, 3)))
        found.append(replace(Record(frame), label=label, labelling=Labelling(level, "gpaw")))
    Store(RunFolder(tmp_path / "run").frames, {}).commit(found)
    return tmp_path / "run"


def test_one_level_of_several_is_taken(run):
    with pytest.raises(InputError, match="by --take LEVEL; it has pbe .1 frames., scan .2 frames."):
        _records([run], "lab", "", "")
    taken = _records([run], "lab", "", "scan")
    assert sorted(record.label.energy for record in taken) == [1.0, 2.0]
    assert {record.labelling.level for record in taken} == {"imported-lab"}


def test_a_level_is_taken_of_runs_alone(run, tmp_path):
    from ase.calculators.emt import EMT
    from ase.io import write

    atoms = bulk("Cu")
    atoms.calc = EMT()
    atoms.get_forces()
    write(tmp_path / "more.extxyz", atoms)
    assert len(_records([run, tmp_path / "more.extxyz"], "lab", "", "pbe")) == 2
    shutil.rmtree(run)
    with pytest.raises(InputError, match="--take: only runs have levels"):
        _records([tmp_path / "more.extxyz"], "lab", "", "pbe")
