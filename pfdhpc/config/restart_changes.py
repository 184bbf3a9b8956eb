"""Which keys may change between a run and its restart, and what did change."""

import json
from typing import Any

IMMUTABLE = (
    "workflow",
    "seed",
    "system",
    "init",
    "model",
    "pool.data",
    "pool.labeled",
    "pool.models",
    "pool.init_pick",
    "pool.chunk",
    "explore.engine",
    "explore.options",
    "explore.ensemble",
    "label.type",
    "label.options",
    "label.systems",
    "label.virial",
    "train.type",
    "train.deepmd",
    "train.metatrain",
    "train.use_pretrain_script",
    "train.bias",
    "train.replay",
    "train.lora",
    "test",
)
"""Keys, and all keys below them, that decide what the frames, labels and models of a run are."""


RELOCATABLE = ("label.options.path", "label.options.wait", "model.path", "explore.options.path")
"""Exceptions: folders that code is found in, and patience. Where a project lies decides nothing."""


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """``(key, old value, new value)`` of every key in which two resolved inputs differ.

    A file is compared by its digest (``files`` of :func:`pfdhpc.config.dump`), not by where it lies;
    its value names both.
    """
    (before, was), (after, now) = _split(old), _split(new)
    changes = []
    for key in sorted(before.keys() | after.keys()):
        values = before.get(key), after.get(key)
        if key in was and key in now:
            if was[key] != now[key]:
                changes.append((key, _named(values[0], was[key]), _named(values[1], now[key])))
        elif values[0] != values[1]:
            changes.append((key, *values))
    return changes


def refusals(changes: list[tuple[str, Any, Any]], directory: Any) -> list[str]:
    """A line for every change a restart cannot take."""
    return [
        f"{key}: {json.dumps(new)} here, but {directory} was begun with {json.dumps(old)};"
        " restore the value, or choose another run.directory"
        for key, old, new in changes
        if any(key == fixed or key.startswith((f"{fixed}.", f"{fixed}[")) for fixed in IMMUTABLE)
        and key not in RELOCATABLE
    ]


def _split(resolved: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The values of a resolved input by full key, and the digests of its files."""
    return flat({key: value for key, value in resolved.items() if key != "files"}), resolved.get("files", {})


def _named(paths: Any, digests: Any) -> Any:
    """A file as a person is told of it, also where only its content changed."""
    if isinstance(paths, list):
        return [_named(path, digest) for path, digest in zip(paths, digests, strict=True)]
    digests = [digests] if isinstance(digests, str) else digests  # of a folder, those of the files in use
    return f"{paths} (content {', '.join(digest[:12] for digest in digests)})"


def flat(values: Any, key: str = "") -> dict[str, Any]:
    """A tree of dicts, and lists of them, as one dict by full key: ``system[0].name``."""
    if isinstance(values, dict) and values:
        items = {f"{key}.{name}" if key else name: value for name, value in values.items()}
    elif isinstance(values, list) and any(isinstance(item, dict) for item in values):
        items = {f"{key}[{index}]": value for index, value in enumerate(values)}
    else:
        return {key: values}
    return {name: value for path, inner in items.items() for name, value in flat(inner, path).items()}
