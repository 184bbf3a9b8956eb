"""A frame is found again in any setting a format puts it in; another one, however near, is not."""

import numpy as np
import pytest
from ase.build import bulk, molecule
from hypothesis import given, settings
from hypothesis import strategies as st

from pfdhpc.data import Frame
from pfdhpc.data.known_frames import KnownFrames, invariants, repeats
from pfdhpc.data.same_geometry import motion

SEEDS = st.integers(0, 10**6)


def crystal(rng):
    """A strained and shaken cell of one, two or three elements, some of them cubic or without a displacement."""
    atoms = bulk("Cu", cubic=bool(rng.integers(2))).repeat(rng.integers(1, 3, size=3))
    n_others = min(int(rng.integers(3)), len(atoms) - 1)
    atoms.numbers[:n_others] = rng.choice([13, 28, 79], size=n_others)
    atoms.set_cell(atoms.cell @ (np.eye(3) + rng.choice([0.0, 0.05]) * rng.normal(size=(3, 3))), scale_atoms=True)
    atoms.positions += rng.choice([0.0, 0.02, 0.2]) * rng.normal(size=atoms.positions.shape)
    return Frame.from_atoms(atoms)


def cluster(rng):
    name = rng.choice(["H2O", "CO2", "C60", "CH3CH2OH", "C6H6", "N2", "CH4"])
    atoms = molecule(name)
    atoms.positions += rng.choice([0.0, 0.05]) * rng.normal(size=atoms.positions.shape)
    return Frame.from_atoms(atoms)


def turn(rng, proper=False):
    matrix = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    return matrix * np.sign(np.linalg.det(matrix)) if proper else matrix


def single(frame, rng):
    """Single precision, as dpdata writes by default."""
    return Frame(frame.numbers, np.float32(frame.cell), np.float32(frame.positions), frame.pbc)


def decimals(frame, rng):
    return Frame(frame.numbers, frame.cell.round(8), frame.positions.round(rng.choice([5, 8])), frame.pbc)


def digits(frame, rng):
    """Six digits, as LAMMPS dumps have."""
    rounded = np.array([float(f"{x:g}") for x in frame.positions.ravel()]).reshape(-1, 3)
    return Frame(frame.numbers, frame.cell, rounded, frame.pbc)


def reordered(frame, rng):
    order = rng.permutation(len(frame))
    return Frame(frame.numbers[order], frame.cell, frame.positions[order], frame.pbc)


def by_element(frame, rng):
    order = np.argsort(frame.numbers, kind="stable")
    return Frame(frame.numbers[order], frame.cell, frame.positions[order], frame.pbc)


def moved(frame, rng):
    return Frame(frame.numbers, frame.cell, frame.positions + rng.normal(size=3), frame.pbc)


def wrapped(frame, rng):
    images = rng.integers(-2, 3, size=(len(frame), 3)) * frame.pbc
    return Frame(frame.numbers, frame.cell, frame.positions + images @ frame.cell, frame.pbc)


def turned(frame, rng):
    matrix = turn(rng)
    return Frame(frame.numbers, frame.cell @ matrix, frame.positions @ matrix, frame.pbc)


def lower_triangle(frame, rng):
    """As dpdata and LAMMPS have cells, mirrored if they were left-handed."""
    q, r = np.linalg.qr(frame.cell.T)
    q = q * np.where(np.diag(r) < 0, -1, 1)
    return Frame(frame.numbers, frame.cell @ q, frame.positions @ q, frame.pbc)


def other_vectors(frame, rng):
    """Lattice vectors in another order or of the other sign: of either handedness."""
    cell = frame.cell[rng.permutation(3)] * rng.choice([-1, 1], size=(3, 1))
    return Frame(frame.numbers, cell, frame.positions, frame.pbc)


def sheared(frame, rng):
    """Another basis of the lattice, as a box that LAMMPS flips has."""
    cell = frame.cell.copy()
    cell[2] += rng.integers(-1, 2) * cell[0] + rng.integers(-1, 2) * cell[1]
    return Frame(frame.numbers, cell, frame.positions, frame.pbc)


EVERYWHERE = (single, decimals, digits, reordered, by_element, moved, turned)
PERIODIC = (*EVERYWHERE, wrapped, other_vectors, sheared)


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.booleans())
def test_a_frame_in_another_setting_is_the_same(seed, periodic):
    rng = np.random.default_rng(seed)
    frame = (crystal if periodic else cluster)(rng)
    twin = frame
    for change in rng.permutation(PERIODIC if periodic else EVERYWHERE)[: rng.integers(1, 4)]:
        if change is not digits or np.abs(twin.positions).max() < 100:
            twin = change(twin, rng)
    assert_same(frame, twin)


def assert_same(frame, twin):
    found = motion(frame, twin)
    assert found is not None and (frame.numbers == twin.numbers[found.order]).all()
    assert np.abs(invariants(frame) - invariants(twin)).max() < 1
    assert KnownFrames([frame]).same(twin) == KnownFrames([twin]).same(frame) == 0
    np.testing.assert_allclose(found.rotation @ found.rotation.T, np.eye(3), atol=1e-9)


@pytest.mark.parametrize("change", PERIODIC)
@pytest.mark.parametrize("make", [lambda rng: Frame.from_atoms(bulk("Cu", cubic=True)), crystal])
def test_each_change_of_setting_alone(make, change):
    for seed in range(4):
        rng = np.random.default_rng(seed)
        frame = make(rng)
        assert_same(frame, change(frame, rng))
        assert_same(frame, lower_triangle(frame, rng))


def test_the_motion_carries_forces_over():
    rng = np.random.default_rng(0)
    for make in (crystal, cluster):
        frame = make(rng)
        twin = turned(reordered(frame, rng), np.random.default_rng(5))
        found = motion(frame, twin)
        centred = [item - item[0] for item in (frame.positions, twin.positions[found.order])]
        np.testing.assert_allclose(centred[1] @ found.rotation, centred[0], atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.booleans(), st.floats(1e-3, 0.1))
def test_one_displaced_atom_makes_another_frame(seed, periodic, size):
    rng = np.random.default_rng(seed)
    frame = (crystal if periodic else cluster)(rng)
    if len(frame) == 1:
        return  # all of it has moved
    positions = frame.positions.copy()
    direction = rng.normal(size=3)
    if not periodic:  # along a bond: across one of a straight molecule nothing changes to first order
        direction = positions[0] - positions[-1]
    positions[0] += size * direction / np.linalg.norm(direction)
    other = Frame(frame.numbers, frame.cell, positions, frame.pbc)
    for twin in (other, reordered(other, rng), turned(other, rng)):
        assert motion(frame, twin) is None and motion(twin, frame) is None


def test_cells_elements_and_periodicity_count():
    frame = Frame.from_atoms(bulk("Cu", cubic=True))
    larger = Frame(frame.numbers, frame.cell * 1.0005, frame.positions * 1.0005)
    alloy = Frame([29, 29, 29, 28], frame.cell, frame.positions)
    open_ = Frame(frame.numbers, frame.cell, frame.positions, np.zeros(3, bool))
    slab = Frame(frame.numbers, frame.cell, frame.positions, [True, True, False])
    distinct = [frame, larger, alloy, open_, slab]
    assert repeats(distinct) == {}
    assert repeats([*distinct, *reversed(distinct)]) == {9 - i: i for i in range(5)}


def test_molecules_are_the_same_whatever_their_box():
    frame = Frame.from_atoms(molecule("H2O"))
    boxed = Frame(frame.numbers, 100 * np.eye(3), frame.positions + 50, frame.pbc)
    assert_same(frame, boxed)


def test_displacements_of_a_perfect_crystal_in_the_same_cell_are_as_many_frames():
    """As for phonons: symmetry would make some of them equal, but nothing was turned where the cells agree."""
    perfect, frames = bulk("Cu", cubic=True).repeat(2), []
    for direction in (*np.eye(3), *-np.eye(3)):
        atoms = perfect.copy()
        atoms.positions[0] += 1e-3 * direction
        frames.append(Frame.from_atoms(atoms))
    assert repeats([Frame.from_atoms(perfect), *frames]) == {}


def test_a_cold_trajectory_has_as_many_frames_as_steps():
    """Every step of 1 fs at 20 K, each atom moved by some 1e-3 Å since the last."""
    from ase.calculators.emt import EMT
    from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
    from ase.md.verlet import VelocityVerlet
    from ase.units import fs

    atoms = bulk("Cu", cubic=True).repeat(2)
    atoms.calc = EMT()
    MaxwellBoltzmannDistribution(atoms, temperature_K=20, rng=np.random.default_rng(0))
    motion_, frames = VelocityVerlet(atoms, 1.0 * fs), []
    for _ in range(60):
        motion_.run(1)
        frames.append(Frame.from_atoms(atoms))
    assert repeats(frames) == {}
    rng = np.random.default_rng(1)
    known = KnownFrames(frames)
    assert [known.same(single(lower_triangle(item, rng), rng)) for item in frames] == list(range(60))


def test_frames_without_a_volume_are_compared_as_they_stand():
    flat = Frame([29, 29], np.zeros((3, 3)), [[0, 0, 0], [0, 0, 2.5]], [True, True, True])
    assert motion(flat, single(flat, None)) is not None
    assert motion(flat, Frame([29, 29], np.diag([3.0, 3, 0]), flat.positions, flat.pbc)) is None


@pytest.mark.parametrize("pbc", [(1, 1, 0), (1, 0, 0), (1, 1, 1), (0, 0, 0)])
def test_negated_lattice_vectors_are_the_same_lattice(pbc):
    rng = np.random.default_rng(3)
    cell = np.diag([4.0, 4.4, 5.0]) + rng.uniform(-0.3, 0.3, (3, 3))
    positions = rng.uniform(0, 4, (5, 3))
    frame, twin = (Frame([29, 29, 79, 79, 79], one, positions, np.array(pbc, bool)) for one in (cell, -cell))
    assert motion(frame, twin) is not None and KnownFrames([frame]).same(twin) == 0
