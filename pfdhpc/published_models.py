"""Published models of a run, ``models/<digest>.pt`` and what was frozen of them, held to their digests."""

import re
from hashlib import file_digest
from pathlib import Path

from .errors import InputError

FOLDER = "models"
"""Of a run directory, where its models are."""
_NAME = re.compile(r"([0-9a-f]{32})(\.product)?\.pth?")


def check_published(path: Path) -> None:
    """Raise InputError when a model in the folder ``models`` of a run is not the one that was published.

    A checkpoint is named by the beginning of its SHA-256; that of a frozen model is told by a file beside it, which
    runs of older versions lack. Files of other names and places pass.
    """
    path = path.resolve()
    wanted = _published_model(path)
    if not wanted:
        return
    try:
        with path.open("rb") as file:
            found = file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    if not found.startswith(wanted):
        raise InputError(
            f"{path}: damaged: its SHA-256 is {found[:16]}..., it was published with"
            f" {wanted[:16]}...; put a sound copy of the file back, or begin another run with init.data ="
            f' ["{path.parents[1]}"], which takes over all labels'
        )


def sum_of(path: Path) -> Path:
    """The file that tells the SHA-256 of a published model whose name does not; models of older runs have none."""
    return path.with_name(f"{path.name}.sha256")


def _published_model(path: Path) -> str:
    """How the SHA-256 of a model began when it was published; empty where that is not known."""
    name = _NAME.fullmatch(path.name)
    if name is None or path.parent.name != FOLDER:
        return ""
    if sum_of(path).is_file():
        return sum_of(path).read_text().strip()
    return name[1] if path.suffix == ".pt" else ""
