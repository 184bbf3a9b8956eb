"""Which keys may change between a run and its restart, and what did change."""

import json
from typing import Any

IMMUTABLE = (
    "workflow",
    "seed",
    "system",
    "init",
    "model",
    "explore.engine",
    "explore.options",
    "explore.ensemble",
    "label.type",
    "label.options",
    "label.virial",
    "train.deepmd",
    "test",
)
"""Keys, and all keys below them, that decide what the frames, labels and models of a run are."""


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """``(key, old value, new value)`` of every key in which two resolved inputs differ."""
    before, after = _flat(old), _flat(new)
    keys = sorted(before.keys() | after.keys())
    return [(key, before.get(key), after.get(key)) for key in keys if before.get(key) != after.get(key)]


def refusals(changes: list[tuple[str, Any, Any]], directory: Any) -> list[str]:
    """A line for every change a restart cannot take."""
    return [
        f"{key}: {json.dumps(new)} here, but {directory} was begun with {json.dumps(old)};"
        " restore the value, or choose another run.directory"
        for key, old, new in changes
        if any(key == fixed or key.startswith((f"{fixed}.", f"{fixed}[")) for fixed in IMMUTABLE)
    ]


def _flat(values: Any, key: str = "") -> dict[str, Any]:
    if isinstance(values, dict) and values:
        items = {f"{key}.{name}" if key else name: value for name, value in values.items()}
    elif isinstance(values, list) and any(isinstance(item, dict) for item in values):
        items = {f"{key}[{index}]": value for index, value in enumerate(values)}
    else:
        return {key: values}
    return {name: value for path, inner in items.items() for name, value in _flat(inner, path).items()}
