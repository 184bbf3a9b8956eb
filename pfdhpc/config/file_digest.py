"""What is in a file or folder, as a digest: the same content is the same input, wherever it lies."""

from functools import lru_cache
from hashlib import file_digest, sha256
from pathlib import Path

ABSENT = "absent"


def content_digest(path: Path) -> str:
    """sha256 of a file, or over the names and contents of all files in a folder; "absent" if it cannot be read."""
    try:
        if not path.is_dir():
            return _file(path)
        inner = sorted(found for found in path.rglob("*") if found.is_file())
        return sha256("".join(f"{found.relative_to(path)} {_file(found)}\n" for found in inner).encode()).hexdigest()
    except OSError:
        return ABSENT


def _file(path: Path) -> str:
    facts = path.stat()
    return _read(path, facts.st_size, facts.st_mtime_ns)


@lru_cache(maxsize=4096)
def _read(path: Path, size: int, changed: int) -> str:
    """A file of gigabytes is read once a job; ``size`` and ``changed`` tell when it is another one."""
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()
