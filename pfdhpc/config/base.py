"""The strict base of every input section, and paths that resolve from the input file."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationInfo


class Section(BaseModel):
    """A section of the input: unknown keys are errors, values never change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def resolve(path: Path, info: ValidationInfo) -> Path:
    """``path`` as an absolute one, starting from the folder of the input file."""
    base = (info.context or {}).get("base", Path.cwd())
    return (base / path.expanduser()).resolve()


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise ValueError(f"no such file: {path}")
    return path


AnyPath = Annotated[Path, AfterValidator(resolve)]
"""A path, relative to the folder of the input file."""

ExistingFile = Annotated[Path, AfterValidator(resolve), AfterValidator(_existing)]
"""A file that must be there when the input is read."""
