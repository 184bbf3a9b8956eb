"""Kernel sums and entropies: equal to QUESTS and to plain sums, finite everywhere, with far ones left out or not."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp

from pfdhpc.errors import InputError
from pfdhpc.selection import entropy as module
from pfdhpc.selection.bandwidth import density_bandwidth, spread_bandwidth, unsuitable
from pfdhpc.selection.entropy import Environments, delta_entropy, diversity, entropy, log_kernel_sums

REFERENCE = np.load(Path(__file__).parent / "data" / "quests_reference.npz")
H = 0.015
FEW = settings(max_examples=25, deadline=None)
seeds = st.integers(0, 2**31)


def oracle(x, y, h=H):
    """ln p by differences and log-sum-exp in extended precision."""
    squared = np.array([((row - y.astype(np.longdouble)) ** 2).sum(axis=1) for row in x.astype(np.longdouble)])
    return logsumexp((-squared / (2 * np.longdouble(h) ** 2)).astype(float), axis=1)


def clusters(n, seed=0, d=12, spread=40.0):
    """Environments around some centres, as of several phases; distances in units of H."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(7, d)) * spread
    return H * (centres[rng.integers(7, size=n)] + rng.normal(size=(n, d)) * rng.choice([0.1, 1.0, 5.0], (n, 1)))


def test_entropies_equal_those_of_quests():
    x, y = REFERENCE["si_supercell/descriptors"], REFERENCE["si_cell/descriptors"]
    assert entropy(x, H) == pytest.approx(float(REFERENCE["entropy"]), rel=1e-9)
    usable = np.isfinite(REFERENCE["delta"])  # the package underflows where we do not
    assert usable.any()
    np.testing.assert_allclose(delta_entropy(y, x, H)[usable], REFERENCE["delta"][usable], rtol=1e-8)


@FEW
@given(seed=seeds, n=st.integers(1, 12), m=st.integers(1, 40), log_size=st.floats(-3, 3.7), d=st.sampled_from([1, 63]))
def test_kernel_sums_are_right_at_any_distance(seed, n, m, log_size, d):
    rng = np.random.default_rng(seed)
    size = H * 10**log_size / np.sqrt(d)
    x, y = rng.normal(size=(n, d)) * size, rng.normal(size=(m, d)) * size
    y[0] = x[0]
    np.testing.assert_allclose(log_kernel_sums(x, y, H), oracle(x, y), rtol=1e-13, atol=2e-10)


@pytest.mark.parametrize("far", [0.0, 1.0, 1e3, 1e6])
def test_an_equal_environment_is_known_wherever_it_is(far):
    x = np.random.default_rng(0).random((5, 63)) + H * far
    np.testing.assert_allclose([log_kernel_sums(row[None], row[None], H)[0] for row in x], 0, atol=1e-9)


def test_one_environment_far_from_the_rest_changes_nothing_for_them():
    x, y = clusters(300), clusters(3000, 1)
    expected = log_kernel_sums(x, y, H)
    lost = np.r_[y, np.full((1, 12), 1e3)]
    np.testing.assert_allclose(log_kernel_sums(x, lost, H), expected, atol=1e-9, rtol=1e-12)
    np.testing.assert_allclose(log_kernel_sums(lost[-1:], lost, H), 0, atol=1e-9)


def test_entropies_of_equal_and_of_unlike_environments():
    same, unlike = np.full((9, 63), 0.3), np.diag([1.0, 2.0, 3.0])
    assert entropy(same, H) == pytest.approx(0, abs=1e-9)
    assert diversity(same, H) == pytest.approx(0, abs=1e-9)
    assert entropy(unlike, H) == pytest.approx(np.log(3)) and diversity(unlike, H) == pytest.approx(np.log(3))
    np.testing.assert_allclose(delta_entropy(same[:2], same, H), -np.log(9), atol=1e-9)
    mixed = np.r_[same, unlike @ np.ones((3, 63))]
    np.testing.assert_allclose(diversity(mixed, H), np.log(4), atol=1e-9)
    for measure in (entropy, diversity):
        with pytest.raises(ValueError):
            measure(np.zeros((0, 3)), H)


def test_no_environments():
    x, none = clusters(5), np.zeros((0, 12))
    assert (log_kernel_sums(x, none, H) == -np.inf).all() and log_kernel_sums(x, none, H).shape == (5,)
    assert log_kernel_sums(none, x, H).shape == log_kernel_sums(none, none, H).shape == (0,)
    assert len(Environments(none, H)) == 0 and Environments(none, H).descriptors.shape == (0, 12)


@pytest.mark.parametrize("n", [7, 3000])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_environments_give_back_their_descriptors(n, dtype):
    given_rows = clusters(n).astype(dtype)
    given_rows.flags.writeable = False
    environments = Environments(given_rows, H)
    found = environments.descriptors
    assert len(environments) == n and found.dtype == dtype
    np.testing.assert_array_equal(found, given_rows)
    wide = given_rows.astype(float)
    np.testing.assert_array_equal(environments.log_sums(environments), log_kernel_sums(wide, wide, H))


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match="bandwidths"):
        Environments(clusters(2), H).log_sums(Environments(clusters(2), 2 * H))
    with pytest.raises(ValueError, match="shape"):
        Environments(np.zeros(3), H)
    with pytest.raises(ValueError, match="positive"):
        Environments(clusters(2), 0.0)


@FEW
@given(seed=seeds, n=st.integers(1, 30), m=st.integers(1, 60), extra=st.integers(1, 60))
def test_more_reference_never_lowers_a_sum(seed, n, m, extra):
    x, y = clusters(n, seed), clusters(m + extra, seed + 1)
    before, after = log_kernel_sums(x, y[:m], H), log_kernel_sums(x, y, H)
    assert (after >= before - 1e-10 - 1e-14 * np.abs(before)).all()
    added = np.logaddexp(before, log_kernel_sums(x, y[m:], H))  # as the selection adds blocks
    assert (added >= before).all()
    np.testing.assert_allclose(added, after, rtol=1e-13, atol=1e-10)


@FEW
@given(seed=seeds, n=st.sampled_from([1, 5, 300]), m=st.sampled_from([1, 40, 2500]))
def test_permuted_rows_give_permuted_sums(seed, n, m):
    rng = np.random.default_rng(seed)
    x, y = clusters(n, seed), clusters(m, seed + 1)
    order = rng.permutation(n)
    expected = log_kernel_sums(x, y, H)
    np.testing.assert_allclose(log_kernel_sums(x[order], rng.permutation(y), H), expected[order], rtol=1e-12, atol=1e-9)


@pytest.fixture(scope="module")
def large():
    """Two ordered sets of several phases, some of them far from all of the reference."""
    x = np.r_[clusters(2400), clusters(100, 5) + 5.0, clusters(3, 6) + 1e3]
    return np.random.default_rng(0).permutation(x), clusters(6000, 1)


@pytest.mark.parametrize("tolerance", [1e-12, 1e-6, 1e-2])
def test_what_is_left_out_is_within_the_tolerance(large, monkeypatch, tolerance):
    monkeypatch.setattr(module, "WORTHWHILE", 0)
    x, y = (Environments(rows, H) for rows in large)
    missing = x.log_sums(y, tolerance=0) - x.log_sums(y, tolerance)
    rounding = 1e-10 + 1e-14 * np.abs(x.log_sums(y))
    assert (missing <= tolerance + rounding).all() and (missing >= -rounding).all()


def test_far_environments_are_left_out(large, monkeypatch):
    monkeypatch.setattr(module, "WORTHWHILE", 0)
    products = []
    monkeypatch.setattr(module, "PlainSum", counting(module.PlainSum, products))
    x, y = (Environments(rows, H) for rows in large)
    x.log_sums(y, tolerance=0)
    full = sum(products)
    products.clear()
    x.log_sums(y)
    assert full == len(x) * len(y) and sum(products) < 0.6 * full


def counting(kind, products):
    class Counting(kind):
        def add(self, exponents):
            products.append(exponents.numel())
            super().add(exponents)

    return Counting


def test_sums_of_large_sets_are_right_and_in_the_order_given(large):
    rows, reference = large
    x, y = Environments(rows, H), Environments(reference, H)
    found = x.log_sums(y)
    some = np.arange(0, len(rows), 50)
    np.testing.assert_allclose(found[some], oracle(rows[some], reference), rtol=1e-12, atol=2e-10)
    np.testing.assert_array_equal(found, Environments(rows.copy(), H).log_sums(Environments(reference.copy(), H)))
    np.testing.assert_array_equal(found, x.log_sums(y))


def test_all_identical_environments_of_a_large_set():
    environments = Environments(np.full((3000, 63), 0.2), H)
    np.testing.assert_allclose(environments.log_sums(environments), np.log(3000), atol=1e-9)


# bandwidths


def test_bandwidths_by_density_are_those_of_quests():
    assert density_bandwidth(10.896) == pytest.approx(0.0897141 * np.exp(-0.5) + 0.0119417)
    assert density_bandwidth(1e3) == pytest.approx(0.0119417)
    assert density_bandwidth(1.0, "cutoff") == pytest.approx(0.086164 + 0.016)
    # by the package
    assert density_bandwidth(16.0) == pytest.approx(0.042464880294644666, rel=1e-12)
    assert density_bandwidth(10.0, "cutoff") == pytest.approx(0.06998173939298935, rel=1e-12)
    assert density_bandwidth(20.0, "cutoff") == pytest.approx(0.029970465746868423, rel=1e-12)
    assert density_bandwidth(100.0, "cutoff") == 0.016  # beyond the cutoff
    for wrong in ((0.0, "gaussian"), (np.nan, "gaussian"), (10.0, "other")):
        with pytest.raises(ValueError):
            density_bandwidth(*wrong)


@pytest.mark.parametrize("unit", [1.0, 1e-3, 50.0])
def test_the_spread_gives_a_suitable_bandwidth_in_any_unit(unit):
    x = unit * clusters(60)
    h = spread_bandwidth(x)
    assert entropy(x, h) == pytest.approx(np.log(60) / 2, rel=0.01)
    assert unsuitable(x, h) is None
    assert "all environments" in unsuitable(x, 1e-4 * h) and "larger" in unsuitable(x, 1e-4 * h)
    assert "no environments" in unsuitable(x, 1e4 * h) and "ln n" in unsuitable(x, 1e4 * h)


def test_equal_environments_tell_nothing_of_a_bandwidth():
    same = 0.2 + 1e-15 * np.random.default_rng(0).random((20, 5))
    assert unsuitable(same, H) is None and unsuitable(same[:0], H) is None
    for rows in (same, same[:1], same[:0]):
        with pytest.raises(InputError, match="select.bandwidth"):
            spread_bandwidth(rows)
