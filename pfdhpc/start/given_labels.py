"""Labelled frames that exist already: from data files, from another run, or imported into this one."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..config.init import Data, DataSection, source
from ..data import Origin, Record
from ..data.frame import is_imported
from ..data.io import read_labelled
from ..errors import InputError, StoreError
from ..store.run_directory import RunFolder
from ..store.store import read_records


def given(data: Data, role: str = "given") -> list[Record]:
    """Labelled frames of a ``role`` ("given" or "test") in the run, at a level of their own. Raises InputError."""
    section = source(data)
    name = section.path.stem
    return [
        replace(
            record,
            prediction=None,
            origin=Origin(system=name, replica=role, round=0, step=record.origin.step),
            labelling=replace(record.labelling, level=f"{role}-{name}"),
        )
        for record in read(section)
    ]


def read(section: DataSection) -> list[Record]:
    """The frames of a run's store, or of any format ASE or dpdata reads. Raises InputError."""
    frames = _frames(section.path)
    if frames is None or section.format:
        if section.level:
            raise InputError(f"{section.path}: level is for the directory of a pfdhpc run; remove it")
        return _whole(section.path, read_labelled(section.path, fmt=section.format))
    try:
        records = read_records(frames)
    except StoreError as error:
        raise InputError(f"{section.path}: {error}") from error
    levels = Counter(record.labelling.level for record in records)
    level = section.level or next(iter(levels), "")
    if (len(levels) > 1 and not section.level) or level not in levels:
        found = ", ".join(f"{key} ({count} frames)" for key, count in sorted(levels.items())) or "no labelled frame"
        raise InputError(
            f"{section.path}: name one level of theory, as in {{ path = ..., level = ... }}; it has {found}"
        )
    return [record for record in records if record.labelling.level == level]


def _whole(path: Path, records: list[Record]) -> list[Record]:
    """The records; raises InputError for frames that deepmd would take for something else."""
    strange = sum(not np.isfinite(record.frame.cell).all() for record in records)
    if strange:
        raise InputError(f"{path}: {strange} frames have a cell that is not of finite numbers")
    partly = sum(bool(record.frame.pbc.any() and not record.frame.pbc.all()) for record in records)
    if partly:
        raise InputError(f"{path}: {partly} frames are periodic in some directions only; deepmd takes all or none")
    return records


def _frames(path: Path) -> Path | None:
    """The frames folder if a path is one, or a run directory."""
    places = (RunFolder(path).frames, path)
    return next((place for place in places if (place / "labelled").is_dir()), None)


def is_run(path: Path) -> bool:
    """Whether a path is a run directory, or the frames folder of one."""
    return _frames(path) is not None


def imported(known: Iterable[str], ids: Iterable[str]) -> tuple[str, ...]:
    """Of the label ids in a store, those of imported labels that a run does not know yet."""
    return tuple(sorted(set(filter(is_imported, ids)).difference(known)))
