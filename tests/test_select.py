"""Entropy selection and filters: equal to QUESTS, finite everywhere, the same on any number of ranks."""

from functools import reduce
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk, fcc111, molecule
from hypothesis import given, settings
from hypothesis import strategies as st

from pfdhpc.config.select import FilterSection
from pfdhpc.data import Frame, Label, Origin, Record
from pfdhpc.select.entropy import delta_entropy, entropy, log_kernel_sums
from pfdhpc.select.filters import Filter, closest_pair
from pfdhpc.select.greedy import Pool, better, greedy
from pfdhpc.select.quests import descriptors

REFERENCE = np.load(Path(__file__).parent / "data" / "quests_reference.npz")
NAMES = sorted({name.split("/")[0] for name in REFERENCE.files if "/" in name})
H = 0.015


def stored_frame(name):
    return Frame(*(REFERENCE[f"{name}/{part}"] for part in ("numbers", "cell", "positions", "pbc")))


def rattled(atoms, length, seed=0):
    atoms = atoms.copy()
    atoms.rattle(length, seed=seed)
    return Frame.from_atoms(atoms)


# descriptors


@pytest.mark.parametrize("name", NAMES)
def test_descriptors_equal_those_of_quests(name):
    found = descriptors(stored_frame(name), int(REFERENCE["k"]), float(REFERENCE["cutoff"]))
    assert found.dtype == float and found.shape == (len(stored_frame(name)), 63)
    np.testing.assert_allclose(found, REFERENCE[f"{name}/descriptors"], rtol=0, atol=1e-10)


def test_descriptors_follow_their_parameters():
    found = descriptors(stored_frame("si_cell"), 8, 4.0)
    np.testing.assert_allclose(found, REFERENCE["small_k"], rtol=0, atol=1e-10)


def test_a_slab_is_periodic_in_its_plane_only():
    slab = fcc111("Cu", (2, 2, 3), vacuum=12.0)
    assert list(slab.pbc) == [True, True, False]
    slab.rattle(0.1, seed=1)
    wide = slab.copy()
    wide.pbc = True  # 24 Å of vacuum: the images across it do not see each other
    expected = descriptors(Frame.from_atoms(wide))
    np.testing.assert_allclose(descriptors(Frame.from_atoms(slab)), expected, atol=1e-12)
    flat = slab.copy()
    flat.cell[2] = 0  # no vector at all in the open direction
    np.testing.assert_allclose(descriptors(Frame.from_atoms(flat)), expected, atol=1e-12)
    flat.pbc = False
    assert not np.allclose(descriptors(Frame.from_atoms(flat)), expected, atol=1e-3)


@settings(max_examples=20)
@given(seed=st.integers(0, 1000), repeats=st.tuples(*[st.integers(1, 2)] * 3))
def test_descriptors_do_not_see_how_a_crystal_is_written_down(seed, repeats):
    rng = np.random.default_rng(seed)
    atoms = bulk("Si", cubic=True)
    atoms.rattle(0.2, rng=rng)
    expected = descriptors(Frame.from_atoms(atoms))
    order = rng.permutation(len(atoms))
    same = atoms[order]
    same.positions += same.cell.T @ rng.integers(-2, 3, 3) + rng.normal(size=3)
    same.rotate(rng.random() * 90, rng.normal(size=3), rotate_cell=True)
    np.testing.assert_allclose(descriptors(Frame.from_atoms(same)), expected[order], atol=1e-9)
    found = descriptors(Frame.from_atoms(atoms.repeat(repeats)))
    np.testing.assert_allclose(found, np.tile(expected, (np.prod(repeats), 1)), atol=1e-9)


# entropies


def test_entropies_equal_those_of_quests():
    x, y = REFERENCE["si_supercell/descriptors"], REFERENCE["si_cell/descriptors"]
    assert entropy(x, H) == pytest.approx(float(REFERENCE["entropy"]), rel=1e-9)
    usable = np.isfinite(REFERENCE["delta"])  # the package underflows where we do not
    assert usable.any()
    np.testing.assert_allclose(delta_entropy(y, x, H)[usable], REFERENCE["delta"][usable], rtol=1e-8)


def test_entropies_are_finite_at_any_distance():
    x = np.zeros((2, 3))
    for distance in (0.1, 1.0, 1e3):
        y = np.full((1, 3), distance)
        np.testing.assert_allclose(delta_entropy(x, y, H), 3 * distance**2 / (2 * H**2))
    assert np.all(delta_entropy(x, np.zeros((0, 3)), H) == np.inf)
    assert entropy(x, H) == 0.0
    assert entropy(np.diag([1.0, 2.0, 3.0]), H) == pytest.approx(np.log(3))
    with pytest.raises(ValueError):
        entropy(np.zeros((0, 3)), H)


def test_kernel_sums_of_blocks_add_up(monkeypatch):
    rng = np.random.default_rng(0)
    x, y = 0.03 * rng.random((7, 5)), 0.03 * rng.random((50, 5))
    direct = np.log(np.exp(-((x[:, None] - y) ** 2).sum(-1) / (2 * H**2)).sum(1))
    np.testing.assert_allclose(log_kernel_sums(x, y, H), direct, rtol=1e-10)
    monkeypatch.setattr("pfdhpc.select.entropy.BLOCK", 8)
    np.testing.assert_allclose(log_kernel_sums(x, y, H), direct, rtol=1e-10)


# greedy


def candidates(n, seed=0):
    """Frames of different size and disorder, several of them exact or permuted copies of others."""
    rng = np.random.default_rng(seed)
    frames = []
    for index in range(n):
        atoms = bulk("Si", cubic=True).repeat((1 + index % 2, 1, 1))
        frames.append(rattled(atoms, 0.02 + 0.3 * rng.random(), seed * 100 + index))
    for frame in frames[: n // 3]:
        order = rng.permutation(len(frame))
        frames.append(Frame(frame.numbers[order], frame.cell, frame.positions[order]))
    return {frame.frame_id: descriptors(frame) for frame in frames}


def pick_over_pools(pools, max_sel, min_gain):
    """What the ranks do together: reduce the proposals, share the picked environments."""
    picked = []
    while len(picked) < max_sel:
        best = reduce(better, [pool.best() for pool in pools], None)
        if best is None:
            return picked
        if best.score <= min_gain:
            return picked
        for pool in pools:
            pool.remove(best.frame_id)
            pool.add_reference(best.descriptors)
        picked.append((best.frame_id, best.score))
    return picked


@pytest.mark.parametrize("with_reference", [True, False])
def test_picks_are_the_same_on_any_number_of_ranks(with_reference):
    frames = candidates(12)
    reference = [descriptors(rattled(bulk("Si", cubic=True), 0.05, seed)) for seed in (1, 2)] if with_reference else []
    expected = None
    for n_pools in (1, 2, 3, 5, 20):
        rng = np.random.default_rng(n_pools)
        pools = [Pool(H) for _ in range(n_pools)]
        for pool in pools:
            for known in reference:
                pool.add_reference(known)
        for frame_id in rng.permutation(sorted(frames)):
            pools[rng.integers(n_pools)].add(str(frame_id), frames[str(frame_id)])
        picked = pick_over_pools(rng.permutation(np.array(pools, object)), 8, 0.0)
        expected = expected or picked
        assert picked == expected  # ids, and scores to the last bit
    assert len(expected) == 8


def test_greedy_takes_what_is_new_and_never_the_same_twice():
    frames = candidates(6)
    assert len(frames) == 8
    pool = Pool(H)
    for frame_id, found in frames.items():
        pool.add(frame_id, found)
        pool.add(frame_id, found)
    picks, saturated = greedy(pool, 100, 0.0)
    contents = {round(float(pick.descriptors.sum()), 6) for pick in picks}
    assert saturated and len(contents) == len(picks) <= 6  # the two permuted copies are never taken
    assert len(picks) >= 4 and pool.best().score <= 0.0
    assert picks[0].score == np.inf and np.isfinite([pick.score for pick in picks[1:]]).all()
    spreads = {frame_id: entropy(found, H) for frame_id, found in frames.items()}
    assert spreads[picks[0].frame_id] == pytest.approx(max(spreads.values()))
    assert greedy(pool, 100, 0.0) == ([], True) and greedy(Pool(H), 5, 0.0) == ([], False)


def test_greedy_stops_at_max_sel_and_ends_with_the_smallest_gains():
    frames = candidates(9)
    pool = Pool(H)
    for frame_id, found in frames.items():
        pool.add(frame_id, found)
    picks, saturated = greedy(pool, 3, 0.0)
    assert len(picks) == 3 and not saturated and len(pool) == len(frames) - 3
    left = pool.best().score
    assert all(pick.score >= left for pick in picks)


def test_scores_do_not_grow_with_the_cell():
    small = bulk("Si", cubic=True)
    small.rattle(0.2, seed=3)
    pool = Pool(H)
    pool.add_reference(descriptors(Frame.from_atoms(bulk("Si", cubic=True))))
    scores = []
    for repeat in (1, 2):
        pool.add(str(repeat), descriptors(Frame.from_atoms(small.repeat((repeat, 1, 1)))))
        scores.append(pool.best().score)
        pool.remove(str(repeat))
    assert scores[0] == pytest.approx(scores[1], rel=1e-6) and scores[0] > 0


def test_equal_scores_go_to_the_smaller_id():
    found = descriptors(rattled(bulk("Si", cubic=True), 0.2))
    wiggle = found + 1e-14
    for order in (("b", "a"), ("a", "b")):
        pool = Pool(H)
        pool.add_reference(np.zeros((1, found.shape[1])))
        pool.add(order[0], found)
        pool.add(order[1], wiggle)
        assert pool.best().frame_id == "a"
    assert better(None, None) is None and better(pool.best(), None).frame_id == "a"


# filters


def record_of(atoms, force=1.0, system="si"):
    n = len(atoms)
    prediction = Label(-1.0, np.full((n, 3), force / np.sqrt(3)), np.eye(3))
    return Record(Frame.from_atoms(atoms), Origin(system=system), prediction=prediction)


def reason(atoms, force=1.0, starts=None, **options):
    return Filter(FilterSection(**options), {"si": 20.0} if starts is None else starts).reason(record_of(atoms, force))


def strained(*rows):
    atoms = bulk("Si", cubic=True)
    atoms.set_cell(5.43 * np.array(rows, float), scale_atoms=True)
    return atoms


def test_physical_frames_pass_the_filter():
    hexagonal = bulk("Mg", "hcp", a=3.2, c=5.2)
    for atoms in (
        bulk("Si"),
        bulk("Si", cubic=True),
        bulk("Si").repeat(2),
        strained([1, 0.1, 0], [0, 1, 0], [0, 0.1, 1]),
    ):
        assert reason(atoms) is None
    assert reason(hexagonal) is None
    assert reason(fcc111("Al", (2, 2, 3), vacuum=10.0)) is None
    assert reason(molecule("CH3CH2OH")) is None
    assert Filter(FilterSection(), {}).reason(Record(Frame.from_atoms(bulk("Si")))) is None


@pytest.mark.parametrize(
    "kind, atoms, options",
    [
        ("long cell", bulk("Si", cubic=True).repeat((6, 1, 1)), {}),
        ("skewed cell", strained([1, 0, 0], [2, 1, 0], [0, 0, 1]), {}),
        ("skewed cell", strained([1, 0, 0], [0, 1, 0], [0, -1, 1]), {"max_skew": 40}),
        ("volume", strained([1.5, 0, 0], [0, 1.5, 0], [0, 0, 1]), {}),
        ("volume", strained([0.7, 0, 0], [0, 0.7, 0], [0, 0, 1]), {"min_distance_ratio": 0}),
        ("flat cell", strained([1, 0, 0], [1, 0, 0], [0, 0, 1]), {}),
        ("large force", bulk("Si"), {"max_force": 0.5}),
        ("close pair", bulk("Si"), {"min_distance_ratio": 1.1}),
    ],
)
def test_unphysical_frames_are_named(kind, atoms, options):
    found = reason(atoms, **options)
    assert found is not None and found.startswith(f"{kind}: ")


def test_frames_that_are_not_finite_are_named():
    broken = bulk("Si")
    broken.positions[0, 0] = np.nan
    assert reason(broken).startswith("not finite: ")
    assert reason(bulk("Si"), force=np.nan).startswith("not finite: ")


def test_closest_pairs_include_images_and_judge_by_element():
    one = bulk("Cu", "sc", a=2.0)  # an atom and its own image
    ratio, *pair = closest_pair(Frame.from_atoms(one), 1.0)
    assert ratio == pytest.approx(2.0 / (2 * 1.32)) and pair == [29, 29]
    across = molecule("H2")
    across.set_cell([8, 8, 8])
    across.pbc = True
    across.positions[:] = [[0.1, 4, 4], [7.8, 4, 4]]
    assert closest_pair(Frame.from_atoms(across), 1.0)[0] == pytest.approx(0.3 / 0.62)
    across.pbc = False
    assert closest_pair(Frame.from_atoms(across), 1.0)[0] == np.inf
    water = molecule("H2O")  # O-H 0.97 Å is short for O-O, not for O-H
    assert closest_pair(Frame.from_atoms(water), 2.0)[0] == pytest.approx(0.9685 / 0.97, rel=1e-3)
    on_top = bulk("Si")
    on_top.positions[1] = on_top.positions[0]
    assert reason(on_top, min_distance_ratio=0.1).startswith("close pair: Si-Si at 0.00")
