"""Resolved inputs that an older pfdhpc kept, read by this one."""

from collections.abc import Mapping
from typing import Any, get_args, get_origin

from pydantic import BaseModel, TypeAdapter
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from .schema import Config


def completed(values: Mapping[str, Any], model: type[BaseModel] = Config) -> dict[str, Any]:
    """``values`` with the defaults of the keys that were not known then: what they stand for is what was done."""
    filled = dict(values)
    for name, info in model.model_fields.items():
        if name not in values and not info.is_required():
            filled[name] = _default(info)
        elif section := _section(info.annotation):
            filled[name] = _inside(values.get(name), section)
    return filled


def _inside(value: Any, section: type[BaseModel]) -> Any:
    if isinstance(value, list):
        return [_inside(item, section) for item in value]
    return completed(value, section) if isinstance(value, Mapping) else value


def _default(info: FieldInfo) -> Any:
    """As it is kept: plain values."""
    default = info.get_default(call_default_factory=True)
    return to_jsonable_python(TypeAdapter(info.annotation).validate_python(default))


def _section(annotation: Any) -> type[BaseModel] | None:
    """The section that an annotation has in it, if any; tables by a name of the user's own are left as they are."""
    if get_origin(annotation) is dict:
        return None
    if isinstance(annotation, type):
        return annotation if issubclass(annotation, BaseModel) else None
    return next(filter(None, map(_section, get_args(annotation))), None)
