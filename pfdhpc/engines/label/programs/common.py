"""What the programs have in common: files by element, k-points, atoms grouped by species, last words."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import chemical_symbols

from ....config.file_digest import content_digest
from ....data import Frame
from ....errors import LabelError

LAST_WORDS = 300
"""Characters of a failed program's output that go into the reason; all of it is in the kept folder."""
KPOINTS = "kspacing = 0.2 (1/Å, with the 2π) or kpts = [4, 4, 4]"


def grouped(frame: Frame) -> tuple[np.ndarray, list[tuple[str, int]]]:
    """The order (n,) that brings the atoms of a species together, and the species with their counts.

    Species by atomic number, atoms of one in the frame's order.
    """
    order = np.argsort(frame.numbers, kind="stable")
    numbers, counts = np.unique(frame.numbers, return_counts=True)
    return order, [(chemical_symbols[z], int(count)) for z, count in zip(numbers, counts, strict=True)]


def ungrouped(values: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Per-atom ``values`` (n, ...) of a program that got the atoms in ``order``, in the frame's order."""
    result = np.empty_like(values)
    result[order] = values
    return result


def check_frame(frame: Frame, name: str, elements: Iterable[str] | None, where: str) -> None:
    """Raise LabelError for a frame without a cell or with an element that has no file under the option ``where``."""
    if frame.volume == 0:
        raise LabelError(f"{name} needs a cell, and the frame has none")
    if elements is None:
        return
    missing = [symbol for symbol, _ in grouped(frame)[1] if symbol not in elements]
    if missing:
        raise LabelError(f"label.options.{where} has nothing for {', '.join(missing)}")


def check_table(options: dict[str, Any], key: str, values: type | tuple[type, ...], example: str) -> list[str]:
    """Problems of an option that is a table with values of a type."""
    table = options.get(key, {})
    if isinstance(table, dict) and all(isinstance(value, values) for value in table.values()):
        return []
    return [f"label.options.{key}: {table!r} is not such a table; e.g. {example}"]


def check_files(options: dict[str, Any], folder: str, names: str, example: str) -> list[str]:
    """Problems of a table of a file for every element, and of the folder they are in."""
    problems = check_table(options, names, str, f"{names} = {example}")
    if not options.get(names):
        problems.append(f"label.options.{names}: missing; the file of every element, e.g. {names} = {example}")
    if folder not in options:
        return [*problems, f"label.options.{folder}: missing; the folder of the files in label.options.{names}"]
    for symbol, path in {} if problems else paths(options, folder, names).items():
        if symbol not in chemical_symbols[1:]:
            problems.append(f"label.options.{names}.{symbol}: not a chemical element; e.g. {names} = {example}")
        elif not path.is_file():
            problems.append(f"label.options.{names}.{symbol}: no such file: {path}")
    return problems


def paths(options: dict[str, Any], folder: str, names: str) -> dict[str, Path]:
    """The files of a table in their folder."""
    return {key: Path(options[folder]) / name for key, name in sorted(options.get(names, {}).items())}


def check_template(options: dict[str, Any]) -> list[str]:
    """Problems of the option ``template``, an input file to start from."""
    path = options.get("template")
    return [] if path is None or Path(path).is_file() else [f"label.options.template: no such file: {path}"]


def check_kpoints(options: dict[str, Any], elsewhere: str = "") -> list[str]:
    """Problems of the options ``kpts``, ``koffset``, ``kspacing``; ``elsewhere`` is a setting that says the same."""
    given = [name for name in ("kpts", "kspacing") if name in options]
    said = [f"label.options.{name}" for name in given] + ([elsewhere] if elsewhere else [])
    problems = [] if said else [f"label.options.kspacing: missing; e.g. {KPOINTS}"]
    if len(said) > 1:
        problems.append(f"{said[0]}: {said[1]} says it too; remove one of them")
    spacing, mesh, offset = options.get("kspacing", 1.0), options.get("kpts", [1] * 3), options.get("koffset", [0] * 3)
    if type(spacing) not in (int, float) or spacing <= 0:
        problems.append(f"label.options.kspacing: {spacing!r}; a positive number in 1/Å (with the 2π), e.g. 0.2")
    if not _is_triple(mesh) or min(mesh) < 1:
        problems.append(f"label.options.kpts: {mesh!r}; three positive integers, e.g. [4, 4, 4]")
    if not _is_triple(offset) or not set(offset) <= {0, 1}:
        problems.append(f"label.options.koffset: {offset!r}; [0, 0, 0] for a mesh on Γ, 1 to move it by half a step")
    elif any(offset) and "kpts" not in options:
        problems.append("label.options.koffset: it moves the mesh of label.options.kpts, which is not given")
    return problems


def mesh_lines(options: dict[str, Any]) -> str:
    """The mesh and its shift, a line each, in VASP's and ABACUS's meaning: half steps are 0.5."""
    shift = [0.5 * n for n in options.get("koffset", [0, 0, 0])]
    return f"{' '.join(map(str, options['kpts']))}\n{' '.join(map(str, shift))}"


def _is_triple(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(type(n) is int for n in value)


def check_polarised(options: dict[str, Any], polarised: bool, setting: str) -> list[str]:
    """A problem of the option ``magmoms`` where the ``setting`` for spins is not there."""
    if polarised or not options.get("magmoms"):
        return []
    return [f"label.options.magmoms: has no effect without {setting}"]


def digests(files: dict[str, Path]) -> dict[str, str]:
    """The content hash of every file of a table."""
    return {key: content_digest(path) for key, path in files.items()}


def check_copies(name: str, stdout: str, banner: str) -> None:
    """Raise LabelError if the ``banner`` (a pattern) a program begins with is there more than once."""
    copies = len(re.findall(banner, stdout))
    if copies > 1:
        raise LabelError(
            f"{copies} copies of {name} ran in one folder, each by itself: the launcher in label.launch.command is not"
            " of the MPI it is built with"
        )


def last_words(*files: Path) -> str:
    """How the first of the ``files`` that is there and not empty ends, for a reason."""
    for file in files:
        text = file.read_text(errors="replace").strip() if file.is_file() else ""
        if text:
            lines = " | ".join(filter(None, (line.strip() for line in text.splitlines()[-20:])))
            return f"; its output ends: {lines[-LAST_WORDS:]}"
    return "; it wrote nothing"
