"""Labelled frames as deepmd/npy systems: one folder per composition, in an order that is no accident."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase.data import chemical_symbols

from ....data import Frame, Record
from ....data.geometry import right_handed_cell
from ....errors import TaskError


@dataclass(frozen=True)
class Systems:
    """The folders deepmd trains on; the first ``n_old`` hold frames trained on before."""

    paths: tuple[Path, ...]
    n_old: int


def types_of(frame: Frame, type_map: Sequence[str]) -> np.ndarray:
    """Type of each atom, (n,) int; raises TaskError for an element the model does not know."""
    index = {symbol: i for i, symbol in enumerate(type_map)}
    symbols = [chemical_symbols[z] for z in frame.numbers]
    unknown = sorted(set(symbols) - set(index))
    if unknown:
        raise TaskError(f"frame {frame.frame_id}: the model has no type for {', '.join(unknown)}")
    return np.array([index[symbol] for symbol in symbols], int)


def write_systems(records: Iterable[Record], type_map: Sequence[str], folder: Path) -> tuple[Path, ...]:
    """Write labelled records below ``folder``, sorted by frame id; returns the systems sorted by name.

    Frames share a system when they agree in composition, periodicity and in having a virial, so that
    ``find_virial`` is true exactly where there are virials. Atoms are ordered by type, cells right-handed.
    """
    groups: dict[str, list[Record]] = {}
    for record in sorted(records, key=lambda item: item.frame_id):
        groups.setdefault(_name(record, type_map), []).append(record)
    return tuple(_write(group, type_map, folder / name) for name, group in sorted(groups.items()))


def _name(record: Record, type_map: Sequence[str]) -> str:
    if record.label is None:
        raise TaskError(f"frame {record.frame_id} has no label; only labelled frames can train")
    counts = Counter(types_of(record.frame, type_map).tolist())
    formula = "".join(f"{type_map[kind]}{counts[kind]}" for kind in sorted(counts))
    cell = "" if record.frame.pbc.any() else "-cluster"
    return formula + cell + ("" if record.label.virial is None else "-virial")


def _write(group: list[Record], type_map: Sequence[str], folder: Path) -> Path:
    """One system: type.raw, type_map.raw and the arrays of deepmd's set.000."""
    data = folder / "set.000"
    data.mkdir(parents=True)
    types = [types_of(record.frame, type_map) for record in group]
    orders = [np.argsort(kinds, kind="stable") for kinds in types]
    (folder / "type_map.raw").write_text("\n".join(type_map) + "\n")
    np.savetxt(folder / "type.raw", types[0][orders[0]], "%d")
    if not group[0].frame.pbc.any():
        (folder / "nopbc").touch()
    arrays = {
        "coord": [record.frame.positions[order] for record, order in zip(group, orders, strict=True)],
        "box": [right_handed_cell(record.frame.cell) for record in group],
        "energy": [record.label.energy for record in group],
        "force": [record.label.forces[order] for record, order in zip(group, orders, strict=True)],
    }
    if group[0].label.virial is not None:
        arrays["virial"] = [record.label.virial for record in group]
    for name, rows in arrays.items():
        np.save(data / f"{name}.npy", np.array(rows, float).reshape(len(group), -1))
    return folder
