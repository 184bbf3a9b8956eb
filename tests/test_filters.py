"""Filters: unphysical candidates are named, physical ones pass."""

import numpy as np
import pytest
from ase.build import bulk, fcc111, molecule

from pfdhpc.config.select import FilterSection
from pfdhpc.data import Frame, Label, Origin, Record
from pfdhpc.selection.filters import Filter, closest_pair


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


def test_the_committee_band_keeps_what_is_neither_accurate_nor_failed():
    record = record_of(bulk("Si"))
    band = Filter(FilterSection(), {}, (0.05, 0.3))
    for deviation, kind in ((0.04, "accurate"), (0.05, None), (0.3, None), (0.31, "failed"), (np.nan, None)):
        found = band.reason(record.with_origin(deviation=deviation))
        assert (found is None) if kind is None else found.startswith(f"{kind}: committee deviation")
