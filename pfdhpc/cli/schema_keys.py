"""Every key of the input, as the models in :mod:`pfdhpc.config` declare it: type, unit, default, meaning."""

import inspect
import json
import re
import types
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from ..config import Config
from ..config.base import Section

UNITS = ("eV/Å", "eV/atom", "1/Å", "Å", "fs", "K", "bar", "seconds", "nats", "degrees", "GPa", "GB", "MB")
"""Units as descriptions name them, the composed ones first."""
BOUNDS = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
NAMES = {int: "integer", float: "number", str: "text", bool: "true or false", Path: "path", dict: "table", Any: "value"}


@dataclass(frozen=True)
class Key:
    """A key of the input. ``name`` is full: ``explore.timestep``, ``system[].name``."""

    name: str
    type: str
    unit: str
    default: str
    meaning: str
    required: bool


@dataclass(frozen=True)
class Part:
    """A section: its name as in the input file, what it is for, and the keys directly in it."""

    name: str
    about: str
    keys: tuple[Key, ...]


def parts(model: type[BaseModel] = Config, name: str = "") -> Iterator[Part]:
    """All sections, depth first; the first, without a name, holds the keys outside of sections."""
    inner, keys = [], []
    for field, info in model.model_fields.items():
        full = f"{name}.{field}" if name else field
        section, many = _section(info.annotation)
        if section:
            inner.append((section, f"{full}[]" if many else full))
        else:
            keys.append(_key(full, info))
    yield Part(name, _about(model, name), tuple(keys))
    for section, full in inner:
        yield from parts(section, full)


def all_keys() -> dict[str, Key]:
    return {key.name: key for part in parts() for key in part.keys}


def _about(model: type[BaseModel], name: str) -> str:
    """The docstring of a section, or what the section above says of it."""
    if (text := model.__doc__) and text != Section.__doc__:
        return re.sub(r" \(:mod:`[^`]*`\)", "", inspect.cleandoc(text).replace("``", "`"))
    info: Any = Config.model_fields.get(name.removesuffix("[]"))
    return (info and info.description) or ""


def _section(annotation: Any) -> tuple[type[BaseModel] | None, bool]:
    """The section an annotation stands for, if any, and whether it is a list of them."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, False
    arguments = get_args(annotation)
    if get_origin(annotation) is list:
        return _section(arguments[0])[0], True
    if get_origin(annotation) in (Union, types.UnionType):
        return next((_section(item) for item in arguments if _section(item)[0]), (None, False))
    return None, False


def _key(name: str, info: FieldInfo) -> Key:
    meaning = info.description or ""
    text = type_text(info.annotation, info.metadata)
    numeric = "number" in text or "integer" in text
    default = "required" if info.is_required() else _value(info)
    return Key(name, text, unit_of(meaning) if numeric else "", default, meaning, info.is_required())


def unit_of(meaning: str) -> str:
    """The first unit a description names."""
    pattern = "|".join(map(re.escape, UNITS))
    found = re.search(rf"(?<![\w/])(?:{pattern})(?![\w/])", meaning)
    return found[0] if found else ""


def _value(info: FieldInfo) -> str:
    value = info.default
    if value is PydanticUndefined and info.default_factory:
        value = info.default_factory()  # type: ignore[call-arg]
    return "none" if value is None else toml(value)


def toml(value: Any) -> str:
    """A value as one writes it in the input."""
    match value:
        case bool():
            return str(value).lower()
        case Enum():
            return toml(value.value)
        case str() | Path():
            return json.dumps(str(value), ensure_ascii=False)  # escapes are those of TOML
        case list() | tuple():
            return f"[{', '.join(map(toml, value))}]"
        case dict() if value:
            return "{ " + ", ".join(f"{key} = {toml(item)}" for key, item in value.items()) + " }"
        case dict():
            return "{}"
        case float() if 0 < abs(value) < 1e-3 or abs(value) >= 1e6:
            return f"{value:.0e}".replace("e-0", "e-")
    return str(value)


def type_text(annotation: Any, metadata: Any = ()) -> str:
    """An annotation in words: ``number > 0``, ``"nve" or "nvt"``, ``list of paths``."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return type_text(arguments[0], (*arguments[1:], *metadata))
    if origin is Literal:
        return " or ".join(map(toml, arguments))
    if origin in (Union, types.UnionType):
        words = [type_text(item, metadata) for item in arguments if item is not type(None)]
        return " or ".join(dict.fromkeys(words))
    if origin is list:
        return f"list of {type_text(arguments[0])}"
    if origin is tuple:
        return f"[{', '.join(type_text(item) for item in arguments)}]"
    if origin is dict:
        return "table"
    return " ".join([NAMES.get(annotation, getattr(annotation, "__name__", str(annotation))), *_bounds(metadata)])


def _bounds(metadata: Any) -> list[str]:
    """What pydantic keeps of gt, ge, lt, le, in words."""
    flat = [inner for item in metadata for inner in getattr(item, "metadata", [item])]
    found = [f"{sign} {getattr(item, name):g}" for item in flat for name, sign in BOUNDS.items() if hasattr(item, name)]
    return [" and ".join(found)] if found else []
