"""Frames that exist already, from the formats they are kept in."""

import difflib
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import h5py
import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import atomic_numbers

from ..errors import InputError
from ..log import remark
from ..units import virial_from_stress
from .extras import CHARGES, MOMENTS, extras
from .frame import Frame, Label, Labelling, Origin, Record
from .geometry import defect
from .hdf5_version import newer_form

DPDATA_FILES = {"*OUTCAR*": "vasp/outcar", "*vasprun*.xml": "vasp/xml"}
"""Files read by dpdata: it leaves out steps whose SCF did not converge, ASE does not."""
GPAW_TEXTS = ("gpaw-log", "gpaw-out")
"""ASE's names of GPAW's text output, with GPAW installed and without."""

Labelled = tuple[Frame, Label | None]
Item = TypeVar("Item")


def read_labelled(path: str | Path, level: str = "given", fmt: str = "") -> list[Record]:
    """All labelled frames of a file or folder; ``level`` names the level of theory of the labels.

    ``fmt`` is the name of a format of dpdata or ASE; empty: it is told from the file.

    Reads extxyz and whatever else ASE reads with energy and forces, deepmd/npy (also mixed; one
    system, or a folder with systems below it), deepmd/hdf5, and VASP's OUTCAR and vasprun.xml.
    Frames without a label are left out, and virials that mean nothing (:func:`read_frames`), which is logged. Raises
    InputError when the path cannot be
    read, holds no labelled frame, or a label is not finite.
    """
    path = Path(path)
    pairs = read_frames(path, fmt, "labelled frames")
    records = [
        Record(frame, Origin(system=path.stem, step=index), label=label, labelling=Labelling(level, "given"))
        for index, (frame, label) in enumerate(pairs)
        if label is not None
    ]
    if not records:
        raise InputError(f"{path}: {len(pairs)} frames, but none with an energy and forces")
    for record in records:
        wrong = (
            defect(record.frame) if record.label.is_finite() else "an energy, force or virial is not a finite number"
        )
        if wrong:
            raise InputError(f"{path}: frame {record.origin.step}: {wrong}")
    if len(records) < len(pairs):
        remark(f"{path}: {len(pairs) - len(records)} of {len(pairs)} frames have no energy and forces: left out")
    return records


def read_frames(path: str | Path, fmt: str = "", what: str = "frames") -> list[Labelled]:
    """All frames of a file or folder, each with its label or None; see :func:`read_labelled`. Raises InputError.

    Labels are without a virial where the frame is not periodic in three directions, and where the stress is a
    placeholder of zeros; both are logged.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    reader = _named_reader(path, fmt) if fmt else _reader(path)
    frames = _guarded(path, reader(path), f"{what}{f' of format {fmt}' if fmt else ''}")
    return _without_void_virials(path, list(frames))


def read_atoms(path: str | Path) -> Iterator[Atoms]:
    """The structures of a file or folder, one after the other, with or without labels.

    Formats are those of :func:`read_labelled`. What ASE reads is as ASE gives it, with all its info and
    arrays; deepmd and VASP frames have their label as the results of a calculator. Raises InputError
    when the path cannot be read.
    """
    import ase.io  # loads every installed format plugin: only where it is needed

    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    reader = _reader(path)
    if reader is _from_ase:
        return _guarded(path, ase.io.iread(path, index=":", parallel=False), "structures")
    return _guarded(path, (labelled_atoms(*pair) for pair in reader(path)), "structures")


def labelled_atoms(frame: Frame, label: Label | None) -> Atoms:
    """A frame as ASE has it, its label as the results of a calculator; stress only where there is a volume."""
    atoms = frame.to_atoms()
    if label is not None:
        results = {"energy": label.energy, "forces": label.forces}
        if label.virial is not None and frame.has_virial and frame.volume > 0:
            stress = -label.virial / frame.volume
            results["stress"] = stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]  # ASE's Voigt order
        atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


def _without_void_virials(path: Path, pairs: list[Labelled]) -> list[Labelled]:
    """The frames of a file without the virials of open frames and those that are a placeholder of zeros."""
    given = [place for place, (_, label) in enumerate(pairs) if label is not None and label.virial is not None]
    undefined = [place for place in given if not pairs[place][0].has_virial]
    zero = [place for place in given if pairs[place][0].has_virial and not pairs[place][1].virial.any()]
    if not any(pairs[place][1].forces.any() for place in zero):
        zero = []  # single atoms, on which nothing acts
    for places, reason in (
        (undefined, "they are not periodic in three directions"),
        (zero, "it is exactly zero although there are forces, so a placeholder"),
    ):
        if places:
            remark(f"{path}: the stress of {len(places)} of {len(pairs)} frames is not used: {reason}")
        for place in places:
            frame, label = pairs[place]
            pairs[place] = frame, replace(label, virial=None)
    return pairs


def _guarded(path: Path, items: Iterable[Item], what: str) -> Iterator[Item]:
    """The items of a foreign reader, which raises anything."""
    iterator = iter(items)
    while True:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the readers' remarks on fields we do not use
                item = next(iterator)
        except StopIteration:
            return
        except InputError:
            raise
        except Exception as error:
            reason = newer_form(error) or (str(error).splitlines() or [type(error).__name__])[0]
            raise InputError(f"{path}: cannot be read as {what}: {reason}") from error
        yield item


def _reader(path: Path) -> Callable[[Path], Iterator[Labelled]]:
    if path.is_dir():
        return _from_folder
    if h5py.is_hdf5(path):
        return _from_hdf5
    if any(fnmatch(path.name, pattern) for pattern in DPDATA_FILES):
        return _from_dpdata_file
    return _from_ase


def _named_reader(path: Path, fmt: str) -> Callable[[Path], Iterator[Labelled]]:
    """The reader of a format by its name: ASE's, or else dpdata's. Raises InputError."""
    from ase.io.formats import ioformats
    from dpdata.format import Format

    known = Format.get_formats()
    if fmt in ioformats:  # before dpdata's formats of the same name, which read one frame
        return partial(_from_ase, fmt=fmt)
    if fmt in known:
        return partial(_from_dpdata_file, fmt=fmt)
    near = difflib.get_close_matches(fmt, [*known, *ioformats], 3) or ["abacus/scf", "qe/pw/scf", "espresso-out"]
    raise InputError(f"{path}: format {fmt!r} is known neither to dpdata nor to ASE; near to it: {', '.join(near)}")


def _from_ase(path: Path, fmt: str | None = None) -> Iterator[Labelled]:
    import ase.io  # loads every installed format plugin, whole DFT programs among them: only where it is needed
    from ase.io.formats import filetype

    if (fmt or filetype(str(path))) in GPAW_TEXTS:
        _check_gpaw_text(path)
    held: Counter[str] = Counter()
    for atoms in ase.io.iread(path, index=":", format=fmt, parallel=False):
        held.update(extras(atoms))
        yield Frame.from_atoms(atoms), _label_of(atoms)
    for what in (MOMENTS, CHARGES):
        if held[what]:
            remark(f"{path}: the {what} that {held[what]} frames hold are not used; pfdhpc docs labelers: Moments")


def _check_gpaw_text(path: Path) -> None:
    """Raise InputError if the energies that ASE reads from GPAW's text are not those its forces belong to."""
    text = path.read_text(errors="replace")
    free, extrapolated = (
        np.array(re.findall(rf"^ *{name}: +(\S+)", text, re.MULTILINE), float)
        for name in ("Free energy", "(?:Extrapolated|zero Kelvin)")
    )
    if len(free) != len(extrapolated) or (np.abs(free - extrapolated) > 1e-6).any():
        raise InputError(
            f"{path}: of GPAW's text ASE reads energies extrapolated to zero smearing, and forces of the free energies;"
            " give the .traj or .gpw file of the calculation, or extxyz written from it with free_energy"
        )


def _label_of(atoms: Atoms) -> Label | None:
    """The label an Atoms object carries, with the energy its forces belong to where there are two."""
    results = atoms.calc.results if atoms.calc else {}
    energy = results.get("free_energy", results.get("energy"))
    if energy is None or "forces" not in results:
        return None
    virial = None
    if "stress" in results:
        virial = virial_from_stress(_matrix(results["stress"]), Frame.from_atoms(atoms).volume)
    elif "virial" in atoms.info:
        virial = np.reshape(atoms.info["virial"], (3, 3))
    return Label(energy, results["forces"], virial)


def _matrix(stress: Any) -> np.ndarray:
    """A stress in ASE's Voigt order (xx, yy, zz, yz, xz, xy) or (3, 3), as (3, 3)."""
    stress = np.asarray(stress, float)
    return stress[[0, 5, 4, 5, 1, 3, 4, 3, 2]].reshape(3, 3) if stress.shape == (6,) else stress.reshape(3, 3)


def _from_folder(path: Path) -> Iterator[Labelled]:
    folders = sorted({found.parent for found in path.rglob("type.raw")})
    if not folders:
        raise InputError(f"{path}: no deepmd system (type.raw) in this folder; name a file, or a deepmd folder")
    for folder in folders:
        yield from _from_deepmd(folder)


def _from_deepmd(folder: Path) -> Iterator[Labelled]:
    import dpdata

    labelled = bool(list(folder.glob("set.*/force.npy")))
    if list(folder.glob("set.*/real_atom_types.npy")):
        parts = dpdata.MultiSystems().load_systems_from_file(str(folder), fmt="deepmd/npy/mixed", labeled=labelled)
        for system in parts:
            yield from _from_dpdata(system.data)
    else:
        kind = dpdata.LabeledSystem if labelled else dpdata.System
        yield from _from_dpdata(kind(str(folder), fmt="deepmd/npy").data)


def _from_hdf5(path: Path) -> Iterator[Labelled]:
    import dpdata

    with h5py.File(path) as file:
        groups: list[str] = [""] if "type.raw" in file else []
        file.visit(lambda name: groups.append(name[: -len("/type.raw")]) if name.endswith("/type.raw") else None)
        if not groups:
            raise InputError(f"{path}: an HDF5 file without a deepmd system (type.raw) in it")
        for name in groups:
            group = file[name or "/"]
            kind = dpdata.LabeledSystem if any("force.npy" in part for part in _sets(group)) else dpdata.System
            yield from _from_dpdata(kind(group, fmt="deepmd/hdf5").data)


def _sets(group: h5py.Group) -> list[h5py.Group]:
    return [part for name, part in group.items() if name.startswith("set.")]


def _from_dpdata_file(path: Path, fmt: str = "") -> Iterator[Labelled]:
    import dpdata

    fmt = fmt or next(fmt for pattern, fmt in DPDATA_FILES.items() if fnmatch(path.name, pattern))
    yield from _from_dpdata(dpdata.LabeledSystem(str(path), fmt=fmt).data)


def _from_dpdata(data: dict[str, Any]) -> Iterator[Labelled]:
    """Frames of one dpdata system; dpdata's virial has our sign."""
    numbers = np.array([atomic_numbers[name] for name in data["atom_names"]])[data["atom_types"]]
    pbc = np.full(3, not data.get("nopbc", False))
    for index, (cell, positions) in enumerate(zip(data["cells"], data["coords"], strict=True)):
        virial = data["virials"][index] if "virials" in data else None
        label = Label(data["energies"][index], data["forces"][index], virial) if "forces" in data else None
        yield Frame(numbers, cell, positions, pbc), label
