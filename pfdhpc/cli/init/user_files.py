"""What ``pfdhpc init`` reads out of the files it is given: start structures and the pre-trained model."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import InputError

NAMELESS = re.compile(r"(?i)(poscar|contcar|outcar|vasprun|structure|input|geometry|init|start)")
"""Beginnings of file names that say nothing of the material."""


ADAPTABLE = ("se_atten", "se_atten_v2", "dpa1", "dpa2", "dpa3")
"""Kinds of descriptors that embed the elements, which model.type_map may change."""


@dataclass(frozen=True)
class Material:
    """A file of start structures. ``cell``: lengths of the lattice vectors of the first one, Å."""

    path: Path
    name: str
    formula: str
    elements: tuple[str, ...]
    n_images: int
    n_atoms: int
    cell: tuple[float, ...]
    periodic: bool


@dataclass(frozen=True)
class Parent:
    """A pre-trained model. ``cutoff`` in Å, 0 where it does not tell; ``aliases``: other names of the branches."""

    path: Path
    kind: str
    elements: tuple[str, ...]
    branches: tuple[str, ...]
    cutoff: float
    aliases: tuple[str, ...] = ()

    @property
    def names(self) -> set[str]:
        """What its branches may be called, in small letters."""
        return {name.lower() for name in (*self.branches, *self.aliases)}

    @property
    def takes_elements(self) -> bool:
        """Whether deepmd can give it other elements (model.type_map): it has no networks of their own for each."""
        return self.kind in ADAPTABLE


def read_materials(paths: Sequence[Path]) -> list[Material]:
    """One for every file, with names that differ; raises InputError with all problems."""
    found: list[Material] = []
    problems: list[str] = []
    for path in paths:
        try:
            found.append(_material(path, {material.name for material in found}))
        except InputError as error:
            problems += [f"init --from {line}" for line in error.problems]
    if problems:
        raise InputError(problems)
    return found


def _material(path: Path, taken: set[str]) -> Material:
    from ...data.io import read_atoms

    if path.is_dir():
        raise InputError(f"{path}: is a folder; name the files of the start structures")
    images = list(read_atoms(path))
    if not images:
        raise InputError(f"{path}: holds no structure")
    first = images[0]
    formula = first.get_chemical_formula(mode="metal", empirical=True)
    stem = re.sub(r"[^A-Za-z0-9_.+-]", "-", path.stem if path.suffix else path.name)
    base = formula if NAMELESS.match(stem) else stem
    name = next(name for name in _numbered(base) if name not in taken)
    elements = sorted({symbol for atoms in images for symbol in atoms.get_chemical_symbols()})
    periodic = all(bool(atoms.pbc.all()) and atoms.cell.rank == 3 for atoms in images)
    cell = tuple(float(length) for length in first.cell.lengths())
    return Material(path, name, formula, tuple(elements), len(images), len(first), cell, periodic)


def _numbered(base: str) -> Iterator[str]:
    yield base
    number = 2
    while True:
        yield f"{base}-{number}"
        number += 1


def read_parent(path: Path) -> Parent:
    """What a model, in any format a training can start from, says of itself; raises InputError when it is none."""
    if not path.is_file():
        raise InputError(f"init --model: no such file: {path}; pfdhpc fetch-model --list names some to download")
    from ...engines.train.deepmd.checkpoint_formats import read_model

    params = read_model(path)["_extra_state"]["model_params"]
    branches = params.get("model_dict", {})
    model = next(iter(branches.values())) if branches else params
    kind = model.get("descriptor", {}).get("type", model.get("type", "unknown"))
    cutoff = max(_cutoffs(model.get("descriptor", {})), default=0.0)
    aliases = tuple(alias for branch in branches.values() for alias in branch.get("model_branch_alias", ()))
    return Parent(path, str(kind), tuple(model["type_map"]), tuple(branches), cutoff, aliases)


def _cutoffs(values: Any) -> Iterator[float]:
    if isinstance(values, dict):
        for key, value in values.items():
            if key in ("rcut", "e_rcut") and isinstance(value, int | float):
                yield float(value)
            else:
                yield from _cutoffs(value)


def likely_branch(branches: Sequence[str], labeler: str) -> str:
    """The branch whose name is nearest to what the templates label with, PBE: a guess the user settles."""
    pbe = [name for name in branches if re.search(r"(?i)pbe(?!-?sol)", name)]
    return (pbe or list(branches))[0] if labeler != "teacher" else branches[0]
