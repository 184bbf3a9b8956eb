"""A run state as a tree of plain values for the checkpoint, and back."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from ..data import Frame, Label, Labelling, Origin, Record
from ..data.error_metrics import Errors, ErrorTable
from ..engines.label.aimd import Point
from ..errors import StoreError
from ..messages import ModelRef, Trajectory
from .state import Replica, RoundRecord, RunState

KNOWN = {
    cls.__name__: cls
    for cls in (
        Frame, Label, Labelling, Origin, Record, ModelRef, Errors, ErrorTable, Replica, RoundRecord, RunState, Point,
        Trajectory,
    )
}  # fmt: skip
JOB_ONLY = "job"
"""The field of the state that is not kept."""
CLASS = "class:"
"""The key that names the class; no system or element can have this name."""


def to_tree(value: Any) -> Any:
    """Dataclasses become dicts that name their class; tuples become lists."""
    if is_dataclass(value):
        names = [item.name for item in fields(value) if item.name != JOB_ONLY]
        return {CLASS: type(value).__name__, **{name: to_tree(getattr(value, name)) for name in names}}
    if isinstance(value, tuple | list):
        return [to_tree(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): to_tree(item) for key, item in value.items()}
    return value


def from_tree(tree: Any) -> Any:
    """The inverse of :func:`to_tree`; lists come back as tuples. Raises StoreError for what a newer version wrote."""
    if isinstance(tree, list | tuple):
        return tuple(from_tree(item) for item in tree)
    if not isinstance(tree, Mapping):
        return tree
    values = {key: from_tree(item) for key, item in tree.items() if key != CLASS}
    return _built(tree[CLASS], values) if CLASS in tree else values


def _built(name: str, values: dict[str, Any]) -> Any:
    """An object of a class by name; what an older checkpoint lacks has its default."""
    cls = KNOWN.get(name)
    strange = {name} if cls is None else values.keys() - {item.name for item in fields(cls)}
    if strange:
        raise StoreError(f"the checkpoint has {', '.join(sorted(strange))}: a newer pfdhpc wrote it; use that one")
    return cls(**values)
