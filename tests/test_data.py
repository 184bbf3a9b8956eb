"""Labelled data in and out: the sign of the virial, what `dp train` reads, one line for what cannot be read."""

import os
from dataclasses import replace
from pathlib import Path

import ase.io
import ase.test
import dpdata
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT

from pfdhpc.data import Frame, Label, Labelling, Origin, Record
from pfdhpc.data.io import read_labelled
from pfdhpc.errors import InputError, StoreError
from pfdhpc.store.export import export

VASP = Path(ase.test.__file__).parent / "testdata" / "vasp"


def emt_record(atoms, virial=True):
    """A record with EMT's label, its virial from a finite difference of the energy."""
    atoms = atoms.copy()
    atoms.calc = EMT()
    label = Label(atoms.get_potential_energy(), atoms.get_forces(), strain_virial(atoms) if virial else None)
    return Record(Frame.from_atoms(atoms), Origin("metal", "r0", 3), None, label, Labelling("emt", "ase", 0.1))


def strain_virial(atoms, step=1e-5):
    """``-dE/dstrain``, symmetrised, eV."""
    virial = np.zeros((3, 3))
    for i, j in np.ndindex(3, 3):
        energies = []
        for sign in (1, -1):
            strain = np.eye(3)
            strain[i, j] += sign * step
            moved = atoms.copy()
            moved.set_cell(atoms.cell @ strain, scale_atoms=True)
            moved.calc = EMT()
            energies.append(moved.get_potential_energy())
        virial[i, j] = -(energies[0] - energies[1]) / (2 * step)
    return (virial + virial.T) / 2


@pytest.fixture(scope="module")
def records():
    """Two compositions, mixed atom orders, with and without virial, a molecule without a cell."""
    found = []
    for seed in range(3):
        alloy = bulk("Cu", cubic=True, a=3.5)
        alloy.symbols[seed] = "Au"  # the gold atom is elsewhere in each frame
        metal = bulk("Al", cubic=True).repeat((2, 1, 1))
        for atoms, virial in ((alloy, True), (metal, seed > 0)):
            atoms.rattle(0.1, seed=seed)
            found.append(emt_record(atoms, virial))
    found.append(emt_record(molecule("N2"), virial=False))
    return found


def by_energy(records):
    return sorted(records, key=lambda record: record.label.energy)


def check_same(expected, found, atol):
    """Equal up to the order of frames and of the atoms in them."""
    assert len(expected) == len(found)
    for one, other in zip(by_energy(expected), by_energy(found), strict=True):
        orders = [np.lexsort((*r.frame.positions.T.round(5), r.frame.numbers)) for r in (one, other)]
        assert other.label.energy == pytest.approx(one.label.energy, abs=atol)
        for ours, theirs in (
            (one.frame.numbers, other.frame.numbers),
            (one.frame.positions, other.frame.positions),
            (one.label.forces, other.label.forces),
        ):
            np.testing.assert_allclose(theirs[orders[1]], ours[orders[0]], atol=atol)
        assert list(one.frame.pbc) == list(other.frame.pbc)
        if one.frame.pbc.any():
            np.testing.assert_allclose(other.frame.cell, one.frame.cell, atol=atol)
        assert (one.label.virial is None) == (other.label.virial is None)
        if one.label.virial is not None:
            np.testing.assert_allclose(other.label.virial, one.label.virial, atol=max(atol, 1e-12))


@pytest.mark.parametrize(
    "fmt, name, atol",
    [("deepmd/npy", "set", 0), ("deepmd/hdf5", "set.hdf5", 0), ("extxyz", "set.extxyz", 2e-8)],
)
def test_what_is_exported_reads_back(tmp_path, records, fmt, name, atol):
    export(records, tmp_path / "new" / name, fmt)
    assert [path.name for path in (tmp_path / "new").iterdir()] == [name]
    found = read_labelled(tmp_path / "new" / name, "mine")
    check_same(records, found, atol)
    assert {record.labelling.level for record in found} == {"mine"}
    with pytest.raises(InputError, match="is there already"):
        export(records, tmp_path / "new" / name, fmt)


def test_exported_energies_and_stresses_are_those_of_the_program(tmp_path, records):
    """extxyz, read by ASE alone, against EMT's own numbers: units and the sign of the stress."""
    export(records, tmp_path / "all.extxyz", "extxyz")
    for record, atoms in zip(records, ase.io.read(tmp_path / "all.extxyz", ":"), strict=True):
        fresh = atoms.copy()
        fresh.calc = EMT()
        assert atoms.get_potential_energy() == pytest.approx(fresh.get_potential_energy(), abs=1e-6)
        np.testing.assert_allclose(atoms.get_forces(), fresh.get_forces(), atol=1e-6)
        assert ("stress" in atoms.calc.results) == (record.label.virial is not None)
        if record.label.virial is not None:
            np.testing.assert_allclose(atoms.get_stress(), fresh.get_stress(), atol=1e-6)
        assert atoms.info["frame_id"] == record.frame_id
        assert (atoms.info["system"], atoms.info["round"], atoms.info["level"]) == ("metal", 3, "emt")
        assert "step" not in atoms.info and "novelty" not in atoms.info


def test_dp_train_reads_the_exports(tmp_path, records):
    from deepmd.utils.data_system import DeepmdDataSystem, process_systems

    for fmt, name in (("deepmd/npy", "npy"), ("deepmd/hdf5", "all.hdf5")):
        export(records, tmp_path / name, fmt)
        systems = process_systems(str(tmp_path / name))
        names = sorted(system.replace("#", "/").rsplit("/", 1)[1] for system in systems)
        assert names == ["Al8", "Al8-novirial", "AuCu3", "N2-nopbc-novirial"]
        alloy = next(system for system in systems if system.endswith("AuCu3"))
        data = DeepmdDataSystem([alloy], 3, 1, 4.0, type_map=["Cu", "Au"])
        data.add("energy", 1, atomic=False, must=True, high_prec=True)
        data.add("force", 3, atomic=True, must=True)
        data.add("virial", 9, atomic=False, must=True)
        batch = data.get_batch()
        assert batch["find_virial"] == 1.0 and list(batch["natoms_vec"][:2]) == [4, 4]
        assert sorted(batch["type"][0]) == [0, 0, 0, 1]
        expected = sorted(record.label.energy for record in records if 79 in record.frame.numbers)
        np.testing.assert_allclose(np.sort(batch["energy"].ravel()), expected, rtol=1e-6)


def test_mixed_and_nested_deepmd_data_are_read(tmp_path, records):
    periodic = [record for record in records if record.label.virial is not None]
    export(periodic, tmp_path / "a" / "npy", "deepmd/npy")
    systems = dpdata.MultiSystems()
    for folder in sorted((tmp_path / "a" / "npy").iterdir()):
        systems.append(dpdata.LabeledSystem(str(folder), fmt="deepmd/npy"))
    systems.to("deepmd/npy/mixed", str(tmp_path / "mixed"))
    check_same(periodic, read_labelled(tmp_path / "mixed"), 1e-12)
    check_same(periodic, read_labelled(tmp_path / "a"), 0)  # a folder above the systems


def test_vasp_outputs_are_read():
    for name in ("OUTCAR_example_1", "vasprun_dfpt.xml"):
        (record,) = read_labelled(VASP / name)
        atoms = ase.io.read(VASP / name)
        assert record.label.energy == pytest.approx(atoms.calc.results["free_energy"])
        np.testing.assert_allclose(record.label.forces, atoms.get_forces(), atol=1e-8)
        expected = -atoms.get_stress(voigt=False) * atoms.get_volume()
        np.testing.assert_allclose(record.label.virial, expected, atol=1e-5)


def test_labels_of_other_extxyz_files(tmp_path):
    """A virial in the header instead of a stress; frames without a label among labelled ones."""
    head = 'Lattice="3 0 0 0 3 0 0 0 4" Properties=species:S:1:pos:R:3:forces:R:3 energy=-1.5'
    body = "Cu 0 0 0 0.1 0 0\nCu 1.5 1.5 2 -0.1 0 0\n"
    path = tmp_path / "some.xyz"
    path.write_text(f'2\n{head} virial="1 2 3 2 5 6 3 6 9"\n{body}1\n\nCu 0 0 0\n2\n{head}\n{body}')
    first, second = read_labelled(path)
    np.testing.assert_allclose(first.label.virial, [[1, 2, 3], [2, 5, 6], [3, 6, 9]])
    assert second.label.virial is None and (first.origin.step, second.origin.step) == (0, 2)


def test_what_holds_no_labels_is_said_in_one_line(tmp_path, records):
    plain = Atoms("Cu", pbc=True, cell=np.eye(3) * 3)
    ase.io.write(tmp_path / "plain.xyz", plain)
    (tmp_path / "prose.txt").write_text("Call me Ishmael.\n")
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.hdf5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(200))
    nan = replace(records[0], label=replace(records[0].label, energy=float("nan")))
    export([nan], tmp_path / "nan", "deepmd/npy")
    for name, message in (
        ("absent", "no such file"),
        ("plain.xyz", "none with an energy and forces"),
        ("prose.txt", "cannot be read as labelled frames"),
        ("empty", "no deepmd system"),
        ("broken.hdf5", "cannot be read"),
        ("nan", "not a finite number"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            read_labelled(tmp_path / name)
        assert len(caught.value.problems) == 1 and "\n" not in str(caught.value) and name in str(caught.value)


def test_an_export_that_cannot_be_made_leaves_nothing(tmp_path, records):
    with pytest.raises(InputError, match="known formats: deepmd/npy, deepmd/hdf5, extxyz"):
        export(records, tmp_path / "x", "cif")
    with pytest.raises(InputError, match="no labelled frames"):
        export([], tmp_path / "x", "extxyz")
    slab = replace(records[0], frame=replace(records[0].frame, cell=np.diag([3.0, 3.0, 0.0]), pbc=[True, True, False]))
    with pytest.raises(InputError, match="export to extxyz"):
        export([slab], tmp_path / "x", "deepmd/npy")
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        export(records, tmp_path / "file" / "x", "extxyz")
    assert os.listdir(tmp_path) == ["file"]
    (tmp_path / "ready").mkdir()  # an empty folder may be filled
    export(records, tmp_path / "ready", "deepmd/npy")
    assert len(read_labelled(tmp_path / "ready")) == len(records)
