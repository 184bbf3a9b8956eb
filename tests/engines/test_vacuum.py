"""Open boundaries in programs that repeat the cell: accepted with vacuum, refused without, before anything is paid."""

import importlib.util
import itertools

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.calculators.emt import EMT
from ase.calculators.mixing import SumCalculator
from espresso import OPTIONS as QE
from hypothesis import given
from hypothesis import strategies as st
from programs import section as program_section

from pfdhpc.config.label import LabelSection, merged
from pfdhpc.data import Frame
from pfdhpc.engines.label.programs.qe_input import periodic_directions
from pfdhpc.engines.label.vacuum import (
    CRYSTAL,
    THE_FRAMES,
    VACUUM,
    _image_distance,
    check_all_vacuum,
    check_vacuum,
    check_vacuum_of,
)
from pfdhpc.engines.registry import make_labeler
from pfdhpc.errors import LabelError

PLANE_WAVES = {"mode": {"name": "pw", "ecut": 340}, "xc": "LDA"}
GPAW = LabelSection(type="gpaw", options=PLANE_WAVES, virial=False)
OPEN = (False, False, False)


def hydrogen(gap, pbc=False):
    atoms = Atoms("H2", [[0, 0, 0], [0, 0, 0.78]], pbc=pbc)
    atoms.set_cell(np.ptp(atoms.positions, axis=0) + gap)
    atoms.center()
    return Frame.from_atoms(atoms)


@given(
    seed=st.integers(0, 10**6),
    axes=st.tuples(st.booleans(), st.booleans(), st.booleans()).filter(any),
    far=st.integers(-2, 2),
)
def test_the_distance_of_images_is_that_of_all_pairs(seed, axes, far):
    """Also of atoms outside their cell, whose own cell counts and not the image in the first one."""
    rng = np.random.default_rng(seed)
    cell = np.diag(rng.uniform(3, 9, 3)) + rng.uniform(-1, 1, (3, 3))
    positions = rng.uniform(0, 3, (3, 3)) + far * cell[0]
    steps = np.array([n for n in itertools.product(range(-4, 5), repeat=3) if np.array(n)[list(axes)].any()]) @ cell
    pairs = positions[:, None, None] - positions[None, :, None] + steps
    expected = min(np.linalg.norm(pairs, axis=-1).min(), VACUUM)
    found = _image_distance(Frame([1, 1, 1], cell, positions, OPEN), np.array(axes))
    assert found == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("frame", "periodic", "said"),
    [
        (hydrogen(4.0), CRYSTAL, "repeats the cell along abc, where a frame is open: images are 4.0 Å apart; leave"),
        (hydrogen(7.9), CRYSTAL, "7.9 Å apart"),
        (hydrogen(8.1), CRYSTAL, ""),
        (hydrogen(4.0), None, ""),
        (hydrogen(4.0), THE_FRAMES, ""),
        (Frame.from_atoms(molecule("H2")), THE_FRAMES, "needs a cell with a volume"),
        (Frame.from_atoms(molecule("H2")), None, ""),
        (hydrogen(4.0), OPEN, "4.0 Å apart"),  # its plane waves are periodic all the same
        (hydrogen(4.0, pbc=True), CRYSTAL, ""),
        (hydrogen(4.0, pbc=True), OPEN, "ends at the cell along abc, where a frame is periodic: images are 4.0"),
        (hydrogen(4.0, pbc=(True, True, False)), CRYSTAL, "along c, where a frame is open: images are 4.0"),
        (hydrogen(9.0, pbc=True), OPEN, ""),
        (Frame.from_atoms(bulk("Cu")), (True, True, False), "ends at the cell along c"),
        (Frame.from_atoms(fcc111("Cu", (1, 1, 2), vacuum=4.5)), CRYSTAL, ""),
        (Frame.from_atoms(fcc111("Cu", (1, 1, 2), vacuum=3.5)), CRYSTAL, "where a frame is open: images are 7.2"),
        (Frame.from_atoms(molecule("H2")), CRYSTAL, "needs a cell with a volume"),
    ],
)  # fmt: skip
def test_images_must_be_apart_where_a_frame_or_its_program_is_open(frame, periodic, said):
    if not said:
        return check_vacuum(frame, "pw.x", periodic)
    with pytest.raises(LabelError, match="pw.x .*" + said):
        check_vacuum(frame, "pw.x", periodic)


def test_check_tells_of_structures_that_could_not_be_labelled(tmp_path):
    frames = [hydrogen(4.0), hydrogen(9.0), hydrogen(6.0)]
    (line,) = check_all_vacuum(GPAW, "system h2", frames, "h2")
    assert line.startswith("system h2: GPAW cannot label 2 of the 3 structures: it repeats the cell along abc")
    assert line.endswith('leave 10 Å of vacuum or more between images, or take mode "fd" or "lcao", whose boundaries'
                         " are the frame's")  # fmt: skip
    grid = LabelSection(type="gpaw", options=PLANE_WAVES, systems={"h2": {"mode": {"name": "fd"}}})
    assert check_all_vacuum(grid, "system h2", frames, "h2") == [] and check_all_vacuum(grid, "system x", frames, "x")
    for kind in ("vasp", "abacus", "cp2k"):
        assert "2 of the 3" in "".join(check_all_vacuum(program_section(kind, tmp_path), "pool.data", frames))
    qe = LabelSection(type="qe", options=QE, launch={"command": "true"})
    assert "2 of the 3" in "".join(check_all_vacuum(qe, "pool.data", frames))
    for name, options, refused in (
        ("ase.calculators.vasp.Vasp", {}, True),
        ("ase.calculators.espresso.Espresso", {}, True),
        ("gpaw.GPAW", {"mode": "pw"}, True),
        ("gpaw.GPAW", {"mode": "fd"}, False),
        ("ase.calculators.emt.EMT", {}, False),
    ):
        section = LabelSection(type="ase", options={"calculator": name, "arguments": options})
        assert bool(check_all_vacuum(section, "system h2", frames)) == refused, name
    assert check_all_vacuum(LabelSection(type="teacher"), "system h2", frames) == []


def test_programs_say_where_their_electrostatics_are_open(tmp_path):
    crystal = [Frame.from_atoms(bulk("Cu"))]
    for kind in ("mt", "martyna-tuckerman", "'MT'", '"m-t"'):
        assert periodic_directions({"assume_isolated": kind}) == OPEN
    for kind in ("2D", "2d"):
        assert periodic_directions({"assume_isolated": kind}) == (True, True, False)
    assert periodic_directions({"assume_isolated": "esm", "esm_bc": "bc1"}) == (True, True, False)
    for system in ({}, {"assume_isolated": "mp"}, {"assume_isolated": "esm", "esm_bc": "pbc"}):
        assert periodic_directions(system) == CRYSTAL
    isolated = LabelSection(
        type="qe", launch={"command": "true"}, options=merged(QE, {"input": {"system": {"assume_isolated": "mt"}}})
    )
    assert "pw.x cannot label 1 of the 1" in check_all_vacuum(isolated, "system cu", crystal)[0]
    for periodic, refused in (("NONE", "abc"), ("XY", "along c"), ("xyz", ""), ("XZ", "along b")):
        cp2k = program_section("cp2k", tmp_path, {"input": {"FORCE_EVAL/DFT/POISSON/PERIODIC": periodic}})
        lines = check_all_vacuum(cp2k, "system cu", crystal)
        assert bool(lines) == bool(refused) and refused in "".join(lines)


def test_calculators_made_by_a_function_are_looked_into():
    class Vasp(EMT):
        pass

    for calculator in (Vasp(), SumCalculator([EMT(), Vasp()])):
        check_vacuum_of(hydrogen(9.0), calculator)
        with pytest.raises(LabelError, match="Vasp repeats the cell"):
            check_vacuum_of(hydrogen(4.0), calculator)
    check_vacuum_of(hydrogen(4.0), EMT())


@pytest.mark.skipif(importlib.util.find_spec("gpaw") is None, reason="gpaw is not installed")
@pytest.mark.parametrize("kind", ["gpaw", "ase"])
def test_gpaws_plane_waves_label_a_molecule_with_vacuum_and_no_crystal_of_molecules(kind):
    options = PLANE_WAVES if kind == "gpaw" else {"calculator": "gpaw.GPAW", "arguments": {**PLANE_WAVES, "txt": None}}
    labeler = make_labeler(LabelSection(type=kind, options=options, virial=False), None)
    with pytest.raises(LabelError, match="GPAW repeats the cell along abc, where a frame is open: images are 4.0 Å"):
        labeler.label(hydrogen(4.0), {}, 100.0)
    if kind == "ase":
        return
    near, far = (labeler.label(hydrogen(gap), {}, 100.0) for gap in (VACUUM + 0.01, 11.0))
    np.testing.assert_allclose(near.forces, far.forces, atol=0.03)
    crystal = labeler.label(hydrogen(2.5, pbc=True), {}, 100.0)  # what open boundaries were labelled as
    assert np.abs(crystal.forces - far.forces).max() > 0.3
