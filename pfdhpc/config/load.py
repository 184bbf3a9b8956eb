"""Reads an input file; every problem in it becomes one line of a single :class:`InputError`."""

import difflib
import json
import tomllib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from ..errors import InputError
from .schema import Config


def load(path: str | Path) -> Config:
    """Read, resolve and validate an input file; paths in it are relative to its folder."""
    path = Path(path)
    try:
        values = tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise InputError(f"{path}: no such input file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid TOML: {error}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    return parse(values, path.resolve().parent)


def parse(values: dict[str, Any], base: Path) -> Config:
    """Validate an input given as a dict; relative paths are taken from ``base``."""
    try:
        return Config.model_validate(values, context={"base": base})
    except ValidationError as error:
        raise InputError(_explain(item) for item in error.errors()) from None


def dump(config: Config) -> str:
    """The resolved input as JSON text with sorted keys: what is compared on a restart."""
    return json.dumps(config.model_dump(mode="json"), sort_keys=True, indent=1)


def _explain(item: dict[str, Any]) -> str:
    location = item["loc"]
    key = _key(location) or "input"
    if item["type"] == "extra_forbidden":
        allowed = _siblings(location[:-1])
        near = difflib.get_close_matches(str(location[-1]), allowed, 1, 0.5)
        meant = f'did you mean "{near[0]}"?' if near else f"known here: {', '.join(sorted(allowed))}"
        return f"{key}: unknown key; {meant}"
    if item["type"] == "missing":
        return f"{key}: missing; {_description(location)}".rstrip("; ")
    message = item["msg"].removeprefix("Value error, ")
    if item["type"] == "value_error" and isinstance(item["input"], dict):
        return f"{key}: {message}"
    return f"{key}: {message} (given: {item['input']!r})"


def _key(location: tuple) -> str:
    """``system[0].name`` from pydantic's location; branches of a union are left out."""
    text = ""
    for part in location:
        if isinstance(part, int):
            text += f"[{part}]"
        elif str(part).isidentifier() or text == "":
            text += f".{part}" if text else str(part)
    return text


def _model_at(location: tuple) -> type[BaseModel]:
    model = Config
    for part in location:
        if isinstance(part, int):
            continue
        annotation = model.model_fields[part].annotation
        inner = getattr(annotation, "__args__", (annotation,))[0]
        model = inner if isinstance(inner, type) and issubclass(inner, BaseModel) else annotation
    return model


def _siblings(location: tuple) -> list[str]:
    return list(_model_at(location).model_fields)


def _description(location: tuple) -> str:
    field = _model_at(location[:-1]).model_fields[location[-1]]
    return field.description or f"the section [{location[-1]}] is required"
