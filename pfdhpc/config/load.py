"""Reads an input file; every problem in it becomes one line of a single :class:`InputError`."""

import difflib
import json
import re
import tomllib
from pathlib import Path
from typing import Any, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from ..errors import InputError
from .file_digest import content_digest
from .label import PATHS, LabelSection
from .pfd_stages import first_act, second_act
from .restart_changes import flat
from .schema import Config

HINTS = {"ranks.explorer.ranks": "an explorer is one rank; remove the key and ask for more ranks.explorer.teams"}
"""What to do about an unknown key that one might well expect to exist."""


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


def parse(values: dict[str, Any], base: Path, standing_in: bool = False) -> Config:
    """Validate an input given as a dict; relative paths are taken from ``base``.

    ``standing_in``: of a distillation whose teacher is still to be fine-tuned from the model it names.
    """
    try:
        config = Config.model_validate(values, context={"base": base, "standing_in": standing_in})
    except ValidationError as error:
        raise InputError(line for item in error.errors() for line in _explain(item)) from None
    if config.workflow == "pfd":
        given = _distillation(second_act(config), base, True).model_dump(exclude_unset=True)
        resolved = {name: given[name] for name in config.distill}  # paths in it start from the input's folder, too
        config = config.model_copy(update={"distill": resolved})
    if config.label.type == "deepmd" and not Path(model := config.label.options["model"]).is_file():
        raise InputError(f"label.options.model: no such file: {model}")  # its content is the level of theory
    return config


def stage_config(config: Config, number: int, teacher: Path | None = None, held_out: Path | None = None) -> Config:
    """The first (0) or second (1) run that a ``pfd`` input stands for; see :mod:`pfdhpc.config.pfd_stages`."""
    if not number:
        return first_act(config)
    return _distillation(second_act(config, teacher, held_out), Path.cwd(), teacher is None)


def _distillation(values: dict[str, Any], base: Path, standing_in: bool) -> Config:
    try:
        return parse(values, base, standing_in)
    except InputError as error:
        raise InputError(f"distill.{line.removeprefix('input: ')}" for line in error.problems) from None


def parse_section(name: str, model: type[BaseModel], values: dict[str, Any]) -> Any:
    """Validate one section of the input alone, with the messages a whole input gets."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        found = [{**item, "loc": (name, *item["loc"])} for item in error.errors()]
        raise InputError(line for item in found for line in _explain(item)) from None


def dump(config: Config) -> str:
    """The resolved input as JSON text with sorted keys: what is compared on a restart.

    Besides the sections it has ``files``: by key, the digest of every file the input names (a list of
    digests where the key is a list). Reads those files, so call it on one rank only.
    """
    files = {key: _digests(value) for key, value in _files(config).items()}
    return json.dumps({**config.model_dump(mode="json"), "files": files}, sort_keys=True, indent=1)


def _files(config: Config) -> dict[str, Any]:
    """What the input reads, by key: a path or a list of paths."""
    named = {key: value for key, value in flat(config.model_dump()).items() if _is_path(value)}
    named.pop("run.directory")
    named.pop("label.launch.scratch", None)
    named.pop("model.path", None)  # what an own calculator reads, nobody knows
    return named | label_files(config.label)


def label_files(label: LabelSection) -> dict[str, Any]:
    """The files among the labeler's options, by key; of a folder, those that another option names."""
    found: dict[str, Any] = {}
    tables = {"label.options": label.options, **{f"label.systems.{name}": own for name, own in label.systems.items()}}
    for where, options in tables.items():
        for key, names in PATHS.get(label.type, {}).items():
            if key not in options or (label.type, key) == ("ase", "path"):
                continue  # what an own calculator reads, nobody knows
            path = Path(options[key])
            table = options.get(names, label.options.get(names)) if names else None
            named = table if isinstance(table, dict) else {}
            found[f"{where}.{key}"] = [path / str(named[name]) for name in sorted(named)] if names else path
    return found


def _is_path(value: Any) -> bool:
    return isinstance(value, Path) or (isinstance(value, list) and bool(value) and _is_path(value[0]))


def _digests(value: Path | list[Path]) -> Any:
    return [content_digest(path) for path in value] if isinstance(value, list) else content_digest(value)


def _explain(item: dict[str, Any]) -> list[str]:
    """The lines of one of pydantic's errors; a validator that found several problems gives a line each."""
    lines = item["msg"].removeprefix("Value error, ").split("\n")
    if item["type"] == "value_error" and isinstance(item["input"], dict):
        return [_in_section(item["loc"], line) for line in lines]
    return [_explain_value(item, " ".join(lines))]


def _in_section(location: tuple, line: str) -> str:
    """A section's own line, which may begin with one of its keys."""
    section = _key(location)
    if section and line.split(":")[0].split(".")[0] in _siblings(location):
        return f"{section}.{line}"
    return f"{section or 'input'}: {line}"


def _explain_value(item: dict[str, Any], message: str) -> str:
    location = item["loc"]
    key = _key(location) or "input"
    if item["type"] == "extra_forbidden":
        key = ".".join(filter(None, [_key(location[:-1]), _as_written(location[-1])]))
        if key in HINTS:
            return f"{key}: unknown key; {HINTS[key]}"
        allowed = _siblings(location[:-1])
        near = difflib.get_close_matches(str(location[-1]), allowed, 1, 0.5)
        meant = f'did you mean "{near[0]}"?' if near else f"known here: {', '.join(sorted(allowed))}"
        return f"{key}: unknown key; {meant}"
    if item["type"] == "missing":
        return f"{key}: missing; {_description(location)}".rstrip("; ")
    return f"{key}: {message} (given: {item['input']!r})"


def _as_written(name: Any) -> str:
    """A key of the user's as TOML has it: quoted where it is not a bare one."""
    return name if re.fullmatch(r"[\w-]+", str(name), re.ASCII) else json.dumps(str(name))


def _key(location: tuple) -> str:
    """``system[0].name`` from pydantic's location; branches of a union are left out."""
    text = ""
    for part in location:
        if isinstance(part, int):
            text += f"[{part}]"
        elif str(part).isidentifier() or text == "":
            text += f".{part}" if text else str(part)
    return text


def _fields(location: tuple) -> dict[str, FieldInfo]:
    """The keys of the section at a place; none where it is no section."""
    fields, named = Config.model_fields, False  # named: the next part is a user's name for one of several sections
    for part in location:
        if not (isinstance(part, int) or named or str(part).isidentifier()):
            continue  # a branch of a union
        if not isinstance(part, int) and not named:
            field = fields.get(part)
            inner = _section_in(field.annotation) if field else None
            fields = inner.model_fields if inner else {}
            named = bool(inner) and get_origin(field.annotation) is dict
        else:
            named = False
    return fields


def _section_in(annotation: Any) -> type[BaseModel] | None:
    """The section an annotation allows: itself, or one of the parts of a list or a union."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_section_in, getattr(annotation, "__args__", ()))), None)


def _siblings(location: tuple) -> list[str]:
    return list(_fields(location))


def _description(location: tuple) -> str:
    field = _fields(location[:-1]).get(location[-1])
    return (field and field.description) or f"[{_key(location)}] is required"
