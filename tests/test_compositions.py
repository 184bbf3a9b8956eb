"""Which energies per element a set of labels determines, and whether energies are off as a whole."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pfdhpc.data.compositions import (
    amounts,
    determining,
    formula,
    fractions,
    open_directions,
    systematic,
    undetermined,
)

ELEMENTS = ("Ag", "Al", "Au", "Cu")
cells = st.dictionaries(st.sampled_from((13, 29, 47, 79)), st.integers(1, 54), min_size=1)
formulas = cells.map(lambda counts: formula([z for z, n in counts.items() for _ in range(n)]))
sets = st.lists(formulas, max_size=6)


def test_a_formula_is_reduced_and_read_back():
    assert formula([79, 29, 29, 29] * 3) == "Cu3Au" and formula([6, 14] * 4) == "CSi" and formula([79]) == "Au"
    assert amounts("Cu3Au") == {"Cu": 0.75, "Au": 0.25} and amounts("") == {}


@pytest.mark.parametrize(
    "known, text, is_open",
    [
        ((), "Cu", True),
        (("Cu",), "Cu", False),
        (("Cu3Au",), "Cu3Au", False),
        (("Cu3Au",), "CuAu3", True),
        (("Cu3Au", "CuAu3"), "Au", False),
        (("Cu", "Au"), "Cu3Au", False),
        (("Cu", "Cu3Au"), "Au", False),
        (("Cu", "Cu4Au"), "Au", True),
        (("Cu", "Au"), "Cu3AuAg", True),
        (("Cu",), "Cu107Au", True),  # an impurity has constants of its own
        (("Cu", "Cu107Au"), "Cu53Au", False),
        (("Cu", "Cu107Au"), "Au", True),  # an error of the impurity's energy is 108 times that of gold's
        (("CuAu", "Cu51Au49"), "Au", True),
        (("CuAu", "Cu3Au2"), "Cu3Au", False),
    ],
)
def test_what_determines_a_composition(known, text, is_open):
    assert undetermined(known, [text]) == [is_open]


@given(known=sets, added=sets)
def test_as_few_as_needed_determine_all(known, added):
    chosen = determining(known, added)
    assert set(chosen) <= set(added) and not any(undetermined([*known, *chosen], added))
    for place, text in enumerate(chosen):
        assert undetermined([*known, *chosen[:place]], [text]) == [True]


@given(known=sets, added=sets.filter(bool), seed=st.integers(0, 99))
def test_constants_fitted_along_new_directions_leave_known_compositions_where_they_are(known, added, seed):
    """Any constants: those the known compositions fix are right already, the rest comes from the new."""
    old, new = fractions(sorted({*known}), ELEMENTS), fractions(sorted({*added}), ELEMENTS)
    truth = np.random.default_rng(seed).normal(scale=1000.0, size=4)
    learned = np.linalg.pinv(old, rcond=1e-9) @ old @ truth if len(old) else np.zeros(4)
    directions = open_directions(old, new)
    along = new @ directions
    shift = directions @ np.linalg.lstsq(along, new @ (truth - learned), rcond=None)[0]
    assert np.allclose(old @ (learned + shift), old @ truth, rtol=0, atol=1e-6)
    assert np.allclose(new @ (learned + shift), new @ truth, rtol=0, atol=1e-4)
    if any(undetermined(known, added)):
        assert directions.shape[1] > 0


def test_directions_in_which_known_compositions_hardly_differ_are_open():
    hardly, well = fractions(["CuAu", "Cu51Au49"], ELEMENTS), fractions(["CuAu", "Cu3Au"], ELEMENTS)
    gold = fractions(["Au"], ELEMENTS)
    assert open_directions(hardly, gold).shape[1] == 1 and open_directions(well, gold).shape[1] == 0


@settings(max_examples=30)
@given(off=st.floats(1.0, 1e4), sign=st.sampled_from((1, -1)), n=st.integers(1, 20), seed=st.integers(0, 99))
def test_constants_are_found_and_scatter_is_not(off, sign, n, seed):
    noise = np.random.default_rng(seed).normal(scale=0.03, size=2 * n)
    names = ["Cu"] * n + ["Cu3Au"] * n
    assert systematic(names, noise) == {}
    found = systematic(names, noise + sign * off * np.array([0.0] * n + [1.0] * n))
    assert list(found) == ["Cu3Au"] and found["Cu3Au"] == pytest.approx(sign * off, abs=0.15)


def test_energies_that_scatter_by_as_much_are_not_off_as_a_whole():
    assert systematic(["Cu"] * 6, np.array([2.0, -1.0, 3.0, 0.5, -2.0, 1.0])) == {}
    assert systematic([], np.array([])) == {}
