"""Structures of no use are found before the first label, wherever they are."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from pfdhpc.config import parse
from pfdhpc.config.explore import ExploreSection
from pfdhpc.config.init import DataSection
from pfdhpc.config.pool import PoolSection
from pfdhpc.data import Frame
from pfdhpc.data.geometry import defect
from pfdhpc.engines.explore.input_checks import check_starts
from pfdhpc.errors import InputError
from pfdhpc.start.fresh_state import begin
from pfdhpc.start.given_labels import read
from pfdhpc.start.pool import read_pool

COPPER = bulk("Cu", cubic=True)


def dimer(cell, second=(0, 2.5, 0), pbc=True):
    return Atoms("Cu2", [[0, 0, 0], second], cell=cell, pbc=pbc)


USELESS = {
    "flat": (dimer([[5, 0, 0], [0, 5, 0], [5, 5, 0]]), "span no volume"),
    "flat but for rounding": (dimer([[5, 0, 0], [0, 5, 0], [5, 5, 1e-9]]), "span no volume"),
    "a vector of zeros": (dimer([5, 5, 0]), "span no volume"),
    "a line twice": (dimer([[5, 0, 0], [10, 0, 0], [0, 0, 5]]), "span no volume"),
    "no position": (dimer([5, 5, 5], (0, np.nan, 0)), "not a finite number"),
    "infinitely far": (dimer([5, 5, 5], (0, np.inf, 0)), "not a finite number"),
    "no cell": (dimer([5, 5, np.nan]), "not a finite number"),
    "nanometres": (Atoms("Cu4", COPPER.positions / 10, cell=COPPER.cell / 10, pbc=True), "in Å"),
    "a thin cell": (dimer([50, 50, 0.05], (0, 25, 0)), "0.05 Å long"),
}
TOO_NEAR = {
    "the same place": dimer([8, 8, 8], (0, 0, 0)),
    "the same place in another image": dimer([8, 8, 8], (0, 8, 0)),
    "near": dimer([8, 8, 8], (0, 0.3, 0)),
    "its own image": Atoms("Cu", cell=[20, 20, 0.4], pbc=True),
}
SOUND = {
    "cubic": COPPER,
    "a molecule": Atoms("Cu2", [[0, 0, 0], [0, 2.5, 0]]),
    "one atom in a large cell": Atoms("Cu", cell=[200, 200, 200], pbc=True),
    "a slab": dimer([5, 5, 500]),
    "open, with a vector of zeros": dimer([5, 5, 0], pbc=(True, True, False)),
    "a crystal by other vectors": Atoms(
        COPPER.symbols, COPPER.positions, cell=np.array([[1, 7, 0], [0, 1, 5], [0, 0, 1]]) @ COPPER.cell.array, pbc=True
    ),
}


def frame(atoms):
    return Frame.from_atoms(atoms)


@pytest.mark.parametrize("name", USELESS)
def test_a_frame_of_no_use_is_told_by_its_defect(name):
    """However its vectors are ordered, and however it is turned."""
    atoms, words = USELESS[name]
    for order in ([0, 1, 2], [1, 0, 2], [2, 0, 1]):
        for turn in (np.eye(3), np.linalg.qr(np.arange(9).reshape(3, 3) + np.eye(3))[0]):
            turn = turn if words != "not a finite number" else np.eye(3)
            cell, positions = atoms.cell.array[order] @ turn, atoms.positions @ turn
            assert words in defect(Frame(atoms.numbers, cell, positions, atoms.pbc))


@pytest.mark.parametrize("name", SOUND)
def test_what_is_unusual_is_no_defect(name):
    assert defect(frame(SOUND[name])) == ""
    open_ones = ExploreSection(engine="ase", options={"calculator": "ase.calculators.emt.EMT"})
    lines = check_starts(open_ones, "Cu", [frame(SOUND[name])])
    assert not [line for line in lines if "some directions only" not in line]


@pytest.mark.parametrize("name", [*USELESS, *TOO_NEAR])
def test_a_start_that_could_not_be_explored_is_found_by_check(name):
    atoms, words = USELESS.get(name) or (TOO_NEAR[name], "explore.guard.min_distance = 0.6 Å")
    (line,) = check_starts(ExploreSection(), "Cu", [frame(COPPER), frame(atoms)])
    assert line.startswith("system Cu: ") and "the 2 start structures" in line and words in line


def test_a_lower_guard_lets_near_atoms_pass():
    assert check_starts(ExploreSection(guard={"min_distance": 0.2}), "Cu", [frame(TOO_NEAR["near"])]) == []


@pytest.mark.parametrize("name", USELESS)
def test_frames_of_no_use_are_refused_in_data_and_pool(name, tmp_path):
    atoms, words = USELESS[name]
    frames = [image.copy() for image in (COPPER, atoms, COPPER, atoms)]
    for image in frames:
        image.calc = SinglePointCalculator(image, energy=-1.0, forces=np.zeros((len(image), 3)))
    write(tmp_path / "x.extxyz", frames, parallel=False)
    with pytest.raises(InputError) as caught:
        read(DataSection(path=tmp_path / "x.extxyz"))
    (line,) = caught.value.problems
    assert "x.extxyz: frame 1: " in line and words in line
    with pytest.raises(InputError) as caught:
        read_pool(PoolSection(data=[tmp_path / "x.extxyz"]))
    (line,) = caught.value.problems
    assert line.startswith("pool.data: ") and "frame 1: " in line and "(2 frames are of no use)" in line


def test_a_system_of_no_use_stops_a_run_before_its_first_label(tmp_path):
    write(tmp_path / "flat.extxyz", USELESS["flat"][0], parallel=False)
    values = {
        "workflow": "finetune",
        "model": {"checkpoint": str(tmp_path / "flat.extxyz")},
        "system": [{"name": "Cu", "structures": [str(tmp_path / "flat.extxyz")], "perturb": {"count": 2}}],
        "explore": {},
        "label": {"type": "ase", "options": {"calculator": "ase.calculators.emt.EMT"}},
        "train": {},
    }
    with pytest.raises(InputError, match="system Cu: .*span no volume"):
        begin(parse(values, tmp_path), ("Cu",))
