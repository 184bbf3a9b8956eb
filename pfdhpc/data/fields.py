"""The one table of everything kept of a frame; it drives the HDF5 layout, validation and exports."""

from dataclasses import dataclass
from dataclasses import fields as dataclass_fields
from typing import Any

import numpy as np

from .frame import Frame, Label, Labelling, Origin, Record


@dataclass(frozen=True)
class Field:
    """One quantity of a :class:`Record`.

    ``path`` leads to it from the record, ``shape`` is per atom when ``per_atom`` else per frame.
    A missing optional quantity is stored as ``missing``.
    """

    path: str
    dtype: Any
    unit: str = ""
    shape: tuple[int, ...] = ()
    per_atom: bool = False
    required: bool = False
    missing: Any = np.nan

    @property
    def name(self) -> str:
        return self.path.replace(".", "_").removeprefix("frame_")


def _label_fields(owner: str) -> list[Field]:
    return [
        Field(f"{owner}.energy", "f8", "eV"),
        Field(f"{owner}.forces", "f8", "eV/Å", (3,), per_atom=True),
        Field(f"{owner}.virial", "f8", "eV", (3, 3)),
    ]


def _scalar_fields(owner: str, cls: type) -> list[Field]:
    units = {"temperature": "K", "pressure": "bar", "deviation": "eV/Å", "novelty": "nat", "seconds": "s"}
    kinds = {int: ("i8", -1), float: ("f8", np.nan), str: ("str", "")}
    rows = []
    for item in dataclass_fields(cls):
        dtype, missing = kinds[item.type]
        rows.append(Field(f"{owner}.{item.name}", dtype, units.get(item.name, ""), missing=missing))
    return rows


FIELDS: tuple[Field, ...] = (
    Field("frame.numbers", "i4", per_atom=True, required=True),
    Field("frame.positions", "f8", "Å", (3,), per_atom=True, required=True),
    Field("frame.cell", "f8", "Å", (3, 3), required=True),
    Field("frame.pbc", "?", "", (3,), required=True),
    *_label_fields("label"),
    *_label_fields("prediction"),
    *_scalar_fields("origin", Origin),
    *_scalar_fields("labelling", Labelling),
)


def get(record: Record, field: Field) -> Any:
    """The value of one field, or ``field.missing`` in the field's shape where the record has none."""
    owner, name = field.path.split(".")
    holder = getattr(record, owner)
    value = None if holder is None else getattr(holder, name)
    if value is not None:
        return value
    if field.required:
        raise ValueError(f"frame {record.frame_id}: {field.path} is missing")
    if not field.shape:
        return field.missing
    shape = (len(record.frame), *field.shape) if field.per_atom else field.shape
    return np.full(shape, field.missing, field.dtype)


def build(values: dict[str, Any]) -> Record:
    """The inverse of :func:`get` over all fields: a record from ``{field.name: value}``."""
    parts: dict[str, dict[str, Any]] = {}
    for field in FIELDS:
        owner, name = field.path.split(".")
        parts.setdefault(owner, {})[name] = values[field.name]
    labelling = Labelling(**parts["labelling"])
    return Record(
        frame=Frame(**parts["frame"]),
        origin=Origin(**parts["origin"]),
        prediction=_label(parts["prediction"]),
        label=_label(parts["label"]),
        labelling=labelling if labelling.level else None,
    )


def _label(values: dict[str, Any]) -> Label | None:
    if np.isnan(values["energy"]):
        return None
    virial = values["virial"]
    return Label(values["energy"], values["forces"], None if np.isnan(virial).all() else virial)
