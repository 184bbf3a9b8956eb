"""The atomic-environment descriptor: equal to QUESTS, or its own definition; continuous; aware of species."""

from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk, fcc111
from ase.geometry import complete_cell
from hypothesis import given, settings
from hypothesis import strategies as st

from pfdhpc.data import Frame
from pfdhpc.selection import entropy, quests
from pfdhpc.selection.quests import QuestsDescriptor, descriptors

REFERENCE = np.load(Path(__file__).parent / "data" / "quests_reference.npz")
NAMES = sorted({name.split("/")[0] for name in REFERENCE.files if "/" in name})
PLAIN, SMOOTH = QuestsDescriptor(smoothing=0.0), QuestsDescriptor()


def stored_frame(name):
    return Frame(*(REFERENCE[f"{name}/{part}"] for part in ("numbers", "cell", "positions", "pbc")))


def of(descriptor, atoms):
    (found,) = descriptor([Frame.from_atoms(atoms)])
    return found


def rattled(atoms, length, seed=0):
    atoms = atoms.copy()
    atoms.rattle(length, seed=seed)
    return atoms


# the plain descriptor


@pytest.mark.parametrize("name", NAMES)
def test_descriptors_equal_those_of_quests(name):
    found = descriptors(stored_frame(name), int(REFERENCE["k"]), float(REFERENCE["cutoff"]))
    assert found.dtype == float and found.shape == (len(stored_frame(name)), 63)
    np.testing.assert_allclose(found, REFERENCE[f"{name}/descriptors"], rtol=0, atol=1e-10)
    (single,) = replace(PLAIN, precision="float32")([stored_frame(name)])
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, found, rtol=0, atol=2e-6)


def test_descriptors_follow_their_parameters():
    found = descriptors(stored_frame("si_cell"), 8, 4.0)
    np.testing.assert_allclose(found, REFERENCE["small_k"], rtol=0, atol=1e-10)


def test_a_slab_is_periodic_in_its_plane_only():
    slab = fcc111("Cu", (2, 2, 3), vacuum=12.0)
    assert list(slab.pbc) == [True, True, False]
    slab.rattle(0.1, seed=1)
    wide = slab.copy()
    wide.pbc = True  # 24 Å of vacuum: the images across it do not see each other
    expected = of(PLAIN, wide)
    np.testing.assert_allclose(of(PLAIN, slab), expected, atol=1e-12)
    flat = slab.copy()
    flat.cell[2] = 0  # no vector at all in the open direction
    np.testing.assert_allclose(of(PLAIN, flat), expected, atol=1e-12)
    flat.pbc = False
    assert not np.allclose(of(PLAIN, flat), expected, atol=1e-3)


@settings(max_examples=20)
@given(seed=st.integers(0, 1000), repeats=st.tuples(*[st.integers(1, 2)] * 3))
def test_descriptors_do_not_see_how_a_crystal_is_written_down(seed, repeats):
    rng = np.random.default_rng(seed)
    atoms = bulk("Si", cubic=True)
    atoms.rattle(0.2, rng=rng)
    expected = of(PLAIN, atoms)
    order = rng.permutation(len(atoms))
    same = atoms[order]
    same.positions += same.cell.T @ rng.integers(-2, 3, 3) + rng.normal(size=3)
    same.rotate(rng.random() * 90, rng.normal(size=3), rotate_cell=True)
    np.testing.assert_allclose(of(PLAIN, same), expected[order], atol=1e-9)
    np.testing.assert_allclose(of(PLAIN, atoms.repeat(repeats)), np.tile(expected, (np.prod(repeats), 1)), atol=1e-9)


# the definition, with all settings


def by_definition(frame, center, settings):
    """The descriptor of one atom, term by term."""
    k, cutoff, width = settings.neighbours, settings.cutoff, settings.smoothing
    cell = complete_cell(frame.cell)
    shifts = [
        np.array(shift) @ cell for shift in product(*(range(-5, 6) if periodic else (0,) for periodic in frame.pbc))
    ]
    near = []
    for shift in shifts:
        for z, position in zip(frame.numbers, frame.positions, strict=True):
            vector = position + shift - frame.positions[center]
            if 1e-8 < np.linalg.norm(vector) < cutoff + 2 * width:
                near.append((np.linalg.norm(vector), z, vector))
    near.sort(key=lambda found: found[0])
    distances = [r for r, _, _ in near] + [cutoff + 2 * width] * (k + 1)
    middle = (distances[k - 1] + distances[k]) / 2
    weighed = []
    for r, z, vector in near:
        weight = (1 - min(r / cutoff, 1.0) ** 2) ** 2
        rise = min(max(((middle - r) / width + 1) / 2, 0.0), 1.0)
        weighed.append((weight * (10 * rise**3 - 15 * rise**4 + 6 * rise**5), r, z, vector))
    rows = np.zeros(k - 1)
    for j, (w, _, _, a) in enumerate(weighed):
        others = [np.sqrt(w * v) / np.linalg.norm(a - b) for i, (v, _, _, b) in enumerate(weighed) if i != j]
        rows += largest(others, k - 1) / k
    species = sorted(settings.species)
    parts = [largest([w / r for w, r, _, _ in weighed], k), rows]
    parts += [settings.species_weight * largest([w / r for w, r, z, _ in weighed if z == s], k) for s in species]
    own = [settings.species_weight / np.sqrt(2) * (frame.numbers[center] == s) for s in species]
    return np.concatenate([*parts, own])


def largest(values, n):
    return np.array((sorted(values, reverse=True) + [0.0] * n)[:n])


@settings(max_examples=25)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(1, 4),
    pbc=st.tuples(*[st.booleans()] * 3),
    k=st.integers(1, 14),
    smoothing=st.sampled_from([1e-6, 0.02, 0.4]),  # 0 would choose among an atom's own images
    species=st.sampled_from([(), (1, 6), (6, 1, 8)]),
)
def test_descriptors_follow_their_definition(seed, n, pbc, k, smoothing, species):
    rng = np.random.default_rng(seed)
    cell = 2.5 * (np.eye(3) + rng.uniform(-0.15, 0.15, (3, 3)))  # below the cutoff: atoms see their own images
    frame = Frame(rng.choice([1, 6], n), cell, rng.uniform(-0.5, 1.5, (n, 3)) @ cell, np.array(pbc))
    descriptor = QuestsDescriptor(k, 3.0, smoothing, species, species_weight=0.3)
    (found,) = descriptor([frame])
    assert found.shape == (n, descriptor.width)
    expected = [by_definition(frame, center, descriptor) for center in range(n)]
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-10)


def test_an_isolated_atom_is_all_zeros():
    alone = Frame([18], 30 * np.eye(3), np.zeros((1, 3)))
    for descriptor in (PLAIN, SMOOTH, replace(SMOOTH, precision="float32")):
        assert np.array_equal(descriptor([alone])[0], np.zeros((1, 63)))
    (found,) = QuestsDescriptor(species=(2, 18), species_weight=0.4)([alone])
    assert found[0, -1] == pytest.approx(0.4 / np.sqrt(2)) and not found[0, :-1].any()


# continuity


LATTICES = [("Cu", 32), ("Fe", 32), ("Si", 10), ("Cu", 15)]  # every k cuts a shell


@pytest.mark.parametrize("symbol, k", LATTICES)
def test_perfect_lattices_have_one_environment_however_they_lie(symbol, k):
    atoms = bulk(symbol, cubic=True).repeat(2)
    found = of(QuestsDescriptor(k), atoms)
    np.testing.assert_allclose(found, found[:1].repeat(len(found), axis=0), atol=1e-12)
    turned = atoms[np.random.default_rng(1).permutation(len(atoms))]
    turned.rotate(37, (1, 2, 3), rotate_cell=True)
    np.testing.assert_allclose(of(QuestsDescriptor(k), turned), found, atol=1e-11)


@pytest.mark.parametrize("symbol, k", LATTICES)
def test_small_displacements_change_little_where_a_shell_is_cut(symbol, k):
    perfect = bulk(symbol, cubic=True).repeat(3)
    smooth, plain = (QuestsDescriptor(k, 5.5, smoothing) for smoothing in (0.02, 0.0))
    jumps = []
    for seed in range(2):
        change = [np.abs(of(smooth, rattled(perfect, step, seed)) - of(smooth, perfect)).max() for step in (1e-9, 1e-5)]
        assert change[0] < 1e-7 and change[1] < 1e-3
        a, b = (of(plain, rattled(perfect, 1e-9, seed + shift)) for shift in (0, 10))
        jumps.append(np.abs(a - b).max())
    assert max(jumps) > 1e-5  # what the program's own cut makes of it


@pytest.mark.parametrize("k", [2, 3, 4])
def test_nothing_jumps_where_neighbours_cross_the_cutoff(k):
    descriptor = QuestsDescriptor(k, 3.0, smoothing=0.1)
    found = []
    for step in np.arange(-0.3, 0.3, 5e-4):
        places = [[0, 0, 0], [1.5, 0, 0], [0, 2.95 + step, 0], [0, 0, 3.0 + step / 2]]
        found.append(descriptor([Frame([1] * 4, np.eye(3), places, [False] * 3)])[0][0])
    assert np.abs(np.diff(found, axis=0)).max() < 2e-3
    assert np.ptp(found, axis=0).max() > 1e-2


def test_smoothing_changes_nothing_where_no_shell_is_cut():
    atoms = rattled(bulk("Cu", cubic=True).repeat(2), 0.1)
    distances = np.sort(atoms.repeat(3).get_all_distances(mic=True)[: len(atoms)], axis=1)
    clear = distances[:, 33] - distances[:, 32] >= 2 * SMOOTH.smoothing
    assert 0 < clear.sum() < len(atoms)
    same = np.isclose(of(SMOOTH, atoms), of(PLAIN, atoms), rtol=0, atol=1e-13).all(axis=1)
    assert np.array_equal(same, clear)


# species


SIC = QuestsDescriptor(species=(14, 6))


def test_unlike_atoms_are_told_apart():
    carbide = bulk("SiC", "zincblende", a=4.36, cubic=True)
    swapped = carbide.copy()
    silicon, carbon = (np.flatnonzero(carbide.symbols == symbol)[0] for symbol in ("Si", "C"))
    swapped.numbers[[silicon, carbon]] = carbide.numbers[[carbon, silicon]]
    assert np.array_equal(of(SMOOTH, carbide), of(SMOOTH, swapped))
    assert (np.abs(of(SIC, carbide) - of(SIC, swapped)).max(axis=1) > 1e-3).all()
    np.testing.assert_array_equal(of(SIC, carbide)[:, :63], of(SMOOTH, carbide))


def test_the_order_of_unlike_neighbours_at_one_distance_does_not_matter():
    alloy = bulk("Cu", cubic=True).repeat(2)
    alloy.numbers[np.random.default_rng(0).permutation(len(alloy))[:12]] = 79
    descriptor = QuestsDescriptor(species=(29, 79))
    order = np.random.default_rng(1).permutation(len(alloy))
    np.testing.assert_allclose(of(descriptor, alloy[order]), of(descriptor, alloy)[order], atol=1e-12)
    np.testing.assert_allclose(of(descriptor, rattled(alloy, 1e-9)), of(descriptor, alloy), atol=1e-7)


def test_an_element_that_is_not_among_the_species_is_named():
    with pytest.raises(ValueError, match="has Ge, but the descriptor is for C, Si only"):
        of(SIC, bulk("Ge"))
    one = replace(SIC, species=(14,))
    assert one.width == 63 and np.array_equal(of(one, bulk("Ge")), of(SMOOTH, bulk("Ge")))


# calls


def test_a_frame_has_the_same_bits_in_any_company():
    frames = [Frame.from_atoms(rattled(bulk("Si", cubic=True).repeat((n, 1, 1)), 0.2, n)) for n in (1, 2, 9, 1, 5)]
    frames.append(Frame.from_atoms(rattled(bulk("C", cubic=True).repeat(2), 0.05)))
    for descriptor in (SIC, PLAIN, replace(SIC, precision="float32")):
        alone = [descriptor([frame])[0] for frame in frames]
        for order in (range(len(frames)), reversed(range(len(frames))), (2, 2, 0)):
            order = list(order)
            for i, found in zip(order, descriptor([frames[i] for i in order]), strict=True):
                assert found.tobytes() == alone[i].tobytes()
    assert SIC([]) == []


def test_large_frames_are_made_in_chunks(monkeypatch):
    atoms = rattled(bulk("SiC", "zincblende", a=4.36, cubic=True).repeat(2), 0.2)
    expected = of(SIC, atoms)
    monkeypatch.setattr(quests, "CHUNK", 23)
    monkeypatch.setattr(quests, "BLOCK", 5)
    np.testing.assert_allclose(of(SIC, atoms), expected, atol=1e-13)


def test_names_tell_settings_apart_that_change_the_numbers():
    others = [
        replace(SIC, **change)
        for change in (
            {"neighbours": 8},
            {"cutoff": 4.0},
            {"smoothing": 0.0},
            {"species": (6, 14, 22)},
            {"species_weight": 0.2},
            {"precision": "float32"},
            {"species": ()},
        )
    ]
    assert len({other.name for other in [SIC, *others]}) == len(others) + 1
    same = [replace(SIC, device="cuda"), replace(SIC, species=(6, 14))]
    assert {other.name for other in same} == {SIC.name}
    assert replace(SMOOTH, species_weight=0.2).name == replace(SMOOTH, species=(6,)).name == SMOOTH.name


def test_another_device_gives_the_same_numbers():
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    atoms = rattled(bulk("SiC", "zincblende", a=4.36, cubic=True), 0.2)
    np.testing.assert_allclose(of(replace(SIC, device="cuda"), atoms), of(SIC, atoms), atol=1e-12)


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_atoms_in_one_place_have_finite_descriptors(precision):
    frame = Frame([6] * 4, 12 * np.eye(3), np.array([[1.0, 1, 1]] * 3 + [[2.5, 1, 1]]))
    (found,) = replace(SMOOTH, precision=precision)([frame])
    assert np.isfinite(found).all() and found[0].max() > 1e6
    assert np.isfinite(entropy.entropy(found.astype(float), 0.015))


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("n", [3, 3000])
def test_descriptors_that_are_no_numbers_are_refused(value, n):
    rows = np.ones((n, 9))
    rows[1, 2] = value
    with pytest.raises(ValueError):
        entropy.Environments(rows, 0.015)
