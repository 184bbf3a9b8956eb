"""Labelled frames in the formats other programs read."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import h5py
import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from ase.formula import Formula

from ..data import Record
from ..data.geometry import right_handed_cell
from ..data.io import labelled_atoms
from ..errors import InputError, StoreError
from ..files import UNFINISHED

SET_SIZE = 5000
"""Frames in one set of a deepmd system."""


def export(records: Sequence[Record], destination: str | Path, fmt: str) -> None:
    """Write labelled records to ``destination``, which appears complete or not at all.

    ``fmt``: "deepmd/npy" (a folder with one system per composition), "deepmd/hdf5" (one file, a group
    per composition; ``dp train`` reads both when given as a system) or "extxyz" (energy, forces, stress and
    the frames' origin). Frames with and without virial are in separate deepmd systems, whose cells are all
    right-handed: deepmd misreads others. Raises
    InputError for an unknown format, nothing to write, frames a format cannot hold, or a destination
    that exists; StoreError when the disk refuses.
    """
    destination = Path(destination)
    writer = _check(records, destination, fmt)
    unfinished = destination.with_name(f".{destination.name}{UNFINISHED}")
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        _remove(unfinished)
        writer(records, unfinished)
        unfinished.replace(destination)
    except OSError as error:
        raise StoreError(f"{destination}: cannot be written: {error.strerror or error}") from error
    finally:
        _remove(unfinished)


def _check(records: Sequence[Record], destination: Path, fmt: str) -> Callable[[Sequence[Record], Path], None]:
    if fmt not in WRITERS:
        raise InputError(f"format {fmt!r} is not known; known formats: {', '.join(WRITERS)}")
    if not records:
        raise InputError(f"{destination}: no labelled frames to export")
    if destination.is_dir() and not any(destination.iterdir()) and fmt == "deepmd/npy":
        return WRITERS[fmt]
    if destination.exists():
        raise InputError(f"{destination}: is there already; name a new file or folder, or remove it first")
    return WRITERS[fmt]


def _write_npy(records: Sequence[Record], path: Path) -> None:
    for name, system in _systems(records):
        system.to("deepmd/npy", str(path / name), set_size=SET_SIZE, prec=np.float64)


def _write_hdf5(records: Sequence[Record], path: Path) -> None:
    with h5py.File(path, "w") as file:
        for name, system in _systems(records):
            system.to("deepmd/hdf5", file.create_group(name), set_size=SET_SIZE, comp_prec=np.float64)


def _write_extxyz(records: Sequence[Record], path: Path) -> None:
    import ase.io  # loads every installed format plugin: only where it is needed

    ase.io.write(path, [atoms_of(record) for record in records], format="extxyz", parallel=False)


WRITERS = {"deepmd/npy": _write_npy, "deepmd/hdf5": _write_hdf5, "extxyz": _write_extxyz}


def atoms_of(record: Record) -> Atoms:
    """A labelled record as ASE has it: the label as results of a calculator, where it comes from as info."""
    atoms = labelled_atoms(record.frame, record.label)
    atoms.info["frame_id"] = record.frame_id
    told = {**asdict(record.origin), **asdict(record.labelling)}
    atoms.info |= {key: value for key, value in told.items() if value not in ("", -1) and value == value}
    return atoms


def _systems(records: Sequence[Record]):
    """``(name, dpdata.LabeledSystem)`` per composition, periodicity and presence of a virial."""
    import dpdata

    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(_group(record), []).append(record)
    for name in sorted(groups):
        yield name, dpdata.LabeledSystem(data=_dpdata(groups[name]))


def _group(record: Record) -> str:
    formula = Formula.from_list([chemical_symbols[z] for z in record.frame.numbers]).format("hill")
    periodic = "" if record.frame.pbc.any() else "-nopbc"
    return formula + periodic + ("" if record.label.virial is not None else "-novirial")


def _dpdata(records: Sequence[Record]) -> dict:
    """dpdata's data of frames with one composition, atoms sorted by atomic number."""
    orders = [np.argsort(record.frame.numbers, kind="stable") for record in records]
    numbers = records[0].frame.numbers[orders[0]]
    elements, types = np.unique(numbers, return_inverse=True)
    pairs = list(zip(records, orders, strict=True))
    data = {
        "atom_names": [chemical_symbols[z] for z in elements],
        "atom_numbs": np.bincount(types).tolist(),
        "atom_types": types,
        "orig": np.zeros(3),
        "cells": np.stack([_cell(record) for record in records]),
        "coords": np.stack([record.frame.positions[order] for record, order in pairs]),
        "energies": np.array([record.label.energy for record in records]),
        "forces": np.stack([record.label.forces[order] for record, order in pairs]),
    }
    if records[0].label.virial is not None:
        data["virials"] = np.stack([record.label.virial for record in records])
    if not records[0].frame.pbc.any():
        data["nopbc"] = True
    return data


def _cell(record: Record) -> np.ndarray:
    if record.frame.pbc.any() and record.frame.volume == 0:
        raise InputError(
            f"frame {record.frame_id}: periodic in some directions, without a cell vector in another;"
            " deepmd formats need all three; export to extxyz"
        )
    return right_handed_cell(record.frame.cell)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    elif path.exists():
        path.unlink()
